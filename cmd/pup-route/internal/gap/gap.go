// Package gap counts the results that were sent and did not arrive. Pup-sched
// numbers its lines, and says which series of numbers they belong to. A number
// that is passed over is waited for, since slow checks are answered late; then
// its line is lost.
package gap

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// A Gap tells of lines that did not arrive.
type Gap struct {
	Series, Vantage string
	From, To        uint64 // the first and the last number
	Count           uint64 // how many of them it is about
	Came            bool   // they were told to be lost, and came after all
	Numbers         string // such as "3-5, 9", for people, cut short if there are many
}

// A span is a range of numbers, both ends in it.
type span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// A hole is a span that has not come yet.
type hole struct {
	span
	Due int64 `json:"due"` // when it is lost; nanoseconds since 1970
}

const (
	maxStreams = 256  // of which numbers are remembered
	maxHoles   = 1024 // of a stream; then the oldest counts as lost
	maxLost    = 1024 // spans of a stream that were lost and may still come
	maxShown   = 10   // spans that are listed for people
)

// A stream is one series as one vantage answers it.
type stream struct {
	Series  string `json:"series"`
	Vantage string `json:"vantage,omitempty"`
	Next    uint64 `json:"next"` // what is below has come, or is in a list below
	Seen    int64  `json:"seen"`
	Holes   []hole `json:"holes,omitempty"` // in order, also of Due
	Lost    []span `json:"lost,omitempty"`  // in order
	Untold  []span `json:"untold,omitempty"`
	Came    []span `json:"came,omitempty"`  // of those that were told to be lost
	Since   int64  `json:"since,omitempty"` // when the first of both became known
	Told    int64  `json:"told,omitempty"`  // when something was told last
}

// A Tracker knows the numbers of all streams. It has no clock of its own.
type Tracker struct {
	patience time.Duration
	streams  map[string]*stream
	last     *stream // whose line came last
	began    int64   // when the first line came
	next     int64   // what Next says, unless stale
	stale    bool
	key      []byte
	gone     []Gap // of streams that were forgotten
	marked   []Memory
}

// New returns a tracker that waits so long for a line; 0: it does not count.
func New(patience time.Duration) *Tracker {
	return &Tracker{patience: patience, streams: map[string]*stream{}}
}

// SetPatience changes how long a line is waited for.
func (t *Tracker) SetPatience(d time.Duration) { t.patience, t.stale = d, true }

// Seen takes in that the line with the number came.
func (t *Tracker) Seen(series, vantage []byte, seq uint64, now time.Time) {
	s := t.stream(series, vantage, seq, now)
	switch {
	case s == nil:
	case seq == s.Next:
		s.Next++
	case seq > s.Next:
		t.skip(s, seq-1, now)
		s.Next = seq + 1
	default:
		t.stale = s.late(seq) || t.stale
	}
}

// Sent takes in that numbers up to this one have been sent, as a beat says
// that came behind them.
func (t *Tracker) Sent(series, vantage []byte, upTo uint64, now time.Time) {
	if s := t.stream(series, vantage, upTo+1, now); s != nil && upTo >= s.Next {
		t.skip(s, upTo, now)
		s.Next = upTo + 1
	}
}

// stream finds the stream, or starts it; nil if nothing is counted. One that
// begins while others are known is counted from 1, and the first ones from
// where they are met: they may have begun long before us.
func (t *Tracker) stream(series, vantage []byte, seq uint64, now time.Time) *stream {
	if t.patience <= 0 || len(series) == 0 || seq == 0 || seq == math.MaxUint64 {
		return nil
	}
	n := now.UnixNano()
	if s := t.last; s != nil && s.Series == string(series) && s.Vantage == string(vantage) {
		s.Seen = n
		return s
	}
	t.key = append(append(append(t.key[:0], series...), 0), vantage...)
	s := t.streams[string(t.key)]
	if s == nil {
		if t.began == 0 {
			t.began = n
		}
		s = &stream{Series: string(series), Vantage: string(vantage), Next: seq}
		if n-t.began > int64(t.patience) {
			s.Next = 1
		}
		t.makeRoom()
		t.streams[string(t.key)] = s
	}
	s.Seen = n
	t.last = s
	return s
}

// makeRoom forgets the stream that has been silent longest, if there are too
// many. What did not come of it is lost.
func (t *Tracker) makeRoom() {
	if len(t.streams) < maxStreams {
		return
	}
	var oldest string
	for k, s := range t.streams {
		if o := t.streams[oldest]; o == nil || cmp.Or(cmp.Compare(s.Seen, o.Seen), cmp.Compare(k, oldest)) < 0 {
			oldest = k
		}
	}
	s := t.streams[oldest]
	s.settle(math.MaxInt64)
	t.gone = append(t.gone, s.tell()...)
	t.marked = append(t.marked, Memory{Key: oldest})
	delete(t.streams, oldest)
	t.last, t.stale = nil, true
}

// skip notes that the numbers from Next up to this one have not come.
func (t *Tracker) skip(s *stream, upTo uint64, now time.Time) {
	due := now.Add(t.patience).UnixNano()
	if n := len(s.Holes); n > 0 {
		due = max(due, s.Holes[n-1].Due)
	}
	s.Holes = append(s.Holes, hole{span{s.Next, upTo}, due})
	s.bound()
	t.stale = true
}

// bound keeps the list of holes short.
func (s *stream) bound() {
	if len(s.Holes) > maxHoles {
		s.lose(s.Holes[0].span)
		s.Holes = slices.Delete(s.Holes, 0, 1)
	}
}

