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
	"os"
	"syscall"
	"time"

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

// An ICMP sends echo requests (RFC 792, RFC 4443) to one address, over a socket
// that others may use, too. It belongs to one goroutine.
type ICMP struct {
	dst     netip.Addr
	to      net.Addr // the same, for the socket
	sockets *icmpSockets
	socket  *icmpSocket
	load    int // of the socket, by us
	payload []byte
	numbers []uint16 // that our requests have on the socket
	echoes  chan Echo
	end     <-chan struct{}
}

// An Echo is an answer to an echo request.
type Echo struct {
	Seq     uint16
	Time    time.Time // when it came
	TTL     int       // of the answer; 0: not known
	Trouble string    // what a router, or the host, says in place of an answer: "host unreachable from 192.0.2.1"
	err     error     // what is wrong with the socket
}

// maxEchoes is how many answers wait to be received.
const maxEchoes = 16

// DialICMP takes part in a socket for echo requests to the target: one for
// which no right is needed, or else a raw one. It marks the phases resolve and
// connect.
func (p *Probe) DialICMP(ctx context.Context, o EchoOptions) (*ICMP, error) {
	addrs, err := p.Lookup(ctx, p.URL.Host)
	if err != nil {
		return nil, err
	}
	p.Phase(wire.Connect)
	var errs []error
	for i, a := range addrs {
		if err := p.icmpWay(ctx, a, len(addrs)-i); err != nil {
			errs = append(errs, err)
			continue
		}
		p.out.address = netip.AddrPortFrom(a, 0)
		return p.openICMP(ctx, a, o)
	}
	return nil, p.worst(ctx, errs)
}

// icmpWay says why we don't send to an address: because of --deny, or because
// there is no way while there is another address left. Else sending will tell.
func (p *Probe) icmpWay(ctx context.Context, a netip.Addr, left int) error {
	if left == 1 {
		return p.run.allowed(a)
	}
	nc, err := p.dialAddr(ctx, "udp", netip.AddrPortFrom(a, 9), left) // asks the routing table and sends nothing
	if err == nil {
		nc.Close()
	}
	return err
}

func (p *Probe) openICMP(ctx context.Context, dst netip.Addr, o EchoOptions) (*ICMP, error) {
	src := p.opt.source
	if !src.IsValid() {
		if src = netip.IPv4Unspecified(); dst.Is6() {
			src = netip.IPv6Unspecified()
		}
	}
	size := max(o.Size, MinEcho)
	c := &ICMP{
		dst: dst, sockets: &p.run.icmp, load: icmpLoad(size), payload: make([]byte, 8+size),
		echoes: make(chan Echo, maxEchoes), end: p.ctx.watched(ctx).Done(),
	}
	rand.Read(c.payload[8 : 8+MinEcho])
	var err error
	if c.socket, err = c.sockets.join(icmpRoute{src, o.TTL, o.DF}, c.load); err != nil {
		return nil, err
	}
	c.to = &net.IPAddr{IP: dst.AsSlice(), Zone: dst.Zone()}
	if !c.socket.raw {
		c.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 0))
	}
	return c, nil
}

// icmpRight tells the remedy when we may not open a socket.
func icmpRight(err error) error {
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("ICMP socket: %w", err)
	}
	return Failf(wire.Local, "no right to send ICMP; let every user (sysctl net.ipv4.ping_group_range='0 2147483647') or this program (setcap cap_net_raw=ep pup-probe): %w", err)
}

// Close gives the socket back. Answers that are still to come are for nobody.
func (c *ICMP) Close() error {
	c.socket.forget(c.numbers)
	c.sockets.leave(c.socket, c.load)
	return nil
}

const (
	echoReply4, echoRequest4 = 0, 8
	echoReply6, echoRequest6 = 129, 128
)

// Send sends the echo request number seq.
func (c *ICMP) Send(seq uint16) error {
	b := c.payload
	number := c.socket.number(c, seq)
	c.numbers = append(c.numbers, number)
	b[0], b[1], b[2], b[3] = echoRequest4, 0, 0, 0
	if c.dst.Is6() {
		b[0] = echoRequest6 // the kernel makes its checksum
	}
	binary.BigEndian.PutUint16(b[4:], c.socket.id)
	binary.BigEndian.PutUint16(b[6:], number)
	if c.dst.Is4() {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_, err := c.socket.c.WriteTo(b, c.to)
	if err != nil { // it may be about a request of another, but then it does not come again
		_, err = c.socket.c.WriteTo(b, c.to)
	}
	if err == nil {
		return nil
	}
	if err = plainDial(err); errors.Is(err, syscall.EMSGSIZE) {
		return Failf(wire.Unreachable, "send: %w: %d bytes don't fit without fragmentation", err, len(b))
	}
	return fmt.Errorf("send: %w", err)
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

// Receive waits until the deadline for an answer to a request of ours.
func (c *ICMP) Receive(deadline time.Time) (Echo, error) {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case e := <-c.echoes:
		return e, e.err
	case <-t.C:
		return Echo{}, os.ErrDeadlineExceeded
	case <-c.end:
		return Echo{}, context.Canceled
	}
}

// An icmpMessage is an answer to an echo request, or an error message about one.
type icmpMessage struct {
	number  uint16 // of the request, on its socket
	payload []byte // of an answer
	dst     netip.Addr
	trouble string // of an error message, which is about a request to dst
}

// parse reads a message, and says whether it is about a request from k.
func (k *icmpSocket) parse(b []byte) (m icmpMessage, ok bool) {
	v6 := k.route.source.Is6()
	if len(b) > 20 && b[0]>>4 == 4 && !v6 { // a raw socket leaves the IP header there
		b = b[min(len(b), int(b[0]&15)*4):]
	}
	if len(b) < 8 {
		return m, false
	}
	reply, request := byte(echoReply4), byte(echoRequest4)
	if v6 {
		reply, request = echoReply6, echoRequest6
	}
	if b[0] == reply {
		m.payload = b[8:]
	} else {
		m.trouble = troubleText(b[0], b[1], v6)
		inner := b[8:] // the beginning of the request
		switch {
		case m.trouble == "":
			return m, false
		case v6 && len(inner) >= 48 && inner[6] == 58:
			m.dst, _ = netip.AddrFromSlice(inner[24:40])
			b = inner[40:]
		case !v6 && len(inner) >= 28 && inner[9] == 1:
			m.dst, _ = netip.AddrFromSlice(inner[16:20])
			b = inner[min(len(inner), int(inner[0]&15)*4):]
		}
		if len(b) < 8 || b[0] != request {
			return m, false
		}
	}
	m.number = binary.BigEndian.Uint16(b[6:])
	return m, !k.raw || binary.BigEndian.Uint16(b[4:]) == k.id // else the kernel has chosen another one
}

// isFor says whether the message is about a request of c.
func (m icmpMessage) isFor(c *ICMP, from netip.Addr) bool {
	dst := c.dst.WithZone("")
	if m.trouble != "" {
		return m.dst == dst
	}
	return from == dst && bytes.HasPrefix(m.payload, c.payload[8:8+MinEcho])
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
