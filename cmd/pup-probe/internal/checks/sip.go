package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

type sipOptions struct {
	Method   string `json:"method" enum:"options,register" doc:"What to ask: options, or register, which asks for the contacts that are registered for the user and changes nothing."`
	Domain   string `json:"domain" doc:"The domain to ask for, if it is not the URL's host."`
	User     string `json:"user" doc:"The user to log in as. Register asks for this user's contacts, unless the URL's path names another."`
	Password string `json:"password" secret:"true" doc:"The user's password. It is never sent: the digest proves it."`
	From     string `json:"from" doc:"The user part of our own address."`
}

type sipFacts struct {
	Status         *int     `json:"status" doc:"The status code of the final answer."`
	Phrase         string   `json:"phrase" doc:"The text that goes with it."`
	Server         string   `json:"server" doc:"What the server says it is."`
	Allow          []string `json:"allow" doc:"The methods that it allows."`
	Supported      []string `json:"supported" doc:"The extensions that it supports."`
	Accept         []string `json:"accept" doc:"The types of body that it accepts."`
	Contacts       []string `json:"contacts" doc:"The contacts that are registered, for register."`
	ContactCount   *int     `json:"contact_count" doc:"Their number."`
	Realm          string   `json:"realm" doc:"The realm that a password was asked for."`
	Algorithm      string   `json:"algorithm" doc:"The hash of the digest: MD5, SHA-256."`
	Authenticated  *bool    `json:"authenticated" doc:"Whether the server took our password."`
	Transport      string   `json:"transport" doc:"UDP, TCP or TLS."`
	ReceivedFrom   string   `json:"received_from" doc:"Our address as the server sees it, where that is another than ours."`
	Provisional    []int    `json:"provisional" doc:"The status codes before the final one."`
	RetryAfterSecs *int     `json:"retry_after_seconds" doc:"When to come back, if the server says so."`
	Resent         *int     `json:"resent" doc:"How often the request was sent again over UDP."`
	Ignored        int      `json:"ignored" doc:"Messages that were no answers to our request."`
}

func init() {
	register(probe.Info{
		Name:    "sip",
		Summary: "the server answers OPTIONS, or REGISTER with a password",
		Schemes: []probe.Scheme{{Name: "sip", Port: 5060}, {Name: "sip+tcp", Port: 5060}, {Name: "sips", Port: 5061, TLS: true}},
		Example: "sip://sip.example.org",
		Common:  []string{"tls", "resolver", "address", "connect", "family", "source"},
		Expect:  []string{"sip.status >= 200 and sip.status < 300"},
		Doc: `Up means that the server answered OPTIONS with a status from 200 to 299, or with ` + "`method = \"register\"`" + ` that it took the user's password and told the user's contacts. REGISTER is sent without a contact, so that nothing is registered or removed (RFC 3261, section 10.2.3); ` + "`expect = [\"sip.contact_count > 0\"]`" + ` says that a phone must be there. The path of the URL is the user to ask for: ` + "`sip://sip.example.org/reception`" + `.

401, 403 and 407 are ` + "`denied`" + `, in phase auth once a password was sent; 408, 480, 500 to 599 and 600 are ` + "`unavailable`" + `; any other status is judged by ` + "`expect`" + `, so that ` + "`expect = [\"sip.status == 404\"]`" + ` can be up. The password is proved by digest (MD5 or SHA-256), and sent nowhere. Answers that belong to another request are counted and ignored, provisional ones are waited through.

` + "`sip`" + ` is SIP over UDP, with requests sent again after one, two, four seconds; ` + "`sip+tcp` and `sips`" + ` are over TCP and TLS. No SRV or NAPTR records are looked up: the URL names the server.

The phases: request sending, wait until the answer, auth the same for the request with the password. RFC 3261, 3581, 7616, 8760.`,
	}, sipOptions{Method: "options", From: "pup-probe"}, sipCheck)
}

