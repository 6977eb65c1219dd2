package checks

import (
	"encoding/binary"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// tlsStarts are the protocols in which TLS can be asked for, and the shortest
// way to it.
var tlsStarts = []struct {
	protocol string
	port     int
	start    func(*probe.Conn) error
}{
	{"smtp", 25, func(c *probe.Conn) error { // RFC 3207
		return tlsLines(c, "220", "EHLO pup.invalid", "250", "STARTTLS", "220")
	}},
	{"lmtp", 24, func(c *probe.Conn) error { return tlsLines(c, "220", "LHLO pup.invalid", "250", "STARTTLS", "220") }},
	{"imap", 143, func(c *probe.Conn) error { return tlsLines(c, "* OK", "a STARTTLS", "a OK") }}, // RFC 9051, section 6.2.1
	{"pop3", 110, func(c *probe.Conn) error { return tlsLines(c, "+OK", "STLS", "+OK") }},         // RFC 2595, section 4
	{"ftp", 21, func(c *probe.Conn) error { return tlsLines(c, "220", "AUTH TLS", "234") }},       // RFC 4217
	{"nntp", 119, func(c *probe.Conn) error { return tlsLines(c, "20", "STARTTLS", "382") }},      // RFC 4642
	{"sieve", 4190, func(c *probe.Conn) error { return tlsLines(c, "OK", "STARTTLS", "OK") }},     // RFC 5804
	{"xmpp", 5222, tlsXMPP},
	{"ldap", 389, tlsLDAP},
	{"postgres", 5432, tlsPostgres},
	{"mysql", 3306, tlsMySQL},
}

// tlsMaxLines bounds the lines of an answer.
const tlsMaxLines = 100

// tlsLines leads a dialogue of lines: what must come, what to say, what must
// come, and so on.
func tlsLines(c *probe.Conn, dialogue ...string) error {
	for i, text := range dialogue {
		if i%2 == 1 {
			if err := c.Printf("%s\r\n", text); err != nil {
				return err
			}
			continue
		}
		if err := tlsAnswer(c, text); err != nil {
			return err
		}
	}
	return nil
}

// tlsAnswer reads lines up to one that begins as wanted. It takes an answer of
// several lines as SMTP and FTP have it ("250-", lines without a code), and
// the untagged lines of IMAP and the quoted ones of ManageSieve.
func tlsAnswer(c *probe.Conn, want string) error {
	code := want[0] >= '0' && want[0] <= '9'
	for range tlsMaxLines {
		line, err := c.Line()
		if err != nil {
			return err
		}
		switch {
		case code && len(line) > 3 && line[3] == '-', strings.HasPrefix(line, `"`), want[0] == 'a' && strings.HasPrefix(line, "* "):
			if !strings.HasPrefix(line, want) && code {
				return probe.Protocolf("got %.80q, want %s", line, want)
			}
		case strings.HasPrefix(line, want):
			return nil
		case code && len(line) >= 3 && line[0] == '4', strings.HasPrefix(line, "* BYE"):
			return probe.Failf(wire.Unavailable, "got %.80q, want %s", line, want)
		case code && len(line) >= 3 && line[0] == '5', strings.HasPrefix(line, "a NO"), strings.HasPrefix(line, "a BAD"), strings.HasPrefix(line, "-ERR"), strings.HasPrefix(line, "NO"):
			return probe.Failf(wire.BadTLS, "the server does not start TLS: %.80q", line)
		default:
			return probe.Protocolf("got %.80q, want %s", line, want)
		}
	}
	return probe.Protocolf("more than %d lines without %s", tlsMaxLines, want)
}

// tlsXMPP follows RFC 6120, section 5.
func tlsXMPP(c *probe.Conn) error {
	err := c.Printf("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
		strings.NewReplacer("'", "", "<", "", "&", "").Replace(c.Host()))
	if err != nil {
		return err
	}
	features, err := tlsUntil(c, "</stream:features>")
	if err != nil {
		return err
	}
	if !strings.Contains(features, "urn:ietf:params:xml:ns:xmpp-tls") {
		return probe.Failf(wire.BadTLS, "the server does not offer to start TLS")
	}
	if err := c.Printf("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"); err != nil {
		return err
	}
	answer, err := tlsUntil(c, ">")
	if err == nil && !strings.Contains(answer, "<proceed") {
		err = probe.Failf(wire.BadTLS, "the server does not start TLS: %.80q", answer)
	}
	return err
}

// tlsUntil reads up to the end of a text, 16 KiB at most.
func tlsUntil(c *probe.Conn, end string) (string, error) {
	var b []byte
	for !strings.HasSuffix(string(b), end) {
		if len(b) == 16<<10 {
			return "", probe.Protocolf("more than %d bytes without %q", len(b), end)
		}
		if len(b) == 1 && b[0] != '<' {
			return "", probe.Protocolf("got %q, want XML", b)
		}
		x, err := c.ReadByte()
		if err != nil {
			return "", err
		}
		b = append(b, x)
	}
	return string(b), nil
}

// tlsLDAP sends the extended request StartTLS (RFC 4511, section 4.14).
func tlsLDAP(c *probe.Conn) error {
	if _, err := c.Write([]byte("\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037")); err != nil {
		return err
	}
	head, err := c.Peek(2)
	if err != nil {
		return err
	}
	if head[0] != 0x30 || head[1] < 10 || head[1] > 0x7f {
		return probe.Protocolf("got % x, want an LDAP message", head)
	}
	msg := make([]byte, 2+int(head[1]))
	if err := c.Full(msg); err != nil {
		return err
	}
	switch {
	case string(msg[2:6]) != "\x02\x01\x01\x78" || msg[7] != 0x0a || msg[8] != 1:
		return probe.Protocolf("got % x, want an extended response", msg[:10])
	case msg[9] == 51 || msg[9] == 52:
		return probe.Failf(wire.Unavailable, "StartTLS: result code %d", msg[9])
	case msg[9] != 0:
		return probe.Failf(wire.BadTLS, "the server does not start TLS: result code %d", msg[9])
	}
	return nil
}

// tlsPostgres sends SSLRequest (PostgreSQL, Message Flow, SSL Session
// Encryption).
func tlsPostgres(c *probe.Conn) error {
	if _, err := c.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return err
	}
	switch b, err := c.ReadByte(); {
	case err != nil:
		return err
	case b == 'N':
		return probe.Failf(wire.BadTLS, "the server does not start TLS")
	case b != 'S':
		return probe.Protocolf("SSLRequest: got %q, want S", b)
	}
	return nil
}

