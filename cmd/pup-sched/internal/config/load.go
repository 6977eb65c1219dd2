// Package config reads pup.toml: strictly, with all that is wrong in one go,
// each with its place.
package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/pup-sched/internal/sched"
)

// Options say what to load.
type Options struct {
	Checks    *catalog.Catalog
	Stdin     io.Reader // for the path "-"
	MaxRecord int       // bytes of a line; 0: ndjson.MaxWrite
	Explain   string    // a name whose settings are wanted with their places

	// Fetch gives what a source prints. Without it, sources are not asked.
	Fetch func(*Source) ([]byte, error)

	// Keep says which of the targets to keep, by name and labels; all if nil.
	// The others are checked, too.
	Keep func(name string, label func(key string) string) bool
}

// A Config is a configuration without mistakes.
type Config struct {
	Targets   []sched.Target // those that are enabled, in the order of the files
	Digest    string         // changes with the content of the files
	Explained *Explanation   // of the target that Options.Explain names
	Sources   []*Source
	Files     []Seen // that were read, and folders in which others may appear
	Warnings  error  // what is wrong with what sources print, an *Errors or nil
}

// Load reads the files and folders; "-" is standard input. An error that is
// *Errors lists mistakes in the configuration.
func Load(paths []string, opt Options) (*Config, error) {
	if opt.MaxRecord == 0 {
		opt.MaxRecord = ndjson.MaxWrite
	}
	l := &loader{opt: opt, probs: &Errors{}, warnings: &Errors{}, seen: map[string]bool{}, digest: sha256.New(), tls: opt.Checks.TLSOptions(),
		templates: map[string]*template{}, windows: map[string]*sched.Window{}, windowAt: map[string]place{}}
	for _, p := range paths {
		if err := l.open(p); err != nil {
			return nil, err
		}
	}
	l.build()
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	c := &Config{Targets: slices.Clip(l.targets), Digest: hex.EncodeToString(l.digest.Sum(nil))[:12], Explained: l.explained, Sources: l.feeds, Files: l.files, Warnings: l.warnings.err()}
	if len(l.targets) > 100_000 {
		l.sources = nil
		debug.FreeOSMemory() // what loading took beyond what is kept
	}
	return c, nil
}

type loader struct {
	opt       Options
	probs     *Errors
	tls       schema.Field
	seen      map[string]bool // absolute paths
	sources   []*source
	digest    hash.Hash
	defaults  *layer
	templates map[string]*template
	windows   map[string]*sched.Window
	windowAt  map[string]place
	feeds     []*Source
	files     []Seen
	warnings  *Errors // about sources
	partial   bool    // not all names are known

	names     map[uint64]uint32 // hash of a name -> index in origins
	origins   []origin
	targets   []sched.Target
	needs     []need
	plans     map[planKey]*sched.Plan
	arena     arena
	scratch   []byte
	explained *Explanation
}

// An origin is where a name was given.
type origin struct {
	name string
	at   place
}

// open reads a file, or the *.toml files of a folder in the order of their
// names, and what they include.
func (l *loader) open(path string) error {
	if path == "-" {
		if l.seen["-"] {
			return nil
		}
		l.seen["-"] = true
		data, err := io.ReadAll(l.opt.Stdin)
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		l.scan(&source{name: "stdin", data: data}, ".")
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return tidyPath(err)
	}
	if !fi.IsDir() {
		return l.file(path)
	}
	l.files = append(l.files, see(path))
	files, err := folder(path)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := l.file(f); err != nil {
			return err
		}
	}
	return nil
}

// tidyPath words an error of a file as other programs do: the path, then what
// is wrong.
func tidyPath(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	}
	return err
}

func folder(path string) ([]string, error) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, tidyPath(err)
	}
	var files []string
	for _, e := range entries {
		if name := e.Name(); !e.IsDir() && strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
			files = append(files, filepath.Join(path, name))
		}
	}
	if files == nil {
		return nil, fmt.Errorf("%s: holds no *.toml file", path)
	}
	return files, nil
}

