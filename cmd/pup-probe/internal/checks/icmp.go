package checks

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type icmpOptions struct {
	Count    int           `json:"count" min:"1" max:"1000" doc:"How many packets to send."`
	Interval wire.Duration `json:"interval" doc:"The time between two packets."`
	Wait     wire.Duration `json:"wait" doc:"How long to wait for an answer to the last packet."`
	Size     int           `json:"size" min:"24" max:"65000" doc:"Bytes of data in a packet."`
	TTL      int           `json:"ttl" min:"0" max:"255" doc:"The hop limit of the packets; 0: the system's."`
}

type icmpFacts struct {
	Sent        *int     `json:"sent" doc:"Packets sent."`
	Received    *int     `json:"received" doc:"Packets answered."`
	Duplicates  *int     `json:"duplicates" doc:"Answers that came again."`
	LossPercent *float64 `json:"loss_percent" doc:"Packets that were not answered, in percent."`
	MinMS       *float64 `json:"min_ms" doc:"The shortest round trip."`
	AvgMS       *float64 `json:"avg_ms" doc:"The mean round trip."`
	MaxMS       *float64 `json:"max_ms" doc:"The longest round trip."`
	JitterMS    *float64 `json:"jitter_ms" doc:"The mean difference between a round trip and the one before."`
	TTL         *int     `json:"ttl" doc:"The hop limit that the last answer came with."`
	ErrorFrom   string   `json:"error_from" doc:"The router or host that reported an error."`
	ErrorText   string   `json:"error_text" doc:"The error that it reported."`
}

func init() {
	register(probe.Info{
		Name:    "icmp",
		Summary: "answers echo requests (ping)",
		Schemes: []probe.Scheme{{Name: "icmp"}},
		Example: "icmp://gateway.example.org",
		Common:  []string{"resolver", "address", "family", "source"},
		Warn:    []string{"icmp.loss_percent == 0"},
		Doc: `Up means that every packet was answered; with some lost it is degraded, with all lost down, unless expect or warn judge icmp.loss_percent. It says that a host is there, and nothing about its services.

An answer counts if it comes from the address that was asked and carries the number and the random token of a packet of ours. If a router says that the host can't be reached, the reason is unreachable, and the facts say who said so.

It needs the right to send ICMP. On Linux, sysctl net.ipv4.ping_group_range gives it to users, setcap cap_net_raw=ep to the program; without either the result is unknown, with the reason local. RFC 792, RFC 4443.

Phases: wait is from the first packet to the last answer.`,
	}, icmpOptions{Count: 3, Interval: wire.Duration(100 * time.Millisecond), Wait: wire.Duration(time.Second), Size: 56}, icmpCheck)
}

// An icmpRun is a series of packets.
type icmpRun struct {
	c     *probe.ICMPConn
	opt   *icmpOptions
	facts *icmpFacts
	addr  netip.Addr
	id    int
	token [16]byte
	sent  []time.Time
	trips []time.Duration // 0: not answered
	err   error           // what a router has reported
}

func icmpCheck(ctx context.Context, p *probe.Probe, opt *icmpOptions, facts *icmpFacts) error {
	addrs, err := p.Lookup(ctx, p.URL.Host)
	if err != nil {
		return err
	}
	p.Phase(wire.Connect)
	c, err := p.ListenICMP(ctx, addrs[0], opt.TTL)
	if err != nil {
		return err
	}
	defer c.Close()
	r := &icmpRun{c: c, opt: opt, facts: facts, addr: addrs[0], trips: make([]time.Duration, opt.Count)}
	rand.Read(r.token[:])
	r.id = int(binary.BigEndian.Uint16(r.token[:]))
	facts.Sent, facts.Received, facts.Duplicates = new(int), new(int), new(int)
	p.Phase(wire.Wait)
	err = r.run(ctx)
	r.measure()
	switch {
	case err != nil:
		return err
	case *facts.Received > 0:
		return nil
	case r.err != nil:
		return r.err
	}
	return probe.Failf(wire.Timeout, "none of %d packets was answered", *facts.Sent)
}

