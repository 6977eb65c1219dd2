// Package mmsg sends and receives many datagrams with a system call of Linux.
package mmsg

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Message is a datagram, the kernel's struct mmsghdr.
type Message struct {
	Header unix.Msghdr
	N      uint32 // bytes that were received
}

// Send sends messages over a socket that does not block. It gives how many were
// sent, or why the first one was not.
func Send(fd uintptr, m []Message) (int, error) { return call(unix.SYS_SENDMMSG, fd, m) }

// Receive receives messages from a socket, without blocking: unix.EAGAIN says that
// there are none.
func Receive(fd uintptr, m []Message) (int, error) { return call(unix.SYS_RECVMMSG, fd, m) }

// Ready says whether there is something to receive, by nil; else it is unix.EAGAIN or
// an error of the socket, which is taken off it. It needs no buffer and little
// stack, for those who wait.
func Ready(fd uintptr) error {
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, fd, 0, 0, unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

func call(number, fd uintptr, m []Message) (int, error) {
	for {
		n, _, errno := syscall.Syscall6(number, fd, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
