package checks

import (
	"net"
	"slices"
	"strings"
	"testing"
)

const smtpHello = `
	S: 220 mx.example.org ESMTP ready
	C: EHLO [127.0.0.1]
	S: 250-mx.example.org at your service
	S: 250-PIPELINING
	S: 250-SIZE 10240000
	S: 250-AUTH PLAIN LOGIN
	S: 250 8BITMIME
`

func TestSMTP(t *testing.T) {
	pw := `"smtp":{"user":"tim","password":"` + secret(t, "SMTP", "tanstaaf") + `"`
	talks(t, "smtp://HOST", []talk{
		{"up", "", smtpHello + "C: QUIT\nS: 221 2.0.0 bye", "up", []string{
			"smtp.greeting == 'mx.example.org ESMTP ready'", "smtp.host == 'mx.example.org'", "smtp.size_limit_bytes == 10240000",
			"same(smtp.capabilities, ['PIPELINING', 'SIZE', 'AUTH', '8BITMIME'])", "smtp.auth_mechanisms == ['PLAIN', 'LOGIN']",
			"smtp.starttls == false", "smtp.code == 250",
		}},
		{"closes at QUIT", "", smtpHello + "C: QUIT\n! close", "up", nil},
		{"hangs at QUIT", `"timeout":"200ms"`, smtpHello + "C: QUIT\n! hang", "down timeout request", nil},
		{"lines in the greeting", "", "S: 220-one\nS: 220-two\nS: 220 three\nC~ ^EHLO\nS: 250 x\nC: QUIT\nS: 221 bye", "up", []string{"smtp.greeting == `one\ntwo\nthree`"}},
		{"HELO", `"smtp":{"helo":"probe.example.org"}`, "S: 220 old\nC: EHLO probe.example.org\nS: 502 what?\nC: HELO probe.example.org\nS: 250 hello\nC: QUIT\nS: 221 bye", "up", []string{"smtp.host == 'hello'"}},
		{"too many connections", "", "S: 421 4.7.0 too many\n! close", "down unavailable greet", []string{"smtp.code == 421", "smtp.enhanced_code == '4.7.0'"}},
		{"no service", "", "S: 554 no SMTP here", "down unavailable greet", []string{"smtp.code == 554"}},
		{"refused for now", "", "S: 450 later", "down unavailable greet", nil},
		{"a greeting of 354", "", "S: 354 go", "down protocol greet", nil},
		{"codes differ", "", "S: 220 a\nC~ ^EHLO\nS: 250-x\nS: 251 y\nC: QUIT", "down protocol greet", nil},
		{"no code", "", "S: 220-a\nS: hello", "down protocol greet", nil},
		{"endless", "", strings.Repeat("S: 220-a\n", 200), "down too-large greet", nil},
		{"long line", "", "S: 220 " + strings.Repeat("a", 5000), "down protocol greet", nil},
		{"early end", "", "S: 220-a\n! close", "down closed greet", nil},
		{"EHLO refused", "", "S: 220 a\nC~ ^EHLO\nS: 450 no", "down unavailable greet", nil},
		{"HELO refused", "", "S: 220 a\nC~ ^EHLO\nS: 550 5.7.1 no\nC~ ^HELO\nS: 550 5.7.1 your name!", "down denied greet", nil},
		{"gone after EHLO", "", "S: 220 a\nC~ ^EHLO\n! close", "down closed greet", nil},

		{"plain", pw + "}", smtpHello + "C: AUTH PLAIN AHRpbQB0YW5zdGFhZg==\nS: 235 2.7.0 ok\nC: QUIT\nS: 221 bye", "up", []string{"smtp.mechanism == 'PLAIN'"}},
		{"login", pw + `,"mechanism":"LOGIN"}`, smtpHello + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGlt\nS: 334 UGFzc3dvcmQ6\nC: dGFuc3RhYWY=\nS: 235 ok\nC: QUIT\nS: 221 bye", "up", nil},
		{"login comes short", pw + `,"mechanism":"LOGIN"}`, smtpHello + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGlt\nS: 235 ok\nC: QUIT", "down protocol auth", nil},
		{"denied", pw + "}", smtpHello + "C~ AUTH PLAIN\nS: 535 5.7.8 wrong\nC: QUIT", "down denied auth", []string{"smtp.enhanced_code == '5.7.8'", "error contains 'wrong'"}},
		{"credentials come back", pw + "}", smtpHello + "C~ AUTH PLAIN\nS: 535 what is AHRpbQB0YW5zdGFhZg==?\nC: QUIT", "down denied auth", []string{"error contains 'what is ***?'"}},
		{"no login now", pw + "}", smtpHello + "C~ AUTH PLAIN\nS: 454 4.7.0 later", "down unavailable auth", nil},
		{"no base64", pw + `,"mechanism":"CRAM-MD5"}`, smtpHello + "C: AUTH CRAM-MD5\nS: 334 ~~~~", "down protocol auth", nil},
		{"SCRAM without proof", pw + `,"mechanism":"SCRAM-SHA-256"}`, smtpHello + "C~ ^AUTH SCRAM-SHA-256 biwsbj10aW0scj\nS: 235 come in", "down protocol auth", []string{"error contains 'proved'"}},
		{"no login offered", pw + "}", "S: 220 a\nC~ ^EHLO\nS: 250 x\nC: QUIT", "down denied auth", nil},
		{"no common mechanism", pw + "}", "S: 220 a\nC~ ^EHLO\nS: 250-x\nS: 250 AUTH GSSAPI\nC: QUIT", "down denied auth", nil},

		{"message", `"smtp":{"from":"a@example.org","to":["b@example.org","c@example.org"],"size_bytes":1000}`,
			smtpHello + "C: MAIL FROM:<a@example.org> SIZE=1000\nS: 250 2.1.0 ok\nC: RCPT TO:<b@example.org>\nS: 250 2.1.5 ok\nC: RCPT TO:<c@example.org>\nS: 251 ok\nC: RSET\nS: 250 2.0.0 ok\nC: QUIT\nS: 221 bye",
			"up", []string{"smtp.accepted == 2", "smtp.code == 251"}},
		{"unknown recipient", `"smtp":{"to":["b@example.org"]}`, smtpHello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@example.org>\nS: 550 5.1.1 who?\nC: QUIT", "down mismatch request",
			[]string{"smtp.accepted == 0", "smtp.enhanced_code == '5.1.1'"}},
		{"no relay", `"smtp":{"to":["b@example.org"]}`, smtpHello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@example.org>\nS: 554 5.7.1 relay access denied\nC: QUIT", "down denied request", nil},
		{"login wanted", `"smtp":{"from":"a@example.org"}`, smtpHello + "C: MAIL FROM:<a@example.org>\nS: 530 log in first\nC: QUIT", "down denied request", nil},
		{"full", `"smtp":{"size_bytes":5}`, smtpHello + "C: MAIL FROM:<> SIZE=5\nS: 452 4.3.1 disk full\nC: QUIT", "down unavailable request", nil},
		{"too big", `"smtp":{"size_bytes":5}`, smtpHello + "C: MAIL FROM:<> SIZE=5\nS: 552 5.3.4 too big\nC: QUIT", "down mismatch request", nil},
		{"size can't be said", `"smtp":{"size_bytes":5}`, "S: 220 a\nC~ ^EHLO\nS: 250 x\nC: QUIT", "down mismatch request", nil},
		{"greylisted", `"smtp":{"to":["b@example.org"]}`, smtpHello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@example.org>\nS: 451 4.7.1 later\nC: QUIT", "down unavailable request", nil},
		{"greylisting", `"smtp":{"to":["b@example.org"],"greylisting":true}`, smtpHello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@example.org>\nS: 451 4.7.1 later\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "up",
			[]string{"smtp.greylisted == 1", "smtp.accepted == 0", "smtp.code == 451"}},
		{"hangs at MAIL", `"smtp":{"to":["b@example.org"]},"timeout":"200ms"`, smtpHello + "C: MAIL FROM:<>\n! hang", "down timeout request", nil},
		{"leaves at MAIL", `"smtp":{"to":["b@example.org"]}`, smtpHello + "C: MAIL FROM:<>\nS: 421 4.4.2 shutting down\n! close", "down unavailable request", nil},

		{"open relay", `"smtp":{"relay_test":"x@relay.invalid"}`, smtpHello + "C: MAIL FROM:<x@relay.invalid>\nS: 250 ok\nC: RCPT TO:<x@relay.invalid>\nS: 250 ok\nC: QUIT", "down mismatch request", []string{"smtp.relay == 'open'"}},
		{"closed relay", `"smtp":{"relay_test":"x@relay.invalid"}`, smtpHello + "C: MAIL FROM:<x@relay.invalid>\nS: 250 ok\nC: RCPT TO:<x@relay.invalid>\nS: 554 no\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "up", []string{"smtp.relay == 'closed'"}},
		{"perhaps a relay", `"smtp":{"relay_test":"x@relay.invalid"}`, smtpHello + "C: MAIL FROM:<x@relay.invalid>\nS: 450 no\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "up", []string{"smtp.relay == 'unclear'"}},
	})
}

func TestSMTPStartTLS(t *testing.T) {
	hello := "S: 220 a\nC~ ^EHLO\nS: 250-x\nS: 250-STARTTLS\nS: 250 SIZE\nC: STARTTLS\n"
	pw := `"smtp":{"user":"tim","password":"` + secret(t, "SMTP", "tanstaaf") + `"`
	talks(t, "smtp://HOST", []talk{
		{"auto", trustTestCA(), hello + "S: 220 go\n! tls\nC~ ^EHLO\nS: 250-x\nS: 250 AUTH PLAIN\nC: QUIT\nS: 221 bye", "up",
			[]string{"smtp.starttls == true", "tls.verified == true", "same(smtp.capabilities, ['AUTH'])", "smtp.auth_mechanisms == ['PLAIN']"}},
		{"login under TLS", trustTestCA() + "," + pw + "}", hello + "S: 220 go\n! tls\nC~ ^EHLO\nS: 250-x\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHRpbQB0YW5zdGFhZg==\nS: 235 ok\nC: QUIT\nS: 221 bye", "up", nil},
		{"untrusted", "", hello + "S: 220 go\n! tls", "down certificate-untrusted tls", []string{"smtp.starttls == true"}},
		{"injected", trustTestCA(), hello + "S: 220 go\\\nSx 0d0a3235300d0a\n! tls", "down protocol tls", nil},
		{"refused for now", "", hello + "S: 454 4.7.0 no TLS today\nC: QUIT", "down unavailable greet", nil},
		{"refused", "", hello + "S: 502 no TLS\nC: QUIT", "down tls greet", nil},
		{"no TLS", "", hello + "S: 220 go\nCx 16\nS: 250 I speak plainly", "down tls tls", nil},
		{"off", `"smtp":{"starttls":"off"}`, strings.Replace(hello, "C: STARTTLS\n", "C: QUIT\nS: 221 bye", 1), "up", []string{"smtp.starttls == true"}},
		{"required", `"smtp":{"starttls":"required"}`, smtpHello + "C: QUIT", "down tls greet", []string{"smtp.starttls == false"}},
	})
	// credentials leave in plain text to this machine (see TestLoginThroughProxy for others)
	addr := serve(t, func(c net.Conn) { play(t, c, smtpHello+"C~ AUTH\nS: 535 no\nC: QUIT") })
	check(t, "smtp://mail.example.org", pw+`},"connect":"`+addr+`"`).want(t, "down denied auth", "error contains 'AUTH'")
	check(t, "smtp://mail.example.org", pw+`,"starttls":"off"}`).want(t, "unknown options prepare", "error contains 'smtp.allow_plain_auth'")
	check(t, "smtp://127.0.0.1:9", `"smtp":{"password":"`+secret(t, "SMTP", "x")+`"}`).want(t, "unknown options prepare", "error contains 'smtp.user'")
	check(t, "smtp://tim@127.0.0.1:9", "").want(t, "unknown options prepare", "error contains 'smtp.password'")
	check(t, "smtp://127.0.0.1:9", `"smtp":{"user":"tim","password":"`+secret(t, "CRLF", "a\r\nb")+`"}`).want(t, "unknown options prepare", "error contains 'smtp.password'")
	check(t, "smtp://127.0.0.1:9", `"smtp":{"from":"a@b>\r\nDATA"}`).want(t, "unknown options prepare", "error contains 'smtp.from'")
	check(t, "smtp://127.0.0.1:9", `"smtp":{"to":["a@b\r"]}`).want(t, "unknown options prepare", "error contains 'smtp.to'")
	check(t, "smtp://127.0.0.1:9", `"smtp":{"helo":"a\nb"}`).want(t, "unknown options prepare", "error contains 'smtp.helo'")
}

func TestLMTP(t *testing.T) {
	hello := "S: 220 store LMTP\nC: LHLO [127.0.0.1]\nS: 250-store\nS: 250 ENHANCEDSTATUSCODES\n"
	talks(t, "lmtp://HOST", []talk{
		{"up", "", hello + "C: QUIT\nS: 221 bye", "up", []string{"lmtp.host == 'store'"}},
		{"mailbox", `"lmtp":{"to":["a@example.org"]}`, hello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@example.org>\nS: 250 ok\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "up", []string{"lmtp.accepted == 1"}},
		{"no mailbox", `"lmtp":{"to":["a@example.org"]}`, hello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@example.org>\nS: 550 5.1.1 who?\nC: QUIT", "down mismatch request", nil},
		{"over quota", `"lmtp":{"to":["a@example.org"]}`, hello + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@example.org>\nS: 452 4.2.2 full\nC: QUIT", "down unavailable request", nil},
		{"SMTP instead", "", "S: 220 mx ESMTP\nC~ ^LHLO\nS: 500 what?\nC: QUIT", "down protocol greet", nil},
	})
}

// FuzzSMTPReply: what is taken for a reply is made of lines that all begin
// with its code, and only the last of which has no hyphen behind it.
func FuzzSMTPReply(f *testing.F) {
	for _, s := range []string{"220 a", "250-a\r\n250 b", "250-a\n250", "250-2.0.0 a\n250 2.0.0 b", "999 x", "250-a\n251 b", "2 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var lines []string
		first := 0
		for line := range strings.SplitSeq(text, "\n") {
			code, rest, more, ok := smtpLine(line)
			if !ok {
				return
			}
			if code < 200 || code > 599 {
				t.Fatalf("%q has the code %d", line, code)
			}
			if first == 0 {
				first = code
			}
			sep := " "
			if more {
				sep = "-"
			}
			back := strings.TrimSpace(line[:3] + sep + rest)
			if strings.TrimSpace(line) != back && len(line) > 3 {
				t.Fatalf("%q was read as %q", line, back)
			}
			if lines = append(lines, rest); !more {
				break
			}
		}
		if len(lines) > smtpMaxLines {
			return
		}
		s := &smtpSession{facts: &smtpSessionFacts{}}
		s.offer(strings.ToUpper(strings.Join(lines, " ")))
		if slices.Contains(s.facts.Capabilities, "") || strings.Contains(strings.Join(s.facts.Capabilities, ""), " ") {
			t.Fatalf("capabilities %q", s.facts.Capabilities)
		}
	})
}
