package state

import "testing"

// A witness remembers what a follower is told.
type witness struct {
	troubled map[seen]bool
	overs    int
}

// A seen is a name as a vantage sees it.
type seen struct{ name, vantage string }

func (w *witness) Trouble(q Question, status Status) { w.troubled[seen{q.Name, q.Vantage}] = true }

func (w *witness) Over(name, vantage string) {
	if w.troubled[seen{name, vantage}] { // else it was stale, and nobody heard of it
		w.overs++
	}
	delete(w.troubled, seen{name, vantage})
}

// TestFollower: no hook hears of a problem that the follower was not told of
// before, each problem is over once, and not before every hook has heard of
// its end.
func TestFollower(t *testing.T) {
	overs := 0
	for seed := range uint64(200) {
		s := newStory(seed)
		w := &witness{troubled: map[seen]bool{}}
		s.table.Follower = w
		s.table.emit = func(e *Event) {
			switch at := (seen{e.Name, e.Vantage}); {
			case e.Whole != nil || s.rules[e.Rule].Quorum != (Share{}): // it is of several
			case e.Kind == Stale.String() || e.Kind == Flapping.String():
				w.troubled[at] = true // by the clock, and no result says so
			case !w.troubled[at]:
				t.Fatalf("seed %d: %s hears of %s of %s, of which the follower knows nothing", seed, e.Hook, e.Kind, e.Name)
			}
		}
		for range 60 {
			s.step()
			for at := range w.troubled {
				if s.table.Quiet(at.name, at.vantage) {
					t.Fatalf("seed %d: %v is up, and nobody said that it is over", seed, at)
				}
			}
		}
		s.end()
		if len(w.troubled) > 0 {
			t.Fatalf("seed %d: never over: %v", seed, w.troubled)
		}
		overs += w.overs
	}
	if overs < 1000 {
		t.Errorf("only %d problems in all stories", overs)
	}
}
