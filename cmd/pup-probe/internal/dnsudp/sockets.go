// Package dnsudp gives out connections to name servers over UDP that share
// sockets, so that many queries cost few system calls. docs/design/005-sockets.md
// says what that means for somebody who forges answers.
package dnsudp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	maxShares  = 32          // connections that share a socket at once
	maxQueries = 256         // queries in the life of a socket; a connection may go on beyond
	takesFor   = time.Second // for which a socket takes connections
	maxMail    = 16          // datagrams that wait for a connection to read them
	// bufSize is the size of the longest datagram that is read whole: more than
	// the 1232 bytes that we tell servers.
	bufSize = 4 << 10
)

// Sockets holds the sockets that take further connections. The zero Sockets is
// ready for use.
type Sockets struct {
	mu   sync.Mutex
	open map[route][]*socket
}

// A route is what connections must have in common to share a socket.
type route struct {
	source netip.Addr // of our own end; the system's choice if it is not valid
	server netip.AddrPort
}

// Dial gives a connection to server. To whoever holds it it is a connected UDP
// socket of its own: it gets the answers to the identifiers that it has
// written, messages that are nobody's answer, and the errors of the socket.
func (s *Sockets) Dial(source netip.Addr, server netip.AddrPort) (*Conn, error) {
	r := route{source, server}
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.open[r]
	for i := 0; i < len(open); {
		k := open[i]
		joined, retired := k.join()
		switch {
		case joined:
			return newConn(k), nil
		case retired:
			open = slices.Delete(open, i, i+1)
			s.open[r] = open
		default:
			i++
		}
	}
	k, err := dial(r)
	if err != nil {
		return nil, err
	}
	k.join()
	if s.open == nil {
		s.open = map[route][]*socket{}
	}
	s.open[r] = append(s.open[r], k)
	time.AfterFunc(takesFor, func() { s.retire(k) })
	return newConn(k), nil
}

// retire lets nobody join the socket any more. It is closed when its last
// connection is.
func (s *Sockets) retire(k *socket) {
	s.mu.Lock()
	rest := slices.DeleteFunc(s.open[k.route], func(o *socket) bool { return o == k })
	if s.open[k.route] = rest; len(rest) == 0 {
		delete(s.open, k.route)
	}
	s.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retired = true
	k.closeUnused()
}

// An endpoint is a connected UDP socket.
type endpoint interface {
	io.ReadWriteCloser
	syscall.Conn
	SetReadDeadline(time.Time) error
	LocalAddr() net.Addr
}

// openNet connects a socket as package net does.
func openNet(r route) (endpoint, error) {
	var d net.Dialer
	if r.source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.source, 0))
	}
	nc, err := d.DialContext(context.Background(), "udp", r.server.String()) // sends nothing, so does not wait
	if err != nil {
		return nil, err
	}
	return nc.(*net.UDPConn), nil
}

// dial opens a socket. The kernel gives it a random port.
func dial(r route) (*socket, error) {
	udp, err := open(r)
	if err != nil {
		return nil, err
	}
	k := &socket{route: r, udp: udp, ids: map[uint16]*Conn{}}
	if k.raw, err = udp.SyscallConn(); err != nil {
		udp.Close()
		return nil, err
	}
	if !waitersRead {
		k.attend()
	}
	return k, nil
}

// A socket carries the queries of many connections.
type socket struct {
	route
	udp endpoint
	raw syscall.RawConn

	receiver // the reader's

	mu      sync.Mutex
	reader  *Conn            // who reads for all; nil: nobody waits
	until   time.Time        // when its waiting ends by itself; zero: it does not, or did
	waiting []*Conn          // who waits for the reader, or to become it
	joined  int              // connections that hold it
	asking  []*Conn          // those of them that have asked
	ids     map[uint16]*Conn // by the identifiers that were ever sent; nil where the connection is closed
	retired bool
	closed  bool
	sending bool     // somebody sends what is in out
	out     outgoing // what is to be sent
	spare   outgoing
}

// join counts another connection, unless the socket has enough of them now, or
// has had enough of them.
func (k *socket) join() (joined, retired bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.retired || k.joined == maxShares {
		return false, k.retired
	}
	k.joined++
	return true, false
}

// leave forgets a connection. Late answers to its queries are for nobody.
func (k *socket) leave(c *Conn, ids []uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if k.ids[id] == c {
			k.ids[id] = nil
		}
	}
	if i := slices.Index(k.asking, c); i >= 0 {
		k.asking = slices.Delete(k.asking, i, i+1)
	}
	k.joined--
	k.retired = k.retired || len(k.ids) >= maxQueries
	k.closeUnused()
}

