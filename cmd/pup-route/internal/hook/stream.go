package hook

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// A Process is the long-lived process of a command whose input is a stream.
// It is started when there is something to tell it, and again after it ended.
type Process struct {
	Command *Command
	Stop    *Stop
	Log     func(output []byte, err error) // is told of its end, with what it printed

	mu    sync.Mutex // held while a line is written
	p     *process   // nil: none runs
	stdin *os.File
}

// Send writes the line to the process, which it starts first if none runs.
// The line counts as delivered when it has been written: what the process
// does with it, it alone knows. Env is that of the process.
func (p *Process) Send(env []string, line []byte) Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.p != nil {
		select {
		case err := <-p.p.ended:
			p.reap(err)
		default:
		}
	}
	if p.p == nil {
		if err := p.start(env); err != nil {
			return notStarted(err)
		}
	}
	written := make(chan struct{})
	defer close(written)
	go func() {
		select {
		case <-p.Stop.ask:
			p.stdin.SetWriteDeadline(time.Now()) //nolint:errcheck // a pipe takes deadlines
		case <-written:
		}
	}()
	if err := p.stdin.SetWriteDeadline(time.Now().Add(p.Command.Timeout)); err != nil {
		return Outcome{Err: err, Exit: -1}
	}
	_, err := p.stdin.Write(line)
	if err == nil {
		return Outcome{}
	}
	// It may have got a part of the line: only an end and a new start keep
	// the next one from being glued to that.
	p.finish(0)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Outcome{Exit: -1, TimedOut: true, Err: fmt.Errorf("timeout: it has not read its input for %v", p.Command.Timeout)}
	}
	return Outcome{Exit: -1, Err: fmt.Errorf("write to the stream: %w", err)}
}

func (p *Process) start(env []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	c := p.Command
	p.p, err = begin(&spec{command: c, env: slices.Concat(c.environ(), env, c.Env), stdin: r})
	if err != nil {
		w.Close()
		return err
	}
	p.stdin = w
	return nil
}

// Close ends the input of the process and waits Timeout for it to finish.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.p != nil {
		p.finish(p.Command.Timeout)
	}
}

func (p *Process) finish(wait time.Duration) {
	p.stdin.Close()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	var err error
	select {
	case err = <-p.p.ended:
	case <-timeout.C:
		err = p.Stop.end(p.p, p.Command.Grace)
	case <-p.Stop.ask:
		err = p.Stop.end(p.p, min(p.Command.Grace, lastGrace))
	}
	p.reap(err)
}

// reap cleans up behind a process that has ended.
func (p *Process) reap(err error) {
	p.stdin.Close()
	p.Log(p.p.out.bytes(), err)
	p.p = nil
}
