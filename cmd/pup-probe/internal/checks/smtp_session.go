package checks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// smtpSessionOptions are what every session over SMTP or LMTP needs.
type smtpSessionOptions struct {
	starttlsOptions
	loginOptions
	Helo string `json:"helo" doc:"The name to greet with. Without it our address, as [192.0.2.1]."`
}

// smtpSessionFacts are what every session over SMTP or LMTP finds.
type smtpSessionFacts struct {
	Greeting       string   `json:"greeting" doc:"What the server greets with."`
	Host           string   `json:"host" doc:"The name that the server calls itself in its answer to our greeting."`
	Capabilities   []string `json:"capabilities" doc:"The extensions that it offers, such as PIPELINING, without their parameters; those under TLS where TLS is spoken."`
	AuthMechanisms []string `json:"auth_mechanisms" doc:"The mechanisms that it offers for logging in."`
	SizeLimitBytes *int64   `json:"size_limit_bytes" doc:"The largest message that it takes; 0: it names no limit."`
	StartTLS       *bool    `json:"starttls" doc:"Whether it offers to switch to TLS; absent where TLS is spoken from the start."`
	Mechanism      string   `json:"mechanism" doc:"The mechanism that we have logged in with."`
	Code           int      `json:"code" doc:"The code of the last reply but that to QUIT."`
	EnhancedCode   string   `json:"enhanced_code" doc:"The enhanced status code (RFC 3463) of that reply, such as 4.7.1."`
}

// smtpReply is a reply of one or more lines.
type smtpReply struct {
	Code     int
	Enhanced string
	Lines    []string // without codes
}

// smtpMaxLines bounds a reply: no server has as many extensions.
const smtpMaxLines = 128

func (r *smtpReply) class() int { return r.Code / 100 }

func (r *smtpReply) String() string {
	return ndjson.Cut(fmt.Sprintf("%d %s", r.Code, strings.TrimSpace(r.Enhanced+" "+strings.Join(r.Lines, " "))), 160)
}

// smtpSession is a client's session over SMTP (RFC 5321) or LMTP (RFC 2033).
type smtpSession struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *smtpSessionFacts
	hello string // EHLO or LHLO
	helo  string
	login *loginTalk
}

// smtpOpen reads the greeting on c, and greets.
func smtpOpen(p *probe.Probe, c *probe.Conn, opt *smtpSessionOptions, facts *smtpSessionFacts, hello string) (*smtpSession, error) {
	s := &smtpSession{p: p, c: c, facts: facts, hello: hello, helo: opt.Helo}
	if s.helo == "" {
		s.helo = smtpLiteral(c.LocalAddr())
	}
	p.Phase(wire.Greet)
	r, err := s.read()
	if err != nil {
		return s, err
	}
	facts.Greeting = strings.Join(r.Lines, "\n")
	if r.Code != 220 {
		if r.class() < 4 {
			return s, probe.Protocolf("greeting: got %q, want 220", r)
		}
		return s, probe.Failf(wire.Unavailable, "greeting: got %q", r)
	}
	return s, s.greet()
}

// smtpLiteral writes an address as RFC 5321, section 4.1.3, has it.
func smtpLiteral(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case t.IP.To4() == nil:
		return "[IPv6:" + t.IP.String() + "]"
	}
	return "[" + t.IP.String() + "]"
}

// close ends the session. After an error it does not wait for the answer.
func (s *smtpSession) close(err error) error {
	defer s.c.Close()
	if werr := s.c.Printf("QUIT\r\n"); err != nil || werr != nil {
		return err
	}
	// a server that has done its work may close without a word, but not hang
	if _, err = s.reply(); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// greet says EHLO or LHLO, or HELO to a server that knows no better, and takes
// down what the server offers.
func (s *smtpSession) greet() error {
	r, err := s.command("%s %s", s.hello, s.helo)
	if err != nil {
		return err
	}
	if r.class() == 5 && s.hello == "EHLO" {
		if r, err = s.command("HELO %s", s.helo); err != nil {
			return err
		}
	}
	switch {
	case r.Code == 500 || r.Code == 502:
		return probe.Protocolf("%s: got %q", s.hello, r)
	case r.class() == 5: // of all that a greeting has, it can only be our name or address
		return probe.Failf(wire.Denied, "%s: got %q", s.hello, r)
	case r.class() != 2:
		return smtpRefusal(s.hello, r)
	}
	f := s.facts
	f.Host, _, _ = strings.Cut(r.Lines[0], " ")
	f.Capabilities, f.AuthMechanisms, f.SizeLimitBytes = nil, nil, nil
	for _, line := range r.Lines[1:] {
		s.offer(strings.ToUpper(line))
	}
	if !s.p.URL.Scheme.TLS && s.c.TLSState() == nil {
		f.StartTLS = new(s.offers("STARTTLS"))
	}
	return nil
}

func (s *smtpSession) offer(line string) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return
	}
	name, f := words[0], s.facts
	switch {
	case name == "AUTH":
		f.AuthMechanisms = append(f.AuthMechanisms, words[1:]...)
	case strings.HasPrefix(name, "AUTH="): // as before RFC 2554
		return
	case name == "SIZE":
		f.SizeLimitBytes = new(int64(0))
		if len(words) > 1 {
			if n, err := strconv.ParseInt(words[1], 10, 64); err == nil && n > 0 {
				*f.SizeLimitBytes = n
			}
		}
	}
	if !slices.Contains(f.Capabilities, name) {
		f.Capabilities = append(f.Capabilities, name)
	}
}

