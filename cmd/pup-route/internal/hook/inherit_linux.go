package hook

import "golang.org/x/sys/unix"

// KeepDescriptors keeps descriptors that we were started with, beyond the
// three standard ones, from the commands: os/exec would hand them on.
func KeepDescriptors() error {
	return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
}
