// Package state turns result lines into events: it remembers for each name
// what the last results were and what each hook has been told, and says
// which hook has to be told what. It does nothing else: time comes in as an
// argument, and events go out through a function.
package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
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

	tracked Set  // statuses that the rule tells apart
	silent  bool // it hears of no problem's beginning, so it follows them all
}

// prepare works out which statuses the rule has to follow.
func (r *Rule) prepare() {
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
	Line    []byte // the whole line; copied where it is kept
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
	Line     []byte // the result line; valid until the emitting call returns
}

// A streak counts results in a row that have something in common.
type streak struct {
	since int64 // nanoseconds since 1970, of the first
	count int32
}

func (s *streak) add(now int64) {
	if s.count == 0 {
		s.since = now
	}
	if s.count < 1<<30 {
		s.count++
	}
}

// A debt is what a hook was last told of a name that is not up. No debt
// means that the hook takes the name to be up.
type debt struct {
	rule      int
	told      Status
	notified  bool // false: followed in silence, nobody was called
	calls     int32
	reminders int32
	incident  string
	since     int64 // start of the incident
	remind    int64 // when the next reminder is due; 0: never
}

// An entry is the memory of one name, as one vantage sees it.
type entry struct {
	name, vantage string
	verdict       Status // of the last result that was one
	known         bool   // there was a verdict
	seenUp        bool   // and once it was up
	lost          bool   // it stands for the input, which is lost
	stale         bool   // the last result is too long ago
	up            streak
	problem       streak // degraded or worse
	down          streak
	unknown       streak
	trouble       int64 // when it was last seen to leave up; 0: up
	seen          int64
	limit         time.Duration // stale after; 0: never
	runs          [4]uint32
	debts         []debt
	line          []byte // the last result, kept while it may be needed
	verdicts      int    // how many are in history
	history       uint64 // the last verdicts, two bits each, the newest lowest
	again         int64  // when a gate wants to be asked again; 0: never
	wake          int64  // when the entry is due in the heap; 0: not in it
	place         int    // in the heap
}

// Table is the state of all names. It is not safe for concurrent use.
type Table struct {
	rules      []Rule
	staleAfter time.Duration
	hearStale  bool
	hearInput  bool
	always     []int
	names      map[string]*entry
	wakes      wakes
	key        []byte
	emit       func(*Event)
	note       func(*Note)

	Follower Follower                                                    // nil: nobody follows
	Gate     Gate                                                        // nil: every hook may hear of everything
	Why      func(rule int, name, vantage, reason string, now time.Time) // is told why a hook is not called; nil: nobody is
}

// New returns an empty table. Emit is called for every event, in order;
// it must not call the table. So is note, if it is not nil, for every change
// in what a hook has been told, after the events that belong to it.
func New(emit func(*Event), note func(*Note)) *Table {
	return &Table{names: map[string]*entry{}, emit: emit, note: note}
}

// SetRules exchanges the rules, as a reload does. Moved[i] is the new place
// of old rule i, or -1 where it is gone; what a hook was told stays with it.
// StaleAfter overrides what the results say of their own rhythm; 0 leaves it
// to them.
func (t *Table) SetRules(rules []Rule, staleAfter time.Duration, moved []int) {
	t.rules, t.staleAfter = rules, staleAfter
	t.hearStale, t.hearInput, t.always = false, false, nil
	for i := range t.rules {
		r := &t.rules[i]
		r.prepare()
		t.hearStale = t.hearStale || r.tracked.Has(Stale)
		t.hearInput = t.hearInput || r.tracked.Has(InputLost)
		if r.Always {
			t.always = append(t.always, i)
		}
	}
	for _, e := range t.names {
		kept := e.debts[:0]
		for _, d := range e.debts {
			if d.rule < len(moved) && moved[d.rule] >= 0 {
				d.rule = moved[d.rule]
				kept = append(kept, d)
			}
		}
		e.debts = kept
	}
}

// Len is the number of names.
func (t *Table) Len() int { return len(t.names) }

// Observe takes a result in at the time now and emits the events that
// follow. It reports false for a run that was seen before.
func (t *Table) Observe(r *Result, now time.Time) bool {
	e := t.entry(r)
	if len(r.Run) > 0 && e.repeated(hash(r.Run)) {
		return false
	}
	n := now.UnixNano()
	verdict, known, quiet := e.verdict, e.known, e.quiet()
	t.take(e, r, n)
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
	return true
}

