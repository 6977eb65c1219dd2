package checks

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"pup/cmd/internal/realserver"
)

const mysqlTestScramble = "abcdefghijklmnopqrst"

// mysqlHello makes the greeting of a server.
func mysqlHello(version, plugin string, caps uint32) []byte {
	b := append([]byte{10}, version+"\x00\x01\x00\x00\x00"+mysqlTestScramble[:8]+"\x00"...)
	b = append(b, byte(caps), byte(caps>>8), 45, 2, 0, byte(caps>>16), byte(caps>>24), 21)
	return append(append(b, make([]byte, 10)...), mysqlTestScramble[8:]+"\x00"+plugin+"\x00"...)
}

const mysqlTestCaps = mysqlProtocol41 | mysqlSecureConnection | mysqlPluginAuth

// mysqlServer is the script in which the server sends packets, numbered from
// the given one.
func mysqlServer(number int, packets ...string) string {
	var b []byte
	for i, p := range packets {
		b = mysqlAppend(b, byte(number+i), []byte(p))
	}
	return fmt.Sprintf("Sx %x\n", b)
}

func mysqlClient(number int, packet string) string {
	return "C" + strings.TrimPrefix(mysqlServer(number, packet), "S")
}

func mysqlErr(code int, text string) string {
	return string([]byte{0xff, byte(code), byte(code >> 8)}) + "#HY000" + text
}

// mysqlCells makes a row; "NULL" is one.
func mysqlCells(cells ...string) string {
	var b []byte
	for _, c := range cells {
		if c == "NULL" {
			b = append(b, 0xfb)
			continue
		}
		b = append(append(b, byte(len(c))), c...)
	}
	return string(b)
}

// mysqlAnswer is the script in which the server answers a query.
func mysqlAnswer(names []string, rows ...string) string {
	const end = "\xfe\x00\x00\x02\x00"
	packets := []string{string([]byte{byte(len(names))})}
	for _, n := range names {
		packets = append(packets, mysqlCells("def", "", "", "", n, "")+"\x0c")
	}
	return mysqlServer(1, append(append(append(packets, end), rows...), end)...)
}

// mysqlLogin is the packet in which the check logs in.
func mysqlLogin(user, proof, database, plugin string) string {
	caps := mysqlLongPassword | mysqlProtocol41 | mysqlTransactions | mysqlSecureConnection | mysqlPluginAuth
	if database != "" {
		caps |= mysqlConnectWithDB
		database += "\x00"
	}
	return string([]byte{byte(caps), byte(caps >> 8), byte(caps >> 16), byte(caps >> 24), 0, 0, 16, 0, 45}) + strings.Repeat("\x00", 23) +
		user + "\x00" + string(byte(len(proof))) + proof + database + plugin + "\x00"
}

