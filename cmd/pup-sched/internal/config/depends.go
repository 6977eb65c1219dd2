package config

import (
	"strings"

	"pup/cmd/pup-sched/internal/sched"
)

// A need is a target that depends on others.
type need struct {
	name string
	on   []value // names
}

// checkNeeds reports names that do not exist and circles.
func (l *loader) checkNeeds() {
	needs := map[string]*need{}
	for i := range l.needs {
		needs[l.needs[i].name] = &l.needs[i]
	}
	for i := range l.needs {
		for _, on := range l.needs[i].on {
			if _, ok := l.names[sched.Hash(on.text)]; !ok && !l.partial {
				l.probsOf(on.at).add(on.at, hintNames(on.text, l.origins), "depends_on: there is no target %q", on.text)
			}
		}
	}
	state := map[string]int{} // 1: on the way, 2: done
	var way []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = 1
		way = append(way, name)
		if n := needs[name]; n != nil {
			for _, on := range n.on {
				switch state[on.text] {
				case 0:
					visit(on.text)
				case 1:
					circle := way
					for circle[0] != on.text {
						circle = circle[1:]
					}
					l.probsOf(on.at).add(on.at, "", "depends_on goes round in a circle: %s", strings.Join(append(circle[:len(circle):len(circle)], on.text), " > "))
				}
			}
		}
		state[name] = 2
		way = way[:len(way)-1]
	}
	for i := range l.needs {
		if state[l.needs[i].name] == 0 {
			visit(l.needs[i].name)
		}
	}
}

// probsOf says where a mistake at that place goes.
func (l *loader) probsOf(at place) *Errors {
	if at.src.output {
		return l.warnings
	}
	return l.probs
}

// hintNames looks for a name like it, if there are not too many.
func hintNames(got string, origins []origin) string {
	if len(origins) > 10_000 {
		return ""
	}
	names := make([]string, len(origins))
	for i := range origins {
		names[i] = origins[i].name
	}
	if h := hint(got, names); strings.HasPrefix(h, "did you mean") {
		return h
	}
	return ""
}
