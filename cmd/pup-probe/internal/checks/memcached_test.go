package checks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

func TestMemcached(t *testing.T) {
	open := "C: version\nC: stats\n"
	up := open + "S: VERSION 1.6.18\nS: STAT uptime 9\nS: STAT bytes 50\nS: STAT limit_maxbytes 200\nS: STAT get_hits 3\nS: STAT get_misses 1\nS: STAT evictions 7\nS: STAT accepting_conns 1\nS: STAT rusage_user 0.1\nS: END\n"
	pw := `"memcached":{"user":"pup","password":"` + secret(t, "MEMCACHED", "s3cret") + `"}`
	login := "C: set pup 0 0 10\nC: pup s3cret\n"
	talks(t, "memcached://HOST", []talk{
		{"up", "", up, "up", []string{"memcached.version == '1.6.18'", "memcached.uptime_ms == 9000", "memcached.memory_percent == 25", "memcached.hit_percent == 75", "memcached.evictions == 7", "memcached.accepting"}},
		{"full", "", open + "S: VERSION 1\nS: STAT accepting_conns 0\nS: END", "down mismatch verify", nil},
		{"too many connections", "", "S: ERROR Too many open connections\n! close", "down unavailable request", nil},
		{"wants a login", "", open + "S: CLIENT_ERROR unauthenticated", "down denied auth", nil},
		{"unknown command", "", open + "S: ERROR", "down protocol request", nil},
		{"out of memory", "", open + "S: SERVER_ERROR out of memory writing stats", "down unavailable request", nil},
		{"no stats", "", open + "S: VERSION 1\nS: what?", "down protocol request", nil},
		{"endless", "", open + "S: VERSION 1\n" + strings.Repeat("S: STAT a 1\n", 1001), "down protocol request", nil},
		{"leaves", "", open + "S: VERSION 1\nS: STAT a 1\n! close", "down closed request", nil},
		{"hangs", `"timeout":"200ms"`, open + "S: VERSION 1\nS: STAT a 1\n! hang", "down timeout request", nil},

		{"login", pw, login + "S: STORED\n" + up, "up", nil},
		{"login refused", pw, login + "S: CLIENT_ERROR authentication failure", "down denied auth", nil},
		{"login is not understood", pw, login + "S: ERROR", "down protocol auth", nil},

		{"key", `"memcached":{"key":"k"}`, up + "C: get k\nS: VALUE k 0 5\nS: a b c\nS: END", "up", []string{"memcached.value == 'a b c'", "memcached.key_length == 5"}},
		{"no key", `"memcached":{"key":"k"}`, up + "C: get k\nS: END", "down mismatch verify", []string{"memcached.key_exists == false"}},
		{"another key", `"memcached":{"key":"k"}`, up + "C: get k\nS: VALUE j 0 1\nS: a\nS: END", "down protocol request", nil},
		{"value runs on", `"memcached":{"key":"k"}`, up + "C: get k\nS: VALUE k 0 1\nS: abcdefghijkl\nS: END", "down protocol request", nil},
		{"huge value", `"memcached":{"key":"k"}`, up + "C: get k\nS: VALUE k 0 99999999", "down too-large request", nil},
		{"cut value", `"memcached":{"key":"k"}`, up + "C: get k\nS: VALUE k 0 99\nS: a\n! close", "down closed request", nil},

		{"canary refused", `"memcached":{"canary":true}`, up + "C~ ^set pup:canary:[A-Z2-7]{26} 0 60 26$\nC~ .\nS: SERVER_ERROR out of memory storing object", "down unavailable request", nil},
		{"canary lost", `"memcached":{"canary":true}`, up + "C~ ^set\nC~ .\nS: STORED\nC~ ^get pup:\nS: END\nC~ ^delete pup:\nS: NOT_FOUND", "down mismatch request", []string{"error contains 'gone'"}},
		{"canary not deleted", `"memcached":{"canary":true,"canary_prefix":"x","canary_ttl":"1500ms"}`, up + "C~ ^set x[A-Z2-7]* 0 2\nC~ .\nS: STORED\nC~ ^get x\nS: ERROR\nC~ ^delete x\nS: DELETED", "down protocol request", nil},
	})
	for target, part := range map[string]string{
		`"memcached":{"user":"u"}`:                         "go together",
		`"memcached":{"key":"a b"}`:                        "memcached.key",
		`"memcached":{"key":"a\r\nflush_all"}`:             "memcached.key",
		`"memcached":{"canary_prefix":"a b"}`:              "memcached.canary_prefix",
		`"memcached":{"canary":true,"canary_ttl":"100ms"}`: "memcached.canary_ttl",
	} {
		check(t, "memcached://cache.example.org", target).want(t, "unknown options prepare", "error contains '"+part+"'")
	}
}

