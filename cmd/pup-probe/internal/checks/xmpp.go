package checks

import (
	"context"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type xmppOptions struct {
	starttlsOptions
	loginOptions
	Domain string `json:"domain" doc:"The domain to ask for, instead of the URL's host."`
	Server bool   `json:"server" doc:"Speak as another server does (port 5269), instead of a client."`
}

type xmppFacts struct {
	From       string   `json:"from" doc:"The domain that the server answers for."`
	StartTLS   *bool    `json:"starttls" doc:"Whether it offers STARTTLS; absent where TLS is spoken from the start."`
	Required   *bool    `json:"starttls_required" doc:"Whether it insists on that."`
	Mechanisms []string `json:"auth_mechanisms" doc:"The SASL mechanisms that it offers, under TLS where TLS is spoken."`
	Features   []string `json:"features" doc:"The names of the features that it offers last, such as mechanisms, bind, sm."`
	Mechanism  string   `json:"mechanism" doc:"The mechanism that we have logged in with."`
	LoggedIn   *bool    `json:"logged_in" doc:"Whether it has taken our credentials."`
}

func init() {
	register(probe.Info{
		Name:    "xmpp",
		Summary: "opens a stream, and takes a login",
		Schemes: []probe.Scheme{{Name: "xmpp", Port: 5222}, {Name: "xmpps", Port: 5223, TLS: true}},
		Example: "xmpp://xmpp.example.org",
		Common:  probe.OverTCP,
		Doc: `Opens a stream to the domain, reads its features, switches to TLS where that is offered, opens the stream anew, and logs in if a user is given. Without one, up means that the server serves the domain and, for clients, offers a mechanism to log in with; with one, that it took the credentials and lets us bind a resource. Nothing is bound, so that nobody sees us come and go.

A domain that the server does not know is down with the reason mismatch; a server that shuts down, or has no room, with unavailable. User is the part before the @.

Phases: greet is the streams and STARTTLS, auth the login. It follows RFC 6120.`,
	}, xmppOptions{starttlsOptions: starttlsOptions{StartTLS: "auto"}}, xmpp)
}

func xmpp(ctx context.Context, p *probe.Probe, opt *xmppOptions, facts *xmppFacts) error {
	if err := opt.valid(p, opt.StartTLS); err != nil {
		return err
	}
	if opt.Server && opt.given() {
		return probe.Failf(wire.BadOptions, "xmpp.user: servers don't log in with a user")
	}
	s := &xmppStream{p: p, opt: opt, facts: facts, domain: opt.Domain}
	if s.domain == "" {
		s.domain = p.URL.Host
	}
	var err error
	if s.c, err = p.Dial(ctx); err != nil {
		return err
	}
	defer func() { s.close() }()
	p.Phase(wire.Greet)
	features, err := s.open()
	if err != nil {
		return err
	}
	if features, err = s.startTLS(ctx, features); err != nil {
		return err
	}
	switch {
	case opt.given():
		p.Phase(wire.Auth)
		return s.login()
	case len(facts.Mechanisms) > 0 || opt.Server:
		return nil
	case features.child(xmppTLS, "starttls") != nil:
		return nil // mechanisms come after TLS, which starttls = "off" forbids
	}
	return probe.Protocolf("the server offers no mechanism to log in with")
}
