package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/dnsmsg"
)

// tlsDialer starts TLS with a name server of the given name.
type tlsDialer func(ctx context.Context, nc net.Conn, name string) (net.Conn, error)

func systemTLS(ctx context.Context, nc net.Conn, name string) (net.Conn, error) {
	tc := tls.Client(nc, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12})
	return tc, tc.HandshakeContext(ctx)
}

// A lookup asks name servers for the addresses of one name: for those of both
// families at once, over one socket.
type lookup struct {
	resolver  *resolver
	host      string // as the target writes it, for errors
	questions []*question
	troubles  []string // what became of servers that did not answer
	broken    bool     // some server says that those of the domain fail
}

// A question is asked until it has an answer.
type question struct {
	qtype     uint16
	query     *dnsmsg.Query
	edns      bool
	truncated bool
	failed    bool     // this server can't answer it
	answer    *dns.Msg // NOERROR or NXDOMAIN
	server    nameServer
}

const (
	firstResend = time.Second     // until a datagram is sent again; doubles
	otherFamily = 2 * time.Second // for the second family, when one has addresses
)

// run asks until every question has an answer, or the servers are used up. It
// returns an error if there is no answer at all that decides anything.
func (l *lookup) run(ctx context.Context, conf *resolvConf, name string) error {
	l.troubles, l.broken = nil, false
	for _, q := range l.questions {
		q.answer = nil
	}
	tries := conf.attempts * len(conf.servers)
	for try := range tries {
		s := conf.servers[try%len(conf.servers)]
		wait := conf.timeout
		if t, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(t)/time.Duration(tries-try))
		}
		err := l.try(ctx, s, name, time.Now().Add(wait))
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		if err != nil {
			l.trouble(s, err, wait)
		}
		if l.decided() {
			return nil
		}
	}
	reason := wire.Local
	if l.broken {
		reason = wire.Unavailable
	}
	return Failf(reason, "%.80q can't be resolved: %s", l.host, strings.Join(l.troubles, "; "))
}

// decided says whether no further server has to be asked.
func (l *lookup) decided() bool {
	answered := 0
	for _, q := range l.questions {
		if q.answer != nil {
			answered++
			if addrs, _ := q.addresses(); len(addrs) > 0 || q.answer.Rcode == dns.RcodeNameError {
				return true
			}
		}
	}
	return answered == len(l.questions)
}

// trouble notes what became of a server that did not answer.
func (l *lookup) trouble(s nameServer, err error, wait time.Duration) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		l.note("no answer from resolver %s within %s", s, wire.Duration(wait.Round(time.Millisecond)))
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		l.note("resolver %s closed the connection", s)
	default:
		l.note("resolver %s: %s", s, plainDial(err))
	}
}

func (l *lookup) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(l.troubles, text) {
		l.troubles = append(l.troubles, text)
	}
}

// open lists the questions that this server has still to answer.
func (l *lookup) open(truncated bool) []*question {
	var qs []*question
	for _, q := range l.questions {
		if q.answer == nil && !q.failed && q.truncated == truncated {
			qs = append(qs, q)
		}
	}
	return qs
}

