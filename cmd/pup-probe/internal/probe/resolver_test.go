package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
)

// fakeNames is a name server for tests, over UDP and TCP on one port of
// loopback.
type fakeNames struct {
	addr    string
	queries atomic.Int32
	overTCP atomic.Int32
}

// serveNames serves until the test ends. F makes the answer to q; nil says
// nothing.
func serveNames(t testing.TB, f func(q *dns.Msg, overTCP bool) *dns.Msg) *fakeNames {
	t.Helper()
	pc, ln := listenBoth(t)
	s := &fakeNames{addr: pc.LocalAddr().String()}
	handle := func(overTCP bool) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			s.queries.Add(1)
			if overTCP {
				s.overTCP.Add(1)
			}
			if m := f(q, overTCP); m != nil {
				w.WriteMsg(m)
			}
		}
	}
	serveDNS(t, &dns.Server{PacketConn: pc, Handler: handle(false)})
	serveDNS(t, &dns.Server{Listener: ln, Handler: handle(true)})
	return s
}

// listenBoth takes a port that is free for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if pc, err := net.ListenPacket("udp", ln.Addr().String()); err == nil {
			return pc, ln
		}
		ln.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func serveDNS(t testing.TB, s *dns.Server) {
	started, done := make(chan struct{}), make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() { defer close(done); s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { s.Shutdown(); <-done })
}

// zone answers with the records of q's name and type, following aliases, and
// with NXDOMAIN for other names.
func zone(records ...string) func(q *dns.Msg, overTCP bool) *dns.Msg {
	var rrs []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		name, known := q.Question[0].Name, false
		for again := true; again; {
			again = false
			for _, rr := range rrs {
				if !strings.EqualFold(rr.Header().Name, name) {
					continue
				}
				known = true
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				} else if c, ok := rr.(*dns.CNAME); ok {
					m.Answer = append(m.Answer, rr)
					name, known, again = c.Target, false, true
				}
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		return m
	}
}

func rcode(code int) func(q *dns.Msg, overTCP bool) *dns.Msg {
	return func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
}

func silent(*dns.Msg, bool) *dns.Msg { return nil }

// resolve finds host's addresses with the given resolver member, and gives
// them as text, or reason and error.
func resolve(t testing.TB, r *Runner, own, host, family string, timeout time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	p := &Probe{run: r, opt: &options{resolver: own, family: family}}
	addrs, err := p.Lookup(ctx, host)
	if err != nil {
		return string(p.reason(ctx, err)), err
	}
	return fmt.Sprint(addrs), nil
}

