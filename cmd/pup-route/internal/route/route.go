// Package route is the loop of pup-route: lines in, the same lines out, and
// beside them the hooks that they call for.
package route

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"
	"syscall"
	"time"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/gap"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/queue"
	"pup/cmd/pup-route/internal/spool"
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
	Notify    string                        // the socket of systemd; "": none
	Quiet     bool                          // do not copy to stderr what hooks print
	Signals   <-chan os.Signal
	Wall      func() time.Time
}

// A router is one run of the program. Its one goroutine has everything:
// state, queue, journal, output.
type router struct {
	Options
	out     *ndjson.Writer
	log     *log
	table   *state.Table
	clock   clock
	queue   *queue.Queue[*call]
	spool   *spool.Spool // nil: all is kept in memory
	hooks   map[string]*config.Hook
	stop    *hook.Stop
	ended   chan ended
	stream  map[string]*hook.Process
	closing sync.WaitGroup // of stream processes

	fields  fields
	result  state.Result
	pending []*queue.Job[*call] // what the state called for and is not accepted yet
	taken   *batch              // in the state, not accepted yet
	buf     []byte              // a line of ours
	shown   []byte              // a line for people
	vars    map[string]any      // of the line at hand, once an expression needs them
	varsOf  *byte

	bad     int // lines that could not be read
	worst   wire.Status
	mute    bool  // nobody reads our output any more
	failure error // output or spool can't be written
	held    bool  // reading is held back, and that has been said
	hurry   bool  // the input has ended: what waits is not waited for
	full    bool  // the disk is, and that has been said
	asked   time.Time

	ready   bool      // the first line has come
	beatDue time.Time // when the input is lost, unless a beat comes; zero: there are no beats

	diagnosis
	gaps     *gap.Tracker
	missing  []gap.Gap // not told yet
	silences silences
	said     map[string]string // why hooks were not called, in a dry run
}

// Summary is what a run came to.
type Summary struct {
	Bad   int         // lines that could not be read
	Worst wire.Status // of the results
}

// Run routes lines until the end of the input or a signal.
func Run(in io.Reader, out, errs io.Writer, o Options) (Summary, error) {
	r := &router{
		Options: o,
		out:     ndjson.NewWriter(out, o.MaxRecord),
		log:     &log{w: errs},
		clock:   clock{frozen: o.DryRun},
		queue:   queue.New[*call](o.Jobs),
		stop:    hook.NewStop(),
		ended:   make(chan ended),
		stream:  map[string]*hook.Process{},
		worst:   wire.Up,

		diagnosis: newDiagnosis(),
		gaps:      gap.New(o.Config.GapAfter),
	}
	r.fields.take, r.fields.day, r.fields.rhythm, r.fields.limit = r.fields.member, &day{}, &span{}, &span{}
	r.table = state.New(r.event, r.noted)
	r.table.Gate = r.gate
	r.table.Follower = (*follower)(r)
	if o.DryRun {
		r.said = map[string]string{}
		r.table.Why = r.why
	}
	r.clock.tick(o.Wall())
	r.use(o.Config)
	src, err := r.open(in)
	if err != nil {
		return Summary{}, err
	}
	r.table.Resume(r.clock.now())
	r.loop(newIntake(src, o.MaxLine))
	for _, p := range r.stream {
		r.closing.Go(p.Close)
	}
	r.closing.Wait()
	r.notify("STOPPING=1")
	r.flush()
	r.close()
	return Summary{r.bad, r.worst}, r.failure
}