// try asks one server until the deadline.
func (l *lookup) try(ctx context.Context, s nameServer, name string, deadline time.Time) error {
	for _, q := range l.questions {
		q.failed, q.truncated = false, s.network != "udp"
		if q.answer == nil {
			if err := q.ask(name, true); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if s.network == "udp" {
		if err := l.overUDP(ctx, s, deadline); err != nil {
			return err
		}
	}
	if len(l.open(true)) > 0 {
		return l.overTCP(ctx, s)
	}
	return nil
}

func (q *question) ask(name string, edns bool) (err error) {
	q.edns = edns
	q.query, err = dnsmsg.New(name, q.qtype, dns.ClassINET, dnsmsg.Options{Recurse: true, EDNS: edns})
	return err
}

// dial connects to the server. The connection ends with ctx.
func (l *lookup) dial(ctx context.Context, s nameServer, network string) (nc net.Conn, stop func() bool, err error) {
	if network == "udp" {
		var a netip.Addr
		if a, err = netip.ParseAddr(s.host); err == nil {
			nc, err = l.resolver.sockets.Dial(netip.Addr{}, netip.AddrPortFrom(a, s.port))
		}
	} else {
		var d net.Dialer
		nc, err = d.DialContext(ctx, network, net.JoinHostPort(s.host, strconv.Itoa(int(s.port))))
	}
	if err != nil {
		return nil, nil, err
	}
	stop = context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	return nc, stop, nil
}

func (l *lookup) overUDP(ctx context.Context, s nameServer, deadline time.Time) error {
	nc, stop, err := l.dial(ctx, s, "udp")
	if err != nil {
		return err
	}
	defer nc.Close()
	defer stop()
	buf := buffers.Get().(*[bufSize]byte)
	defer buffers.Put(buf)
	for resend := firstResend; ; resend *= 2 {
		open := l.open(false)
		for _, q := range open {
			if _, err := nc.Write(q.query.Wire); err != nil {
				return err
			}
		}
		until := time.Now().Add(resend)
		for len(open) > 0 {
			if l.found() {
				deadline = earlier(deadline, time.Now().Add(otherFamily))
			}
			nc.SetReadDeadline(earlier(until, deadline))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n, err := nc.Read(buf[:])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			again, _ := l.take(buf[:n], s)
			if again != nil {
				if _, err := nc.Write(again.query.Wire); err != nil {
					return err
				}
			}
			open = l.open(false)
		}
		if len(open) == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// maxStray bounds the messages on a connection that are no answers of ours.
const maxStray = 16

// overTCP asks over TCP or TLS what is open or was truncated.
func (l *lookup) overTCP(ctx context.Context, s nameServer) error {
	nc, stop, err := l.dial(ctx, s, "tcp")
	if err != nil {
		return err
	}
	defer func() { nc.Close() }()
	defer stop()
	if s.network == "tls" {
		start := l.resolver.dialTLS
		if start == nil {
			start = systemTLS
		}
		tc, err := start(ctx, nc, s.name)
		if err != nil {
			return err
		}
		nc = tc
	}
	var queries [][]byte
	for _, q := range l.open(true) {
		queries = append(queries, q.query.Wire)
	}
	if err := dnsmsg.WriteTCP(nc, queries...); err != nil {
		return err
	}
	for stray := 0; len(l.open(true)) > 0; {
		b, err := dnsmsg.ReadTCP(nc)
		if err != nil {
			return err
		}
		again, ours := l.take(b, s)
		if again != nil {
			if err := dnsmsg.WriteTCP(nc, again.query.Wire); err != nil {
				return err
			}
		}
		if !ours {
			if stray++; stray == maxStray {
				return errors.New("sends answers to questions that were not asked")
			}
		}
	}
	return nil
}

// take gives a message to the question that it answers. It returns a question
// that has to be asked again, without EDNS, and whether the message was ours.
func (l *lookup) take(b []byte, s nameServer) (again *question, ours bool) {
	for _, q := range l.questions {
		if q.answer != nil || q.failed {
			continue
		}
		m, err := q.query.Answer(b)
		if errors.Is(err, dnsmsg.ErrNotOurs) {
			continue
		}
		switch {
		case m.Truncated && !q.truncated:
			q.truncated = true
		case q.edns && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented):
			if q.ask(q.query.Name, false) == nil {
				return q, true
			}
		case err == nil && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError):
			q.answer, q.server = m, s
		default:
			q.failed = true
			l.refused(m, err, s)
		}
		return nil, true
	}
	return nil, false
}

// refused notes an answer that answers nothing.
func (l *lookup) refused(m *dns.Msg, err error, s nameServer) {
	why := dnsmsg.Extended(m)
	if why != "" {
		why = ": " + why
	}
	switch {
	case err != nil:
		l.note("resolver %s sends a broken answer: %v", s, err)
	case m.Rcode == dns.RcodeServerFailure:
		l.broken = true
		l.note("SERVFAIL from %s: the servers of its domain fail, or DNSSEC does%s", s, why)
	default:
		l.note("resolver %s does not answer us: %s%s", s, dnsmsg.Rcode(m.Rcode), why)
	}
}

// found says whether some address is known.
func (l *lookup) found() bool {
	addrs, _ := l.addresses()
	return len(addrs) > 0
}

// addresses gives what was found, and else the alias that is to be asked for.
func (l *lookup) addresses() (addrs []netip.Addr, alias string) {
	for _, q := range l.questions {
		if q.answer == nil {
			continue
		}
		a, end := q.addresses()
		addrs = append(addrs, a...)
		if m := q.answer; !m.RecursionAvailable && len(m.Ns) == 0 && m.Rcode == dns.RcodeSuccess && end != q.query.Name {
			alias = end
		}
	}
	return addrs, alias
}

// addresses follows the aliases in the answer, and gives the addresses at
// their end and the name that has them.
func (q *question) addresses() (addrs []netip.Addr, name string) {
	name = q.query.Name
	for range maxAliases {
		alias := ""
		for _, rr := range q.answer.Answer {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			case *dns.CNAME:
				alias = rr.Target
			}
			if a, ok := netip.AddrFromSlice(ip); ok && rr.Header().Rrtype == q.qtype {
				addrs = append(addrs, a.Unmap())
			}
		}
		if len(addrs) > 0 || alias == "" {
			return addrs, name
		}
		name = alias
	}
	return nil, name
}

// failure words that there is no address.
func (l *lookup) failure() error {
	none, subject := "", fmt.Sprintf("%.80q", l.host)
	for _, q := range l.questions {
		if none != "" {
			none += " or "
		}
		none += dns.TypeToString[q.qtype]
	}
	for _, q := range l.questions {
		if q.answer == nil {
			continue
		}
		if _, end := q.addresses(); !strings.EqualFold(end, q.query.Name) {
			subject = fmt.Sprintf("%.80q is an alias of %.80q, which", l.host, strings.TrimSuffix(end, "."))
		}
		if q.answer.Rcode == dns.RcodeNameError {
			return Failf(wire.NoSuchHost, "%s does not exist (NXDOMAIN from %s)", subject, q.server)
		}
	}
	return Failf(wire.NoSuchHost, "%s has no %s record (says %s)", subject, none, l.questions[0].server)
}
