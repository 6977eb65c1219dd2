package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
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

func dontFragment(c syscall.Conn, v6 bool) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
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

// errorQueue takes an error message from the socket's error queue (ip(7)),
// with the beginning of the request that it is about.
func errorQueue(c syscall.Conn, v6 bool) (Echo, bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return Echo{}, false
	}
	var data [64]byte
	var oob [512]byte
	var n, oobn int
	cerr := rc.Control(func(fd uintptr) {
		n, oobn, _, _, err = unix.Recvmsg(int(fd), data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	})
	if cerr != nil || err != nil || n < 8 {
		return Echo{}, false
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return Echo{}, false
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
		return Echo{Seq: binary.BigEndian.Uint16(data[6:]), Trouble: what + " from " + from.String()}, true
	}
	return Echo{}, false
}
