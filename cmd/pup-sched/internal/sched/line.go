package sched

import (
	"strconv"
	"time"

	"pup/cmd/internal/wire"
)

// A stamp writes times in RFC 3339, UTC, with milliseconds. It remembers the
// last second, which most due times of a turn share.
type stamp struct {
	sec  int64
	text []byte
}

func (s *stamp) append(dst []byte, ms int64) []byte {
	sec := floorDiv(ms, 1000)
	if s.text == nil || s.sec != sec {
		s.sec = sec
		s.text = time.Unix(sec, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	dst = append(dst, s.text...)
	return append(appendMillis(dst, ms-sec*1000), 'Z')
}

func appendMillis(dst []byte, ms int64) []byte {
	return append(dst, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// appendRun writes the identity of one run: the name and the due time in
// seconds, with milliseconds if it is not a whole one.
func appendRun(dst, name []byte, due int64) []byte {
	sec := floorDiv(due, 1000)
	dst = append(append(dst, name...), '@')
	dst = strconv.AppendInt(dst, sec, 10)
	if ms := due - sec*1000; ms != 0 {
		dst = appendMillis(append(dst, '.'), ms)
	}
	return dst
}

// A run is one emission of a target.
type run struct {
	due         int64
	expires     int64  // 0: never
	every       int64  // to the next one; 0 when the head says it
	maintenance string // the window that is open, if one is
	series      string // which numbers seq is one of; "": nobody counts them
	seq         uint64
}

// newRun makes the run of a plan that is due then, and next at the other time.
func newRun(p *Plan, due, next int64, seq uint64) run {
	r := run{due: due, seq: seq, maintenance: p.maintenance(due)}
	if next != Never {
		r.expires = next
		if !p.Steady() {
			r.every = next - due
		}
	}
	return r
}

// A liner makes the lines of runs.
type liner struct {
	due, expires stamp
	buf          []byte
}

// line gives the whole line of a run without a newline. It is valid until the
// next call.
func (l *liner) line(t *Target, r run) []byte {
	b := append(l.buf[:0], t.Head...)
	if r.every > 0 {
		b = append(b, `,"every":"`...)
		b = append(b, wire.Duration(time.Duration(r.every)*time.Millisecond).String()...)
		b = append(b, '"')
	}
	if r.maintenance != "" {
		b = append(b, `,"maintenance":"`...)
		b = append(b, r.maintenance...)
		b = append(b, '"')
	}
	b = append(b, `,"due":"`...)
	b = l.due.append(b, r.due)
	if r.expires > 0 {
		b = append(b, `","expires":"`...)
		b = l.expires.append(b, r.expires)
	}
	b = append(b, `","run":"`...)
	b = appendRun(b, t.Name(), r.due)
	if r.series != "" {
		b = append(append(b, `","series":"`...), r.series...)
	}
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, r.seq, 10)
	l.buf = append(b, '}')
	return l.buf
}

// TailMax is the most that a line grows beyond its head and its name.
const TailMax = 320
