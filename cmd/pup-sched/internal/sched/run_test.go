package sched

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pup/cmd/internal/ndjson"
)

// A line is what the tests look at in a line that was written.
type line struct {
	Type, Name, Run, Every string
	Due, Expires, Time     time.Time
	Seq, Emitted, Skipped  int
	Targets                int
	BlockedMS              int64 `json:"blocked_ms"`
	LagMaxMS               int64 `json:"lag_max_ms"`

	written time.Time
}

// A reader takes lines, and can stall.
type reader struct {
	t     *testing.T
	lines []line
	mu    sync.Mutex // of log
	log   []string
	stall func(n int) time.Duration // before it takes write n
	saw   func(line)
	n     int
	err   error
}

func (r *reader) Write(p []byte) (int, error) {
	if r.stall != nil {
		time.Sleep(r.stall(r.n))
	}
	r.n++
	if r.err != nil {
		return 0, r.err
	}
	if len(p) > ndjson.MaxWrite || p[len(p)-1] != '\n' {
		r.t.Errorf("a write of %d bytes that ends in %q, want whole lines, %d bytes at most", len(p), p[len(p)-1], ndjson.MaxWrite)
	}
	for text := range bytes.Lines(p) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			r.t.Errorf("%s: %v", text, err)
		}
		l.written = time.Now()
		r.lines = append(r.lines, l)
		if r.saw != nil && l.Type == "target" {
			r.saw(l)
		}
	}
	return len(p), nil
}

func (r *reader) targets() (ls []line) {
	for _, l := range r.lines {
		if l.Type == "target" {
			ls = append(ls, l)
		}
	}
	return ls
}

func (r *reader) options() Options {
	return Options{
		Slack: 50 * time.Millisecond, MaxRecord: ndjson.MaxWrite, Out: r,
		Log: func(format string, args ...any) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.log = append(r.log, fmt.Sprintf(format, args...))
		},
	}
}

// targets makes n targets of that interval.
func targets(n int, plan *Plan) []Target {
	ts := make([]Target, n)
	for i := range ts {
		ts[i] = Target{Head: fmt.Appendf(nil, `%st%d","url":"tcp://a:1"`, Prefix, i), Plan: plan}
	}
	return ts
}

func TestGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		plan := &Plan{Every: time.Minute}
		if err := New(targets(100, plan), r.options()).Run(ctx); err != nil {
			t.Fatal(err)
		}
		last := map[string]line{}
		for i, l := range r.targets() {
			if l.Seq != i+1 {
				t.Fatalf("line %d has seq %d", i+1, l.Seq)
			}
			if lag := l.written.Sub(l.Due); lag < 0 || lag > 50*time.Millisecond {
				t.Errorf("%s was written %v after it was due, want it within the slack", l.Run, lag)
			}
			if p, ok := last[l.Name]; ok && (l.Due.Sub(p.Due) != time.Minute || !p.Expires.Equal(l.Due)) {
				t.Errorf("%s: due %v, expires %v, and next due %v", l.Name, p.Due, p.Expires, l.Due)
			}
			if want := fmt.Sprintf("%s@%d.%03d", l.Name, l.Due.Unix(), l.Due.Nanosecond()/1e6); l.Run != want && l.Due.Nanosecond() != 0 {
				t.Errorf("run %s, want %s", l.Run, want)
			}
			last[l.Name] = l
		}
		if n := len(r.targets()); n != 100*60 {
			t.Errorf("%d lines in an hour, want %d", n, 100*60)
		}
		if len(r.log) > 0 {
			t.Errorf("it said %q, want silence", r.log)
		}
	})
}

func TestWholeSecondsHaveNoFraction(t *testing.T) {
	if got := string(appendRun(nil, []byte("a"), 1795327200_000)); got != "a@1795327200" {
		t.Errorf("got %s", got)
	}
	if got := string(appendRun(nil, []byte("a"), 1795327200_050)); got != "a@1795327200.050" {
		t.Errorf("got %s", got)
	}
}

// Due times are those of earlier versions, so that an upgrade moves nothing.
func TestSplayIsForEver(t *testing.T) {
	for name, want := range map[string]int64{"www": 4524, "cache": 48970, "": 14342} {
		if got := Splay([]byte(name), time.Minute); got != want {
			t.Errorf("splay of %q is %d, want %d", name, got, want)
		}
	}
}