// entry finds the memory of a name, or starts it.
func (t *Table) entry(r *Result) *entry {
	key := r.Name
	if len(r.Vantage) > 0 {
		t.key = append(append(append(t.key[:0], r.Name...), 0), r.Vantage...)
		key = t.key
	}
	e := t.names[string(key)]
	if e == nil {
		e = &entry{name: string(r.Name), vantage: string(r.Vantage)}
		t.names[string(key)] = e
	}
	return e
}

// repeated reports whether the run was among the last ones, and notes it.
func (e *entry) repeated(run uint32) bool {
	for _, h := range e.runs {
		if h == run {
			return true
		}
	}
	copy(e.runs[1:], e.runs[:3])
	e.runs[0] = run
	return false
}

// take counts a result, and keeps its line while an event may need it.
func (t *Table) take(e *entry, r *Result, now int64) {
	e.count(r, now)
	if t.staleAfter > 0 {
		e.limit = t.staleAfter
	}
	if t.hearStale || !e.quiet() {
		e.line = append(e.line[:0], r.Line...)
	} else {
		e.line = nil
	}
}

// count counts a result. An unknown one neither breaks nor lengthens a run of
// verdicts: it says nothing about the target.
func (e *entry) count(r *Result, now int64) {
	e.seen, e.stale = now, false
	e.limit = 0
	if r.Every > 0 {
		e.limit = 2*r.Every + r.Timeout
	}
	if r.Status == Unknown {
		e.unknown.add(now)
		if e.trouble == 0 {
			e.trouble = now
		}
		return
	}
	e.verdict, e.known = r.Status, true
	e.history = e.history<<2 | uint64(r.Status)
	e.verdicts = min(e.verdicts+1, MaxOf)
	e.unknown = streak{}
	if r.Status == Up {
		e.up.add(now)
		e.seenUp = true
		e.problem, e.down = streak{}, streak{}
		e.trouble = 0
		return
	}
	e.up = streak{}
	e.problem.add(now)
	if r.Status == Down {
		e.down.add(now)
	} else {
		e.down = streak{}
	}
	if e.trouble == 0 {
		e.trouble = now
	}
}

// quiet reports that the name is up, nobody believes otherwise, and its past
// says nothing else.
func (e *entry) quiet() bool {
	return e.verdict == Up && e.unknown.count == 0 && !e.stale && !e.lost && len(e.debts) == 0
}

// among counts the last n verdicts that are at least as bad as worst.
func (e *entry) among(n int, worst Status) (count int) {
	for i := range min(n, e.verdicts) {
		if Status(e.history>>(2*i)&3) >= worst {
			count++
		}
	}
	return count
}

// changes counts the changes between up and not up among the last verdicts.
func (e *entry) changes() (count int) {
	for i := range min(FlapOf, e.verdicts) - 1 {
		if (e.history>>(2*i)&3 == 0) != (e.history>>(2*i+2)&3 == 0) {
			count++
		}
	}
	return count
}

// flapping reports whether the name flaps, by the rule's measure.
func (e *entry) flapping(r *Rule) bool { return r.Flap > 0 && e.changes() >= r.Flap }

// current returns the status of the name as the rule sees it, and the
// streak of results that confirms it.
func (e *entry) current(r *Rule) (Status, streak) {
	switch {
	case e.lost:
		return InputLost, streak{since: e.seen}
	case e.stale && r.tracked.Has(Stale):
		return Stale, streak{since: e.seen}
	case r.tracked.Has(Flapping) && e.flapping(r):
		return Flapping, streak{since: e.seen, count: int32(e.changes())}
	case e.unknown.count > 0 && r.tracked.Has(Unknown):
		return Unknown, e.unknown
	case e.verdict == Up:
		return Up, e.up
	case e.verdict == Down && !r.tracked.Has(Degraded):
		return Down, e.down
	}
	return e.verdict, e.problem
}

// judge compares what each hook was told with what is.
func (t *Table) judge(e *entry, now int64) {
	e.again = 0
	for i := range t.rules {
		if !t.rules[i].Always {
			t.judgeFor(i, e, now)
		}
	}
	if e.quiet() {
		e.trouble = 0
	}
}

// judgeFor is judge for one hook.
func (t *Table) judgeFor(i int, e *entry, now int64) {
	r := &t.rules[i]
	d, told := e.debt(i), Up
	if d != nil {
		told = d.told
	}
	status, run := e.current(r)
	switch {
	case status == told || !r.tracked.Has(status):
		if d != nil && d.remind != 0 && now >= d.remind && !t.held(i, e, now) {
			t.remind(d, r, e, run, now)
		}
	case status < Stale && e.flapping(r):
		t.because(i, e, now, "it is flapping")
	case !e.confirms(r, status, run, now):
		t.because(i, e, now, pending(r, e, status, run))
	case status == Up:
		t.closing(d, r, e, run, now)
		e.drop(i)
	case r.When != nil && !r.When(e.line):
		t.because(i, e, now, "when does not hold")
	case !t.held(i, e, now):
		t.opening(i, d, r, e, status, run, now)
	}
}

