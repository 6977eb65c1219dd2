package checks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/probe"
)

// A liar is a server that no check may take for its own.
type liar struct {
	name, want string // want begins the outcome; some lies can be told in several ways
	serve      func(c net.Conn)
}

var silent = liar{"silent", "down timeout", func(c net.Conn) { io.Copy(io.Discard, c) }}

// liarsWithoutWords come first among the liars.
const liarsWithoutWords = 8

// liars are silent, noisy, and those that greet as services do: a banner is no
// proof, not even to the check that it is for.
var liars = func() []liar {
	list := []liar{
		silent,
		{"curt", "down", func(c net.Conn) { bufio.NewReader(c).ReadByte() }},
		{"curt at once", "down", func(net.Conn) {}},
		{"noisy", "down", noisy("\xff")},
		{"noisy text", "down", noisy("abc ")},
		{"noisy lines", "down", noisy("abc\r\n")},
		{"noisy zeros", "down", noisy("\x00")},
		{"echo", "down", func(c net.Conn) {
			// as a plain reader: for two sockets io.Copy makes pipes, and keeps them for others
			io.Copy(c, struct{ io.Reader }{c})
		}},
	}
	for name, text := range map[string]string{
		"http":   "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"smtp":   "220 mail.example.org ESMTP\r\n",
		"ftp":    "220 (vsFTPd 3.0.3)\r\n",
		"imap":   "* OK [CAPABILITY IMAP4rev1] ready\r\n",
		"pop3":   "+OK ready\r\n",
		"ssh":    "SSH-2.0-OpenSSH_9.2\r\n",
		"redis":  "-ERR unknown command\r\n",
		"mysql":  "\x4a\x00\x00\x00\x0a8.0.33\x00\x08\x00\x00\x00abcdefgh\x00\xff\xf7\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abcdefghijkl\x00caching_sha2_password\x00",
		"nats":   "INFO {\"server_id\":\"x\",\"version\":\"2.9\",\"max_payload\":1048576}\r\n",
		"xmpp":   "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' from='x' version='1.0'>",
		"telnet": "\xff\xfd\x18\xff\xfd\x20login: ",
		"tls":    "\x15\x03\x01\x00\x02\x02\x46",
	} {
		list = append(list, liar{"greets as " + name, "down", func(c net.Conn) { io.WriteString(c, text); io.Copy(io.Discard, c) }})
	}
	return list
}()