func TestMySQL(t *testing.T) {
	const ok = "\x00\x00\x00\x02\x00\x00\x00"
	native := string(mysqlNativeProof("s3cret", []byte(mysqlTestScramble)))
	caching := string(mysqlCachingProof("s3cret", []byte(mysqlTestScramble)))
	greet := mysqlServer(0, string(mysqlHello("8.0.35", mysqlNative, mysqlTestCaps)))
	greetCaching := mysqlServer(0, string(mysqlHello("8.0.35", mysqlCaching, mysqlTestCaps)))
	pw := `"mysql":{"stats":false,"password":"` + secret(t, "MYSQL", "s3cret") + `"}`
	query, bye := mysqlClient(0, "\x03SELECT 1"), mysqlClient(0, "\x01")
	one := mysqlAnswer([]string{"1"}, mysqlCells("1"))
	login := mysqlClient(1, mysqlLogin("pup", native, "app", mysqlNative))
	in := greet + login + mysqlServer(2, ok)
	open := greet + mysqlClient(1, mysqlLogin("pup", "", "app", mysqlNative)) + mysqlServer(2, ok)
	stats := open + query + one +
		mysqlClient(0, "\x03SELECT @@global.read_only, @@global.max_connections") + mysqlAnswer([]string{"a", "b"}, mysqlCells("1", "100")) +
		mysqlClient(0, "\x03SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Threads_connected', 'Slow_queries', 'Connection_errors_max_connections')") +
		mysqlAnswer([]string{"n", "v"}, mysqlCells("Uptime", "60"), mysqlCells("Threads_connected", "7")) + mysqlClient(0, "\x03SHOW REPLICA STATUS")
	replica := []string{"Source_Host", "Source_Port", "Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source", "Last_SQL_Error"}
	talks(t, "mysql://pup@HOST/app", []talk{
		{"primary", "", stats + mysqlAnswer(replica) + bye, "up", []string{"mysql.role == 'primary'", "mysql.connections_left == 93", "mysql.uptime_ms == 60000", "mysql.read_only", "mysql.version == '8.0.35'", "mysql.server == 'mysql'", "mysql.starttls == false"}},
		{"replica", "", stats + mysqlAnswer(replica, mysqlCells("db1", "3306", "Yes", "Yes", "5", "")) + bye, "up", []string{"mysql.role == 'replica'", "mysql.lag_ms == 5000", "mysql.primary == 'db1:3306'", "mysql.io_running"}},
		{"one channel is broken", "", stats + mysqlAnswer(replica, mysqlCells("db1", "3306", "Yes", "No", "NULL", "boom"), mysqlCells("db2", "3306", "Yes", "Yes", "5", "")) + bye, "degraded mismatch verify",
			[]string{"mysql.sql_running == false", "mysql.io_running", "mysql.replica_error == 'boom'", "mysql.lag_ms == 5000"}},
		{"may not ask", "", stats + mysqlServer(1, mysqlErr(1227, "no")) + bye, "up", []string{"not ('role' in mysql)"}},

		{"native", pw, in + query + one + bye, "up", []string{"mysql.value == '1'", "mysql.rows == 1", "mysql.auth == 'mysql_native_password'"}},
		{"caching, known", pw, greetCaching + mysqlClient(1, mysqlLogin("pup", caching, "app", mysqlCaching)) + mysqlServer(2, "\x01\x03", ok) + query + one + bye, "up", []string{"mysql.auth == 'caching_sha2_password'"}},
		{"switched", pw, greetCaching + mysqlClient(1, mysqlLogin("pup", caching, "app", mysqlCaching)) + mysqlServer(2, "\xfe"+mysqlNative+"\x00"+mysqlTestScramble+"\x00") + mysqlClient(3, native) + mysqlServer(4, ok) + query + one + bye, "up", []string{"mysql.auth == 'mysql_native_password'"}},
		{"switched to what?", pw, greet + login + mysqlServer(2, "\xfedialog\x00x"), "down denied auth", []string{"mysql.auth == 'dialog'"}},
		{"short challenge", pw, greet + login + mysqlServer(2, "\xfe"+mysqlNative+"\x00abc\x00"), "down protocol auth", nil},
		{"bad key", pw, greetCaching + mysqlClient(1, mysqlLogin("pup", caching, "app", mysqlCaching)) + mysqlServer(2, "\x01\x04") + mysqlClient(3, "\x02") + mysqlServer(4, "\x01no key"), "down protocol auth", nil},
		{"endless", pw, greetCaching + mysqlClient(1, mysqlLogin("pup", caching, "app", mysqlCaching)) + mysqlServer(2, strings.Split(strings.Repeat("\x01\x03,", 12), ",")[:12]...), "down protocol auth", nil},
		{"wrong password", pw, greet + login + mysqlServer(2, mysqlErr(1045, "Access denied, s3cret")), "down denied auth", []string{"mysql.error_code == 1045", "error contains '***'"}},
		{"no such database", pw, greet + login + mysqlServer(2, mysqlErr(1049, "Unknown database")), "down mismatch auth", nil},
		{"too many of this user", pw, greet + login + mysqlServer(2, mysqlErr(1226, "max_user_connections")), "down unavailable auth", nil},

		{"too many connections", "", mysqlServer(0, "\xff\x10\x04Too many connections"), "down unavailable greet", []string{"mysql.error_code == 1040"}},
		{"not from here", "", mysqlServer(0, "\xff\x6a\x04Host is not allowed"), "down denied auth", []string{"mysql.error_code == 1130"}},
		{"blocked", "", mysqlServer(0, "\xff\x69\x04Host is blocked"), "down unavailable greet", nil},
		{"version 9", "", mysqlServer(0, "\x093.20\x00"), "down protocol greet", nil},
		{"HTTP", "", "S: HTTP/1.1 400 Bad Request", "down protocol greet", nil},
		{"short", "", mysqlServer(0, "\x0a8.0\x00abc"), "down protocol greet", nil},

		{"NULL", pw, in + query + mysqlAnswer([]string{"a"}, mysqlCells("NULL")) + bye, "up", []string{"not ('value' in mysql)", "mysql.rows == 1"}},
		{"no rows", pw, in + query + mysqlServer(1, ok) + bye, "up", []string{"mysql.rows == 0"}},
		{"query fails", pw, in + query + mysqlServer(1, mysqlErr(1064, "syntax")), "down mismatch request", nil},
		{"query is denied", pw, in + query + mysqlServer(1, mysqlErr(1142, "denied")), "down denied request", nil},
		{"shutdown", pw, in + query + mysqlServer(1, mysqlErr(1053, "Server shutdown in progress")), "down unavailable request", nil},
		{"broken row", pw, in + query + mysqlAnswer([]string{"a"}, "\x09x"), "down protocol request", nil},
		{"no columns", pw, in + query + mysqlServer(1, "\xfb"), "down protocol request", nil},
		{"leaves", pw, in + query + "! close", "down closed request", nil},
		{"hangs", `"timeout":"200ms",` + pw, in + query + "! hang", "down timeout request", nil},
		{"TLS is required", `"mysql":{"starttls":"required"}`, greet, "down tls greet", nil},
	})
	check(t, "mysql://127.0.0.1/a", `"mysql":{"database":"b"}`).want(t, "unknown options prepare", "error contains 'mysql.database'")
}

