package checks

import (
	"context"
	"fmt"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type smtpOptions struct {
	smtpSessionOptions
	smtpEnvelopeOptions
	RelayTest string `json:"relay_test" doc:"An address that the server is not responsible for. Before logging in, a message from and to it is announced; a server that takes it is an open relay, and down."`
}

// smtpEnvelopeOptions are about a message that is announced but not sent.
type smtpEnvelopeOptions struct {
	From        string   `json:"from" doc:"Announce a message from this address (MAIL), without sending one. Empty with to: the null sender."`
	To          []string `json:"to" doc:"Announce it to these addresses (RCPT), each of which must be accepted."`
	SizeBytes   int64    `json:"size_bytes" min:"0" doc:"Announce it with this size (RFC 1870), so that a full queue or too low a limit shows."`
	Greylisting bool     `json:"greylisting" doc:"A recipient that is refused for now is fine, since the server delays strangers on purpose."`
}

type smtpFacts struct {
	smtpSessionFacts
	smtpEnvelopeFacts
	Relay string `json:"relay" doc:"What relay_test has found: closed, open, or unclear if the server refused for now."`
}

type smtpEnvelopeFacts struct {
	Accepted   *int `json:"accepted" doc:"How many of the addresses in to were accepted."`
	Greylisted *int `json:"greylisted" doc:"How many were refused for now, where greylisting is expected."`
}

func init() {
	register(probe.Info{
		Name:    "smtp",
		Summary: "a mail server takes mail",
		Schemes: []probe.Scheme{
			{Name: "smtp", Port: 25}, {Name: "submission", Port: 587},
			{Name: "smtps", Port: 465, TLS: true}, {Name: "submissions", Port: 465, TLS: true},
		},
		Example: "smtp://mail.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the server greets with 220 and answers EHLO (RFC 5321), that TLS works where it is spoken, and that it takes what the options say: the credentials (RFC 4954), the sender and recipients of a message.
No message is sent: the session ends before DATA, so up does not prove that mail arrives. The check mailtrip does.

Without options the check goes as far as EHLO, and switches to TLS (RFC 3207) if that is offered. A greeting of 4xx or 5xx, 421 at any time, and any other 4xx are ` + "`unavailable`" + `. A 5xx to AUTH, 530 and 5.7.x are ` + "`denied`" + `, other refusals of a sender or recipient ` + "`mismatch`" + `.

relay_test wants to be run from an address that the server does not know: most servers relay for their own network, and for this machine.

Phases: greet has the greeting, EHLO and STARTTLS, auth the login, request the rest up to QUIT.`,
	}, smtpOptions{smtpSessionOptions: smtpSessionOptions{starttlsOptions: starttlsOptions{"auto"}}}, smtp)
}

func smtp(ctx context.Context, p *probe.Probe, given *smtpOptions, facts *smtpFacts) (err error) {
	opt := new(*given)
	opt.fromURL(p)
	if err := smtpValid(p, &opt.smtpSessionOptions, &opt.smtpEnvelopeOptions, opt.RelayTest); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s, err := smtpOpen(p, c, &opt.smtpSessionOptions, &facts.smtpSessionFacts, "EHLO")
	defer func() { err = s.close(err) }()
	if err == nil {
		err = s.secure(ctx, &opt.smtpSessionOptions)
	}
	if err == nil && opt.RelayTest != "" {
		p.Phase(wire.Request)
		facts.Relay, err = s.relay(opt.RelayTest)
	}
	if err == nil && opt.given() {
		err = s.auth(&opt.smtpSessionOptions)
	}
	if err == nil {
		p.Phase(wire.Request)
		err = s.announce(&opt.smtpEnvelopeOptions, &facts.smtpEnvelopeFacts)
	}
	return err
}

// smtpValid checks the options, before anything is sent.
func smtpValid(p *probe.Probe, s *smtpSessionOptions, e *smtpEnvelopeOptions, relayTest string) error {
	if err := s.valid(p, s.StartTLS); err != nil {
		return err
	}
	if err := loginText(p, "helo", s.Helo); err != nil {
		return err
	}
	for option, list := range map[string][]string{"from": {e.From}, "to": e.To, "relay_test": {relayTest}} {
		for _, a := range list {
			if err := smtpAddress(p, option, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func smtpAddress(p *probe.Probe, option, a string) error {
	if strings.ContainsAny(a, "<> ") {
		return probe.Failf(wire.BadOptions, "%s.%s: %.80q is no bare address such as user@example.org", p.URL.Check.Name, option, a)
	}
	return loginText(p, option, a)
}

// mail announces a message from an address.
func (s *smtpSession) mail(from string, size int64) (*smtpReply, error) {
	params := ""
	if size > 0 {
		if !s.offers("SIZE") {
			return nil, probe.Failf(wire.Mismatch, "the server does not let us announce the size of a message (SIZE)")
		}
		params = fmt.Sprintf(" SIZE=%d", size)
	}
	return s.command("MAIL FROM:<%s>%s", from, params)
}

// announce tells the envelope of a message, and takes it back.
func (s *smtpSession) announce(opt *smtpEnvelopeOptions, facts *smtpEnvelopeFacts) error {
	if opt.From == "" && opt.To == nil && opt.SizeBytes == 0 {
		return nil
	}
	r, err := s.mail(opt.From, opt.SizeBytes)
	if err != nil {
		return err
	}
	if r.class() != 2 {
		return smtpRefusal("MAIL", r)
	}
	if opt.To != nil {
		facts.Accepted = new(0)
	}
	if opt.Greylisting {
		facts.Greylisted = new(0)
	}
	for _, to := range opt.To {
		r, err := s.command("RCPT TO:<%s>", to)
		switch {
		case err != nil:
			return err
		case r.class() == 4 && opt.Greylisting:
			*facts.Greylisted++
		case r.class() != 2:
			return smtpRefusal("RCPT", r)
		default:
			*facts.Accepted++
		}
	}
	return s.reset()
}

// reset takes back what was announced. The code of its reply is of no interest
// to anybody.
func (s *smtpSession) reset() error {
	before := *s.facts
	r, err := s.command("RSET")
	if err != nil {
		return err
	}
	if r.class() != 2 {
		return smtpRefusal("RSET", r)
	}
	s.facts.Code, s.facts.EnhancedCode = before.Code, before.EnhancedCode
	return nil
}

// relay finds out whether a stranger may send to strangers.
func (s *smtpSession) relay(address string) (string, error) {
	r, err := s.mail(address, 0)
	if err == nil && r.class() == 2 {
		r, err = s.command("RCPT TO:<%s>", address)
	}
	switch {
	case err != nil:
		return "", err
	case r.class() == 2:
		return "open", probe.Failf(wire.Mismatch, "an open relay: mail from and to %.80q is taken: got %q", address, r)
	}
	found := "closed"
	if r.class() == 4 {
		found = "unclear"
	}
	return found, s.reset()
}
