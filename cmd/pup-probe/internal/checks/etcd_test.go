package checks

import (
	"fmt"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// etcdTalk is a script: for each three words a path, a status and a body.
func etcdTalk(answers ...string) string {
	var b strings.Builder
	for i := 0; i < len(answers); i += 3 {
		path, status, body := answers[i], answers[i+1], answers[i+2]
		if path == "/health" {
			b.WriteString("C: GET /health HTTP/1.1\n")
		} else {
			fmt.Fprintf(&b, "C: POST /v3/%s HTTP/1.1\n", path)
		}
		b.WriteString("C~ ^host: 127\nC: accept: application/json\nC: user-agent: pup-probe\n")
		switch path {
		case "/health":
		case "maintenance/alarm":
			b.WriteString("C: content-type: application/json\nC: content-length: 16\nC: \nCx 7b 22 61 63 74 69 6f 6e 22 3a 22 47 45 54 22 7d\n")
		default:
			b.WriteString("C: content-type: application/json\nC: content-length: 2\nC: \nCx 7b 7d\n")
		}
		if path == "/health" {
			b.WriteString("C: \n")
		}
		fmt.Fprintf(&b, "S: HTTP/1.1 %s\nS: Content-Length: %d\nS: \nS: %s\\\n", status, len(body), body)
	}
	return b.String()
}

const etcdFine = `{"header":{"cluster_id":"11497211165332489163","member_id":"7723048294007941235","raft_term":"2"},"version":"3.4.23","dbSize":"24576","leader":"7723048294007941235","raftIndex":"6","raftTerm":"2","raftAppliedIndex":"5","dbSizeInUse":"16384"}`

func TestEtcd(t *testing.T) {
	leaderless := strings.Replace(etcdFine, `"leader":"7723048294007941235"`, `"leader":"0","errors":["etcdserver: no leader"]`, 1)
	status, alarm, members := "maintenance/status", "maintenance/alarm", "cluster/member/list"
	talks(t, "etcd://HOST", []talk{
		{name: "up", script: etcdTalk("/health", "200 OK", `{"health":"true"}`, status, "200 OK", etcdFine, alarm, "200 OK", "{}", members, "200 OK", `{"members":[{},{},{}]}`), want: "up",
			facts: []string{"etcd.healthy", "etcd.is_leader", "etcd.members == 3", "etcd.raft_lag == 1", "etcd.member_id == '6b2dc7814387a873'", "etcd.db_bytes == 24576", "len(etcd.alarms) == 0"}},
		{name: "alarm", script: etcdTalk("/health", "200 OK", `{"health":"true"}`, status, "200 OK", etcdFine, alarm, "200 OK", `{"alarms":[{"memberID":"1","alarm":"CORRUPT"}]}`, members, "200 OK", `{"members":[{}]}`), want: "down mismatch verify"},
		{name: "no leader", script: etcdTalk("/health", "503 Service Unavailable", `{"health":"false","reason":"RAFT NO LEADER"}`, status, "200 OK", leaderless), want: "down unavailable transfer", facts: []string{"not etcd.has_leader", "error contains 'no leader'"}},
		{name: "no leader is expected", target: `"expect":["not etcd.healthy","not etcd.has_leader"]`, script: etcdTalk("/health", "503 Service Unavailable", `{"health":"false"}`, status, "200 OK", leaderless), want: "up"},
		{name: "another service", script: etcdTalk("/health", "200 OK", `{"status":"ok"}`), want: "down protocol transfer"},
		{name: "a page", script: etcdTalk("/health", "404 Not Found", `<html>`), want: "down protocol transfer"},
		{name: "no gateway", script: etcdTalk("/health", "200 OK", `{"health":"true"}`, status, "404 Not Found", "404 page not found"), want: "down protocol transfer", facts: []string{"etcd.healthy"}},
		{name: "no status", script: etcdTalk("/health", "200 OK", `{"health":"true"}`, status, "200 OK", "{}"), want: "down protocol transfer"},
		{name: "garbled number", script: etcdTalk("/health", "200 OK", `{"health":"true"}`, status, "200 OK", `{"raftTerm":"x"}`), want: "down protocol transfer"},
		{name: "closes in between", script: etcdTalk("/health", "200 OK", `{"health":"true"}`) + "C~ ^POST\n! close", want: "down closed wait"},
	})
}

func TestEtcdReal(t *testing.T) {
	n := realserver.Start(t, "etcd")
	password, wrong := secret(t, "ETCD", n["password"]), secret(t, "ETCD_WRONG", "wr0ng-one")
	login := func(key, ref string) string {
		return fmt.Sprintf(`"etcd":{"key":%q,"user":%q,"password":%q}`, key, n["user"], ref)
	}
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"plain", "etcd://" + n["etcd"], `"etcd":{"key":"answer"},"expect":["etcd.json == 42"]`, "up", []string{"etcd.is_leader", "etcd.members == 1", "etcd.key_bytes == 2", "etcd.raft_term > 0"}},
		{"no such key", "etcd://" + n["etcd"], `"etcd":{"key":"question"}`, "down mismatch verify", []string{"etcd.healthy"}},
		{"tls and http/2", "etcds://" + n["etcd_tls"], fmt.Sprintf(`"tls":{"ca":%q}`, n["ca"]), "up", []string{"tls.verified", "tls.alpn == 'h2'"}},
		{"plain where there is tls", "etcd://" + n["etcd_tls"], `"timeout":"1s"`, "down", nil},
		{"auth without login", "etcd://" + n["etcd_auth"], ``, "up", nil},
		{"key without login", "etcd://" + n["etcd_auth"], `"etcd":{"key":"answer"}`, "down denied auth", nil},
		{"login", "etcd://" + n["etcd_auth"], login("answer", password) + `,"expect":["etcd.value == '42'"]`, "up", nil},
		{"wrong password", "etcd://" + n["etcd_auth"], login("answer", wrong), "down denied auth", nil},
		{"forbidden key", "etcd://" + n["etcd_auth"], login("question", password), "down denied auth", nil},
		{"space used up", "etcd://" + n["etcd_full"], ``, "down unavailable transfer", []string{"error contains 'NOSPACE'"}},
		{"alarm is judged", "etcd://" + n["etcd_full"], `"expect":["etcd.healthy or 'NOSPACE' in etcd.alarms"]`, "up", nil},
		{"two members", "etcd://" + n["etcd_pair"], ``, "up", []string{"etcd.members == 2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.url, tt.target)
			if tt.want == "down" {
				if !strings.HasPrefix(res.outcome(), "down ") {
					t.Errorf("got %q, want down\n%s", res.outcome(), res.line)
				}
				return
			}
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, n["password"]) {
				t.Errorf("the result holds a secret: %s", res.line)
			}
		})
	}
	realserver.Kill(t, n, "etcd_other")
	res := check(t, "etcd://"+n["etcd_pair"], `"timeout":"20s","retries":5,"retry_wait":"500ms"`)
	if got := res.outcome(); !strings.HasPrefix(got, "down ") {
		t.Errorf("half of a pair: got %q, want down\n%s", got, res.line)
	}
	paused := between(t, n["etcd"], "/v3/cluster/member/list", func() { realserver.Pause(t, n, "etcd") })
	check(t, "etcd://"+paused, `"timeout":"1s"`).want(t, "down timeout wait", "etcd.healthy", "etcd.raft_term > 0")
	check(t, "etcd://"+n["etcd"], `"timeout":"300ms"`).want(t, "down timeout wait")
}
