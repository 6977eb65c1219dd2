package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Together has a hook hear of several names as of one: of those that are
// listed, or of all for which a path shows the same. It hears of a problem
// when at least so many of them have one, and of its end when fewer have.
//
// With Cause it hears of each name as usual, but of a common cause in their
// place when at least so many have failed within a time.
type Together struct {
	Names   []string
	Same    []string // paths, see ParsePath
	AtLeast Share
	Cause   bool
	Within  time.Duration
}

// The values of debt.wait other than the time until which a problem waits for
// others that may have the same cause.
const (
	alone = 0  // the hook is told of the name by itself
	part  = -1 // it is told of what the name is a part of
)

// A wholeKey tells apart what hooks hear of together.
type wholeKey struct {
	rule          int
	name, vantage string
}

// A whole is several names of which a hook hears as of one.
type whole struct {
	key     wholeKey
	e       *entry // what the hook was told of it; nil: nothing
	members int
	begun   int64            // its last problem
	parts   map[*entry]place // members with a problem that the hook would hear of
	counts  [places][statuses]int32
}

// A place is how a member with a problem stands to the whole.
type place struct {
	how  how
	told Status
}

type how uint8

// Whether a hook hears of a member by itself, or its problem waits, or is told
// with the whole.
const (
	byItself how = iota
	waits
	withWhole
	places
)

// put notes how a member stands; a nil debt is that of one without a problem.
func (w *whole) put(e *entry, d *debt) {
	if old, ok := w.parts[e]; ok {
		w.counts[old.how][old.told]--
		delete(w.parts, e)
	}
	if d == nil {
		return
	}
	p := place{byItself, d.told}
	switch {
	case d.wait == part:
		p.how = withWhole
	case d.wait > 0:
		p.how = waits
	}
	w.parts[e] = p
	w.counts[p.how][p.told]++
}

// put notes in all that the name is a part of for a rule how it stands there.
func (t *Table) put(rule int, e *entry) {
	for _, w := range e.wholes {
		if w.key.rule == rule {
			w.put(e, e.debt(rule))
		}
	}
}

// byHook begins the vantage of an entry that stands for several names; the
// hook follows, and the vantage that sees them.
const byHook = "\x00hook "

// A Whole is what an event says of several names together.
type Whole struct {
	Cause   bool
	Members []View // those with a problem; a Vantage is the name here
	Total   int    // of all members
}

// maxMembers bounds how many members are shown.
const maxMembers = 20

// total is of how many names at least some must have a problem.
func (w *whole) total(r *Rule) int { return max(w.members, len(r.Together.Names)) }

