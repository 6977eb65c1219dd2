// Package child keeps long-lived commands that answer target lines with result
// lines. Each is started when it is first asked, serves all who ask the same
// command, is started again when it has ended, and is gone, with its whole
// tree, after Close.
package child

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	maxFilters = 64          // commands that are kept at once
	minPause   = time.Second // before a filter that has never answered is started again; doubles
	maxPause   = time.Minute //
	farewell   = time.Second // from the end of a filter's input to its end by force
	maxStderr  = 200         // bytes of the end of what a filter says to people
)

// A Command is what to start. Those who ask for an equal one share it.
type Command struct {
	Path    string
	Args    []string
	Env     []string
	MaxLine int // bytes of an answer
}

func (c Command) key() string { return fmt.Sprintf("%q %q %q %d", c.Path, c.Args, c.Env, c.MaxLine) }

// A Pool holds filters. Its zero value is ready.
type Pool struct {
	mu      sync.Mutex // over all that filters and their processes know
	filters map[string]*filter
	closed  bool
	running sync.WaitGroup
}

// filter is a command with the process that runs it, if one does.
type filter struct {
	process *process
	used    time.Time
	starts  int
	pause   time.Duration
	next    time.Time // not started again before
	err     error     // why the last process has ended
}

// Counts are what a filter has to do with since it was first asked.
type Counts struct {
	Starts  int    // of its process
	Ignored int    // lines of the process that runs now that were no answers
	Why     string // the last of them was none
}

// Ask writes the target line to the filter and waits for its answer, or for
// the end of ctx, whose error it then returns. Any other error says that the
// filter can't be started, or has ended. Name is that of a target whose line
// has none.
func (p *Pool) Ask(ctx context.Context, c Command, line []byte, name string) (Answer, Counts, error) {
	key, err := keyOf(line, name)
	if err != nil {
		return Answer{}, Counts{}, err
	}
	answer := make(chan Answer, 1)
	f, pr, err := p.enter(c, key, answer)
	if err != nil {
		return Answer{}, Counts{}, err
	}
	a, err := pr.ask(ctx, line, answer)
	return a, p.leave(f, pr, key, answer), err
}

// enter finds the process of a command, or starts it, and notes who waits for
// an answer.
func (p *Pool) enter(c Command, key identity, answer chan Answer) (*filter, *process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, context.Canceled
	}
	f, err := p.filter(c.key())
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	if f.process == nil {
		if wait := f.next.Sub(now); wait > 0 {
			return nil, nil, fmt.Errorf("%w; it is started again in %s", f.err, wait.Round(time.Millisecond))
		}
		f.starts++
		if f.process, err = p.start(c, f); err != nil {
			f.ended(err, false)
			return nil, nil, err
		}
	}
	f.used = now
	pr := f.process
	pr.waiting[key] = append(pr.waiting[key], answer)
	return f, pr, nil
}

// filter finds a filter, or makes room for a new one.
func (p *Pool) filter(key string) (*filter, error) {
	if f := p.filters[key]; f != nil {
		return f, nil
	}
	if len(p.filters) >= maxFilters {
		oldest := ""
		for k, f := range p.filters {
			if idle := f.process == nil || len(f.process.waiting) == 0; idle && (oldest == "" || f.used.Before(p.filters[oldest].used)) {
				oldest = k
			}
		}
		if oldest == "" {
			return nil, fmt.Errorf("%d filters are at work, and there may be no more", maxFilters)
		}
		if pr := p.filters[oldest].process; pr != nil {
			p.running.Go(pr.end)
		}
		delete(p.filters, oldest)
	}
	if p.filters == nil {
		p.filters = map[string]*filter{}
	}
	p.filters[key] = &filter{}
	return p.filters[key], nil
}

// leave forgets who waited.
func (p *Pool) leave(f *filter, pr *process, key identity, answer chan Answer) Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	pr.forget(key, answer)
	return Counts{f.starts, pr.ignored, pr.why}
}

// ended notes the end of a process. A filter that has answered is started
// again when it is next asked, one that has not only after a while.
func (f *filter) ended(err error, answered bool) {
	f.process, f.err = nil, err
	if f.pause = min(max(2*f.pause, minPause), maxPause); answered {
		f.pause = 0
	}
	f.next = time.Now().Add(f.pause)
}

// Close ends all filters and waits until they are gone: each is told by the
// end of its input, and killed if it is still there after a second. Who is
// waiting for an answer, and who asks later, gets an error.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, f := range p.filters {
		if f.process != nil {
			p.running.Go(f.process.end)
		}
	}
	p.mu.Unlock()
	p.running.Wait()
}
