//go:build unix

package hook

import (
	"os"
	"syscall"
)

// attributes puts the command into a session of its own: no terminal, a
// process group of its own, and no share in a ^C meant for us.
func attributes(u *User) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if u != nil && (os.Getuid() == 0 || uint32(os.Getuid()) != u.UID) {
		a.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	return a
}

// killGroup signals every process of the command's group.
func killGroup(pid int, s syscall.Signal) {
	syscall.Kill(-pid, s) //nolint:errcheck // ESRCH: all are gone, as wished
}