// TestMySQLKey logs in to a server that has forgotten the hash, over a
// connection without TLS: the password goes encrypted for the server's key.
func TestMySQLKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for _, tt := range []struct {
		plugin string
		before []string // what the server sends before the key, and what it gets for it
	}{
		{mysqlCaching, []string{"\x01\x04", "\x02"}},
		{mysqlSHA256, []string{"\xfe" + mysqlSHA256 + "\x00" + mysqlTestScramble + "\x00", "\x01"}},
	} {
		addr := serve(t, func(c net.Conn) {
			src := mysqlStream{c}
			c.Write(mysqlAppend(nil, 0, mysqlHello("8.0.35", mysqlCaching, mysqlTestCaps)))
			mysqlRead(src)
			c.Write(mysqlAppend(nil, 2, []byte(tt.before[0])))
			if b, _, _ := mysqlRead(src); string(b) != tt.before[1] {
				t.Errorf("%s: got %q, want %q", tt.plugin, b, tt.before[1])
			}
			c.Write(mysqlAppend(nil, 4, append([]byte{1}, text...)))
			b, _, _ := mysqlRead(src)
			plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, b, nil)
			for i := range plain {
				plain[i] ^= mysqlTestScramble[i%len(mysqlTestScramble)]
			}
			if err != nil || string(plain) != "a secret that is longer than the challenge\x00" {
				t.Errorf("%s: got %q, %v", tt.plugin, plain, err)
			}
			c.Write(mysqlAppend(nil, 6, []byte(mysqlErr(1045, "enough"))))
		})
		ref := secret(t, "MYSQL_LONG", "a secret that is longer than the challenge")
		check(t, "mysql://pup@"+addr, `"mysql":{"password":"`+ref+`"}`).want(t, "down denied auth", "mysql.auth == '"+tt.plugin+"'", "error contains 'enough'")
	}
}

