package checks

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"io"
	"slices"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// The name spaces of RFC 6120, section 14.
const (
	xmppNS     = "http://etherx.jabber.org/streams"
	xmppTLS    = "urn:ietf:params:xml:ns:xmpp-tls"
	xmppSASL   = "urn:ietf:params:xml:ns:xmpp-sasl"
	xmppErrors = "urn:ietf:params:xml:ns:xmpp-streams"
)

// xmppElement is an element of a stream.
type xmppElement struct {
	XMLName  xml.Name
	Text     string        `xml:",chardata"`
	Children []xmppElement `xml:",any"`
}

func (e *xmppElement) child(space, name string) *xmppElement {
	i := slices.IndexFunc(e.Children, func(c xmppElement) bool { return c.XMLName == xml.Name{Space: space, Local: name} })
	if i < 0 {
		return nil
	}
	return &e.Children[i]
}

// xmppStream is the client's side of a stream, through all its restarts.
type xmppStream struct {
	p      *probe.Probe
	c      *probe.Conn
	opt    *xmppOptions
	facts  *xmppFacts
	domain string
	xml    *xml.Decoder
	inside bool // of a stream that we have to end
}

func (s *xmppStream) close() {
	if s.c == nil {
		return
	}
	if s.inside {
		s.c.Printf("</stream:stream>")
	}
	s.c.Close()
}

// xmppMaxBytes bounds what a server may send between two restarts.
const xmppMaxBytes = 256 << 10

// xmppReader reads byte by byte, so that package xml takes no more than it
// needs, and not without end.
type xmppReader struct {
	c    *probe.Conn
	left int
}

func (r *xmppReader) ReadByte() (byte, error) {
	if r.left--; r.left < 0 {
		return 0, probe.Protocolf("the server has sent more than %d bytes", xmppMaxBytes)
	}
	return r.c.ReadByte()
}

func (r *xmppReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	x, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	b[0] = x
	return 1, nil
}

// open opens the stream, or opens it anew, and reads its features.
func (s *xmppStream) open() (*xmppElement, error) {
	s.xml = xml.NewDecoder(&xmppReader{s.c, xmppMaxBytes})
	namespace := "jabber:client"
	if s.opt.Server {
		namespace = "jabber:server"
	}
	var to bytes.Buffer
	xml.EscapeText(&to, []byte(s.domain))
	if err := s.c.Printf("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='%s' xmlns:stream='%s'>", &to, namespace, xmppNS); err != nil {
		return nil, err
	}
	s.inside = true
	if b, err := s.c.Peek(1); err != nil {
		return nil, err
	} else if b[0] != '<' { // package xml would wait for the end of the text
		line, _ := s.c.Peek(s.c.Buffered())
		return nil, probe.Protocolf("got %.80q, want an XMPP stream", line)
	}
	start, err := s.start()
	if err != nil {
		return nil, err
	}
	if start.Name != (xml.Name{Space: xmppNS, Local: "stream"}) {
		return nil, probe.Protocolf("got the element %.80q, want an XMPP stream", start.Name.Local)
	}
	for _, a := range start.Attr {
		if a.Name.Local == "from" {
			s.facts.From = ndjson.Cut(a.Value, maxShown)
		}
	}
	features, err := s.next()
	if err != nil {
		return nil, err
	}
	if features.XMLName != (xml.Name{Space: xmppNS, Local: "features"}) {
		return nil, probe.Protocolf("got the element %.80q, want the features", features.XMLName.Local)
	}
	s.note(features)
	return features, nil
}

// note makes facts of the features.
func (s *xmppStream) note(features *xmppElement) {
	f := s.facts
	f.Features = nil
	for _, c := range features.Children[:min(len(features.Children), 50)] {
		f.Features = append(f.Features, ndjson.Cut(c.XMLName.Local, 40))
	}
	if s.c.TLSState() == nil {
		offer := features.child(xmppTLS, "starttls")
		f.StartTLS, f.Required = new(offer != nil), new(offer != nil && offer.child(xmppTLS, "required") != nil)
	}
	if m := features.child(xmppSASL, "mechanisms"); m != nil {
		f.Mechanisms = nil
		for _, c := range m.Children[:min(len(m.Children), 50)] {
			f.Mechanisms = append(f.Mechanisms, ndjson.Cut(strings.TrimSpace(c.Text), 40))
		}
	}
}

// start reads up to the next start of an element.
func (s *xmppStream) start() (xml.StartElement, error) {
	for {
		t, err := s.xml.Token()
		if err != nil {
			return xml.StartElement{}, xmppError(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t, nil
		case xml.EndElement:
			return xml.StartElement{}, io.EOF // of the stream
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return xml.StartElement{}, probe.Protocolf("got %.80q, want XML", []byte(t))
			}
		case xml.Directive:
			return xml.StartElement{}, probe.Protocolf("got a directive, which XMPP forbids")
		}
	}
}

// next reads the next element. A stream error is an error.
func (s *xmppStream) next() (*xmppElement, error) {
	start, err := s.start()
	if err != nil {
		return nil, err
	}
	e := new(xmppElement)
	if err := s.xml.DecodeElement(e, &start); err != nil {
		return nil, xmppError(err)
	}
	if e.XMLName == (xml.Name{Space: xmppNS, Local: "error"}) {
		return nil, xmppStreamError(e)
	}
	return e, nil
}

