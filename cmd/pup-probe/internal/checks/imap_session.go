package checks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// imapSessionOptions are what every session over IMAP needs.
type imapSessionOptions struct {
	starttlsOptions
	loginOptions
}

// imapSessionFacts are what every session over IMAP finds.
type imapSessionFacts struct {
	Greeting     string   `json:"greeting" doc:"What the server greets with."`
	Capabilities []string `json:"capabilities" doc:"What it can do, such as IDLE, QUOTA, AUTH=PLAIN; after the login if there was one."`
	StartTLS     *bool    `json:"starttls" doc:"Whether it offers to switch to TLS; absent where TLS is spoken from the start."`
	LoggedIn     *bool    `json:"logged_in" doc:"Whether we are logged in."`
	Mechanism    string   `json:"mechanism" doc:"The mechanism that we have logged in with; LOGIN also stands for the command of that name."`
}

// The bounds of what a server may send in answer to a command.
const (
	imapMaxLine    = 64 << 10
	imapMaxLiteral = 1 << 20
	imapMaxReplies = 4096
)

// imapSession is a client's session over IMAP4rev1 (RFC 3501) or IMAP4rev2
// (RFC 9051).
type imapSession struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *imapSessionFacts
	tag   int
	login *loginTalk
	bye   bool // we are leaving, so that BYE is fine
}

// imapNo is a command that the server has refused.
type imapNo struct{ status, code, text string }

func (e *imapNo) Error() string { return fmt.Sprintf("got %q", ndjson.Cut(e.status+" "+e.text, 160)) }

// imapOpen reads the greeting and the capabilities.
func imapOpen(p *probe.Probe, c *probe.Conn, facts *imapSessionFacts) (*imapSession, error) {
	s := &imapSession{p: p, c: c, facts: facts}
	p.Phase(wire.Greet)
	line, err := s.line()
	if err != nil {
		return s, err
	}
	status, text, _ := strings.Cut(strings.TrimPrefix(line, "* "), " ")
	facts.Greeting, facts.LoggedIn = imapText(text), new(false)
	switch {
	case !strings.HasPrefix(line, "* "):
		return s, probe.Protocolf("greeting: got %.80q, want * OK", line)
	case status == "BYE":
		return s, probe.Failf(wire.Unavailable, "greeting: got %.80q", line)
	case status == "PREAUTH":
		*facts.LoggedIn = true
	case status != "OK":
		return s, probe.Protocolf("greeting: got %.80q, want * OK", line)
	}
	s.note(text)
	if err := s.capability(); err != nil {
		return s, err
	}
	if c.TLSState() == nil {
		facts.StartTLS = new(s.can("STARTTLS"))
	}
	return s, nil
}