// file reads a file, once, however often it is named.
func (l *loader) file(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil || l.seen[abs] {
		return err
	}
	l.seen[abs] = true
	l.files = append(l.files, see(path))
	data, err := os.ReadFile(path)
	if err != nil {
		return tidyPath(err)
	}
	if len(data) > math.MaxInt32 {
		return fmt.Errorf("%s: larger than 2 GiB", path)
	}
	l.scan(&source{name: path, data: data}, filepath.Dir(path))
	return nil
}

// scan reads everything but the targets of a source, and what it includes. The
// targets come when all templates and windows are known.
func (l *loader) scan(src *source, dir string) {
	src.data = bytes.TrimPrefix(src.data, []byte("\xef\xbb\xbf")) // as editors on Windows write it
	l.sources = append(l.sources, src)
	l.digest.Write(src.data)
	scanSource := func(t *table) { l.scanSource(t, dir) }
	isOther := func(array string) bool { return array == "window" || array == "source" }
	root := read(src, l.probs, isOther, func(array string, elem *table) {
		switch {
		case array == "window":
			l.scanWindow(elem)
		case elem.broken:
			l.partial = true
		default:
			scanSource(elem)
		}
	})
	for i := range root.members {
		m := &root.members[i]
		switch m.key {
		case "include":
			l.include(m, dir)
		case "defaults":
			l.scanDefaults(m)
		case "template":
			l.scanTemplates(m)
		case "window":
			l.elements(m, l.scanWindow)
		case "source":
			l.elements(m, scanSource)
		case "target":
			l.elements(m, func(*table) {})
		default:
			l.probs.add(m.at, hint(m.key, sections), "unknown key %q at the top level", m.key)
		}
	}
}

// elements calls f for the tables of an array that is written inline.
func (l *loader) elements(m *member, f func(*table)) {
	if m.value.kind != arrayKind {
		l.probs.add(m.at, fmt.Sprintf("write [[%s]], once for each", m.key), "%s is a list of tables, not %s", m.key, m.value.kind)
		return
	}
	for i := range m.value.items {
		if v := &m.value.items[i]; v.kind != tableKind {
			l.probs.add(v.at, "", "a %s is a table, not %s", m.key, v.kind)
		} else {
			f(v.table)
		}
	}
}

// sections are the keys of the top level.
var sections = []string{"include", "defaults", "template", "target", "window", "source"}

// hint words what schema.DidYouMean knows as a sentence of its own.
func hint(got string, names []string) string {
	return strings.TrimPrefix(schema.DidYouMean(got, names), "; ")
}

// Nearest gives "; did you mean …?" for a name that does not exist.
func Nearest(got string, names []string) string { return schema.DidYouMean(got, names) }

var includeKey = Key{Name: "include", Type: Texts, Doc: "More files and folders to read, as patterns, relative to the file that names them. A file is read once, however often it is named."}

func (l *loader) include(m *member, dir string) {
	if !includeKey.accept(&m.value, l.probs) {
		return
	}
	for i := range m.value.items {
		v := &m.value.items[i]
		pattern := v.text
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(dir, pattern)
		}
		l.files = append(l.files, see(filepath.Dir(pattern)))
		files, err := filepath.Glob(pattern)
		switch {
		case err != nil:
			l.probs.add(v.at, "", "include: %.80q is no pattern: %v", v.text, err)
		case files == nil && !strings.ContainsAny(v.text, "*?["):
			l.probs.add(v.at, "", "include: there is no %s", pattern)
		}
		for _, f := range files {
			if strings.HasPrefix(filepath.Base(f), ".") && !strings.HasPrefix(filepath.Base(pattern), ".") {
				continue // hidden, as in a shell
			}
			if err := l.open(f); err != nil {
				l.probs.add(v.at, "", "include: %v", err)
			}
		}
	}
}

