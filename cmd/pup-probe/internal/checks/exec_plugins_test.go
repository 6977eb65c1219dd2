package checks

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"pup/cmd/internal/realserver"
)

// TestExecPlugins runs plugins of the Monitoring Plugins against servers of
// ours: each of the four exit codes, and the performance data.
func TestExecPlugins(t *testing.T) {
	dir := realserver.Shared(t, "plugins")["plugins"]
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(map[string]int{"/missing": 404, "/broken": 500}[r.URL.Path])
		}
		io.WriteString(w, "hello")
	}))
	t.Cleanup(page.Close)
	_, port, _ := net.SplitHostPort(page.Listener.Addr().String())
	_, closed, _ := net.SplitHostPort(realserver.ClosedPort(t))
	_, hung, _ := net.SplitHostPort(serve(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
	for _, tt := range []struct {
		name, plugin, args, more, want string
		facts                          []string
	}{
		{"tcp", "check_tcp", `"-H","127.0.0.1","-p","` + port + `"`, "", "up", []string{"exec.exit_code == 0", "exec.text startsWith 'TCP OK'", "exec.perf.time >= 0", "exec.units.time == 's'"}},
		{"tcp refused", "check_tcp", `"-H","127.0.0.1","-p","` + closed + `"`, "", "down mismatch wait", []string{"exec.exit_code == 2", "error contains 'refused'"}},
		{"tcp late", "check_tcp", `"-H","127.0.0.1","-p","` + port + `","-w","0"`, "", "degraded mismatch wait", []string{"exec.exit_code == 1", "exec.perf.time >= 0"}},
		{"http", "check_http", `"-I","127.0.0.1","-p","` + port + `"`, `"expect":["exec.perf.size > 5"]`, "up", []string{"exec.units.size == 'B'"}},
		{"http missing", "check_http", `"-I","127.0.0.1","-p","` + port + `","-u","/missing"`, "", "degraded mismatch wait", []string{"error contains '404'"}},
		{"http broken", "check_http", `"-I","127.0.0.1","-p","` + port + `","-u","/broken"`, "", "down mismatch wait", []string{"error contains '500'"}},
		{"http hangs", "check_http", `"-I","127.0.0.1","-p","` + hung + `"`, `"timeout":"300ms"`, "down timeout wait", nil},
		{"disk", "check_disk", `"-w","0%","-c","0%","-p","/"`, "", "up", []string{"exec.perf['/'] > 0"}},
		{"disk full", "check_disk", `"-w","100%","-c","100%","-p","/"`, "", "down mismatch wait", []string{"exec.exit_code == 2", "exec.perf['/'] > 0"}},
		{"disk fills", "check_disk", `"-w","100%","-c","0%","-p","/"`, "", "degraded mismatch wait", nil},
		{"usage", "check_disk", ``, "", "unknown local wait", []string{"exec.exit_code == 3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := `"exec":{"args":[` + tt.args + `]}`
			if tt.more != "" {
				target += "," + tt.more
			}
			checkContext(t, t.Context(), allowing(), "exec://"+dir+"/"+tt.plugin, target).want(t, tt.want, tt.facts...)
		})
	}
}
