package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"pup/cmd/internal/wire"
)

// A resolver finds the addresses of host names.
type resolver struct{}

func checkResolver(s string) error {
	if s != "" {
		return errors.New("can't be used yet")
	}
	return nil
}

func (r *resolver) lookup(ctx context.Context, p *Probe, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if de, ok := errors.AsType[*net.DNSError](err); ok && de.IsNotFound {
		return nil, Failf(wire.NoSuchHost, "%w", err)
	}
	return addrs, err
}
