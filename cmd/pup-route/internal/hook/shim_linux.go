package hook

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shimName is argv[0] of a process of ours that is a shim: it stands between
// us and a command, takes privileges away before the command starts, becomes
// the parent of all that it leaves behind, and ends all of that.
const shimName = "pup-route-hook"

// Descriptors of a shim.
const (
	controlFD = 3 // the order in; then t to ask, k to kill; the end out
	fileFD    = 4 // the event, if it is given as a file
)

// An order says what a shim has to run.
type order struct {
	Argv    []string
	Env     []string
	User    *User
	File    bool // descriptor 4 is descriptor 3 of the command
	Sandbox Sandbox
}

// An end says how it ended.
type end struct {
	Error   string `json:",omitempty"` // it was not started
	Lacking bool   // for want of processes, descriptors or memory
	Exit    int
	Signal  int
	Left    int // descendants that could not be ended
}

// shimmed starts a command behind a shim.
func shimmed(s *spec) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close()
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	ours := os.NewFile(uintptr(fds[0]), "control")
	p := &process{ended: make(chan error, 1)}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{shimName}
	// One built with the race detector would sleep for a second at its end.
	cmd.Env = []string{"GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0"}
	if s.stdin != nil {
		cmd.Stdin = s.stdin
	}
	p.connect(cmd, s.command)
	cmd.ExtraFiles = []*os.File{theirs}
	if s.file != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.file)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = pipeDelay
	c := s.command
	text, err := json.Marshal(order{c.Argv, s.env, c.User, s.file != nil, c.Sandbox})
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	p.term = func() { ours.Write([]byte("t")) } //nolint:errcheck // it has ended
	p.kill = func() { ours.Write([]byte("k")) } //nolint:errcheck // it has ended
	go func() {
		defer ours.Close()
		_, err := ours.Write(append(text, '\n'))
		var e end
		if err == nil {
			err = json.NewDecoder(ours).Decode(&e)
		}
		waited := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("the shim ended early (%v): %w", waited, err)
		}
		p.ended <- e.err(err)
	}()
	return p, nil
}

func (e *end) err(err error) error {
	switch {
	case err != nil:
		return &startError{err, false}
	case e.Error != "":
		return &startError{errors.New(e.Error), e.Lacking}
	case e.Left > 0:
		return &statusError{exit: -1, left: e.Left}
	case e.Signal != 0:
		return &statusError{exit: -1, signal: syscall.Signal(e.Signal)}
	case e.Exit != 0:
		return &statusError{exit: e.Exit}
	}
	return nil
}

// Shim is to be called first thing in main: in a shim it does not return.
func Shim() {
	if os.Args[0] != shimName {
		return
	}
	// What is taken away is taken from a thread, and the command is started
	// from the same. Others keep it, to look after the command.
	runtime.LockOSThread()
	control := os.NewFile(controlFD, "control")
	in := bufio.NewReader(control)
	var o order
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	var e end
	if err == nil {
		e, err = o.run(in)
	}
	if err != nil {
		e = end{Error: err.Error(), Lacking: lacking(err)}
	}
	if err := json.NewEncoder(control).Encode(e); err != nil {
		os.Exit(1) // nobody listens any more
	}
	os.Exit(0)
}

// run runs the command to the end of all that it starts.
func (o *order) run(control *bufio.Reader) (end, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return end{}, fmt.Errorf("become a subreaper: %w", err)
	}
	if err := unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return end{}, fmt.Errorf("close_range: %w", err)
	}
	if err := o.Sandbox.enter(o.Argv[0]); err != nil {
		return end{}, err
	}
	attr := &syscall.ProcAttr{Env: o.Env, Files: []uintptr{0, 1, 2}, Sys: attributes(o.User)}
	if o.File {
		attr.Files = append(attr.Files, fileFD)
	}
	attr.Sys.Pdeathsig = unix.SIGKILL // for the case that we are killed: this thread lives as long as we do
	pid, err := forkExec(o.Argv, attr)
	if err != nil {
		return end{}, fmt.Errorf("start %s: %w", o.Argv[0], err)
	}
	killed := make(chan struct{})
	go obey(control, pid, killed)
	done := make(chan end)
	go func() { done <- supervise(pid) }()
	select {
	case e := <-done:
		return e, nil
	case <-killed:
	}
	left := sweep()
	e := <-done
	e.Left = left
	return e, nil
}

// forkExec is syscall.ForkExec, again where the file is busy; see start.
func forkExec(argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	for try := 1; ; try++ {
		pid, err = syscall.ForkExec(argv[0], argv, attr)
		if !errors.Is(err, syscall.ETXTBSY) || try == 5 {
			return pid, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// obey follows the control. Its end is ours: pup-route has died, and runs
// the command again when it is back.
func obey(control *bufio.Reader, pid int, killed chan<- struct{}) {
	for {
		switch c, err := control.ReadByte(); {
		case err == nil && c == 't':
			killGroup(pid, unix.SIGTERM)
		case err != nil || c == 'k':
			killGroup(pid, unix.SIGKILL)
			close(killed)
			return
		}
	}
}

// supervise waits for the command, then ends what it left behind. Its group
// is killed before it is reaped: until then its number can't be another's.
func supervise(pid int) end {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	killGroup(pid, unix.SIGKILL)
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	e := end{Exit: ws.ExitStatus(), Left: sweep()}
	if ws.Signaled() {
		e.Exit, e.Signal = -1, int(ws.Signal())
	}
	return e
}

// sweepFor bounds the time in which descendants have to be gone.
const sweepFor = 2 * time.Second

// sweep kills all our children, which are all that the command has left
// behind, since whoever loses its parent becomes ours. It returns how many
// are left.
func sweep() int {
	for until := time.Now().Add(sweepFor); ; {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return 0
		case err != nil || pid > 0:
			continue
		}
		found := children()
		if time.Now().After(until) {
			return len(found)
		}
		for _, c := range found {
			unix.Kill(c, unix.SIGKILL) //nolint:errcheck // ours, or gone
		}
		time.Sleep(time.Millisecond)
	}
}

// children lists the processes whose parent we are.
func children() (pids []int) {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
