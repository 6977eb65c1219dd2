// Package hook runs the commands of users: argv and never a shell, with an
// environment made from nothing, in a session of its own, with an end that
// comes whatever the command does.
package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Path is where commands are looked for, and the PATH that they get.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Input says how a command gets its event.
type Input string

// The inputs.
const (
	Stdin  Input = "stdin"  // one line on standard input
	File   Input = "file"   // a file whose path is in $PUP_FILE
	Stream Input = "stream" // one long-lived process, a line each
)

// A Command is something to be run, many times.
type Command struct {
	Argv    []string // Argv[0] is an absolute path, see Find
	Env     []string // NAME=value, added to the environment that every hook gets
	User    *User    // nil: whoever we are
	Input   Input
	Timeout time.Duration // then SIGTERM to its process group
	Grace   time.Duration // and after this SIGKILL
	Sandbox Sandbox
	Guard   bool // Argv[0] must be Trusted whenever it is started
	Answers bool // what it prints on standard output is for us
}

// An Outcome is how a run ended.
type Outcome struct {
	Err      error  // nil: exit status 0
	Exit     int    // exit status; -1: a signal, a time-out or no start
	TimedOut bool   // ended by us for its time
	Canceled bool   // ended by us because we end
	Lacking  bool   // not started, since processes, descriptors or memory are short
	Output   []byte // the last bytes of standard output and standard error
	Answer   []byte // the last bytes of standard output, of a command that answers
}

// Retry reports whether the run may succeed when it is repeated: it was
// ended by a signal or its time-out, could not be started, or said so with
// EX_TEMPFAIL.
func (o *Outcome) Retry() bool {
	return o.Err != nil && (o.Exit == exTempfail || o.Exit < 0)
}

const exTempfail = 75 // sysexits.h

// maxOutput is how much of what a hook prints is kept.
const maxOutput = 4096

// Find returns the absolute path of a command: a name without a slash is
// looked for in Path, another is relative to dir. It fails unless the
// command is a regular file that may be executed.
func Find(name, dir string) (string, error) {
	if name == "" {
		return "", errors.New("the command is empty")
	}
	if !strings.Contains(name, "/") {
		for d := range strings.SplitSeq(Path, ":") {
			if p := d + "/" + name; executable(p) == nil {
				return p, nil
			}
		}
		return "", fmt.Errorf("no command %.80q in %s; write its absolute path", name, Path)
	}
	if !strings.HasPrefix(name, "/") {
		name = filepath.Join(dir, name)
	}
	name, err := filepath.Abs(name)
	if err == nil {
		err = executable(name)
	}
	return name, err
}

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no command %.200q", path)
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%.200q is not a regular file", path)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%.200q may not be executed; chmod +x it", path)
	}
	return nil
}

// Environ is what every run gets, before the event's own variables.
func (c *Command) environ() []string {
	env := []string{"PATH=" + Path, "LANG=C.UTF-8"}
	if tz, ok := os.LookupEnv("TZ"); ok {
		env = append(env, "TZ="+tz)
	}
	if c.User != nil {
		env = append(env, "HOME="+c.User.Home, "USER="+c.User.Name, "LOGNAME="+c.User.Name)
	} else if home, ok := os.LookupEnv("HOME"); ok {
		env = append(env, "HOME="+home)
	}
	return env
}

// A startError says that a command was not run.
type startError struct {
	err     error
	lacking bool
}

// notStarted is the outcome of a command that was not run.
func notStarted(err error) Outcome {
	if se, ok := errors.AsType[*startError](err); ok {
		return Outcome{Err: se, Exit: -1, Lacking: se.lacking}
	}
	return Outcome{Err: &startError{err, lacking(err)}, Exit: -1, Lacking: lacking(err)}
}

