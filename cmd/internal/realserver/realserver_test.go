//go:build unix

package realserver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// beSleeper in the environment makes this test binary start a server, print its pids and wait to be killed.
const beSleeper = "PUP_TEST_BE_SLEEPER"

func TestMain(m *testing.M) {
	if os.Getenv(beSleeper) == "" {
		os.Exit(m.Run())
	}
	s, err := start("testdata/servers/sleeper")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.says["sleeper_pid"], s.says["child_pid"], s.says["dir"])
	select {}
}

func startSleeper(t *testing.T) *servers {
	t.Helper()
	s, err := start("testdata/servers/sleeper")
	if err != nil {
		giveUp(t, err) // setpriv is Linux's
	}
	t.Cleanup(func() { s.stop() })
	return s
}

func TestStop(t *testing.T) {
	s := startSleeper(t)
	if s.says["sleeper"] == s.says["other"] {
		t.Errorf("two ports are the same: %s", s.says["sleeper"])
	}
	if err := s.stop(); err != nil {
		t.Errorf("the script ended with %v", err)
	}
	for _, name := range []string{"sleeper", "child"} {
		if err := await(pid(t, s.says, name), ended); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(s.says["dir"]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder %s is still there", s.says["dir"])
	}
}

// The test process can be killed at any time; the servers must not survive it.
func TestKilledTest(t *testing.T) {
	startSleeper(t) // or give up
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), beSleeper+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var sleeper, child int
	var dir string
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &sleeper, &child, &dir); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{sleeper, child} {
		if err := await(pid, ended); err != nil {
			t.Error(err)
		}
	}
	cmd.Wait()
}

func TestBroken(t *testing.T) {
	startSleeper(t) // or give up
	_, err := start("testdata/servers/broken")
	if err == nil {
		t.Fatal("got no error for a server that ends at once")
	}
	for _, want := range []string{"broken has ended", "the reason why"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want %q in it", err, want)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	_, err := start("testdata/servers/absent")
	if !errors.Is(err, errNotInstalled) || !strings.Contains(err.Error(), "no-such-program; ") {
		t.Fatalf("got error %v, want one that names no-such-program", err)
	}
	for _, tt := range []struct{ ci, servers, want string }{
		{"", "", "skip"},
		{"true", "", "fatal"},
		{"", "required", "fatal"},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv("PUP_SERVERS", tt.servers)
		spy := &spy{TB: t}
		giveUp(spy, err)
		if spy.did != tt.want {
			t.Errorf("CI=%q PUP_SERVERS=%q: got %s, want %s", tt.ci, tt.servers, spy.did, tt.want)
		}
	}
}

// spy notes the first way in which a test gave up.
type spy struct {
	testing.TB
	did string
}

func (s *spy) Skip(...any)  { s.note("skip") }
func (s *spy) Fatal(...any) { s.note("fatal") }

func (s *spy) note(did string) {
	if s.did == "" {
		s.did = did
	}
}

func TestPauseAndKill(t *testing.T) {
	s := startSleeper(t)
	child := pid(t, s.says, "child")
	Pause(t, s.says, "sleeper")
	if err := await(child, "T"); err != nil {
		t.Errorf("paused: %v", err)
	}
	Resume(t, s.says, "sleeper")
	if err := await(child, "S"); err != nil {
		t.Errorf("resumed: %v", err)
	}
	Kill(t, s.says, "sleeper")
	if err := await(child, ended); err != nil {
		t.Errorf("killed: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("after the death of a server the script ended with %v", err)
	}
}

// Every script in the folder comes up, and ends without being killed.
func TestServers(t *testing.T) {
	scripts, err := os.ReadDir("../../../scripts/servers")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		if s.IsDir() {
			continue
		}
		t.Run(s.Name(), func(t *testing.T) {
			says := Start(t, s.Name())
			if says["dir"] == "" {
				t.Errorf("got no dir in %v", says)
			}
		})
	}
}
