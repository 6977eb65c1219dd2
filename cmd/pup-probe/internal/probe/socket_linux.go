package probe

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
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
	remote, family := sockaddrOf(to)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, to: to, tries: maxTries}
	if source.IsValid() {
		local, _ := sockaddrOf(netip.AddrPortFrom(source.Unmap(), 0))
		err = bindFD(fd, local)
	}
	if err == nil {
		err = connectFD(fd, remote)
	}
	if pending(err) {
		// a second connect tells how the first one went; on a fast network it has
		// ended by now
		err = connectError(connectFD(fd, remote))
	}
	if pending(err) {
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
// addresses only when somebody wants to know them, tells it that small segments
// must not wait (TCP_NODELAY) only when they otherwise would, and is watched by
// the runtime only once something had to wait: with a fast server that is
// never.
type socket struct {
	to netip.AddrPort
	fd int

	mu       sync.Mutex // of all below, and of fd until there is a file
	file     *os.File   // what waits; nil: nothing had to yet
	raw      syscall.RawConn
	deadline time.Time // for file
	tries    int       // of reads and writes on fd itself
	yielded  bool
	writes   int
	closed   bool
}

// maxTries bounds the reads and writes of a connection that is not watched.
const maxTries = 8

// smallWrite is what fits into one segment on any network, in bytes (RFC 9293,
// section 3.7.1). When it is the first write, nothing is on its way for whose
// acknowledgement it would have to wait (RFC 9293, section 3.7.4).
const smallWrite = 536

// may says whether fd itself may be tried. The lock is held.
func (s *socket) may() bool {
	if s.file != nil || s.closed || s.tries == 0 || !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		return false
	}
	s.tries--
	return true
}

// waits gives what can wait.
func (s *socket) waits() (*os.File, syscall.RawConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch()
}

// watch has the socket watched by the runtime. The lock is held.
func (s *socket) watch() (*os.File, syscall.RawConn, error) {
	if s.closed {
		return nil, nil, os.ErrClosed
	}
	if s.file == nil {
		s.file = os.NewFile(uintptr(s.fd), "")
		s.raw, _ = s.file.SyscallConn()
		if !s.deadline.IsZero() {
			s.file.SetDeadline(s.deadline)
		}
	}
	return s.file, s.raw, nil
}

// yield lets others go first, once. With many checks under way, the answer is
// there when it is our turn again.
func (s *socket) yield() {
	s.mu.Lock()
	first := !s.yielded && s.file == nil
	s.yielded = true
	s.mu.Unlock()
	if first {
		runtime.Gosched()
	}
}

// connected waits until the connection stands.
func (s *socket) connected(ctx dialContext, remote *sockaddr) error {
	var stop func() bool
	var failed error
	file, raw, err := s.waits()
	if err != nil {
		return err
	}
	err = raw.Write(func(fd uintptr) bool {
		if failed = connectError(connectFD(int(fd), remote)); !pending(failed) {
			return true
		}
		if stop == nil {
			if t, ok := ctx.Deadline(); ok {
				file.SetWriteDeadline(t)
			}
			stop = context.AfterFunc(ctx.Context, func() { file.SetWriteDeadline(time.Unix(1, 0)) })
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
		err = file.SetWriteDeadline(time.Time{})
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
	s.yield()
	if n, err := s.tryRead(b); err != syscall.EAGAIN {
		return n, s.wrap("read", err)
	}
	file, _, err := s.waits()
	if err != nil {
		return 0, s.wrap("read", err)
	}
	n, err := file.Read(b)
	return n, s.wrap("read", err)
}

// tryRead gives EAGAIN when there is nothing yet, or when it may not look.
func (s *socket) tryRead(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.may() {
		return 0, syscall.EAGAIN
	}
	n, err := readFD(uintptr(s.fd), b)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := s.tryWrite(b)
	if err != syscall.EAGAIN {
		return n, s.wrap("write", err)
	}
	file, _, err := s.waits()
	if err != nil {
		return n, s.wrap("write", err)
	}
	m, err := file.Write(b[n:])
	return n + m, s.wrap("write", err)
}

// tryWrite gives EAGAIN when not all could be written.
func (s *socket) tryWrite(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes++; !s.closed && (s.writes == 2 || s.writes == 1 && len(b) > smallWrite) {
		syscall.SetsockoptInt(s.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if !s.may() {
		return 0, syscall.EAGAIN
	}
	n, err := syscall.Write(s.fd, b)
	if n = max(n, 0); err == syscall.EINTR || err == nil && n < len(b) {
		err = syscall.EAGAIN
	}
	return n, err
}

// SyscallConn gives the socket itself.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return (*rawSocket)(s), nil }

// A rawSocket is the syscall.RawConn of a socket.
type rawSocket socket

func (r *rawSocket) Control(f func(fd uintptr)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	f(uintptr(r.fd))
	return nil
}

func (r *rawSocket) Read(f func(fd uintptr) (done bool)) error {
	s := (*socket)(r)
	s.yield()
	s.mu.Lock()
	done := s.may() && f(uintptr(s.fd))
	s.mu.Unlock()
	if done {
		return nil
	}
	_, raw, err := s.waits()
	if err != nil {
		return err
	}
	return raw.Read(f)
}

func (r *rawSocket) Write(f func(fd uintptr) (done bool)) error {
	_, raw, err := (*socket)(r).waits()
	if err != nil {
		return err
	}
	return raw.Write(f)
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

func (s *socket) Close() error {
	s.mu.Lock()
	file, was := s.file, s.closed
	s.closed = true
	var err error
	switch {
	case was:
		err = os.ErrClosed
	case file == nil:
		err = closeFD(s.fd)
	}
	s.mu.Unlock()
	if file != nil && !was {
		err = file.Close() // waits for those who use it, who may want the lock
	}
	return s.wrap("close", err)
}

// SetDeadline sets the deadline of what waits from now on, and of what waits
// now.
func (s *socket) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil && s.deadline.IsZero() && t.After(time.Now()) {
		s.deadline = t
		return nil
	}
	file, _, err := s.watch()
	if err == nil {
		err = file.SetDeadline(t)
	}
	return s.wrap("set", err)
}

func (s *socket) SetReadDeadline(t time.Time) error {
	file, _, err := s.waits()
	if err == nil {
		err = file.SetReadDeadline(t)
	}
	return s.wrap("set", err)
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	file, _, err := s.waits()
	if err == nil {
		err = file.SetWriteDeadline(t)
	}
	return s.wrap("set", err)
}

func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.to) }

// LocalAddr gives our own address, and an empty one once the socket is closed.
func (s *socket) LocalAddr() net.Addr {
	var local net.TCPAddr
	(*rawSocket)(s).Control(func(fd uintptr) {
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
