package cmdline

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// A Flag is a flag as the manual shows it.
type Flag struct {
	Names   []string // "-j", "--jobs"
	Value   string   // "N", or "" for a switch
	Default string
	Doc     string
}

// Names with their value: "-j, --jobs N".
func (f Flag) String() string {
	s := strings.Join(f.Names, ", ")
	if len(f.Names[0]) > 2 {
		s = "    " + s
	}
	if f.Value != "" {
		s += " " + f.Value
	}
	return s
}

// ManualFlags lists the flags of the program, hidden ones left out.
func (p *Program) ManualFlags() []Flag {
	var fs []Flag
	all := append([]cli.Flag{}, p.Flags...)
	for _, f := range []cli.Flag{cli.HelpFlag, cli.VersionFlag} {
		if f != nil && !p.hasFlag(f.Names()[0]) {
			all = append(all, f)
		}
	}
	for _, f := range all {
		df, ok := f.(cli.DocGenerationFlag)
		if v, isv := f.(cli.VisibleFlag); !ok || isv && !v.IsVisible() {
			continue
		}
		var mf Flag
		names := f.Names()
		for _, n := range append(append([]string{}, names[1:]...), names[0]) {
			mf.Names = append(mf.Names, dashed(n))
		}
		mf.Doc = df.GetUsage()
		if df.TakesValue() {
			mf.Value = "VALUE"
			if i := strings.Index(mf.Doc, "`"); i >= 0 {
				if j := strings.Index(mf.Doc[i+1:], "`"); j >= 0 {
					mf.Value = mf.Doc[i+1 : i+1+j]
					mf.Doc = mf.Doc[:i] + mf.Value + mf.Doc[i+2+j:]
				}
			}
			mf.Default = strings.Trim(df.GetDefaultText(), `"`)
			if mf.Default == "[]" {
				mf.Default = ""
			}
		}
		fs = append(fs, mf)
	}
	return fs
}

// Help is the text of --help.
func (p *Program) Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\n", p.Name, p.Usage)
	for i, s := range p.Synopsis {
		lead := "Usage: "
		if i > 0 {
			lead = "       "
		}
		fmt.Fprintf(&b, "%s%s %s\n", lead, p.Name, s)
	}
	for _, c := range p.Commands {
		if !c.Hidden {
			fmt.Fprintf(&b, "       %s %s %s\n", p.Name, c.Name, c.ArgsUsage)
		}
	}
	b.WriteString("\nFlags:\n")
	for _, f := range p.ManualFlags() {
		doc := f.Doc
		if f.Default != "" {
			doc += " (default " + f.Default + ")"
		}
		if s := f.String(); len(s) > 24 {
			fmt.Fprintf(&b, "  %s\n  %-24s  %s\n", s, "", wrap(doc, 50, 28))
		} else {
			fmt.Fprintf(&b, "  %-24s  %s\n", s, wrap(doc, 50, 28))
		}
	}
	if len(p.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range p.Examples {
			fmt.Fprintf(&b, "  # %s\n  %s\n", e.Doc, strings.ReplaceAll(e.Command, "\n", "\n  "))
		}
	}
	b.WriteString("\nExit codes:\n")
	for _, e := range Exits {
		if p.CanExit(e.Code) {
			fmt.Fprintf(&b, "  %2d  %s\n", e.Code, wrap(e.Doc, 72, 6))
		}
	}
	fmt.Fprintf(&b, "\nThe manual: man %s\n", p.Name)
	return b.String()
}

// CanExit says whether the program can end with the exit code.
func (p *Program) CanExit(code int) bool {
	for _, c := range p.Exits {
		if c == code {
			return true
		}
	}
	return false
}

// wrap breaks s into lines of at most width, further ones indented.
func wrap(s string, width, indent int) string {
	var b strings.Builder
	n := 0
	for i, w := range strings.Fields(s) {
		switch {
		case i == 0:
		case n+1+len(w) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += len(w)
	}
	return b.String()
}

// completion writes a script that completes the names of flags and commands,
// and files behind them. It is static: nothing is run while completing.
func (p *Program) completion(w io.Writer, shell string) error {
	var words []string
	flags := p.ManualFlags()
	for _, f := range flags {
		words = append(words, f.Names...)
	}
	for _, c := range p.Commands {
		if !c.Hidden {
			words = append(words, c.Name)
		}
	}
	fn := "_" + strings.ReplaceAll(p.Name, "-", "_")
	switch shell {
	case "bash":
		fmt.Fprintf(w, "%s() {\n\tCOMPREPLY=()\n\tcase ${COMP_WORDS[COMP_CWORD]} in\n\t-*) mapfile -t COMPREPLY < <(compgen -W '%s' -- \"${COMP_WORDS[COMP_CWORD]}\") ;;\n\tesac\n}\ncomplete -o default -F %[1]s %[3]s\n",
			fn, strings.Join(words, " "), p.Name)
	case "zsh":
		fmt.Fprintf(w, "#compdef %s\n_arguments \\\n", p.Name)
		for _, f := range flags {
			doc := strings.NewReplacer("'", "", "[", "(", "]", ")", ":", " ").Replace(f.Doc)
			for _, n := range f.Names {
				arg := ""
				if f.Value != "" {
					arg = ":" + strings.ToLower(f.Value) + ":_files"
				}
				fmt.Fprintf(w, "\t'*%s[%s]%s' \\\n", n, doc, arg)
			}
		}
		fmt.Fprintln(w, "\t'*:file:_files'")
	case "fish":
		for _, f := range flags {
			fmt.Fprintf(w, "complete -c %s", p.Name)
			for _, n := range f.Names {
				if bare := strings.TrimLeft(n, "-"); len(bare) == 1 {
					fmt.Fprintf(w, " -s %s", bare)
				} else {
					fmt.Fprintf(w, " -l %s", bare)
				}
			}
			if f.Value != "" {
				fmt.Fprint(w, " -r")
			}
			fmt.Fprintf(w, " -d '%s'\n", strings.ReplaceAll(f.Doc, "'", `\'`))
		}
	default:
		return Errorf(Usage, "no completion for %.20q; there is bash, zsh, fish", shell)
	}
	return nil
}
