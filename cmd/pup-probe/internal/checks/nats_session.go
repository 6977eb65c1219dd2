package checks

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// Bounds of what a server may send. INFO grows with the cluster.
const (
	natsMaxLine    = 64 << 10
	natsMaxPayload = 1 << 20
	natsMaxReply   = 1 << 10 // of a reply that becomes a fact
)

// natsInfo is what a server says of itself.
type natsInfo struct {
	ServerID     string   `json:"server_id"`
	ServerName   string   `json:"server_name"`
	Version      string   `json:"version"`
	Cluster      string   `json:"cluster"`
	ConnectURLs  []string `json:"connect_urls"`
	MaxPayload   int64    `json:"max_payload"`
	AuthRequired bool     `json:"auth_required"`
	TLSRequired  bool     `json:"tls_required"`
	TLSAvailable bool     `json:"tls_available"`
	JetStream    bool     `json:"jetstream"`
	Headers      bool     `json:"headers"`
	LameDuck     bool     `json:"ldm"`
	Nonce        string   `json:"nonce"`
}

// natsLogin is the part of CONNECT that says who we are.
type natsLogin struct {
	User      string `json:"user,omitempty"`
	Password  string `json:"pass,omitempty"`
	Token     string `json:"auth_token,omitempty"`
	JWT       string `json:"jwt,omitempty"`
	NKey      string `json:"nkey,omitempty"`
	Signature string `json:"sig,omitempty"`

	key ed25519.PrivateKey
}

// exposes says whether who listens on the way could log in with what is sent.
// A signature is good for one connection only.
func (l *natsLogin) exposes() bool { return l.Password != "" || l.Token != "" }

func (l *natsLogin) given() bool {
	return l.User != "" || l.Token != "" || l.JWT != "" || l.key != nil
}

