package hook

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// A spec is a command about to be run.
type spec struct {
	command *Command
	env     []string
	stdin   *os.File // nil: nothing
	file    *os.File // nil, or descriptor 3 of the command
}

// A process is a command that has been started, with all that it starts.
type process struct {
	out    tail       // standard error, and standard output of one that does not answer
	answer tail       // standard output of one that does
	ended  chan error // has how it ended, once all of it has; nil is exit status 0
	term   func()     // asks it to end
	kill   func()     // ends it and what it has started
}

func (p *process) connect(cmd *exec.Cmd, c *Command) {
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if c.Answers {
		cmd.Stdout = &p.answer
	}
}

// A statusError is an end that was no success.
type statusError struct {
	exit   int // -1: ended by a signal
	signal syscall.Signal
	left   int // processes that it left behind and that could not be ended
}

func (e *statusError) Error() string {
	switch {
	case e.left > 0:
		return fmt.Sprintf("%d processes that it started can't be ended", e.left)
	case e.exit < 0:
		return "signal: " + e.signal.String()
	}
	return fmt.Sprintf("exit status %d", e.exit)
}

// launch starts a command without a shim: in a session of its own, its
// process group is killed in the end, and what has left that group is not.
func launch(s *spec) (*process, error) {
	p := &process{ended: make(chan error, 1)}
	cmd, err := start(func() *exec.Cmd {
		cmd := exec.Command(s.command.Argv[0], s.command.Argv[1:]...)
		cmd.Env = s.env
		if s.stdin != nil {
			cmd.Stdin = s.stdin
		}
		if s.file != nil {
			cmd.ExtraFiles = []*os.File{s.file}
		}
		p.connect(cmd, s.command)
		cmd.SysProcAttr = attributes(s.command.User)
		// A grandchild that keeps our pipe open must not keep us.
		cmd.WaitDelay = pipeDelay
		return cmd
	})
	if err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	p.term = func() { killGroup(pid, syscall.SIGTERM) }
	p.kill = func() { killGroup(pid, syscall.SIGKILL) }
	go func() {
		err := cmd.Wait()
		killGroup(pid, syscall.SIGKILL) // whom it left behind
		p.ended <- status(cmd.ProcessState, err)
	}()
	return p, nil
}

// status words how a child ended.
func status(state *os.ProcessState, err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &statusError{exit: -1, signal: ws.Signal()}
	}
	return &statusError{exit: state.ExitCode()}
}
