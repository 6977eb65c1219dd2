package checks

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// dnsDaysLeft gives the days until the first signature in m expires.
func dnsDaysLeft(m *dns.Msg) (days float64, ok bool) {
	now := time.Now()
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			sig, is := rr.(*dns.RRSIG)
			if !is {
				continue
			}
			if d := dnsUntil(sig.Expiration, now).Hours() / 24; !ok || d < days {
				days, ok = d, true
			}
		}
	}
	return days, ok
}

// dnsUntil gives the time from now to t, which counts seconds in serial number
// arithmetic (RFC 4034, section 3.1.5).
func dnsUntil(t uint32, now time.Time) time.Duration {
	return time.Duration(int32(t-uint32(now.Unix()))) * time.Second
}

// A dnsSet is a set of records of one name and type, and its signatures.
type dnsSet struct {
	rrs  []dns.RR
	sigs []*dns.RRSIG
}

func (s *dnsSet) String() string {
	h := s.rrs[0].Header()
	return h.Name + " " + dnsType(h.Rrtype)
}

// dnsSets sorts a section into its sets. A CNAME that follows from a DNAME
// needs no signature of its own (RFC 6672, section 5.3.1).
func dnsSets(section []dns.RR) []*dnsSet {
	var sets []*dnsSet
	find := func(name string, t uint16) *dnsSet {
		for _, s := range sets {
			if h := s.rrs[0].Header(); h.Rrtype == t && strings.EqualFold(h.Name, name) {
				return s
			}
		}
		return nil
	}
	for _, rr := range section {
		h := rr.Header()
		if h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeOPT || dnsSynthesized(rr, section) {
			continue
		}
		if s := find(h.Name, h.Rrtype); s != nil {
			s.rrs = append(s.rrs, rr)
		} else {
			sets = append(sets, &dnsSet{rrs: []dns.RR{rr}})
		}
	}
	for _, rr := range section {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if s := find(sig.Hdr.Name, sig.TypeCovered); s != nil {
				s.sigs = append(s.sigs, sig)
			}
		}
	}
	return sets
}

func dnsSynthesized(rr dns.RR, section []dns.RR) bool {
	return rr.Header().Rrtype == dns.TypeCNAME && slices.ContainsFunc(section, func(d dns.RR) bool {
		return d.Header().Rrtype == dns.TypeDNAME && !strings.EqualFold(d.Header().Name, rr.Header().Name) && dns.IsSubDomain(d.Header().Name, rr.Header().Name)
	})
}

// The bounds keep the work that an answer can cause small.
const (
	dnsMaxSets    = 32
	dnsMaxSigs    = 8 // of a set
	dnsMaxKeys    = 32
	dnsMaxSigners = 4
)

// verify verifies the signatures of an answer.
func (s *dnsSession) verify(m *dns.Msg) error {
	s.facts.Verified = new(false)
	section := m.Answer
	if len(section) == 0 {
		section = m.Ns
	}
	sets := dnsSets(section)
	if len(sets) > dnsMaxSets {
		return probe.Failf(wire.TooLarge, "%d sets of records to verify, more than %d", len(sets), dnsMaxSets)
	}
	if !slices.ContainsFunc(sets, func(set *dnsSet) bool { return len(set.sigs) > 0 }) {
		return probe.Failf(wire.Mismatch, "the answer has no signatures: the zone is not signed, or the server leaves them out")
	}
	keys := map[string][]*dns.DNSKEY{}
	for _, set := range sets {
		for _, sig := range set.sigs[:min(len(set.sigs), dnsMaxSigs)] {
			zone := dns.CanonicalName(sig.SignerName)
			if _, ok := keys[zone]; ok {
				continue
			}
			if len(keys) == dnsMaxSigners {
				return probe.Failf(wire.TooLarge, "the answer is signed by more than %d zones", dnsMaxSigners)
			}
			ks, err := s.keys(zone)
			if err != nil {
				return err
			}
			keys[zone] = ks
			s.facts.Signers = append(s.facts.Signers, strings.TrimSuffix(zone, "."))
		}
		s.p.Phase(wire.Verify)
		if err := set.verify(func(zone string) []*dns.DNSKEY { return keys[zone] }); err != nil {
			return err
		}
	}
	s.facts.Verified = new(true)
	return nil
}