func (s *smtpSession) offers(name string) bool { return slices.Contains(s.facts.Capabilities, name) }

// secure switches to TLS (RFC 3207) if the options and the server want it, and
// greets again, since what was said before could be anybody's.
func (s *smtpSession) secure(ctx context.Context, opt *smtpSessionOptions) error {
	yes, err := opt.wanted(s.p, s.c, s.offers("STARTTLS"), opt.must(s.c))
	if err != nil || !yes {
		return err
	}
	r, err := s.command("STARTTLS")
	switch {
	case err != nil:
		return err
	case r.class() == 4:
		return probe.Failf(wire.Unavailable, "STARTTLS: got %q", r)
	case r.Code != 220:
		return probe.Failf(wire.BadTLS, "STARTTLS is offered, but refused: got %q", r)
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err != nil {
		return err
	}
	s.c = c
	s.p.Phase(wire.Greet)
	return s.greet()
}

// auth logs in (RFC 4954).
func (s *smtpSession) auth(opt *smtpSessionOptions) error {
	s.p.Phase(wire.Auth)
	if !s.offers("AUTH") {
		return probe.Failf(wire.Denied, "the server offers no login (AUTH)")
	}
	cl, err := opt.client(s.p, s.c, s.facts.AuthMechanisms)
	if err != nil {
		return err
	}
	s.login = &loginTalk{
		command: "AUTH", inline: true,
		say: func(line string) error { return s.c.Printf("%s\r\n", line) },
		hear: func() (string, bool, error) {
			r, err := s.read()
			switch {
			case err != nil:
				return "", false, err
			case r.Code == 334:
				return r.Lines[0], true, nil
			case r.class() == 2:
				return "", false, nil
			}
			return "", false, smtpRefusal("AUTH", r)
		},
	}
	err = s.login.run(cl)
	if err == nil {
		s.facts.Mechanism, _ = cl.Start()
	}
	return err
}

// command sends a command and reads the reply.
func (s *smtpSession) command(format string, args ...any) (*smtpReply, error) {
	if err := s.c.Printf(format+"\r\n", args...); err != nil {
		return nil, err
	}
	return s.read()
}

// read reads a reply and notes its code. A server that goes away says 421
// whatever it was asked.
func (s *smtpSession) read() (*smtpReply, error) {
	r, err := s.reply()
	if err != nil {
		return nil, err
	}
	s.facts.Code, s.facts.EnhancedCode = r.Code, r.Enhanced
	if r.Code == 421 {
		return nil, probe.Failf(wire.Unavailable, "got %q", r)
	}
	return r, nil
}

// reply reads a reply (RFC 5321, section 4.2).
func (s *smtpSession) reply() (*smtpReply, error) {
	r := &smtpReply{}
	for {
		line, err := s.c.Line()
		if err != nil {
			return nil, err
		}
		code, text, more, ok := smtpLine(line)
		if !ok || r.Code != 0 && code != r.Code {
			return nil, probe.Protocolf("got %.80q, want a reply of SMTP", s.login.clean(line))
		}
		r.Code = code
		if word, rest, _ := strings.Cut(text, " "); smtpEnhanced(word) {
			r.Enhanced, text = word, rest
		}
		if r.Lines = append(r.Lines, s.login.clean(text)); !more {
			return r, nil
		}
		if len(r.Lines) == smtpMaxLines {
			return nil, probe.Failf(wire.TooLarge, "a reply of more than %d lines", smtpMaxLines)
		}
	}
}

// smtpLine takes a line of a reply apart: code, space or hyphen, text.
func smtpLine(line string) (code int, text string, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9' {
		return 0, "", false, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, "", false, true
	}
	return code, line[4:], line[3] == '-', line[3] == '-' || line[3] == ' '
}

// smtpEnhanced says whether a word is an enhanced status code (RFC 3463), such
// as 4.7.1.
func smtpEnhanced(word string) bool {
	parts := strings.Split(word, ".")
	if len(parts) != 3 || parts[0] != "2" && parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil || len(p) > 3 {
			return false
		}
	}
	return true
}

// smtpRefusal words a reply that is not the wanted one.
func smtpRefusal(what string, r *smtpReply) error {
	reason := wire.Mismatch
	switch {
	case r.class() == 4:
		reason = wire.Unavailable
	case what == "AUTH", r.Code == 530, r.Code == 535, strings.HasPrefix(r.Enhanced, "5.7."):
		reason = wire.Denied
	case r.class() < 4:
		reason = wire.BadProtocol
	}
	return probe.Failf(reason, "%s: got %q", what, r)
}
