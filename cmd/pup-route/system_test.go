//go:build faults

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-route/internal/hook"
)

// maxMemory is what pup-route may take, in KiB, whatever comes in.
const maxMemory = 64 << 10

// TestFaultLongLine: a line of a gigabyte costs no memory, and the lines
// around it are dealt with.
func TestFaultLongLine(t *testing.T) {
	long := int64(1e9)
	if testing.Short() {
		long = 100e6
	}
	r := newRig(t, 2)
	in, w := piped(t)
	go func() {
		fmt.Fprintln(w, `{"name":"a","status":"up","run":"a@0"}`)
		io.CopyN(w, xs{}, long) //nolint:errcheck // the lines behind it tell
		fmt.Fprintln(w, "\n"+`{"name":"a","status":"up","run":"a@1"}`)
	}()
	cmd := r.command(in)
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var passed []byte
	for b := make([]byte, 4096); !bytes.Contains(passed, []byte("a@1")); {
		n, err := out.Read(b)
		if passed = append(passed, b[:n]...); err != nil {
			t.Errorf("%v, and only this came: %.300s", err, passed)
			break
		}
	}
	if !t.Failed() {
		if m := realserver.Memory(t, cmd.Process.Pid, "VmHWM"); m > maxMemory {
			t.Errorf("it took %d KiB", m)
		}
	}
	if err := os.WriteFile(r.dir+"/out", passed, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd.Wait() //nolint:errcheck // its exit code tells
	if code := cmd.ProcessState.ExitCode(); code != 65 {
		t.Errorf("exit code %d, want 65", code)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Errorf("%d lost, %d not passed on", lost, unpassed)
	}
}

// xs are x without an end.
type xs struct{}

func (xs) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// TestFaultSlowReader: while nobody reads the output nothing is read either.
func TestFaultSlowReader(t *testing.T) {
	r := newRig(t, 0)
	in, w := piped(t)
	cmd := r.command(in)
	cmd.Args = append(cmd.Args[:1], "--on", "down=true", "--user", "root")
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	b := []byte(`{"name":"a","status":"up","text":"` + strings.Repeat("x", 4000) + `"}` + "\n")
	for ; lines < 100_000; lines++ { // 400 MB
		// A pipe that stays full says that its reader waits.
		if err := w.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := w.Write(b)
		if err != nil {
			if err := w.SetWriteDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			go w.Write(b[n:]) //nolint:errcheck // counted below
			break
		}
	}
	if lines > 1000 {
		t.Fatalf("%d lines were read, and nobody reads the output", lines)
	}
	passed := bufio.NewReader(out)
	for i := range lines + 1 {
		if _, err := passed.ReadSlice('\n'); err != nil {
			t.Fatalf("%d lines came out of %d: %v", i, lines+1, err)
		}
	}
	if m := realserver.Memory(t, cmd.Process.Pid, "VmHWM"); m > maxMemory {
		t.Errorf("it took %d KiB", m)
	}
	w.Close()
	if rest, err := io.ReadAll(passed); err != nil || len(rest) > 0 {
		t.Errorf("and then %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// running starts pup-route with a hook that holds the FIFO alive, and returns
// once the hook runs.
func (r *rig) running(in *os.File) (cmd *exec.Cmd, alive *os.File) {
	r.t.Helper()
	for _, name := range []string{"runs", "alive"} {
		if err := syscall.Mkfifo(filepath.Join(r.dir, name), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	user := ""
	if os.Getuid() == 0 {
		user = `user = "root"`
	}
	text := fmt.Sprintf("spool = %q\n[[hook]]\nname = \"note\"\non = [\"always\"]\n%s\ncommand = [\"sh\", \"-c\", \"cd %s && exec 5>alive && echo > runs; sleep 1000; cat >> calls\"]\n", r.spool, user, r.dir)
	if err := os.WriteFile(r.dir+"/hooks.toml", []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	fd, err := unix.Open(r.dir+"/alive", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd = r.command(in)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	if _, err := os.ReadFile(r.dir + "/runs"); err != nil {
		r.t.Fatal(err)
	}
	return cmd, os.NewFile(uintptr(fd), "alive")
}

// TestFaultCrash: when pup-route crashes, as it does when it panics, or is
// killed, its hooks end with it, and are called again.
func TestFaultCrash(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGKILL} {
		r := newRig(t, 1)
		in, w := piped(t)
		r.feed(w)
		cmd, alive := r.running(in)
		defer alive.Close()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()                                            //nolint:errcheck // it crashed
		if _, err := io.Copy(io.Discard, alive); err != nil { // it ends when nobody holds it
			t.Error(err)
		}
		r.configure(r.spool)
		if err := r.command(in).Run(); err != nil {
			t.Fatal(err)
		}
		if lost, repeated, _ := r.judge(); lost > 0 || repeated > 0 {
			t.Errorf("%v: %d lost, %d repeated", sig, lost, repeated)
		}
	}
}

// group makes a control group of the kernel, version 1.
func group(t *testing.T, controller, file, value string) string {
	t.Helper()
	realserver.NeedRoot(t)
	root := "/sys/fs/cgroup/" + controller
	realserver.NeedFile(t, root+"/cgroup.procs")
	dir := filepath.Join(root, fmt.Sprint("pup-test-", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFaultOutOfMemory: killed for the memory that it takes, it loses nothing.
func TestFaultOutOfMemory(t *testing.T) {
	dir := group(t, "memory", "memory.limit_in_bytes", "8M")
	r := newRig(t, 300)
	r.pad = 30_000
	in := r.pipe(usualPipe)
	cmd := r.command(in, "sh", "-c", "echo $$ > "+dir+`/cgroup.procs && exec "$0" "$@"`)
	err := cmd.Run()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v, and not for want of memory", err)
	}
	if err := r.command(in).Run(); err != nil {
		t.Fatal(err)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Errorf("%d lost, %d not passed on", lost, unpassed)
	}
}

// TestFaultNoProcesses: a hook that can't be started for want of processes is
// started later, and that was no attempt.
func TestFaultNoProcesses(t *testing.T) {
	realserver.NeedRoot(t)
	u, err := hook.LookupUser("games")
	if err != nil {
		t.Fatal(err)
	}
	hold, others := [2]io.Closer{}, [2]*exec.Cmd{}
	for i := range others { // as many as the limit do not count
		others[i] = exec.Command("cat")
		others[i].SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID}}
		if hold[i], err = others[i].StdinPipe(); err == nil {
			err = others[i].Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, 1)
	said := r.dir + "/said"
	if err := syscall.Mkfifo(said, 0o666); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]os.FileMode{said: 0o666, r.dir: 0o755, filepath.Dir(r.dir): 0o755} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	text := "[[hook]]\nname = \"few\"\non = [\"always\"]\nuser = \"games\"\nretry_min = \"10ms\"\nsandbox.limits.processes = 1\ncommand = [\"sh\", \"-c\", \"echo $PUP_ATTEMPT > " + said + "\"]\n"
	if err := os.WriteFile(r.dir+"/hooks.toml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, w := piped(t)
	fmt.Fprintln(w, `{"name":"a","status":"up"}`)
	cmd := r.command(in)
	errs, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(errs)
	if !s.Scan() || !strings.Contains(s.Text(), "resource temporarily unavailable; attempt 1 follows") {
		t.Errorf("it says %q", s.Text())
	}
	go io.Copy(io.Discard, errs) //nolint:errcheck // the rest says the same
	for i := range others {
		hold[i].Close()
		if err := others[i].Wait(); err != nil {
			t.Error(err)
		}
	}
	attempt, err := os.ReadFile(said)
	if err != nil || strings.TrimSpace(string(attempt)) != "1" {
		t.Errorf("attempt %s, %v, want 1", attempt, err)
	}
	w.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestFaultNoDescriptors: hooks that can't be started for want of descriptors
// stay in the spool.
func TestFaultNoDescriptors(t *testing.T) {
	realserver.Need(t, "prlimit")
	r := newRig(t, 60)
	in := r.pipe(usualPipe)
	if err := r.command(in, "prlimit", "--nofile=14:14").Run(); err != nil {
		t.Error(err)
	}
	if calls := len(r.counted("calls")); calls == r.lines {
		t.Error("all hooks were started: descriptors are not short")
	}
	if err := r.command(in).Run(); err != nil {
		t.Fatal(err)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Errorf("%d lost, %d not passed on", lost, unpassed)
	}
}

// TestFaultNoSandbox: where the kernel lacks what a sandbox needs, its hook
// does not run.
func TestFaultNoSandbox(t *testing.T) {
	realserver.Need(t, "strace")
	for _, inject := range []string{
		"landlock_create_ruleset:error=ENOSYS", "landlock_add_rule:error=ENOSYS", "landlock_restrict_self:error=ENOSYS",
		"prctl:error=ENOSYS", "close_range:error=ENOSYS",
	} {
		r := newRig(t, 1)
		r.configure(r.spool, `sandbox.write = ["`+r.dir+`"]`)
		text, err := os.ReadFile(r.dir + "/hooks.toml")
		if err != nil {
			t.Fatal(err)
		}
		strict := strings.Replace(string(text), `"off"`, `"strict"`, 1)
		if err := os.WriteFile(r.dir+"/hooks.toml", []byte(strict), 0o600); err != nil {
			t.Fatal(err)
		}
		in, w := piped(t)
		r.feed(w)
		call, _, _ := strings.Cut(inject, ":")
		r.command(in, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+inject).Run() //nolint:errcheck // the calls tell
		if calls := len(r.counted("calls")); calls > 0 {
			t.Errorf("%s: the hook ran", inject)
		}
		if err := r.command(in).Run(); err != nil {
			t.Fatal(err)
		}
		if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
			t.Errorf("%s: %d lost, %d not passed on", inject, lost, unpassed)
		}
	}
}

// tmpfs mounts a small file system.
func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	realserver.NeedRoot(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("pup", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestFaultNoSpace: on a full disk reading is held back; when there is space
// again, all goes on.
func TestFaultNoSpace(t *testing.T) {
	r := newRig(t, 400)
	disk := r.dir + "/disk"
	tmpfs(t, disk, "size=2M,mode=700")
	ballast := disk + "/ballast"
	if err := os.WriteFile(ballast, make([]byte, 1800<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r.configure(disk + "/spool")
	r.pad = 2000
	in := r.pipe(usualPipe)
	cmd := r.command(in)
	errs, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	full := false
	for s := bufio.NewScanner(errs); s.Scan(); {
		if strings.Contains(s.Text(), "the spool is full") && !full {
			full = true
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !full {
		t.Errorf("full %v, %v", full, err)
	}
	if lost, repeated, unpassed := r.judge(); lost+repeated+unpassed > 0 {
		t.Errorf("%d lost, %d repeated, %d not passed on", lost, repeated, unpassed)
	}
}

// TestFaultReadOnly: without a spool that can be written nothing runs.
func TestFaultReadOnly(t *testing.T) {
	r := newRig(t, 10)
	disk := r.dir + "/disk"
	tmpfs(t, disk, "size=1M,mode=700")
	if err := os.Mkdir(disk+"/spool", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("pup", disk, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r.configure(disk + "/spool")
	in, w := piped(t)
	r.feed(w)
	cmd := r.command(in)
	cmd.Run() //nolint:errcheck // its exit code tells
	if code := cmd.ProcessState.ExitCode(); code != 74 {
		t.Errorf("exit code %d, want 74", code)
	}
	if calls, passed := len(r.counted("calls")), len(r.counted("out")); calls+passed > 0 {
		t.Errorf("%d calls, %d lines passed on without a spool", calls, passed)
	}
}
