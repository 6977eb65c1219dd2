package sched

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pup/cmd/pup-sched/internal/cron"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

const (
	workdays = 0b0111110
	everyDay = 0b1111111
)

func TestWindowOpen(t *testing.T) {
	berlin, newYork := zone(t, "Europe/Berlin"), zone(t, "America/New_York")
	first, err := cron.Parse("0 22 1 * *")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 12, 1, 20, 0, 0, 0, time.UTC)
	office := Daily("office", workdays, 8*60, 18*60, berlin)
	night := Daily("night", workdays, 22*60, 6*60, berlin)
	evening := Daily("evening", everyDay, 18*60, 24*60, berlin)
	weekend := Daily("weekend", 0b1000001, 0, 24*60, berlin)
	gap := Daily("gap", everyDay, 2*60, 2*60+30, newYork)
	early := Daily("early", everyDay, 60, 2*60+30, newYork)
	for _, test := range []struct {
		w    *Window
		at   string
		want bool
	}{
		{office, "2026-11-24T07:59:59+01:00", false}, // a Tuesday
		{office, "2026-11-24T08:00:00+01:00", true},
		{office, "2026-11-24T17:59:59+01:00", true},
		{office, "2026-11-24T18:00:00+01:00", false},
		{office, "2026-11-28T12:00:00+01:00", false}, // Saturday
		{office, "2026-07-24T08:00:00+02:00", true},  // in summer
		{night, "2026-11-24T22:00:00+01:00", true},
		{night, "2026-11-25T05:59:59+01:00", true},
		{night, "2026-11-25T06:00:00+01:00", false},
		{night, "2026-11-28T05:00:00+01:00", true}, // since Friday
		{night, "2026-11-28T22:30:00+01:00", false},
		{night, "2026-11-30T05:00:00+01:00", false}, // Monday, since no workday
		{evening, "2026-11-24T23:59:59+01:00", true},
		{evening, "2026-11-25T00:00:00+01:00", false},
		{weekend, "2026-11-27T23:59:59+01:00", false},
		{weekend, "2026-11-28T00:00:00+01:00", true},
		{weekend, "2026-11-29T00:00:00+01:00", true},
		{weekend, "2026-11-29T23:59:59+01:00", true},
		{weekend, "2026-11-30T00:00:00+01:00", false},
		{gap, "2026-03-07T20:00:00-05:00", false}, // the clock jumps over it
		{gap, "2026-03-08T03:00:00-04:00", false},
		{gap, "2026-03-09T02:15:00-04:00", true},
		{early, "2026-11-01T01:30:00-04:00", true}, // the clock is set back while it is open
		{early, "2026-11-01T01:30:00-05:00", true},
		{early, "2026-11-01T02:30:00-05:00", false},
		{Recurring("patch", first, 3*time.Hour, berlin), "2026-12-01T21:59:59+01:00", false},
		{Recurring("patch", first, 3*time.Hour, berlin), "2026-12-01T22:00:00+01:00", true},
		{Recurring("patch", first, 3*time.Hour, berlin), "2026-12-02T00:59:59+01:00", true},
		{Recurring("patch", first, 3*time.Hour, berlin), "2026-12-02T01:00:00+01:00", false},
		{Onetime("move", begin, begin.Add(time.Hour)), "2026-12-01T20:00:00Z", true},
		{Onetime("move", begin, begin.Add(time.Hour)), "2026-12-01T21:00:00Z", false},
		{Onetime("move", begin, begin.Add(time.Hour)), "2026-12-01T19:59:59Z", false},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := test.w.open(at.UnixMilli()); got != test.want {
			t.Errorf("%s at %s: open is %v, want %v", test.w.Name, test.at, got, test.want)
		}
	}
}

