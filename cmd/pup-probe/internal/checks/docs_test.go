package checks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/golden"
	"pup/cmd/internal/manual"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// TestGeneratedChecks keeps docs/checks.md, docs/checks.schema.json and
// pup-checks(7).
func TestGeneratedChecks(t *testing.T) {
	r := probe.NewRunner(All())
	b, err := r.Catalog.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b, "", " "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	golden.File(t, "docs/checks.schema.json", pretty.Bytes())

	table := func(f *schema.Field, prefix string, defaults bool) string { return f.Markdown(prefix, defaults) }
	md := "<!-- Made by 'make generate' from the checks of pup-probe. Do not edit. -->\n\n# Checks\n\n" + checksText(r, table)
	golden.File(t, "docs/checks.md", []byte(md))
	list := func(f *schema.Field, prefix string, _ bool) string { return manual.Fields(f, prefix+".") }
	also := []string{"pup-probe(1)", "pup-lines(5)", "pup.toml(5)"}
	golden.File(t, "docs/man/pup-checks.7", manual.Roff(manual.Page("pup-checks", 7, "what pup-probe can check", "## Description\n\n"+checksText(r, list), also)))
}

func checksText(r *probe.Runner, fields func(f *schema.Field, prefix string, defaults bool) string) string {
	var b strings.Builder
	b.WriteString(`A check speaks one protocol. The scheme of a target's URL picks it; the target's member named after the check holds its options, and the result's member of that name its facts.

Up means that the protocol was spoken and the service did its work. A port that accepts, an echo, another service on the port, a banner and then silence, a server that is loading or wants a password: none of them is up.

`)
	b.WriteString("## Expressions\n\n`expect` (else down) and `warn` (else degraded) are lists of expressions over the result line: what jq shows at `.http.status` is written `http.status`. The language is that of expr-lang (https://expr-lang.org/docs/language-definition): `== != < <= > >=`, `and or not`, `in`, `contains`, `startsWith`, `endsWith`, `matches` (a regular expression, RE2), `len(x)`, `all(x, ...)`, `any(x, ...)`. Beyond it there are\n\n")
	for _, f := range expr.Functions {
		fmt.Fprintf(&b, "- `%s`: %s\n", f.Usage, f.Doc)
	}
	b.WriteString("\nA comparison with an absent member does not hold, whatever the operator; `x ?? 0` stands in for one. A check's own expressions apply unless the target's mention the same fact. A target that expects a failure says so with the reason: `expect = [\"reason == 'denied'\"]`.\n\n## Reasons\n\n")
	for _, d := range wire.Reasons {
		fmt.Fprintf(&b, "- `%s`: %s\n", d.Word, d.Doc)
	}
	b.WriteString("\nThe last six mean that the status is unknown.\n\n## Phases\n\n")
	for _, d := range wire.Phases {
		fmt.Fprintf(&b, "- `%s`: %s\n", d.Word, d.Doc)
	}
	opts, facts := r.Catalog.TLSOptions(), r.Catalog.TLSFacts()
	fmt.Fprintf(&b, "\n## TLS\n\nOptions of the member `tls`, for every check that speaks TLS:\n\n%s\nFacts in the member `tls` of the result:\n\n%s", fields(&opts, "tls", true), fields(&facts, "tls", false))
	for _, k := range r.Catalog.Checks {
		checkText(&b, &k, fields)
	}
	return b.String()
}

func checkText(b *strings.Builder, k *probe.CatalogCheck, fields func(*schema.Field, string, bool) string) {
	fmt.Fprintf(b, "\n## %s\n\n%s%s. URLs: ", k.Name, strings.ToUpper(k.Summary[:1]), k.Summary[1:])
	for i, s := range k.Schemes {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(b, "`%s://`", s.Name)
		switch {
		case s.Port > 0 && s.TLS:
			fmt.Fprintf(b, " (port %d, TLS)", s.Port)
		case s.Port > 0:
			fmt.Fprintf(b, " (port %d)", s.Port)
		case s.TLS:
			b.WriteString(" (TLS)")
		}
	}
	fmt.Fprintf(b, ". For example `%s`.\n\n%s\n\n", k.Example, strings.TrimSpace(k.Doc))
	if len(k.Common) > 0 {
		fmt.Fprintf(b, "It understands the members `%s`.\n\n", strings.Join(k.Common, "`, `"))
	}
	for _, d := range []struct {
		name string
		list []string
	}{{"expect", k.Expect}, {"warn", k.Warn}} {
		if len(d.list) > 0 {
			fmt.Fprintf(b, "Its own `%s`: `%s`.\n\n", d.name, strings.Join(d.list, "`, `"))
		}
	}
	if o := k.Options(); len(o.Fields) > 0 && k.Name != "tls" {
		fmt.Fprintf(b, "Options:\n\n%s\n", fields(o, k.Name, true))
	}
	if f := k.Facts(); len(f.Fields) > 0 && k.Name != "tls" {
		fmt.Fprintf(b, "Facts:\n\n%s", fields(f, k.Name, false))
	}
}
