package state

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pup/cmd/internal/ndjson"
)

// A path leads to the member of a result whose value names share, such as
// labels.pool, tls.issuer or address/24.
type path struct {
	text  string
	steps []string
	bits  int // of an IPv4 address; 0: the value is taken as it is
}

// ipv6Bits is how much of an IPv6 address is compared: what one site has.
const ipv6Bits = 48

// ParsePath splits a path into the member that it leads to and, for networks,
// the length of the prefix; 0 if it has none.
func ParsePath(text string) (member string, bits int, err error) {
	member, prefix, cut := strings.Cut(text, "/")
	if !cut {
		return member, 0, nil
	}
	bits, err = strconv.Atoi(prefix)
	if err != nil || bits < 1 || bits > 32 {
		return member, 0, errors.New("want a prefix of an IPv4 address, 1 to 32, behind the slash, such as address/24")
	}
	return member, bits, nil
}

// maxValue bounds what is remembered of a value.
const maxValue = 256

// value gives what stands at the steps below a member; "" if that is no
// string, number or boolean.
func (p *path) value(text []byte) (value string) {
	for _, step := range p.steps[1:] {
		if len(text) == 0 || text[0] != '{' {
			return ""
		}
		object := text
		text = nil
		_ = ndjson.Members(object, func(key, v []byte) error { // it was valid when it came
			if string(key) == step {
				text = v
			}
			return nil
		})
	}
	switch {
	case len(text) == 0 || text[0] == '{' || text[0] == '[' || text[0] == 'n':
		return ""
	case text[0] != '"':
		return string(text)
	}
	value, err := ndjson.Unquote(text)
	if err != nil {
		return ""
	}
	if at, err := netip.ParseAddrPort(value); err == nil {
		value = at.Addr().Unmap().WithZone("").String()
	}
	if p.bits > 0 {
		return network(value, p.bits)
	}
	return ndjson.Cut(value, maxValue)
}

// network gives the network of an address; "" if it is none.
func network(value string, bits int) string {
	a, err := netip.ParseAddr(value)
	if err != nil {
		return ""
	}
	if !a.Unmap().Is4() {
		bits = ipv6Bits
	}
	n, err := a.Unmap().WithZone("").Prefix(bits)
	if err != nil {
		return ""
	}
	return n.String()
}

// look finds what the paths of all rules lead to in a line.
func (t *Table) look(line []byte) {
	if len(t.paths) == 0 {
		return
	}
	clear(t.found)
	_ = ndjson.Members(line, t.each) // it was valid when it came
}

// member is look for one member of the line.
func (t *Table) member(key, value []byte) error {
	for i := range t.paths {
		if t.paths[i].steps[0] == string(key) {
			t.found[i] = t.paths[i].value(value)
		}
	}
	return nil
}

// setPaths gathers the paths of the rules. What the names have shown for
// those that stay is kept.
func (t *Table) setPaths() {
	old := t.paths
	t.paths, t.groups = nil, false
	for i := range t.rules {
		r := &t.rules[i]
		r.parts = nil
		if r.Together == nil {
			continue
		}
		t.groups = true
		for _, text := range r.Together.Same {
			at := slices.IndexFunc(t.paths, func(p path) bool { return p.text == text })
			if at < 0 {
				member, bits, _ := ParsePath(text) // the configuration was checked
				at = len(t.paths)
				t.paths = append(t.paths, path{text, strings.Split(member, "."), bits})
			}
			r.parts = append(r.parts, at)
		}
	}
	t.found = make([]string, len(t.paths))
	for e := range t.all() {
		values := e.values
		e.values = nil
		for i := range t.paths {
			at := slices.IndexFunc(old, func(p path) bool { return p.text == t.paths[i].text })
			if at >= 0 && at < len(values) && values[at] != "" {
				t.set(e, i, values[at])
			}
		}
	}
}

// maxTexts bounds the texts that are kept once for all.
const maxTexts = 1 << 16

// text returns the same string for the same text: many names share them.
func (t *Table) text(s string) string {
	kept, ok := t.texts[s]
	if !ok {
		if len(t.texts) >= maxTexts {
			clear(t.texts)
		}
		kept = strings.Clone(s)
		t.texts[kept] = kept
	}
	return kept
}

// set notes what a path shows for the name.
func (t *Table) set(e *entry, i int, value string) {
	if e.values == nil {
		e.values = make([]string, len(t.paths))
	}
	e.values[i] = t.text(value)
}
