// Import turns the configuration of other monitors into a pup.toml:
//
//	go run ./scripts/import FORMAT FILE... > pup.toml
//
// What can't be carried over stands as a comment where it belongs, and is
// listed on standard error. Nothing is dropped silently. Passwords are not
// copied: a reference takes their place, and the list says which file of
// pup-probe's --secrets is to hold them.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// formats are the readers. Each takes files and fills the result.
var formats = map[string]struct {
	read func(r *result, files []string) error
	doc  string
}{
	"puptime":  {readPuptime, "Puptime's config.yml"},
	"blackbox": {readBlackbox, "blackbox_exporter's modules, and then Prometheus' configuration with static targets"},
	"gatus":    {readGatus, "Gatus' config.yaml"},
	"kuma":     {readKuma, "Uptime Kuma's backup, in JSON"},
	"nagios":   {readNagios, "Nagios' object files and resource files"},
	"icinga":   {readIcinga, "Icinga 2's configuration"},
	"monit":    {readMonit, "Monit's control file"},
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) < 2 || formats[args[0]].read == nil {
		fmt.Fprintln(stderr, "usage: import FORMAT FILE...")
		for _, name := range sortedKeys(formats) {
			fmt.Fprintf(stderr, "  %-9s %s\n", name, formats[name].doc)
		}
		return 64
	}
	r := &result{}
	if err := formats[args[0]].read(r, args[1:]); err != nil {
		fmt.Fprintf(stderr, "import: %v\n", err)
		return 65
	}
	if _, err := io.WriteString(stdout, r.toml()); err != nil {
		fmt.Fprintf(stderr, "import: %v\n", err)
		return 74
	}
	for _, line := range r.report() {
		fmt.Fprintln(stderr, line)
	}
	return 0
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// A pair is a key and its value: a string, int, bool, list of strings or
// []pair.
type pair struct {
	key   string
	value any
}

// A table is a target or a template.
type table struct {
	template bool
	name     string
	off      bool
	set      []pair // in the order in which they are written
	notes    []string
	secrets  []string
}

func (t *table) add(key string, value any) { t.set = append(t.set, pair{key, value}) }

// option sets a key of a table such as http.
func (t *table) option(check, key string, value any) {
	more, nested := value.([]pair)
	for i := range t.set {
		if t.set[i].key != check {
			continue
		}
		options := t.set[i].value.([]pair)
		for j := range options {
			if options[j].key == key && nested {
				options[j].value = append(options[j].value.([]pair), more...)
				return
			}
		}
		t.set[i].value = append(options, pair{key, value})
		return
	}
	t.add(check, []pair{{key, value}})
}

// expect adds an expression to those that must hold.
func (t *table) expect(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for i := range t.set {
		if t.set[i].key == "expect" {
			t.set[i].value = append(t.set[i].value.([]string), text)
			return
		}
	}
	t.add("expect", []string{text})
}

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, printable(fmt.Sprintf(format, args...)))
}

// secret gives the reference that takes the place of a credential.
func (t *table) secret(what string) string {
	name := strings.Trim(identifier(t.name+"-"+what), "-")
	name = strings.NewReplacer("/", "-", ":", "-", "@", "-").Replace(name)
	t.secrets = append(t.secrets, name)
	return "${secret:" + name + "}"
}

// A result is what has been read.
type result struct {
	defaults []pair
	tables   []*table
	notes    []string // about no target
	names    map[string]bool
}

func (r *result) note(format string, args ...any) {
	if n := printable(fmt.Sprintf(format, args...)); !slices.Contains(r.notes, n) {
		r.notes = append(r.notes, n)
	}
}

// target begins a target, with a name that is free.
func (r *result) target(name string) *table {
	t := &table{name: r.free(identifier(name))}
	r.tables = append(r.tables, t)
	return t
}

func (r *result) template(name string) *table {
	t := &table{name: identifier(name), template: true}
	r.tables = append(r.tables, t)
	return t
}

func (r *result) free(name string) string {
	if r.names == nil {
		r.names = map[string]bool{}
	}
	free := name
	for n := 2; r.names[free]; n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	r.names[free] = true
	return free
}

// identifier makes a name of pup.toml of any text.
func identifier(s string) string {
	var b strings.Builder
	for _, c := range s {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || b.Len() > 0 && strings.ContainsRune("._:@/-", c)
		switch {
		case ok:
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	s = strings.TrimRight(b.String(), "-")
	if s == "" {
		s = "unnamed"
	}
	return s[:min(len(s), 100)]
}

// report lists what a person has to see to. What many targets share is said
// once.
func (r *result) report() []string {
	targets, noted := 0, 0
	lines := slices.Clone(r.notes)
	whose := map[string][]string{}
	var order []string
	for _, t := range r.tables {
		what := "target " + t.name
		if t.template {
			what = "template " + t.name
		} else {
			targets++
		}
		notes := slices.Clone(t.notes)
		for _, s := range t.secrets {
			notes = append(notes, fmt.Sprintf("put its credential into the file %s of the folder for pup-probe --secrets", s))
		}
		if len(notes) > 0 {
			noted++
		}
		for _, n := range notes {
			if whose[n] == nil {
				order = append(order, n)
			}
			whose[n] = append(whose[n], what)
		}
	}
	for _, n := range order {
		of := whose[n]
		if len(of) > 1 {
			of = []string{fmt.Sprintf("%s and %d more", of[0], len(of)-1)}
		}
		lines = append(lines, of[0]+": "+n)
	}
	head := fmt.Sprintf("%d targets; see to %d of %d tables", targets, noted, len(r.tables))
	if len(lines) == 0 {
		head = fmt.Sprintf("%d targets, all carried over in full", targets)
	}
	return append([]string{head}, lines...)
}
