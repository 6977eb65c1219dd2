package route

import (
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// take takes a batch into the state and into the journal's batch.
func (r *router) take(b *batch) {
	r.look()
	for i := range b.lines {
		l := &b.lines[i]
		if l.err == nil {
			r.accept(l, b.known)
		}
		if l.err != nil {
			r.bad++
		}
	}
	r.taken = b
}

// accept takes a line into the state, and notes in it what is wrong with it.
func (r *router) accept(l *lineAt, known bool) {
	text := l.Text
	if err := r.fields.scan(text); err != nil {
		l.err = &ndjson.LineError{No: l.No, Line: l.Raw, Err: err}
		return
	}
	l.json = true
	if known {
		return
	}
	if !r.fields.is(wire.TypeResult) {
		now := r.clock.observe(r.fields.moment())
		r.advance(now)
		if r.fields.is(wire.TypeRemoved) {
			r.removed(now)
		}
		r.sent(now)
		r.heard(now)
		return
	}
	if err := r.fields.result(&r.result, text, r.table.HearsEvery(), r.table.HearsDue()); err != nil {
		l.err = &ndjson.LineError{No: l.No, Line: l.Raw, Err: err}
		return
	}
	if s := wire.Status(r.result.Status.String()); s.Worse(r.worst) {
		r.worst = s
	}
	now := r.clock.observe(r.fields.moment())
	r.advance(now)
	r.varsOf = nil
	if r.spool != nil {
		r.spool.Result(text, now, r.clock.wall)
	}
	r.numbered(now)
	r.table.Observe(&r.result, now)
	if !r.ready || r.beatDue.IsZero() && r.table.HearsInput() {
		r.heard(now)
	}
}

// next is when something is due if no line comes.
func (r *router) next() time.Time {
	next := r.table.Next()
	if due := r.gaps.Next(); !due.IsZero() && (next.IsZero() || due.Before(next)) {
		next = due
	}
	if !r.beatDue.IsZero() && (next.IsZero() || r.beatDue.Before(next)) {
		return r.beatDue
	}
	return next
}

// advance has the state emit what is due. A dry run sees each event at its
// own time; a live one does not make up for what it slept through.
func (r *router) advance(now time.Time) {
	for next := r.next(); !next.IsZero() && !next.After(now); next = r.next() {
		if !r.DryRun {
			next = now
		}
		r.varsOf = nil
		r.table.Advance(next)
		r.missing = append(r.missing, r.gaps.Due(next, false)...)
		if !r.beatDue.IsZero() && !r.beatDue.After(next) {
			r.inputLost("no beat of pup-sched has come for "+strconv.Itoa(missedBeats)+" times as long as it should take", next)
		}
	}
}

// settle makes what was taken in accepted; then it is passed on, and then
// its hooks are called. It returns the batch once that is done. A full disk
// leaves all as it is, for another try.
func (r *router) settle() *batch {
	if r.spool != nil && !r.save() {
		return nil
	}
	b := r.taken
	if b != nil {
		r.pass(b)
	}
	for _, j := range r.pending {
		r.queue.Add(j)
	}
	r.admit()
	clear(r.pending)
	r.pending = r.pending[:0]
	r.taken = nil
	r.tellGaps()
	return b
}

// pass writes the lines of a batch.
func (r *router) pass(b *batch) {
	for i := range b.lines {
		l := &b.lines[i]
		if l.json && !r.DryRun {
			r.add(l.Raw)
		}
		if l.err != nil {
			r.buf = ndjson.AppendError(r.buf[:0], program, l.err)
			r.add(r.buf)
			r.log.printf("%v", l.err)
		}
	}
	r.flush()
}
