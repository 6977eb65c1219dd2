package state

import (
	"container/heap"
	"maps"
	"slices"
	"time"
)

// Reasons why a hook hears of the end of a problem that has not ended.
const (
	Removed      = "removed"      // the target was taken away
	Forgotten    = "forgotten"    // nothing was heard of it for too long
	Reconfigured = "reconfigured" // the hook does not look at it any more
)

// buried is how long it is remembered that a name was removed: results of
// runs from before may still be under way.
const buried = int64(time.Hour)

// HearsDue reports whether it matters when the runs of results were due.
func (t *Table) HearsDue() bool { return len(t.gone) > 0 }

// left reports whether the result is one of a name that has been removed since
// it was due. A later one brings the name back.
func (t *Table) left(r *Result) bool {
	at, ok := t.gone[string(r.Name)]
	if !ok {
		return false
	}
	if !r.Due.IsZero() && r.Due.UnixNano() <= at {
		return true
	}
	delete(t.gone, string(r.Name))
	return false
}

// Remove takes in that a target was removed from the configuration of
// pup-sched, at a time on its clock. Who has heard of a problem of it hears
// that it is over.
func (t *Table) Remove(name []byte, at, now time.Time) {
	n := now.UnixNano()
	var views []*entry
	for e := t.names[string(name)]; e != nil; e = e.next {
		if e.whole == nil && e.vantage != theInput {
			views = append(views, e)
		}
	}
	slices.SortFunc(views, byName)
	for _, e := range views {
		t.leave(e, Removed, n)
	}
	if t.note != nil {
		t.note(&Note{Name: string(name), Gone: at.UnixNano()})
	}
	t.bury(name, at.UnixNano())
}

// bury forgets a name without a word, and remembers that.
func (t *Table) bury(name []byte, at int64) {
	if len(t.gone) >= t.sweep {
		maps.DeleteFunc(t.gone, func(_ string, then int64) bool { return then < at-buried })
		t.sweep = 2*len(t.gone) + 64
	}
	t.gone[string(name)] = at
	for e := t.names[string(name)]; e != nil; {
		next := e.next
		if e.whole == nil && e.vantage != theInput {
			t.unlink(e)
		}
		e = next
	}
}

// leave tells the hooks that were told of a problem of the name that it is
// over for them, takes the name out of what it is a part of, and forgets it.
func (t *Table) leave(e *entry, reason string, now int64) {
	for len(e.debts) > 0 {
		t.retire(&e.debts[0], e, reason, now)
	}
	wholes := slices.Clone(e.wholes)
	t.unlink(e)
	t.over(e)
	for _, w := range wholes {
		t.weigh(w, nil, now)
	}
}

// retire tells a hook that a problem is over for it although it has not
// ended.
func (t *Table) retire(d *debt, e *entry, reason string, now int64) {
	r := &t.rules[d.rule]
	if d.notified && (r.Recovered || r.wants(d.told, Up)) {
		t.tell(d, r, e, &Event{Rule: d.rule, Kind: KindRecovered, Status: Unknown, Previous: shown(d.told), Reason: reason}, now)
	}
	t.noted(d, r, e, true)
	rule := d.rule
	e.drop(rule)
	t.put(rule, e)
}

// unlink takes an entry out of the table.
func (t *Table) unlink(e *entry) {
	t.quit(e)
	if e.wake != 0 {
		heap.Remove(&t.wakes, int(e.place))
		e.wake = 0
	}
	t.views--
	first := t.names[e.name]
	if first == e {
		if e.next == nil {
			delete(t.names, e.name)
		} else {
			t.names[e.name] = e.next
		}
		return
	}
	for v := first; v != nil; v = v.next {
		if v.next == e {
			v.next = e.next
			return
		}
	}
}

// heard takes in that a result has come. After a long time without any, every
// name gets its time again until it is forgotten.
func (t *Table) heard(now int64) {
	if t.last != 0 && now-t.last > int64(t.ForgetAfter/2) {
		t.resumed = now
	}
	t.last = max(t.last, now)
}

// forgetAt is when the entry is forgotten if nothing is heard of it.
func (t *Table) forgetAt(e *entry) int64 {
	return max(e.seen+max(int64(t.ForgetAfter), 4*int64(e.limit)), t.resumed+int64(t.ForgetAfter))
}

// forgetting reports whether nothing was heard of the entry for too long.
// While no results come at all nobody is forgotten.
func (t *Table) forgetting(e *entry, now int64) bool {
	if t.ForgetAfter == 0 || e.seen == 0 || e.whole != nil || e.vantage == theInput {
		return false
	}
	at := t.forgetAt(e)
	return now >= at && t.last >= at
}

// forget forgets an entry that nothing was heard of for too long.
func (t *Table) forget(e *entry, now int64) {
	t.leave(e, Forgotten, now)
	if t.note != nil {
		t.note(&Note{Name: e.name, Vantage: e.vantage, Forgotten: true})
	}
}
