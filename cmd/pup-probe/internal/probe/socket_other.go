//go:build !linux

package probe

import (
	"net"
	"net/netip"
)

// dialTCP connects to an address, from source if that is valid.
func dialTCP(ctx dialContext, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	return dialNet(ctx, "tcp", source, to)
}
