package checks

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/probe"
)

type dnsOptions struct {
	Type             string   `json:"type" doc:"The type of record to ask for, by its name or as TYPE and its number. A if absent, or PTR where the URL asks for an address."`
	Class            string   `json:"class" enum:"IN,CH,HS" doc:"The class."`
	Recursion        bool     `json:"recursion" doc:"Ask for recursion (the flag RD). Turn it off to see what an authoritative server has itself."`
	EDNS             bool     `json:"edns" doc:"Use EDNS, with answers of up to 1232 bytes over UDP, and ask for the server's identifier."`
	DNSSEC           bool     `json:"dnssec" doc:"Ask for signatures (the flag DO)."`
	CheckingDisabled bool     `json:"checking_disabled" doc:"Ask a validating resolver for data that does not validate as well (the flag CD)."`
	Rcode            string   `json:"rcode" doc:"The response code that is wanted, such as NXDOMAIN for a name that must not exist."`
	Authoritative    bool     `json:"authoritative" doc:"The answer must be authoritative (the flag AA)."`
	Answers          []string `json:"answers" doc:"Exactly these records must come, in any order, written as in a zone file without name, TTL and type: 192.0.2.1, 10 mail.example.org. Names need no dot at their end, texts no quotes. An empty list: the name has no such record."`
	Contains         []string `json:"contains" doc:"All of these records must be among those that come."`
	Any              []string `json:"any" doc:"At least one of these records must come."`
	None             []string `json:"none" doc:"None of these records may come."`
	Networks         []string `json:"networks" doc:"Every address that comes must lie in one of these networks, such as 192.0.2.0/24."`
	Verify           bool     `json:"verify" doc:"Verify the signatures of the answer with the keys of its zone, which the same server gives. Sets dnssec."`
	DS               []string `json:"ds" doc:"With verify: DS records of the zone, as its parent has them or should: key tag, algorithm, type of digest, digest. A key that one of them vouches for must have signed the keys."`
	Serial           string   `json:"serial" enum:"agree" doc:"Ask every address of every name server of the zone that the URL names for its SOA record, without recursion: all must answer, be authoritative and have the same serial. The type is NS then, and answers can hold the names of the servers."`
	MaxSerialLag     int      `json:"max_serial_lag" min:"0" doc:"With serial: how far the oldest serial may lie behind the newest."`
	Path             string   `json:"path" doc:"The path of the service, for dns+https."`
}

type dnsFacts struct {
	Name            string      `json:"name" doc:"The name that was asked for."`
	Type            string      `json:"type" doc:"The type that was asked for."`
	Rcode           string      `json:"rcode" doc:"The response code: NOERROR, NXDOMAIN, SERVFAIL, REFUSED and so on."`
	ExtendedError   string      `json:"extended_error" doc:"What the server says about an error in more detail (RFC 8914)."`
	Count           *int        `json:"count" doc:"The number of records of the type that was asked for."`
	Answers         []string    `json:"answers" doc:"These records, without name, TTL and type; texts are joined and without quotes."`
	Aliases         []string    `json:"aliases" doc:"The names that the CNAME records of the answer lead to, in order."`
	TTLMinSeconds   *int        `json:"ttl_min_seconds" doc:"The lowest TTL in the answer."`
	TTLMaxSeconds   *int        `json:"ttl_max_seconds" doc:"The highest TTL in the answer."`
	AA              *bool       `json:"aa" doc:"The answer is authoritative."`
	TC              *bool       `json:"tc" doc:"The answer over UDP was truncated, so it was fetched over TCP."`
	RD              *bool       `json:"rd" doc:"Recursion was desired."`
	RA              *bool       `json:"ra" doc:"The server offers recursion."`
	AD              *bool       `json:"ad" doc:"The server has validated the answer with DNSSEC."`
	Serial          *uint32     `json:"serial" doc:"The serial of the zone: of a SOA record in the answer, or the newest of all name servers."`
	SerialLag       *int        `json:"serial_lag" doc:"How far the oldest serial lies behind the newest, where all name servers were asked."`
	Servers         []dnsServer `json:"servers" doc:"The name servers of the zone, where all were asked."`
	RRSIGDaysLeft   *float64    `json:"rrsig_days_left" doc:"Days until the first signature of the answer expires; negative when one has."`
	Verified        *bool       `json:"verified" doc:"Whether the signatures of the answer are valid, where verify asks for it."`
	Signers         []string    `json:"signers" doc:"The zones whose keys were used for that."`
	AuthorityCount  *int        `json:"authority_count" doc:"The number of records in the authority section."`
	AdditionalCount *int        `json:"additional_count" doc:"The number of records in the additional section, without OPT."`
	EDNS            *bool       `json:"edns" doc:"The server speaks EDNS."`
	ServerID        string      `json:"server_id" doc:"The server's identifier (NSID), as text or else in hex."`
	Transport       string      `json:"transport" doc:"How the answer came: udp, tcp, tls, https."`
	AnswerBytes     *int        `json:"answer_bytes" doc:"The size of the answer."`
	Resent          *int        `json:"resent" doc:"How often a question was sent again over UDP, since no answer came."`
	Ignored         int         `json:"ignored" doc:"Messages that were no answers to our questions. Checks of one server at the same time share a socket, and each counts what is nobody's answer."`
	Records         []dnsRecord `json:"records" doc:"All records of the answer section."`
}