// A mysqlCachingServer verifies passwords as MySQL 8 does by default: from a
// hash that it remembers, or from the password itself, which must come under
// TLS or encrypted for its key.
type mysqlCachingServer struct {
	password string
	tls      bool
	key      *rsa.PrivateKey // nil: passwords are taken under TLS only
	mu       sync.Mutex
	known    bool   // the hash is remembered
	was      string // how the last login went
}

func (s *mysqlCachingServer) serve(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	caps := uint32(mysqlTestCaps)
	if s.tls {
		caps |= mysqlSSL
	}
	c.Write(mysqlAppend(nil, 0, mysqlHello("8.0.35", mysqlCaching, caps)))
	login, number, err := mysqlRead(mysqlStream{c})
	secure := err == nil && len(login) == 32
	if secure {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
		if tc.Handshake() != nil {
			return
		}
		c = tc
		login, number, err = mysqlRead(mysqlStream{c})
	}
	if err != nil {
		return
	}
	say := func(packet string) { number++; c.Write(mysqlAppend(nil, number, []byte(packet))) }
	hear := func() string {
		b, n, _ := mysqlRead(mysqlStream{c})
		number = n
		return string(b)
	}
	_, rest, _ := bytes.Cut(login[32:], []byte{0}) // the user
	proof := rest[1 : 1+rest[0]]
	if !s.verify(proof, secure, say, hear) {
		say(mysqlErr(1045, "Access denied for user"))
		return
	}
	say("\x00\x00\x00\x02\x00\x00\x00")
	for {
		switch q := hear(); {
		case strings.HasPrefix(q, "\x03"):
			for _, p := range []string{"\x01", mysqlCells("def", "", "", "", "1", "") + "\x0c", "\xfe\x00\x00\x02\x00", mysqlCells("1"), "\xfe\x00\x00\x02\x00"} {
				say(p)
			}
		default:
			return
		}
	}
}

// verify takes the proof of the password, or else asks for all of it.
func (s *mysqlCachingServer) verify(proof []byte, secure bool, say func(string), hear func() string) bool {
	one := sha256.Sum256([]byte(s.password))
	stored := sha256.Sum256(one[:])
	if s.known {
		s.was = "fast"
		mask := sha256.Sum256(append(stored[:], mysqlTestScramble...))
		if len(proof) != len(mask) {
			return false
		}
		subtle.XORBytes(mask[:], mask[:], proof)
		if sha256.Sum256(mask[:]) != stored {
			return false
		}
		say("\x01\x03")
		return true
	}
	say("\x01\x04")
	got := hear()
	switch {
	case secure:
		s.was = "full under TLS"
	case got == "\x02" && s.key == nil:
		s.was = "refused without TLS"
		return false
	case got == "\x02":
		s.was = "full by RSA"
		der, _ := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
		say("\x01" + string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		plain, _ := rsa.DecryptOAEP(sha1.New(), nil, s.key, []byte(hear()), nil)
		for i := range plain {
			plain[i] ^= mysqlTestScramble[i%len(mysqlTestScramble)]
		}
		got = string(plain)
	default:
		s.was = "in the clear"
		return false
	}
	s.known = got == s.password+"\x00"
	return s.known
}

func TestMySQLCaching(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const password = "a secret that is longer than the challenge"
	right, wrong := secret(t, "MYSQL_RIGHT", password), secret(t, "MYSQL_WRONG", "not it")
	trust, plain := trustTestCA(), `"tls":{"verify":false}`
	for _, tt := range []struct {
		name   string
		server *mysqlCachingServer
		ref    string
		target string
		want   string
		was    string // how the login went
		again  string // and how the next one
	}{
		{"TLS", &mysqlCachingServer{tls: true, key: key}, right, trust, "up", "full under TLS", "fast"},
		{"TLS, wrong password", &mysqlCachingServer{tls: true, key: key}, wrong, trust, "down denied auth", "full under TLS", "full under TLS"},
		{"TLS, known, wrong password", &mysqlCachingServer{tls: true, known: true}, wrong, trust, "down denied auth", "fast", "fast"},
		{"TLS, no password", &mysqlCachingServer{tls: true, known: true}, "", trust, "down denied auth", "fast", "fast"},
		{"RSA", &mysqlCachingServer{key: key}, right, plain, "up", "full by RSA", "fast"},
		{"RSA, wrong password", &mysqlCachingServer{key: key}, wrong, plain, "down denied auth", "full by RSA", "full by RSA"},
		{"known", &mysqlCachingServer{known: true}, right, plain, "up", "fast", "fast"},
		{"no key", &mysqlCachingServer{}, right, plain, "down denied auth", "refused without TLS", "refused without TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.server.password = password
			addr := serve(t, tt.server.serve)
			for _, was := range []string{tt.was, tt.again} {
				res := check(t, "mysql://pup@"+addr, fmt.Sprintf(`"mysql":{"stats":false,"password":%q},%s`, tt.ref, tt.target))
				res.want(t, tt.want, "mysql.auth == 'caching_sha2_password'")
				tt.server.mu.Lock()
				if tt.server.was != was {
					t.Errorf("the login went %s, want %s", tt.server.was, was)
				}
				tt.server.mu.Unlock()
				if strings.Contains(res.line, password) || strings.Contains(res.line, "not it") {
					t.Errorf("the password is in the line: %s", res.line)
				}
			}
		})
	}
}