// xmppError tells what is no XML from a connection that has ended.
func xmppError(err error) error {
	if se, ok := err.(*xml.SyntaxError); ok {
		if se.Msg == "unexpected EOF" {
			return io.ErrUnexpectedEOF
		}
		return probe.Protocolf("not XML: %.120q", se.Msg)
	}
	return err
}

// xmppStreamError words a stream error (RFC 6120, section 4.9.3).
func xmppStreamError(e *xmppElement) error {
	condition, text := "undefined-condition", ""
	for _, c := range e.Children {
		switch {
		case c.XMLName.Space != xmppErrors:
		case c.XMLName.Local == "text":
			text = c.Text
		default:
			condition = c.XMLName.Local
		}
	}
	reason := wire.BadProtocol
	switch condition {
	case "host-unknown", "host-gone", "see-other-host":
		reason = wire.Mismatch
	case "system-shutdown", "resource-constraint", "internal-server-error", "reset", "remote-connection-failed":
		reason = wire.Unavailable
	case "not-authorized", "policy-violation":
		reason = wire.Denied
	}
	return probe.Failf(reason, "stream error: %.60q %.120q", condition, text)
}

// startTLS switches to TLS if it is offered or wanted, and gives the features
// of the stream under it.
func (s *xmppStream) startTLS(ctx context.Context, features *xmppElement) (*xmppElement, error) {
	wanted, err := s.opt.wanted(s.p, s.c, features.child(xmppTLS, "starttls") != nil, s.opt.must(s.c))
	if err != nil || !wanted {
		return features, err
	}
	if err := s.c.Printf("<starttls xmlns='%s'/>", xmppTLS); err != nil {
		return nil, err
	}
	answer, err := s.next()
	if err != nil {
		return nil, err
	}
	if answer.XMLName != (xml.Name{Space: xmppTLS, Local: "proceed"}) {
		return nil, probe.Failf(wire.BadTLS, "starttls: got %.80q, want proceed", answer.XMLName.Local)
	}
	s.inside = false
	if s.c, err = s.p.StartTLS(ctx, s.c); err != nil {
		return nil, err
	}
	s.p.Phase(wire.Greet)
	s.facts.Mechanisms = nil // what was offered in plain does not count
	return s.open()
}

// login logs in by SASL (RFC 6120, section 6), and opens the stream anew.
func (s *xmppStream) login() error {
	s.facts.LoggedIn = new(false)
	client, err := s.opt.client(s.p, s.c, s.facts.Mechanisms)
	if err != nil {
		return err
	}
	mechanism, initial := client.Start()
	s.facts.Mechanism = mechanism
	text := ""
	if initial != nil {
		if text = base64.StdEncoding.EncodeToString(initial); text == "" {
			text = "="
		}
	}
	err = s.c.Printf("<auth xmlns='%s' mechanism='%s'>%s</auth>", xmppSASL, mechanism, text)
	for err == nil {
		var done bool
		if done, err = s.challenge(client); done && err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	s.facts.LoggedIn = new(true)
	features, err := s.open()
	if err == nil && features.child("urn:ietf:params:xml:ns:xmpp-bind", "bind") == nil {
		err = probe.Protocolf("the server does not offer to bind a resource after the login")
	}
	return err
}

// challenge takes the server's next word, and answers it.
func (s *xmppStream) challenge(client sasl.Client) (done bool, err error) {
	e, err := s.next()
	if err != nil {
		return false, err
	}
	text := strings.TrimSpace(e.Text)
	if text == "=" { // nothing (RFC 6120, section 6.4.2)
		text = ""
	}
	data, err := base64.StdEncoding.DecodeString(text)
	switch {
	case e.XMLName.Space != xmppSASL:
		return false, probe.Protocolf("auth: got the element %.80q", e.XMLName.Local)
	case e.XMLName.Local == "failure":
		return false, xmppFailure(e)
	case err != nil:
		return false, probe.Protocolf("auth: got %.80q, which is not in base64", e.Text)
	case e.XMLName.Local == "success":
		if len(data) > 0 {
			if _, err := client.Next(data); err != nil {
				return false, loginError(err)
			}
		}
		return true, loginError(client.Done())
	case e.XMLName.Local != "challenge":
		return false, probe.Protocolf("auth: got the element %.80q", e.XMLName.Local)
	}
	response, err := client.Next(data)
	if err != nil {
		return false, loginError(err)
	}
	return false, s.c.Printf("<response xmlns='%s'>%s</response>", xmppSASL, base64.StdEncoding.EncodeToString(response))
}

// xmppFailure words a refused login (RFC 6120, section 6.5).
func xmppFailure(e *xmppElement) error {
	condition, text := "undefined-condition", ""
	for _, c := range e.Children {
		if c.XMLName.Local == "text" {
			text = c.Text
		} else {
			condition = c.XMLName.Local
		}
	}
	reason := wire.Denied
	switch condition {
	case "temporary-auth-failure":
		reason = wire.Unavailable
	case "malformed-request", "incorrect-encoding":
		reason = wire.BadProtocol
	}
	return probe.Failf(reason, "auth: got %.60q %.120q", condition, text)
}
