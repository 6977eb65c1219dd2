package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"pup/cmd/pup-sched/internal/config"
)

// watchEvery is how often --watch looks at the files.
const watchEvery = 2 * time.Second

// watch sends when the files have changed, and have then stayed the same for
// one look, so that nothing half-written is read.
func watch(ctx context.Context, paths func() []string, changed chan<- struct{}) {
	known := look(paths())
	last := known
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := look(paths())
		if now != known && now == last {
			known = now
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		last = now
	}
}

// look sums up what tells whether files have changed: their sizes and times,
// and what is in folders.
func look(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			fmt.Fprintf(&b, "%s gone\n", p)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", p, fi.Size(), fi.ModTime().UnixNano())
	}
	return b.String()
}

// watched lists the files of a configuration, and the folders in which new
// ones may appear.
func watched(c *config.Config, paths []string) []string {
	return append(append([]string{}, paths...), c.Files...)
}