func (l *loader) scanDefaults(m *member) {
	if m.value.kind != tableKind {
		l.probs.add(m.at, "write [defaults]", "defaults is a table, not %s", m.value.kind)
		return
	}
	d := l.layer(m.value.table, "[defaults]", InDefaults)
	if l.defaults == nil {
		l.defaults = d
		return
	}
	// Defaults are one, wherever they stand.
	for i, set := range d.set {
		old := l.defaults.set[i]
		if set == nil {
			continue
		}
		if old != nil {
			l.probs.add(set.at, "defaults hold for all files; use a template for some of the targets", "default %s has been given at %s", set.key, old.at)
		}
		l.defaults.set[i] = set
	}
	for _, set := range d.options {
		if old := findMember(l.defaults.options, set.key); old != nil {
			l.probs.add(set.at, "defaults hold for all files; use a template for some of the targets", "default %s has been given at %s", set.key, old.at)
		}
		l.defaults.options = append(l.defaults.options, set)
	}
}

// A template is a table of settings that targets take over.
type template struct {
	table *table
	layer *layer
}

func (l *loader) scanTemplates(m *member) {
	if m.value.kind != tableKind {
		l.probs.add(m.at, "write [template.NAME]", "template is a table of tables, not %s", m.value.kind)
		return
	}
	for i := range m.value.table.members {
		t := &m.value.table.members[i]
		switch {
		case t.value.kind != tableKind:
			l.probs.add(t.at, "write [template.NAME]", "a template is a table, not %s", t.value.kind)
		case nameError(t.key) != nil:
			l.probs.add(t.at, "", "template: %v", nameError(t.key))
		case l.templates[t.key] != nil:
			l.probs.add(t.at, "", "the name %q is taken by the template at %s", t.key, l.templates[t.key].table.at)
		default:
			l.templates[t.key] = &template{t.value.table, l.layer(t.value.table, templateName(t.key), InTemplate)}
		}
	}
}

func templateName(name string) string { return "[template." + name + "]" }

func findMember(ms []*member, key string) *member {
	for _, m := range ms {
		if m.key == key {
			return m
		}
	}
	return nil
}

// build makes the targets of all sources.
func (l *loader) build() {
	n := 0 // about as many targets as there will be
	for _, src := range l.sources {
		n += bytes.Count(src.data, []byte("[[target]]"))
	}
	l.names = make(map[uint64]uint32, n)
	l.origins = make([]origin, 0, n)
	l.targets = make([]sched.Target, 0, n)
	l.plans = map[planKey]*sched.Plan{}
	if l.defaults == nil {
		l.defaults = &layer{name: "[defaults]"}
	}
	isTarget := func(array string) bool { return array == "target" }
	for _, src := range l.sources {
		root := read(src, l.probs, isTarget, func(_ string, elem *table) { l.target(elem) })
		for i := range root.members {
			if m := &root.members[i]; m.key == "target" && m.value.kind == arrayKind {
				l.elements(m, l.target)
			}
		}
	}
	l.buildSources()
	l.checkNeeds()
	if len(l.origins) == 0 && len(l.feeds) == 0 && len(l.probs.list) == 0 && len(l.sources) > 0 {
		l.probs.add(place{src: &source{name: l.sources[0].name}}, "write one:\n        [[target]]\n        name = \"www\"\n        url  = \"https://www.example.org/\"", "no target")
	}
	l.names, l.origins = nil, nil
}

// An arena keeps many short byte strings in few allocations.
type arena struct{ free []byte }

const arenaChunk = 1 << 20

func (a *arena) keep(b []byte) []byte {
	if len(b) > len(a.free) {
		if len(b) > arenaChunk/4 {
			return slices.Clone(b)
		}
		a.free = make([]byte, arenaChunk)
	}
	n := copy(a.free, b)
	kept := a.free[:n:n]
	a.free = a.free[n:]
	return kept
}
