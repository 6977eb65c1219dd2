package sched

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// An erraticReader takes lines and stalls at random, for a moment or for
// hours. It keeps what must add up, and not the lines.
type erraticReader struct {
	t      *testing.T
	random *rand.Rand
	sum    struct{ emitted, skipped, burst int }
	last   line // the last beat
	due    map[string]time.Time
	second int64 // in which the last line was written
	lines  int   // in that second
	heap   []uint64
}

func (r *erraticReader) Write(p []byte) (int, error) {
	switch n := r.random.IntN(10_000); {
	case n == 0:
		time.Sleep(time.Duration(r.random.Int64N(int64(3 * time.Hour))))
	case n < 20:
		time.Sleep(time.Duration(r.random.Int64N(int64(2 * time.Minute))))
	case n < 1000:
		time.Sleep(time.Duration(r.random.Int64N(int64(2 * time.Second))))
	}
	for text := range bytes.Lines(p) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			r.t.Errorf("%s: %v", text, err)
		}
		if l.Type == "beat" {
			r.last = l
			continue
		}
		r.sum.emitted++
		if last := r.due[l.Name]; !l.Due.After(last) {
			r.t.Errorf("%s: due %v after one that was due %v", l.Name, l.Due, last)
		}
		r.due[l.Name] = l.Due
		if s := time.Now().Unix(); s != r.second {
			r.second, r.lines = s, 0
		}
		r.lines++
		r.sum.burst = max(r.sum.burst, r.lines)
	}
	return len(p), nil
}

// TestSoakWithAStallingReader runs for a simulated week with a reader that
// stalls some thousand times. Every run is either written or counted, none
// twice, there is never a burst, and memory is what it was on the first day.
func TestSoakWithAStallingReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &erraticReader{t: t, random: rand.New(rand.NewPCG(1, 2)), due: map[string]time.Time{}}
		o := (&reader{t: t}).options()
		o.Out, o.Beat = r, time.Minute
		o.Log = func(string, ...any) {}
		const days, n, every = 7, 60, time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), days*24*time.Hour)
		defer cancel()
		for day := range days {
			time.AfterFunc(time.Duration(day)*24*time.Hour+time.Hour, func() {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				r.heap = append(r.heap, m.HeapAlloc)
			})
		}
		if err := New(targets(n, &Plan{Every: every}), o).Run(ctx); err != nil {
			t.Fatal(err)
		}
		due := int(days * 24 * time.Hour / every * n)
		if got := r.last.Emitted + r.last.Skipped; got < due-n || got > due {
			t.Errorf("%d written and %d skipped of %d", r.last.Emitted, r.last.Skipped, due)
		}
		if r.last.Emitted != r.sum.emitted {
			t.Errorf("the last beat speaks of %d lines, and %d came", r.last.Emitted, r.sum.emitted)
		}
		if r.last.Skipped == 0 || r.last.BlockedMS == 0 {
			t.Errorf("%+v: the reader never held it up, so nothing was tried", r.last)
		}
		if r.sum.burst > n/4 {
			t.Errorf("%d lines in a second, of %d in a minute", r.sum.burst, n)
		}
		if first, last := r.heap[0], r.heap[len(r.heap)-1]; last > first+first/4+256<<10 {
			t.Errorf("%d bytes of heap on the first day and %d on the last: %d", first, last, r.heap)
		}
		t.Logf("%d written, %d skipped, %d ms blocked, %d lines in one second at most, heap by day %d", r.last.Emitted, r.last.Skipped, r.last.BlockedMS, r.sum.burst, r.heap)
	})
}