type dnsRecord struct {
	Name       string `json:"name" doc:"Its owner."`
	Type       string `json:"type" doc:"Its type."`
	TTLSeconds *int   `json:"ttl_seconds" doc:"Its time to live."`
	Data       string `json:"data" doc:"The rest, as in a zone file."`
}

type dnsServer struct {
	Name          string  `json:"name" doc:"Its name."`
	Address       string  `json:"address" doc:"The address that was asked."`
	Serial        *uint32 `json:"serial" doc:"The serial that it has."`
	Authoritative *bool   `json:"authoritative" doc:"It answers with authority."`
	Error         string  `json:"error" doc:"Why it has no serial for us."`
}

func init() {
	register(probe.Info{
		Name:    "dns",
		Summary: "the server answers the question, rightly",
		Schemes: []probe.Scheme{
			{Name: "dns", Port: 53}, {Name: "dns+tcp", Port: 53},
			{Name: "dns+tls", Port: 853, TLS: true}, {Name: "dns+https", Port: 443, TLS: true},
		},
		Example: "dns://ns1.example.org/www.example.org",
		Common:  []string{"tls", "resolver", "address", "connect", "family", "source"},
		Warn:    []string{"(dns.rrsig_days_left ?? 99) > 1"},
		Doc: `The host of the URL is the server to ask, its path the name to ask for; an address in its place asks for the name of that address. ` + "`dns`" + ` asks over UDP, again after one, two, four seconds, and over TCP when the answer is truncated; ` + "`dns+tcp`, `dns+tls` (RFC 7858) and `dns+https`" + ` (RFC 8484, HTTP/2 or 1.1) as they say.

Up means that the server gave an answer to this question with the wanted response code, and at least one record of the type unless a list says otherwise. It does not mean that the records are the right ones, unless ` + "`answers`" + ` or another list says which those are, nor that a resolver has validated them (` + "`expect = [\"dns.ad\"]`" + `).

Messages with another identifier or another question, and those that are no responses, are no answers: they are counted and the wait goes on. SERVFAIL is ` + "`unavailable`, REFUSED is `denied`, any other unexpected response code `mismatch`" + `. A UDP port that is closed is ` + "`refused`" + `, silence is ` + "`timeout`" + `.

With ` + "`verify`" + ` every set of records in the answer, or in the authority section when there is no answer, needs a signature that is valid now, by a key in the zone's DNSKEY records, which must be signed by one of themselves: with ` + "`ds`" + ` by one that the DS records vouch for, without it that proves no more than that the zone is consistent. Whether an absence is proved (NSEC, NSEC3) is not judged.

With ` + "`serial`" + ` the servers are those of the NS records that the asked server gives, at the addresses that it gives along or that the resolver finds, on the port of the URL.

The phases: request sending a question, wait until its answer, transfer reading it (not over UDP), verify judging it. RFC 1035, 2181, 2308, 6891, 7766, 4033 to 4035, 1982.`,
	}, dnsOptions{Class: "IN", Recursion: true, EDNS: true, Rcode: "NOERROR", Path: "/dns-query"}, dnsCheck)
}

