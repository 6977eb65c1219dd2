package checks

import (
	"context"
	"net/url"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type amqpOptions struct {
	brokerOptions
	User         string `json:"user" doc:"The user to log in as, unless the URL names one."`
	Password     string `json:"password" secret:"true" doc:"The user's password."`
	Mechanism    string `json:"mechanism" enum:"PLAIN,CRAM-MD5,EXTERNAL,ANONYMOUS" doc:"The SASL mechanism. Without it: with a user the best that the server offers, with a client certificate (tls.cert) EXTERNAL, with neither ANONYMOUS where the server offers it."`
	Queue        string `json:"queue" doc:"Ask for the state of this queue, which must exist."`
	Canary       bool   `json:"canary" doc:"Declare an exclusive queue of our own, publish a token to it, wait until the broker confirms it, and get the token back."`
	CanaryPrefix string `json:"canary_prefix" doc:"What the name of that queue begins with; a random token follows."`
}

type amqpFacts struct {
	Product          string   `json:"product" doc:"What the server calls itself, such as RabbitMQ."`
	Version          string   `json:"version" doc:"The server's version."`
	Platform         string   `json:"platform" doc:"What the server runs on, as it says."`
	ClusterName      string   `json:"cluster_name" doc:"The name of the server's cluster."`
	Mechanisms       []string `json:"mechanisms" doc:"The SASL mechanisms that the server offers."`
	Mechanism        string   `json:"mechanism" doc:"The mechanism that we log in with."`
	ChannelMax       *int     `json:"channel_max" doc:"How many channels a connection may have; 0: the server names no limit."`
	FrameMaxBytes    *int64   `json:"frame_max_bytes" doc:"The largest frame of the server; 0: it names no limit."`
	HeartbeatSeconds *int     `json:"heartbeat_seconds" doc:"How often the server wants a sign of life; 0: never."`
	VHost            string   `json:"vhost" doc:"The virtual host that was opened."`
	Blocked          string   `json:"blocked" doc:"Why the server takes no messages, such as low on disk; absent if it does, or did not say yet."`
	Code             int      `json:"code" doc:"The code with which the server closed the connection or the channel, such as 403."`
	CanaryWriteMS    *float64 `json:"canary_write_ms" doc:"Time until the broker had confirmed the canary, in ms."`
	CanaryReadMS     *float64 `json:"canary_read_ms" doc:"Time to get it back, in ms."`
	Messages         *int64   `json:"messages" doc:"How many messages of the queue are ready for delivery; those that are delivered and not yet acknowledged don't count."`
	Consumers        *int64   `json:"consumers" doc:"How many consumers the queue has."`
}

func init() {
	register(probe.Info{
		Name:    "amqp",
		Summary: "an AMQP 0-9-1 broker opens a virtual host",
		Schemes: []probe.Scheme{{Name: "amqp", Port: 5672}, {Name: "amqps", Port: 5671, TLS: true}},
		Example: "amqp://broker.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the broker takes our credentials, opens the virtual host and a channel, and that what the options ask for works. The path of the URL is the virtual host, with %2F for a slash within it; without a path, or with / alone, it is the one called /.

` + "`queue`" + ` asks for a queue by a passive declaration, which changes nothing: a queue that does not exist is down with reason ` + "`mismatch`" + `. ` + "`canary`" + ` proves that messages get through: through a queue that only this connection can use, and that is gone when it ends. A broker that takes no messages since it is low on memory or disk (connection.blocked) is ` + "`unavailable`" + ` then; without canary it does not tell.

Without credentials the check gets as far as the server's properties and mechanisms, and is then down, denied in phase auth, unless the server offers ANONYMOUS. Codes 403 and 530 are ` + "`denied`" + `, 530 also for a virtual host that does not exist; 320, 405, 506 and 541 ` + "`unavailable`" + `; 404 and 406 ` + "`mismatch`" + `. A broker that closes the connection during the login without a word, as old ones do to a wrong password, is ` + "`closed`" + ` in phase auth.

Phases: greet has the protocol header and connection.start, auth everything from there to connection.open-ok, request and wait the channel. This follows AMQP 0-9-1 and RabbitMQ's extensions of it (authentication_failure_close, connection.blocked, publisher confirms). AMQP 1.0 is another protocol: a server that speaks nothing else is ` + "`protocol`" + `.`,
	}, amqpOptions{CanaryPrefix: "pup.canary"}, amqp)
}

func amqp(ctx context.Context, p *probe.Probe, opt *amqpOptions, facts *amqpFacts) (err error) {
	o := *opt
	vhost, err := amqpVHost(p.URL.URL)
	if err == nil {
		o.User, err = brokerUser(p, opt.User)
	}
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	if o.Password != "" {
		if err := o.private(p, c); err != nil {
			c.Close()
			return err
		}
	}
	s := &amqpSession{p: p, c: c, facts: facts}
	defer func() { err = s.close(err) }()
	p.Phase(wire.Greet)
	if err := s.start(); err != nil {
		return err
	}
	p.Phase(wire.Auth)
	if err := s.login(&o); err != nil {
		return err
	}
	if err := s.open(vhost); err != nil {
		return err
	}
	p.Phase(wire.Request)
	if err := s.openChannel(); err != nil {
		return err
	}
	if opt.Queue != "" {
		if err := s.queue(opt.Queue); err != nil {
			return err
		}
	}
	if opt.Canary {
		return s.canary(opt.CanaryPrefix + "." + brokerToken())
	}
	return nil
}

// amqpVHost reads the virtual host from the path of a URL.
func amqpVHost(u *url.URL) (string, error) {
	vhost, err := url.PathUnescape(strings.TrimPrefix(u.EscapedPath(), "/"))
	switch {
	case err != nil:
		return "", probe.Failf(wire.BadOptions, "url: the path is no virtual host: %w", err)
	case len(vhost) > 255:
		return "", probe.Failf(wire.BadOptions, "url: the virtual host has more than 255 bytes")
	case vhost == "":
		return "/", nil
	}
	return vhost, nil
}

// check refuses options that can't be meant.
func (o *amqpOptions) check() error {
	bad := func(format string, args ...any) error {
		return probe.Failf(wire.BadOptions, "amqp."+format, args...)
	}
	switch {
	case o.Password != "" && o.User == "":
		return bad("password: needs amqp.user as well")
	case o.User != "" && o.Password == "" && o.Mechanism == "":
		return bad("user: needs amqp.password as well")
	case len(o.Queue) > 255 || len(o.CanaryPrefix) > 200:
		return bad("queue, amqp.canary_prefix: a name of a queue has at most 255 bytes")
	}
	return nil
}
