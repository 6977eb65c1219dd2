package config

import (
	"fmt"
	"strings"

	"pup/cmd/pup-sched/internal/sched"
)

// An Explanation says where the settings of a target come from.
type Explanation struct {
	Target   sched.Target
	Disabled bool
	Settings []Setting
}

// A Setting is one value and its place.
type Setting struct {
	Key, Value string
	Layer      string // [defaults], [template.x], [[target]] or "built in"
	Place      string // file:line, "" for built in
}

func explain(m *merged, t *sched.Target) *Explanation {
	e := &Explanation{Target: *t}
	for k := range targetKeys {
		key := &targetKeys[k]
		found := false
		for _, a := range m.layers {
			s := a.set[k]
			if s == nil || key.Type != TextTable && s != m.set[k] {
				continue
			}
			found = true
			if key.Type != TextTable {
				e.add(key.Name, &s.value, a, s.at)
				continue
			}
			for i := range s.value.table.members {
				o := &s.value.table.members[i]
				e.set(key.Name+"."+o.key, &o.value, a, o.at)
			}
		}
		idle := k == keyEvery && m.set[keyCron] != nil || k == keyTZ && m.set[keyCron] == nil || k == keyRelaxAfter && m.set[keyRelax] == nil
		if !found && key.Default != "" && !idle {
			e.Settings = append(e.Settings, Setting{key.Name, key.Default, "built in", ""})
		}
	}
	for _, a := range m.layers {
		for _, o := range a.options {
			if o.value.kind != tableKind {
				e.set(o.key, &o.value, a, o.at)
				continue
			}
			for i := range o.value.table.members {
				sub := &o.value.table.members[i]
				e.set(o.key+"."+sub.key, &sub.value, a, sub.at)
			}
		}
	}
	if on := m.set[keyEnabled]; on != nil && on.value.text == "false" {
		e.Disabled = true
	}
	return e
}

func (e *Explanation) add(key string, v *value, a *layer, at place) {
	b, _ := v.appendJSON(nil)
	e.Settings = append(e.Settings, Setting{key, string(b), a.name, at.String()})
}

// set adds a setting, or puts it in the place of that of a lower layer.
func (e *Explanation) set(key string, v *value, a *layer, at place) {
	n := len(e.Settings)
	e.add(key, v, a, at)
	for i := range e.Settings[:n] {
		if e.Settings[i].Key == key {
			e.Settings[i] = e.Settings[n]
			e.Settings = e.Settings[:n]
			return
		}
	}
}

// String lists the settings for people.
func (e *Explanation) String() string {
	var b strings.Builder
	wide, value := 0, 0
	for _, s := range e.Settings {
		wide, value = max(wide, len(s.Key)), max(value, min(60, len(s.Value)))
	}
	for _, s := range e.Settings {
		fmt.Fprintf(&b, "%-*s  %-*s  %s", wide, s.Key, value, s.Value, s.Layer)
		if s.Place != "" {
			b.WriteString(" " + s.Place)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
