package route

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"

	"pup/cmd/internal/ndjson"
)

// Bounds of the labels that hooks give to one problem.
const (
	maxLabels     = 8
	maxLabelBytes = 256
)

var labelForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`) })

// label gives labels to the problem of a name, until that is over. An empty
// one takes a label away.
func (r *router) label(name, vantage string, labels map[string]string) error {
	if r.table.Quiet(name, vantage) {
		return nil // it is over already
	}
	for key, value := range labels {
		if !labelForm().MatchString(key) || len(value) > maxLabelBytes {
			return fmt.Errorf("label: a name has letters, digits, dot, dash and underscore, 64 at most, and a value %d bytes, not %.80q", maxLabelBytes, key)
		}
	}
	t := r.trouble(name, vantage)
	if t == nil {
		return errors.New("label: too many names have a problem")
	}
	all := maps.Clone(t.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	if len(all) > maxLabels {
		return fmt.Errorf("label: a problem has at most %d labels", maxLabels)
	}
	t.Labels = all
	r.keepTrouble(t)
	return nil
}

// labeled completes an event line with the labels.
func (t *trouble) labeled(line []byte) []byte {
	if len(t.Labels) == 0 {
		return line
	}
	b := []byte{'{'}
	for i, key := range slices.Sorted(maps.Keys(t.Labels)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = ndjson.AppendString(append(ndjson.AppendString(b, key), ':'), t.Labels[key])
	}
	return ndjson.Splice(nil, line, "labels", append(b, '}'))
}
