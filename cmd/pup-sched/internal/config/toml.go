package config

import (
	"bytes"
	"errors"
	"regexp"
	"sync"

	"github.com/pelletier/go-toml/v2/unstable"
)

// A source is one configuration file as it was read.
type source struct {
	name string // as errors call it
	data []byte

	output bool // what a [[source]] has printed
}

// A place is a piece of a source: where a key, a value or a table header
// stands.
type place struct {
	src        *source
	start, end uint32
}

type kind uint8

const (
	tableKind kind = iota
	arrayKind
	stringKind
	intKind
	floatKind
	boolKind
	timeKind
)

func (k kind) String() string {
	return [...]string{"a table", "an array", "a string", "an integer", "a float", "a boolean", "a date or time"}[k]
}

// A value is one TOML value and its place.
type value struct {
	kind  kind
	at    place
	text  string // a string decoded, anything else as it is written
	items []value
	table *table
}

// A member is a key of a table with its value.
type member struct {
	key   string
	at    place // of the key
	value value
}

// A table keeps its members in the order of the file.
type table struct {
	members []member
	at      place // of the header, or of the key that made it
	header  bool  // has had its own [header]
	dotted  bool  // made by a dotted key, open to more of them
	closed  bool  // written inline: nothing can be added later
	broken  bool  // a syntax error ended it early
}

func (t *table) get(key string) *value {
	for i := range t.members {
		if t.members[i].key == key {
			return &t.members[i].value
		}
	}
	return nil
}

func (t *table) add(key string, at place, v value) *value {
	t.members = append(t.members, member{key, at, v})
	return &t.members[len(t.members)-1].value
}

// maxDepth bounds how deep tables and arrays nest, as in the lines that are
// made of them.
const maxDepth = 32

// A document reads a source expression by expression. What stands in
// [[arrays]] at the top level, which is where the many targets are, is handed
// out piece by piece and kept no longer; all the rest is one tree.
type document struct {
	src   *source
	probs *Errors
	root  *table
	array string // the [[array]] whose element is being read, "" outside
	elem  *table
	open  *table // where the next key goes; nil: skip until the next header
	wants func(array string) bool
	each  func(array string, elem *table)
	room  table // of the elements, one after the other
	path  []key // reused
}

// read parses src. It calls each for every element of a top-level array of
// tables that is wanted, in order, and returns all the rest; elem must not be
// kept. Mistakes are added to probs; the tables that they stand in are read as
// far as they go.
func read(src *source, probs *Errors, wants func(array string) bool, each func(array string, elem *table)) *table {
	d := &document{src: src, probs: probs, root: &table{at: place{src: src}, header: true}, wants: wants, each: each}
	d.open = d.root
	var p unstable.Parser
	for base := 0; ; {
		p.Reset(src.data[base:])
		for p.NextExpression() {
			d.expression(p.Expression(), uint32(base))
		}
		err := p.Error()
		if err == nil {
			break
		}
		at := d.syntax(err, &p, base)
		if d.elem != nil {
			d.elem.broken = true
		}
		if next := nextKey(src.data, at); next >= 0 {
			base = next
			continue
		}
		d.open = nil
		if base = nextHeader(src.data, at); base < 0 {
			break
		}
	}
	d.finish()
	return d.root
}

// syntax reports a grammar error and returns the offset where it is.
func (d *document) syntax(err error, p *unstable.Parser, base int) int {
	var pe *unstable.ParserError
	at := place{src: d.src, start: uint32(base), end: uint32(base)}
	msg := err.Error()
	if errors.As(err, &pe) {
		msg = pe.Message
		if len(pe.Highlight) > 0 {
			r := p.Range(pe.Highlight)
			at.start = uint32(base) + r.Offset
			at.end = at.start + r.Length
		}
	}
	d.probs.add(at, "", "%s", msg)
	return int(at.start)
}

