// Package state turns result lines into events: it remembers for each name
// what the last results were and what each hook has been told, and says
// which hook has to be told what. It does nothing else: time comes in as an
// argument, and events go out through a function.
package state

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Status is the verdict of a result, as a small number. Its order is that of
// severity, except that Unknown and Stale are no verdicts on the target.
type Status uint8

// The statuses. The last two are not statuses of a line: a name is stale
// while no result has come for longer than it should take, and flapping while
// its verdict changes all the time.
const (
	Up Status = iota
	Degraded
	Down
	Unknown
	Stale
	Flapping
	InputLost // of the input as a whole, see Table.Input
	statuses
)

var statusNames = [statuses]string{"up", "degraded", "down", "unknown", "stale", "flapping", "input-lost"}

func (s Status) String() string { return statusNames[s] }

// ParseStatus reads the status of a line: up, degraded, down or unknown.
func ParseStatus(text []byte) (Status, bool) {
	for s := Up; s <= Unknown; s++ {
		if string(text) == statusNames[s] {
			return s, true
		}
	}
	return 0, false
}

// MarshalText writes the word, for journals.
func (s Status) MarshalText() ([]byte, error) { return []byte(statusNames[s]), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Status) UnmarshalText(text []byte) error {
	i := slices.Index(statusNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%.40q is no status", text)
	}
	*s = Status(i)
	return nil
}

// A Set holds statuses.
type Set uint8

// Has reports whether s is in the set.
func (t Set) Has(s Status) bool { return t&(1<<s) != 0 }

// Add returns the set with s in it.
func (t Set) Add(s Status) Set { return t | 1<<s }

// problems are the statuses other than up.
const problems = Set(1<<Degraded | 1<<Down | 1<<Unknown | 1<<Stale | 1<<Flapping | 1<<InputLost)

// A Transition is a change from one status to another, as in "up->down".
type Transition struct{ From, To Status }

// A Threshold is reached by so many results in a row, by so many of the last
// ones, or by a time that has passed since the first in a row.
type Threshold struct {
	Count int
	Of    int // 0: in a row
	For   time.Duration
}

// MaxOf bounds Threshold.Of: so many verdicts are remembered.
const MaxOf = 32

// A Rule is what one hook wants to hear.
type Rule struct {
	Hook         string       // its name, which goes into the idempotency key
	Becomes      Set          // call when the confirmed status becomes one of these
	Transitions  []Transition // or changes in one of these ways
	Change       bool         // or changes at all
	Recovered    bool         // or is up again after a problem that the hook was told of
	Always       bool         // call for every result
	Reminders    bool         // only reminders of a problem, not its beginning
	After        Threshold    // confirms a problem; the zero value is one result
	RecoverAfter Threshold    // confirms up
	Repeat       time.Duration
	RepeatMax    time.Duration            // the pauses between reminders double up to this; 0: they do not
	Flap         int                      // so many changes between up and not up in the last FlapOf verdicts are flapping; 0: never
	When         func(result []byte) bool // nil is true
	Quorum       Share                    // so many vantages must agree; the zero value: each vantage is for itself
	Together     *Together                // hear of names together; nil: of each by itself

	view    string // what it looks at: what each vantage sees, or what a quorum of them does
	parts   []int  // the places of the paths of Together in Table.paths
	tracked Set    // statuses that the rule tells apart
	silent  bool   // it hears of no problem's beginning, so it follows them all
}

// prepare works out which statuses the rule has to follow.
func (r *Rule) prepare() {
	r.view = ""
	if !r.Quorum.None() {
		r.view = byQuorum + r.Quorum.String()
	}
	r.tracked = r.Becomes.Add(Up)
	for _, t := range r.Transitions {
		r.tracked = r.tracked.Add(t.From).Add(t.To)
	}
	beginnings := r.Change || len(r.Transitions) > 0
	ofNames := r.Becomes &^ (1 << InputLost)
	if beginnings || ofNames&problems == 0 && r.Becomes != 1<<InputLost {
		r.tracked |= 1<<Degraded | 1<<Down
	}
	r.silent = !beginnings && r.Becomes&problems == 0 && !r.Reminders
}

