package checks

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

type websocketOptions struct {
	httpLogin
	Subprotocols  []string          `json:"subprotocols" doc:"The subprotocols to offer; the server must pick one."`
	Origin        string            `json:"origin" doc:"The field Origin, which servers check to keep foreign pages out."`
	Headers       map[string]string `json:"headers" doc:"More fields to send. Host replaces the URL's host there."`
	SecretHeaders map[string]string `json:"secret_headers" secret:"true" doc:"Fields to send whose values are credentials."`
	Ping          bool              `json:"ping" doc:"Send a ping and wait for its pong."`
	Echo          bool              `json:"echo" doc:"Send a text that nobody can know and wait until the server sends it back."`
	Send          string            `json:"send" doc:"A text to send; the fact reply is the message that comes next."`
	Receive       bool              `json:"receive" doc:"Wait for a message, after send if there is one; implied by send."`
}

type websocketFacts struct {
	Status      int      `json:"status" doc:"The status code of the response to the upgrade: 101."`
	Server      string   `json:"server" doc:"The field Server."`
	Subprotocol string   `json:"subprotocol" doc:"The subprotocol that the server picked."`
	PingMS      *float64 `json:"ping_ms" doc:"Milliseconds from the ping to its pong."`
	EchoMS      *float64 `json:"echo_ms" doc:"Milliseconds from the text to its echo."`
	Messages    *int     `json:"messages" doc:"Messages that the server sent."`
	ReplyBytes  *int     `json:"reply_bytes" doc:"Size of the reply, in bytes."`
	Reply       string   `json:"reply" large:"true" doc:"The message that came after send, or the first one."`
	JSON        any      `json:"json" large:"true" doc:"The reply as JSON; absent if it is none."`
	CloseCode   int      `json:"close_code" doc:"The status code with which the server closed."`
}

func init() {
	register(probe.Info{
		Name:    "websocket",
		Summary: "upgrades to WebSocket and answers a ping",
		Schemes: []probe.Scheme{{Name: "ws", Port: 80}, {Name: "wss", Port: 443, TLS: true}},
		Example: "wss://chat.example.org/socket",
		Common:  probe.OverTCP,
		Doc: `Up means that the server upgrades the connection with the right proof (RFC 6455, section 4.2.2) and answers a ping. It does not mean that the application behind it works: ` + "`echo`, or `send` with an expression over `websocket.reply` or `websocket.json`" + `, asks for that.

A server that answers the upgrade with a page, another status, a wrong proof, or an extension or subprotocol that nobody offered has the reason protocol; 401 and 403 are denied, 503 and 429 unavailable. So are frames that RFC 6455 forbids: masked by the server, reserved bits, fragmented control frames.

Phases: greet is the upgrade, request is sending, wait until what is waited for has come. At the end the connection is closed with status 1000.`,
	}, websocketOptions{Ping: true}, websocketRun)
}

const (
	websocketMaxMessage  = 1 << 20 // bytes
	websocketMaxMessages = 1000    // while we wait for another
)

// The opcodes (RFC 6455, section 5.2).
const (
	websocketContinuation = 0
	websocketText         = 1
	websocketBinary       = 2
	websocketClose        = 8
	websocketPing         = 9
	websocketPong         = 10
)

func websocketRun(ctx context.Context, p *probe.Probe, opt *websocketOptions, facts *websocketFacts) error {
	if err := opt.valid(p); err != nil {
		return err
	}
	c, err := p.DialPlain(ctx)
	if err == nil && p.URL.Scheme.TLS {
		c, err = p.StartTLS(ctx, c, "http/1.1")
	}
	if err != nil {
		return err
	}
	defer c.Close()
	s := &websocketSession{p: p, c: c, opt: opt, facts: facts}
	if err := s.upgrade(c); err != nil {
		return err
	}
	facts.Messages = new(0)
	if err := s.talk(); err != nil {
		return err
	}
	return s.write(websocketClose, binary.BigEndian.AppendUint16(nil, 1000))
}

func (o *websocketOptions) valid(p *probe.Probe) error {
	if err := o.allowed(p, o.given(p) || len(o.SecretHeaders) > 0); err != nil {
		return err
	}
	r := httpRequest{Headers: o.Headers, SecretHeaders: o.SecretHeaders}
	if err := r.check("websocket"); err != nil {
		return err
	}
	for _, name := range o.Subprotocols {
		if !httpconn.Token(name) {
			return probe.Failf(wire.BadOptions, "websocket.subprotocols: %.80q is no name of a subprotocol", name)
		}
	}
	if !httpconn.FieldValue(o.Origin) {
		return probe.Failf(wire.BadOptions, "websocket.origin: holds a control character")
	}
	return nil
}

