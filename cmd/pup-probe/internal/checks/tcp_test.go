package checks

import (
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

func TestTCP(t *testing.T) {
	long := strings.Repeat("x", 100)
	talks(t, "tcp://HOST", []talk{
		{"no steps", "", "! close", "up", nil},
		{"text", `"tcp":{"steps":[{"expect":"220"},{"send":"HELO x\r\n","expect_regex":"250 (\\w+)\r\n"}]}`,
			"S: 220 hi\nC: HELO x\nS: 250 mail", "up", []string{
				"tcp.caught[0] == 'mail'", "tcp.banner startsWith '220 hi'", "tcp.sent_bytes == 8", "tcp.received_bytes == 18", "tcp.steps_done == 2", "ms.wait > 0",
			}},
		{"bytes", `"tcp":{"steps":[{"send_hex":"00 01","expect_hex":"ff00"}]}`, "Cx 0001\nSx 01ff00ff", "up", nil},
		{"two expectations in one packet", `"tcp":{"steps":[{"expect":"a"},{"expect":"b"}]}`, `S: ab\`, "up", nil},
		{"something else, then nothing", `"timeout":"200ms","tcp":{"steps":[{"expect":"220"}]}`, "S: 500 no", "down mismatch wait", []string{"error contains '500 no'"}},
		{"something else, then closed", `"tcp":{"steps":[{"expect":"220"}]}`, "S: 500 no\n! close", "down mismatch wait", nil},
		{"nothing", `"timeout":"200ms","tcp":{"steps":[{"expect":"220"}]}`, "", "down timeout wait", nil},
		{"closed", `"tcp":{"steps":[{"expect":"220"}]}`, "! close", "down closed wait", nil},
		{"reset", `"tcp":{"steps":[{"send":"x\r\n","expect":"220"}]}`, "C: x\n! reset", "down reset wait", nil},
		{"too much", `"tcp":{"max_bytes":64,"steps":[{"expect":"220"}]}`, "S: " + long, "down too-large wait", nil},
		{"second step", `"tcp":{"steps":[{"expect":"a"},{"send":"x\r\n","expect":"b"}]}`, "S: a\nC: x\n! close", "down mismatch wait", []string{"tcp.steps_done == 1", "error startsWith 'step 2: '"}},
		{"STARTTLS", trustTestCA() + `,"tcp":{"steps":[{"expect":"220"},{"send":"STARTTLS\r\n","expect":"go\r\n"},{"starttls":true,"send":"hi\r\n","expect":"secret"}]}`,
			"S: 220\nC: STARTTLS\nS: go\n! tls\nC: hi\nS: secret", "up", []string{"tls.verified", "ms.tls > 0"}},
		{"injected before TLS", trustTestCA() + `,"tcp":{"steps":[{"send":"STARTTLS\r\n","expect":"go\r\n"},{"starttls":true}]}`,
			"C: STARTTLS\nS: go\\\nS: \nS: injected", "down protocol wait", nil},
		{"both kinds", `"tcp":{"steps":[{"send":"a","send_hex":"00"}]}`, "", "unknown options prepare", []string{"error contains 'tcp.steps[0]: send and send_hex exclude'"}},
		{"bad regex", `"tcp":{"steps":[{"expect_regex":"("}]}`, "", "unknown options prepare", nil},
		{"bad hex", `"tcp":{"steps":[{"send_hex":"0"}]}`, "", "unknown options prepare", nil},
	})
}

func TestTCPOverTLS(t *testing.T) {
	talks(t, "tcps://HOST", []talk{
		{"up", trustTestCA() + `,"tcp":{"steps":[{"send":"x\r\n","expect":"y"}]}`, "! tls\nC: x\nS: y", "up", []string{"tls.version == '1.3'"}},
		{"untrusted", "", "! tls", "down certificate-untrusted tls", []string{"tls.subject contains 'localhost'", "not tls.verified"}},
	})
}

func TestUDP(t *testing.T) {
	pong := func(b []byte) [][]byte {
		if string(b) == "ping" {
			return [][]byte{[]byte("pong 42\n")}
		}
		return nil
	}
	addr := serveUDP(t, pong)
	closed := realserver.ClosedPort(t)
	for _, tt := range []struct {
		name, addr, target, want string
		facts                    []string
	}{
		{"up", addr, `"udp":{"send":"ping","expect_regex":"pong (\\d+)"}`, "up", []string{"udp.caught == '42'", "udp.received_bytes == 8", `udp.answer startsWith 'pong'`}},
		{"hex", addr, `"udp":{"send_hex":"70696e67","expect_hex":"706f6e67"}`, "up", nil},
		{"any answer", addr, `"udp":{"send":"ping"}`, "up", nil},
		{"mismatch", addr, `"udp":{"send":"ping","expect":"pang"}`, "down mismatch verify", []string{"udp.answer startsWith 'pong'"}},
		{"silence", addr, `"timeout":"200ms","udp":{"send":"other"}`, "down timeout wait", nil},
		{"silence is up", addr, `"udp":{"send":"other","silence":"up","wait":"50ms"}`, "up", nil},
		{"refused", closed, `"udp":{"send":"ping"}`, "down refused wait", nil},
		{"refused although silence is up", closed, `"udp":{"send":"ping","silence":"up","wait":"1s"}`, "down refused wait", nil},
		{"time over although silence is up", addr, `"timeout":"100ms","udp":{"send":"other","silence":"up","wait":"9s"}`, "down timeout wait", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, "udp://"+tt.addr, tt.target).want(t, tt.want, tt.facts...)
		})
	}
}

// FuzzPattern: where a pattern is found, it ends within the text, and what was
// caught stands in it.
func FuzzPattern(f *testing.F) {
	f.Add("a(b*)", "xabbb", false)
	f.Add("ab", "xab", true)
	f.Fuzz(func(t *testing.T, expect, text string, plain bool) {
		o := talkOptions{ExpectRegex: expect}
		if plain {
			o = talkOptions{Expect: expect}
		}
		p, err := o.pattern()
		if err != nil || p.nothing() {
			return
		}
		end, caught, ok := p.find([]byte(text))
		if ok && (end < 0 || end > len(text) || len(caught) < maxShown && !strings.Contains(text, caught)) {
			t.Errorf("%q in %q: end %d, caught %q", expect, text, end, caught)
		}
	})
}
