package dnsudp

import (
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// A Conn is a share in a socket. It belongs to one goroutine; others may set
// its deadlines.
type Conn struct {
	shares []share // the last one is that of new queries

	mu       sync.Mutex
	mail     []mail
	deadline time.Time // to read
	closed   bool
	reads    bool // it waits as the reader of its socket
	waits    bool // it waits for the bell
	bell          // rings when there is something to look for; nil: never needed

	// what the slices begin with, since few connections need more
	room struct {
		shares [1]share
		ids    [1]uint16
		mail   [1]mail
	}
}

// A bell wakes who waits. It may ring without need; so it can be used again
// although somebody still knows it.
type bell chan struct{}

var bells = sync.Pool{New: func() any { return make(bell, 1) }}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// A share is a socket that a connection has asked over.
type share struct {
	*socket
	ids []uint16
}

// mail is a datagram, or an error of the socket.
type mail struct {
	b   *buffer
	n   int
	err error
}

func newConn(k *socket) *Conn {
	c := &Conn{}
	c.shares = append(c.room.shares[:0], share{socket: k, ids: c.room.ids[:0]})
	c.mail = c.room.mail[:0]
	return c
}

// post puts mail into the box, unless it is full or the connection is closed.
func (c *Conn) post(m mail) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.mail) == maxMail {
		return false
	}
	c.mail = append(c.mail, m)
	c.wake()
	return true
}

// wake ends the waiting, if only to look for a reason. The connection is locked.
func (c *Conn) wake() {
	switch {
	case c.reads:
		c.shares[0].udp.SetReadDeadline(time.Unix(1, 0))
	case c.waits:
		c.waits = false
		c.ring()
	}
}

// Write sends a query, which begins with its identifier. That it can't be sent
// is told by Read or Wait, by a net.OpError whose Op is "write".
func (c *Conn) Write(b []byte) (int, error) {
	s := &c.shares[len(c.shares)-1]
	if len(b) < 2 {
		return 0, s.wrap("write", os.ErrInvalid)
	}
	id := uint16(b[0])<<8 | uint16(b[1])
	if !s.send(c, id, b) { // the identifier is another's
		k, err := dial(s.route)
		if err != nil {
			return 0, s.wrap("write", err)
		}
		k.joined, k.retired = 1, true // for us alone, who wait on the first one
		k.attend()
		c.shares = append(c.shares, share{socket: k})
		s = &c.shares[len(c.shares)-1]
		s.send(c, id, b)
	}
	s.ids = append(s.ids, id)
	return len(b), nil
}

// Wait waits until there is something to read.
func (c *Conn) Wait() error {
	_, err := c.next(false)
	return err
}

// Read reads a datagram, as much of it as fits into b.
func (c *Conn) Read(b []byte) (int, error) {
	m, err := c.next(true)
	if err != nil {
		return 0, err
	}
	defer buffers.Put(m.b)
	return copy(b, m.b[:m.n]), nil
}

// next waits for a datagram, and takes it out of the box if that is wanted.
func (c *Conn) next(take bool) (mail, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := len(c.mail) > 0 && c.late(time.Now())
	if len(c.mail) == 0 {
		c.mu.Unlock()
		c.await()
		c.mu.Lock()
	}
	switch {
	case c.closed:
		return mail{}, c.wrap("read", net.ErrClosed)
	case late || len(c.mail) == 0:
		return mail{}, c.wrap("read", os.ErrDeadlineExceeded)
	}
	m := c.mail[0]
	if take || m.err != nil {
		c.mail = slices.Delete(c.mail, 0, 1)
	}
	return m, m.err
}

func (c *Conn) late(now time.Time) bool { return !c.deadline.IsZero() && !now.Before(c.deadline) }

// await waits until there is mail, or the connection is closed or late. While
// others wait on the same socket, one of them reads for all.
func (c *Conn) await() {
	k := c.shares[0].socket
	defer k.rest(c)
	for {
		reads, waits := k.enlist(c)
		switch {
		case reads:
			err := k.wait()
			c.mu.Lock()
			c.reads = false
			c.mu.Unlock()
			k.deal(err)
		case waits:
			<-c.bell
		default:
			return
		}
	}
}

// Close gives the share in the socket back.
func (c *Conn) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	for _, m := range c.mail {
		if m.b != nil {
			buffers.Put(m.b)
		}
	}
	c.mail = nil
	c.mu.Unlock()
	if was {
		return c.wrap("close", net.ErrClosed)
	}
	if c.bell != nil {
		bells.Put(c.bell)
	}
	for _, s := range c.shares {
		s.leave(c, s.ids)
	}
	return nil
}

// SetDeadline ends reading at t. Writing does not wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline ends reading at t.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.wake()
	return nil
}

// SetWriteDeadline does nothing: writing does not wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr gives our own address.
func (c *Conn) LocalAddr() net.Addr { return c.shares[0].udp.LocalAddr() }

// RemoteAddr gives the server's address.
func (c *Conn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.shares[0].server) }

func (c *Conn) wrap(op string, err error) error { return c.shares[0].wrap(op, err) }
