package checks

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

// httpRequest is what the request of a target and of a step have in common.
type httpRequest struct {
	Method        string            `json:"method" doc:"The method; GET by default, POST with form."`
	Headers       map[string]string `json:"headers" doc:"Fields to send; those of the target go with every step. Host replaces the URL's host there."`
	SecretHeaders map[string]string `json:"secret_headers" secret:"true" doc:"Fields to send whose values are credentials."`
	Body          string            `json:"body" doc:"The body to send."`
	Form          map[string]string `json:"form" doc:"Fields of a form to send as the body, as browsers do."`
	SecretForm    map[string]string `json:"secret_form" secret:"true" doc:"Fields of the form whose values are credentials."`
}

type httpStep struct {
	URL string `json:"url" doc:"Where the request goes, relative to the target's URL; empty: there."`
	httpRequest
	Expect  []string          `json:"expect" doc:"Expressions over http and tls that must hold for this step's response; http.status from 200 to 299 unless they mention http.status."`
	Capture map[string]string `json:"capture" doc:"Values to take from the response, by name: json:PATH, regex:EXPRESSION (its first group), header:NAME, cookie:NAME. Later steps write ${capture:NAME} in url, headers, body and form."`
}

type httpOptions struct {
	httpRequest
	Version string `json:"version" enum:"auto,1.1,2" doc:"The HTTP version: auto is 2 if TLS agrees on it, else 1.1; 2 without TLS is sent at once (prior knowledge)."`
	httpLogin
	Compression   bool       `json:"compression" doc:"Ask for a compressed body (gzip or deflate). One that comes unasked is decoded as well."`
	MaxBodyBytes  int        `json:"max_body_bytes" min:"0" max:"268435456" doc:"How many bytes of the decoded body are read."`
	FailTooLarge  bool       `json:"fail_too_large" doc:"A body larger than max_body_bytes is a failure; else what came until then is judged."`
	Redirects     int        `json:"redirects" min:"0" max:"20" doc:"How many redirects are followed; 0: the redirect itself is judged."`
	RedirectScope string     `json:"redirect_scope" enum:"any,host,origin" doc:"Where redirects may lead: anywhere, to the same host, or to the same scheme, host and port."`
	Steps         []httpStep `json:"steps" doc:"Requests to make one after the other, instead of the one that the target describes. Cookies are kept; the last response is judged."`
}

// httpLogin is embedded in the options of each check that logs in by a field of
// HTTP.
type httpLogin struct {
	User           string `json:"user" doc:"User name of Basic authentication."`
	Password       string `json:"password" secret:"true" doc:"Password of Basic authentication."`
	Token          string `json:"token" secret:"true" doc:"Bearer token, instead of user and password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Send credentials without TLS to a host that is not loopback."`
}

type httpFacts struct {
	Status            int               `json:"status" doc:"The status code of the last response."`
	Version           string            `json:"version" doc:"The HTTP version: 1.0, 1.1, 2."`
	URL               string            `json:"url" doc:"Where the last response came from, if that is not the target's URL; without credentials."`
	Redirects         *int              `json:"redirects" doc:"Redirects that were followed."`
	Hops              []httpHop         `json:"hops" doc:"Each response that redirected."`
	Steps             []httpStepFact    `json:"steps" doc:"Each step that was made."`
	Server            string            `json:"server" doc:"The field Server."`
	ContentType       string            `json:"content_type" doc:"The field Content-Type."`
	ContentEncoding   string            `json:"content_encoding" doc:"The field Content-Encoding."`
	ContentLength     *int64            `json:"content_length" doc:"The field Content-Length, in bytes."`
	BodyBytes         *int64            `json:"body_bytes" doc:"Bytes of the decoded body that were read."`
	CompressedBytes   *int64            `json:"compressed_bytes" doc:"Bytes of the body before it was decoded, if it was compressed."`
	Truncated         *bool             `json:"truncated" doc:"Whether the body is larger than max_body_bytes, so that only its beginning was read."`
	SHA256            string            `json:"sha256" doc:"SHA-256 of the whole decoded body, in hex."`
	Title             string            `json:"title" doc:"The title of an HTML page."`
	LastModified      time.Time         `json:"last_modified" doc:"The field Last-Modified."`
	LastModifiedAgeMS *float64          `json:"last_modified_age_ms" doc:"Milliseconds since last_modified."`
	ETag              string            `json:"etag" doc:"The field ETag."`
	RetryAfter        string            `json:"retry_after" doc:"The field Retry-After."`
	Challenge         string            `json:"challenge" doc:"The field WWW-Authenticate: what the server wants for a login."`
	HSTS              string            `json:"hsts" doc:"The field Strict-Transport-Security."`
	AltSvc            string            `json:"alt_svc" doc:"The field Alt-Svc: other protocols that are on offer, such as HTTP/3."`
	Cookies           []string          `json:"cookies" doc:"Names of the cookies that the last response sets."`
	Headers           map[string]string `json:"headers" large:"true" doc:"All fields, by name in lower case; several of one name are joined with a comma."`
	Trailers          map[string]string `json:"trailers" large:"true" doc:"The fields behind the body."`
	Body              string            `json:"body" large:"true" doc:"The decoded body, up to max_body_bytes."`
	JSON              any               `json:"json" large:"true" doc:"The body as JSON; absent if it is none."`
}

