package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"pup/cmd/internal/wire"
)

// An ICMPConn sends ICMP messages to one address. It ends with the context.
type ICMPConn struct {
	pc   *icmp.PacketConn
	to   net.Addr
	addr netip.Addr
	raw  bool // gets the messages of other programs as well
	ctx  context.Context
	stop func() bool
}

// ListenICMP opens a socket for ICMP to the address: the one that any user may
// open where the system allows it (Linux, macOS), else a raw one. Without the
// right to either, the error says how to get it.
func (p *Probe) ListenICMP(ctx context.Context, addr netip.Addr, ttl int) (*ICMPConn, error) {
	if err := p.run.allowed(addr); err != nil {
		return nil, err
	}
	p.address = netip.AddrPortFrom(addr, 0)
	user, raw, source := "udp4", "ip4:icmp", "0.0.0.0"
	if addr.Is6() {
		user, raw, source = "udp6", "ip6:ipv6-icmp", "::"
	}
	if p.opt.source.IsValid() {
		source = p.opt.source.String()
	}
	c := &ICMPConn{addr: addr, ctx: ctx, to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))}
	var err error
	if c.pc, err = icmp.ListenPacket(user, source); err != nil {
		c.raw = true
		c.to = &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
		var rawErr error
		if c.pc, rawErr = icmp.ListenPacket(raw, source); rawErr != nil {
			return nil, icmpRights(rawErr)
		}
	}
	if err := c.setUp(ttl); err != nil {
		c.pc.Close()
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		c.pc.SetDeadline(t)
	}
	c.stop = context.AfterFunc(ctx, func() { c.pc.SetDeadline(time.Unix(1, 0)) })
	return c, nil
}

func icmpRights(err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("open an ICMP socket: %w", plainDial(err))
	}
	return Failf(wire.Local, "no right to send ICMP; let every user (sysctl net.ipv4.ping_group_range='0 2147483647') or this program (setcap cap_net_raw=ep pup-probe): %w", plainDial(err))
}

func (c *ICMPConn) setUp(ttl int) error {
	if p4 := c.pc.IPv4PacketConn(); p4 != nil {
		_ = p4.SetControlMessage(ipv4.FlagTTL, true) // without it the fact ttl is absent
		if ttl > 0 {
			return p4.SetTTL(ttl)
		}
		return nil
	}
	p6 := c.pc.IPv6PacketConn()
	_ = p6.SetControlMessage(ipv6.FlagHopLimit, true)
	if ttl > 0 {
		return p6.SetHopLimit(ttl)
	}
	return nil
}

// Raw says whether the socket gets messages that are not for us, so that
// identifiers have to be compared.
func (c *ICMPConn) Raw() bool { return c.raw }

// Close closes the socket.
func (c *ICMPConn) Close() error {
	c.stop()
	return c.pc.Close()
}

// SetReadDeadline bounds the next Read; the context's end does so as well.
func (c *ICMPConn) SetReadDeadline(t time.Time) {
	if d, ok := c.ctx.Deadline(); ok && t.After(d) {
		t = d
	}
	if c.ctx.Err() != nil {
		t = time.Unix(1, 0)
	}
	c.pc.SetReadDeadline(t)
}

// Write sends a message.
func (c *ICMPConn) Write(b []byte) error {
	_, err := c.pc.WriteTo(b, c.to)
	if err != nil {
		return fmt.Errorf("send to %s: %w", c.addr, plainDial(err))
	}
	return nil
}

// Read reads a message, with the sender's address and the hop limit that was
// left, 0 if the system does not tell.
func (c *ICMPConn) Read(b []byte) (n int, from netip.Addr, ttl int, err error) {
	var src net.Addr
	if p4 := c.pc.IPv4PacketConn(); p4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, src, err = p4.ReadFrom(b); cm != nil {
			ttl = cm.TTL
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, src, err = c.pc.IPv6PacketConn().ReadFrom(b); cm != nil {
			ttl = cm.HopLimit
		}
	}
	switch a := src.(type) {
	case *net.UDPAddr:
		from = a.AddrPort().Addr().Unmap()
	case *net.IPAddr:
		from, _ = netip.AddrFromSlice(a.IP)
		from = from.Unmap()
	}
	return n, from, ttl, err
}