func dnsCheck(ctx context.Context, p *probe.Probe, opt *dnsOptions, facts *dnsFacts) error {
	w, err := dnsPlan(p, opt)
	if err != nil {
		return err
	}
	facts.Name, facts.Type = w.name, dnsType(w.qtype)
	s := &dnsSession{ctx: ctx, p: p, opt: opt, facts: facts}
	defer s.close()
	m, err := s.ask(w.name, w.qtype, w.class)
	if err != nil {
		return err
	}
	p.Phase(wire.Verify)
	answer := dnsMeasure(facts, m, w)
	if err := dnsRcode(opt, m, w); err != nil {
		return err
	}
	if opt.Authoritative && !m.Authoritative {
		return probe.Failf(wire.Mismatch, "the answer is not authoritative")
	}
	if err := w.judge(answer, m); err != nil {
		return err
	}
	if opt.Verify {
		if err := s.verify(m); err != nil {
			return err
		}
	}
	if opt.Serial != "" {
		return s.agree(m, w.name)
	}
	return nil
}

// A dnsWish is what to ask for, and the answers that are wanted.
type dnsWish struct {
	name                         string
	qtype, class                 uint16
	rcode                        int
	answers, contains, any, none []dns.RR
	exact                        bool // answers are given, if only as an empty list
	networks                     []netip.Prefix
}

// dnsPlan reads the URL and the options.
func dnsPlan(p *probe.Probe, opt *dnsOptions) (*dnsWish, error) {
	w := &dnsWish{class: dns.StringToClass[opt.Class], qtype: dns.TypeA, exact: opt.Answers != nil}
	w.name = strings.TrimSuffix(strings.TrimPrefix(p.URL.Path, "/"), ".")
	if a, err := netip.ParseAddr(w.name); err == nil {
		w.name, _ = dns.ReverseAddr(a.Unmap().WithZone("").String())
		w.name, w.qtype = strings.TrimSuffix(w.name, "."), dns.TypePTR
	}
	if w.name != "" {
		if err := dnsmsg.Valid(w.name); err != nil {
			return nil, probe.Failf(wire.BadOptions, "url: %w", err)
		}
	}
	w.name = dns.Fqdn(w.name)
	var ok bool
	if w.rcode, ok = dns.StringToRcode[strings.ToUpper(opt.Rcode)]; !ok {
		return nil, probe.Failf(wire.BadOptions, "dns.rcode: no response code is called %.40q", opt.Rcode)
	}
	if opt.Serial != "" {
		w.qtype = dns.TypeNS
	}
	if opt.Type != "" {
		t, err := dnsParseType(opt.Type)
		if err != nil {
			return nil, err
		}
		if opt.Serial != "" && t != dns.TypeNS {
			return nil, probe.Failf(wire.BadOptions, "dns.type: with serial the type is NS")
		}
		w.qtype = t
	}
	if len(opt.DS) > 0 && !opt.Verify {
		return nil, probe.Failf(wire.BadOptions, "dns.ds: needs verify")
	}
	if !strings.HasPrefix(opt.Path, "/") || strings.ContainsFunc(opt.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, probe.Failf(wire.BadOptions, "dns.path: %.80q is no path such as /dns-query", opt.Path)
	}
	return w, w.lists(opt)
}

