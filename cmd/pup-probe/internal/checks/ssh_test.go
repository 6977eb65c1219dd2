package checks

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pup/cmd/internal/realserver"
)

func TestSSHIdentification(t *testing.T) {
	talks(t, "ssh://HOST", []talk{
		{"closes", "", "S: SSH-2.0-x\nC~ pup\n! close", "down closed greet", []string{"ssh.version == 'SSH-2.0-x'"}},
		{"hangs", `"timeout":"200ms"`, "S: SSH-2.0-x\n! hang", "down timeout greet", []string{"ssh.version == 'SSH-2.0-x'"}},
		{"version 1", "", "S: SSH-1.5-old", "down protocol greet", []string{"error contains 'SSH-1.5-old'"}},
		{"SMTP", "", "S: 220 mail", "down protocol greet", nil},
		{"too long", "", "S: SSH-2.0-" + strings.Repeat("x", 300), "down protocol greet", nil},
		{"never ends", "", "S: SSH-2.0-" + strings.Repeat("x", 3000) + `\`, "down protocol greet", nil},
		{"early end", "", "S: SSH\\\n! close", "down closed greet", nil},
		{"too many", "", "S: Exceeded MaxStartups\n! close", "down unavailable greet", nil},
		{"penalty", "", "S: Not allowed at this time\n! close", "down unavailable greet", nil},
	})
	addr := serve(t, func(c net.Conn) { play(t, c, "S: SSH-2.0-x\nSx 0000000c 0a 14 41 41 41 41 41 41 41 41 41 41 41 41") })
	if res := check(t, "ssh://"+addr, ""); !strings.HasPrefix(res.outcome(), "down protocol greet") {
		t.Errorf("got %q, want down protocol greet\n%s", res.outcome(), res.line)
	}
	pw := `"password":"` + secret(t, "SSH", "swordfish") + `"`
	for target, want := range map[string]string{
		`"ssh":{"host_key":["SHA256:x"]}`:                          "ssh.host_key",
		`"ssh":{` + pw + `}`:                                       "ssh.user",
		`"ssh":{"user":"u",` + pw + `}`:                            "ssh.host_key",
		`"ssh":{"user":"u","key":"` + secret(t, "KEY", "x") + `"}`: "ssh.key",
	} {
		check(t, "ssh://host.example.org", target).want(t, "unknown options prepare", "error contains '"+want+"'", "not (error contains 'swordfish')")
	}
}

// sshServer serves SSH for user u with the password "swordfish". What answers
// a session is up to handle.
func sshServer(t *testing.T, cfg *ssh.ServerConfig, handle func(ch ssh.Channel, kind string, payload []byte) bool) (addr, hostKey string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AddHostKey(signer)
	return serve(t, func(c net.Conn) {
		conn, channels, requests, err := ssh.NewServerConn(c, cfg)
		if err != nil {
			return
		}
		defer conn.Wait()
		go ssh.DiscardRequests(requests)
		for nc := range channels {
			if handle == nil {
				nc.Reject(ssh.ResourceShortage, "no room")
				continue
			}
			ch, reqs, err := nc.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range reqs {
					r.Reply(handle(ch, r.Type, r.Payload), nil)
					if r.Type == "exec" {
						ch.Close()
					}
				}
			}()
		}
	}), ssh.FingerprintSHA256(signer.PublicKey())
}

func sshPassword(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
	if string(password) != "swordfish" {
		return nil, fmt.Errorf("wrong")
	}
	return nil, nil
}

func TestSSHLogin(t *testing.T) {
	ask := func(_ ssh.ConnMetadata, challenge ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		answers, err := challenge("", "", []string{"Name: ", "Password: "}, []bool{true, false})
		if err != nil || answers[0] != "" || answers[1] != "swordfish" {
			return nil, fmt.Errorf("wrong")
		}
		return nil, nil
	}
	right, wrong := secret(t, "SSH", "swordfish"), secret(t, "NOSSH", "nonsense")
	password, interactive, none := &ssh.ServerConfig{PasswordCallback: sshPassword}, &ssh.ServerConfig{KeyboardInteractiveCallback: ask}, &ssh.ServerConfig{NoClientAuth: true}
	both := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
		return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{KeyboardInteractiveCallback: ask}}
	}}
	impatient := &ssh.ServerConfig{PasswordCallback: sshPassword, MaxAuthTries: 1}
	for _, tt := range []struct {
		name, options, want string
		cfg                 *ssh.ServerConfig
		facts               []string
	}{
		{"no login", "", "up", password, []string{"ssh.logged_in == false", "same(ssh.auth_methods, ['password'])", "ssh.host_key startsWith 'SHA256:'", "ssh.kex != ''"}},
		{"password", `"password":"` + right + `"`, "up", password, []string{"ssh.logged_in", "ssh.auth_method == 'password'", "ssh.host_key_type == 'ssh-ed25519'"}},
		{"wrong password", `"password":"` + wrong + `"`, "down denied auth", password, []string{"not (error contains 'nonsense')", "ssh.host_key startsWith 'SHA256:'"}},
		{"keyboard-interactive", `"password":"` + right + `"`, "up", interactive, []string{"ssh.auth_method == 'keyboard-interactive'"}},
		{"wrong answer", `"password":"` + wrong + `"`, "down denied auth", interactive, nil},
		{"both", `"password":"` + right + `"`, "up", both, []string{"ssh.auth_method == 'keyboard-interactive'"}},
		{"none", "", "up", none, []string{"ssh.logged_in", "ssh.auth_method == 'none'"}},
		{"too many attempts", `"password":"` + wrong + `"`, "down denied auth", impatient, nil},
		{"login wanted for a command", `"command":"true"`, "down denied auth", password, nil},
		{"no room", `"command":"true"`, "down unavailable request", none, []string{"ssh.logged_in", "error contains 'no room'"}},
		{"another key", `"host_key":["SHA256:4/zdY4lpmQITD4M+OB87OdJt9k2pVbuMyaXast8y2CA"],"password":"` + right + `"`, "down certificate-untrusted greet", password, []string{"ssh.logged_in == false", "ssh.host_key != ''"}},
		{"the key", `"host_key":["SHA256:4/zdY4lpmQITD4M+OB87OdJt9k2pVbuMyaXast8y2CA","KEY"],"password":"` + right + `"`, "up", password, nil},
		{"no common algorithm", `"host_key_algorithms":["ssh-rsa"]`, "down protocol greet", password, []string{"error contains 'ssh-rsa'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := *tt.cfg
			addr, key := sshServer(t, &cfg, nil)
			check(t, "ssh://u@"+addr, `"ssh":{`+strings.Replace(tt.options, "KEY", key, 1)+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestSSHCommand(t *testing.T) {
	status := func(code uint32) []byte { return binary.BigEndian.AppendUint32(nil, code) }
	for _, tt := range []struct {
		name, want string
		handle     func(ch ssh.Channel) bool
		facts      []string
	}{
		{"up", "up", func(ch ssh.Channel) bool {
			io.WriteString(ch, "out")
			io.WriteString(ch.Stderr(), "err")
			ch.SendRequest("exit-status", false, status(0))
			return true
		}, []string{"ssh.exit_code == 0"}},
		{"fails", "down mismatch request", func(ch ssh.Channel) bool {
			io.WriteString(ch.Stderr(), "no \x1b[31mdisk")
			ch.SendRequest("exit-status", false, status(7))
			return true
		}, []string{"ssh.exit_code == 7", "error contains 'no '"}},
		{"killed", "down mismatch request", func(ch ssh.Channel) bool {
			ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Name       string
				Core       bool
				Text, Lang string
			}{"KILL", false, "", ""}))
			return true
		}, []string{"ssh.signal == 'KILL'"}},
		{"no exit code", "down closed request", func(ch ssh.Channel) bool { return true }, nil},
		{"refused", "down denied request", func(ch ssh.Channel) bool { return false }, nil},
		{"too much", "down too-large request", func(ch ssh.Channel) bool {
			_, err := io.Copy(ch, strings.NewReader(strings.Repeat("x", sshMaxOutput+1)))
			return err == nil
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := sshServer(t, &ssh.ServerConfig{NoClientAuth: true}, func(ch ssh.Channel, kind string, payload []byte) bool {
				return kind == "exec" && tt.handle(ch)
			})
			check(t, "ssh://u@"+addr, `"ssh":{"command":"do it"}`).want(t, tt.want, append(tt.facts, "ssh.logged_in")...)
			if tt.want == "up" {
				check(t, "ssh://u@"+addr, `"ssh":{"command":"do it"},"expect":["ssh.output == 'out'", "ssh.error_output == 'err'"]`).want(t, "up")
			}
		})
	}
}

func TestSFTP(t *testing.T) {
	packet := func(b ...any) []byte {
		var body bytes.Buffer
		for _, x := range b {
			if s, ok := x.(string); ok {
				binary.Write(&body, binary.BigEndian, uint32(len(s)))
				x = []byte(s)
			}
			binary.Write(&body, binary.BigEndian, x)
		}
		return append(binary.BigEndian.AppendUint32(nil, uint32(body.Len())), body.Bytes()...)
	}
	version := packet(byte(sftpVersion), uint32(3))
	when := uint32(time.Now().Add(-time.Minute).Unix())
	full := packet(byte(sftpAttrs), uint32(1), uint32(15), uint64(5), uint32(0), uint32(0), uint32(0o100640), when, when)
	for _, tt := range []struct {
		name, want string
		answers    [][]byte
		facts      []string
	}{
		{"file", "up", [][]byte{version, full}, []string{"sftp.size_bytes == 5", "sftp.type == 'file'", "sftp.mode == '0640'", "sftp.age_ms >= 60000", "sftp.age_ms < 90000"}},
		{"bare", "up", [][]byte{version, packet(byte(sftpAttrs), uint32(1), uint32(0))}, nil},
		{"absent", "down mismatch request", [][]byte{version, packet(byte(sftpStatus), uint32(1), uint32(sftpNoSuchFile), "x", "")}, []string{"error contains 'no such file'"}},
		{"forbidden", "down denied request", [][]byte{version, packet(byte(sftpStatus), uint32(1), uint32(sftpDenied), "no", "")}, nil},
		{"short status", "down mismatch request", [][]byte{version, packet(byte(sftpStatus), uint32(1))}, nil},
		{"cut", "down protocol request", [][]byte{version, packet(byte(sftpAttrs), uint32(1), uint32(1), uint32(0))}, nil},
		{"another answer", "down protocol request", [][]byte{version, packet(byte(sftpAttrs), uint32(9), uint32(0))}, nil},
		{"another type", "down protocol request", [][]byte{version, packet(byte(104), uint32(1), uint32(0))}, nil},
		{"too large", "down protocol request", [][]byte{version, {0xff, 0xff, 0xff, 0xff, 1}}, nil},
		{"empty", "down protocol request", [][]byte{{0, 0, 0, 0, 1}}, nil},
		{"version 2", "down protocol request", [][]byte{packet(byte(sftpVersion), uint32(2))}, nil},
		{"closed", "down closed request", nil, nil},
		{"closed in between", "down closed request", [][]byte{version, {0, 0, 0, 9, 105}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := sshServer(t, &ssh.ServerConfig{NoClientAuth: true}, func(ch ssh.Channel, kind string, payload []byte) bool {
				go func() {
					for _, a := range tt.answers {
						if _, _, err := sftpRead(ch); err != nil {
							break
						}
						ch.Write(a)
					}
					ch.Close()
				}()
				return kind == "subsystem" && string(payload[4:]) == "sftp"
			})
			check(t, "sftp://u@"+addr+"/x", "").want(t, tt.want, append(tt.facts, "sftp.logged_in")...)
		})
	}
}

// FuzzSFTPAttrs: what is read can be written again, and is then the beginning
// of what was there.
func FuzzSFTPAttrs(f *testing.F) {
	f.Add([]byte{0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0xa0, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Add([]byte{0, 0, 0, 9, 1, 2, 3})
	f.Add([]byte{0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := sftpParse(b)
		if err != nil {
			return
		}
		back := bytes.Clone(b[:4])
		at := 4
		if a.size != nil {
			back, at = binary.BigEndian.AppendUint64(back, uint64(*a.size)), at+8
		}
		if binary.BigEndian.Uint32(b)&2 != 0 {
			back, at = append(back, b[at:at+8]...), at+8
		}
		if a.mode != nil {
			back, at = binary.BigEndian.AppendUint32(back, *a.mode), at+4
		}
		if a.modified != nil {
			back = binary.BigEndian.AppendUint32(append(back, b[at:at+4]...), uint32(a.modified.Unix()))
		}
		if a.size != nil && len(b) > 4 {
			b = bytes.Clone(b)
			b[4] &= 0x7f // a size is no negative number
		}
		if !bytes.HasPrefix(b, back) {
			t.Fatalf("% x was read as % x", b, back)
		}
	})
}

func sshSecretFile(t *testing.T, name, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return secret(t, name, string(b))
}

func TestSSHReal(t *testing.T) {
	says := realserver.Shared(t, "ssh")
	at := "ssh://" + says["user"] + "@" + says["ssh"]
	key, stranger, locked := sshSecretFile(t, "KEY", says["key"]), sshSecretFile(t, "STRANGER", says["key_stranger"]), sshSecretFile(t, "LOCKED", says["key_locked"])
	pinned := `"host_key":["` + says["host_key"] + `"]`
	right, wrong := secret(t, "SSHPASS", says["password"]), secret(t, "NOSSH", "nonsense")
	for _, tt := range []struct {
		name, url, options, want string
		facts                    []string
	}{
		{"no login", "ssh://" + says["ssh"], pinned, "up", []string{"ssh.logged_in == false", "ssh.version contains 'OpenSSH'", "'publickey' in ssh.auth_methods", "ssh.host_key_type == 'ssh-ed25519'"}},
		{"RSA", "ssh://" + says["ssh"], `"host_key":["` + says["host_key_rsa"] + `"],"host_key_algorithms":["rsa-sha2-512"]`, "up", []string{"ssh.host_key_type == 'ssh-rsa'"}},
		{"key and command", at, pinned + `,"key":"` + key + `","command":"echo hello; echo oops >&2"`, "up", []string{"ssh.auth_method == 'publickey'", "ssh.exit_code == 0"}},
		{"key with a passphrase", at, `"key":"` + locked + `","passphrase":"` + secret(t, "PHRASE", says["passphrase"]) + `"`, "up", []string{"ssh.logged_in"}},
		{"key without its passphrase", at, `"key":"` + locked + `"`, "unknown options prepare", []string{"error contains 'passphrase'"}},
		{"exit code", at, `"key":"` + key + `","command":"exit 3"`, "down mismatch request", []string{"ssh.exit_code == 3"}},
		{"exit code that is fine", at, `"key":"` + key + `","command":"exit 3","exit_codes":[0,3]`, "up", nil},
		{"signal", at, `"key":"` + key + `","command":"kill -9 $$"`, "down mismatch request", []string{"ssh.signal == 'KILL'"}},
		{"too much output", at, `"key":"` + key + `","command":"yes"`, "down too-large request", nil},
		{"unknown key", at, `"key":"` + stranger + `"`, "down denied auth", []string{"ssh.logged_in == false"}},
		{"password", at, `"password":"` + right + `","command":"true"`, "up", []string{"ssh.auth_method == 'password'", "ssh.exit_code == 0"}},
		{"wrong password", at, `"password":"` + wrong + `"`, "down denied auth", nil},
		{"interactive", "ssh://" + says["user"] + "@" + says["ssh_interactive"], `"password":"` + right + `"`, "up", []string{"ssh.auth_method == 'keyboard-interactive'"}},
		{"interactive, wrong password", "ssh://" + says["user"] + "@" + says["ssh_interactive"], `"password":"` + wrong + `"`, "down denied auth", nil},
		{"wrong host key", "ssh://" + says["ssh"], `"host_key":["` + says["dropbear_host_key"] + `"]`, "down certificate-untrusted greet", nil},
		{"dropbear", "ssh://" + says["dropbear"], `"host_key":["` + says["dropbear_host_key"] + `"]`, "up", []string{"ssh.version contains 'dropbear'", "'password' in ssh.auth_methods"}},
		{"dropbear, wrong password", "ssh://" + says["user"] + "@" + says["dropbear"], `"password":"` + wrong + `"`, "down denied auth", nil},
		{"dropbear, unknown key", "ssh://" + says["user"] + "@" + says["dropbear"], `"key":"` + stranger + `"`, "down denied auth", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, `"ssh":{`+tt.options+`}`).want(t, tt.want, tt.facts...) })
	}
	check(t, at, `"timeout":"1us","ssh":{"key":"`+locked+`","passphrase":"`+secret(t, "PHRASE", says["passphrase"])+`"}`).want(t, "unknown local prepare", "error contains 'passphrase'")
	command := `"ssh":{"key":"` + key + `","command":"echo hello; echo oops >&2"}`
	check(t, at, command+`,"expect":["ssh.output contains 'hello'", "ssh.error_output contains 'oops'"]`).want(t, "up")
	check(t, at, command+`,"expect":["ssh.output contains 'bye'"]`).want(t, "down mismatch verify")
}

func TestSFTPReal(t *testing.T) {
	says := realserver.Shared(t, "ssh")
	key := `"key":"` + sshSecretFile(t, "KEY", says["key"]) + `"`
	at := "sftp://" + says["user"] + "@" + says["ssh_keys_only"]
	for _, tt := range []struct {
		name, url, options, want string
		facts                    []string
	}{
		{"file", at + says["files"] + "/hello.txt", key, "up", []string{"sftp.type == 'file'", "sftp.size_bytes == 6", "sftp.age_ms >= 600000", "sftp.age_ms < 900000"}},
		{"directory", at, key + `,"path":"` + says["files"] + `"`, "up", []string{"sftp.type == 'directory'"}},
		{"home", at, key, "up", []string{"sftp.type == 'directory'"}},
		{"absent", at + says["files"] + "/nothing", key, "down mismatch request", []string{"error contains 'no such file'"}},
		{"no login", at, "", "up", []string{"sftp.logged_in == false", "same(sftp.auth_methods, ['publickey'])"}},
		{"no login for a file", at + "/etc", "", "down denied auth", nil},
		{"no SFTP", "sftp://" + says["dropbear"] + "/etc", key + `,"user":"` + says["user"] + `"`, "down denied auth", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, `"sftp":{`+tt.options+`}`).want(t, tt.want, tt.facts...) })
	}
}

func TestSSHInterrupted(t *testing.T) {
	says := realserver.Start(t, "ssh")
	key := `"key":"` + sshSecretFile(t, "KEY", says["key"]) + `"`
	// each session has a process of its own, which the command stops or ends
	at := "ssh://" + says["user"] + "@" + says["ssh"]
	check(t, at, `"timeout":"3s","ssh":{`+key+`,"command":"p=$PPID; (sleep 4; kill -CONT $p) >/dev/null 2>&1 & kill -STOP $p; sleep 5"}`).want(t, "down timeout request", "ssh.logged_in")
	wantGone(t, check(t, at, `"ssh":{`+key+`,"command":"kill -KILL $PPID; sleep 1"}`), "request")
	check(t, at, `"ssh":{`+key+`,"command":"true"}`).want(t, "up")
	realserver.Pause(t, says, "ssh")
	check(t, at, `"timeout":"300ms"`).want(t, "down timeout greet")
	realserver.Resume(t, says, "ssh")
	realserver.Kill(t, says, "ssh")
	check(t, at, "").want(t, "down refused connect")
}