type websocketSession struct {
	p     *probe.Probe
	c     websocketConn
	opt   *websocketOptions
	facts *websocketFacts
}

// websocketConn is what frames need of a connection.
type websocketConn interface {
	io.Writer
	Wait() error
	Full(b []byte) error
}

// websocketProof is what a server answers to key (RFC 6455, section 4.2.2).
func websocketProof(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (s *websocketSession) upgrade(c *probe.Conn) error {
	u, o := s.p.URL, s.opt
	key := base64.StdEncoding.EncodeToString(websocketRandom(16))
	req := &httpconn.Request{
		Method: "GET", Authority: httpconn.Authority(u.Host, u.Port, u.Scheme.Port), Path: strings.ReplaceAll(u.RequestURI(), " ", "%20"),
		Fields: httpconn.Fields{
			{Name: "user-agent", Value: "pup-probe"}, {Name: "sec-websocket-version", Value: "13"}, {Name: "sec-websocket-key", Value: key},
		},
	}
	for _, fields := range []map[string]string{o.Headers, o.SecretHeaders} {
		for name, value := range fields {
			if name = strings.ToLower(name); name == "host" {
				req.Authority = value
				continue
			}
			req.Fields.Set(name, value)
		}
	}
	if o.Origin != "" {
		req.Fields.Set("origin", o.Origin)
	}
	if len(o.Subprotocols) > 0 {
		req.Fields.Set("sec-websocket-protocol", strings.Join(o.Subprotocols, ", "))
	}
	o.add(s.p, &req.Fields)
	resp, err := httpconn.Upgrade(s.p, c, req, "websocket")
	if err != nil {
		return err
	}
	s.facts.Status, s.facts.Server = resp.Status, resp.Fields.Get("server")
	s.p.Phase(wire.Greet)
	return s.accepted(resp, websocketProof(key))
}

// accepted checks the response to the upgrade (RFC 6455, section 4.1).
func (s *websocketSession) accepted(resp *httpconn.Response, proof string) error {
	f := resp.Fields
	if resp.Status != 101 {
		if err := httpRefused(s.p, resp.Status, f.Get("retry-after"), f.Get("www-authenticate"), true); err != nil {
			return err
		}
		return probe.Protocolf("upgrade: status %d, want 101 Switching Protocols", resp.Status)
	}
	picked := f.Get("sec-websocket-protocol")
	s.facts.Subprotocol = picked
	switch {
	case !strings.EqualFold(f.Get("upgrade"), "websocket"):
		return probe.Protocolf("upgrade: got %.80q, want websocket", f.Get("upgrade"))
	case f.Get("sec-websocket-accept") != proof:
		return probe.Protocolf("sec-websocket-accept: got %.80q, want the proof %q", f.Get("sec-websocket-accept"), proof)
	case f.Get("sec-websocket-extensions") != "":
		return probe.Protocolf("sec-websocket-extensions: got %.80q, which nobody offered", f.Get("sec-websocket-extensions"))
	case picked != "" && !slices.Contains(s.opt.Subprotocols, picked):
		return probe.Protocolf("sec-websocket-protocol: got %.80q, which nobody offered", picked)
	case picked == "" && len(s.opt.Subprotocols) > 0:
		return probe.Failf(wire.Mismatch, "the server picks none of the subprotocols %q", s.opt.Subprotocols)
	}
	return nil
}

// talk does what the options ask for.
func (s *websocketSession) talk() error {
	f := s.facts
	if s.opt.Ping {
		payload := websocketRandom(8)
		took, err := s.roundTrip(websocketPing, payload, func(op byte, b []byte) bool {
			return op == websocketPong && bytes.Equal(b, payload)
		})
		if err != nil {
			return err
		}
		f.PingMS = &took
	}
	if s.opt.Echo {
		text := []byte("pup " + hex.EncodeToString(websocketRandom(8)))
		took, err := s.roundTrip(websocketText, text, func(op byte, b []byte) bool {
			return op != websocketPong && bytes.Equal(b, text)
		})
		if err != nil {
			return err
		}
		f.EchoMS = &took
	}
	if s.opt.Send == "" && !s.opt.Receive || f.Reply != "" && s.opt.Send == "" {
		return nil
	}
	reply := func(op byte, b []byte) bool {
		if op == websocketPong {
			return false
		}
		f.Reply, f.ReplyBytes = string(b), new(len(b))
		if s.p.Reads("websocket.json") {
			f.JSON, _ = expr.Value(b)
		}
		return true
	}
	if s.opt.Send == "" {
		return s.until(reply)
	}
	_, err := s.roundTrip(websocketText, []byte(s.opt.Send), reply)
	return err
}

// roundTrip sends a frame and reads until done, and tells how many
// milliseconds that took.
func (s *websocketSession) roundTrip(op byte, payload []byte, done func(op byte, b []byte) bool) (float64, error) {
	s.p.Phase(wire.Request)
	start := time.Now()
	if err := s.write(op, payload); err != nil {
		return 0, err
	}
	s.p.Phase(wire.Wait)
	err := s.until(done)
	return wire.MS(time.Since(start)), err
}

// until reads messages and pongs until one is it.
func (s *websocketSession) until(done func(op byte, b []byte) bool) error {
	s.p.Phase(wire.Wait)
	for range websocketMaxMessages {
		op, b, err := s.message()
		if err != nil {
			return err
		}
		if op != websocketPong {
			*s.facts.Messages++
		}
		if done(op, b) {
			return nil
		}
	}
	return probe.Protocolf("%d messages came, but not the one that was waited for", websocketMaxMessages)
}

// message reads a message or a pong. It answers pings.
func (s *websocketSession) message() (op byte, message []byte, err error) {
	control := 0
	for {
		f, err := s.read(websocketMaxMessage - len(message))
		if err != nil {
			return 0, nil, err
		}
		switch f.op {
		case websocketPing:
			if control++; control > websocketMaxMessages {
				return 0, nil, probe.Protocolf("the server sends nothing but pings")
			}
			if err := s.write(websocketPong, f.payload); err != nil {
				return 0, nil, err
			}
			continue
		case websocketPong:
			if op == 0 { // one in the middle of a message answers nothing we wait for
				return f.op, f.payload, nil
			}
			continue
		case websocketClose:
			return 0, nil, s.closed(f.payload)
		case websocketContinuation:
			if op == 0 {
				return 0, nil, probe.Protocolf("a frame continues nothing")
			}
		default:
			if op != 0 {
				return 0, nil, probe.Protocolf("a message begins within another")
			}
			op = f.op
		}
		message = append(message, f.payload...)
		if !f.fin {
			continue
		}
		if op == websocketText && !utf8.Valid(message) {
			return 0, nil, probe.Protocolf("a text that is not UTF-8: %.80q", message)
		}
		return op, message, nil
	}
}

// closed words the server's close (RFC 6455, section 7.4).
func (s *websocketSession) closed(payload []byte) error {
	if len(payload) < 2 {
		return probe.Failf(wire.Closed, "the server closes, and does not say why")
	}
	code := int(binary.BigEndian.Uint16(payload))
	s.facts.CloseCode = code
	switch code {
	case 1001, 1012, 1013:
		return probe.Failf(wire.Unavailable, "the server closes: %d %.80q", code, payload[2:])
	case 1008:
		return probe.Failf(wire.Denied, "the server closes: %d %.80q", code, payload[2:])
	}
	return probe.Failf(wire.Closed, "the server closes: %d %.80q", code, payload[2:])
}

// A websocketFrame is a frame (RFC 6455, section 5.2).
type websocketFrame struct {
	fin     bool
	op      byte
	payload []byte
}

// read reads a frame of at most most bytes.
func (s *websocketSession) read(most int) (f websocketFrame, err error) {
	var head [10]byte
	if err := s.c.Wait(); err != nil { // it holds no buffer
		return f, err
	}
	if err := s.c.Full(head[:2]); err != nil {
		return f, err
	}
	f.fin, f.op = head[0]&0x80 != 0, head[0]&0x0f
	control := f.op >= 8
	n := uint64(head[1] & 0x7f)
	switch {
	case head[0]&0x70 != 0:
		return f, probe.Protocolf("frame: reserved bits are set in % x", head[:2])
	case head[1]&0x80 != 0:
		return f, probe.Protocolf("frame: a server must not mask: % x", head[:2])
	case f.op > websocketBinary && f.op < websocketClose || f.op > websocketPong:
		return f, probe.Protocolf("frame: no such opcode: % x", head[:2])
	case control && (n > 125 || !f.fin):
		return f, probe.Protocolf("frame: a control frame is too long or in parts: % x", head[:2])
	case n == 126:
		err = s.c.Full(head[2:4])
		n = uint64(binary.BigEndian.Uint16(head[2:4]))
	case n == 127:
		err = s.c.Full(head[2:10])
		n = binary.BigEndian.Uint64(head[2:10])
	}
	if err != nil {
		return f, err
	}
	if n > uint64(most) && !control {
		return f, probe.Failf(wire.TooLarge, "a message has more than %d bytes", websocketMaxMessage)
	}
	f.payload = make([]byte, n)
	return f, s.c.Full(f.payload)
}

// write writes a frame, masked as a client's must be.
func (s *websocketSession) write(op byte, payload []byte) error {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := websocketRandom(4)
	b = append(b, mask...)
	for i, x := range payload {
		b = append(b, x^mask[i%4])
	}
	_, err := s.c.Write(b)
	return err
}

func websocketRandom(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
