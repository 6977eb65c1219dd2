package main

import (
	"context"
	"slices"
	"time"

	"pup/cmd/pup-sched/internal/config"
)

// watchEvery is how often --watch looks at the files.
const watchEvery = 2 * time.Second

// watch sends when the files are not as they were when they were read, and
// have stayed the same for one look, so that nothing half-written is read.
func watch(ctx context.Context, read func() []config.Seen, changed chan<- struct{}) {
	var last, told []config.Seen
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		known := read()
		now := config.See(known)
		if !slices.Equal(now, known) && !slices.Equal(now, told) && slices.Equal(now, last) {
			told = now
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		last = now
	}
}
