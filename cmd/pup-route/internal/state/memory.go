package state

import (
	"slices"
	"time"
)

// A Note is a change in what a hook has been told of a name. A journal keeps
// notes, so that after a restart nobody is told twice, and who is owed the
// end of a problem gets it, whatever the configuration says by then.
type Note struct {
	Name      string `json:"name"`
	Vantage   string `json:"vantage,omitempty"`
	Hook      string `json:"hook"`
	Told      Status `json:"told"`
	Closed    bool   `json:"closed,omitempty"` // the hook takes the name to be up
	Notified  bool   `json:"notified,omitempty"`
	Calls     int32  `json:"calls,omitempty"`
	Incident  string `json:"incident,omitempty"`
	Since     int64  `json:"since,omitempty"`
	Remind    int64  `json:"remind,omitempty"`
	Reminders int32  `json:"reminders,omitempty"`
	Trouble   int64  `json:"trouble,omitempty"` // of the name, at the time
}

// A Memory is all that is remembered of a name.
type Memory struct {
	Name     string      `json:"name"`
	Vantage  string      `json:"vantage,omitempty"`
	Verdict  Status      `json:"verdict,omitempty"`
	Known    bool        `json:"known,omitempty"`
	SeenUp   bool        `json:"seen_up,omitempty"`
	Streaks  [4][2]int64 `json:"streaks"` // up, problem, down, unknown: since, count
	Trouble  int64       `json:"trouble,omitempty"`
	History  uint64      `json:"history,omitempty"`
	Verdicts int         `json:"verdicts,omitempty"`
	Seen     int64       `json:"seen"`
	Limit    int64       `json:"limit,omitempty"`
	Runs     [4]uint32   `json:"runs"`
	Line     []byte      `json:"-"` // the last result, where it is kept
	Debts    []Note      `json:"debts,omitempty"`
}

// noted hands on what a hook is told.
func (t *Table) noted(d *debt, r *Rule, e *entry, closed bool) {
	if t.note != nil {
		n := d.note(r.Hook)
		n.Name, n.Vantage, n.Closed, n.Trouble = e.name, e.vantage, closed, e.trouble
		t.note(&n)
	}
}

func (d *debt) note(hook string) Note {
	return Note{Hook: hook, Told: d.told, Notified: d.notified, Calls: d.calls, Incident: d.incident, Since: d.since, Remind: d.remind, Reminders: d.reminders}
}

// Replay takes a result in that was accepted before: it counts, and nobody
// is told.
func (t *Table) Replay(r *Result, now time.Time) {
	e := t.entry(r)
	if len(r.Run) > 0 && e.repeated(hash(r.Run)) {
		return
	}
	t.take(e, r, now.UnixNano())
	t.schedule(e, now.UnixNano())
}

// Apply takes a note in again.
func (t *Table) Apply(n Note) {
	i := slices.IndexFunc(t.rules, func(r Rule) bool { return r.Hook == n.Hook })
	if i < 0 {
		return // the hook is gone: nobody is left to be told
	}
	e := t.entry(&Result{Name: []byte(n.Name), Vantage: []byte(n.Vantage)})
	e.drop(i)
	if !n.Closed {
		e.debts = append(e.debts, debt{rule: i, told: n.Told, notified: n.Notified, calls: n.Calls, incident: n.Incident, since: n.Since, remind: n.Remind, reminders: n.Reminders})
	}
	e.trouble = n.Trouble
	t.schedule(e, e.seen)
}

// Names calls f with the memory of every name.
func (t *Table) Names(f func(*Memory)) {
	for _, e := range t.names {
		m := Memory{Name: e.name, Vantage: e.vantage, Verdict: e.verdict, Known: e.known, SeenUp: e.seenUp,
			Trouble: e.trouble, History: e.history, Verdicts: e.verdicts, Seen: e.seen, Limit: int64(e.limit), Runs: e.runs, Line: e.line}
		for i, s := range []streak{e.up, e.problem, e.down, e.unknown} {
			m.Streaks[i] = [2]int64{s.since, int64(s.count)}
		}
		for i := range e.debts {
			m.Debts = append(m.Debts, e.debts[i].note(t.rules[e.debts[i].rule].Hook))
		}
		f(&m)
	}
}

// Restore takes the memory of a name back.
func (t *Table) Restore(m Memory) {
	e := t.entry(&Result{Name: []byte(m.Name), Vantage: []byte(m.Vantage)})
	e.verdict, e.known, e.seenUp = m.Verdict, m.Known, m.SeenUp
	e.trouble, e.history, e.verdicts = m.Trouble, m.History, m.Verdicts
	e.seen, e.limit, e.runs = m.Seen, time.Duration(m.Limit), m.Runs
	if len(m.Line) > 0 {
		e.line = m.Line
	}
	for i, s := range []*streak{&e.up, &e.problem, &e.down, &e.unknown} {
		s.since, s.count = m.Streaks[i][0], int32(m.Streaks[i][1])
	}
	for _, n := range m.Debts {
		n.Name, n.Vantage, n.Trouble = m.Name, m.Vantage, m.Trouble
		t.Apply(n)
	}
	t.schedule(e, e.seen)
}
