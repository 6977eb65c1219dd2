// Package view shows result lines to people: one readable line each, coloured
// where the terminal can.
package view

import (
	"fmt"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

var colors = map[wire.Status]string{wire.Up: "32", wire.Degraded: "33", wire.Down: "31", wire.Unknown: "35"}

// Line returns a function that appends the view of a line to dst. A line that
// is no result is shown as it is.
func Line(color bool) func(dst, line []byte) []byte {
	return func(dst, line []byte) []byte {
		m := map[string]string{}
		err := ndjson.Members(line, func(k, v []byte) error {
			if s, err := ndjson.Unquote(v); err == nil {
				m[string(k)] = s
			} else {
				m[string(k)] = string(v)
			}
			return nil
		})
		switch {
		case err != nil:
			return append(dst, ndjson.Printable(string(line))...)
		case m["type"] == wire.TypeError:
			return fmt.Appendf(dst, "error     line %s: %s", m["line_no"], ndjson.Printable(m["error"]))
		case m["type"] != wire.TypeResult:
			return append(dst, ndjson.Printable(string(line))...)
		}
		return result(dst, m, color)
	}
}

func result(dst []byte, m map[string]string, color bool) []byte {
	status := wire.Status(m["status"])
	word := fmt.Sprintf("%-8s", status)
	if color {
		word = "\x1b[" + colors[status] + "m" + word + "\x1b[0m"
	}
	clock := "        "
	if t, err := time.Parse(time.RFC3339Nano, m["time"]); err == nil {
		clock = t.Local().Format("15:04:05")
	}
	dst = fmt.Appendf(dst, "%s  %s  %-24s", clock, word, ndjson.Printable(m["name"]))
	if ms := total(m["ms"]); ms != "" {
		dst = fmt.Appendf(dst, " %9s ms", ms)
	}
	if m["reason"] != "" {
		dst = fmt.Appendf(dst, "  %s/%s: %s", m["phase"], m["reason"], ndjson.Printable(m["error"]))
	}
	return []byte(strings.TrimRight(string(dst), " "))
}

func total(ms string) string {
	t := ""
	_ = ndjson.Members([]byte(ms), func(k, v []byte) error {
		if string(k) == "total" {
			t = string(v)
		}
		return nil
	})
	return t
}
