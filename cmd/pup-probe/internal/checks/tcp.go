package checks

import (
	"context"
	"errors"
	"fmt"
	"os"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type tcpStep struct {
	talkOptions
	StartTLS bool `json:"starttls" doc:"Speak TLS from here on, before anything is sent."`
}

type tcpOptions struct {
	Steps    []tcpStep `json:"steps" doc:"The conversation, step by step: start TLS, send, wait for what must come."`
	MaxBytes int       `json:"max_bytes" min:"1" max:"16777216" doc:"The most bytes to read in one step."`
}

type tcpFacts struct {
	Banner        string   `json:"banner" doc:"The beginning of what the server has sent, at most 256 bytes."`
	SentBytes     *int     `json:"sent_bytes" doc:"Bytes sent by the steps."`
	ReceivedBytes *int     `json:"received_bytes" doc:"Bytes received by the steps."`
	StepsDone     *int     `json:"steps_done" doc:"How many steps went well."`
	Caught        []string `json:"caught" doc:"What the first groups of the steps' expect_regex have caught, in order."`
}

func init() {
	register(probe.Info{
		Name:    "tcp",
		Summary: "accepts a connection, and answers as its steps say",
		Schemes: []probe.Scheme{{Name: "tcp"}, {Name: "tcps", TLS: true}},
		Example: "tcp://db.example.org:5432",
		Common:  probe.OverTCP,
		Doc: `Without steps, up means that something accepts connections there, and no more: any check of a protocol says more than this one. With steps, up means that each step got what it expects.

Each step may start TLS, send text or bytes, and wait for a text, a regular expression or bytes. What comes behind a match stays for the next step. A step gives up when the server closes, when max_bytes have come, or when the time is over; if something else came than was expected, the reason is mismatch.

    tcp = { steps = [
      { expect = "220" },
      { send = "STARTTLS\r\n", expect_regex = "^220 (.*)\r\n" },
      { starttls = true, send = "QUIT\r\n", expect = "221" },
    ] }

Phases: connect, tls; request is sending, wait is waiting for what must come.`,
	}, tcpOptions{MaxBytes: 64 << 10}, tcp)
}

func tcp(ctx context.Context, p *probe.Probe, opt *tcpOptions, facts *tcpFacts) error {
	steps := make([]compiled, len(opt.Steps))
	for i := range opt.Steps {
		var err error
		if steps[i], err = opt.Steps[i].compile(fmt.Sprintf("%s.steps[%d]", p.URL.Check.Name, i)); err != nil {
			return err
		}
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	if len(steps) == 0 {
		return nil
	}
	t := tcpTalk{p: p, c: c, facts: facts, max: opt.MaxBytes}
	facts.SentBytes, facts.ReceivedBytes, facts.StepsDone = new(int), new(int), new(int)
	for i, s := range steps {
		if opt.Steps[i].StartTLS {
			if len(t.got) > 0 {
				return probe.Protocolf("step %d: the server sent %d bytes before the TLS handshake: %.80q", i+1, len(t.got), t.got)
			}
			tc, err := p.StartTLS(ctx, t.c)
			if err != nil {
				return err
			}
			c, t.c = tc, tc
		}
		if err := t.step(s); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		*facts.StepsDone++
	}
	return nil
}

// tcpTalk is the conversation so far.
type tcpTalk struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *tcpFacts
	max   int
	got   []byte // received, and not yet matched
}

func (t *tcpTalk) step(s compiled) error {
	if len(s.send) > 0 {
		t.p.Phase(wire.Request)
		n, err := t.c.Write(s.send)
		*t.facts.SentBytes += n
		if err != nil {
			return err
		}
	}
	if s.want.nothing() {
		return nil
	}
	t.p.Phase(wire.Wait)
	for {
		if end, caught, ok := s.want.find(t.got); ok {
			if s.want.regex != nil && s.want.regex.NumSubexp() > 0 {
				t.facts.Caught = append(t.facts.Caught, caught)
			}
			t.got = t.got[end:]
			return nil
		}
		if len(t.got) >= t.max {
			return probe.Failf(wire.TooLarge, "%d bytes came without %q, beginning with %.80q", len(t.got), s.want.shown, t.got)
		}
		if err := t.read(); err != nil {
			if len(t.got) > 0 && tcpEnded(err) {
				return probe.Failf(wire.Mismatch, "want %q, got %.80q", s.want.shown, t.got)
			}
			return err
		}
	}
}

// tcpEnded says whether the server has said all that it will say.
func tcpEnded(err error) bool {
	return probe.IsEnd(err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func (t *tcpTalk) read() error {
	if err := t.c.Wait(); err != nil { // holds no buffer while it waits
		return err
	}
	buf := make([]byte, min(4096, t.max-len(t.got)))
	n, err := t.c.Read(buf)
	if *t.facts.ReceivedBytes == 0 {
		t.facts.Banner = shown(buf[:n])
	}
	*t.facts.ReceivedBytes += n
	t.got = append(t.got, buf[:n]...)
	return err
}
