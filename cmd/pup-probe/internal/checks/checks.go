// Package checks holds the checks, one file each. A file redis.go declares
// only names that begin with redis, and registers its check in init.
package checks

import (
	"slices"
	"strings"

	"pup/cmd/pup-probe/internal/probe"
)

var all []*probe.Check

// register adds a check. The values of defaults are the defaults of its
// options.
func register[O, F any](info probe.Info, defaults O, run probe.Func[O, F]) {
	all = append(all, probe.New(info, defaults, run))
}

// All lists the checks in the order of their names.
func All() []*probe.Check {
	slices.SortFunc(all, func(a, b *probe.Check) int { return strings.Compare(a.Name, b.Name) })
	return all
}