// simple is a line that gives a key one value, which ends with the line.
var simple = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[ \t]*[A-Za-z0-9_.-]+[ \t]*=[ \t]*[^\[{]*$`)
})

// nextKey gives the start of the line after one with a syntax error, where
// reading can go on if the mistake can't reach beyond its line: a value
// without quotes, mostly. It returns -1 when that is not so.
func nextKey(data []byte, at int) int {
	from := bytes.LastIndexByte(data[:at], '\n') + 1
	line, _, more := bytes.Cut(data[from:], []byte{'\n'})
	if !more || !simple().Match(line) || bytes.Contains(line, []byte(`"""`)) || bytes.Contains(line, []byte(`'''`)) {
		return -1
	}
	return from + len(line) + 1
}

// nextHeader finds the next line after at that begins with a bracket, where
// reading can go on after a syntax error. It returns -1 when there is none.
func nextHeader(data []byte, at int) int {
	for i := at; i < len(data); i++ {
		if data[i] == '\n' && i+1 < len(data) && data[i+1] == '[' {
			return i + 1
		}
	}
	return -1
}

func (d *document) expression(n *unstable.Node, base uint32) {
	switch n.Kind {
	case unstable.KeyValue:
		if d.open != nil {
			d.assign(d.open, n, base, 0)
		}
	case unstable.Table, unstable.ArrayTable:
		d.header(n, base)
	}
}

// begin starts an element of a top-level array, in the memory of the last one.
func (d *document) begin(at place) {
	d.room = table{at: at, header: true, members: d.room.members[:0]}
	d.elem, d.open = &d.room, &d.room
}

// finish hands out the element that is complete.
func (d *document) finish() {
	if d.elem != nil {
		d.each(d.array, d.elem)
	}
	d.array, d.elem = "", nil
}

type key struct {
	name string
	at   place
}

// keys gives the parts of a dotted key, valid until the next call.
func (d *document) keys(it unstable.Iterator, base uint32) []key {
	ks := d.path[:0]
	for it.Next() {
		n := it.Node()
		ks = append(ks, key{string(n.Data), d.place(n.Raw, base)})
	}
	d.path = ks
	return ks
}

func (d *document) place(r unstable.Range, base uint32) place {
	return place{d.src, base + r.Offset, base + r.Offset + r.Length}
}

// header opens the table that a [header] or [[header]] names.
func (d *document) header(n *unstable.Node, base uint32) {
	ks := d.keys(n.Key(), base)
	top := ks[0]
	at := place{d.src, top.at.start, ks[len(ks)-1].at.end}
	d.open = nil
	if n.Kind == unstable.ArrayTable && len(ks) == 1 {
		d.finish()
		old := d.root.get(top.name)
		if old == nil {
			// The marker keeps a table of the same name out.
			d.root.add(top.name, top.at, value{kind: arrayKind, at: at})
		} else if !isMarker(old) {
			d.probs.add(at, "", "[[%s]] has been defined as %s on line %d", top.name, old.kind, old.at.line())
			return
		}
		d.array = top.name
		if d.wants(top.name) {
			d.begin(at)
		}
		return
	}
	from := d.root
	if d.array == top.name {
		if d.elem == nil {
			return
		}
		from, ks = d.elem, ks[1:]
	} else if d.finish(); isMarker(d.root.get(top.name)) {
		d.probs.add(at, "", "[%s] must stand right below the [[%s]] that it belongs to", joinKeys(ks), top.name)
		return
	}
	if len(ks) == 0 {
		d.probs.add(at, "", "[%s] has been defined as [[%s]]", top.name, top.name)
		return
	}
	d.open = d.descend(from, ks, at, n.Kind == unstable.ArrayTable)
}

func isMarker(v *value) bool {
	return v != nil && v.kind == arrayKind && v.items == nil && v.text == ""
}

// descend finds or makes the table that a header names, or reports why it
// can't and returns nil.
func (d *document) descend(t *table, ks []key, at place, array bool) *table {
	if len(ks) > maxDepth {
		d.probs.add(at, "", "tables nest deeper than %d", maxDepth)
		return nil
	}
	for i, k := range ks {
		last := i == len(ks)-1
		v := t.get(k.name)
		switch {
		case v == nil && last && array:
			nt := &table{at: at, header: true}
			t.add(k.name, k.at, value{kind: arrayKind, at: at, text: "[[", items: []value{{kind: tableKind, at: at, table: nt}}})
			return nt
		case v == nil:
			nt := &table{at: at, header: last}
			t.add(k.name, k.at, value{kind: tableKind, at: at, table: nt})
			t = nt
		case v.kind == arrayKind && v.text == "[[":
			if last && array {
				nt := &table{at: at, header: true}
				v.items = append(v.items, value{kind: tableKind, at: at, table: nt})
				return nt
			}
			if last {
				d.probs.add(at, "", "[%s] has been defined as [[%s]] on line %d", joinKeys(ks), joinKeys(ks), v.at.line())
				return nil
			}
			t = v.items[len(v.items)-1].table
		case v.kind != tableKind || v.table.closed || last && (array || v.table.header || v.table.dotted):
			d.probs.add(k.at, "", "%q has been defined on line %d", k.name, v.at.line())
			return nil
		default:
			t = v.table
			t.header = t.header || last
		}
	}
	return t
}

// assign puts a key and its value into t, reporting keys that are there
// already.
func (d *document) assign(t *table, n *unstable.Node, base uint32, depth int) {
	ks := d.keys(n.Key(), base)
	if len(ks)+depth > maxDepth {
		d.probs.add(ks[0].at, "", "tables nest deeper than %d", maxDepth)
		return
	}
	for _, k := range ks[:len(ks)-1] {
		v := t.get(k.name)
		if v == nil {
			nt := &table{at: k.at, dotted: true}
			t.add(k.name, k.at, value{kind: tableKind, at: k.at, table: nt})
			t = nt
			continue
		}
		if v.kind != tableKind || !v.table.dotted {
			d.probs.add(k.at, "", "%q has been defined on line %d", k.name, v.at.line())
			return
		}
		t = v.table
	}
	k := ks[len(ks)-1]
	if old := t.get(k.name); old != nil {
		d.probs.add(k.at, "", "%q has been defined on line %d", k.name, old.at.line())
		return
	}
	v := d.value(n.Value(), base, depth+len(ks))
	if v.at.end == 0 { // an array: all that follows the key
		v.at = place{d.src, k.at.start, d.place(n.Raw, base).end}
	}
	t.add(k.name, k.at, v)
}

func (d *document) value(n *unstable.Node, base uint32, depth int) value {
	v := value{at: d.place(n.Raw, base)}
	if depth > maxDepth {
		d.probs.add(v.at, "", "values nest deeper than %d", maxDepth)
		return v
	}
	switch n.Kind {
	case unstable.InlineTable:
		v.kind = tableKind
		v.table = &table{at: v.at}
		for it := n.Children(); it.Next(); {
			d.assign(v.table, it.Node(), base, depth+1)
		}
		closeTables(v.table)
	case unstable.Array:
		v.kind, v.at, v.text = arrayKind, place{src: d.src}, "["
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, d.value(it.Node(), base, depth+1))
		}
	case unstable.String:
		v.kind, v.text = stringKind, string(n.Data)
	case unstable.Integer:
		v.kind, v.text = intKind, string(n.Data)
	case unstable.Float:
		v.kind, v.text = floatKind, string(n.Data)
	case unstable.Bool:
		v.kind, v.text = boolKind, string(n.Data)
	default:
		v.kind, v.text = timeKind, string(n.Data)
	}
	return v
}

// closeTables marks an inline table and those inside as complete.
func closeTables(t *table) {
	t.closed, t.dotted = true, false
	for _, m := range t.members {
		if m.value.kind == tableKind {
			closeTables(m.value.table)
		}
	}
}

func joinKeys(ks []key) string {
	s := ""
	for i, k := range ks {
		if i > 0 {
			s += "."
		}
		s += k.name
	}
	return s
}
