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

// wantGone checks that the server was found to have gone away in the given
// phase. Whether its kernel says so with a reset depends on what was under way.
func wantGone(t *testing.T, res result, phase string) {
	t.Helper()
	if got := res.outcome(); got != "down closed "+phase && got != "down reset "+phase {
		t.Errorf("got %q, want down closed or reset %s\n%s", got, phase, res.line)
	}
}

// A name such as localhost says nothing of where a proxy leads to: credentials
// go there under TLS only, unless the target says otherwise.
func TestLoginThroughProxy(t *testing.T) {
	pw := `"user":"tim","password":"` + secret(t, "LOGIN_PROXY", "tanstaaf") + `"`
	for name, script := range map[string]string{"smtp": smtpHello, "imap": imapHello, "pop3": pop3Hello, "mysql": mysqlServer(0, string(mysqlHello("8.0.35", mysqlNative, mysqlTestCaps)))} {
		off := "unknown options prepare"
		if name == "mysql" { // whether it needs TLS, the server says
			off = "unknown options greet"
		}
		for starttls, want := range map[string]string{"off": off, "auto": "down tls greet"} {
			proxy := brokerProxy(t, serve(t, func(c net.Conn) {
				play(t, c, script+"! end")
				b, _ := io.ReadAll(c)
				if plain := strings.TrimSpace(strings.ToUpper(string(b))); plain != "" && plain != "QUIT" && !strings.HasSuffix(plain, "LOGOUT") {
					t.Errorf("%s: the check sent %q", name, b)
				}
			}))
			check(t, name+"://localhost:9", fmt.Sprintf(`%s,%q:{%s,"starttls":%q}`, proxy, name, pw, starttls)).want(t, want, "error contains '"+name+".allow_plain_auth'")
		}
	}
}

