package checks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/probe"
)

// redisInfoReply is an INFO reply of so much text, as a script has it.
func redisInfoReply(fields ...string) string {
	text := strings.Join(fields, "\r\n") + "\r\n"
	return fmt.Sprintf("S: $%d\nS: %s", len(text), strings.ReplaceAll(text, "\r\n", "\nS: "))
}

// redisOpening are PING and INFO, sent together.
const redisOpening = "C: *1\nC: $4\nC: PING\nC: *1\nC: $4\nC: INFO\n"

func TestRedis(t *testing.T) {
	master := redisInfoReply("# Server", "redis_version:7.2.4", "redis_mode:standalone", "role:master", "connected_slaves:2", "master_repl_offset:1000",
		"slave0:ip=10.0.0.1,port=6379,state=online,offset=990,lag=1", "slave1:ip=10.0.0.2,port=6379,state=online,offset=700,lag=4",
		"used_memory:50", "maxmemory:200", "db0:keys=7,expires=0,avg_ttl=0", "rdb_last_bgsave_status:ok", "aof_enabled:1", "aof_last_write_status:ok", "uptime_in_seconds:60")
	auth := secret(t, "REDIS", "hunter2")
	login := "C: *2\nC: $4\nC: AUTH\nC: $7\nC: hunter2\n" + redisOpening
	talks(t, "redis://HOST/0", []talk{
		{"master", "", redisOpening + "S: +PONG\n" + master, "up", []string{
			"redis.version == '7.2.4'", "redis.role == 'master'", "redis.replicas == 2", "redis.replica_lag_bytes == 300", "redis.replica_lag_ms == 4000",
			"redis.memory_percent == 25", "redis.keys == 7", "redis.aof_ok", "redis.uptime_ms == 60000", "version(redis.version, '>= 7')",
		}},
		{"replica", "", redisOpening + "S: +PONG\n" + redisInfoReply("role:slave", "master_host:10.0.0.1", "master_port:6379", "master_link_status:up", "master_last_io_seconds_ago:3", "slave_read_only:1"), "up",
			[]string{"redis.master == '10.0.0.1:6379'", "redis.master_last_io_ms == 3000", "redis.read_only"}},
		{"replica without master", "", redisOpening + "S: +PONG\n" + redisInfoReply("role:slave", "master_link_status:down", "master_link_down_since_seconds:-1"), "down mismatch verify", []string{"redis.link == 'down'"}},
		{"the target judges the link", `"warn":["redis.link == 'up'"]`, redisOpening + "S: +PONG\n" + redisInfoReply("role:slave", "master_link_status:down"), "degraded mismatch verify", nil},
		{"snapshot failed", "", redisOpening + "S: +PONG\n" + redisInfoReply("role:master", "rdb_last_bgsave_status:err"), "degraded mismatch verify", nil},
		{"loading", "", redisOpening + "S: -LOADING Redis is loading the dataset in memory", "down unavailable request", nil},
		{"loading, and PING is answered", "", redisOpening + "S: +PONG\n" + redisInfoReply("loading:1"), "down unavailable transfer", nil},
		{"no INFO", "", redisOpening + "S: +PONG\nS: -NOPERM this user has no permissions to run the 'info' command", "up", nil},
		{"password asked for", "", redisOpening + "S: -NOAUTH Authentication required.", "down denied auth", nil},
		{"protected mode", "", redisOpening + "S: -DENIED Redis is running in protected mode", "down denied auth", nil},
		{"too many clients", "", "S: -ERR max number of clients reached\n! close", "down unavailable request", nil},
		{"master down", "", redisOpening + "S: -MASTERDOWN Link with MASTER is down", "down unavailable request", nil},
		{"login", `"redis":{"password":"` + auth + `"}`, login + "S: +OK\nS: +PONG\n" + redisInfoReply("role:master"), "up", []string{"ms.auth > 0"}},
		{"login as a user", `"redis":{"user":"u","password":"` + auth + `"}`, "C: *3\nC: $4\nC: AUTH\nC: $1\nC: u\nC: $7\nC: hunter2\n" + redisOpening + "S: +OK\nS: +PONG\n" + redisInfoReply("role:master"), "up", nil},
		{"wrong password", `"redis":{"password":"` + auth + `"}`, login + "S: -WRONGPASS invalid username-password pair or user is disabled.", "down denied auth", nil},
		{"old server, wrong password", `"redis":{"password":"` + auth + `"}`, login + "S: -ERR invalid password", "down denied auth", nil},
		{"no password set there", `"redis":{"password":"` + auth + `"}`, login + "S: -ERR AUTH <password> called without any password configured for the default user.", "down denied auth", nil},
		{"the server repeats the password", `"redis":{"password":"` + auth + `"}`, login + "S: -ERR bad password hunter2", "down denied auth", []string{"error contains '***'"}},
		{"user without password", `"redis":{"user":"u"}`, "", "unknown options prepare", nil},
		{"a literal password", `"redis":{"password":"hunter2"}`, "", "unknown options prepare", []string{"not (error contains 'hunter2')"}},
		{"RESP3", `"redis":{"protocol":3}`, "C: *2\nC: $5\nC: HELLO\nC: $1\nC: 3\nS: %1\nS: +proto\nS: :3\n" + redisOpening + "S: |1\nS: +ttl\nS: :3\nS: >1\nS: +invalidate\nS: +PONG\nS: =10\nS: txt:role:x\n", "up", []string{"redis.role == 'x'"}},
		{"RESP3, old server", `"redis":{"protocol":3}`, "C: *2\nC: $5\nC: HELLO\nC: $1\nC: 3\nS: -ERR unknown command `HELLO`\n" + redisOpening + "S: +PONG\n" + redisInfoReply("role:master"), "up", nil},
		{"RESP3, refused", `"redis":{"protocol":3}`, "C: *2\nC: $5\nC: HELLO\nC: $1\nC: 3\nS: -NOAUTH HELLO must be called with the client already authenticated", "down denied auth", nil},
		{"another reply", "", redisOpening + "S: +OK", "down protocol request", nil},
		{"unknown command", "", redisOpening + "S: -ERR unknown command 'PING'", "down protocol request", nil},
		{"cut short in INFO", "", redisOpening + "S: +PONG\nS: $100\nS: redis_version:7\n! close", "down closed transfer", nil},
		{"huge INFO", "", redisOpening + "S: +PONG\nS: $99999999999\n", "down too-large transfer", nil},
		{"bad length", "", redisOpening + "S: +PONG\nS: $x", "down protocol transfer", nil},
		{"sentinel without quorum", "", redisOpening + "S: +PONG\n" + redisInfoReply("redis_mode:sentinel", "master0:name=main,status=ok,address=10.0.0.1:6379,slaves=2,sentinels=3") +
			"\nC: *3\nC: $8\nC: SENTINEL\nC: $8\nC: CKQUORUM\nC: $4\nC: main\nS: -NOQUORUM 1 usable Sentinels", "down mismatch verify", []string{"redis.masters[0].name == 'main'", "redis.masters[0].sentinels == 3"}},
		{"key", `"redis":{"key":"k"},"expect":["redis.value == '42'"]`, redisOpening + "S: +PONG\n" + redisInfoReply("role:master") +
			"\nC: *2\nC: $4\nC: TYPE\nC: $1\nC: k\nS: +string\nC: *2\nC: $6\nC: STRLEN\nC: $1\nC: k\nS: :2\nC: *4\nC: $8\nC: GETRANGE\nC: $1\nC: k\nC: $1\nC: 0\nC: $3\nC: 255\nS: $2\nS: 42", "up", []string{"redis.key_length == 2"}},
	})
	talks(t, "redis://HOST/3", []talk{
		{"database", "", "C: *2\nC: $6\nC: SELECT\nC: $1\nC: 3\n" + redisOpening + "S: +OK\nS: +PONG\n" + redisInfoReply("role:master", "db3:keys=5,expires=0"), "up", []string{"redis.keys == 5"}},
		{"no such database", "", "C: *2\nC: $6\nC: SELECT\nC: $1\nC: 3\n" + redisOpening + "S: -ERR DB index is out of range", "down mismatch request", nil},
	})
	check(t, "redis://127.0.0.1:1/x", "").want(t, "unknown options prepare")
}

