package route

import (
	"encoding/json"
	"fmt"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// A view writes lines for people: one short line for each record.
type view struct{ color bool }

var colors = map[string]string{"up": "32", "degraded": "33", "down": "31", "unknown": "35"}

// line returns the record as a person reads it, and "" for one that is of no
// interest.
func (v view) line(text []byte) string {
	var r struct {
		Type, Name, Status, Event, Hook, Phase, Reason, Error, Previous string
		Time                                                            time.Time
		MS                                                              struct{ Total float64 }
		LineNo                                                          int `json:"line_no"`
	}
	if json.Unmarshal(text, &r) != nil {
		return ndjson.Printable(ndjson.Cut(string(text), 200))
	}
	at := "--:--:--"
	if !r.Time.IsZero() {
		at = r.Time.Local().Format(time.TimeOnly)
	}
	name := ndjson.Printable(ndjson.Cut(r.Name, 100))
	switch r.Type {
	case wire.TypeEvent:
		return fmt.Sprintf("%s %s  %s: %s", at, v.paint(r.Status), name, ndjson.Printable(r.Hook+" is called for "+r.Event))
	case wire.TypeError:
		what := ndjson.Printable(ndjson.Cut(r.Error, 200))
		if r.LineNo > 0 {
			return fmt.Sprintf("%s error     line %d: %s", at, r.LineNo, what)
		}
		return fmt.Sprintf("%s error     %s: %s", at, ndjson.Printable(r.Hook), what)
	case wire.TypeResult, "":
		s := fmt.Sprintf("%s %s  %s", at, v.paint(r.Status), name)
		if r.MS.Total > 0 {
			s += fmt.Sprintf("  %.1f ms", r.MS.Total)
		}
		if r.Error != "" {
			s += "  " + ndjson.Printable(r.Phase+"/"+r.Reason+": "+ndjson.Cut(r.Error, 200))
		}
		return s
	}
	return ""
}

func (v view) paint(status string) string {
	s := fmt.Sprintf("%-8s", ndjson.Printable(ndjson.Cut(status, 20)))
	if c := colors[status]; v.color && c != "" {
		return "\x1b[" + c + "m" + s + "\x1b[0m"
	}
	return s
}
