// Package route is the loop of pup-route: lines in, the same lines out, and
// beside them the hooks that they call for.
package route

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"sync"
	"syscall"
	"time"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/queue"
	"pup/cmd/pup-route/internal/state"
)

// Options say how to route.
type Options struct {
	Config    *config.Config
	Reload    func() (*config.Config, error) // for SIGHUP
	Jobs      int                            // hooks that may run at once
	Grace     time.Duration                  // what running hooks get after a signal
	MaxLine   int
	MaxRecord int
	DryRun    bool                          // say which hooks would run, in event lines, and run none
	View      func(dst, line []byte) []byte // writes for people; nil: the lines themselves
	Quiet     bool                          // do not copy to stderr what hooks print
	Signals   <-chan os.Signal
	Wall      func() time.Time
}

// A router is one run of the program.
type router struct {
	Options
	in      io.Reader
	out     *ndjson.Writer
	log     *log
	table   *state.Table
	clock   clock
	queue   *queue.Queue[*call]
	hooks   map[string]*config.Hook
	stop    *hook.Stop
	ended   chan ended
	stream  map[string]*hook.Process
	closing sync.WaitGroup // of stream processes

	fields  fields
	result  state.Result
	pending []*queue.Job[*call] // of the batch at hand
	buf     []byte              // a line of ours
	shown   []byte              // a line for people
	vars    map[string]any      // of the line at hand, once an expression needs them
	varsOf  *byte

	bad     int // lines that could not be read
	worst   wire.Status
	mute    bool  // nobody reads our output any more
	failure error // output can't be written
	held    bool  // reading is held back, and that has been said
}

// A call is what a job carries: how to call a hook once.
type call struct {
	hook *config.Hook
	name string
	id   string
	env  []string
	line []byte
}

// ended is a run that has ended.
type ended struct {
	job     *queue.Job[*call]
	outcome hook.Outcome
}

// maxQueued is how many bytes of events may wait for their hooks. Beyond it
// nothing is read until some have run: the pipe is the queue.
const maxQueued = 16 << 20

// Summary is what a run came to.
type Summary struct {
	Bad   int         // lines that could not be read
	Worst wire.Status // of the results
}

// Run routes lines until the end of the input or a signal.
func Run(in io.Reader, out, errs io.Writer, o Options) (Summary, error) {
	r := &router{
		Options: o,
		in:      in,
		out:     ndjson.NewWriter(out, o.MaxRecord),
		log:     &log{w: errs},
		clock:   clock{frozen: o.DryRun},
		queue:   queue.New[*call](o.Jobs),
		stop:    hook.NewStop(),
		ended:   make(chan ended),
		stream:  map[string]*hook.Process{},
		worst:   wire.Up,
	}
	r.fields.take = r.fields.member
	r.table = state.New(nil, 0, r.event)
	r.use(o.Config)
	r.loop()
	for _, p := range r.stream {
		r.closing.Go(p.Close)
	}
	r.closing.Wait()
	r.flush()
	return Summary{r.bad, r.worst}, r.failure
}

// use takes a configuration into use.
func (r *router) use(c *config.Config) {
	moved := make([]int, len(r.Config.Hooks))
	place := map[string]int{}
	for i := range c.Hooks {
		place[c.Hooks[i].Name] = i
	}
	for i := range r.Config.Hooks {
		moved[i] = -1
		if at, ok := place[r.Config.Hooks[i].Name]; ok {
			moved[i] = at
		}
	}
	rules := make([]state.Rule, len(c.Hooks))
	r.hooks = map[string]*config.Hook{}
	for i := range c.Hooks {
		h := &c.Hooks[i]
		rules[i] = h.Rule
		if h.When != nil {
			rules[i].When = func(line []byte) bool { return r.holds(h.When, line) }
		}
		r.hooks[h.Name] = h
		limit := h.Jobs
		if h.Command.Input == hook.Stream {
			limit = 1
		}
		r.queue.SetLimit(h.Name, limit)
	}
	r.useStreams()
	r.Config = c
	r.table.SetRules(rules, c.StaleAfter, moved)
}

// useStreams makes the processes of stream hooks fit the hooks. One whose
// command has changed ends when it has what it was sent.
func (r *router) useStreams() {
	for name, p := range r.stream {
		h := r.hooks[name]
		if h != nil && h.Command.Input == hook.Stream && reflect.DeepEqual(h.Command, *p.Command) {
			continue
		}
		delete(r.stream, name)
		r.closing.Go(p.Close)
	}
	for name, h := range r.hooks {
		if h.Command.Input == hook.Stream && r.stream[name] == nil {
			r.stream[name] = r.process(h)
		}
	}
}

func (r *router) process(h *config.Hook) *hook.Process {
	return &hook.Process{Command: &h.Command, Stop: r.stop, Log: func(output []byte, err error) {
		if !r.Quiet {
			r.log.output(h.Name, "", output)
		}
		if err != nil {
			r.log.printf("hook %s: the process ended: %v", h.Name, err)
		}
	}}
}

