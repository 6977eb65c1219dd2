package checks

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// ntpReply answers a request with our clock, ahead by offset, after change had
// its say.
func ntpReply(req []byte, offset time.Duration, change func(b []byte)) []byte {
	b := make([]byte, ntpSize)
	b[0], b[1], b[3] = 4<<3|ntpServerMode, 2, 0xec // version 4, stratum 2, precision 2^-20
	binary.BigEndian.PutUint32(b[4:], 1<<15)       // 500 ms
	binary.BigEndian.PutUint32(b[8:], 1<<14)       // 250 ms
	copy(b[12:], []byte{192, 0, 2, 1})
	now := time.Now().Add(offset)
	binary.BigEndian.PutUint64(b[16:], ntpStamp(now.Add(-time.Minute)))
	copy(b[24:32], req[40:48])
	binary.BigEndian.PutUint64(b[32:], ntpStamp(now))
	binary.BigEndian.PutUint64(b[40:], ntpStamp(now))
	if change != nil {
		change(b)
	}
	return b
}

func ntpServe(t testing.TB, offset time.Duration, change func(b []byte)) string {
	return serveUDP(t, func(b []byte) [][]byte { return [][]byte{ntpReply(b, offset, change)} })
}

func TestNTP(t *testing.T) {
	kiss := func(code string) func(b []byte) {
		return func(b []byte) { b[1] = 0; copy(b[12:16], code) }
	}
	for _, tt := range []struct {
		name, opt string
		offset    time.Duration
		change    func(b []byte)
		want      string
		facts     []string
	}{
		{"in time", ``, 0, nil, "up", []string{
			"abs(ntp.offset_ms) < 50", "ntp.delay_ms >= 0", "ntp.stratum == 2", "ntp.leap == 'none'", "ntp.reference_id == '192.0.2.1'",
			"ntp.root_delay_ms == 500", "ntp.root_dispersion_ms == 250", "ntp.root_distance_ms >= 500", "ntp.root_distance_ms < 600",
			"ntp.reference_age_ms == 60000", "ntp.version == 4", "ntp.samples == 1", "ntp.jitter_ms == nil", "ntp.precision_ms <= 0.001",
		}},
		{"samples", `"samples":3`, 0, nil, "up", []string{"ntp.samples == 3", "ntp.jitter_ms >= 0"}},
		{"ahead", ``, time.Hour, nil, "degraded mismatch verify", []string{"ntp.offset_ms > 3599900", "ntp.offset_ms < 3600100"}},
		{"behind by years", ``, -10 * 365 * 24 * time.Hour, nil, "degraded mismatch verify", []string{"ntp.offset_ms < -315359999000"}},
		{"GPS", ``, 0, func(b []byte) { b[1] = 1; copy(b[12:16], "GPS\x00") }, "up", []string{"ntp.reference_id == 'GPS'"}},
		{"leap", ``, 0, func(b []byte) { b[0] |= 1 << 6 }, "up", []string{"ntp.leap == 'insert'"}},
		{"large dispersion", ``, 0, func(b []byte) { b[9] = 200 }, "degraded mismatch verify", nil},
		{"unsynchronized", ``, 0, func(b []byte) { b[0] |= 3 << 6 }, "down unavailable wait", []string{"ntp.leap == 'unsynchronized'"}},
		{"stratum 16", ``, 0, func(b []byte) { b[1] = 16 }, "down unavailable wait", []string{"ntp.stratum == 16"}},
		{"RATE", ``, 0, kiss("RATE"), "down unavailable wait", []string{"ntp.kiss == 'RATE'"}},
		{"DENY", ``, 0, kiss("DENY"), "down denied wait", []string{"ntp.kiss == 'DENY'"}},
		{"no kiss", ``, 0, kiss("\x01\xff\n\x00"), "down unavailable wait", nil},
		{"no time stamp", ``, 0, func(b []byte) { clear(b[40:48]) }, "down protocol wait", nil},
		{"sent before received", ``, 0, func(b []byte) { b[43]-- }, "down protocol wait", nil},
		{"set in the future", ``, 0, func(b []byte) { b[17]++ }, "down protocol wait", nil},
		{"bad samples", `"samples":0`, 0, nil, "unknown options prepare", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, "ntp://"+ntpServe(t, tt.offset, tt.change), `"ntp":{`+tt.opt+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestNTPLiars(t *testing.T) {
	for _, l := range []struct {
		name, text string
		reply      func(b []byte) [][]byte
	}{
		{"silent", "no answer within", func([]byte) [][]byte { return nil }},
		{"echo", "of mode 3", func(b []byte) [][]byte { return [][]byte{b} }},
		{"short", "of 47 bytes", func(b []byte) [][]byte { return [][]byte{ntpReply(b, 0, nil)[:47]} }},
		{"empty", "empty", func([]byte) [][]byte { return [][]byte{{}} }},
		{"another's answer", "another question", func(b []byte) [][]byte { return [][]byte{ntpReply(make([]byte, 48), 0, nil)} }},
		{"broadcast", "of mode 5", func(b []byte) [][]byte { return [][]byte{ntpReply(b, 0, func(b []byte) { b[0] |= 5 })} }},
		{"text", "of 60 bytes", func([]byte) [][]byte { return [][]byte{[]byte(strings.Repeat("220 ready\r\n ", 5))} }},
	} {
		t.Run(l.name, func(t *testing.T) {
			res := check(t, "ntp://"+serveUDP(t, l.reply), `"timeout":"200ms"`)
			res.want(t, "down timeout wait")
			if text := fmt.Sprint(res.vars["error"]); !strings.Contains(text, l.text) && l.name != "text" {
				t.Errorf("got error %q, want %q in it", text, l.text)
			}
			addr := serveUDP(t, func(b []byte) [][]byte { return append(l.reply(b), ntpReply(b, 0, nil)) })
			check(t, "ntp://"+addr, "").want(t, "up", "abs(ntp.offset_ms) < 50")
		})
	}
	check(t, "ntp://"+realserver.ClosedPort(t), "").want(t, "down refused wait")
}

func TestNTPServers(t *testing.T) {
	target := ntpServe(t, 300*time.Millisecond, nil)
	a, b, c := ntpServe(t, 10*time.Millisecond, nil), ntpServe(t, 0, nil), ntpServe(t, -10*time.Millisecond, nil)
	list := func(addrs ...string) string {
		return fmt.Sprintf(`"ntp":{"servers":["%s"]}`, strings.Join(addrs, `","`))
	}
	check(t, "ntp://"+target, list(a, b, c)).want(t, "degraded mismatch verify",
		"ntp.disagreement_ms > 280", "ntp.disagreement_ms < 320", "ntp.spread_ms > 290", "ntp.spread_ms < 330", "len(ntp.servers) == 3",
		"ntp.servers[0].stratum == 2", "address == '"+target+"'")
	check(t, "ntp://"+a, list(b, c)).want(t, "up", "ntp.disagreement_ms > 0")
	check(t, "ntp://"+a, list(b, realserver.ClosedPort(t))).want(t, "down refused wait", "ntp.servers[1].error contains 'refused'")
	check(t, "ntp://"+a, list("ntp.example.org:x")).want(t, "unknown options verify")
}

func TestNTPReal(t *testing.T) {
	n := realserver.Start(t, "ntp")
	check(t, "ntp://"+n["ntp"], `"ntp":{"samples":4,"servers":["`+n["second"]+`"]}`).want(t, "up",
		"abs(ntp.offset_ms) < 100", "ntp.stratum == 3", "abs(ntp.disagreement_ms) < 100", "ntp.servers[0].stratum == 5")
	check(t, "ntp://"+n["ntp"], `"ntp":{"version":3}`).want(t, "up", "ntp.version == 3")
	check(t, "ntp://"+n["unsynchronized"], "").want(t, "down unavailable wait", "ntp.leap == 'unsynchronized'")
	realserver.Pause(t, n, "ntp")
	check(t, "ntp://"+n["ntp"], `"timeout":"1s"`).want(t, "down timeout wait")
	realserver.Kill(t, n, "second")
	check(t, "ntp://"+n["second"], "").want(t, "down refused wait")
	dns := realserver.Shared(t, "knot")
	check(t, "ntp://"+dns["ns1"], `"timeout":"500ms"`).want(t, "down timeout wait")
}

// FuzzNTP holds an answer that is taken to its own numbers.
func FuzzNTP(f *testing.F) {
	req, nonce := ntpRequest(4)
	f.Add(ntpReply(req, 0, nil))
	f.Add(req)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ntpParse(b)
		if (err != nil) != (len(b) < ntpSize) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err != nil || n.answers(nonce) != nil || n.usable() != nil {
			return
		}
		if n.stratum < 1 || n.stratum > ntpMaxStratum || n.leap == ntpUnsynchronized || n.transmitTime == 0 {
			t.Errorf("%+v is taken for a good answer", n)
		}
		s := ntpSample{ntpPacket: n, sent: time.Unix(1e9, 0), received: time.Unix(1e9, 1e6)}
		if s.delay() < 0 || s.rootDelay < 0 || s.rootDispersion < 0 {
			t.Errorf("%+v has a negative delay", s)
		}
		var f ntpFacts
		f.say(&n)
		f.measure(&s, []ntpSample{s, s})
	})
}
