package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Share says how many of several are enough: a number, a percentage of
// them, or more than half. The zero value is none.
type Share struct {
	Count    int
	Percent  int
	Majority bool
}

// ParseShare reads a share: 2, 50%, majority or all.
func ParseShare(text string) (s Share, err error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	switch {
	case text == "majority":
		return Share{Majority: true}, nil
	case text == "all":
		return Share{Percent: 100}, nil
	case err != nil || n < 1 || n > 1_000_000 || percent && n > 100:
		return s, errors.New(`want a number of them, 1 or more, a percentage such as "50%", "majority" or "all"`)
	case percent:
		return Share{Percent: n}, nil
	}
	return Share{Count: n}, nil
}

// None reports whether the share is not given.
func (s Share) None() bool { return s == Share{} }

func (s Share) String() string {
	switch {
	case s.Majority:
		return "majority"
	case s.Percent == 100:
		return "all"
	case s.Percent > 0:
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.Itoa(s.Count)
}

// Of gives how many of m are enough, 1 at least.
func (s Share) Of(m int) int {
	switch {
	case s.Majority:
		return m/2 + 1
	case s.Percent > 0:
		return max(1, (m*s.Percent+99)/100)
	}
	return s.Count
}

// byQuorum begins the vantage of an entry that is seen as a quorum of
// vantages sees it; the quorum follows.
const byQuorum = "\x00quorum "

// A measure is the results of one run that have come, of all vantages. The
// name gets one status for it.
type measure struct {
	Run   uint32    `json:"run"`
	Votes [4]uint16 `json:"votes"`           // by status
	Lines [4][]byte `json:"lines,omitempty"` // the last of each status, where an event may need it
}

// maxOpen is how many measures of a name may be undecided: the one under way,
// and the one before it, of which a slow vantage may still report.
const maxOpen = 2

// maxMissed is how many measures may begin without a vote of a vantage until
// it is no longer counted on. Its next result brings it back.
const maxMissed = 4

// outcome is what the votes come to when so many vantages have not voted yet,
// and so many will not, although they are counted on. Fixed is false where
// those who have not voted yet can change it.
func outcome(quorum Share, votes [4]uint16, missing, late int) (s Status, fixed bool) {
	up, down := int(votes[Up]), int(votes[Down])
	bad := int(votes[Degraded]) + down
	n := quorum.Of(up + bad + missing + late)
	for _, c := range []struct {
		status Status
		votes  int
	}{{Down, down}, {Degraded, bad}, {Up, up}} {
		switch {
		case c.votes >= n:
			return c.status, true
		case c.votes+missing >= n:
			return c.status, false
		}
	}
	return Unknown, true
}

// vote counts the result of a vantage, which its own entry has taken in, for
// each quorum that rules ask for. Live is false where nobody is to be told.
func (t *Table) vote(e *entry, r *Result, now int64, live bool) {
	if len(t.quorums) == 0 {
		return
	}
	e.missed = 0
	run := e.run(t.joined(e, 0), r, now)
	for i := range t.quorums {
		j := t.joined(e, i)
		fresh, quiet := j.seen == 0, j.quiet()
		j.seen, j.stale = now, false
		if m := t.measure(i, e, j, run, r, now, live); m != nil {
			m.Votes[r.Status]++
			if r.Status != Up || !j.quiet() {
				m.Lines[r.Status] = append(m.Lines[r.Status][:0], r.Line...)
			}
			// Before the first has been decided it is not known who may vote.
			known := j.runs != [4]uint32{} || len(j.open) > 1
			if _, fixed := outcome(t.quorums[i].Quorum, m.Votes, t.missing(e, run), 0); fixed && known {
				t.conclude(i, j, run, r, now, live)
			}
		}
		t.learn(j, fresh, now, live)
		if live && !j.quiet() {
			t.judge(j, now)
		}
		if live && !quiet {
			t.over(j)
		}
		t.schedule(j, now)
	}
}

// joined is the entry of the name as the i-th quorum sees it.
func (t *Table) joined(e *entry, i int) *entry {
	return t.entry([]byte(e.name), []byte(t.quorums[i].view))
}

// run tells which measure a result belongs to. Results that do not say are
// taken together until a vantage has another one.
func (e *entry) run(j *entry, r *Result, now int64) uint32 {
	if len(r.Run) > 0 {
		return hash(r.Run)
	}
	run := uint32(now) ^ uint32(now>>32) | 1
	if n := len(j.open); n > 0 && !slices.Contains(e.runs[:], j.open[n-1].Run) {
		run = j.open[n-1].Run
	}
	e.repeated(run)
	return run
}

// measure finds the measure of a run, or begins it; nil if it has been
// decided.
func (t *Table) measure(quorum int, e, j *entry, run uint32, r *Result, now int64, live bool) *measure {
	if slices.Contains(j.runs[:], run) {
		return nil
	}
	for i := range j.open {
		if j.open[i].Run == run {
			return &j.open[i]
		}
	}
	if quorum == 0 {
		for v := t.names[e.name]; v != nil; v = v.next {
			if v != e && !v.made() && v.missed < maxMissed {
				v.missed++
			}
		}
	}
	if len(j.open) == maxOpen {
		t.conclude(quorum, j, j.open[0].Run, r, now, live)
	}
	j.open = append(j.open, measure{Run: run})
	return &j.open[len(j.open)-1]
}

// missing counts the vantages that are counted on and have not voted.
func (t *Table) missing(e *entry, run uint32) (n int) {
	for v := t.names[e.name]; v != nil; v = v.next {
		if !v.made() && v.missed < maxMissed && v.seen != 0 && !slices.Contains(v.runs[:], run) {
			n++
		}
	}
	return n
}

// conclude decides the measures up to that of the run, and has the name take
// what they come to as its results. What has not come counts as missing.
func (t *Table) conclude(quorum int, j *entry, run uint32, r *Result, now int64, live bool) {
	q := t.quorums[quorum].Quorum
	for done := false; !done && len(j.open) > 0; {
		m := j.open[0]
		late := t.missing(j, m.Run)
		done = m.Run == run
		status, fixed := outcome(q, m.Votes, late, 0)
		if !fixed {
			status, _ = outcome(q, m.Votes, 0, late)
		}
		if j.open = slices.Delete(j.open, 0, 1); len(j.open) == 0 {
			j.open = nil // most names have none at most times
		}
		j.repeated(m.Run)
		// No two at the same time: that is a part of the identity of a problem.
		j.decided = max(now, j.decided+1)
		t.take(j, &Result{Status: status, Line: m.line(status, j, r), Every: r.Every, Timeout: r.Timeout}, j.decided)
		if !live {
			continue
		}
		if m.Votes[Degraded]+m.Votes[Down] > 0 && (status == Up || status == Unknown) {
			t.outvoted(quorum, j, &m, late, now)
		}
		if len(j.open) > 0 && !j.quiet() {
			t.judge(j, now)
		}
	}
}

// line is the result that stands for the measure: one that agrees, where there
// is one.
func (m *measure) line(status Status, j *entry, r *Result) []byte {
	lines := [][]byte{m.Lines[status], j.line, m.Lines[Down], m.Lines[Degraded], m.Lines[Unknown], r.Line}
	if status != Up {
		lines[1] = nil
	}
	for _, line := range lines {
		if len(line) > 0 {
			return line
		}
	}
	return nil
}

// outvoted says why those who see a problem are not followed.
func (t *Table) outvoted(quorum int, j *entry, m *measure, late int, now int64) {
	q := &t.quorums[quorum]
	bad := int(m.Votes[Degraded] + m.Votes[Down])
	of := bad + int(m.Votes[Up]) + late
	reason := fmt.Sprintf("%d of %d vantages see a problem, not %d", bad, of, q.Quorum.Of(of))
	for i := range t.rules {
		if t.rules[i].looksAt(j) {
			t.because(i, j, now, reason)
		}
	}
}

// Conclude decides what has been measured so far: no more results will come.
func (t *Table) Conclude(now time.Time) {
	n := now.UnixNano()
	var open []*entry
	for e := range t.all() {
		if len(e.open) > 0 {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, byName)
	for _, j := range open {
		i := slices.IndexFunc(t.quorums, func(q Rule) bool { return q.view == j.vantage })
		if i < 0 {
			continue // a reload took the quorum away
		}
		t.conclude(i, j, j.open[len(j.open)-1].Run, &Result{Line: j.line}, n, true)
		if !j.quiet() {
			t.judge(j, n)
		}
		t.schedule(j, n)
	}
}

// byName orders entries, so that replays give one order.
func byName(a, b *entry) int {
	return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.vantage, b.vantage))
}

// A View is how a vantage sees a name.
type View struct {
	Vantage string
	Status  Status
}

// maxViews bounds how many are shown.
const maxViews = 32

// joined reports that the entry is what a quorum of vantages sees.
func (e *entry) joined() bool { return strings.HasPrefix(e.vantage, byQuorum) }

// seen lists how the vantages that are counted on see the name.
func (t *Table) seen(e *entry) (views []View) {
	if !e.joined() {
		return nil
	}
	for v := t.names[e.name]; v != nil; v = v.next {
		if v.made() || v.missed >= maxMissed || v.seen == 0 {
			continue
		}
		status := v.verdict
		if v.unknown.count > 0 {
			status = Unknown
		}
		views = append(views, View{v.vantage, status})
	}
	slices.SortFunc(views, func(a, b View) int { return strings.Compare(a.Vantage, b.Vantage) })
	return views[:min(len(views), maxViews)]
}

// seenBy is the vantage as people know it.
func (e *entry) seenBy() string {
	if !e.made() {
		return e.vantage
	}
	hook, ok := strings.CutPrefix(e.vantage, byHook)
	if !ok {
		return ""
	}
	_, vantage, _ := strings.Cut(hook, "\x00")
	return vantage
}