func dnsParseType(s string) (uint16, error) {
	s = strings.ToUpper(s)
	if t, ok := dns.StringToType[s]; ok {
		return t, nil
	}
	if digits, ok := strings.CutPrefix(s, "TYPE"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil && n > 0 {
			return uint16(n), nil
		}
	}
	return 0, probe.Failf(wire.BadOptions, "dns.type: no type of record is called %.40q; another can be written as TYPE and its number", s)
}

func dnsType(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// dnsMeasure takes the facts of an answer, and gives its records of the type
// that was asked for.
func dnsMeasure(f *dnsFacts, m *dns.Msg, w *dnsWish) []dns.RR {
	f.Rcode, f.ExtendedError = dnsmsg.Rcode(m.Rcode), dnsmsg.Extended(m)
	v := &struct { // in one piece
		count, authority, additional, ttlMin, ttlMax int
		header                                       dns.MsgHdr
		edns                                         bool
	}{authority: len(m.Ns), additional: len(m.Extra), header: m.MsgHdr}
	f.AA, f.RD, f.RA, f.AD = &v.header.Authoritative, &v.header.RecursionDesired, &v.header.RecursionAvailable, &v.header.AuthenticatedData
	if f.TC == nil {
		f.TC = &v.header.Truncated
	}
	f.Count, f.AuthorityCount, f.AdditionalCount = &v.count, &v.authority, &v.additional
	if opt := m.IsEdns0(); opt != nil {
		v.additional--
		v.edns = true
		f.EDNS = &v.edns
		for _, o := range opt.Option {
			if n, ok := o.(*dns.EDNS0_NSID); ok {
				f.ServerID = dnsIdentifier(n.Nsid)
			}
		}
	}
	var answer []dns.RR
	ttls := make([]int, len(m.Answer))
	for i, rr := range m.Answer {
		h := rr.Header()
		data := dnsData(rr)
		ttls[i] = int(h.Ttl)
		f.Records = append(f.Records, dnsRecord{strings.TrimSuffix(h.Name, "."), dnsType(h.Rrtype), &ttls[i], data})
		if h.Rrtype == w.qtype || w.qtype == dns.TypeANY && h.Rrtype != dns.TypeRRSIG {
			answer = append(answer, rr)
			f.Answers = append(f.Answers, data)
		}
		switch rr := rr.(type) {
		case *dns.CNAME:
			f.Aliases = append(f.Aliases, strings.TrimSuffix(rr.Target, "."))
		case *dns.SOA:
			f.Serial = new(rr.Serial)
		}
	}
	v.count = len(answer)
	if len(ttls) > 0 {
		v.ttlMin, v.ttlMax = slices.Min(ttls), slices.Max(ttls)
		f.TTLMinSeconds, f.TTLMaxSeconds = &v.ttlMin, &v.ttlMax
	}
	if days, ok := dnsDaysLeft(m); ok {
		f.RRSIGDaysLeft = &days
	}
	return answer
}

// dnsIdentifier makes text of an identifier in hex, if it is text.
func dnsIdentifier(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil || !utf8.Valid(b) || strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' }) {
		return s
	}
	return string(b)
}

// dnsRcode says what is wrong with the response code.
func dnsRcode(opt *dnsOptions, m *dns.Msg, w *dnsWish) error {
	if m.Rcode == w.rcode {
		return nil
	}
	reason := wire.Mismatch
	switch m.Rcode {
	case dns.RcodeServerFailure:
		reason = wire.Unavailable
	case dns.RcodeRefused:
		reason = wire.Denied
	}
	why := dnsmsg.Extended(m)
	if why != "" {
		why = " (" + why + ")"
	}
	return probe.Failf(reason, "%s %s: got %s%s, want %s", w.name, dnsType(w.qtype), dnsmsg.Rcode(m.Rcode), why, dnsmsg.Rcode(w.rcode))
}
