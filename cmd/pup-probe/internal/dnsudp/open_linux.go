package dnsudp

import (
	"net"
	"net/netip"
	"os"
	"syscall"
)

// open connects a socket. It does what net.Dialer does, with half the system
// calls and without a deep stack, which thousands of checks would keep while they
// wait for servers that are silent.
func open(r route) (endpoint, error) {
	server, source := r.server.Addr().Unmap(), r.source.Unmap()
	if server.Zone() != "" || source.Zone() != "" || source.IsValid() && source.Is4() != server.Is4() {
		return openNet(r)
	}
	to, family := sockaddr(server, r.server.Port())
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, r.wrap("dial", err)
	}
	if source.IsValid() {
		own, _ := sockaddr(source, 0)
		err = syscall.Bind(fd, own)
	}
	if err == nil {
		err = syscall.Connect(fd, to)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, r.wrap("dial", err)
	}
	return file{os.NewFile(uintptr(fd), "")}, nil
}

func sockaddr(a netip.Addr, port uint16) (syscall.Sockaddr, int) {
	if a.Is4() {
		return &syscall.SockaddrInet4{Addr: a.As4(), Port: int(port)}, syscall.AF_INET
	}
	return &syscall.SockaddrInet6{Addr: a.As16(), Port: int(port)}, syscall.AF_INET6
}

// A file is a socket that package net does not know.
type file struct{ *os.File }

// LocalAddr gives our own address, and an empty one once the socket is closed.
func (f file) LocalAddr() net.Addr {
	var own net.UDPAddr
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			switch sa, _ := syscall.Getsockname(int(fd)); sa := sa.(type) {
			case *syscall.SockaddrInet4:
				own = net.UDPAddr{IP: sa.Addr[:], Port: sa.Port}
			case *syscall.SockaddrInet6:
				own = net.UDPAddr{IP: sa.Addr[:], Port: sa.Port}
			}
		})
	}
	return &own
}
