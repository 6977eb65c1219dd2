package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// A Source is a program that prints targets, or a file that holds them.
type Source struct {
	Name    string
	Command []string // argv
	File    string   // instead of Command
	Dir     string   // of the file that names the source
	Refresh time.Duration
	Timeout time.Duration

	use *value
}

// The keys of a source, in the order of sourceKeys.
const (
	sourceName = iota
	sourceCommand
	sourceFile
	sourceRefresh
	sourceTimeout
	sourceUse
	sourceKeyCount
)

// sourceKeys are the keys of [[source]].
var sourceKeys = [sourceKeyCount]Key{
	sourceName:    {"name", Text, "", "What messages call it.", 0, nil},
	sourceCommand: {"command", Texts, "", "A program with its arguments, which prints target lines, see pup-lines(5), or bare URLs. No shell runs it. It is started in the folder of the file that names it.", 0, one(checkCommand)},
	sourceFile:    {"file", Text, "", "A file of such lines, instead of a command. Its path is relative to the file that names it.", 0, nil},
	sourceRefresh: {"refresh", Span, "5m", "How often the program is run, or the file read, again.", 0, one(checkRefresh)},
	sourceTimeout: {"timeout", Span, "30s", "How long the program may take.", 0, one(checkPositive)},
	sourceUse:     {"use", Texts, "", "Templates whose settings lie under those of each line.", 0, nil},
}

var sourceKeyIndex = indexKeys(sourceKeys[:])

func checkCommand(v *value) error {
	if len(v.items) == 0 || v.items[0].text == "" {
		return errors.New("command names no program")
	}
	return nil
}

func checkRefresh(v *value) error {
	if d, _ := wire.ParseDuration(v.text); time.Duration(d) < time.Second {
		return errors.New("refresh must be at least 1s")
	}
	return nil
}

// scanSource reads a source.
func (l *loader) scanSource(t *table, dir string) {
	before := l.probs.count()
	set := l.sort(t, sourceKeys[:], sourceKeyIndex, "[[source]]")
	if l.probs.count() > before {
		return
	}
	s := &Source{Dir: dir, Refresh: 5 * time.Minute, Timeout: 30 * time.Second}
	name := set[sourceName]
	switch {
	case name == nil:
		l.probs.add(t.at, "", "the source has no name")
		return
	case nameError(name.value.text) != nil:
		l.probs.add(name.value.at, "", "name: %v", nameError(name.value.text))
		return
	case (set[sourceCommand] == nil) == (set[sourceFile] == nil):
		l.probs.add(t.at, "", "source %q: give it a command or a file", name.value.text)
		return
	}
	s.Name = name.value.text
	for _, old := range l.feeds {
		if old.Name == s.Name {
			l.probs.add(name.value.at, "", "there are two sources of the name %q", s.Name)
			return
		}
	}
	if m := set[sourceCommand]; m != nil {
		for i := range m.value.items {
			s.Command = append(s.Command, m.value.items[i].text)
		}
	}
	if m := set[sourceFile]; m != nil {
		if s.File = m.value.text; !filepath.IsAbs(s.File) {
			s.File = filepath.Join(dir, s.File)
		}
	}
	for k, d := range map[int]*time.Duration{sourceRefresh: &s.Refresh, sourceTimeout: &s.Timeout} {
		if set[k] != nil {
			parsed, _ := wire.ParseDuration(set[k].value.text) // accept has checked it
			*d = time.Duration(parsed)
		}
	}
	if set[sourceUse] != nil {
		use := set[sourceUse].value
		s.use = &use
	}
	l.feeds = append(l.feeds, s)
}

// buildSources makes targets of what the sources print. What is wrong with it
// is no reason to refuse the rest.
func (l *loader) buildSources() {
	fatal := l.probs
	defer func() { l.probs = fatal }()
	for _, s := range l.feeds {
		var layers []*layer
		if s.use != nil {
			layers = l.templateLayers(s.use, nil)
		}
		if l.opt.Fetch == nil {
			l.partial = true
			continue
		}
		out, err := l.opt.Fetch(s)
		if err != nil {
			l.partial = true
			l.warnings.add(place{src: &source{name: "source " + s.Name}}, "", "%v", err)
			continue
		}
		l.probs = l.warnings
		l.lines(&source{name: "source " + s.Name, data: out, output: true}, layers)
		l.probs = fatal
	}
}

// lines makes a target of each line that a source has printed.
func (l *loader) lines(src *source, layers []*layer) {
	start := 0
	for line := range bytes.Lines(src.data) {
		at := place{src, uint32(start), uint32(start + len(line))}
		start += len(line)
		text := bytes.TrimSpace(line)
		if len(text) == 0 {
			continue
		}
		t, err := lineTable(text, at)
		if err != nil {
			l.probs.add(at, "", "%v", err)
			continue
		}
		if t == nil {
			continue // a line of another type
		}
		before := l.probs.count()
		own := l.layer(t, "a line", InLine)
		if l.probs.count() > before {
			continue
		}
		all := append([]*layer{l.defaults}, layers...)
		l.one(merge(append(all, own)), t)
	}
}

// lineTable reads a target line, or a bare URL. It is nil for a line of
// another type. All its members have the place of the line.
func lineTable(text []byte, at place) (*table, error) {
	t := &table{at: at}
	if text[0] != '{' {
		url := string(text)
		t.add("url", at, value{kind: stringKind, at: at, text: url})
		t.add("name", at, value{kind: stringKind, at: at, text: catalog.Redact(url)})
		return t, nil
	}
	kind := wire.TypeTarget
	err := ndjson.Members(text, func(key, raw []byte) error {
		switch k := string(key); k {
		case "type":
			kind, _ = ndjson.Unquote(raw)
		case "v", "due", "expires", "run", "series", "seq": // ours to say
		default:
			v, err := jsonValue(raw, at)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			t.add(k, at, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if kind != wire.TypeTarget {
		return nil, nil
	}
	if url := t.get("url"); t.get("name") == nil && url != nil {
		t.add("name", at, value{kind: stringKind, at: at, text: catalog.Redact(url.text)})
	}
	return t, nil
}

// jsonValue reads a JSON value that is known to be valid.
func jsonValue(raw []byte, at place) (value, error) {
	v := value{at: at}
	var err error
	switch raw[0] {
	case '{':
		v.kind, v.table = tableKind, &table{at: at}
		err = ndjson.Members(raw, func(key, raw []byte) error {
			sub, err := jsonValue(raw, at)
			v.table.add(string(key), at, sub)
			return err
		})
	case '[':
		v.kind = arrayKind
		err = ndjson.Elements(raw, func(raw []byte) error {
			sub, err := jsonValue(raw, at)
			v.items = append(v.items, sub)
			return err
		})
	case '"':
		v.kind = stringKind
		v.text, err = ndjson.Unquote(raw)
	case 't', 'f':
		v.kind, v.text = boolKind, string(raw)
	case 'n':
		err = errors.New("null stands for nothing; leave it out")
	default:
		v.kind, v.text = intKind, string(raw)
		if bytes.ContainsAny(raw, ".eE") {
			v.kind = floatKind
		}
	}
	return v, err
}
