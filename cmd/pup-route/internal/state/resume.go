package state

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Resume finds out what belongs together, after rules have changed or what
// was journaled has been taken in. Who was told of a problem by rules that do
// not hold any more hears that it is over.
func (t *Table) Resume(now time.Time) {
	n := now.UnixNano()
	t.regroup()
	var owing []*entry
	for e := range t.all() {
		if len(e.debts) > 0 || e.made() {
			owing = append(owing, e)
		}
	}
	slices.SortFunc(owing, byName)
	for _, e := range owing {
		t.disown(e, n)
	}
	for _, e := range owing {
		t.reconcile(e, n)
	}
	for _, w := range slices.SortedFunc(maps.Values(t.wholes), compareWholes) {
		t.weigh(w, nil, n)
	}
}

func compareWholes(a, b *whole) int {
	return cmp.Or(cmp.Compare(a.key.rule, b.key.rule), strings.Compare(a.key.name, b.key.name), strings.Compare(a.key.vantage, b.key.vantage))
}

// regroup makes all wholes again.
func (t *Table) regroup() {
	clear(t.wholes)
	for e := range t.all() {
		e.wholes, e.whole = nil, nil
	}
	for e := range t.all() {
		t.joinAll(e)
	}
	for _, w := range t.wholes {
		if e := t.find(w.key.name, string(w.key.entry(t))); e != nil && len(e.debts) > 0 {
			w.e, e.whole = e, w
		}
	}
}

// disown ends what rules were told of an entry that they do not look at.
func (t *Table) disown(e *entry, now int64) {
	for i := 0; i < len(e.debts); {
		d := &e.debts[i]
		if e.whole != nil && e.whole.key.rule == d.rule || e.whole == nil && t.rules[d.rule].looksAt(e) {
			i++
			continue
		}
		t.retire(d, e, Reconfigured, now)
	}
}

// reconcile makes what hooks were told of an entry fit the rules.
func (t *Table) reconcile(e *entry, now int64) {
	judge := false
	for i := 0; i < len(e.debts); {
		d := &e.debts[i]
		r := &t.rules[d.rule]
		switch {
		case d.wait == alone:
		case r.Together == nil:
			t.noted(d, r, e, true)
			e.drop(d.rule)
			judge = true
			continue
		case !r.Together.Cause:
			d.wait = part
			t.put(d.rule, e)
			t.noted(d, r, e, false)
		case d.wait == part && !slices.ContainsFunc(e.wholes, func(w *whole) bool { return w.key.rule == d.rule && w.e != nil && w.e.debt(d.rule) != nil }):
			d.wait = now + int64(r.Together.Within)
			t.put(d.rule, e)
			t.noted(d, r, e, false)
		}
		i++
	}
	if e.made() && e.vantage != theInput && e.whole == nil && len(e.debts) == 0 &&
		!slices.ContainsFunc(t.quorums, func(q Rule) bool { return q.view == e.vantage }) {
		t.unlink(e)
		return
	}
	if judge && !e.quiet() {
		t.judge(e, now)
	}
	t.schedule(e, now)
}
