package gap

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

const patience = time.Minute

func show(gaps []Gap) string {
	var all string
	for _, g := range gaps {
		what := "lost"
		if g.Came {
			what = "came"
		}
		all += fmt.Sprintf("%s%s %s %d of %d-%d: %s;", g.Series, g.Vantage, what, g.Count, g.From, g.To, g.Numbers)
	}
	return all
}

func TestGaps(t *testing.T) {
	for _, tt := range []struct {
		name string
		seqs []uint64 // one each second
		after,
		end string // told when all are due, and at the end of the input
	}{
		{"in order", []uint64{1, 2, 3}, "", ""},
		{"met on its way", []uint64{700, 701, 703}, "a lost 1 of 702-702: 702;", ""},
		{"one is missing", []uint64{1, 2, 4, 5}, "a lost 1 of 3-3: 3;", ""},
		{"several", []uint64{1, 3, 7, 9, 10}, "a lost 5 of 2-8: 2, 4-6, 8;", ""},
		{"late", []uint64{1, 3, 5, 2, 4}, "", ""},
		{"late, in the middle of a gap", []uint64{1, 9, 5}, "a lost 6 of 2-8: 2-4, 6-8;", ""},
		{"twice", []uint64{1, 2, 2, 1, 3, 5, 5, 3}, "a lost 1 of 4-4: 4;", ""},
		{"absurd", []uint64{1, 0, math.MaxUint64, math.MaxUint64 - 1}, "a lost 18446744073709551612 of 2-18446744073709551613: 2-18446744073709551613;", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := New(patience)
			now := epoch
			for _, n := range tt.seqs {
				tr.Seen([]byte("a"), nil, n, now)
				now = now.Add(time.Second)
				if got := show(tr.Due(now, false)); got != "" {
					t.Errorf("told too early: %s", got)
				}
			}
			now = now.Add(2 * patience)
			if got := show(tr.Due(now, false)); got != tt.after {
				t.Errorf("got %s want %s", got, tt.after)
			}
			if next := tr.Next(); !next.IsZero() {
				t.Errorf("nothing is waited for, but Next says %v", next)
			}
			if got := show(tr.Due(now, true)); got != tt.end {
				t.Errorf("at the end got %s want %s", got, tt.end)
			}
		})
	}
}

