package checks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// redisBulk is the script in which the server sends a string.
func redisBulk(kind, text string) string {
	text = strings.ReplaceAll(text, "\n", "\r\n")
	return fmt.Sprintf("S: %s%d\nSx %x\n", kind, len(text), text+"\r\n")
}

// redisSays is the script in which the check sends commands at once.
func redisSays(commands ...string) string {
	var b []byte
	for _, c := range commands {
		b = redisAppend(b, strings.Fields(c)...)
	}
	return fmt.Sprintf("Cx %x\n", b)
}

const redisMasterInfo = `# Server
redis_version:7.0.15
redis_mode:standalone
run_id:a9cc
uptime_in_seconds:70
server_time_usec:1000000000000000
# Memory
used_memory:950
maxmemory:1000
# Persistence
loading:0
rdb_last_save_time:999999900
rdb_last_bgsave_status:ok
aof_enabled:1
aof_last_bgrewrite_status:ok
aof_last_write_status:ok
# Stats
keyspace_hits:3
keyspace_misses:1
# Replication
role:master
connected_slaves:2
slave0:ip=10.0.0.1,port=6379,state=online,offset=80,lag=1
slave1:ip=10.0.0.2,port=6379,state=wait_bgsave,offset=0,lag=0
master_repl_offset:100
# Keyspace
db0:keys=7,expires=0,avg_ttl=0
db10:keys=9,expires=0,avg_ttl=0
`

