// Package cron reads cron expressions and finds the times that they mean,
// with the rules of Vixie cron where clocks are changed.
package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// A Spec is a cron expression: sets of numbers, as bits, for each field.
type Spec struct {
	second, minute, hour, day, month, weekday uint64

	anyDay, anyWeekday bool // the field begins with *
	wild               bool // the minute or the hour begins with *
}

type field struct {
	name     string
	min, max int
	words    []string // for min, min+1, …
}

var fields = []field{
	{"second", 0, 59, nil},
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var nicknames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// Parse reads the five fields minute, hour, day of month, month and day of
// week, or six with the second in front, or a nickname such as @daily. A field
// is *, a number, a name, a range, any of these with a step, or a list.
func Parse(text string) (*Spec, error) {
	if text != "" && text[0] == '@' {
		known, ok := nicknames[strings.ToLower(text)]
		if !ok {
			return nil, fmt.Errorf("unknown nickname %.40q; there are @hourly, @daily, @weekly, @monthly, @yearly", text)
		}
		text = known
	}
	parts := strings.Fields(text)
	switch len(parts) {
	case 5:
		parts = append([]string{"0"}, parts...)
	case 6:
	default:
		return nil, fmt.Errorf("%d fields; a cron expression has 5 (minute, hour, day of month, month, day of week), or 6 with the second in front", len(parts))
	}
	var sets [6]uint64
	for i, f := range fields {
		set, err := f.parse(parts[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		sets[i] = set
	}
	star := func(i int) bool { return parts[i][0] == '*' }
	s := &Spec{
		sets[0], sets[1], sets[2], sets[3], sets[4], sets[5]&0x7f | sets[5]>>7,
		star(3), star(5), star(1) || star(2),
	}
	return s, nil
}

func (f *field) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		lo, hi := f.min, f.max
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			if lo, err = f.number(from); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if hi, err = f.number(to); err != nil {
					return 0, err
				}
			case !stepped:
				hi = lo
			}
		}
		if lo > hi {
			return 0, fmt.Errorf("the range %.20q runs backwards", span)
		}
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.max {
				return 0, fmt.Errorf("the step in %.20q is no number from 1 to %d", part, f.max)
			}
		}
		for n := lo; n <= hi; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

