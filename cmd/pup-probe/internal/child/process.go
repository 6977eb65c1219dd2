package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"pup/cmd/internal/ndjson"
)

// process is one life of a filter.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *os.File
	stderr tail
	lines  chan []byte   // to its input
	ended  chan struct{} // closed when it is gone
	err    error         // why; to be read after ended

	// under the pool's mu
	waiting  map[identity][]chan Answer
	answered bool
	ignored  int
	why      string
}

// start starts a command. The caller holds the pool's mu.
func (p *Pool) start(c Command, f *filter) (*process, error) {
	pr := &process{
		cmd: exec.Command(c.Path, c.Args...), lines: make(chan []byte), ended: make(chan struct{}),
		waiting: map[identity][]chan Answer{},
	}
	Apart(pr.cmd)
	pr.cmd.Env, pr.cmd.Dir = c.Env, "/"
	pr.cmd.Stderr = &pr.stderr
	pr.cmd.WaitDelay = farewell // a descendant that we have not found may hold its standard error
	var err error
	if pr.stdin, err = pr.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// a pipe of our own: that of StdoutPipe must be read to its end before
	// Wait, and a descendant may hold it for ever
	out, w, err := os.Pipe()
	if err != nil {
		pr.stdin.Close()
		return nil, err
	}
	pr.cmd.Stdout = w
	err = pr.cmd.Start()
	w.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	pr.stdout = out
	p.running.Go(pr.write)
	p.running.Go(func() { p.tend(f, pr, c.MaxLine) })
	return pr, nil
}

// ask hands a line to the process and waits for the answer.
func (pr *process) ask(ctx context.Context, line []byte, answer <-chan Answer) (Answer, error) {
	select {
	case pr.lines <- append(slices.Clip(line), '\n'):
	case <-pr.ended:
		return Answer{}, pr.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-pr.ended:
	}
	select {
	case a := <-answer: // its last words
		return a, nil
	default:
		return Answer{}, pr.err
	}
}

// write writes the lines to the process, each whole, whoever may have given up
// waiting for the answer.
func (pr *process) write() {
	for {
		select {
		case line := <-pr.lines:
			if _, err := pr.stdin.Write(line); err != nil {
				_ = Kill(pr.cmd) // it may be gone already
				return
			}
		case <-pr.ended:
			return
		}
	}
}

// tend deals with the process until its end.
func (p *Pool) tend(f *filter, pr *process, maxLine int) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(pr, maxLine)
		_ = Kill(pr.cmd) // it may be gone already; without output it is of no use
	}()
	err := pr.cmd.Wait()
	_ = killTree(pr.cmd.Process.Pid, nil) // what it has left of its process group
	if pr.stdout.SetReadDeadline(time.Now().Add(farewell)) != nil {
		pr.stdout.Close()
	}
	<-read
	pr.stdout.Close()
	how := pr.cmd.ProcessState.String()
	if errors.Is(err, exec.ErrWaitDelay) {
		how += ", but left a process behind"
	}
	if said := bytes.TrimSpace(pr.stderr.end); len(said) > 0 {
		how += fmt.Sprintf(": %.200q", said)
	}
	pr.err = fmt.Errorf("the filter has ended: %s", how)
	p.mu.Lock()
	f.ended(pr.err, pr.answered)
	p.mu.Unlock()
	close(pr.ended)
}

// read hands out the answers until the output ends.
func (p *Pool) read(pr *process, maxLine int) {
	r := ndjson.NewReader(pr.stdout, maxLine)
	for {
		l, err := r.Next()
		_, bad := errors.AsType[*ndjson.LineError](err)
		if err != nil && !bad {
			return
		}
		var key identity
		var a Answer
		if !bad {
			key, a, err = parse(l.Text)
		}
		p.mu.Lock()
		if err == nil {
			err = pr.deliver(key, a)
		}
		if err != nil {
			pr.ignored++
			pr.why = err.Error()
		}
		p.mu.Unlock()
	}
}

// deliver gives the answer to who has waited for it longest.
func (pr *process) deliver(key identity, a Answer) error {
	list := pr.waiting[key]
	if len(list) == 0 {
		return fmt.Errorf("nobody waits for %.80q", key.run+key.name)
	}
	pr.answered = true
	list[0] <- a
	pr.forget(key, list[0])
	return nil
}

// forget takes one who waits from the list.
func (pr *process) forget(key identity, answer chan Answer) {
	list := pr.waiting[key]
	if i := slices.Index(list, answer); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if pr.waiting[key] = list; len(list) == 0 {
		delete(pr.waiting, key)
	}
}

// end ends the process with its whole tree.
func (pr *process) end() {
	descendants := tree(pr.cmd.Process.Pid, nil)
	pr.stdin.Close()
	late := time.NewTimer(farewell)
	defer late.Stop()
	select {
	case <-pr.ended:
	case <-late.C:
	}
	_ = killTree(pr.cmd.Process.Pid, append(descendants, tree(pr.cmd.Process.Pid, nil)...)) // most often all are gone
	<-pr.ended
}

// tail keeps the end of what is written to it.
type tail struct{ end []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.end = append(t.end, b[max(0, len(b)-maxStderr):]...)
	t.end = append(t.end[:0], t.end[max(0, len(t.end)-maxStderr):]...)
	return len(b), nil
}
