package checks

import (
	"bytes"
	"encoding/binary"
	"maps"
	"regexp"
	"slices"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// A tlsWay is how to switch to TLS within a protocol.
type tlsWay struct {
	port int
	talk func(p *probe.Probe, c *probe.Conn) error
}

// tlsInside are the protocols within which we can switch to TLS.
var tlsInside = map[string]tlsWay{
	"smtp":     {25, tlsLines{{"", tlsReply, "^220"}, {"EHLO pup.invalid\r\n", tlsReply, "^250"}, {"STARTTLS\r\n", tlsReply, "^220"}}.talk},
	"lmtp":     {24, tlsLines{{"", tlsReply, "^220"}, {"LHLO pup.invalid\r\n", tlsReply, "^250"}, {"STARTTLS\r\n", tlsReply, "^220"}}.talk},
	"ftp":      {21, tlsLines{{"", tlsReply, "^220"}, {"AUTH TLS\r\n", tlsReply, "^234"}}.talk},
	"nntp":     {119, tlsLines{{"", tlsReply, "^20[01]"}, {"STARTTLS\r\n", tlsReply, "^382"}}.talk},
	"imap":     {143, tlsLines{{"", `^\* `, `^\* OK`}, {"a STARTTLS\r\n", "^a ", "^a OK"}}.talk},
	"pop3":     {110, tlsLines{{"", `^(\+OK|-ERR)`, `^\+OK`}, {"STLS\r\n", `^(\+OK|-ERR)`, `^\+OK`}}.talk},
	"sieve":    {4190, tlsLines{{"", "^(OK|NO|BYE)", "^OK"}, {"STARTTLS\r\n", "^(OK|NO|BYE)", "^OK"}}.talk},
	"xmpp":     {5222, tlsInsideXMPP},
	"ldap":     {389, tlsInsideLDAP},
	"postgres": {5432, tlsInsidePostgres},
	"mysql":    {3306, tlsInsideMySQL},
}

func tlsInsideSchemes() []probe.Scheme {
	var list []probe.Scheme
	for _, name := range slices.Sorted(maps.Keys(tlsInside)) {
		list = append(list, probe.Scheme{Name: "tls+" + name, Port: tlsInside[name].port})
	}
	return list
}

// tlsReply is the last line of a reply as SMTP, FTP and NNTP have it.
const tlsReply = `^\d{3}( |$)`

// tlsLines is a conversation in lines. Each of its steps sends a line, unless
// it is empty, and reads lines up to one that matches the second member; that
// is a yes if it matches the third. All but the last step are the greeting.
type tlsLines [][3]string

// tlsMaxLines bounds the lines of a reply.
const tlsMaxLines = 100

func (steps tlsLines) talk(p *probe.Probe, c *probe.Conn) error {
	p.Phase(wire.Greet)
	for i, s := range steps {
		asked := strings.TrimSpace(s[0])
		if asked == "" {
			asked = "greeting"
		} else if err := c.Printf("%s", s[0]); err != nil {
			return err
		}
		line, err := tlsReadReply(c, asked, regexp.MustCompile(s[1]))
		switch {
		case err != nil:
			return err
		case regexp.MustCompile(s[2]).MatchString(line):
		case i == len(steps)-1:
			return tlsRefused(line)
		default:
			return probe.Failf(wire.Unavailable, "%s: got %.80q", asked, line)
		}
	}
	return nil
}

func tlsReadReply(c *probe.Conn, asked string, last *regexp.Regexp) (string, error) {
	for range tlsMaxLines {
		line, err := c.Line()
		if err != nil || last.MatchString(line) {
			return line, err
		}
	}
	return "", probe.Protocolf("%s: %d lines came, and no reply", asked, tlsMaxLines)
}

func tlsRefused(answer string) error {
	return probe.Failf(wire.BadTLS, "the server does not switch to TLS: got %.80q", answer)
}

// tlsInsideXMPP follows RFC 6120, section 5.4.
func tlsInsideXMPP(p *probe.Probe, c *probe.Conn) error {
	p.Phase(wire.Greet)
	host := p.TLSOptions().ServerName
	if host == "" {
		host = c.Host()
	}
	var name bytes.Buffer
	for _, r := range host {
		if !strings.ContainsRune(`'"<>&`, r) {
			name.WriteRune(r)
		}
	}
	err := c.Printf("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", &name)
	if err != nil {
		return err
	}
	features, err := tlsReadUpTo(c, "</stream:features>", "</stream:error>", "</stream:stream>")
	switch {
	case err != nil:
		return err
	case !strings.Contains(features, "<stream:stream"):
		return probe.Protocolf("got %.80q, want an XMPP stream", features)
	case !strings.Contains(features, "urn:ietf:params:xml:ns:xmpp-tls"):
		return tlsRefused(features[max(0, len(features)-80):])
	}
	if err := c.Printf("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"); err != nil {
		return err
	}
	answer, err := tlsReadUpTo(c, ">")
	if err == nil && !strings.HasPrefix(strings.TrimSpace(answer), "<proceed") {
		return tlsRefused(answer)
	}
	return err
}

// tlsReadUpTo reads up to one of the given ends, and not a byte more.
func tlsReadUpTo(c *probe.Conn, ends ...string) (string, error) {
	var got []byte
	for len(got) < 16<<10 {
		b, err := c.ReadByte()
		if err != nil {
			return "", err
		}
		got = append(got, b)
		if b == '>' && slices.ContainsFunc(ends, func(end string) bool { return bytes.HasSuffix(got, []byte(end)) }) {
			return string(got), nil
		}
	}
	return "", probe.Protocolf("got %.80q and more, want %s", got, ends[0])
}

// tlsInsideLDAP follows RFC 4511, section 4.14: an extended request, whose
// response carries the same message number and a result code.
func tlsInsideLDAP(p *probe.Probe, c *probe.Conn) error {
	p.Phase(wire.Greet)
	const oid = "1.3.6.1.4.1.1466.20037"
	request := append([]byte{0x30, 5 + 2 + byte(len(oid)), 2, 1, 1, 0x77, 2 + byte(len(oid)), 0x80, byte(len(oid))}, oid...)
	if _, err := c.Write(request); err != nil {
		return err
	}
	head := make([]byte, 2)
	if err := c.Full(head); err != nil {
		return err
	}
	size := int(head[1])
	if n := size & 0x7f; size > 0x7f && n <= 4 {
		long := make([]byte, 4)
		if err := c.Full(long[4-n:]); err != nil {
			return err
		}
		size = int(binary.BigEndian.Uint32(long))
	}
	if head[0] != 0x30 || size < 7 || size > 4096 {
		return probe.Protocolf("got % x, want an LDAP message", head)
	}
	body := make([]byte, size)
	if err := c.Full(body); err != nil {
		return err
	}
	// message number 1, ExtendedResponse, its length, resultCode
	i := bytes.IndexByte(body, 0x78)
	if !bytes.HasPrefix(body, []byte{2, 1, 1}) || i != 3 {
		return probe.Protocolf("got % x, want an ExtendedResponse", body[:min(len(body), 16)])
	}
	rest := body[5:]
	if n := int(body[4]); n > 0x7f {
		rest = rest[min(len(rest), n&0x7f):]
	}
	if len(rest) < 3 || rest[0] != 0x0a || rest[1] != 1 {
		return probe.Protocolf("got % x, want a result code", body[:min(len(body), 16)])
	}
	if rest[2] != 0 {
		return probe.Failf(wire.BadTLS, "the server does not switch to TLS: LDAP result %d, %.80q", rest[2], rest[3:])
	}
	return nil
}

// tlsInsidePostgres sends an SSLRequest, as the PostgreSQL manual has it in
// section "SSL Session Encryption".
func tlsInsidePostgres(p *probe.Probe, c *probe.Conn) error {
	p.Phase(wire.Greet)
	if _, err := c.Write([]byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	switch b, err := c.ReadByte(); {
	case err != nil:
		return err
	case b == 'S':
		return nil
	case b == 'N' || b == 'E':
		return tlsRefused(string(b))
	default:
		return probe.Protocolf("SSLRequest: got %q, want S or N", b)
	}
}

// tlsInsideMySQL reads the handshake packet of protocol version 10 and answers
// with an SSLRequest, as the MySQL internals manual has them.
func tlsInsideMySQL(p *probe.Probe, c *probe.Conn) error {
	p.Phase(wire.Greet)
	head := make([]byte, 4)
	if err := c.Full(head); err != nil {
		return err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size < 3 || size > 4096 || head[3] != 0 {
		return probe.Protocolf("got % x, want a MySQL packet", head)
	}
	b := make([]byte, size)
	if err := c.Full(b); err != nil {
		return err
	}
	if b[0] == 0xff {
		return probe.Failf(wire.Unavailable, "the server says %.80q", b[min(3, len(b)):])
	}
	// version text, 0, connection id (4), salt (8), 0, capabilities (2)
	end := bytes.IndexByte(b[1:], 0)
	if b[0] != 10 || end < 0 || len(b) < 1+end+1+4+8+1+2 {
		return probe.Protocolf("got %.40q, want a greeting of MySQL protocol version 10", b)
	}
	const ssl, protocol41, secure = 0x0800, 0x0200, 0x8000
	if caps := binary.LittleEndian.Uint16(b[1+end+1+4+8+1:]); caps&ssl == 0 {
		return probe.Failf(wire.BadTLS, "the server does not offer to switch to TLS")
	}
	request := make([]byte, 36)
	request[0], request[3] = 32, 1
	binary.LittleEndian.PutUint32(request[4:], ssl|protocol41|secure)
	binary.LittleEndian.PutUint32(request[8:], 1<<24)
	request[12] = 45 // utf8mb4
	_, err := c.Write(request)
	return err
}
