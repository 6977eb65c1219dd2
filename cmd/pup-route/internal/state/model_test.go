package state

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// ballot is a reference for a quorum: who voted what in each run.
type ballot []map[string]Status

// outcome is what the last run comes to.
func (b ballot) outcome(quorum Share) Status {
	run := b[len(b)-1]
	counted := map[string]bool{} // who may be waited for: voted in this run or one of the three before
	for _, earlier := range b[max(0, len(b)-maxMissed):] {
		for v := range earlier {
			counted[v] = true
		}
	}
	verdicts, up, bad, down := 0, 0, 0, 0
	for v := range counted {
		status, voted := run[v]
		if status == Unknown && voted {
			continue
		}
		verdicts++
		switch {
		case !voted:
		case status == Up:
			up++
		case status == Down:
			down++
			bad++
		default:
			bad++
		}
	}
	switch n := quorum.Of(verdicts); {
	case down >= n:
		return Down
	case bad >= n:
		return Degraded
	case up >= n:
		return Up
	}
	return Unknown
}

// TestQuorumModel: what a hook hears by a quorum is what it would hear of one
// vantage that reports what the votes of each run come to.
func TestQuorumModel(t *testing.T) {
	type told struct {
		kind             string
		status, previous Status
	}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		s := story{rnd: rnd}
		rule := s.rule("h")
		rule.Together, rule.When, rule.Repeat, rule.After.For = nil, nil, 0, 0
		rule.Quorum = []Share{{Count: 1 + rnd.IntN(3)}, {Majority: true}, {Percent: 1 + rnd.IntN(100)}}[rnd.IntN(3)]
		alone := rule
		alone.Quorum = Share{}
		var got, want []told
		hear := func(to *[]told) func(*Event) {
			return func(e *Event) { *to = append(*to, told{e.Kind, e.Status, e.Previous}) }
		}
		joined, one := New(hear(&got), nil), New(hear(&want), nil)
		joined.SetRules([]Rule{rule}, 0, nil)
		one.SetRules([]Rule{alone}, 0, nil)
		var votes ballot
		now, places, mood := epoch, 1+rnd.IntN(5), Up
		absent := make([]int, places)
		for i := range 200 {
			now = now.Add(10 * time.Second)
			if rnd.IntN(6) == 0 {
				mood = Status(rnd.IntN(4))
			}
			run := map[string]Status{}
			for _, p := range rnd.Perm(places) {
				if absent[p]++; i > 0 && absent[p] < maxMissed-1 && rnd.IntN(5) == 0 {
					continue
				}
				absent[p] = 0
				status := mood
				if rnd.IntN(5) == 0 {
					status = Status(rnd.IntN(4))
				}
				vantage := fmt.Sprint("v", p)
				if len(run) == 0 {
					votes = append(votes, run)
				}
				run[vantage] = status
				joined.Observe(&Result{Name: []byte("web"), Vantage: []byte(vantage), Status: status, Run: fmt.Append(nil, i), Line: []byte("{}")}, now)
			}
			if len(run) > 0 {
				one.Observe(&Result{Name: []byte("web"), Status: votes.outcome(rule.Quorum), Line: []byte("{}")}, now)
			}
		}
		joined.Conclude(now)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d, quorum %v of %d:\n got %+v\nwant %+v", seed, rule.Quorum, places, got, want)
		}
	}
}

// crowd drives two hooks with the same histories: one that hears of each name
// by itself, which is the reference, and one that hears of them together.
type crowd struct {
	rnd   *rand.Rand
	table *Table
	now   time.Time
	each  map[string]time.Time // open for the reference, since
	held  map[string]time.Time // open for the other, since; names of wholes too
	last  map[string]Status    // the last result
	over  map[string]time.Time // when a whole that the name was a part of ended
	opens func(e *Event)       // looks at a whole that opens
}

func newCrowd(seed uint64, together *Together) *crowd {
	c := &crowd{rnd: rand.New(rand.NewPCG(seed, 3)), now: epoch, each: map[string]time.Time{}, held: map[string]time.Time{}, over: map[string]time.Time{}, last: map[string]Status{}}
	each := Rule{Hook: "each", Becomes: set(Down), Recovered: true, After: Threshold{Count: 1 + c.rnd.IntN(3)}, RecoverAfter: Threshold{Count: 1 + c.rnd.IntN(2)}}
	all := each
	all.Hook, all.Together = "together", together
	c.table = New(c.hear, nil)
	c.table.SetRules([]Rule{each, all}, 0, nil)
	return c
}

func (c *crowd) hear(e *Event) {
	open := c.each
	if e.Hook == "together" {
		open = c.held
	}
	if e.Kind != KindRecovered {
		open[e.Name] = c.now
		if e.Whole != nil && c.opens != nil {
			c.opens(e)
		}
		return
	}
	delete(open, e.Name)
	if e.Whole != nil {
		c.over[e.Name] = c.now
	}
}

