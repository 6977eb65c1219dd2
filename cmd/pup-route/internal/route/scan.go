package route

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/state"
)

// fields are the members of a line that pup-route looks at, as they stand
// there. They are scanned in one pass and nothing else is decoded.
type fields struct {
	typ, v, name, url, status, time, due, run, every, everyMS, timeout, vantage, series, seq, emitted, probe []byte

	take          func(key, value []byte) error // member, made once
	day           *day
	rhythm, limit *span // what every and timeout were last
}

func (f *fields) member(key, value []byte) error {
	switch string(key) {
	case "type":
		f.typ = value
	case "v":
		f.v = value
	case "name":
		f.name = value
	case "url":
		f.url = value
	case "status":
		f.status = value
	case "time":
		f.time = value
	case "due":
		f.due = value
	case "run":
		f.run = value
	case "every":
		f.every = value
	case "every_ms":
		f.everyMS = value
	case "timeout":
		f.timeout = value
	case "vantage":
		f.vantage = value
	case "series":
		f.series = value
	case "seq":
		f.seq = value
	case "emitted":
		f.emitted = value
	case "probe":
		f.probe = value
	}
	return nil
}

// scan reads a line; an error means that it is no JSON object.
func (f *fields) scan(text []byte) error {
	*f = fields{take: f.take, day: f.day, rhythm: f.rhythm, limit: f.limit}
	return ndjson.Members(text, f.take)
}

// is reports whether the line is of the type; a line that does not say is a
// result, which is what pup-route reads.
func (f *fields) is(typ string) bool {
	if f.typ == nil {
		return typ == wire.TypeResult
	}
	return len(f.typ) == len(typ)+2 && string(f.typ[1:len(f.typ)-1]) == typ
}

// result fills r from a result line; an error means that the line is valid
// JSON but no result.
func (f *fields) result(r *state.Result, text []byte, every, due bool) error {
	if f.v != nil {
		if v, err := strconv.Atoi(string(f.v)); err != nil || v > wire.Version {
			return fmt.Errorf("format version %.20s is newer than this program; update pup-route", f.v)
		}
	}
	name := f.name
	if name == nil {
		name = f.url
	}
	*r = state.Result{Line: text, Name: plain(name), Run: plain(f.run), Vantage: plain(f.vantage)}
	if len(r.Name) == 0 {
		return errors.New("a result without a name")
	}
	if len(r.Name) > maxName || len(r.Vantage) > maxName {
		return fmt.Errorf("the name is longer than %d bytes", maxName)
	}
	if bytes.IndexByte(r.Vantage, 0) >= 0 {
		return errors.New("the vantage holds a zero byte")
	}
	var ok bool
	if r.Status, ok = state.ParseStatus(plain(f.status)); !ok {
		return fmt.Errorf("a result whose status is %.40s; want up, degraded, down or unknown", orNone(f.status))
	}
	if every {
		r.Every = f.rhythm.of(f.every, 0)
		r.Timeout = f.limit.of(f.timeout, defaultTimeout)
	}
	if due {
		r.Due = f.instant(f.due)
	}
	return nil
}

// defaultTimeout is that of a target that does not say one.
const defaultTimeout = 10 * time.Second

// A span is a duration as it stands in a line. Most lines have that of the
// one before, so it is not read again.
type span struct {
	text  []byte
	value time.Duration
}

func (s *span) of(text []byte, absent time.Duration) time.Duration {
	if text == nil {
		return absent
	}
	if !bytes.Equal(text, s.text) {
		d, err := wire.ParseDuration(string(plain(text)))
		if err != nil {
			d = wire.Duration(absent)
		}
		s.text, s.value = append(s.text[:0], text...), time.Duration(d)
	}
	return s.value
}

// maxName bounds what is remembered of a name.
const maxName = 1024

func orNone(value []byte) []byte {
	if value == nil {
		return []byte("missing")
	}
	return value
}

// plain returns the text of a JSON string, without a copy where there is
// nothing to unescape, and nil for anything else.
func plain(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	s, err := ndjson.Unquote(value)
	if err != nil {
		return nil
	}
	return []byte(s)
}

// moment reads the time of a result; the zero time if it has none.
func (f *fields) moment() time.Time { return f.instant(f.time) }

func (f *fields) instant(value []byte) (t time.Time) {
	text := plain(value)
	if text == nil {
		return t
	}
	if t, ok := f.day.moment(text); ok {
		return t
	}
	if err := t.UnmarshalText(text); err != nil {
		return time.Time{}
	}
	f.day.begin(text, t)
	return t
}

// A day is one whose date has been read, so that of another time on it only
// the clock has to be: results come in the order of time, or nearly so.
type day struct {
	date  [len("2006-01-02T")]byte
	start int64 // seconds since 1970
}

func (d *day) begin(text []byte, t time.Time) {
	if t.Location() == time.UTC && len(text) > len(d.date) {
		copy(d.date[:], text)
		d.start = t.Truncate(24 * time.Hour).Unix()
	}
}

// moment reads a time in UTC on the day, such as 2006-01-02T15:04:05.999Z.
func (d *day) moment(text []byte) (t time.Time, ok bool) {
	const clock = len("2006-01-02T15:04:05")
	if len(text) <= clock || string(text[:len(d.date)]) != string(d.date[:]) || text[13] != ':' || text[16] != ':' || text[len(text)-1] != 'Z' {
		return t, false
	}
	hour, minute, second := digits(text[11:13]), digits(text[14:16]), digits(text[17:19])
	fraction, nanos := text[clock:len(text)-1], 0
	if len(fraction) > 0 {
		if nanos = digits(fraction[1:]); fraction[0] != '.' || len(fraction) < 2 || len(fraction) > 10 {
			return t, false
		}
		for range 10 - len(fraction) {
			nanos *= 10
		}
	}
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 || nanos < 0 {
		return t, false
	}
	return time.Unix(d.start+int64(hour*3600+minute*60+second), int64(nanos)).UTC(), true
}

// digits reads a number that is nothing but digits, or gives -1.
func digits(text []byte) (n int) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return n
}
