//go:build !linux

package probe

import (
	"errors"
	"runtime"
	"syscall"
)

func reportErrors(int, bool) {}

func dontFragment(syscall.Conn, bool) error {
	return errors.New("can't be had on " + runtime.GOOS)
}

func errorQueue(syscall.Conn, bool) (Echo, bool) { return Echo{}, false }
