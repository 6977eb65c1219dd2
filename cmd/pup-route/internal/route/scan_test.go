package route

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestMoment holds times that are read with the day of the last one equal to
// those that are read by package time.
func TestMoment(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	texts := []string{"2026-02-30T00:00:00Z", "2026-11-24T23:59:60Z", "2026-11-24T24:00:00Z", "2026-11-24T1:00:00Z", "2026-11-24T01:00:00.Z", "2026-11-24T01:00:00,5Z",
		"2026-11-24T01:00:00.1234567890Z", "2026-11-24T01:00:00+01:00", "2026-11-24T01:00:00.-1Z", "2026-11-24t01:00:00Z", "2026-11-24T01:00:0", "2026-11-24T", ""}
	for range 20_000 {
		at := time.Unix(1_795_000_000+rnd.Int64N(4*86400), rnd.Int64N(1e9)).UTC()
		layout := []string{time.RFC3339Nano, "2006-01-02T15:04:05.000Z", "2006-01-02T15:04:05Z", "2006-01-02T15:04:05.000000-07:00"}[rnd.IntN(4)]
		text := []byte(at.In(time.FixedZone("", 3600*rnd.IntN(2))).Format(layout))
		if rnd.IntN(4) == 0 {
			text[rnd.IntN(len(text))] = "0:Z.-9"[rnd.IntN(6)]
		}
		texts = append(texts, string(text))
	}
	f := fields{day: &day{}}
	for _, text := range texts {
		var want time.Time
		if want.UnmarshalText([]byte(text)) != nil {
			want = time.Time{}
		}
		if got := f.instant([]byte(`"` + text + `"`)); !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}
