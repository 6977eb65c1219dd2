//go:build unix && !linux

package spool

import "os"

// datasync makes what was written to f last, its size included.
func datasync(f *os.File) error { return f.Sync() }