// A password goes over an open connection only where that is allowed. That
// address is not ours, so nothing can be sent; a listener on it is.
func TestRedisPlainAuth(t *testing.T) {
	auth := secret(t, "REDIS", "hunter2")
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			if bytes.Contains(b, []byte("hunter2")) {
				t.Error("the password was sent")
			}
		}
	}()
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		url := fmt.Sprintf("redis://%s:%d/", ip.IP, ln.Addr().(*net.TCPAddr).Port)
		check(t, url, `"redis":{"password":"`+auth+`"}`).want(t, "unknown options connect", "error contains 'redis.allow_plain_auth'")
	}
}

func TestRedisReal(t *testing.T) {
	s := realserver.Shared(t, "redis")
	nginx := realserver.Shared(t, "nginx")
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])
	def, user, idle := secret(t, "DEF", s["redis_auth_password"]), secret(t, "USER", s["redis_auth_user_password"]), secret(t, "IDLE", s["redis_auth_idle_password"])
	wrong := secret(t, "WRONG", "not it")
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"plain", "redis://" + s["redis"], "", "up", []string{"redis.role == 'master'", "redis.replicas == 1"}},
		{"RESP3", "redis://" + s["redis"], `"redis":{"protocol":3}`, "up", []string{"redis.role == 'master'"}},
		{"canary", "redis://" + s["redis"] + "/2", `"redis":{"canary":true}`, "up", []string{"redis.write_ms > 0", "redis.read_ms > 0", "redis.delete_ms > 0"}},
		{"canary in a cluster", "redis://" + s["redis_cluster"], `"redis":{"canary":true}`, "up", []string{"redis.slots_ok == 16384"}},
		{"canary on a replica", "redis://" + s["redis_replica"], `"redis":{"canary":true}`, "down unavailable verify", nil},
		{"no such key", "redis://" + s["redis"], `"redis":{"key":"nope"}`, "up", []string{"redis.key_type == 'none'"}},
		{"no password", "redis://" + s["redis_auth"], "", "down denied auth", nil},
		{"no password is expected", "redis://" + s["redis_auth"], `"expect":["reason == 'denied'"]`, "up", nil},
		{"password", "redis://" + s["redis_auth"], `"redis":{"password":"` + def + `"}`, "up", []string{"redis.role == 'master'"}},
		{"user", "redis://" + s["redis_auth"], `"redis":{"user":"pup","password":"` + user + `"}`, "up", nil},
		{"user, RESP3", "redis://" + s["redis_auth"], `"redis":{"user":"pup","password":"` + user + `","protocol":3}`, "up", nil},
		{"wrong password", "redis://" + s["redis_auth"], `"redis":{"password":"` + wrong + `"}`, "down denied auth", nil},
		{"wrong password, RESP3", "redis://" + s["redis_auth"], `"redis":{"password":"` + wrong + `","protocol":3}`, "down denied auth", nil},
		{"user without rights", "redis://" + s["redis_auth"], `"redis":{"user":"idle","password":"` + idle + `"}`, "down denied auth", nil},
		{"TLS", "rediss://" + s["redis_tls"], ca, "up", []string{"tls.verified", "redis.role == 'master'"}},
		{"TLS, untrusted", "rediss://" + s["redis_tls"], "", "down certificate-untrusted tls", nil},
		{"TLS asked of a plain server", "rediss://" + s["redis"], `"timeout":"500ms"`, "down timeout tls", nil},
		{"replica", "redis://" + s["redis_replica"], "", "up", []string{"redis.role == 'slave'", "redis.link == 'up'"}},
		{"replica whose master is gone", "redis://" + s["redis_orphan"], "", "down mismatch verify", []string{"redis.link == 'down'"}},
		{"sentinel", "redis://" + s["redis_sentinel"], "", "up", []string{"redis.mode == 'sentinel'", "redis.quorum", "redis.masters[0].name == '" + s["redis_sentinel_master"] + "'"}},
		{"cluster", "redis://" + s["redis_cluster"], "", "up", []string{"redis.cluster_state == 'ok'"}},
		{"cluster without slots", "redis://" + s["redis_cluster_down"], "", "down mismatch verify", []string{"redis.cluster_state == 'fail'"}},
		{"nginx", "redis://" + nginx["http"], "", "down protocol request", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

// A server that stops in the middle: it accepts, by the kernel, and is silent.
func TestRedisPaused(t *testing.T) {
	s := realserver.Start(t, "redis")
	check(t, "redis://"+s["redis"], "").want(t, "up")
	realserver.Pause(t, s, "redis")
	check(t, "redis://"+s["redis"], `"timeout":"300ms"`).want(t, "down timeout request")
	realserver.Resume(t, s, "redis")
	check(t, "redis://"+s["redis"], "").want(t, "up")
	realserver.Kill(t, s, "redis")
	check(t, "redis://"+s["redis"], "").want(t, "down refused connect")
}

// redisBytes reads replies from memory.
type redisBytes struct{ *bufio.Reader }

func (r redisBytes) Line() (string, error) {
	s, err := r.ReadString('\n')
	return strings.TrimRight(s, "\r\n"), err
}

func (r redisBytes) Full(b []byte) error { _, err := io.ReadFull(r, b); return err }

// FuzzRedisRead: a reply is read within its bounds, and a command that we
// write is read back as it was.
func FuzzRedisRead(f *testing.F) {
	f.Add([]byte("*2\r\n$3\r\nfoo\r\n%1\r\n+a\r\n:1\r\n"), "SET", "a\r\nb")
	f.Add([]byte("|1\r\n+ttl\r\n:3\r\n*-1\r\n"), "", "\xff")
	f.Fuzz(func(t *testing.T, wire []byte, a, b string) {
		redisRead(redisBytes{bufio.NewReader(bytes.NewReader(wire))})
		v, err := redisRead(redisBytes{bufio.NewReader(bytes.NewReader(redisAppend(nil, a, b)))})
		if err != nil || v.kind != '*' || len(v.items) != 2 || v.items[0].text != a || v.items[1].text != b {
			t.Errorf("%q %q came back as %+v, %v", a, b, v, err)
		}
		redisParseInfo(string(wire)).facts(new(redisFacts), 0)
	})
}

// BenchmarkRedis compares the whole check, line in and line out, with a bare
// loop that dials, sends PING and INFO and reads the answers.
func BenchmarkRedis(b *testing.B) {
	addr := os.Getenv("PUP_BENCH_REDIS")
	if addr == "" {
		addr = realserver.Shared(b, "redis")["redis"]
	}
	r := probe.NewRunner(All())
	line := []byte(`{"name":"t","url":"redis://` + addr + `/"}`)
	b.Run("check", func(b *testing.B) {
		benchCPU(b, func() {
			j, err := r.Parse(line)
			if err != nil {
				b.Fatal(err)
			}
			j.Run(b.Context())
			if j.Status != "up" {
				b.Fatalf("%s", j.Line)
			}
		})
	})
	b.Run("reference", func(b *testing.B) {
		buf := make([]byte, 16<<10)
		benchCPU(b, func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			io.WriteString(c, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nINFO\r\n")
			for n := 0; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) && n < 3000; {
				m, err := c.Read(buf[n:])
				if err != nil {
					b.Fatal(err)
				}
				n += m
			}
			c.Close()
		})
	})
}
