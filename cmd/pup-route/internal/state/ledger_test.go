package state

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A story is a random history with random rules: what happens, and what the
// hooks hear.
type story struct {
	rnd    *rand.Rand
	table  *Table
	rules  []Rule
	now    time.Time
	shut   map[string]bool // hooks that the gate keeps from hearing of problems
	failed bool            // when holds for no result
	still  bool            // neither of both changes
	places int             // how many vantages there are
	heard  []Event
	frames []func(*Table) // the journal: what replay does
}

func newStory(seed uint64) *story {
	s := &story{rnd: rand.New(rand.NewPCG(seed, 1)), now: epoch, shut: map[string]bool{}}
	s.places = 1 + s.rnd.IntN(3)
	for i := range 1 + s.rnd.IntN(4) {
		s.rules = append(s.rules, s.rule(fmt.Sprint("hook", i)))
	}
	s.start()
	s.table.SetRules(s.rules, 0, nil)
	return s
}

// rule makes one that hears of problems and of their end.
func (s *story) rule(hook string) Rule {
	r := Rule{Hook: hook, Recovered: true, Becomes: set(Down)}
	for _, status := range []Status{Degraded, Unknown, Stale, Flapping} {
		if s.rnd.IntN(3) == 0 {
			r.Becomes = r.Becomes.Add(status)
		}
	}
	switch s.rnd.IntN(4) {
	case 0:
		r.After.Count = 1 + s.rnd.IntN(4)
	case 1:
		r.After = Threshold{Count: 2, Of: 4}
	case 2:
		r.After.For = time.Duration(s.rnd.IntN(60)) * time.Second
	}
	if s.rnd.IntN(3) == 0 {
		r.RecoverAfter.Count = 1 + s.rnd.IntN(3)
	}
	if s.rnd.IntN(2) == 0 {
		r.Repeat = time.Duration(1+s.rnd.IntN(90)) * time.Second
	}
	if s.rnd.IntN(3) == 0 {
		r.Flap = 3 + s.rnd.IntN(5)
	}
	if s.rnd.IntN(3) == 0 {
		r.When = func([]byte) bool { return !s.failed }
	}
	if s.rnd.IntN(2) == 0 {
		r.Quorum = []Share{{Count: 1}, {Count: min(2, s.places)}, {Majority: true}, {Percent: 100}}[s.rnd.IntN(4)]
	}
	switch s.rnd.IntN(6) {
	case 0:
		r.Together = &Together{Names: []string{"name0", "name1", "name2"}, AtLeast: Share{Count: 1 + s.rnd.IntN(3)}}
	case 1:
		r.Together = &Together{Same: []string{"labels.net"}, AtLeast: Share{Percent: 50}}
	case 2, 3:
		r.Together = &Together{Same: []string{"labels.net", "labels.all"}, AtLeast: Share{Count: 2}, Cause: true, Within: time.Duration(1+s.rnd.IntN(60)) * time.Second}
	}
	return r
}

func (s *story) start() {
	s.table = New(func(e *Event) {
		c := *e
		c.Line = nil
		s.heard = append(s.heard, c)
	}, func(n *Note) {
		b, err := json.Marshal(n)
		if err != nil {
			panic(err)
		}
		s.frames = append(s.frames, func(t *Table) {
			var n Note
			if err := json.Unmarshal(b, &n); err != nil {
				panic(err)
			}
			t.Apply(n)
		})
	})
	s.table.ForgetAfter = 20 * time.Minute
	s.table.Gate = func(q Question) (string, time.Time) {
		if s.shut[s.rules[q.Rule].Hook] {
			return "shut", time.Time{}
		}
		return "", time.Time{}
	}
}

// restart throws the table away and makes it again, from a snapshot or from
// the journal.
func (s *story) restart(snapshot bool) {
	old := s.table
	s.start()
	s.table.SetRules(s.rules, 0, nil)
	if !snapshot {
		for _, f := range s.frames {
			f(s.table)
		}
		s.table.Resume(s.now)
		return
	}
	s.frames = nil
	old.Names(func(m *Memory) {
		b, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		line := m.Line
		f := func(t *Table) {
			var m Memory
			if err := json.Unmarshal(b, &m); err != nil {
				panic(err)
			}
			m.Line = line
			t.Restore(m)
		}
		f(s.table)
		s.frames = append(s.frames, f)
	})
	s.table.Resume(s.now)
}

// result is what one vantage says of a name.
func (s *story) result(name string, place int, status Status, run string) {
	s.table.Advance(s.now)
	net := 1 + (int(name[len(name)-1])+s.rnd.IntN(20)/19)%2 // seldom another
	r := Result{Name: []byte(name), Status: status, Every: 10 * time.Second, Due: s.now, Run: []byte(run),
		Line: fmt.Appendf(nil, `{"labels":{"net":"n%d","all":"all"}}`, net)}
	if place > 0 {
		r.Vantage = fmt.Append(nil, place)
	}
	now := s.now
	s.frames = append(s.frames, func(t *Table) { t.Replay(&r, now) })
	s.table.Observe(&r, s.now)
}

// measure is a run: what the vantages say of a name, most of them the same.
func (s *story) measure(name string, status Status) {
	run := ""
	if s.rnd.IntN(10) > 0 {
		run = name + s.now.String()
	}
	for _, place := range s.rnd.Perm(s.places) {
		said := status
		switch s.rnd.IntN(12) {
		case 0:
			continue
		case 1:
			said = Status(s.rnd.IntN(4))
		}
		s.result(name, place, said, run)
		if s.rnd.IntN(20) == 0 {
			s.result(name, place, said, run)
		}
	}
}