func (f *field) number(text string) (int, error) {
	for i, w := range f.words {
		if strings.EqualFold(text, w) {
			return f.min + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max || text[0] == '+' {
		return 0, fmt.Errorf("%.20q is not within %d-%d", text, f.min, f.max)
	}
	return n, nil
}

// horizon is how far Next looks: 29 February may be eight years away.
const horizon = 9 * 366 * 24 * time.Hour

// Next gives the first time after t, in t's location; the zero time when there
// is none.
//
// Where the clock is set forward, a job for a fixed time that does not exist
// runs when the clock has been set; where it is set back, it runs at the first
// of the two. A job whose minute or hour begins with * goes by the time that
// passes. A change of more than three hours is a correction: the times that it
// skips are not made up for.
func (s *Spec) Next(t time.Time) time.Time {
	if s.wild {
		return s.nextWild(t)
	}
	return s.nextFixed(t)
}

// nextWild goes by what clocks show, from one change of the clock to the next.
func (s *Spec) nextWild(t time.Time) time.Time {
	loc := t.Location()
	end := t.Add(horizon)
	for t = t.Truncate(time.Second).Add(time.Second); t.Before(end); {
		_, offset := t.Zone()
		_, change := t.ZoneBounds()
		if change.IsZero() || change.After(end) {
			change = end
		}
		if wall := s.search(t.Unix()+int64(offset), change.Unix()+int64(offset)); wall >= 0 {
			return time.Unix(wall-int64(offset), 0).In(loc)
		}
		t = change.In(loc)
	}
	return time.Time{}
}

// nextFixed goes by the calendar, and looks up when each time of it is.
func (s *Spec) nextFixed(t time.Time) time.Time {
	loc := t.Location()
	_, offset := t.Zone()
	wall := t.Unix() + int64(offset)
	for end := wall + int64(horizon/time.Second); ; wall++ {
		if wall = s.search(wall, end); wall < 0 {
			return time.Time{}
		}
		if at := instant(wall, loc); at.After(t) {
			return at
		}
	}
}

// search gives the first wall time from one up to another, but without it,
// that matches, or -1. Wall times are seconds since the epoch, as if the clock
// were in UTC.
func (s *Spec) search(wall, end int64) int64 {
	from := mod(wall, 86400)
	for midnight := wall - from; midnight < end; midnight, from = midnight+86400, 0 {
		if !s.onDay(time.Unix(midnight, 0).UTC()) {
			continue
		}
		if clock := s.clock(int(from)); clock >= 0 {
			if wall = midnight + int64(clock); wall < end {
				return wall
			}
			return -1
		}
	}
	return -1
}

func mod(a, b int64) int64 { return (a%b + b) % b }

// clock gives the first time of day from that second of the day on, or -1.
func (s *Spec) clock(from int) int {
	for from < 86400 {
		h, m, sec := from/3600, from/60%60, from%60
		if i := first(s.hour, h); i != h {
			if i < 0 {
				return -1
			}
			from = i * 3600
			continue
		}
		if i := first(s.minute, m); i != m {
			if from = (h + 1) * 3600; i >= 0 {
				from = h*3600 + i*60
			}
			continue
		}
		if i := first(s.second, sec); i != sec {
			if from = h*3600 + (m+1)*60; i >= 0 {
				from = h*3600 + m*60 + i
			}
			continue
		}
		return from
	}
	return -1
}

// first gives the lowest member of the set from n on, or -1.
func first(set uint64, n int) int {
	if rest := set >> n; rest != 0 {
		return n + bits.TrailingZeros64(rest)
	}
	return -1
}

// onDay tells whether the date matches. If both day of month and day of week
// are restricted, either will do.
func (s *Spec) onDay(date time.Time) bool {
	_, month, day := date.Date()
	if s.month>>month&1 == 0 {
		return false
	}
	byDay, byWeekday := s.day>>day&1 == 1, s.weekday>>date.Weekday()&1 == 1
	if s.anyDay || s.anyWeekday {
		return byDay && byWeekday
	}
	return byDay || byWeekday
}

// maxGap is the longest change of the clock whose times are made up for.
const maxGap = 3 * time.Hour

// instant finds the first time at which clocks in loc show the wall time,
// which is given as if it were UTC, or the end of the gap that it lies in. It
// is the zero time in a gap that is too long.
func instant(wall int64, loc *time.Location) time.Time {
	_, offset := time.Unix(wall, 0).In(loc).Zone()
	guess := time.Unix(wall-int64(offset), 0).In(loc)
	begin, end := guess.ZoneBounds()
	spans := make([]time.Time, 0, 3) // a time in each zone that comes into question
	if !begin.IsZero() {
		spans = append(spans, begin.Add(-1))
	}
	spans = append(spans, guess)
	if !end.IsZero() {
		spans = append(spans, end)
	}
	for i, in := range spans {
		_, offset := in.In(loc).Zone()
		at := time.Unix(wall-int64(offset), 0).In(loc)
		begin, end := in.In(loc).ZoneBounds()
		if i > 0 && at.Before(begin) { // shown by none: the clock was set over it
			_, before := begin.Add(-1).Zone()
			if time.Duration(offset-before)*time.Second > maxGap {
				return time.Time{}
			}
			return begin.In(loc)
		}
		if (begin.IsZero() || !at.Before(begin)) && (end.IsZero() || at.Before(end)) {
			return at
		}
	}
	return time.Time{}
}

// Weekdays reads a day-of-week field, as bits from Sunday.
func Weekdays(text string) (uint8, error) {
	set, err := fields[5].parse(text)
	return uint8(set&0x7f | set>>7), err
}
