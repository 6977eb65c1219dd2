package spool

import (
	"slices"
	"strings"
	"time"

	"pup/cmd/pup-route/internal/state"
)

// problems remembers what hooks believe of the names in a journal.
type problems map[[3]string]state.Note

func (p problems) Name(m state.Memory) {
	for _, n := range m.Debts {
		n.Name, n.Vantage = m.Name, m.Vantage
		p.Note(n)
	}
}

func (p problems) Note(n state.Note) {
	key := [3]string{n.Name, n.Vantage, n.Hook}
	if n.Closed {
		delete(p, key)
		return
	}
	p[key] = n
}

func (problems) Result([]byte, time.Time, time.Time) {}

func (problems) Kept(string, []byte) error { return nil }

// Incidents lists the incidents of a name that hooks have heard of and not
// the end of. It only reads, as List does.
func Incidents(dir, name string) ([]string, error) {
	p := problems{}
	if _, err := read(dir, p); err != nil {
		return nil, err
	}
	var found []string
	for _, n := range p {
		if n.Name == name && n.Incident != "" && !slices.Contains(found, n.Incident) {
			found = append(found, strings.Clone(n.Incident))
		}
	}
	slices.Sort(found)
	return found, nil
}