func TestMemcachedReal(t *testing.T) {
	says := realserver.Shared(t, "memcached")
	pw, wrong := secret(t, "MC", says["memcached_auth_password"]), secret(t, "MC_WRONG", "not it")
	nginx, redis := realserver.Shared(t, "nginx"), realserver.Shared(t, "redis")
	for _, tt := range []struct{ name, url, target, want, fact string }{
		{"up", "memcached://" + says["memcached"], "", "up", "memcached.accepting and memcached.limit_bytes == 8388608 and memcached.version startsWith '1.'"},
		{"canary", "memcached://" + says["memcached"], `"memcached":{"canary":true}`, "up", "memcached.canary_write_ms >= 0 and memcached.canary_read_ms >= 0 and memcached.canary_delete_ms >= 0"},
		{"no such key", "memcached://" + says["memcached"], `"memcached":{"key":"no-such-key"}`, "down mismatch verify", "not memcached.key_exists"},
		{"login", "memcached://" + says["memcached_auth"], `"memcached":{"user":"pup","password":"` + pw + `","canary":true}`, "up", "memcached.canary_delete_ms >= 0"},
		{"wrong password", "memcached://" + says["memcached_auth"], `"memcached":{"user":"pup","password":"` + wrong + `"}`, "down denied auth", "not (error contains 'not it')"},
		{"no password", "memcached://" + says["memcached_auth"], "", "down denied auth", "true"},
		{"TLS", "memcacheds://" + says["memcached_tls"], `"tls":{"ca":"` + says["ca"] + `"}`, "up", "tls.verified"},
		{"TLS, untrusted", "memcacheds://" + says["memcached_tls"], "", "down certificate-untrusted tls", "true"},
		{"nginx", "memcached://" + nginx["http"], "", "down protocol request", "error contains 'HTTP'"},
		{"redis", "memcached://" + redis["redis"], "", "down protocol request", "error contains 'ERR'"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.fact) })
	}
}

// A server with room for 8 MB is given 20.
func TestMemcachedEvictions(t *testing.T) {
	says := realserver.Start(t, "memcached")
	check(t, "memcached://"+says["memcached"], `"expect":["memcached.evictions == 0"]`).want(t, "up")
	c, err := net.Dial("tcp", says["memcached"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 40 {
		fmt.Fprintf(c, "set k%d 0 0 500000 noreply\r\n%0500000d\r\n", i, i)
	}
	io.WriteString(c, "version\r\n") // the answer says that all of it was taken
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	check(t, "memcached://"+says["memcached"], `"expect":["memcached.evictions == 0"]`).want(t, "down mismatch verify", "memcached.evictions > 0")
}

func TestMemcachedPaused(t *testing.T) {
	says := realserver.Start(t, "memcached")
	inside := between(t, says["memcached"], "set ", func() { realserver.Pause(t, says, "memcached") })
	check(t, "memcached://"+inside, `"timeout":"500ms","memcached":{"canary":true}`).want(t, "down timeout request", "memcached.accepting")
	check(t, "memcached://"+says["memcached"], `"timeout":"300ms"`).want(t, "down timeout request")
	realserver.Resume(t, says, "memcached")
	check(t, "memcached://"+says["memcached"], "").want(t, "up")
	realserver.Kill(t, says, "memcached")
	// the last of its threads may still hold the socket
	if got := check(t, "memcached://"+says["memcached"], "").outcome(); got != "down refused connect" && !strings.HasPrefix(got, "down reset") {
		t.Errorf("killed: got %q, want refused or reset", got)
	}
}

// FuzzMemcachedGet: what get takes for a value is what stands between the
// header and END, of the length that the header names.
func FuzzMemcachedGet(f *testing.F) {
	for _, s := range []string{"VALUE k 0 1\r\na\r\nEND\r\n", "VALUE k 0 0 7\r\n\r\nEND\r\n", "END\r\n", "VALUE k 0 -1\r\n", "VALUE k 0 3\r\nEND\r\nEND\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, rest, _ := strings.Cut(text, "\n")
		line = strings.TrimSuffix(line, "\r")
		n, ok := memcachedHeader(line, "k")
		if !ok {
			return
		}
		if n < 0 || !strings.HasPrefix(line, "VALUE") {
			t.Fatalf("%q has the length %d", line, n)
		}
		if n > 4096 || strings.ContainsAny(text, "\x00") {
			return
		}
		addr := serve(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			br.ReadString('\n')
			br.ReadString('\n')
			io.WriteString(c, "VERSION 1\r\nEND\r\n")
			br.ReadString('\n')
			io.WriteString(c, line+"\r\n"+rest)
		})
		res := check(t, "memcached://"+addr, `"memcached":{"key":"k"}`)
		want := int64(len(rest)) >= n+7 && rest[n:n+7] == "\r\nEND\r\n"
		if got := res.outcome() == "up"; got != want {
			t.Fatalf("%q: up is %v, want %v\n%s", text, got, want, res.line)
		}
	})
}