// verify wants one signature that is valid now.
func (s *dnsSet) verify(keys func(zone string) []*dns.DNSKEY) error {
	why := "has no signature"
	for _, sig := range s.sigs[:min(len(s.sigs), dnsMaxSigs)] {
		zone := dns.CanonicalName(sig.SignerName)
		if !dns.IsSubDomain(zone, s.rrs[0].Header().Name) {
			why = fmt.Sprintf("is signed by %.80q, which is not its zone", zone)
			continue
		}
		now := time.Now()
		if left := dnsUntil(sig.Expiration, now); left < 0 {
			why = fmt.Sprintf("has a signature that expired %.1f days ago", -left.Hours()/24)
			continue
		}
		if begins := dnsUntil(sig.Inception, now); begins > 0 {
			why = fmt.Sprintf("has a signature that becomes valid only in %.1f days", begins.Hours()/24)
			continue
		}
		why = fmt.Sprintf("is signed by key %d, which %s does not have", sig.KeyTag, zone)
		for _, k := range keys(zone) {
			if k.KeyTag() != sig.KeyTag || k.Algorithm != sig.Algorithm {
				continue
			}
			err := sig.Verify(k, s.rrs)
			if err == nil {
				return nil
			}
			why = fmt.Sprintf("has a signature of key %d that does not verify: %v", sig.KeyTag, err)
		}
	}
	return probe.Failf(wire.Mismatch, "%s %s", s, why)
}

// keys fetches the keys of a zone, which must be signed by one of themselves,
// and by one that the target's DS records vouch for.
func (s *dnsSession) keys(zone string) ([]*dns.DNSKEY, error) {
	m, err := s.ask(zone, dns.TypeDNSKEY, dns.ClassINET)
	if err != nil {
		return nil, err
	}
	s.p.Phase(wire.Verify)
	var keys []*dns.DNSKEY
	i := -1
	sets := dnsSets(m.Answer)
	for n, set := range sets {
		if h := set.rrs[0].Header(); h.Rrtype == dns.TypeDNSKEY && strings.EqualFold(h.Name, zone) {
			i = n
		}
	}
	if i < 0 {
		return nil, probe.Failf(wire.Mismatch, "%s DNSKEY: the server gives no keys (%s)", zone, dns.RcodeToString[m.Rcode])
	}
	for _, rr := range sets[i].rrs {
		keys = append(keys, rr.(*dns.DNSKEY))
	}
	if len(keys) > dnsMaxKeys {
		return nil, probe.Failf(wire.TooLarge, "%s has %d keys, more than %d", zone, len(keys), dnsMaxKeys)
	}
	trusted := keys
	if len(s.opt.DS) > 0 {
		if trusted, err = dnsVouched(keys, s.opt.DS); err != nil {
			return nil, err
		}
		if len(trusted) == 0 {
			return nil, probe.Failf(wire.CertUntrusted, "%s: none of its %d keys is the one of ds", zone, len(keys))
		}
	}
	return keys, sets[i].verify(func(string) []*dns.DNSKEY { return trusted })
}

// dnsVouched lists the keys that one of the DS records stands for.
func dnsVouched(keys []*dns.DNSKEY, texts []string) ([]*dns.DNSKEY, error) {
	var vouched []*dns.DNSKEY
	for _, text := range texts {
		rr, err := dns.NewRR(". 0 IN DS " + text)
		ds, ok := rr.(*dns.DS)
		if err != nil || !ok || strings.ContainsAny(text, "\r\n") {
			return nil, probe.Failf(wire.BadOptions, "dns.ds: %.120q is no DS record such as 12345 13 2 HEX", text)
		}
		for _, k := range keys {
			if k.KeyTag() != ds.KeyTag || k.Algorithm != ds.Algorithm {
				continue
			}
			if own := k.ToDS(ds.DigestType); own != nil && strings.EqualFold(own.Digest, ds.Digest) {
				vouched = append(vouched, k)
			}
		}
	}
	return vouched, nil
}
