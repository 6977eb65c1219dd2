package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"pup/cmd/internal/wire"
)

// EchoOptions say what an echo request looks like.
type EchoOptions struct {
	Size int  // bytes of payload, at least MinEcho
	TTL  int  // time to live, or hop limit; 0: the system's
	DF   bool // no router may fragment it
}

// MinEcho is the smallest payload: the token by which an answer is known as
// ours.
const MinEcho = 8

// An ICMP is a socket that sends echo requests (RFC 792, RFC 4443) to one
// address. It belongs to one goroutine.
type ICMP struct {
	dst     netip.Addr
	c       net.PacketConn
	read    func(b []byte) (n, ttl int, from net.Addr, err error)
	raw     bool // the kernel gives us everyone's messages, and chooses no identifier
	id      uint16
	payload []byte
	buf     []byte
	stop    func() bool
}

// An Echo is an answer to an echo request.
type Echo struct {
	Seq     uint16
	TTL     int    // of the answer; 0: not known
	Trouble string // what a router, or the host, says in place of an answer: "host unreachable from 192.0.2.1"
}

// DialICMP opens a socket for echo requests to the target: one for which no
// right is needed, or else a raw one. It marks the phases resolve and connect.
func (p *Probe) DialICMP(ctx context.Context, o EchoOptions) (*ICMP, error) {
	addrs, err := p.Lookup(ctx, p.URL.Host)
	if err != nil {
		return nil, err
	}
	p.Phase(wire.Connect)
	var errs []error
	for i, a := range addrs {
		// a datagram socket finds out whether there is a way, and sends nothing
		nc, err := p.dialAddr(ctx, "udp", netip.AddrPortFrom(a, 9), len(addrs)-i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		nc.Close()
		p.address = netip.AddrPortFrom(a, 0)
		return p.openICMP(ctx, a, o)
	}
	return nil, p.worst(ctx, errs)
}

func (p *Probe) openICMP(ctx context.Context, dst netip.Addr, o EchoOptions) (*ICMP, error) {
	src := p.opt.source
	if !src.IsValid() {
		if src = netip.IPv4Unspecified(); dst.Is6() {
			src = netip.IPv6Unspecified()
		}
	}
	c := &ICMP{dst: dst, payload: make([]byte, 8+max(o.Size, MinEcho)), buf: make([]byte, 8+128+max(o.Size, MinEcho))}
	var random [2 + MinEcho]byte
	rand.Read(random[:])
	c.id = binary.BigEndian.Uint16(random[:])
	copy(c.payload[8:], random[2:])
	var datagramErr, err error
	if c.c, datagramErr = datagramICMP(src); datagramErr != nil {
		network := "ip4:icmp"
		if dst.Is6() {
			network = "ip6:ipv6-icmp"
		}
		c.raw = true
		if c.c, err = net.ListenPacket(network, src.String()); err != nil {
			return nil, icmpRight(plainDial(err))
		}
	}
	if err := c.prepare(o); err != nil {
		c.c.Close()
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		c.c.SetWriteDeadline(t)
	}
	c.stop = context.AfterFunc(ctx, func() { c.c.SetDeadline(time.Unix(1, 0)) })
	return c, nil
}

// icmpRight tells the remedy when we may not open a socket.
func icmpRight(err error) error {
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("ICMP socket: %w", err)
	}
	return Failf(wire.Local, "no right to send ICMP; let every user (sysctl net.ipv4.ping_group_range='0 2147483647') or this program (setcap cap_net_raw=ep pup-probe): %w", err)
}

// prepare sets what the requests and answers carry beside their payload.
func (c *ICMP) prepare(o EchoOptions) error {
	if o.DF {
		if err := dontFragment(c.c.(syscall.Conn), c.dst.Is6()); err != nil {
			return Failf(wire.BadOptions, "icmp.df: %w", err)
		}
	}
	if c.dst.Is4() {
		p := ipv4.NewPacketConn(c.c)
		_ = p.SetControlMessage(ipv4.FlagTTL, true) // where it can't be had, it stays unknown
		c.read = func(b []byte) (int, int, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			if cm == nil {
				return n, 0, from, err
			}
			return n, cm.TTL, from, err
		}
		if c.raw {
			_ = p.SetBPF(c.filter()) // parse does the same, at a higher price
		}
		if o.TTL > 0 {
			return p.SetTTL(o.TTL)
		}
		return nil
	}
	p := ipv6.NewPacketConn(c.c)
	_ = p.SetControlMessage(ipv6.FlagHopLimit, true)
	c.read = func(b []byte) (int, int, net.Addr, error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm == nil {
			return n, 0, from, err
		}
		return n, cm.HopLimit, from, err
	}
	if c.raw {
		_ = p.SetBPF(c.filter())
	}
	if o.TTL > 0 {
		return p.SetHopLimit(o.TTL)
	}
	return nil
}

