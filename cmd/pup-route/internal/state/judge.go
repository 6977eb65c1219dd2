package state

import (
	"fmt"
	"strconv"
	"time"
)

// judge compares what each hook was told with what is.
func (t *Table) judge(e *entry, now int64) {
	e.again = 0
	for i := range t.rules {
		if t.rules[i].looksAt(e) {
			t.judgeFor(i, e, now)
		}
	}
	if e.quiet() {
		e.ailing = false
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
		switch {
		case d == nil:
		case d.wait > 0 && now >= d.wait:
			t.decide(d, e, run, now)
		case d.remind != 0 && now >= d.remind && !t.held(i, e, now):
			t.remind(d, r, e, run, now)
		}
	case status < Stale && e.flapping(r):
		t.because(i, e, now, "it is flapping")
	case !e.confirms(r, status, run, now):
		t.because(i, e, now, pending(r, e, status, run))
	case status == Up:
		t.closing(d, r, e, run, now)
		e.drop(i)
		t.weighAll(i, e, now)
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
	if e.ailing {
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
		t.Why(rule, e.name, e.seenBy(), reason, time.Unix(0, now).UTC())
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
	var trouble int64
	if d == nil {
		if !e.ailing {
			e.leave(e.seen) // it was up when its results stopped
			trouble = e.trouble
		}
		if e.made() && !e.joined() {
			trouble = e.trouble
		}
		e.debts = append(e.debts, debt{rule: i, since: e.trouble, incident: incident(e)})
		d = &e.debts[len(e.debts)-1]
	}
	wanted := r.wants(d.told, status)
	v.Previous, d.told, d.remind = shown(d.told), status, 0
	alone := !t.together(d, r, e, now)
	if r.Repeat > 0 && (wanted || r.Reminders) && alone {
		d.remind = now + int64(r.Repeat)
	}
	if wanted && alone {
		t.tell(d, r, e, &v, now)
	}
	t.begun(d, r, e, false, trouble)
	t.weighAll(i, e, now)
	if d.wait > 0 && now >= d.wait {
		t.decide(d, e, run, now)
	}
}

// closing tells a hook that the problem it was told of has ended. Conditions
// keep a hook from hearing of a problem, never from hearing of its end.
func (t *Table) closing(d *debt, r *Rule, e *entry, run streak, now int64) {
	v := Event{Rule: d.rule, Kind: Up.String(), Status: Up, Previous: shown(d.told), Count: int(run.count)}
	recovered := r.Recovered && (d.notified || r.silent)
	if recovered {
		v.Kind = KindRecovered
	}
	if d.wait == alone && (recovered || r.wants(d.told, Up)) {
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
	v.Name, v.Vantage, v.Line = e.name, e.seenBy(), e.line
	switch {
	case e.whole != nil:
		v.Whole = e.whole.show(t)
	case e.made():
		v.Seen = t.seen(e)
	}
	v.Since, v.For = time.Unix(0, d.since).UTC(), time.Duration(max(0, now-d.since))
	v.Incident, v.Hook = d.incident, r.Hook
	v.Job = id(r.Hook, e.name, e.vantage, d.incident, v.Kind+v.Reason, strconv.Itoa(int(d.calls)), strconv.FormatInt(now, 10))
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
	if e.ailing {
		v.Incident = incident(e)
	}
	run := string(r.Run)
	if run == "" {
		run = strconv.FormatInt(now, 10)
	}
	v.Job = id(rule.Hook, e.name, e.vantage, run, string(r.Line))
	t.emit(&v)
}
