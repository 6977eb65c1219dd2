package probe

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/realserver"
	"pup/cmd/internal/wire"
)

// The check of these tests dials, says what it is told to, and reads.
type talkOptions struct {
	Say    string   `json:"say" doc:"What to say."`
	Until  string   `json:"until" doc:"How to read: line, full, peek, drain, nothing."`
	Bytes  int      `json:"bytes" doc:"How many bytes to read."`
	UDP    bool     `json:"udp" doc:"Over UDP."`
	Fail   string   `json:"fail" doc:"The reason to fail with."`
	Panic  bool     `json:"panic" doc:"Panic."`
	Secret string   `json:"secret" secret:"true" doc:"A secret."`
	Facts  []string `json:"facts" doc:"Facts to give."`
}

type talkFacts struct {
	Got   string   `json:"got" doc:"What was read."`
	Count *int     `json:"count" doc:"A number."`
	List  []string `json:"list" doc:"A list."`
	Large string   `json:"large" large:"true" doc:"Not printed."`
}

func talkCheck(ctx context.Context, p *Probe, o *talkOptions, f *talkFacts) error {
	if o.Panic {
		panic("oh no")
	}
	if o.Fail != "" {
		return Failf(wire.Reason(o.Fail), "failed as told, with %s", o.Secret)
	}
	f.List, f.Count = o.Facts, new(len(o.Facts))
	dial := p.Dial
	if o.UDP {
		dial = p.DialUDP
	}
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	p.Phase(wire.Request)
	if err := c.Printf("%s", o.Say); err != nil {
		return err
	}
	p.Phase(wire.Wait)
	switch o.Until {
	case "line":
		f.Got, err = c.Line()
	case "full":
		b := make([]byte, o.Bytes)
		err = c.Full(b)
		f.Got = string(b)
	case "peek":
		var b []byte
		b, err = c.Peek(o.Bytes)
		f.Got = string(b)
	case "drain":
		err = c.Drain(int64(o.Bytes))
	}
	f.Large = f.Got
	return err
}

func talkRunner(change func(*catalog.Info)) *Runner {
	info := Info{Name: "talk", Summary: "talks", Doc: "Talks.", Schemes: []Scheme{{Name: "talk", Port: 1}, {Name: "talks", Port: 1, TLS: true}}, Example: "talk://h", Common: OverTCP}
	if change != nil {
		change(&info)
	}
	return NewRunner([]*Check{New(info, talkOptions{}, talkCheck)})
}

// runTarget runs a target line and gives its result, taken apart.
func runTarget(t testing.TB, ctx context.Context, r *Runner, line string) map[string]any {
	t.Helper()
	j, err := r.Parse([]byte(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	j.Run(ctx)
	if len(j.Line)+1 > r.MaxRecord {
		t.Errorf("a line of %d bytes, want %d at most", len(j.Line)+1, r.MaxRecord)
	}
	vars, err := expr.Vars(j.Line)
	if err != nil {
		t.Fatalf("%s: %v", j.Line, err)
	}
	return vars
}

func outcomeOf(vars map[string]any) string {
	s := fmt.Sprint(vars["status"])
	for _, k := range []string{"reason", "phase"} {
		if v, ok := vars[k]; ok {
			s += " " + fmt.Sprint(v)
		}
	}
	return s
}

// listen serves an address until the test ends.
func listen(t testing.TB, addr string, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() { ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer c.Close(); f(c) })
		}
	})
	return ln.Addr().String()
}

func says(text string) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, text); io.Copy(io.Discard, c) }
}

