package main

import (
	"fmt"
	"testing"

	"pup/cmd/pup-sched/internal/sched"
)

func TestShardsAreEvenAndStable(t *testing.T) {
	const names = 20_000
	for shards := 1; shards < 12; shards++ {
		count := make([]int, shards+1)
		moved := 0
		for i := range names {
			h := sched.Hash(fmt.Sprintf("host-%d.example.org", i))
			old, now := jump(h, shards), jump(h, shards+1)
			count[now]++
			if old != now {
				moved++
				if now != shards {
					t.Fatalf("a name moved from shard %d to %d when shard %d was added", old, now, shards)
				}
			}
		}
		want := names / (shards + 1)
		for i, n := range count {
			if n < want*9/10 || n > want*11/10 {
				t.Errorf("shard %d of %d has %d names, want about %d", i, shards+1, n, want)
			}
		}
		if moved < want*9/10 || moved > want*11/10 {
			t.Errorf("%d names moved to the new shard, want about %d", moved, want)
		}
	}
}
