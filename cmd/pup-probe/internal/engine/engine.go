// Package engine is the filter of pup-probe: it reads lines, runs so many
// checks at once, and writes a line for each.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// An Engine filters a stream of lines. Its fields are set before Run.
type Engine struct {
	Runner  *probe.Runner
	In      io.Reader
	Ready   bool // reading In never has to wait
	Out     io.Writer
	Jobs    int           // checks at once; 0: no limit
	PerHost int           // checks at once of one host; 0: no limit
	Rate    float64       // starts a second; 0: no limit
	Ordered bool          // results in the order of their targets
	Grace   time.Duration // for what is in flight when the context ends
	MaxLine int           // bytes of an input line
	Dry     bool          // check the targets, but send nothing
	View    func(dst, line []byte) []byte
	Warn    func(string) // told of lines that can't be read

	lines chan output
	work  chan job
	count int           // workers that were started
	users atomic.Int64  // workers that have not ended, and the one who starts them
	idle  chan struct{} // closed when there are none
	order uint64
	slots chan struct{} // with Ordered: results that are not written yet
	hosts hostLimits
	next  time.Time // when Rate allows the next start
	tuned sync.Once // collectRarely
	gc    int       // the garbage collector's setting before; 0 if it is left alone

	inFlight, done, bad atomic.Int64
	lagMax              atomic.Int64
	worst               wire.Status
}

// output is a line to be written, with its place in the order of the input.
type output struct {
	line  []byte
	job   *probe.Job // that it is the result of; may be nil
	order uint64
	slot  bool // holds a slot of Ordered
}

type job struct {
	*probe.Job
	order uint64
}

// A Summary tells what was seen.
type Summary struct {
	Worst wire.Status // the worst status; "" without any result
	Bad   int         // lines that could not be read
}

// Run filters until the input or ctx ends. When ctx ends nothing new is
// started, and what is in flight gets Grace to finish. An error means that
// input or output failed.
func (e *Engine) Run(ctx context.Context) (Summary, error) {
	e.lines, e.work, e.idle = make(chan output, 64), make(chan job), make(chan struct{})
	e.users.Store(1)
	if e.Ordered {
		e.slots = make(chan struct{}, max(4*e.Jobs, 1024))
	}
	e.hosts.max = e.PerHost
	makePoller()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	written := make(chan error, 1)
	failed := make(chan struct{})
	go func() {
		err := e.write()
		if err != nil {
			close(failed)
			for range e.lines { // let the checks finish
			}
		}
		written <- err
	}()
	defer e.collectAsBefore()
	stopTrim := e.trim()
	defer stopTrim()
	inputErr := e.read(ctx, run, failed)
	close(e.work)
	e.leave()
	e.finish(ctx, cancel, failed)
	close(e.lines)
	if err := <-written; err != nil {
		return e.summary(), fmt.Errorf("write: %w", err)
	}
	return e.summary(), inputErr
}

// makePoller has the runtime make what it waits for descriptors with. It would
// when the first of them has to be waited for, and crash if none is left then.
func makePoller() { time.AfterFunc(time.Hour, func() {}).Stop() }

// A crowd is so many checks that wait that what they needed to get there is
// worth giving back: the stacks on which they dialled, the garbage of their
// handshakes.
const crowd = 1000

// crowded says whether there may be a crowd.
func (e *Engine) crowded() bool { return e.Jobs == 0 || e.Jobs >= crowd }

// rarely is how far the heap grows, in per cent of what is in use, before
// garbage is collected, as long as there is no crowd: what a few hundred
// checks hold is small, and to collect it often costs more than they do.
const rarely = 200

// collectRarely sets that, unless the environment has an opinion. It stops all
// goroutines for a moment, which a single check does without.
func (e *Engine) collectRarely() {
	if !e.crowded() && os.Getenv("GOGC") == "" {
		e.gc = debug.SetGCPercent(rarely)
	}
}

func (e *Engine) collectAsBefore() {
	if e.gc != 0 {
		debug.SetGCPercent(e.gc)
	}
}

// trim gives memory back to the system, once, when a crowd has come to rest.
func (e *Engine) trim() (stop func()) {
	if !e.crowded() {
		return func() {}
	}
	end := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var before, trimmed int64
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			seen := e.inFlight.Load() + e.done.Load()
			if seen == before && seen != trimmed && e.inFlight.Load() >= crowd {
				debug.FreeOSMemory()
				trimmed = seen
			}
			before = seen
		}
	}()
	return sync.OnceFunc(func() { close(end) })
}

func (e *Engine) summary() Summary { return Summary{e.worst, int(e.bad.Load())} }

// finish waits for the checks in flight: to the end if the input ended, for
// Grace if we were told to stop, not at all if nobody reads their results.
func (e *Engine) finish(ctx context.Context, cancel func(), failed <-chan struct{}) {
	select {
	case <-e.idle:
		return
	case <-ctx.Done():
	case <-failed:
		cancel()
	}
	select {
	case <-e.idle:
		return
	case <-time.After(e.Grace):
		cancel()
	case <-failed:
		cancel()
	}
	<-e.idle
}

