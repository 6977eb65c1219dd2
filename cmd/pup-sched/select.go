package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"pup/cmd/internal/cmdline"
	"pup/cmd/pup-sched/internal/sched"
)

// A selector wants a label, or the name, to match a pattern.
type selector struct{ key, pattern string }

// keep makes a test of names and labels out of --select and --shard, or nil
// when all targets are wanted.
func (f *flags) keep() (func(name string, label func(string) string) bool, error) {
	var selectors []selector
	for _, text := range f.selects {
		key, pattern, ok := strings.Cut(text, "=")
		if _, err := path.Match(pattern, ""); !ok || key == "" || err != nil {
			return nil, cmdline.Errorf(cmdline.Usage, "--select %.80q: write LABEL=PATTERN or name=PATTERN, such as team=web or name=db-*", text)
		}
		selectors = append(selectors, selector{key, pattern})
	}
	shard, shards, err := parseShard(f.shard)
	if err != nil {
		return nil, cmdline.Errorf(cmdline.Usage, "%w", err)
	}
	if selectors == nil && shards <= 1 {
		return nil, nil
	}
	return func(name string, label func(string) string) bool {
		for _, s := range selectors {
			value := name
			if s.key != "name" {
				value = label(s.key)
			}
			if ok, _ := path.Match(s.pattern, value); !ok {
				return false
			}
		}
		return shards <= 1 || jump(sched.Hash(name), shards) == shard
	}, nil
}

// parseShard reads I/N and gives I from 0.
func parseShard(text string) (shard, shards int, err error) {
	if text == "" {
		return 0, 1, nil
	}
	i, n, _ := strings.Cut(text, "/")
	shard, err1 := strconv.Atoi(i)
	shards, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil || shard < 1 || shard > shards || shards > 10_000 {
		return 0, 0, fmt.Errorf("--shard %.40q: write I/N, with I from 1 to N, such as 1/3", text)
	}
	return shard - 1, shards, nil
}

// jump is the jump consistent hash of Lamping and Veach (arXiv:1406.2294):
// when a shard is added, only what goes to it moves.
func jump(key uint64, shards int) int {
	b, j := int64(-1), int64(0)
	for j < int64(shards) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64(key>>33+1)))
	}
	return int(b)
}
