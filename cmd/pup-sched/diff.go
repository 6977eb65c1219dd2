package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-sched/internal/sched"
)

// writeDiff says which targets are new, gone or different: a line for each,
// and one for each member that differs, by name.
func writeDiff(w io.Writer, before, after []sched.Target) error {
	old, now := byName(before), byName(after)
	names := slices.Sorted(maps.Keys(old))
	for name := range now {
		if old[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		switch o, n := old[name], now[name]; {
		case o == nil:
			fmt.Fprintf(&b, "+ %s\n", name)
		case n == nil:
			fmt.Fprintf(&b, "- %s\n", name)
		case !bytes.Equal(o.Head, n.Head) || o.Plan.Text != n.Plan.Text:
			diffMembers(&b, name, members(o), members(n))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func diffMembers(b *strings.Builder, name string, old, now map[string]string) {
	keys := slices.Collect(maps.Keys(old))
	for k := range now {
		if _, ok := old[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	fmt.Fprintf(b, "~ %s\n", name)
	for _, k := range keys {
		if old[k] == now[k] {
			continue
		}
		if v, ok := old[k]; ok {
			fmt.Fprintf(b, "  - %s: %s\n", k, v)
		}
		if v, ok := now[k]; ok {
			fmt.Fprintf(b, "  + %s: %s\n", k, v)
		}
	}
}

func byName(targets []sched.Target) map[string]*sched.Target {
	m := make(map[string]*sched.Target, len(targets))
	for i := range targets {
		m[string(targets[i].Name())] = &targets[i]
	}
	return m
}

// members gives the members of a target's line as they are written, and its
// schedule.
func members(t *sched.Target) map[string]string {
	m := map[string]string{}
	line := append(t.Head[:len(t.Head):len(t.Head)], '}')
	_ = ndjson.Members(line, func(k, v []byte) error { // our own line
		m[string(k)] = string(v)
		return nil
	})
	if t.Plan.Text != "" {
		m["schedule"] = t.Plan.Text
	}
	return m
}
