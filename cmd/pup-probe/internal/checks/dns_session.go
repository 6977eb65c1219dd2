package checks

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

// A dnsSession asks one server, over one connection as far as that is possible.
type dnsSession struct {
	ctx   context.Context
	p     *probe.Probe
	opt   *dnsOptions
	facts *dnsFacts
	udp   *datagram.Asker
	tcp   *probe.Conn // or TLS
	noOPT bool        // the server does not know EDNS
}

func (s *dnsSession) close() {
	if s.udp != nil {
		s.udp.Conn.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
}

// ask asks a question and waits for its answer.
func (s *dnsSession) ask(name string, qtype, class uint16) (*dns.Msg, error) {
	q, err := s.query(name, qtype, class)
	if err != nil {
		return nil, err
	}
	m, err := s.exchange(q)
	if err == nil && s.opt.EDNS && !s.noOPT && m.IsEdns0() == nil {
		if m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented {
			s.noOPT = true
			if q, err = s.query(name, qtype, class); err == nil {
				m, err = s.exchange(q)
			}
		}
		s.facts.EDNS = new(false)
	}
	return m, err
}

func (s *dnsSession) query(name string, qtype, class uint16) (*dnsmsg.Query, error) {
	q, err := dnsmsg.New(name, qtype, class, dnsmsg.Options{
		Recurse: s.opt.Recursion, Checking: s.opt.CheckingDisabled,
		EDNS: s.opt.EDNS && !s.noOPT, DNSSEC: s.opt.DNSSEC || s.opt.Verify, NSID: true,
	})
	if err != nil {
		return nil, probe.Failf(wire.BadOptions, "url: %w", err)
	}
	return q, nil
}

// exchange carries a query over the URL's transport.
func (s *dnsSession) exchange(q *dnsmsg.Query) (*dns.Msg, error) {
	switch s.p.URL.Scheme.Name {
	case "dns+https":
		return s.overHTTPS(q)
	case "dns+tcp", "dns+tls":
		return s.overTCP(q)
	}
	m, err := s.overUDP(q)
	if err != nil || !m.Truncated {
		return m, err
	}
	s.facts.TC = new(true)
	m, err = s.overTCP(q)
	if err != nil {
		return nil, dnsAfterTruncation{err}
	}
	return m, nil
}

// dnsAfterTruncation tells why TCP was used at all.
type dnsAfterTruncation struct{ error }

func (e dnsAfterTruncation) Error() string {
	return "the answer over UDP is truncated, and over TCP: " + e.error.Error()
}
func (e dnsAfterTruncation) Unwrap() error { return e.error }

func (s *dnsSession) overUDP(q *dnsmsg.Query) (*dns.Msg, error) {
	if s.udp == nil {
		c, err := s.p.DialDNS(s.ctx)
		if err != nil {
			return nil, err
		}
		s.udp = &datagram.Asker{Probe: s.p, Conn: c}
	}
	s.facts.Transport = "udp"
	var answer *dnsAnswer
	err := s.udp.Ask(s.ctx, func() []byte { return q.Wire }, dnsTake(q, &answer))
	s.facts.Resent, s.facts.Ignored = new(s.udp.Resent), s.udp.Ignored
	if err != nil {
		return nil, err
	}
	s.facts.AnswerBytes = new(answer.size)
	return answer.Msg, answer.err
}

// dnsTake takes the datagram that answers q.
func dnsTake(q *dnsmsg.Query, to **dnsAnswer) func(b []byte) error {
	return func(b []byte) (err error) {
		if *to, err = dnsRead(q, b); err != nil {
			return datagram.Stray("%w", err)
		}
		return nil
	}
}

// A dnsAnswer is the answer to a query. Err says that it is broken.
type dnsAnswer struct {
	*dns.Msg
	size int
	err  error
}

// dnsRead takes a message apart. An error means that it is no answer to q.
func dnsRead(q *dnsmsg.Query, b []byte) (*dnsAnswer, error) {
	m, err := q.Answer(b)
	if errors.Is(err, dnsmsg.ErrNotOurs) {
		return nil, err
	}
	a := &dnsAnswer{Msg: m, size: len(b)}
	if err != nil && !m.Truncated {
		a.err = probe.Protocolf("the answer is no whole DNS message: %v", err)
	}
	return a, nil
}

// dnsMaxStray bounds the messages over TCP that are no answers of ours.
const dnsMaxStray = 16

func (s *dnsSession) overTCP(q *dnsmsg.Query) (*dns.Msg, error) {
	if s.tcp == nil {
		c, err := s.p.Dial(s.ctx)
		if err != nil {
			return nil, err
		}
		s.tcp = c
	}
	s.facts.Transport = "tcp"
	if s.p.URL.Scheme.TLS {
		s.facts.Transport = "tls"
	}
	s.p.Phase(wire.Request)
	if err := dnsmsg.WriteTCP(s.tcp, q.Wire); err != nil {
		return nil, err
	}
	var stray error
	for range dnsMaxStray {
		s.p.Phase(wire.Wait)
		if err := s.tcp.Wait(); err != nil {
			return nil, err
		}
		s.p.Phase(wire.Transfer)
		b, err := dnsmsg.ReadTCP(s.tcp)
		if err != nil {
			return nil, err
		}
		a, err := dnsRead(q, b)
		if err != nil {
			stray = err
			s.facts.Ignored++
			continue
		}
		s.facts.AnswerBytes = new(a.size)
		return a.Msg, a.err
	}
	return nil, probe.Protocolf("%d messages that are no answers, the last is %w", dnsMaxStray, stray)
}

// dnsMaxBody is the size of the largest DNS message.
const dnsMaxBody = 1<<16 - 1

// overHTTPS posts the query over a connection of its own.
func (s *dnsSession) overHTTPS(q *dnsmsg.Query) (*dns.Msg, error) {
	c, err := s.p.DialPlain(s.ctx)
	if err != nil {
		return nil, err
	}
	if c, err = s.p.StartTLS(s.ctx, c, "h2", "http/1.1"); err != nil {
		return nil, err
	}
	defer c.Close()
	s.facts.Transport = "https"
	q.ID, q.Wire[0], q.Wire[1] = 0, 0, 0 // RFC 8484, section 4.1
	resp, err := httpconn.New(s.p, c).Do(&httpconn.Request{
		Method: "POST", Scheme: "https", Authority: s.authority(), Path: s.opt.Path, Body: q.Wire,
		Fields: httpconn.Fields{
			{Name: "accept", Value: "application/dns-message"}, {Name: "content-type", Value: "application/dns-message"},
		},
	})
	if err != nil {
		return nil, err
	}
	if resp.Status != 200 {
		reason := wire.BadProtocol
		switch {
		case resp.Status == 401 || resp.Status == 403 || resp.Status == 407:
			reason = wire.Denied
		case resp.Status == 429 || resp.Status >= 500:
			reason = wire.Unavailable
		}
		return nil, probe.Failf(reason, "POST %s: got HTTP status %d, want 200", s.opt.Path, resp.Status)
	}
	if media, _, _ := strings.Cut(resp.Fields.Get("content-type"), ";"); !strings.EqualFold(strings.TrimSpace(media), "application/dns-message") {
		return nil, probe.Protocolf("POST %s: got content-type %.80q, want application/dns-message", s.opt.Path, media)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, dnsMaxBody+1))
	if err != nil {
		return nil, err
	}
	if len(b) > dnsMaxBody {
		return nil, probe.Failf(wire.TooLarge, "the answer is larger than a DNS message can be")
	}
	a, err := dnsRead(q, b)
	if err != nil {
		return nil, probe.Protocolf("the body of the response: %w", err)
	}
	s.facts.AnswerBytes = new(a.size)
	return a.Msg, a.err
}

func (s *dnsSession) authority() string {
	host := s.p.URL.Host
	if s.p.URL.Port != 443 {
		return net.JoinHostPort(host, strconv.Itoa(s.p.URL.Port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