// nets is what the names of a crowd share: name 5 is in n2, in p1 and in all.
func nets(i int) []string {
	return []string{fmt.Sprint("labels.net=n", i%3), fmt.Sprint("labels.pool=p", i%2)}
}

func (c *crowd) step() {
	c.now = c.now.Add(time.Duration(1+c.rnd.IntN(8)) * time.Second)
	c.table.Advance(c.now)
	say := func(i int, status Status) {
		c.last[fmt.Sprint("name", i)] = status
		c.table.Observe(&Result{Name: fmt.Append(nil, "name", i), Status: status, Line: fmt.Appendf(nil, `{"labels":{"net":"n%d","pool":"p%d"}}`, i%3, i%2)}, c.now)
	}
	switch kind := c.rnd.IntN(12); {
	case kind == 0: // a network goes, or comes back
		net, status := c.rnd.IntN(3), []Status{Up, Down}[c.rnd.IntN(2)]
		for range 3 {
			for i := range 9 {
				if i%3 == net {
					say(i, status)
				}
			}
		}
	case kind == 1:
		c.table.Remove(fmt.Append(nil, "name", c.rnd.IntN(9)), c.now, c.now)
	default:
		say(c.rnd.IntN(9), []Status{Up, Up, Down}[c.rnd.IntN(3)])
	}
	c.table.Advance(c.now)
	recount(c.table)
}

// recount checks what is kept of wholes against what their members owe.
func recount(table *Table) {
	for _, w := range table.wholes {
		counts := [places][statuses]int32{}
		members := 0
		for e := range table.all() {
			if !slices.Contains(e.wholes, w) {
				continue
			}
			members++
			if d := e.debt(w.key.rule); d != nil {
				how := byItself
				if d.wait > 0 {
					how = waits
				} else if d.wait == part {
					how = withWhole
				}
				counts[how][d.told]++
			}
		}
		if counts != w.counts || members != w.members {
			panic(fmt.Sprintf("%s has %d members and counts %v, want %d and %v", w.key.name, w.members, w.counts, members, counts))
		}
	}
}

// TestMembersModel: a hook with members has heard of a problem when, and only
// when, so many of them have one as another hook hears of each.
func TestMembersModel(t *testing.T) {
	for seed := range uint64(100) {
		n := 1 + int(seed%4)
		var named []string
		for i := range 5 {
			named = append(named, fmt.Sprint("name", i))
		}
		c := newCrowd(seed, &Together{Names: named, AtLeast: Share{Count: n}})
		for step := range 300 {
			c.step()
			bad := 0
			for _, name := range named {
				if _, open := c.each[name]; open {
					bad++
				}
			}
			if _, open := c.held["together"]; open != (bad >= n) || len(c.held) > 1 {
				t.Fatalf("seed %d, step %d: %d of %v have a problem; of at least %d was told: %v", seed, step, bad, named, n, c.held)
			}
		}
	}
}

// TestCommonCauseModel: whoever has a problem is told by itself or by a cause,
// within the time that a problem may wait; a cause is told only of enough
// names that have a problem, and nobody is told of twice.
func TestCommonCauseModel(t *testing.T) {
	const within = 30 * time.Second
	causes := 0
	for seed := range uint64(100) {
		c := newCrowd(seed, &Together{Same: []string{"labels.net", "labels.pool"}, AtLeast: Share{Count: 3}, Cause: true, Within: within})
		c.opens = func(e *Event) {
			causes++
			if len(e.Whole.Members) < 3 {
				t.Fatalf("seed %d: %s is told of %v", seed, e.Name, e.Whole.Members)
			}
			for _, m := range e.Whole.Members {
				if _, open := c.each[m.Vantage]; !open {
					t.Fatalf("seed %d: %s is told of %s, which has no problem", seed, e.Name, m.Vantage)
				}
				if _, open := c.held[m.Vantage]; open {
					t.Fatalf("seed %d: %s is told of %s, which was told by itself", seed, e.Name, m.Vantage)
				}
			}
		}
		for step := range 300 {
			c.step()
			for i := range 9 {
				name := fmt.Sprint("name", i)
				since, bad := c.each[name]
				_, told := c.held[name]
				for _, cause := range nets(i) {
					if _, open := c.held[cause]; open {
						told = true
					}
					if over := c.over[cause]; over.After(since) {
						since = over
					}
				}
				if bad && c.last[name] == Down && !told && c.now.Sub(since) > within {
					t.Fatalf("seed %d, step %d: nobody was told of %s, which has a problem for %v", seed, step, name, c.now.Sub(since))
				}
				if _, alone := c.held[name]; alone && !bad {
					t.Fatalf("seed %d, step %d: %s is told and has no problem", seed, step, name)
				}
			}
		}
	}
	if causes == 0 {
		t.Error("no history had a common cause")
	}
}
