package checks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

type radiusOptions struct {
	Secret        string `json:"secret" secret:"true" doc:"The secret that we share with the server. For radsec it is the word radsec if absent (RFC 6614)."`
	User          string `json:"user" doc:"Ask for access as this user. Without it the server is asked for its status."`
	Password      string `json:"password" secret:"true" doc:"The user's password."`
	Method        string `json:"method" enum:"pap,chap" doc:"How the password is proved."`
	NASIdentifier string `json:"nas_identifier" doc:"Who we say we are."`
}

type radiusFacts struct {
	Code                  string            `json:"code" doc:"What the server answered: Access-Accept, Access-Reject, Access-Challenge."`
	Request               string            `json:"request" doc:"What it was asked: Access-Request or Status-Server."`
	ReplyMessage          string            `json:"reply_message" doc:"The server's text for the user."`
	MessageAuthenticator  *bool             `json:"message_authenticator" doc:"The answer is signed with Message-Authenticator, which protects from forged answers (BlastRADIUS)."`
	SessionTimeoutSeconds *int              `json:"session_timeout_seconds" doc:"How long the access may last."`
	Attributes            []radiusAttribute `json:"attributes" doc:"The attributes of the answer."`
	SecretMatches         *bool             `json:"secret_matches" doc:"Whether the server has the same secret, once an answer has shown it."`
	Ignored               int               `json:"ignored" doc:"Datagrams that were no answers to our request."`
}

type radiusAttribute struct {
	Name  string `json:"name" doc:"Its name, or Attribute- and its number."`
	Value string `json:"value" doc:"Its value, as text, address or number; in hex if we don't know its type."`
}

func init() {
	register(probe.Info{
		Name:    "radius",
		Summary: "the server knows our secret and answers, or accepts a user",
		Schemes: []probe.Scheme{{Name: "radius", Port: 1812}, {Name: "radsec", Port: 2083, TLS: true}},
		Example: "radius://radius.example.org",
		Common:  []string{"tls", "resolver", "address", "connect", "family", "source"},
		Doc: `With ` + "`user`" + ` up means Access-Accept for an Access-Request, by PAP or CHAP. Without it up means that the server answered Status-Server (RFC 5997), which not every server does. Either way the answer was signed with the secret, so that nobody else has sent it. An Access-Reject is ` + "`denied`" + ` in phase auth, and so is an Access-Challenge, since no second factor can be given. Every request has a Message-Authenticator, as the first attribute.

A server drops a request that is signed with another secret, and says nothing. To tell that from a server that is gone, from the second try on a request goes along that has no signature and whose user is the name of this program: if its answer is not signed with our secret, the reason is ` + "`denied`" + `, and ` + "`radius.secret_matches`" + ` is false. A server that answers neither is a ` + "`timeout`" + `, and may still have another secret, or not know our address.

` + "`radsec`" + ` is RADIUS over TLS (RFC 6614).

The phases: auth sending a request until its answer, verify judging it. RFC 2865, 2869, 3579, 5997.`,
	}, radiusOptions{Method: "pap", NASIdentifier: "pup-probe"}, radiusCheck)
}

func radiusCheck(ctx context.Context, p *probe.Probe, opt *radiusOptions, facts *radiusFacts) error {
	if err := radiusOptionsError(p, opt); err != nil {
		return err
	}
	q := radiusAsk(p, opt)
	facts.Request = radiusCodes[q.code]
	var answer *radiusPacket
	var err error
	if p.URL.Scheme.TLS {
		answer, err = radiusOverTLS(ctx, p, q)
	} else {
		answer, err = radiusOverUDP(ctx, p, q, facts)
	}
	if err != nil {
		if errors.Is(err, radiusUnsigned{}) {
			facts.SecretMatches = new(false)
			return probe.Failf(wire.Denied, "%w", err)
		}
		return err
	}
	facts.SecretMatches = new(true)
	facts.measure(answer)
	switch {
	case answer.code == radiusReject:
		return probe.Failf(wire.Denied, "%s%s", radiusCodes[answer.code], radiusSaying(facts))
	case answer.code == radiusChallenge:
		return probe.Failf(wire.Denied, "%s: the server wants more than a password%s", radiusCodes[answer.code], radiusSaying(facts))
	case answer.code != radiusAccept && !(opt.User == "" && answer.code == radiusAccountingResponse):
		return probe.Protocolf("got code %d, want %s", answer.code, radiusCodes[radiusAccept])
	}
	p.Phase(wire.Verify)
	return nil
}

