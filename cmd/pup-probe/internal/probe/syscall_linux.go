package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of this file are for sockets that do not block. The
// scheduler is not told of them: a thread that is in one is at work, but it
// would take it for one that waits, and start another in its place. On a busy
// machine that makes more threads, and costs a twentieth of an HTTP check.
// Reading and writing take less, and the race detector knows those of package
// syscall.

// A sockaddr is an address as the kernel takes it.
type sockaddr struct {
	bytes [unix.SizeofSockaddrInet6]byte
	size  uintptr
}

// sockaddrOf needs an address without a zone.
func sockaddrOf(a netip.AddrPort) (sa *sockaddr, family int) {
	sa, family = &sockaddr{}, unix.AF_INET6
	ip := a.Addr().As16()
	if a.Addr().Is4() {
		family, sa.size = unix.AF_INET, unix.SizeofSockaddrInet4
		copy(sa.bytes[4:], ip[12:])
	} else {
		sa.size = unix.SizeofSockaddrInet6
		copy(sa.bytes[8:], ip[:]) // behind the flow label
	}
	binary.NativeEndian.PutUint16(sa.bytes[:], uint16(family))
	binary.BigEndian.PutUint16(sa.bytes[2:], a.Port())
	return sa, family
}

func bindFD(fd int, sa *sockaddr) error { return sa.call(unix.SYS_BIND, fd) }

func connectFD(fd int, sa *sockaddr) error { return sa.call(unix.SYS_CONNECT, fd) }

func (sa *sockaddr) call(trap uintptr, fd int) error {
	_, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&sa.bytes)), sa.size)
	return orNil(errno)
}

func closeFD(fd int) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return orNil(errno)
}

func orNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
