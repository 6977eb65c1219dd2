// Package sched says when targets are due, and writes their lines then.
package sched

import (
	"bytes"
	"math"
	"time"

	"pup/cmd/pup-sched/internal/cron"
)

// Never is a due time that does not come.
const Never int64 = math.MaxInt64

// A Plan says when a target is due: on a grid of Every, or as Cron says, and
// only in its active windows, if it has any. Many targets share a plan.
type Plan struct {
	Text        string        // for people; "" if the line says it all
	Every       time.Duration // whole milliseconds; 0 with Cron
	Cron        *cron.Spec
	Zone        *time.Location // of Cron
	Active      []*Window
	Maintenance []*Window

	Failing    *Plan         // while the target is not up; may be nil
	Relaxed    *Plan         // once it has been up for RelaxAfter; may be nil
	RelaxAfter time.Duration // of Relaxed
}

// plain tells whether every run follows the last one by Every.
func (p *Plan) plain() bool { return p.Cron == nil && len(p.Active) == 0 }

// Steady tells whether the head of a line can say how often the target is due.
func (p *Plan) Steady() bool { return p.plain() && p.Relaxed == nil }

// Next gives the first time after the given one at which a target of that
// splay is due. All are milliseconds since the epoch.
func (p *Plan) Next(after, splay int64) int64 {
	for {
		due := p.next(after, splay)
		if due == Never {
			return Never
		}
		opens := opening(p.Active, due)
		if opens <= due {
			return due
		}
		if opens == Never {
			return Never
		}
		after = opens - 1
	}
}

func (p *Plan) next(after, splay int64) int64 {
	if p.Cron != nil {
		t := p.Cron.Next(time.UnixMilli(after).In(p.Zone))
		if t.IsZero() {
			return Never
		}
		return t.UnixMilli()
	}
	every := p.Every.Milliseconds()
	n := after - splay
	q := n / every
	if n%every < 0 {
		q-- // round down before the epoch too
	}
	return splay + (q+1)*every
}

// A Target is a line to write and the plan for it. Its name is the first
// member of the line after the type.
type Target struct {
	Head []byte // the line without its end: Prefix, the name, and all that does not change
	Plan *Plan
}

// Prefix is what every target line begins with.
const Prefix = `{"v":1,"type":"target","name":"`

// Name is the target's identity. It needs no unescaping: names are made of
// letters, digits and a few signs.
func (t *Target) Name() []byte {
	name := t.Head[len(Prefix):]
	return name[:bytes.IndexByte(name, '"')]
}

// Hash is FNV-1a with the finisher of MurmurHash3. What is made of it stays as
// it is for ever: due times and shards.
func Hash[S ~string | ~[]byte](name S) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Splay is the place of a name on its grid, in milliseconds from 0 to every:
// evenly spread, and without any state.
func Splay(name []byte, every time.Duration) int64 {
	if every <= 0 {
		return 0
	}
	return int64(Hash(name) % uint64(every.Milliseconds()))
}

// Due gives the first time after the given one at which the target is due, in
// milliseconds since the epoch.
func (t *Target) Due(after int64) int64 { return t.dueBy(t.Plan, after) }

func (t *Target) dueBy(p *Plan, after int64) int64 {
	return p.Next(after, Splay(t.Name(), p.Every))
}

// next gives the due time that follows one on the grid.
func (t *Target) next(due int64) int64 {
	if t.Plan.plain() {
		return due + t.Plan.Every.Milliseconds()
	}
	return t.Due(due)
}