func TestSplayIsEven(t *testing.T) {
	var slots [60]int
	for _, target := range targets(60_000, nil) {
		slots[Splay(target.Name(), time.Minute)/1000]++
	}
	for i, n := range slots {
		if n < 850 || n > 1150 {
			t.Errorf("second %d has %d of 60000 targets, want about 1000", i, n)
		}
	}
}

func TestRestartGivesTheSameRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]int{}
		for range 2 {
			start := time.Now()
			for time.Since(start) < 10*time.Minute {
				r := &reader{t: t}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(100))*time.Second)
				if err := New(targets(20, &Plan{Every: 30 * time.Second}), r.options()).Run(ctx); err != nil {
					t.Fatal(err)
				}
				cancel()
				for _, l := range r.targets() {
					runs[l.Run]++
				}
			}
		}
		for run, n := range runs {
			if n != 1 {
				t.Errorf("%s came %d times", run, n)
			}
		}
		if len(runs) < 20*2*19 {
			t.Errorf("%d runs in 20 minutes of restarts, want nearly %d", len(runs), 20*2*20)
		}
	})
}

func TestStalledReaderMeetsNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := &reader{t: t, stall: func(n int) time.Duration {
			if n == 50 {
				return 5 * time.Minute
			}
			return 0
		}}
		o := r.options()
		o.Beat = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		const n, every = 600, time.Minute // 10 a second
		if err := New(targets(n, &Plan{Every: every}), o).Run(ctx); err != nil {
			t.Fatal(err)
		}
		perSecond := map[int64]int{}
		for _, l := range r.targets() {
			perSecond[int64(l.written.Sub(start)/time.Second)]++
			if lag := l.written.Sub(l.Due); lag > 5*time.Minute+time.Second {
				t.Errorf("%s was written %v late", l.Run, lag)
			}
		}
		for s, k := range perSecond {
			if k > 50 { // 10 of this second, 10 of the one before, and what was in the buffer
				t.Errorf("%d lines in second %d, want no burst", k, s)
			}
		}
		last := r.lines[len(r.lines)-1]
		if last.Type != "beat" || last.BlockedMS != 300_000 {
			t.Errorf("the last line is %+v, want a beat with 300000 ms blocked", last)
		}
		if last.Emitted != len(r.targets()) || last.Emitted+last.Skipped != n*60 {
			t.Errorf("%d emitted, %d skipped; there are %d lines and were %d runs", last.Emitted, last.Skipped, len(r.targets()), n*60)
		}
		if last.Skipped < 2900 || last.Skipped > 3000 {
			t.Errorf("%d skipped in 5 minutes, want nearly 3000", last.Skipped)
		}
		if len(r.log) != 2 || !strings.HasPrefix(r.log[0], "the reader has kept us waiting for 10s") || !strings.Contains(r.log[1], "runs were skipped: the reader kept us waiting for 5m0s") {
			t.Errorf("it said %q", r.log)
		}
	})
}

func TestSlowReaderIsReportedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t, stall: func(int) time.Duration { return 3 * time.Second }}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := New(targets(100, &Plan{Every: time.Second}), r.options()).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(r.log); n < 9 || n > 12 {
			t.Errorf("%d reports in 10 minutes, want one a minute: %q", n, r.log)
		}
	})
}

// steppedClock is a wall clock that can be set.
type steppedClock struct{ by atomic.Int64 }

func (c *steppedClock) now() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.by.Load()))
}

func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour, 400 * time.Millisecond, -400 * time.Millisecond} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c steppedClock
				r := &reader{t: t}
				o := r.options()
				o.Now, o.Beat = c.now, time.Minute
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				time.AfterFunc(30*time.Minute+time.Millisecond, func() { c.by.Store(int64(step)) })
				start := time.Now()
				if err := New(targets(60, &Plan{Every: time.Minute}), o).Run(ctx); err != nil {
					t.Fatal(err)
				}
				perMinute := map[int]int{}
				for _, l := range r.targets() {
					perMinute[int(l.written.Sub(start)/time.Minute)]++
					if !l.Expires.After(l.Due) {
						t.Errorf("%s expires %v after it is due", l.Run, l.Expires.Sub(l.Due))
					}
				}
				for m := range 60 {
					if k := perMinute[m]; m != 30 && (k < 55 || k > 65) || k > 75 {
						t.Errorf("%d lines in minute %d, want about 60: no gap and no burst", k, m)
					}
				}
				big := step >= time.Second || step <= -time.Second
				if want := map[bool]int{true: 1}[big]; len(r.log) != want {
					t.Errorf("it said %q, want %d reports", r.log, want)
				}
				last := r.lines[len(r.lines)-1]
				if step > time.Second && (last.Skipped < 3500 || last.Skipped > 3610) {
					t.Errorf("%d runs skipped in an hour that did not happen, want nearly 3600", last.Skipped)
				}
			})
		})
	}
}

