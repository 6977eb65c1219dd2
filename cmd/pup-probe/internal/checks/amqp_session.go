package checks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// amqpSession is a connection with one channel.
type amqpSession struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *amqpFacts

	mechanisms []string
	frameMax   int64
	started    bool // the server speaks AMQP
	closed     bool // it has said that it closes
	publishing bool
}

// amqpChannel is the number of our channel.
const amqpChannel = 1

// frame reads the next frame that is no heartbeat.
func (s *amqpSession) frame() (kind byte, payload []byte, err error) {
	for {
		if err := s.c.Wait(); err != nil {
			return 0, nil, err
		}
		var head [7]byte
		if err := s.c.Full(head[:]); err != nil {
			return 0, nil, err
		}
		kind, channel, length, err := amqpHeader(head)
		if err != nil {
			return 0, nil, probe.Protocolf("%w", err)
		}
		b := make([]byte, length+1)
		if err := s.c.Full(b); err != nil {
			return 0, nil, err
		}
		switch {
		case b[length] != amqpFrameEnd:
			return 0, nil, probe.Protocolf("a frame of %d bytes ends with 0x%02x, want 0x%02x", length, b[length], amqpFrameEnd)
		case channel > amqpChannel:
			return 0, nil, probe.Protocolf("got a frame of channel %d, which is not open", channel)
		case kind != amqpHeartbeatFrame:
			return kind, b[:length], nil
		}
	}
}

// method reads the next method. The server may close the connection or the
// channel, or say that it takes no messages, at any time.
func (s *amqpSession) method() (amqpMethod, *amqpReader, error) {
	for {
		kind, payload, err := s.frame()
		if err != nil {
			return 0, nil, err
		}
		r := &amqpReader{b: payload}
		m := amqpMethod(r.long())
		if kind != amqpMethodFrame || r.err != nil {
			return 0, nil, probe.Protocolf("got a frame of type %d with %d bytes, want a method", kind, len(payload))
		}
		switch m {
		case amqpClose, amqpChannelClose:
			s.closed = m == amqpClose
			return 0, nil, s.refused(m, r)
		case amqpBlocked:
			if s.facts.Blocked = r.shortstr(); s.facts.Blocked == "" {
				s.facts.Blocked = "no reason given"
			}
			if s.publishing {
				return 0, nil, s.blocked()
			}
		case amqpUnblocked:
			s.facts.Blocked = ""
		default:
			return m, r, nil
		}
	}
}

// blocked words that the server takes no messages. It reads nothing more from
// who sends one, and would never answer.
func (s *amqpSession) blocked() error {
	return probe.Failf(wire.Unavailable, "the server takes no messages: it says %.160q", s.facts.Blocked)
}

// expect reads a method, which must be the wanted one.
func (s *amqpSession) expect(want amqpMethod) (*amqpReader, error) {
	m, r, err := s.method()
	if err == nil && m != want {
		err = probe.Protocolf("got %v, want %v", m, want)
	}
	return r, err
}

// amqpWhole says whether all fields of a method were there. A server may add some.
func amqpWhole(m amqpMethod, r *amqpReader) error {
	if r.err != nil {
		return probe.Protocolf("%v: %w", m, r.err)
	}
	return nil
}

func amqpAppendMethod(dst []byte, channel uint16, m amqpMethod, args []byte) []byte {
	return amqpAppendFrame(dst, amqpMethodFrame, channel, append(binary.BigEndian.AppendUint32(nil, uint32(m)), args...))
}

func (s *amqpSession) send(channel uint16, m amqpMethod, args []byte) error {
	_, err := s.c.Write(amqpAppendMethod(nil, channel, m, args))
	return err
}

// refused words connection.close and channel.close.
func (s *amqpSession) refused(m amqpMethod, r *amqpReader) error {
	code, text := r.short(), r.shortstr()
	cause := amqpMethod(r.long())
	if err := amqpWhole(m, r); err != nil {
		return err
	}
	s.facts.Code = code
	reason := wire.BadProtocol
	switch code {
	case 403, 530: // access-refused, not-allowed
		reason = wire.Denied
	case 320, 405, 506, 541: // connection-forced, resource-locked, resource-error, internal-error
		reason = wire.Unavailable
	case 404, 406: // not-found, precondition-failed
		reason = wire.Mismatch
	}
	if cause != 0 {
		m = cause // which method of ours it does not like
	}
	return probe.Failf(reason, "%v: the server says %d %.160q", m, code, text)
}

