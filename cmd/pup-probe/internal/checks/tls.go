package checks

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

func init() {
	schemes := []probe.Scheme{{Name: "tls", Port: 443, TLS: true}}
	for _, s := range tlsStarts {
		schemes = append(schemes, probe.Scheme{Name: "tls+" + s.protocol, Port: s.port})
	}
	register(probe.Info{
		Name:    "tls",
		Summary: "speaks TLS with a certificate that passes",
		Schemes: schemes,
		Example: "tls://www.example.org",
		Common:  probe.OverTCP,
		Warn:    []string{"tls.days_left > 14"},
		Doc: `Up means that the TLS handshake was completed and that the certificate passes: its chain leads to a trusted authority, nothing in it has expired, it is for the name, and a stapled OCSP response does not revoke it. What the options of the member tls ask for must hold as well: versions, ciphers, application protocol, pins. It is degraded when a certificate of the chain expires within 14 days; name tls.days_left in expect or warn to say otherwise.

The facts are measured even where the verification fails, so that an expired certificate can be looked at. A chain that lacks an intermediate certificate is down, although a browser that has seen the certificate elsewhere may not notice.

A server that wants a client certificate, or refuses ours, is down with the reason denied. With TLS 1.3 a server says so only after the handshake, so that the check closes its side and waits for the last word of a server that has asked for one, at most half a second. Some web servers take any client at this level and answer with an HTTP error; tls.client_certificate tells that they ask.

With the schemes tls+smtp, tls+imap and so on it asks for TLS within that protocol (STARTTLS) first. It says nothing about the service behind: the checks of those protocols do.

Phases: connect; greet is what comes before the handshake in the plain protocol; tls is the handshake and the verification. RFC 8446, RFC 5280, RFC 9525 (names), RFC 6960 and 6066 (OCSP), RFC 7633 (must-staple).`,
	}, probe.DefaultTLS, tlsCheck)
}

func tlsCheck(ctx context.Context, p *probe.Probe, _ *probe.TLSOptions, _ *probe.TLSFacts) error {
	c, err := tlsDial(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	return tlsLastWord(p, c)
}

func tlsDial(ctx context.Context, p *probe.Probe) (*probe.Conn, error) {
	c, err := p.Dial(ctx)
	if err != nil || p.URL.Scheme.TLS {
		return c, err
	}
	p.Phase(wire.Greet)
	for _, s := range tlsStarts {
		if "tls+"+s.protocol == p.URL.Scheme.Name {
			err = s.start(c)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return p.StartTLS(ctx, c)
}

// tlsPatience is how long a server has to refuse us after the handshake.
const tlsPatience = 500 * time.Millisecond

// tlsLastWord closes our side and reads the server's answer: in TLS 1.3 the
// alert that refuses a client comes after the client's side of the handshake
// is over (RFC 8446, section 4.4.2.4).
func tlsLastWord(p *probe.Probe, c *probe.Conn) error {
	closer, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || !*p.TLS().ClientCertificate || c.TLSState().Version < tls.VersionTLS13 {
		return nil
	}
	if err := closer.CloseWrite(); err != nil {
		return p.HandshakeError(err)
	}
	c.SetReadDeadline(time.Now().Add(tlsPatience))
	_, err := io.CopyN(io.Discard, c, 64<<10)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || probe.IsEnd(err) {
		return nil // it has something to say to a client, or nothing
	}
	return p.HandshakeError(err)
}
