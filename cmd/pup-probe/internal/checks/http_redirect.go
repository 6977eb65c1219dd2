package checks

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

// follow makes a request and those that redirects lead to, and reads the body
// of the last response.
func (s *httpSession) follow(ctx context.Context, u *url.URL, r *httpRequest) error {
	s.facts.Hops = nil
	var seen []string
	for {
		asked := r
		next, err := s.hop(ctx, u, &r)
		if err != nil || next == nil {
			return err
		}
		if len(seen) == s.opt.Redirects {
			return s.stopped("more than %d redirects; the next is to %.200q", s.opt.Redirects, s.shown(next))
		}
		// the same request again, with the same cookies, would have the same answer
		seen = append(seen, httpKey(asked, u, s.sent))
		if slices.Contains(seen, httpKey(r, next, s.cookiesFor(next))) {
			return s.stopped("redirect loop: %.200q comes again", s.shown(next))
		}
		s.facts.Hops = append(s.facts.Hops, httpHop{s.shown(u), s.facts.Status})
		u = next
	}
}

func httpKey(r *httpRequest, u *url.URL, cookies string) string {
	return r.method() + " " + u.String() + " " + cookies
}

func (s *httpSession) cookiesFor(u *url.URL) string {
	if s.jar == nil {
		return ""
	}
	return httpCookieText(s.jar.Cookies(u))
}

// stopped is the error for a redirect that is not followed.
func (s *httpSession) stopped(format string, args ...any) error {
	s.p.Phase(wire.Verify)
	return probe.Failf(wire.Mismatch, format, args...)
}

// hop makes one request. It gives the URL to go on with, or nil when the
// response is the last. R becomes the request to go on with.
func (s *httpSession) hop(ctx context.Context, u *url.URL, r **httpRequest) (*url.URL, error) {
	resp, c, err := s.exchange(ctx, u, *r)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s.note(u, resp)
	s.keepCookies(u, resp.Fields)
	next, err := s.redirect(u, resp)
	if err != nil {
		return nil, err
	}
	if next == nil {
		return nil, s.readBody(resp)
	}
	*r = httpAfter(*r, resp.Status)
	return next, nil
}

// redirect gives the URL that the response leads to, or nil if it is to be
// judged itself.
func (s *httpSession) redirect(u *url.URL, resp *httpconn.Response) (*url.URL, error) {
	location := resp.Fields.Get("location")
	if s.opt.Redirects == 0 || location == "" || !slices.Contains([]int{301, 302, 303, 307, 308}, resp.Status) {
		return nil, nil
	}
	next, err := u.Parse(location)
	if err != nil {
		return nil, probe.Protocolf("location: %.200q is no URL", location)
	}
	next = httpBare(next)
	scope := s.opt.RedirectScope
	switch {
	case next.Scheme != "http" && next.Scheme != "https":
		return nil, s.stopped("redirect to %.200q, which is not followed: it is neither http nor https", location)
	case next.Hostname() == "" || next.Port() != "" && httpPort(next) == 0:
		return nil, probe.Protocolf("location: %.200q names no host", location)
	case scope != "any" && next.Hostname() != u.Hostname():
		return nil, s.stopped("redirect to another host, %.200q, which redirect_scope forbids", s.shown(next))
	case scope == "origin" && (next.Scheme != u.Scheme || httpPort(next) != httpPort(u)):
		return nil, s.stopped("redirect to another origin, %.200q, which redirect_scope forbids", s.shown(next))
	}
	return next, nil
}

// httpAfter gives the request that follows a redirect (RFC 9110, section
// 15.4): the same, or a GET without body.
func httpAfter(r *httpRequest, status int) *httpRequest {
	m := r.method()
	if status == 303 && m != "HEAD" || (status == 301 || status == 302) && m == "POST" {
		return &httpRequest{Method: "GET", Headers: r.Headers, SecretHeaders: r.SecretHeaders}
	}
	return r
}

// note takes the facts from the head of a response.
func (s *httpSession) note(u *url.URL, resp *httpconn.Response) {
	f := s.facts
	*f = httpFacts{Redirects: new(len(f.Hops)), Hops: f.Hops, Steps: f.Steps, Status: resp.Status, Version: resp.Version}
	if u != s.base {
		if shown := s.shown(u); shown != s.base.String() {
			f.URL = shown
		}
	}
	if resp.Length >= 0 {
		f.ContentLength = new(resp.Length)
	}
	for _, x := range resp.Fields {
		switch x.Name {
		case "server":
			f.Server = x.Value
		case "content-type":
			f.ContentType = x.Value
		case "content-encoding":
			f.ContentEncoding = x.Value
		case "etag":
			f.ETag = x.Value
		case "retry-after":
			f.RetryAfter = x.Value
		case "www-authenticate", "proxy-authenticate":
			f.Challenge = httpJoin(f.Challenge, x.Value)
		case "strict-transport-security":
			f.HSTS = x.Value
		case "alt-svc":
			f.AltSvc = x.Value
		case "last-modified":
			if t, err := http.ParseTime(x.Value); err == nil {
				f.LastModified, f.LastModifiedAgeMS = t, new(wire.MS(time.Since(t)))
			}
		}
	}
	if s.reads("http.headers") {
		f.Headers = httpTable(resp.Fields)
	}
}

func httpJoin(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

func httpTable(fields httpconn.Fields) map[string]string {
	m := make(map[string]string, len(fields))
	for _, f := range fields {
		m[f.Name] = httpJoin(m[f.Name], f.Value)
	}
	return m
}

// shown is a URL as it may be printed: what was captured may be a credential.
func (s *httpSession) shown(u *url.URL) string {
	text := u.String()
	for _, v := range s.captured {
		if len(v) > 2 {
			text = strings.ReplaceAll(text, httpEscape(v), "***")
			text = strings.ReplaceAll(text, v, "***")
		}
	}
	return text
}
