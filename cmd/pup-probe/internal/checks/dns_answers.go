package checks

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// lists reads the lists of wanted and unwanted records.
func (w *dnsWish) lists(opt *dnsOptions) error {
	for _, l := range []struct {
		option string
		texts  []string
		to     *[]dns.RR
	}{
		{"answers", opt.Answers, &w.answers}, {"contains", opt.Contains, &w.contains},
		{"any", opt.Any, &w.any}, {"none", opt.None, &w.none},
	} {
		for _, text := range l.texts {
			rr, err := dnsWanted(w.qtype, text)
			if err != nil {
				return probe.Failf(wire.BadOptions, "dns.%s: %w", l.option, err)
			}
			*l.to = append(*l.to, rr)
		}
	}
	for _, text := range opt.Networks {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			a, aerr := netip.ParseAddr(text)
			if aerr != nil {
				return probe.Failf(wire.BadOptions, "dns.networks: %.60q is no network such as 192.0.2.0/24", text)
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		w.networks = append(w.networks, n)
	}
	return nil
}

// dnsWanted reads a record's data as a zone file has it. A text may come
// without quotes, as a whole.
func dnsWanted(qtype uint16, text string) (dns.RR, error) {
	if qtype == dns.TypeANY {
		return nil, fmt.Errorf("can't be used with type ANY, since it does not say of what type the records are")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("%.80q is no data of a record", text)
	}
	if dnsIsText(qtype) && !strings.HasPrefix(text, `"`) {
		return &dns.TXT{Hdr: dns.RR_Header{Rrtype: qtype}, Txt: []string{dnsEscape(text)}}, nil
	}
	rr, err := dns.NewRR(". 0 IN " + dnsType(qtype) + " " + text)
	if err != nil || rr == nil {
		return nil, fmt.Errorf("%.80q is no data of type %s", text, dnsType(qtype))
	}
	return rr, nil
}

func dnsIsText(qtype uint16) bool { return qtype == dns.TypeTXT || qtype == dns.TypeSPF }

// dnsTexts gives the strings of a text record, in the library's escaped form.
func dnsTexts(rr dns.RR) []string {
	switch rr := rr.(type) {
	case *dns.TXT:
		return rr.Txt
	case *dns.SPF:
		return rr.Txt
	}
	return nil
}

// dnsEscape writes a text as the library keeps it: \DDD for what is no
// printable ASCII, and a backslash before quotes and backslashes.
func dnsEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// dnsUnescape undoes dnsEscape.
func dnsUnescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			i++
			c = s[i]
			if i+2 < len(s) && dnsDigit(s[i]) && dnsDigit(s[i+1]) && dnsDigit(s[i+2]) {
				c = byte(int(s[i]-'0')*100 + int(s[i+1]-'0')*10 + int(s[i+2]-'0'))
				i += 2
			}
		}
		b = append(b, c)
	}
	return string(b)
}

func dnsDigit(c byte) bool { return c >= '0' && c <= '9' }

// dnsData gives a record without its name, TTL and type.
func dnsData(rr dns.RR) string {
	if texts := dnsTexts(rr); texts != nil {
		return dnsUnescape(strings.Join(texts, ""))
	}
	if unknown, ok := rr.(*dns.RFC3597); ok {
		return fmt.Sprintf(`\# %d %s`, len(unknown.Rdata)/2, strings.ToLower(unknown.Rdata))
	}
	var ip net.IP // the most frequent ones, and the library makes a detour over their name
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A.To4()
	case *dns.AAAA:
		ip = rr.AAAA
	}
	if a, ok := netip.AddrFromSlice(ip); ok {
		return a.String()
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// dnsEqual compares the data of two records of one type: names in any case,
// texts whatever their pieces.
func dnsEqual(a, b dns.RR) bool {
	if x, y := dnsTexts(a), dnsTexts(b); x != nil && y != nil {
		return strings.Join(x, "") == strings.Join(y, "")
	}
	if x, ok := a.(*dns.RFC3597); ok {
		y, ok := b.(*dns.RFC3597)
		return ok && strings.EqualFold(x.Rdata, y.Rdata)
	}
	c := dns.Copy(a)
	*c.Header() = *b.Header()
	return dns.IsDuplicate(c, b)
}

func dnsContains(list []dns.RR, rr dns.RR) bool {
	return slices.ContainsFunc(list, func(x dns.RR) bool { return dnsEqual(x, rr) })
}

// dnsMissing lists what of want is not in got.
func dnsMissing(want, got []dns.RR) []string {
	var missing []string
	for _, rr := range want {
		if !dnsContains(got, rr) {
			missing = append(missing, dnsData(rr))
		}
	}
	return missing
}

// judge compares the records that came with those that are wanted.
func (w *dnsWish) judge(got []dns.RR, m *dns.Msg) error {
	var wrong []string
	say := func(what string, records []string) {
		if len(records) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s %.200q", what, strings.Join(records, ", ")))
		}
	}
	if w.exact {
		say("missing", dnsMissing(w.answers, got))
		say("unexpected", dnsMissing(got, w.answers))
	}
	say("missing", dnsMissing(w.contains, got))
	if len(w.any) > 0 && !slices.ContainsFunc(w.any, func(rr dns.RR) bool { return dnsContains(got, rr) }) {
		say("none of", dnsMissing(w.any, nil))
	}
	for _, rr := range w.none {
		if dnsContains(got, rr) {
			say("unwanted", []string{dnsData(rr)})
		}
	}
	if len(w.networks) > 0 {
		say("outside of the networks", w.outside(got))
	}
	if len(wrong) > 0 {
		return probe.Failf(wire.Mismatch, "%s %s: %s", w.name, dnsType(w.qtype), strings.Join(wrong, "; "))
	}
	if len(got) == 0 && w.rcode == dns.RcodeSuccess && !w.exact {
		if len(m.Answer) == 0 && !m.Authoritative && slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }) {
			return probe.Failf(wire.Mismatch, "%s %s: the server only refers to other servers", w.name, dnsType(w.qtype))
		}
		return probe.Failf(wire.Mismatch, "%s has no %s record", w.name, dnsType(w.qtype))
	}
	return nil
}

// outside lists the addresses that lie in none of the networks.
func (w *dnsWish) outside(got []dns.RR) []string {
	var out []string
	for _, rr := range got {
		a, err := netip.ParseAddr(dnsData(rr))
		if err != nil || !slices.ContainsFunc(w.networks, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) }) {
			out = append(out, dnsData(rr))
		}
	}
	return out
}
