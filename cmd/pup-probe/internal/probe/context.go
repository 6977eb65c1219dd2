package probe

import (
	"context"
	"sync/atomic"
	"time"
)

// An attemptContext is the context of an attempt. It has a deadline as
// context.WithDeadline would give it, but no timer until somebody asks for its
// Done channel: connections have deadlines of their own, and of ten thousand
// attempts that wait most need nothing else.
type attemptContext struct {
	context.Context // the run's
	deadline        time.Time
	armed           atomic.Pointer[armedContext]
}

type armedContext struct {
	context.Context
	cancel context.CancelFunc
}

// arm gives the context that does the work.
func (a *attemptContext) arm() *armedContext {
	if w := a.armed.Load(); w != nil {
		return w
	}
	w := &armedContext{}
	w.Context, w.cancel = context.WithDeadline(a.Context, a.deadline)
	if !a.armed.CompareAndSwap(nil, w) {
		w.cancel()
		return a.armed.Load()
	}
	return w
}

// end ends the context, and frees what was made.
func (a *attemptContext) end() {
	if !a.armed.CompareAndSwap(nil, ended) {
		a.armed.Load().cancel()
	}
}

var ended = func() *armedContext {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return &armedContext{ctx, cancel}
}()

// watched is what to watch for the end of ctx by those who keep to its deadline
// by themselves.
func (a *attemptContext) watched(ctx context.Context) context.Context {
	if ctx == context.Context(a) {
		return a.Context
	}
	return ctx
}

// Deadline is when the attempt has to be over.
func (a *attemptContext) Deadline() (time.Time, bool) { return a.deadline, true }

// Done starts the timer.
func (a *attemptContext) Done() <-chan struct{} { return a.arm().Done() }

// Err says why the context has ended, if it has.
func (a *attemptContext) Err() error {
	if w := a.armed.Load(); w != nil {
		return w.Err()
	}
	if err := a.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(a.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value gives the run's value.
func (a *attemptContext) Value(key any) any {
	if w := a.armed.Load(); w != nil {
		return w.Value(key) // so that contexts below find the one that ends them
	}
	return a.Context.Value(key)
}
