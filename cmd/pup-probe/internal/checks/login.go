package checks

import (
	"encoding/base64"
	"errors"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// loginOptions are embedded in the options of each check that logs in by SASL,
// or by a user and a password.
type loginOptions struct {
	User           string `json:"user" doc:"The user to log in as, instead of the URL's. Without one nobody logs in."`
	Password       string `json:"password" secret:"true" doc:"The user's password."`
	Token          string `json:"token" secret:"true" doc:"An OAuth 2 access token, instead of a password (OAUTHBEARER, XOAUTH2)."`
	Mechanism      string `json:"mechanism" enum:"SCRAM-SHA-512-PLUS,SCRAM-SHA-256-PLUS,SCRAM-SHA-1-PLUS,SCRAM-SHA-512,SCRAM-SHA-256,SCRAM-SHA-1,CRAM-MD5,PLAIN,LOGIN,EXTERNAL,OAUTHBEARER,XOAUTH2" doc:"The SASL mechanism, instead of the best that the server offers. EXTERNAL relies on the client certificate of tls."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
}

// given says whether there is anything to log in with.
func (o *loginOptions) given() bool {
	return o.User != "" || o.Token != "" || o.Mechanism == sasl.External
}

// fromURL takes the user from the URL where no option names one.
func (o *loginOptions) fromURL(p *probe.Probe) {
	if o.User == "" {
		o.User = p.URL.User.Username()
	}
}

// valid refuses credentials that are not whole, or that would go over an open connection.
func (o *loginOptions) valid(p *probe.Probe, starttls string) error {
	return o.validFor(p, "", p.URL.Host, p.URL.Scheme.TLS, starttls)
}

// validFor is valid for another server than the target's, and for options
// whose names have a prefix.
func (o *loginOptions) validFor(p *probe.Probe, prefix, host string, tls bool, starttls string) error {
	name := p.URL.Check.Name
	user, password := name+"."+prefix+"user", name+"."+prefix+"password"
	switch {
	case o.Password != "" && o.User == "":
		return probe.Failf(wire.BadOptions, "%s: needs %s as well", password, user)
	case o.User != "" && o.Password == "" && o.Token == "" && o.Mechanism != sasl.External:
		return probe.Failf(wire.BadOptions, "%s: needs %s as well", user, password)
	case o.given() && !tls && starttls == "off" && !o.AllowPlainAuth && !p.Loopback(host):
		return probe.Failf(wire.BadOptions, "%s: the credentials would be sent without TLS; allow starttls, or say %s.allow_plain_auth = true", user, name)
	}
	if err := loginText(p, prefix+"user", o.User); err != nil {
		return err
	}
	return loginText(p, prefix+"password", o.Password)
}

// must says whether a login on c has to wait for TLS.
func (o *loginOptions) must(c *probe.Conn) bool {
	return o.given() && !o.AllowPlainAuth && !c.Private()
}

// loginText refuses control characters in an option whose text goes into a
// line: whoever can write it must not be able to add commands.
func loginText(p *probe.Probe, option, text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return probe.Failf(wire.BadOptions, "%s.%s: contains a control character", p.URL.Check.Name, option)
	}
	return nil
}

// client picks the mechanism.
func (o *loginOptions) client(p *probe.Probe, c *probe.Conn, offered []string) (sasl.Client, error) {
	cred := sasl.Credentials{User: o.User, Password: o.Password, Token: o.Token, Host: c.Host(), Port: p.URL.Port}
	if strings.HasSuffix(o.Mechanism, "-PLUS") {
		cred.Binding, cred.TLS = "tls-exporter", c.TLSState()
	}
	if o.Mechanism == sasl.External {
		cred.Act, cred.User = o.User, ""
	}
	var cl sasl.Client
	var err error
	if o.Mechanism != "" {
		cl, err = sasl.New(o.Mechanism, cred)
	} else {
		cl, err = sasl.Pick(offered, cred, o.AllowPlainAuth || c.Private())
	}
	if err != nil {
		return nil, probe.Failf(wire.Denied, "%w", err)
	}
	return cl, nil
}

// A loginTalk carries a SASL exchange in lines of base64, the way of SMTP,
// IMAP and POP3.
type loginTalk struct {
	command string                                          // such as "AUTH"
	inline  bool                                            // the command may carry the initial response
	say     func(line string) error                         // sends a line
	hear    func() (challenge string, more bool, err error) // more is false for success, a refusal is an error
	sent    []string                                        // what must not come back in an error
}

// run logs in.
func (t *loginTalk) run(cl sasl.Client) error {
	mechanism, initial := cl.Start()
	line := t.command + " " + mechanism
	if initial != nil && t.inline {
		text := base64.StdEncoding.EncodeToString(initial)
		t.sent = append(t.sent, text)
		if text == "" {
			text = "="
		}
		line, initial = line+" "+text, nil
	}
	for {
		if err := t.say(line); err != nil {
			return err
		}
		challenge, more, err := t.hear()
		switch {
		case err != nil:
			return err
		case !more:
			return loginError(cl.Done())
		}
		response := initial
		if initial == nil {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(challenge))
			if err != nil {
				return probe.Protocolf("%s: got the challenge %.80q, which is not in base64", mechanism, challenge)
			}
			if response, err = cl.Next(b); err != nil {
				return loginError(err)
			}
		}
		initial = nil
		line = base64.StdEncoding.EncodeToString(response)
		t.sent = append(t.sent, line)
	}
}

// clean takes what was sent to log in out of a server's text.
func (t *loginTalk) clean(text string) string {
	if t == nil {
		return text
	}
	for _, s := range t.sent {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

func loginError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sasl.ErrRefused):
		return probe.Failf(wire.Denied, "%w", err)
	}
	return probe.Protocolf("%w", err)
}