// close logs out. After an error it does not wait for the answer.
func (s *imapSession) close(err error) error {
	defer s.c.Close()
	if err != nil {
		_ = s.c.Printf("z LOGOUT\r\n")
		return err
	}
	s.bye = true
	// a server that has done its work may close without a word, but not hang
	if err := s.command(nil, "LOGOUT"); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// capability asks what the server can do, unless it has said so already.
func (s *imapSession) capability() error {
	if s.facts.Capabilities != nil {
		return nil
	}
	if err := s.command(nil, "CAPABILITY"); err != nil {
		return imapRefusal("CAPABILITY", wire.BadProtocol, err)
	}
	if !slices.ContainsFunc(s.facts.Capabilities, func(c string) bool { return strings.HasPrefix(c, "IMAP4") }) {
		return probe.Protocolf("CAPABILITY: got %.200q, want IMAP4rev1 among them", s.facts.Capabilities)
	}
	return nil
}

func (s *imapSession) can(what string) bool { return slices.Contains(s.facts.Capabilities, what) }

// secure switches to TLS if the options and the server want it. What was said
// before could be anybody's.
func (s *imapSession) secure(ctx context.Context, opt *imapSessionOptions) error {
	yes, err := opt.wanted(s.p, s.c, s.can("STARTTLS"), opt.must(s.c))
	if err != nil || !yes {
		return err
	}
	if *s.facts.LoggedIn {
		return probe.Failf(wire.BadTLS, "the server greets with PREAUTH, which rules out STARTTLS")
	}
	if err := s.command(nil, "STARTTLS"); err != nil {
		return imapRefusal("STARTTLS is offered, but refused", wire.BadTLS, err)
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err != nil {
		return err
	}
	s.c, s.facts.Capabilities = c, nil
	s.p.Phase(wire.Greet)
	return s.capability()
}

// auth logs in, by SASL where the server offers a mechanism that fits.
func (s *imapSession) auth(opt *imapSessionOptions) error {
	s.p.Phase(wire.Auth)
	var offered []string
	for _, c := range s.facts.Capabilities {
		if m, ok := strings.CutPrefix(c, "AUTH="); ok {
			offered = append(offered, m)
		}
	}
	cl, err := opt.client(s.p, s.c, offered)
	safe := !opt.must(s.c)
	old := s.facts.Capabilities
	s.facts.Capabilities = nil // they are others for one who is logged in
	switch {
	case err == nil:
		err = s.authenticate(cl, slices.Contains(old, "SASL-IR"))
		s.facts.Mechanism, _ = cl.Start()
	case opt.Mechanism == "" && opt.Password != "" && safe && !slices.Contains(old, "LOGINDISABLED"):
		s.login = &loginTalk{sent: []string{imapQuote(opt.Password)}}
		err = s.command(nil, "LOGIN %s %s", imapQuote(opt.User), imapQuote(opt.Password))
		s.facts.Mechanism = "LOGIN"
	}
	if err != nil {
		s.facts.Capabilities, s.facts.Mechanism = old, ""
		return imapRefusal("login", wire.Denied, err)
	}
	*s.facts.LoggedIn = true
	return s.capability()
}

// authenticate carries a SASL exchange (RFC 4959 for the initial response).
func (s *imapSession) authenticate(cl sasl.Client, inline bool) error {
	tag := s.nextTag()
	s.login = &loginTalk{
		command: tag + " AUTHENTICATE", inline: inline,
		say: func(line string) error { return s.c.Printf("%s\r\n", line) },
		hear: func() (string, bool, error) {
			var challenge string
			more := false
			err := s.until(tag, func(line string) bool {
				challenge, more = strings.CutPrefix(line, "+")
				return more
			})
			return challenge, more, err
		},
	}
	return s.login.run(cl)
}

func (s *imapSession) nextTag() string { s.tag++; return "a" + strconv.Itoa(s.tag) }

// command runs a command. F gets the untagged responses without "* ".
func (s *imapSession) command(f func(text string), format string, args ...any) error {
	tag := s.nextTag()
	if err := s.c.Printf(tag+" "+format+"\r\n", args...); err != nil {
		return err
	}
	return s.until(tag, func(line string) bool {
		if text, ok := strings.CutPrefix(line, "* "); ok && f != nil {
			f(text)
		}
		return false
	})
}

// until reads up to the response with the given tag, or to the line at which f
// says so.
func (s *imapSession) until(tag string, f func(line string) bool) error {
	for range imapMaxReplies {
		line, err := s.line()
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			status, text, _ := strings.Cut(rest, " ")
			s.note(text)
			switch strings.ToUpper(status) {
			case "OK":
				return nil
			case "NO", "BAD":
				return &imapNo{strings.ToUpper(status), imapCode(text), text}
			}
			return probe.Protocolf("got %.80q, want OK, NO or BAD", line)
		}
		if f(line) {
			return nil
		}
		text, ok := strings.CutPrefix(line, "* ")
		word, rest, _ := strings.Cut(text, " ")
		switch {
		case !ok:
			return probe.Protocolf("got %.80q, want a response of IMAP", line)
		case strings.EqualFold(word, "CAPABILITY"):
			s.facts.Capabilities = strings.Fields(strings.ToUpper(rest))
		case strings.EqualFold(word, "OK"):
			s.note(rest)
		case strings.EqualFold(word, "BYE") && !s.bye:
			return probe.Failf(wire.Unavailable, "got %.80q", line)
		}
	}
	return probe.Failf(wire.TooLarge, "more than %d responses to a command", imapMaxReplies)
}

// note takes the capabilities from a response code.
func (s *imapSession) note(text string) {
	if code := imapCode(text); len(code) > 11 && strings.EqualFold(code[:11], "CAPABILITY ") {
		s.facts.Capabilities = strings.Fields(strings.ToUpper(code[11:]))
	}
}

// imapCode gives the response code in front of a text: "[UIDNEXT 4] ok" has
// "UIDNEXT 4".
func imapCode(text string) string {
	if !strings.HasPrefix(text, "[") {
		return ""
	}
	code, _, _ := strings.Cut(text[1:], "]")
	return code
}

// imapText gives what comes behind the response code, for people.
func imapText(text string) string {
	if code := imapCode(text); code != "" {
		return strings.TrimSpace(strings.TrimPrefix(text, "["+code+"]"))
	}
	return text
}

// line reads a response, in which literals are replaced by "" since nothing
// that we ask for has any.
func (s *imapSession) line() (string, error) {
	var b []byte
	for {
		start := len(b)
		for {
			x, err := s.c.ReadByte()
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return "", err
			}
			if x == '\n' {
				break
			}
			if b = append(b, x); len(b) > imapMaxLine {
				return "", probe.Failf(wire.TooLarge, "a response of more than %d bytes", imapMaxLine)
			}
		}
		b = []byte(strings.TrimSuffix(string(b), "\r"))
		i, n, ok := imapLiteral(b[start:])
		if !ok {
			return s.login.clean(string(b)), nil
		}
		if n > imapMaxLiteral {
			return "", probe.Failf(wire.TooLarge, "a literal of %d bytes", n)
		}
		b = append(b[:start+i], `""`...)
		if _, err := io.CopyN(io.Discard, s.c, n); err != nil {
			return "", err
		}
	}
}

