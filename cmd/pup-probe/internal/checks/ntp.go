package checks

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

type ntpOptions struct {
	Version int      `json:"version" min:"1" max:"4" doc:"The version to speak."`
	Samples int      `json:"samples" min:"1" max:"8" doc:"How often to ask. Offset and delay are those of the sample with the lowest delay."`
	Servers []string `json:"servers" doc:"Other servers to compare with, as host or host:port. All must answer; the facts then say how far the target's clock is from the middle of theirs, whatever our own clock says."`
}

type ntpFacts struct {
	OffsetMS         *float64    `json:"offset_ms" doc:"How far the server's clock is ahead of ours. Either of them may be the wrong one."`
	DelayMS          *float64    `json:"delay_ms" doc:"The round trip, without the server's own time."`
	JitterMS         *float64    `json:"jitter_ms" doc:"The root mean square of the differences between the offsets of the samples; with two or more."`
	Stratum          *int        `json:"stratum" doc:"The server's distance from a reference clock: 1 has one itself."`
	Leap             string      `json:"leap" doc:"What the server says of the last minute of the day: none, insert, delete; or unsynchronized."`
	ReferenceID      string      `json:"reference_id" doc:"What the server follows: a source such as GPS at stratum 1, else an IPv4 address or a hash."`
	ReferenceAgeMS   *float64    `json:"reference_age_ms" doc:"The time since the server's clock was last set, by that clock."`
	RootDelayMS      *float64    `json:"root_delay_ms" doc:"The round trip from the server to the reference clock."`
	RootDispersionMS *float64    `json:"root_dispersion_ms" doc:"The error that the server admits, relative to the reference clock."`
	RootDistanceMS   *float64    `json:"root_distance_ms" doc:"The greatest error that our offset can have: half of all delays, and the dispersion."`
	PrecisionMS      *float64    `json:"precision_ms" doc:"The precision of the server's clock."`
	Kiss             string      `json:"kiss" doc:"The code by which the server sends us away: RATE, DENY, RSTR and so on."`
	Version          *int        `json:"version" doc:"The version that the server answers in."`
	Samples          *int        `json:"samples" doc:"The number of samples that were answered."`
	Ignored          int         `json:"ignored" doc:"Datagrams that were no answers to our questions."`
	DisagreementMS   *float64    `json:"disagreement_ms" doc:"How far the target's clock is ahead of the median of the other servers."`
	SpreadMS         *float64    `json:"spread_ms" doc:"How far the clocks of all servers lie apart."`
	Servers          []ntpServer `json:"servers" doc:"The other servers."`
}

type ntpServer struct {
	Name     string   `json:"name" doc:"The server, as the option names it."`
	OffsetMS *float64 `json:"offset_ms" doc:"How far its clock is ahead of ours."`
	Stratum  *int     `json:"stratum" doc:"Its stratum."`
	Error    string   `json:"error" doc:"Why it gives no time."`
}

func init() {
	register(probe.Info{
		Name:    "ntp",
		Summary: "the server is synchronized and gives the time",
		Schemes: []probe.Scheme{{Name: "ntp", Port: 123}},
		Example: "ntp://ntp.example.org",
		Common:  probe.OverUDP,
		Warn: []string{
			"abs(ntp.offset_ms) < 1000", "ntp.root_dispersion_ms < 500", "abs(ntp.disagreement_ms ?? 0) < 100",
		},
		Doc: `Up means that the server answered our question, that it says it is synchronized (leap indicator and stratum), and that its time stamps make sense. It does not mean that its time is right: ` + "`ntp.offset_ms`" + ` is the difference to our own clock, which may be the wrong one; ` + "`servers`" + ` compares it with other servers, whatever our clock says.

A kiss-o'-death is ` + "`denied`" + ` (DENY, RSTR) or ` + "`unavailable`" + ` (RATE and others), and so is a server that is not synchronized. The origin time stamp that we send is a random number, which an answer must repeat: a datagram without it is no answer, is counted, and the wait goes on.

The phases: request sending a question, wait until its answer, verify judging it. RFC 5905, sections 7 to 9.`,
	}, ntpOptions{Version: 4, Samples: 1}, ntpCheck)
}

func ntpCheck(ctx context.Context, p *probe.Probe, opt *ntpOptions, facts *ntpFacts) error {
	c, err := p.DialUDP(ctx)
	if err != nil {
		return err
	}
	samples, err := ntpAsk(ctx, p, c, opt, facts)
	c.Close()
	if err != nil {
		return err
	}
	p.Phase(wire.Verify)
	best := ntpBest(samples)
	facts.measure(best, samples)
	if len(opt.Servers) > 0 {
		return ntpCompare(ctx, p, opt, facts, best)
	}
	return nil
}

