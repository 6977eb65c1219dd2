package sched

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
)

// Options say how a Scheduler works.
type Options struct {
	Slack     time.Duration // due times that close together leave together
	Beat      time.Duration // between two beats; 0: none
	MaxRecord int           // bytes of a write
	Out       io.Writer
	Log       func(format string, args ...any) // for people; called by two goroutines
	Now       func() time.Time                 // the wall clock; time.Now if nil
}

// maxLate is how late a run may leave beyond the slack. What comes later is
// skipped, so that a reader who has stalled meets no more than a second's
// worth of runs when it goes on.
const maxLate = 1000

// maxSleep bounds how long a suspended machine or a step of the clock goes
// unnoticed.
const maxSleep = 10 * time.Second

// maxStep is how far the wall clock may move away from the elapsed time
// between two looks before that counts as a step, in milliseconds.
const maxStep = 1000

// reportEvery is how often skipped runs are reported to people, at most.
const reportEvery = time.Minute

// A Scheduler writes the line of every target whenever it is due. All its
// work is done in Run; Replace may be called from elsewhere.
type Scheduler struct {
	opt     Options
	targets []Target
	queue   queue
	slack   int64
	horizon int64 // all due times up to here have been dealt with
	replace chan []Target
	signals chan Signal

	index map[string]uint32 // by name, once a signal has come
	moods map[string]mood
	moved map[uint32]int64 // targets whose due time is not what the plan says

	out     *ndjson.Writer
	meter   *meter
	liner   liner
	series  string // of the numbers of this run
	started time.Time
	drift   int64 // wall clock minus elapsed time

	emitted, skipped uint64
	lagMax           int64
	nextBeat         int64
	unreported       uint64
	reported         time.Time
	stepped          string
}

// New makes a Scheduler for the targets.
func New(targets []Target, opt Options) *Scheduler {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	s := &Scheduler{series: newSeries(), opt: opt, replace: make(chan []Target), signals: make(chan Signal, backlog), moods: map[string]mood{}, nextBeat: Never}
	s.meter = newMeter(opt.Out, s.clock, s.warnBlocked)
	s.out = ndjson.NewWriter(s.meter, opt.MaxRecord)
	s.targets = targets
	return s
}

func (s *Scheduler) clock() int64 { return s.opt.Now().UnixMilli() }

// Replace puts other targets in the place of those of now. One that has kept
// its name and plan keeps its place on the grid.
func (s *Scheduler) Replace(ctx context.Context, targets []Target) {
	select {
	case s.replace <- targets:
	case <-ctx.Done():
	}
}

// Run writes lines until ctx is done. It ends with a beat. An error is one of
// writing.
func (s *Scheduler) Run(ctx context.Context) error {
	s.started = time.Now()
	now := s.clock()
	s.drift, s.meter.now, s.horizon = now, now, now
	s.fill()
	if s.opt.Beat > 0 {
		s.nextBeat = now
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if s.opt.Beat > 0 {
				s.beat(s.clock())
			}
			s.report(true)
			return s.out.Flush()
		case targets := <-s.replace:
			s.remove(targets)
			s.targets = targets
			s.fill()
			if err := s.out.Flush(); err != nil {
				return err
			}
		case sig := <-s.signals:
			s.heed(sig)
		case <-timer.C:
			if err := s.turn(); err != nil {
				return err
			}
		}
		timer.Reset(s.sleep())
	}
}

// remove writes a line for every target that is not among those of now any
// more, so that pup-route expects nothing of it and closes what it has open.
func (s *Scheduler) remove(targets []Target) {
	kept := make(map[string]bool, len(targets))
	for i := range targets {
		kept[string(targets[i].Name())] = true
	}
	for i := range s.targets {
		if name := s.targets[i].Name(); !kept[string(name)] {
			b := append([]byte(`{"v":1,"type":"removed","name":"`), name...)
			b = new(stamp).append(append(b, `","time":"`...), s.clock())
			s.out.Add(append(b, `"}`...)) // Flush reports the error
		}
	}
}

// fill puts every target into the queue at its first due time after the
// horizon.
func (s *Scheduler) fill() {
	s.queue = newQueue(len(s.targets))
	s.index, s.moved = nil, map[uint32]int64{}
	s.slack = s.opt.Slack.Milliseconds()
	for i := range s.targets {
		t := &s.targets[i]
		if every := t.Plan.Every.Milliseconds(); every > 0 {
			s.slack = min(s.slack, every/2)
		}
		if due := t.dueBy(s.planOf(uint32(i)), s.horizon); due != Never {
			s.queue = append(s.queue, entry{due, uint32(i)})
		}
	}
	s.queue.order()
}

// sleep is the time until the next turn: when the first target is due, later
// by up to the slack, so that others can join.
func (s *Scheduler) sleep() time.Duration {
	wake := s.nextBeat
	if len(s.queue) > 0 {
		due := s.queue[0].due
		if s.slack > 0 {
			due += (s.slack - due%s.slack) % s.slack
		}
		wake = min(wake, due)
	}
	now := s.opt.Now()
	if wake == Never || wake-now.UnixMilli() > maxSleep.Milliseconds() {
		return maxSleep
	}
	return max(0, time.UnixMilli(wake).Sub(now.Round(0)))
}

