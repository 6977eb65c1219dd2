package checks

import (
	"encoding/binary"
	"errors"

	"pup/cmd/pup-probe/internal/probe"
)

// The tags of the messages that we know (RFC 4511, appendix B), in BER.
const (
	ldapInteger    = 0x02
	ldapString     = 0x04
	ldapEnumerated = 0x0a
	ldapBoolean    = 0x01
	ldapSequence   = 0x30
	ldapSet        = 0x31

	ldapBind       = 0x60
	ldapBound      = 0x61
	ldapUnbind     = 0x42
	ldapSearch     = 0x63
	ldapEntry      = 0x64
	ldapDone       = 0x65
	ldapReference  = 0x73
	ldapExtended   = 0x77
	ldapExtendedOK = 0x78

	ldapSimple      = 0x80 // of a bind
	ldapSASL        = 0xa3
	ldapServerCreds = 0x87
)

// ldapTLV makes an element: tag, length, and its parts one after the other.
func ldapTLV(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := []byte{tag}
	switch {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x82), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0x84), uint32(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func ldapText(s string) []byte { return ldapTLV(ldapString, []byte(s)) }

// ldapInt makes a number from 0 to 2^31-1, in as few bytes as it takes.
func ldapInt(tag byte, n int) []byte {
	b := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	for len(b) > 1 && b[0] == 0 && b[1] < 0x80 {
		b = b[1:]
	}
	return ldapTLV(tag, b)
}

var errLDAP = errors.New("is not BER as LDAP has it")

// ldapHead reads tag and length of an element: at most 4 bytes of length, as
// more can't be meant.
func ldapHead(b []byte) (tag byte, size, head int, err error) {
	if len(b) < 2 {
		return 0, 0, 0, errLDAP
	}
	size, head = int(b[1]), 2
	if n := size & 0x7f; size > 0x7f {
		if n == 0 || n > 4 || len(b) < 2+n {
			return 0, 0, 0, errLDAP
		}
		size = 0
		for _, x := range b[2 : 2+n] {
			size = size<<8 | int(x)
		}
		head = 2 + n
	}
	if b[0]&0x1f == 0x1f || size < 0 {
		return 0, 0, 0, errLDAP
	}
	return b[0], size, head, nil
}

// ldapNext takes the first element of b.
func ldapNext(b []byte) (tag byte, value, rest []byte, err error) {
	tag, size, head, err := ldapHead(b)
	if err != nil || size > len(b)-head {
		return 0, nil, nil, errLDAP
	}
	return tag, b[head : head+size], b[head+size:], nil
}

// ldapWant takes the first element of b, which must have the given tag.
func ldapWant(b []byte, tag byte) (value, rest []byte, err error) {
	got, value, rest, err := ldapNext(b)
	if err == nil && got != tag {
		err = errLDAP
	}
	return value, rest, err
}

func ldapNumber(b []byte) (int, error) {
	if len(b) == 0 || len(b) > 4 {
		return 0, errLDAP
	}
	n := int(int8(b[0]))
	for _, x := range b[1:] {
		n = n<<8 | int(x)
	}
	return n, nil
}

// ldapMaxMessage bounds a message of the server.
const ldapMaxMessage = 1 << 20

// ldapRead reads a message and gives its number, and the operation with its
// content.
func ldapRead(c *probe.Conn) (id int, op byte, content []byte, err error) {
	head := make([]byte, 6)
	if err := c.Full(head[:2]); err != nil {
		return 0, 0, nil, err
	}
	n := 2
	if head[1] > 0x80 && head[1] <= 0x84 {
		n += int(head[1] & 0x7f)
		if err := c.Full(head[2:n]); err != nil {
			return 0, 0, nil, err
		}
	}
	tag, size, _, err := ldapHead(head[:n])
	if err != nil || tag != ldapSequence || size > ldapMaxMessage {
		return 0, 0, nil, probe.Protocolf("got % x, want an LDAP message of at most %d bytes", head[:n], ldapMaxMessage)
	}
	b := make([]byte, size)
	if err := c.Full(b); err != nil {
		return 0, 0, nil, err
	}
	id, op, content, err = ldapMessage(b)
	if err != nil {
		return 0, 0, nil, probe.Protocolf("a message of %d bytes %w", size, err)
	}
	return id, op, content, nil
}

func ldapMessage(b []byte) (id int, op byte, content []byte, err error) {
	number, rest, err := ldapWant(b, ldapInteger)
	if err == nil {
		id, err = ldapNumber(number)
	}
	if err == nil {
		op, content, _, err = ldapNext(rest)
	}
	return id, op, content, err
}

// ldapResult is what ends an operation (RFC 4511, section 4.1.9).
type ldapResult struct {
	code  int
	text  string
	creds []byte // of a SASL bind
}

func ldapParseResult(b []byte) (r ldapResult, err error) {
	code, rest, err := ldapWant(b, ldapEnumerated)
	if err == nil {
		r.code, err = ldapNumber(code)
	}
	if err == nil {
		_, rest, err = ldapWant(rest, ldapString) // the entry up to which the name was known
	}
	if err != nil {
		return r, err
	}
	text, rest, err := ldapWant(rest, ldapString)
	r.text = string(text)
	for err == nil && len(rest) > 0 {
		var tag byte
		var value []byte
		if tag, value, rest, err = ldapNext(rest); err == nil && tag == ldapServerCreds {
			r.creds = value
		}
	}
	return r, err
}

// ldapAttribute is an attribute of an entry.
type ldapAttribute struct {
	name   string
	values []string
}

func ldapParseEntry(b []byte) (dn string, attributes []ldapAttribute, err error) {
	name, rest, err := ldapWant(b, ldapString)
	if err != nil {
		return "", nil, err
	}
	list, _, err := ldapWant(rest, ldapSequence)
	for err == nil && len(list) > 0 {
		var one, typ, set, value []byte
		if one, list, err = ldapWant(list, ldapSequence); err != nil {
			break
		}
		if typ, one, err = ldapWant(one, ldapString); err != nil {
			break
		}
		a := ldapAttribute{name: string(typ)}
		set, _, err = ldapWant(one, ldapSet)
		for err == nil && len(set) > 0 {
			if value, set, err = ldapWant(set, ldapString); err == nil {
				a.values = append(a.values, string(value))
			}
		}
		attributes = append(attributes, a)
	}
	return string(name), attributes, err
}
