package lines

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pup/cmd/internal/golden"
	"pup/cmd/internal/manual"
	"pup/cmd/internal/schema"
)

const intro = `The programs exchange lines: UTF-8, one JSON object a line, ` + "`\\n`" + ` at the end, no byte order mark, no HTML escaping. Every line has the members ` + "`v`" + `, the major version of the format, and ` + "`type`" + `. A missing ` + "`v`" + ` means 1, a missing ` + "`type`" + ` what the program reads. Lines of a type that a program does not own pass through it byte for byte.

A write carries whole lines, at most 4096 bytes, so that several writers may share a pipe. Where a result would be longer, free text and large facts are cut or left out, and ` + "`truncated`" + ` names them; identity and verdict never are.

Readers accept CRLF, a byte order mark at the start, blank lines, and a last line without line end. A line of more than 1 MiB is dropped whole and reported, and reading goes on behind it.

Keys are lower snake_case. Absent means unknown or not reached: there is no null and no 0 or -1 in its place. Times are RFC 3339 in UTC with milliseconds. Elapsed times are numbers of milliseconds, under ` + "`ms`" + ` or named ` + "`…_ms`" + `.

Within version 1, members, types and reasons are only ever added.
`

// TestGeneratedLines keeps docs/lines.md, its schema and pup-lines(5).
func TestGeneratedLines(t *testing.T) {
	var md, man strings.Builder
	md.WriteString("<!-- Made by 'make generate' from cmd/internal/lines. Do not edit. -->\n\n# Lines\n\n" + intro)
	man.WriteString("## Description\n\n" + intro)
	defs := map[string]schema.Field{}
	for _, d := range Docs() {
		defs[d.Type] = d.Field
		fmt.Fprintf(&md, "\n## %s\n\n%s\n\n%s", d.Type, d.Summary, strings.ReplaceAll(d.Field.Markdown("", false), "`.", "`"))
		fmt.Fprintf(&man, "\n## %s\n\n%s\n\n%s", d.Type, d.Summary, manual.Fields(&d.Field, ""))
	}
	golden.File(t, "docs/lines.md", []byte(md.String()))
	also := []string{"pup-sched(1)", "pup-probe(1)", "pup-route(1)", "pup-checks(7)"}
	golden.File(t, "docs/man/pup-lines.5", manual.Roff(manual.Page("pup-lines", 5, "the lines that the pup programs exchange", man.String(), also)))
	b, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "pup lines",
		"$defs":   defs,
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "docs/lines.schema.json", append(b, '\n'))
}
