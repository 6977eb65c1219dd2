//go:build faults

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/realserver"
)

const faultKills = 1000

// strace runs pup-route so that system calls fail or kill.
func (r *rig) strace(in *os.File, call, inject string) *exec.Cmd {
	return r.command(in, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+call+":"+inject)
}

// step feeds one line after the other: the pipe holds no more, so that each
// is accepted by itself.
func (r *rig) step() (in *os.File) {
	r.pad, r.flush = 2100, 1
	return r.pipe(4096)
}

// TestFaultKilledAtSyscall kills pup-route at the n-th call of what changes
// the spool, or moves lines, for each n, and lets the next one finish.
func TestFaultKilledAtSyscall(t *testing.T) {
	realserver.Need(t, "strace")
	for call, last := range map[string]int{
		"pwrite64": 200, "fdatasync": 200, "fsync": 200, "renameat": 200, "unlinkat": 200, "ftruncate": 200, "mkdirat": 200,
		"openat": 50, "tee": 50, "read": 50, "write": 50,
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			n := 1
			for n <= last && killedAt(t, call, n) {
				n += 1 + n/20
			}
			t.Logf("killed at calls 1 to %d", n-1)
		})
	}
}

// killedAt kills pup-route at the n-th call. It reports false when there are
// not so many calls.
func killedAt(t *testing.T, call string, n int) bool {
	r := newRig(t, 30+n)
	in := r.step()
	err := r.strace(in, call, fmt.Sprintf("signal=KILL:when=%d", n)).Run()
	killed := err != nil
	for range 3 {
		if err = r.command(in).Run(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("%s %d: %v", call, n, err)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Fatalf("killed at %s %d: %d lost, %d not passed on", call, n, lost, unpassed)
	}
	return killed
}

// TestFaultSyncFails: when a change of the spool fails for good nothing more
// is accepted, and the next run has all.
func TestFaultSyncFails(t *testing.T) {
	realserver.Need(t, "strace")
	for _, call := range []string{"fdatasync", "fsync", "pwrite64", "renameat"} {
		for n := 1; n <= 3; n++ {
			r := newRig(t, 60)
			in := r.step()
			cmd := r.strace(in, call, fmt.Sprintf("error=EIO:when=%d", n))
			cmd.Run() //nolint:errcheck // its exit code tells
			if code := cmd.ProcessState.ExitCode(); code != cmdline.IO {
				t.Fatalf("%s %d fails: exit code %d, want 74", call, n, code)
			}
			if err := r.command(in).Run(); err != nil {
				t.Fatal(err)
			}
			if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
				t.Errorf("%s %d fails: %d lost, %d not passed on", call, n, lost, unpassed)
			}
		}
	}
}

// TestFaultSlowSync: syncs that take long make batches grow, and nothing is
// lost.
func TestFaultSlowSync(t *testing.T) {
	realserver.Need(t, "strace")
	r := newRig(t, 400)
	in := r.pipe(usualPipe)
	trace := r.dir + "/trace"
	cmd := r.command(in, "strace", "-f", "-qq", "-o", trace, "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=50000")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if lost, repeated, unpassed := r.judge(); lost+repeated+unpassed > 0 {
		t.Errorf("%d lost, %d repeated, %d not passed on", lost, repeated, unpassed)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "fdatasync("); n == 0 || n > r.lines/4 {
		t.Errorf("%d syncs for %d lines: the batches do not grow", n, r.lines)
	}
}