func noisy(what string) func(net.Conn) {
	b := bytes.Repeat([]byte(what), 4096)
	return func(c net.Conn) {
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
}

// datagramLiars answer a datagram with what is no answer to any question: it
// belongs to another protocol, or to another's question.
var datagramLiars = []struct {
	name, want string
	reply      func(b []byte) [][]byte
}{
	{"silent", "down timeout", func([]byte) [][]byte { return nil }},
	{"echo", "down", func(b []byte) [][]byte { return [][]byte{b} }},
	{"empty", "down", datagrams("")},
	{"garbage", "down", datagrams("\xff\x00garbage\r\n")},
	{"zeros", "down", datagrams(strings.Repeat("\x00", 512))},
	{"noisy", "down", func([]byte) [][]byte { return slices.Repeat([][]byte{bytes.Repeat([]byte("abc "), 300)}, 64) }},
	{"answers as dns", "down", datagrams("\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01")},
	{"answers as ntp", "down", func([]byte) [][]byte { return [][]byte{ntpReply(make([]byte, ntpSize), 0, nil)} }},
	{"answers as snmp", "down", datagrams("\x30\x18\x02\x01\x01\x04\x06public\xa2\x0b\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x00")},
	{"answers as sip", "down", datagrams("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")},
	{"answers as radius", "down", datagrams("\x02\x07\x00\x14" + strings.Repeat("\x00", 16))},
	{"answers as tftp", "down", datagrams("\x00\x05\x00\x04illegal operation\x00")},
	{"answers as stun", "down", datagrams("\x01\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("\x00", 12))},
	{"answers as syslog", "down", datagrams("<13>Nov 24 12:00:00 host app: text")},
}

func datagrams(text string) func([]byte) [][]byte {
	return func([]byte) [][]byte { return [][]byte{[]byte(text)} }
}

// schemesOverUDP are those of the checks over a network that ask by datagram.
var schemesOverUDP = []string{"dns", "ntp", "radius", "sip", "snmp", "udp"}

// contractOptions are what a check can't do without. Those that accept
// anything are told what to expect, and so can be lied to.
var contractOptions = map[string]string{
	"radius": `"radius":{"secret":"${env:PUP_CONTRACT}"}`,
	"tcp":    `"tcp":{"steps":[{"expect":"a service of its own"}]}`,
	"unix":   `"unix":{"steps":[{"expect":"a service of its own"}]}`,
	"udp":    `"udp":{"send":"ping","expect":"a service of its own"}`,
}

// contracts are those of the checks that need no server.
var contracts = map[string]func(t *testing.T, s subject){"exec": execContract, "file": fileContract, "icmp": icmpContract}

// contractJobs is how many schemes are held to the contract at once.
const contractJobs = 8

// TestContract holds every scheme of every check to what all of them promise.
func TestContract(t *testing.T) {
	secret(t, "CONTRACT", "s3cret-word")
	var all sync.WaitGroup
	jobs := make(chan struct{}, contractJobs)
	for _, s := range subjects() {
		if contracts[s.check.Name] != nil {
			continue
		}
		jobs <- struct{}{}
		all.Go(func() {
			defer func() { <-jobs }()
			t.Run(s.check.Name+"/"+s.scheme.Name, s.overNetwork)
		})
	}
	all.Wait()
	for _, s := range subjects() { // what these leave behind is counted
		if own := contracts[s.check.Name]; own != nil {
			t.Run(s.check.Name+"/"+s.scheme.Name, func(t *testing.T) { s.knowsItsOptions(t); own(t, s) })
		}
	}
}

// TestContractLeavesNothing has every scheme of every check meet liars again
// and again. What they have opened and started is gone afterwards; where it is
// not, the goroutines tell whose it is.
func TestContractLeavesNothing(t *testing.T) {
	secret(t, "CONTRACT", "s3cret-word")
	var runs []func()
	add := func(s subject, url, target string) {
		runs = append(runs, func() { s.run(t, url, join(target, `"timeout":"50ms"`)) })
	}
	for _, s := range subjects() {
		for _, w := range s.ways(t) {
			for _, l := range liars[:liarsWithoutWords] {
				url, target := w.to(l.serve)
				add(s, url, target)
			}
		}
		if s.overUDP() {
			for _, l := range datagramLiars {
				add(s, s.url(serveUDP(t, l.reply)), s.target)
			}
		}
	}
	leavesNothing(t, func() {
		var all sync.WaitGroup
		jobs := make(chan struct{}, 8*contractJobs)
		for _, run := range runs {
			jobs <- struct{}{}
			all.Go(func() { run(); <-jobs })
		}
		all.Wait()
	})
}

// A subject is who is held to a contract.
type subject struct {
	check  *probe.Check
	runner *probe.Runner
	scheme probe.Scheme
	target string // more members of the target, or empty
}

func subjects() []subject {
	var list []subject
	for _, c := range All() {
		for _, scheme := range c.Schemes {
			list = append(list, subject{c, allowing(), scheme, contractOptions[c.Name]})
		}
	}
	return list
}

// url is the check's example with the scheme, and another host and port.
func (s subject) url(addr string) string {
	_, rest, _ := strings.Cut(at(s.check.Example, addr), "://")
	return s.scheme.Name + "://" + rest
}

func (s subject) run(t *testing.T, url, target string) result {
	t.Helper()
	return checkContext(t, t.Context(), s.runner, url, target)
}

// join joins members of a target, of which some may be empty.
func join(members ...string) string {
	return strings.Join(slices.DeleteFunc(members, func(m string) bool { return m == "" }), ",")
}

// beginsWith checks the beginning of the outcome.
func (r result) beginsWith(t *testing.T, who, want string) {
	t.Helper()
	if !strings.HasPrefix(r.outcome(), want) {
		t.Errorf("%s: got %q, want %q\n%s", who, r.outcome(), want, r.line)
	}
}

// A way is how a check gets to a server.
type way struct {
	name             string
	nobody, nobodyIn string                                      // URL and target, where nobody listens
	to               func(f func(net.Conn)) (url, target string) // where f does
}

// ways are those to a server that takes connections: over TCP, in a TLS
// session, and over a socket file.
func (s subject) ways(t *testing.T) []way {
	const nobody = "/nonexistent/socket"
	connect := func(path string) string { return join(s.target, `"connect":"unix:`+path+`"`) }
	closed := realserver.ClosedPort(t)
	overTCP := way{"TCP", s.url(closed), s.target, func(f func(net.Conn)) (string, string) { return s.url(serve(t, f)), s.target }}
	switch {
	case s.check.Name == "unix":
		return []way{{"socket file", "unix://" + nobody, s.target, func(f func(net.Conn)) (string, string) { return "unix://" + serveSocket(t, f), s.target }}}
	case s.overUDP() || !slices.Contains(s.check.Common, "connect"):
		return nil
	case s.scheme.TLS:
		trust := join(s.target, trustTestCA())
		return []way{overTCP, {"TLS", s.url(closed), trust, func(f func(net.Conn)) (string, string) { return s.url(serve(t, behindTLS(f))), trust }}}
	}
	return []way{overTCP, {"socket file", s.url("localhost:9"), connect(nobody), func(f func(net.Conn)) (string, string) {
		return s.url("localhost:9"), connect(serveSocket(t, f))
	}}}
}

// behindTLS speaks in a TLS session.
func behindTLS(f func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}, NextProtos: []string{"h2", "http/1.1"}})
		if tc.Handshake() == nil {
			f(tc)
		}
	}
}