// holds evaluates when. What can't be told does not hold.
func (r *router) holds(when *expr.Expr, line []byte) bool {
	if r.varsOf != &line[0] {
		vars, err := expr.Vars(line)
		if err != nil {
			return false
		}
		r.vars, r.varsOf = vars, &line[0]
	}
	ok, err := when.Eval(r.vars)
	return err == nil && ok
}

// loop is the one goroutine that everything belongs to: state, queue, output.
func (r *router) loop() {
	in := newIntake(r.in, r.MaxLine)
	batches := in.batches
	timer := time.NewTimer(0)
	defer timer.Stop()
	var over <-chan time.Time // the end of the grace after a signal
	reading, stopping := true, false
	for reading || r.queue.Running() > 0 || !stopping && r.queue.Len() > 0 {
		r.clock.tick(r.Wall())
		timer.Reset(r.wait(reading, stopping))
		from := batches
		if !reading || r.queue.Size() > maxQueued {
			from = nil
			r.hold(reading)
		}
		select {
		case b := <-from:
			r.clock.tick(r.Wall())
			r.batch(b)
			if b.end != nil || r.failure != nil {
				reading = false
				r.finish(b.end)
			}
			in.back <- b
		case e := <-r.ended:
			r.done(e, stopping || !reading)
		case <-timer.C:
			if reading {
				r.clock.tick(r.Wall())
				r.advance(r.clock.now())
				r.submit()
			}
		case s := <-r.Signals:
			switch {
			case s == syscall.SIGHUP:
				r.reload()
			case s == syscall.SIGPIPE:
			case !stopping:
				reading, stopping = false, true
				over = time.After(r.Grace)
			default:
				r.stop.Kill()
			}
		case <-over:
			r.stop.Ask()
		}
		if r.failure != nil && !stopping {
			reading, stopping = false, true
			over = time.After(r.Grace)
		}
		if !stopping {
			r.start()
		}
	}
	r.leave()
}

// hold says once that reading is held back.
func (r *router) hold(reading bool) {
	if reading && !r.held {
		r.held = true
		r.log.printf("hooks are slower than the results: %d events wait for them; reading is held back until they have run", r.queue.Len())
	}
}

// wait is how long nothing is due.
func (r *router) wait(reading, stopping bool) time.Duration {
	d := time.Hour
	if next := r.table.Next(); reading && !next.IsZero() && !r.DryRun {
		d = min(d, r.clock.until(next))
	}
	if next := r.queue.Next(); !stopping && !next.IsZero() {
		d = min(d, next.Sub(r.Wall()))
	}
	return max(0, d)
}

// finish is called at the end of the input.
func (r *router) finish(err error) {
	if err != nil && err != io.EOF && r.failure == nil {
		r.failure = fmt.Errorf("read the input: %w", err)
	}
	r.queue.Hurry()
}

// batch takes lines through: each into the state, then all out, then the
// hooks that they call for into the queue. The journal's place is between the
// first and the second.
func (r *router) batch(b *batch) {
	for i := range b.lines {
		r.line(b, &b.lines[i])
	}
	r.flush()
	r.submit()
}

func (r *router) line(b *batch, l *lineAt) {
	if l.err != nil {
		r.unreadable(l.err)
		return
	}
	raw, text := b.raw(l), b.text(l)
	if err := r.fields.scan(text); err != nil {
		r.unreadable(&ndjson.LineError{No: l.no, Line: raw, Err: err})
		return
	}
	if r.DryRun {
		r.accept(l.no, raw, text)
		return
	}
	r.add(raw)
	r.accept(l.no, raw, text)
}

// accept takes a line that can be read into the state.
func (r *router) accept(no int, raw, text []byte) {
	if !r.fields.is(wire.TypeResult) {
		return
	}
	if err := r.fields.result(&r.result, text, r.table.HearsStale()); err != nil {
		r.unreadable(&ndjson.LineError{No: no, Line: raw, Err: err})
		return
	}
	if s := wire.Status(r.result.Status.String()); s.Worse(r.worst) {
		r.worst = s
	}
	now := r.clock.observe(r.fields.moment())
	r.advance(now)
	r.varsOf = nil
	r.table.Observe(&r.result, now)
}

// advance has the state emit what is due. A dry run sees each event at its
// own time; a live one does not make up for what it slept through.
func (r *router) advance(now time.Time) {
	for next := r.table.Next(); !next.IsZero() && !next.After(now); next = r.table.Next() {
		r.varsOf = nil
		if r.DryRun {
			r.table.Advance(next)
		} else {
			r.table.Advance(now)
		}
	}
}

