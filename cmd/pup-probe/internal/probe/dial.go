package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"pup/cmd/internal/wire"
)

// Dial connects to the target over TCP, and speaks TLS on the connection if
// the URL's scheme says so. It marks the phases resolve, connect and tls.
func (p *Probe) Dial(ctx context.Context) (*Conn, error) {
	c, err := p.DialPlain(ctx)
	if err != nil || !p.URL.Scheme.TLS {
		return c, err
	}
	return p.StartTLS(ctx, c)
}

// DialPlain connects to the target over TCP, without TLS.
func (p *Probe) DialPlain(ctx context.Context) (*Conn, error) {
	return p.dialTarget(ctx, "tcp")
}

// DialUDP makes a UDP socket that is connected to the target: it gets what
// comes from there only, and the refusal of a closed port.
func (p *Probe) DialUDP(ctx context.Context) (*Conn, error) {
	return p.dialTarget(ctx, "udp")
}

// DialDNS makes a share in a UDP socket that is connected to the target, for
// DNS queries only.
func (p *Probe) DialDNS(ctx context.Context) (*Conn, error) {
	return p.dialTarget(ctx, "dns")
}

func (p *Probe) dialTarget(ctx context.Context, network string) (*Conn, error) {
	switch {
	case p.URL.Scheme.Path:
		return p.dialSocket(ctx, p.URL.Path)
	case p.opt.socket != "" && network == "tcp":
		return p.dialSocket(ctx, p.opt.socket)
	}
	host, port := p.URL.Host, p.URL.Port
	if p.opt.connectHost != "" {
		host, port = p.opt.connectHost, p.opt.connectPort
	}
	c, err := p.DialHost(ctx, network, host, port)
	if c != nil {
		c.host = p.URL.Host // the name for TLS is the URL's
	}
	return c, err
}

// dialSocket connects to a socket file.
func (p *Probe) dialSocket(ctx context.Context, path string) (*Conn, error) {
	p.Phase(wire.Connect)
	nc, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch err := plainDial(err); {
	case err == nil:
		return newConn(ctx, p, nc, p.URL.Host), nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTSOCK):
		return nil, Failf(wire.Refused, "connect %s: %w", path, err)
	case errors.Is(err, syscall.EAGAIN):
		return nil, Failf(wire.Unavailable, "connect %s: too many clients wait already", path)
	default:
		return nil, fmt.Errorf("connect %s: %w", path, err)
	}
}

// DialHost connects to another host than the target's, with the same
// resolver, family, source, proxy and limits. Network is "tcp", "udp", or "dns"
// for what DialDNS gives. It marks the phases resolve and connect, but does not speak TLS.
func (p *Probe) DialHost(ctx context.Context, network, host string, port int) (*Conn, error) {
	if p.opt.proxy != nil && network == "tcp" {
		return p.dialProxy(ctx, host, port)
	}
	addrs, err := p.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	p.Phase(wire.Connect)
	var errs []error
	for i, a := range addrs {
		ap := netip.AddrPortFrom(a, uint16(port))
		nc, err := p.dialAddr(ctx, network, ap, len(addrs)-i)
		if err == nil {
			p.out.address = ap
			return newConn(ctx, p, nc, host), nil
		}
		errs = append(errs, err)
		if i < len(addrs)-1 {
			p.noteTried(ap, err)
		}
	}
	return nil, p.worst(ctx, errs)
}

// DialBeside connects over TCP to another port of the machine at the other end
// of c, whatever the addresses of its name; for TLS it has the name of c. The
// address of the result stays that of c.
func (p *Probe) DialBeside(ctx context.Context, c *Conn, port int) (*Conn, error) {
	host := p.URL.Host
	if p.opt.connectHost != "" {
		host = p.opt.connectHost
	}
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok && p.opt.proxy == nil {
		host = t.AddrPort().Addr().String()
	}
	address := p.out.address
	d, err := p.DialHost(ctx, "tcp", host, port)
	p.out.address = address
	if d != nil {
		d.host = c.host
	}
	return d, err
}