// start says the protocol header and reads what the server tells of itself.
func (s *amqpSession) start() error {
	if err := s.c.Printf("AMQP\x00\x00\x09\x01"); err != nil {
		return err
	}
	b, err := s.c.Peek(1)
	if err != nil {
		return err
	}
	if b[0] == 'A' {
		return s.otherVersion()
	}
	r, err := s.expect(amqpStart)
	if err != nil {
		return err
	}
	major, minor := r.number(1), r.number(1)
	properties := r.table(0)
	mechanisms := r.longstr()
	r.longstr() // locales
	if err := amqpWhole(amqpStart, r); err != nil {
		return err
	}
	if major != 0 || minor != 9 {
		return probe.Protocolf("the server starts version %d-%d of AMQP, want 0-9", major, minor)
	}
	s.started = true
	text := func(name string) string {
		v, _ := properties[name].(string)
		return ndjson.Cut(v, 256)
	}
	f := s.facts
	f.Product, f.Version, f.Platform, f.ClusterName = text("product"), text("version"), text("platform"), text("cluster_name")
	s.mechanisms = strings.Fields(mechanisms)
	f.Mechanisms = s.mechanisms[:min(len(s.mechanisms), 16)]
	return nil
}

// otherVersion words the protocol header with which a server answers one that
// it does not like (section 4.2.2).
func (s *amqpSession) otherVersion() error {
	var b [8]byte
	if err := s.c.Full(b[:]); err != nil {
		return err
	}
	if string(b[:4]) != "AMQP" || string(b[:]) == "AMQP\x00\x00\x09\x01" {
		return probe.Protocolf("got %.80q, want connection.start", b[:])
	}
	version := fmt.Sprintf("%d-%d-%d", b[5], b[6], b[7])
	if b[5] == 1 {
		version = fmt.Sprintf("1.%d", b[6])
	}
	return probe.Protocolf("the server speaks AMQP %s, and not 0-9-1", version)
}

// login carries the SASL exchange up to connection.tune.
func (s *amqpSession) login(opt *amqpOptions) error {
	cl, err := s.client(opt)
	if err != nil {
		return err
	}
	name, response := cl.Start()
	s.facts.Mechanism = name
	args := amqpAppendTable(nil, map[string]any{
		"product": "pup", "capabilities": map[string]any{
			"authentication_failure_close": true, "connection.blocked": true, "publisher_confirms": true,
		},
	})
	args = amqpAppendLongstr(amqpAppendShortstr(args, name), string(response))
	if err := s.send(0, amqpStartOK, amqpAppendShortstr(args, "en_US")); err != nil {
		return err
	}
	for {
		m, r, err := s.method()
		switch {
		case err != nil:
			return err
		case m == amqpTune:
			if err := loginError(cl.Done()); err != nil {
				return err
			}
			return s.tune(r)
		case m != amqpSecure:
			return probe.Protocolf("got %v, want %v", m, amqpTune)
		}
		challenge := r.longstr()
		if err := amqpWhole(m, r); err != nil {
			return err
		}
		if response, err = cl.Next([]byte(challenge)); err != nil {
			return loginError(err)
		}
		if err := s.send(0, amqpSecureOK, amqpAppendLongstr(nil, string(response))); err != nil {
			return err
		}
	}
}

// amqpAnonymous is the mechanism of RFC 4505, for servers that let strangers in.
type amqpAnonymous struct{}

func (amqpAnonymous) Start() (string, []byte) { return "ANONYMOUS", []byte{} }
func (amqpAnonymous) Done() error             { return nil }
func (amqpAnonymous) Next([]byte) ([]byte, error) {
	return nil, errors.New("ANONYMOUS: got a challenge, and there is none")
}

