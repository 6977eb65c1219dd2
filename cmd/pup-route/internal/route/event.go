package route

import (
	"regexp"
	"strconv"
	"sync"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/spool"
	"pup/cmd/pup-route/internal/state"
)

// appendEvent appends the line that a hook gets. The result stands in it as
// it came, byte for byte.
func appendEvent(dst []byte, hook string, e *state.Event, now time.Time) []byte {
	dst = append(dst, `{"v":1,"type":"`+wire.TypeEvent+`","name":`...)
	dst = ndjson.AppendString(dst, e.Name)
	dst = append(append(dst, `,"event":"`...), e.Kind...)
	dst = append(append(dst, `","status":"`...), e.Status.String()...)
	if !e.First {
		dst = append(append(dst, `","previous":"`...), e.Previous.String()...)
	}
	dst = wire.AppendTime(append(dst, `","time":`...), now)
	dst = wire.AppendTime(append(dst, `,"since":`...), e.Since)
	dst = wire.AppendMS(append(dst, `,"for_ms":`...), e.For)
	if e.Count > 0 {
		dst = strconv.AppendInt(append(dst, `,"count":`...), int64(e.Count), 10)
	}
	if e.Incident != "" {
		dst = append(append(append(dst, `,"incident":"`...), e.Incident...), '"')
	}
	if e.Vantage != "" {
		dst = ndjson.AppendString(append(dst, `,"vantage":`...), e.Vantage)
	}
	if e.Reason != "" {
		dst = append(append(append(dst, `,"reason":"`...), e.Reason...), '"')
	}
	if e.Seen != nil {
		dst = appendViews(append(dst, `,"vantages":[`...), "vantage", e.Seen)
	}
	if w := e.Whole; w != nil {
		if w.Cause {
			dst = ndjson.AppendString(append(dst, `,"cause":`...), e.Name)
		}
		dst = appendViews(append(dst, `,"members":[`...), "name", w.Members)
		dst = strconv.AppendInt(append(dst, `,"total":`...), int64(w.Total), 10)
	}
	dst = append(append(dst, `,"job":"`...), e.Job...)
	dst = append(append(append(dst, `","hook":"`...), hook...), '"')
	if len(e.Line) > 0 {
		dst = append(append(dst, `,"result":`...), e.Line...)
	}
	return append(dst, '}')
}

// appendViews appends the items of a list of names and their statuses, and its
// end.
func appendViews(dst []byte, key string, views []state.View) []byte {
	for i, v := range views {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, `{"`...), key...)
		dst = ndjson.AppendString(append(dst, `":`...), v.Vantage)
		dst = append(append(append(dst, `,"status":"`...), v.Status.String()...), `"}`...)
	}
	return append(dst, ']')
}

// safe are the names that may stand in an environment. A name comes with the
// lines, so it is a stranger's text.
var safe = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$`) })

// environ is what a hook is told in its environment: identifiers, numbers and
// words of ours, never text from the network.
func environ(hook string, e *state.Event) []string {
	env := []string{
		"PUP_HOOK=" + hook,
		"PUP_JOB=" + e.Job,
		"PUP_EVENT=" + e.Kind,
		"PUP_STATUS=" + e.Status.String(),
		"PUP_COUNT=" + strconv.Itoa(e.Count),
	}
	if safe().MatchString(e.Name) {
		env = append(env, "PUP_NAME="+e.Name)
	}
	if !e.First {
		env = append(env, "PUP_PREVIOUS="+e.Previous.String())
	}
	if e.Incident != "" {
		env = append(env, "PUP_INCIDENT="+e.Incident)
	}
	return env
}

// appendGroup appends the event that gathers others.
func appendGroup(dst []byte, hook string, jobs []*spool.Job, now time.Time) []byte {
	dst = append(dst, `{"v":1,"type":"`+wire.TypeEvent+`","event":"group"`...)
	dst = wire.AppendTime(append(dst, `,"time":`...), now)
	dst = strconv.AppendInt(append(dst, `,"count":`...), int64(len(jobs)), 10)
	dst = append(append(dst, `,"job":"`...), jobs[0].ID...)
	dst = append(append(dst, `","hook":"`...), hook...)
	dst = append(dst, `","events":`...)
	for i, j := range jobs {
		dst = append(append(dst, "[,"[min(i, 1)]), j.Event...)
	}
	return append(dst, "]}"...)
}
