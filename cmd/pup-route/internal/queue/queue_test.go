package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

func add(q *Queue[int], hook, key string, n int) {
	q.Add(&Job[int]{Hook: hook, Key: key, Size: 1, Load: n})
}

func take(t *testing.T, q *Queue[int], now time.Time, want string) *Job[int] {
	t.Helper()
	j := q.Take(now)
	got := "nothing"
	if j != nil {
		got = fmt.Sprintf("%s/%s %d #%d", j.Hook, j.Key, j.Load, j.Attempt)
	}
	if got != want {
		t.Fatalf("took %s, want %s", got, want)
	}
	return j
}

func TestOrderOfAName(t *testing.T) {
	q := New[int](10)
	q.SetLimit("a", 10)
	add(q, "a", "x", 1)
	add(q, "a", "x", 2)
	add(q, "a", "y", 3)
	j := take(t, q, start, "a/x 1 #1")
	take(t, q, start, "a/y 3 #1")
	take(t, q, start, "nothing")
	q.Again(j, start.Add(time.Minute))
	take(t, q, start, "nothing")
	if got := q.Next(); !got.Equal(start.Add(time.Minute)) {
		t.Errorf("next %v", got)
	}
	j = take(t, q, start.Add(time.Minute), "a/x 1 #2")
	q.Done(j, 0)
	q.Done(take(t, q, start, "a/x 2 #1"), 0)
	if q.Len() != 1 || q.Size() != 1 || q.Running() != 1 {
		t.Errorf("len %d, size %d, running %d", q.Len(), q.Size(), q.Running())
	}
}

func TestLimits(t *testing.T) {
	q := New[int](3)
	q.SetLimit("a", 2)
	for i := range 5 {
		add(q, "a", fmt.Sprint(i), i)
		add(q, "b", fmt.Sprint(i), i)
		add(q, "c", fmt.Sprint(i), i)
		add(q, "d", fmt.Sprint(i), i)
	}
	for _, want := range []string{"a/0 0 #1", "b/0 0 #1", "c/0 0 #1"} {
		take(t, q, start, want)
	}
	// The limit is reached, but a hook that runs nothing may run one.
	take(t, q, start, "d/0 0 #1")
	take(t, q, start, "nothing")
}

func TestHurry(t *testing.T) {
	q := New[int](1)
	add(q, "a", "x", 1)
	q.Again(take(t, q, start, "a/x 1 #1"), start.Add(time.Hour))
	take(t, q, start, "nothing")
	q.Hurry(false)
	take(t, q, start, "nothing")
	q.Hurry(true)
	j := take(t, q, start, "a/x 1 #2")
	j.Attempt-- // it was none
	q.Again(j, start.Add(time.Hour))
	q.Hurry(false)
	take(t, q, start, "nothing")
}

func TestGathered(t *testing.T) {
	q := New[int](1)
	for i := range 3 {
		q.Add(&Job[int]{Hook: "a", Load: i, After: start.Add(time.Minute)})
	}
	take(t, q, start, "nothing")
	j := take(t, q, start.Add(time.Minute), "a/ 0 #1")
	if behind := q.Behind(j, 1); len(behind) != 1 || behind[0].Load != 1 {
		t.Errorf("behind it: %v", behind)
	}
	q.Done(j, 1)
	q.Done(take(t, q, start.Add(time.Minute), "a/ 2 #1"), 0)
	if q.Len() != 0 {
		t.Errorf("%d jobs left", q.Len())
	}
	q.Add(&Job[int]{Hook: "a", Load: 3, After: start.Add(time.Hour)})
	q.Hurry(false)
	take(t, q, start, "a/ 3 #1")
}

// TestRandom: whatever happens, jobs of a lane end in their order, one at a
// time, and none is lost.
func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		q := New[int](1 + rnd.IntN(4))
		last, running := map[string]int{}, map[string]bool{}
		var taken []*Job[int]
		now, added, done := start, 0, 0
		for step := 0; done < 300; step++ {
			switch k := rnd.IntN(4); {
			case k == 0 && added < 300:
				added++
				add(q, fmt.Sprint("h", rnd.IntN(3)), fmt.Sprint("k", rnd.IntN(4)), added)
			case k == 1:
				now = now.Add(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				if j := q.Take(now); j != nil {
					lane := j.Hook + j.Key
					if running[lane] || j.Load <= last[lane] {
						t.Fatalf("seed %d: %s runs %d after %d", seed, lane, j.Load, last[lane])
					}
					running[lane] = true
					taken = append(taken, j)
				}
			case k > 1 && len(taken) > 0:
				i := rnd.IntN(len(taken))
				j := taken[i]
				taken = append(taken[:i], taken[i+1:]...)
				running[j.Hook+j.Key] = false
				if k == 2 {
					q.Again(j, now.Add(time.Duration(rnd.IntN(3000))*time.Millisecond))
				} else {
					last[j.Hook+j.Key] = j.Load
					q.Done(j, 0)
					done++
				}
			}
		}
		if q.Len() != 0 || q.Size() != 0 || q.Running() != 0 {
			t.Fatalf("seed %d: len %d, size %d, running %d at the end", seed, q.Len(), q.Size(), q.Running())
		}
	}
}

// TestHeld: a held job keeps its lane, not others, until it is released, and
// only then its time counts.
func TestHeld(t *testing.T) {
	q := New[int](10)
	q.SetLimit("a", 10)
	held := &Job[int]{Hook: "a", Key: "x", Load: 2, Held: true}
	later := &Job[int]{Hook: "a", Key: "z", Load: 5, Held: true, After: start.Add(time.Minute)}
	add(q, "a", "x", 1)
	q.Add(held)
	add(q, "a", "x", 3)
	add(q, "a", "y", 4)
	q.Add(later)
	first := take(t, q, start, "a/x 1 #1")
	if behind := q.Behind(first, 10); len(behind) != 0 {
		t.Errorf("%d jobs are gathered past one that is held", len(behind))
	}
	q.Done(first, 0)
	q.Done(take(t, q, start, "a/y 4 #1"), 0)
	q.Hurry(true)
	take(t, q, start, "nothing")
	if q.Ready() || !q.Next().IsZero() {
		t.Errorf("ready %v, next %v", q.Ready(), q.Next())
	}
	q.Release(held)
	q.Done(take(t, q, start, "a/x 2 #1"), 0)
	q.Done(take(t, q, start, "a/x 3 #1"), 0)
	q.Release(later)
	take(t, q, start, "nothing")
	take(t, q, start.Add(time.Minute), "a/z 5 #1")
	q.Release(&Job[int]{Held: true}) // not queued yet
}
