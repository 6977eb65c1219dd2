package checks

import (
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// starttlsOptions are embedded in the options of each check whose protocol can
// switch to TLS within a session.
type starttlsOptions struct {
	StartTLS string `json:"starttls" enum:"auto,required,off" doc:"Switch to TLS within the session: where the server offers it (auto), always (required), or never (off). Without meaning for a URL that has TLS from the start."`
}

// wanted says whether to switch to TLS on c. Must says that what follows may
// only be said over a safe connection.
func (o *starttlsOptions) wanted(p *probe.Probe, c *probe.Conn, offered, must bool) (bool, error) {
	switch {
	case c.TLSState() != nil:
		return false, nil
	case o.StartTLS == "off" && must:
		return false, probe.Failf(wire.BadOptions, "%s.starttls: with off the credentials would be sent without TLS; allow it, or say %[1]s.allow_plain_auth = true", p.URL.Check.Name)
	case o.StartTLS == "off":
		return false, nil
	case offered:
		return true, nil
	case o.StartTLS == "required":
		return false, probe.Failf(wire.BadTLS, "the server does not offer to switch to TLS")
	case must:
		return false, probe.Failf(wire.BadTLS, "the server does not offer to switch to TLS, without which no credentials are sent unless %s.allow_plain_auth is true", p.URL.Check.Name)
	}
	return false, nil
}
