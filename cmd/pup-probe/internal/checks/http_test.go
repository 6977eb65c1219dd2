package checks

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// httpAnswer is a script in which the server reads the smallest request and
// sends the given lines.
func httpAnswer(lines ...string) string {
	script := "C: GET / HTTP/1.1\nC~ ^host: 127\nC: connection: close\nC: accept: */*\nC: user-agent: pup-probe\nC: \n"
	for _, l := range lines {
		script += "S: " + l + "\n"
	}
	return script
}

func TestHTTP(t *testing.T) {
	many := strings.Repeat("S: x: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", 1100)
	interim := strings.Repeat("S: HTTP/1.1 102 Processing\nS: \n", 9)
	talks(t, "http://HOST/", []talk{
		{name: "up", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "Server: x", "", `hello\`), want: "up",
			facts: []string{"http.status == 200", "http.body_bytes == 5", "http.version == '1.1'", "http.server == 'x'", "http.redirects == 0", "not http.truncated", "http.sha256 startsWith '2cf24dba'", "ms.wait > 0"}},
		{name: "chunks", target: `"expect":["http.body == 'hello'","http.trailers['x-sum'] == '9'"]`,
			script: httpAnswer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "2;a=b", "he", "3", "llo", "0", "X-Sum: 9", ""), want: "up"},
		{name: "until close", script: httpAnswer("HTTP/1.0 200 OK", "", `hello\`) + "! close", want: "up", facts: []string{"http.body_bytes == 5", "http.version == '1.0'"}},
		{name: "interim", script: httpAnswer("HTTP/1.1 103 Early Hints", "Link: x", "", "HTTP/1.1 204 No Content", ""), want: "up", facts: []string{"http.status == 204"}},
		{name: "status", script: httpAnswer("HTTP/1.1 404 Not Found", "Content-Length: 0", ""), want: "down mismatch verify"},
		{name: "status expected", target: `"expect":["http.status == 404"]`, script: httpAnswer("HTTP/1.1 404 Not Found", "Content-Length: 0", ""), want: "up"},
		{name: "503", script: httpAnswer("HTTP/1.1 503 Later", "Retry-After: 30", "Content-Length: 0", ""), want: "down unavailable verify", facts: []string{"http.retry_after == '30'"}},
		{name: "503 expected", target: `"expect":["http.status == 503"]`, script: httpAnswer("HTTP/1.1 503 Later", "Content-Length: 0", ""), want: "up"},
		{name: "401", script: httpAnswer("HTTP/1.1 401 Who", `WWW-Authenticate: Basic realm="x"`, "Content-Length: 0", ""), want: "down denied auth", facts: []string{"http.challenge contains 'Basic'"}},
		{name: "403 without credentials", script: httpAnswer("HTTP/1.1 403 No", "Content-Length: 0", ""), want: "down mismatch verify"},
		{name: "HTTP/0.9", script: httpAnswer("<html>hello"), want: "down protocol transfer"},
		{name: "HTTP/2 in the clear", script: httpAnswer("HTTP/2 200", ""), want: "down protocol transfer"},
		{name: "status 000", script: httpAnswer("HTTP/1.1 000 Nothing", ""), want: "down protocol transfer"},
		{name: "status 20", script: httpAnswer("HTTP/1.1 20 OK", ""), want: "down protocol transfer"},
		{name: "status 101", script: httpAnswer("HTTP/1.1 101 Switching", ""), want: "down protocol transfer"},
		{name: "interim for ever", script: httpAnswer() + interim, want: "down protocol transfer"},
		{name: "header for ever", script: httpAnswer("HTTP/1.1 200 OK") + many, want: "down protocol transfer"},
		{name: "two lengths", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 6", "", "hello"), want: "down protocol transfer"},
		{name: "two lengths in one", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5, 6", "", "hello"), want: "down protocol transfer"},
		{name: "a length said twice", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 5", "", `hello\`), want: "up"},
		{name: "length and chunks", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked", "", "0", ""), want: "down protocol transfer"},
		{name: "negative length", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: -5", ""), want: "down protocol transfer"},
		{name: "space before colon", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length : 5", "", "hello"), want: "down protocol transfer"},
		{name: "chunk garbage", script: httpAnswer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "zz", "hello"), want: "down protocol transfer"},
		{name: "chunk too short", script: httpAnswer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "2", "hello", "0", ""), want: "down protocol transfer"},
		{name: "chunk size overflow", script: httpAnswer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "ffffffffffffffffff", "hello"), want: "down protocol transfer"},
		{name: "closed in the header", script: httpAnswer("HTTP/1.1 200 OK") + "! close", want: "down closed transfer"},
		{name: "closed in the body", script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 50", "", "hello") + "! close", want: "down closed transfer", facts: []string{"http.status == 200", "http.body_bytes == 7"}},
		{name: "closed in a chunk", script: httpAnswer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "9", "hello") + "! close", want: "down closed transfer"},
		{name: "reset at once", script: httpAnswer() + "! reset", want: "down reset wait"},
		{name: "hangs in the body", target: `"timeout":"200ms"`, script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 50", "", "hello") + "! hang", want: "down timeout transfer"},
		{name: "too large", target: `"http":{"max_body_bytes":3}`, script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "", `hello\`), want: "up", facts: []string{"http.truncated", "http.body_bytes == 3"}},
		{name: "too large is told to fail", target: `"http":{"max_body_bytes":3,"fail_too_large":true}`, script: httpAnswer("HTTP/1.1 200 OK", "Content-Length: 5", "", `hello\`), want: "down too-large transfer"},
		{name: "control characters", script: httpAnswer("HTTP/1.1 200 OK", "Server: a\x1b[31m\u202eb", "Content-Length: 0", ""), want: "up", facts: []string{"http.status == 200"}},
	})
}

// TestHTTPRequest looks at what is sent.
func TestHTTPRequest(t *testing.T) {
	auth := secret(t, "HTTP_TEST", "s3cret-token")
	talks(t, "http://HOST/a%20b?q=1&r=%2F", []talk{
		{name: "post", target: `"http":{"method":"POST","body":"x=1","headers":{"Content-Type":"text/x","Host":"www.example.org","User-Agent":"me"}}`,
			script: "C: POST /a%20b?q=1&r=%2F HTTP/1.1\nC: host: www.example.org\nC: connection: close\nC: accept: */*\nC: user-agent: me\nC: content-type: text/x\nC: content-length: 3\nC: \nS: HTTP/1.1 200 OK\nS: Content-Length: 0\nS: ", want: "up"},
		{name: "form", target: `"http":{"form":{"user":"a b"},"secret_form":{"pass":"` + auth + `"}}`,
			script: "C~ ^POST\nC~ host\nC~ conn\nC~ accept\nC~ user-agent\nC: content-type: application/x-www-form-urlencoded\nC: content-length: 26\nC: \nS: HTTP/1.1 200 OK\nS: Content-Length: 0\nS: ", want: "up"},
		{name: "bearer", target: `"http":{"token":"` + auth + `"}`,
			script: "C~ ^GET\nC~ host\nC~ conn\nC~ accept\nC~ user-agent\nC: authorization: Bearer s3cret-token\nC: \nS: HTTP/1.1 403 No\nS: X: s3cret-token\nS: Server: s3cret-token\nS: Content-Length: 0\nS: ", want: "down denied auth", facts: []string{"http.server == '***'"}},
		{name: "basic", target: `"http":{"user":"u","password":"` + auth + `"}`,
			script: "C~ ^GET\nC~ host\nC~ conn\nC~ accept\nC~ user-agent\nC: authorization: Basic dTpzM2NyZXQtdG9rZW4=\nC: \nS: HTTP/1.1 200 OK\nS: Content-Length: 0\nS: ", want: "up"},
		{name: "secret header", target: `"http":{"secret_headers":{"X-Key":"` + auth + `"}}`,
			script: "C~ ^GET\nC~ host\nC~ conn\nC~ accept\nC~ user-agent\nC: x-key: s3cret-token\nC: \nS: HTTP/1.1 200 OK\nS: Content-Length: 0\nS: ", want: "up"},
	})
	for _, tt := range []struct{ name, url, target, want string }{
		{"plain auth", "http://192.0.2.1/", `"http":{"user":"u"}`, "allow_plain_auth"},
		{"a literal token", "http://127.0.0.1/", `"http":{"token":"abc"}`, "credential"},
		{"a literal secret header", "http://127.0.0.1/", `"http":{"secret_headers":{"a":"b"}}`, "credential"},
		{"header name", "http://127.0.0.1/", `"http":{"headers":{"a b":"c"}}`, "no name of a field"},
		{"header value", "http://127.0.0.1/", `"http":{"headers":{"a":"c\r\nd: e"}}`, "control character"},
		{"own header", "http://127.0.0.1/", `"http":{"headers":{"Content-Length":"5"}}`, "made by the check"},
		{"method", "http://127.0.0.1/", `"http":{"method":"GET /x HTTP/1.1\r\n"}`, "no method"},
		{"body and steps", "http://127.0.0.1/", `"http":{"body":"x","steps":[{"url":"/"}]}`, "steps"},
		{"step's capture", "http://127.0.0.1/", `"http":{"steps":[{"capture":{"a":"xpath:x"}}]}`, "http.steps[0].capture.a"},
		{"step's expression", "http://127.0.0.1/", `"http":{"steps":[{"expect":["http.stats == 1"]}]}`, `did you mean "status"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.url, tt.target)
			if got := res.outcome(); got != "unknown options prepare" && got != "unknown secret prepare" || !strings.Contains(fmt.Sprint(res.vars["error"]), tt.want) {
				t.Errorf("got %s, want options and an error with %q\n%s", got, tt.want, res.line)
			}
		})
	}
}