func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		plan := &Plan{Every: 30 * time.Second}
		s := New(targets(50, plan), r.options())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rand.IntN(7000)) * time.Millisecond)
				s.Replace(ctx, targets(50+rand.IntN(2)*50, plan))
			}
		})
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		runs := map[string]int{}
		for _, l := range r.targets() {
			if runs[l.Run]++; runs[l.Run] > 1 {
				t.Errorf("%s came twice", l.Run)
			}
		}
		kept := 0
		for run := range runs {
			if strings.IndexByte(run, '@') <= len("t49") && (run[2] == '@' || run[1] < '5') {
				kept++
			}
		}
		if kept != 50*120 {
			t.Errorf("%d runs of the targets that stayed, want %d", kept, 50*120)
		}
	})
}

func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		o := r.options()
		o.Beat = 30 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		if err := New(targets(7, &Plan{Every: time.Minute}), o).Run(ctx); err != nil {
			t.Fatal(err)
		}
		var beats []line
		for _, l := range r.lines {
			if l.Type == "beat" {
				beats = append(beats, l)
			}
		}
		if len(beats) != 22 {
			t.Fatalf("%d beats in 10 minutes, want 20 and one at either end", len(beats))
		}
		if b := beats[21]; b.Targets != 7 || b.Emitted != 70 || b.Skipped != 0 || b.BlockedMS != 0 {
			t.Errorf("the last beat is %+v", b)
		}
	})
}

func TestRemovedTargetsAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		plan := &Plan{Every: time.Hour}
		s := New(targets(5, plan), r.options())
		go func() {
			time.Sleep(time.Minute)
			s.Replace(ctx, targets(3, plan))
			time.Sleep(time.Minute)
			s.Replace(ctx, targets(5, plan))
		}()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range r.lines {
			if l.Type == "removed" {
				got = append(got, l.Name)
			}
		}
		if want := []string{"t3", "t4"}; !slices.Equal(got, want) {
			t.Errorf("removed %q, want %q", got, want)
		}
	})
}

func TestWriteError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t, err: errors.New("disk full")}
		if err := New(targets(7, &Plan{Every: time.Minute}), r.options()).Run(t.Context()); err != r.err {
			t.Errorf("got %v, want %v", err, r.err)
		}
	})
}

func TestSlackIsAtMostHalfTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		o := r.options()
		o.Slack = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := New(targets(1, &Plan{Every: time.Second}), o).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(r.targets()); n < 9 {
			t.Errorf("%d lines in 10 seconds, want 9 or 10", n)
		}
	})
}

// TestSlackSavesWakeUps shows what the slack is for.
func TestSlackSavesWakeUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := New(targets(2000, &Plan{Every: 10 * time.Second}), r.options()).Run(ctx); err != nil {
			t.Fatal(err)
		}
		times := map[time.Time]bool{}
		for _, l := range r.targets() {
			times[l.written] = true
		}
		if len(times) > 201 {
			t.Errorf("%d wake-ups for 2000 lines in 10 s, want 200", len(times))
		}
	})
}

func TestNoTargetsNeedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := New(nil, r.options()).Run(ctx); err != nil || len(r.lines) > 0 {
			t.Errorf("got %v and %d lines", err, len(r.lines))
		}
	})
}

func TestOnce(t *testing.T) {
	r := &reader{t: t}
	if err := Once(ndjson.NewWriter(r, ndjson.MaxWrite), targets(100, &Plan{Every: time.Hour}), time.UnixMilli(1795327200123)); err != nil {
		t.Fatal(err)
	}
	if len(r.lines) != 100 || r.lines[99].Run != "t99@1795327200.123" || !r.lines[99].Expires.IsZero() {
		t.Errorf("%d lines, the last %+v", len(r.lines), r.lines[99])
	}
}

