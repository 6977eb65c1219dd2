package checks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// postgresServer is the script in which the server sends messages, each a kind
// and a body; \0 is a zero byte.
func postgresServer(messages ...string) string {
	var b []byte
	for _, m := range messages {
		b = postgresAppend(b, m[0], []byte(strings.ReplaceAll(m[1:], `\0`, "\x00")))
	}
	return fmt.Sprintf("Sx %x\n", b)
}

// postgresClient is the script in which the check sends such messages.
func postgresClient(messages ...string) string {
	return "C" + strings.TrimPrefix(postgresServer(messages...), "S")
}

// postgresStartup is the script of the first message, without TLS.
func postgresStartup(user, database string) string {
	text := "\x00\x03\x00\x00user\x00" + user + "\x00"
	if database != "" {
		text += "database\x00" + database + "\x00"
	}
	return fmt.Sprintf("Cx %x\n", postgresAppend(nil, 0, []byte(text+"application_name\x00pup-probe\x00client_encoding\x00UTF8\x00\x00")))
}

// postgresRowOf makes a row; "NULL" is one.
func postgresRowOf(columns ...string) string {
	b := binary.BigEndian.AppendUint16([]byte("D"), uint16(len(columns)))
	for _, c := range columns {
		if c == "NULL" {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(c))), c...)
	}
	return string(b)
}

