package state

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// TestSize: a name takes no more than a KiB, so that 100,000 take no more than
// 100 MiB, with all that hooks may ask for; for each further vantage a third of
// that.
func TestSize(t *testing.T) {
	const names = 20_000
	down := Rule{Hook: "each", Becomes: set(Down), Recovered: true}
	quorum := down
	quorum.Hook, quorum.Quorum = "quorum", Share{Majority: true}
	cause := quorum
	cause.Hook, cause.Together = "cause", &Together{Same: []string{"labels.net", "address/24"}, AtLeast: Share{Count: 3}, Cause: true, Within: time.Minute}
	pool := quorum
	pool.Hook, pool.Together = "pool", &Together{Same: []string{"labels.pool"}, AtLeast: Share{Percent: 50}}
	for _, tt := range []struct {
		name     string
		rules    []Rule
		vantages int
		limit    uint64
	}{{"each", []Rule{down}, 1, 500}, {"all", []Rule{down, quorum, cause, pool}, 1, 1024}, {"three vantages", []Rule{quorum, cause, pool}, 3, 1700}} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(nil, nil)
			table.ForgetAfter = 7 * 24 * time.Hour
			table.SetRules(tt.rules, 0, nil)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for run := range 2 {
				for i := range names {
					for v := range tt.vantages {
						r := Result{Name: fmt.Append(nil, "service-", i, ".example.org"), Vantage: fmt.Append(nil, "v", v), Run: fmt.Append(nil, run), Every: time.Minute,
							Line: fmt.Appendf(nil, `{"labels":{"net":"n%d","pool":"p%d"},"address":"10.0.%d.1:443"}`, i%1000, i%5000, i%250)}
						table.Observe(&r, epoch.Add(time.Duration(run)*time.Minute))
					}
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if size := (after.HeapAlloc - before.HeapAlloc) / names; size > tt.limit {
				t.Errorf("a name takes %d bytes, want %d at most", size, tt.limit)
			}
			runtime.KeepAlive(table)
		})
	}
}
