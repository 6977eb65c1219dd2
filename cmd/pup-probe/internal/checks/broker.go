package checks

import (
	"cmp"
	"crypto/rand"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// brokerOptions are embedded in the options of each check of a message broker.
type brokerOptions struct {
	AllowPlainAuth bool `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
}

// private refuses to send credentials where everybody on the way could read
// them.
func (o *brokerOptions) private(p *probe.Probe, c *probe.Conn) error {
	if o.AllowPlainAuth || c.Private() {
		return nil
	}
	name := p.URL.Check.Name
	return probe.Failf(wire.BadOptions, "%s: the credentials would be sent to %.80q without TLS; use a URL with TLS, or say %s.allow_plain_auth = true", name, c.Host(), name)
}

// brokerUser is the user to log in as: the option's or the URL's.
func brokerUser(p *probe.Probe, option string) (string, error) {
	name := p.URL.User.Username()
	if name != "" && option != "" && name != option {
		return "", probe.Failf(wire.BadOptions, "%s.user: is %.80q, and the URL names %.80q", p.URL.Check.Name, option, name)
	}
	return cmp.Or(option, name), nil
}

// brokerToken makes the text of a canary, which nobody else sends.
func brokerToken() string { return strings.ToLower(rand.Text()) }
