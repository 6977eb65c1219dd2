package route

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/queue"
	"pup/cmd/pup-route/internal/state"
)

// A trouble is what we know of a name's problem beside its state. It goes
// into the events of the problem, and is forgotten when that is over.
type trouble struct {
	Found  []*finding        `json:"found,omitempty"`  // by each diagnose command that was run
	Labels map[string]string `json:"labels,omitempty"` // that hooks gave it

	name, vantage string
	held          []*queue.Job[*call] // wait for what is pending
	exams         []*exam             // not ended
	over          bool
}

// A finding is what a diagnose command found.
type finding struct {
	Name   string
	Exit   int
	Took   time.Duration
	Output string
	Cut    bool   // the beginning of Output is missing
	Error  string // it found nothing
	ended  bool
}

const (
	unfinished = "pup-route ended before it did"
	tooLate    = "it had not ended yet"
)

// MarshalJSON writes the finding as an event has it. One that is pending is
// written for the case that we end first.
func (f *finding) MarshalJSON() ([]byte, error) { return f.append(nil, unfinished), nil }

// append appends the finding; pending is the error of one that has not ended.
func (f *finding) append(b []byte, pending string) []byte {
	b = ndjson.AppendString(append(b, `{"name":`...), f.Name)
	why := f.Error
	if !f.ended {
		why = pending
	}
	if why != "" {
		b = ndjson.AppendString(append(b, `,"error":`...), why)
	} else {
		b = strconv.AppendInt(append(b, `,"exit":`...), int64(f.Exit), 10)
	}
	if f.ended && f.Took > 0 {
		b = wire.AppendMS(append(b, `,"ms":`...), f.Took)
	}
	if f.Output != "" {
		b = ndjson.AppendString(append(b, `,"output":`...), f.Output)
	}
	if f.Cut {
		b = append(b, `,"truncated":["output"]`...)
	}
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *finding) UnmarshalJSON(b []byte) error {
	var v struct {
		Name      string
		Exit      int
		MS        float64
		Output    string
		Error     string
		Truncated []string
	}
	err := json.Unmarshal(b, &v)
	*f = finding{Name: v.Name, Exit: v.Exit, Took: time.Duration(v.MS * float64(time.Millisecond)), Output: v.Output, Error: v.Error, Cut: v.Truncated != nil, ended: true}
	return err
}

// tells reports whether an event of the kind tells of a problem.
func tells(kind string) bool {
	return kind != state.KindRecovered && kind != state.KindResult && kind != state.Up.String()
}

// attach completes an event line with what was found.
func (t *trouble) attach(line []byte, pending string) []byte {
	if len(t.Found) == 0 {
		return line
	}
	b := []byte{'['}
	for i, f := range t.Found {
		if i > 0 {
			b = append(b, ',')
		}
		b = f.append(b, pending)
	}
	return ndjson.Splice(nil, line, "diagnosis", append(b, ']'))
}

// awaited reports whether an event of the kind should wait for a finding.
func (t *trouble) awaited(kind string) bool { return len(t.exams) > 0 && tells(kind) }

// maxTroubles bounds of how many names something is known beside their state.
const maxTroubles = 2048

// trouble finds what is known of a name's problem, or begins it; nil if there
// is no room.
func (r *router) trouble(name, vantage string) *trouble {
	key := name + "\x00" + vantage
	t := r.troubles[key]
	if t == nil && len(r.troubles) < maxTroubles {
		t = &trouble{name: name, vantage: vantage}
		r.troubles[key] = t
	}
	return t
}

// troubleOf finds what is known of the problem that an event is about; nil if
// nothing is. Of what several vantages see, it is what is known as one of them
// sees it.
func (r *router) troubleOf(e *state.Event) *trouble {
	if t := r.troubles[e.Name+"\x00"+e.Vantage]; t != nil {
		return t
	}
	for _, v := range e.Seen {
		if t := r.troubles[e.Name+"\x00"+v.Vantage]; t != nil {
			return t
		}
	}
	return nil
}

// keptTrouble begins the keys under which a spool keeps troubles.
const keptTrouble = "trouble"

// keepTrouble has the spool keep what is known, or forget it.
func (r *router) keepTrouble(t *trouble) {
	if r.spool == nil {
		return
	}
	var value []byte
	if !t.over {
		var err error
		if value, err = json.Marshal(t); err != nil {
			r.fail("write the spool", err)
			return
		}
	}
	if err := r.spool.Keep(keptTrouble+"\x00"+t.name+"\x00"+t.vantage, value); err != nil {
		r.fail("write the spool", err)
	}
}

// recall takes back what a spool kept.
func (r *router) recall(key string, value []byte) error {
	if len(value) == 0 {
		delete(r.troubles, key)
		return nil
	}
	t := &trouble{}
	t.name, t.vantage, _ = strings.Cut(key, "\x00")
	r.troubles[key] = t
	return json.Unmarshal(value, t)
}

// sweepEvery is how often troubles are looked for whose name is gone.
const sweepEvery = time.Minute

// sweep forgets the troubles that are over. Most are when a result says so;
// a name may also be gone.
func (r *router) sweep() {
	r.swept = r.clock.wall
	for _, t := range r.troubles {
		if r.table.Quiet(t.name, t.vantage) {
			r.forget(t)
		}
	}
}

// forget is called when a problem is over. What its diagnose commands find
// nobody wants to know any more, but the calls that wait for it.
func (r *router) forget(t *trouble) {
	t.over = true
	delete(r.troubles, t.name+"\x00"+t.vantage)
	r.keepTrouble(t)
	if len(t.held) == 0 {
		r.drop(t)
	}
}

// follower is the router as the state sees it.
type follower router

func (f *follower) Trouble(q state.Question, status state.Status) {
	(*router)(f).diagnose(q, status)
}

func (f *follower) Over(name, vantage string) {
	r := (*router)(f)
	if len(r.troubles) == 0 {
		return
	}
	if t := r.troubles[name+"\x00"+vantage]; t != nil {
		r.forget(t)
	}
}
