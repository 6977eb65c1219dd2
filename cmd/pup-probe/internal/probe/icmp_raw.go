//go:build !linux && !darwin

package probe

import (
	"errors"
	"net"
	"net/netip"
)

func datagramICMP(netip.Addr) (net.PacketConn, error) { return nil, errors.ErrUnsupported }
