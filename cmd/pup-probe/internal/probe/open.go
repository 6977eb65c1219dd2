package probe

import (
	"context"
	"sync"
)

// openConns finds the open connections of a run. The context of a run is one
// for all its checks, and a connection that registered with it would cost as
// much as all else around a check's exchange.
type openConns struct {
	mu   sync.Mutex
	last *runConns
}

// of gives the connections of a run; those of another run keep theirs.
func (o *openConns) of(run context.Context) *runConns {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil || o.last.run != run {
		o.last = &runConns{run: run}
	}
	return o.last
}

// runConns are connections that are interrupted when the context of their run
// ends. As long as there are any, it is registered with the context.
type runConns struct {
	run   context.Context
	mu    sync.Mutex
	stop  func() bool
	first *Conn
	ended bool
}

func (r *runConns) add(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		c.interrupt()
	}
	if r.first == nil {
		r.stop = context.AfterFunc(r.run, r.end)
	} else {
		r.first.prev = c
	}
	c.next, r.first = r.first, c
}

// remove does nothing with a connection that is no longer there.
func (r *runConns) remove(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case r.first == c:
		r.first = c.next
	default:
		return
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	if r.first == nil {
		r.stop()
	}
}

func (r *runConns) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for c := r.first; c != nil; c = c.next {
		c.interrupt()
	}
}