func TestPostgres(t *testing.T) {
	pw := `"postgres":{"stats":false,"starttls":"off","password":"` + secret(t, "PG", "s3cret") + `"}`
	off, noStats := `"postgres":{"starttls":"off"}`, `"postgres":{"starttls":"off","stats":false}`
	start := postgresStartup("pup", "app")
	in := postgresServer(`R\0\0\0\0`, `Sserver_version\0`+`15.3\0`, `K12345678`, `ZI`)
	one := postgresServer(`T\0\0`, postgresRowOf("1"), `CSELECT 1\0`, `ZI`)
	query := postgresClient(`QSELECT 1\0`)
	both := postgresClient(`QSELECT 1\0`, `Q`+postgresStats+`\0`)
	bye := postgresClient(`X`)
	refusal := func(code, text string) string {
		return postgresServer(`ESFATAL\0VFATAL\0C` + code + `\0M` + text + `\0\0`)
	}
	md5Answer := postgresClient(`p` + postgresMD5("pup", "s3cret", []byte("salt")) + `\0`)
	talks(t, "postgres://pup@HOST/app", []talk{
		{"up, primary", off, start + in + both + one + postgresServer(`T\0\0`,
			postgresRowOf("f", "f", "1700000000.5", "60000.25", "7", "100", "3", "0", "NULL", "NULL", "2", "1.5", "300", "99", "5000"), `CSELECT 1\0`, `ZI`) + bye, "up",
			[]string{"postgres.version == '15.3'", "postgres.value == '1'", "postgres.rows == 1", "postgres.role == 'primary'", "postgres.connections_left == 90", "postgres.replicas == 2", "postgres.replica_lag_bytes == 300",
				"postgres.start_time == '2023-11-14T22:13:20.500Z'", "postgres.uptime_ms == 60000.25", "postgres.auth == 'none'", "postgres.stats"}},
		{"up, replica", off, start + in + both + one + postgresServer(postgresRowOf("t", "t", "1700000000", "1", "7", "100", "3", "1", "2500", "4096", "0", "NULL", "NULL", "99", "5000"), `ZI`) + bye, "up",
			[]string{"postgres.role == 'replica'", "postgres.link == 'up'", "postgres.lag_ms == 2500", "postgres.lag_bytes == 4096", "postgres.read_only"}},
		{"replica without primary", off, start + in + both + one + postgresServer(postgresRowOf("t", "t", "1", "1", "7", "100", "3", "0", "2500", "4096", "0", "NULL", "NULL", "99", "5000"), `ZI`) + bye, "degraded mismatch verify", nil},
		{"no stats", off, start + in + both + one + refusal("42883", "no such function") + postgresServer(`ZI`) + bye, "up", []string{"postgres.stats == false"}},
		{"NULL", noStats, start + in + query + postgresServer(postgresRowOf("NULL", "x"), postgresRowOf("y", "z"), `ZI`) + bye, "up", []string{"not ('value' in postgres)", "postgres.rows == 2"}},
		{"no rows", noStats, start + in + query + postgresServer(`ISELECT`, `ZI`) + bye, "up", []string{"postgres.rows == 0"}},
		{"query fails", noStats, start + in + query + refusal("42601", "syntax error") + postgresServer(`ZI`), "down mismatch request", []string{"postgres.sqlstate == '42601'"}},
		{"query is denied", noStats, start + in + query + refusal("42501", "permission denied") + postgresServer(`ZI`), "down denied request", nil},
		{"shut down in between", noStats, start + in + query + refusal("57P01", "terminating connection") + "! close", "down unavailable request", nil},
		{"broken row", noStats, start + in + query + postgresServer(`D\0`), "down protocol request", nil},
		{"COPY", noStats, start + in + query + postgresServer(`G\0`), "down protocol request", nil},
		{"huge row", noStats, start + in + query + "Sx 44 7f000000", "down too-large request", nil},
		{"leaves", noStats, start + in + query + "! close", "down closed request", nil},
		{"hangs", `"timeout":"200ms",` + noStats, start + in + query + "! hang", "down timeout request", nil},

		{"starting", off, start + refusal("57P03", "the database system is starting up"), "down unavailable greet", nil},
		{"too many connections", off, start + refusal("53300", "sorry, too many clients already"), "down unavailable greet", nil},
		{"rejected", off, start + refusal("28000", "no pg_hba.conf entry"), "down denied auth", nil},
		{"no such database", off, start + postgresServer(`R\0\0\0\0`) + refusal("3D000", "no such database"), "down mismatch request", nil},
		{"pooler, wrong password", off, start + refusal("08P01", "password authentication failed"), "down denied auth", nil},
		{"pooler, no server", off, start + refusal("08P01", "server conn crashed?"), "down unavailable greet", nil},
		{"error without a code", off, start + postgresServer(`EMhello\0\0`), "down protocol greet", nil},
		{"HTTP", off, start + "S: HTTP/1.1 400 Bad Request", "down protocol greet", nil},

		{"password", pw, start + postgresServer(`R\0\0\0`+"\x03") + postgresClient(`ps3cret\0`) + in + query + one + bye, "up", []string{"postgres.auth == 'password'"}},
		{"MD5", pw, start + postgresServer(`R\0\0\0`+"\x05salt") + md5Answer + in + query + one + bye, "up", []string{"postgres.auth == 'md5'"}},
		{"wrong password", pw, start + postgresServer(`R\0\0\0`+"\x05salt") + md5Answer + refusal("28P01", "s3cret is wrong"), "down denied auth", []string{"error contains '***'", "postgres.sqlstate == '28P01'"}},
		{"MD5 without salt", pw, start + postgresServer(`R\0\0\0`+"\x05"), "down protocol auth", nil},
		{"SCRAM without proof", pw, start + postgresServer(`R\0\0\0`+"\x0aSCRAM-SHA-256\\0\\0") + "! hang", "down timeout auth", nil},
		{"SCRAM that the server skips", pw, start + postgresServer(`R\0\0\0`+"\x0aSCRAM-SHA-256\\0\\0", `R\0\0\0\0`), "down protocol auth", []string{"error contains 'proved'"}},
		{"SCRAM of another server", pw, start + postgresServer(`R\0\0\0`+"\x0aSCRAM-SHA-256\\0\\0", `R\0\0\0`+"\x0br=x,s=AA==,i=1"), "down protocol auth", nil},
		{"challenge first", pw, start + postgresServer(`R\0\0\0`+"\x0br=x,s=AA==,i=1"), "down protocol auth", nil},
		{"no password given", off, start + postgresServer(`R\0\0\0`+"\x0aSCRAM-SHA-256\\0\\0"), "down denied auth", []string{"postgres.auth == 'SCRAM-SHA-256'"}},
		{"Kerberos", pw, start + postgresServer(`R\0\0\0`+"\x07"), "down denied auth", []string{"postgres.auth == 'gss'"}},
		{"what?", pw, start + postgresServer(`R\0\0\0`+"\x63"), "down protocol auth", nil},
	})
	ask := "Cx 0000000804d2162f\n"
	talks(t, "postgres://pup@HOST/app", []talk{
		{"no TLS", `"postgres":{"stats":false}`, ask + "Sx 4e\n" + start + in + query + one + bye, "up", []string{"postgres.starttls == false"}},
		{"TLS", trustTestCA() + `,"postgres":{"stats":false}`, ask + "Sx 53\n! tls\n" + start + in + query + one + bye, "up", []string{"postgres.starttls", "tls.verified"}},
		{"TLS is required", `"postgres":{"starttls":"required"}`, ask + "Sx 4e", "down tls greet", nil},
		{"injected", trustTestCA(), ask + "Sx 5352", "down protocol tls", nil},
		{"too busy for TLS", "", ask + refusal("53300", "sorry"), "down unavailable greet", nil},
		{"no PostgreSQL", "", ask + "S: Escape character is", "down protocol greet", nil},
	})
	check(t, "postgres://127.0.0.1/a", `"postgres":{"database":"b"}`).want(t, "unknown options prepare", "error contains 'postgres.database'")
	check(t, "postgres://127.0.0.1/a", `"postgres":{"query":"a\u0000b"}`).want(t, "unknown options prepare")
}

