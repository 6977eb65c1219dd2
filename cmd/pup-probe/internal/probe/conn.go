package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"pup/cmd/internal/wire"
)

// bufSize is the size of a read buffer, and so the longest line a server may
// send.
const bufSize = 4 << 10

var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

// A Conn is a connection that a check talks over. Its reads and writes end
// with the check's context whatever a library does to its deadlines, and its
// first I/O error is kept, for the reason of a library's opaque error. A read
// buffer is taken from a pool when there is something to read and given back
// when it is empty, so that a connection that waits holds none.
type Conn struct {
	net.Conn // what Read and Write use: TCP, or TLS over it
	host     string
	proxied  bool // the peer that the kernel knows is a proxy
	ctx      context.Context
	p        *Probe
	raw      syscall.RawConn // of a plain connection, to wait without a buffer
	buf      *[bufSize]byte
	pos, end int

	readable func(fd uintptr) bool // for raw
	rerr     error                 // what readable met

	stop       func() bool // watching ctx, if it is a check's own
	run        *runConns   // where the connection is one of
	prev, next *Conn       // there
}

func newConn(ctx context.Context, p *Probe, nc net.Conn, host string) *Conn {
	c := &Conn{Conn: nc, host: host, ctx: ctx, p: p}
	if t, ok := ctx.Deadline(); ok {
		nc.SetDeadline(t)
	}
	if sc, ok := nc.(syscall.Conn); ok && runtime.GOOS != "windows" {
		c.raw, _ = sc.SyscallConn()
	}
	if run := p.ctx.watched(ctx); run != ctx {
		c.run = p.run.open.of(run)
		c.run.add(c)
	} else {
		c.stop = context.AfterFunc(ctx, c.interrupt)
	}
	return c
}

// interrupt ends what waits on the connection.
func (c *Conn) interrupt() { c.Conn.SetDeadline(time.Unix(1, 0)) }

// Close closes the connection.
func (c *Conn) Close() error {
	switch {
	case c.stop != nil:
		c.stop()
	case c.run != nil:
		c.run.remove(c)
	}
	c.release()
	return c.Conn.Close()
}

func (c *Conn) release() {
	if c.buf != nil {
		buffers.Put(c.buf)
		c.buf, c.pos, c.end = nil, 0, 0
	}
}

// Host is the name, or the address, that was dialled.
func (c *Conn) Host() string { return c.host }

// Buffered gives the number of bytes that have been read but not taken.
func (c *Conn) Buffered() int { return c.end - c.pos }

func (c *Conn) clamp(t time.Time) time.Time {
	if c.p.ctx.watched(c.ctx).Err() != nil {
		return time.Unix(1, 0)
	}
	if d, ok := c.ctx.Deadline(); ok && (t.IsZero() || t.After(d)) {
		return d
	}
	return t
}

// SetDeadline sets a deadline, but none later than the context's.
func (c *Conn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.clamp(t)) }

// SetReadDeadline sets a deadline, but none later than the context's.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.clamp(t)) }

// SetWriteDeadline sets a deadline, but none later than the context's.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.clamp(t)) }

func (c *Conn) note(err error) error {
	if err != nil && c.p.ioErr == nil {
		c.p.ioErr = err
	}
	return err
}

// Write writes b.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.note(err)
}

// Printf writes formatted text.
func (c *Conn) Printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c, format, args...)
	return err
}

// Read reads what is buffered, or else from the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.pos < c.end {
		n := copy(b, c.buf[c.pos:c.end])
		c.consume(n)
		return n, nil
	}
	n, err := c.Conn.Read(b)
	return n, c.note(err)
}

func (c *Conn) consume(n int) {
	if c.pos += n; c.pos == c.end {
		c.release()
	}
}

// Wait waits until there is something to read. It returns io.EOF when the
// peer has closed instead.
func (c *Conn) Wait() error {
	if c.pos < c.end {
		return nil
	}
	return c.fill()
}

// fill reads once into the buffer, behind what is there.
func (c *Conn) fill() error {
	if c.buf == nil && c.raw != nil {
		return c.fillWhenReadable()
	}
	if w, ok := c.Conn.(interface{ Wait() error }); ok && c.buf == nil {
		if err := w.Wait(); err != nil {
			return c.note(err)
		}
	}
	if c.buf == nil {
		c.buf = buffers.Get().(*[bufSize]byte)
	}
	if c.pos > 0 {
		c.end = copy(c.buf[:], c.buf[c.pos:c.end])
		c.pos = 0
	}
	if c.end == bufSize {
		return Failf(wire.BadProtocol, "the server sent a line longer than %d bytes", bufSize)
	}
	n, err := c.Conn.Read(c.buf[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	c.consume(0)
	return c.note(err)
}

// fillWhenReadable takes a buffer only once the kernel has something for it.
func (c *Conn) fillWhenReadable() error {
	if c.readable == nil {
		c.readable = c.readOnce
	}
	err := c.raw.Read(c.readable)
	switch {
	case err != nil:
		return c.note(&net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: unwrapOp(err)})
	case c.rerr != nil:
		return c.note(&net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: c.rerr})
	case c.buf == nil:
		return c.note(io.EOF)
	}
	return nil
}