func sipCheck(ctx context.Context, p *probe.Probe, opt *sipOptions, facts *sipFacts) error {
	s := &sipSession{ctx: ctx, p: p, opt: opt, facts: facts}
	if err := s.plan(); err != nil {
		return err
	}
	if err := s.dial(); err != nil {
		return err
	}
	defer s.conn.Close()
	r, err := s.ask("")
	for try := 0; err == nil && (r.status == 401 || r.status == 407) && opt.User != "" && opt.Password != ""; try++ {
		challenge, cerr := sipChallenged(r)
		if cerr != nil {
			return cerr
		}
		if try > 0 && !(try == 1 && challenge.stale) {
			break
		}
		facts.Realm, facts.Algorithm, facts.Authenticated = challenge.realm, challenge.algorithm, new(false)
		s.auth = true
		r, err = s.ask(challenge.answer(opt.User, opt.Password, s.method, s.uri, sipToken()))
	}
	if err != nil {
		return err
	}
	facts.measure(r)
	if err := s.judge(r); err != nil {
		return err
	}
	p.Phase(wire.Verify)
	return nil
}

// judge says what a status means that is no answer to the question.
func (s *sipSession) judge(r *sipResponse) error {
	said := fmt.Sprintf("%s: %d %.80q", s.method, r.status, r.phrase)
	switch {
	case (r.status == 401 || r.status == 407) && s.opt.Password == "":
		return probe.Failf(wire.Denied, "%s: the server wants a password", said)
	case r.status == 401 || r.status == 407 || r.status == 403:
		return probe.Failf(wire.Denied, "%s", said)
	case r.status == 408 || r.status == 480 || r.status >= 500 && r.status <= 600:
		return probe.Failf(wire.Unavailable, "%s", said)
	}
	if s.auth && r.status < 300 {
		s.facts.Authenticated = new(true)
	}
	return nil
}

func (f *sipFacts) measure(r *sipResponse) {
	f.Status, f.Phrase, f.Server = new(r.status), r.phrase, r.get("server")
	if f.Server == "" {
		f.Server = r.get("user-agent")
	}
	f.Allow, f.Supported, f.Accept = r.list("allow"), r.list("supported"), r.list("accept")
	if n, err := strconv.Atoi(r.get("retry-after")); err == nil {
		f.RetryAfterSecs = &n
	}
	if r.method == "REGISTER" && r.status < 300 {
		f.Contacts = r.list("contact")
		f.ContactCount = new(len(f.Contacts))
	}
	via := r.get("via")
	if received := sipParameter(via, "received"); received != "" {
		f.ReceivedFrom = received
		if port := sipParameter(via, "rport"); port != "" {
			f.ReceivedFrom += ":" + port
		}
	}
}

// A sipSession asks one server.
type sipSession struct {
	ctx    context.Context
	p      *probe.Probe
	opt    *sipOptions
	facts  *sipFacts
	conn   *probe.Conn
	udp    *datagram.Asker // or nil
	method string
	uri    string // of the request
	to     string // whom it is about
	callID string
	tag    string
	cseq   int
	auth   bool // a password was sent
}

// plan makes the addresses of the request.
func (s *sipSession) plan() error {
	domain, user := s.opt.Domain, strings.TrimPrefix(s.p.URL.Path, "/")
	if domain == "" {
		if domain = s.p.URL.Host; strings.Contains(domain, ":") {
			domain = "[" + domain + "]"
		}
	}
	s.method = strings.ToUpper(s.opt.Method)
	if user == "" && s.method == "REGISTER" {
		user = s.opt.User
	}
	for _, part := range []struct{ name, text, more string }{
		{"url: the path", user, "-_.!~*'()&=+$,;?/%@"}, {"sip.domain", domain, "-.:[]"}, {"sip.from", s.opt.From, "-_.!~*'()&=+$,"},
	} {
		if i := strings.IndexFunc(part.text, func(r rune) bool { return !sipPlain(r, part.more) }); i >= 0 {
			return probe.Failf(wire.BadOptions, "%s: %.80q can't be a part of a SIP address", part.name, part.text)
		}
	}
	switch {
	case s.opt.From == "":
		return probe.Failf(wire.BadOptions, "sip.from: must not be empty")
	case s.method == "REGISTER" && user == "":
		return probe.Failf(wire.BadOptions, "sip.user: register needs one")
	case s.opt.Password != "" && s.opt.User == "":
		return probe.Failf(wire.BadOptions, "sip.password: needs user")
	case strings.ContainsAny(s.opt.User, "\"\\\r\n"):
		return probe.Failf(wire.BadOptions, "sip.user: %.80q has quotes, backslashes or line ends", s.opt.User)
	}
	scheme := "sip"
	if s.p.URL.Scheme.TLS {
		scheme = "sips"
	}
	s.to = scheme + ":" + domain
	if user != "" {
		s.to = scheme + ":" + user + "@" + domain
	}
	s.uri = s.to
	if s.method == "REGISTER" {
		s.uri = scheme + ":" + domain
	}
	s.callID, s.tag = sipToken(), sipToken()
	return nil
}

