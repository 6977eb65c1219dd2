package child

import (
	"errors"
	"fmt"
	"slices"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// An Answer is what a filter says of a target, in a result line.
type Answer struct {
	Status wire.Status
	Reason wire.Reason // "" if up; else one that fits the status
	Error  string
	Facts  []byte // a JSON object: the member named after check, or exec if the line has none; nil if absent
}

// identity is what ties an answer to its target: the run, or the name of a
// target without one.
type identity struct{ run, name string }

func (id *identity) member(key string, value []byte) {
	switch key {
	case "run":
		id.run = string(value) // of any type; who copies it copies it as it is
		if s, err := ndjson.Unquote(value); err == nil {
			id.run = s
		}
	case "name":
		if s, err := ndjson.Unquote(value); err == nil {
			id.name = s
		}
	}
}

// key leaves one of the two.
func (id identity) key() identity {
	if id.run != "" {
		id.name = ""
	}
	return id
}

// keyOf gives the identity of a target line. Name stands for the one that it
// does not give itself.
func keyOf(line []byte, name string) (identity, error) {
	id := identity{name: name}
	err := ndjson.Members(line, func(k, v []byte) error { id.member(string(k), v); return nil })
	return id.key(), err
}

// parse reads what a filter has written. An error says why it is no answer.
func parse(line []byte) (identity, Answer, error) {
	var a Answer
	var id identity
	check, kind := "exec", wire.TypeResult
	objects := map[string][]byte{}
	text := func(to *string, k, v []byte) (err error) {
		if *to, err = ndjson.Unquote(v); err != nil {
			err = fmt.Errorf("%s: want a string", k)
		}
		return err
	}
	err := ndjson.Members(line, func(k, v []byte) error {
		switch key := string(k); key {
		case "type":
			return text(&kind, k, v)
		case "status":
			return text((*string)(&a.Status), k, v)
		case "reason":
			return text((*string)(&a.Reason), k, v)
		case "error":
			return text(&a.Error, k, v)
		case "check":
			return text(&check, k, v)
		default:
			id.member(key, v)
			if v[0] == '{' {
				objects[key] = v
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return id, a, err
	case kind != wire.TypeResult:
		return id, a, fmt.Errorf("it is of type %.40q", kind)
	case id.key() == identity{}:
		return id, a, errors.New("it has neither run nor name")
	}
	if facts := objects[check]; facts != nil {
		a.Facts = clean(facts)
	}
	return id.key(), a, a.settle()
}

// clean copies valid JSON, with its strings written as our own are, so that
// nothing in them can act on a terminal, and without blanks.
func clean(v []byte) []byte {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case ' ', '\t', '\r', '\n':
		case '"':
			end := i + 1
			for v[end] != '"' {
				if v[end] == '\\' {
					end++
				}
				end++
			}
			text, _ := ndjson.Unquote(v[i : end+1]) // valid, as all of v
			out = ndjson.AppendString(out, text)
			i = end
		default:
			out = append(out, v[i])
		}
	}
	return out
}

// settle holds status and reason to each other, and gives a reason to a status
// that wants one and has none.
func (a *Answer) settle() error {
	if !slices.Contains(wire.Statuses, a.Status) {
		return fmt.Errorf("its status %.40q is none of up, degraded, down, unknown", a.Status)
	}
	switch {
	case a.Status == wire.Up:
		a.Reason = ""
		return nil
	case a.Reason == "" && a.Status == wire.Unknown:
		a.Reason = wire.Local
	case a.Reason == "":
		a.Reason = wire.Mismatch
	}
	if !slices.ContainsFunc(wire.Reasons, func(d wire.Doc[wire.Reason]) bool { return d.Word == a.Reason }) {
		return fmt.Errorf("its reason %.40q is none that there is", a.Reason)
	}
	if a.Reason.Unknown() != (a.Status == wire.Unknown) {
		return fmt.Errorf("its reason %s does not fit the status %s", a.Reason, a.Status)
	}
	return nil
}