// mysqlStream reads packets from a connection or from memory.
type mysqlStream struct {
	r interface{ Read([]byte) (int, error) }
}

func (s mysqlStream) Full(b []byte) error {
	for len(b) > 0 {
		n, err := s.r.Read(b)
		if b = b[n:]; err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

// The server keeps SHA1(SHA1(password)) and checks the proof with it.
func TestMySQLNative(t *testing.T) {
	one := sha1.Sum([]byte("s3cret"))
	stored := sha1.Sum(one[:])
	proof := mysqlNativeProof("s3cret", []byte(mysqlTestScramble))
	mask := sha1.Sum(append([]byte(mysqlTestScramble), stored[:]...))
	for i := range proof {
		proof[i] ^= mask[i]
	}
	if got := sha1.Sum(proof); got != stored {
		t.Errorf("got %x, want %x", got, stored)
	}
}

func TestMySQLReal(t *testing.T) {
	says := realserver.Shared(t, "mysql")
	nginx := realserver.Shared(t, "nginx")
	ca := fmt.Sprintf(`,"tls":{"ca":%q}`, says["ca"])
	pw := func(name, text string) string { return `"mysql":{"password":"` + secret(t, "MY_"+name, text) + `"}` }
	pup := secret(t, "MY_PUP", says["mysql_password"])
	primary := says["mysql"]
	for _, tt := range []struct{ name, url, target, want, fact string }{
		{"TLS", "mysql://pup@" + primary + "/pup", pw("PUP", "pup-secret") + ca, "up", "tls.verified and mysql.role == 'primary' and mysql.server == 'mariadb' and mysql.connections_left > 0 and mysql.read_only == false"},
		{"without TLS", "mysql://pup@" + primary + "/pup", `"mysql":{"starttls":"off","password":"` + pup + `"}`, "up", "mysql.auth == 'mysql_native_password'"},
		{"query", "mysql://pup@" + primary, `"mysql":{"query":"SELECT 6 * 7","password":"` + pup + `"},"expect":["int(mysql.value) == 42"]` + ca, "up", "true"},
		{"another value", "mysql://pup@" + primary, `"mysql":{"query":"SELECT 6 * 9","password":"` + pup + `"},"expect":["int(mysql.value) == 42"]` + ca, "down mismatch verify", "mysql.value == '54'"},
		{"Ed25519", "mysql://modern@" + primary, pw("MODERN", "modern-secret") + ca, "up", "mysql.auth == 'client_ed25519'"},
		{"Ed25519, wrong password", "mysql://modern@" + primary, pw("WRONG", "not it") + ca, "down denied auth", "mysql.error_code == 1045"},
		{"wrong password", "mysql://pup@" + primary, pw("WRONG", "not it") + ca, "down denied auth", "mysql.error_code == 1045"},
		{"no password", "mysql://pup@" + primary, `"labels":{}` + ca, "down denied auth", "true"},
		{"locked", "mysql://locked@" + primary, pw("LOCKED", "locked-secret") + ca, "down denied auth", "mysql.error_code == 4151"},
		{"not for the user", "mysql://pup@" + primary + "/mysql", pw("PUP", "pup-secret") + ca, "down denied auth", "mysql.error_code == 1044"},
		{"syntax", "mysql://pup@" + primary, `"mysql":{"query":"SELCT","password":"` + pup + `"}` + ca, "down mismatch request", "mysql.error_code == 1064"},
		{"untrusted", "mysql://pup@" + primary, pw("PUP", "pup-secret"), "down certificate-untrusted tls", "true"},
		{"replica", "mysql://pup@" + says["mysql_replica"], pw("PUP", "pup-secret"), "up", "mysql.role == 'replica' and mysql.io_running and mysql.sql_running and mysql.lag_ms == 0 and mysql.read_only and mysql.primary == '" + primary + "'"},
		{"replica without primary", "mysql://pup@" + says["mysql_orphan"], pw("PUP", "pup-secret"), "degraded mismatch verify", "mysql.io_running == false and mysql.replica_error contains 'connect'"},
		{"nginx", "mysql://pup@" + nginx["http"], `"timeout":"300ms"`, "down timeout greet", "true"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.fact) })
	}
}

