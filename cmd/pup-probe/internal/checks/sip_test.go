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

// A sipRequest is a request as a test's server sees it.
type sipRequest struct {
	line   string
	fields map[string]string
}

func sipRead(text string) *sipRequest {
	lines := strings.Split(strings.TrimSuffix(text, "\r\n\r\n"), "\r\n")
	q := &sipRequest{lines[0], map[string]string{}}
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		q.fields[k] = v
	}
	return q
}

// reply answers with a status and more header lines.
func (q *sipRequest) reply(status string, more ...string) string {
	lines := []string{"SIP/2.0 " + status}
	for _, k := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		lines = append(lines, k+": "+q.fields[k])
	}
	return strings.Join(append(lines, more...), "\r\n") + "\r\nContent-Length: 0\r\n\r\n"
}

// sipBoth serves over UDP or TCP.
func sipBoth(t *testing.T, scheme string, f func(q *sipRequest) []string) string {
	if scheme == "sip" {
		return serveUDP(t, func(b []byte) (out [][]byte) {
			for _, r := range f(sipRead(string(b))) {
				out = append(out, []byte(r))
			}
			return out
		})
	}
	return serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			var text strings.Builder
			for !strings.HasSuffix(text.String(), "\r\n\r\n") {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				text.WriteString(line)
			}
			for _, r := range f(sipRead(text.String())) {
				io.WriteString(c, r)
			}
		}
	})
}

func sipAlways(status string, more ...string) func(q *sipRequest) []string {
	return func(q *sipRequest) []string { return []string{q.reply(status, more...)} }
}

// sipGuarded lets the user anna in with the password right.
func sipGuarded(status, algorithm string, stale bool) func(q *sipRequest) []string {
	name, field := "WWW-Authenticate", "Authorization"
	if status[:3] == "407" {
		name, field = "Proxy-Authenticate", "Proxy-Authorization"
	}
	return func(q *sipRequest) []string {
		c := &sipChallenge{realm: "test", nonce: "n1", opaque: "o", algorithm: algorithm, qop: "auth", proxy: status[:3] == "407"}
		got := q.fields[field]
		if stale && strings.Contains(got, `"n1"`) {
			return []string{q.reply(status, name+`: Digest realm="test", nonce="n2", opaque="o", stale=true, qop="auth", algorithm=`+algorithm)}
		}
		if strings.Contains(got, `"n2"`) {
			c.nonce = "n2"
		}
		method, rest, _ := strings.Cut(q.line, " ")
		uri, _, _ := strings.Cut(rest, " ")
		_, cnonce, _ := strings.Cut(got, `cnonce="`)
		cnonce, _, _ = strings.Cut(cnonce, `"`)
		if got != "" && field+": "+got == c.answer("anna", "right", method, uri, cnonce) {
			return []string{q.reply("200 OK", "Contact: <sip:anna@192.0.2.1>;expires=60, \"x,y\" <sip:anna@192.0.2.2;a=b>")}
		}
		return []string{q.reply(status, name+`: Basic realm="x"`, name+`: Digest realm="test", nonce="n1", opaque="o", qop="auth-int,auth", algorithm=`+algorithm)}
	}
}

