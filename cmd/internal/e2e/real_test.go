package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// probeAll pipes targets through the built pup-probe and compares what comes
// out: status, reason and phase of each, in their order. A target is its name,
// its URL, and more members or none.
func probeAll(t *testing.T, targets [][3]string, want []string, flags ...string) {
	t.Helper()
	var in bytes.Buffer
	for _, target := range targets {
		more := target[2]
		if more != "" {
			more = "," + more
		}
		fmt.Fprintf(&in, `{"name":%q,"url":%q,"timeout":"2s"%s}`+"\n", target[0], target[1], more)
	}
	cmd := exec.Command(bin+"/pup-probe", append([]string{"--ordered"}, flags...)...)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d results for %d targets", len(lines), len(want))
	}
	for i, line := range lines {
		var r struct{ Name, Status, Reason, Phase string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(r.Status + " " + r.Reason + " " + r.Phase); got != want[i] || r.Name != targets[i][0] {
			t.Errorf("%s: got %q, want %q\n%s", targets[i][0], got, want[i], line)
		}
		if len(line) >= 4096 {
			t.Errorf("%s: a line of %d bytes", targets[i][0], len(line))
		}
	}
}

// rows splits a table of name, URL, more members, and what is to come out.
func rows(table [][4]string) (targets [][3]string, want []string) {
	for _, r := range table {
		targets = append(targets, [3]string{r[0], r[1], r[2]})
		want = append(want, r[3])
	}
	return targets, want
}

