package checks

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// between stands between a check and a real server. Before it passes on what
// holds the trigger, it calls f.
func between(t *testing.T, addr, trigger string, f func()) string {
	return serve(t, func(c net.Conn) {
		up, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		go func() { io.Copy(c, up); c.Close() }()
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte(trigger)) {
				f()
			}
			if _, err := up.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// mailTrust is the member of a target that makes it trust the servers' certificates.
func mailTrust(says map[string]string) string { return fmt.Sprintf(`"tls":{"ca":%q}`, says["ca"]) }

// mailLogin are options of a check, for the user with mail in the box.
func mailLogin(t *testing.T, says map[string]string, password string) string {
	return fmt.Sprintf(`"user":%q,"password":%q`, says["user"], secret(t, "MAIL_"+strings.ToUpper(password[:3]), password))
}

func TestSMTPReal(t *testing.T) {
	says := realserver.Shared(t, "mail")
	trust, login := mailTrust(says), mailLogin(t, says, says["password"])
	envelope := `"from":"tim@example.test","to":["tim@example.test","tina@example.test"]`
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"plain", "smtp://" + says["smtp"], `"smtp":{"starttls":"off",` + envelope + `}`, "up", []string{
			"smtp.accepted == 2", "'PIPELINING' in smtp.capabilities", "smtp.size_limit_bytes == 1000000", "smtp.host == 'mail.example.test'", "smtp.starttls == true"}},
		{"STARTTLS and login", "smtp://" + says["smtp"], trust + `,"smtp":{` + login + `,` + envelope + `}`, "up", []string{
			"smtp.mechanism == 'SCRAM-SHA-256'", "tls.verified == true", "smtp.accepted == 2"}},
		{"TLS", "smtps://" + says["smtps"], trust + `,"smtp":{` + login + `,"mechanism":"PLAIN"}`, "up", []string{"smtp.mechanism == 'PLAIN'", "tls.verified == true"}},
		{"LOGIN", "submission://" + says["submission"], trust + `,"smtp":{` + login + `,"mechanism":"LOGIN"}`, "up", nil},
		{"CRAM-MD5", "submission://" + says["submission"], trust + `,"smtp":{` + login + `,"mechanism":"CRAM-MD5"}`, "up", nil},
		{"SCRAM-SHA-1", "submission://" + says["submission"], trust + `,"smtp":{` + login + `,"mechanism":"SCRAM-SHA-1","to":["tina@example.test"]}`, "up", nil},
		{"wrong password", "submission://" + says["submission"], trust + `,"smtp":{` + mailLogin(t, says, "wrong") + `}`, "down denied auth", []string{"smtp.code == 535"}},
		{"no credentials", "submission://" + says["submission"], trust + `,"smtp":{"to":["tina@example.test"]}`, "down denied request", nil},
		{"no TLS where it must be", "submission://" + says["submission"], `"smtp":{"starttls":"off","from":"tim@example.test"}`, "down denied request", []string{"smtp.code == 530"}},
		{"no such user", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","to":["nobody@example.test"]}`, "down mismatch request", []string{"smtp.enhanced_code == '5.1.1'"}},
		{"too large", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","size_bytes":1000001}`, "down mismatch request", []string{"smtp.code == 552"}},
		{"closed relay", "smtp://" + says["smtp"], trust + `,"smtp":{` + login + `,"relay_test":"x@foreign.invalid"}`, "up", []string{"smtp.relay == 'closed'", "smtp.mechanism != ''"}},
		{"open relay", "smtp://" + says["relay"], `"smtp":{"starttls":"off","relay_test":"x@foreign.invalid"}`, "down mismatch request", []string{"smtp.relay == 'open'"}},
		{"greylisted", "smtp://" + says["greylist"], `"smtp":{"starttls":"off","to":["tina@example.test"]}`, "down unavailable request", []string{"smtp.code == 451"}},
		{"greylisting", "smtp://" + says["greylist"], `"smtp":{"starttls":"off","to":["tina@example.test"],"greylisting":true}`, "up", []string{"smtp.greylisted == 1"}},
		{"refusing", "smtp://" + says["refusing"], "", "down unavailable greet", []string{"smtp.code == 554"}},
		{"expired", "smtp://" + says["expired"], trust, "down certificate-expired tls", []string{"tls.days_left < 0"}},
		{"IMAP instead", "smtp://" + says["imap"], "", "down protocol greet", nil},
		{"LMTP instead", "smtp://" + says["lmtp"], `"smtp":{"starttls":"off"}`, "down protocol greet", nil},
		{"TLS instead", "smtp://" + says["smtps"], `"timeout":"300ms"`, "down timeout greet", nil},
		{"no TLS instead", "smtps://" + says["smtp"], "", "down tls tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

func TestLMTPReal(t *testing.T) {
	says := realserver.Shared(t, "mail")
	trust := mailTrust(says)
	for _, tt := range []struct{ name, url, target, want string }{
		{"up", "lmtp://" + says["lmtp"], trust + `,"lmtp":{"to":["tim@example.test"]}`, "up"},
		{"no such mailbox", "lmtp://" + says["lmtp"], trust + `,"lmtp":{"to":["tim@example.test","nobody@example.test"]}`, "down mismatch request"},
		{"SMTP instead", "lmtp://" + says["smtp"], "", "down protocol greet"},
		{"POP3 instead", "lmtp://" + says["pop3"], "", "down protocol greet"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want) })
	}
}

// TestMailInterrupted stops servers in the middle of a session.
func TestMailInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name, server, key, target, trigger string
		paused, killed                     string
	}{
		{"smtp", "postfix", "smtp", `"smtp":{"starttls":"off","to":["tim@example.test"]}`, "RCPT", "down timeout request", "down closed request"},
		{"lmtp", "dovecot", "lmtp", `"lmtp":{"starttls":"off","to":["tim@example.test"]}`, "RCPT", "down timeout request", "down closed request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			says := realserver.Start(t, "mail")
			run := func(f func()) result {
				addr := between(t, says[tt.key], tt.trigger, f)
				return check(t, tt.name+"://"+addr, tt.target+`,"timeout":"1s"`)
			}
			run(func() {}).want(t, "up")
			run(func() { realserver.Pause(t, says, tt.server) }).want(t, tt.paused)
			check(t, tt.name+"://"+says[tt.key], tt.target+`,"timeout":"300ms"`).want(t, "down timeout greet")
			realserver.Resume(t, says, tt.server)
			run(func() { realserver.Kill(t, says, tt.server) }).want(t, tt.killed)
		})
	}
}