// run sends the packets and collects the answers.
func (r *icmpRun) run(ctx context.Context) error {
	buf := make([]byte, 256)
	for next := time.Now(); ; {
		now := time.Now()
		if len(r.sent) < r.opt.Count && !now.Before(next) {
			if err := r.send(); err != nil {
				return err
			}
			next = now.Add(time.Duration(r.opt.Interval))
		}
		until := next
		if len(r.sent) == r.opt.Count {
			if *r.facts.Received == r.opt.Count || r.err != nil {
				return nil
			}
			until = r.sent[len(r.sent)-1].Add(time.Duration(r.opt.Wait))
		}
		r.c.SetReadDeadline(until)
		n, from, ttl, err := r.c.Read(buf)
		switch {
		case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			if ctx.Err() != nil || len(r.sent) == r.opt.Count && !time.Now().Before(until) {
				return nil
			}
			if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
				return nil
			}
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		default:
			r.take(buf[:n], from, ttl)
		}
	}
}

func (r *icmpRun) send() error {
	data := make([]byte, r.opt.Size)
	copy(data, r.token[:])
	seq := len(r.sent)
	binary.BigEndian.PutUint64(data[16:], uint64(seq))
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: r.id, Seq: seq & 0xffff, Data: data}}
	if r.addr.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel computes the checksum of ICMPv6
	if err != nil {
		return err
	}
	r.sent = append(r.sent, time.Now())
	*r.facts.Sent++
	return r.c.Write(b)
}

// take looks at a message.
func (r *icmpRun) take(b []byte, from netip.Addr, ttl int) {
	now := time.Now()
	proto := 1
	if r.addr.Is6() {
		proto = 58
	}
	m, err := icmp.ParseMessage(proto, b)
	if err != nil {
		return
	}
	switch body := m.Body.(type) {
	case *icmp.Echo:
		reply := m.Type == ipv4.ICMPTypeEchoReply || m.Type == ipv6.ICMPTypeEchoReply
		if reply && from.WithZone("") == r.addr.WithZone("") && (!r.c.Raw() || body.ID == r.id) {
			r.answer(body.Data, now, ttl)
		}
	case *icmp.DstUnreach:
		r.reported(m, from, body.Data)
	case *icmp.TimeExceeded:
		r.reported(m, from, body.Data)
	}
}

func (r *icmpRun) answer(data []byte, now time.Time, ttl int) {
	if len(data) < 24 || !bytes.Equal(data[:16], r.token[:]) {
		return
	}
	seq := binary.BigEndian.Uint64(data[16:])
	switch {
	case seq >= uint64(len(r.sent)):
	case r.trips[seq] != 0:
		*r.facts.Duplicates++
	default:
		r.trips[seq] = max(1, now.Sub(r.sent[seq]))
		*r.facts.Received++
		if ttl > 0 {
			r.facts.TTL = &ttl
		}
	}
}

// reported takes an error about a packet of ours, whose beginning is in data.
func (r *icmpRun) reported(m *icmp.Message, from netip.Addr, data []byte) {
	header := 20
	if r.addr.Is6() {
		header = 40
	} else if len(data) > 0 {
		header = int(data[0]&15) * 4
	}
	if len(data) < header+8 || int(binary.BigEndian.Uint16(data[header+4:])) != r.id {
		return
	}
	r.facts.ErrorFrom, r.facts.ErrorText = from.String(), fmt.Sprintf("%v, code %d", m.Type, m.Code)
	r.err = probe.Failf(wire.Unreachable, "%s reports: %s", from, r.facts.ErrorText)
}

// measure makes the facts.
func (r *icmpRun) measure() {
	sent, got := *r.facts.Sent, *r.facts.Received
	if sent == 0 {
		return
	}
	r.facts.LossPercent = new(100 * float64(sent-got) / float64(sent))
	if got == 0 {
		return
	}
	var sum, jitter, last, low, high time.Duration
	changes := 0
	for _, d := range r.trips {
		if d == 0 {
			continue
		}
		if last != 0 {
			jitter += max(d-last, last-d)
			changes++
		}
		if low == 0 || d < low {
			low = d
		}
		last, high, sum = d, max(high, d), sum+d
	}
	r.facts.MinMS, r.facts.MaxMS = new(wire.MS(low)), new(wire.MS(high))
	r.facts.AvgMS = new(wire.MS(sum / time.Duration(got)))
	if changes > 0 {
		r.facts.JitterMS = new(wire.MS(jitter / time.Duration(changes)))
	}
}
