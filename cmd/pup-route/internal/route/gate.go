package route

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/state"
)

// silencesEvery is how often the directory of silences is looked at.
const silencesEvery = 5 * time.Second

// silences is what the directory of silences holds.
type silences struct {
	all    []config.Silence
	own    []config.Silence // answers of hooks, where there is no directory
	mark   string           // of the files, to see that they have changed
	looked time.Time
}

// look reads the silences again if they have changed.
func (r *router) look() {
	dir := r.Config.Silences
	if dir == "" || !r.silences.looked.IsZero() && r.clock.wall.Sub(r.silences.looked) < silencesEvery {
		return
	}
	r.silences.looked = r.clock.wall
	mark := dir
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
			mark += "\x00" + e.Name() + info.ModTime().String() + strconv.FormatInt(info.Size(), 10)
		}
	}
	if err == nil && mark == r.silences.mark {
		return
	}
	r.silences.mark = mark
	if r.silences.all, err = config.LoadSilences(dir); err != nil {
		r.log.printf("a silence is left out: %v", err)
	}
}

// gate says why a hook must not hear of a problem now.
func (r *router) gate(q state.Question) (reason string, again time.Time) {
	return r.gateFor(r.Config.Hooks[q.Rule].Name, q)
}

func (r *router) gateFor(hook string, q state.Question) (reason string, again time.Time) {
	for _, s := range slices.Concat(r.silences.all, r.silences.own) {
		if s.Covers(hook, q.Name, q.Incident, q.Now) && (s.When == nil || r.holds(s.When, q.Line)) {
			return strings.TrimSuffix("silenced by "+filepath.Base(s.File)+": "+s.Reason, ": "), q.Now.Add(silencesEvery)
		}
	}
	var maintenance string
	var parents []string
	_ = ndjson.Members(q.Line, func(key, value []byte) error { // it was valid when it came
		switch string(key) {
		case "maintenance":
			maintenance = string(plain(value))
		case "depends_on":
			return ndjson.Elements(value, func(v []byte) error {
				parents = append(parents, string(plain(v)))
				return nil
			})
		}
		return nil
	})
	if maintenance != "" {
		return "maintenance: " + maintenance, time.Time{}
	}
	for _, p := range parents {
		if reason, again := r.parent(p, q); reason != "" {
			return reason, again
		}
	}
	return "", time.Time{}
}

// parentWait is how long a problem waits for the next result of what it
// depends on, which may have failed just before and not told yet.
const parentWait = 30 * time.Second

func (r *router) parent(name string, q state.Question) (reason string, again time.Time) {
	bad, seen := r.table.Trouble(name, q.Vantage)
	switch until := q.Since.Add(parentWait); {
	case bad:
		return fmt.Sprintf("it depends on %s, which is not up", name), time.Time{}
	case !seen.IsZero() && seen.Before(q.Since) && q.Now.Before(until):
		return fmt.Sprintf("it depends on %s, whose next result is awaited", name), q.Now.Add(time.Second)
	}
	return "", time.Time{}
}

// why is told by the state, in a dry run, why a hook is not called. What was
// said is not said again until it changes.
func (r *router) why(rule int, name, vantage, reason string, now time.Time) {
	hook := r.Config.Hooks[rule].Name
	key := hook + "\x00" + name + "\x00" + vantage
	if r.said[key] == reason {
		return
	}
	r.said[key] = reason
	b := append(r.buf[:0], `{"v":1,"type":"held","name":`...)
	b = ndjson.AppendString(b, name)
	b = wire.AppendTime(append(b, `,"time":`...), now)
	if vantage != "" {
		b = ndjson.AppendString(append(b, `,"vantage":`...), vantage)
	}
	b = ndjson.AppendString(append(append(append(b, `,"hook":"`...), hook...), `","reason":`...), reason)
	r.buf = append(b, '}')
	r.add(r.buf)
}
