package cron

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func mustParse(t testing.TB, text string) *Spec {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// A minute is what clocks show.
type minute struct {
	wall                              int64 // as if it were UTC
	minute, hour, day, month, weekday int
}

func newMinute(wall time.Time) minute {
	return minute{wall.Unix(), wall.Minute(), wall.Hour(), wall.Day(), int(wall.Month()), int(wall.Weekday())}
}

// An oracle is a year of a zone, minute by minute, as its clocks show it. It
// knows nothing of zones' bounds.
type oracle struct {
	shown   []minute        // at every real minute
	instant []int64         // the real minute
	first   map[int64]int64 // wall time -> the first real minute that shows it
	gaps    []int           // indexes of minutes before which others are left out
}

func newOracle(year int, loc *time.Location) *oracle {
	o := &oracle{first: map[int64]int64{}}
	end := time.Date(year+1, 1, 3, 0, 0, 0, 0, time.UTC)
	for t := time.Date(year-1, 12, 30, 0, 0, 0, 0, time.UTC); t.Before(end); t = t.Add(time.Minute) {
		local := t.In(loc)
		y, mon, d := local.Date()
		h, m, _ := local.Clock()
		now := newMinute(time.Date(y, mon, d, h, m, 0, 0, time.UTC))
		if _, ok := o.first[now.wall]; !ok {
			o.first[now.wall] = t.Unix()
		}
		if n := len(o.shown); n > 0 && now.wall-o.shown[n-1].wall > 60 {
			o.gaps = append(o.gaps, n)
		}
		o.shown = append(o.shown, now)
		o.instant = append(o.instant, t.Unix())
	}
	return o
}

// A pattern is an expression read in another way: number by number.
type pattern struct {
	minute, hour, day, month, weekday [100]bool
	either                            bool
}

func newPattern(text string) *pattern {
	f := strings.Fields(text)
	p := &pattern{either: f[2][0] != '*' && f[4][0] != '*'}
	for i, set := range []*[100]bool{&p.minute, &p.hour, &p.day, &p.month, &p.weekday} {
		for n := range set {
			set[n] = within(f[i], n, i)
		}
	}
	p.weekday[0] = p.weekday[0] || p.weekday[7]
	return p
}

// within tells whether number n is in the field of that index.
func within(field string, n, index int) bool {
	names := map[int]string{3: "- jan feb mar apr may jun jul aug sep oct nov dec", 4: "sun mon tue wed thu fri sat"}[index]
	least := map[int]int{2: 1, 3: 1}[index]
	for part := range strings.SplitSeq(strings.ToLower(field), ",") {
		for i, name := range strings.Fields(names) {
			if name != "-" {
				part = strings.ReplaceAll(part, name, fmt.Sprint(i))
			}
		}
		lo, hi, step := least, 99, 1
		span, after, stepped := strings.Cut(part, "/")
		if stepped {
			fmt.Sscan(after, &step)
		}
		if span != "*" {
			if k, _ := fmt.Sscanf(span, "%d-%d", &lo, &hi); k == 1 && !stepped {
				hi = lo
			}
		}
		if n >= lo && n <= hi && (n-lo)%step == 0 {
			return true
		}
	}
	return false
}

func (p *pattern) matches(m minute) bool {
	if !p.minute[m.minute] || !p.hour[m.hour] || !p.month[m.month] {
		return false
	}
	if p.either {
		return p.day[m.day] || p.weekday[m.weekday]
	}
	return p.day[m.day] && p.weekday[m.weekday]
}

// runs gives all runs of the year.
func (o *oracle) runs(text string, year int, loc *time.Location) []time.Time {
	p := newPattern(text)
	f := strings.Fields(text)
	var at []int64
	if f[0][0] == '*' || f[1][0] == '*' {
		for i := range o.shown {
			if p.matches(o.shown[i]) {
				at = append(at, o.instant[i])
			}
		}
	} else {
		at = o.fixed(p, year)
	}
	slices.Sort(at)
	begin, end := time.Date(year, 1, 1, 0, 0, 0, 0, loc).Unix(), time.Date(year+1, 1, 1, 0, 0, 0, 0, loc).Unix()
	var in []time.Time
	for _, t := range slices.Compact(at) {
		if t >= begin && t < end {
			in = append(in, time.Unix(t, 0))
		}
	}
	return in
}

// fixed looks up when each wall time of the calendar is shown first, or what
// follows the gap that it lies in.
func (o *oracle) fixed(p *pattern, year int) (at []int64) {
	end := time.Date(year+1, 1, 2, 0, 0, 0, 0, time.UTC)
	for wall := time.Date(year-1, 12, 31, 0, 0, 0, 0, time.UTC); wall.Before(end); wall = wall.Add(time.Minute) {
		if !p.minute[wall.Minute()] {
			continue
		}
		m := newMinute(wall)
		if !p.matches(m) {
			continue
		}
		if t, ok := o.first[m.wall]; ok {
			at = append(at, t)
			continue
		}
		for _, i := range o.gaps {
			before, after := o.shown[i-1].wall, o.shown[i].wall
			if before < m.wall && m.wall < after && after-before <= 3*3600+60 {
				at = append(at, o.instant[i])
			}
		}
	}
	return at
}

// TestYear compares every form over a whole year, with both changes of the
// clock, with the oracle.
func TestYear(t *testing.T) {
	specs := []string{
		"* * * * *", "*/7 * * * *", "*/15 * * * *", "0 * * * *", "5-40/5 * * * *", "30 */2 * * *", "* 2 * * *", "*/10 1-3 * * *",
		"0 0 * * *", "30 0 * * *", "30 1 * * *", "15 2 * * *", "30 2 * * *", "0 3 * * *", "59 1,2,3 * * *", "0,30 0-4 * * *", "5/20 2 * * *",
		"0 12 * * mon-fri", "0 12 * * 6,7", "0 12 13 * 5", "0 12 */2 * 1", "0 12 13 * */2", "0 0 31 * *", "0 0 29 2 *",
		"0 9 1 jan,jul *", "45 23 28-31 MAR-OCT Sun", "*/20 8-18 * * mon-fri", "0 0 1 1 *",
	}
	for _, z := range []struct {
		name string
		year int
	}{
		{"America/New_York", 2026}, {"Europe/Berlin", 2026}, {"Australia/Lord_Howe", 2026}, // half an hour
		{"Africa/Cairo", 2026}, // at midnight
		{"America/Nuuk", 2026}, // before midnight
		{"Pacific/Apia", 2011}, // a day left out
	} {
		loc := zone(t, z.name)
		o := newOracle(z.year, loc)
		for _, text := range specs {
			s := mustParse(t, text)
			want := o.runs(text, z.year, loc)
			var got []time.Time
			end := time.Date(z.year+1, 1, 1, 0, 0, 0, 0, loc)
			for at := s.Next(time.Date(z.year, 1, 1, 0, 0, 0, 0, loc).Add(-1)); !at.IsZero() && at.Before(end); at = s.Next(at) {
				got = append(got, at)
			}
			compare(t, z.name+" "+text, got, want)
		}
	}
}

func compare(t *testing.T, what string, got, want []time.Time) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("%s: nothing after %v, want %v", what, got[max(0, i-1):i], want[i])
			return
		case i >= len(want):
			t.Errorf("%s: got %v, want nothing more", what, got[i])
			return
		case !got[i].Equal(want[i]):
			t.Errorf("%s: run %d is %v, want %v", what, i, got[i], want[i].In(got[i].Location()))
			return
		}
	}
}

