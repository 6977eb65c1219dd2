package checks

import (
	"bytes"
	"encoding/binary"
	"math"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// The types of BSON (bsonspec.org, version 1.1) that the check reads or
// writes.
const (
	mongodbDouble  = 0x01
	mongodbString  = 0x02
	mongodbObject  = 0x03
	mongodbArray   = 0x04
	mongodbBinary  = 0x05
	mongodbBool    = 0x08
	mongodbDate    = 0x09
	mongodbInt32   = 0x10
	mongodbInt64   = 0x12
	mongodbMaxSize = 1 << 20 // of a message, in bytes
)

// A mongodbElement is a member of a document. Its value is as it came.
type mongodbElement struct {
	kind  byte
	name  string
	value []byte
}

// A mongodbDoc is a document, or an array.
type mongodbDoc []mongodbElement

// mongodbParse takes a document apart; the documents in it stay whole.
func mongodbParse(b []byte) (doc mongodbDoc, ok bool) {
	if len(b) < 5 || int64(binary.LittleEndian.Uint32(b)) != int64(len(b)) || b[len(b)-1] != 0 {
		return nil, false
	}
	b = b[4 : len(b)-1]
	for len(b) > 0 {
		name, rest, ok := bytes.Cut(b[1:], []byte{0})
		if !ok {
			return nil, false
		}
		n := mongodbLength(b[0], rest)
		if n < 0 || n > len(rest) {
			return nil, false
		}
		doc = append(doc, mongodbElement{b[0], string(name), rest[:n:n]})
		b = rest[n:]
	}
	return doc, true
}

// mongodbLength gives the length of a value, or -1.
func mongodbLength(kind byte, b []byte) int {
	prefixed := func(more int) int { // by a length of 4 bytes
		if len(b) < 4 {
			return -1
		}
		n := int64(binary.LittleEndian.Uint32(b)) + int64(more)
		if n < int64(max(4, more)) || n > mongodbMaxSize {
			return -1
		}
		return int(n)
	}
	switch kind {
	case 0x06, 0x0a, 0x7f, 0xff: // undefined, null, and the ends of all
		return 0
	case mongodbBool:
		return 1
	case mongodbInt32:
		return 4
	case mongodbDouble, mongodbDate, mongodbInt64, 0x11: // the last is a timestamp
		return 8
	case 0x07: // an object's id
		return 12
	case 0x13: // a decimal number
		return 16
	case mongodbString, 0x0d, 0x0e: // and code, and symbols
		return prefixed(4)
	case mongodbObject, mongodbArray, 0x0f: // and code with its scope
		return prefixed(0)
	case mongodbBinary:
		return prefixed(5)
	case 0x0c: // a pointer
		return prefixed(16)
	case 0x0b: // a regular expression
		if i := bytes.IndexByte(b, 0); i >= 0 {
			if j := bytes.IndexByte(b[i+1:], 0); j >= 0 {
				return i + j + 2
			}
		}
	}
	return -1
}

func (d mongodbDoc) get(name string) *mongodbElement {
	for i := range d {
		if d[i].name == name {
			return &d[i]
		}
	}
	return &mongodbElement{}
}

// text gives a string, or "".
func (e *mongodbElement) text() string {
	if e.kind != mongodbString || len(e.value) < 5 {
		return ""
	}
	return string(e.value[4 : len(e.value)-1])
}

// data gives binary data, or nil.
func (e *mongodbElement) data() []byte {
	if e.kind != mongodbBinary {
		return nil
	}
	return e.value[5:]
}

// doc gives a document or array, or nil.
func (e *mongodbElement) doc() mongodbDoc {
	if e.kind != mongodbObject && e.kind != mongodbArray {
		return nil
	}
	d, _ := mongodbParse(e.value)
	return d
}

// number gives a number of any kind, or the milliseconds of a date.
func (e *mongodbElement) number() (float64, bool) {
	switch e.kind {
	case mongodbDouble:
		x := math.Float64frombits(binary.LittleEndian.Uint64(e.value))
		return x, !math.IsNaN(x) && !math.IsInf(x, 0)
	case mongodbInt32:
		return float64(int32(binary.LittleEndian.Uint32(e.value))), true
	case mongodbInt64, mongodbDate:
		return float64(int64(binary.LittleEndian.Uint64(e.value))), true
	}
	return 0, false
}

// yes says whether a value is true, or a number that is not zero.
func (e *mongodbElement) yes() bool {
	x, ok := e.number()
	return ok && x != 0 || e.kind == mongodbBool && e.value[0] != 0
}

// encode writes the document.
func (d mongodbDoc) encode() []byte {
	b := make([]byte, 4, 128)
	for _, e := range d {
		b = append(append(append(b, e.kind), e.name...), 0)
		b = append(b, e.value...)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func mongodbNewInt(name string, n int32) mongodbElement {
	return mongodbElement{mongodbInt32, name, binary.LittleEndian.AppendUint32(nil, uint32(n))}
}

func mongodbNewString(name, text string) mongodbElement {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(text)+1))
	return mongodbElement{mongodbString, name, append(append(b, text...), 0)}
}

func mongodbNewBinary(name string, data []byte) mongodbElement {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
	return mongodbElement{mongodbBinary, name, append(append(b, 0), data...)}
}

func mongodbNewDoc(name string, d mongodbDoc) mongodbElement {
	return mongodbElement{mongodbObject, name, d.encode()}
}

func mongodbNewBool(name string, yes bool) mongodbElement {
	e := mongodbElement{mongodbBool, name, []byte{0}}
	if yes {
		e.value[0] = 1
	}
	return e
}

// mongodbOpMsg is the one kind of message that servers have spoken since 3.6.
const mongodbOpMsg = 2013

// mongodbAppend appends a message OP_MSG with a document.
func mongodbAppend(dst []byte, id, responseTo uint32, doc mongodbDoc) []byte {
	b := doc.encode()
	for _, n := range []uint32{uint32(len(b) + 21), id, responseTo, mongodbOpMsg, 0} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return append(append(dst, 0), b...)
}

// mongodbRead reads the answer to the message id.
func mongodbRead(src interface{ Full([]byte) error }, id uint32) (mongodbDoc, error) {
	var head [16]byte
	if err := src.Full(head[:]); err != nil {
		return nil, err
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(head[at:]) }
	size := u32(0)
	switch {
	case u32(12) != mongodbOpMsg || size < 26 || u32(8) != id:
		return nil, probe.Protocolf("got %.80q, want an answer of a MongoDB server", head[:])
	case size > mongodbMaxSize:
		return nil, probe.Failf(wire.TooLarge, "an answer of %d bytes, more than %d", size, mongodbMaxSize)
	}
	body := make([]byte, size-16)
	if err := src.Full(body); err != nil {
		return nil, err
	}
	const checksum, mustKnow = 1, 0xffff
	flags := binary.LittleEndian.Uint32(body)
	end := len(body)
	if flags&checksum != 0 {
		end -= 4
	}
	if flags&mustKnow&^uint32(checksum) != 0 || body[4] != 0 {
		return nil, probe.Protocolf("an answer with flags %#x and a section %d", flags, body[4])
	}
	doc, ok := mongodbParse(body[5:max(5, end)])
	if !ok {
		return nil, probe.Protocolf("got %.80q, want a document", body)
	}
	return doc, nil
}
