package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"pup/cmd/internal/wire"
)

// icmpIdle is for how long a socket stays open that nobody uses.
const icmpIdle = time.Second

// icmpRoom is the room for answers that a socket has until somebody reads it,
// in bytes; the kernel's standard is more. maxNumbers is how many requests can
// be told apart on it, and thus maxEchoUsers how many checks with the largest
// number of requests.
const (
	icmpRoom     = 200 << 10
	maxEchoUsers = 500
)

// icmpLoad is what an answer with such a payload takes of a socket's room.
func icmpLoad(size int) int { return 768 + 2*size }

// icmpSockets holds the sockets for echo requests. Many checks share one: a raw
// socket gets a copy of each answer that comes, so with one for each check every
// answer would be copied for all.
type icmpSockets struct {
	mu   sync.Mutex
	open map[icmpRoute][]*icmpSocket
}

// An icmpRoute is what checks must have in common to share a socket.
type icmpRoute struct {
	source netip.Addr
	ttl    int // 0: the system's
	df     bool
}

type icmpSocket struct {
	route icmpRoute
	c     net.PacketConn
	sys   syscall.RawConn
	raw   bool   // the kernel gives us everyone's messages, and chooses no identifier
	id    uint16 // of all our requests
	users int    // guarded by icmpSockets, as the next two
	load  int
	idle  *time.Timer

	mu     sync.Mutex
	owners map[uint16]echoOwner // by the number of the request on the socket
	next   uint16
}

// An echoOwner has sent a request, which has its own number there.
type echoOwner struct {
	c   *ICMP
	seq uint16
}

// join takes part in a socket that has room, or in a new one.
func (s *icmpSockets) join(r icmpRoute, load int) (*icmpSocket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.open[r] {
		if k.users < maxEchoUsers && k.load+load <= icmpRoom {
			k.idle.Stop()
			k.users++
			k.load += load
			return k, nil
		}
	}
	k, err := openICMPSocket(r)
	if err != nil {
		return nil, err
	}
	k.users, k.load = 1, load
	k.idle = time.AfterFunc(icmpIdle, func() { s.closeUnused(k) })
	if s.open == nil {
		s.open = map[icmpRoute][]*icmpSocket{}
	}
	s.open[r] = append(s.open[r], k)
	go s.receive(k)
	return k, nil
}

func (s *icmpSockets) leave(k *icmpSocket, load int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.load -= load
	if k.users--; k.users == 0 {
		k.idle.Reset(icmpIdle)
	}
}

func (s *icmpSockets) closeUnused(k *icmpSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.users == 0 {
		s.drop(k)
	}
}

// drop closes the socket. S is locked.
func (s *icmpSockets) drop(k *icmpSocket) {
	rest := slices.DeleteFunc(s.open[k.route], func(o *icmpSocket) bool { return o == k })
	if s.open[k.route] = rest; len(rest) == 0 {
		delete(s.open, k.route)
	}
	k.c.Close()
}

// maxICMPErrors is how many errors in a row mean that a socket is of no use any
// more. A few may be those of messages whose text has been read already.
const maxICMPErrors = 16

// receive reads until the socket is closed, or of no use any more.
func (s *icmpSockets) receive(k *icmpSocket) {
	for bad := 0; bad < maxICMPErrors; {
		switch err := k.receiveBatch(); {
		case err == nil:
			bad = 0
		case errors.Is(err, net.ErrClosed):
			return
		default:
			if bad++; bad == maxICMPErrors {
				s.mu.Lock()
				s.drop(k)
				s.mu.Unlock()
				k.fail(err)
			}
		}
	}
}

func openICMPSocket(r icmpRoute) (*icmpSocket, error) {
	k := &icmpSocket{route: r, owners: map[uint16]echoOwner{}}
	var random [2]byte
	rand.Read(random[:])
	k.id = binary.BigEndian.Uint16(random[:])
	var datagramErr, err error
	if k.c, datagramErr = datagramICMP(r.source); datagramErr != nil {
		network := "ip4:icmp"
		if r.source.Is6() {
			network = "ip6:ipv6-icmp"
		}
		k.raw = true
		if k.c, err = net.ListenPacket(network, r.source.String()); err != nil {
			return nil, icmpRight(plainDial(err))
		}
	}
	if k.sys, err = k.c.(syscall.Conn).SyscallConn(); err == nil {
		err = k.prepare()
	}
	if err != nil {
		k.c.Close()
		return nil, err
	}
	return k, nil
}