// late takes in a number below Next, and reports whether it was missing.
func (s *stream) late(seq uint64) bool {
	if i, ok := find(s.Holes, seq, func(h hole) span { return h.span }); ok {
		due := s.Holes[i].Due
		s.Holes = cut(s.Holes, i, seq, s.Holes[i].span, func(sp span) hole { return hole{sp, due} })
		s.bound()
		return true
	}
	whole := func(sp span) span { return sp }
	i, lost := find(s.Lost, seq, whole)
	if lost {
		s.Lost = cut(s.Lost, i, seq, s.Lost[i], whole)
		s.forget()
	}
	if i, ok := find(s.Untold, seq, whole); ok { // what has not been told need not be
		s.Untold = cut(s.Untold, i, seq, s.Untold[i], whole)
		return true
	}
	if lost {
		s.know()
		s.Came = add(s.Came, span{seq, seq})
	}
	return lost
}

// know notes that there is something to tell.
func (s *stream) know() {
	if len(s.Untold)+len(s.Came) == 0 {
		s.Since = s.Seen
	}
}

// forget keeps the list of what was lost short.
func (s *stream) forget() {
	if len(s.Lost) > maxLost {
		s.Lost = slices.Delete(s.Lost, 0, 1)
	}
}

// find finds the span that holds a number.
func find[T any](list []T, n uint64, of func(T) span) (int, bool) {
	return slices.BinarySearchFunc(list, n, func(e T, n uint64) int { return of(e).compare(n) })
}

// compare tells where n lies: 0 is in the span, more is before it.
func (s span) compare(n uint64) int {
	switch {
	case s.To < n:
		return -1
	case s.From > n:
		return 1
	}
	return 0
}

// cut takes a number out of the span s, the i-th of a list.
func cut[T any](list []T, i int, n uint64, s span, of func(span) T) []T {
	var rest []T
	if s.From < n {
		rest = append(rest, of(span{s.From, n - 1}))
	}
	if n < s.To {
		rest = append(rest, of(span{n + 1, s.To}))
	}
	return slices.Replace(list, i, i+1, rest...)
}

// add puts a span into an ordered list, as a part of its neighbour if it has
// one.
func add(list []span, s span) []span {
	i, _ := slices.BinarySearchFunc(list, s.From, span.compare)
	if i > 0 && list[i-1].To+1 == s.From {
		list[i-1].To = s.To
		if i < len(list) && s.To+1 == list[i].From {
			list[i-1].To = list[i].To
			list = slices.Delete(list, i, i+1)
		}
		return list
	}
	if i < len(list) && s.To+1 == list[i].From {
		list[i].From = s.From
		return list
	}
	return slices.Insert(list, i, s)
}

// settle takes the holes whose time has come for lost.
func (s *stream) settle(now int64) {
	n := 0
	for n < len(s.Holes) && s.Holes[n].Due <= now {
		s.lose(s.Holes[n].span)
		n++
	}
	s.Holes = slices.Delete(s.Holes, 0, n)
}

func (s *stream) lose(sp span) {
	s.know()
	s.Lost, s.Untold = add(s.Lost, sp), add(s.Untold, sp)
	s.forget()
}

// tell says what has not been told yet.
func (s *stream) tell() (gaps []Gap) {
	for _, g := range []struct {
		list *[]span
		came bool
	}{{&s.Untold, false}, {&s.Came, true}} {
		if list := *g.list; len(list) > 0 {
			gaps = append(gaps, Gap{Series: s.Series, Vantage: s.Vantage, From: list[0].From, To: list[len(list)-1].To,
				Count: count(list), Came: g.came, Numbers: numbers(list)})
			*g.list = nil
		}
	}
	return gaps
}

func count(list []span) (n uint64) {
	for _, s := range list {
		n += s.To - s.From + 1
	}
	return n
}

// numbers lists spans for people.
func numbers(list []span) string {
	var b []byte
	for i, s := range list {
		if i == maxShown {
			b = append(b, ", …"...)
			break
		}
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendUint(b, s.From, 10)
		if s.To > s.From {
			b = strconv.AppendUint(append(b, '-'), s.To, 10)
		}
	}
	return string(b)
}

// due is when something of the stream has to be told; 0: never. It is told
// once in each time of patience, so that a filter which takes out every other
// line does not make as many of ours, unless that is too much to remember.
func (s *stream) due(patience time.Duration) (at int64) {
	switch untold := len(s.Untold) + len(s.Came); {
	case untold > maxLost:
		return s.Since
	case untold > 0:
		at = s.Since
	case len(s.Holes) > 0:
		at = s.Holes[0].Due
	default:
		return 0
	}
	if s.Told != 0 {
		at = max(at, s.Told+int64(patience))
	}
	return at
}

// Next is when Due should be called; the zero time if nothing is waited for.
func (t *Tracker) Next() time.Time {
	if t.stale {
		t.next, t.stale = 0, false
		for _, s := range t.streams {
			if at := s.due(t.patience); at != 0 && (t.next == 0 || at < t.next) {
				t.next = at
			}
		}
	}
	if t.next == 0 {
		return time.Time{}
	}
	return time.Unix(0, t.next).UTC()
}

// Due returns what is lost for certain by now and has not been told: at the
// end of the input all that has not come.
func (t *Tracker) Due(now time.Time, end bool) []Gap {
	gaps := t.gone
	t.gone, t.stale = nil, true
	n := now.UnixNano()
	for _, k := range t.keys() {
		s := t.streams[k]
		if at := s.due(t.patience); at == 0 || at > n && !end {
			continue
		}
		if s.settle(n); end {
			s.settle(math.MaxInt64)
		}
		s.Told = n
		gaps = append(gaps, s.tell()...)
		t.marked = append(t.marked, Memory{k, s})
	}
	return gaps
}

// keys are those of the streams, in an order that a repetition has too.
func (t *Tracker) keys() []string {
	keys := make([]string, 0, len(t.streams))
	for k := range t.streams {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