type httpHop struct {
	URL    string `json:"url" doc:"Where it came from."`
	Status int    `json:"status" doc:"Its status code."`
}

type httpStepFact struct {
	URL    string   `json:"url" doc:"Where the step's last response came from."`
	Status int      `json:"status" doc:"Its status code."`
	MS     *float64 `json:"ms" doc:"Milliseconds that the step took, redirects included."`
}

func init() {
	register(probe.Info{
		Name:    "http",
		Summary: "answers a request with success",
		Schemes: []probe.Scheme{{Name: "http", Port: 80}, {Name: "https", Port: 443, TLS: true}},
		Example: "https://www.example.org/",
		Common:  probe.OverTCP,
		Expect:  []string{"http.status >= 200 and http.status < 300"},
		Doc: `Up means that a whole response came whose status is 200 to 299, after redirects; expressions can ask for anything else. It does not mean that the page is the right one: say what it holds, with ` + "`http.body`, `http.json`, `http.headers` or `http.sha256`" + `.

HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113) are spoken over a connection of the check's own, one for each request, without reuse and without a hidden retry. A response that isn't strictly well-formed has the reason protocol: two different lengths, a length and chunks, a broken chunk, more than 64 KiB of header, more than 8 interim responses (1xx), HTTP/0.9.

Unless an expression mentions ` + "`http.status`" + `: 503 and 429 have the reason unavailable, 401 and 407 the reason denied in phase auth, and so has 403 when credentials were sent.

A redirect keeps the query that its location names. 303, and 301 and 302 after POST, turn the request into GET; 307 and 308 repeat it. Credentials (user, password, token, secret_headers, a header Authorization or Cookie, a client certificate) go to the target's own host and port only, and never from https to http. A location with another scheme than http or https is not followed, and is a mismatch like a loop and one redirect too many.

The body is decoded from gzip and deflate and read up to max_body_bytes; a longer one is judged by its beginning. An endless or slow response ends with the target's timeout.

Cookies (RFC 6265) are kept over redirects and steps of one run.

Phases: request is sending, wait until the first byte, transfer until the last, verify the judgement; all requests of a run add up.`,
	}, httpOptions{Version: "auto", MaxBodyBytes: 1 << 20, Redirects: 5, RedirectScope: "any"}, httpRun)
}

func httpRun(ctx context.Context, p *probe.Probe, opt *httpOptions, facts *httpFacts) error {
	s := &httpSession{p: p, opt: opt, facts: facts}
	if err := s.prepare(); err != nil {
		return err
	}
	if len(opt.Steps) == 0 {
		if err := s.follow(ctx, s.base, &opt.httpRequest); err != nil {
			return err
		}
	} else if err := s.steps(ctx); err != nil {
		return err
	}
	p.Phase(wire.Verify)
	return s.refused()
}

// An httpSession is one run of the check.
type httpSession struct {
	p        *probe.Probe
	opt      *httpOptions
	facts    *httpFacts
	base     *url.URL // the target's, without what is not sent
	jar      http.CookieJar
	sent     string // the cookies of the jar that the last request had
	captured map[string]string
	expects  [][]*expr.Expr // of the steps
}

// prepare checks what the schema of the options can't say.
func (s *httpSession) prepare() error {
	o := s.opt
	s.base = httpBare(s.p.URL.URL)
	if err := o.allowed(s.p, s.hasCredentials()); err != nil {
		return err
	}
	if err := o.check("http"); err != nil {
		return err
	}
	if len(o.Steps) == 0 {
		return nil
	}
	if o.Method != "" || o.Body != "" || o.Form != nil || o.SecretForm != nil {
		return probe.Failf(wire.BadOptions, "http: method, body and form belong into the steps when there are steps")
	}
	return s.prepareSteps()
}

// httpBare gives u without what is not sent.
func httpBare(u *url.URL) *url.URL {
	if u.User == nil && u.Fragment == "" {
		return u
	}
	bare := *u
	bare.User, bare.Fragment = nil, ""
	return &bare
}

func (s *httpSession) hasCredentials() bool {
	secret := func(r *httpRequest) bool { return len(r.SecretHeaders)+len(r.SecretForm) > 0 }
	return s.opt.given(s.p) || secret(&s.opt.httpRequest) ||
		slices.ContainsFunc(s.opt.Steps, func(st httpStep) bool { return secret(&st.httpRequest) })
}

