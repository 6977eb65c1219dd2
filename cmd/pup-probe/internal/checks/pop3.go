package checks

import (
	"context"
	"fmt"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type pop3Options struct {
	pop3SessionOptions
}

type pop3Facts struct {
	pop3SessionFacts
	Messages    *int64   `json:"messages" doc:"How many messages are in the mailbox."`
	SizeBytes   *int64   `json:"size_bytes" doc:"How large they are together."`
	NewestAgeMS *float64 `json:"newest_age_ms" doc:"How long ago the last message came in, in milliseconds: by the topmost Received of its header, else by its Date."`
}

func init() {
	register(probe.Info{
		Name:    "pop3",
		Summary: "a mailbox can be read by POP3",
		Schemes: []probe.Scheme{{Name: "pop3", Port: 110}, {Name: "pop3s", Port: 995, TLS: true}},
		Example: "pop3s://pop.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the server greets (RFC 1939) and says what it can do (CAPA, where it knows that), that TLS works where it is spoken, and, with a user, that the login works and the messages can be counted. Nothing is deleted.

Without a user the check ends before the login: logged_in is false, and up says nothing of the mailboxes.

-ERR with the code IN-USE, LOGIN-DELAY, SYS/TEMP or SYS/PERM, or as a greeting, is ` + "`unavailable`" + `; any other to a login is ` + "`denied`" + `.

Phases: greet has the greeting, the capabilities and STLS, auth the login, request STAT, TOP and QUIT.`,
	}, pop3Options{pop3SessionOptions{starttlsOptions: starttlsOptions{"auto"}}}, pop3)
}

func pop3(ctx context.Context, p *probe.Probe, given *pop3Options, facts *pop3Facts) (err error) {
	opt := new(*given)
	opt.fromURL(p)
	if err := opt.valid(p, opt.StartTLS); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s, err := pop3Open(p, c, &facts.pop3SessionFacts)
	defer func() { err = s.close(err) }()
	if err == nil {
		err = s.secure(ctx, &opt.pop3SessionOptions)
	}
	if err == nil && opt.given() {
		err = s.auth(&opt.pop3SessionOptions)
	}
	if err != nil {
		return err
	}
	p.Phase(wire.Request)
	if *facts.LoggedIn {
		err = s.look(facts)
	}
	return err
}

// look counts the messages and finds the age of the last.
func (s *pop3Session) look(facts *pop3Facts) error {
	n, size, err := s.stat()
	if err != nil {
		return err
	}
	facts.Messages, facts.SizeBytes = &n, &size
	if n == 0 || s.facts.Capabilities != nil && !s.can("TOP") {
		return nil
	}
	head, err := s.head(n)
	if t := pop3Date(head); err == nil && !t.IsZero() {
		facts.NewestAgeMS = new(wire.MS(time.Since(t)))
	}
	return err
}

func (s *pop3Session) stat() (messages, size int64, err error) {
	text, err := s.command("STAT")
	if err != nil {
		return 0, 0, pop3Refusal("STAT", wire.Mismatch, err)
	}
	if k, err := fmt.Sscanf(text, "%d %d", &messages, &size); k != 2 || err != nil || messages < 0 || size < 0 {
		return 0, 0, probe.Protocolf("STAT: got %.80q, want two numbers", text)
	}
	return messages, size, nil
}