func TestResolver(t *testing.T) {
	both := zone("www.test. 60 A 192.0.2.1", "www.test. 60 A 192.0.2.2", "www.test. 60 AAAA fd00::1",
		"alias.test. 60 CNAME a2.test.", "a2.test. 60 CNAME www.test.", "lost.test. 60 CNAME gone.test.", "mail.test. 60 MX 1 www.test.",
		"loop.test. 60 CNAME loop2.test.", "four.test. 60 A 192.0.2.4")
	noEDNS := func(code int) func(q *dns.Msg, overTCP bool) *dns.Msg {
		return func(q *dns.Msg, overTCP bool) *dns.Msg {
			if q.IsEdns0() == nil {
				return both(q, overTCP)
			}
			m := new(dns.Msg).SetRcode(q, code)
			m.Question = nil
			return m
		}
	}
	for _, tt := range []struct {
		name, host, family string
		serve              func(q *dns.Msg, overTCP bool) *dns.Msg
		want, text         string
	}{
		{"found", "four.test", "", both, "[192.0.2.4]", ""},
		{"case", "FOUR.Test.", "", both, "[192.0.2.4]", ""},
		{"family 4", "www.test", "4", both, "[192.0.2.1 192.0.2.2]", ""},
		{"family 6", "www.test", "6", both, "[fd00::1]", ""},
		{"aliases", "alias.test", "4", both, "[192.0.2.1 192.0.2.2]", ""},
		{"aliases left to us", "alias.test", "4", ownAliases(both), "[192.0.2.1 192.0.2.2]", ""},
		{"alias of nothing", "lost.test", "", both, "no-such-host", `"lost.test" is an alias of "gone.test", which does not exist (NXDOMAIN from SERVER)`},
		{"NXDOMAIN", "nope.test", "", both, "no-such-host", `"nope.test" does not exist (NXDOMAIN from SERVER)`},
		{"no data", "mail.test", "", both, "no-such-host", `"mail.test" has no A or AAAA record (says SERVER)`},
		{"no data of the family", "four.test", "6", both, "no-such-host", `"four.test" has no AAAA record (says SERVER)`},
		{"SERVFAIL", "www.test", "", rcode(dns.RcodeServerFailure), "unavailable", `"www.test" can't be resolved: SERVFAIL from SERVER: the servers of its domain fail, or DNSSEC does`},
		{"bogus", "www.test", "", bogus, "unavailable", `SERVFAIL from SERVER: the servers of its domain fail, or DNSSEC does: DNSSEC Bogus ("no valid RRSIG")`},
		{"REFUSED", "www.test", "", rcode(dns.RcodeRefused), "local", `"www.test" can't be resolved: resolver SERVER does not answer us: REFUSED`},
		{"silence", "www.test", "", silent, "local", `"www.test" can't be resolved: no answer from resolver SERVER within`},
		{"no EDNS", "www.test", "4", noEDNS(dns.RcodeFormatError), "[192.0.2.1 192.0.2.2]", ""},
		{"EDNS not implemented", "www.test", "4", noEDNS(dns.RcodeNotImplemented), "[192.0.2.1 192.0.2.2]", ""},
		{"FORMERR always", "www.test", "4", rcode(dns.RcodeFormatError), "local", "FORMERR"},
		{"truncated", "www.test", "", truncated(both), "[192.0.2.1 192.0.2.2 fd00::1]", ""},
		{"AAAA fails", "www.test", "", only(dns.TypeA, both, rcode(dns.RcodeServerFailure)), "[192.0.2.1 192.0.2.2]", ""},
		{"AAAA does not exist", "www.test", "", only(dns.TypeA, both, rcode(dns.RcodeNameError)), "[192.0.2.1 192.0.2.2]", ""},
		{"another question", "www.test", "4", otherQuestion, "local", "no answer from resolver SERVER within"},
		{"bad label", "a..test", "", both, "options", "labels must have 1 to 63 bytes"},
		{"not ASCII", "bücher.test", "", both, "options", "xn--"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNames(t, tt.serve)
			timeout := 10 * time.Second
			if tt.text != "" {
				timeout = 300 * time.Millisecond
			}
			got, err := resolve(t, &Runner{}, s.addr, tt.host, tt.family, timeout)
			if tt.name == "truncated" { // which family comes first depends on our routes
				got = sortedWords(got)
			}
			if got != tt.want {
				t.Fatalf("got %s (%v), want %s", got, err, tt.want)
			}
			if text := strings.ReplaceAll(tt.text, "SERVER", s.addr); err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("got error %q, want %q in it", err, text)
			}
			if tt.family == "4" && tt.name == "family 4" && s.queries.Load() != 1 {
				t.Errorf("family 4 took %d queries, want 1", s.queries.Load())
			}
		})
	}
}

func sortedWords(s string) string {
	f := strings.Fields(strings.Trim(s, "[]"))
	slices.Sort(f)
	return "[" + strings.Join(f, " ") + "]"
}

// ownAliases answers as a server that does not follow aliases.
func ownAliases(f func(*dns.Msg, bool) *dns.Msg) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, overTCP bool) *dns.Msg {
		m := f(q, overTCP)
		m.RecursionAvailable = false
		if len(m.Answer) > 1 && m.Answer[0].Header().Rrtype == dns.TypeCNAME {
			m.Answer = m.Answer[:1]
		}
		return m
	}
}

func bogus(q *dns.Msg, _ bool) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "no valid RRSIG"})
	return m
}

// truncated cuts every answer over UDP.
func truncated(f func(*dns.Msg, bool) *dns.Msg) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, overTCP bool) *dns.Msg {
		m := f(q, overTCP)
		if !overTCP {
			m.Answer, m.Truncated = nil, true
		}
		return m
	}
}

