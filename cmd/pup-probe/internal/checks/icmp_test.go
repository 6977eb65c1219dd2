package checks

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"pup/cmd/pup-probe/internal/probe"
)

// The loopback answers, where we have the right to ask. Where we have not, the
// result must say so, and how to get it; the scripts of the programs run that
// as a user without rights.
func TestICMP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		res := check(t, "icmp://"+host, `"icmp":{"count":2,"interval":"1ms"}`)
		if res.outcome() == "unknown local connect" {
			res.want(t, "unknown local connect", "error contains 'ping_group_range'", "error contains 'setcap'")
			continue
		}
		res.want(t, "up", "icmp.sent == 2", "icmp.received == 2", "icmp.loss_percent == 0", "icmp.min_ms <= icmp.max_ms", "icmp.ttl > 0")
	}
	check(t, "icmp://127.0.0.1", `"family":"6"`).want(t, "unknown options prepare")
	check(t, "icmp://127.0.0.1", `"icmp":{"count":0}`).want(t, "unknown options prepare")
	check(t, "icmp://127.0.0.1", `"connect":"127.0.0.1:1"`).want(t, "unknown options prepare")
}

// icmpTestRun is a run of which three packets have been sent.
func icmpTestRun(addr string) *icmpRun {
	now := time.Now().Add(-10 * time.Millisecond)
	r := &icmpRun{
		c: new(probe.ICMPConn), opt: &icmpOptions{Count: 3}, addr: netip.MustParseAddr(addr), id: 7,
		facts: &icmpFacts{Sent: new(3), Received: new(int), Duplicates: new(int)},
		sent:  []time.Time{now, now, now}, trips: make([]time.Duration, 3),
	}
	copy(r.token[:], "0123456789abcdef")
	return r
}

func icmpReply(t icmp.Type, id, seq int, token string) []byte {
	data := make([]byte, 24)
	copy(data, token)
	binary.BigEndian.PutUint64(data[16:], uint64(seq))
	b, err := (&icmp.Message{Type: t, Body: &icmp.Echo{ID: id, Seq: seq, Data: data}}).Marshal(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestICMPTake(t *testing.T) {
	const token = "0123456789abcdef"
	for _, tt := range []struct {
		name, addr, from string
		messages         [][]byte
		received, twice  int
	}{
		{"answered", "192.0.2.1", "192.0.2.1", [][]byte{icmpReply(ipv4.ICMPTypeEchoReply, 7, 0, token), icmpReply(ipv4.ICMPTypeEchoReply, 7, 2, token)}, 2, 0},
		{"answered, version 6", "2001:db8::1", "2001:db8::1", [][]byte{icmpReply(ipv6.ICMPTypeEchoReply, 7, 0, token)}, 1, 0},
		{"twice", "192.0.2.1", "192.0.2.1", [][]byte{icmpReply(ipv4.ICMPTypeEchoReply, 7, 0, token), icmpReply(ipv4.ICMPTypeEchoReply, 7, 0, token)}, 1, 1},
		{"from elsewhere", "192.0.2.1", "192.0.2.2", [][]byte{icmpReply(ipv4.ICMPTypeEchoReply, 7, 0, token)}, 0, 0},
		{"another program's", "192.0.2.1", "192.0.2.1", [][]byte{icmpReply(ipv4.ICMPTypeEchoReply, 7, 0, "another token...")}, 0, 0},
		{"our own request", "192.0.2.1", "192.0.2.1", [][]byte{icmpReply(ipv4.ICMPTypeEcho, 7, 0, token)}, 0, 0},
		{"never sent", "192.0.2.1", "192.0.2.1", [][]byte{icmpReply(ipv4.ICMPTypeEchoReply, 7, 9, token)}, 0, 0},
		{"garbage", "192.0.2.1", "192.0.2.1", [][]byte{{}, {0}, {0, 0, 0, 0}, make([]byte, 8)}, 0, 0},
	} {
		r := icmpTestRun(tt.addr)
		for _, m := range tt.messages {
			r.take(m, netip.MustParseAddr(tt.from), 60)
		}
		r.measure()
		if *r.facts.Received != tt.received || *r.facts.Duplicates != tt.twice {
			t.Errorf("%s: received %d, twice %d; want %d, %d", tt.name, *r.facts.Received, *r.facts.Duplicates, tt.received, tt.twice)
		}
		if want := 100 * float64(3-tt.received) / 3; *r.facts.LossPercent != want {
			t.Errorf("%s: loss %v, want %v", tt.name, *r.facts.LossPercent, want)
		}
	}
}

// A router's report counts if it is about a packet of ours.
func TestICMPReported(t *testing.T) {
	report := func(id int) []byte {
		inner := make([]byte, 28)
		inner[0] = 0x45
		binary.BigEndian.PutUint16(inner[24:], uint16(id))
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 1, Body: &icmp.DstUnreach{Data: inner}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := icmpTestRun("192.0.2.1")
	r.take(report(8), netip.MustParseAddr("192.0.2.254"), 60)
	if r.err != nil {
		t.Errorf("took a report about another program's packet: %v", r.err)
	}
	r.take(report(7), netip.MustParseAddr("192.0.2.254"), 60)
	if r.err == nil || r.facts.ErrorFrom != "192.0.2.254" {
		t.Errorf("got %v from %q", r.err, r.facts.ErrorFrom)
	}
}

// FuzzICMPTake: whatever comes, no more is received than was sent.
func FuzzICMPTake(f *testing.F) {
	f.Add(icmpReply(ipv4.ICMPTypeEchoReply, 7, 1, "0123456789abcdef"), false)
	f.Add([]byte{3, 1, 0, 0, 0, 0, 0, 0, 0x4f}, true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		r := icmpTestRun("192.0.2.1")
		if six {
			r = icmpTestRun("2001:db8::1")
		}
		for range 5 {
			r.take(b, r.addr, 1)
		}
		if *r.facts.Received > 3 {
			t.Errorf("received %d of 3", *r.facts.Received)
		}
		r.measure()
	})
}