// A Gate says why a hook must not hear of a problem now, "" if it may, and
// when to ask again if no result comes before. It is never asked about the
// end of a problem.
type Gate func(q Question) (reason string, again time.Time)

// A Question is what a gate is asked.
type Question struct {
	Rule          int
	Name, Vantage string
	Incident      string
	Since, Now    time.Time // of the trouble; zero if there is none yet
	Line          []byte    // the last result
}

// gateEvery is how often a gate is asked that does not say when.
const gateEvery = time.Minute

// held asks the gate.
func (t *Table) held(i int, e *entry, now int64) bool {
	if t.Gate == nil {
		return false
	}
	q := Question{Rule: i, Name: e.name, Vantage: e.vantage, Now: time.Unix(0, now).UTC(), Line: e.line}
	if e.trouble != 0 {
		q.Incident, q.Since = incident(e), time.Unix(0, e.trouble).UTC()
	}
	reason, again := t.Gate(q)
	if reason == "" {
		return false
	}
	at := now + int64(gateEvery)
	if !again.IsZero() {
		at = again.UnixNano()
	}
	if e.again == 0 || at < e.again {
		e.again = at
	}
	t.because(i, e, now, reason)
	return true
}

func (t *Table) because(rule int, e *entry, now int64, reason string) {
	if t.Why != nil {
		t.Why(rule, e.name, e.vantage, reason, time.Unix(0, now).UTC())
	}
}

// pending words what a confirmation waits for.
func pending(r *Rule, e *entry, status Status, run streak) string {
	after := r.After
	if status == Up {
		after = r.RecoverAfter
	}
	switch {
	case after.For > 0:
		return fmt.Sprintf("%v for less than %v", status, after.For)
	case after.Of > 0 && status != Up:
		return fmt.Sprintf("%v: %d of the last %d, not %d", status, e.among(after.Of, worst(r, status)), after.Of, after.Count)
	}
	return fmt.Sprintf("%v: %d in a row, not %d", status, run.count, max(after.Count, 1))
}

// worst is the least bad verdict that counts towards the status.
func worst(r *Rule, status Status) Status {
	if r.tracked.Has(Degraded) {
		return Degraded
	}
	return status
}

func (e *entry) debt(rule int) *debt {
	for i := range e.debts {
		if e.debts[i].rule == rule {
			return &e.debts[i]
		}
	}
	return nil
}

func (e *entry) drop(rule int) {
	for i := range e.debts {
		if e.debts[i].rule == rule {
			e.debts = append(e.debts[:i], e.debts[i+1:]...)
			return
		}
	}
}

// confirms reports whether the status is certain enough for the rule.
func (e *entry) confirms(r *Rule, status Status, run streak, now int64) bool {
	after := r.After
	switch {
	case status >= Stale || e.vantage == theInput:
		return true
	case status == Up:
		after = r.RecoverAfter
	case after.Of > 0 && status != Unknown:
		return e.among(after.Of, worst(r, status)) >= after.Count
	}
	if after.For > 0 {
		return run.count > 0 && now-run.since >= int64(after.For)
	}
	return int(run.count) >= max(after.Count, 1)
}

// opening tells a hook of a problem, or of the change from one to another.
func (t *Table) opening(i int, d *debt, r *Rule, e *entry, status Status, run streak, now int64) {
	v := Event{Rule: i, Kind: status.String(), Status: shown(status), Count: int(run.count), First: d == nil && !e.seenUp}
	if d == nil {
		if e.trouble == 0 {
			e.trouble = e.seen // it was up when its results stopped
		}
		e.debts = append(e.debts, debt{rule: i, since: e.trouble, incident: incident(e)})
		d = &e.debts[len(e.debts)-1]
	}
	wanted := r.wants(d.told, status)
	v.Previous, d.told, d.remind = shown(d.told), status, 0
	if r.Repeat > 0 && (wanted || r.Reminders) {
		d.remind = now + int64(r.Repeat)
	}
	if wanted {
		t.tell(d, r, e, &v, now)
	}
	t.noted(d, r, e, false)
}

// closing tells a hook that the problem it was told of has ended. Conditions
// keep a hook from hearing of a problem, never from hearing of its end.
func (t *Table) closing(d *debt, r *Rule, e *entry, run streak, now int64) {
	v := Event{Rule: d.rule, Kind: Up.String(), Status: Up, Previous: shown(d.told), Count: int(run.count)}
	recovered := r.Recovered && (d.notified || r.silent)
	if recovered {
		v.Kind = KindRecovered
	}
	if recovered || r.wants(d.told, Up) {
		t.tell(d, r, e, &v, now)
	}
	t.noted(d, r, e, true)
}