// only answers questions of a type with f, and others with g.
func only(qtype uint16, f, g func(*dns.Msg, bool) *dns.Msg) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, overTCP bool) *dns.Msg {
		if q.Question[0].Qtype == qtype {
			return f(q, overTCP)
		}
		return g(q, overTCP)
	}
}

func otherQuestion(q *dns.Msg, _ bool) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Question[0].Name = "evil.test."
	rr, _ := dns.NewRR("www.test. 60 A 192.0.2.66")
	m.Answer = []dns.RR{rr}
	return m
}

// A lost datagram is sent again, and both families come over one socket.
func TestResolverSendsAgain(t *testing.T) {
	f := zone("www.test. 60 A 192.0.2.1", "www.test. 60 AAAA fd00::1")
	var mu sync.Mutex
	seen := map[uint16]int{}
	s := serveNames(t, func(q *dns.Msg, overTCP bool) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		if seen[q.Question[0].Qtype]++; seen[q.Question[0].Qtype] == 1 {
			return nil
		}
		return f(q, overTCP)
	})
	got, err := resolve(t, &Runner{}, s.addr, "www.test", "", 20*time.Second)
	if sortedWords(got) != "[192.0.2.1 fd00::1]" {
		t.Errorf("got %s, %v", got, err)
	}
}

// Answers of strangers are not taken, and do not end the waiting.
func TestResolverIgnoresStrangers(t *testing.T) {
	good := zone("www.test. 60 A 192.0.2.1")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			q.Unpack(buf[:n])
			send := func(change func(m *dns.Msg)) {
				m := good(q, false)
				change(m)
				b, _ := m.Pack()
				pc.WriteTo(b, from)
			}
			evil := func(m *dns.Msg) { m.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 66) }
			pc.WriteTo(nil, from)
			pc.WriteTo([]byte("garbage"), from)
			pc.WriteTo(buf[:n], from) // an echo
			send(func(m *dns.Msg) { m.Answer[0] = dns.Copy(m.Answer[0]); evil(m); m.Id++ })
			send(func(m *dns.Msg) { m.Answer[0] = dns.Copy(m.Answer[0]); evil(m); m.Question[0].Qtype = dns.TypeMX })
			send(func(m *dns.Msg) {})
		}
	}()
	got, err := resolve(t, &Runner{}, pc.LocalAddr().String(), "www.test", "4", 10*time.Second)
	if got != "[192.0.2.1]" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestResolverUnreachable(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	for _, scheme := range []string{"", "udp://", "tcp://", "tls://"} {
		got, err := resolve(t, &Runner{}, scheme+addr, "www.test", "", 5*time.Second)
		if want := "resolver " + strings.TrimPrefix(scheme, "udp://") + addr + ": connection refused"; got != "local" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v, want local, %q", scheme, got, err, want)
		}
	}
}

func TestResolverCanceled(t *testing.T) {
	asked := make(chan struct{}, 8)
	s := serveNames(t, func(*dns.Msg, bool) *dns.Msg { asked <- struct{}{}; return nil })
	for _, scheme := range []string{"udp://", "tcp://"} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		p := &Probe{run: &Runner{}, opt: &options{resolver: scheme + s.addr, family: "4"}}
		_, err := p.Lookup(ctx, "www.test")
		if got := p.reason(ctx, err); got != wire.Canceled {
			t.Errorf("%s: got %s (%v), want %s", scheme, got, err, wire.Canceled)
		}
		cancel()
	}
}

func TestResolverOverTCP(t *testing.T) {
	s := serveNames(t, zone("www.test. 60 A 192.0.2.1"))
	got, err := resolve(t, &Runner{}, "tcp://"+s.addr, "www.test", "", 5*time.Second)
	if got != "[192.0.2.1]" || s.overTCP.Load() != 2 || s.queries.Load() != 2 {
		t.Errorf("got %s, %v with %d queries, %d over TCP, want 192.0.2.1 with 2, 2", got, err, s.queries.Load(), s.overTCP.Load())
	}
}