func radiusSaying(f *radiusFacts) string {
	if f.ReplyMessage == "" {
		return ""
	}
	return fmt.Sprintf(": %.80q", f.ReplyMessage)
}

func radiusOptionsError(p *probe.Probe, opt *radiusOptions) error {
	switch {
	case opt.Secret == "" && !p.URL.Scheme.TLS:
		return probe.Failf(wire.BadOptions, "radius.secret: is required, as ${secret:NAME} or ${env:PUP_NAME}")
	case opt.User == "" && opt.Password != "":
		return probe.Failf(wire.BadOptions, "radius.password: needs user")
	case len(opt.User) > radiusMaxValue || len(opt.NASIdentifier) > radiusMaxValue || len(opt.Password) > 128:
		return probe.Failf(wire.BadOptions, "radius: user and nas_identifier may have %d bytes, password 128", radiusMaxValue)
	case opt.NASIdentifier == "":
		return probe.Failf(wire.BadOptions, "radius.nas_identifier: must not be empty")
	}
	return nil
}

// radiusOverUDP asks until there is an answer that is signed with our secret.
func radiusOverUDP(ctx context.Context, p *probe.Probe, q *radiusRequest, facts *radiusFacts) (*radiusPacket, error) {
	c, err := p.DialUDP(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	a := &datagram.Asker{Probe: p, Conn: c, AskPhase: wire.Auth, WaitPhase: wire.Auth}
	bare := q.bare()
	tries := 0
	var answer *radiusPacket
	err = a.Ask(ctx, func() []byte {
		if tries++; tries > 1 {
			c.Write(bare.wire) // what is wrong with it, the other will show
		}
		return q.wire
	}, func(b []byte) error {
		r, err := radiusParse(b)
		if err != nil {
			return datagram.Stray("%w", err)
		}
		switch {
		case r.id == bare.id && tries > 1:
			if err := bare.signed(r); err != nil {
				return err
			}
			facts.SecretMatches = new(true)
			if q.code == radiusStatusServer {
				return probe.Failf(wire.Unavailable, "the server knows our secret, but does not answer Status-Server; give a user")
			}
			return datagram.Stray("the answer to another request: the server knows our secret, but does not answer for this user")
		case r.id != q.id:
			return datagram.Stray("an answer to request %d, where ours is %d", r.id, q.id)
		}
		answer = r
		return q.signed(r)
	})
	facts.Ignored = a.Ignored
	return answer, err
}

// radiusOverTLS asks over a connection, which loses nothing.
func radiusOverTLS(ctx context.Context, p *probe.Probe, q *radiusRequest) (*radiusPacket, error) {
	c, err := p.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p.Phase(wire.Auth)
	if _, err := c.Write(q.wire); err != nil {
		return nil, err
	}
	head, err := c.Peek(radiusHeader)
	if err != nil {
		return nil, err
	}
	n := int(head[2])<<8 | int(head[3])
	if n < radiusHeader || n > radiusMaxPacket {
		return nil, probe.Protocolf("a packet of %d bytes, where RADIUS has %d to %d", n, radiusHeader, radiusMaxPacket)
	}
	b := make([]byte, n)
	if err := c.Full(b); err != nil {
		return nil, err
	}
	r, err := radiusParse(b)
	if err != nil {
		return nil, probe.Protocolf("%w", err)
	}
	if r.id != q.id {
		return nil, probe.Protocolf("got an answer to request %d, want %d", r.id, q.id)
	}
	if err := q.signed(r); err != nil && !errors.Is(err, radiusUnsigned{}) {
		return nil, probe.Protocolf("%w", err)
	} else if err != nil {
		return nil, err
	}
	return r, nil
}

// measure takes the facts of an answer.
func (f *radiusFacts) measure(r *radiusPacket) {
	f.Code = radiusCodes[r.code]
	f.MessageAuthenticator = new(r.value(radiusMessageAuthenticator) != nil)
	var text strings.Builder
	for _, a := range r.attributes {
		switch a.kind {
		case radiusReplyMessage:
			text.Write(a.value)
			continue
		case radiusSessionTimeout:
			if n, ok := a.number(); ok {
				f.SessionTimeoutSeconds = &n
			}
		case radiusMessageAuthenticator:
			continue
		}
		f.Attributes = append(f.Attributes, radiusAttribute{a.name(), a.text()})
	}
	f.ReplyMessage = text.String()
}
