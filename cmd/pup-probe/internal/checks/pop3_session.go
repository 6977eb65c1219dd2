package checks

import (
	"context"
	"errors"
	"net/mail"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// pop3SessionOptions are what every session over POP3 needs.
type pop3SessionOptions struct {
	starttlsOptions
	loginOptions
}

// pop3SessionFacts are what every session over POP3 finds.
type pop3SessionFacts struct {
	Greeting     string   `json:"greeting" doc:"What the server greets with."`
	Capabilities []string `json:"capabilities" doc:"What it can do (CAPA), such as TOP, UIDL, STLS, without parameters; absent where it does not say."`
	Mechanisms   []string `json:"auth_mechanisms" doc:"The SASL mechanisms that it offers for logging in."`
	StartTLS     *bool    `json:"starttls" doc:"Whether it offers to switch to TLS; absent where TLS is spoken from the start."`
	LoggedIn     *bool    `json:"logged_in" doc:"Whether we are logged in."`
	Mechanism    string   `json:"mechanism" doc:"The mechanism that we have logged in with; USER stands for the commands USER and PASS."`
}

// pop3MaxLines bounds an answer of several lines.
const pop3MaxLines = 4096

// pop3Session is a client's session over POP3 (RFC 1939).
type pop3Session struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *pop3SessionFacts
	login *loginTalk
}

// pop3Err is a command that the server has refused.
type pop3Err struct{ text string }

func (e *pop3Err) Error() string { return "got " + strconv.Quote("-ERR "+e.text) }

// pop3Open reads the greeting and the capabilities.
func pop3Open(p *probe.Probe, c *probe.Conn, facts *pop3SessionFacts) (*pop3Session, error) {
	s := &pop3Session{p: p, c: c, facts: facts}
	p.Phase(wire.Greet)
	text, err := s.status()
	if err != nil {
		return s, pop3Refusal("greeting", wire.Unavailable, err)
	}
	facts.Greeting, facts.LoggedIn = text, new(false)
	if err := s.capability(); err != nil {
		return s, err
	}
	if c.TLSState() == nil {
		facts.StartTLS = new(s.can("STLS"))
	}
	return s, nil
}

// close ends the session. After an error it does not wait for the answer.
func (s *pop3Session) close(err error) error {
	defer s.c.Close()
	if err != nil {
		_ = s.c.Printf("QUIT\r\n")
		return err
	}
	// a server that has done its work may close without a word, but not hang;
	// what we have deleted is gone only when it says so
	_, err = s.command("QUIT")
	if _, refused := errors.AsType[*pop3Err](err); refused || errors.Is(err, os.ErrDeadlineExceeded) {
		return pop3Refusal("QUIT", wire.Mismatch, err)
	}
	return nil
}

// capability asks what the server can do (RFC 2449). Old ones do not know the
// question.
func (s *pop3Session) capability() error {
	s.facts.Capabilities, s.facts.Mechanisms = nil, nil
	_, err := s.command("CAPA")
	if _, ok := errors.AsType[*pop3Err](err); ok {
		return nil
	}
	if err != nil {
		return err
	}
	return s.list(func(line string) {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			return
		}
		s.facts.Capabilities = append(s.facts.Capabilities, words[0])
		if words[0] == "SASL" {
			s.facts.Mechanisms = words[1:]
		}
	})
}

func (s *pop3Session) can(what string) bool { return slices.Contains(s.facts.Capabilities, what) }