// client picks the mechanism.
func (s *amqpSession) client(opt *amqpOptions) (sasl.Client, error) {
	name := opt.Mechanism
	if name == "" && opt.User == "" {
		switch {
		case s.p.TLSOptions().Cert != "" && slices.Contains(s.mechanisms, sasl.External):
			name = sasl.External
		case slices.Contains(s.mechanisms, "ANONYMOUS"):
			name = "ANONYMOUS"
		default:
			return nil, probe.Failf(wire.Denied, "the server wants a login (%.160q), and no credentials are set", s.mechanisms)
		}
	}
	if name != "" && !slices.Contains(s.mechanisms, name) {
		return nil, probe.Failf(wire.Denied, "the server offers %.160q, and amqp.mechanism is %s", s.mechanisms, name)
	}
	cred := sasl.Credentials{User: opt.User, Password: opt.Password}
	var cl sasl.Client
	var err error
	switch name {
	case "ANONYMOUS":
		cl = amqpAnonymous{}
	case sasl.External:
		cl, err = sasl.New(name, sasl.Credentials{Act: opt.User})
	case "":
		secure := s.c.TLSState() != nil || opt.AllowPlainAuth || s.c.Private()
		cl, err = sasl.Pick(s.mechanisms, cred, secure)
	default:
		cl, err = sasl.New(name, cred)
	}
	if err != nil {
		return nil, probe.Failf(wire.Denied, "%w", err)
	}
	return cl, nil
}

// tune agrees to the server's limits, without heartbeats.
func (s *amqpSession) tune(r *amqpReader) error {
	channels, frame, heartbeat := r.short(), r.long(), r.short()
	if err := amqpWhole(amqpTune, r); err != nil {
		return err
	}
	f := s.facts
	f.ChannelMax, f.FrameMaxBytes, f.HeartbeatSeconds = &channels, &frame, &heartbeat
	s.frameMax = frame
	if frame == 0 || frame > amqpMaxFrame {
		s.frameMax = amqpMaxFrame
	}
	args := binary.BigEndian.AppendUint16(nil, uint16(channels))
	args = binary.BigEndian.AppendUint32(args, uint32(s.frameMax))
	return s.send(0, amqpTuneOK, binary.BigEndian.AppendUint16(args, 0))
}

// open opens the virtual host.
func (s *amqpSession) open(vhost string) error {
	if err := s.send(0, amqpOpen, append(amqpAppendShortstr(nil, vhost), 0, 0)); err != nil {
		return err
	}
	if _, err := s.expect(amqpOpenOK); err != nil {
		return err
	}
	s.facts.VHost = vhost
	return nil
}

func (s *amqpSession) openChannel() error {
	if err := s.send(amqpChannel, amqpChannelOpen, []byte{0}); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	_, err := s.expect(amqpChannelOpenOK)
	return err
}

// The bits of queue.declare.
const (
	amqpPassive    = 1
	amqpExclusive  = 4
	amqpAutoDelete = 8
)

// declare declares a queue, and gives how many messages and consumers it has.
func (s *amqpSession) declare(name string, bits byte) (messages, consumers int64, err error) {
	s.p.Phase(wire.Request)
	args := append(amqpAppendShortstr([]byte{0, 0}, name), bits)
	if err := s.send(amqpChannel, amqpDeclare, amqpAppendTable(args, nil)); err != nil {
		return 0, 0, err
	}
	s.p.Phase(wire.Wait)
	r, err := s.expect(amqpDeclareOK)
	if err != nil {
		return 0, 0, err
	}
	got := r.shortstr()
	messages, consumers = r.long(), r.long()
	if err := amqpWhole(amqpDeclareOK, r); err != nil {
		return 0, 0, err
	}
	if got != name {
		return 0, 0, probe.Protocolf("%v: got the queue %.80q, want %.80q", amqpDeclareOK, got, name)
	}
	return messages, consumers, nil
}

// queue asks for the state of a queue.
func (s *amqpSession) queue(name string) error {
	messages, consumers, err := s.declare(name, amqpPassive)
	if err == nil {
		s.facts.Messages, s.facts.Consumers = &messages, &consumers
	}
	return err
}