// ntpAsk takes the samples of one server. What the server says of itself goes
// to facts, which may be nil.
func ntpAsk(ctx context.Context, p *probe.Probe, c *probe.Conn, opt *ntpOptions, facts *ntpFacts) ([]ntpSample, error) {
	a := &datagram.Asker{Probe: p, Conn: c}
	var samples []ntpSample
	for range opt.Samples {
		var s ntpSample
		var nonce uint64
		err := a.Ask(ctx, func() []byte {
			var b []byte
			b, nonce = ntpRequest(opt.Version)
			s.sent = time.Now()
			return b
		}, func(b []byte) (err error) {
			s.received = time.Now()
			if s.ntpPacket, err = ntpParse(b); err != nil {
				return datagram.Stray("%w", err)
			}
			return s.answers(nonce)
		})
		if facts != nil {
			facts.Ignored = a.Ignored
			if err == nil {
				facts.say(&s.ntpPacket)
			}
		}
		if err == nil {
			err = s.usable()
		}
		if err != nil {
			return nil, err
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// say takes the facts that the server says of itself.
func (f *ntpFacts) say(n *ntpPacket) {
	f.Version, f.Leap, f.Kiss = new(n.version), ntpLeaps[n.leap], n.kiss()
	if f.Kiss != "" {
		return
	}
	f.Stratum, f.ReferenceID = new(n.stratum), n.reference()
	f.RootDelayMS, f.RootDispersionMS = new(wire.MS(n.rootDelay)), new(wire.MS(n.rootDispersion))
	f.PrecisionMS = new(math.Ldexp(1000, n.precision))
	if n.referenceTime != 0 && n.transmitTime != 0 {
		f.ReferenceAgeMS = new(wire.MS(ntpDiff(n.transmitTime, n.referenceTime)))
	}
}

// measure takes the facts of our samples.
func (f *ntpFacts) measure(best *ntpSample, samples []ntpSample) {
	f.OffsetMS, f.DelayMS, f.Samples = new(wire.MS(best.offset())), new(wire.MS(best.delay())), new(len(samples))
	f.RootDistanceMS = new(wire.MS((best.delay()+best.rootDelay)/2 + best.rootDispersion))
	if len(samples) < 2 {
		return
	}
	sum := 0.0
	for i := range samples {
		d := wire.MS(samples[i].offset() - best.offset())
		sum += d * d
	}
	f.JitterMS = new(math.Round(1000*math.Sqrt(sum/float64(len(samples)-1))) / 1000)
}

// ntpBest is the sample with the lowest delay, in which the least can have
// gone wrong.
func ntpBest(samples []ntpSample) *ntpSample {
	best := &samples[0]
	for i := range samples {
		if samples[i].delay() < best.delay() {
			best = &samples[i]
		}
	}
	return best
}

// ntpCompare asks the other servers, each within its share of the time.
func ntpCompare(ctx context.Context, p *probe.Probe, opt *ntpOptions, facts *ntpFacts, best *ntpSample) error {
	address := p.Address()
	defer func() { p.SetAddress(address) }() // the target's, not that of the last one
	var offsets []time.Duration
	var failed error
	for i, name := range opt.Servers {
		s := ntpServer{Name: name}
		one, err := ntpOther(ctx, p, opt, name, len(opt.Servers)-i)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			s.Error = err.Error()
			if failed == nil {
				failed = fmt.Errorf("server %.80q: %w", name, err)
			}
		default:
			s.OffsetMS, s.Stratum = new(wire.MS(one.offset())), new(one.stratum)
			offsets = append(offsets, one.offset())
		}
		facts.Servers = append(facts.Servers, s)
	}
	if failed != nil {
		return failed
	}
	p.Phase(wire.Verify)
	slices.Sort(offsets)
	n := len(offsets)
	median := (offsets[(n-1)/2] + offsets[n/2]) / 2
	facts.DisagreementMS = new(wire.MS(best.offset() - median))
	facts.SpreadMS = new(wire.MS(max(best.offset(), offsets[n-1]) - min(best.offset(), offsets[0])))
	return nil
}

// ntpOther asks one of left servers for the time.
func ntpOther(ctx context.Context, p *probe.Probe, opt *ntpOptions, name string, left int) (*ntpSample, error) {
	host, port := name, 123
	if h, digits, err := net.SplitHostPort(name); err == nil {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return nil, probe.Failf(wire.BadOptions, "ntp.servers: %.80q has no valid port", name)
		}
		host, port = h, int(n)
	}
	if t, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(t)/time.Duration(left+1))
		defer cancel()
	}
	c, err := p.DialHost(ctx, "udp", host, port)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	samples, err := ntpAsk(ctx, p, c, opt, nil)
	if err != nil {
		return nil, err
	}
	return ntpBest(samples), nil
}
