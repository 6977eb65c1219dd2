package route

import (
	"bytes"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/queue"
	"pup/cmd/pup-route/internal/state"
)

// A diagnosis is the part of a router that runs diagnose commands.
type diagnosis struct {
	troubles map[string]*trouble // by name and vantage
	swept    time.Time
	wanted   []*exam        // called for by results that are not accepted yet
	waiting  []*exam        // for their turn
	size     int            // bytes of the lines in both
	running  map[string]int // by command
	stops    map[*exam]*hook.Stop
	examined chan examined
	awaiting []hold // in order; of those at its front some need no more
}

func newDiagnosis() diagnosis {
	return diagnosis{troubles: map[string]*trouble{}, running: map[string]int{}, stops: map[*exam]*hook.Stop{}, examined: make(chan examined)}
}

// An exam is one run of a diagnose command.
type exam struct {
	*finding
	trouble *trouble
	command *config.Hook
	env     []string
	line    []byte
	began   time.Time
}

// examined is an exam that has ended.
type examined struct {
	exam    *exam
	outcome hook.Outcome
}

// A hold is a call of a hook that waits for the findings of a trouble.
type hold struct {
	until   time.Time
	trouble *trouble
	job     *queue.Job[*call]
}

// maxExams is how many bytes of lines may wait for a diagnose command. They
// are a help, so more problems at once go without.
const maxExams = 4 << 20

// diagnose calls for the diagnose commands that fit the result at hand and
// have not been run for the problem.
func (r *router) diagnose(q state.Question, status state.Status) {
	for i := range r.Config.Diagnoses {
		d := &r.Config.Diagnoses[i]
		if !d.Rule.Becomes.Has(status) || d.When != nil && !r.holds(d.When, q.Line) {
			continue
		}
		t := r.troubles[q.Name+"\x00"+q.Vantage]
		if t != nil && slices.ContainsFunc(t.Found, func(f *finding) bool { return f.Name == d.Name }) {
			continue
		}
		if reason, _ := r.gateFor("", q); reason != "" {
			return // nobody will hear of it now
		}
		if t = r.trouble(q.Name, q.Vantage); t == nil {
			return
		}
		r.want(t, d, q, status)
	}
}

// want notes that a diagnose command is to run once the result is accepted.
func (r *router) want(t *trouble, d *config.Hook, q state.Question, status state.Status) {
	ev := &state.Event{Hook: d.Name, Kind: kindDiagnose, Name: q.Name, Vantage: q.Vantage, Status: status, First: true,
		Since: q.Since, For: q.Now.Sub(q.Since), Incident: q.Incident, Job: d.Name + "-" + q.Incident, Line: q.Line}
	e := &exam{finding: &finding{Name: d.Name}, trouble: t, command: d, env: environ(d.Name, ev), line: append(appendEvent(nil, d.Name, ev, q.Now), '\n')}
	t.Found = append(t.Found, e.finding)
	switch {
	case r.DryRun:
		e.ended, e.Error = true, "a dry run runs nothing"
		r.add(bytes.TrimSuffix(e.line, []byte("\n")))
		return
	case r.size+len(e.line) > maxExams:
		e.ended, e.Error = true, "too many names have failed at once"
	default:
		r.size += len(e.line)
		t.exams = append(t.exams, e)
		r.wanted = append(r.wanted, e)
	}
	r.keepTrouble(t)
}

// kindDiagnose is the kind of the event that a diagnose command gets.
const kindDiagnose = "diagnose"

// admit lets the exams of accepted results run.
func (r *router) admit() {
	r.waiting = append(r.waiting, r.wanted...)
	clear(r.wanted)
	r.wanted = r.wanted[:0]
}

// examine starts the exams whose turn it is.
func (r *router) examine() {
	kept := r.waiting[:0]
	for _, e := range r.waiting {
		if r.running[e.command.Name] >= e.command.Jobs {
			kept = append(kept, e)
			continue
		}
		r.running[e.command.Name]++
		stop := hook.NewStop()
		r.stops[e] = stop
		e.began = r.Wall()
		go func() { r.examined <- examined{e, e.command.Command.Run(stop, e.env, e.line)} }()
	}
	clear(r.waiting[len(kept):])
	r.waiting = kept
}

// examining reports whether exams run.
func (r *router) examining() bool { return len(r.stops) > 0 }

