package dnsudp

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"pup/cmd/pup-probe/internal/mmsg"
)

// reading starts a goroutine that reads from c, and returns when it waits: as the
// reader of its socket, or for one. Its end is told.
func reading(t *testing.T, c *Conn) <-chan string {
	t.Helper()
	k, end := c.shares[0].socket, make(chan string, 1)
	go func() {
		buf := make([]byte, 100)
		if n, err := c.Read(buf); err != nil {
			end <- err.Error()
		} else {
			end <- string(buf[2:n])
		}
	}()
	for waits := false; !waits; runtime.Gosched() {
		k.mu.Lock()
		c.mu.Lock()
		waits = k.reader == c && c.reads || slices.Contains(k.waiting, c) && c.waits
		c.mu.Unlock()
		k.mu.Unlock()
	}
	return end
}

// Who waits reads for all; when it waits no more another does, whatever the reason.
// It is the same where a goroutine reads.
func TestReader(t *testing.T) {
	ends := map[string]func(c *Conn, answer func()){
		"answered": func(_ *Conn, answer func()) { answer() },
		"stopped":  func(c *Conn, _ func()) { c.SetDeadline(time.Unix(1, 0)) },
		"late":     func(c *Conn, _ func()) { c.SetDeadline(time.Now().Add(time.Millisecond)) },
	}
	for name, end := range ends {
		for _, attended := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", attended ", attended), func(t *testing.T) { testReader(t, attended, end) })
		}
	}
}

func testReader(t *testing.T, attended bool, end func(c *Conn, answer func())) {
	pc, server, queries := listen(t)
	var s Sockets
	var conns [3]*Conn
	var ends [3]<-chan string
	var from netip.AddrPort
	for i := range conns {
		conns[i] = dialTo(t, &s, server)
		defer conns[i].Close()
		if attended {
			conns[i].shares[0].attend()
		}
		write(t, conns[i], datagram(uint16(i), "?"))
		from = (<-queries).from
		ends[i] = reading(t, conns[i])
	}
	answer := func(i int) { pc.WriteToUDPAddrPort(datagram(uint16(i), fmt.Sprint("to ", i)), from) }
	end(conns[1], func() { answer(1) }) // waits for the reader
	<-ends[1]
	end(conns[0], func() { answer(0) }) // is the reader
	<-ends[0]
	answer(2)
	if got := <-ends[2]; got != "to 2" {
		t.Errorf("got %q, want %q", got, "to 2")
	}
	if k := conns[0].shares[0].socket; !attended && k.reader != nil || len(k.waiting) > 0 {
		t.Errorf("nobody waits, but %p reads and %d wait", k.reader, len(k.waiting))
	}
}

// Of thousands that wait for silent servers none has a goroutine beside its own.
func TestNoGoroutine(t *testing.T) {
	var s Sockets
	before := runtime.NumGoroutine()
	for i := range 20 {
		c := dialTo(t, &s, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), 53535))
		defer c.Close()
		c.Write(datagram(1, "?"))
	}
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("%d goroutines more than before", got-before)
	}
}

// What came before a question, while nobody read, neither answers it nor says that
// its server is gone.
func TestBefore(t *testing.T) {
	pc, server, queries := listen(t)
	var s Sockets
	ask := func() (c *Conn, from netip.AddrPort) {
		c = dialTo(t, &s, server)
		write(t, c, datagram(1, "?"))
		return c, (<-queries).from
	}
	c, from := ask()
	pc.WriteToUDPAddrPort(datagram(2, "forged"), from)
	pc.WriteToUDPAddrPort(datagram(1, "answer"), from) // the forged one is there, too, when this is
	wantRead(t, c, "\x00\x02forged")
	wantRead(t, c, "\x00\x01answer")
	pc.WriteToUDPAddrPort(datagram(2, "forged"), from)
	k := c.shares[0].socket
	for there := false; !there; runtime.Gosched() {
		k.raw.Control(func(fd uintptr) { there = mmsg.Ready(fd) == nil })
	}
	c.Close()
	c = dialTo(t, &s, server)
	write(t, c, datagram(2, "?"))
	if q := <-queries; q.from != from {
		t.Fatalf("asked from %v, want %v", q.from, from)
	}
	pc.WriteToUDPAddrPort(datagram(2, "answer"), from)
	wantRead(t, c, "\x00\x02answer")

	pc.Close()
	write(t, c, datagram(2, "again"))
	c.Close()
	again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	c = dialTo(t, &s, server)
	defer c.Close()
	write(t, c, datagram(3, "?"))
	if c.shares[0].socket != k {
		t.Fatal("asked over another socket")
	}
	again.WriteToUDPAddrPort(datagram(3, "answer"), from)
	wantRead(t, c, "\x00\x03answer")
}
