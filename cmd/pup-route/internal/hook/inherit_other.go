//go:build unix && !linux

package hook

import (
	"os"
	"strconv"
	"syscall"
)

// KeepDescriptors keeps descriptors that we were started with, beyond the
// three standard ones, from the commands: os/exec would hand them on.
func KeepDescriptors() error {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
