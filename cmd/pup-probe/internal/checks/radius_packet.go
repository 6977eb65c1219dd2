package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"unicode/utf8"

	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

// The codes of packets (RFC 2865, section 3).
const (
	radiusAccessRequest      = 1
	radiusAccept             = 2
	radiusReject             = 3
	radiusAccountingResponse = 5
	radiusChallenge          = 11
	radiusStatusServer       = 12
)

var radiusCodes = map[byte]string{
	radiusAccessRequest: "Access-Request", radiusAccept: "Access-Accept", radiusReject: "Access-Reject",
	radiusAccountingResponse: "Accounting-Response", radiusChallenge: "Access-Challenge", radiusStatusServer: "Status-Server",
}

// The types of attributes that are used here.
const (
	radiusUserName             = 1
	radiusUserPassword         = 2
	radiusCHAPPassword         = 3
	radiusReplyMessage         = 18
	radiusSessionTimeout       = 27
	radiusNASIdentifier        = 32
	radiusMessageAuthenticator = 80
)

// The kinds of values.
const (
	radiusText = iota
	radiusNumber
	radiusAddress
	radiusBytes
)

type radiusKind struct {
	name string
	kind int
}

var radiusAttributes = sync.OnceValue(func() map[byte]radiusKind {
	return map[byte]radiusKind{
		1: {"User-Name", radiusText}, 6: {"Service-Type", radiusNumber}, 7: {"Framed-Protocol", radiusNumber},
		8: {"Framed-IP-Address", radiusAddress}, 9: {"Framed-IP-Netmask", radiusAddress}, 11: {"Filter-Id", radiusText},
		12: {"Framed-MTU", radiusNumber}, 14: {"Login-IP-Host", radiusAddress}, 18: {"Reply-Message", radiusText}, 24: {"State", radiusBytes},
		25: {"Class", radiusBytes}, 26: {"Vendor-Specific", radiusBytes}, 27: {"Session-Timeout", radiusNumber},
		28: {"Idle-Timeout", radiusNumber}, 29: {"Termination-Action", radiusNumber}, 32: {"NAS-Identifier", radiusText},
		33: {"Proxy-State", radiusBytes}, 64: {"Tunnel-Type", radiusNumber}, 65: {"Tunnel-Medium-Type", radiusNumber},
		81: {"Tunnel-Private-Group-Id", radiusBytes}, 85: {"Acct-Interim-Interval", radiusNumber},
	}
})

const (
	radiusHeader    = 20
	radiusMaxPacket = 4096
	radiusMaxValue  = 253
)

// A radiusUnsigned says that an answer is not signed with our secret.
type radiusUnsigned struct{}

func (radiusUnsigned) Error() string {
	return "the server answers, but the answer is not signed with our secret"
}

// A radiusPacket is a packet, taken apart.
type radiusPacket struct {
	code, id   byte
	wire       []byte
	attributes []radiusValue
}

type radiusValue struct {
	kind  byte
	at    int // of the value in the packet
	value []byte
}

// radiusParse takes a packet apart. What follows it in a datagram is padding.
func radiusParse(b []byte) (*radiusPacket, error) {
	if len(b) < radiusHeader {
		return nil, fmt.Errorf("of %d bytes, where RADIUS has %d or more", len(b), radiusHeader)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < radiusHeader || n > len(b) || n > radiusMaxPacket {
		return nil, fmt.Errorf("a packet that says it has %d bytes, and has %d", n, len(b))
	}
	p := &radiusPacket{code: b[0], id: b[1], wire: b[:n]}
	for at := radiusHeader; at < n; {
		if n-at < 2 || int(b[at+1]) < 2 || int(b[at+1]) > n-at {
			return nil, fmt.Errorf("a packet with a broken attribute at byte %d", at)
		}
		end := at + int(b[at+1])
		p.attributes = append(p.attributes, radiusValue{b[at], at + 2, b[at+2 : end]})
		at = end
	}
	return p, nil
}

// value gives the first attribute of a type, or nil.
func (p *radiusPacket) value(kind byte) *radiusValue {
	for i := range p.attributes {
		if p.attributes[i].kind == kind {
			return &p.attributes[i]
		}
	}
	return nil
}

func (v *radiusValue) name() string {
	if a, ok := radiusAttributes()[v.kind]; ok {
		return a.name
	}
	return "Attribute-" + strconv.Itoa(int(v.kind))
}

func (v *radiusValue) number() (int, bool) {
	if len(v.value) != 4 {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(v.value)), true
}

func (v *radiusValue) text() string {
	kind := radiusBytes
	if a, ok := radiusAttributes()[v.kind]; ok {
		kind = a.kind
	}
	switch {
	case kind == radiusText && utf8.Valid(v.value):
		return string(v.value)
	case kind == radiusNumber && len(v.value) == 4:
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(v.value)), 10)
	case kind == radiusAddress && len(v.value) == 4:
		return netip.AddrFrom4([4]byte(v.value)).String()
	}
	return hex.EncodeToString(v.value)
}

