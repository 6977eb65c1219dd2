package checks

import (
	"net"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// TestICMPLoopback pings ourselves. Where we have no right to, the result has
// to say so and what helps.
func TestICMPLoopback(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		res := check(t, "icmp://"+host, `"icmp":{"count":3,"interval":"10ms"}`)
		if strings.HasPrefix(res.outcome(), "unknown") {
			res.want(t, "unknown local connect", "error contains 'setcap cap_net_raw'", "error contains 'ping_group_range'")
			continue
		}
		res.want(t, "up", "icmp.sent == 3", "icmp.received == 3", "icmp.loss_percent == 0", "icmp.min_ms <= icmp.avg_ms and icmp.avg_ms <= icmp.max_ms",
			"icmp.ttl == 64", "icmp.duplicates == 0", "ms.wait > 0")
	}
}

func TestICMPOptions(t *testing.T) {
	check(t, "icmp://127.0.0.1", `"icmp":{"interval":"1ms"}`).want(t, "unknown options prepare")
	check(t, "icmp://127.0.0.1", `"icmp":{"size":4}`).want(t, "unknown options prepare")
	check(t, "icmp://127.0.0.1", `"proxy":"socks5://127.0.0.1:1"`).want(t, "unknown options prepare")
	check(t, "icmp://127.0.0.1", `"family":"6"`).want(t, "unknown options prepare")
}

func TestICMPSeries(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	type answer struct {
		echo probe.Echo
		ms   int
	}
	for _, tt := range []struct {
		name    string
		answers []answer
		failure error
		want    string // in the error
		check   func(f *icmpFacts) bool
	}{
		{"all", []answer{{probe.Echo{Seq: 0, TTL: 60}, 10}, {probe.Echo{Seq: 1, TTL: 60}, 120}, {probe.Echo{Seq: 2, TTL: 59}, 210}}, nil, "",
			func(f *icmpFacts) bool {
				return *f.Received == 3 && *f.LossPercent == 0 && *f.Min == 10 && *f.Max == 20 && *f.Jitter == 10 && f.TTL == 59
			}},
		{"one lost", []answer{{probe.Echo{Seq: 0}, 10}, {probe.Echo{Seq: 2}, 220}}, nil, "",
			func(f *icmpFacts) bool { return *f.LossPercent == 33.3 && *f.Avg == 15 && *f.Jitter == 10 }},
		{"twice", []answer{{probe.Echo{Seq: 0}, 10}, {probe.Echo{Seq: 0}, 11}}, nil, "",
			func(f *icmpFacts) bool { return *f.Received == 1 && *f.Duplicates == 1 && f.Jitter == nil }},
		{"not sent yet", []answer{{probe.Echo{Seq: 3}, 10}, {probe.Echo{Seq: 65535}, 10}}, nil, "none of 3",
			func(f *icmpFacts) bool { return *f.Received == 0 && *f.LossPercent == 100 && f.Min == nil }},
		{"none", nil, nil, "none of 3", nil},
		{"router", []answer{{probe.Echo{Seq: 0, Trouble: "host unreachable from 192.0.2.1"}, 1}}, nil, "host unreachable",
			func(f *icmpFacts) bool { return f.Trouble == "host unreachable from 192.0.2.1" }},
		{"router once, then an answer", []answer{{probe.Echo{Seq: 0, Trouble: "x"}, 1}, {probe.Echo{Seq: 1}, 101}}, nil, "", nil},
		{"not sent", nil, probe.Failf(wire.Local, "send: no buffer"), "no buffer", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &icmpFacts{Sent: new(3), Received: new(0), Duplicates: new(0)}
			s := icmpSeries{facts: f, sent: []time.Time{start, at(100), at(200)}, times: make([]time.Duration, 3), failure: tt.failure}
			for _, a := range tt.answers {
				s.note(a.echo, at(a.ms))
			}
			err := s.sum()
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.check != nil && !tt.check(f) {
				t.Errorf("facts: %+v", f)
			}
		})
	}
}

// icmpContract: what a host is that does not answer shows e2e, in a network of
// its own, since all of loopback answers.
func icmpContract(t *testing.T, s subject) {
	url := s.url("127.0.0.1")
	if res := s.run(t, url, `"icmp":{"count":1}`); strings.HasPrefix(res.outcome(), "unknown local") {
		res.want(t, "unknown local connect") // no right: TestICMPLoopback
		return
	}
	came := make(chan struct{}, 8)
	if pc, err := net.ListenPacket("ip4:icmp", "127.0.0.1"); err == nil {
		t.Cleanup(func() { pc.Close() })
		go func() {
			if _, _, err := pc.ReadFrom(make([]byte, 256)); err == nil {
				came <- struct{}{}
			}
		}()
	} else {
		close(came)
	}
	s.canceled(t, came, url, `"icmp":{"count":2,"interval":"20s"}`)
	leavesNothing(t, func() { s.run(t, url, `"icmp":{"count":2,"interval":"10ms"}`).want(t, "up") })
}
