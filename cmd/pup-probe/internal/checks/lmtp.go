package checks

import (
	"context"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type lmtpOptions struct {
	smtpSessionOptions
	smtpEnvelopeOptions
}

type lmtpFacts struct {
	smtpSessionFacts
	smtpEnvelopeFacts
}

func init() {
	register(probe.Info{
		Name:    "lmtp",
		Summary: "a mail store takes mail for its mailboxes",
		Schemes: []probe.Scheme{{Name: "lmtp", Port: 24}},
		Example: "lmtp://store.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the server greets with 220 and answers LHLO (RFC 2033), and that it takes what the options say: the recipients in to have mailboxes with room. No message is sent, as with smtp, whose options, reasons and phases these are.

Without options the check goes as far as LHLO.`,
	}, lmtpOptions{smtpSessionOptions: smtpSessionOptions{starttlsOptions: starttlsOptions{"auto"}}}, lmtp)
}

func lmtp(ctx context.Context, p *probe.Probe, given *lmtpOptions, facts *lmtpFacts) (err error) {
	opt := new(*given)
	opt.fromURL(p)
	if err := smtpValid(p, &opt.smtpSessionOptions, &opt.smtpEnvelopeOptions, ""); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s, err := smtpOpen(p, c, &opt.smtpSessionOptions, &facts.smtpSessionFacts, "LHLO")
	defer func() { err = s.close(err) }()
	if err == nil {
		err = s.secure(ctx, &opt.smtpSessionOptions)
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