// overNetwork is the contract of the checks that have a server.
func (s subject) overNetwork(t *testing.T) {
	s.knowsItsOptions(t)
	ways := s.ways(t)
	for _, w := range ways {
		s.run(t, w.nobody, w.nobodyIn).want(t, "down refused connect")
		s.lies(t, w)
	}
	switch {
	case s.overUDP():
		s.datagramLies(t)
	case len(ways) == 0:
		t.Errorf("nothing says which contract %s is held to: see contracts and schemesOverUDP", s.check.Name)
	}
}

func (s subject) overUDP() bool { return slices.Contains(schemesOverUDP, s.scheme.Name) }

func (s subject) knowsItsOptions(t *testing.T) {
	t.Helper()
	s.run(t, s.url("127.0.0.1:9"), `"`+s.check.Name+`":{"no_such_option":1}`).want(t, "unknown options prepare")
}

// lies has the check meet each liar, and be canceled while one says nothing.
func (s subject) lies(t *testing.T, w way) {
	t.Helper()
	var all sync.WaitGroup
	for _, l := range liars {
		url, target := w.to(l.serve)
		all.Go(func() { s.run(t, url, join(target, `"timeout":"300ms"`)).beginsWith(t, l.name+" over "+w.name, l.want) })
	}
	all.Wait()
	came := make(chan struct{}, 8)
	url, target := w.to(func(c net.Conn) { came <- struct{}{}; silent.serve(c) })
	s.canceled(t, came, url, target)
}

func (s subject) datagramLies(t *testing.T) {
	s.run(t, s.url(realserver.ClosedPort(t)), s.target).beginsWith(t, "closed port", "down refused")
	var all sync.WaitGroup
	for _, l := range datagramLiars {
		url := s.url(serveUDP(t, l.reply))
		all.Go(func() { s.run(t, url, join(s.target, `"timeout":"300ms"`)).beginsWith(t, l.name, l.want) })
	}
	all.Wait()
	came := make(chan struct{}, 8)
	s.canceled(t, came, s.url(serveUDP(t, func([]byte) [][]byte { came <- struct{}{}; return nil })), s.target)
}

// canceled ends the program's context once the check has come as far as it
// gets. A check that did not notice would wait for its timeout, and say so.
func (s subject) canceled(t *testing.T, came <-chan struct{}, url, target string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-came:
		case <-ctx.Done():
		}
		cancel()
	}()
	checkContext(t, ctx, s.runner, url, join(target, `"timeout":"30s"`)).beginsWith(t, "canceled", "unknown canceled")
}

// leavesNothing checks that what f starts is gone some time after it.
func leavesNothing(t *testing.T, f func()) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close sockets that were forgotten
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	f() // what is made once, and kept
	before := settled()
	for range 4 {
		f()
	}
	// servers and closed connections end by themselves; what is left after
	// that long has been forgotten
	after := held()
	for deadline := time.Now().Add(10 * time.Second); after.exceeds(before) && time.Now().Before(deadline); after = held() {
		<-time.After(lookAgain)
	}
	if after.exceeds(before) {
		buf := make([]byte, 1<<16)
		t.Errorf("left behind: %+v, before it was %+v\n%s", after, before, buf[:runtime.Stack(buf, true)])
	}
}

// resources are what a check can forget to give back.
type resources struct{ goroutines, descriptors, processes int }

func (r resources) exceeds(o resources) bool {
	return r.goroutines > o.goroutines || r.descriptors > o.descriptors || r.processes > o.processes
}

// lookAgain is not shorter, since looking makes garbage.
const lookAgain = 10 * time.Millisecond

// settled is what is held once nothing more is given back.
func settled() resources {
	const quiet = 200 * time.Millisecond
	least := held()
	for until := time.Now().Add(quiet); time.Now().Before(until); <-time.After(lookAgain) {
		if r := held(); least.exceeds(r) {
			least, until = r, time.Now().Add(quiet)
		}
	}
	return least
}

func held() resources {
	fds, _ := os.ReadDir("/proc/self/fd")
	r := resources{goroutines: runtime.NumGoroutine(), descriptors: len(fds)}
	threads, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range threads {
		b, _ := os.ReadFile(name)
		r.processes += len(strings.Fields(string(b)))
	}
	return r
}
