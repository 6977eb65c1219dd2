package sched

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSignals lets a target fail after 10 minutes and come back after 20, with
// a target beside it that nothing is said about.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		plan := &Plan{Every: time.Minute, RelaxAfter: 30 * time.Minute}
		plan.Failing = &Plan{Every: 10 * time.Second}
		plan.Relaxed = &Plan{Every: 5 * time.Minute}
		s := New(targets(2, plan), r.options())
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		start := time.Now()
		r.saw = func(l line) { // as pup-probe and tee do
			if l.Name == "t0" {
				at := l.written.Sub(start)
				s.Signal(Signal{Name: l.Name, Up: at < 10*time.Minute || at > 20*time.Minute})
			}
		}
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		counts := map[string][]int{"t0": make([]int, 18), "t1": make([]int, 18)}
		for _, l := range r.targets() {
			counts[l.Name][int(l.written.Sub(start)/(10*time.Minute))]++
			if l.Every != "" && l.Expires.Sub(l.Due).Round(time.Second) != mustDuration(t, l.Every).Round(time.Second) {
				t.Errorf("%s says every %s, and expires after %v", l.Run, l.Every, l.Expires.Sub(l.Due))
			}
		}
		for i, n := range counts["t1"] {
			if n != 10 {
				t.Errorf("t1 came %d times in the ten minutes after %d, want 10", n, i*10)
			}
		}
		for i, want := range []int{10, 56, 14, 10, 10, 4, 2, 2} {
			if n := counts["t0"][i]; n < want-5 || n > want+5 {
				t.Errorf("t0 came %d times in the ten minutes after %d, want about %d; all: %v", n, i*10, want, counts["t0"])
			}
		}
	})
}

func mustDuration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		s := New(targets(3, &Plan{Every: time.Hour}), r.options())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		start := time.Now()
		time.AfterFunc(90*time.Minute, func() {
			for range 10_000 { // a flood is one run
				s.Signal(Signal{Name: "t1", Recheck: true})
			}
			s.Signal(Signal{Name: "nobody", Recheck: true})
		})
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		var extra, regular int
		for _, l := range r.targets() {
			if l.Name != "t1" {
				continue
			}
			if at := l.Due.Sub(start); at >= 90*time.Minute && at < 90*time.Minute+time.Second {
				extra++
				continue
			}
			regular++
			if got, want := l.Due.UnixMilli(), (&Target{Head: []byte(Prefix + "t1\""), Plan: &Plan{Every: time.Hour}}).Due(l.Due.UnixMilli()-1); got != want {
				t.Errorf("%s is off the grid", l.Run)
			}
		}
		if extra < 1 || extra > 2 || regular != 5 {
			t.Errorf("%d extra and %d regular runs, want 1 and 5", extra, regular)
		}
	})
}

// TestSignalsOutliveAReload puts the same targets in the place of the old ones
// while one is failing.
func TestSignalsOutliveAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{t: t}
		plan := &Plan{Every: time.Hour, Failing: &Plan{Every: 10 * time.Second}}
		s := New(targets(1, plan), r.options())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		time.AfterFunc(time.Second, func() { s.Signal(Signal{Name: "t0"}) })
		time.AfterFunc(10*time.Minute, func() { s.Replace(ctx, targets(1, plan)) })
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(r.targets()); n < 118 || n > 121 {
			t.Errorf("%d runs in 20 minutes, want one each 10 s", n)
		}
	})
}