// turn deals with everything that is due now.
func (s *Scheduler) turn() error {
	now := s.clock()
	s.meter.now = now
	s.checkClock(now)
	before := s.skipped
	for len(s.queue) > 0 && s.queue[0].due <= now {
		if err := s.pop(); err != nil {
			return err
		}
	}
	s.horizon = now
	if s.nextBeat <= now {
		s.beat(now)
	}
	err := s.out.Flush()
	s.unreported += s.skipped - before
	s.report(false)
	return err
}

// pop writes or skips the run that is due first, and queues the next one.
func (s *Scheduler) pop() error {
	e := s.queue[0]
	if at, ok := s.moved[e.i]; ok && at != e.due {
		s.queue.pop() // there is another entry
		return nil
	}
	t := &s.targets[e.i]
	plan, due := s.planOf(e.i), e.due
	late := s.meter.now - due
	if late > s.patience(plan) {
		passed, next := t.pass(plan, due, s.meter.now)
		s.skipped += passed
		s.requeue(next)
		return nil
	}
	next := s.next(t, plan, e)
	s.lagMax = max(s.lagMax, late)
	s.emitted++
	s.requeue(next)
	r := newRun(t.Plan, due, next, s.emitted)
	r.series = s.series
	return s.out.Add(s.liner.line(t, r))
}

// newSeries makes a name for the numbers of one run of the program, so that
// who counts lines can tell a restart from a loss.
func newSeries() string {
	var b [6]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}

// next gives the due time that follows that of an entry.
func (s *Scheduler) next(t *Target, plan *Plan, e entry) int64 {
	if _, off := s.moved[e.i]; off || plan != t.Plan {
		return t.dueBy(plan, e.due) // back to the grid
	}
	return t.next(e.due)
}

// patience is how late a run of that plan may leave, in milliseconds.
func (s *Scheduler) patience(p *Plan) int64 {
	late := maxLate + s.slack
	if every := p.Every.Milliseconds(); every > 0 {
		late = min(late, max(every-1, s.slack))
	}
	return late
}

func (s *Scheduler) requeue(next int64) {
	i := s.queue[0].i
	if next == Never {
		s.queue.pop()
		delete(s.moved, i)
		return
	}
	if _, ok := s.moved[i]; ok {
		s.moved[i] = next
	}
	s.queue[0].due = next
	s.queue.down(0)
}

// checkClock notices when the wall clock has been set, or the machine has
// slept.
func (s *Scheduler) checkClock(now int64) {
	drift := now - time.Since(s.started).Milliseconds()
	step := drift - s.drift
	s.drift = drift
	if step >= -maxStep && step <= maxStep {
		return
	}
	by := time.Duration(step) * time.Millisecond
	if step > 0 {
		s.stepped = fmt.Sprintf("the clock went forward by %s (or the machine slept)", by)
		return
	}
	s.stepped = fmt.Sprintf("the clock went back by %s", -by)
	s.horizon = now
	if s.nextBeat != Never {
		s.nextBeat = now
	}
	s.fill()
}

// beat writes a sign of life with the counters.
func (s *Scheduler) beat(now int64) {
	every := s.opt.Beat.Milliseconds()
	s.nextBeat = now - now%every + every
	b := []byte(`{"v":1,"type":"beat","time":"`)
	b = new(stamp).append(b, now)
	b = append(append(b, `","series":"`...), s.series...)
	b = append(b, `","every_ms":`...)
	b = strconv.AppendInt(b, every, 10)
	for _, c := range []struct {
		key string
		n   uint64
	}{
		{"targets", uint64(len(s.targets))}, {"emitted", s.emitted}, {"skipped", s.skipped},
		{"blocked_ms", uint64(s.meter.blocked.Milliseconds())}, {"lag_max_ms", uint64(max(0, s.lagMax))},
	} {
		b = append(b, `,"`+c.key+`":`...)
		b = strconv.AppendUint(b, c.n, 10)
	}
	s.lagMax = 0
	s.out.Add(append(b, '}')) // Flush reports the error
}

// report tells people about skipped runs, once a minute at most, and about a
// step of the clock.
func (s *Scheduler) report(final bool) {
	if s.stepped != "" {
		s.opt.Log("%s; %d runs were passed over", s.stepped, s.unreported)
		s.stepped, s.unreported = "", 0
		return
	}
	if s.unreported == 0 || !final && !s.reported.IsZero() && time.Since(s.reported) < reportEvery {
		return
	}
	if s.meter.last > 0 {
		s.opt.Log("%d runs were skipped: the reader kept us waiting for %s", s.unreported, s.meter.last.Round(time.Millisecond))
	} else {
		s.opt.Log("%d runs were skipped: this process did not get to run in time", s.unreported)
	}
	s.reported = time.Now()
	s.unreported, s.meter.last = 0, 0
}

func (s *Scheduler) warnBlocked(d time.Duration) {
	s.opt.Log("the reader has kept us waiting for %s; runs that pass meanwhile are skipped", d.Round(time.Second))
}

// pass counts the runs from due up to now, which are not to be written, and
// gives the first one after them.
func (t *Target) pass(p *Plan, due, now int64) (passed uint64, next int64) {
	if p.plain() {
		return uint64((now-due)/p.Every.Milliseconds() + 1), t.dueBy(p, now)
	}
	const most = 10_000 // of a longer time only the end matters
	for next = due; next <= now; next = t.dueBy(p, next) {
		if passed++; passed == most {
			return passed, t.dueBy(p, now)
		}
	}
	return passed, next
}

func (p *Plan) maintenance(ms int64) string {
	for _, w := range p.Maintenance {
		if w.open(ms) {
			return w.Name
		}
	}
	return ""
}
