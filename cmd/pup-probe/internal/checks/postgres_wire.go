package checks

import (
	"bytes"
	"encoding/binary"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// postgresMaxBody bounds a message of the server, in bytes.
const postgresMaxBody = 1 << 20

// A postgresSource is what messages are read from: a probe.Conn.
type postgresSource interface {
	Full(b []byte) error
}

// postgresRead reads a message: its type, and its body.
func postgresRead(src postgresSource) (kind byte, body []byte, err error) {
	var head [5]byte
	if err := src.Full(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	switch {
	case !postgresIsKind(head[0]) || n < 4:
		return 0, nil, probe.Protocolf("got %.80q, want a message of PostgreSQL", head[:])
	case n-4 > postgresMaxBody && head[0] == 'D':
		return 0, nil, probe.Failf(wire.TooLarge, "a row of %d bytes, more than %d", n-4, postgresMaxBody)
	case n-4 > postgresMaxBody:
		return 0, nil, probe.Protocolf("a message %q of %d bytes, more than %d", head[0], n-4, postgresMaxBody)
	}
	body = make([]byte, n-4)
	return head[0], body, src.Full(body)
}

// postgresIsKind says whether a server has a message of that type.
func postgresIsKind(b byte) bool { return bytes.IndexByte([]byte("RSKZEINTDCvAGHW"), b) >= 0 }

// postgresAppend appends a message. The first message has no type; its kind
// is 0.
func postgresAppend(dst []byte, kind byte, body []byte) []byte {
	if kind != 0 {
		dst = append(dst, kind)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// postgresStrings reads strings that end with a zero byte, up to an empty one
// or the end.
func postgresStrings(body []byte) []string {
	var list []string
	for len(body) > 0 && body[0] != 0 {
		s, rest, ok := bytes.Cut(body, []byte{0})
		if !ok {
			break
		}
		list, body = append(list, string(s)), rest
	}
	return list
}

// postgresError is an error or a notice of the server.
type postgresError struct{ code, message string }

func postgresParseError(body []byte) postgresError {
	var e postgresError
	for _, field := range postgresStrings(body) {
		switch field[0] {
		case 'C':
			e.code = field[1:]
		case 'M':
			e.message = field[1:]
		}
	}
	return e
}

// postgresRow takes a row apart; a NULL is nil.
func postgresRow(body []byte) (columns [][]byte, ok bool) {
	if len(body) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range n {
		if len(body) < 4 {
			return nil, false
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		switch {
		case size == -1:
			columns = append(columns, nil)
			continue
		case size < 0 || int(size) > len(body):
			return nil, false
		}
		columns, body = append(columns, body[:size:size]), body[size:]
	}
	return columns, len(body) == 0
}