// step lets something happen.
func (s *story) step() {
	s.now = s.now.Add(time.Duration(1+s.rnd.IntN(12)) * time.Second)
	name := fmt.Sprint("name", s.rnd.IntN(4))
	switch kind := s.rnd.IntN(20); {
	case kind == 0 && !s.still:
		hook := fmt.Sprint("hook", s.rnd.IntN(4))
		s.shut[hook] = !s.shut[hook]
	case kind == 1 && !s.still:
		s.failed = !s.failed
	case kind == 2:
		s.now = s.now.Add(time.Duration(s.rnd.IntN(120)) * time.Second)
		s.table.Advance(s.now)
	case kind == 3 && s.rnd.IntN(2) == 0:
		s.table.Remove([]byte(name), s.now, s.now)
	case kind < 7:
		// All fail at once, or end that.
		status := []Status{Up, Down}[s.rnd.IntN(2)]
		for i := range 4 {
			s.measure(fmt.Sprint("name", i), status)
		}
	default:
		// Runs of one status, so that thresholds are reached.
		status := Status(s.rnd.IntN(4))
		for range 1 + s.rnd.IntN(5) {
			s.measure(name, status)
			s.now = s.now.Add(time.Duration(1+s.rnd.IntN(12)) * time.Second)
		}
	}
}

// reload changes the rules of hooks, and their order.
func (s *story) reload() {
	old := s.rules
	s.rules = nil
	moved := make([]int, len(old))
	for _, i := range s.rnd.Perm(len(old)) {
		moved[i] = len(s.rules)
		s.rules = append(s.rules, s.rule(old[i].Hook))
	}
	s.table.SetRules(s.rules, 0, moved)
	s.table.Resume(s.now)
}

// end lets all go well for so long that every debt must be paid.
func (s *story) end() {
	if s.rnd.IntN(3) == 0 {
		for i := range 4 {
			s.table.Remove(fmt.Append(nil, "name", i), s.now, s.now)
		}
		return
	}
	for i := range 60 {
		s.now = s.now.Add(9 * time.Second)
		for n := range 4 {
			for place := range s.places {
				s.result(fmt.Sprint("name", n), place, Up, fmt.Sprint("end", i))
			}
		}
	}
}

// ledger checks what one hook heard of one name: problems, and after them
// exactly one end that belongs to them.
func ledger(t *testing.T, seed uint64, who string, events []Event) {
	t.Helper()
	open, last := "", ""
	for i, e := range events {
		fail := func(why string) {
			var all []string
			for _, e := range events[:i+1] {
				all = append(all, e.Kind+"/"+e.Incident[:4])
			}
			t.Fatalf("seed %d, %s: %s: %s", seed, who, why, strings.Join(all, " "))
		}
		switch {
		case e.Kind == KindRecovered && open == "":
			fail("the end of a problem that it never heard of")
		case e.Kind == KindRecovered && e.Incident != open:
			fail("the end of another problem")
		case e.Kind == KindRecovered:
			open, last = "", ""
			continue
		case open != "" && e.Incident != open:
			fail("a new problem before the end of the last")
		case e.Kind == KindReminder && open == "":
			fail("a reminder of a problem that it never heard of")
		case e.Kind != KindReminder && e.Kind == last:
			fail("the same twice")
		}
		open = e.Incident
		if e.Kind != KindReminder {
			last = e.Kind
		}
	}
	if open != "" {
		t.Fatalf("seed %d, %s: never heard of the end of %s", seed, who, open)
	}
}

// by sorts what was heard by hook and name.
func (s *story) by() map[string][]Event {
	by := map[string][]Event{}
	for _, e := range s.heard {
		who := e.Hook + " of " + e.Name + " " + e.Vantage
		by[who] = append(by[who], e)
	}
	return by
}

func (s *story) check(t *testing.T, seed uint64) {
	t.Helper()
	jobs := map[string]bool{}
	for _, e := range s.heard {
		if jobs[e.Job] {
			t.Fatalf("seed %d: two calls have the job %s", seed, e.Job)
		}
		jobs[e.Job] = true
	}
	for who, events := range s.by() {
		ledger(t, seed, who, events)
	}
}

// TestLedger: who has heard of a problem hears of its end, exactly once,
// through conditions, gates, flapping, stale times and reloads.
func TestLedger(t *testing.T) {
	for seed := range uint64(150) {
		s := newStory(seed)
		for range 60 {
			s.step()
			if s.rnd.IntN(15) == 0 {
				s.reload()
			}
			if seed%10 == 0 {
				recount(s.table)
			}
		}
		s.end()
		s.check(t, seed)
	}
}

// TestRestartIsInvisible: with a restart after each step, from the journal
// or from a snapshot, the hooks hear exactly the same. Gates stay as they are:
// a restart asks them earlier than it would have been.
func TestRestartIsInvisible(t *testing.T) {
	for seed := range uint64(60) {
		whole, broken := newStory(seed), newStory(seed)
		whole.still, broken.still = true, true
		for i := range 40 {
			whole.step()
			broken.step()
			whole.table.Advance(whole.now)
			broken.table.Advance(broken.now)
			broken.restart(i%3 == 0)
		}
		whole.end()
		broken.end()
		heard, again := whole.by(), broken.by()
		for who := range heard {
			for i, e := range heard[who] {
				if i >= len(again[who]) || !reflect.DeepEqual(e, again[who][i]) {
					t.Fatalf("seed %d, %s: event %d differs:\n%+v\nwith restarts %+v", seed, who, i, e, again[who][i:min(i+1, len(again[who]))])
				}
			}
		}
		if len(whole.heard) != len(broken.heard) {
			t.Fatalf("seed %d: %d events, %d with restarts", seed, len(whole.heard), len(broken.heard))
		}
		whole.check(t, seed)
	}
}