// user is the option, or else the user of the URL.
func (l *httpLogin) user(p *probe.Probe) string {
	if l.User == "" && p.URL.User != nil {
		return p.URL.User.Username()
	}
	return l.User
}

func (l *httpLogin) given(p *probe.Probe) bool { return l.user(p) != "" || l.Token != "" }

// allowed refuses credentials that contradict each other, or that would go
// over an open connection. Given says whether there are any.
func (l *httpLogin) allowed(p *probe.Probe, given bool) error {
	name := p.URL.Check.Name
	switch {
	case given && !p.URL.Scheme.TLS && !l.AllowPlainAuth && !p.Loopback(p.URL.Host):
		return probe.Failf(wire.BadOptions, "%s: credentials over a connection without TLS; use a URL with TLS, or say %s.allow_plain_auth = true", name, name)
	case l.Token != "" && l.user(p) != "":
		return probe.Failf(wire.BadOptions, "%s: both token and user; one of them can be sent", name)
	case l.Password != "" && l.user(p) == "":
		return probe.Failf(wire.BadOptions, "%s.password: needs %s.user as well", name, name)
	case !httpconn.FieldValue(l.Token):
		return probe.Failf(wire.BadOptions, "%s.token: holds a control character", name)
	}
	return nil
}

// add adds the field Authorization, if there are credentials.
func (l *httpLogin) add(p *probe.Probe, fields *httpconn.Fields) {
	switch user := l.user(p); {
	case l.Token != "":
		fields.Set("authorization", "Bearer "+l.Token)
	case user != "":
		fields.Set("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+l.Password)))
	}
}

// httpOwn are the fields that the exchange itself makes.
var httpOwn = []string{"content-length", "transfer-encoding", "connection", "upgrade", "te", "keep-alive", "trailer"}

// check refuses what would break the request apart.
func (r *httpRequest) check(path string) error {
	if r.Method != "" && !httpconn.Token(r.Method) {
		return probe.Failf(wire.BadOptions, "%s.method: %.40q is no method", path, r.Method)
	}
	for _, fields := range []map[string]string{r.Headers, r.SecretHeaders} {
		for name, value := range fields {
			switch {
			case !httpconn.Token(name):
				return probe.Failf(wire.BadOptions, "%s.headers: %.80q is no name of a field", path, name)
			case slices.Contains(httpOwn, strings.ToLower(name)):
				return probe.Failf(wire.BadOptions, "%s.headers: %s is made by the check itself", path, name)
			case !httpconn.FieldValue(value):
				return probe.Failf(wire.BadOptions, "%s.headers: the value of %s holds a control character", path, name)
			}
		}
	}
	if r.Body != "" && len(r.Form)+len(r.SecretForm) > 0 {
		return probe.Failf(wire.BadOptions, "%s: both body and form; one of them can be sent", path)
	}
	return nil
}

// exchange sends one request over a connection of its own and reads the head
// of the response. The caller closes the connection.
func (s *httpSession) exchange(ctx context.Context, u *url.URL, r *httpRequest) (*httpconn.Response, *probe.Conn, error) {
	c, err := s.dial(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	req, err := s.request(u, r)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	x := httpconn.New(s.p, c)
	if s.opt.Version == "2" {
		if u.Scheme == "https" && c.TLSState().NegotiatedProtocol != "h2" {
			c.Close()
			return nil, nil, probe.Protocolf("the server does not agree on HTTP/2 (ALPN h2)")
		}
		x = httpconn.NewHTTP2(s.p, c)
	}
	resp, err := x.Do(req)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return resp, c, nil
}

// dial connects to u's host: as the target's common options say if that is
// its own, else as plainly as a redirect can ask for.
func (s *httpSession) dial(ctx context.Context, u *url.URL) (c *probe.Conn, err error) {
	if s.same(u) {
		c, err = s.p.DialPlain(ctx)
	} else {
		c, err = s.p.DialHost(ctx, "tcp", u.Hostname(), httpPort(u))
	}
	if err != nil || u.Scheme != "https" {
		return c, err
	}
	switch s.opt.Version {
	case "1.1":
		return s.p.StartTLS(ctx, c, "http/1.1")
	case "2":
		return s.p.StartTLS(ctx, c, "h2")
	}
	return s.p.StartTLS(ctx, c, "h2", "http/1.1")
}

func httpPort(u *url.URL) int {
	if p, err := strconv.Atoi(u.Port()); err == nil {
		return p
	}
	return httpUsualPort(u)
}

func httpUsualPort(u *url.URL) int {
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// request makes the request for u.
func (s *httpSession) request(u *url.URL, r *httpRequest) (*httpconn.Request, error) {
	req := &httpconn.Request{
		Method: r.method(), Scheme: u.Scheme, Authority: httpconn.Authority(u.Hostname(), httpPort(u), httpUsualPort(u)),
		Path: strings.ReplaceAll(u.RequestURI(), " ", "%20"), Body: []byte(r.Body),
		Fields: httpconn.Fields{{Name: "accept", Value: "*/*"}, {Name: "user-agent", Value: "pup-probe"}},
	}
	if s.opt.Compression {
		req.Fields.Set("accept-encoding", "gzip, deflate")
	}
	own := s.own(u)
	if len(r.Form)+len(r.SecretForm) > 0 {
		req.Fields.Set("content-type", "application/x-www-form-urlencoded")
		req.Body = []byte(r.form().Encode())
	}
	if own {
		s.opt.add(s.p, &req.Fields)
	}
	s.setFields(req, &s.opt.httpRequest, own)
	if r != &s.opt.httpRequest {
		s.setFields(req, r, own)
	}
	if s.sent = s.cookiesFor(u); s.sent != "" {
		text := s.sent
		if given := req.Fields.Get("cookie"); given != "" {
			text = given + "; " + text
		}
		req.Fields.Set("cookie", text)
	}
	for _, f := range req.Fields {
		if !httpconn.FieldValue(f.Value) {
			return nil, probe.Failf(wire.Mismatch, "the captured value for the field %s holds a control character", f.Name)
		}
	}
	return req, nil
}

// own says whether credentials may go to u: to the target's host and port, and
// not without the TLS that the target has.
func (s *httpSession) own(u *url.URL) bool {
	return s.same(u) && (u.Scheme == "https" || s.base.Scheme == "http")
}

// same says whether u leads to the target's host and port.
func (s *httpSession) same(u *url.URL) bool {
	return u == s.base || u.Hostname() == s.p.URL.Host && httpPort(u) == s.p.URL.Port
}

func (s *httpSession) setFields(req *httpconn.Request, r *httpRequest, own bool) {
	for name, value := range r.Headers {
		switch name = strings.ToLower(name); {
		case name == "host" && own:
			req.Authority = value
		case name == "host":
		case own || name != "authorization" && name != "cookie" && name != "proxy-authorization":
			req.Fields.Set(name, value)
		}
	}
	if own {
		for name, value := range r.SecretHeaders {
			req.Fields.Set(strings.ToLower(name), value)
		}
	}
}

func (r *httpRequest) method() string {
	switch {
	case r.Method != "":
		return r.Method
	case len(r.Form)+len(r.SecretForm) > 0:
		return "POST"
	}
	return "GET"
}

func (r *httpRequest) form() url.Values {
	v := url.Values{}
	for _, fields := range []map[string]string{r.Form, r.SecretForm} {
		for name, value := range fields {
			v.Set(name, value)
		}
	}
	return v
}

func httpCookieText(cookies []*http.Cookie) string {
	var b strings.Builder
	for i, c := range cookies {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(c.Name + "=" + c.Value)
	}
	return b.String()
}

// keepCookies takes the cookies of a response into the jar.
func (s *httpSession) keepCookies(u *url.URL, fields httpconn.Fields) {
	var cookies []*http.Cookie
	for _, line := range fields.All("set-cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			continue // as browsers do
		}
		s.facts.Cookies = append(s.facts.Cookies, c.Name)
		cookies = append(cookies, c)
	}
	if cookies == nil {
		return
	}
	if s.jar == nil {
		s.jar, _ = cookiejar.New(nil) // it has no other error than nil
	}
	s.jar.SetCookies(u, cookies)
}

// refused words the refusals that have a reason of their own, unless the
// target's expressions judge the status themselves.
func (s *httpSession) refused() error {
	if s.p.Reads("http.status") {
		return nil
	}
	return httpRefused(s.p, s.facts.Status, s.facts.RetryAfter, s.facts.Challenge, s.hasCredentials())
}

// httpRefused gives the error for a status that says why nothing was done:
// not now, or not without other credentials. For any other it gives nil.
func httpRefused(p *probe.Probe, status int, retryAfter, challenge string, credentials bool) error {
	if status < 400 {
		return nil
	}
	text := fmt.Sprintf("status %d %s", status, http.StatusText(status))
	switch {
	case status == 503 || status == 429:
		if retryAfter != "" {
			text += fmt.Sprintf(", retry after %.40q", retryAfter)
		}
		return probe.Failf(wire.Unavailable, "%s", text)
	case status == 401 || status == 407 || status == 403 && credentials:
		p.Phase(wire.Auth)
		if challenge != "" {
			text += fmt.Sprintf(", wants %.80q", challenge)
		}
		return probe.Failf(wire.Denied, "%s", text)
	}
	return nil
}