// TestReasons holds the words for what goes wrong to errors that are caused,
// not made up.
func TestReasons(t *testing.T) {
	silentServer := listen(t, "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	closes := listen(t, "127.0.0.1:0", func(c net.Conn) { c.Read(make([]byte, 1)) })
	resets := listen(t, "127.0.0.1:0", func(c net.Conn) { c.Read(make([]byte, 1)); c.(*net.TCPConn).SetLinger(0) })
	half := listen(t, "127.0.0.1:0", func(c net.Conn) { c.Read(make([]byte, 1)); io.WriteString(c, "half") })
	long := listen(t, "127.0.0.1:0", says(strings.Repeat("x", 5000)))
	read := `"talk":{"say":"x","until":"line"}`
	for _, tt := range []struct{ name, addr, target, want string }{
		{"refused", realserver.ClosedPort(t), read, "down refused connect"},
		{"closed", closes, read, "down closed wait"},
		{"closed in between", half, read, "down closed wait"},
		{"closed in between, a number of bytes", half, `"talk":{"say":"x","until":"full","bytes":9}`, "down closed wait"},
		{"reset", resets, read, "down reset wait"},
		{"silent", silentServer, read + `,"timeout":"100ms"`, "down timeout wait"},
		{"silent in the handshake", silentServer, `"url":"talks://` + silentServer + `","timeout":"100ms"`, "down timeout tls"},
		{"refused over UDP", realserver.ClosedPort(t), `"talk":{"say":"x","until":"full","bytes":1,"udp":true}`, "down refused wait"},
		{"a line too long", long, read, "down protocol wait"},
		{"too much", long, `"talk":{"until":"drain","bytes":100}`, "down too-large wait"},
		{"no such source", silentServer, `"source":"192.0.2.55"`, "unknown local connect"},
		{"source of the other family", silentServer, `"source":"::1"`, "unknown local connect"},
		{"broadcast", "255.255.255.255:9", read, "unknown local connect"},
		{"told to", silentServer, `"talk":{"fail":"unavailable"}`, "down unavailable prepare"},
		{"told to, about us", silentServer, `"talk":{"fail":"secret"}`, "unknown secret prepare"},
		{"a bug", silentServer, `"talk":{"panic":true}`, "unknown internal prepare"},
		{"another family", silentServer, `"family":"6"`, "unknown options prepare"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := `"url":"talk://` + tt.addr + `",`
			if strings.Contains(tt.target, `"url"`) {
				url = ""
			}
			got := runTarget(t, t.Context(), talkRunner(nil), "{"+url+tt.target+"}")
			if outcomeOf(got) != tt.want {
				t.Errorf("got %q (%v), want %q", outcomeOf(got), got["error"], tt.want)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		addr := listen(t, "127.0.0.1:0", func(c net.Conn) { c.Read(make([]byte, 1)); cancel(); io.Copy(io.Discard, c) })
		got := runTarget(t, ctx, talkRunner(nil), `{"url":"talk://`+addr+`",`+read+`}`)
		if outcomeOf(got) != "unknown canceled wait" {
			t.Errorf("got %q", outcomeOf(got))
		}
	})
}

func TestConn(t *testing.T) {
	addr := listen(t, "127.0.0.1:0", says("one\r\ntwo\n"+strings.Repeat("y", 4095)+"\nrest"))
	r := talkRunner(nil)
	p := &Probe{run: r, opt: noOptions}
	p.ctx.Context, p.ctx.deadline = t.Context(), time.Now().Add(time.Minute)
	attempt := &p.ctx
	defer attempt.end()
	host, port, _ := splitHostPort(addr)
	c, err := p.DialHost(attempt, "tcp", host, port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.buf != nil {
		t.Errorf("holds a buffer before anything is read")
	}
	if err := c.Wait(); err != nil || c.Buffered() == 0 {
		t.Fatalf("waited for nothing: %v", err)
	}
	if b, err := c.Peek(3); string(b) != "one" || err != nil {
		t.Errorf("Peek: got %q, %v", b, err)
	}
	for _, want := range []string{"one", "two", strings.Repeat("y", 4095)} {
		if got, err := c.Line(); got != want || err != nil {
			t.Errorf("Line: got %.20q (%d bytes), %v, want %.20q (%d bytes)", got, len(got), err, want, len(want))
		}
	}
	if b, err := c.ReadByte(); b != 'r' || err != nil {
		t.Errorf("ReadByte: got %q, %v", b, err)
	}
	rest := make([]byte, 3)
	if err := c.Full(rest); string(rest) != "est" || err != nil {
		t.Errorf("Full: got %q, %v", rest, err)
	}
	if c.buf != nil {
		t.Errorf("holds a buffer of which all is read")
	}
	c.SetReadDeadline(time.Unix(1, 0))
	if err := c.Wait(); err == nil {
		t.Errorf("waited beyond its deadline")
	}
}

// TestAddresses holds what each mode makes of a host with several addresses.
func TestAddresses(t *testing.T) {
	addr := listen(t, "127.0.0.1:0", says("hi\n"))
	_, port, _ := net.SplitHostPort(addr)
	names := serveNames(t, zone("good.test. 60 A 127.0.0.1", "mixed.test. 60 A 127.0.0.1", "mixed.test. 60 A 127.0.0.2", "bad.test. 60 A 127.0.0.2", "bad.test. 60 A 127.0.0.3"))
	for _, tt := range []struct{ host, mode, want string }{
		{"good", "", "up"}, {"good", "each", "up"}, {"good", "all", "up"}, {"good", "any", "up"},
		{"mixed", "", "up"}, {"mixed", "first", "up"}, {"mixed", "each", "degraded refused connect"}, {"mixed", "all", "down refused connect"}, {"mixed", "any", "up"},
		{"bad", "first", "down refused connect"}, {"bad", "each", "down refused connect"}, {"bad", "any", "down refused connect"}, {"bad", "all", "down refused connect"},
		{"none", "each", "down no-such-host resolve"}, {"none", "first", "down no-such-host resolve"},
	} {
		t.Run(tt.host+" "+tt.mode, func(t *testing.T) {
			mode := ""
			if tt.mode != "" {
				mode = fmt.Sprintf(`"address":%q,`, tt.mode)
			}
			got := runTarget(t, t.Context(), talkRunner(nil), fmt.Sprintf(`{"url":"talk://%s.test:%s",%s"resolver":%q,"talk":{"until":"line"}}`, tt.host, port, mode, names.addr))
			if outcomeOf(got) != tt.want {
				t.Errorf("got %q (%v), want %q", outcomeOf(got), got["error"], tt.want)
			}
			list, _ := got["addresses"].([]any)
			if want := map[string]int{"good": 1, "mixed": 2, "bad": 2}[tt.host]; tt.mode != "" && tt.mode != "first" && len(list) != want {
				t.Errorf("%d addresses are reported, want %d", len(list), want)
			}
		})
	}
}

func TestConnectSourceDeny(t *testing.T) {
	from := make(chan string, 1)
	addr := listen(t, "127.0.0.1:0", func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		select {
		case from <- host:
		default:
		}
		io.WriteString(c, "hi\n")
	})
	got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://name.invalid:9","connect":"`+addr+`","source":"127.0.0.9","talk":{"until":"line"}}`)
	if outcomeOf(got) != "up" || got["address"] != addr {
		t.Errorf("connect: got %q at %v (%v)", outcomeOf(got), got["address"], got["error"])
	}
	if host := <-from; host != "127.0.0.9" {
		t.Errorf("came from %s, want 127.0.0.9", host)
	}
	for _, deny := range []string{"127.0.0.0/8", "::ffff:127.0.0.0/104", "0.0.0.0/0"} {
		r := talkRunner(nil)
		r.Deny = []netip.Prefix{netip.MustParsePrefix(deny)}
		for _, target := range []string{
			`{"url":"talk://` + addr + `"}`, `{"url":"talk://[::ffff:127.0.0.1]:9"}`, `{"url":"talk://h.invalid:9","connect":"` + addr + `"}`,
			`{"url":"talk://` + addr + `","talk":{"udp":true}}`, `{"url":"talk://` + addr + `","address":"each"}`,
		} {
			got := runTarget(t, t.Context(), r, target)
			if !strings.HasPrefix(outcomeOf(got), "unknown options") {
				if deny[0] != ':' { // a prefix of that form names no address that is dialled
					t.Errorf("--deny %s: %s: got %q (%v)", deny, target, outcomeOf(got), got["error"])
				}
			}
		}
	}
}

// socksServer is a SOCKS 5 proxy that answers with the given code, and then
// serves the connection itself.
func socksServer(reply string, serve func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		head := make([]byte, 3)
		if _, err := io.ReadFull(c, head); err != nil || head[0] != 5 {
			return
		}
		c.Write([]byte{5, 0})
		req := make([]byte, 5)
		if _, err := io.ReadFull(c, req); err != nil {
			return
		}
		io.ReadFull(c, make([]byte, int(req[4])+2))
		b, _ := hex.DecodeString(reply)
		c.Write(b)
		serve(c)
	}
}

func TestProxy(t *testing.T) {
	httpProxy := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			br := bufio.NewReader(c)
			first, _ := br.ReadString('\n')
			for line := first; strings.TrimSpace(line) != ""; line, _ = br.ReadString('\n') {
			}
			if first != "CONNECT target.invalid:77 HTTP/1.1\r\n" {
				answer = "HTTP/1.1 400 Bad\r\n\r\n"
			}
			io.WriteString(c, answer)
			io.Copy(io.Discard, br)
		}
	}
	for _, tt := range []struct {
		name, scheme string
		serve        func(net.Conn)
		want         string
	}{
		{"SOCKS", "socks5", socksServer("05000001000000000000", says("hi\n")), "up"},
		{"SOCKS, a name for the address", "socks5", socksServer("05000003036162630000", says("hi\n")), "up"},
		{"SOCKS, IPv6", "socks5", socksServer("05000004"+strings.Repeat("00", 18), says("hi\n")), "up"},
		{"SOCKS, refused", "socks5", socksServer("05050001000000000000", says("")), "down refused connect"},
		{"SOCKS, host unreachable", "socks5", socksServer("05040001000000000000", says("")), "down unreachable connect"},
		{"SOCKS, not allowed", "socks5", socksServer("05020001000000000000", says("")), "unknown local connect"},
		{"SOCKS, wants a login", "socks5", says("\x05\xff"), "unknown local connect"},
		{"SOCKS, strange address", "socks5", socksServer("05000009000000000000", says("")), "unknown local connect"},
		{"SOCKS, another version", "socks5", socksServer("04000001000000000000", says("")), "unknown local connect"},
		{"SOCKS, ends in the address", "socks5", socksServer("0500000100", func(net.Conn) {}), "unknown local connect"},
		{"SOCKS, no proxy", "socks5", says("HTTP/1.1 400 Bad\r\n\r\n"), "unknown local connect"},
		{"SOCKS, closes", "socks5", func(net.Conn) {}, "unknown local connect"},
		{"HTTP", "http", httpProxy("HTTP/1.1 200 OK\r\nX: y\r\n\r\nhi\n"), "up"},
		{"HTTP, gateway", "http", httpProxy("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "down unreachable connect"},
		{"HTTP, gateway timeout", "http", httpProxy("HTTP/1.1 504 Late\r\n\r\n"), "down timeout connect"},
		{"HTTP, wants a login", "http", httpProxy("HTTP/1.1 407 Login\r\n\r\n"), "unknown local connect"},
		{"HTTP, no HTTP", "http", httpProxy("220 smtp\r\n\r\n"), "unknown local connect"},
		{"HTTP, endless", "http", httpProxy("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 200)), "unknown local connect"},
		{"HTTP, closes", "http", func(net.Conn) {}, "unknown local connect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := tt.scheme + "://" + listen(t, "127.0.0.1:0", tt.serve)
			got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://target.invalid:77","proxy":"`+proxy+`","talk":{"until":"line"},"timeout":"5s"}`)
			if outcomeOf(got) != tt.want {
				t.Errorf("got %q (%v), want %q", outcomeOf(got), got["error"], tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name, scheme string
		serve        func(net.Conn)
		want         string
	}{
		{"SOCKS, says nothing", "socks5", says(""), "unknown local connect"},
		{"SOCKS, does not connect", "socks5", says("\x05\x00"), "down timeout connect"},
		{"SOCKS, stalls in the address", "socks5", says("\x05\x00\x05\x00\x00\x01\x7f"), "unknown local connect"},
		{"HTTP, says nothing", "http", says(""), "down timeout connect"},
		{"HTTP, stalls in the header", "http", says("HTTP/1.1 200 OK\r\n"), "unknown local connect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := tt.scheme + "://" + listen(t, "127.0.0.1:0", tt.serve)
			got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://target.invalid:77","proxy":"`+proxy+`","timeout":"100ms"}`)
			if outcomeOf(got) != tt.want {
				t.Errorf("got %q (%v), want %q", outcomeOf(got), got["error"], tt.want)
			}
		})
	}
	t.Run("no such proxy", func(t *testing.T) {
		got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://127.0.0.1:77","proxy":"socks5://proxy.invalid:1080","resolver":"`+realserver.ClosedPort(t)+`"}`)
		if !strings.HasPrefix(outcomeOf(got), "unknown local") {
			t.Errorf("got %q (%v)", outcomeOf(got), got["error"])
		}
	})
	t.Run("no proxy there", func(t *testing.T) {
		got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://target.invalid:77","proxy":"socks5://`+realserver.ClosedPort(t)+`"}`)
		if outcomeOf(got) != "unknown local connect" {
			t.Errorf("got %q (%v)", outcomeOf(got), got["error"])
		}
	})
}

// TestJudge holds how expressions, a check's own ones and failures add up.
func TestJudge(t *testing.T) {
	addr, closed := listen(t, "127.0.0.1:0", says("hi\n")), realserver.ClosedPort(t)
	own := func(i *catalog.Info) { i.Expect, i.Warn = []string{"talk.count < 3"}, []string{"talk.count < 2"} }
	facts := func(n int) string {
		b, _ := json.Marshal(slices.Repeat([]string{"x"}, n))
		return `"talk":{"until":"line","facts":` + string(b) + `}`
	}
	for _, tt := range []struct{ name, addr, target, want, failed string }{
		{"own, good", addr, facts(1), "up", ""},
		{"own warn", addr, facts(2), "degraded mismatch verify", "warn"},
		{"own expect", addr, facts(3), "down mismatch verify", "expect"},
		{"own ones give way", addr, facts(3) + `,"warn":["talk.count < 9"]`, "up", ""},
		{"about something else", addr, facts(3) + `,"expect":["talk.got == 'hi'"]`, "down mismatch verify", "expect"},
		{"expect", addr, facts(1) + `,"expect":["talk.got == 'ho'"]`, "down mismatch verify", "expect"},
		{"expect before warn", addr, facts(1) + `,"warn":["talk.got == 'ho'"],"expect":["talk.got == 'ha'"]`, "down mismatch verify", "expect"},
		{"slow", addr, facts(1) + `,"warn":["ms.total < 0"]`, "degraded slow verify", "warn"},
		{"slow and wrong", addr, facts(1) + `,"warn":["ms.total < 0","talk.got == 'ho'"]`, "degraded mismatch verify", "warn"},
		{"large facts can be judged", addr, facts(1) + `,"expect":["talk.large == 'hi'"]`, "up", ""},
		{"absent", addr, `"talk":{},"expect":["talk.got == 'x'"]`, "down mismatch verify", "expect"},
		{"a failure is none of theirs", closed, facts(1) + `,"expect":["talk.got == 'x'"]`, "down refused connect", ""},
		{"expected failure", closed, facts(1) + `,"expect":["reason == 'refused'"]`, "up", ""},
		{"another failure than expected", closed, facts(1) + `,"expect":["reason == 'timeout'"]`, "down refused connect", ""},
		{"expected failure, but it works", addr, facts(1) + `,"expect":["reason == 'refused'"]`, "down mismatch verify", "expect"},
		{"unknown is no verdict", closed, `"source":"192.0.2.55","expect":["reason == 'local'"]`, "unknown local connect", ""},
		{"no such fact", addr, `"expect":["talk.nothing == 1"]`, "unknown options prepare", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := runTarget(t, t.Context(), talkRunner(own), `{"url":"talk://`+tt.addr+`",`+tt.target+"}")
			if outcomeOf(got) != tt.want {
				t.Errorf("got %q (%v), want %q", outcomeOf(got), got["error"], tt.want)
			}
			list, _ := got["failed"].([]any)
			if (tt.failed != "") != (len(list) > 0) {
				t.Fatalf("failed is %v, want %q", list, tt.failed)
			}
			if tt.failed != "" && list[0].(map[string]any)[tt.failed] == nil {
				t.Errorf("failed is %v, want %q first", list, tt.failed)
			}
			facts, _ := got["talk"].(map[string]any)
			if _, printed := facts["large"]; printed {
				t.Errorf("a large fact is printed")
			}
		})
	}
}

func TestRetries(t *testing.T) {
	var mu sync.Mutex
	n := 0
	addr := listen(t, "127.0.0.1:0", func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 3 {
			io.WriteString(c, "hi\n")
		}
	})
	got := runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://`+addr+`","retries":5,"retry_wait":"1ms","talk":{"until":"line"}}`)
	if earlier, _ := got["earlier"].([]any); outcomeOf(got) != "up" || got["attempts"] != 3 && got["attempts"] != 3.0 || len(earlier) != 2 {
		t.Errorf("got %q after %v attempts, %v before", outcomeOf(got), got["attempts"], got["earlier"])
	}
	got = runTarget(t, t.Context(), talkRunner(nil), `{"url":"talk://`+addr+`","retries":5,"retry_wait":"1ms","family":"6"}`)
	if fmt.Sprint(got["attempts"]) != "1" {
		t.Errorf("%v attempts with wrong options, want 1", got["attempts"])
	}
}

// FuzzTarget: every line gives an error or a result that is valid, not too
// long, and carries the name.
func FuzzTarget(f *testing.F) {
	f.Add([]byte(`{"name":"a","url":"talk://h:1","talk":{"say":"x"},"expect":["status == 'up'"],"labels":{"a":1e400},"timeout":"1s"}`))
	f.Add([]byte(`{"url":"talk://[::1]:99999","due":"x","retries":-1,"proxy":"socks5://","source":"x","connect":":","family":"5"}`))
	r := talkRunner(nil)
	f.Fuzz(func(t *testing.T, line []byte) {
		j, err := r.Parse(line)
		if err != nil {
			return
		}
		j.Cancel()
		checkLine(t, r, j)
		if j.err != nil {
			j.Run(t.Context())
			checkLine(t, r, j)
			if j.Status != wire.Unknown {
				t.Errorf("%s: got %s for %v", line, j.Status, j.err)
			}
		}
	})
}

func checkLine(t *testing.T, r *Runner, j *Job) {
	t.Helper()
	if len(j.Line)+1 > r.MaxRecord || slices.Contains(j.Line, '\n') {
		t.Errorf("a line of %d bytes, want %d at most: %s", len(j.Line)+1, r.MaxRecord, j.Line)
	}
	var name string
	err := ndjson.Members(j.Line, func(k, v []byte) (err error) {
		if string(k) == "name" {
			name, err = ndjson.Unquote(v)
		}
		return err
	})
	if err != nil {
		t.Errorf("%v: %s", err, j.Line)
	}
	if name != j.t.Name && strings.ToValidUTF8(j.t.Name, "\ufffd") == j.t.Name {
		t.Errorf("got the name %q, want %q", name, j.t.Name)
	}
}

// FuzzResult: whatever a check finds, the line is valid and fits, and the
// secret is not in it.
func FuzzResult(f *testing.F) {
	f.Add("facts", 3, "error text", "pup-secret", 4096)
	f.Add(strings.Repeat("\x1b", 3000), 200, strings.Repeat("\u202e", 5000), "pup-secret", 512)
	f.Fuzz(func(t *testing.T, fact string, n int, text, secret string, limit int) {
		r := talkRunner(nil)
		r.MaxRecord = 1024 + limit&0x1fff
		j, err := r.Parse([]byte(`{"name":"n","url":"talk://h","labels":{"a":"b"}}`))
		if err != nil {
			t.Fatal(err)
		}
		j.plan.secrets.given = []string{"a-secret-of-ours"}
		facts := &talkFacts{Got: fact + "a-secret-of-ours", List: slices.Repeat([]string{fact}, n&0xff), Large: fact}
		o := &outcome{status: wire.Down, phase: wire.Wait, reason: wire.Mismatch, err: text + "a-secret-of-ours", facts: facts, time: time.Now()}
		o.tried = []attemptLine{{Address: "192.0.2.1:1", Error: text}}
		o.failed = []failedLine{{text: text, saw: map[string]any{"talk.got": fact}}}
		j.finish(&verdict{outcome: o, attempts: 1})
		checkLine(t, r, j)
		if strings.Contains(string(j.Line), "a-secret-of-ours") {
			t.Errorf("the secret is in %s", j.Line)
		}
		for _, b := range j.Line {
			if b < 0x20 {
				t.Errorf("a control character is in %q", j.Line)
			}
		}
		vars, err := expr.Vars(j.Line)
		if err != nil || vars["status"] != "down" || vars["reason"] != "mismatch" {
			t.Errorf("the verdict is lost: %s (%v)", j.Line, err)
		}
	})
}

// A job that is used again knows nothing of the target that it had before, nor of
// how long its line was.
func TestJobAgain(t *testing.T) {
	r := talkRunner(nil)
	full := `{"name":"full","url":"talk://h","check":"talk","talk":{"fail":"mismatch"},"labels":{"a":"` + strings.Repeat("b", r.MaxRecord) + `"},"family":"4","warn":["ms.total < 1"],
		"expect":["reason == 'closed'"],"retries":1,"retry_wait":"1ms","due":"2026-11-22T06:00:00Z","run":"x"}`
	run := func(line string) string {
		j, err := r.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		defer j.Release()
		j.Run(t.Context())
		if len(j.Line) >= r.MaxRecord {
			t.Errorf("a line of %d bytes, want fewer than %d", len(j.Line), r.MaxRecord)
		}
		vars, err := expr.Vars(j.Line)
		if err != nil {
			t.Fatal(err)
		}
		delete(vars, "time")
		delete(vars, "ms")
		return fmt.Sprint(vars)
	}
	bare := `{"url":"talk://h","talk":{"fail":"closed"}}`
	want := run(bare)
	for range 50 { // a pool may lose what it has
		if got := run(full); !strings.Contains(got, "truncated:[earlier error labels]") || !strings.Contains(got, "attempts:2") {
			t.Fatalf("got %s", got)
		}
		if got := run(bare); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// Options that may refer to a secret are never remembered.
func TestDecoded(t *testing.T) {
	var d decoded
	for text, want := range map[string]bool{`{"a":1}`: true, `{"a":"${secret:x}"}`: false, `{"a":"\u0024{secret:x}"}`: false} {
		d.add([]byte(text), text)
		if got, ok := d.get([]byte(text)); ok != want || ok && got != text {
			t.Errorf("%s: got %v, %v, want %v", text, got, ok, want)
		}
	}
	for i := range 2 * maxDecoded {
		d.add(fmt.Append(nil, i), i)
	}
	if len(d.known) > maxDecoded {
		t.Errorf("%d are remembered, want at most %d", len(d.known), maxDecoded)
	}
}

// What is remembered is bounded, and the same again.
func TestRemembered(t *testing.T) {
	r := talkRunner(nil)
	a, err := r.urls.parse(r.Catalog, "talk://h:1/a", "")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := r.urls.parse(r.Catalog, "talk://h:1/a", ""); b != a {
		t.Error("a URL was parsed twice")
	}
	if _, err := r.urls.parse(r.Catalog, "talk://h:1/a", "none"); err == nil {
		t.Error("a URL is remembered without its check")
	}
	for i := range 2 * maxURLs {
		r.urls.parse(r.Catalog, fmt.Sprintf("talk://h:1/%d", i), "")
	}
	if n := len(r.urls.known); n > maxURLs {
		t.Errorf("%d URLs are remembered, want at most %d", n, maxURLs)
	}
	var certs certMemory
	for i := range 2 * maxShownCerts {
		c := &x509.Certificate{Raw: fmt.Append(nil, i), SerialNumber: big.NewInt(int64(i))}
		if got, want := certs.of(c).serial, fmt.Sprintf("%x", i); got != want || certs.of(c).serial != want {
			t.Fatalf("certificate %d: got the serial number %s, want %s", i, got, want)
		}
	}
	if n := len(certs.known); n > maxShownCerts {
		t.Errorf("%d certificates are remembered, want at most %d", n, maxShownCerts)
	}
}
