package spool

import (
	"os"
	"syscall"
)

// datasync makes what was written to f last, its size included.
func datasync(f *os.File) error {
	return os.NewSyscallError("fdatasync", syscall.Fdatasync(int(f.Fd())))
}
