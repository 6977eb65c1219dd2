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
	Trouble   int64  `json:"trouble,omitempty"` // of the name, if no result began it
	Wait      int64  `json:"wait,omitempty"`    // it is not told by itself
	Line      []byte `json:"line,omitempty"`    // of several names together: what they show
	Forgotten bool   `json:"forgotten,omitempty"`
	Gone      int64  `json:"gone,omitempty"` // the name was removed then
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
	Left     int64       `json:"left,omitempty"` // when trouble last began, if it is over
	History  uint64      `json:"history,omitempty"`
	Verdicts int         `json:"verdicts,omitempty"`
	Seen     int64       `json:"seen"`
	Limit    int64       `json:"limit,omitempty"`
	Runs     [4]uint32   `json:"runs"`
	Line     []byte      `json:"-"` // the last result, where it is kept
	Debts    []Note      `json:"debts,omitempty"`

	Missed uint8             `json:"missed,omitempty"`
	Open   []measure         `json:"open,omitempty"`
	Values map[string]string `json:"values,omitempty"`
}

// noted hands on what a hook is told.
func (t *Table) noted(d *debt, r *Rule, e *entry, closed bool) { t.begun(d, r, e, closed, 0) }

// begun is noted for a problem that no result began: that is when it did.
func (t *Table) begun(d *debt, r *Rule, e *entry, closed bool, trouble int64) {
	if t.note == nil {
		return
	}
	n := d.note(r.Hook)
	n.Name, n.Vantage, n.Closed, n.Trouble = e.name, e.vantage, closed, trouble
	if e.whole != nil && !closed {
		n.Line = e.line
	}
	t.note(&n)
}

func (d *debt) note(hook string) Note {
	return Note{Hook: hook, Told: d.told, Notified: d.notified, Calls: d.calls, Incident: d.incident, Since: d.since, Remind: d.remind, Reminders: d.reminders, Wait: d.wait}
}

// Replay takes a result in that was accepted before: it counts, and nobody
// is told.
func (t *Table) Replay(r *Result, now time.Time) {
	e, _, _, _ := t.count(r, now.UnixNano(), false)
	if e == nil {
		return
	}
	t.schedule(e, e.seen)
	t.vote(e, r, e.seen, false)
}

// Apply takes a note in again.
func (t *Table) Apply(n Note) {
	if n.Gone != 0 {
		t.bury([]byte(n.Name), n.Gone)
		return
	}
	if n.Forgotten {
		t.unlink(t.entry([]byte(n.Name), []byte(n.Vantage)))
		return
	}
	i := slices.IndexFunc(t.rules, func(r Rule) bool { return r.Hook == n.Hook })
	if i < 0 {
		return // the hook is gone: nobody is left to be told
	}
	e := t.entry([]byte(n.Name), []byte(n.Vantage))
	e.drop(i)
	if !n.Closed {
		e.debts = append(e.debts, debt{rule: i, told: n.Told, notified: n.Notified, calls: n.Calls, incident: n.Incident, since: n.Since, remind: n.Remind, reminders: n.Reminders, wait: n.Wait})
	}
	switch {
	case e.quiet():
		e.ailing = false
	case !e.ailing && n.Trouble != 0: // it was not a result that began it
		e.ailing, e.trouble = true, n.Trouble
	}
	if len(n.Line) > 0 {
		e.line = n.Line
	}
	t.schedule(e, e.seen)
}

// Names calls f with the memory of every name.
func (t *Table) Names(f func(*Memory)) {
	for e := range t.all() {
		m := Memory{Name: e.name, Vantage: e.vantage, Verdict: e.verdict, Known: e.known, SeenUp: e.seenUp,
			Left: e.trouble, History: e.history, Verdicts: int(e.verdicts), Seen: e.seen, Limit: int64(e.limit), Runs: e.runs, Line: e.line}
		if e.ailing {
			m.Trouble, m.Left = e.trouble, 0
		}
		for i, s := range []streak{e.up, e.problem, e.down, e.unknown} {
			m.Streaks[i] = [2]int64{s.since, int64(s.count)}
		}
		for i := range e.debts {
			m.Debts = append(m.Debts, e.debts[i].note(t.rules[e.debts[i].rule].Hook))
		}
		m.Missed, m.Open = e.missed, e.open
		for i, v := range e.values {
			if v != "" {
				if m.Values == nil {
					m.Values = map[string]string{}
				}
				m.Values[t.paths[i].text] = v
			}
		}
		f(&m)
	}
}

// Restore takes the memory of a name back.
func (t *Table) Restore(m Memory) {
	e := t.entry([]byte(m.Name), []byte(m.Vantage))
	e.verdict, e.known, e.seenUp = m.Verdict, m.Known, m.SeenUp
	e.ailing, e.trouble = m.Trouble != 0, max(m.Trouble, m.Left)
	e.history, e.verdicts = m.History, uint8(m.Verdicts)
	e.seen, e.limit, e.runs = m.Seen, time.Duration(m.Limit), m.Runs
	if len(m.Line) > 0 {
		e.line = m.Line
	}
	for i, s := range []*streak{&e.up, &e.problem, &e.down, &e.unknown} {
		s.since, s.count = m.Streaks[i][0], int32(m.Streaks[i][1])
	}
	e.missed, e.open = m.Missed, m.Open
	t.last = max(t.last, e.seen)
	for i, p := range t.paths {
		if v, ok := m.Values[p.text]; ok {
			t.set(e, i, v)
		}
	}
	for _, n := range m.Debts {
		n.Name, n.Vantage, n.Trouble = m.Name, m.Vantage, m.Trouble
		t.Apply(n)
	}
	t.schedule(e, e.seen)
}
