package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pup/cmd/pup-route/internal/spool"
)

// A rig runs pup-route with a spool and a hook that writes down each call,
// and kills it.
type rig struct {
	t     *testing.T
	dir   string
	spool string
	lines int
	pad   int // bytes that each line is longer
	flush int // lines that are written at once
}

func newRig(t *testing.T, lines int) *rig {
	r := &rig{t: t, dir: t.TempDir(), lines: lines, flush: 16}
	r.configure(r.dir + "/spool")
	return r
}

// configure says where the spool is, and more of the hook.
func (r *rig) configure(spool string, more ...string) {
	r.t.Helper()
	r.spool = spool
	if os.Getuid() == 0 {
		more = append(more, `user = "root"`)
	}
	config := fmt.Sprintf("spool = %[1]q\n[[hook]]\nname = \"note\"\non = [\"always\"]\ncommand = [\"sh\", \"-c\", \"[ ! -e %[2]s/dead ] || exit 75; cat >> %[2]s/calls\"]\nsandbox.level = \"off\"\n%[3]s\n",
		spool, r.dir, strings.Join(more, "\n"))
	if err := os.WriteFile(r.dir+"/hooks.toml", []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// command is pup-route reading from in; prefix may run it under strace.
func (r *rig) command(in *os.File, prefix ...string) *exec.Cmd {
	r.t.Helper()
	out, err := os.OpenFile(r.dir+"/out", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	argv := append(prefix, self, r.dir+"/hooks.toml")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PUP_ROUTE_MAIN=1", noSleep)
	cmd.Stdin, cmd.Stdout = in, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.t.Cleanup(func() { out.Close() })
	return cmd
}

// piped is a pipe from which pup-route reads.
func piped(t *testing.T) (in, w *os.File) {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in, w
}

// usualPipe is what a pipe holds. One that holds less is not made wider.
const usualPipe = 64 << 10

// pipe feeds the lines through a pipe that holds no more than size bytes.
func (r *rig) pipe(size int) (in *os.File) {
	r.t.Helper()
	in, w := piped(r.t)
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, size); err != nil {
		r.t.Fatal(err)
	}
	go r.feed(w)
	return in
}

// feed writes the lines to w and closes it.
func (r *rig) feed(w *os.File) {
	defer w.Close()
	b := bufio.NewWriterSize(w, 16000)
	pad := strings.Repeat("x", r.pad)
	for i := range r.lines {
		fmt.Fprintf(b, `{"type":"result","name":"n%d","status":"up","run":"n%d@%d","text":"%s"}`+"\n", i%7, i%7, i, pad)
		if (i+1)%r.flush == 0 {
			b.Flush() // the reader may be dead: then the next one gets it
		}
	}
	b.Flush()
}

// counted is how often each line was seen in a file of lines or events.
func (r *rig) counted(name string) map[int]int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	seen := map[int]int{}
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, `"run":"`); ok {
			_, rest, _ = strings.Cut(rest, "@")
			digits, _, _ := strings.Cut(rest, `"`)
			n, err := strconv.Atoi(digits)
			if err != nil {
				r.t.Fatalf("%s: %q: %v", name, line, err)
			}
			seen[n]++
		}
	}
	return seen
}

// lost counts the lines that the hook was never called for, and repeated the
// calls beyond the first.
func (r *rig) judge() (lost, repeated, unpassed int) {
	calls, passed := r.counted("calls"), r.counted("out")
	for i := range r.lines {
		if calls[i] == 0 {
			lost++
		}
		repeated += max(0, calls[i]-1)
		if passed[i] == 0 {
			unpassed++
		}
	}
	open, dead, err := spool.List(r.spool)
	if err != nil || len(open)+len(dead) > 0 {
		r.t.Errorf("%d jobs are open and %d dead at the end: %v", len(open), len(dead), err)
	}
	return lost, repeated, unpassed
}

// kills runs pup-route on in, kills it so often, and lets the last one end.
func (r *rig) kills(in *os.File, kills int) {
	r.t.Helper()
	for range kills {
		cmd := r.command(in)
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		time.AfterFunc(time.Duration(rand.IntN(25_000))*time.Microsecond, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
		cmd.Wait()                                                                                       //nolint:errcheck // killed
	}
	if err := r.command(in).Run(); err != nil {
		r.t.Fatal(err)
	}
}

// TestFaultKilledAtRandom: with the pipe held, kill -9 loses nothing and
// repeats at most what was running.
func TestFaultKilledAtRandom(t *testing.T) {
	faultKills := faultKills
	if testing.Short() {
		faultKills = min(faultKills, 100)
	}
	r := newRig(t, faultKills*40)
	r.kills(r.pipe(16<<10), faultKills) // so that little is read at once, and hooks run in each life
	lost, repeated, unpassed := r.judge()
	t.Logf("%d lines, %d kills: %d lost, %d calls repeated, %d not passed on", r.lines, faultKills, lost, repeated, unpassed)
	if lost > 0 || unpassed > 0 || repeated > faultKills*4 {
		t.Errorf("%d lines, %d kills: %d lost, %d calls repeated, %d not passed on", r.lines, faultKills, lost, repeated, unpassed)
	}
}

// TestFaultFull: a spool that can't grow holds reading back and loses
// nothing; the jobs that it holds go on.
func TestFaultFull(t *testing.T) {
	r := newRig(t, 1600) // of which a read brings a few hundred
	r.pad = 500
	in := r.pipe(usualPipe)
	cmd := r.command(in, "sh", "-c", `(ulimit -f 2400; exec "$0" "$@") | (trap "" TERM; exec cat >> `+r.dir+"/out)")
	cmd.Stdout = nil
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(errs)
	full := false
	for !full && s.Scan() {
		full = strings.Contains(s.Text(), "the spool is full")
	}
	if !full {
		t.Error("it does not say that the spool is full")
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) //nolint:errcheck // it is there, or the next run fails
	for s.Scan() {
	}
	cmd.Wait() //nolint:errcheck // the second run tells whether all is well
	if calls := len(r.counted("calls")); calls == 0 || calls == r.lines {
		t.Errorf("%d of %d lines were dealt with when the spool was full", calls, r.lines)
	}
	if err := r.command(in).Run(); err != nil {
		t.Fatal(err)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Errorf("%d lost, %d not passed on", lost, unpassed)
	}
}
