// Package dnsmsg makes and takes apart DNS messages (RFC 1035), for pup-probe's
// own resolver and for its check dns.
package dnsmsg

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/miekg/dns"
)

// UDPSize is the size of a UDP answer that we ask for, which passes every
// network in one piece (DNS flag day 2020).
const UDPSize = 1232

// A Query is a question and its message.
type Query struct {
	Name  string // fully qualified
	Type  uint16
	Class uint16
	ID    uint16
	Wire  []byte
}

// Options are what a query says besides its question.
type Options struct {
	Recurse  bool // the flag RD
	Checking bool // the flag CD: checking disabled
	EDNS     bool // RFC 6891, with UDPSize
	DNSSEC   bool // the flag DO: send signatures; needs EDNS
	NSID     bool // ask for the server's identifier (RFC 5001); needs EDNS
}

const (
	flagRD = 1 << 8
	flagAD = 1 << 5
	flagCD = 1 << 4
	flagDO = 1 << 15
)

// New makes a query with a random identifier. Name is fully qualified. It asks
// for the flag AD, too (RFC 6840, section 5.7).
func New(name string, qtype, class uint16, o Options) (*Query, error) {
	q := &Query{Name: name, Type: qtype, Class: class, ID: newID()}
	b := make([]byte, 12+len(name)+1+4+11+4)
	flags := uint16(flagAD)
	if o.Recurse {
		flags |= flagRD
	}
	if o.Checking {
		flags |= flagCD
	}
	binary.BigEndian.PutUint16(b, q.ID)
	binary.BigEndian.PutUint16(b[2:], flags)
	b[5] = 1 // a question
	n, err := dns.PackDomainName(name, b, 12, nil, false)
	if err != nil {
		return nil, fmt.Errorf("%.80q is no domain name: %w", name, err)
	}
	b = binary.BigEndian.AppendUint16(b[:n], qtype)
	b = binary.BigEndian.AppendUint16(b, class)
	if o.EDNS {
		b[11] = 1 // an additional record, OPT
		ttl, opt := uint32(0), []byte{}
		if o.DNSSEC {
			ttl |= flagDO
		}
		if o.NSID {
			opt = []byte{0, dns.EDNS0NSID, 0, 0}
		}
		b = append(b, 0, 0, byte(dns.TypeOPT), UDPSize>>8, UDPSize&0xff)
		b = binary.BigEndian.AppendUint32(b, ttl)
		b = binary.BigEndian.AppendUint16(b, uint16(len(opt)))
		b = append(b, opt...)
	}
	q.Wire = b
	return q, nil
}

func newID() uint16 {
	var b [2]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint16(b[:])
}

// ErrNotOurs says that a message is no answer to the query.
var ErrNotOurs = errors.New("no answer to our query")

// Answer reads the answer to q. It wraps ErrNotOurs where the message belongs
// to something else: no response, another identifier or another question; a
// forger or a lost server sends those. Other errors mean that the answer is
// ours but broken, and Answer then gives its header.
func (q *Query) Answer(b []byte) (*dns.Msg, error) {
	if len(b) < 12 {
		return nil, fmt.Errorf("%w: %d bytes are no DNS message", ErrNotOurs, len(b))
	}
	if id := binary.BigEndian.Uint16(b); id != q.ID {
		return nil, fmt.Errorf("%w: identifier %d instead of %d", ErrNotOurs, id, q.ID)
	}
	if b[2]&0x80 == 0 {
		return nil, fmt.Errorf("%w: a query, not a response", ErrNotOurs)
	}
	if op := b[2] >> 3 & 15; op != dns.OpcodeQuery {
		return nil, fmt.Errorf("%w: opcode %d", ErrNotOurs, op)
	}
	m := new(dns.Msg)
	err := m.Unpack(b)
	// a server that can't read our query may not repeat it
	bare := len(m.Question) == 0 && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented)
	if !bare && !q.matches(m) {
		return nil, fmt.Errorf("%w: another question", ErrNotOurs)
	}
	return m, err
}

func (q *Query) matches(m *dns.Msg) bool {
	return len(m.Question) == 1 && m.Question[0].Qtype == q.Type && m.Question[0].Qclass == q.Class &&
		strings.EqualFold(m.Question[0].Name, q.Name)
}

// WriteTCP writes messages as DNS over TCP frames them (RFC 1035, section
// 4.2.2), in one write.
func WriteTCP(w io.Writer, messages ...[]byte) error {
	var b []byte
	for _, m := range messages {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(m))), m...)
	}
	_, err := w.Write(b)
	return err
}

// ReadTCP reads a message that DNS over TCP has framed. It gives io.EOF only
// before the first byte.
func ReadTCP(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// Rcode gives the name of a response code.
func Rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", code)
}

// Extended gives the extended errors of an answer (RFC 8914) in words, or "".
func Extended(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	var texts []string
	for _, o := range opt.Option {
		e, ok := o.(*dns.EDNS0_EDE)
		if !ok || len(texts) == 4 {
			continue
		}
		text := dns.ExtendedErrorCodeToString[e.InfoCode]
		if text == "" {
			text = fmt.Sprintf("extended error %d", e.InfoCode)
		}
		if e.ExtraText != "" {
			text += fmt.Sprintf(" (%.80q)", e.ExtraText)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// Valid says whether name, without a dot at its end, can be asked for: labels
// of 1 to 63 bytes, 253 bytes in all, ASCII.
func Valid(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("%.80q is longer than the 253 bytes of a domain name", name)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("%.80q is no domain name: its labels must have 1 to 63 bytes", name)
		}
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return fmt.Errorf("%.80q is not ASCII; write its xn-- form", name)
		}
	}
	return nil
}