// filter passes the answers to our own identifier, and error messages. Without
// it a raw socket is woken by the answers to all the others.
func (c *ICMP) filter() []bpf.RawInstruction {
	reply, firstError, lastError := uint32(echoReply6), uint32(1), uint32(4)
	program := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: 0}} // IPv6: the message alone
	if c.dst.Is4() {
		reply, firstError, lastError = echoReply4, 3, 12
		program[0] = bpf.LoadMemShift{Off: 0} // the length of the IP header, which comes first
	}
	program = append(program,
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: reply, SkipFalse: 2},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.id), SkipTrue: 2, SkipFalse: 3},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: firstError, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: lastError, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	)
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic("probe: " + err.Error())
	}
	return raw
}

// Close closes the socket.
func (c *ICMP) Close() error {
	c.stop()
	return c.c.Close()
}

const (
	echoReply4, echoRequest4 = 0, 8
	echoReply6, echoRequest6 = 129, 128
)

// Send sends the echo request number seq.
func (c *ICMP) Send(seq uint16) error {
	b := c.payload
	b[0], b[1], b[2], b[3] = echoRequest4, 0, 0, 0
	if c.dst.Is6() {
		b[0] = echoRequest6 // the kernel makes its checksum
	}
	binary.BigEndian.PutUint16(b[4:], c.id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if c.dst.Is4() {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	var to net.Addr = &net.IPAddr{IP: c.dst.AsSlice(), Zone: c.dst.Zone()}
	if !c.raw {
		to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.dst, 0))
	}
	if _, err := c.c.WriteTo(b, to); err != nil {
		if err = plainDial(err); errors.Is(err, syscall.EMSGSIZE) {
			return Failf(wire.Unreachable, "send: %w: %d bytes don't fit without fragmentation", err, len(b))
		}
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Receive waits until the deadline for an answer to a request of ours, and
// passes over everything else.
func (c *ICMP) Receive(deadline time.Time) (Echo, error) {
	c.c.SetReadDeadline(deadline)
	for {
		n, ttl, from, err := c.read(c.buf)
		if err != nil {
			if e, ok := errorQueue(c.c.(syscall.Conn), c.dst.Is6()); ok {
				return e, nil
			}
			return Echo{}, err
		}
		if e, ok := c.parse(c.buf[:n], addrOf(from)); ok {
			e.TTL = ttl
			return e, nil
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	var ip netip.Addr
	switch a := a.(type) {
	case *net.IPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	case *net.UDPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	}
	return ip.Unmap()
}

// parse reads a message, and says whether it is an answer to a request of
// ours.
func (c *ICMP) parse(b []byte, from netip.Addr) (Echo, bool) {
	if len(b) > 20 && b[0]>>4 == 4 && c.dst.Is4() { // macOS leaves the IP header there
		b = b[min(len(b), int(b[0]&15)*4):]
	}
	if len(b) < 8 {
		return Echo{}, false
	}
	reply := byte(echoReply4)
	if c.dst.Is6() {
		reply = echoReply6
	}
	if b[0] != reply {
		return c.parseTrouble(b, from)
	}
	ours := from == c.dst.WithZone("") && bytes.HasPrefix(b[8:], c.payload[8:8+MinEcho]) &&
		(!c.raw || binary.BigEndian.Uint16(b[4:]) == c.id)
	return Echo{Seq: binary.BigEndian.Uint16(b[6:])}, ours
}

// parseTrouble reads an error message, which carries the beginning of the
// request that it is about.
func (c *ICMP) parseTrouble(b []byte, from netip.Addr) (Echo, bool) {
	what := troubleText(b[0], b[1], c.dst.Is6())
	inner := b[8:]
	var dst netip.Addr
	request := byte(echoRequest4)
	switch {
	case what == "":
		return Echo{}, false
	case c.dst.Is6() && len(inner) >= 48 && inner[6] == 58:
		dst, _ = netip.AddrFromSlice(inner[24:40])
		inner, request = inner[40:], echoRequest6
	case c.dst.Is4() && len(inner) >= 28 && inner[9] == 1:
		dst, _ = netip.AddrFromSlice(inner[16:20])
		inner = inner[min(len(inner), int(inner[0]&15)*4):]
	}
	if dst != c.dst.WithZone("") || len(inner) < 8 || inner[0] != request || c.raw && binary.BigEndian.Uint16(inner[4:]) != c.id {
		return Echo{}, false
	}
	return Echo{Seq: binary.BigEndian.Uint16(inner[6:]), Trouble: fmt.Sprintf("%s from %s", what, from)}, true
}

// troubleText names an error message of RFC 792 or RFC 4443, and is empty for
// every other message.
func troubleText(kind, code byte, v6 bool) string {
	texts := map[[2]byte]string{
		{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable", {3, 3}: "port unreachable",
		{3, 4}: "fragmentation needed", {3, 9}: "network prohibited", {3, 10}: "host prohibited", {3, 13}: "prohibited by a filter",
	}
	other := map[byte]string{3: "destination unreachable", 11: "time to live exceeded", 12: "bad parameter"}
	if v6 {
		texts = map[[2]byte]string{
			{1, 0}: "no route", {1, 1}: "prohibited by a filter", {1, 3}: "address unreachable", {1, 4}: "port unreachable",
		}
		other = map[byte]string{1: "destination unreachable", 2: "packet too big", 3: "hop limit exceeded", 4: "bad parameter"}
	}
	if text, ok := texts[[2]byte{kind, code}]; ok {
		return text
	}
	return other[kind]
}