// TestChanges spells out what the rules say.
func TestChanges(t *testing.T) {
	for _, test := range []struct{ zone, spec, after, want string }{
		{"America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:30:00-04:00"},
		{"America/New_York", "0,30 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:00:00-04:00"},
		{"Africa/Cairo", "0 0 * * *", "2026-04-23T12:00:00+02:00", "2026-04-24T01:00:00+03:00"},
		{"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00"},
		{"America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", "2026-11-01T01:30:00-04:00 2026-11-02T01:30:00-05:00"},
		{"America/New_York", "0 * * * *", "2026-11-01T00:00:00-04:00", "2026-11-01T01:00:00-04:00 2026-11-01T01:00:00-05:00 2026-11-01T02:00:00-05:00"},
		{"America/New_York", "30 1 * * *", "2026-11-01T01:30:00-05:00", "2026-11-02T01:30:00-05:00"},
		{"Europe/Berlin", "30 */15 2 * * *", "2026-10-25T02:30:30+02:00", "2026-10-25T02:45:30+02:00 2026-10-25T02:00:30+01:00"},
		{"Europe/Berlin", "*/20 30 2 * * *", "2026-10-25T02:30:30+02:00", "2026-10-25T02:30:40+02:00 2026-10-26T02:30:00+01:00"},
		{"Pacific/Apia", "0 12 * * *", "2011-12-29T12:00:00-10:00", "2011-12-31T12:00:00+14:00"},
		{"UTC", "0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
	} {
		loc := zone(t, test.zone)
		at, err := time.Parse(time.RFC3339, test.after)
		if err != nil {
			t.Fatal(err)
		}
		at = at.In(loc)
		s := mustParse(t, test.spec)
		for want := range strings.FieldsSeq(test.want) {
			next := s.Next(at)
			if got := next.Format(time.RFC3339); got != want {
				t.Errorf("%s %q after %v: got %s, want %s", test.zone, test.spec, at, got, want)
			}
			at = next
		}
	}
}

func TestNever(t *testing.T) {
	for _, text := range []string{"0 0 31 2 *", "* * 30 2 *", "0 0 31 4,6,9,11 *"} {
		if got := mustParse(t, text).Next(time.Unix(1795327200, 0).UTC()); !got.IsZero() {
			t.Errorf("%s: got %v, want never", text, got)
		}
	}
}

func TestNicknames(t *testing.T) {
	for name, text := range nicknames {
		a, b := mustParse(t, name), mustParse(t, text)
		if *a != *b {
			t.Errorf("%s is not %s", name, text)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                "0 fields; a cron expression has 5",
		"* * * *":         "4 fields",
		"* * * * * * *":   "7 fields",
		"60 * * * *":      `minute: "60" is not within 0-59`,
		"* 24 * * *":      `hour: "24" is not within 0-23`,
		"* * 0 * *":       `day of month: "0" is not within 1-31`,
		"* * * 13 *":      `month: "13" is not within 1-12`,
		"* * * * 8":       `day of week: "8" is not within 0-7`,
		"* * * * mond":    `day of week: "mond" is not within 0-7`,
		"* * * mon *":     `month: "mon" is not within 1-12`,
		"5-2 * * * *":     `minute: the range "5-2" runs backwards`,
		"*/0 * * * *":     `minute: the step in "*/0" is no number from 1 to 59`,
		"*/x * * * *":     `minute: the step in "*/x" is no number`,
		"1,,2 * * * *":    `minute: "" is not within 0-59`,
		"-1 * * * *":      `minute: "" is not within 0-59`,
		"+1 * * * *":      `minute: "+1" is not within 0-59`,
		"0 0 L * *":       `day of month: "L" is not within 1-31`,
		"@reboot":         `unknown nickname "@reboot"`,
		"@every 5m":       `unknown nickname "@every 5m"`,
		"TZ=UTC 0 0 * * ": `minute: "TZ=UTC" is not within 0-59`,
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q in it", text, err, want)
		}
	}
}

// FuzzNext wants a time that is later, matches as a wall time or follows a
// gap, and has no earlier one beside it.
func FuzzNext(f *testing.F) {
	f.Add("*/5 8-18 * * mon-fri", int64(1795327200), uint8(0))
	f.Add("30 2 * * *", int64(1774749600), uint8(1))
	f.Add("15 30 2 29 2 *", int64(0), uint8(2))
	zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}
	f.Fuzz(func(t *testing.T, text string, unix int64, z uint8) {
		s, err := Parse(text)
		if err != nil || unix < -1e9 || unix > 4e9 {
			return
		}
		at := time.Unix(unix, 0).In(zone(t, zones[int(z)%len(zones)]))
		next := s.Next(at)
		if next.IsZero() {
			return
		}
		if !next.After(at) {
			t.Fatalf("%q: %v is not after %v", text, next, at)
		}
		if again := s.Next(next.Add(-1)); !again.Equal(next) {
			t.Errorf("%q: %v just before %v", text, again, next)
		}
		if half := at.Add(next.Sub(at) / 2); next.Sub(at) > 2*time.Second {
			if from := s.Next(half); !from.Equal(next) {
				t.Errorf("%q: after %v comes %v, after %v comes %v", text, at, next, half, from)
			}
		}
	})
}

func BenchmarkNext(b *testing.B) {
	for _, text := range []string{"*/5 8-18 * * mon-fri", "30 2 * * *", "0 0 29 2 *"} {
		b.Run(text, func(b *testing.B) {
			s := mustParse(b, text)
			t := time.Unix(1795327200, 0).In(zone(b, "Europe/Berlin"))
			b.ReportAllocs()
			for b.Loop() {
				s.Next(t)
			}
		})
	}
}