func (s *sipSession) dial() (err error) {
	if s.p.URL.Scheme.Name != "sip" {
		s.facts.Transport = "TCP"
		if s.p.URL.Scheme.TLS {
			s.facts.Transport = "TLS"
		}
		s.conn, err = s.p.Dial(s.ctx)
		return err
	}
	s.facts.Transport = "UDP"
	if s.conn, err = s.p.DialUDP(s.ctx); err == nil {
		s.udp = &datagram.Asker{Probe: s.p, Conn: s.conn}
	}
	return err
}

// ask sends a request, with the header field for the password if there is one,
// and waits for its final answer.
func (s *sipSession) ask(authorization string) (*sipResponse, error) {
	s.cseq++
	branch := "z9hG4bK" + sipToken()
	request := s.request(branch, authorization)
	ask, wait := wire.Request, wire.Wait
	if authorization != "" {
		ask, wait = wire.Auth, wire.Auth
	}
	var final *sipResponse
	take := func(r *sipResponse) error {
		if r.callID() != s.callID || sipParameter(r.get("via"), "branch") != branch || r.get("cseq") != fmt.Sprintf("%d %s", s.cseq, s.method) {
			return datagram.Stray("the answer to another request")
		}
		if r.status < 200 {
			if !slices.Contains(s.facts.Provisional, r.status) {
				s.facts.Provisional = append(s.facts.Provisional, r.status)
			}
			return datagram.ErrMore
		}
		r.method, final = s.method, r
		return nil
	}
	if s.udp == nil {
		s.p.Phase(ask)
		if _, err := s.conn.Write(request); err != nil {
			return nil, err
		}
		s.p.Phase(wait)
		err := s.read(take)
		return final, err
	}
	s.udp.AskPhase, s.udp.WaitPhase = ask, wait
	err := s.udp.Ask(s.ctx, func() []byte { return request }, func(b []byte) error {
		r, err := sipParse(b)
		if err != nil {
			return datagram.Stray("no answer of SIP: %w", err)
		}
		return take(r)
	})
	s.facts.Resent, s.facts.Ignored = new(s.udp.Resent), s.udp.Ignored
	return final, err
}

// request makes a request.
func (s *sipSession) request(branch, authorization string) []byte {
	local := s.conn.LocalAddr().String()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	scheme, domain, _ := strings.Cut(s.uri, ":")
	if _, host, ok := strings.Cut(domain, "@"); ok {
		domain = host
	}
	line("%s %s SIP/2.0", s.method, s.uri)
	line("Via: SIP/2.0/%s %s;branch=%s;rport", s.facts.Transport, local, branch)
	line("Max-Forwards: 70")
	if s.method == "REGISTER" { // who registers is whom it is about
		line("From: <%s>;tag=%s", s.to, s.tag)
	} else {
		line("From: <%s:%s@%s>;tag=%s", scheme, s.opt.From, domain, s.tag)
	}
	line("To: <%s>", s.to)
	line("Call-ID: %s", s.callID)
	line("CSeq: %d %s", s.cseq, s.method)
	if s.method == "OPTIONS" {
		line("Contact: <%s:%s@%s>", scheme, s.opt.From, local)
		line("Accept: application/sdp")
	}
	if authorization != "" {
		line("%s", authorization)
	}
	line("User-Agent: pup-probe")
	line("Content-Length: 0")
	line("")
	return []byte(b.String())
}
