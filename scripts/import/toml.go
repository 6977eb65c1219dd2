package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// toml writes the result as a pup.toml.
func (r *result) toml() string {
	var b strings.Builder
	for _, n := range r.notes {
		comment(&b, n)
	}
	if len(r.defaults) > 0 {
		b.WriteString("[defaults]\n")
		writePairs(&b, r.defaults)
	}
	for _, t := range r.tables {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		for _, n := range t.notes {
			comment(&b, n)
		}
		if t.template {
			fmt.Fprintf(&b, "[template.%s]\n", quoteKey(t.name))
		} else {
			fmt.Fprintf(&b, "[[target]]\nname = %s\n", quote(t.name))
		}
		writePairs(&b, t.set)
		if t.off {
			b.WriteString("enabled = false\n")
		}
	}
	return b.String()
}

func comment(b *strings.Builder, text string) { fmt.Fprintf(b, "# %s\n", text) }

// printable takes control characters and line ends out of a text.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
}

func writePairs(b *strings.Builder, set []pair) {
	for _, p := range set {
		fmt.Fprintf(b, "%s = %s\n", quoteKey(p.key), literal(p.value))
	}
}

// literal writes a value, tables inline.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	case []string:
		items := make([]string, len(v))
		for i := range v {
			items[i] = quote(v[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	case []pair:
		items := make([]string, len(v))
		for i := range v {
			items[i] = quoteKey(v[i].key) + " = " + literal(v[i].value)
		}
		return "{ " + strings.Join(items, ", ") + " }"
	case [][]pair:
		items := make([]string, len(v))
		for i := range v {
			items[i] = literal(v[i])
		}
		return "[\n\t" + strings.Join(items, ",\n\t") + ",\n]"
	}
	panic(fmt.Sprintf("no literal for %T", v))
}

// quote writes a basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\U%08X`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

func quoteKey(s string) string {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return quote(s)
		}
	}
	return s
}

// text writes a string as expressions have it.
func text(s string) string { return strconv.Quote(s) }
