//go:build linux || darwin

package probe

import (
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// datagramICMP opens a socket for echo requests that needs no right. On Linux
// sysctl net.ipv4.ping_group_range names the groups that may (icmp(7)).
func datagramICMP(src netip.Addr) (net.PacketConn, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var sa unix.Sockaddr
	if src.Is6() {
		family, proto, sa = unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: src.As16()}
	} else {
		sa = &unix.SockaddrInet4{Addr: src.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, proto)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close() // FilePacketConn has its own
	if err := unix.Bind(fd, sa); err != nil {
		return nil, err
	}
	reportErrors(fd, src.Is6())
	return net.FilePacketConn(f)
}
