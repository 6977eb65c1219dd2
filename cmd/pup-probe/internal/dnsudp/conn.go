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
	reading  bool // somebody waits for the alarm
	*alarm        // rings when there is mail, or another deadline, and at the deadline

	// what the slices begin with, since few connections need more
	room struct {
		shares [1]share
		ids    [1]uint16
		mail   [1]mail
	}
}

// An alarm wakes a reader. It may ring without need; so it can be used again
// although somebody still knows it.
type alarm struct {
	bell  chan struct{}
	timer *time.Timer
}

var alarms = sync.Pool{New: func() any {
	a := &alarm{bell: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(time.Hour, a.ring)
	a.timer.Stop()
	return a
}}

func (a *alarm) ring() {
	select {
	case a.bell <- struct{}{}:
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
	c := &Conn{alarm: alarms.Get().(*alarm)}
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

// wake rings if somebody reads. The connection is locked.
func (c *Conn) wake() {
	if c.reading {
		c.reading = false
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
		k.joined, k.retired = 1, true // for us alone
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
	for {
		left := time.Until(c.deadline)
		switch {
		case c.closed:
			return mail{}, c.wrap("read", net.ErrClosed)
		case !c.deadline.IsZero() && left <= 0:
			return mail{}, c.wrap("read", os.ErrDeadlineExceeded)
		case len(c.mail) > 0:
			m := c.mail[0]
			if take || m.err != nil {
				c.mail = slices.Delete(c.mail, 0, 1)
			}
			return m, m.err
		case !c.deadline.IsZero():
			c.timer.Reset(left)
		}
		c.reading = true
		c.mu.Unlock()
		<-c.bell
		c.mu.Lock()
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
	c.timer.Stop()
	alarms.Put(c.alarm)
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
func (c *Conn) RemoteAddr() net.Addr { return c.shares[0].udp.RemoteAddr() }

func (c *Conn) wrap(op string, err error) error { return c.shares[0].wrap(op, err) }
