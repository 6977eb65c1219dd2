// Package sasl is the client's side of SASL (RFC 4422), apart from any
// protocol: a caller carries its messages, in base64 or not, as its protocol
// says.
//
//	c, err := sasl.Pick(offered, cred, secure)
//	mechanism, initial := c.Start()
//	response, err := c.Next(challenge) // for every challenge of the server
//	err = c.Done()                     // once the server has said that we are in
//
// An error that Is ErrRefused means that the server said no within the
// mechanism; any other of Next and Done means that it does not keep to it.
package sasl

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The mechanisms.
const (
	ScramSHA512Plus = "SCRAM-SHA-512-PLUS" // RFC 5802, with SHA-512 in the manner of RFC 7677
	ScramSHA256Plus = "SCRAM-SHA-256-PLUS" // RFC 7677
	ScramSHA1Plus   = "SCRAM-SHA-1-PLUS"   // RFC 5802
	ScramSHA512     = "SCRAM-SHA-512"
	ScramSHA256     = "SCRAM-SHA-256"
	ScramSHA1       = "SCRAM-SHA-1"
	CramMD5         = "CRAM-MD5"    // RFC 2195
	Plain           = "PLAIN"       // RFC 4616
	Login           = "LOGIN"       // draft-murchison-sasl-login
	External        = "EXTERNAL"    // RFC 4422, appendix A
	OAuthBearer     = "OAUTHBEARER" // RFC 7628
	XOAuth2         = "XOAUTH2"     // as Google and Microsoft have it
)

// Credentials are what we can prove who we are with.
type Credentials struct {
	User     string
	Password string
	Token    string // OAuth 2 bearer token, instead of a password
	Act      string // the identity to act as, if it is another than User (authzid)
	Host     string // the server, for OAUTHBEARER; may be empty
	Port     int

	// Binding is the channel binding of the PLUS mechanisms: "tls-exporter"
	// (RFC 9266) or "tls-server-end-point" (RFC 5929) over the connection TLS.
	// Without it PLUS is not used.
	Binding string
	TLS     *tls.ConnectionState
}

// A Client is one run of a mechanism. It is used up by it.
type Client interface {
	// Start gives the name of the mechanism and the initial response, which
	// is nil where the server speaks first; an empty one is not nil.
	Start() (mechanism string, initial []byte)
	// Next gives the response to a challenge.
	Next(challenge []byte) (response []byte, err error)
	// Done says, once the server has reported success, whether the mechanism
	// had come to its end: SCRAM fails here if the server did not prove that
	// it knows the password.
	Done() error
}

// ErrRefused is what a server that says no within the mechanism comes down to.
var ErrRefused = errors.New("the server refuses the credentials")

// ErrPlain means that the server offers only mechanisms that show the password
// to everybody on the way, and that the connection is not safe.
var ErrPlain = errors.New("the server takes passwords only in plain text, and the connection is not encrypted")

// order has the best first. CRAM-MD5 comes behind PLAIN, which a safe
// connection allows: servers offer it to users of whom they have only a hash.
var order = []string{
	ScramSHA512Plus, ScramSHA256Plus, ScramSHA1Plus, ScramSHA512, ScramSHA256, ScramSHA1, Plain, Login, CramMD5,
}

// Pick picks the best of the offered mechanisms that the credentials are good
// for: with a token one of OAuth, with a password SCRAM before all others, and
// with neither EXTERNAL, which trusts in the client certificate. Secure says
// that a password may be sent as it is. The names may be in any case. An error
// Is ErrPlain, or says what there is.
func Pick(offered []string, cred Credentials, secure bool) (Client, error) {
	var fit []string
	switch {
	case cred.Token != "":
		fit = []string{OAuthBearer, XOAuth2}
	case cred.Password != "":
		fit = order
	default:
		fit = []string{External}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(offered, func(o string) bool { return strings.EqualFold(o, name) })
	}
	exposed := false
	for _, name := range fit {
		switch {
		case !has(name) || strings.HasSuffix(name, "-PLUS") && cred.Binding == "":
		case !secure && showsSecret(name):
			exposed = true
		default:
			c, err := New(name, cred)
			if s, ok := c.(*scram); ok && cred.Binding != "" && !s.plus {
				s.header = "y,," // we would, the server does not
			}
			return c, err
		}
	}
	if exposed {
		return nil, ErrPlain
	}
	return nil, fmt.Errorf("the server offers %.200q, none of which can be used with these credentials (%s)", offered, strings.Join(fit, ", "))
}

