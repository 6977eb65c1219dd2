//go:build unix

// Package realserver starts the real servers of scripts/servers for tests: nginx, knot, redis and so on, each with all its
// state in a temporary folder, on free ports of the loopback. They end with the test, or with the test process, however it dies.
//
// A test whose server is not installed is skipped, and it says what installs it. It fails instead where the environment says
// that nothing may be skipped: CI is set, or PUP_SERVERS=required.
package realserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit   = time.Minute      // from start to "ready"
	stopLimit    = 20 * time.Second // the scripts themselves use force after 5 s
	notInstalled = 69               // what a script exits with when a program is missing
)

// Start starts the servers of scripts/servers/name for this test and returns what the script printed: an address for each
// server by its name, the pid of NAME as NAME_pid, and whatever else a client has to know. They end with the test.
func Start(t testing.TB, name string) map[string]string {
	t.Helper()
	s, err := start(script(name))
	if err != nil {
		giveUp(t, err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return s.says
}

var shared sync.Map // name -> func() (*servers, error)

// Shared is Start for servers that all tests of the test binary use together: they are started once and end with the
// process. A test that changes or stops one of them wants Start.
func Shared(t testing.TB, name string) map[string]string {
	t.Helper()
	once, _ := shared.LoadOrStore(name, sync.OnceValues(func() (*servers, error) { return start(script(name)) }))
	s, err := once.(func() (*servers, error))()
	if err != nil {
		giveUp(t, err)
	}
	return maps.Clone(s.says)
}

// Pause stops the server called name, as SIGSTOP does: its kernel still accepts connections, and nobody answers.
// Resume lets it go on, and so does the end of the test.
func Pause(t testing.TB, says map[string]string, name string) {
	t.Helper()
	// one that waits in the kernel, such as for a child that has not become another
	// program yet and is stopped as well, stops before it goes on
	signal(t, says, name, syscall.SIGSTOP, "TD")
	t.Cleanup(func() { _ = syscall.Kill(-pid(t, says, name), syscall.SIGCONT) }) // it may be gone by then
}

// Resume undoes Pause.
func Resume(t testing.TB, says map[string]string, name string) {
	t.Helper()
	signal(t, says, name, syscall.SIGCONT, "RSD")
}

// Kill ends the server called name at once, as a crash would. The others go on.
func Kill(t testing.TB, says map[string]string, name string) {
	t.Helper()
	signal(t, says, name, syscall.SIGKILL, ended)
}

// signal sends sig to the process group that each server leads, since some answer from a child, and waits until all of
// the group are in one of the states.
func signal(t testing.TB, says map[string]string, name string, sig syscall.Signal, states string) {
	t.Helper()
	pid := pid(t, says, name)
	if err := syscall.Kill(-pid, sig); err != nil {
		t.Fatalf("%v to %s: %v", sig, name, err)
	}
	for _, member := range group(pid) {
		want := states
		if member != pid {
			want += ended // by itself, after it has done what it was there for
		}
		if err := await(member, want); err != nil {
			t.Fatalf("%v to %s: %v", sig, name, err)
		}
	}
}

// group lists the processes of a process group, its leader as well if that has ended.
func group(leader int) []int {
	members := []int{leader}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, _ := os.ReadFile(path)
		_, rest, _ := bytes.Cut(stat, []byte(") ")) // state, parent, group
		fields := bytes.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != leader && len(fields) > 2 && string(fields[2]) == strconv.Itoa(leader) {
			members = append(members, pid)
		}
	}
	return members
}

func pid(t testing.TB, says map[string]string, name string) int {
	t.Helper()
	n, err := strconv.Atoi(says[name+"_pid"])
	if err != nil || n <= 1 {
		t.Fatalf("no %s_pid in what the servers say: %v", name, says)
	}
	return n
}

// ended are the states of a process that has closed its sockets; its parent may still have to ask what became of it.
const ended = "XZ"

// await waits until a process that is not our child is in one of the states, letters as in proc(5), field 3 of stat.
func await(pid int, states string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(stopLimit)
	for {
		state := state(pid)
		if strings.Contains(states, state) {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("process %d is in state %s after %v, want one of %s", pid, state, stopLimit, states)
		}
	}
}

// state returns the state of a process, X when there is none. The scripts run on Linux only, so there is a /proc.
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := bytes.Cut(stat, []byte(") "))
	if err != nil || !ok || len(rest) == 0 {
		return "X"
	}
	// the first thread may have ended while others still hold the sockets
	if tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); rest[0] == 'Z' && len(tasks) > 1 {
		return "R"
	}
	return string(rest[:1])
}

var (
	errNotInstalled = errors.New("not installed")
	errNotRoot      = errors.New("it takes root")
)

// Need skips the test where a program that it needs is not installed, and
// fails it where nothing may be skipped.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			giveUp(t, fmt.Errorf("%w: %s; run scripts/install --all", errNotInstalled, p))
		}
	}
}

// NeedRoot skips the test where it does not run as root, and fails it where
// nothing may be skipped.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		giveUp(t, errNotRoot)
	}
}

// NeedFile skips the test where a device or another part of the system is
// missing, and fails it where nothing may be skipped.
func NeedFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		giveUp(t, fmt.Errorf("%w: %w", errNotInstalled, err))
	}
}

// giveUp skips the test if a program or the right is missing and that is allowed, and fails it otherwise.
func giveUp(t testing.TB, err error) {
	t.Helper()
	required := os.Getenv("CI") != "" || os.Getenv("PUP_SERVERS") == "required"
	if (errors.Is(err, errNotInstalled) || errors.Is(err, errNotRoot)) && !required {
		t.Skip(err)
	}
	t.Fatal(err)
}

// script returns the path of scripts/servers/name, or an empty one outside of the source tree.
func script(name string) string {
	dir, err := os.Getwd() // the folder of the package that is tested
	for err == nil && dir != filepath.Dir(dir) {
		path := filepath.Join(dir, "scripts", "servers", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// servers is one running script.
type servers struct {
	says  map[string]string
	cmd   *exec.Cmd
	stdin io.Closer // the script lives until this is closed
}

func start(path string) (*servers, error) {
	if path == "" {
		return nil, errors.New("no such file in scripts/servers, as seen from the working directory of the test")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Stderr = &stderr                                  // not ours: `go test` would wait for the servers to close it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test, which ends the servers in its own time
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}

	tooLong := time.AfterFunc(startLimit, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer tooLong.Stop()
	says := map[string]string{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if lines.Text() == "ready" {
			return &servers{says, cmd, stdin}, nil
		}
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			stdin.Close()
			cmd.Wait()
			return nil, fmt.Errorf("%s printed %.80q, want key=value or ready", path, lines.Text())
		}
		says[key] = value
	}
	stdin.Close()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == notInstalled {
		return nil, fmt.Errorf("%w: %s", errNotInstalled, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil, fmt.Errorf("%s ended before it was ready: %v\n%s", path, err, stderr.Bytes())
}

// stop ends the script and returns when all that it started is gone.
func (s *servers) stop() error {
	s.stdin.Close()
	force := time.AfterFunc(stopLimit, func() { s.cmd.Process.Kill() })
	defer force.Stop()
	return s.cmd.Wait()
}
