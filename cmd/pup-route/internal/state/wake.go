package state

import (
	"container/heap"
	"slices"
	"strings"
	"time"
)

// wakes is a heap of the entries that have to be looked at when no result
// comes: a reminder, a problem that is confirmed by time, a stale name. An
// entry is woken early rather than moved at every result; it then goes back
// to where it belongs.
type wakes []*entry

func (w wakes) Len() int { return len(w) }
func (w wakes) Less(i, j int) bool {
	if w[i].wake != w[j].wake {
		return w[i].wake < w[j].wake
	}
	if c := strings.Compare(w[i].name, w[j].name); c != 0 {
		return c < 0 // replays give one order
	}
	return w[i].vantage < w[j].vantage
}
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = int32(i), int32(j)
}
func (w *wakes) Push(x any) {
	e := x.(*entry)
	e.place = int32(len(*w))
	*w = append(*w, e)
}
func (w *wakes) Pop() any {
	old := *w
	e := old[len(old)-1]
	*w = old[:len(old)-1]
	return e
}

// schedule puts the entry into the heap for its next deadline, if it has one
// and is not there for an earlier time already.
func (t *Table) schedule(e *entry, now int64) {
	next := t.deadline(e, now)
	switch {
	case next == 0:
	case e.wake == 0:
		e.wake = next
		heap.Push(&t.wakes, e)
	case next < e.wake:
		e.wake = next
		heap.Fix(&t.wakes, int(e.place))
	}
}

// deadline is the earliest time after now at which something is due for the
// entry if no result comes; 0 if nothing is.
func (t *Table) deadline(e *entry, now int64) int64 {
	var next int64
	at := func(ns int64) {
		if ns > now && (next == 0 || ns < next) {
			next = ns
		}
	}
	if t.hearStale && e.limit > 0 && !e.stale {
		at(e.seen + int64(e.limit))
	}
	if t.ForgetAfter > 0 && e.seen != 0 && e.vantage != theInput && e.whole == nil {
		if forget := t.forgetAt(e); forget > now {
			at(forget)
		} else {
			at(now + int64(t.ForgetAfter/8)) // it waits for results to come again
		}
	}
	if e.quiet() && e.whole == nil {
		return next
	}
	at(e.again)
	for i := range t.rules {
		r := &t.rules[i]
		d, told := e.debt(i), Up
		if d != nil {
			told = d.told
			at(d.remind)
			at(d.wait)
		}
		if !r.looksAt(e) {
			continue
		}
		status, run := e.current(r)
		if status == told || !r.tracked.Has(status) {
			continue
		}
		after := r.After.For
		if status == Up {
			after = r.RecoverAfter.For
		}
		at(run.since + int64(after))
	}
	return next
}

// Next is the time at which Advance should be called if no result comes
// before; the zero time if nothing is due.
func (t *Table) Next() time.Time {
	if len(t.wakes) == 0 {
		return time.Time{}
	}
	return time.Unix(0, t.wakes[0].wake).UTC()
}

// Advance moves the table to the time now and emits what is due. What was
// due several times meanwhile, as reminders are after a machine slept, is
// emitted once; a replay gets each at its own time by advancing to Next.
func (t *Table) Advance(now time.Time) {
	until := now.UnixNano()
	var due []*entry
	for len(t.wakes) > 0 && t.wakes[0].wake <= until {
		e := heap.Pop(&t.wakes).(*entry)
		e.wake = 0
		due = append(due, e)
	}
	// What stands for several names comes after them, whoever was woken first:
	// a restart changes nothing.
	slices.SortFunc(due, func(a, b *entry) int {
		if (a.whole == nil) != (b.whole == nil) {
			if a.whole == nil {
				return -1
			}
			return 1
		}
		return byName(a, b)
	})
	for _, e := range due {
		if t.hearStale && e.limit > 0 && until >= e.seen+int64(e.limit) {
			e.stale = true
		}
		switch {
		case t.forgetting(e, until):
			t.forget(e, until)
			continue
		case e.whole != nil && e.whole.e == e:
			e.again = 0
			t.weigh(e.whole, nil, until)
			t.remindWhole(e.whole, until)
		case !e.quiet():
			t.judge(e, until)
			t.over(e)
		}
		t.schedule(e, until)
	}
}
