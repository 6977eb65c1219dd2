package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
)

// dialProxy connects through the target's proxy, which resolves the host.
func (p *Probe) dialProxy(ctx context.Context, host string, port int) (*Conn, error) {
	addrs, err := p.Lookup(ctx, p.opt.proxy.Hostname())
	if err != nil {
		if p.reason(ctx, err).Unknown() {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		return nil, Failf(wire.Local, "proxy: %w", err)
	}
	p.Phase(wire.Connect)
	n, _ := strconv.Atoi(p.opt.proxy.Port())
	var nc net.Conn
	for i, a := range addrs {
		ap := netip.AddrPortFrom(a, uint16(n))
		if nc, err = p.dialAddr(ctx, "tcp", ap, len(addrs)-i); err == nil {
			p.out.address = ap
			break
		}
	}
	if err != nil {
		// the proxy belongs to our side of the way
		return nil, Failf(wire.Local, "proxy: %w", err)
	}
	c := newConn(ctx, p, nc, host)
	c.proxied = true
	if p.opt.proxy.Scheme == "socks5" {
		err = socksConnect(c, host, port)
	} else {
		err = httpConnect(c, host, port)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// noTunnel words that the proxy has taken our request and has not answered it.
// One that goes on for too long most likely waits for the target.
func noTunnel(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Failf(wire.Timeout, "proxy: no connection to the target in time: %w", err)
	}
	return Failf(wire.Local, "proxy: %w", err)
}

// socksReplies are the reply codes of RFC 1928, section 6.
var socksReplies = map[byte]wire.Reason{3: wire.Unreachable, 4: wire.Unreachable, 5: wire.Refused, 6: wire.Timeout}

// socksConnect asks a SOCKS version 5 server (RFC 1928) for a connection,
// without authentication.
func socksConnect(c *Conn, host string, port int) error {
	if len(host) > 255 {
		return Failf(wire.BadOptions, "host name longer than 255 bytes")
	}
	var reply [5]byte
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return Failf(wire.Local, "proxy: %w", err)
	}
	if err := c.Full(reply[:2]); err != nil {
		return Failf(wire.Local, "proxy: %w", err)
	}
	if reply[0] != 5 || reply[1] != 0 {
		return Failf(wire.Local, "proxy: wants authentication, or is no SOCKS5 server (% x)", reply[:2])
	}
	req := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(req, uint16(port))); err != nil {
		return Failf(wire.Local, "proxy: %w", err)
	}
	if err := c.Full(reply[:]); err != nil {
		return noTunnel(err)
	}
	if reply[0] != 5 {
		return Failf(wire.Local, "proxy: is no SOCKS5 server (% x)", reply)
	}
	if reply[1] != 0 {
		r, ok := socksReplies[reply[1]]
		if !ok {
			r = wire.Local
		}
		return Failf(r, "proxy: SOCKS reply %d for %s", reply[1], net.JoinHostPort(host, strconv.Itoa(port)))
	}
	rest := map[byte]int{1: 4, 3: 1 + int(reply[4]), 4: 16}[reply[3]]
	if rest == 0 {
		return Failf(wire.Local, "proxy: SOCKS address type %d", reply[3])
	}
	// the rest of the address, of which one byte is read, and the port
	if err := c.Full(make([]byte, rest+2-1)); err != nil {
		return Failf(wire.Local, "proxy: %w", err)
	}
	return nil
}

// httpConnect asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
func httpConnect(c *Conn, host string, port int) error {
	hp := net.JoinHostPort(host, strconv.Itoa(port))
	if err := c.Printf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", hp); err != nil {
		return Failf(wire.Local, "proxy: %w", err)
	}
	status, err := c.Line()
	if err != nil {
		return noTunnel(err)
	}
	for n := 0; ; n++ {
		line, err := c.Line()
		if err != nil {
			return Failf(wire.Local, "proxy: %w", err)
		}
		if line == "" {
			break
		}
		if n == 100 {
			return Failf(wire.Local, "proxy: more than 100 header lines")
		}
	}
	f := strings.Fields(status)
	switch {
	case len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/1."):
		return Failf(wire.Local, "proxy: got %.80q, want an HTTP status", status)
	case f[1] == "502" || f[1] == "503":
		return Failf(wire.Unreachable, "proxy: %.80q for %s", status, hp)
	case f[1] == "504":
		return Failf(wire.Timeout, "proxy: %.80q for %s", status, hp)
	case f[1][0] != '2':
		return Failf(wire.Local, "proxy: %.80q for %s", status, hp)
	}
	return nil
}