func (k *socket) closeUnused() {
	if k.retired && k.joined == 0 {
		k.closed = true
		k.udp.Close()
	}
}

// claim reserves an identifier for the answers to c. An identifier is used by
// one connection only in the life of a socket, so that a late answer to one
// query is never taken for the answer to another. The socket is locked.
func (k *socket) claim(c *Conn, id uint16) bool {
	owner, used := k.ids[id]
	if used {
		return owner == c
	}
	k.ids[id] = c
	if !slices.Contains(k.asking, c) {
		k.asking = append(k.asking, c)
	}
	return true
}

// deliver hands a datagram to the connection that asked for it, or, since
// nobody can know for whom else it was meant, a copy to everybody who has asked.
// The socket is locked.
func (k *socket) deliver(b *buffer, n int) {
	if n >= 2 {
		if c, used := k.ids[uint16(b[0])<<8|uint16(b[1])]; used {
			if c == nil || !k.post(c, mail{b, n, nil}) {
				buffers.Put(b)
			}
			return
		}
	}
	for _, c := range k.asking {
		copied := buffers.Get().(*buffer)
		copy(copied[:], b[:n])
		if !k.post(c, mail{copied, n, nil}) {
			buffers.Put(copied)
		}
	}
	buffers.Put(b)
}

// tell tells everybody who has asked of an error that came back, such as that the
// port is closed. The socket is locked.
func (k *socket) tell(err error) {
	for _, c := range k.asking {
		k.post(c, mail{err: k.wrap("read", err)})
	}
}

// post gives mail to a connection, which then need not wait any more.
func (k *socket) post(c *Conn, m mail) bool {
	k.forget(c)
	return c.post(m)
}

// forget takes a connection off those that wait.
func (k *socket) forget(c *Conn) {
	if i := slices.Index(k.waiting, c); i >= 0 {
		k.waiting = slices.Delete(k.waiting, i, i+1)
	}
}

// fail is tell, of a socket that is not locked.
func (k *socket) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(err)
}

// enlist has c wait, as the reader if there is none, unless it need not wait.
func (k *socket) enlist(c *Conn) (reads, waits bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.mail) > 0 || c.late(time.Now()) {
		return false, false
	}
	if k.reader == nil {
		k.reader = c
	}
	c.reads = k.reader == c
	c.waits = !c.reads
	if c.waits && !slices.Contains(k.waiting, c) {
		k.waiting = append(k.waiting, c)
		if c.bell == nil {
			c.bell = bells.Get().(bell)
		}
	}
	k.waitUntil(c.deadline)
	return c.reads, c.waits
}

// waitUntil has the reader wait until t, or less long: who is late is told by it.
// To look in vain costs less than a deadline for each who waits.
func (k *socket) waitUntil(t time.Time) {
	if k.until.IsZero() || !t.IsZero() && t.Before(k.until) {
		k.until = t
		k.udp.SetReadDeadline(t)
	}
}

// tellLate wakes those who are late, since the reader has waited until then. The
// socket is locked.
func (k *socket) tellLate() {
	k.until = time.Time{}
	k.udp.SetReadDeadline(k.until)
	now := time.Now()
	for _, c := range k.waiting {
		c.mu.Lock()
		if c.late(now) {
			c.wake()
		} else {
			k.waitUntil(c.deadline)
		}
		c.mu.Unlock()
	}
}

// deal deals with what wait has ended with. It says whether the socket is open
// still.
func (k *socket) deal(err error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.deliverAll()
	case errors.Is(err, os.ErrDeadlineExceeded):
		k.tellLate()
	default:
		k.tell(err)
	}
	return !k.closed
}

// rest says that c waits no more. Another takes its place, if it was the reader or
// was asked to be.
func (k *socket) rest(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(c)
	if k.reader == c {
		k.reader = nil
	}
	if k.reader == nil && len(k.waiting) > 0 {
		next := k.waiting[0]
		k.forget(next)
		next.ring()
	}
}

// attendant stands for a goroutine as reader.
var attendant = new(Conn)

// attend has a goroutine read, until the socket is closed, so that nobody who
// waits has to.
func (k *socket) attend() {
	if k.reader != nil {
		return
	}
	k.reader = attendant
	go func() {
		for k.deal(k.wait()) {
		}
	}()
}

// wrap words an error as package net does.
func (r route) wrap(op string, err error) error {
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		err = oe.Err
	}
	if se, ok := errors.AsType[*os.SyscallError](err); ok {
		err = se.Err
	}
	return &net.OpError{Op: op, Net: "udp", Addr: net.UDPAddrFromAddrPort(r.server), Err: err}
}

type buffer [bufSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}
