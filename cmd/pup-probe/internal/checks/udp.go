package checks

import (
	"context"
	"errors"
	"os"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type udpOptions struct {
	talkOptions
	Silence string        `json:"silence" enum:"down,up" doc:"What it means when no answer comes. With up, the target is up if nothing says that the port is closed within wait; that proves little."`
	Wait    wire.Duration `json:"wait" doc:"With silence = up: how long to wait for an answer or a refusal."`
}

type udpFacts struct {
	Answer        string `json:"answer" doc:"The beginning of the answer, at most 256 bytes."`
	ReceivedBytes *int   `json:"received_bytes" doc:"The size of the answer; absent if none came."`
	Caught        string `json:"caught" doc:"What the first group of expect_regex has caught."`
}

func init() {
	register(probe.Info{
		Name:    "udp",
		Summary: "answers a datagram",
		Schemes: []probe.Scheme{{Name: "udp"}},
		Example: "udp://game.example.org:27015",
		Common:  probe.OverUDP,
		Doc: `Sends one datagram, empty if nothing is given to send, and waits for one from the same address and port. Up means that an answer came, and that it is what expect, expect_regex or expect_hex say. Silence is down with the reason timeout, since nothing tells a service that works from one that is gone; a service that never answers can be checked for a closed port only, with silence = "up". A port that the host reports as closed (ICMP port unreachable) is down with the reason refused.

An answer of more than 4096 bytes is cut. One datagram may be lost without any fault of the service: give retries.

Phases: request is sending, wait is waiting for the answer.`,
	}, udpOptions{Silence: "down", Wait: wire.Duration(time.Second)}, udp)
}

func udp(ctx context.Context, p *probe.Probe, opt *udpOptions, facts *udpFacts) error {
	talk, err := opt.compile("udp")
	if err != nil {
		return err
	}
	c, err := p.DialUDP(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	p.Phase(wire.Request)
	if _, err := c.Write(talk.send); err != nil {
		return err
	}
	p.Phase(wire.Wait)
	enough := time.Now().Add(time.Duration(opt.Wait))
	silenceIsUp := opt.Silence == "up"
	if silenceIsUp {
		c.SetReadDeadline(enough)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if silenceIsUp && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(enough) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Phase(wire.Verify)
	facts.Answer, facts.ReceivedBytes = shown(buf[:n]), &n
	if talk.want.nothing() {
		return nil
	}
	_, caught, ok := talk.want.find(buf[:n])
	if !ok {
		return probe.Failf(wire.Mismatch, "want %q, got %.80q", talk.want.shown, buf[:n])
	}
	facts.Caught = caught
	return nil
}
