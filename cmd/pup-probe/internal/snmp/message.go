package snmp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// The versions, as they stand in messages.
const (
	V1  = 0
	V2c = 1
	V3  = 3
)

// The types of PDU that are used here (RFC 3416, section 3).
const (
	Get      = 0xa0
	Response = 0xa2
	Report   = 0xa8
)

// The flags of a message of version 3 (RFC 3412, section 6.4).
const (
	flagAuth       = 1
	flagPriv       = 2
	flagReportable = 4
)

const usmModel = 3

// maxSize is the size of the largest message that we take, in bytes.
const maxSize = 4096

// maxVariables bounds the variables of a PDU.
const maxVariables = 128

// A PDU is what a message carries.
type PDU struct {
	Type        byte
	RequestID   int
	ErrorStatus int
	ErrorIndex  int
	Variables   []Variable
}

// A Message is a message, taken apart.
type Message struct {
	Version   int
	Community string // before version 3
	PDU       PDU

	ID          int // of version 3, as the rest
	Flags       byte
	EngineID    []byte
	Boots, Time int
	User        string
}

// ErrorStatus gives the name of an error status (RFC 3416, section 3).
func ErrorStatus(n int) string {
	names := [...]string{
		"noError", "tooBig", "noSuchName", "badValue", "readOnly", "genErr", "noAccess", "wrongType", "wrongLength", "wrongEncoding",
		"wrongValue", "noCreation", "inconsistentValue", "resourceUnavailable", "commitFailed", "undoFailed", "authorizationError",
		"notWritable", "inconsistentName",
	}
	if n >= 0 && n < len(names) {
		return names[n]
	}
	return fmt.Sprintf("error status %d", n)
}

// newID gives a positive random number of 31 bits, for requests and messages.
func newID() int {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return int(binary.BigEndian.Uint32(b[:])>>1 | 1)
}

// getPDU makes a Get request for the objects.
func getPDU(id int, oids [][]byte) []byte {
	var list []byte
	for _, oid := range oids {
		list = append(list, element(tagSequence, element(tagOID, oid), element(tagNull))...)
	}
	return element(Get, intElement(id), intElement(0), intElement(0), element(tagSequence, list))
}

// NewGet makes a Get request of version 1 or 2c, and gives its identifier.
func NewGet(version int, community string, oids [][]byte) (message []byte, id int) {
	id = newID()
	return element(tagSequence, intElement(version), element(tagOctets, []byte(community)), getPDU(id, oids)), id
}

// Parse takes a message of version 1 or 2c apart.
func Parse(b []byte) (*Message, error) {
	m, rest, err := parseVersion(b)
	if err != nil {
		return nil, err
	}
	if m.Version != V1 && m.Version != V2c {
		return nil, fmt.Errorf("a message of version %d", m.Version+1)
	}
	community, rest, err := expect(rest, tagOctets)
	if err != nil {
		return nil, err
	}
	m.Community = string(community)
	return m, m.PDU.parse(rest)
}

func parseVersion(b []byte) (*Message, []byte, error) {
	if len(b) > maxSize {
		return nil, nil, fmt.Errorf("longer than %d bytes", maxSize)
	}
	rest, after, err := expect(b, tagSequence)
	if err != nil {
		return nil, nil, err
	}
	if len(after) > 0 {
		return nil, nil, errors.New("something follows the message")
	}
	version, rest, err := takeInt(rest)
	return &Message{Version: version}, rest, err
}

func (p *PDU) parse(b []byte) error {
	tag, content, after, err := next(b)
	if err != nil {
		return err
	}
	if len(after) > 0 {
		return errors.New("something follows the PDU")
	}
	if tag != Response && tag != Report && tag != Get {
		return fmt.Errorf("a PDU of type %#x", tag)
	}
	p.Type = tag
	for _, to := range []*int{&p.RequestID, &p.ErrorStatus, &p.ErrorIndex} {
		if *to, content, err = takeInt(content); err != nil {
			return err
		}
	}
	list, after, err := expect(content, tagSequence)
	if err != nil {
		return err
	}
	if len(after) > 0 {
		return errors.New("something follows the variables")
	}
	for len(list) > 0 {
		var one []byte
		if one, list, err = expect(list, tagSequence); err != nil {
			return err
		}
		v, err := parseVariable(one)
		if err != nil {
			return err
		}
		if p.Variables = append(p.Variables, v); len(p.Variables) > maxVariables {
			return fmt.Errorf("more than %d variables", maxVariables)
		}
	}
	return nil
}