func TestResolverOverTLS(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"dns.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	f := zone("www.test. 60 A 192.0.2.1")
	serveDNS(t, &dns.Server{Listener: ln, Net: "tcp-tls", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(f(q, true)) })})
	r := &Runner{}
	r.resolver.dialTLS = func(ctx context.Context, nc net.Conn, name string) (net.Conn, error) {
		tc := tls.Client(nc, &tls.Config{ServerName: name, RootCAs: roots})
		return tc, tc.HandshakeContext(ctx)
	}
	r.Resolver = "tls://" + ln.Addr().String() + "#dns.test"
	if got, err := resolve(t, r, "", "www.test", "4", 5*time.Second); got != "[192.0.2.1]" {
		t.Errorf("got %s, %v", got, err)
	}
	got, err := resolve(t, r, "tls://"+ln.Addr().String(), "www.test", "4", 5*time.Second)
	if got != "local" || !strings.Contains(err.Error(), "cannot validate certificate for 127.0.0.1") {
		t.Errorf("certificate for another name: got %s, %v", got, err)
	}
}

// The system's configuration is read when it is needed, and again when it has
// changed.
func TestResolverSystem(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := func(s *fakeNames) string { return strings.Replace("["+s.addr, ":", "]:", 1) }
	s := serveNames(t, zone("www.test. 60 A 192.0.2.1", "db.corp.test. 60 A 192.0.2.2", "www.other.test. 60 A 192.0.2.3"))
	dead := serveNames(t, rcode(dns.RcodeRefused))
	r := &Runner{}
	r.resolver.hostsFile, r.resolver.confFile = filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	want := func(host, want string) {
		t.Helper()
		if got, err := resolve(t, r, "", host, "", 10*time.Second); got != want {
			t.Errorf("%s: got %s, %v, want %s", host, got, err, want)
		}
	}
	write("resolv.conf", "; a comment\nnameserver "+server(dead)+"\nnameserver "+server(s)+"\nsearch corp.test other.test\noptions timeout:1 attempts:1 ndots:1\n")
	write("hosts", "192.0.2.9 DB3.test # and more\n192.0.2.8 db3.test alias\n::1 localhost\n127.0.0.1 localhost\n192.0.2.7 localhost\n10.0.0.1\nx y\n")
	want("www.test", "[192.0.2.1]")
	want("db", "[192.0.2.2]")
	want("db.", "no-such-host")
	want("www", "[192.0.2.3]")
	want("db3.test", "[192.0.2.9 192.0.2.8]")
	want("alias.", "[192.0.2.8]")
	want("localhost", "[::1 127.0.0.1]")
	want("a.localhost", "[127.0.0.1 ::1]")
	write("resolv.conf", "nameserver "+server(s)+"\n")
	write("hosts", "192.0.2.77 www.test\n")
	want("www.test", "[192.0.2.77]")
	want("db", "no-such-host")
	want("db.corp.test", "[192.0.2.2]")
	if err := os.Remove(filepath.Join(dir, "hosts")); err != nil {
		t.Fatal(err)
	}
	want("www.test", "[192.0.2.1]")
	want("localhost", "[127.0.0.1 ::1]")
	// a resolver of the target's own is asked whatever the hosts file says
	write("hosts", "192.0.2.77 www.test\n")
	if got, err := resolve(t, r, s.addr, "www.test", "", 5*time.Second); got != "[192.0.2.1]" {
		t.Errorf("own resolver: got %s, %v", got, err)
	}
}

