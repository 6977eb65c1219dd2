package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/probe"
)

// A dnsPeer is an address of a name server of the zone.
type dnsPeer struct {
	name   string
	addr   netip.Addr
	asker  *datagram.Asker // nil: it can't be asked from here
	query  *dnsmsg.Query
	serial *uint32
	aa     *bool
	reason wire.Reason // why it has no serial for us
	err    string
}

const (
	dnsResend    = time.Second // until a datagram is sent again; doubles
	dnsMaxResend = 4 * time.Second
)

// dnsMaxPeers bounds the addresses of the name servers of a zone.
const dnsMaxPeers = 64

// agree asks every name server of the zone for its serial. M has the NS
// records.
func (s *dnsSession) agree(m *dns.Msg, zone string) error {
	peers, err := s.peers(m)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range peers {
			if p.asker != nil {
				p.asker.Conn.Close()
				s.facts.Ignored += p.asker.Ignored
			}
		}
	}()
	address := s.p.Address()
	defer func() { s.p.SetAddress(address) }() // the target's, not that of the last one
	for _, p := range peers {
		if err := s.open(p, zone); err != nil {
			return err
		}
	}
	s.askAll(peers)
	if errors.Is(s.ctx.Err(), context.Canceled) {
		return s.ctx.Err()
	}
	s.p.Phase(wire.Verify)
	return s.compare(peers)
}

// peers finds the addresses of the name servers: those that came along with
// their names, or else those that the resolver finds.
func (s *dnsSession) peers(m *dns.Msg) ([]*dnsPeer, error) {
	var peers []*dnsPeer
	for _, rr := range m.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok {
			continue
		}
		addrs := dnsGlue(m, ns.Ns, s.p.Family())
		if len(addrs) == 0 {
			var err error
			if addrs, err = s.p.Lookup(s.ctx, ns.Ns); err != nil {
				return nil, fmt.Errorf("name server %.80q: %w", ns.Ns, err)
			}
		}
		for _, a := range addrs {
			peers = append(peers, &dnsPeer{name: strings.TrimSuffix(ns.Ns, "."), addr: a})
		}
	}
	if len(peers) > dnsMaxPeers {
		return nil, probe.Failf(wire.TooLarge, "the name servers have %d addresses, more than %d", len(peers), dnsMaxPeers)
	}
	return peers, nil
}

func dnsGlue(m *dns.Msg, name, family string) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range m.Extra {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok && family != "6" {
				addrs = append(addrs, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA); ok && family != "4" {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// open makes a socket for a peer. An address that we have no route to is left
// out: that is no fault of the server.
func (s *dnsSession) open(p *dnsPeer, zone string) error {
	if err := s.p.Allowed(p.addr); err != nil {
		return err
	}
	var err error
	if p.query, err = dnsmsg.New(zone, dns.TypeSOA, dns.ClassINET, dnsmsg.Options{EDNS: s.opt.EDNS}); err != nil {
		return probe.Failf(wire.BadOptions, "url: %w", err)
	}
	c, err := s.p.DialHost(s.ctx, "dns", p.addr.String(), s.p.URL.Port)
	switch {
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT):
		p.err = "not asked: no route to it from here"
		return nil
	case err != nil:
		return err
	}
	p.asker = &datagram.Asker{Probe: s.p, Conn: c}
	p.reason, p.err = wire.Timeout, "no answer"
	return nil
}

// askAll sends all questions at once and gathers the answers until all are
// there, or the time is nearly over.
func (s *dnsSession) askAll(peers []*dnsPeer) {
	last := time.Now().Add(time.Minute)
	if t, ok := s.ctx.Deadline(); ok {
		last = time.Now().Add(time.Until(t) * 9 / 10) // the rest is for the verdict
	}
	pending := slices.DeleteFunc(slices.Clone(peers), func(p *dnsPeer) bool { return p.asker == nil })
	for resend := dnsResend; len(pending) > 0 && time.Now().Before(last) && s.ctx.Err() == nil; resend = min(2*resend, dnsMaxResend) {
		s.p.Phase(wire.Request)
		for _, p := range pending {
			p.asker.Conn.Write(p.query.Wire) // what is wrong with it, the read will say
		}
		s.p.Phase(wire.Wait)
		until := time.Now().Add(resend)
		if until.After(last) {
			until = last
		}
		pending = slices.DeleteFunc(pending, func(p *dnsPeer) bool { return s.answer(p, until) })
	}
}

// answer waits for the answer of a peer, and says whether it need not be asked
// again.
func (s *dnsSession) answer(p *dnsPeer, until time.Time) bool {
	var a *dnsAnswer
	err := p.asker.Wait(until, dnsTake(p.query, &a))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false
	case errors.Is(err, syscall.ECONNREFUSED):
		p.reason, p.err = wire.Refused, "connection refused"
	case err != nil:
		p.reason, p.err = wire.Unreachable, err.Error()
	case a.err != nil:
		p.reason, p.err = wire.BadProtocol, a.err.Error()
	default:
		p.read(a.Msg)
	}
	return true
}

func (p *dnsPeer) read(m *dns.Msg) {
	p.aa = new(m.Authoritative)
	for _, rr := range m.Answer {
		if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, p.query.Name) {
			p.serial = new(soa.Serial)
		}
	}
	p.reason, p.err = "", ""
	switch {
	case m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused:
		p.reason, p.err = wire.Unavailable, dnsmsg.Rcode(m.Rcode)
	case m.Rcode != dns.RcodeSuccess:
		p.reason, p.err = wire.Mismatch, dnsmsg.Rcode(m.Rcode)
	case p.serial == nil:
		p.reason, p.err = wire.Mismatch, "no SOA record"
	case !m.Authoritative:
		p.reason, p.err = wire.Mismatch, "not authoritative"
	}
}

// compare takes the facts and judges them.
func (s *dnsSession) compare(peers []*dnsPeer) error {
	var newest *uint32
	asked := map[string]bool{}
	for _, p := range peers {
		s.facts.Servers = append(s.facts.Servers, dnsServer{p.name, p.addr.String(), p.serial, p.aa, p.err})
		asked[p.name] = asked[p.name] || p.asker != nil
		if p.serial != nil && (newest == nil || dnsBehind(*p.serial, *newest) < 0) {
			newest = p.serial
		}
	}
	s.facts.Serial = newest
	var wrong []string
	reason := wire.Mismatch
	lag := 0
	for _, p := range peers {
		switch {
		case p.asker != nil && p.err != "":
			if len(wrong) == 0 {
				reason = p.reason
			}
			wrong = append(wrong, fmt.Sprintf("%s (%s): %s", p.name, p.addr, p.err))
		case p.serial != nil:
			behind := dnsBehind(*p.serial, *newest)
			if lag = max(lag, behind); behind > s.opt.MaxSerialLag {
				wrong = append(wrong, fmt.Sprintf("%s (%s): serial %d lies %d behind %d", p.name, p.addr, *p.serial, behind, *newest))
			}
		}
	}
	if newest != nil {
		s.facts.SerialLag = &lag
	}
	if len(wrong) > 0 {
		return probe.Failf(reason, "%d of %d addresses of name servers are not in order: %s", len(wrong), len(peers), strings.Join(wrong, "; "))
	}
	for name, ok := range asked {
		if !ok {
			return probe.Failf(wire.Local, "name server %.80q can't be asked: we have no route to it", name)
		}
	}
	return nil
}

// dnsBehind says how far serial lies behind newest (RFC 1982).
func dnsBehind(serial, newest uint32) int { return int(int32(newest - serial)) }
