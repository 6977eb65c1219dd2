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
	wake     chan struct{} // there is mail, or another deadline
	timer    *time.Timer   // pokes at the deadline
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
	return &Conn{shares: []share{{socket: k}}, wake: make(chan struct{}, 1)}
}

// post puts mail into the box, unless it is full or the connection is closed.
func (c *Conn) post(m mail) bool {
	c.mu.Lock()
	taken := !c.closed && len(c.mail) < maxMail
	if taken {
		c.mail = append(c.mail, m)
	}
	c.mu.Unlock()
	c.poke()
	return taken
}

func (c *Conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
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
	if !s.claim(c, id) { // of another connection
		k, err := dial(s.route)
		if err != nil {
			return 0, s.wrap("write", err)
		}
		k.joined, k.retired = 1, true // for us alone
		c.shares = append(c.shares, share{socket: k})
		s = &c.shares[len(c.shares)-1]
		s.claim(c, id)
	}
	s.ids = append(s.ids, id)
	s.send(c, b)
	return len(b), nil
}

// Wait waits until there is something to read.
func (c *Conn) Wait() error {
	for {
		if ready, err := c.ready(); ready {
			return err
		}
		<-c.wake
	}
}

// ready says whether there is a datagram to read, or why there will be none.
// Else it sees to it that the deadline wakes the reader.
func (c *Conn) ready() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := time.Until(c.deadline)
	switch {
	case c.closed:
		return true, c.wrap("read", net.ErrClosed)
	case !c.deadline.IsZero() && left <= 0:
		return true, c.wrap("read", os.ErrDeadlineExceeded)
	case len(c.mail) > 0:
		err := c.mail[0].err
		if err != nil {
			c.mail = slices.Delete(c.mail, 0, 1)
		}
		return true, err
	case c.deadline.IsZero():
	case c.timer == nil:
		c.timer = time.AfterFunc(left, c.poke)
	default:
		c.timer.Reset(left)
	}
	return false, nil
}

// Read reads a datagram, as much of it as fits into b.
func (c *Conn) Read(b []byte) (int, error) {
	if err := c.Wait(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	m := c.mail[0]
	c.mail = slices.Delete(c.mail, 0, 1)
	c.mu.Unlock()
	defer buffers.Put(m.b)
	return copy(b, m.b[:m.n]), nil
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
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.poke()
	if was {
		return c.wrap("close", net.ErrClosed)
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
	c.deadline = t
	c.mu.Unlock()
	c.poke()
	return nil
}

// SetWriteDeadline does nothing: writing does not wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr gives our own address.
func (c *Conn) LocalAddr() net.Addr { return c.shares[0].udp.LocalAddr() }

// RemoteAddr gives the server's address.
func (c *Conn) RemoteAddr() net.Addr { return c.shares[0].udp.RemoteAddr() }

func (c *Conn) wrap(op string, err error) error { return c.shares[0].wrap(op, err) }