// httpServer serves HTTP in the test, over HTTP/1.1 or both versions.
func httpServer(t *testing.T, h2 bool, f http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(f)
	s.EnableHTTP2 = h2
	s.TLS = &tls.Config{Certificates: []tls.Certificate{testCA().leaf}}
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(h2)
	if h2 {
		s.Config.Protocols.SetHTTP2(true)
	}
	t.Cleanup(s.Close)
	return s
}

func TestHTTPVersions(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/big":
			w.Write(big)
		case "/trailer":
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "hello")
			w.Header().Set("X-Sum", "9")
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
		case "/abort":
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%s %s %s %d %s", r.Proto, r.Method, r.URL.RequestURI(), len(body), r.Header.Get("X-Test"))
	}
	secure := httpServer(t, true, handler)
	secure.StartTLS()
	plain := httpServer(t, true, handler)
	plain.Start()
	old := httpServer(t, false, handler)
	old.StartTLS()
	long := strings.Repeat("x", 300_000)
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"auto", secure.URL + "/?a=b", `"http":{"headers":{"X-Test":"t"}},"expect":["http.body == 'HTTP/2.0 GET /?a=b 0 t'"]`, "up", []string{"http.version == '2'", "tls.alpn == 'h2'"}},
		{"1.1", secure.URL, `"http":{"version":"1.1"},"expect":["http.body startsWith 'HTTP/1.1 GET'"]`, "up", []string{"http.version == '1.1'"}},
		{"2", secure.URL, `"http":{"version":"2"}`, "up", []string{"http.version == '2'"}},
		{"prior knowledge", plain.URL, `"http":{"version":"2"},"expect":["http.body startsWith 'HTTP/2.0 GET'"]`, "up", []string{"http.version == '2'"}},
		{"plain", plain.URL, `"expect":["http.body startsWith 'HTTP/1.1 GET'"]`, "up", nil},
		{"2 is not there", old.URL, `"http":{"version":"2"}`, "down tls tls", nil},
		{"auto without 2", old.URL, ``, "up", []string{"http.version == '1.1'"}},
		{"request body of several windows", secure.URL, `"http":{"method":"PUT","body":"` + long + `"},"expect":["http.body startsWith 'HTTP/2.0 PUT / 300000'"]`, "up", nil},
		{"response body of several windows", secure.URL + "/big", `"http":{"max_body_bytes":4000000}`, "up", []string{"http.body_bytes > 3200000"}},
		{"trailer", secure.URL + "/trailer", `"expect":["http.trailers['x-sum'] == '9'"]`, "up", nil},
		{"early hints", secure.URL + "/early", ``, "up", []string{"http.status == 200"}},
		{"abort", secure.URL + "/abort", ``, "down protocol transfer", []string{"http.status == 200"}},
		{"abort in 1.1", secure.URL + "/abort", `"http":{"version":"1.1"}`, "down closed transfer", nil},
		{"head", secure.URL + "/big", `"http":{"method":"HEAD"}`, "up", []string{"http.body_bytes == 0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := trustTestCA()
			if strings.HasPrefix(tt.url, "http://") {
				target = `"labels":{}`
			}
			if tt.target != "" {
				target += "," + tt.target
			}
			check(t, tt.url, target).want(t, tt.want, tt.facts...)
		})
	}
}