// canary publishes a token to a queue of our own, and gets it back.
func (s *amqpSession) canary(name string) error {
	if _, _, err := s.declare(name, amqpExclusive|amqpAutoDelete); err != nil {
		return err
	}
	if err := s.send(amqpChannel, amqpConfirm, []byte{0}); err != nil {
		return err
	}
	if _, err := s.expect(amqpConfirmOK); err != nil {
		return err
	}
	if s.facts.Blocked != "" {
		return s.blocked()
	}
	s.p.Phase(wire.Request)
	token, start := brokerToken(), time.Now()
	if _, err := s.c.Write(amqpMessage(name, token)); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	if err := s.confirmed(); err != nil {
		return err
	}
	s.facts.CanaryWriteMS = new(wire.MS(time.Since(start)))
	start = time.Now()
	s.p.Phase(wire.Request)
	const noAck = 1
	if err := s.send(amqpChannel, amqpGet, append(amqpAppendShortstr([]byte{0, 0}, name), noAck)); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	m, _, err := s.method()
	switch {
	case err != nil:
		return err
	case m == amqpGetEmpty:
		return probe.Failf(wire.Mismatch, "canary: the queue is empty, though the server has confirmed the message")
	case m != amqpGetOK:
		return probe.Protocolf("got %v, want %v", m, amqpGetOK)
	}
	s.p.Phase(wire.Transfer)
	got, err := s.content()
	if err == nil && got != token {
		err = probe.Failf(wire.Mismatch, "canary: got %.80q, want the token that was published", got)
	}
	if err == nil {
		s.facts.CanaryReadMS = new(wire.MS(time.Since(start)))
	}
	return err
}

// amqpMessage makes the frames that publish a text to a queue, through the
// default exchange. It is mandatory, so that it comes back if nobody takes it.
func amqpMessage(queue, text string) []byte {
	const mandatory = 1
	args := append(amqpAppendShortstr([]byte{0, 0, 0}, queue), mandatory)
	b := amqpAppendMethod(nil, amqpChannel, amqpPublish, args)
	header := []byte{0, byte(amqpPublish >> 16), 0, 0}
	header = binary.BigEndian.AppendUint64(header, uint64(len(text)))
	b = amqpAppendFrame(b, amqpHeaderFrame, amqpChannel, append(header, 0, 0)) // no properties
	return amqpAppendFrame(b, amqpBodyFrame, amqpChannel, []byte(text))
}

// confirmed waits until the server has taken the message.
func (s *amqpSession) confirmed() error {
	s.publishing = true
	m, r, err := s.method()
	switch {
	case err != nil:
		return err
	case m == amqpNack:
		return probe.Failf(wire.Unavailable, "the server could not take the message (%v)", m)
	case m == amqpReturn:
		return probe.Failf(wire.Mismatch, "the server gives the message back: got %d %.80q", r.short(), r.shortstr())
	case m != amqpAck:
		return probe.Protocolf("%v: got %v, want %v", amqpPublish, m, amqpAck)
	}
	s.publishing = false
	return nil
}

// content reads the content of a message: a header with its size, and as many
// frames as it needs.
func (s *amqpSession) content() (string, error) {
	kind, payload, err := s.frame()
	if err != nil {
		return "", err
	}
	r := &amqpReader{b: payload}
	r.number(4) // class and weight
	size := r.number(8)
	if kind != amqpHeaderFrame || r.err != nil {
		return "", probe.Protocolf("got a frame of type %d with %d bytes, want the header of a message", kind, len(payload))
	}
	if size > amqpMaxFrame {
		return "", probe.Protocolf("got a message of %d bytes, want the token that was published", size)
	}
	var body []byte
	for uint64(len(body)) < size {
		kind, payload, err := s.frame()
		if err != nil {
			return "", err
		}
		if kind != amqpBodyFrame || len(payload) == 0 || uint64(len(body)+len(payload)) > size {
			return "", probe.Protocolf("got a frame of type %d with %d bytes, want %d bytes of a message", kind, len(payload), size-uint64(len(body)))
		}
		body = append(body, payload...)
	}
	return string(body), nil
}

// close ends the connection. After an error it does not wait for the answer.
func (s *amqpSession) close(err error) error {
	defer s.c.Close()
	if !s.started {
		return err
	}
	if s.closed {
		s.send(0, amqpCloseOK, nil)
		return err
	}
	const success = 200
	args := amqpAppendShortstr(binary.BigEndian.AppendUint16(nil, success), "")
	if werr := s.send(0, amqpClose, append(args, 0, 0, 0, 0)); err != nil || werr != nil {
		return err
	}
	for {
		m, _, err := s.method()
		switch {
		case errors.Is(err, io.EOF) || m == amqpCloseOK: // it may close without a word
			return nil
		case err != nil:
			return err
		}
	}
}