// natsConnect is the argument of CONNECT.
type natsConnect struct {
	natsLogin
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	TLSRequired  bool   `json:"tls_required"`
	Name         string `json:"name"`
	Lang         string `json:"lang"`
	Version      string `json:"version"`
	Protocol     int    `json:"protocol"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
}

// natsSession is a client's session.
type natsSession struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *natsFacts
	sid   int
}

// line reads a line of at most natsMaxLine bytes; INFO may be longer than the
// buffer of a connection.
func (s *natsSession) line() (string, error) {
	var line []byte
	for {
		if err := s.c.Wait(); err != nil {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		seen, err := s.c.Peek(s.c.Buffered())
		if err != nil {
			return "", err
		}
		end := bytes.IndexByte(seen, '\n')
		n := len(seen)
		if end >= 0 {
			n = end + 1
		}
		if len(line)+n > natsMaxLine {
			return "", probe.Protocolf("the server sent a line longer than %d bytes", natsMaxLine)
		}
		line = append(line, seen[:n]...)
		if _, err := io.CopyN(io.Discard, s.c, int64(n)); err != nil {
			return "", err
		}
		if end >= 0 {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
	}
}

// A natsOp is an operation of the server.
type natsOp struct {
	name        string // in upper case
	text        string // what follows the name
	subject     string // of MSG and HMSG, as all below
	sid         int
	reply       string
	headerBytes int // of the payload, at its beginning
	bytes       int // of the payload, header and all
}

// natsParse reads the line of an operation.
func natsParse(line string) (*natsOp, error) {
	name, text, _ := strings.Cut(line, " ")
	op := &natsOp{name: strings.ToUpper(name), text: strings.TrimSpace(text)}
	counts := 1 // numbers at the end
	switch op.name {
	case "INFO", "PING", "PONG", "+OK", "-ERR":
		return op, nil
	case "MSG":
	case "HMSG":
		counts = 2
	default:
		return nil, probe.Protocolf("got %.80q, want an operation of NATS", line)
	}
	words := strings.Fields(op.text)
	if len(words) != 2+counts && len(words) != 3+counts {
		return nil, probe.Protocolf("%s: got %d arguments: %.80q", op.name, len(words), line)
	}
	op.subject = words[0]
	if len(words) == 3+counts {
		op.reply = words[2]
	}
	var err error
	number := func(s string, most int) int {
		n, e := strconv.ParseUint(s, 10, 32)
		if e != nil || n > uint64(most) {
			err = probe.Protocolf("%s: %.20q is not a number up to %d: %.80q", op.name, s, most, line)
		}
		return int(n)
	}
	op.sid = number(words[1], math.MaxInt32)
	op.bytes = number(words[len(words)-1], natsMaxPayload)
	if counts == 2 {
		op.headerBytes = number(words[len(words)-2], op.bytes)
	}
	if err != nil {
		return nil, err
	}
	return op, nil
}

// next reads the next operation, and answers a PING. The server may send INFO
// at any time.
func (s *natsSession) next() (*natsOp, error) {
	for {
		line, err := s.line()
		if err != nil {
			return nil, err
		}
		op, err := natsParse(line)
		if err != nil {
			return nil, err
		}
		switch op.name {
		case "PING":
			if err := s.c.Printf("PONG\r\n"); err != nil {
				return nil, err
			}
		case "+OK":
		case "INFO":
			if info, err := s.info(op.text); err == nil && info.LameDuck {
				s.facts.LameDuck = new(true)
			}
		case "-ERR":
			return nil, natsError(op.text)
		default:
			return op, nil
		}
	}
}

// hello reads the INFO with which a server greets.
func (s *natsSession) hello() (*natsInfo, error) {
	line, err := s.line()
	if err != nil {
		return nil, err
	}
	op, err := natsParse(line)
	switch {
	case err == nil && op.name == "-ERR":
		return nil, natsError(op.text)
	case err != nil || op.name != "INFO":
		return nil, probe.Protocolf("got %.80q, want INFO", line)
	}
	info, err := s.info(op.text)
	if err != nil {
		return nil, err
	}
	f := s.facts
	f.ServerID, f.ServerName, f.Version, f.Cluster = info.ServerID, info.ServerName, info.Version, info.Cluster
	f.ConnectURLs, f.MaxPayloadBytes = info.ConnectURLs[:min(len(info.ConnectURLs), 64)], info.MaxPayload
	f.AuthRequired, f.TLSRequired, f.TLSAvailable = &info.AuthRequired, &info.TLSRequired, &info.TLSAvailable
	f.JetStream, f.LameDuck = &info.JetStream, &info.LameDuck
	return info, nil
}

func (s *natsSession) info(text string) (*natsInfo, error) {
	info := new(natsInfo)
	if err := json.Unmarshal([]byte(text), info); err != nil {
		return nil, probe.Protocolf("INFO: %.80q is not in JSON: %w", text, err)
	}
	if info.ServerID == "" || info.MaxPayload <= 0 {
		return nil, probe.Protocolf("INFO: %.80q has no server_id or no max_payload", text)
	}
	return info, nil
}

// connect logs in, and waits for the answer to a PING: a server says nothing
// to a CONNECT that it takes.
func (s *natsSession) connect(login *natsLogin, info *natsInfo) error {
	m := natsConnect{
		natsLogin: *login, TLSRequired: s.c.TLSState() != nil, Name: "pup", Lang: "go", Version: "1",
		Protocol: 1, Headers: true, NoResponders: info.Headers,
	}
	if login.key != nil {
		if info.Nonce == "" {
			return probe.Failf(wire.Denied, "the server sent no nonce to sign: it does not know NKeys")
		}
		m.Signature = base64.RawURLEncoding.EncodeToString(ed25519.Sign(login.key, []byte(info.Nonce)))
		if login.JWT == "" {
			m.NKey = natsPublic(login.key)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := s.c.Printf("CONNECT %s\r\nPING\r\n", b); err != nil {
		return err
	}
	op, err := s.next()
	if err == nil && op.name != "PONG" {
		err = probe.Protocolf("PING: got %s, want PONG", op.name)
	}
	if f, ok := errors.AsType[natsRefusal](err); ok && f.denied() && !login.given() {
		return probe.Failf(wire.Denied, "%w; no credentials are set", err)
	}
	return err
}

// natsRefusal is the text of -ERR, without quotes.
type natsRefusal string

func (r natsRefusal) Error() string { return fmt.Sprintf("the server says %.160q", string(r)) }

func (r natsRefusal) denied() bool {
	return r.has("authorization", "authentication", "permissions", "revoked", "expired", "account")
}

func (r natsRefusal) has(words ...string) bool {
	text := strings.ToLower(string(r))
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// natsError words -ERR.
func natsError(text string) error {
	r := natsRefusal(strings.Trim(text, "'"))
	switch {
	case r.has("maximum", "shutdown", "no responders"):
		return probe.Failf(wire.Unavailable, "%w", r)
	case r.has("tls required"):
		return probe.Failf(wire.BadTLS, "%w", r)
	case r.denied():
		return probe.Failf(wire.Denied, "%w", r)
	}
	return probe.Protocolf("%w", r)
}

// natsMessage is a message that has arrived.
type natsMessage struct {
	status  string // of the header: 503 where nobody listens
	payload []byte
}

// await reads operations up to the first message of a subscription.
func (s *natsSession) await(sid int) (*natsMessage, error) {
	s.p.Phase(wire.Wait)
	for {
		op, err := s.next()
		if err != nil {
			return nil, err
		}
		if op.name == "PONG" {
			continue
		}
		b := make([]byte, op.bytes+2)
		if err := s.c.Full(b); err != nil {
			return nil, err
		}
		if !bytes.HasSuffix(b, []byte("\r\n")) {
			return nil, probe.Protocolf("%s: the payload does not end where it should", op.name)
		}
		if op.sid != sid {
			continue
		}
		m := &natsMessage{payload: b[op.headerBytes:op.bytes]}
		if op.headerBytes > 0 {
			head, _, _ := bytes.Cut(b[:op.headerBytes], []byte("\r\n"))
			status, ok := strings.CutPrefix(string(head), "NATS/1.0")
			if !ok {
				return nil, probe.Protocolf("HMSG: got the header %.80q, want NATS/1.0", head)
			}
			m.status = strings.TrimSpace(status)
		}
		return m, nil
	}
}

// ask sends a request to a subject and waits for the first reply.
func (s *natsSession) ask(subject, payload string) (*natsMessage, error) {
	s.p.Phase(wire.Request)
	s.sid++
	inbox := "_INBOX." + brokerToken()
	err := s.c.Printf("SUB %s %d\r\nUNSUB %d 1\r\nPUB %s %s %d\r\n%s\r\n", inbox, s.sid, s.sid, subject, inbox, len(payload), payload)
	if err != nil {
		return nil, err
	}
	m, err := s.await(s.sid)
	if err == nil && strings.HasPrefix(m.status, "503") {
		err = probe.Failf(wire.Unavailable, "nobody answers to %.80q: the server knows no subscriber", subject)
	}
	return m, err
}

// canary publishes a token and waits for it.
func (s *natsSession) canary(opt *natsOptions) error {
	if !opt.Canary {
		return nil
	}
	s.p.Phase(wire.Request)
	s.sid++
	token := brokerToken()
	subject := opt.CanaryPrefix + "." + token
	start := time.Now()
	err := s.c.Printf("SUB %s %d\r\nUNSUB %d 1\r\nPUB %s %d\r\n%s\r\n", subject, s.sid, s.sid, subject, len(token), token)
	if err != nil {
		return err
	}
	m, err := s.await(s.sid)
	if err == nil && string(m.payload) != token {
		err = probe.Failf(wire.Mismatch, "canary: got %.80q, want the token that was published", m.payload)
	}
	if err == nil {
		s.facts.CanaryMS = new(wire.MS(time.Since(start)))
	}
	return err
}

// service asks whoever listens to the subject of the option request.
func (s *natsSession) service(opt *natsOptions) error {
	if opt.Request == "" {
		return nil
	}
	start := time.Now()
	m, err := s.ask(opt.Request, opt.Payload)
	if err == nil {
		s.facts.ReplyMS = new(wire.MS(time.Since(start)))
		s.facts.Reply = new(ndjson.Cut(string(m.payload), natsMaxReply))
	}
	return err
}

// The prefixes of NKeys, as the first five bits.
const (
	natsPrefixSeed = 18 << 3 // S
	natsPrefixUser = 20 << 3 // U
)

var natsBase32 = base32.StdEncoding.WithPadding(base32.NoPadding)

// natsSeed reads the seed of a user's NKey: a prefix of two bytes, the seed of
// an Ed25519 key, and a checksum, in base32.
func natsSeed(text string) (ed25519.PrivateKey, bool) {
	b, err := natsBase32.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != 2+ed25519.SeedSize+2 {
		return nil, false
	}
	body, sum := b[:len(b)-2], b[len(b)-2:]
	kind := body[0]&7<<5 | body[1]&0xf8>>3
	if binary.LittleEndian.Uint16(sum) != natsChecksum(body) || body[0]&0xf8 != natsPrefixSeed || kind != natsPrefixUser {
		return nil, false
	}
	return ed25519.NewKeyFromSeed(body[2:]), true
}

// natsPublic gives the public form of a user's NKey.
func natsPublic(key ed25519.PrivateKey) string {
	b := append([]byte{natsPrefixUser}, key.Public().(ed25519.PublicKey)...)
	return natsBase32.EncodeToString(binary.LittleEndian.AppendUint16(b, natsChecksum(b)))
}

// natsChecksum is CRC-16/XMODEM.
func natsChecksum(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			top := crc & 0x8000
			crc <<= 1
			if top != 0 {
				crc ^= 0x1021
			}
		}
	}
	return crc
}

// natsCreds takes the JWT and the seed out of a credentials file: two blocks
// between lines of dashes.
func natsCreds(text string) (jwt, seed string, ok bool) {
	jwt, ok1 := natsBlock(text, "NATS USER JWT")
	seed, ok2 := natsBlock(text, "USER NKEY SEED")
	return jwt, seed, ok1 && ok2
}

func natsBlock(text, title string) (string, bool) {
	_, rest, ok := strings.Cut(text, "BEGIN "+title)
	body, _, ok2 := strings.Cut(strings.TrimLeft(rest, "-"), "---")
	words := strings.Fields(body)
	if !ok || !ok2 || len(words) != 1 {
		return "", false
	}
	return words[0], true
}