// event is called by the state for each call of a hook.
func (r *router) event(e *state.Event) {
	h := &r.Config.Hooks[e.Rule]
	now := e.Since.Add(e.For)
	line := appendEvent(nil, h.Name, e, now)
	if r.DryRun {
		r.add(line)
		return
	}
	key := e.Name + "\x00" + e.Vantage
	if h.Command.Input == hook.Stream {
		key = ""
	}
	c := &call{hook: h, name: e.Name, id: e.Job, env: environ(h.Name, e), line: append(line, '\n')}
	r.pending = append(r.pending, &queue.Job[*call]{Hook: h.Name, Key: key, Size: len(line) + 512, Load: c})
}

// submit queues what the state has emitted.
func (r *router) submit() {
	for _, j := range r.pending {
		r.queue.Add(j)
	}
	clear(r.pending)
	r.pending = r.pending[:0]
}

// start starts what may run now.
func (r *router) start() {
	now := r.Wall()
	for j := r.queue.Take(now); j != nil; j = r.queue.Take(now) {
		c := j.Load
		if c.hook.Command.Input == hook.Stream {
			p := r.stream[c.hook.Name]
			if p == nil { // a reload took the hook away while this job waited
				p = r.process(c.hook)
				r.stream[c.hook.Name] = p
			}
			go func() { r.ended <- ended{j, p.Send([]string{"PUP_HOOK=" + c.hook.Name}, c.line)} }()
			continue
		}
		env := append(c.env, "PUP_ATTEMPT="+strconv.Itoa(j.Attempt))
		go func() { r.ended <- ended{j, c.hook.Command.Run(r.stop, env, c.line)} }()
	}
}

// done deals with a run that has ended.
func (r *router) done(e ended, last bool) {
	c := e.job.Load
	if !r.Quiet {
		r.log.output(c.hook.Name, c.name, e.outcome.Output)
	}
	if e.outcome.Err == nil {
		r.queue.Done(e.job)
		return
	}
	if e.outcome.Retry() && !last {
		if delay, ok := again(e.job.Attempt); ok {
			r.report(c, fmt.Errorf("attempt %d: %w; trying again in %v", e.job.Attempt, e.outcome.Err, delay))
			r.queue.Again(e.job, r.Wall().Add(delay))
			return
		}
	}
	r.report(c, e.outcome.Err)
	r.queue.Done(e.job)
}

// again is how long to wait after so many attempts, and whether to.
func again(attempts int) (time.Duration, bool) {
	if attempts > 8 {
		return 0, false
	}
	return min(time.Second<<attempts, 5*time.Minute), true
}

// report says that a hook failed: in the stream, and to people.
func (r *router) report(c *call, err error) {
	r.log.printf("hook %s for %s: %v", c.hook.Name, ndjson.Printable(ndjson.Cut(c.name, 100)), err)
	b := append(r.buf[:0], `{"v":1,"type":"`+wire.TypeError+`","program":"pup-route","error":`...)
	b = ndjson.AppendString(b, ndjson.Cut(err.Error(), 512))
	b = ndjson.AppendString(append(b, `,"name":`...), ndjson.Cut(c.name, 1024))
	b = append(append(b, `,"hook":"`...), c.hook.Name...)
	b = append(append(append(b, `","job":"`...), c.id...), `"}`...)
	r.buf = b
	r.add(b)
	r.flush()
}

// unreadable reports a line that can't be read.
func (r *router) unreadable(e *ndjson.LineError) {
	r.bad++
	r.buf = ndjson.AppendError(r.buf[:0], "pup-route", e)
	r.add(r.buf)
	if !r.Quiet {
		r.log.printf("%v", e)
	}
}

// add writes a line to standard output.
func (r *router) add(line []byte) {
	if r.mute {
		return
	}
	if r.View != nil {
		r.shown = r.View(r.shown[:0], line)
		line = r.shown
	}
	r.wrote(r.out.Add(line))
}

func (r *router) flush() {
	if !r.mute {
		r.wrote(r.out.Flush())
	}
}

// wrote looks at an error of the output. A reader that leaves is no reason to
// leave the hooks alone; a full disk is one to stop.
func (r *router) wrote(err error) {
	switch {
	case err == nil || r.mute:
	case errors.Is(err, syscall.EPIPE):
		r.mute = true
		r.log.printf("nobody reads the output any more; going on with the hooks")
	default:
		r.mute = true
		r.failure = fmt.Errorf("write the output: %w", err)
	}
}

// reload reads the configuration again and takes it as a whole or not at all.
func (r *router) reload() {
	c, err := r.Reload()
	if err != nil {
		r.log.printf("the configuration is not reloaded, the old one stays in use:\n%v", err)
		return
	}
	r.use(c)
}

// leave says which events were not dealt with.
func (r *router) leave() {
	n := r.queue.Len()
	if n == 0 {
		return
	}
	if n == 1 {
		r.log.printf("told to stop: 1 event has not reached its hook")
		return
	}
	r.log.printf("told to stop: %d events have not reached their hooks", n)
}