// secure switches to TLS (RFC 2595) if the options and the server want it.
// What was said before could be anybody's.
func (s *pop3Session) secure(ctx context.Context, opt *pop3SessionOptions) error {
	yes, err := opt.wanted(s.p, s.c, s.can("STLS"), opt.must(s.c))
	if err != nil || !yes {
		return err
	}
	if _, err := s.command("STLS"); err != nil {
		return pop3Refusal("STLS is offered, but refused", wire.BadTLS, err)
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err != nil {
		return err
	}
	s.c = c
	s.p.Phase(wire.Greet)
	return s.capability()
}

// auth logs in: by SASL (RFC 5034) where the server offers a mechanism that
// fits, else by USER and PASS.
func (s *pop3Session) auth(opt *pop3SessionOptions) error {
	s.p.Phase(wire.Auth)
	cl, err := opt.client(s.p, s.c, s.facts.Mechanisms)
	safe := !opt.must(s.c)
	mechanism := "USER"
	switch {
	case err == nil:
		s.login = &loginTalk{
			command: "AUTH", inline: true,
			say:  func(line string) error { return s.c.Printf("%s\r\n", line) },
			hear: s.challenge,
		}
		mechanism, _ = cl.Start()
		err = s.login.run(cl)
	case opt.Mechanism == "" && opt.Password != "" && safe:
		if _, err = s.command("USER %s", opt.User); err == nil {
			_, err = s.command("PASS %s", opt.Password)
		}
	}
	if err != nil {
		return pop3Refusal("login", wire.Denied, err)
	}
	s.facts.LoggedIn, s.facts.Mechanism = new(true), mechanism
	return nil
}

// challenge reads a challenge, or the end of a login.
func (s *pop3Session) challenge() (string, bool, error) {
	line, err := s.c.Line()
	if err != nil {
		return "", false, err
	}
	if text, ok := strings.CutPrefix(line, "+ "); ok || line == "+" {
		return text, true, nil
	}
	_, err = s.parse(line)
	return "", false, err
}

// command sends a command and reads the status.
func (s *pop3Session) command(format string, args ...any) (string, error) {
	if err := s.c.Printf(format+"\r\n", args...); err != nil {
		return "", err
	}
	return s.status()
}

func (s *pop3Session) status() (string, error) {
	line, err := s.c.Line()
	if err != nil {
		return "", err
	}
	return s.parse(line)
}

func (s *pop3Session) parse(line string) (string, error) {
	word, text, _ := strings.Cut(s.login.clean(line), " ")
	switch word {
	case "+OK":
		return text, nil
	case "-ERR":
		return "", &pop3Err{ndjson.Cut(text, 160)}
	}
	return "", probe.Protocolf("got %.80q, want +OK or -ERR", s.login.clean(line))
}

// list reads lines up to the one with a single dot.
func (s *pop3Session) list(f func(line string)) error {
	for range pop3MaxLines {
		line, err := s.c.Line()
		if err != nil || line == "." {
			return err
		}
		f(strings.TrimPrefix(line, "."))
	}
	return probe.Failf(wire.TooLarge, "an answer of more than %d lines", pop3MaxLines)
}

// head gives the fields of a message's header, unfolded.
func (s *pop3Session) head(message int64) ([]string, error) {
	if _, err := s.command("TOP %d 0", message); err != nil {
		return nil, pop3Refusal("TOP", wire.Mismatch, err)
	}
	var head []string
	body := false
	err := s.list(func(line string) {
		switch {
		case body || line == "":
			body = true
		case (line[0] == ' ' || line[0] == '\t') && len(head) > 0:
			if last := &head[len(head)-1]; len(*last) < 4096 {
				*last += " " + strings.TrimSpace(line)
			}
		default:
			head = append(head, line)
		}
	})
	return head, err
}

// pop3Field gives the value of the first field of that name, in lower case.
func pop3Field(head []string, name string) string {
	for _, line := range head {
		if n, value, _ := strings.Cut(line, ":"); strings.ToLower(strings.TrimSpace(n)) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// pop3Date finds when a message came in: in the topmost Received, which the
// server itself has written, else when it was sent. It is zero where neither
// says so.
func pop3Date(head []string) time.Time {
	for _, field := range []string{"received", "date"} {
		value := pop3Field(head, field)
		value = value[strings.LastIndexByte(value, ';')+1:]
		if t, err := mail.ParseDate(strings.TrimSpace(value)); err == nil {
			return t
		}
	}
	return time.Time{}
}

// pop3Refusal words the refusal of a command. Other is the reason where no
// response code (RFC 2449, RFC 3206) tells more.
func pop3Refusal(what string, other wire.Reason, err error) error {
	e, ok := errors.AsType[*pop3Err](err)
	if !ok {
		return err
	}
	code, _, _ := strings.Cut(strings.ToUpper(e.text), "]")
	switch code {
	case "[IN-USE", "[LOGIN-DELAY", "[SYS/TEMP", "[SYS/PERM":
		other = wire.Unavailable
	case "[AUTH":
		other = wire.Denied
	}
	return probe.Failf(other, "%s: %w", what, e)
}