// TestRealServers has the built program look at real servers in every state
// that it must tell apart.
func TestRealServers(t *testing.T) {
	web, dns, redis := realserver.Shared(t, "nginx"), realserver.Shared(t, "knot"), realserver.Shared(t, "redis")
	t.Setenv("PUP_REDIS", redis["redis_auth_password"])
	t.Setenv("PUP_WRONG", "wrong")
	ca := func(s map[string]string) string { return fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"]) }
	http, https := "http://"+web["http"], func(name string) string { return "https://" + web["https"+name] + "/" }
	targets, want := rows([][4]string{
		{"http", http + "/", "", "up"},
		{"http2", https(""), ca(web) + `,"expect":["http.version == '2'"]`, "up"},
		{"status", http + "/503", "", "down unavailable verify"},
		{"text", http + "/", `"expect":["http.body contains 'no such text'"]`, "down mismatch verify"},
		{"expired", https("_expired"), ca(web), "down certificate-expired tls"},
		{"not yet", https("_not_yet_valid"), ca(web), "down certificate-not-yet-valid tls"},
		{"name", https("_wrong_name"), ca(web), "down certificate-name tls"},
		{"self-signed", https("_self_signed"), ca(web), "down certificate-untrusted tls"},
		{"no intermediate", https("_missing_intermediate"), ca(web), "down certificate-untrusted tls"},
		{"revoked", https("_revoked"), ca(web), "down certificate-revoked tls"},
		{"plain as TLS", "https://" + web["http"], ca(web), "down tls tls"},
		{"tls", "tls://" + web["https"], ca(web), "up"},
		{"tcp", "tcp://" + web["http"], `"tcp":{"steps":[{"send":"GET / HTTP/1.0\r\n\r\n","expect_regex":"^HTTP/1\\.1 200"}]}`, "up"},

		{"dns", "dns://" + dns["ns1"] + "/www.example.test", `"dns":{"recursion":false,"authoritative":true,"answers":["192.0.2.1","192.0.2.2"]}`, "up"},
		{"dns set", "dns://" + dns["ns1"] + "/www.example.test", `"dns":{"answers":["192.0.2.1"]}`, "down mismatch verify"},
		{"dnssec", "dns://" + dns["ns1"] + "/www.example.test", `"dns":{"verify":true}`, "up"},
		{"dnssec expired", "dns://" + dns["ns1"] + "/www.expired.test", `"dns":{"verify":true}`, "down mismatch verify"},
		{"dnssec bogus", "dns://" + dns["resolver"] + "/www.bogus.test", "", "down unavailable verify"},
		{"serials agree", "dns://" + dns["ns1"] + "/plain.test", `"dns":{"serial":"agree"}`, "up"},
		{"serials out of step", "dns://" + dns["ns1"] + "/example.test", `"dns":{"serial":"agree"}`, "down mismatch verify"},
		{"dns over TLS", "dns+tls://" + dns["resolver_dot"] + "/www.example.test", ca(dns), "up"},
		{"no such name", "http://nope.example.test/", `"resolver":"` + dns["resolver"] + `"`, "down no-such-host resolve"},
		{"no address", "http://example.test/", `"resolver":"` + dns["resolver"] + `"`, "down no-such-host resolve"},
		{"resolver fails", "http://www.expired.test/", `"resolver":"` + dns["resolver"] + `"`, "down unavailable resolve"},
		{"resolver is gone", "http://www.example.test/", `"resolver":"` + closed(t) + `"`, "unknown local resolve"},

		{"redis", "redis://" + redis["redis"], `"redis":{"canary":true}`, "up"},
		{"redis password", "redis://" + redis["redis_auth"], `"redis":{"password":"${env:PUP_REDIS}"}`, "up"},
		{"redis wrong password", "redis://" + redis["redis_auth"], `"redis":{"password":"${env:PUP_WRONG}"}`, "down denied auth"},
		{"redis wants a password", "redis://" + redis["redis_auth"], "", "down denied auth"},
		{"redis TLS", "rediss://" + redis["redis_tls"], ca(redis), "up"},
		{"redis replica", "redis://" + redis["redis_replica"], "", "up"},
		{"redis orphan", "redis://" + redis["redis_orphan"], "", "down mismatch verify"},
		{"redis is nginx", "redis://" + web["http"], "", "down protocol request"},
		{"http is redis", "http://" + redis["redis"], "", "down closed wait"},
	})
	// no address of the zones is ever dialled, whatever the resolver says
	probeAll(t, targets, want, "--deny", "192.0.2.0/24", "--deny", "2001:db8::/32")
}

// TestLiars has the built program look at servers that are not what they seem.
func TestLiars(t *testing.T) {
	say := func(text string) string {
		return serve(t, func(c net.Conn) { io.WriteString(c, text); io.Copy(io.Discard, c) })
	}
	silent := say("")
	echo := serve(t, func(c net.Conn) { io.Copy(c, c) })
	garbage := serve(t, func(c net.Conn) {
		b := bytes.Repeat([]byte{0xff, 0, 0x1b}, 1000)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	banner := say("SSH-2.0-OpenSSH_9.2\r\n")
	targets, want := rows([][4]string{
		{"http silent", "http://" + silent, "", "down timeout wait"},
		{"redis silent", "redis://" + silent, "", "down timeout request"},
		{"tls silent", "tls://" + silent, "", "down timeout tls"},
		{"dns silent", "dns+tcp://" + silent + "/example.org", "", "down timeout wait"},
		{"http echo", "http://" + echo, "", "down protocol transfer"},
		{"redis echo", "redis://" + echo, "", "down protocol request"},
		{"tls echo", "tls://" + echo, "", "down tls tls"},
		{"dns echo", "dns+tcp://" + echo + "/example.org", "", "down timeout wait"},
		{"http garbage", "http://" + garbage, "", "down protocol transfer"},
		{"redis garbage", "redis://" + garbage, "", "down protocol request"},
		{"tls garbage", "tls://" + garbage, "", "down tls tls"},
		{"http banner", "http://" + banner, "", "down protocol transfer"},
		{"redis banner", "redis://" + banner, "", "down protocol request"},
		{"tls banner", "tls://" + banner, "", "down tls tls"},
		{"refused", "redis://" + closed(t), "", "down refused connect"},
	})
	probeAll(t, targets, want)
}
