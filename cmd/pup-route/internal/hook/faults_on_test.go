//go:build faults

package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pup/cmd/internal/realserver"
)

const escapes = 8

// TestFaultRacingForker: a command that forks faster than it is killed is
// ended. It runs in a group that holds 60 processes, whatever it does.
func TestFaultRacingForker(t *testing.T) {
	realserver.NeedRoot(t)
	realserver.NeedFile(t, "/sys/fs/cgroup/pids")
	group := filepath.Join("/sys/fs/cgroup/pids", fmt.Sprint("pup-test-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		os.WriteFile(group+"/pids.max", []byte("0"), 0o600) //nolint:errcheck // only then can the rest be killed
		for range 1000 {
			left, _ := os.ReadFile(group + "/cgroup.procs")
			for pid := range strings.FieldsSeq(string(left)) {
				if n, err := strconv.Atoi(pid); err == nil {
					syscall.Kill(n, syscall.SIGKILL) //nolint:errcheck // it may have ended
				}
			}
			if os.Remove(group) == nil {
				return
			}
		}
	}()
	if err := os.WriteFile(group+"/pids.max", []byte("60"), 0o600); err != nil {
		t.Fatal(err)
	}
	// It makes sure itself that it is held.
	const race = "use POSIX; open F, q(/proc/self/cgroup); exit 9 unless grep /pids:.*pup-test-/, <F>; for (;;) { my $p = fork; exit 0 if $p; setsid; fork; }"
	for _, end := range []string{"exit 0", "sleep 1000"} {
		for range 10 {
			c := held(t, Sandbox{Level: Basic}, "")
			script := "echo $$ > " + group + "/cgroup.procs || exit 9; ulimit -t 20; perl -e '" + race + "' & while read -r n < " + group + "/pids.current && [ $n -lt 30 ]; do :; done; " + end
			nothingLeft(t, c, script, end != "exit 0")
			if left, err := os.ReadFile(group + "/cgroup.procs"); err != nil || strings.TrimSpace(string(left)) != "" {
				t.Fatalf("processes are left: %q, %v", left, err)
			}
		}
	}
}
