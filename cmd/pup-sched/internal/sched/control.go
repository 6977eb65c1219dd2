package sched

import (
	"time"
)

// A Signal is news of a target from further down the pipe.
type Signal struct {
	Name    string
	Recheck bool // make it due now
	Up      bool // the verdict, if Recheck is not set
}

// A mood is what is known of a target from signals.
type mood struct {
	failing bool
	since   time.Time // of being up
}

// backlog is how many signals may wait. More are dropped: they are hints, and
// whoever sends them must never wait for us, since we may be waiting for them.
const backlog = 1024

// Signal takes news of a target. It does not wait.
func (s *Scheduler) Signal(sig Signal) {
	select {
	case s.signals <- sig:
	default:
	}
}

// heed acts on a signal.
func (s *Scheduler) heed(sig Signal) {
	if s.index == nil {
		s.index = make(map[string]uint32, len(s.targets))
		for i := range s.targets {
			s.index[string(s.targets[i].Name())] = uint32(i)
		}
	}
	i, ok := s.index[sig.Name]
	if !ok {
		return
	}
	now := s.clock()
	if sig.Recheck {
		s.move(i, now)
		return
	}
	p := s.targets[i].Plan
	if p.Failing == nil && p.Relaxed == nil {
		return
	}
	before := s.planOf(i)
	m := s.moods[sig.Name]
	switch {
	case !sig.Up:
		m = mood{failing: true}
	case m.failing || m.since.IsZero():
		m = mood{since: time.Now()}
	}
	s.moods[sig.Name] = m
	if after := s.planOf(i); after != before {
		s.move(i, s.targets[i].dueBy(after, now))
	}
}

// planOf gives the plan that target i is on now.
func (s *Scheduler) planOf(i uint32) *Plan {
	p := s.targets[i].Plan
	if p.Failing == nil && p.Relaxed == nil {
		return p
	}
	m, known := s.moods[string(s.targets[i].Name())]
	switch {
	case !known:
	case m.failing && p.Failing != nil:
		return p.Failing
	case !m.failing && p.Relaxed != nil && time.Since(m.since) >= p.RelaxAfter:
		return p.Relaxed
	}
	return p
}

// move makes target i due at another time than the queue says. The entry that
// is there already is dropped when its time comes.
func (s *Scheduler) move(i uint32, due int64) {
	if due == Never {
		return
	}
	s.moved[i] = due
	s.queue.push(entry{due, i})
}
