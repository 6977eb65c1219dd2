package state

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkOutage is what a result costs when 10,000 names that share a
// network fail, are told as one, and come back: with each told by itself as
// the reference.
func BenchmarkOutage(b *testing.B) {
	const names = 10_000
	each := Rule{Hook: "h", Becomes: set(Down), Recovered: true}
	cause, pool, quorum := each, each, each
	cause.Together = &Together{Same: []string{"labels.net"}, AtLeast: Share{Count: 3}, Cause: true, Within: time.Minute}
	pool.Together = &Together{Same: []string{"labels.net"}, AtLeast: Share{Percent: 50}}
	quorum.Quorum = Share{Majority: true}
	for _, bb := range []struct {
		name string
		rule Rule
	}{{"each", each}, {"quorum", quorum}, {"members", pool}, {"cause", cause}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			results := 0
			for b.Loop() {
				table := New(func(*Event) {}, func(*Note) {})
				table.SetRules([]Rule{bb.rule}, 0, nil)
				now := epoch
				for run, status := range []Status{Up, Down, Down, Down, Up} {
					for i := range names {
						now = now.Add(3 * time.Millisecond)
						table.Advance(now)
						table.Observe(&Result{Name: fmt.Append(nil, i), Status: status, Run: fmt.Append(nil, run), Line: []byte(`{"labels":{"net":"n1"}}`)}, now)
						results++
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(results), "ns/result")
		})
	}
}
