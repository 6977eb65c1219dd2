package config

import (
	"os"
	"time"
)

// A Seen is a file or folder as it was just before it was read.
type Seen struct {
	Path string
	Size int64 // -1: it was not there
	Time time.Time
}

// See looks at the same files and folders again.
func See(files []Seen) []Seen {
	now := make([]Seen, len(files))
	for i, f := range files {
		now[i] = see(f.Path)
	}
	return now
}

func see(path string) Seen {
	fi, err := os.Stat(path)
	if err != nil {
		return Seen{Path: path, Size: -1}
	}
	return Seen{path, fi.Size(), fi.ModTime()}
}