func TestResolverDenied(t *testing.T) {
	s := serveNames(t, zone("www.test. 60 A 192.0.2.1"))
	r := &Runner{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	got, err := resolve(t, r, s.addr, "www.test", "", 5*time.Second)
	if got != "options" || s.queries.Load() != 0 {
		t.Errorf("of a target: got %s, %v, want options", got, err)
	}
	r.Resolver = s.addr
	if got, err := resolve(t, r, "", "www.test", "", 5*time.Second); got != "[192.0.2.1]" {
		t.Errorf("of the command line: got %s, %v", got, err)
	}
}

func TestParseNameServer(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"192.0.2.53", "{udp 192.0.2.53 53 192.0.2.53}"},
		{"192.0.2.53:5353", "{udp 192.0.2.53 5353 192.0.2.53}"},
		{"2001:db8::53", "{udp 2001:db8::53 53 2001:db8::53}"},
		{"[2001:db8::53]", "{udp 2001:db8::53 53 2001:db8::53}"},
		{"[2001:db8::53]:5353", "{udp 2001:db8::53 5353 2001:db8::53}"},
		{"udp://192.0.2.53", "{udp 192.0.2.53 53 192.0.2.53}"},
		{"tcp://ns.example.org:54", "{tcp ns.example.org 54 ns.example.org}"},
		{"tls://dns.example.org", "{tls dns.example.org 853 dns.example.org}"},
		{"tls://192.0.2.53:8853#dns.example.org", "{tls 192.0.2.53 8853 dns.example.org}"},
		{"https://dns.example.org", "error"},
		{"udp://", "error"},
		{"a b:c", "error"},
		{"ns:0", "error"},
		{"ns:65536", "error"},
		{"tls://[::1]:", "error"},
		{"a..b", "error"},
	} {
		got := "error"
		if ns, err := parseNameServer(tt.in); err == nil {
			got = fmt.Sprintf("{%s %s %d %s}", ns.network, ns.host, ns.port, ns.name)
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func FuzzParseNameServer(f *testing.F) {
	for _, s := range []string{"192.0.2.53", "[::1]:53", "tls://a#b", "tcp://ns:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ns, err := parseNameServer(s)
		if err != nil {
			return
		}
		again, err := parseNameServer(ns.String())
		again.name = ns.name
		if err != nil || again != ns {
			t.Errorf("%q is %+v, which is written %s, which is %+v (%v)", s, ns, ns, again, err)
		}
	})
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\noptions ndots:3 timeout:9 attempts:2\n")
	f.Add("domain x.\nnameserver [::1]:53\n;\n#\noptions ndots:-1 timeout:999999 use-vc")
	f.Fuzz(func(t *testing.T, text string) {
		c := parseResolvConf(text)
		if n := len(c.servers); n < 1 || n > maxServers {
			t.Errorf("%d servers", n)
		}
		if c.ndots < 0 || c.ndots > maxNdots || c.timeout < time.Second || c.timeout > maxWait || c.attempts < 1 || c.attempts > maxAttempts {
			t.Errorf("out of bounds: %+v", c)
		}
		if names := c.names("www", true); len(names) != 1 || !slices.Contains(c.names("www", false), "www") {
			t.Errorf("the name itself is not asked for")
		}
	})
}

func TestOrder(t *testing.T) {
	parse := func(s string) (addrs []netip.Addr) {
		for _, f := range strings.Fields(s) {
			addrs = append(addrs, netip.MustParseAddr(f))
		}
		return addrs
	}
	for _, tt := range []struct {
		in   string
		ipv6 bool
		want string
	}{
		{"192.0.2.2 192.0.2.1", true, "[192.0.2.2 192.0.2.1]"},
		{"192.0.2.2 192.0.2.1 2001:db8::2 2001:db8::1", true, "[2001:db8::2 2001:db8::1 192.0.2.2 192.0.2.1]"},
		{"2001:db8::2 192.0.2.2 2001:db8::1 192.0.2.1", false, "[192.0.2.2 192.0.2.1 2001:db8::2 2001:db8::1]"},
	} {
		r := resolver{ipv6: tt.ipv6, ipv6Until: time.Now().Add(time.Hour)}
		if got := fmt.Sprint(r.order(parse(tt.in))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	s := serveNames(b, zone("www.test. 60 A 192.0.2.1", "www.test. 60 AAAA fd00::1"))
	r := &Runner{Resolver: s.addr}
	p := &Probe{run: r, opt: &options{}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Lookup(b.Context(), "www.test"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResolveGo is what package net takes for the same.
func BenchmarkResolveGo(b *testing.B) {
	s := serveNames(b, zone("www.test. 60 A 192.0.2.1", "www.test. 60 AAAA fd00::1"))
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.addr)
	}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupNetIP(b.Context(), "ip", "www.test."); err != nil {
			b.Fatal(err)
		}
	}
}