// wants reports whether the rule is to be called for a confirmed change.
func (r *Rule) wants(from, to Status) bool {
	if r.Change || r.Becomes.Has(to) {
		return true
	}
	for _, t := range r.Transitions {
		if t.From == from && t.To == to {
			return true
		}
	}
	return false
}

// Result is what the table needs to know of a result line.
type Result struct {
	Name    []byte
	Vantage []byte
	Status  Status
	Run     []byte // absent: never a repetition
	Every   time.Duration
	Timeout time.Duration
	Due     time.Time // zero: not said, or not asked for by HearsDue
	Line    []byte    // the whole line; copied where it is kept
}

// FlapOf is how many verdicts are looked at for flapping.
const FlapOf = 20

// Event kinds that are not statuses.
const (
	KindRecovered = "recovered"
	KindReminder  = "reminder"
	KindResult    = "result" // on = ["always"]
)

// Event says that a hook has to be called.
type Event struct {
	Rule     int
	Hook     string
	Kind     string // a status, or one of the kinds above
	Name     string
	Vantage  string
	Status   Status // what the hook is told
	Previous Status
	First    bool // nothing is known from before: there is no Previous
	Since    time.Time
	For      time.Duration
	Count    int
	Incident string
	Job      string
	Reason   string // why a problem is over, where that is not the target's doing
	Seen     []View // of a quorum: what each vantage sees
	Whole    *Whole // of names together: which they are
	Line     []byte // the result line; valid until the emitting call returns
}

// Table is the state of all names. It is not safe for concurrent use.
type Table struct {
	rules      []Rule
	staleAfter time.Duration
	hearStale  bool
	hearInput  bool
	always     []int
	names      map[string]*entry // the first of each name
	views      int
	wakes      wakes
	emit       func(*Event)
	note       func(*Note)

	quorums []Rule                        // one for each quorum that rules ask for
	plain   bool                          // a rule looks at what each vantage sees
	groups  bool                          // a rule hears of names together
	paths   []path                        // of all rules
	found   []string                      // what they lead to in the line at hand
	each    func(key, value []byte) error // member, made once
	wholes  map[wholeKey]*whole
	texts   map[string]string // values, each kept once

	last    int64            // when the last result came
	resumed int64            // when results came again after a long time
	gone    map[string]int64 // names that were removed, and when
	sweep   int              // how many gone may hold until old ones go

	ForgetAfter time.Duration // a name of which nothing is heard for so long is forgotten; 0: never

	Follower Follower                                                    // nil: nobody follows
	Gate     Gate                                                        // nil: every hook may hear of everything
	Why      func(rule int, name, vantage, reason string, now time.Time) // is told why a hook is not called; nil: nobody is
}

// New returns an empty table. Emit is called for every event, in order;
// it must not call the table. So is note, if it is not nil, for every change
// in what a hook has been told, after the events that belong to it.
func New(emit func(*Event), note func(*Note)) *Table {
	t := &Table{names: map[string]*entry{}, wholes: map[wholeKey]*whole{}, texts: map[string]string{}, gone: map[string]int64{}, emit: emit, note: note}
	t.each = t.member
	return t
}

// SetRules exchanges the rules, as a reload does. Moved[i] is the new place
// of old rule i, or -1 where it is gone; what a hook was told stays with it.
// StaleAfter overrides what the results say of their own rhythm; 0 leaves it
// to them. Where there are names already, Resume must follow.
func (t *Table) SetRules(rules []Rule, staleAfter time.Duration, moved []int) {
	t.rules, t.staleAfter = rules, staleAfter
	t.hearStale, t.hearInput, t.plain, t.always, t.quorums = false, false, false, nil, nil
	for i := range t.rules {
		r := &t.rules[i]
		r.prepare()
		t.hearStale = t.hearStale || r.tracked.Has(Stale)
		t.hearInput = t.hearInput || r.tracked.Has(InputLost)
		switch {
		case r.Always:
			t.always = append(t.always, i)
		case r.view == "":
			t.plain = true
		case !slices.ContainsFunc(t.quorums, func(q Rule) bool { return q.view == r.view }):
			t.quorums = append(t.quorums, *r)
		}
	}
	for e := range t.all() {
		kept := e.debts[:0]
		for _, d := range e.debts {
			if d.rule < len(moved) && moved[d.rule] >= 0 {
				d.rule = moved[d.rule]
				kept = append(kept, d)
			}
		}
		e.debts = kept
	}
	t.setPaths()
}

