package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pup/cmd/internal/realserver"
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
		{"daemon", "(cd / && setsid sh -c 'umask 0; (exec sleep 1000) & exit' >/dev/null 2>&1 </dev/null &)"},
		{"keeps the output", "setsid sh -c 'sleep 1000; echo late' &"},
		{"closes all descriptors", "setsid sh -c 'exec 0<&- 1>&- 2>&- 3>&-; exec sleep 1000' &"},
		{"deaf", "setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' &"},
		{"many", "for i in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'sleep 1000 & sleep 1000 & wait' &) ; done"},
	} {
		for _, end := range []string{"exit 0", "sleep 1000"} {
			t.Run(tt.name+" "+end, func(t *testing.T) {
				for range escapes {
					c := held(t, Sandbox{Level: Basic}, "")
					if os.Getuid() == 0 && end == "exit 0" { // the rest as root
						u, err := LookupUser("nobody")
						if err != nil {
							t.Fatal(err)
						}
						c.User = u
					}
					nothingLeft(t, c, tt.script+"\n"+end, end != "exit 0")
				}
			})
		}
	}
}

// nothingLeft runs a script, every process of which holds a FIFO open for
// writing: nobody must be left who does when the run is over.
func nothingLeft(t *testing.T, c *Command, script string, times bool) {
	t.Helper()
	path := fifo(t)
	for _, p := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c.Argv = []string{c.Argv[0], "-c", "exec 5>" + path + "; " + script}
	if times {
		c.Timeout, c.Grace = 50*time.Millisecond, 10*time.Millisecond
	}
	if o := c.Run(NewStop(), nil, nil); o.TimedOut != times {
		t.Errorf("got %+v, %s", o, o.Output)
	}
	if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
		t.Errorf("processes are left: %v", err)
	}
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

// TestShimKilled: a command does not outlive its shim.
func TestShimKilled(t *testing.T) {
	path := fifo(t)
	gone := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(path)
		gone <- err
	}()
	c := held(t, Sandbox{Level: Basic}, "exec 5>"+path+"; kill -9 $PPID; exec sleep 1000")
	if o := c.Run(NewStop(), nil, nil); o.Err == nil || !o.Retry() {
		t.Errorf("got %+v", o)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
}

// TestSetuid: a set-user-ID program of root gives a hook nothing.
func TestSetuid(t *testing.T) {
	realserver.NeedRoot(t)
	u, err := LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "id")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]os.FileMode{path: 0o755 | os.ModeSetuid, dir: 0o755, filepath.Dir(dir): 0o755} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	c := held(t, Sandbox{Level: Basic}, path+" -u")
	c.User = u
	if o := c.Run(NewStop(), nil, nil); o.Err != nil || string(o.Output) != fmt.Sprintln(u.UID) {
		t.Errorf("%v, it runs as %s, want %d", o.Err, o.Output, u.UID)
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