// failing lists the members with a problem that counts: for a cause those
// that it stands for.
func (w *whole) failing(t *Table) (entries []*entry) {
	cause := t.rules[w.key.rule].Together.Cause
	for e, p := range w.parts {
		if !cause || p.how == withWhole {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, byName)
	return entries
}

// waiting counts the members whose problem waits for others.
func (w *whole) waiting() (n int) {
	for _, count := range w.counts[waits] {
		n += int(count)
	}
	return n
}

// show is what an event says of the whole.
func (w *whole) show(t *Table) *Whole {
	r := &t.rules[w.key.rule]
	s := &Whole{Cause: r.Together.Cause, Total: w.total(r)}
	failing := w.failing(t)
	for _, e := range failing[:min(len(failing), maxMembers)] {
		s.Members = append(s.Members, View{e.name, shown(e.debt(w.key.rule).told)})
	}
	return s
}

// grave orders what members may be told as, the worst first.
var grave = [...]Status{Down, Degraded, Flapping, Stale, Unknown}

// status is the worst that at least so many members have.
func (w *whole) status(t *Table) (s Status, count int) {
	r := &t.rules[w.key.rule]
	n := r.Together.AtLeast.Of(w.total(r))
	for _, s := range grave {
		if !r.Becomes.Has(s) {
			continue // an earlier configuration told it
		}
		count += int(w.counts[withWhole][s])
		if !r.Together.Cause {
			count += int(w.counts[byItself][s])
		}
		if count >= n {
			return s, count
		}
	}
	return Up, count
}

// entryOf is where it is kept what the hook was told of the whole.
func (t *Table) entryOf(w *whole) *entry {
	if w.e == nil {
		w.e = t.entry([]byte(w.key.name), w.key.entry(t))
		w.e.whole, w.e.seenUp = w, true
	}
	return w.e
}

// entry is the vantage of the entry of a whole.
func (k *wholeKey) entry(t *Table) []byte {
	return []byte(byHook + t.rules[k.rule].Hook + "\x00" + k.vantage)
}

// learn takes in what the paths show for a name, and what it is a part of by
// that, once its result has been counted. Fresh says that it is the first of
// the name. Live is false where the rest is found out later, by Resume.
func (t *Table) learn(e *entry, fresh bool, now int64, live bool) {
	if !t.isPart(e) {
		return
	}
	if fresh && live {
		t.joinAll(e)
	}
	for i, value := range t.found {
		if value == "" || e.values != nil && e.values[i] == value {
			continue
		}
		left := slices.Clone(e.wholes)
		t.set(e, i, value)
		if !live {
			continue
		}
		t.quit(e)
		t.joinAll(e)
		for _, w := range left {
			t.weigh(w, nil, now)
		}
		for _, w := range e.wholes {
			t.weigh(w, nil, now)
		}
		if len(e.debts) > 0 {
			t.reconcile(e, now)
		}
	}
}

// isPart reports whether a rule may hear of the name together with others.
func (t *Table) isPart(e *entry) bool {
	if t.groups {
		for i := range t.rules {
			if r := &t.rules[i]; r.Together != nil && r.looksAt(e) {
				return true
			}
		}
	}
	return false
}

// joinAll makes a name a part of all that it belongs to.
func (t *Table) joinAll(e *entry) {
	if e.whole != nil || e.vantage == theInput {
		return
	}
	for i := range t.rules {
		r := &t.rules[i]
		if r.Together == nil || !r.looksAt(e) {
			continue
		}
		if slices.Contains(r.Together.Names, e.name) {
			t.join(e, wholeKey{i, r.Hook, e.seenBy()})
		}
		for _, p := range r.parts {
			if e.values != nil && e.values[p] != "" {
				t.join(e, wholeKey{i, t.paths[p].text + "=" + e.values[p], e.seenBy()})
			}
		}
	}
}

func (t *Table) join(e *entry, key wholeKey) {
	w := t.wholes[key]
	if w == nil {
		w = &whole{key: key, parts: map[*entry]place{}}
		t.wholes[key] = w
	}
	if !slices.Contains(e.wholes, w) {
		e.wholes = append(e.wholes, w)
		w.members++
	}
	w.put(e, e.debt(key.rule))
}

// quit takes a name out of all that it is a part of.
func (t *Table) quit(e *entry) {
	for _, w := range e.wholes {
		w.put(e, nil)
		w.members--
	}
	e.wholes = nil
}

// together reports that the hook is not told of a problem of the name by
// itself now, and notes why.
func (t *Table) together(d *debt, r *Rule, e *entry, now int64) bool {
	switch {
	case r.Together == nil || e.made() && !e.joined() || d.notified:
		return false
	case !r.Together.Cause:
		d.wait = part
		return true
	case d.wait != alone:
		return true
	}
	for _, w := range e.wholes {
		if w.key.rule != d.rule {
			continue
		}
		if w.e != nil && w.e.debt(d.rule) != nil {
			d.wait = part
			t.because(d.rule, e, now, "its cause is told: "+w.key.name)
			return true
		}
		if w.members >= r.Together.AtLeast.Of(w.members) {
			d.wait = now + int64(r.Together.Within)
		}
	}
	if d.wait != alone {
		t.because(d.rule, e, now, fmt.Sprintf("it waits %v for others that fail with it", r.Together.Within))
	}
	return d.wait != alone
}

// decide is called when a problem has waited for others: it is told by
// itself, or what it has in common with most of them.
func (t *Table) decide(d *debt, e *entry, run streak, now int64) {
	i, r := d.rule, &t.rules[d.rule]
	var best *whole
	most := 0
	for _, p := range r.parts {
		if e.values == nil || e.values[p] == "" {
			continue
		}
		w := t.wholes[wholeKey{i, t.paths[p].text + "=" + e.values[p], e.seenBy()}]
		if n := w.waiting(); n > most && n >= r.Together.AtLeast.Of(w.members) {
			best, most = w, n
		}
	}
	if best != nil {
		t.blame(best, e, now)
		return
	}
	if t.held(i, e, now) {
		return
	}
	d.wait = alone
	t.put(i, e)
	if r.Repeat > 0 {
		d.remind = now + int64(r.Repeat)
	}
	t.tell(d, r, e, &Event{Rule: i, Kind: d.told.String(), Status: shown(d.told), Count: int(run.count)}, now)
	t.noted(d, r, e, false)
}

// blame tells a hook of the common cause of all members that wait.
func (t *Table) blame(w *whole, last *entry, now int64) {
	i := w.key.rule
	r, e := &t.rules[i], t.entryOf(w)
	e.line = bytes.Clone(last.line)
	if t.held(i, e, now) {
		last.again = e.again
		return
	}
	for m, p := range maps.Clone(w.parts) {
		if p.how == waits {
			m.debt(i).wait = part
			t.put(i, m)
		}
	}
	for _, m := range w.failing(t) {
		t.noted(m.debt(i), r, m, false)
		t.because(i, m, now, "its cause is told: "+w.key.name)
	}
	status, count := w.status(t)
	e.ailing, e.trouble = true, w.begin(now)
	t.opening(i, nil, r, e, status, streak{since: now, count: int32(count)}, now)
	t.schedule(e, now)
}

// begin is when a problem of several names begins. No two of theirs do at the
// same time, since that is a part of their identity.
func (w *whole) begin(now int64) int64 {
	w.begun = max(now, w.begun+1)
	return w.begun
}

// weighAll is called when what a hook was told of a name has changed.
func (t *Table) weighAll(rule int, e *entry, now int64) {
	t.put(rule, e)
	for _, w := range e.wholes {
		if w.key.rule == rule {
			t.weigh(w, e.line, now)
		}
	}
}

// weigh compares what a hook was told of several names with what is. The line
// is that of the member that has changed, if one has.
func (t *Table) weigh(w *whole, line []byte, now int64) {
	i := w.key.rule
	r := &t.rules[i]
	if w.members == 0 {
		t.dissolve(w, now)
		return
	}
	status, count := w.status(t)
	if w.e == nil {
		if status == Up || r.Together.Cause {
			t.enough(w, count, now)
			return
		}
		t.entryOf(w).line = bytes.Clone(w.failing(t)[0].line)
	}
	if len(line) > 0 {
		w.e.line = bytes.Clone(line)
	}
	e, told := w.e, Up
	d := e.debt(i)
	if d != nil {
		told = d.told
	}
	run := streak{since: now, count: int32(count)}
	switch {
	case status == told:
	case status == Up:
		t.closing(d, r, e, run, now)
		e.drop(i)
		t.free(w, now)
	case d == nil && r.Together.Cause: // decide opens it
	case !t.held(i, e, now):
		if d == nil {
			e.ailing, e.trouble = true, w.begin(now)
		}
		t.opening(i, d, r, e, status, run, now)
	}
	if e.debt(i) == nil && e.again == 0 {
		t.unlink(e)
		w.e = nil
		t.over(e)
		return
	}
	t.schedule(e, now)
}

// enough says why a hook does not hear of members that have a problem.
func (t *Table) enough(w *whole, count int, now int64) {
	if r := &t.rules[w.key.rule]; t.Why != nil && count > 0 && !r.Together.Cause {
		total := w.total(r)
		t.Why(w.key.rule, w.key.name, w.key.vantage,
			fmt.Sprintf("%d of %d members have a problem, not %d", count, total, r.Together.AtLeast.Of(total)), time.Unix(0, now).UTC())
	}
}

// remindWhole reminds a hook of several names, if that is due.
func (t *Table) remindWhole(w *whole, now int64) {
	if w.e == nil {
		return
	}
	i := w.key.rule
	if d := w.e.debt(i); d != nil && d.remind != 0 && now >= d.remind && !t.held(i, w.e, now) {
		_, count := w.status(t)
		t.remind(d, &t.rules[i], w.e, streak{since: now, count: int32(count)}, now)
	}
}

// free is called when a common cause is over: members that still have a
// problem get a time to end it, as others have, before it is told.
func (t *Table) free(w *whole, now int64) {
	r := &t.rules[w.key.rule]
	if !r.Together.Cause {
		return
	}
	for _, e := range w.failing(t) {
		d := e.debt(w.key.rule)
		d.wait = now + int64(r.Together.Within)
		t.put(w.key.rule, e)
		t.noted(d, r, e, false)
		t.because(w.key.rule, e, now, w.key.name+" is over; it waits "+r.Together.Within.String()+" for its own end")
		t.schedule(e, now)
	}
}

// dissolve forgets a whole that has no members any more.
func (t *Table) dissolve(w *whole, now int64) {
	if w.begun < now { // else its next problem must begin later
		delete(t.wholes, w.key)
	}
	if w.e == nil {
		return
	}
	for len(w.e.debts) > 0 {
		t.retire(&w.e.debts[0], w.e, Removed, now)
	}
	gone := w.e
	t.unlink(gone)
	w.e = nil
	t.over(gone)
}
