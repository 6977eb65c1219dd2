package dnsudp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A query is what a server has received.
type query struct {
	from netip.AddrPort
	text string
}

// listen gives a server that hands over what it receives.
func listen(t *testing.T) (*net.UDPConn, netip.AddrPort, <-chan query) {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	queries, done := make(chan query, 1024), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			queries <- query{from, string(buf[:n])}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc, pc.LocalAddr().(*net.UDPAddr).AddrPort(), queries
}

func datagram(id uint16, text string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), text...)
}

func dialTo(t *testing.T, s *Sockets, server netip.AddrPort) *Conn {
	t.Helper()
	c, err := s.Dial(netip.Addr{}, server)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func write(t *testing.T, c *Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, c *Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if got := string(buf[:n]); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// Each gets its own answer, whatever the order in which they come.
func TestShared(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	var wg sync.WaitGroup
	for i := range 2 * maxShares {
		c := dialTo(t, &s, server)
		wg.Go(func() {
			defer c.Close()
			q := datagram(uint16(i), fmt.Sprint("question ", i))
			if _, err := c.Write(q); err != nil {
				t.Error(err)
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if got, want := string(buf[:n]), "answer to "+string(q[2:]); err != nil || got[min(2, n):] != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
	ports := map[uint16]int{}
	var all []query
	for range 2 * maxShares {
		q := <-queries
		ports[q.from.Port()]++
		all = append(all, q)
	}
	for _, q := range slices.Backward(all) {
		pc.WriteToUDPAddrPort([]byte(q.text[:2]+"answer to "+q.text[2:]), q.from)
	}
	wg.Wait()
	for port, n := range ports {
		if n != maxShares || len(ports) != 2 {
			t.Errorf("%d queries from port %d of %d, want %d each from 2", n, port, len(ports), maxShares)
		}
	}
}

// A socket is given up after so many queries, and no identifier is used twice
// on it.
func TestReplaced(t *testing.T) {
	_, server, queries := listen(t)
	var s Sockets
	ports := map[uint16]int{}
	for i := range maxQueries + 1 {
		c := dialTo(t, &s, server)
		write(t, c, datagram(uint16(i), "?"))
		ports[(<-queries).from.Port()]++
		c.Close()
	}
	if len(ports) != 2 {
		t.Errorf("%d ports for %d queries, want 2", len(ports), maxQueries+1)
	}
}

// An identifier that another query has on the socket, or has had, is sent from
// another port.
func TestSameIdentifier(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	gone, a, b := dialTo(t, &s, server), dialTo(t, &s, server), dialTo(t, &s, server)
	defer a.Close()
	defer b.Close()
	write(t, gone, datagram(1, "gone"))
	first := <-queries
	gone.Close()
	write(t, a, datagram(2, "a"))
	<-queries
	for _, id := range []uint16{1, 2} {
		write(t, b, datagram(id, "b"))
		q := <-queries
		if q.from == first.from {
			t.Errorf("identifier %d was sent again from the same port", id)
		}
		pc.WriteToUDPAddrPort(datagram(id, "to b"), q.from)
		wantRead(t, b, string(datagram(id, "to b")))
	}
	pc.WriteToUDPAddrPort(datagram(1, "late"), first.from)
	pc.WriteToUDPAddrPort(datagram(2, "to a"), first.from)
	wantRead(t, a, "\x00\x02to a")
}

// What belongs to nobody is shown to all who have asked, so that they can
// count it. It crowds nobody's answer out for ever.
func TestStray(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	a, b, idle := dialTo(t, &s, server), dialTo(t, &s, server), dialTo(t, &s, server)
	defer a.Close()
	defer b.Close()
	defer idle.Close()
	write(t, a, datagram(1, "a"))
	write(t, b, datagram(2, "b"))
	<-queries
	from := (<-queries).from
	for range 2 * maxMail {
		pc.WriteToUDPAddrPort(datagram(3, "stray"), from)
	}
	for range maxMail {
		wantRead(t, a, "\x00\x03stray")
	}
	pc.WriteToUDPAddrPort(datagram(1, "to a"), from)
	for buf := make([]byte, 100); ; {
		n, err := a.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "\x00\x01to a" {
			break
		}
	}
	b.mu.Lock()
	if len(b.mail) != maxMail {
		t.Errorf("%d strays wait to be read, want %d", len(b.mail), maxMail)
	}
	b.mu.Unlock()
	wantRead(t, b, "\x00\x03stray")
	idle.SetDeadline(time.Unix(1, 0))
	if err := idle.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who has not asked: got %v", err)
	}
}

// That the port is closed is told to all who have asked.
func TestRefused(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	a, b := dialTo(t, &s, server), dialTo(t, &s, server)
	defer a.Close()
	defer b.Close()
	write(t, a, datagram(1, "a"))
	<-queries
	pc.Close()
	write(t, b, datagram(2, "b"))
	for _, c := range []*Conn{a, b} {
		if err := c.Wait(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want that the connection was refused", err)
		}
	}
}

// An error of sending is told to him whose datagram it is.
func TestNotSent(t *testing.T) {
	_, server, queries := listen(t)
	var s Sockets
	a, b := dialTo(t, &s, server), dialTo(t, &s, server)
	defer a.Close()
	defer b.Close()
	write(t, a, datagram(1, "a"))
	<-queries
	write(t, b, datagram(2, strings.Repeat("b", 1<<16)))
	err := b.Wait()
	oe, ok := errors.AsType[*net.OpError](err)
	if !ok || oe.Op != "write" || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("got %v, want that the message is too long to be written", err)
	}
	a.SetDeadline(time.Unix(1, 0))
	if err := a.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other: got %v, want nothing", err)
	}
}

func TestDeadline(t *testing.T) {
	_, server, _ := listen(t)
	var s Sockets
	c := dialTo(t, &s, server)
	for _, d := range []time.Duration{time.Millisecond, -1, 0} {
		c.SetReadDeadline(time.Now().Add(d))
		if _, err := c.Read(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want that the deadline is over", err)
		}
	}
	c.SetDeadline(time.Time{})
	ended := make(chan error)
	go func() { ended <- c.Wait() }()
	c.SetDeadline(time.Unix(1, 0)) // from another goroutine
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want that the deadline is over", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: got %v", err)
	}
	if err := c.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
}

// A socket is closed a little after its last use, but never while it is used.
func TestClosed(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	c := dialTo(t, &s, server)
	k := c.shares[0].socket
	write(t, c, datagram(1, "a"))
	from := (<-queries).from
	s.retire(k)
	if next := dialTo(t, &s, server); next.shares[0].socket == k {
		t.Error("the socket still takes connections")
	} else {
		next.Close()
		next.shares[0].udp.Read(make([]byte, 1)) // until it is closed
	}
	pc.WriteToUDPAddrPort(datagram(1, "to a"), from)
	wantRead(t, c, "\x00\x01to a")
	c.Close()
	if _, err := k.udp.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want a closed socket", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) != 0 {
		t.Errorf("%d routes are left", len(s.open))
	}
}