func TestSIP(t *testing.T) {
	right, wrong := secret(t, "SIP_RIGHT", "right"), secret(t, "SIP_WRONG", "wrong")
	user := func(password string) string {
		return fmt.Sprintf(`"method":"register","user":"anna","password":%q`, password)
	}
	for _, tt := range []struct {
		name, path, opt, want string
		serve                 func(q *sipRequest) []string
		facts                 []string
	}{
		{"up", "", ``, "up", sipAlways("200 OK", "Server: test", "Allow: INVITE, OPTIONS", "Allow: BYE", "k: 100rel", "Accept: application/sdp", "Content-Type: x"), []string{
			"sip.status == 200", "sip.phrase == 'OK'", "sip.server == 'test'", "sip.allow == ['INVITE','OPTIONS','BYE']", "sip.supported == ['100rel']", "sip.accept == ['application/sdp']"}},
		{"folded", "", ``, "up", sipAlways("200 OK", "Allow: INVITE,", "  OPTIONS"), []string{"sip.allow == ['INVITE','OPTIONS']"}},
		{"request", "alice", `"domain":"example.org"`, "up", func(q *sipRequest) []string {
			if q.line != "OPTIONS sip:alice@example.org SIP/2.0" || q.fields["To"] != "<sip:alice@example.org>" || q.fields["Max-Forwards"] != "70" {
				return []string{q.reply("400 Bad Request")}
			}
			return []string{q.reply("200 OK")}
		}, nil},
		{"behind NAT", "", ``, "up", func(q *sipRequest) []string {
			q.fields["Via"] = strings.Replace(q.fields["Via"], ";rport", ";received=192.0.2.9;rport=4711", 1)
			return []string{q.reply("200 OK")}
		}, []string{"sip.received_from == '192.0.2.9:4711'"}},
		{"provisional", "", ``, "up", func(q *sipRequest) []string { return []string{q.reply("100 Trying"), q.reply("200 OK")} }, []string{"sip.provisional == [100]", "sip.ignored == nil"}},
		{"404", "nobody", ``, "down mismatch verify", sipAlways("404 Not Found"), []string{"sip.status == 404"}},
		{"404 wanted", "nobody", `},"expect":["sip.status == 404"],"labels":{`, "up", sipAlways("404 Not Found"), nil},
		{"503", "", ``, "down unavailable wait", sipAlways("503 Service Unavailable", "Retry-After: 60"), []string{"sip.retry_after_seconds == 60"}},
		{"403", "", ``, "down denied wait", sipAlways("403 Forbidden"), nil},
		{"wants a password", "", ``, "down denied wait", sipGuarded("407 Proxy Authentication Required", "MD5", false), []string{"error contains 'wants a password'"}},
		{"register MD5", "", user(right), "up", sipGuarded("401 Unauthorized", "MD5", false), []string{"sip.authenticated", "sip.realm == 'test'", "sip.algorithm == 'MD5'", "sip.contact_count == 2", "ms.auth > 0"}},
		{"register SHA-256", "", user(right), "up", sipGuarded("401 Unauthorized", "SHA-256", false), []string{"sip.algorithm == 'SHA-256'"}},
		{"register through a proxy", "", user(right), "up", sipGuarded("407 Proxy Authentication Required", "MD5", false), nil},
		{"stale", "", user(right), "up", sipGuarded("401 Unauthorized", "MD5", true), nil},
		{"wrong password", "", user(wrong), "down denied auth", sipGuarded("401 Unauthorized", "MD5", false), []string{"sip.authenticated == false", "sip.status == 401"}},
		{"another hash", "", user(right), "down denied wait", sipGuarded("401 Unauthorized", "SHA-512-256", false), []string{"error contains 'not by Digest'"}},
		{"no challenge", "", user(right), "down denied wait", sipAlways("401 Unauthorized"), nil},
		{"no nonce", "", user(right), "down protocol wait", sipAlways("401 Unauthorized", `WWW-Authenticate: Digest realm="test"`), nil},
		{"nonce with a quote", "", user(right), "down protocol wait", sipAlways("401 Unauthorized", `WWW-Authenticate: Digest realm="test", nonce="a\"b"`), nil},
		{"no user", "", `"method":"register"`, "unknown options prepare", sipAlways("200 OK"), nil},
		{"bad domain", "", `"domain":"a b"`, "unknown options prepare", sipAlways("200 OK"), nil},
		{"bad path", "a%0d%0ab", ``, "unknown options prepare", sipAlways("200 OK"), nil},
	} {
		for _, scheme := range []string{"sip", "sip+tcp"} {
			t.Run(tt.name+" "+scheme, func(t *testing.T) {
				check(t, scheme+"://"+sipBoth(t, scheme, tt.serve)+"/"+tt.path, `"sip":{`+tt.opt+`}`).want(t, tt.want, tt.facts...)
			})
		}
	}
}

func TestSIPLiars(t *testing.T) {
	for _, l := range []struct {
		name, udp, tcp string
		serve          func(q *sipRequest) []string
	}{
		{"silent", "down timeout wait", "down timeout wait", func(*sipRequest) []string { return nil }},
		{"greeting", "down timeout wait", "down protocol wait", func(*sipRequest) []string { return []string{"220 mail.example.org ESMTP\r\n"} }},
		{"http", "down timeout wait", "down protocol wait", func(*sipRequest) []string { return []string{"HTTP/1.1 400 Bad Request\r\n\r\n"} }},
		{"only provisional", "down timeout wait", "down timeout wait", func(q *sipRequest) []string { return []string{q.reply("100 Trying")} }},
		{"another call", "down timeout wait", "down timeout wait", func(q *sipRequest) []string {
			q.fields["Call-ID"] = "x"
			return []string{q.reply("200 OK")}
		}},
		{"another branch", "down timeout wait", "down timeout wait", func(q *sipRequest) []string {
			q.fields["Via"] += "x"
			q.fields["Via"] = strings.Replace(q.fields["Via"], "branch=z", "branch=y", 1)
			return []string{q.reply("200 OK")}
		}},
		{"no status", "down timeout wait", "down protocol wait", func(q *sipRequest) []string { return []string{q.reply("OK")} }},
		{"no field", "down timeout wait", "down protocol wait", func(q *sipRequest) []string { return []string{q.reply("200 OK", "nonsense")} }},
		{"control character", "down timeout wait", "down protocol wait", func(q *sipRequest) []string { return []string{q.reply("200 OK", "Server: a\rb")} }},
		{"large body", "down timeout wait", "down too-large wait", func(q *sipRequest) []string {
			return []string{strings.Replace(q.reply("200 OK"), "Content-Length: 0", "Content-Length: 99999999", 1)}
		}},
		{"negative body", "down timeout wait", "down protocol wait", func(q *sipRequest) []string {
			return []string{strings.Replace(q.reply("200 OK"), "Content-Length: 0", "Content-Length: -1", 1)}
		}},
		{"endless", "down timeout wait", "down protocol wait", func(q *sipRequest) []string { return []string{q.reply("200 OK", make([]string, 200)...)} }},
	} {
		t.Run(l.name, func(t *testing.T) {
			if l.name == "endless" {
				l.serve = func(q *sipRequest) []string {
					return []string{q.reply("200 OK", strings.Split(strings.Repeat("a: b,", 200)+"a: b", ",")...)}
				}
			}
			check(t, "sip://"+sipBoth(t, "sip", l.serve), `"timeout":"200ms"`).want(t, l.udp)
			check(t, "sip+tcp://"+sipBoth(t, "sip+tcp", l.serve), `"timeout":"200ms"`).want(t, l.tcp)
		})
	}
	check(t, "sip://"+serveUDP(t, func(b []byte) [][]byte { return [][]byte{b} }), `"timeout":"200ms"`).want(t, "down timeout wait", "error contains 'want SIP/2.0 and a status'")
	check(t, "sip://"+realserver.ClosedPort(t), "").want(t, "down refused wait")
}