// leave tells that a worker has ended, or that no more are started.
func (e *Engine) leave() {
	if e.users.Add(-1) == 0 {
		close(e.idle)
	}
}

// maxBatch bounds the lines of a batch.
const maxBatch = 64

// A batch is what the reading goroutine hands over: lines that came in one
// read, and the error behind them.
type batch struct {
	lines []ndjson.Line
	err   error
}

// input reads lines in a goroutine of its own, since a read that waits can't be
// told to stop.
type input struct {
	batches chan batch
	taken   chan struct{} // the batch has been dealt with, its bytes may go
	done    chan struct{} // nobody takes batches any more
	waiting atomic.Bool   // no whole line is left in the buffer
}

func (in *input) run(r *ndjson.Reader) {
	var b batch
	for {
		in.waiting.Store(!r.Buffered())
		b.lines, b.err = r.AppendLines(b.lines[:0], maxBatch)
		in.waiting.Store(false)
		select {
		case in.batches <- b:
		case <-in.done:
			return
		}
		select {
		case <-in.taken:
		case <-in.done:
			return
		}
		if _, bad := errors.AsType[*ndjson.LineError](b.err); b.err != nil && !bad {
			return
		}
	}
}

// read starts a job for each target until the input ends, ctx ends, or the
// output fails. Lines that were taken from the input before ctx ended still
// get their result, which says that they were canceled.
func (e *Engine) read(ctx, run context.Context, failed <-chan struct{}) error {
	if e.Ready {
		r := ndjson.NewReader(e.In, e.MaxLine)
		for {
			var b batch
			b.lines, b.err = r.AppendLines(nil, maxBatch)
			if end, err := e.batch(ctx, run, b, failed); end {
				return err
			}
		}
	}
	in := &input{batches: make(chan batch), taken: make(chan struct{}), done: make(chan struct{})}
	defer close(in.done)
	go in.run(ndjson.NewReader(e.In, e.MaxLine))
	for {
		select {
		case <-failed:
			return nil
		case b := <-in.batches:
			if end, err := e.batch(ctx, run, b, failed); end {
				return err
			}
			in.taken <- struct{}{}
			continue
		case <-ctx.Done():
		}
		select {
		case b := <-in.batches:
			if end, err := e.batch(ctx, run, b, failed); end {
				return err
			}
			in.taken <- struct{}{}
		case <-time.After(time.Millisecond):
			if in.waiting.Load() {
				return nil
			}
		}
	}
}

func (e *Engine) batch(ctx, run context.Context, b batch, failed <-chan struct{}) (end bool, err error) {
	for _, l := range b.lines {
		select {
		case <-failed:
			return true, nil
		default:
			e.line(ctx, run, l)
		}
	}
	le, bad := errors.AsType[*ndjson.LineError](b.err)
	switch {
	case bad:
		e.badLine(le)
	case b.err == io.EOF:
		return true, nil
	case b.err != nil:
		return true, fmt.Errorf("read: %w", b.err)
	}
	return false, nil
}

func (e *Engine) emit(line []byte) {
	e.order++
	e.lines <- output{line: line, order: e.order}
}

func (e *Engine) badLine(le *ndjson.LineError) {
	e.bad.Add(1)
	if e.Warn != nil {
		e.Warn(le.Error())
	}
	e.emit(ndjson.AppendError(nil, "pup-probe", le))
}

var errNoTarget = errors.New("neither a JSON object nor a URL, in which a blank is written %20")

// line deals with one line of input.
func (e *Engine) line(ctx, run context.Context, l ndjson.Line) {
	text := l.Text
	if text[0] != '{' {
		if !bytes.Contains(text, []byte("://")) || bytes.IndexByte(text, ' ') >= 0 {
			e.badLine(&ndjson.LineError{No: l.No, Line: l.Raw, Err: errNoTarget})
			return
		}
		text = append(ndjson.AppendString([]byte(`{"url":`), text), '}')
	}
	j, err := e.Runner.Parse(text)
	if err == probe.ErrOtherType {
		e.otherLine(l, text)
		return
	}
	if err != nil {
		e.badLine(&ndjson.LineError{No: l.No, Line: l.Raw, Err: err})
		return
	}
	if e.Dry {
		j.Dry(text)
		e.order++
		e.lines <- output{line: j.Line, job: j, order: e.order}
		return
	}
	e.start(ctx, run, j)
}

