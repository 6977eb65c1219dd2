package checks

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

const imapHello = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\n"

func TestIMAP(t *testing.T) {
	pw := `"imap":{"user":"tim","password":"` + secret(t, "IMAP", `tan"staaf`) + `"`
	login := imapHello + "C: a1 AUTHENTICATE PLAIN AHRpbQB0YW4ic3RhYWY=\nS: a1 OK [CAPABILITY IMAP4rev1 UIDPLUS] in\n"
	status := login + "C: a2 STATUS \"INBOX\" (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)\nS: * STATUS {5}\nS: INBOX (MESSAGES 12 UNSEEN 2 UIDNEXT 99 UIDVALIDITY 7)\nS: a2 OK done\n"
	examine := status + "C: a3 EXAMINE \"INBOX\"\nS: * FLAGS (\\Seen)\nS: * 12 EXISTS\nS: * 0 RECENT\nS: * OK [UNSEEN 11] first\nS: a3 OK [READ-ONLY] done\n"
	bye := "\nS: * BYE\nS: a5 OK bye"
	talks(t, "imap://HOST", []talk{
		{"no login", "", imapHello + "C: a1 NOOP\nS: a1 OK\nC: a2 LOGOUT\nS: * BYE\nS: a2 OK bye", "up", []string{"imap.logged_in == false", "imap.greeting == 'ready'", "imap.starttls == false"}},
		{"asks for capabilities", "", "S: * OK hi\nC: a1 CAPABILITY\nS: * CAPABILITY IMAP4rev2 IDLE\nS: a1 OK\nC: a2 NOOP\nS: a2 OK\nC: a3 LOGOUT\n! close", "up", []string{"same(imap.capabilities, ['IMAP4REV2', 'IDLE'])"}},
		{"mailbox", pw + "}", examine + "C: a4 FETCH 3:12 (INTERNALDATE)\nS: * 11 FETCH (INTERNALDATE \" 1-Jan-2020 00:00:00 +0000\")\nS: * 12 FETCH (UID 98 INTERNALDATE \"17-Jul-1996 02:44:25 -0700\")\nS: a4 OK\nC: a5 LOGOUT" + bye, "up",
			[]string{"imap.messages == 12", "imap.unseen == 2", "imap.uid_next == 99", "imap.uid_validity == 7", "imap.newest_age_ms > 180000000000", "imap.newest_age_ms < 800000000000", "imap.mechanism == 'PLAIN'", "'UIDPLUS' in imap.capabilities"}},
		{"quota", pw + "}", strings.Replace(login, "UIDPLUS", "QUOTA", 1) + "C~ STATUS\nS: a2 OK\nC~ EXAMINE\nS: * 0 EXISTS\nS: a3 OK\nC: a4 GETQUOTAROOT \"INBOX\"\nS: * QUOTAROOT INBOX a b\nS: * QUOTA a (STORAGE 1 1000 MESSAGE 5 9)\nS: * QUOTA \"b c\" (MESSAGE 1 2 STORAGE 900 1024)\nS: * QUOTA d ()\nS: a4 OK\nC: a5 LOGOUT" + bye, "up",
			[]string{"imap.quota_used_bytes == 900 * 1024", "imap.quota_limit_bytes == 1048576"}},
		{"PREAUTH", "", "S: * PREAUTH [CAPABILITY IMAP4rev1] hi\nC: a1 STATUS \"INBOX\" (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)\nS: a1 NO no", "down mismatch request", []string{"imap.logged_in"}},
		{"LOGIN", pw + "}", "S: * OK [CAPABILITY IMAP4rev1] hi\nC: a1 LOGIN \"tim\" \"tan\\\"staaf\"\nS: a1 OK in\nC: a2 CAPABILITY\nS: * CAPABILITY IMAP4rev1\nS: a2 OK\nC~ STATUS\nS: a3 OK\nC~ EXAMINE\nS: * 0 EXISTS\nS: a4 OK\nC: a5 LOGOUT" + bye, "up", []string{"imap.mechanism == 'LOGIN'", "imap.messages == 0"}},
		{"without SASL-IR", pw + "}", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\nC: a1 AUTHENTICATE PLAIN\nS: + \nC: AHRpbQB0YW4ic3RhYWY=\nS: a1 NO [AUTHENTICATIONFAILED] no", "down denied auth", nil},
		{"denied", pw + "}", imapHello + "C~ AUTHENTICATE\nS: a1 NO wrong", "down denied auth", []string{"error contains 'NO wrong'", "imap.logged_in == false"}},
		{"login not now", pw + "}", imapHello + "C~ AUTHENTICATE\nS: a1 NO [UNAVAILABLE] later", "down unavailable auth", nil},
		{"password comes back", pw + "}", "S: * OK [CAPABILITY IMAP4rev1] hi\nC~ LOGIN\nS: a1 NO what is \"tan\\\"staaf\"?", "down denied auth", []string{"error contains 'what is ***?'"}},
		{"login disabled", pw + "}", "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi\nC~ LOGOUT", "down denied auth", nil},
		{"no such mailbox", pw + `,"mailbox":"Müll & Co"}`, login + "C: a2 STATUS \"M&APw-ll &- Co\" (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)\nS: a2 NO [NONEXISTENT] none", "down mismatch request", nil},
		{"no rights", pw + "}", login + "C~ STATUS\nS: a2 NO [NOPERM] no", "down denied request", nil},
		{"mailbox in use", pw + "}", status + "C~ EXAMINE\nS: a3 NO [INUSE] later", "down unavailable request", []string{"imap.unseen == 2"}},
		{"no count", pw + "}", status + "C~ EXAMINE\nS: a3 OK", "down protocol request", nil},
		{"no date", pw + "}", examine + "C~ FETCH\nS: a4 OK", "down protocol request", nil},
		{"a literal too large", pw + "}", login + "C~ STATUS\nS: * STATUS {9999999}", "down too-large request", nil},
		{"a literal cut", pw + "}", login + "C~ STATUS\nS: * STATUS {10}\nS: INBOX\n! close", "down closed request", nil},
		{"a line too long", pw + "}", login + "C~ STATUS\nS: * " + strings.Repeat("STATUS ", 10000), "down too-large request", nil},
		{"too much", pw + "}", login + "C~ STATUS\n" + strings.Repeat("S: * 1 EXPUNGE\n", 5000), "down too-large request", nil},
		{"hangs", pw + `},"timeout":"200ms"`, login + "C~ STATUS\n! hang", "down timeout request", nil},
		{"hangs at LOGOUT", `"timeout":"200ms"`, imapHello + "C~ NOOP\nS: a1 OK\nC~ LOGOUT\nS: * BYE\n! hang", "down timeout request", nil},
		{"leaves", pw + "}", login + "C~ STATUS\nS: * BYE going down\n! close", "down unavailable request", nil},
		{"BYE at once", "", "S: * BYE too many", "down unavailable greet", nil},
		{"no greeting", "", "S: OK ready", "down protocol greet", nil},
		{"POP3", "", "S: +OK ready", "down protocol greet", nil},
		{"BAD", "", imapHello + "C~ NOOP\nS: a1 BAD what?", "down protocol request", nil},
		{"tag of another", "", imapHello + "C~ NOOP\nS: b1 OK", "down protocol request", nil},
		{"neither OK nor NO", "", imapHello + "C~ NOOP\nS: a1 WELL", "down protocol request", nil},
		{"no IMAP4", "", "S: * OK hi\nC~ CAPABILITY\nS: * CAPABILITY NONE\nS: a1 OK", "down protocol greet", nil},
	})
	check(t, "imap://mail.example.org", pw+`,"starttls":"off"}`).want(t, "unknown options prepare", "error contains 'imap.allow_plain_auth'")
	check(t, "imap://127.0.0.1:9", `"imap":{"mailbox":"a\r\nb"}`).want(t, "unknown options prepare", "error contains 'imap.mailbox'")
}

func TestIMAPStartTLS(t *testing.T) {
	hello := "S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi\nC: a1 STARTTLS\n"
	pw := `"imap":{"user":"tim","password":"` + secret(t, "IMAP", "tanstaaf") + `"}`
	talks(t, "imap://HOST", []talk{
		{"up", trustTestCA(), hello + "S: a1 OK go\n! tls\nC: a2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN\nS: a2 OK\nC: a3 NOOP\nS: a3 OK\nC: a4 LOGOUT\nS: a4 OK", "up",
			[]string{"imap.starttls", "tls.verified", "'AUTH=PLAIN' in imap.capabilities", "len(imap.capabilities) == 2"}},
		{"denied under TLS", trustTestCA() + "," + pw, hello + "S: a1 OK go\n! tls\nC~ CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=LOGIN\nS: a2 OK\nC: a3 AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: dGlt\nS: + UGFzc3dvcmQ6\nC: dGFuc3RhYWY=\nS: a3 NO no", "down denied auth", nil},
		{"untrusted", "", hello + "S: a1 OK go\n! tls", "down certificate-untrusted tls", nil},
		{"injected", trustTestCA(), hello + "S: a1 OK go\\\nSx 0d0a2a204f4b0d0a\n! tls", "down protocol tls", nil},
		{"refused", "", hello + "S: a1 NO not now", "down tls greet", nil},
		{"refused for now", "", hello + "S: a1 NO [UNAVAILABLE] not now", "down unavailable greet", nil},
		{"required", `"imap":{"starttls":"required"}`, imapHello, "down tls greet", nil},
	})
}

// FuzzIMAPMailbox: what is sent is a quoted string of printable ASCII that
// stands for the name.
func FuzzIMAPMailbox(f *testing.F) {
	for _, s := range []string{"INBOX", "~peter/mail/台北/日本語", "a&b", `a"b\c`, "Entwürfe", "😀x", "&", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) {
			return
		}
		sent := imapMailbox(name)
		inner := sent[1 : len(sent)-1]
		inner = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(inner)
		var back strings.Builder
		for inner != "" {
			if inner[0] < ' ' || inner[0] > '~' {
				t.Fatalf("%q became %q", name, sent)
			}
			if inner[0] != '&' {
				back.WriteByte(inner[0])
				inner = inner[1:]
				continue
			}
			text, rest, _ := strings.Cut(inner[1:], "-")
			raw, err := base64.RawStdEncoding.DecodeString(strings.ReplaceAll(text, ",", "/"))
			if err != nil || len(raw)%2 != 0 {
				t.Fatalf("%q became %q: %v", name, sent, err)
			}
			var units []uint16
			for i := 0; i < len(raw); i += 2 {
				units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
			}
			if text == "" {
				back.WriteByte('&')
			}
			back.WriteString(string(utf16.Decode(units)))
			inner = rest
		}
		if back.String() != name {
			t.Fatalf("%q became %q, which is %q", name, sent, back.String())
		}
	})
}

