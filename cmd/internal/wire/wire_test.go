package wire

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		text string
	}{
		{"30s", 30 * time.Second, "30s"},
		{"1.5s", 1500 * time.Millisecond, "1.5s"},
		{"2h", 2 * time.Hour, "2h"},
		{"2h30m", 150 * time.Minute, "2h30m"},
		{"1d", 24 * time.Hour, "24h"},
		{"1w2d3h", (7*24 + 2*24 + 3) * time.Hour, "219h"},
		{"500ms", 500 * time.Millisecond, "500ms"},
		{"0s", 0, "0s"},
	} {
		got, err := ParseDuration(tt.in)
		if err != nil || time.Duration(got) != tt.want || got.String() != tt.text {
			t.Errorf("%s: got %v, %v, want %v as %s", tt.in, got, err, tt.want, tt.text)
		}
		if back, err := ParseDuration(got.String()); err != nil || back != got {
			t.Errorf("%s: came back as %v, %v", got, back, err)
		}
	}
	for _, in := range []string{"", "30", "1y", "d", "1d-2h", "-1d", "1.5d", "s", "1 s", "99999999w"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestAppendMS(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0"}, {time.Second, "1000"}, {1234567 * time.Nanosecond, "1.235"},
		{1500 * time.Microsecond, "1.5"}, {10 * time.Microsecond, "0.01"}, {-1500 * time.Microsecond, "-1.5"},
	} {
		if got := string(AppendMS(nil, tt.d)); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.d, got, tt.want)
		}
	}
}

func TestWorse(t *testing.T) {
	order := []Status{Up, Degraded, Unknown, Down}
	for i, s := range order {
		for j, u := range order {
			if s.Worse(u) != (i > j) {
				t.Errorf("%s worse than %s: %v", s, u, s.Worse(u))
			}
		}
	}
}

// Every word of the format is documented, and those of unknown come last.
func TestWords(t *testing.T) {
	unknown := false
	for _, d := range Reasons {
		if d.Doc == "" {
			t.Errorf("%s has no doc", d.Word)
		}
		if unknown && !d.Word.Unknown() {
			t.Errorf("%s stands behind the reasons of unknown", d.Word)
		}
		unknown = d.Word.Unknown()
	}
	if len(Reasons) != 24 || len(Phases) != 10 {
		t.Errorf("%d reasons, %d phases", len(Reasons), len(Phases))
	}
}

func TestAppendTime(t *testing.T) {
	for _, in := range []time.Time{
		{}, time.Unix(0, 0), time.Unix(1700000000, 999999999), time.Unix(951782400, 1000000).In(time.FixedZone("", -3600)),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, want := string(AppendTime(nil, in)), `"`+in.UTC().Format(TimeFormat)+`"`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
