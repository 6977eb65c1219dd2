package checks

import (
	"context"
	"errors"
	"math"
	"os"
	"syscall"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type icmpOptions struct {
	Count    int           `json:"count" min:"1" max:"100" doc:"How many requests to send."`
	Interval wire.Duration `json:"interval" doc:"From one request to the next, at least 10ms."`
	Wait     wire.Duration `json:"wait" doc:"How long to wait for answers after the last request."`
	Size     int           `json:"size" min:"8" max:"65000" doc:"The payload of a request, in bytes, without the 8 of ICMP and those of IP."`
	TTL      int           `json:"ttl" min:"0" max:"255" doc:"The time to live (hop limit) of a request; 0: the system's."`
	DF       bool          `json:"df" doc:"Forbid routers to fragment a request, so that size is what the path must carry. Linux only."`
}

type icmpFacts struct {
	Sent        *int     `json:"sent" doc:"Requests sent."`
	Received    *int     `json:"received" doc:"Requests that were answered."`
	LossPercent *float64 `json:"loss_percent" doc:"The part of the requests that was not answered."`
	Min         *float64 `json:"min_ms" doc:"The shortest time from a request to its answer."`
	Avg         *float64 `json:"avg_ms" doc:"The mean time."`
	Max         *float64 `json:"max_ms" doc:"The longest time."`
	Jitter      *float64 `json:"jitter_ms" doc:"The mean difference between the times of one answer and the next."`
	TTL         int      `json:"ttl" doc:"The time to live (hop limit) of the last answer: what the way back has left of 64, 128 or 255."`
	Duplicates  *int     `json:"duplicates" doc:"Answers that came a second time."`
	Trouble     string   `json:"trouble" doc:"What a router, or our own system, said in place of an answer."`
}

func init() {
	register(probe.Info{
		Name:    "icmp",
		Summary: "answers echo requests (ping)",
		Schemes: []probe.Scheme{{Name: "icmp"}},
		Example: "icmp://router.example.org",
		Common:  []string{"resolver", "address", "family", "source"},
		Warn:    []string{"icmp.loss_percent == 0"},
		Doc: `Sends echo requests and waits for the answers. Up means that the host's kernel answers, which says nothing about any service. With an answer missing the target is degraded, unless it mentions icmp.loss_percent; down it is when none came: with the reason timeout, or unreachable if a router said so, which is then named.

It uses a socket that needs no right where the system has such (Linux: the group must be in the sysctl net.ipv4.ping_group_range), and else a raw one, for which pup-probe needs the capability cap_net_raw. Without either the status is unknown, with the reason local.

An answer is known by its identifier, its number, the address it comes from and a random token in its payload, so that several programs that ping don't disturb each other. An answer that comes after the end is lost.

Phases: connect is opening the socket, wait is all that follows. It follows RFC 792 and RFC 4443.`,
	}, icmpOptions{Count: 3, Interval: wire.Duration(200 * time.Millisecond), Wait: wire.Duration(time.Second), Size: 56}, icmp)
}

const icmpMinInterval = 10 * time.Millisecond

func icmp(ctx context.Context, p *probe.Probe, opt *icmpOptions, facts *icmpFacts) error {
	if time.Duration(opt.Interval) < icmpMinInterval {
		return probe.Failf(wire.BadOptions, "icmp.interval: must be at least %s", icmpMinInterval)
	}
	c, err := p.DialICMP(ctx, probe.EchoOptions{Size: opt.Size, TTL: opt.TTL, DF: opt.DF})
	if err != nil {
		return err
	}
	defer c.Close()
	p.Phase(wire.Wait)
	s := icmpSeries{p: p, c: c, opt: opt, facts: facts, sent: make([]time.Time, 0, opt.Count), times: make([]time.Duration, opt.Count)}
	facts.Sent, facts.Received, facts.Duplicates = new(0), new(0), new(0)
	if err := s.run(ctx); err != nil {
		return err
	}
	return s.sum()
}

// icmpSeries is a series of echo requests.
type icmpSeries struct {
	p       *probe.Probe
	c       *probe.ICMP
	opt     *icmpOptions
	facts   *icmpFacts
	sent    []time.Time
	times   []time.Duration // of the answers, by number; 0: none yet
	errors  int             // requests that a router has answered
	failure error           // why the last request could not be sent
}

// run sends all requests, and receives until all is answered or the time is
// over.
func (s *icmpSeries) run(ctx context.Context) error {
	start := time.Now()
	for i := range s.opt.Count {
		s.sent = append(s.sent, time.Now())
		if s.failure = s.c.Send(uint16(i)); s.failure != nil {
			if i == 0 && icmpNoWay(s.failure) {
				s.p.Phase(wire.Connect)
				return s.failure
			}
			s.facts.Trouble = s.failure.Error()
		}
		*s.facts.Sent++
		until := start.Add(time.Duration(i+1) * time.Duration(s.opt.Interval))
		if i == s.opt.Count-1 {
			until = s.sent[i].Add(time.Duration(s.opt.Wait))
		}
		if err := s.receive(ctx, until); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return nil
}

// icmpNoWay says whether the system knows of no way to the address.
func icmpNoWay(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// receive takes what comes until the given time. After the last request it
// ends when nothing is missing any more.
func (s *icmpSeries) receive(ctx context.Context, until time.Time) error {
	if t, ok := ctx.Deadline(); ok && t.Before(until) {
		until = t
	}
	for ctx.Err() == nil {
		if len(s.sent) == s.opt.Count && (*s.facts.Received+s.errors >= s.opt.Count || s.failure != nil && *s.facts.Received == 0) {
			return nil
		}
		e, err := s.c.Receive(until)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		s.note(e, e.Time)
	}
	return nil
}

func (s *icmpSeries) note(e probe.Echo, now time.Time) {
	i := int(e.Seq)
	switch {
	case i >= len(s.sent):
	case e.Trouble != "":
		s.facts.Trouble = e.Trouble
		s.errors++
	case s.times[i] > 0:
		*s.facts.Duplicates++
	default:
		s.times[i] = max(1, now.Sub(s.sent[i]))
		s.facts.TTL = e.TTL
		*s.facts.Received++
	}
}

func (s *icmpSeries) sum() error {
	f := s.facts
	lost := 100 * float64(*f.Sent-*f.Received) / float64(*f.Sent)
	f.LossPercent = new(math.Round(lost*10) / 10)
	var sum, diffs, last time.Duration
	low, high := time.Duration(math.MaxInt64), time.Duration(0)
	for _, d := range s.times {
		if d == 0 {
			continue
		}
		if last > 0 {
			diffs += max(d-last, last-d)
		}
		sum, last, low, high = sum+d, d, min(low, d), max(high, d)
	}
	n := time.Duration(*f.Received)
	switch {
	case n > 1:
		f.Jitter = new(wire.MS(diffs / (n - 1)))
		fallthrough
	case n > 0:
		f.Min, f.Avg, f.Max = new(wire.MS(low)), new(wire.MS(sum/n)), new(wire.MS(high))
		return nil
	case s.failure != nil:
		return s.failure
	case f.Trouble != "":
		return probe.Failf(wire.Unreachable, "%s", f.Trouble)
	}
	return probe.Failf(wire.Timeout, "none of %d packets was answered", *f.Sent)
}
