package hook

import (
	"fmt"
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

// shell is a command that runs a script, so that a test can say what a hook
// does.
func shell(t *testing.T, script string) *Command {
	t.Helper()
	path, err := Find("sh", "")
	if err != nil {
		t.Fatal(err)
	}
	return &Command{Argv: []string{path, "-c", script}, Input: Stdin, Timeout: time.Minute, Grace: time.Minute, Sandbox: Sandbox{Level: level}}
}

// fifo makes a FIFO; reading it to its end is how a test waits for a hook.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// level is the sandbox of the commands of a test.
var level = Basic

func TestMain(m *testing.M) {
	Shim()
	code := m.Run()
	if code == 0 {
		level = Off
		code = m.Run()
	}
	os.Exit(code)
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		err          string
		retry        bool
		output       string
	}{
		{"done", "true", "", false, ""},
		{"failed", "exit 1", "exit status 1", false, ""},
		{"try again", "exit 75", "exit status 75", true, ""},
		{"signal", "kill -9 $$", "signal: killed", true, ""},
		{"output", "echo out; echo err >&2", "", false, "out\nerr\n"},
		{"input", "cat", "", false, "the line\n"},
		{"no reader of the input", "exec <&-", "", false, ""},
		{"environment", "echo $A$B$PUP_HOOK$HOME_OF_OTHERS", "", false, "1x\n"},
		{"child that holds the pipe", "sleep 1000 & echo mine", "", false, "mine\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME_OF_OTHERS", "leaked")
			c := shell(t, tt.script)
			c.Env = []string{"A=1"}
			o := c.Run(NewStop(), []string{"PUP_HOOK=x"}, []byte("the line\n"))
			if got := fmt.Sprint(o.Err); o.Err == nil && tt.err != "" || o.Err != nil && got != tt.err {
				t.Errorf("error %v, want %q", o.Err, tt.err)
			}
			if o.Retry() != tt.retry || string(o.Output) != tt.output {
				t.Errorf("retry %v, output %q, want %v, %q", o.Retry(), o.Output, tt.retry, tt.output)
			}
		})
	}
}

// TestLargeInput: a command that does not read its input, which no pipe
// would hold, is not waited for.
func TestLargeInput(t *testing.T) {
	if o := shell(t, "exit 3").Run(NewStop(), nil, make([]byte, 4<<20)); o.Exit != 3 {
		t.Errorf("got %+v", o)
	}
	c := shell(t, "wc -c < $PUP_FILE")
	c.Input = File
	if o := c.Run(NewStop(), nil, make([]byte, 4<<20)); string(o.Output) != "4194304\n" {
		t.Errorf("got %+v, %s", o, o.Output)
	}
}

// TestBusy: a command that has just been written may be open for writing in
// a process that is being forked.
func TestBusy(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				path := filepath.Join(dir, fmt.Sprint(i, "-", j))
				if err := os.WriteFile(path, text, 0o700); err != nil {
					t.Error(err)
				}
				c := &Command{Argv: []string{path}, Timeout: time.Minute, Sandbox: Sandbox{Level: Off}}
				if o := c.Run(NewStop(), nil, nil); o.Err != nil {
					t.Error(o.Err)
				}
				os.Remove(path) //nolint:errcheck // the folder goes
			}
		})
	}
	all.Wait()
}

func TestFileInput(t *testing.T) {
	c := shell(t, `cat "$PUP_FILE"; cat; echo more >> "$PUP_FILE" || echo sealed`)
	c.Input = File
	o := c.Run(NewStop(), nil, []byte("the line\n"))
	if o.Err != nil || !strings.HasPrefix(string(o.Output), "the line\n") || !strings.HasSuffix(string(o.Output), "sealed\n") {
		t.Errorf("%v, %q", o.Err, o.Output)
	}
}

