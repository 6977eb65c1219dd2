package route

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/gap"
)

// keptGaps begins the keys under which a spool keeps what has come of the
// numbers of a series.
const keptGaps = "gaps"

// maxSeries bounds what is remembered of the name of a series.
const maxSeries = 64

// numbered takes in the number of the result at hand.
func (r *router) numbered(now time.Time) {
	f := &r.fields
	if f.series == nil || len(f.series) >= maxSeries {
		return
	}
	if seq, ok := number(f.seq); ok {
		r.gaps.Seen(plain(f.series), r.result.Vantage, seq, now)
	}
}

// sent takes in how many numbers were given, if the line at hand is a beat.
func (r *router) sent(now time.Time) {
	f := &r.fields
	if !f.is(wire.TypeBeat) || f.series == nil || len(f.series) >= maxSeries || f.emitted == nil {
		return
	}
	var vantage []byte
	if f.probe != nil {
		_ = ndjson.Members(f.probe, func(key, value []byte) error { // without one if it is no object
			if string(key) == "vantage" {
				vantage = plain(value)
			}
			return nil
		})
	}
	if emitted, ok := number(f.emitted); ok && len(vantage) <= maxName {
		r.gaps.Sent(plain(f.series), vantage, emitted, now)
	}
}

// number reads a whole number.
func number(value []byte) (n uint64, ok bool) {
	n, err := strconv.ParseUint(string(value), 10, 64)
	return n, err == nil
}

// tellGaps reports results that did not arrive: in the stream, and to people.
// Only then it is kept that they were told: after a crash between both they
// are told again.
func (r *router) tellGaps() {
	if len(r.missing) == 0 {
		return
	}
	for _, g := range r.missing {
		text := gapText(&g)
		r.log.printf("%s", text)
		b := append(r.buf[:0], `{"v":1,"type":"`+wire.TypeError+`","program":"`+program+`","error":`...)
		b = ndjson.AppendString(append(ndjson.AppendString(b, text), `,"series":`...), g.Series)
		if g.Vantage != "" {
			b = ndjson.AppendString(append(b, `,"vantage":`...), g.Vantage)
		}
		b = strconv.AppendUint(append(b, `,"from":`...), g.From, 10)
		b = strconv.AppendUint(append(b, `,"to":`...), g.To, 10)
		b = append(b, `,"count":`...)
		if g.Came {
			b = append(b, '-')
		}
		r.buf = append(strconv.AppendUint(b, g.Count, 10), '}')
		r.add(r.buf)
	}
	r.flush()
	clear(r.missing)
	r.missing = r.missing[:0]
	if r.spool != nil {
		r.keepGaps(r.gaps.Changed())
		r.save()
	}
}

// gapText words a gap for people.
func gapText(g *gap.Gap) string {
	results := strconv.FormatUint(g.Count, 10) + " results"
	if g.Count == 1 {
		results = "1 result"
	}
	of := fmt.Sprintf("series %s", ndjson.Printable(g.Series))
	if g.Vantage != "" {
		of += " from " + ndjson.Printable(ndjson.Cut(g.Vantage, 100))
	}
	if g.Came {
		return fmt.Sprintf("%s of %s came after all, which had been reported as lost: %s", results, of, g.Numbers)
	}
	return fmt.Sprintf("%s of %s did not arrive: %s", results, of, g.Numbers)
}

// keepGaps has the spool keep the state of numbers.
func (r *router) keepGaps(all []gap.Memory) {
	for _, m := range all {
		var value []byte
		if !m.Gone() {
			var err error
			if value, err = json.Marshal(m); err != nil {
				r.fail("write the spool", err)
				return
			}
		}
		if err := r.spool.Keep(keptGaps+"\x00"+m.Key, value); err != nil {
			r.fail("write the spool", err)
		}
	}
}