func TestMySQLPaused(t *testing.T) {
	says := realserver.Start(t, "mysql")
	url := "mysql://pup@" + says["mysql"]
	target := fmt.Sprintf(`"tls":{"ca":%q},"mysql":{"password":%q}`, says["ca"], secret(t, "MY", says["mysql_password"]))
	check(t, url, target).want(t, "up")
	plain := fmt.Sprintf(`"timeout":"1s","mysql":{"starttls":"off","password":%q}`, secret(t, "MY", says["mysql_password"]))
	inside := between(t, says["mysql"], "SELECT 1", func() { realserver.Pause(t, says, "mysql_primary") })
	check(t, "mysql://pup@"+inside, plain).want(t, "down timeout request", "mysql.server == 'mariadb'")
	check(t, url, target+`,"timeout":"300ms"`).want(t, "down timeout greet")
	realserver.Resume(t, says, "mysql_primary")
	check(t, url, target).want(t, "up")
	realserver.Kill(t, says, "mysql_primary")
	// the last of its threads may still hold the socket
	if got := check(t, url, target).outcome(); got != "down refused connect" && !strings.HasPrefix(got, "down reset") {
		t.Errorf("killed: got %q, want refused or reset", got)
	}
}

// FuzzMySQLRead: a packet that is read is the same when it is written; what
// is taken from it stands in it.
func FuzzMySQLRead(f *testing.F) {
	f.Add(mysqlAppend(nil, 0, mysqlHello("8.0.35", mysqlCaching, mysqlTestCaps)))
	f.Add(mysqlAppend(nil, 1, []byte(mysqlErr(1045, "no"))))
	f.Add(mysqlAppend(nil, 1, []byte(mysqlCells("a", "NULL", ""))))
	f.Add([]byte("\x0b\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xffab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, number, err := mysqlRead(mysqlStream{bytes.NewReader(b)})
		if err != nil {
			return
		}
		if got := mysqlAppend(nil, number, body); !bytes.HasPrefix(b, got) {
			t.Fatalf("% x was read as % x", b, got)
		}
		if g, ok := mysqlParseGreeting(body); ok && (!bytes.Contains(body, []byte(g.version+"\x00")) || len(g.scramble) < 8 || !bytes.Contains(body, []byte(g.plugin))) {
			t.Fatalf("%q was read as %+v", body, g)
		}
		if e, ok := mysqlParseError(body); ok && !bytes.HasSuffix(body, []byte(e.message)) {
			t.Fatalf("%q was read as %+v", body, e)
		}
		n := 0
		list, ok := mysqlStrings(body, 5)
		for _, s := range list {
			n += len(s) + 1
		}
		if ok && (len(list) != 5 || n > len(body)) {
			t.Fatalf("%q was read as %q", body, list)
		}
	})
}
