//go:build !linux

package probe

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

func reportErrors(int, bool) {}

func stampICMP(syscall.RawConn) {}

func dontFragment(syscall.RawConn, bool) error {
	return errors.New("can't be had on " + runtime.GOOS)
}

// receiveBatch waits for a message and delivers it.
func (k *icmpSocket) receiveBatch() error {
	b := make([]byte, 1<<16)
	n, ttl, from, err := k.read(b)
	if err != nil {
		return err
	}
	k.deliver(b[:n], addrOf(from), ttl, time.Now())
	return nil
}

func (k *icmpSocket) read(b []byte) (n, ttl int, from net.Addr, err error) {
	if k.route.source.Is4() {
		n, cm, from, err := ipv4.NewPacketConn(k.c).ReadFrom(b)
		if cm != nil {
			ttl = cm.TTL
		}
		return n, ttl, from, err
	}
	n, cm, from, err := ipv6.NewPacketConn(k.c).ReadFrom(b)
	if cm != nil {
		ttl = cm.HopLimit
	}
	return n, ttl, from, err
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
