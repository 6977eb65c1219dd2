package checks

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/pup-probe/internal/probe"
)

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(strings.TrimSuffix(testCA().file, "ca.pem"))
	os.Exit(code)
}

// contractTCP holds servers that no check may take for its own.
var contractTCP = []struct {
	name, want string // want begins the outcome; some lies can be told in several ways
	serve      func(c net.Conn)
}{
	{"silent", "down timeout", func(c net.Conn) { io.Copy(io.Discard, c) }},
	{"curt", "down", func(c net.Conn) { bufio.NewReader(c).ReadByte() }},
	{"curt at once", "down", func(net.Conn) {}},
	{"noisy", "down", noisy("\xff")},
	{"noisy text", "down", noisy("abc ")},
	{"noisy lines", "down", noisy("abc\r\n")},
	{"noisy zeros", "down", noisy("\x00")},
	{"echo", "down", func(c net.Conn) { io.Copy(c, c) }},
}

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

// greetings are the first words of services that are not what is asked for.
var greetings = map[string]string{
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
}

// ownGreeting are the checks that a greeting is from, so that it is no lie.
var ownGreeting = map[string][]string{
	"http": {"http", "elasticsearch", "etcd", "websocket", "grpc"}, "smtp": {"smtp", "lmtp", "mailtrip"}, "ftp": {"ftp"},
	"imap": {"imap"}, "pop3": {"pop3"}, "ssh": {"ssh", "sftp"}, "redis": {"redis"}, "mysql": {"mysql"}, "nats": {"nats"},
	"xmpp": {"xmpp"}, "tls": {"tls"},
}

// acceptsAnything are the checks whose up, without options, is an open port.
var acceptsAnything = []string{"tcp"}

// TestContract holds every check to what all of them promise.
func TestContract(t *testing.T) {
	closed := closedPort(t)
	for _, c := range All() {
		overTCP, overNet := slices.Contains(c.Common, "proxy"), slices.Contains(c.Common, "connect")
		if !overNet {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			check(t, at(c.Example, "127.0.0.1:9"), `"`+c.Name+`":{"no_such_option":1}`).want(t, "unknown options prepare")
			if !overTCP {
				return
			}
			check(t, at(c.Example, closed), "").want(t, "down refused connect")
			if slices.Contains(acceptsAnything, c.Name) {
				return
			}
			for _, s := range contractTCP {
				t.Run(s.name, func(t *testing.T) {
					res := check(t, at(c.Example, serve(t, s.serve)), `"timeout":"300ms"`)
					if !strings.HasPrefix(res.outcome(), s.want) {
						t.Errorf("got %q, want %q\n%s", res.outcome(), s.want, res.line)
					}
				})
			}
			for name, text := range greetings {
				if slices.Contains(ownGreeting[name], c.Name) {
					continue
				}
				t.Run("greeted by "+name, func(t *testing.T) {
					addr := serve(t, func(nc net.Conn) { io.WriteString(nc, text); io.Copy(io.Discard, nc) })
					res := check(t, at(c.Example, addr), `"timeout":"300ms"`)
					if !strings.HasPrefix(res.outcome(), "down") {
						t.Errorf("got %q, want down\n%s", res.outcome(), res.line)
					}
				})
			}
			t.Run("canceled", func(t *testing.T) { canceled(t, c) })
		})
	}
}

// canceled checks that a check ends soon after its context, and leaves no
// goroutine behind.
func canceled(t *testing.T, c *probe.Check) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	accepted := make(chan struct{}, 8)
	addr := serve(t, func(nc net.Conn) { accepted <- struct{}{}; io.Copy(io.Discard, nc) })
	go func() { <-accepted; cancel() }()
	res := checkContext(t, ctx, probe.NewRunner(All()), at(c.Example, addr), `"timeout":"1m"`)
	if !strings.HasPrefix(res.outcome(), "unknown canceled") {
		t.Errorf("got %q, want unknown canceled\n%s", res.outcome(), res.line)
	}
	// the server's goroutines and ours end by themselves; what is left after
	// that long has been forgotten
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before+2 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, before there were %d\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}

// TestNames holds each file to names that begin with its own.
func TestNames(t *testing.T) {
	decl := regexp.MustCompile(`(?m)^(?:func|type|var|const) ([A-Za-z_0-9]+)`)
	shared := []string{"checks.go", "steps.go", "starttls.go"}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".go")
		if !ok || strings.HasSuffix(name, "_test") || slices.Contains(shared, f.Name()) {
			continue
		}
		stem, _, _ := strings.Cut(name, "_")
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range decl.FindAllSubmatch(src, -1) {
			id := string(m[1])
			if id != "init" && !strings.HasPrefix(strings.ToLower(strings.TrimPrefix(id, "err")), stem) {
				t.Errorf("%s declares %s, which does not begin with %s (errors: with err and that)", f.Name(), id, stem)
			}
		}
	}
}

// TestInfo holds what a check says of itself to the form that the manual and
// pup-sched need.
func TestInfo(t *testing.T) {
	r := probe.NewRunner(All())
	b, err := r.Catalog.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := catalog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if b2, _ := parsed.MarshalJSON(); !bytes.Equal(b, b2) {
		t.Errorf("the catalogue is not the same after it was written and read")
	}
	owner := map[string]string{}
	for _, c := range All() {
		for _, s := range c.Schemes {
			if owner[s.Name] != "" {
				t.Errorf("%s:// belongs to both %s and %s", s.Name, owner[s.Name], c.Name)
			}
			owner[s.Name] = c.Name
		}
		if c.Summary == "" || c.Doc == "" || len(c.Schemes) == 0 || strings.HasSuffix(c.Summary, ".") {
			t.Errorf("%s: wants a summary without period, a doc and a scheme", c.Name)
		}
		if _, err := r.Catalog.ParseURL(c.Example, ""); err != nil {
			t.Errorf("%s: example: %v", c.Name, err)
		}
		for _, text := range append(slices.Clip(c.Expect), c.Warn...) {
			if _, err := expr.Compile(text, r.Catalog.Check(c.Name).Env()); err != nil {
				t.Errorf("%s: default %v", c.Name, err)
			}
		}
	}
}