func TestTimeoutEndsTheWholeGroup(t *testing.T) {
	path := fifo(t)
	c := shell(t, "trap '' TERM; (trap '' TERM; exec 3>"+path+"; sleep 1000) & sleep 1000; sleep 1000")
	c.Timeout, c.Grace = 50*time.Millisecond, 50*time.Millisecond
	held := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(path) // ends when the last holder has ended
		held <- err
	}()
	o := c.Run(NewStop(), nil, nil)
	if !o.TimedOut || !o.Retry() || o.Err == nil {
		t.Errorf("got %+v", o)
	}
	// The child may have been killed before it opened the FIFO.
	if f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		f.Close()
	}
	if err := <-held; err != nil {
		t.Error(err)
	}
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script string
		stop   func(*Stop)
	}{
		{"asked", "", (*Stop).Ask},
		{"killed", "trap '' TERM; ", (*Stop).Kill},
		{"asked and deaf", "trap '' TERM; ", (*Stop).Ask},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := fifo(t)
			c := shell(t, tt.script+"echo > "+path+"; sleep 1000; sleep 1000")
			stop := NewStop()
			go func() {
				if _, err := os.ReadFile(path); err != nil {
					t.Error(err)
				}
				tt.stop(stop)
			}()
			if o := c.Run(stop, nil, nil); !o.Canceled || o.TimedOut || o.Err == nil {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func TestFloodIsBounded(t *testing.T) {
	o := shell(t, "yes | head -c 3000000; echo the end").Run(NewStop(), nil, nil)
	if o.Err != nil || len(o.Output) > maxOutput || !strings.HasSuffix(string(o.Output), "y\nthe end\n") || o.Output[0] != 'y' {
		t.Errorf("%v, %d bytes", o.Err, len(o.Output))
	}
}

func TestOwnSession(t *testing.T) {
	o := shell(t, "ps -o sid= -p $$; echo $$").Run(NewStop(), nil, nil)
	got := strings.Fields(string(o.Output))
	if len(got) != 2 || got[0] != got[1] {
		t.Errorf("session and process: %q", o.Output)
	}
}

func TestUser(t *testing.T) {
	if os.Getuid() != 0 {
		u, err := LookupUser("root")
		if err != nil {
			t.Fatal(err)
		}
		c := shell(t, "true")
		c.User = u
		if o := c.Run(NewStop(), nil, nil); o.Err == nil {
			t.Error("an ordinary user became root")
		}
		return
	}
	u, err := LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	c := shell(t, "id -u; id -G; echo $USER; cat")
	c.User = u
	o := c.Run(NewStop(), nil, []byte("the line\n"))
	want := fmt.Sprintf("%d\n%d\nnobody\nthe line\n", u.UID, u.GID)
	if o.Err != nil || string(o.Output) != want {
		t.Errorf("%v, %q, want %q", o.Err, o.Output, want)
	}
	c = shell(t, "cat $PUP_FILE")
	c.User, c.Input = u, File
	if o := c.Run(NewStop(), nil, []byte("the line\n")); o.Err != nil || string(o.Output) != "the line\n" {
		t.Errorf("the file is not for the user: %v, %q", o.Err, o.Output)
	}
}

func TestProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "got")
	c := shell(t, "echo $$; exec cat >> "+path)
	c.Input = Stream
	var printed string
	p := &Process{Command: c, Stop: NewStop(), Log: func(out []byte, err error) {
		printed += string(out)
		if err != nil {
			t.Error(err)
		}
	}}
	for i := range 3 {
		if o := p.Send(nil, []byte(strconv.Itoa(i)+"\n")); o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	p.Close()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "0\n1\n2\n" || strings.Count(printed, "\n") != 1 {
		t.Errorf("%v, got %q from the processes %q, want one", err, got, printed)
	}
}

func TestProcessIsStartedAgain(t *testing.T) {
	path := fifo(t)
	c := shell(t, "read -r x; echo got $x; echo > "+path+"; exit 3")
	var log []string
	p := &Process{Command: c, Stop: NewStop(), Log: func(out []byte, err error) { log = append(log, fmt.Sprintf("%s%v", out, err)) }}
	for i := range 3 {
		if o := p.Send(nil, []byte(strconv.Itoa(i)+"\n")); o.Err != nil {
			t.Fatal(o.Err)
		}
		if _, err := os.ReadFile(path); err != nil { // it has had the line
			t.Fatal(err)
		}
		p.p.ended <- <-p.p.ended
	}
	p.Close()
	if len(log) != 3 || !strings.HasPrefix(log[2], "got 2\n") {
		t.Errorf("got %q", log)
	}
}

func TestProcessThatDoesNotRead(t *testing.T) {
	c := shell(t, "sleep 1000; sleep 1000")
	c.Timeout, c.Grace = 50*time.Millisecond, 50*time.Millisecond
	ended := 0
	p := &Process{Command: c, Stop: NewStop(), Log: func([]byte, error) { ended++ }}
	o := p.Send(nil, make([]byte, 1<<20))
	if !o.TimedOut || !o.Retry() || ended != 1 {
		t.Errorf("got %+v, ended %d times", o, ended)
	}
	p.Close()
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "plain": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"./run":      filepath.Join(dir, "run"),
		"./plain":    "may not be executed",
		"./gone":     "there is no command",
		"./":         "is not a regular file",
		"":           "the command is empty",
		"run":        "no command",
		dir + "/run": filepath.Join(dir, "run"),
	} {
		got, err := Find(name, dir)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// BenchmarkRun compares a run with the smallest that os/exec can do.
func BenchmarkRun(b *testing.B) {
	line := []byte(strings.Repeat("x", 600) + "\n")
	for _, level := range []Level{Off, Basic, Strict} {
		b.Run(string(level), func(b *testing.B) {
			c := &Command{Argv: []string{"/bin/true"}, Input: Stdin, Timeout: time.Minute, Grace: time.Second, Sandbox: Sandbox{Level: level}}
			b.ReportAllocs()
			for b.Loop() {
				if o := c.Run(NewStop(), nil, line); o.Err != nil {
					b.Fatal(o.Err)
				}
			}
		})
	}
	b.Run("exec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