func showsSecret(name string) bool {
	return name == Plain || name == Login || name == OAuthBearer || name == XOAuth2
}

// New makes a client for one mechanism.
func New(name string, cred Credentials) (Client, error) {
	switch name {
	case Plain:
		msg := cred.Act + "\x00" + cred.User + "\x00" + cred.Password
		if strings.Count(msg, "\x00") != 2 {
			return nil, errors.New("the user or the password contains a NUL, which PLAIN can't carry")
		}
		return &simple{name: name, initial: []byte(msg)}, nil
	case Login:
		return &simple{name: name, answers: []answer{fixed(cred.User), fixed(cred.Password)}}, nil
	case CramMD5:
		return &simple{name: name, answers: []answer{cramMD5(cred)}}, nil
	case External:
		return &simple{name: name, initial: []byte(cred.Act)}, nil
	case XOAuth2:
		return &bearer{name: name, initial: "user=" + cred.User + "\x01auth=Bearer " + cred.Token + "\x01\x01"}, nil
	case OAuthBearer:
		return &bearer{name: name, initial: oauthBearer(cred), bye: "\x01"}, nil
	}
	s, err := newScram(name, cred)
	if err != nil {
		return nil, err
	}
	return s, nil
}

type answer func(challenge []byte) []byte

func fixed(s string) answer { return func([]byte) []byte { return []byte(s) } }

func cramMD5(cred Credentials) answer {
	return func(challenge []byte) []byte {
		mac := hmac.New(md5.New, []byte(cred.Password))
		mac.Write(challenge)
		return []byte(cred.User + " " + hex.EncodeToString(mac.Sum(nil)))
	}
}

// simple is a mechanism in which the server proves nothing.
type simple struct {
	name    string
	initial []byte
	answers []answer // for one challenge each
}

func (s *simple) Start() (string, []byte) { return s.name, s.initial }

func (s *simple) Next(challenge []byte) ([]byte, error) {
	if len(s.answers) == 0 {
		return nil, fmt.Errorf("%s: one more challenge than there should be: %.80q", s.name, challenge)
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a(challenge), nil
}

func (s *simple) Done() error {
	if len(s.answers) > 0 {
		return fmt.Errorf("%s: the server is content before it has asked for everything", s.name)
	}
	return nil
}

// bearer is a mechanism that sends a token, and whose only challenge is a
// refusal in JSON, to be acknowledged before the server says so itself.
type bearer struct {
	name, initial, bye string
	refusal            []byte
}

// oauthBearer makes the message of RFC 7628, section 3.1.
func oauthBearer(cred Credentials) string {
	var b strings.Builder
	b.WriteString("n,")
	if cred.User != "" {
		b.WriteString("a=" + scramName(cred.User))
	}
	b.WriteString(",\x01")
	if cred.Host != "" {
		b.WriteString("host=" + cred.Host + "\x01")
	}
	if cred.Port != 0 {
		b.WriteString("port=" + strconv.Itoa(cred.Port) + "\x01")
	}
	b.WriteString("auth=Bearer " + cred.Token + "\x01\x01")
	return b.String()
}

func (b *bearer) Start() (string, []byte) { return b.name, []byte(b.initial) }

func (b *bearer) Next(challenge []byte) ([]byte, error) {
	if b.refusal != nil {
		return nil, b.Done()
	}
	b.refusal = append([]byte{}, challenge...)
	return []byte(b.bye), nil
}

func (b *bearer) Done() error {
	if b.refusal == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %.200q", b.name, ErrRefused, bytes.TrimSpace(b.refusal))
}
