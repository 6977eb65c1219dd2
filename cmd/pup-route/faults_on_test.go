//go:build faults

package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"pup/cmd/internal/cmdline"
)

const faultKills = 1000

// TestFaultKilledAtSyscall kills pup-route at the n-th call of what changes
// the spool, for each n, and lets the next one finish.
func TestFaultKilledAtSyscall(t *testing.T) {
	for _, call := range []string{"pwrite64", "fdatasync", "fsync", "renameat", "unlinkat", "openat", "tee", "read", "write", "mkdirat", "ftruncate"} {
		t.Run(call, func(t *testing.T) {
			for n := 1; n <= 25; n++ {
				r := newRig(t, 60)
				in, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				go r.feed(w)
				err = r.command(in, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)).Run()
				killed := err != nil
				for range 3 {
					if err = r.command(in).Run(); err == nil {
						break
					}
				}
				if err != nil {
					t.Fatalf("%s %d: %v", call, n, err)
				}
				in.Close()
				if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
					t.Errorf("killed at %s %d: %d lost, %d not passed on", call, n, lost, unpassed)
				}
				if !killed {
					break // there are not so many calls
				}
			}
		})
	}
}

// TestFaultSyncFails: when a sync fails nothing more is accepted, and the
// next run has all.
func TestFaultSyncFails(t *testing.T) {
	for n := 1; n <= 5; n++ {
		r := newRig(t, 200)
		in, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go r.feed(w)
		cmd := r.command(in, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", fmt.Sprintf("inject=fdatasync:error=EIO:when=%d", n))
		if err := cmd.Run(); err == nil {
			in.Close()
			return // there are not so many calls
		}
		if code := cmd.ProcessState.ExitCode(); code != cmdline.IO {
			t.Errorf("sync %d fails: exit code %d, want 74", n, code)
		}
		if err := r.command(in).Run(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
			t.Errorf("sync %d fails: %d lost, %d not passed on", n, lost, unpassed)
		}
	}
}

// TestFaultControlSocket is the control of the test above: from a socket,
// which has no tee(2), the same kills lose lines, and the test sees it.
func TestFaultControlSocket(t *testing.T) {
	r := newRig(t, 4000)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd) // the program must not hold its own input open
	}
	in := os.NewFile(uintptr(fds[0]), "in")
	defer in.Close()
	go r.feed(os.NewFile(uintptr(fds[1]), "w"))
	r.kills(in, 100)
	if lost, _, _ := r.judge(); lost == 0 {
		t.Error("nothing was lost without tee(2): the test can't see losses")
	}
}