// prepare sets what the requests and answers carry beside their payload.
func (k *icmpSocket) prepare() error {
	if k.route.df {
		if err := dontFragment(k.sys, k.route.source.Is6()); err != nil {
			return Failf(wire.BadOptions, "icmp.df: %w", err)
		}
	}
	stampICMP(k.sys) // where it can't be had, we look at the clock
	// what can't be had of this stays unknown, or is done by parse at a higher price
	if k.route.source.Is4() {
		p := ipv4.NewPacketConn(k.c)
		_ = p.SetControlMessage(ipv4.FlagTTL, true)
		if k.raw {
			_ = p.SetBPF(k.assembled())
		}
		if k.route.ttl > 0 {
			return p.SetTTL(k.route.ttl)
		}
		return nil
	}
	p := ipv6.NewPacketConn(k.c)
	_ = p.SetControlMessage(ipv6.FlagHopLimit, true)
	if k.raw {
		_ = p.SetBPF(k.assembled())
	}
	if k.route.ttl > 0 {
		return p.SetHopLimit(k.route.ttl)
	}
	return nil
}

// filter passes the answers to our own identifier, and error messages. Without
// it a raw socket is woken by the answers to all the others.
func (k *icmpSocket) filter() []bpf.Instruction {
	reply, errors := uint32(echoReply6), []uint32{1, 2, 3, 4}
	length := bpf.Instruction(bpf.LoadConstant{Dst: bpf.RegX, Val: 0}) // IPv6: the message alone
	if k.route.source.Is4() {
		reply, errors = echoReply4, []uint32{3, 11, 12}
		length = bpf.LoadMemShift{Off: 0} // the length of the IP header, which comes first
	}
	program := []bpf.Instruction{
		length,
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: reply, SkipTrue: 3},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(k.id), SkipTrue: uint8(len(errors)) + 2},
		bpf.RetConstant{Val: 0},
	}
	for i, kind := range errors {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: kind, SkipTrue: uint8(len(errors) - i)})
	}
	return append(program, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 1 << 16})
}

func (k *icmpSocket) assembled() []bpf.RawInstruction {
	raw, err := bpf.Assemble(k.filter())
	if err != nil {
		panic("probe: " + err.Error())
	}
	return raw
}

// number gives the next request its number on the socket.
func (k *icmpSocket) number(c *ICMP, seq uint16) uint16 {
	k.mu.Lock()
	defer k.mu.Unlock()
	for used := true; used; {
		k.next++
		_, used = k.owners[k.next]
	}
	k.owners[k.next] = echoOwner{c, seq}
	return k.next
}

func (k *icmpSocket) forget(numbers []uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range numbers {
		delete(k.owners, n)
	}
}

// deliver hands a message that came at the given time to him whose request it
// is about, if that is known.
func (k *icmpSocket) deliver(b []byte, from netip.Addr, ttl int, at time.Time) {
	m, ok := k.parse(b)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if o := k.owners[m.number]; o.c != nil && m.isFor(o.c, from) {
		e := Echo{Seq: o.seq, Time: at, TTL: ttl}
		if m.trouble != "" {
			e.Trouble = m.trouble + " from " + from.String()
		}
		o.c.post(e)
	}
}

// trouble hands on what the kernel keeps of an error message about a request.
func (k *icmpSocket) trouble(number uint16, text string, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o := k.owners[number]; o.c != nil {
		o.c.post(Echo{Seq: o.seq, Time: at, Trouble: text})
	}
}

// fail tells everybody that the socket is of no use any more.
func (k *icmpSocket) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range k.owners {
		o.c.post(Echo{err: plainDial(err)})
	}
}

// post hands over an answer, unless too many wait already.
func (c *ICMP) post(e Echo) {
	select {
	case c.echoes <- e:
	default:
	}
}
