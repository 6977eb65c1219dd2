// Package manual makes man pages from what the programs say of themselves. It
// is used by tests only, so that nothing of it is linked into a program.
package manual

import (
	"fmt"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/schema"
)

// Program gives the manual page of a program, section 1, in Markdown as
// go-md2man wants it.
func Program(p *cmdline.Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# NAME\n\n%s - %s\n\n# SYNOPSIS\n\n", title(p.Name, 1), p.Name, p.Usage)
	for _, s := range p.Synopsis {
		fmt.Fprintf(&b, "**%s** %s\n\n", p.Name, escape(s))
	}
	for _, c := range p.Commands {
		if !c.Hidden {
			fmt.Fprintf(&b, "**%s %s** %s\n\n", p.Name, c.Name, escape(c.ArgsUsage))
		}
	}
	fmt.Fprintf(&b, "# DESCRIPTION\n\n%s\n\n# OPTIONS\n\n", p.Description)
	for _, f := range p.ManualFlags() {
		b.WriteString("**" + strings.Join(f.Names, "**, **") + "**")
		if f.Value != "" {
			b.WriteString(" *" + f.Value + "*")
		}
		b.WriteString("\n:   " + sentence(f.Doc))
		if f.Default != "" {
			b.WriteString(" The default is " + f.Default + ".")
		}
		b.WriteString("\n\n")
	}
	if len(p.Commands) > 0 {
		b.WriteString("# COMMANDS\n\n")
		for _, c := range p.Commands {
			if !c.Hidden {
				fmt.Fprintf(&b, "**%s** %s\n:   %s\n\n", c.Name, escape(c.ArgsUsage), sentence(c.Usage))
			}
		}
	}
	for _, s := range p.Sections {
		fmt.Fprintf(&b, "# %s\n\n%s\n\n", strings.ToUpper(s.Title), s.Text)
	}
	if len(p.Examples) > 0 {
		b.WriteString("# EXAMPLES\n\n")
		for _, e := range p.Examples {
			fmt.Fprintf(&b, "%s:\n\n    %s\n\n", capital(e.Doc), strings.ReplaceAll(e.Command, "\n", "\n    "))
		}
	}
	b.WriteString("# EXIT STATUS\n\n")
	for _, e := range cmdline.Exits {
		if p.CanExit(e.Code) {
			fmt.Fprintf(&b, "**%d**\n:   %s\n\n", e.Code, sentence(e.Doc))
		}
	}
	seeAlso(&b, p.SeeAlso)
	return b.String()
}

// Page gives a page of another section, in Markdown as go-md2man wants it.
// Text is Markdown whose headings begin with "##".
func Page(name string, section int, summary, text string, also []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# NAME\n\n%s - %s\n\n", title(name, section), name, summary)
	for line := range strings.SplitSeq(text, "\n") {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			line = "# " + strings.ToUpper(h)
		} else if h, ok := strings.CutPrefix(line, "### "); ok {
			line = "## " + h
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n")
	seeAlso(&b, also)
	return b.String()
}

// Fields gives the members of f as a definition list for a page.
func Fields(f *schema.Field, prefix string) string {
	var b strings.Builder
	for i := range f.Fields {
		sub := &f.Fields[i]
		fmt.Fprintf(&b, "**%s%s** (%s", prefix, sub.Name, sub.TypeText())
		if sub.Default != nil {
			fmt.Fprintf(&b, ", default %s", escape(string(sub.Default)))
		}
		fmt.Fprintf(&b, ")\n:   %s\n\n", sub.Meaning())
		switch {
		case sub.Type == schema.Object:
			b.WriteString(Fields(sub, prefix+sub.Name+"."))
		case sub.Type == schema.Array && sub.Items.Type == schema.Object:
			b.WriteString(Fields(sub.Items, prefix+sub.Name+"[]."))
		}
	}
	return b.String()
}

func title(name string, section int) string {
	return fmt.Sprintf("%% %q %q \"\" \"pup\" \"pup\"\n", strings.ToUpper(name), fmt.Sprint(section))
}

func seeAlso(b *strings.Builder, pages []string) {
	if len(pages) == 0 {
		return
	}
	b.WriteString("# SEE ALSO\n\n")
	for i, s := range pages {
		if i > 0 {
			b.WriteString(", ")
		}
		name, section, ok := strings.Cut(s, "(")
		if ok {
			s = "**" + name + "**(" + section
		}
		b.WriteString(s)
	}
	b.WriteString("\n")
}

// Roff renders a page.
func Roff(markdown string) []byte { return md2man.Render([]byte(markdown)) }

func sentence(s string) string { return capital(escape(strings.TrimSuffix(s, "."))) + "." }

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// escape keeps Markdown from reading plain text as markup.
func escape(s string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`).Replace(s)
}
