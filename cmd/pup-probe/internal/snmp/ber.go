// Package snmp makes and takes apart the messages of SNMP: version 1 (RFC
// 1157), 2c (RFC 1901) and 3 (RFC 3412) with the user-based security model
// (RFC 3414, 3826, 7860).
package snmp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The tags of BER that SNMP uses (RFC 2578, section 7.1; RFC 3416).
const (
	tagInteger   = 0x02
	tagOctets    = 0x04
	tagNull      = 0x05
	tagOID       = 0x06
	tagSequence  = 0x30
	tagIPAddress = 0x40
	tagCounter32 = 0x41
	tagGauge32   = 0x42
	tagTimeTicks = 0x43
	tagOpaque    = 0x44
	tagCounter64 = 0x46

	tagNoSuchObject   = 0x80
	tagNoSuchInstance = 0x81
	tagEndOfView      = 0x82
)

var errShort = errors.New("it ends too early")

// next takes an element off b. Lengths are definite and of at most four bytes,
// as RFC 3417, section 8, wants them.
func next(b []byte) (tag byte, content, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, nil, errShort
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return 0, nil, nil, fmt.Errorf("tag %#x is of more than one byte", tag)
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		digits := n & 0x7f
		if digits == 0 || digits > 4 || len(b) < 2+digits {
			return 0, nil, nil, errors.New("a length makes no sense")
		}
		n, head = 0, 2+digits
		for _, d := range b[2:head] {
			n = n<<8 | int(d)
		}
	}
	if n > len(b)-head {
		return 0, nil, nil, errShort
	}
	return tag, b[head : head+n], b[head+n:], nil
}

// expect takes an element with the given tag off b.
func expect(b []byte, want byte) (content, rest []byte, err error) {
	tag, content, rest, err := next(b)
	if err == nil && tag != want {
		err = fmt.Errorf("tag %#x, want %#x", tag, want)
	}
	return content, rest, err
}

func takeInt(b []byte) (n int, rest []byte, err error) {
	content, rest, err := expect(b, tagInteger)
	if err != nil {
		return 0, nil, err
	}
	v, err := integer(content)
	if err == nil && (v > math.MaxInt32 || v < math.MinInt32) {
		err = fmt.Errorf("%d does not fit into 32 bits", v)
	}
	return int(v), rest, err
}

func integer(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 8 {
		return 0, fmt.Errorf("an integer of %d bytes", len(b))
	}
	v := int64(int8(b[0]))
	for _, d := range b[1:] {
		v = v<<8 | int64(d)
	}
	return v, nil
}

func unsigned(b []byte) (uint64, error) {
	if len(b) == 9 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 8 {
		return 0, fmt.Errorf("a counter of %d bytes", len(b))
	}
	var v uint64
	for _, d := range b {
		v = v<<8 | uint64(d)
	}
	return v, nil
}