// shown is the status as an event says it: a stale name has no verdict, and a
// flapping one works now and then.
func shown(s Status) Status {
	switch s {
	case Stale, InputLost:
		return Unknown
	case Flapping:
		return Degraded
	}
	return s
}

// remind tells a hook that a problem goes on.
func (t *Table) remind(d *debt, r *Rule, e *entry, run streak, now int64) {
	d.reminders++
	pause := r.Repeat
	for range d.reminders {
		if pause *= 2; pause >= r.RepeatMax {
			pause = max(r.Repeat, r.RepeatMax)
			break
		}
	}
	d.remind = now + int64(pause)
	t.tell(d, r, e, &Event{Rule: d.rule, Kind: KindReminder, Status: shown(d.told), Previous: shown(d.told), Count: int(run.count)}, now)
	t.noted(d, r, e, false)
}

// tell completes an event of an incident and emits it.
func (t *Table) tell(d *debt, r *Rule, e *entry, v *Event, now int64) {
	d.notified = true
	d.calls++
	v.Name, v.Vantage, v.Line = e.name, e.vantage, e.line
	if e.vantage == theInput {
		v.Vantage = ""
	}
	v.Since, v.For = time.Unix(0, d.since).UTC(), time.Duration(now-d.since)
	v.Incident, v.Hook = d.incident, r.Hook
	v.Job = id(r.Hook, e.name, e.vantage, d.incident, v.Kind, strconv.Itoa(int(d.calls)), strconv.FormatInt(now, 10))
	t.emit(v)
}

// result emits the event of a rule that wants every result.
func (t *Table) result(i int, e *entry, r *Result, verdict Status, known bool, now int64) {
	rule := &t.rules[i]
	if rule.When != nil && !rule.When(r.Line) {
		return
	}
	v := Event{Rule: i, Hook: rule.Hook, Kind: KindResult, Name: e.name, Vantage: e.vantage, Status: r.Status, Line: r.Line,
		Previous: verdict, First: !known}
	row := [...]streak{Up: e.up, Degraded: e.problem, Down: e.down, Unknown: e.unknown}[r.Status]
	v.Since, v.For, v.Count = time.Unix(0, row.since).UTC(), time.Duration(now-row.since), int(row.count)
	if e.trouble != 0 {
		v.Incident = incident(e)
	}
	run := string(r.Run)
	if run == "" {
		run = strconv.FormatInt(now, 10)
	}
	v.Job = id(rule.Hook, e.name, e.vantage, run, string(r.Line))
	t.emit(&v)
}

// theInput is the vantage of the entry that stands for the input as a whole.
// No line has it: it is no printable text.
const theInput = "\x00"

// Input takes in that the input is lost, or is there again. The line is what
// an event shows as its result.
func (t *Table) Input(lost bool, line []byte, now time.Time) {
	e := t.entry(&Result{Name: []byte("input"), Vantage: []byte(theInput)})
	if !lost && !e.lost && len(e.debts) == 0 {
		return
	}
	n := now.UnixNano()
	e.lost, e.seen, e.seenUp = lost, n, true
	e.line = append(e.line[:0], line...)
	if e.trouble == 0 {
		e.trouble = n
	}
	t.judge(e, n)
	t.schedule(e, n)
}

// HearsInput reports whether a rule wants to know of a lost input.
func (t *Table) HearsInput() bool { return t.hearInput }

// incident names the problem that a name has: the same name and beginning
// give the same incident, also after a restart.
func incident(e *entry) string {
	return id(e.name, e.vantage, strconv.FormatInt(e.trouble, 10))[:16]
}

// id derives an identifier of 32 hexadecimal digits from its parts.
func id(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// hash shortens a run; runs are compared by it within one name only.
func hash(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }

// Trouble reports whether a name is anything but up, as the vantage sees it,
// and when its last result came; the zero time if none did.
func (t *Table) Trouble(name, vantage string) (bad bool, seen time.Time) {
	key := name
	if vantage != "" {
		key += "\x00" + vantage
	}
	e := t.names[key]
	if e == nil {
		return false, time.Time{}
	}
	return e.verdict != Up || e.stale, time.Unix(0, e.seen).UTC()
}

// HearsStale reports whether a rule wants to know of stale names, so that
// the rhythm of results matters.
func (t *Table) HearsStale() bool { return t.hearStale }
