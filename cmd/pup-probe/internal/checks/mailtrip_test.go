package checks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"pup/cmd/internal/realserver"
)

func TestMailtrip(t *testing.T) {
	pw := `"user":"tim@example.org","password":"` + secret(t, "TRIP", "tanstaaf") + `"`
	smtp := smtpHello + "C~ ^AUTH PLAIN\nS: 235 ok\n"
	taken := smtp + "C: MAIL FROM:<tim@example.org>\nS: 250 ok\nC: RCPT TO:<tim@example.org>\nS: 250 ok\nC: DATA\nS: 354 go\nC: From: <tim@example.org>\nC: To: <tim@example.org>\n" +
		"C~ ^Date: ..., .. ... .... ..:..:.. .....$\nC~ ^Message-ID: <\\w{26}@example.org>$\nC~ ^Subject: pupmailtrip \\w{26}$\nC: Auto-Submitted: auto-generated\nC~ ^$\nC~ deleted.$\nC: .\nS: 250 2.0.0 queued\nC: QUIT\nS: 221 bye"
	imap := imapHello + "C~ AUTHENTICATE\nS: a1 OK [CAPABILITY IMAP4rev1 UIDPLUS] in\nC: a2 SELECT \"INBOX\"\nS: * 3 EXISTS\nS: a2 OK\n"
	found := imap + "C: a3 NOOP\nS: a3 OK\nC~ ^a4 UID SEARCH SUBJECT \\w{26}$\nS: * SEARCH\nS: a4 OK\nC: a5 NOOP\nS: * 4 EXISTS\nS: a5 OK\nC~ ^a6 UID SEARCH SUBJECT \\w{26}$\nS: * SEARCH 17\nS: a6 OK\n" +
		"C~ ^a7 UID SEARCH SUBJECT pupmailtrip BEFORE \\d+-...-20..$\nS: * SEARCH 3 5\nS: a7 OK\n"
	pop3 := pop3Hello + "C~ ^AUTH PLAIN\nS: +OK in\n"
	for _, tt := range []struct {
		name, smtp, fetch, script, want string
		facts                           []string
	}{
		{"up", taken, "imap", found + "C: a8 UID STORE 3,5,17 +FLAGS.SILENT (\\Deleted)\nS: a8 OK\nC: a9 UID EXPUNGE 3,5,17\nS: a9 OK\nC: a10 LOGOUT\nS: a10 OK", "up",
			[]string{"mailtrip.deleted == 3", "mailtrip.leg == 'done'", "mailtrip.code == 250", "mailtrip.deliver_ms >= 10"}},
		{"not deleted", taken, "imap", found + "C~ STORE\nS: a8 NO [NOPERM] no", "down denied request", []string{"mailtrip.leg == 'delete'", "mailtrip.total_ms > 0"}},
		{"no number", taken, "imap", imap + "C~ NOOP\nS: a3 OK\nC~ SEARCH\nS: * SEARCH 1 1,2\nS: a4 OK\nC~ LOGOUT\n", "down protocol wait", []string{"mailtrip.leg == 'deliver'"}},
		{"mailbox fails first", smtp + "C: QUIT", "imap", imapHello + "C~ AUTHENTICATE\nS: a1 NO no", "down denied auth", []string{"mailtrip.leg == 'open'"}},
		{"no such mailbox", smtp + "C: QUIT", "imap", imapHello + "C~ AUTHENTICATE\nS: a1 OK [CAPABILITY IMAP4rev1] in\nC~ SELECT\nS: a2 NO none", "down mismatch request", nil},
		{"not taken", smtp + "C~ MAIL\nS: 250 ok\nC~ RCPT\nS: 250 ok\nC~ DATA\nS: 354 go\nC~ From\nC~ To\nC~ Date\nC~ Message\nC~ Subject\nC~ Auto\nC~ ^$\nC~ .\nC: .\nS: 554 5.7.1 spam\nC: QUIT", "imap", imap + "C~ LOGOUT", "down denied transfer",
			[]string{"mailtrip.leg == 'submit'", "mailtrip.enhanced_code == '5.7.1'"}},
		{"no DATA", smtp + "C~ MAIL\nS: 250 ok\nC~ RCPT\nS: 250 ok\nC~ DATA\nS: 452 full\nC: QUIT", "imap", imap + "C~ LOGOUT", "down unavailable request", nil},
		{"SMTP denies", smtpHello + "C~ AUTH\nS: 535 no\nC: QUIT", "imap", imap, "down denied auth", []string{"mailtrip.leg == 'submit'"}},
		{"POP3 has nothing", taken, "pop3", pop3 + "C: QUIT\nS: +OK", "down closed greet", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var once sync.Once // who comes again gets nothing
			box := serve(t, func(c net.Conn) { once.Do(func() { play(t, c, tt.script) }) })
			addr := serve(t, func(c net.Conn) { play(t, c, tt.smtp) })
			check(t, "mailtrip://"+addr, `"mailtrip":{`+pw+`,"poll":"10ms","fetch":"`+tt.fetch+"://"+box+`"}`).want(t, tt.want, tt.facts...)
		})
	}
	for target, want := range map[string]string{
		`"mailtrip":{` + pw + `,"fetch":"http://x"}`:                                       "mailtrip.fetch",
		`"mailtrip":{` + pw + `,"fetch":"imap://u@x"}`:                                     "fetch_user",
		`"mailtrip":{` + pw + `,"fetch":"imap://x:0"}`:                                     "port",
		`"mailtrip":{` + pw + `,"fetch":"imap://mail.example.org","fetch_starttls":"off"}`: "allow_plain_auth",
		`"mailtrip":{"to":"a@b","fetch_user":"u"}`:                                         "mailtrip.fetch_password",
		`"mailtrip":{"to":"a b"}`:                                                          "mailtrip.to",
	} {
		check(t, "mailtrip://127.0.0.1:9", target).want(t, "unknown options prepare", "error contains '"+want+"'")
	}
	addr := serve(t, func(c net.Conn) { play(t, c, smtpHello+"C: QUIT") })
	check(t, "mailtrip://"+addr, "").want(t, "unknown options greet", "error contains 'mailtrip.to'")
}