// TestSpan calls as cron would, late by up to a window, and wants every run
// that there was.
func TestSpan(t *testing.T) {
	for _, window := range []time.Duration{time.Minute, 90 * time.Second, 7 * time.Second} {
		ts := append(targets(50, &Plan{Every: 7 * time.Minute}), targets(100, &Plan{Every: 100 * time.Second})[50:]...)
		runs := map[string]int{}
		start := time.UnixMilli(1795327200_000 / window.Milliseconds() * window.Milliseconds())
		const calls = 200
		for i := range calls {
			r := &reader{t: t}
			late := time.Duration(rand.Int64N(int64(window)))
			if err := Span(ndjson.NewWriter(r, ndjson.MaxWrite), ts, start.Add(time.Duration(i)*window).Add(late), window); err != nil {
				t.Fatal(err)
			}
			for _, l := range r.lines {
				runs[l.Run]++
				if called := start.Add(time.Duration(i)*window + late); l.Expires.Before(called) {
					t.Errorf("%s expires at %v, before the call at %v", l.Run, l.Expires, called)
				}
			}
		}
		want := 0
		for i := range ts {
			from := start.Add(-window).UnixMilli()
			for due := ts[i].Due(from - 1); due < from+calls*window.Milliseconds(); due = ts[i].Due(due) {
				want++
				if run := string(appendRun(nil, ts[i].Name(), due)); runs[run] != 1 {
					t.Errorf("%s came %d times", run, runs[run])
				}
			}
		}
		if len(runs) != want {
			t.Errorf("%d runs, want %d", len(runs), want)
		}
	}
}

func TestSpanOfShortIntervals(t *testing.T) {
	r := &reader{t: t}
	if err := Span(ndjson.NewWriter(r, ndjson.MaxWrite), targets(5, &Plan{Every: 10 * time.Second}), time.Unix(1795327230, 0), time.Minute); err != nil {
		t.Fatal(err)
	}
	if len(r.lines) != 5 {
		t.Fatalf("%d lines, want each target once", len(r.lines))
	}
	for _, l := range r.lines {
		if end := time.Unix(1795327200, 0); !l.Due.Before(end) || l.Due.Before(end.Add(-10*time.Second)) {
			t.Errorf("%s is not the last run before %v", l.Run, end)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(int64(1795327200000), int64(60000), "www")
	f.Add(int64(-5), int64(100), "")
	f.Fuzz(func(t *testing.T, after, every int64, name string) {
		if every < 100 || every > 366*24*3600*1000 || after > 1e15 || after < -1e15 {
			return
		}
		p := &Plan{Every: time.Duration(every) * time.Millisecond}
		splay := Splay([]byte(name), p.Every)
		due := p.Next(after, splay)
		if due <= after || due > after+every {
			t.Errorf("due %d after %d, want it within %d", due, after, every)
		}
		if d := due - splay; d%every != 0 {
			t.Errorf("due %d is not on the grid", due)
		}
	})
}

func TestQueue(t *testing.T) {
	var q queue
	for i := range 1000 {
		q = append(q, entry{rand.Int64N(500), uint32(i)})
	}
	q.order()
	for last := int64(-1); len(q) > 0; {
		if q[0].due < last {
			t.Fatalf("%d came after %d", q[0].due, last)
		}
		last = q[0].due
		if rand.IntN(2) == 0 && last < 100_000 {
			q[0].due += rand.Int64N(200_000)
			q.down(0)
		} else {
			q.pop()
		}
	}
}

func TestPassCountsLikeNext(t *testing.T) {
	p := &Plan{Every: 700 * time.Millisecond}
	for range 1000 {
		target := targets(1, p)[0]
		due := target.Due(rand.Int64N(1e12))
		now := due + rand.Int64N(100_000)
		passed, next := target.pass(p, due, now)
		n := uint64(0)
		for d := due; d <= now; d = target.Due(d) {
			n++
		}
		if want := target.Due(now); passed != n || next != want {
			t.Errorf("pass(%d, %d) = %d, %d; want %d, %d", due, now, passed, next, n, want)
		}
	}
}