// lacking reports whether an error is for want of something that the command
// is not to blame for.
func lacking(err error) bool {
	for _, e := range []error{syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ETXTBSY} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (e *startError) Error() string { return "start: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// Run runs the command once with the event line, and env added to its
// environment, and returns when it and what it started have ended.
func (c *Command) Run(stop *Stop, env []string, line []byte) Outcome {
	in, more, release, err := c.give(line)
	if err != nil {
		return notStarted(fmt.Errorf("hand the event over: %w", err))
	}
	defer release()
	s := &spec{command: c, env: slices.Concat(c.environ(), env, more, c.Env)}
	if c.Input == File {
		s.file = in
	} else {
		s.stdin = in
	}
	p, err := begin(s)
	if err != nil {
		return notStarted(err)
	}
	o := c.wait(stop, p)
	o.Output = p.out.bytes()
	if c.Answers {
		o.Answer = p.answer.bytes()
	}
	return o
}

// pipeDelay is how long the output of a command is read after its end.
const pipeDelay = 200 * time.Millisecond

// wait waits for the end of the command, and brings it about if need be.
func (c *Command) wait(stop *Stop, p *process) Outcome {
	timeout := time.NewTimer(c.Timeout)
	defer timeout.Stop()
	select {
	case err := <-p.ended:
		return outcome(err)
	case <-timeout.C:
		stop.end(p, c.Grace)
		return Outcome{TimedOut: true, Exit: -1, Err: fmt.Errorf("timeout after %v", c.Timeout)}
	case <-stop.ask:
		stop.end(p, min(c.Grace, lastGrace))
		return Outcome{Canceled: true, Exit: -1, Err: errors.New("canceled")}
	}
}

func outcome(err error) Outcome {
	o := Outcome{Err: err}
	if err != nil {
		o.Exit = -1
	}
	if se, ok := errors.AsType[*statusError](err); ok {
		o.Exit = se.exit
	}
	if se, ok := errors.AsType[*startError](err); ok {
		o.Lacking = se.lacking
	}
	return o
}

// lastGrace is what is left to a command when we end ourselves.
const lastGrace = time.Second

// A Stop ends runs from outside.
type Stop struct {
	ask, kill         chan struct{}
	askOnce, killOnce sync.Once
}

// NewStop returns a Stop.
func NewStop() *Stop { return &Stop{ask: make(chan struct{}), kill: make(chan struct{})} }

// Ask has running commands end: SIGTERM, and SIGKILL a second later.
func (s *Stop) Ask() { s.askOnce.Do(func() { close(s.ask) }) }

// Kill ends running commands at once.
func (s *Stop) Kill() {
	s.killOnce.Do(func() { close(s.kill) })
	s.Ask()
}

// end asks a process to end, makes it after grace, and returns how it did.
func (s *Stop) end(p *process, grace time.Duration) error {
	p.term()
	over := time.NewTimer(grace)
	defer over.Stop()
	select {
	case err := <-p.ended:
		return err
	case <-over.C:
	case <-s.kill:
	}
	p.kill()
	return <-p.ended
}

// start starts a command. A file that somebody has just written may be open
// for writing in a process that is being forked (golang/go#22315): that
// passes within milliseconds.
func start(command func() *exec.Cmd) (*exec.Cmd, error) {
	for try := 1; ; try++ {
		cmd := command()
		err := cmd.Start()
		if err == nil || !errors.Is(err, syscall.ETXTBSY) || try == 5 {
			return cmd, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A tail keeps the last bytes that are written to it.
type tail struct {
	buf  []byte
	lost bool
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > maxOutput {
		p, t.lost = p[n-maxOutput:], true
	}
	if over := len(t.buf) + len(p) - maxOutput; over > 0 {
		t.buf, t.lost = append(t.buf[:0], t.buf[over:]...), true
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// bytes returns what is kept, from the first whole line on.
func (t *tail) bytes() []byte {
	if !t.lost {
		return t.buf
	}
	for i, c := range t.buf {
		if c == '\n' && i+1 < len(t.buf) {
			return t.buf[i+1:]
		}
	}
	return t.buf
}
