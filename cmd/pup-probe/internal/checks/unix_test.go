package checks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"pup/cmd/pup-probe/internal/probe"
)

// allowing is a runner for targets that are trusted.
func allowing() *probe.Runner {
	r := probe.NewRunner(All())
	r.AllowFiles, r.AllowExec = true, true
	return r
}

// serveSocket serves a socket file until the test ends.
func serveSocket(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	return serveOn(t, "unix", filepath.Join(t.TempDir(), "s"), f)
}

func TestUnix(t *testing.T) {
	path := serveSocket(t, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		io.WriteString(c, "you said "+line)
	})
	nobody := filepath.Join(t.TempDir(), "nobody")
	ln, err := net.Listen("unix", nobody)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	plain := filepath.Join(t.TempDir(), "plain")
	os.WriteFile(plain, nil, 0o600)
	hello := `"steps":[{"send":"hello\n","expect_regex":"said (\\w+)"}]`
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"accepts", "unix://" + path, "", "up", nil},
		{"steps", "unix://" + path, `"unix":{` + hello + `}`, "up", []string{"unix.caught[0] == 'hello'", "ms.connect > 0"}},
		{"mismatch", "unix://" + path, `"unix":{"steps":[{"send":"a\n","expect":"b"}]}`, "down mismatch wait", nil},
		{"no file", "unix:///nonexistent/s", "", "down refused connect", []string{"error contains '/nonexistent/s'"}},
		{"nobody listens", "unix://" + nobody, "", "down refused connect", nil},
		{"no socket", "unix://" + plain, "", "down refused connect", nil},
		{"another check", "tcp://localhost:9", fmt.Sprintf(`"connect":"unix:%s","tcp":{%s}`, path, hello), "up", nil},
		{"another check, no file", "redis://localhost/0", `"connect":"unix:/nonexistent/s"`, "down refused connect", nil},
		{"relative", "tcp://localhost:9", `"connect":"unix:s"`, "unknown options prepare", nil},
		{"with source", "tcp://localhost:9", `"connect":"unix:/s","source":"127.0.0.1"`, "unknown options prepare", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkContext(t, t.Context(), allowing(), tt.url, tt.target).want(t, tt.want, tt.facts...)
		})
	}
	t.Run("not allowed", func(t *testing.T) {
		check(t, "unix://"+path, "").want(t, "unknown options prepare", "error contains '--allow-files'")
		check(t, "tcp://localhost:9", `"connect":"unix:`+path+`"`).want(t, "unknown options prepare", "error contains '--allow-files'")
	})
}