func TestRedis(t *testing.T) {
	open := redisSays("PING", "INFO")
	pong := open + "S: +PONG\n"
	pw := `"redis":{"password":"` + secret(t, "REDIS", "s3cret") + `"`
	hello := "S: %7\nS: $6\nS: server\nS: $5\nS: redis\nS: $7\nS: version\nS: $5\nS: 7.2.0\nS: $5\nS: proto\nS: :3\nS: $2\nS: id\nS: :4\n" +
		"S: $4\nS: mode\nS: $10\nS: standalone\nS: $4\nS: role\nS: $5\nS: slave\nS: $7\nS: modules\nS: *0\n"
	talks(t, "redis://HOST", []talk{
		{"up", "", pong + redisBulk("$", redisMasterInfo), "up", []string{
			"redis.role == 'master'", "redis.version == '7.0.15'", "redis.mode == 'standalone'", "redis.run_id == 'a9cc'", "redis.uptime_ms == 70000",
			"redis.memory_percent == 95", "redis.last_save_age_ms == 100000", "redis.last_bgsave_ok", "redis.aof_ok", "redis.hit_percent == 75",
			"redis.connected_replicas == 2", "redis.online_replicas == 1", "redis.lag_bytes == 20", "redis.lag_ms == 1000", "redis.keys == 7", "redis.info", "redis.protocol == 2"}},
		{"INFO denied", "", pong + "S: -NOPERM no", "up", []string{"redis.info == false"}},
		{"PING only", `"redis":{"info":false}`, redisSays("PING") + "S: +PONG", "up", nil},
		{"valkey", "", pong + redisBulk("$", "redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.0.1\nserver_mode:standalone\n"), "up",
			[]string{"redis.server == 'valkey'", "redis.version == '8.0.1'", "redis.mode == 'standalone'"}},
		{"replica", "", pong + redisBulk("$", "role:slave\nmaster_host:10.0.0.1\nmaster_port:6379\nmaster_link_status:up\nmaster_last_io_seconds_ago:3\nslave_read_repl_offset:90\nslave_repl_offset:70\nslave_read_only:1\n"),
			"up", []string{"redis.role == 'replica'", "redis.link == 'up'", "redis.lag_ms == 3000", "redis.lag_bytes == 20", "redis.offset == 70", "redis.read_only", "redis.master == '10.0.0.1:6379'"}},
		{"replica without master", "", pong + redisBulk("$", "role:slave\nmaster_link_status:down\nmaster_last_io_seconds_ago:-1\nmaster_link_down_since_seconds:9\n"), "down mismatch verify", []string{"redis.link_down_ms == 9000"}},
		{"replica without master, as expected", `"expect":["redis.link == 'down'"]`, pong + redisBulk("$", "role:slave\nmaster_link_status:down\n"), "up", nil},
		{"snapshot failed", "", pong + redisBulk("$", "role:master\nrdb_last_bgsave_status:err\n"), "degraded mismatch verify", nil},
		{"AOF failed", "", pong + redisBulk("$", "aof_enabled:1\naof_last_bgrewrite_status:ok\naof_last_write_status:err\n"), "degraded mismatch verify", nil},
		{"AOF is off", "", pong + redisBulk("$", "aof_enabled:0\naof_last_write_status:err\n"), "up", nil},
		{"still loading", "", pong + redisBulk("$", "async_loading:1\nloading:0\n"), "down mismatch verify", nil},

		{"wants a password", "", open + "S: -NOAUTH Authentication required.\nS: -NOAUTH Authentication required.", "down denied auth", []string{"error contains 'NOAUTH'"}},
		{"protected mode", "", "S: -DENIED Redis is running in protected mode", "down denied auth", nil},
		{"no right to PING", "", open + "S: -NOPERM this user has no permissions", "down denied auth", nil},
		{"loading", "", open + "S: -LOADING Redis is loading the dataset in memory", "down unavailable request", nil},
		{"master down", "", open + "S: -MASTERDOWN Link with MASTER is down", "down unavailable request", nil},
		{"busy", "", open + "S: -BUSY Redis is busy running a script.", "down unavailable request", nil},
		{"disk full", "", open + "S: -MISCONF Redis is configured to save RDB snapshots", "down unavailable request", nil},
		{"too many clients", "", "S: -ERR max number of clients reached\n! close", "down unavailable request", nil},
		{"unknown command", "", open + "S: -ERR unknown command", "down protocol request", nil},
		{"no PONG", "", open + "S: +OK", "down protocol request", nil},
		{"not RESP", "", open + "S: HTTP/1.1 400 Bad Request", "down protocol request", []string{"error contains 'HTTP'"}},
		{"leaves after PING", "", pong + "! close", "down closed request", nil},
		{"leaves in INFO", "", pong + "S: $500\nS: # Server\n! close", "down closed request", nil},
		{"hangs in INFO", `"timeout":"200ms"`, pong + "S: $500\nS: # Server\n! hang", "down timeout request", nil},
		{"huge INFO", "", pong + "S: $2000000", "down protocol request", nil},
		{"INFO is a list", "", pong + "S: *0", "down protocol request", nil},
		{"INFO runs on", "", pong + "S: $3\nS: abcdef", "down protocol request", nil},

		{"password", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: +OK\nS: +PONG", "up", nil},
		{"user", pw + `,"user":"pup","info":false}`, redisSays("AUTH pup s3cret", "PING") + "S: +OK\nS: +PONG", "up", nil},
		{"wrong password", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: -WRONGPASS invalid username-password pair\nS: -NOAUTH x", "down denied auth", nil},
		{"wrong password, of old", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: -ERR invalid password", "down denied auth", nil},
		{"no password wanted", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: -ERR Client sent AUTH, but no password is set", "down denied auth", nil},
		{"password comes back", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: -ERR unknown command, with args beginning with: 's3cret'", "down denied auth", []string{"error contains '***'"}},
		{"loading at AUTH", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: -LOADING x", "down unavailable auth", nil},
		{"no OK to AUTH", pw + `,"info":false}`, redisSays("AUTH s3cret", "PING") + "S: :1", "down protocol auth", nil},

		{"database", `"redis":{"db":3,"info":false}`, redisSays("SELECT 3", "PING") + "S: +OK\nS: +PONG", "up", nil},
		{"no such database", `"redis":{"db":99,"info":false}`, redisSays("SELECT 99", "PING") + "S: -ERR DB index is out of range\nS: +PONG", "down mismatch request", nil},
		{"no right to SELECT", `"redis":{"db":9,"info":false}`, redisSays("SELECT 9", "PING") + "S: -NOPERM x", "down denied auth", nil},

		{"RESP3", `"redis":{"protocol":3}`, redisSays("HELLO 3") + hello + open + "S: +PONG\n" + redisBulk("=", "txt:redis_version:7.2.0\nrole:master\n"), "up",
			[]string{"redis.protocol == 3", "redis.version == '7.2.0'", "redis.role == 'master'", "ms.greet >= 0"}},
		{"RESP3 tells without INFO", `"redis":{"protocol":3}`, redisSays("HELLO 3") + hello + pong + "S: -NOPERM x", "up", []string{"redis.role == 'replica'", "redis.mode == 'standalone'"}},
		{"RESP3, pushed at", `"redis":{"protocol":3,"info":false}`, redisSays("HELLO 3") + "S: >2\nS: +invalidate\nS: _\n" + hello + redisSays("PING") + "S: |1\nS: +ttl\nS: :5\nS: +PONG", "up", nil},
		{"RESP3 is too new", `"redis":{"protocol":3,"info":false}`, redisSays("HELLO 3") + "S: -ERR unknown command 'HELLO'\n" + redisSays("PING") + "S: +PONG", "up", []string{"redis.protocol == 2"}},
		{"RESP3 with password", pw + `,"protocol":3,"info":false}`, redisSays("HELLO 3 AUTH default s3cret") + hello + redisSays("PING") + "S: +PONG", "up", []string{"ms.auth >= 0", "not ('greet' in ms)"}},
		{"RESP3 is too new, with password", pw + `,"protocol":3,"info":false}`, redisSays("HELLO 3 AUTH default s3cret") + "S: -ERR unknown command 'HELLO'\n" + redisSays("AUTH s3cret", "PING") + "S: +OK\nS: +PONG", "up", nil},
		{"RESP3, wrong password", pw + `,"protocol":3}`, redisSays("HELLO 3 AUTH default s3cret") + "S: -WRONGPASS x", "down denied auth", nil},
		{"RESP3, wants a password", `"redis":{"protocol":3}`, redisSays("HELLO 3") + "S: -NOAUTH HELLO must be called with the client already authenticated", "down denied auth", nil},
		{"HELLO is a list", `"redis":{"protocol":3}`, redisSays("HELLO 3") + "S: *0", "down protocol greet", nil},
	})
	for target, part := range map[string]string{
		`"redis":{"db":1}`:                           "redis.db",
		`"redis":{"canary":true,"canary_ttl":"1us"}`: "redis.canary_ttl",
	} {
		check(t, "redis://cache.example.org/2", target).want(t, "unknown options prepare", "error contains '"+part+"'")
	}
	check(t, "redis://127.0.0.1/two", "").want(t, "unknown options prepare", "error contains 'number'")
	addr := serve(t, func(c net.Conn) { play(t, c, redisSays("AUTH pup s3cret", "PING")+"S: +OK\nS: +PONG") })
	check(t, "redis://pup@cache.example.org", pw+`,"allow_plain_auth":true,"info":false},"connect":"`+addr+`"`).want(t, "up")
}

func TestRedisKey(t *testing.T) {
	ping := redisSays("PING") + "S: +PONG\n"
	typed := ping + redisSays("TYPE k", "PTTL k")
	talks(t, "redis://HOST", []talk{
		{"string", `"redis":{"key":"k","info":false},"expect":["int(redis.value) > 40"]`, typed + "S: +string\nS: :-1\n" + redisSays("STRLEN k") + "S: :2\n" + redisSays("GETRANGE k 0 65535") + "S: $2\nS: 42", "up",
			[]string{"redis.key_exists", "redis.key_type == 'string'", "redis.key_length == 2", "redis.value == '42'", "not ('key_ttl_ms' in redis)"}},
		{"list", `"redis":{"key":"k","info":false}`, typed + "S: +list\nS: :500\n" + redisSays("LLEN k") + "S: :9", "up", []string{"redis.key_length == 9", "redis.key_ttl_ms == 500"}},
		{"of a module", `"redis":{"key":"k","info":false}`, typed + "S: +ReJSON-RL\nS: :-1", "up", []string{"redis.key_type == 'ReJSON-RL'"}},
		{"absent", `"redis":{"key":"k","info":false}`, typed + "S: +none\nS: :-2", "down mismatch verify", []string{"redis.key_exists == false"}},
		{"absent, as expected", `"redis":{"key":"k","info":false},"expect":["not redis.key_exists"]`, typed + "S: +none\nS: :-2", "up", nil},
		{"no right", `"redis":{"key":"k","info":false}`, typed + "S: -NOPERM x\nS: -NOPERM x", "down denied request", nil},
		{"elsewhere", `"redis":{"key":"k","info":false}`, typed + "S: -MOVED 1 10.0.0.1:6379", "down mismatch request", nil},
		{"changed type", `"redis":{"key":"k","info":false}`, typed + "S: +list\nS: :-1\n" + redisSays("LLEN k") + "S: -WRONGTYPE x", "down mismatch request", nil},
		{"length is text", `"redis":{"key":"k","info":false}`, typed + "S: +list\nS: :-1\n" + redisSays("LLEN k") + "S: +many", "down protocol request", nil},
	})
}

// redisFake answers commands until the check leaves. F gives the reply.
func redisFake(t *testing.T, f func(args []string) string) string {
	return serve(t, func(c net.Conn) {
		src := redisText{bufio.NewReader(c)}
		for {
			v, err := redisRead(src)
			if err != nil {
				return
			}
			var args []string
			for _, a := range v.list {
				args = append(args, string(a.text))
			}
			io.WriteString(c, f(args))
		}
	})
}

func TestRedisCanary(t *testing.T) {
	for _, tt := range []struct {
		name, set, get, del, want string
		moved                     int // how many names are not this node's
		deletes                   int
	}{
		{"up", "+OK", "", ":1", "up", 0, 1},
		{"cluster", "+OK", "", ":1", "up", 40, 1},
		{"replica of a cluster", "+OK", "", ":1", "down unavailable request", 1000, 0},
		{"full", "-OOM command not allowed", "", ":1", "down unavailable request", 0, 0},
		{"replica", "-READONLY x", "", ":1", "down unavailable request", 0, 0},
		{"no right", "-NOPERM x", "", ":1", "down denied request", 0, 0},
		{"exists", "$-1", "", ":1", "down protocol request", 0, 0},
		{"lost", "+OK", "$-1", ":0", "down mismatch request", 0, 1},
		{"changed", "+OK", "$3\r\nabc", ":1", "down mismatch request", 0, 1},
		{"unreadable", "+OK", "-NOPERM x", ":1", "down denied request", 0, 1},
		{"not deleted", "+OK", "", ":0", "down mismatch request", 0, 1},
		{"no right to delete", "+OK", "", "-NOPERM x", "down denied request", 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var key, value string
			sets, deletes := 0, 0
			addr := redisFake(t, func(args []string) string {
				switch {
				case args[0] == "SET":
					if sets++; sets <= tt.moved {
						return "-MOVED 3999 127.0.0.1:6381\r\n"
					}
					if key, value = args[1], args[2]; !slices.Equal(args[3:], []string{"PX", "60000", "NX"}) || !strings.HasPrefix(key, "pup:canary:") {
						t.Errorf("got %q", args)
					}
					return tt.set + "\r\n"
				case args[0] == "GET" && args[1] == key && tt.get == "":
					return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
				case args[0] == "GET" && args[1] == key:
					return tt.get + "\r\n"
				case args[0] == "DEL" && args[1] == key:
					deletes++
					return tt.del + "\r\n"
				}
				return "+PONG\r\n"
			})
			res := check(t, "redis://"+addr, `"redis":{"info":false,"canary":true}`)
			res.want(t, tt.want)
			if tt.want == "up" {
				res.want(t, tt.want, "redis.canary_write_ms >= 0", "redis.canary_read_ms >= 0", "redis.canary_delete_ms >= 0")
			}
			if deletes != tt.deletes {
				t.Errorf("got %d DEL, want %d", deletes, tt.deletes)
			}
		})
	}
}

func TestRedisSentinel(t *testing.T) {
	fake := func(master, quorum, status, peers string) string {
		info := "redis_mode:sentinel\r\nmaster0:name=main,status=" + status + ",address=10.0.0.1:6379,slaves=2,sentinels=3\r\n"
		return redisFake(t, func(args []string) string {
			switch strings.Join(args, " ") {
			case "INFO":
				return fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
			case "SENTINEL CKQUORUM main":
				return quorum + "\r\n"
			case "SENTINEL SENTINELS main":
				return peers + "\r\n"
			case "SENTINEL GET-MASTER-ADDR-BY-NAME main":
				return fmt.Sprintf("*2\r\n$8\r\n%s\r\n$4\r\n6379\r\n", master)
			}
			return "+PONG\r\n"
		})
	}
	peers := func(addrs ...string) string {
		s := fmt.Sprintf("*%d", len(addrs))
		for _, a := range addrs {
			host, port, _ := net.SplitHostPort(a)
			s += fmt.Sprintf("\r\n*6\r\n+name\r\n+x\r\n+ip\r\n+%s\r\n+port\r\n+%s", host, port)
		}
		return s
	}
	ok, noQuorum := "+OK 3 usable Sentinels", "-NOQUORUM 1 usable Sentinels"
	same, other, gone := fake("10.0.0.1", ok, "ok", "*0"), fake("10.0.0.2", ok, "ok", "*0"), realserver.ClosedPort(t)
	for _, tt := range []struct{ name, addr, options, want, fact string }{
		{"up", fake("10.0.0.1", ok, "ok", "*0"), "{}", "up", "redis.quorum_ok and redis.masters[0].quorum_ok and redis.masters[0].sentinels == 3 and not ('sentinels_agree' in redis)"},
		{"no quorum", fake("10.0.0.1", noQuorum, "ok", "*0"), "{}", "down mismatch verify", "not redis.quorum_ok"},
		{"master down", fake("10.0.0.1", ok, "odown", "*0"), "{}", "down mismatch verify", "redis.masters[0].status == 'odown'"},
		{"may not be asked", fake("10.0.0.1", "-NOPERM x", "ok", "*0"), "{}", "up", "redis.quorum_ok"},
		{"agree", fake("10.0.0.1", ok, "ok", peers(same, same)), `{"master":"main"}`, "up", "redis.sentinels_agree and len(redis.sentinels) == 2"},
		{"disagree", fake("10.0.0.1", ok, "ok", peers(same, other)), `{"master":"main"}`, "down mismatch verify", "redis.sentinels[1].master == '10.0.0.2:6379'"},
		{"one is gone", fake("10.0.0.1", ok, "ok", peers(gone, same)), `{"master":"main"}`, "down mismatch verify", "redis.sentinels[0].error contains 'refused' and not redis.sentinels_agree"},
		{"no such master", fake("10.0.0.1", ok, "ok", "*0"), `{"master":"other"}`, "down mismatch request", "error contains 'other'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, "redis://"+tt.addr, `"redis":`+tt.options).want(t, tt.want, tt.fact, "address == '"+tt.addr+"'")
		})
	}
	addr := redisFake(t, func([]string) string { return "+PONG\r\n" })
	check(t, "redis://"+addr, `"redis":{"master":"main","info":false}`).want(t, "down mismatch request", "error contains 'sentinel'")
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

// TestRedisReal probes the real server in every form.
func TestRedisReal(t *testing.T) {
	says := realserver.Shared(t, "redis")
	user, idle := secret(t, "REDIS_USER", says["redis_auth_user_password"]), secret(t, "REDIS_IDLE", says["redis_auth_idle_password"])
	deflt, wrong := secret(t, "REDIS_DEFAULT", says["redis_auth_password"]), secret(t, "REDIS_WRONG", "wrong-secret")
	nginx := realserver.Shared(t, "nginx")
	for _, tt := range []struct{ name, url, target, want, fact string }{
		{"master", "redis://" + says["redis"], `"redis":{"canary":true}`, "up", "redis.role == 'master' and redis.online_replicas == 1 and redis.canary_delete_ms >= 0 and redis.version startsWith '7.' and redis.keys == 0"},
		{"RESP3", "redis://" + says["redis"] + "/3", `"redis":{"canary":true,"protocol":3}`, "up", "redis.protocol == 3 and redis.role == 'master' and redis.info"},
		{"no such database", "redis://" + says["redis"] + "/77", "", "down mismatch request", "error contains 'out of range'"},
		{"no such key", "redis://" + says["redis"], `"redis":{"key":"no-such-key"}`, "down mismatch verify", "redis.key_exists == false"},
		{"replica", "redis://" + says["redis_replica"], "", "up", "redis.role == 'replica' and redis.link == 'up' and redis.read_only and redis.master == '" + says["redis"] + "'"},
		{"replica is not for writing", "redis://" + says["redis_replica"], `"redis":{"canary":true}`, "down unavailable request", "error contains 'READONLY'"},
		{"replica without master", "redis://" + says["redis_orphan"], "", "down mismatch verify", "redis.link == 'down'"},
		{"no credentials", "redis://" + says["redis_auth"], "", "down denied auth", "error contains 'NOAUTH'"},
		{"no credentials, RESP3", "redis://" + says["redis_auth"], `"redis":{"protocol":3}`, "down denied auth", "error contains 'NOAUTH'"},
		{"no credentials, as expected", "redis://" + says["redis_auth"], `"expect":["reason == 'denied'"]`, "up", "true"},
		{"default user", "redis://" + says["redis_auth"], `"redis":{"password":"` + deflt + `"}`, "up", "redis.info"},
		{"user", "redis://pup@" + says["redis_auth"], `"redis":{"password":"` + user + `","canary":true}`, "up", "redis.info"},
		{"user, RESP3", "redis://pup@" + says["redis_auth"], `"redis":{"password":"` + user + `","canary":true,"protocol":3}`, "up", "redis.protocol == 3"},
		{"outside of the user's keys", "redis://pup@" + says["redis_auth"], `"redis":{"password":"` + user + `","canary":true,"canary_prefix":"x:"}`, "down denied request", "error contains 'NOPERM'"},
		{"wrong password", "redis://pup@" + says["redis_auth"], `"redis":{"password":"` + wrong + `"}`, "down denied auth", "error contains 'WRONGPASS'"},
		{"no right to PING", "redis://" + says["redis_auth"], `"redis":{"user":"idle","password":"` + idle + `"}`, "down denied auth", "error contains 'NOPERM'"},
		{"TLS", "rediss://" + says["redis_tls"], `"tls":{"ca":"` + says["ca"] + `"}`, "up", "tls.verified and redis.role == 'master'"},
		{"TLS, untrusted", "rediss://" + says["redis_tls"], "", "down certificate-untrusted tls", "true"},
		{"TLS is not wanted", "rediss://" + says["redis"], `"timeout":"300ms"`, "down timeout tls", "true"},
		{"TLS is wanted", "redis://" + says["redis_tls"], "", "down reset request", "true"},
		{"sentinel", "redis://" + says["redis_sentinel"], `"redis":{"master":"main"}`, "up", "redis.mode == 'sentinel' and redis.quorum_ok and redis.masters[0].address == '" + says["redis"] + "' and redis.sentinels_agree"},
		{"cluster", "redis://" + says["redis_cluster"], `"redis":{"canary":true}`, "up", "redis.mode == 'cluster' and redis.cluster_state == 'ok' and redis.cluster_slots_ok == 16384 and redis.cluster_size == 1"},
		{"cluster without slots", "redis://" + says["redis_cluster_down"], "", "down mismatch verify", "redis.cluster_state == 'fail' and redis.cluster_slots_ok == 0"},
		{"cluster without slots, canary", "redis://" + says["redis_cluster_down"], `"redis":{"canary":true}`, "down unavailable request", "error contains 'CLUSTERDOWN'"},
		{"nginx", "redis://" + nginx["http"], "", "down protocol request", "error contains 'HTTP'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.url, tt.target)
			res.want(t, tt.want, tt.fact)
			for name, text := range says {
				if strings.HasSuffix(name, "_password") && strings.Contains(res.line, text) {
					t.Errorf("the result holds a secret: %s", res.line)
				}
			}
		})
	}
}

func TestRedisPaused(t *testing.T) {
	says := realserver.Start(t, "redis")
	check(t, "redis://"+says["redis"], "").want(t, "up")
	realserver.Pause(t, says, "redis")
	check(t, "redis://"+says["redis"], `"timeout":"300ms"`).want(t, "down timeout request")
	realserver.Resume(t, says, "redis")
	check(t, "redis://"+says["redis"], "").want(t, "up")
	realserver.Kill(t, says, "redis")
	check(t, "redis://"+says["redis"], "").want(t, "down refused connect")
}

// redisText reads replies from what is no probe.Conn.
type redisText struct{ *bufio.Reader }

func (r redisText) Line() (string, error) {
	s, err := r.ReadString('\n')
	if err == io.EOF && s != "" {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r"), err
}

func (r redisText) Full(b []byte) error { _, err := io.ReadFull(r, b); return err }

// redisEncode writes a value in its canonical form.
func redisEncode(v *redisValue) []byte {
	var b []byte
	switch {
	case v.null && v.kind != '_':
		return fmt.Appendf(nil, "%c-1\r\n", v.kind)
	case v.kind == '=':
		return fmt.Appendf(nil, "=%d\r\ntxt:%s\r\n", len(v.text)+4, v.text)
	case v.kind == '$' || v.kind == '!':
		return fmt.Appendf(nil, "%c%d\r\n%s\r\n", v.kind, len(v.text), v.text)
	case v.list != nil:
		n := len(v.list)
		if v.kind == '%' {
			n /= 2
		}
		b = fmt.Appendf(nil, "%c%d\r\n", v.kind, n)
		for i := range v.list {
			b = append(b, redisEncode(&v.list[i])...)
		}
		return b
	}
	return fmt.Appendf(nil, "%c%s\r\n", v.kind, v.text)
}

// FuzzRedisRead: what is read and written again is read as the same, and a
// reply is not larger than allowed, whatever it announces.
func FuzzRedisRead(f *testing.F) {
	for _, s := range []string{
		"+PONG\r\n", "-ERR x\r\n", ":1\r\n", ":-5\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", "*2\r\n:1\r\n$0\r\n\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", ",inf\r\n",
		"(12345678901234567890\r\n", "=7\r\ntxt:abc\r\n", "!5\r\nERR x\r\n", "%1\r\n+a\r\n*0\r\n", "~1\r\n+a\r\n", ">1\r\n+a\r\n+b\r\n", "|1\r\n+a\r\n+b\r\n+c\r\n",
		"$999999999\r\n", "*2147483647\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+x\r\n", "$?\r\n", "=2\r\nab\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := redisRead(redisText{bufio.NewReader(bytes.NewReader(b))})
		if err != nil {
			return
		}
		text := redisEncode(&v)
		if len(text) > 64*len(b)+64 {
			t.Fatalf("%d bytes were read as %d", len(b), len(text))
		}
		again, err := redisRead(redisText{bufio.NewReader(bytes.NewReader(text))})
		if err != nil || !bytes.Equal(redisEncode(&again), text) {
			t.Fatalf("%q became %q, and that %q (%v)", b, text, redisEncode(&again), err)
		}
	})
}

// FuzzRedisInfo: no text makes a number that can't be, and what INFO says of
// one thing has no effect on the others.
func FuzzRedisInfo(f *testing.F) {
	f.Add(redisMasterInfo)
	f.Add("role:slave\r\nmaster_link_status:up\r\nslave_repl_offset:9\r\nslave_read_repl_offset:5\r\n")
	f.Add("master0:name=a,status=ok\r\nredis_mode:sentinel\n")
	f.Fuzz(func(t *testing.T, text string) {
		var with, without redisFacts
		redisParseInfo(text, 0, &without)
		redisParseInfo("used_cpu_sys:1.5\n"+text+"\nno_such_name:7\n", 0, &with)
		for _, n := range []*int64{with.LagBytes, with.LagMS, with.LastSaveAgeMS, with.Offset, with.UptimeMS} {
			if n != nil && *n < 0 {
				t.Fatalf("%q: got %d", text, *n)
			}
		}
		if p := with.HitPercent; p != nil && (*p < 0 || *p > 100) {
			t.Fatalf("%q: %v %% of hits", text, *p)
		}
		if len(with.Masters) > redisMaxMasters || with.Version != without.Version || with.Role != without.Role || with.Link != without.Link {
			t.Fatalf("%q: got %+v and %+v", text, with, without)
		}
	})
}