// element makes an element of the given parts.
func element(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n+4)
	b = append(b, tag)
	switch {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func intElement(v int) []byte {
	b := []byte{byte(v)}
	for v < -128 || v > 127 {
		v >>= 8
		b = append([]byte{byte(v)}, b...)
	}
	return element(tagInteger, b)
}

// maxArcs bounds the numbers of an object identifier (RFC 2578, section 3.5).
const maxArcs = 128

// ParseOID reads an object identifier such as 1.3.6.1.2.1.1.3.0; a dot may
// come before it. It gives the identifier in BER.
func ParseOID(s string) ([]byte, error) {
	var arcs []uint64
	for digits := range strings.SplitSeq(strings.TrimPrefix(s, "."), ".") {
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || len(arcs) == maxArcs {
			return nil, fmt.Errorf("%.80q is no object identifier such as 1.3.6.1.2.1.1.3.0", s)
		}
		arcs = append(arcs, n)
	}
	if len(arcs) < 2 || arcs[0] > 2 || arcs[0] < 2 && arcs[1] > 39 {
		return nil, fmt.Errorf("%.80q is no object identifier: it begins with no root", s)
	}
	b := appendArc(nil, arcs[0]*40+arcs[1])
	for _, n := range arcs[2:] {
		b = appendArc(b, n)
	}
	return b, nil
}

func appendArc(b []byte, n uint64) []byte {
	shift := 0
	for n>>(shift+7) > 0 {
		shift += 7
	}
	for ; shift > 0; shift -= 7 {
		b = append(b, byte(n>>shift)|0x80)
	}
	return append(b, byte(n)&0x7f)
}

// oidText writes an object identifier from BER.
func oidText(b []byte) (string, error) {
	if len(b) == 0 || b[len(b)-1]&0x80 != 0 {
		return "", errors.New("an object identifier that does not end")
	}
	var text []byte
	var n uint64
	arcs := 0
	for i, c := range b {
		if n == 0 && c == 0x80 || n > math.MaxUint32>>7+80 {
			return "", fmt.Errorf("an object identifier with a bad number at byte %d", i)
		}
		if n = n<<7 | uint64(c&0x7f); c&0x80 != 0 {
			continue
		}
		if arcs++; arcs >= maxArcs {
			return "", fmt.Errorf("an object identifier of more than %d numbers", maxArcs)
		}
		if arcs == 1 {
			root := min(n/40, 2)
			text = strconv.AppendUint(text, root, 10)
			n -= 40 * root
		}
		text = strconv.AppendUint(append(text, '.'), n, 10)
		n = 0
	}
	return string(text), nil
}

// A Variable is an object and its value.
type Variable struct {
	OID  string
	Type string // Integer, Counter32 and so on
	// Value is an int64, a uint64, a float64 or a string; it is nil where there
	// is no such object. Octets that are no text are in hex, with colons.
	Value any
}

// Missing says whether the agent has no such object.
func (v *Variable) Missing() bool { return v.Value == nil }

func parseVariable(b []byte) (v Variable, err error) {
	oid, rest, err := expect(b, tagOID)
	if err != nil {
		return v, err
	}
	if v.OID, err = oidText(oid); err != nil {
		return v, err
	}
	tag, content, rest, err := next(rest)
	if err != nil {
		return v, err
	}
	if len(rest) > 0 {
		return v, errors.New("something follows a value")
	}
	return v, v.set(tag, content)
}

func (v *Variable) set(tag byte, b []byte) (err error) {
	switch tag {
	case tagInteger:
		v.Type = "Integer"
		v.Value, err = integer(b)
	case tagCounter32, tagGauge32, tagTimeTicks, tagCounter64:
		v.Type = map[byte]string{tagCounter32: "Counter32", tagGauge32: "Gauge32", tagTimeTicks: "TimeTicks", tagCounter64: "Counter64"}[tag]
		v.Value, err = unsigned(b)
	case tagOctets:
		v.Type, v.Value = "OctetString", octets(b)
	case tagOID:
		v.Type = "ObjectIdentifier"
		v.Value, err = oidText(b)
	case tagIPAddress:
		v.Type = "IpAddress"
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return fmt.Errorf("an address of %d bytes", len(b))
		}
		v.Value = a.String()
	case tagOpaque:
		v.Type, v.Value = "Opaque", opaque(b)
	case tagNull:
		v.Type = "Null"
	case tagNoSuchObject:
		v.Type = "noSuchObject"
	case tagNoSuchInstance:
		v.Type = "noSuchInstance"
	case tagEndOfView:
		v.Type = "endOfMibView"
	default:
		return fmt.Errorf("a value with tag %#x", tag)
	}
	return err
}

func octets(b []byte) string {
	if utf8.Valid(b) && strings.IndexFunc(string(b), func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	}) < 0 {
		return string(b)
	}
	return colons(b)
}

func colons(b []byte) string {
	h := make([]byte, 0, 3*len(b))
	for i, c := range b {
		if i > 0 {
			h = append(h, ':')
		}
		h = hex.AppendEncode(h, []byte{c})
	}
	return string(h)
}

// opaque reads the floating-point numbers that Net-SNMP wraps, and gives
// anything else in hex.
func opaque(b []byte) any {
	switch {
	case len(b) == 7 && b[0] == 0x9f && b[1] == 0x78 && b[2] == 4:
		bits, _ := unsigned(b[3:])
		return finite(float64(math.Float32frombits(uint32(bits))), b)
	case len(b) == 11 && b[0] == 0x9f && b[1] == 0x79 && b[2] == 8:
		bits, _ := unsigned(b[3:])
		return finite(math.Float64frombits(bits), b)
	}
	return colons(b)
}

func finite(f float64, b []byte) any {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return colons(b)
	}
	return f
}
