package sched

import (
	"time"

	"pup/cmd/internal/ndjson"
)

// Once writes a line for every target, due now. Nothing follows that could
// supersede them, so they do not expire.
func Once(out *ndjson.Writer, targets []Target, now time.Time) error {
	var l liner
	due := now.UnixMilli()
	for i := range targets {
		t := &targets[i]
		r := run{due: due, seq: uint64(i + 1), maintenance: t.Plan.maintenance(due)}
		if err := out.Add(l.line(t, r)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// Span writes the targets that were due in the last complete window of that
// length, each once, with its last due time in it. Windows are aligned to the
// epoch: whoever calls once in every window, at whatever moment of it, misses
// none and repeats none.
func Span(out *ndjson.Writer, targets []Target, now time.Time, window time.Duration) error {
	length := window.Milliseconds()
	end := floorDiv(now.UnixMilli(), length) * length
	var l liner
	seq := uint64(0)
	for i := range targets {
		t := &targets[i]
		due, next := t.last(end-length, end)
		if due == Never {
			continue
		}
		seq++
		r := newRun(t.Plan, due, next, seq)
		if r.expires > 0 {
			r.expires += length // when the call for the next run comes
		}
		if err := out.Add(l.line(t, r)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// last gives the last due time from start up to, but without, end, and the
// one that follows it. It is Never when there is none.
func (t *Target) last(start, end int64) (due, next int64) {
	due, next = Never, t.Due(start-1)
	for next < end {
		due = next
		next = t.Due(next)
	}
	return due, next
}
