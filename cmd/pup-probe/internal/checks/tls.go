package checks

import (
	"context"
	"strings"

	"pup/cmd/pup-probe/internal/probe"
)

func init() {
	register(probe.Info{
		Name:    "tls",
		Summary: "speaks TLS with a certificate that holds",
		Schemes: append([]probe.Scheme{{Name: "tls", Port: 443}}, tlsInsideSchemes()...),
		Example: "tls://www.example.org",
		Common:  probe.OverTCP,
		Warn:    []string{"tls.days_left > 14"},
		Doc: `Does a TLS handshake and looks at everything that it shows; the options and facts are those of the member tls, described above. Up means that the handshake succeeds and that the certificate holds: a trusted authority vouches for it, none of its chain has expired, it is for the name that was asked for, and neither a pin nor a stapled OCSP response speaks against it. It says nothing about the service behind.

The certificates are measured even where the verification fails, so that a target with tls.verify = false can judge them by itself. Fourteen days before a certificate of the chain expires the target is degraded; a target that mentions tls.days_left has its own limit. Checks of other protocols don't warn by themselves: write warn = ["tls.days_left > 14"].

The schemes tls+smtp, tls+imap and so on speak so much of the protocol as is needed to switch to TLS (STARTTLS), without logging in: tls+smtp://mx.example.org. For more, use the check of the protocol.

A server that wants a client certificate is down with the reason denied, with TLS 1.3 too, where it says so only after the handshake. Some web servers take any client at this level and answer it with an HTTP error; tls.client_certificate tells that they ask.

Phases: connect; greet is the way to STARTTLS, tls the handshake and the verification. It follows RFC 8446, RFC 5280, RFC 9525 (names), RFC 6066 and 6960 (OCSP), RFC 7633 (must-staple); STARTTLS as RFC 3207, 9051, 2595, 4217, 4511, 6120, 5804 and 4642 have it.`,
	}, probe.DefaultTLS, tlsCheck)
}

func tlsCheck(ctx context.Context, p *probe.Probe, _ *probe.TLSOptions, _ *struct{}) error {
	c, err := p.DialPlain(ctx)
	if err != nil {
		return err
	}
	if _, inside, ok := strings.Cut(p.URL.Scheme.Name, "+"); ok {
		if err := tlsInside[inside].talk(p, c); err != nil {
			c.Close()
			return err
		}
	}
	if c, err = p.StartTLS(ctx, c); err != nil {
		return err
	}
	defer c.Close()
	return p.Accepted(c)
}
