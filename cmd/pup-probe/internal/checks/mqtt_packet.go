package checks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
)

// The types of control packets (MQTT 5.0, section 2.1.2).
const (
	mqttCONNECT     = 1
	mqttCONNACK     = 2
	mqttPUBLISH     = 3
	mqttPUBACK      = 4
	mqttPUBREC      = 5
	mqttPUBREL      = 6
	mqttPUBCOMP     = 7
	mqttSUBSCRIBE   = 8
	mqttSUBACK      = 9
	mqttUNSUBSCRIBE = 10
	mqttUNSUBACK    = 11
	mqttPINGREQ     = 12
	mqttPINGRESP    = 13
	mqttDISCONNECT  = 14
	mqttAUTH        = 15
)

var mqttNames = [16]string{"packet 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
	"SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// Identifiers of properties (MQTT 5.0, section 2.2.2.2).
const (
	mqttAssignedClientID = 0x12
	mqttServerKeepAlive  = 0x13
	mqttAuthMethod       = 0x15
	mqttAuthData         = 0x16
	mqttServerReference  = 0x1c
	mqttReasonString     = 0x1f
	mqttReceiveMaximum   = 0x21
	mqttMaximumQoS       = 0x24
	mqttRetainAvailable  = 0x25
	mqttUserProperty     = 0x26
	mqttMaximumPacket    = 0x27
)

// mqttProperties holds the properties of a packet, by their identifiers. Of
// one that comes more than once it holds the last.
type mqttProperties struct {
	numbers map[byte]uint32
	texts   map[byte]string
}

// A mqttPacket is a control packet, taken apart as far as its type has these
// members.
type mqttPacket struct {
	kind, flags byte
	session     bool // CONNACK: session present
	id          uint16
	code        byte   // the reason code, 0 where it is left out
	codes       []byte // SUBACK
	topic       string
	payload     []byte
	properties  mqttProperties
}

func (m *mqttPacket) qos() byte    { return m.flags >> 1 & 3 }
func (m *mqttPacket) retain() bool { return m.flags&1 != 0 }

var errMQTTShort = errors.New("it ends too early")

// mqttHeader reads a fixed header: the type and flags, and the length of what
// follows. More is true if b holds only a part of it.
func mqttHeader(b []byte) (length, size int, more bool, err error) {
	for i := 1; i <= 4; i++ {
		if i >= len(b) {
			return 0, 0, true, nil
		}
		length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if i > 1 && b[i] == 0 {
				return 0, 0, false, errors.New("its length is written with more bytes than it needs")
			}
			return length, i + 1, false, nil
		}
	}
	return 0, 0, false, errors.New("its length has more than four bytes")
}

// mqttReader reads fields off the front of a packet. After the first that is
// not whole every field is zero, and err is set.
type mqttReader struct {
	b   []byte
	err error
}

func (r *mqttReader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		if r.err == nil {
			r.err = errMQTTShort
		}
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *mqttReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *mqttReader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *mqttReader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *mqttReader) binary() string { return string(r.take(int(r.uint16()))) }

func (r *mqttReader) text() string {
	s := r.binary()
	if !utf8.ValidString(s) && r.err == nil {
		r.err = fmt.Errorf("the text %.80q is not in UTF-8", s)
	}
	return s
}

// varint reads a number of at most four bytes.
func (r *mqttReader) varint() int {
	n := 0
	for i := range 4 {
		c := r.byte()
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n
		}
	}
	r.err = errors.New("a number has more than four bytes")
	return 0
}

// properties reads the properties of MQTT 5.
func (r *mqttReader) properties() mqttProperties {
	p := mqttProperties{map[byte]uint32{}, map[byte]string{}}
	in := mqttReader{b: r.take(r.varint()), err: r.err}
	for len(in.b) > 0 && in.err == nil {
		switch id := in.byte(); id {
		case 0x01, 0x17, 0x19, mqttMaximumQoS, mqttRetainAvailable, 0x28, 0x29, 0x2a:
			p.numbers[id] = uint32(in.byte())
		case mqttServerKeepAlive, mqttReceiveMaximum, 0x22, 0x23:
			p.numbers[id] = uint32(in.uint16())
		case 0x02, 0x11, 0x18, mqttMaximumPacket:
			p.numbers[id] = in.uint32()
		case 0x0b:
			p.numbers[id] = uint32(in.varint())
		case 0x03, 0x08, mqttAssignedClientID, mqttAuthMethod, 0x1a, mqttServerReference, mqttReasonString:
			p.texts[id] = in.text()
		case 0x09, mqttAuthData:
			p.texts[id] = in.binary()
		case mqttUserProperty:
			in.text()
			in.text()
		default:
			in.err = fmt.Errorf("there is no property 0x%02x", id)
		}
	}
	if r.err == nil {
		r.err = in.err
	}
	return p
}

