package probe

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// dialTCP connects to an address, from source if that is valid. It does what
// net.Dialer does, without what a check has no use for: it takes half the
// system calls, and no deep stack, which a check would keep while it waits for
// an answer.
func dialTCP(ctx dialContext, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	remote, family := sockaddr(to)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if source.IsValid() {
		local, _ := sockaddr(netip.AddrPortFrom(source.Unmap(), 0))
		err = syscall.Bind(fd, local)
	}
	if err == nil {
		err = syscall.Connect(fd, remote)
	}
	if err != nil && !pending(err) {
		syscall.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), ""), to: to}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		// a second connect tells how the first one went; on a fast network it has
		// ended by now
		if err = connectError(syscall.Connect(fd, remote)); pending(err) {
			err = s.connected(ctx, remote)
		}
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

// pending says whether err means that a connection is on its way.
func pending(err error) bool {
	return err == syscall.EINPROGRESS || err == syscall.EALREADY || err == syscall.EINTR
}

// connectError gives nil for what is connected already.
func connectError(err error) error {
	if err == syscall.EISCONN {
		return nil
	}
	return err
}

// A socket is a TCP connection. Unlike net.TCPConn it asks the kernel for its
// addresses only when somebody wants to know them, and tells it that small
// segments must not wait (TCP_NODELAY) only when they otherwise would.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	to     netip.AddrPort
	writes atomic.Int64
}

// smallWrite is what fits into one segment on any network, in bytes (RFC 9293,
// section 3.7.1). When it is the first write, nothing is on its way for whose
// acknowledgement it would have to wait (RFC 9293, section 3.7.4).
const smallWrite = 536

// noDelay is called before each write.
func (s *socket) noDelay(size int) {
	if n := s.writes.Add(1); n == 2 || n == 1 && size > smallWrite {
		s.raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) })
	}
}

// connected waits until the connection stands.
func (s *socket) connected(ctx dialContext, remote syscall.Sockaddr) error {
	var stop func() bool
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		if failed = connectError(syscall.Connect(int(fd), remote)); !pending(failed) {
			return true
		}
		if stop == nil {
			if t, ok := ctx.Deadline(); ok {
				s.file.SetWriteDeadline(t)
			}
			stop = context.AfterFunc(ctx.Context, func() { s.file.SetWriteDeadline(time.Unix(1, 0)) })
		}
		return false
	})
	if stop != nil && !stop() {
		return ctx.Err()
	}
	if err == nil {
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
	s.noDelay(len(b))
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
