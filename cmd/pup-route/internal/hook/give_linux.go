package hook

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// give hands the event line over: in sealed memory, as standard input or as
// a file. Nothing touches a disk, nothing is left behind, and a command that
// does not read its input delays nobody.
func (c *Command) give(line []byte) (in *os.File, env []string, release func(), err error) {
	in, err = sealed(line)
	if err != nil {
		return nil, nil, nil, err
	}
	if c.Input == File {
		env = []string{"PUP_FILE=/proc/self/fd/3"}
	}
	return in, env, func() { in.Close() }, nil
}

// sealed returns a file in memory that holds data and can't be changed.
func sealed(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("pup-event", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pup-event")
	if _, err = f.WriteAt(data, 0); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