// imapLiteral finds the announcement of a literal at the end of a line, {n}.
func imapLiteral(line []byte) (at int, n int64, ok bool) {
	text, ok := strings.CutSuffix(string(line), "}")
	at = strings.LastIndexByte(text, '{')
	if !ok || at < 0 {
		return 0, 0, false
	}
	u, err := strconv.ParseUint(strings.TrimSuffix(text[at+1:], "+"), 10, 32)
	return at, int64(u), err == nil
}

// imapQuote makes a quoted string.
func imapQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// imapMailbox makes the name of a mailbox as it is sent, in the UTF-7 of RFC
// 3501, section 5.1.3.
func imapMailbox(name string) string {
	var b strings.Builder
	for name != "" {
		i := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == '&' })
		if i < 0 {
			break
		}
		b.WriteString(name[:i])
		if name = name[i:]; name[0] == '&' {
			b.WriteString("&-")
			name = name[1:]
			continue
		}
		end := strings.IndexFunc(name, func(r rune) bool { return r >= ' ' && r <= '~' })
		if end < 0 {
			end = len(name)
		}
		var raw []byte
		for _, u := range utf16.Encode([]rune(name[:end])) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		text := base64.RawStdEncoding.EncodeToString(raw)
		b.WriteString("&" + strings.ReplaceAll(text, "/", ",") + "-")
		name = name[end:]
	}
	return imapQuote(b.String() + name)
}

// imapRefusal words the refusal of a command. Other is the reason of those
// whose code (RFC 5530) tells nothing.
func imapRefusal(what string, other wire.Reason, err error) error {
	no, ok := errors.AsType[*imapNo](err)
	if !ok {
		return err
	}
	code, _, _ := strings.Cut(strings.ToUpper(no.code), " ")
	switch code {
	case "UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CORRUPTION", "OVERQUOTA":
		other = wire.Unavailable
	case "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "PRIVACYREQUIRED", "NOPERM", "CONTACTADMIN":
		other = wire.Denied
	case "NONEXISTENT":
		other = wire.Mismatch
	}
	if no.status == "BAD" && other != wire.BadTLS {
		other = wire.BadProtocol
	}
	return probe.Failf(other, "%s: %w", what, no)
}