func httpPacked(t *testing.T, coding string, text []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zlib":
		w = zlib.NewWriter(&b)
	case "flate":
		w, _ = flate.NewWriter(&b, 6)
	}
	w.Write(text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHTTPCompression(t *testing.T) {
	text := bytes.Repeat([]byte("hello "), 1000)
	bomb := httpPacked(t, "gzip", make([]byte, 64<<20))
	var sent []byte
	var coding string
	s := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "gzip, deflate" {
			t.Errorf("accept-encoding: got %q", got)
		}
		w.Header().Set("Content-Encoding", coding)
		w.Write(sent)
	})
	s.Start()
	for _, tt := range []struct {
		name, coding string
		body         []byte
		want         string
		facts        []string
	}{
		{"gzip", "gzip", httpPacked(t, "gzip", text), "up", []string{"http.body_bytes == 6000", "http.compressed_bytes < 200"}},
		{"zlib", "deflate", httpPacked(t, "zlib", text), "up", []string{"http.body_bytes == 6000"}},
		{"raw deflate", "deflate", httpPacked(t, "flate", text), "up", []string{"http.body_bytes == 6000"}},
		{"unknown", "br", text, "up", []string{"http.body_bytes == 6000", "http.content_encoding == 'br'"}},
		{"bomb", "gzip", bomb, "up", []string{"http.truncated", "http.body_bytes == 1048576", "http.compressed_bytes < 70000"}},
		{"not gzip", "gzip", text, "down protocol transfer", nil},
		{"cut", "gzip", httpPacked(t, "gzip", text)[:30], "down closed transfer", nil},
		{"empty", "gzip", nil, "up", []string{"http.body_bytes == 0"}},
		{"nothing in ever more", "gzip", bytes.Repeat(httpPacked(t, "gzip", nil), 200_000), "down protocol transfer", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent, coding = tt.body, tt.coding
			check(t, s.URL, `"http":{"compression":true}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestHTTPRedirects(t *testing.T) {
	token := secret(t, "HTTP_REDIRECT", "s3cret-token")
	other := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "other %q %q", r.Header.Get("Authorization"), r.Header.Get("X-Key"))
	})
	other.Start()
	s := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		to := func(code int, url string) { w.Header().Set("Location", url); w.WriteHeader(code) }
		switch r.URL.Path {
		case "/other":
			to(302, other.URL+"/")
		case "/loop":
			to(302, "/loop")
		case "/many":
			to(302, "/many?"+r.URL.RawQuery+"x")
		case "/file":
			to(302, "file:///etc/passwd")
		case "/bad":
			to(302, "http://[::1")
		case "/query":
			to(301, "/end?a=b&c=%2F")
		case "/see":
			to(303, "/end")
		case "/repeat":
			to(307, "/end")
		case "/found":
			to(302, "end")
		case "/cookie":
			if _, err := r.Cookie("s"); err != nil {
				http.SetCookie(w, &http.Cookie{Name: "s", Value: "1"})
				to(302, "/cookie")
			}
		case "/none":
			w.WriteHeader(302)
		}
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), body)
	})
	s.Start()
	for _, tt := range []struct {
		name, path, target, want string
		facts                    []string
	}{
		{"query", "/query?lost=1", `"expect":["http.body startsWith 'GET /end?a=b&c=%2F '"]`, "up", []string{"http.redirects == 1", "http.hops[0].status == 301", "http.url endsWith '/end?a=b&c=%2F'"}},
		{"see other", "/see", `"http":{"method":"POST","body":"x"},"expect":["http.body == 'GET /end  '"]`, "up", nil},
		{"repeat", "/repeat", `"http":{"method":"POST","body":"x"},"expect":["http.body == 'POST /end  x'"]`, "up", nil},
		{"found after post", "/found", `"http":{"form":{"a":"b"}},"expect":["http.body == 'GET /end  '"]`, "up", nil},
		{"credentials stay", "/query", `"http":{"token":"` + token + `"},"expect":["http.body contains 'Bearer'"]`, "up", nil},
		{"credentials are dropped", "/other", `"http":{"token":"` + token + `","secret_headers":{"x-key":"` + token + `"}},"expect":["http.body == 'other \"\" \"\"'"]`, "up", nil},
		{"headers that are credentials are dropped", "/other", `"http":{"headers":{"Authorization":"x","X-Key":"y"}},"expect":["http.body == 'other \"\" \"y\"'"]`, "up", nil},
		{"loop", "/loop", ``, "down mismatch verify", []string{"error contains 'loop'", "http.status == 302"}},
		{"too many", "/many", ``, "down mismatch verify", []string{"error contains 'more than 5'", "len(http.hops) == 5"}},
		{"as many as are allowed", "/query", `"http":{"redirects":1}`, "up", nil},
		{"cookie", "/cookie", ``, "up", []string{"http.redirects == 1"}},
		{"another scheme", "/file", ``, "down mismatch verify", []string{"error contains 'file'"}},
		{"no url", "/bad", ``, "down protocol transfer", nil},
		{"none", "/query", `"http":{"redirects":0},"expect":["http.status == 301"]`, "up", []string{"http.redirects == 0"}},
		{"no location", "/none", ``, "down mismatch verify", []string{"http.status == 302"}},
		{"same origin", "/other", `"http":{"redirect_scope":"origin"}`, "down mismatch verify", nil},
		{"same host", "/other", `"http":{"redirect_scope":"host"}`, "up", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, s.URL+tt.path, tt.target).want(t, tt.want, tt.facts...) })
	}
}

func TestHTTPSteps(t *testing.T) {
	password := secret(t, "HTTP_STEPS", "pass word")
	s := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			if r.Method == "GET" {
				io.WriteString(w, `<input name="csrf" value="c&1">`)
				return
			}
			if r.FormValue("csrf") != "c&1" || r.FormValue("pass") != "pass word" {
				w.WriteHeader(403)
				return
			}
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "s"})
			w.Header().Set("Location", "/home")
			w.WriteHeader(303)
		case "/home":
			if c, err := r.Cookie("session"); err != nil || c.Value != "s" {
				w.WriteHeader(403)
				return
			}
			w.Header().Set("X-Next", "n e/x?t")
			io.WriteString(w, `{"data":{"items":[{"id":12345678}]}}`)
		case "/item/12345678":
			fmt.Fprintf(w, "item %s %s", r.URL.RawQuery, r.Header.Get("X-Copy"))
		default:
			w.WriteHeader(404)
		}
	})
	s.Start()
	steps := func(last string) string {
		return `"http":{"steps":[
			{"url":"/login","capture":{"csrf":"regex:name=\"csrf\" value=\"([^\"]+)\""}},
			{"url":"/login","form":{"csrf":"${capture:csrf}"},"secret_form":{"pass":"` + password + `"},"expect":["http.redirects == 1"],
			 "capture":{"id":"json:data.items[0].id","next":"header:X-Next","s":"cookie:session"}},` + last + `]}`
	}
	for _, tt := range []struct {
		name, target, want string
		facts              []string
	}{
		{"up", steps(`{"url":"/item/${capture:id}?n=${capture:next}","headers":{"X-Copy":"${capture:s}"}}`) + `,"expect":["http.body == 'item n=n%20e%2Fx%3Ft s'"]`, "up",
			[]string{"len(http.steps) == 3", "http.steps[1].url endsWith '/home'", "http.url endsWith '/item/***?n=***'"}},
		{"default expectation", steps(`{"url":"/none"}`), "down mismatch verify", []string{"http.status == 404"}},
		{"earlier step fails", `"http":{"steps":[{"url":"/none"},{"url":"/login"}]}`, "down mismatch verify", []string{"error contains 'step 1'", "len(http.steps) == 1"}},
		{"own expectation", `"http":{"steps":[{"url":"/none","expect":["http.status == 404"]},{"url":"/login"}]}`, "up", nil},
		{"expectation fails", `"http":{"steps":[{"url":"/login","expect":["http.body contains 'nothing'"]},{"url":"/login"}]}`, "down mismatch verify", nil},
		{"nothing to capture", `"http":{"steps":[{"url":"/login","capture":{"x":"json:a"}},{"url":"/login"}]}`, "down mismatch verify", []string{"error contains 'capture x'"}},
		{"unknown capture", `"http":{"steps":[{"url":"/login?${capture:x}"}]}`, "unknown options prepare", nil},
		{"wrong password", strings.Replace(steps(`{"url":"/"}`), `"secret_form":{"pass"`, `"secret_form":{"passs"`, 1), "down mismatch verify", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := strings.NewReplacer("\n", "", "\t", "").Replace(tt.target)
			res := check(t, s.URL, target)
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, "pass word") {
				t.Errorf("the result holds a secret: %s", res.line)
			}
		})
	}
}

func TestHTTPBody(t *testing.T) {
	modified := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct {
		kind, body, target, want string
		facts                    []string
	}{
		{"application/json", `{"ok":true,"n":9007199254740993,"list":[1,2]}`, `"expect":["http.json.ok and http.json.n == 9007199254740993 and http.json.list[1] == 2"]`, "up", nil},
		{"application/json", `[]`, `"expect":["len(http.json) == 0"]`, "up", nil},
		{"application/json", `nope`, `"expect":["http.json.ok"]`, "down mismatch verify", []string{"error contains 'absent'"}},
		{"text/html; charset=utf-8", "<html><TITLE lang=en> A\n page </title>", ``, "up", []string{"http.title == 'A page'", "http.last_modified_age_ms > 3500000"}},
		{"text/html", "<title", ``, "up", nil},
		{"text/plain", "hello", `"expect":["http.headers['content-type'] == 'text/plain'"]`, "up",
			[]string{"http.sha256 == '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'"}},
	} {
		t.Run(tt.body, func(t *testing.T) {
			s := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.Header().Set("Last-Modified", modified)
				io.WriteString(w, tt.body)
			})
			s.Start()
			check(t, s.URL, tt.target).want(t, tt.want, tt.facts...)
		})
	}
}

// TestHTTPLiars holds each version of the protocol to the contract.
func TestHTTPLiars(t *testing.T) {
	for _, version := range []string{"1.1", "2"} {
		for _, l := range liars {
			t.Run(version+" "+l.name, func(t *testing.T) {
				check(t, "http://"+serve(t, l.serve), `"timeout":"300ms","http":{"version":"`+version+`"}`).beginsWith(t, l.name, l.want)
			})
		}
	}
}

func TestHTTPNginx(t *testing.T) {
	n := realserver.Start(t, "nginx")
	password, token := secret(t, "HTTP_BASIC", n["basic_password"]), secret(t, "HTTP_BEARER", n["bearer_token"])
	wrong := secret(t, "HTTP_WRONG", "wrong-one")
	plain, other, secure := "http://"+n["http"], n["http_other"], "https://"+n["https"]
	ca := fmt.Sprintf(`"tls":{"ca":%q,"server_name":"localhost"}`, n["ca"])
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"page", plain + "/", `"expect":["http.body contains 'Welcome'"]`, "up", []string{"http.server startsWith 'nginx'", "http.content_type == 'text/html'"}},
		{"tls and http/2", secure + "/", ca, "up", []string{"http.version == '2'", "tls.verified", "tls.ocsp == 'good'"}},
		{"1.1 over tls", secure + "/", ca + `,"http":{"version":"1.1"}`, "up", []string{"http.version == '1.1'"}},
		{"json", secure + "/data.json", ca + `,"expect":["http.json.store.ready","http.json.store.free_bytes == 9007199254740993"]`, "up", nil},
		{"gzip", secure + "/gzip", ca + `,"http":{"compression":true}`, "up", []string{"http.compressed_bytes < http.body_bytes / 2"}},
		{"gzip unasked", plain + "/gzip", ``, "up", []string{"http.content_encoding == nil"}},
		{"large", plain + "/big.txt", ``, "up", []string{"http.truncated", "http.body_bytes == 1048576"}},
		{"large in http/2", secure + "/big.txt", ca + `,"http":{"max_body_bytes":3000000}`, "up", []string{"http.body_bytes == 2097152"}},
		{"old", plain + "/old.html", `"warn":["http.last_modified_age_ms < 86400000"]`, "degraded mismatch verify", nil},
		{"chain", plain + "/redirect/chain", ``, "up", []string{"http.redirects == 4"}},
		{"loop", plain + "/redirect/loop", ``, "down mismatch verify", nil},
		{"nowhere", plain + "/redirect/nowhere", ``, "down no-such-host resolve", []string{"http.status == 302"}},
		{"to https", plain + "/redirect/https", fmt.Sprintf(`"tls":{"ca":%q}`, n["ca"]), "up", []string{"tls.verified"}},
		{"basic", plain + "/basic", `"http":{"user":"pup","password":"` + password + `"}`, "up", nil},
		{"wrong basic", plain + "/basic", `"http":{"user":"pup","password":"` + wrong + `"}`, "down denied auth", nil},
		{"bearer", plain + "/bearer", `"http":{"token":"` + token + `"}`, "up", nil},
		{"no bearer", plain + "/bearer", ``, "down denied auth", nil},
		{"cookies", plain + "/cookie/set", `"expect":["http.body contains 'session abc, theme dark'"]`, "up", nil},
		{"empty", plain + "/204", ``, "up", nil},
		{"503", plain + "/503", ``, "down unavailable verify", []string{"http.retry_after == '120'"}},
		{"closes", plain + "/closes", ``, "down closed wait", nil},
		{"slow", plain + "/slow", `"timeout":"500ms"`, "down timeout transfer", nil},
		{"http/2 without tls", plain + "/", `"http":{"version":"2"}`, "down protocol wait", nil},
		{"tls where there is none", "https://" + other + "/", ``, "down tls tls", nil},
		{"http where there is tls", "http://" + n["https"] + "/", ``, "down mismatch verify", []string{"http.status == 400"}},
		{"expired", "https://" + n["https_expired"], ca, "down certificate-expired tls", []string{"tls.days_left < 0"}},
		{"other host's certificate", "https://" + n["https_wrong_name"], ca, "down certificate-name tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
	realserver.Pause(t, n, "nginx")
	check(t, plain+"/", `"timeout":"300ms"`).want(t, "down timeout wait")
	check(t, secure+"/", `"timeout":"300ms"`).want(t, "down timeout tls")
}