// use takes a configuration into use.
func (r *router) use(c *config.Config) {
	place := map[string]int{}
	for i := range c.Hooks {
		place[c.Hooks[i].Name] = i
	}
	moved := make([]int, len(r.Config.Hooks))
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
	for i := range c.Hooks {
		if h := &c.Hooks[i]; h.Lacks != nil {
			r.log.printf("hook %s: %v; it runs without", h.Name, h.Lacks)
		}
	}
	for i := range c.Diagnoses {
		if d := &c.Diagnoses[i]; d.Lacks != nil {
			r.log.printf("diagnose %s: %v; it runs without", d.Name, d.Lacks)
		}
	}
	r.Config = c
	r.table.ForgetAfter = c.ForgetAfter
	r.table.SetRules(rules, c.StaleAfter, moved)
	r.gaps.SetPatience(c.GapAfter)
	r.silences.looked = time.Time{}
	r.look()
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
	if len(line) == 0 {
		return false
	}
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

// A phase is how far a run has come.
type phase int

const (
	reading  phase = iota
	draining       // the input has ended: its hooks run
	stopping       // we were told to stop: what runs may end
)

// loop runs until nothing is left to do.
func (r *router) loop(in *intake) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var over <-chan time.Time // the end of the grace after a signal
	now := reading
	halt := func() {
		now = stopping
		over = time.After(r.Grace)
	}
	r.start()
	for now == reading || r.queue.Running() > 0 || r.examining() || now == draining && (r.queue.Ready() || r.taken != nil || r.holding()) {
		r.clock.tick(r.Wall())
		timer.Reset(r.wait(now))
		from := in.batches
		if now != reading || r.taken != nil || r.tooMany() {
			from = nil
		}
		select {
		case b := <-from:
			r.clock.tick(r.Wall())
			r.take(b)
		case e := <-r.ended:
			r.done(e, now)
		case e := <-r.examined:
			r.found(e)
		case <-timer.C:
			r.clock.tick(r.Wall())
			r.tick(now)
		case s := <-r.Signals:
			switch {
			case s == syscall.SIGHUP:
				r.reload()
			case s == syscall.SIGPIPE:
			case now != stopping:
				halt()
			default:
				r.stop.Kill()
				r.abandon(true)
			}
		case <-over:
			r.stop.Ask()
		}
		if b := r.settle(); b != nil {
			if b.end != nil && now == reading {
				now = draining
				r.finish(b.end)
				r.settle()
			}
			in.back <- b
		}
		if r.failure != nil && now != stopping {
			halt()
		}
		if now == stopping || now == draining && !r.holding() {
			r.abandon(false)
		}
		if now != stopping {
			r.examine()
			if r.hurry { // what failed and is kept stays for the next run
				r.queue.Hurry(r.spool == nil)
			}
			r.start()
		}
	}
	r.leave()
}

// tooMany reports whether so many events wait for their hooks that nothing
// more may be read, and says so once.
func (r *router) tooMany() bool {
	if r.queue.Size() <= maxQueued {
		return false
	}
	if !r.held {
		r.held = true
		r.log.printf("hooks are slower than the results: %d events wait for them; reading is held back until they have run", r.queue.Len())
	}
	return true
}

// wait is how long nothing is due.
func (r *router) wait(now phase) time.Duration {
	d := time.Hour
	if next := r.next(); now == reading && !next.IsZero() && !r.DryRun {
		d = min(d, r.clock.until(next))
	}
	if next := r.queue.Next(); now != stopping && !next.IsZero() {
		d = min(d, next.Sub(r.Wall()))
	}
	if r.spool != nil {
		d = min(d, r.spoolWait())
	}
	if r.Config.Silences != "" {
		d = min(d, silencesEvery)
	}
	if now != stopping && r.holding() {
		d = min(d, r.awaiting[0].until.Sub(r.Wall()))
	}
	return max(0, d)
}

// tick does what is due.
func (r *router) tick(now phase) {
	r.look()
	r.overdue()
	if now == reading && !r.DryRun {
		r.advance(r.clock.now())
	}
	if r.spool != nil {
		r.requests()
		if err := r.spool.Sync(); err != nil {
			r.fail("sync the spool", err)
		}
	}
}

// finish is called at the end of the input.
func (r *router) finish(err error) {
	if err != io.EOF {
		r.fail("read the input", err)
	}
	r.varsOf = nil
	r.table.Conclude(r.clock.now())
	r.missing = append(r.missing, r.gaps.Due(r.clock.now(), true)...)
	if !r.DryRun {
		r.inputLost("the input has ended", r.clock.now())
	}
	r.hurry = true
}

func (r *router) fail(what string, err error) {
	if r.failure == nil {
		r.failure = fmt.Errorf("%s: %w", what, err)
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
		r.fail("write the output", err)
	}
}

// reload reads the configuration again and takes it as a whole or not at all.
func (r *router) reload() {
	c, err := r.Reload()
	if err == nil && c.Spool != r.Config.Spool {
		err = errors.New("the spool can't be changed while pup-route runs; start it again")
	}
	if err != nil {
		r.log.printf("the configuration is not reloaded, the old one stays in use:\n%v", err)
		return
	}
	r.use(c)
	r.varsOf = nil
	r.table.Resume(r.clock.now())
}

// leave says which events were not dealt with.
func (r *router) leave() {
	n := r.queue.Len()
	switch {
	case n == 0 || r.spool != nil:
	case n == 1:
		r.log.printf("told to stop: 1 event has not reached its hook")
	default:
		r.log.printf("told to stop: %d events have not reached their hooks", n)
	}
}