func TestPostgresReal(t *testing.T) {
	says := realserver.Shared(t, "postgres")
	nginx := realserver.Shared(t, "nginx")
	key, err := os.ReadFile(says["postgres_client_key"])
	if err != nil {
		t.Fatal(err)
	}
	ca := fmt.Sprintf(`,"tls":{"ca":%q}`, says["ca"])
	cert := fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q}`, says["ca"], says["postgres_client_crt"], secret(t, "PG_KEY", string(key)))
	pw := func(name, text string) string { return `"postgres":{"password":"` + secret(t, "PG_"+name, text) + `"}` }
	primary, bouncer := says["postgres"], says["pgbouncer"]
	for _, tt := range []struct{ name, url, target, want, fact string }{
		{"SCRAM under TLS", "postgres://pup@" + primary + "/pup", pw("PUP", "pup-secret") + ca, "up", "postgres.auth == 'SCRAM-SHA-256-PLUS' and postgres.role == 'primary' and postgres.replicas == 1 and postgres.connections_left > 0 and tls.verified and not postgres.read_only"},
		{"SCRAM", "postgres://pup@" + primary + "/pup", `"postgres":{"starttls":"off","password":"` + secret(t, "PG_PUP", "pup-secret") + `"}`, "up", "postgres.auth == 'SCRAM-SHA-256'"},
		{"MD5", "postgres://md5@" + primary + "/postgres", pw("MD5", "md5-secret") + ca, "up", "postgres.auth == 'md5'"},
		{"password", "postgres://plain@" + primary + "/postgres", pw("PLAIN", "plain-secret") + ca, "up", "postgres.auth == 'password'"},
		{"certificate", "postgres://certified@" + primary + "/postgres", cert, "up", "postgres.auth == 'none'"},
		{"query", "postgres://trusted@" + primary + "/postgres", `"postgres":{"query":"SELECT 6 * 7"},"expect":["int(postgres.value) == 42"]` + ca, "up", "true"},
		{"another value", "postgres://trusted@" + primary + "/postgres", `"postgres":{"query":"SELECT 6 * 9"},"expect":["int(postgres.value) == 42"]` + ca, "down mismatch verify", "postgres.value == '54'"},
		{"wrong password", "postgres://pup@" + primary + "/pup", pw("WRONG", "not it") + ca, "down denied auth", "postgres.sqlstate == '28P01'"},
		{"no password", "postgres://pup@" + primary + "/pup", `"labels":{}` + ca, "down denied auth", "postgres.auth contains 'SCRAM-SHA-256'"},
		{"banned", "postgres://banned@" + primary + "/pup", `"labels":{}` + ca, "down denied auth", "postgres.sqlstate == '28000'"},
		{"no such database", "postgres://trusted@" + primary + "/nope", `"labels":{}` + ca, "down mismatch request", "postgres.sqlstate == '3D000'"},
		{"too many connections", "postgres://limited@" + primary + "/postgres", pw("LIMITED", "limited-secret") + ca, "down unavailable request", "postgres.sqlstate == '53300'"},
		{"syntax", "postgres://trusted@" + primary + "/postgres", `"postgres":{"query":"SELCT"}` + ca, "down mismatch request", "postgres.sqlstate == '42601'"},
		{"not for the role", "postgres://trusted@" + primary + "/postgres", `"postgres":{"query":"TABLE pg_authid"}` + ca, "down denied request", "postgres.sqlstate == '42501'"},
		{"untrusted", "postgres://trusted@" + primary + "/postgres", "", "down certificate-untrusted tls", "postgres.starttls"},
		{"replica", "postgres://trusted@" + says["postgres_replica"] + "/postgres", `"labels":{}` + ca, "up", "postgres.role == 'replica' and postgres.link == 'up' and postgres.read_only and postgres.lag_ms >= 0 and postgres.lag_bytes >= 0"},
		{"replica is read-only", "postgres://trusted@" + says["postgres_replica"] + "/postgres", `"postgres":{"query":"CREATE TABLE x()"}` + ca, "down mismatch request", "postgres.sqlstate == '25006'"},
		{"replica without primary", "postgres://trusted@" + says["postgres_orphan"] + "/postgres", `"labels":{}` + ca, "degraded mismatch verify", "postgres.link == 'down'"},
		{"pgbouncer", "postgres://pup@" + bouncer + "/pup", pw("PUP", "pup-secret"), "up", "postgres.role == 'primary' and postgres.auth == 'md5'"},
		{"pgbouncer, wrong password", "postgres://pup@" + bouncer + "/pup", pw("WRONG", "not it"), "down denied auth", "postgres.sqlstate == '08P01'"},
		{"pgbouncer, no server", "postgres://pup@" + bouncer + "/gone", pw("PUP", "pup-secret"), "down unavailable auth", "postgres.sqlstate == '08P01'"},
		{"pgbouncer, no such database", "postgres://pup@" + bouncer + "/nope", pw("PUP", "pup-secret"), "down mismatch auth", "true"},
		{"nginx", "postgres://pup@" + nginx["http"] + "/pup", "", "down protocol greet", "true"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.fact) })
	}
}

func TestPostgresPaused(t *testing.T) {
	says := realserver.Start(t, "postgres")
	url, ca := "postgres://trusted@"+says["postgres"]+"/postgres", fmt.Sprintf(`"tls":{"ca":%q}`, says["ca"])
	check(t, url, ca).want(t, "up")
	// a session of PostgreSQL's has a process of its own, which goes on
	inside := between(t, says["pgbouncer"], "SELECT", func() { realserver.Pause(t, says, "pgbouncer") })
	check(t, "postgres://pup@"+inside+"/pup", fmt.Sprintf(`"timeout":"1s","postgres":{"starttls":"off","password":%q}`, secret(t, "PG", says["postgres_password"]))).want(t, "down timeout request", "postgres.auth != ''")
	realserver.Pause(t, says, "postgres_primary")
	check(t, url, ca+`,"timeout":"300ms"`).want(t, "down timeout greet")
	realserver.Resume(t, says, "postgres_primary")
	check(t, url, ca).want(t, "up")
	realserver.Kill(t, says, "postgres_primary")
	check(t, url, ca).want(t, "down refused connect")
}

// postgresBytes reads messages from memory.
type postgresBytes struct{ *bytes.Reader }

func (r postgresBytes) Full(b []byte) error {
	if r.Len() < len(b) {
		return fmt.Errorf("%d bytes are left, want %d", r.Len(), len(b))
	}
	r.Read(b)
	return nil
}

// FuzzPostgresRead: a message that is read is the same when it is written,
// and so is a row; an error has a code only if the bytes hold it.
func FuzzPostgresRead(f *testing.F) {
	f.Add(postgresAppend(nil, 'D', []byte(postgresRowOf("a", "NULL", ""))[1:]))
	f.Add([]byte("E\x00\x00\x00\x10C57P03\x00Mx\x00\x00"))
	f.Add([]byte("Z\xff\xff\xff\xff"))
	f.Add([]byte("D\x00\x00\x00\x0a\x00\x01\x7f\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := postgresRead(postgresBytes{bytes.NewReader(b)})
		if err != nil {
			return
		}
		if got := postgresAppend(nil, kind, body); !bytes.HasPrefix(b, got) {
			t.Fatalf("% x was read as % x", b, got)
		}
		if columns, ok := postgresRow(body); ok {
			again := binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
			for _, c := range columns {
				size := uint32(len(c))
				if c == nil {
					size = 0xffffffff
				}
				again = append(binary.BigEndian.AppendUint32(again, size), c...)
			}
			if !bytes.Equal(again, body) {
				t.Fatalf("% x was read as %q", body, columns)
			}
		}
		if e := postgresParseError(body); !bytes.Contains(body, []byte(e.code)) || !bytes.Contains(body, []byte(e.message)) {
			t.Fatalf("%q was read as %+v", body, e)
		}
	})
}
