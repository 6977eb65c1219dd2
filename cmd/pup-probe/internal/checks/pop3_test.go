package checks

import (
	"strings"
	"testing"
	"time"
)

const pop3Hello = "S: +OK ready\nC: CAPA\nS: +OK\nS: TOP\nS: UIDL\nS: SASL PLAIN\nS: .\n"

func TestPOP3(t *testing.T) {
	pw := `"pop3":{"user":"tim","password":"` + secret(t, "POP3", "tanstaaf") + `"`
	login := pop3Hello + "C: AUTH PLAIN AHRpbQB0YW5zdGFhZg==\nS: +OK in\n"
	stat := login + "C: STAT\nS: +OK 2 320\nC: TOP 2 0\n"
	bye := "C: QUIT\nS: +OK bye"
	talks(t, "pop3://HOST", []talk{
		{"no login", "", pop3Hello + bye, "up", []string{"pop3.logged_in == false", "pop3.greeting == 'ready'", "same(pop3.capabilities, ['TOP', 'UIDL', 'SASL'])", "pop3.auth_mechanisms == ['PLAIN']", "pop3.starttls == false"}},
		{"mailbox", pw + "}", stat + "S: +OK\nS: Received: from a\nS: \tby b; Wed, 1 Jan 2020 00:00:00 +0000\nS: Date: Tue, 1 Jan 2019 00:00:00 +0000\nS: ..dot: x\nS: \nS: Date: x\nS: .\n" + bye, "up",
			[]string{"pop3.messages == 2", "pop3.size_bytes == 320", "pop3.newest_age_ms > 180000000000", "pop3.newest_age_ms < 800000000000", "pop3.mechanism == 'PLAIN'"}},
		{"Date alone", pw + "}", stat + "S: +OK\nS: Date: Wed, 1 Jan 2020 00:00:00 +0000\nS: .\n" + bye, "up", []string{"pop3.newest_age_ms > 180000000000"}},
		{"no date", pw + "}", stat + "S: +OK\nS: Subject: x\nS: .\n" + bye, "up", []string{"pop3.messages == 2"}},
		{"empty", pw + "}", login + "C: STAT\nS: +OK 0 0\n" + bye, "up", []string{"pop3.messages == 0", "pop3.size_bytes == 0"}},
		{"an old one", pw + "}", "S: +OK <1@x>\nC: CAPA\nS: -ERR what?\nC: USER tim\nS: +OK\nC: PASS tanstaaf\nS: +OK\nC: STAT\nS: +OK 0 0 and more\n" + bye, "up", []string{"pop3.mechanism == 'USER'"}},
		{"no TOP", pw + "}", "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\nC: USER tim\nS: +OK\nC: PASS tanstaaf\nS: +OK\nC: STAT\nS: +OK 1 1\n" + bye, "up", nil},
		{"a challenge", pw + `,"mechanism":"LOGIN"}`, pop3Hello + "C: AUTH LOGIN\nS: + VXNlcm5hbWU6\nC: dGlt\nS: + UGFzc3dvcmQ6\nC: dGFuc3RhYWY=\nS: -ERR [AUTH] no", "down denied auth", nil},
		{"denied", pw + "}", pop3Hello + "C~ AUTH\nS: -ERR wrong", "down denied auth", []string{"pop3.logged_in == false"}},
		{"PASS denied", pw + "}", "S: +OK\nC: CAPA\nS: -ERR\nC: USER tim\nS: +OK\nC: PASS tanstaaf\nS: -ERR not tanstaaf", "down denied auth", []string{"error contains 'not ***'"}},
		{"in use", pw + "}", pop3Hello + "C~ AUTH\nS: -ERR [IN-USE] locked", "down unavailable auth", nil},
		{"trouble", pw + "}", pop3Hello + "C~ AUTH\nS: -ERR [SYS/TEMP] disk", "down unavailable auth", nil},
		{"refused", "", "S: -ERR not now", "down unavailable greet", nil},
		{"IMAP", "", "S: * OK ready", "down protocol greet", nil},
		{"no numbers", pw + "}", login + "C: STAT\nS: +OK many", "down protocol request", nil},
		{"STAT refused", pw + "}", login + "C: STAT\nS: -ERR no", "down mismatch request", nil},
		{"endless", pw + "}", stat + "S: +OK\n" + strings.Repeat("S: a\n", 5000), "down too-large request", nil},
		{"long line", pw + "}", stat + "S: +OK\nS: " + strings.Repeat("a", 5000), "down protocol request", nil},
		{"cut", pw + "}", stat + "S: +OK\nS: a: b\n! close", "down closed request", nil},
		{"hangs", pw + `},"timeout":"200ms"`, login + "C: STAT\n! hang", "down timeout request", nil},
		{"hangs at QUIT", `"timeout":"200ms"`, pop3Hello + "C: QUIT\n! hang", "down timeout request", nil},
		{"closes at QUIT", "", pop3Hello + "C: QUIT\n! close", "up", nil},
		{"TLS", trustTestCA(), "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: +OK go\n! tls\nC: CAPA\nS: +OK\nS: UIDL\nS: .\n" + bye, "up", []string{"pop3.starttls", "tls.verified", "pop3.capabilities == ['UIDL']"}},
		{"TLS refused", "", "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: -ERR no", "down tls greet", nil},
		{"TLS untrusted", "", "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: +OK go\n! tls", "down certificate-untrusted tls", nil},
		{"injected", trustTestCA(), "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: +OK go\\\nSx 0d0a2b4f4b0d0a\n! tls", "down protocol tls", nil},
		{"TLS required", `"pop3":{"starttls":"required"}`, pop3Hello, "down tls greet", nil},
	})
	check(t, "pop3://mail.example.org", pw+`,"starttls":"off"}`).want(t, "unknown options prepare", "error contains 'pop3.allow_plain_auth'")
}

// FuzzPOP3Date: a date comes from one of the two fields, the first of its name.
func FuzzPOP3Date(f *testing.F) {
	f.Add("from a; Wed, 1 Jan 2020 00:00:00 +0000", "Thu, 2 Jan 2020 00:00:00 +0000")
	f.Add("", "x; ; Thu, 2 Jan 2020 00:00:00 +0000")
	f.Fuzz(func(t *testing.T, received, date string) {
		got := pop3Date([]string{"Subject: x", "received: " + received, "DATE: " + date})
		want := pop3Date([]string{"Received:" + received})
		if want.IsZero() {
			want = pop3Date([]string{"Date:" + date})
		}
		if !got.Equal(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if none := pop3Date([]string{"X-Date: " + date, "x" + received}); !none.Equal(time.Time{}) && !strings.Contains(received, ":") {
			t.Fatalf("got %v from other fields", none)
		}
	})
}
