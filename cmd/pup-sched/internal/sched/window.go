package sched

import (
	"fmt"
	"time"

	"pup/cmd/pup-sched/internal/cron"
)

// A Window is a span of time, once or again and again. It is never spelled out
// into instants, only asked.
type Window struct {
	Name string

	begin, end int64 // once, in milliseconds since the epoch

	from *cron.Spec // opens
	to   *cron.Spec // closes; nil with span
	span time.Duration
	days uint8 // whole days, as bits from Sunday; from is their midnight
	zone *time.Location
}

// Onetime is the window from begin up to, but without, end.
func Onetime(name string, begin, end time.Time) *Window {
	return &Window{Name: name, begin: begin.UnixMilli(), end: end.UnixMilli()}
}

// Recurring is the window that opens when start says, and lasts for span.
func Recurring(name string, start *cron.Spec, span time.Duration, zone *time.Location) *Window {
	return &Window{Name: name, from: start, span: span, zone: zone}
}

// Daily is the window on the given days of the week, bits from Sunday, between
// two times of day in minutes; one that does not end after it begins ends on
// the next day. From 0 to 24 h it is the whole day.
func Daily(name string, days uint8, from, to int, zone *time.Location) *Window {
	w := &Window{Name: name, zone: zone, from: weekly(days, from)}
	switch {
	case from == 0 && to == 24*60:
		w.days = days
	case to > from && to < 24*60:
		w.to = weekly(days, to)
	default:
		w.to = weekly(days<<1|days>>6, to%(24*60))
	}
	return w
}

// weekly is the time of day, in minutes, on those days.
func weekly(days uint8, minutes int) *cron.Spec {
	list := ""
	for d := range 7 {
		if days>>d&1 == 1 {
			list += fmt.Sprintf(",%d", d)
		}
	}
	s, err := cron.Parse(fmt.Sprintf("%d %d * * %s", minutes%60, minutes/60, list[1:]))
	if err != nil {
		panic(err) // numbers in their bounds
	}
	return s
}

// open tells whether the window is open at that time, in milliseconds since
// the epoch.
func (w *Window) open(ms int64) bool {
	t := time.UnixMilli(ms)
	switch {
	case w.from == nil:
		return w.begin <= ms && ms < w.end
	case w.days != 0:
		return w.days>>t.In(w.zone).Weekday()&1 == 1
	case w.to == nil:
		start := w.from.Next(t.Add(-w.span).In(w.zone))
		return !start.IsZero() && !start.After(t)
	}
	t = t.In(w.zone)
	// open if it closes before it opens
	return w.to.Next(t).Before(w.from.Next(t))
}

// opens gives the first time from ms on at which the window is open.
func (w *Window) opens(ms int64) int64 {
	if w.open(ms) {
		return ms
	}
	if w.from == nil {
		if ms < w.begin {
			return w.begin
		}
		return Never
	}
	for {
		next := w.from.Next(time.UnixMilli(ms).In(w.zone))
		if next.IsZero() {
			return Never
		}
		// where the clock jumps over the whole window, it does not open
		if ms = next.UnixMilli(); w.open(ms) {
			return ms
		}
	}
}

// opening gives the first time from ms on at which one of the windows is open:
// ms itself when one is open then, or when there are none.
func opening(windows []*Window, ms int64) int64 {
	if len(windows) == 0 {
		return ms
	}
	first := Never
	for _, w := range windows {
		first = min(first, w.opens(ms))
	}
	return first
}