func TestBeatTellsOfTheTail(t *testing.T) {
	tr := New(patience)
	a := []byte("a")
	tr.Sent(a, nil, 0, epoch) // the beginning: nothing is sent yet
	tr.Sent(a, nil, 3, epoch) // none has been answered yet
	tr.Seen(a, nil, 2, epoch.Add(time.Second))
	if next := tr.Next(); !next.Equal(epoch.Add(patience)) {
		t.Errorf("Next is %v", next)
	}
	if got, want := show(tr.Due(epoch.Add(patience), false)), "a lost 2 of 1-3: 1, 3;"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	tr.Seen(a, nil, 3, epoch.Add(patience))
	if got, want := show(tr.Due(epoch.Add(2*patience), false)), "a came 1 of 3-3: 3;"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestSeriesAndVantages(t *testing.T) {
	tr := New(patience)
	see := func(series, vantage string, seq uint64, at time.Duration) {
		tr.Seen([]byte(series), []byte(vantage), seq, epoch.Add(at))
	}
	see("a", "x", 5, 0)
	see("b", "x", 100, time.Second) // both were there before us
	see("a", "y", 6, time.Second)   // another prober has lost 5
	see("a", "x", 7, time.Second)
	see("c", "x", 3, patience+time.Hour) // began while we were there
	see("", "x", 9, patience)            // who does not number is not counted
	want := "ax lost 1 of 6-6: 6;cx lost 2 of 1-2: 1-2;"
	if got := show(tr.Due(epoch.Add(3*time.Hour), false)); got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

// TestSeldomTold: however many lines are missing, there is one report for
// each time of patience.
func TestSeldomTold(t *testing.T) {
	tr := New(patience)
	now, told, count := epoch, 0, uint64(0)
	for n := uint64(1); n < 20000; n += 2 {
		tr.Seen([]byte("a"), nil, n, now)
		now = now.Add(100 * time.Millisecond)
		for _, g := range tr.Due(now, false) {
			told++
			count += g.Count
		}
	}
	for _, g := range tr.Due(now, true) {
		count += g.Count
	}
	if count != 9999 {
		t.Errorf("%d are lost, want 9999", count)
	}
	if minutes := int(now.Sub(epoch) / patience); told > minutes {
		t.Errorf("%d reports in %d minutes", told, minutes)
	}
}

func TestForgetsTheOldest(t *testing.T) {
	tr := New(patience)
	tr.Seen([]byte("old"), nil, 1, epoch)
	tr.Seen([]byte("old"), nil, 3, epoch)
	for i := range maxStreams {
		tr.Seen(fmt.Append(nil, i), nil, 1, epoch.Add(time.Second))
	}
	if got, want := show(tr.Due(epoch.Add(time.Second), false)), "old lost 1 of 2-2: 2;"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if len(tr.streams) != maxStreams {
		t.Errorf("%d streams", len(tr.streams))
	}
	if gone := tr.Changed(); len(gone) != 1 || !gone[0].Gone() {
		t.Errorf("changed: %v", gone)
	}
}

// A lossy is a random way from a scheduler to us: lines are lost, doubled and
// come in another order, and we restart now and then.
type lossy struct {
	rnd     *rand.Rand
	tr      *Tracker
	journal []func(*Tracker)
	lost    uint64 // as told
}

func (l *lossy) seen(series, vantage string, seq uint64, now time.Time) {
	f := func(t *Tracker) { t.Seen([]byte(series), []byte(vantage), seq, now) }
	f(l.tr)
	l.journal = append(l.journal, f)
}

func (l *lossy) told(now time.Time, end bool) {
	for _, g := range l.tr.Due(now, end) {
		if g.Came {
			l.lost -= g.Count
		} else {
			l.lost += g.Count
		}
	}
	l.keep(l.tr.Changed())
}

func (l *lossy) keep(all []Memory) {
	for _, m := range all {
		b, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		l.journal = append(l.journal, func(t *Tracker) {
			if err := t.Restore(m.Key, b); err != nil {
				panic(err)
			}
		})
	}
}

func (l *lossy) restart(now time.Time) {
	if l.rnd.IntN(2) == 0 { // a snapshot
		l.journal = nil
		l.keep(l.tr.All())
	}
	l.tr = New(patience)
	for _, f := range l.journal {
		f(l.tr)
	}
	l.tr.Resume(now)
}

// TestCountIsExact: whatever is lost, doubled, late or reordered, and however
// often we restart, the number of lost lines that is told in all is the one
// of those that never came. What comes after it was told to be lost is told
// again.
func TestCountIsExact(t *testing.T) {
	for seed := range uint64(500) {
		l := &lossy{rnd: rand.New(rand.NewPCG(seed, 2)), tr: New(patience)}
		type arrival struct {
			series, vantage string
			seq             uint64
			at              time.Duration
		}
		var arrivals []arrival
		want := uint64(0)
		loss, twice, slow := l.rnd.Float64()*0.5, l.rnd.Float64()*0.3, l.rnd.Float64()*0.1
		for _, series := range []string{"a", "b"} {
			for _, vantage := range []string{"", "x"} {
				last := uint64(20 + l.rnd.IntN(150))
				for seq := uint64(1); seq <= last; seq++ {
					sent := time.Duration(seq) * time.Second
					if seq > 1 && seq < last && l.rnd.Float64() < loss {
						want++
						continue
					}
					for n := 0; n == 0 || l.rnd.Float64() < twice; n++ {
						late := time.Duration(l.rnd.IntN(20000)) * time.Millisecond
						if seq == 1 {
							late = 0 // where counting begins
						} else if l.rnd.Float64() < slow {
							late += time.Duration(l.rnd.IntN(300)) * time.Second // later than our patience
						}
						arrivals = append(arrivals, arrival{series, vantage, seq, sent + late})
					}
				}
			}
		}
		slices.SortStableFunc(arrivals, func(a, b arrival) int { return int(a.at - b.at) })
		now := epoch
		for _, a := range arrivals {
			now = epoch.Add(a.at)
			l.told(now, false)
			l.seen(a.series, a.vantage, a.seq, now)
			if l.rnd.IntN(40) == 0 {
				l.restart(now)
			}
		}
		l.told(now, true)
		if l.lost != want {
			t.Fatalf("seed %d: %d lines are told to be lost, want %d", seed, l.lost, want)
		}
	}
}

func BenchmarkInOrder(b *testing.B) {
	tr := New(patience)
	a, n := []byte("9f3c2a10b7de"), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		tr.Seen(a, nil, n, epoch)
		if !tr.Next().IsZero() {
			b.Fatal("a gap")
		}
	}
}
