package state

import "time"

// A Follower is told of names that have a problem, whether or not it is
// confirmed for any hook: of each of their results before hooks hear of it,
// and of the end, when all hooks take the name to be up again, also if no
// result had told of the problem, as when the name was stale.
type Follower interface {
	Trouble(q Question, status Status)
	Over(name, vantage string)
}

// follow tells the follower of a name that has a problem.
func (t *Table) follow(e *entry, status Status, now int64) {
	if t.Follower == nil || e.quiet() {
		return
	}
	q := Question{Rule: -1, Name: e.name, Vantage: e.vantage, Now: time.Unix(0, now).UTC(), Line: e.line}
	if e.ailing {
		q.Incident, q.Since = incident(e), time.Unix(0, e.trouble).UTC()
	}
	t.Follower.Trouble(q, status)
}

// over tells the follower that the problem is over, if it is.
func (t *Table) over(e *entry) {
	if t.Follower != nil && t.Quiet(e.name, e.seenBy()) {
		t.Follower.Over(e.name, e.seenBy())
	}
}

// Quiet reports that a name is up, or not known, and no hook believes
// otherwise, as the vantage sees it and, for none, as quorums do.
func (t *Table) Quiet(name, vantage string) bool {
	for e := t.names[name]; e != nil; e = e.next {
		if e.seenBy() == vantage && !e.quiet() {
			return false
		}
	}
	return true
}
