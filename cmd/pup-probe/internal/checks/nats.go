package checks

import (
	"context"
	"fmt"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type natsOptions struct {
	brokerOptions
	starttlsOptions
	User         string `json:"user" doc:"The user to log in as, unless the URL names one."`
	Password     string `json:"password" secret:"true" doc:"The user's password."`
	Token        string `json:"token" secret:"true" doc:"A token to log in with, instead of a user."`
	Seed         string `json:"seed" secret:"true" doc:"The seed of a user's NKey (SU…), which signs the server's nonce and is never sent."`
	Creds        string `json:"creds" secret:"true" doc:"A user's credentials file: its JWT and the seed of its NKey."`
	Canary       bool   `json:"canary" doc:"Subscribe to a subject of our own, publish a token to it, and wait for the token."`
	CanaryPrefix string `json:"canary_prefix" doc:"What the subject of canary begins with; a random token follows."`
	Request      string `json:"request" doc:"Send a request to this subject and wait for the first reply."`
	Payload      string `json:"payload" doc:"The payload of that request."`
	Stream       string `json:"stream" doc:"Ask JetStream for the state of this stream."`
	Consumer     string `json:"consumer" doc:"Ask JetStream for the state of this consumer of the stream."`
	Domain       string `json:"domain" doc:"The JetStream domain to ask, if it is not the server's own."`
}

type natsFacts struct {
	ServerID        string        `json:"server_id" doc:"The server's id, which changes when it starts anew."`
	ServerName      string        `json:"server_name" doc:"The server's name."`
	Version         string        `json:"version" doc:"The server's version."`
	Cluster         string        `json:"cluster" doc:"The name of the cluster that the server belongs to."`
	ConnectURLs     []string      `json:"connect_urls" doc:"The other servers of the cluster that it tells clients of, at most 64."`
	MaxPayloadBytes int64         `json:"max_payload_bytes" doc:"The largest payload that the server takes."`
	AuthRequired    *bool         `json:"auth_required" doc:"Whether the server says that clients must log in."`
	TLSRequired     *bool         `json:"tls_required" doc:"Whether the server says that clients must switch to TLS."`
	TLSAvailable    *bool         `json:"tls_available" doc:"Whether the server lets clients switch to TLS."`
	JetStream       *bool         `json:"jetstream" doc:"Whether JetStream is enabled on the server."`
	LameDuck        *bool         `json:"lame_duck" doc:"Whether the server is about to shut down and sends its clients away."`
	LoggedIn        *bool         `json:"logged_in" doc:"Whether the server has taken our CONNECT and answered PING."`
	CanaryMS        *float64      `json:"canary_ms" doc:"Time from the publishing of the canary to its arrival, in ms."`
	ReplyMS         *float64      `json:"reply_ms" doc:"Time from the request to the reply, in ms."`
	Reply           *string       `json:"reply" doc:"The payload of the reply to request, its first 1024 bytes."`
	Stream          *natsStream   `json:"stream" doc:"The state of the stream."`
	Consumer        *natsConsumer `json:"consumer" doc:"The state of the consumer."`
}

func init() {
	register(probe.Info{
		Name:    "nats",
		Summary: "a NATS server takes clients and answers",
		Schemes: []probe.Scheme{{Name: "nats", Port: 4222}, {Name: "tls+nats", Port: 4222, TLS: true}},
		Example: "nats://broker.example.org",
		Common:  probe.OverTCP,
		Warn:    []string{"nats.lame_duck != true"},
		Doc: `Up means that the server sends INFO, takes our CONNECT and answers PING with PONG, and that everything the options ask for works. It does not mean that anybody else is connected, or that other servers of the cluster work.

` + "`canary`" + ` proves that messages are routed to subscribers. ` + "`request`" + ` proves that a service on the other side answers: without anybody who listens to the subject the target is ` + "`unavailable`" + `. ` + "`stream` and `consumer`" + ` prove that JetStream works and has them, and give their state; a consumer's lag is the sum of ` + "`consumer.pending`" + `, not yet delivered, and ` + "`consumer.ack_pending`" + `, delivered and not yet acknowledged. The user needs the right to publish to ` + "`$JS.API.>`" + ` and to subscribe to ` + "`_INBOX.>`" + `.

Credentials are a user with its password, a token, the seed of an NKey, or a credentials file. Without any the check goes as far as the server lets a stranger. ` + "`-ERR`" + ` about authorization or permissions is ` + "`denied`" + `, about too many connections or a shutdown ` + "`unavailable`" + `. JetStream's own errors are ` + "`unavailable`" + ` from code 500 on, and ` + "`mismatch`" + ` below, such as a stream that does not exist.

With ` + "`nats://`" + ` the server speaks first, in plain text, and TLS follows INFO. ` + "`tls+nats://`" + ` is for servers that want TLS from the first byte (handshake_first).

Phases: greet has INFO, auth everything from CONNECT to PONG, request the sending of messages, wait the answers. This follows the description of the client protocol at docs.nats.io, and ADR-1 and ADR-13 for JetStream.`,
	}, natsOptions{starttlsOptions: starttlsOptions{"auto"}, CanaryPrefix: "pup.canary"}, nats)
}

func nats(ctx context.Context, p *probe.Probe, opt *natsOptions, facts *natsFacts) error {
	o := *opt
	var err error
	if o.User, err = brokerUser(p, opt.User); err != nil {
		return err
	}
	login, err := o.login()
	if err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s := &natsSession{p: p, c: c, facts: facts}
	defer func() { s.c.Close() }() // not of c: TLS may have taken its place
	p.Phase(wire.Greet)
	info, err := s.hello()
	if err != nil {
		return err
	}
	if err := s.secure(ctx, opt, info, login); err != nil {
		return err
	}
	p.Phase(wire.Auth)
	if err := s.connect(login, info); err != nil {
		return err
	}
	facts.LoggedIn = new(true)
	for _, step := range []func(*natsOptions) error{s.canary, s.service, s.stream, s.consumer} {
		if err := step(opt); err != nil {
			return err
		}
	}
	return nil
}

// login checks the options and makes of them what goes into CONNECT.
func (o *natsOptions) login() (*natsLogin, error) {
	var kinds []string
	for name, value := range map[string]string{"user": o.User, "token": o.Token, "seed": o.Seed, "creds": o.Creds} {
		if value != "" {
			kinds = append(kinds, name)
		}
	}
	bad := func(format string, args ...any) (*natsLogin, error) {
		return nil, probe.Failf(wire.BadOptions, "nats.%w", fmt.Errorf(format, args...))
	}
	switch {
	case len(kinds) > 1:
		return bad("user, nats.token, nats.seed, nats.creds: only one of them can be used")
	case o.Password != "" && o.User == "":
		return bad("password: needs nats.user as well")
	case o.Consumer != "" && o.Stream == "":
		return bad("consumer: needs nats.stream as well")
	}
	for name, subject := range map[string]string{"canary_prefix": o.CanaryPrefix, "request": o.Request, "stream": o.Stream, "consumer": o.Consumer, "domain": o.Domain} {
		if strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' }) {
			return bad("%s: %.80q has a space, a control character or a wildcard", name, subject)
		}
	}
	for name, token := range map[string]string{"stream": o.Stream, "consumer": o.Consumer, "domain": o.Domain} {
		if strings.Contains(token, ".") {
			return bad("%s: %.80q has a dot, as no name of a %s has", name, token, name)
		}
	}
	login := &natsLogin{User: o.User, Password: o.Password, Token: o.Token}
	seed := o.Seed
	if o.Creds != "" {
		var ok bool
		if login.JWT, seed, ok = natsCreds(o.Creds); !ok {
			return bad("creds: is no credentials file with a user's JWT and the seed of its NKey")
		}
	}
	if seed != "" {
		var ok bool
		if login.key, ok = natsSeed(seed); !ok {
			return bad("seed: is not the seed of a user's NKey, which begins with SU")
		}
	}
	return login, nil
}

// secure switches to TLS where the server and the options want it.
func (s *natsSession) secure(ctx context.Context, opt *natsOptions, info *natsInfo, login *natsLogin) error {
	if s.c.TLSState() == nil && opt.StartTLS == "off" && info.TLSRequired {
		return probe.Failf(wire.BadTLS, "the server wants TLS, and nats.starttls is off")
	}
	var exposed error
	if login.exposes() {
		exposed = opt.private(s.p, s.c)
	}
	if opt.StartTLS == "off" && exposed != nil {
		return exposed
	}
	wanted, err := opt.wanted(s.p, s.c, info.TLSRequired || info.TLSAvailable, exposed != nil)
	if err != nil || !wanted {
		return err
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err == nil {
		s.c = c
	}
	return err
}