// all yields the entries, in no order.
func (t *Table) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, e := range t.names {
			for ; e != nil; e = e.next {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Len is the number of names, as seen by each vantage.
func (t *Table) Len() int { return t.views }

// Observe takes a result in at the time now and emits the events that
// follow. It reports false for a run that was seen before.
func (t *Table) Observe(r *Result, now time.Time) bool {
	e, verdict, known, quiet := t.count(r, now.UnixNano(), true)
	if e == nil {
		return false
	}
	n := e.seen
	t.follow(e, r.Status, n)
	for _, i := range t.always {
		t.result(i, e, r, verdict, known, n)
	}
	if !e.quiet() {
		t.judge(e, n)
	}
	if !quiet {
		t.over(e)
	}
	t.schedule(e, n)
	t.vote(e, r, n, true)
	return true
}

// count takes a result in, and returns what was known before. The entry is
// nil for one that does not count.
func (t *Table) count(r *Result, now int64, live bool) (e *entry, verdict Status, known, quiet bool) {
	if t.left(r) {
		return nil, 0, false, false
	}
	e = t.entry(r.Name, r.Vantage)
	if len(r.Run) > 0 && e.repeated(hash(r.Run)) {
		return nil, 0, false, false
	}
	if len(r.Run) == 0 { // then its time tells it from the one before
		now = max(now, e.seen+1)
	}
	t.heard(now)
	t.look(r.Line)
	fresh := e.seen == 0
	verdict, known, quiet = e.verdict, e.known, e.quiet()
	t.take(e, r, now)
	t.learn(e, fresh, now, live)
	return e, verdict, known, quiet
}

// entry finds the memory of a name, or starts it.
func (t *Table) entry(name, vantage []byte) *entry {
	first := t.names[string(name)]
	for e := first; e != nil; e = e.next {
		if e.vantage == string(vantage) {
			return e
		}
	}
	e := &entry{vantage: t.text(string(vantage))}
	t.views++
	if first == nil {
		e.name = string(name)
		t.names[e.name] = e
		return e
	}
	e.name = first.name
	e.next, first.next = first.next, e
	return e
}

// take counts a result, and keeps its line while an event may need it.
func (t *Table) take(e *entry, r *Result, now int64) {
	e.count(r, now)
	if t.staleAfter > 0 {
		e.limit = t.staleAfter
	}
	switch {
	case e.quiet() && !(t.hearStale && (t.plain || e.made())):
		e.line = nil
	case e.made(): // there may be two results at once: each has its own
		e.line = bytes.Clone(r.Line)
	default:
		e.line = append(e.line[:0], r.Line...)
	}
}

// Trouble reports whether a name is anything but up, as the vantage sees it,
// and when its last result came; the zero time if none did.
func (t *Table) Trouble(name, vantage string) (bad bool, seen time.Time) {
	e := t.find(name, vantage)
	if e == nil {
		return false, time.Time{}
	}
	return e.verdict != Up || e.stale, time.Unix(0, e.seen).UTC()
}

// find finds the memory of a name; nil if there is none.
func (t *Table) find(name, vantage string) *entry {
	e := t.names[name]
	for e != nil && e.vantage != vantage {
		e = e.next
	}
	return e
}

// HearsEvery reports whether the rhythm of results matters: names become
// stale, or are forgotten.
func (t *Table) HearsEvery() bool { return t.hearStale || t.ForgetAfter > 0 }
