package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestSocket(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("no address of this family: %v", err)
			continue
		}
		defer ln.Close()
		to := netip.MustParseAddrPort(ln.Addr().String())
		c, err := dialTCP(dialContext{Context: t.Context()}, to.Addr(), to)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := c.LocalAddr().String(), peer.RemoteAddr().String(); got != want {
			t.Errorf("local address: got %s, want %s", got, want)
		}
		if got, want := c.RemoteAddr().String(), to.String(); got != want {
			t.Errorf("remote address: got %s, want %s", got, want)
		}
		b := make([]byte, 1)
		for i, want := range []int{0, 1} { // of TCP_NODELAY
			c.Write([]byte("a"))
			if _, err := peer.Read(b); err != nil || b[0] != 'a' {
				t.Errorf("got %q, %v", b, err)
			}
			if got := noDelay(t, c); got != want {
				t.Errorf("TCP_NODELAY after write %d: got %d, want %d", i+1, got, want)
			}
		}
		c.SetDeadline(time.Unix(1, 0))
		if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the deadline: got %v", err)
		}
		c.SetDeadline(time.Time{})
		peer.Close()
		if _, err := c.Read(b); err != io.EOF {
			t.Errorf("after the peer's end: got %v, want EOF", err)
		}
		c.Close()
		if _, err := c.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the close: got %v, want %v", err, net.ErrClosed)
		}
		ln.Close()
		if _, err := dialTCP(dialContext{Context: t.Context()}, netip.Addr{}, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed port: got %v", err)
		}
	}
}

// noDelay gives the option TCP_NODELAY of a connection.
func noDelay(t *testing.T, c net.Conn) (value int) {
	err := (*rawSocket)(c.(*socket)).Control(func(fd uintptr) {
		value, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// What does not fit into a segment must not wait with its last one.
func TestSocketLargeWrite(t *testing.T) {
	to := netip.MustParseAddrPort(listen(t, "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) }))
	c, err := dialTCP(dialContext{Context: t.Context()}, netip.Addr{}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(make([]byte, smallWrite+1))
	if got := noDelay(t, c); got != 1 {
		t.Errorf("TCP_NODELAY: got %d, want 1", got)
	}
}

// A full backlog answers no more, as a host behind a firewall that drops.
func TestSocketNoAnswer(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*syscall.SockaddrInet4).Port))
	for i := range 10 { // until the backlog is full
		ctx := dialContext{t.Context(), time.Now().Add(50 * time.Millisecond)}
		c, err := dialTCP(ctx, netip.Addr{}, to)
		if err == nil {
			defer c.Close()
			continue
		}
		if i == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("deadline: attempt %d: %v", i, err)
		}
		run, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := dialTCP(dialContext{run, time.Now().Add(time.Hour)}, netip.Addr{}, to)
			failed <- err
		}()
		cancel()
		if err := <-failed; err != context.Canceled {
			t.Errorf("end of the run: got %v", err)
		}
		return
	}
	t.Error("the backlog never was full")
}

// A socket is watched by the runtime only once something has to wait, and
// keeps to its deadline and its end before and after.
func TestSocketWatched(t *testing.T) {
	more := make(chan bool)
	to := netip.MustParseAddrPort(listen(t, "127.0.0.1:0", func(c net.Conn) {
		c.Write([]byte("a"))
		for range more {
			c.Write([]byte("b"))
		}
	}))
	dial := func() *socket {
		c, err := dialTCP(dialContext{Context: t.Context()}, netip.Addr{}, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		return c.(*socket)
	}
	watched := func(s *socket) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.file != nil
	}
	b := make([]byte, 1)
	s := dial()
	if watched(s) {
		t.Error("watched before anything had to wait")
	}
	s.Read(b)
	go func() { more <- true }()
	if _, err := s.Read(b); err != nil || b[0] != 'b' {
		t.Errorf("waiting: got %q, %v", b, err)
	}
	if _, err := s.tryRead(b); err != syscall.EAGAIN {
		t.Errorf("nothing to read: got %v, want %v", err, syscall.EAGAIN)
	}
	for _, end := range []struct {
		name string
		do   func(s *socket)
		want error
	}{
		{"deadline", func(s *socket) { s.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"close", func(s *socket) { s.Close() }, net.ErrClosed},
	} {
		early := dial()
		end.do(early)
		if _, err := early.Read(b); !errors.Is(err, end.want) {
			t.Errorf("%s before the first read: got %v, want %v", end.name, err, end.want)
		}
		late := dial()
		late.Read(b)
		failed := make(chan error)
		go func() {
			_, err := late.Read(b)
			failed <- err
		}()
		end.do(late)
		if err := <-failed; !errors.Is(err, end.want) {
			t.Errorf("%s while a read waits: got %v, want %v", end.name, err, end.want)
		}
	}
	close(more)
}