// TestMailtripContract has the second server lie, while the first one takes
// everything.
func TestMailtripContract(t *testing.T) {
	smtp := serve(t, func(c net.Conn) {
		io.WriteString(c, "220 mail.example.org ESMTP\r\n")
		message := false
		for lines := bufio.NewScanner(c); lines.Scan(); {
			verb, _, _ := strings.Cut(lines.Text(), " ")
			switch {
			case message && verb != ".":
				continue
			case verb == "EHLO":
				io.WriteString(c, "250-mail.example.org\r\n250 AUTH PLAIN\r\n")
			case verb == "AUTH":
				io.WriteString(c, "235 ok\r\n")
			case verb == "DATA":
				message = true
				io.WriteString(c, "354 go\r\n")
			default:
				message = false
				io.WriteString(c, "250 ok\r\n")
			}
		}
	})
	s := subject{runner: allowing()}
	login := `"user":"tim@example.org","password":"` + secret(t, "TRIP", "tanstaaf") + `"`
	for _, fetch := range []string{"imap", "pop3"} {
		fetchFrom := func(box string) string {
			return `"mailtrip":{` + login + `,"poll":"10ms","fetch":"` + fetch + "://" + box + `"}`
		}
		t.Run(fetch, func(t *testing.T) {
			s.run(t, "mailtrip://"+smtp, fetchFrom(realserver.ClosedPort(t))).want(t, "down refused connect", "mailtrip.leg == 'open'")
			s.lies(t, way{name: fetch, to: func(f func(net.Conn)) (url, target string) { return "mailtrip://" + smtp, fetchFrom(serve(t, f)) }})
		})
	}
	empty := fmt.Sprintf(`"mailtrip":{%s,"poll":"10ms","fetch":"imap://%s"}`, login, serve(t, func(c net.Conn) {
		io.WriteString(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
		for lines := bufio.NewScanner(c); lines.Scan(); {
			tag, _, _ := strings.Cut(lines.Text(), " ")
			io.WriteString(c, tag+" OK [CAPABILITY IMAP4rev1]\r\n")
		}
	}))
	s.run(t, "mailtrip://"+smtp, join(empty, `"timeout":"300ms"`)).want(t, "down timeout wait", "mailtrip.leg == 'deliver'")
}
