package checks

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

const ftpHello = "S: 220-pup\nS: 220 ready\nC: FEAT\nS: 211-Features:\nS:  MLST type*;size*;modify*;\nS:  MDTM\nS:  AUTH SSL\nS: 211 End\n"

func TestFTP(t *testing.T) {
	pw := `"user":"tim","password":"` + secret(t, "FTP", "tanstaaf") + `"`
	feat := "C: FEAT\nS: 211-\nS:  MLST type*;size*;modify*;\nS: 211 End\n"
	login := ftpHello + "C: USER tim\nS: 331 password?\nC: PASS tanstaaf\nS: 230 in\n" + feat
	old := "S: 220 old\nC: FEAT\nS: 500 what?\nC: USER tim\nS: 331 password?\nC: PASS tanstaaf\nS: 230 in\nC: FEAT\nS: 500 what?\n"
	anonymous := ftpHello + "C: USER anonymous\nS: 331 address?\nC: PASS pup@\nS: 230 in\n" + feat
	quiet := `"ftp":{` + pw + `,"list":false}`
	bye := "C: QUIT\nS: 221 bye"
	talks(t, "ftp://HOST", []talk{
		{"no login", "", ftpHello + "C: NOOP\nS: 200 ok\n" + bye, "up", []string{"ftp.logged_in == false", "ftp.greeting == `pup\nready`", "same(ftp.features, ['MLST', 'MDTM', 'AUTH'])", "ftp.starttls == false"}},
		{"a login even for NOOP", "", ftpHello + "C: NOOP\nS: 530 log in\n" + bye, "up", nil},
		{"soon", "", "S: 120 ready in 1 minute\nS: 220 ready\nC: FEAT\nS: 211 none\nC: NOOP\nS: 200 ok\n" + bye, "up", nil},
		{"text within a reply", "", "S: 220-one\nS: 230 two\nS: 220-three\nS: 220 four\nC: FEAT\nS: 502\nC: NOOP\nS: 200 ok\n" + bye, "up", []string{"ftp.greeting == `one\n230 two\n220-three\nfour`"}},
		{"login", quiet, login + bye, "up", []string{"ftp.logged_in"}},
		{"no password wanted", quiet, ftpHello + "C: USER tim\nS: 230 in\n" + feat + bye, "up", []string{"ftp.logged_in"}},
		{"denied", quiet, ftpHello + "C: USER tim\nS: 331 password?\nC: PASS tanstaaf\nS: 530 tanstaaf is wrong", "down denied auth", []string{"ftp.logged_in == false", "error contains '*** is wrong'"}},
		{"denied at USER", quiet, ftpHello + "C: USER tim\nS: 534 only with TLS", "down denied auth", nil},
		{"account wanted", quiet, ftpHello + "C: USER tim\nS: 331 password?\nC~ PASS\nS: 332 account?", "down denied auth", nil},
		{"not now", quiet, ftpHello + "C: USER tim\nS: 421 too many", "down unavailable auth", nil},
		{"nor now", quiet, ftpHello + "C: USER tim\nS: 331 password?\nC~ PASS\nS: 451 disk", "down unavailable auth", nil},
		{"nonsense", quiet, ftpHello + "C: USER tim\nS: 150 data", "down protocol auth", nil},
		{"full", "", "S: 421 too many users", "down unavailable greet", nil},
		{"refused", "", "S: 530 not you", "down unavailable greet", nil},
		{"SSH", "", "S: SSH-2.0-OpenSSH", "down protocol greet", nil},
		{"endless", "", "S: 220-a\n" + strings.Repeat("S: a\n", 600), "down too-large greet", nil},
		{"cut", "", "S: 220-a\n! close", "down closed greet", nil},
		{"hangs", `"timeout":"200ms"`, "S: 220 a\nC: FEAT\n! hang", "down timeout greet", nil},
		{"hangs at QUIT", `"timeout":"200ms"`, ftpHello + "C: NOOP\nS: 200 ok\nC: QUIT\n! hang", "down timeout request", nil},
		{"closes at QUIT", "", ftpHello + "C: NOOP\nS: 200 ok\nC: QUIT\n! close", "up", nil},
		{"MLST", `"ftp":{` + pw + `,"path":"a b","list":false}`, login + "C: MLST a b\nS: 250-Listing\nS:  type=file;size=6;modify=20200101000000.5;perm=r; a b\nS: 250 End\n" + bye, "up",
			[]string{"ftp.type == 'file'", "ftp.size_bytes == 6", "ftp.age_ms > 180000000000", "ftp.age_ms < 800000000000"}},
		{"MLST of a directory", `"ftp":{` + pw + `,"path":"a","list":false}`, login + "C: MLST a\nS: 250-Listing\nS:  Type=dir; a\nS: 250 End\n" + bye, "up", []string{"ftp.type == 'directory'"}},
		{"MLST, not there", `"ftp":{` + pw + `,"path":"a"}`, login + "C: MLST a\nS: 550 no such file", "down mismatch request", nil},
		{"MLST, short", `"ftp":{` + pw + `,"path":"a"}`, login + "C: MLST a\nS: 250 a", "down protocol request", nil},
		{"SIZE and MDTM", `"ftp":{` + pw + `,"path":"a","list":false}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 213 6\nC: MDTM a\nS: 213 20200101000000\n" + bye, "up", []string{"ftp.type == 'file'", "ftp.size_bytes == 6", "ftp.age_ms > 180000000000"}},
		{"SIZE without MDTM", `"ftp":{` + pw + `,"path":"a","list":false}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 213 0\nC: MDTM a\nS: 500 what?\n" + bye, "up", []string{"ftp.size_bytes == 0"}},
		{"SIZE is no number", `"ftp":{` + pw + `,"path":"a"}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 213 -6", "down protocol request", nil},
		{"MDTM is no time", `"ftp":{` + pw + `,"path":"a"}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 213 6\nC: MDTM a\nS: 213 2020", "down protocol request", nil},
		{"CWD", `"ftp":{` + pw + `,"path":"a","list":false}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 550 not a file\nC: CWD a\nS: 250 ok\nC: CDUP\nS: 250 ok\n" + bye, "up", []string{"ftp.type == 'directory'"}},
		{"not there", `"ftp":{` + pw + `,"path":"a"}`, old + "C: TYPE I\nS: 200 ok\nC: SIZE a\nS: 550 no such file\nC: CWD a\nS: 550 no", "down mismatch request", []string{"error contains 'no such file'"}},
		{"no port", `"ftp":{` + pw + `}`, login + "C: EPSV\nS: 229 (|||0|)", "down protocol request", nil},
		{"no passive", `"ftp":{` + pw + `}`, login + "C: EPSV\nS: 500\nC: PASV\nS: 502 no", "down protocol request", nil},
		{"TLS required", `"ftp":{"starttls":"required"}`, ftpHello, "down tls greet", nil},
		{"anonymous", `"ftp":{"user":"anonymous","list":false}`, anonymous + bye, "up", nil},
	})
	addr := serve(t, func(c net.Conn) { play(t, c, anonymous+"C: MLST a/b\nS: 550 no such file") })
	check(t, "ftp://"+addr+"/a/b", "").want(t, "down mismatch request", "ftp.logged_in")

	check(t, "ftp://ftp.example.org", `"ftp":{`+pw+`,"starttls":"off"}`).want(t, "unknown options prepare", "error contains 'ftp.allow_plain_auth'")
	check(t, "ftp://127.0.0.1:9", `"ftp":{"path":"a\r\nDELE b"}`).want(t, "unknown options prepare", "error contains 'ftp.path'")
	check(t, "ftp://127.0.0.1:9", `"ftp":{"user":"a","password":"`+secret(t, "CRLF", "a\r\nDELE b")+`"}`).want(t, "unknown options prepare", "error contains 'ftp.password'")
}

// TestFTPData lists over data connections that behave and misbehave.
func TestFTPData(t *testing.T) {
	login := "S: 220 a\nC: FEAT\nS: 211-\nS:  FEATS\nS: 211 End\nC: USER anonymous\nS: 230 in\nC: FEAT\nS: 211-\nS:  FEATS\nS: 211 End\n"
	send := func(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }
	for _, tt := range []struct {
		name, script, want string
		data               func(net.Conn)
		facts              []string
	}{
		{"MLSD", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here\nS: 226 done\nC: QUIT\nS: 221 bye", "up",
			send("type=cdir; .\r\ntype=file;modify=20200101000000;size=1; a\r\ntype=file;modify=20210101000000;size=1; b c\r\ntype=dir;modify=20990101000000; d\r\n"),
			[]string{"ftp.entries == 3", "ftp.newest_age_ms > 150000000000", "ftp.newest_age_ms < 800000000000"}},
		{"LIST", strings.ReplaceAll(login, "MLST", "X") + "C: EPSV\nS: 500\nC: PASV\nS: 227 ok (10,0,0,1,HI,LO)\nC: LIST\nS: 150 here\nS: 226 done\nC: QUIT\nS: 221 bye", "up",
			send("total 5\r\n-rw- a\r\ndrw- b\r\n"), []string{"ftp.entries == 2"}},
		{"an empty one", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here\nS: 226 done\nC: QUIT\nS: 221 bye", "up", send(""), []string{"ftp.entries == 0"}},
		{"no MLSD", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here", "down protocol transfer", send("hello\r\n"), nil},
		{"cut", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here", "down closed transfer", send("type=fi"), nil},
		{"given up", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here\nS: 426 data connection lost", "down unavailable transfer", send(""), nil},
		{"refused", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 550 not there", "down mismatch request", send(""), nil},
		{"no data", login + "C: EPSV\nS: 229 ok (|||PORT|)\nC: MLSD\nS: 150 here", "down timeout transfer", func(c net.Conn) { io.Copy(io.Discard, c) }, nil},
		{"nobody there", login + "C: EPSV\nS: 229 ok (|||NONE|)\nC: MLSD", "down refused connect", send(""), []string{"error contains 'data connection'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, port, _ := net.SplitHostPort(serve(t, tt.data))
			_, none, _ := net.SplitHostPort(realserver.ClosedPort(t))
			var n int
			fmt.Sscan(port, &n)
			features := "MLST type*;size*;modify*;"
			if tt.name == "LIST" {
				features = "SIZE"
			}
			script := strings.NewReplacer("PORT", port, "NONE", none, "HI", fmt.Sprint(n>>8), "LO", fmt.Sprint(n&255), "FEATS", features).Replace(tt.script)
			if tt.name == "nobody there" {
				script = strings.TrimSuffix(script, "\nC: MLSD")
			}
			addr := serve(t, func(c net.Conn) { play(t, c, script) })
			check(t, "ftp://"+addr, `"ftp":{"user":"anonymous"},"timeout":"1s"`).want(t, tt.want, tt.facts...)
		})
	}
}

// TestFTPTLS has the data connection prove that it belongs to the session.
func TestFTPTLS(t *testing.T) {
	byName := testCA().issue(func(c *x509.Certificate) { c.IPAddresses = nil })
	cfg := &tls.Config{Certificates: []tls.Certificate{byName}}
	resumed := make(chan bool, 1)
	data := serve(t, func(c net.Conn) {
		tc := tls.Server(c, cfg)
		if tc.Handshake() == nil {
			resumed <- tc.ConnectionState().DidResume
			io.WriteString(tc, "type=file; a\r\n")
			tc.Close()
		}
	})
	_, port, _ := net.SplitHostPort(data)
	addr := serve(t, func(c net.Conn) {
		tc := tls.Server(c, cfg)
		play(t, tc, "S: 220 a\nC: FEAT\nS: 211-\nS:  MLST x\nS: 211 End\nC: PBSZ 0\nS: 200 ok\nC: PROT P\nS: 200 ok\nC: USER anonymous\nS: 230 in\nC: FEAT\nS: 211-\nS:  MLST x\nS: 211 End\n"+
			"C: EPSV\nS: 229 ok (|||"+port+"|)\nC: MLSD\nS: 150 here\nS: 226 done\nC: QUIT\nS: 221 bye")
	})
	check(t, strings.Replace("ftps://"+addr, "127.0.0.1", "localhost", 1), `"family":"4",`+trustTestCA()+`,"ftp":{"user":"anonymous"}`).want(t, "up", "ftp.entries == 1", "tls.verified", "address == '"+addr+"'")
	select {
	case ok := <-resumed:
		if !ok {
			t.Error("the data connection has not resumed the session")
		}
	default:
		t.Error("there was no data connection")
	}
	hello := "S: 220 a\nC: FEAT\nS: 211-\nS:  AUTH TLS;SSL\nS: 211 End\nC: AUTH TLS\n"
	talks(t, "ftp://HOST", []talk{
		{"AUTH TLS", trustTestCA(), hello + "S: 234 go\n! tls\nC: PBSZ 0\nS: 200 ok\nC: PROT P\nS: 200 ok\nC: NOOP\nS: 200 ok\nC: QUIT\nS: 221 bye", "up", []string{"ftp.starttls", "tls.verified"}},
		{"untrusted", "", hello + "S: 234 go\n! tls", "down certificate-untrusted tls", nil},
		{"injected", trustTestCA(), hello + "S: 234 go\\\nSx 0d0a3232300d0a\n! tls", "down protocol tls", nil},
		{"refused", "", hello + "S: 534 no", "down tls greet", nil},
		{"refused for now", "", hello + "S: 431 later", "down unavailable greet", nil},
		{"data in plain text only", trustTestCA(), hello + "S: 234 go\n! tls\nC: PBSZ 0\nS: 200 ok\nC: PROT P\nS: 536 no", "down tls greet", nil},
	})
}

// FuzzFTP: a port comes only from a reply that has it in the right form, and a
// line of a listing keeps its name.
func FuzzFTP(f *testing.F) {
	for _, s := range []string{"ok (|||6446|)", "(!!!1!)", "(127,0,0,1,25,46)", "ok 127,0,0,1,25,46.", "(1,2,3,4,5,6,7)", "type=file;size=-1;modify=x; a b", " a", "220-x", "120"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if port, ok := ftpEPSV(s); ok && (port < 1 || port > 65535 || !strings.Contains(s, fmt.Sprint(port))) {
			t.Fatalf("%q: EPSV port %d", s, port)
		}
		if port, ok := ftpPASV(s); ok && (port < 1 || port > 65535 || strings.Count(s, ",") < 5) {
			t.Fatalf("%q: PASV port %d", s, port)
		}
		if e, ok := ftpMLSD(s); ok && (!strings.HasSuffix(s, " "+e.name) || e.size != nil && *e.size < 0) {
			t.Fatalf("%q: %+v", s, e)
		}
		if when, ok := ftpTime(s); ok && when.Format("20060102150405") != s[:14] {
			t.Fatalf("%q: %v", s, when)
		}
		if code, text, more, ok := ftpLine(s); ok {
			back := fmt.Sprint(code)
			if len(s) > 3 {
				back += map[bool]string{true: "-", false: " "}[more] + text
			}
			if back != s {
				t.Fatalf("%q was read as %q", s, back)
			}
		}
	})
}

func TestFTPReal(t *testing.T) {
	says := realserver.Shared(t, "ftp")
	trust := mailTrust(says)
	login := fmt.Sprintf(`"user":%q,"password":%q`, says["user"], secret(t, "FTPUSER", says["password"]))
	wrong := fmt.Sprintf(`"user":%q,"password":%q`, says["user"], secret(t, "NOFTP", "nonsense"))
	file := []string{"ftp.type == 'file'", "ftp.size_bytes == 6", "ftp.age_ms >= 600000", "ftp.age_ms < 900000", "ftp.entries == 3"}
	listed := []string{"ftp.entries == 3", "ftp.newest_age_ms >= 600000", "ftp.newest_age_ms < 900000"}
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"no login", "ftp://" + says["ftp"], `"ftp":{"starttls":"off"}`, "up", []string{"ftp.logged_in == false", "'MLST' in ftp.features"}},
		{"AUTH TLS", "ftp://" + says["ftp"], trust + `,"ftp":{` + login + `}`, "up", append(listed, "ftp.starttls", "tls.verified")},
		{"file over TLS", "ftps://" + says["ftps"] + "/hello.txt", trust + `,"ftp":{` + login + `}`, "up", append(file, "ftp.newest_age_ms >= 600000")},
		{"anonymous", "ftp://" + says["ftp"] + "/hello.txt", `"ftp":{"starttls":"off"}`, "up", file},
		{"anonymous over TLS", "ftp://" + says["ftp"] + "/sub", trust, "up", []string{"ftp.type == 'directory'", "ftp.entries == 0"}},
		{"an old server", "ftp://" + says["ftp_old"] + "/hello.txt", `"ftp":{` + login + `}`, "up", file},
		{"an old server's directory", "ftp://" + says["ftp_old"] + "/sub", `"ftp":{` + login + `}`, "up", []string{"ftp.type == 'directory'", "ftp.entries == 0"}},
		{"not there", "ftp://" + says["ftp"] + "/nothing", trust + `,"ftp":{` + login + `}`, "down mismatch request", []string{"ftp.logged_in"}},
		{"not there, old", "ftp://" + says["ftp_old"] + "/nothing", `"ftp":{` + login + `}`, "down mismatch request", nil},
		{"wrong password", "ftps://" + says["ftps"], trust + `,"ftp":{` + wrong + `}`, "down denied auth", []string{"ftp.logged_in == false"}},
		{"nobody", "ftps://" + says["ftps"] + "/hello.txt", trust, "down denied auth", nil},
		{"TLS required", "ftp://" + says["ftp_old"], `"ftp":{"starttls":"required"}`, "down tls greet", nil},
		{"untrusted", "ftps://" + says["ftps"], "", "down certificate-untrusted tls", nil},
		{"TLS instead", "ftp://" + says["ftps"], `"timeout":"300ms"`, "down timeout greet", nil},
		{"no TLS instead", "ftps://" + says["ftp"], "", "down tls tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

func TestFTPInterrupted(t *testing.T) {
	says := realserver.Start(t, "ftp")
	login := fmt.Sprintf(`"ftp":{"starttls":"off","user":%q,"password":%q}`, says["user"], secret(t, "FTPUSER", says["password"]))
	paused := between(t, says["ftp"], "MLSD", func() { realserver.Pause(t, says, "ftp") })
	check(t, "ftp://"+paused, login+`,"timeout":"3s"`).want(t, "down timeout request", "ftp.logged_in")
	check(t, "ftp://"+says["ftp"], `"timeout":"300ms"`).want(t, "down timeout greet")
	realserver.Resume(t, says, "ftp")
	killed := between(t, says["ftp"], "MLSD", func() { realserver.Kill(t, says, "ftp") })
	wantGone(t, check(t, "ftp://"+killed, login), "request")
}
