package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// A streak counts results in a row that have something in common.
type streak struct {
	since int64 // nanoseconds since 1970, of the first
	count int32
}

func (s *streak) add(now int64) {
	if s.count == 0 {
		s.since = now
	}
	if s.count < 1<<30 {
		s.count++
	}
}

// A debt is what a hook was last told of a name that is not up. No debt
// means that the hook takes the name to be up.
type debt struct {
	rule      int
	told      Status
	notified  bool // false: followed in silence, nobody was called
	calls     int32
	reminders int32
	incident  string
	since     int64 // start of the incident
	remind    int64 // when the next reminder is due; 0: never
	wait      int64 // why it is not told by itself: see together.go
}

// An entry is the memory of one name, as one vantage sees it. Others see it as
// a quorum of vantages does, or stand for several names or for the input:
// their vantage begins with a zero byte.
type entry struct {
	name, vantage string
	next          *entry // of the same name, as another vantage sees it
	verdict       Status // of the last result that was one
	known         bool   // there was a verdict
	seenUp        bool   // and once it was up
	lost          bool   // it stands for the input, which is lost
	stale         bool   // the last result is too long ago
	ailing        bool   // it has left up
	up            streak
	problem       streak // degraded or worse
	down          streak
	unknown       streak
	trouble       int64 // when it was last seen to leave up
	seen          int64
	limit         time.Duration // stale after; 0: never
	runs          [4]uint32
	debts         []debt
	line          []byte // the last result, kept while it may be needed
	history       uint64 // the last verdicts, two bits each, the newest lowest
	again         int64  // when a gate wants to be asked again; 0: never
	wake          int64  // when the entry is due in the heap; 0: not in it
	place         int32  // in the heap
	verdicts      uint8  // how many are in history
	missed        uint8  // measurements that have begun since its last vote
	open          []measure
	decided       int64    // when the last measure was
	values        []string // what the paths of rules with Together have shown
	wholes        []*whole // that it is a part of
	whole         *whole   // that it stands for
}

// made reports that the entry is none of a single vantage.
func (e *entry) made() bool { return strings.HasPrefix(e.vantage, "\x00") }

// looksAt reports whether the rule is to be judged for the entry.
func (r *Rule) looksAt(e *entry) bool {
	switch {
	case r.Always || e.whole != nil:
		return false
	case e.vantage == theInput:
		return true
	case e.made():
		return r.view == e.vantage
	}
	return r.view == ""
}

// repeated reports whether the run was among the last ones, and notes it.
func (e *entry) repeated(run uint32) bool {
	for _, h := range e.runs {
		if h == run {
			return true
		}
	}
	copy(e.runs[1:], e.runs[:3])
	e.runs[0] = run
	return false
}

// leave notes that the name is not up any more. No two of its problems begin at
// the same time, since that is a part of their identity.
func (e *entry) leave(now int64) {
	if !e.ailing {
		e.ailing, e.trouble = true, max(now, e.trouble+1)
	}
}

// count counts a result. An unknown one neither breaks nor lengthens a run of
// verdicts: it says nothing about the target.
func (e *entry) count(r *Result, now int64) {
	e.seen, e.stale = now, false
	e.limit = 0
	if r.Every > 0 {
		e.limit = 2*r.Every + r.Timeout
	}
	if r.Status == Unknown {
		e.unknown.add(now)
		e.leave(now)
		return
	}
	e.verdict, e.known = r.Status, true
	e.history = e.history<<2 | uint64(r.Status)
	e.verdicts = min(e.verdicts+1, MaxOf)
	e.unknown = streak{}
	if r.Status == Up {
		e.up.add(now)
		e.seenUp = true
		e.problem, e.down = streak{}, streak{}
		e.ailing = false
		return
	}
	e.up = streak{}
	e.problem.add(now)
	if r.Status == Down {
		e.down.add(now)
	} else {
		e.down = streak{}
	}
	e.leave(now)
}

// quiet reports that the name is up, nobody believes otherwise, and its past
// says nothing else.
func (e *entry) quiet() bool {
	return e.verdict == Up && e.unknown.count == 0 && !e.stale && !e.lost && len(e.debts) == 0
}

// among counts the last n verdicts that are at least as bad as worst.
func (e *entry) among(n int, worst Status) (count int) {
	for i := range min(n, int(e.verdicts)) {
		if Status(e.history>>(2*i)&3) >= worst {
			count++
		}
	}
	return count
}

// changes counts the changes between up and not up among the last verdicts.
func (e *entry) changes() (count int) {
	for i := range min(FlapOf, int(e.verdicts)) - 1 {
		if (e.history>>(2*i)&3 == 0) != (e.history>>(2*i+2)&3 == 0) {
			count++
		}
	}
	return count
}

// flapping reports whether the name flaps, by the rule's measure.
func (e *entry) flapping(r *Rule) bool { return r.Flap > 0 && e.changes() >= r.Flap }

// current returns the status of the name as the rule sees it, and the
// streak of results that confirms it.
func (e *entry) current(r *Rule) (Status, streak) {
	switch {
	case e.lost:
		return InputLost, streak{since: e.seen}
	case e.stale && r.tracked.Has(Stale):
		return Stale, streak{since: e.seen}
	case r.tracked.Has(Flapping) && e.flapping(r):
		return Flapping, streak{since: e.seen, count: int32(e.changes())}
	case e.unknown.count > 0 && r.tracked.Has(Unknown):
		return Unknown, e.unknown
	case e.verdict == Up:
		return Up, e.up
	case e.verdict == Down && !r.tracked.Has(Degraded):
		return Down, e.down
	}
	return e.verdict, e.problem
}

// theInput is the vantage of the entry that stands for the input as a whole.
// No line has it: it is no printable text.
const theInput = "\x00"

// Input takes in that the input is lost, or is there again. The line is what
// an event shows as its result.
func (t *Table) Input(lost bool, line []byte, now time.Time) {
	e := t.entry([]byte("input"), []byte(theInput))
	if !lost && !e.lost && len(e.debts) == 0 {
		return
	}
	n := now.UnixNano()
	e.lost, e.seen, e.seenUp = lost, n, true
	e.line = append(e.line[:0], line...)
	e.leave(n)
	t.judge(e, n)
	t.schedule(e, n)
}

// HearsInput reports whether a rule wants to know of a lost input.
func (t *Table) HearsInput() bool { return t.hearInput }

// incident names the problem that a name has: the same name and beginning
// give the same incident, also after a restart.
func incident(e *entry) string {
	return id(e.name, e.vantage, strconv.FormatInt(e.trouble, 10))[:16]
}

// id derives an identifier of 32 hexadecimal digits from its parts.
func id(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// hash shortens a run; runs are compared by it within one name only.
func hash(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }
