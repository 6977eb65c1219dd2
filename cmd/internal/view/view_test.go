package view

import (
	"regexp"
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		color      bool
		want       string // a regular expression
	}{
		{"up", `{"type":"result","name":"www","status":"up","time":"2026-11-24T09:13:54.843Z","ms":{"total":12.5}}`, false, `^\d\d:\d\d:54  up        www +12.5 ms$`},
		{"down", `{"type":"result","name":"db","status":"down","phase":"connect","reason":"refused","error":"connect: refused","time":"2026-11-24T09:13:54Z","ms":{"total":1}}`, false, `down      db +1 ms  connect/refused: connect: refused$`},
		{"colour", `{"type":"result","name":"db","status":"down"}`, true, "^ +\x1b\\[31mdown    \x1b\\[0m  db$"},
		{"error", `{"type":"error","line_no":7,"error":"unexpected 'g'"}`, false, `^error     line 7: unexpected 'g'$`},
		{"another type", `{"type":"beat","emitted":3}`, false, `^{"type":"beat","emitted":3}$`},
		{"no JSON", "gar\x1bbage", false, `^gar\\u001bbage$`},
		{"hostile name", `{"type":"result","name":"a\u001b[31m\u202e","status":"up"}`, false, `up        a\\u001b\[31m\\u202e$`},
	} {
		got := string(Line(tt.color)(nil, []byte(tt.line)))
		if !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%s: got %q, want %s", tt.name, got, tt.want)
		}
		if !tt.color && strings.ContainsAny(got, "\x1b\u202e") {
			t.Errorf("%s: %q acts on a terminal", tt.name, got)
		}
	}
}
