package state

import "testing"

// A witness remembers what a follower is told.
type witness struct {
	troubled map[string]bool
	overs    int
}

func (w *witness) Trouble(q Question, status Status) { w.troubled[q.Name] = true }

func (w *witness) Over(name, vantage string) {
	if w.troubled[name] { // else it was stale, and nobody heard of it
		w.overs++
	}
	delete(w.troubled, name)
}

// TestFollower: no hook hears of a problem that the follower was not told of
// before, each problem is over once, and not before every hook has heard of
// its end.
func TestFollower(t *testing.T) {
	overs := 0
	for seed := range uint64(200) {
		s := newStory(seed)
		s.places = 1 // with others the names of events are not those of results
		for i := range s.rules {
			s.rules[i].Quorum, s.rules[i].Together = Share{}, nil
		}
		s.table.SetRules(s.rules, 0, nil)
		w := &witness{troubled: map[string]bool{}}
		s.table.Follower = w
		s.table.emit = func(e *Event) {
			switch {
			case e.Kind == Stale.String() || e.Kind == Flapping.String():
				w.troubled[e.Name] = true // by the clock, and no result says so
			case !w.troubled[e.Name]:
				t.Fatalf("seed %d: %s hears of %s of %s, of which the follower knows nothing", seed, e.Hook, e.Kind, e.Name)
			}
		}
		for range 60 {
			s.step()
			for name := range w.troubled {
				if s.table.Quiet(name, "") {
					t.Fatalf("seed %d: %s is up, and nobody said that it is over", seed, name)
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
