// Package queue decides which job runs next: in order for each name of each
// hook, so many at once for each hook and for all, and later again what
// failed. It runs nothing and has no clock of its own.
package queue

import (
	"container/heap"
	"slices"
	"time"
)

// A Job is one call of a hook. What it carries is the caller's.
type Job[T any] struct {
	Hook    string
	Key     string    // jobs of a hook with the same key run one after the other
	Size    int       // bytes that it holds in memory
	Attempt int       // counts from 1 when it runs
	After   time.Time // it does not start before
	Held    bool      // it does not start before Release
	Load    T

	lane *lane[T]
}

// A lane holds the jobs of one key of one hook, the first of which may be
// running or waiting for another attempt.
type lane[T any] struct {
	hook *hook[T]
	key  string
	jobs []*Job[T]
	at   time.Time // not before
	ran  bool      // the first job has run and runs again
}

// A hook holds the lanes of one hook.
type hook[T any] struct {
	limit   int
	running int
	lanes   map[string]*lane[T]
	ready   []*lane[T] // may start now, in the order of becoming so
}

// A Queue holds the jobs of all hooks.
type Queue[T any] struct {
	limit   int
	running int
	hooks   map[string]*hook[T]
	order   []*hook[T]
	turn    int
	waiting waiting[T]
	jobs    int
	size    int
}

// New returns a queue that lets so many jobs run at once. Each hook may
// always run one, so that hooks which hang can't stop the others.
func New[T any](limit int) *Queue[T] {
	return &Queue[T]{limit: limit, hooks: map[string]*hook[T]{}}
}

// SetLimit says how many jobs of the hook may run at once.
func (q *Queue[T]) SetLimit(name string, limit int) { q.hook(name).limit = limit }

func (q *Queue[T]) hook(name string) *hook[T] {
	h := q.hooks[name]
	if h == nil {
		h = &hook[T]{limit: 1, lanes: map[string]*lane[T]{}}
		q.hooks[name] = h
		q.order = append(q.order, h)
	}
	return h
}

// Len is the number of jobs that have not ended, Size the bytes they hold.
func (q *Queue[T]) Len() int { return q.jobs }

// Size is the number of bytes that the jobs hold.
func (q *Queue[T]) Size() int { return q.size }

// Running is the number of jobs that have been taken and not given back.
func (q *Queue[T]) Running() int { return q.running }

// Ready reports whether a job could start, if limits allow.
func (q *Queue[T]) Ready() bool {
	for _, h := range q.order {
		if len(h.ready) > 0 {
			return true
		}
	}
	return false
}

// Add appends a job to its lane.
func (q *Queue[T]) Add(j *Job[T]) {
	h := q.hook(j.Hook)
	l := h.lanes[j.Key]
	if l == nil {
		l = &lane[T]{hook: h, key: j.Key}
		h.lanes[j.Key] = l
	}
	j.lane = l
	l.jobs = append(l.jobs, j)
	q.jobs++
	q.size += j.Size
	if len(l.jobs) == 1 {
		q.next(l)
	}
}

// next lets the first job of a lane start, or wait for its time.
func (q *Queue[T]) next(l *lane[T]) {
	l.ran = false
	if l.jobs[0].Held {
		return
	}
	if l.at = l.jobs[0].After; l.at.IsZero() {
		l.hook.ready = append(l.hook.ready, l)
	} else {
		heap.Push(&q.waiting, l)
	}
}

// Release lets a job start that was held.
func (q *Queue[T]) Release(j *Job[T]) {
	if j.Held = false; j.lane != nil && j.lane.jobs[0] == j {
		q.next(j.lane)
	}
}

// Behind returns the jobs that wait behind a job that runs and are not held,
// n at most.
func (q *Queue[T]) Behind(j *Job[T], n int) []*Job[T] {
	jobs := j.lane.jobs[1:]
	if i := slices.IndexFunc(jobs, func(j *Job[T]) bool { return j.Held }); i >= 0 {
		jobs = jobs[:i]
	}
	return slices.Clone(jobs[:min(n, len(jobs))])
}

// Take returns a job to run now, or nil. The hooks take turns.
func (q *Queue[T]) Take(now time.Time) *Job[T] {
	for len(q.waiting) > 0 && !q.waiting[0].at.After(now) {
		l := heap.Pop(&q.waiting).(*lane[T])
		l.hook.ready = append(l.hook.ready, l)
	}
	for i := range q.order {
		h := q.order[(q.turn+i)%len(q.order)]
		if len(h.ready) == 0 || h.running >= h.limit || q.running >= q.limit && h.running > 0 {
			continue
		}
		q.turn = (q.turn + i + 1) % len(q.order)
		l := h.ready[0]
		h.ready = h.ready[1:]
		h.running++
		q.running++
		j := l.jobs[0]
		j.Attempt++
		return j
	}
	return nil
}

// Next is when Take should be called again for a job that waits; the zero
// time if none does.
func (q *Queue[T]) Next() time.Time {
	if len(q.waiting) == 0 {
		return time.Time{}
	}
	return q.waiting[0].at
}

// Done takes a job that ran out of the queue, and the n behind it.
func (q *Queue[T]) Done(j *Job[T], n int) {
	l := q.release(j)
	for _, gone := range l.jobs[:1+n] {
		q.jobs--
		q.size -= gone.Size
	}
	if l.jobs = l.jobs[1+n:]; len(l.jobs) > 0 {
		q.next(l)
	} else {
		delete(l.hook.lanes, l.key)
	}
}

// Again puts a job that ran back to run at the given time. Later jobs of its
// lane wait behind it.
func (q *Queue[T]) Again(j *Job[T], at time.Time) {
	l := q.release(j)
	l.at, l.ran = at, true
	heap.Push(&q.waiting, l)
}

func (q *Queue[T]) release(j *Job[T]) *lane[T] {
	q.running--
	j.lane.hook.running--
	return j.lane
}

// Hurry makes the jobs that wait for their time ready at once: all, or only
// those that have not run yet.
func (q *Queue[T]) Hurry(all bool) {
	var rest waiting[T]
	for _, l := range q.waiting {
		if all || !l.ran {
			l.hook.ready = append(l.hook.ready, l)
		} else {
			rest = append(rest, l)
		}
	}
	heap.Init(&rest)
	q.waiting = rest
}

type waiting[T any] []*lane[T]

func (w waiting[T]) Len() int           { return len(w) }
func (w waiting[T]) Less(i, j int) bool { return w[i].at.Before(w[j].at) }
func (w waiting[T]) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting[T]) Push(x any)        { *w = append(*w, x.(*lane[T])) }
func (w *waiting[T]) Pop() any {
	old := *w
	l := old[len(old)-1]
	*w = old[:len(old)-1]
	return l
}