// otherLine deals with a line that is no target: it is passed on as it is, a
// beat with our counters unless another pup-probe has already been at it.
func (e *Engine) otherLine(l ndjson.Line, text []byte) {
	beat, annotated := false, false
	err := ndjson.Members(text, func(k, v []byte) error {
		switch string(k) {
		case "probe":
			annotated = true
		case "type":
			kind, err := ndjson.Unquote(v)
			beat = kind == wire.TypeBeat
			return err
		}
		return nil
	})
	switch {
	case err != nil:
		e.badLine(&ndjson.LineError{No: l.No, Line: l.Raw, Err: err})
	case beat && !annotated:
		e.emit(ndjson.Splice(nil, text, "probe", e.beat()))
	default:
		e.emit(bytes.Clone(l.Raw))
	}
}

func (e *Engine) beat() []byte {
	b := fmt.Appendf(nil, `{"in_flight":%d,"done":%d,"bad":%d,"lag_max_ms":`, e.inFlight.Load(), e.done.Load(), e.bad.Load())
	b = wire.AppendMS(b, time.Duration(e.lagMax.Swap(0)))
	if v := e.Runner.Vantage; v != "" {
		b = append(b, `,"vantage":`...)
		b = ndjson.AppendString(b, v)
	}
	return append(b, '}')
}

// start hands the job to a worker that is idle, or to a new one while there
// may be more; else it waits for one. Workers live on, since their grown
// stacks are worth keeping.
func (e *Engine) start(ctx, run context.Context, pj *probe.Job) {
	e.order++
	j := job{pj, e.order}
	if e.order > 1 {
		e.tuned.Do(e.collectRarely)
	}
	if e.slots != nil {
		e.slots <- struct{}{}
	}
	if !e.pace(ctx) {
		j.Cancel()
		e.report(j)
		return
	}
	e.inFlight.Add(1)
	select {
	case e.work <- j:
		return
	default:
	}
	if e.Jobs == 0 || e.count < e.Jobs {
		e.count++
		e.users.Add(1)
		go e.worker(run, j)
		return
	}
	select {
	case e.work <- j:
	case <-ctx.Done():
		e.inFlight.Add(-1)
		j.Cancel()
		e.report(j)
	}
}

func (e *Engine) pace(ctx context.Context) bool {
	if e.Rate <= 0 {
		return ctx.Err() == nil
	}
	now := time.Now()
	if e.next.Before(now) {
		e.next = now
	}
	wait := e.next.Sub(now)
	e.next = e.next.Add(time.Duration(float64(time.Second) / e.Rate))
	if wait == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *Engine) worker(run context.Context, j job) {
	defer e.leave()
	for ok := true; ok; j, ok = <-e.work {
		release := e.hosts.take(j.Host)
		j.Run(run)
		release()
		e.inFlight.Add(-1)
		for lag := int64(j.Lag); ; {
			old := e.lagMax.Load()
			if lag <= old || e.lagMax.CompareAndSwap(old, lag) {
				break
			}
		}
		e.report(j)
	}
}

func (e *Engine) report(j job) {
	e.done.Add(1)
	e.lines <- output{j.Line, j.Job, j.order, e.slots != nil}
}

// write writes the lines as they come, or in order, and never holds one back
// while it waits.
func (e *Engine) write() error {
	w := ndjson.NewWriter(e.Out, e.Runner.MaxRecord)
	var late map[uint64]output
	next := uint64(1)
	if e.Ordered {
		late = map[uint64]output{}
	}
	var view []byte
	put := func(o output) error {
		if o.slot {
			<-e.slots
		}
		line := o.line
		if e.View != nil {
			view = e.View(view[:0], line)
			line = view
		}
		err := w.Add(line)
		if o.job != nil {
			e.see(o.job.Status)
			o.job.Release()
		}
		return err
	}
	for o := range e.lines {
		if late == nil {
			if err := put(o); err != nil {
				return err
			}
		} else {
			late[o.order] = o
			for o, ok := late[next]; ok; o, ok = late[next] {
				delete(late, next)
				next++
				if err := put(o); err != nil {
					return err
				}
			}
		}
		if len(e.lines) == 0 {
			runtime.Gosched() // checks that can end now may fill the same write
		}
		if len(e.lines) == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// see keeps the worst status; a target that only was looked at has none.
func (e *Engine) see(s wire.Status) {
	if s != "" && (e.worst == "" || s.Worse(e.worst)) {
		e.worst = s
	}
}

// hostLimits bounds the checks of one host that run at once.
type hostLimits struct {
	max int
	mu  sync.Mutex
	sem map[string]*hostSem
}

type hostSem struct {
	c     chan struct{}
	users int
}

func (h *hostLimits) take(host string) (release func()) {
	if h.max <= 0 || host == "" {
		return func() {}
	}
	h.mu.Lock()
	if h.sem == nil {
		h.sem = map[string]*hostSem{}
	}
	s := h.sem[host]
	if s == nil {
		s = &hostSem{c: make(chan struct{}, h.max)}
		h.sem[host] = s
	}
	s.users++
	h.mu.Unlock()
	s.c <- struct{}{}
	return func() {
		<-s.c
		h.mu.Lock()
		if s.users--; s.users == 0 {
			delete(h.sem, host)
		}
		h.mu.Unlock()
	}
}
