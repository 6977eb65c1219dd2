package gap

import (
	"encoding/json"
	"time"
)

// A Memory is what is to be remembered of a stream, so that a restart neither
// loses count nor tells twice.
type Memory struct {
	Key    string
	stream *stream // nil: nothing any more
}

// MarshalJSON writes the state of the stream.
func (m Memory) MarshalJSON() ([]byte, error) { return json.Marshal(m.stream) }

// Gone reports whether there is nothing left to remember.
func (m Memory) Gone() bool { return m.stream == nil }

// Changed returns the streams of which something was told since the last
// call. What lines do is not among it: they are taken in again one by one.
func (t *Tracker) Changed() []Memory {
	marked := t.marked
	t.marked = nil
	return marked
}

// All returns all streams, for a snapshot.
func (t *Tracker) All() []Memory {
	var all []Memory
	for _, k := range t.keys() {
		all = append(all, Memory{k, t.streams[k]})
	}
	return all
}

// Restore takes the state of a stream back.
func (t *Tracker) Restore(key string, value []byte) error {
	var s stream
	if err := json.Unmarshal(value, &s); err != nil {
		return err
	}
	t.streams[key] = &s
	t.last, t.stale = nil, true
	return nil
}

// Resume ends the taking back: what has been told is not told again, and a
// series that is met from now on is new.
func (t *Tracker) Resume(now time.Time) {
	t.gone, t.marked, t.stale = nil, nil, true
	if len(t.streams) > 0 && t.began == 0 {
		t.began = now.Add(-2 * t.patience).UnixNano()
	}
}