func TestSIPReal(t *testing.T) {
	s := realserver.Start(t, "sip")
	right, wrong := secret(t, "SIP_RIGHT", "sip-password"), secret(t, "SIP_WRONG", "wrong")
	register := func(password string) string {
		return fmt.Sprintf(`"sip":{"method":"register","user":"pup","domain":"pup.test","password":%q}`, password)
	}
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])
	for scheme, addr := range map[string]string{"sip": s["sip"], "sip+tcp": s["sip"], "sips": s["sips"]} {
		more := ""
		if scheme == "sips" {
			more = ca + ","
		}
		url := scheme + "://" + addr
		check(t, url, strings.TrimSuffix(more, ",")).want(t, "up", "sip.status == 200", "sip.server == 'pup test proxy'", "sip.allow == ['OPTIONS','REGISTER']")
		check(t, url+"/nobody", strings.TrimSuffix(more, ",")).want(t, "down mismatch verify", "sip.status == 404")
		check(t, url+"/busy", strings.TrimSuffix(more, ",")).want(t, "down unavailable wait")
		check(t, url, more+register(right)).want(t, "up", "sip.authenticated", "sip.contact_count == 0", "sip.realm == 'pup.test'")
		check(t, url, more+register(wrong)).want(t, "down denied auth", "sip.authenticated == false")
	}
	check(t, "sip://"+realserver.Shared(t, "knot")["ns1"], `"timeout":"500ms"`).want(t, "down timeout wait")
	paused := between(t, s["sip"], "\r\nAuthorization:", func() { realserver.Pause(t, s, "sip") })
	check(t, "sip+tcp://"+paused, register(right)+`,"timeout":"1s"`).want(t, "down timeout auth", "sip.realm == 'pup.test'")
	check(t, "sip+tcp://"+s["sip"], `"timeout":"500ms"`).want(t, "down timeout wait")
	realserver.Kill(t, s, "sip")
	// a process of the server may keep the socket for a moment
	check(t, "sip+tcp://"+s["sip"], `"timeout":"2s","expect":["reason in ['refused', 'reset', 'closed', 'timeout']"]`).want(t, "up")
}

// The example of RFC 7616, section 3.9.1.
func TestSIPDigest(t *testing.T) {
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		c := &sipChallenge{realm: "http-auth@example.org", nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", qop: "auth", algorithm: algorithm}
		got := c.answer("Mufasa", "Circle of Life", "GET", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
		if !strings.Contains(got, `response="`+want+`"`) {
			t.Errorf("%s: got %s, want %s", algorithm, got, want)
		}
	}
}

// FuzzSIP: an answer that is taken says the same when it is written again.
func FuzzSIP(f *testing.F) {
	q := sipRead("OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n")
	f.Add([]byte(q.reply("200 OK", "Allow: a, \"b,c\"", " d")))
	f.Add([]byte("SIP/2.0 401 x\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := sipParse(b)
		if err != nil {
			return
		}
		text := fmt.Sprintf("SIP/2.0 %03d %s\r\n", r.status, r.phrase)
		for _, x := range r.fields {
			text += x.name + ": " + x.value + "\r\n"
		}
		n, _ := r.length()
		again, err := sipParse([]byte(text + "\r\n" + strings.Repeat("x", n)))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%q is %+v, and then %+v, %v", b, r, again, err)
		}
		if c, err := sipChallenged(r); err == nil && strings.ContainsAny(c.answer("u", "p", "OPTIONS", "sip:x", "c"), "\r\n") {
			t.Errorf("%q would break our request", b)
		}
		new(sipFacts).measure(r)
	})
}