// TestWindowOpens compares with a walk in steps of five minutes over two months
// with a change of the clock.
func TestWindowOpens(t *testing.T) {
	loc := zone(t, "Europe/Berlin")
	begin := time.Date(2026, 2, 15, 0, 0, 0, 0, time.UTC)
	for _, w := range []*Window{
		Daily("office", workdays, 8*60, 18*60, loc), Daily("night", 0b0100100, 22*60, 6*60, loc),
		Daily("weekend", 0b1000001, 0, 24*60, loc), Daily("gap", everyDay, 2*60, 3*60, loc),
		Onetime("once", begin.Add(30*24*time.Hour), begin.Add(31*24*time.Hour)),
	} {
		next := Never
		for m := int64(60 * 24 * 60); m >= 0; m -= 5 {
			ms := begin.UnixMilli() + m*60_000
			if w.open(ms) {
				next = ms
			}
			if next != Never && w.opens(ms) != next {
				t.Fatalf("%s: after %v it opens at %v, want %v", w.Name, time.UnixMilli(ms).In(loc), time.UnixMilli(w.opens(ms)).In(loc), time.UnixMilli(next).In(loc))
			}
		}
	}
}

func TestActivePlan(t *testing.T) {
	loc := zone(t, "Europe/Berlin")
	p := &Plan{Every: time.Minute, Active: []*Window{Daily("office", workdays, 8*60, 18*60, loc)}}
	friday := time.Date(2026, 11, 27, 17, 59, 40, 0, loc)
	due := p.Next(friday.UnixMilli(), 30_000)
	if got, want := time.UnixMilli(due), time.Date(2026, 11, 30, 8, 0, 30, 0, loc); !got.Equal(want) {
		t.Errorf("due %v, want %v", got, want)
	}
	over := &Plan{Every: time.Minute, Active: []*Window{Onetime("x", friday.Add(-time.Hour), friday)}}
	if due := over.Next(friday.UnixMilli(), 0); due != Never {
		t.Errorf("due %v, want never", time.UnixMilli(due))
	}
}

// TestWhatLinesSay looks at the members that change from run to run.
func TestWhatLinesSay(t *testing.T) {
	hourly, err := cron.Parse("0 * * * *")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	move := []*Window{Onetime("move", begin, begin.Add(90*time.Minute))}
	for _, test := range []struct {
		plan *Plan
		due  time.Time
		want string
	}{
		{&Plan{Every: time.Minute}, begin, `,"due":"2026-11-27T10:00:00.000Z","expires":"2026-11-27T10:01:00.000Z","run":"t0@1795773600","seq":7}`},
		{&Plan{Every: time.Minute, Maintenance: move}, begin, `,"maintenance":"move","due":"2026-11-27T10:00:00.000Z","expires":"2026-11-27T10:01:00.000Z","run":"t0@1795773600","seq":7}`},
		{&Plan{Every: time.Minute, Maintenance: move}, begin.Add(90 * time.Minute), `,"due":"2026-11-27T11:30:00.000Z","expires":"2026-11-27T11:31:00.000Z","run":"t0@1795779000","seq":7}`},
		{&Plan{Cron: hourly, Zone: time.UTC, Maintenance: move}, begin.Add(time.Hour), `,"every":"1h","maintenance":"move","due":"2026-11-27T11:00:00.000Z","expires":"2026-11-27T12:00:00.000Z","run":"t0@1795777200","seq":7}`},
		{&Plan{Every: time.Minute, Relaxed: &Plan{Every: time.Hour}}, begin, `,"every":"1m","due":"2026-11-27T10:00:00.000Z","expires":"2026-11-27T10:01:00.000Z","run":"t0@1795773600","seq":7}`},
		{&Plan{Every: time.Minute, Active: []*Window{Onetime("x", begin, begin.Add(time.Second))}}, begin, `,"due":"2026-11-27T10:00:00.000Z","run":"t0@1795773600","seq":7}`},
	} {
		target := targets(1, test.plan)[0]
		due := test.due.UnixMilli()
		next := due + 60_000
		if test.plan.Cron != nil {
			next = test.plan.Next(due, 0)
		} else if test.plan.Active != nil {
			next = Never
		}
		var l liner
		got := string(l.line(&target, newRun(test.plan, due, next, 7)))
		if want := string(target.Head) + test.want; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if n := len(got) - len(target.Head) - len("t0"); n > TailMax {
			t.Errorf("the tail has %d bytes, want at most %d", n, TailMax)
		}
	}
}
