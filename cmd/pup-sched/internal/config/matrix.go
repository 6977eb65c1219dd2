package config

import (
	"maps"
	"slices"
	"strings"
)

// A row is one combination of a matrix: what each ${key} stands for.
type row map[string]string

// rows gives every combination of a matrix, the last key changing fastest.
func rows(matrix *value) []row {
	all := []row{{}}
	for i := range matrix.table.members {
		m := &matrix.table.members[i]
		var next []row
		for _, r := range all {
			for j := range m.value.items {
				more := row{m.key: m.value.items[j].text}
				for k, v := range r {
					more[k] = v
				}
				next = append(next, more)
			}
		}
		all = next
	}
	return all
}

// expand gives a copy of the table with the values of the row in its strings.
// Keys that the matrix does not have are reported.
func (l *loader) expand(t *table, r row) *table {
	c := *t
	c.members = make([]member, len(t.members))
	for i, m := range t.members {
		if m.key != targetKeys[keyMatrix].Name {
			m.value = l.expandValue(m.value, r)
		}
		c.members[i] = m
	}
	return &c
}

func (l *loader) expandValue(v value, r row) value {
	switch v.kind {
	case tableKind:
		v.table = l.expand(v.table, r)
	case arrayKind:
		items := make([]value, len(v.items))
		for i := range v.items {
			items[i] = l.expandValue(v.items[i], r)
		}
		v.items = items
	case stringKind:
		v.text = l.expandText(v.text, v.at, r)
	}
	return v
}

// expandText replaces ${key}. What has a colon, as ${secret:NAME}, is not for
// us.
func (l *loader) expandText(s string, at place, r row) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "${")
		key, rest, closed := strings.Cut(after, "}")
		b.WriteString(before)
		switch text, known := r[key]; {
		case !ok:
			return b.String()
		case !closed:
			b.WriteString("${" + after)
			return b.String()
		case known:
			b.WriteString(text)
		default:
			if !strings.Contains(key, ":") {
				l.probs.add(at, hint(key, keysOf(r)), "the matrix has no %q", key)
			}
			b.WriteString("${" + key + "}")
		}
		s = rest
	}
}

func keysOf[M ~map[string]V, V any](m M) []string {
	return slices.Sorted(maps.Keys(m))
}
