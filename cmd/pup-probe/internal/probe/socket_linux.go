package probe

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// dialTCP connects to an address, from source if that is valid. It does what
// net.Dialer does, without what a check has no use for: it takes half the
// system calls, and no deep stack, which a check would keep while it waits for
// an answer.
func dialTCP(ctx context.Context, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	remote, family := sockaddr(to)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = prepareSocket(fd, source); err == nil {
		err = syscall.Connect(fd, remote)
	}
	if err != nil && err != syscall.EINPROGRESS && err != syscall.EINTR {
		syscall.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), ""), to: to}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.connected(ctx, remote)
	}
	if err == nil && itself(fd, to) {
		err = syscall.ECONNREFUSED
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// sockaddr makes what the kernel wants to know of an address, which must have
// no zone.
func sockaddr(a netip.AddrPort) (syscall.Sockaddr, int) {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, syscall.AF_INET
	}
	return &syscall.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}, syscall.AF_INET6
}

// prepareSocket does what has to be done before the connection.
func prepareSocket(fd int, source netip.Addr) error {
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil || !source.IsValid() {
		return err
	}
	local, _ := sockaddr(netip.AddrPortFrom(source.Unmap(), 0))
	return syscall.Bind(fd, local)
}

// A socket is a TCP connection. Unlike net.TCPConn it asks the kernel for its
// addresses only when somebody wants to know them.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	to   netip.AddrPort
}

// connected waits until the connection stands. The kernel tells by a second
// connect how the first one went; on a fast network it often has ended by then.
func (s *socket) connected(ctx context.Context, remote syscall.Sockaddr) error {
	var stop func() bool
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		failed = syscall.Connect(int(fd), remote)
		if failed != syscall.EALREADY && failed != syscall.EINPROGRESS && failed != syscall.EINTR {
			return true
		}
		if stop == nil {
			if t, ok := ctx.Deadline(); ok {
				s.file.SetWriteDeadline(t)
			}
			stop = context.AfterFunc(ctx, func() { s.file.SetWriteDeadline(time.Unix(1, 0)) })
		}
		return false
	})
	if stop != nil && !stop() {
		return ctx.Err()
	}
	if err == nil && failed != nil && failed != syscall.EISCONN {
		err = failed
	}
	if err == nil && stop != nil {
		err = s.file.SetWriteDeadline(time.Time{})
	}
	return err
}

// itself says whether a socket is connected to itself. It happens when nobody
// listens on a port that the kernel then picks for our own end.
func itself(fd int, to netip.AddrPort) bool {
	sa, _ := syscall.Getsockname(fd)
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return sa.Port == int(to.Port()) && netip.AddrFrom4(sa.Addr) == to.Addr()
	case *syscall.SockaddrInet6:
		return sa.Port == int(to.Port()) && netip.AddrFrom16(sa.Addr) == to.Addr()
	}
	return false
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.file.Read(b)
	return n, s.wrap("read", err)
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := s.file.Write(b)
	return n, s.wrap("write", err)
}

// wrap words an error as package net does.
func (s *socket) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Addr: s.RemoteAddr(), Err: err}
}

func (s *socket) Close() error                      { return s.wrap("close", s.file.Close()) }
func (s *socket) SetDeadline(t time.Time) error     { return s.wrap("set", s.file.SetDeadline(t)) }
func (s *socket) SetReadDeadline(t time.Time) error { return s.wrap("set", s.file.SetReadDeadline(t)) }
func (s *socket) SetWriteDeadline(t time.Time) error {
	return s.wrap("set", s.file.SetWriteDeadline(t))
}
func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }
func (s *socket) RemoteAddr() net.Addr                  { return net.TCPAddrFromAddrPort(s.to) }

// LocalAddr gives our own address, and an empty one once the socket is closed.
func (s *socket) LocalAddr() net.Addr {
	var local net.TCPAddr
	s.raw.Control(func(fd uintptr) {
		sa, _ := syscall.Getsockname(int(fd))
		switch sa := sa.(type) {
		case *syscall.SockaddrInet4:
			local = net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
		case *syscall.SockaddrInet6:
			local = net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
			if sa.ZoneId != 0 {
				if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
					local.Zone = i.Name
				}
			}
		}
	})
	return &local
}