// worst joins the errors of several addresses. What the peers did counts for
// more than a family that we have no route for.
func (p *Probe) worst(ctx context.Context, errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	for _, err := range errs {
		if r := p.reason(ctx, err); !r.Unknown() {
			return Failf(r, "%w", errors.Join(errs...))
		}
	}
	return errors.Join(errs...)
}

func (p *Probe) noteTried(ap netip.AddrPort, err error) {
	r, _ := reasonOf(err)
	p.out.tried = append(p.out.tried, attemptLine{Address: ap.String(), Reason: r, Error: err.Error()})
}

// dialAddr connects to one of left addresses, with a fair share of the time
// that remains.
func (p *Probe) dialAddr(ctx context.Context, network string, ap netip.AddrPort, left int) (net.Conn, error) {
	if err := p.run.allowed(ap.Addr()); err != nil {
		return nil, err
	}
	dc := dialContext{Context: p.ctx.watched(ctx)}
	if t, ok := ctx.Deadline(); ok {
		if dc.deadline = t; left > 1 {
			dc.deadline = time.Now().Add(time.Until(t) / time.Duration(left))
		}
	}
	var nc net.Conn
	var err error
	switch {
	case network == "dns":
		nc, err = p.run.resolver.sockets.Dial(p.opt.source, ap)
	case network == "tcp" && ap.Addr().Zone() == "" && p.opt.source.Zone() == "":
		nc, err = dialTCP(dc, p.opt.source, ap)
	default:
		nc, err = dialNet(dc, network, p.opt.source, ap)
	}
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", ap, plainDial(err))
	}
	return nc, nil
}

// dialNet connects as package net does.
func dialNet(ctx context.Context, network string, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, FallbackDelay: -1}
	switch {
	case !source.IsValid():
	case network == "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	default:
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return d.DialContext(ctx, network, to.String())
}

// A dialContext is what the dialer sees of an attempt's context: the deadline,
// which the socket keeps by itself, and the end of the run. So nobody needs a
// timer or a goroutine for it.
type dialContext struct {
	context.Context // the run's
	deadline        time.Time
}

func (c dialContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// plainDial takes the words that package net puts around a system error.
func plainDial(err error) error {
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		if errno, ok := errors.AsType[syscall.Errno](oe.Err); ok {
			return errno
		}
		return oe.Err
	}
	return err
}

// Lookup finds the addresses of host, in the order in which they are to be
// tried, and marks the phase resolve unless host is an address.
func (p *Probe) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if p.pinned != nil && host == p.pinnedHost {
		return p.pinned, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if !fits(a, p.opt.family) {
			return nil, Failf(wire.BadOptions, "%s is not an IPv%s address, as family asks for", host, p.opt.family)
		}
		return []netip.Addr{a.Unmap()}, nil
	}
	p.Phase(wire.Resolve)
	addrs, err := p.run.resolver.lookup(ctx, p, host)
	if err != nil {
		return nil, err
	}
	kept := addrs[:0]
	for _, a := range addrs {
		if a = a.Unmap(); fits(a, p.opt.family) {
			kept = append(kept, a)
		}
	}
	if len(kept) == 0 {
		return nil, Failf(wire.NoSuchHost, "%.80q has no IPv%s address", host, p.opt.family)
	}
	return kept, nil
}

func fits(a netip.Addr, family string) bool {
	switch family {
	case "4":
		return a.Unmap().Is4()
	case "6":
		return a.Is6() && !a.Is4In6()
	}
	return true
}

// allowed refuses the addresses that --deny names. It is asked about the
// address that is dialled, so that no name can lead around it.
func (r *Runner) allowed(a netip.Addr) error {
	for _, n := range r.Deny {
		if n.Contains(a.Unmap().WithZone("")) {
			return Failf(wire.BadOptions, "address %s is denied by --deny %s", a, n)
		}
	}
	return nil
}

// splitHostPort reads host:port with a number for the port.
func splitHostPort(s string) (string, int, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%.80q is not host:port", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%.80q is not host:port with a port from 1 to 65535", s)
	}
	return host, int(n), nil
}
