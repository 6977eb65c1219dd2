package sched

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// benchTargets is how many targets the benchmarks schedule.
const benchTargets = 1_000_000

// benchFor is how long a benchmark watches one rate.
const benchFor = 5 * time.Second

func benchTarget(i int, plan *Plan) Target {
	return Target{Head: fmt.Appendf(nil, `%shost-%d.example.org","url":"http://10.%d.%d.%d:80/health","timeout":"5s","every":"100s","labels":{"team":"web"}`, Prefix, i, i>>16&255, i>>8&255, i&255), Plan: plan}
}

// BenchmarkSchedule runs in real time, with a reader that does nothing: CPU
// per line and lag of a million targets, beside the smallest program with a
// timer heap, in the same run.
func BenchmarkSchedule(b *testing.B) {
	for _, rate := range []int{10_000, 100_000} {
		every := benchTargets / time.Duration(rate) * time.Second
		b.Run(fmt.Sprintf("rate=%d/pup", rate), func(b *testing.B) {
			plan := &Plan{Every: every}
			ts := make([]Target, benchTargets)
			for i := range ts {
				ts[i] = benchTarget(i, plan)
			}
			measure(b, func(ctx context.Context, w io.Writer) {
				s := New(ts, Options{Slack: 50 * time.Millisecond, MaxRecord: ndjson.MaxWrite, Out: w, Log: b.Logf})
				if err := s.Run(ctx); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("rate=%d/timer-heap", rate), func(b *testing.B) {
			items := make(timers, benchTargets)
			for i := range items {
				t := benchTarget(i, nil)
				items[i] = &timer{line: append(t.Head, '}'), every: every, due: time.Now().Add(time.Duration(Splay(t.Name(), every)) * time.Millisecond)}
			}
			measure(b, items.run)
		})
	}
}

// timers is what one would write first: a heap of pointers, a line and a
// write for each.
type timers []*timer

type timer struct {
	due   time.Time
	every time.Duration
	line  []byte
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(*timer)) }
func (t *timers) Pop() any          { old := *t; x := old[len(old)-1]; *t = old[:len(old)-1]; return x }

func (t timers) run(ctx context.Context, w io.Writer) {
	heap.Init(&t)
	for ctx.Err() == nil {
		top := t[0]
		time.Sleep(time.Until(top.due))
		line := append(ndjson.Splice(nil, top.line, "due", wire.AppendTime(nil, top.due)), '\n')
		if _, err := w.Write(line); err != nil {
			return
		}
		top.due = top.due.Add(top.every)
		heap.Fix(&t, 0)
	}
}

// A probe counts lines on their way to a pipe, and measures the lag of the
// first of each write.
type probe struct {
	w     io.Writer
	lines int
	lags  []float64
	begun time.Duration // CPU time at the first write, when all is set up
}

var dueKey = []byte(`"due":"`)

func (p *probe) Write(b []byte) (int, error) {
	if p.begun == 0 {
		p.begun = cpu()
	}
	if i := bytes.Index(b, dueKey); i >= 0 {
		i += len(dueKey)
		due, err := time.Parse(wire.TimeFormat, string(b[i:i+len(wire.TimeFormat)]))
		if err == nil {
			p.lags = append(p.lags, wire.MS(time.Since(due)))
		}
	}
	p.lines += bytes.Count(b, []byte{'\n'})
	return p.w.Write(b)
}

func measure(b *testing.B, run func(context.Context, io.Writer)) {
	cat := exec.Command("cat")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	cat.Stdout = null
	stdin, err := cat.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		stdin.Close()
		cat.Wait()
	}()
	b.ReportAllocs()
	for b.Loop() {
		p := &probe{w: stdin}
		ctx, cancel := context.WithTimeout(context.Background(), benchFor)
		run(ctx, p)
		used := cpu() - p.begun
		cancel()
		slices.Sort(p.lags)
		b.ReportMetric(float64(used.Microseconds())/float64(p.lines), "µs-cpu/line")
		b.ReportMetric(float64(p.lines)/benchFor.Seconds(), "lines/s")
		b.ReportMetric(p.lags[len(p.lags)*99/100], "ms-lag-p99")
	}
}

// cpu is the user and system time of this process.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkLine(b *testing.B) {
	t := benchTarget(7, &Plan{Every: time.Minute})
	var l liner
	due := int64(1795327200_000)
	b.ReportAllocs()
	for b.Loop() {
		due++
		l.line(&t, run{due: due, expires: due + 60_000, seq: uint64(due)})
	}
}
