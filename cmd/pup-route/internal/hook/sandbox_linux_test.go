package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// held is a script run at a level by whom the test runs as.
func held(t *testing.T, s Sandbox, script string) *Command {
	t.Helper()
	c := shell(t, script)
	c.Sandbox = s
	return c
}

// TestNothingIsLeft: however a command scatters its processes, all are gone
// when it has ended, by itself or by its time-out.
func TestNothingIsLeft(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"child", "sleep 1000 &"},
		{"own session", "setsid sleep 1000 &"},
		{"double fork", "(setsid sh -c 'sleep 1000 & sleep 1000' &) &"},
		{"deaf", "setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' &"},
		{"many", "for i in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'sleep 1000 & sleep 1000 & wait' &) ; done"},
	} {
		for _, end := range []string{"exit 0", "sleep 1000"} {
			t.Run(tt.name+" "+end, func(t *testing.T) {
				// Every process holds the FIFO open for writing: reading it
				// ends when the last one is gone.
				path := fifo(t)
				c := held(t, Sandbox{Level: Basic}, "exec 5>"+path+"; "+tt.script+"\n"+end)
				if end != "exit 0" {
					c.Timeout, c.Grace = 300*time.Millisecond, 50*time.Millisecond
				}
				gone := make(chan error, 1)
				go func() {
					_, err := os.ReadFile(path)
					gone <- err
				}()
				o := c.Run(NewStop(), nil, nil)
				if o.TimedOut != (end != "exit 0") {
					t.Errorf("got %+v", o)
				}
				if err := <-gone; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestControlProcessGroup is the control of the test above: without the shim
// a process with a session of its own stays.
func TestControlProcessGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	c := held(t, Sandbox{Level: Off}, "setsid sh -c 'echo $$ > "+path+"; sleep 1000 >/dev/null 2>&1' & while [ ! -s "+path+" ]; do :; done")
	if o := c.Run(NewStop(), nil, nil); o.Err != nil {
		t.Fatal(o.Err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Errorf("the escaped process is not there: %v; the test above proves nothing", err)
	}
	killGroup(pid, 9)
}

func TestPrivileges(t *testing.T) {
	const show = "grep -E '^(NoNewPrivs|CapEff|Seccomp):' /proc/self/status; ulimit -n; ulimit -c; ls /proc/self/fd | wc -l"
	for _, tt := range []struct {
		name    string
		sandbox Sandbox
		want    []string
	}{
		{"basic", Sandbox{Level: Basic, Limits: Limits{Files: 77}}, []string{"NoNewPrivs:\t1", "\n77\n0\n", "Seccomp:\t0"}},
		{"basic with privileges", Sandbox{Level: Basic, Privileges: true}, []string{"NoNewPrivs:\t0"}},
		{"strict", Sandbox{Level: Strict, Read: []string{"/proc"}}, []string{"NoNewPrivs:\t1", "Seccomp:\t2"}},
		{"off", Sandbox{Level: Off}, []string{"NoNewPrivs:\t0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := held(t, tt.sandbox, show)
			if os.Getuid() == 0 {
				u, err := LookupUser("nobody")
				if err != nil {
					t.Fatal(err)
				}
				c.User = u
				tt.want = append(tt.want, "CapEff:\t0000000000000000")
			}
			o := c.Run(NewStop(), nil, nil)
			for _, want := range tt.want {
				if o.Err != nil || !strings.Contains(string(o.Output), want) {
					t.Errorf("%v, %q has no %q", o.Err, o.Output, want)
				}
			}
		})
	}
}

// TestStrict: what a strict command may do, and what not. The same commands
// at level basic are the control.
func TestStrict(t *testing.T) {
	dir := t.TempDir()
	mine, others := filepath.Join(dir, "mine"), filepath.Join(dir, "others")
	for _, d := range []string{mine, others} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), []byte("text\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	sandbox := Sandbox{Level: Strict, Write: []string{mine}}
	network := sandbox
	network.Network = true
	for _, tt := range []struct {
		name    string
		sandbox Sandbox
		script  string
		fails   bool // at level strict; at basic it works
	}{
		{"standard programs", sandbox, "echo a | sed s/a/b/ | grep -q b && jq -n 1 >/dev/null", false},
		{"its folder", sandbox, "cat " + mine + "/file && echo x > " + mine + "/new && rm " + mine + "/new", false},
		{"read elsewhere", sandbox, "cat " + others + "/file", true},
		{"write elsewhere", sandbox, "echo x > " + others + "/file", true},
		{"create elsewhere", sandbox, "echo x > " + others + "/new", true},
		{"remove elsewhere", sandbox, "rm " + others + "/new", true},
		{"truncate elsewhere", sandbox, "truncate -s 0 " + others + "/file", true},
		{"local socket", sandbox, "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) or exit 1'", false},
		{"tcp", sandbox, "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) or exit 1'", true},
		{"udp", sandbox, "perl -MSocket -e 'socket(S, AF_INET6, SOCK_DGRAM, 0) or exit 1'", true},
		{"mptcp", sandbox, "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 262) or exit 1'", true},
		{"tcp with network", network, "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) or exit 1'", false},
		{"user namespace", network, "unshare -U true", true},
		{"trace", network, fmt.Sprintf("perl -e 'exit(syscall(%d, 0, 0, 0, 0) == 0 ? 0 : 1)'", unix.SYS_PTRACE), true},
		{"event file", sandbox, "cat $PUP_FILE >/dev/null", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := held(t, tt.sandbox, tt.script)
			c.Input = File
			o := c.Run(NewStop(), nil, []byte("{}\n"))
			if (o.Err != nil) != tt.fails {
				t.Errorf("strict: %v, %q", o.Err, o.Output)
			}
			c.Sandbox.Level = Basic
			if o := c.Run(NewStop(), nil, []byte("{}\n")); o.Err != nil {
				t.Errorf("the control fails too: %v, %q", o.Err, o.Output)
			}
		})
	}
}

// TestSandboxFailsClosed: what can't be taken away keeps the command from
// running.
func TestSandboxFailsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ran")
	c := held(t, Sandbox{Level: Strict, Write: []string{"/no/such/folder"}}, "touch "+path)
	o := c.Run(NewStop(), nil, nil)
	if o.Err == nil || !o.Retry() || !strings.Contains(o.Err.Error(), "landlock: open /no/such/folder") {
		t.Errorf("got %+v", o)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it ran")
	}
}