// tlsMySQL reads the greeting and asks for TLS (MySQL, Protocol::SSLRequest).
func tlsMySQL(c *probe.Conn) error {
	head, err := c.Peek(5)
	if err != nil {
		return err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	switch {
	case head[3] != 0 || n < 30 || n > 1024:
		return probe.Protocolf("got % x, want the greeting of MySQL", head)
	case head[4] == 0xff:
		return probe.Failf(wire.Unavailable, "the server refuses the connection")
	case head[4] != 10:
		return probe.Protocolf("version %d of the protocol, want 10", head[4])
	}
	greeting := make([]byte, 4+n)
	if err := c.Full(greeting); err != nil {
		return err
	}
	_, rest, ok := strings.Cut(string(greeting[5:]), "\x00")
	if !ok || len(rest) < 15 {
		return probe.Protocolf("a greeting of %d bytes is too short", n)
	}
	const ssl = 0x0800
	if binary.LittleEndian.Uint16([]byte(rest[13:15]))&ssl == 0 {
		return probe.Failf(wire.BadTLS, "the server does not start TLS")
	}
	request := make([]byte, 4+32)
	request[0], request[3] = 32, 1
	binary.LittleEndian.PutUint32(request[4:], 0x00000200|ssl|0x00008000) // protocol 4.1, secure connection
	binary.LittleEndian.PutUint32(request[8:], 1<<24)
	request[12] = 45 // utf8mb4
	_, err = c.Write(request)
	return err
}