// mqttParse takes a packet of a server apart: its first byte, and what follows
// the length. V5 says which version of the protocol it is in. The packet does
// not keep body.
func mqttParse(first byte, body []byte, v5 bool) (*mqttPacket, error) {
	m := &mqttPacket{kind: first >> 4, flags: first & 15}
	r := mqttReader{b: body}
	switch m.kind {
	case mqttCONNACK:
		ack := r.byte()
		m.session, m.code = ack == 1, r.byte()
		if ack > 1 {
			r.err = fmt.Errorf("its flags are 0x%02x", ack)
		}
		if v5 && len(r.b) > 0 { // a server that does not know 5 says so in the words of 3.1.1
			m.properties = r.properties()
		}
	case mqttPUBLISH:
		m.topic = r.text()
		if m.qos() == 3 {
			r.err = errors.New("its quality of service is 3")
		} else if m.qos() > 0 {
			m.id = r.uint16()
		}
		if v5 {
			m.properties = r.properties()
		}
		m.payload = append([]byte{}, r.b...)
		r.b = nil
	case mqttPUBACK, mqttPUBREC, mqttPUBREL, mqttPUBCOMP:
		m.id = r.uint16()
		m.reason(&r, v5)
	case mqttSUBACK, mqttUNSUBACK:
		m.id = r.uint16()
		if v5 {
			m.properties = r.properties()
		}
		m.codes = append([]byte{}, r.b...)
		r.b = nil
	case mqttPINGRESP:
	case mqttDISCONNECT, mqttAUTH:
		if !v5 {
			return nil, fmt.Errorf("%s: no server sends it in MQTT 3.1.1", mqttNames[m.kind])
		}
		m.reason(&r, v5)
	default:
		return nil, fmt.Errorf("%s: no server sends it", mqttNames[m.kind])
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("it has %d bytes too many", len(r.b))
	}
	if want := mqttFlags(m.kind); r.err == nil && m.kind != mqttPUBLISH && m.flags != want {
		r.err = fmt.Errorf("its flags are 0x%x, want 0x%x", m.flags, want)
	}
	if r.err != nil {
		return nil, fmt.Errorf("%s: %w", mqttNames[m.kind], r.err)
	}
	return m, nil
}

// reason reads a reason code and properties, either of which may be left out.
func (m *mqttPacket) reason(r *mqttReader, v5 bool) {
	if v5 && len(r.b) > 0 {
		m.code = r.byte()
	}
	if v5 && len(r.b) > 0 {
		m.properties = r.properties()
	}
}

// mqttFlags gives the flags that a type of packet must have.
func mqttFlags(kind byte) byte {
	if kind == mqttPUBREL || kind == mqttSUBSCRIBE || kind == mqttUNSUBSCRIBE {
		return 2
	}
	return 0
}

// mqttAppendPacket adds the fixed header to a body.
func mqttAppendPacket(dst []byte, kind, flags byte, body []byte) []byte {
	dst = append(dst, kind<<4|flags)
	return append(mqttAppendVarint(dst, len(body)), body...)
}

func mqttAppendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func mqttAppendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// mqttAppendPublish adds a PUBLISH without properties.
func mqttAppendPublish(dst []byte, m *mqttPacket, v5 bool) []byte {
	body := mqttAppendText(nil, m.topic)
	if m.qos() > 0 {
		body = binary.BigEndian.AppendUint16(body, m.id)
	}
	if v5 {
		body = append(body, 0)
	}
	return mqttAppendPacket(dst, mqttPUBLISH, m.flags, append(body, m.payload...))
}

// mqttCode is a reason code of MQTT 5, or a return code of MQTT 3.1.1.
type mqttCode struct {
	code byte
	v5   bool
}

// String gives the name of the code (MQTT 5.0, section 2.4; MQTT 3.1.1,
// section 3.2.2.3).
func (c mqttCode) String() string {
	name, ok := mqttCodes()[c.code]
	if c.code < 0x80 {
		name, ok = "", false
		if c.code > 0 && int(c.code) < len(mqttReturns) {
			name, ok = mqttReturns[c.code], true
		}
	} else if !c.v5 {
		name, ok = "failure", c.code == 0x80
	}
	if !ok {
		name = "unknown code"
	}
	return fmt.Sprintf("0x%02x, %s", c.code, name)
}

var mqttReturns = [...]string{"accepted", "unacceptable protocol version", "identifier rejected", "server unavailable", "bad user name or password", "not authorized"}

var mqttCodes = sync.OnceValue(func() map[byte]string {
	return map[byte]string{
		0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
		0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorized",
		0x88: "server unavailable", 0x89: "server busy", 0x8a: "banned", 0x8b: "server shutting down", 0x8c: "bad authentication method",
		0x8d: "keep alive timeout", 0x8e: "session taken over", 0x8f: "topic filter invalid", 0x90: "topic name invalid",
		0x91: "packet identifier in use", 0x92: "packet identifier not found", 0x93: "receive maximum exceeded", 0x94: "topic alias invalid",
		0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded", 0x98: "administrative action",
		0x99: "payload format invalid", 0x9a: "retain not supported", 0x9b: "QoS not supported", 0x9c: "use another server",
		0x9d: "server moved", 0x9e: "shared subscriptions not supported", 0x9f: "connection rate exceeded", 0xa0: "maximum connect time",
		0xa1: "subscription identifiers not supported", 0xa2: "wildcard subscriptions not supported",
	}
})
