package checks

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// brokerOptions are embedded in the options of each check of a message broker.
type brokerOptions struct {
	AllowPlainAuth bool `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
}

// valid refuses, before anything is sent, credentials that would go over an
// open connection. TLS says whether the session will be encrypted by then.
func (o *brokerOptions) valid(p *probe.Probe, tls bool) error {
	if tls || o.AllowPlainAuth || brokerLoopback(p.URL.Host) {
		return nil
	}
	name := p.URL.Check.Name
	return probe.Failf(wire.BadOptions, "%s: the credentials would be sent without TLS; use a URL with TLS, or say %s.allow_plain_auth = true", name, name)
}

// brokerLoopback says whether a host, by name or address, is this machine.
func brokerLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// brokerToken makes the text of a canary, which nobody else sends.
func brokerToken() string { return strings.ToLower(rand.Text()) }

// brokerSASL words the failure of a mechanism.
func brokerSASL(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sasl.ErrRefused):
		return probe.Failf(wire.Denied, "%w", err)
	}
	return probe.Protocolf("%w", err)
}