// What is at the other end of a proxy is not this machine, whatever it is called.
func TestCredentialsThroughProxy(t *testing.T) {
	pw := fmt.Sprintf(`"user":"tim","password":%q`, secret(t, "CREDENTIALS_PROXY", "tanstaaf"))
	for name, want := range map[string]string{"http": "unknown options prepare", "etcd": "unknown options prepare", "elasticsearch": "unknown options prepare"} {
		target := fmt.Sprintf(`%q:{%s}`, name, pw)
		check(t, name+"://localhost:9", brokerProxy(t, realserver.ClosedPort(t))+","+target).want(t, want, "error contains '"+name+".allow_plain_auth'")
		check(t, name+"://localhost:9", `"connect":"192.0.2.1:9",`+target).want(t, want, "error contains '"+name+".allow_plain_auth'")
		check(t, name+"://www.example.org:9", `"connect":"`+realserver.ClosedPort(t)+`",`+target).want(t, "down refused connect")
	}
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

// TestSMTPExim is about what Exim does otherwise than Postfix.
func TestSMTPExim(t *testing.T) {
	says := realserver.Start(t, "exim")
	trust, login := mailTrust(says), mailLogin(t, says, says["password"])
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"plain", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","from":"a@example.org","to":["tim@example.test"]}`, "up", []string{
			"smtp.accepted == 1", "smtp.size_limit_bytes == 1048576", "smtp.greeting contains 'Exim'", "smtp.starttls == true"}},
		{"STARTTLS and login", "smtp://" + says["smtp"], trust + `,"smtp":{` + login + `,"to":["x@foreign.invalid"]}`, "up", []string{"smtp.mechanism == 'PLAIN'", "tls.verified"}},
		{"CRAM-MD5", "smtp://" + says["smtp"], `"smtp":{` + login + `,"starttls":"off","mechanism":"CRAM-MD5"}`, "up", nil},
		{"LOGIN over TLS", "smtps://" + says["smtps"], trust + `,"smtp":{` + login + `,"mechanism":"LOGIN"}`, "up", nil},
		{"wrong password", "smtps://" + says["smtps"], trust + `,"smtp":{` + mailLogin(t, says, "wrong") + `}`, "down denied auth", []string{"smtp.code == 535"}},
		{"closed relay", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","relay_test":"x@foreign.invalid"}`, "up", []string{"smtp.relay == 'closed'"}},
		{"refused for now", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","to":["` + says["unavailable"] + `"]}`, "down unavailable request", []string{"smtp.code == 451"}},
		{"unknown user", "smtp://" + says["smtp"], `"smtp":{"starttls":"off","to":["nobody@example.test"]}`, "down mismatch request", []string{"smtp.code == 550"}},
		{"LMTP instead", "lmtp://" + says["smtp"], "", "down protocol greet", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
	realserver.Pause(t, says, "exim")
	check(t, "smtp://"+says["smtp"], `"timeout":"300ms"`).want(t, "down timeout greet")
	realserver.Resume(t, says, "exim")
	realserver.Kill(t, says, "exim")
	check(t, "smtp://"+says["smtp"], "").want(t, "down refused connect")
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

func TestIMAPReal(t *testing.T) {
	says := realserver.Shared(t, "mail")
	trust, login := mailTrust(says), mailLogin(t, says, says["password"])
	found := []string{"imap.messages == 3", "imap.unseen == 2", "imap.newest_age_ms > 100 * 60000", "imap.newest_age_ms < 120 * 60000", "imap.logged_in", "imap.uid_next == 4", "imap.quota_limit_bytes == 1048576", "imap.quota_used_bytes >= 0"}
	empty := fmt.Sprintf(`"user":%q,"password":%q`, says["empty_user"], secret(t, "EMPTY", says["empty_password"]))
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"STARTTLS", "imap://" + says["imap"], trust + `,"imap":{` + login + `}`, "up", append(found, "imap.mechanism == 'SCRAM-SHA-256'", "imap.starttls", "tls.verified")},
		{"TLS", "imaps://" + says["imaps"], trust + `,"imap":{` + login + `,"mechanism":"PLAIN"}`, "up", append(found, "tls.verified")},
		{"plain", "imap://" + says["imap"], `"imap":{` + login + `,"starttls":"off","mechanism":"CRAM-MD5"}`, "up", found},
		{"LOGIN", "imap://" + says["imap"], `"imap":{` + login + `,"starttls":"off","mechanism":"LOGIN"}`, "up", found},
		{"user of the URL", "imap://" + strings.Replace(says["user"], "@", "%40", 1) + "@" + says["imap"], `"imap":{"starttls":"off",` + login[strings.Index(login, `"password"`):] + `}`, "up", found},
		{"empty", "imap://" + says["imap"], `"imap":{` + empty + `,"starttls":"off"}`, "up", []string{"imap.messages == 0", "imap.unseen == 0"}},
		{"no login", "imaps://" + says["imaps"], trust, "up", []string{"imap.logged_in == false", "'AUTH=PLAIN' in imap.capabilities"}},
		{"wrong password", "imaps://" + says["imaps"], trust + `,"imap":{` + mailLogin(t, says, "wrong") + `}`, "down denied auth", []string{"imap.logged_in == false"}},
		{"no such mailbox", "imaps://" + says["imaps"], trust + `,"imap":{` + login + `,"mailbox":"Entwürfe"}`, "down mismatch request", []string{"imap.logged_in"}},
		{"SMTP instead", "imap://" + says["smtp"], "", "down protocol greet", nil},
		{"POP3 instead", "imaps://" + says["pop3s"], trust, "down protocol greet", nil},
		{"TLS instead", "imap://" + says["imaps"], `"timeout":"300ms"`, "down timeout greet", nil},
		{"no TLS instead", "imaps://" + says["imap"], "", "down tls tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

func TestPOP3Real(t *testing.T) {
	says := realserver.Shared(t, "mail")
	trust, login := mailTrust(says), mailLogin(t, says, says["password"])
	found := []string{"pop3.messages == 3", "pop3.size_bytes > 300", "pop3.newest_age_ms > 100 * 60000", "pop3.newest_age_ms < 120 * 60000", "pop3.logged_in"}
	empty := fmt.Sprintf(`"user":%q,"password":%q`, says["empty_user"], secret(t, "EMPTY", says["empty_password"]))
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"STLS", "pop3://" + says["pop3"], trust + `,"pop3":{` + login + `}`, "up", append(found, "pop3.mechanism == 'SCRAM-SHA-256'", "pop3.starttls", "tls.verified")},
		{"TLS", "pop3s://" + says["pop3s"], trust + `,"pop3":{` + login + `,"mechanism":"PLAIN"}`, "up", append(found, "tls.verified")},
		{"LOGIN", "pop3://" + says["pop3"], `"pop3":{` + login + `,"starttls":"off","mechanism":"LOGIN"}`, "up", found},
		{"empty", "pop3://" + says["pop3"], `"pop3":{` + empty + `,"starttls":"off"}`, "up", []string{"pop3.messages == 0"}},
		{"no login", "pop3s://" + says["pop3s"], trust, "up", []string{"pop3.logged_in == false", "'UIDL' in pop3.capabilities"}},
		{"wrong password", "pop3s://" + says["pop3s"], trust + `,"pop3":{` + mailLogin(t, says, "wrong") + `}`, "down denied auth", []string{"pop3.logged_in == false"}},
		{"SMTP instead", "pop3://" + says["smtp"], "", "down protocol greet", nil},
		{"IMAP instead", "pop3s://" + says["imaps"], trust, "down protocol greet", nil},
		{"TLS instead", "pop3://" + says["pop3s"], `"timeout":"300ms"`, "down timeout greet", nil},
		{"no TLS instead", "pop3s://" + says["pop3"], "", "down tls tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

func TestMailtripReal(t *testing.T) {
	says := realserver.Start(t, "mail")
	trust := mailTrust(says)
	login := fmt.Sprintf(`"fetch_user":%q,"fetch_password":%q`, says["empty_user"], secret(t, "EMPTY", says["empty_password"]))
	wrong := fmt.Sprintf(`"fetch_user":%q,"fetch_password":%q`, says["empty_user"], secret(t, "NOT", "wrong"))
	to := `"to":"tina@example.test","poll":"50ms",`
	arrives := []string{"mailtrip.leg == 'done'", "mailtrip.deleted == 1", "mailtrip.submit_ms > 0", "mailtrip.deliver_ms > 0", "mailtrip.total_ms >= mailtrip.deliver_ms", "mailtrip.code == 250"}
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"IMAP", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + login + `,"fetch":"imap://` + says["imap"] + `"}`, "up", arrives},
		{"POP3", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + login + `,"fetch":"pop3://` + says["pop3"] + `"}`, "up", arrives},
		{"all TLS, all logins", "mailtrips://" + says["smtps"], trust + `,"mailtrip":{"poll":"50ms",` + mailLogin(t, says, says["password"]) + `,"fetch":"imaps://` + says["imaps"] + `"}`, "up", arrives},
		{"POP3 over TLS", "mailtrips://" + says["smtps"], trust + `,"mailtrip":{` + to + login + `,"fetch":"pop3s://` + says["pop3s"] + `"}`, "up", arrives},
		{"SMTP password", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + mailLogin(t, says, "wrong") + `,"fetch":"imap://` + says["imap"] + `"}`, "down denied auth", []string{"mailtrip.leg == 'submit'"}},
		{"IMAP password", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + wrong + `,"fetch":"imap://` + says["imap"] + `"}`, "down denied auth", []string{"mailtrip.leg == 'open'"}},
		{"POP3 password", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + wrong + `,"fetch":"pop3://` + says["pop3"] + `"}`, "down denied auth", []string{"mailtrip.leg == 'open'"}},
		{"another mailbox", "mailtrip://" + says["smtp"], trust + `,"timeout":"3s","mailtrip":{"to":"tim@example.test","poll":"50ms",` + login + `,"fetch":"imap://` + says["imap"] + `"}`, "down timeout wait",
			[]string{"mailtrip.leg == 'deliver'", "error contains 'not seen'"}},
		{"thrown away", "mailtrip://" + says["relay"], trust + `,"timeout":"3s","mailtrip":{"to":"x@foreign.invalid","poll":"50ms",` + login + `,"fetch":"pop3://` + says["pop3"] + `"}`, "down timeout wait", []string{"mailtrip.leg == 'deliver'"}},
		{"no such recipient", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{"to":"nobody@example.test",` + login + `,"fetch":"imap://` + says["imap"] + `"}`, "down mismatch request", []string{"mailtrip.leg == 'submit'", "mailtrip.code == 550"}},
		{"SMTP where IMAP should be", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + login + `,"fetch":"imap://` + says["smtp"] + `"}`, "down protocol greet", []string{"mailtrip.leg == 'open'"}},
		{"nothing where IMAP should be", "mailtrip://" + says["smtp"], trust + `,"mailtrip":{` + to + login + `,"fetch":"imap://` + realserver.ClosedPort(t) + `"}`, "down refused connect", []string{"mailtrip.leg == 'open'"}},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
	// nothing is left behind in a mailbox that only trips go to
	check(t, "imap://"+says["imap"], fmt.Sprintf(`"imap":{"user":%q,"password":%q,"starttls":"off"}`, says["empty_user"], secret(t, "EMPTY", says["empty_password"]))).want(t, "up", "imap.messages == 0")

	target := trust + `,"timeout":"3s","mailtrip":{` + to + login + `,"fetch":"imap://` + says["imap"] + `"}`
	paused := between(t, says["smtp"], "MAIL FROM", func() { realserver.Pause(t, says, "dovecot") })
	check(t, "mailtrip://"+paused, strings.Replace(target, `"mailtrip":{`, `"mailtrip":{"starttls":"off",`, 1)).want(t, "down timeout wait", "mailtrip.leg == 'deliver'", "mailtrip.submit_ms > 0")
	realserver.Resume(t, says, "dovecot")
	killed := between(t, says["smtp"], "MAIL FROM", func() { realserver.Kill(t, says, "dovecot") })
	wantGone(t, check(t, "mailtrip://"+killed, strings.Replace(target, `"mailtrip":{`, `"mailtrip":{"starttls":"off",`, 1)), "wait")
}

// TestMailInterrupted stops servers in the middle of a session.
func TestMailInterrupted(t *testing.T) {
	says := realserver.Start(t, "mail")
	login := mailLogin(t, says, says["password"])
	for _, tt := range []struct {
		name, server, options, trigger string
		kill                           bool
	}{
		{"smtp", "postfix", `"to":["tim@example.test"]`, "RCPT", true},
		{"lmtp", "dovecot", `"to":["tim@example.test"]`, "RCPT", false},
		{"pop3", "dovecot", login, "STAT", false},
		{"imap", "dovecot", login, "STATUS", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := `"timeout":"3s","` + tt.name + `":{"starttls":"off",` + tt.options + `}`
			run := func(f func()) result { return check(t, tt.name+"://"+between(t, says[tt.name], tt.trigger, f), target) }
			run(func() {}).want(t, "up")
			run(func() { realserver.Pause(t, says, tt.server) }).want(t, "down timeout request")
			check(t, tt.name+"://"+says[tt.name], `"timeout":"300ms"`).want(t, "down timeout greet")
			realserver.Resume(t, says, tt.server)
			if tt.kill {
				wantGone(t, run(func() { realserver.Kill(t, says, tt.server) }), "request")
			}
		})
	}
}

// TestMailStrangers has each check meet the servers of all the others, which
// greet alike.
func TestMailStrangers(t *testing.T) {
	mail, ftp, ssh := realserver.Shared(t, "mail"), realserver.Shared(t, "ftp"), realserver.Shared(t, "ssh")
	exim := realserver.Start(t, "exim")
	servers := map[string]string{
		"smtp": mail["smtp"], "exim": exim["smtp"], "lmtp": mail["lmtp"], "imap": mail["imap"], "pop3": mail["pop3"],
		"ftp": ftp["ftp"], "ssh": ssh["ssh"], "dropbear": ssh["dropbear"],
	}
	own := map[string]string{"exim": "smtp", "dropbear": "ssh"}
	for server, addr := range servers {
		for _, target := range []string{
			"smtp://HOST", "lmtp://HOST", "imap://HOST", "pop3://HOST", "mailtrip://HOST", "ftp://HOST", "ftp://HOST/file", "ssh://HOST", "sftp://HOST",
		} {
			name, _, _ := strings.Cut(target, ":")
			alike := name == server || name == own[server] || name == "mailtrip" && (server == "smtp" || server == "exim") || name == "sftp" && (server == "ssh" || server == "dropbear")
			if alike {
				continue
			}
			t.Run(target[:len(target)-len("HOST")]+server, func(t *testing.T) {
				options := ""
				if name != "ssh" && name != "sftp" {
					options = `"` + name + `":{"starttls":"off"}`
				}
				res := check(t, strings.Replace(target, "HOST", addr, 1), options)
				hangsUp := server == "ftp" && (name == "smtp" || name == "mailtrip") // ProFTPD does so when it hears SMTP
				if got := res.outcome(); !strings.HasPrefix(got, "down protocol ") && !(hangsUp && got == "down closed greet") {
					t.Errorf("got %q, want down protocol\n%s", got, res.line)
				}
			})
		}
	}
}