// The example of RFC 3501, section 5.1.3.
func TestIMAPMailbox(t *testing.T) {
	if got, want := imapMailbox("~peter/mail/台北/日本語"), `"~peter/mail/&U,BTFw-/&ZeVnLIqe-"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzIMAPResponse: what is taken for a literal is announced at the end.
func FuzzIMAPResponse(f *testing.F) {
	for _, s := range []string{"* STATUS {5}", "{3+}", "{}", "x{1}y", "{99999999999}", "{-1}", `* STATUS "a" (MESSAGES 1 UNSEEN x UIDNEXT -1`, `1 FETCH (INTERNALDATE "x`, "STATUS", `QUOTA "" (STORAGE 1 2 X 3 4`, "QUOTA STORAGE 1 4503599627370495"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if i, n, ok := imapLiteral([]byte(s)); ok && (n < 0 || s[i] != '{' || !strings.HasSuffix(s, "}") || strings.ContainsAny(s[i+1:], "{ ")) {
			t.Fatalf("%q: a literal of %d at %d", s, n, i)
		}
		var facts imapFacts
		facts.status(s)
		facts.quota(s)
		if facts.QuotaLimit != nil && (*facts.QuotaLimit <= 0 || *facts.QuotaUsed < 0) {
			t.Fatalf("%q: %d of %d", s, *facts.QuotaUsed, *facts.QuotaLimit)
		}
		if facts.Messages != nil && *facts.Messages < 0 || facts.Unseen != nil && *facts.Unseen < 0 {
			t.Fatalf("%q: %d, %d", s, facts.Messages, facts.Unseen)
		}
		if n, ok := imapNumber(s, "EXISTS"); ok && n < 0 {
			t.Fatalf("%q: %d", s, n)
		}
		imapDate(s)
		if c := imapCode(s); c != "" && !strings.HasPrefix(s, "["+c) {
			t.Fatalf("%q has code %q", s, c)
		}
	})
}