// found takes in how an exam ended.
func (r *router) found(x examined) {
	e := x.exam
	r.running[e.command.Name]--
	delete(r.stops, e)
	e.Took = r.Wall().Sub(e.began)
	e.Exit = max(0, x.outcome.Exit)
	switch {
	case x.outcome.Canceled:
		e.Error, e.Took = unfinished, 0
	case x.outcome.Err != nil && x.outcome.Exit < 0:
		e.Error = x.outcome.Err.Error()
		r.log.printf("diagnose %s for %s: %s", e.Name, ndjson.Printable(ndjson.Cut(e.trouble.name, 100)), e.Error)
	}
	share := maxFinding / max(len(r.Config.Diagnoses), len(e.trouble.Found))
	e.Output, e.Cut = end(string(bytes.TrimSpace(x.outcome.Output)), share)
	r.conclude(e)
}

// conclude ends an exam: what waits for it need not any more.
func (r *router) conclude(e *exam) {
	t := e.trouble
	e.ended = true
	r.size -= len(e.line)
	t.exams = slices.DeleteFunc(t.exams, func(x *exam) bool { return x == e })
	if !t.over {
		r.keepTrouble(t)
	}
	if len(t.exams) == 0 {
		for _, j := range t.held {
			r.release(t, j)
		}
		t.held = nil
	}
}

// hold has a call of a hook wait for what is pending of the trouble, for
// diagnose_wait at most. Bare is its event without the findings.
func (r *router) hold(t *trouble, j *queue.Job[*call], bare []byte) {
	j.Held = true
	j.Size += maxFinding
	j.Load.bare = bare
	t.held = append(t.held, j)
	r.awaiting = append(r.awaiting, hold{r.clock.wall.Add(r.Config.DiagnoseWait), t, j})
}

// holding reports whether calls wait for findings.
func (r *router) holding() bool {
	for len(r.awaiting) > 0 && !r.awaiting[0].job.Held {
		r.awaiting = r.awaiting[1:]
	}
	return len(r.awaiting) > 0
}

// release gives a call what has been found, and lets it start.
func (r *router) release(t *trouble, j *queue.Job[*call]) {
	c := j.Load
	c.job.Event = t.attach(c.bare, tooLate)
	c.bare = nil
	if r.spool != nil && r.spool.Open(c.job.ID) {
		if err := r.spool.Event(c.job); err != nil {
			r.fail("write the spool", err)
		}
	}
	r.queue.Release(j)
}

// overdue releases the calls that have waited long enough.
func (r *router) overdue() {
	for r.holding() && !r.awaiting[0].until.After(r.clock.wall) {
		h := r.awaiting[0]
		r.release(h.trouble, h.job)
		t := h.trouble
		if t.held = slices.DeleteFunc(t.held, func(j *queue.Job[*call]) bool { return j == h.job }); len(t.held) == 0 && t.over {
			r.drop(t)
		}
	}
	if r.clock.wall.Sub(r.swept) >= sweepEvery {
		r.sweep()
	}
}

// drop ends the exams of a trouble.
func (r *router) drop(t *trouble) {
	mine := func(e *exam) bool { return e.trouble == t }
	for _, list := range []*[]*exam{&r.wanted, &r.waiting} {
		for _, e := range *list {
			if mine(e) {
				r.size -= len(e.line)
			}
		}
		*list = slices.DeleteFunc(*list, mine)
	}
	for _, e := range t.exams {
		if s := r.stops[e]; s != nil {
			s.Ask()
		}
	}
}

// abandon ends all exams, at once if kill: no event will tell of them.
func (r *router) abandon(kill bool) {
	for _, e := range r.waiting {
		r.size -= len(e.line)
	}
	r.waiting = nil
	for _, s := range r.stops {
		if s.Ask(); kill {
			s.Kill()
		}
	}
}

// maxFinding is how many bytes of an event line what diagnose commands
// printed may take, all of one problem together.
const maxFinding = 4096

// end returns as much of the end of s as takes n bytes in a line.
func end(s string, n int) (tail string, cut bool) {
	tail = s
	for len(ndjson.AppendString(nil, tail)) > n {
		tail = tail[max(1, len(tail)/8):]
		for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
			tail = tail[1:]
		}
		cut = true
	}
	if _, rest, ok := strings.Cut(tail, "\n"); cut && ok && rest != "" {
		tail = rest // from the first whole line on
	}
	return tail, cut
}
