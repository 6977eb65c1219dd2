package probe

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pup/cmd/pup-probe/internal/mmsg"
)

// reportErrors makes the kernel keep what routers say (ip(7)). Without it that
// is lost, and no more.
func reportErrors(fd int, v6 bool) {
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
}

// stampICMP makes the kernel say when a message came, and gives answers more room than usual.
func stampICMP(rc syscall.RawConn) {
	rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 2*icmpRoom)
	})
}

func dontFragment(rc syscall.RawConn, v6 bool) (err error) {
	level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	const probe = 3 // IP_PMTUDISC_PROBE: set DF, whatever the path is thought to carry
	if cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, probe) }); cerr != nil {
		return cerr
	}
	return err
}

const icmpBatchSize = 32

// An icmpBatch is what a system call receives.
type icmpBatch struct {
	messages [icmpBatchSize]mmsg.Message
	parts    [icmpBatchSize]struct {
		vector unix.Iovec
		name   unix.RawSockaddrAny
		oob    [128]byte
		data   [256]byte // the beginning is enough: two headers and our token
	}
}

var icmpBatches = sync.Pool{New: func() any { return new(icmpBatch) }}

func (b *icmpBatch) receive(fd uintptr) (int, error) {
	for i := range b.parts {
		p, h := &b.parts[i], &b.messages[i].Header
		p.vector.Base = &p.data[0]
		p.vector.SetLen(len(p.data))
		h.Iov, h.Name, h.Control = &p.vector, (*byte)(unsafe.Pointer(&p.name)), &p.oob[0]
		h.Namelen = unix.SizeofSockaddrAny
		h.SetIovlen(1)
		h.SetControllen(len(p.oob))
	}
	return mmsg.Receive(fd, b.messages[:])
}

// from gives the address that message i comes from.
func (b *icmpBatch) from(i int) netip.Addr {
	switch name := &b.parts[i].name; name.Addr.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16((*unix.RawSockaddrInet6)(unsafe.Pointer(name)).Addr)
	}
	return netip.Addr{}
}

// beside gives what came beside message i: its time to live, and when it came.
func (b *icmpBatch) beside(i int, now time.Time) (ttl int, at time.Time) {
	at = now
	for oob := b.parts[i].oob[:b.messages[i].Header.Controllen]; len(oob) >= unix.SizeofCmsghdr; {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(data) >= 16:
			stamp := time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
			// the clock of the system may be set, ours is not
			if ago := now.Round(0).Sub(stamp); ago > 0 && ago < time.Second {
				at = now.Add(-ago)
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL && len(data) >= 4,
			h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			ttl = int(binary.NativeEndian.Uint32(data))
		}
	}
	return ttl, at
}

// receiveBatch waits for messages and delivers them.
func (k *icmpSocket) receiveBatch() error {
	b := icmpBatches.Get().(*icmpBatch)
	defer icmpBatches.Put(b)
	var n int
	var err error
	queued := false
	cerr := k.sys.Read(func(fd uintptr) bool {
		if n, err = b.receive(fd); err == nil {
			return true
		}
		queued = !k.raw && k.errorQueue(int(fd))
		return queued || err != unix.EAGAIN
	})
	switch {
	case cerr != nil:
		return cerr
	case queued: // and the error was that
		return nil
	case err != nil:
		return err
	}
	now := time.Now()
	for i := range n {
		ttl, at := b.beside(i, now)
		k.deliver(b.parts[i].data[:b.messages[i].N], b.from(i), ttl, at)
	}
	return nil
}

// errorQueue takes the error messages from the socket's error queue (ip(7)),
// each with the beginning of the request that it is about. It says whether
// there were any.
func (k *icmpSocket) errorQueue(fd int) (any bool) {
	var data [64]byte
	var oob [512]byte
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return any
		}
		any = true
		if n < 8 {
			continue
		}
		if text := errorText(oob[:oobn], k.route.source.Is6()); text != "" {
			k.trouble(binary.BigEndian.Uint16(data[6:]), text, time.Now())
		}
	}
}

// errorText words an error message from an error queue.
func errorText(oob []byte, v6 bool) string {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return ""
	}
	for _, m := range list {
		// struct sock_extended_err: errno, origin, type, code, then info and data, then the address of who says it
		if m.Header.Type != unix.IP_RECVERR && m.Header.Type != unix.IPV6_RECVERR || len(m.Data) < 16+8 {
			continue
		}
		what := troubleText(m.Data[5], m.Data[6], v6)
		if what == "" {
			continue
		}
		var from netip.Addr
		if v6 && len(m.Data) >= 16+24 {
			from, _ = netip.AddrFromSlice(m.Data[24:40])
		} else {
			from, _ = netip.AddrFromSlice(m.Data[20:24])
		}
		return what + " from " + from.String()
	}
	return ""
}
