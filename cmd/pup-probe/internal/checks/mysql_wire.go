package checks

import (
	"bytes"
	"encoding/binary"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// mysqlMaxPacket bounds a packet of the server, in bytes.
const mysqlMaxPacket = 1 << 20

// The capabilities that the check knows (of either side).
const (
	mysqlLongPassword     = 1 << 0
	mysqlConnectWithDB    = 1 << 3
	mysqlProtocol41       = 1 << 9
	mysqlSSL              = 1 << 11
	mysqlTransactions     = 1 << 13
	mysqlSecureConnection = 1 << 15
	mysqlPluginAuth       = 1 << 19
)

// mysqlRead reads a packet, and its number in the exchange.
func mysqlRead(src interface{ Full([]byte) error }) (body []byte, number byte, err error) {
	var head [4]byte
	if err := src.Full(head[:]); err != nil {
		return nil, 0, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n > mysqlMaxPacket {
		return nil, 0, probe.Failf(wire.TooLarge, "a packet of %d bytes, more than %d", n, mysqlMaxPacket)
	}
	body = make([]byte, n)
	return body, head[3], src.Full(body)
}

// mysqlAppend appends a packet.
func mysqlAppend(dst []byte, number byte, body []byte) []byte {
	n := len(body)
	dst = append(dst, byte(n), byte(n>>8), byte(n>>16), number)
	return append(dst, body...)
}

// A mysqlGreeting is the first packet of a server.
type mysqlGreeting struct {
	version  string
	caps     uint32
	scramble []byte
	plugin   string
}

// mysqlParseGreeting takes the packet Handshake, version 10, apart.
func mysqlParseGreeting(b []byte) (g mysqlGreeting, ok bool) {
	if len(b) == 0 || b[0] != 10 {
		return g, false
	}
	version, rest, ok := bytes.Cut(b[1:], []byte{0})
	const fixed = 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10
	if !ok || len(version) == 0 || len(rest) < fixed+12 {
		return g, false
	}
	g.version = string(version)
	g.caps = uint32(binary.LittleEndian.Uint16(rest[13:])) | uint32(binary.LittleEndian.Uint16(rest[18:]))<<16
	size := max(13, int(rest[20])-8) // the second part of the scramble, with its zero byte
	tail := rest[fixed:]
	size = min(size, len(tail))
	g.scramble = bytes.Clone(rest[4:12])
	g.scramble = append(g.scramble, bytes.TrimSuffix(tail[:size:size], []byte{0})...)
	plugin, _, _ := bytes.Cut(tail[size:], []byte{0})
	g.plugin = string(plugin)
	return g, true
}

// A mysqlError is an ERR packet.
type mysqlError struct {
	code    int
	message string
}

// mysqlParseError takes an ERR packet apart, with or without an SQLSTATE.
func mysqlParseError(b []byte) (e mysqlError, ok bool) {
	if len(b) < 3 || b[0] != 0xff {
		return e, false
	}
	e.code = int(binary.LittleEndian.Uint16(b[1:]))
	text := b[3:]
	if len(text) >= 6 && text[0] == '#' {
		text = text[6:]
	}
	e.message = string(text)
	return e, true
}

// mysqlInteger takes a length-encoded integer from the front. Null is the one
// of a column.
func mysqlInteger(b []byte) (n uint64, null bool, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, false, nil, false
	}
	size := 0
	switch b[0] {
	case 0xfb:
		return 0, true, b[1:], true
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xff:
		return 0, false, nil, false
	default:
		return uint64(b[0]), false, b[1:], true
	}
	if len(b) < 1+size {
		return 0, false, nil, false
	}
	var wide [8]byte
	copy(wide[:], b[1:1+size])
	return binary.LittleEndian.Uint64(wide[:]), false, b[1+size:], true
}

// mysqlStrings takes a packet of length-encoded strings apart, at most count;
// a NULL is nil.
func mysqlStrings(b []byte, count int) (list [][]byte, ok bool) {
	for range count {
		n, null, rest, ok := mysqlInteger(b)
		if !ok || n > uint64(len(rest)) {
			return nil, false
		}
		if b = rest; null {
			list = append(list, nil)
			continue
		}
		list, b = append(list, b[:n:n]), b[n:]
	}
	return list, true
}