// readOnce reads into a new buffer, unless there is nothing to be read yet.
func (c *Conn) readOnce(fd uintptr) (done bool) {
	buf := buffers.Get().(*[bufSize]byte)
	n, err := readFD(fd, buf[:])
	if c.rerr = err; n <= 0 {
		buffers.Put(buf)
		return err != syscall.EAGAIN
	}
	c.buf, c.pos, c.end = buf, 0, n
	return true
}

func unwrapOp(err error) error {
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		return oe.Err
	}
	return err
}

// ReadByte reads a byte.
func (c *Conn) ReadByte() (byte, error) {
	if err := c.Wait(); err != nil {
		return 0, err
	}
	b := c.buf[c.pos]
	c.consume(1)
	return b, nil
}

// Peek gives the next n bytes, at most 4096, without taking them. They are
// valid until the next read. With fewer before the end it gives
// io.ErrUnexpectedEOF, with none io.EOF.
func (c *Conn) Peek(n int) ([]byte, error) {
	for c.end-c.pos < n {
		if err := c.fill(); err != nil {
			if err == io.EOF && c.end > c.pos {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return c.buf[c.pos : c.pos+n], nil
}

// Line reads a line of at most 4096 bytes and returns it without its line
// ending, LF or CRLF.
func (c *Conn) Line() (string, error) {
	for {
		if i := bytes.IndexByte(c.window(), '\n'); i >= 0 {
			line := string(bytes.TrimSuffix(c.buf[c.pos:c.pos+i], []byte("\r")))
			c.consume(i + 1)
			return line, nil
		}
		if err := c.fill(); err != nil {
			if err == io.EOF && c.end > c.pos {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

// AppendLine appends a line to dst, without its line ending, and returns the
// result. Dst grows to max bytes at most.
func (c *Conn) AppendLine(dst []byte, max int) ([]byte, error) {
	start := len(dst)
	for {
		w := c.window()
		i := bytes.IndexByte(w, '\n')
		if i < 0 {
			i = len(w)
		}
		if len(dst)+i > max {
			return dst, Failf(wire.BadProtocol, "the server sent more than %d bytes", max)
		}
		dst = append(dst, w[:i]...)
		if i < len(w) {
			c.consume(i + 1)
			if n := len(dst); n > start && dst[n-1] == '\r' {
				dst = dst[:n-1]
			}
			return dst, nil
		}
		if i > 0 {
			c.consume(i)
		}
		if err := c.fill(); err != nil {
			if err == io.EOF && len(dst) > start {
				err = io.ErrUnexpectedEOF
			}
			return dst, err
		}
	}
}

func (c *Conn) window() []byte {
	if c.buf == nil {
		return nil
	}
	return c.buf[c.pos:c.end]
}

// Full reads exactly len(b) bytes. If the peer closes in between, the error is
// io.ErrUnexpectedEOF, and io.EOF if it closes before the first one.
func (c *Conn) Full(b []byte) error {
	_, err := io.ReadFull(c, b)
	return err
}

// Drain reads and drops what the peer still sends, at most max bytes, until it
// closes.
func (c *Conn) Drain(max int64) error {
	n, err := io.CopyN(io.Discard, c, max)
	if err == nil && n == max {
		return Failf(wire.TooLarge, "more than %d bytes", max)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// Loopback says, before there is a connection, whether one to host will not
// leave this machine: by its name or address, by that of the option connect,
// or through a socket file. One through a proxy does leave. See [Conn.Private].
func (p *Probe) Loopback(host string) bool {
	switch o := p.opt; {
	case o.proxy != nil:
		return false
	case host != p.URL.Host:
	case o.socket != "":
		return true
	case o.connectHost != "":
		host = o.connectHost
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// Private says whether credentials may be written to the connection: it
// speaks TLS, or does not leave this machine. One through a proxy does.
func (c *Conn) Private() bool {
	if c.TLSState() != nil {
		return true
	}
	if c.proxied {
		return false
	}
	switch a := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UDPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