// A radiusRequest is a request, and what is needed to know its answer.
type radiusRequest struct {
	code, id byte
	secret   []byte
	wire     []byte
}

// radiusAsk makes the request that the options ask for.
func radiusAsk(p *probe.Probe, opt *radiusOptions) *radiusRequest {
	secret := opt.Secret
	if secret == "" && p.URL.Scheme.TLS {
		secret = "radsec"
	}
	if opt.User == "" {
		return radiusNew(radiusStatusServer, secret).add(radiusNASIdentifier, []byte(opt.NASIdentifier)).sign()
	}
	q := radiusNew(radiusAccessRequest, secret).add(radiusUserName, []byte(opt.User)).add(radiusNASIdentifier, []byte(opt.NASIdentifier))
	if opt.Method == "chap" {
		// without CHAP-Challenge the authenticator is the challenge (RFC 2865, section 5.3)
		h := md5.Sum(append(append([]byte{q.id}, opt.Password...), q.wire[4:radiusHeader]...))
		return q.add(radiusCHAPPassword, append([]byte{q.id}, h[:]...)).sign()
	}
	return q.add(radiusUserPassword, q.hide(opt.Password)).sign()
}

// radiusNew begins a request with room for its signature, which is to
// be the first attribute.
func radiusNew(code byte, secret string) *radiusRequest {
	b := make([]byte, radiusHeader, 256)
	b[0] = code
	rand.Read(b[1:2]) // never fails
	rand.Read(b[4:radiusHeader])
	q := &radiusRequest{code: code, id: b[1], secret: []byte(secret), wire: b}
	return q.add(radiusMessageAuthenticator, make([]byte, md5.Size))
}

func (q *radiusRequest) add(kind byte, value []byte) *radiusRequest {
	q.wire = append(append(q.wire, kind, byte(2+len(value))), value...)
	binary.BigEndian.PutUint16(q.wire[2:], uint16(len(q.wire)))
	return q
}

// hide hides a password (RFC 2865, section 5.2).
func (q *radiusRequest) hide(password string) []byte {
	b := make([]byte, max(16, (len(password)+15)/16*16))
	copy(b, password)
	last := q.wire[4:radiusHeader]
	for i := 0; i < len(b); i += md5.Size {
		key := md5.Sum(append(bytes.Clone(q.secret), last...))
		for j := range key {
			b[i+j] ^= key[j]
		}
		last = b[i : i+md5.Size]
	}
	return b
}

// sign fills the Message-Authenticator in (RFC 3579, section 3.2).
func (q *radiusRequest) sign() *radiusRequest {
	copy(q.wire[radiusHeader+2:], radiusMAC(q.secret, q.wire))
	return q
}

func radiusMAC(secret, packet []byte) []byte {
	h := hmac.New(md5.New, secret)
	h.Write(packet)
	return h.Sum(nil)
}

// bare makes a request that any server answers which knows our address,
// whatever its secret: it has no signature.
func (q *radiusRequest) bare() *radiusRequest {
	b := radiusNew(radiusAccessRequest, string(q.secret))
	b.wire = b.wire[:radiusHeader]
	if b.id == q.id {
		b.id++
		b.wire[1] = b.id
	}
	return b.add(radiusUserName, []byte("pup-probe")).add(radiusUserPassword, b.hide("")).add(radiusNASIdentifier, []byte("pup-probe"))
}

// signed says whether the answer to q is signed with our secret: in its
// authenticator, and in the attribute for it if it has one.
func (q *radiusRequest) signed(p *radiusPacket) error {
	if p.code == radiusAccessRequest || p.code == radiusStatusServer {
		return datagram.Stray("a request, not an answer")
	}
	b := append(bytes.Clone(p.wire), q.secret...)
	copy(b[4:radiusHeader], q.wire[4:radiusHeader])
	sum := md5.Sum(b)
	if !hmac.Equal(sum[:], p.wire[4:radiusHeader]) {
		return radiusUnsigned{}
	}
	if v := p.value(radiusMessageAuthenticator); v != nil {
		b = b[:len(p.wire)]
		if len(v.value) != md5.Size {
			return probe.Protocolf("the answer has a Message-Authenticator of %d bytes, want %d", len(v.value), md5.Size)
		}
		clear(b[v.at : v.at+md5.Size])
		if !hmac.Equal(radiusMAC(q.secret, b), v.value) {
			return probe.Protocolf("the Message-Authenticator of the answer is wrong: somebody has changed it")
		}
	}
	return nil
}
