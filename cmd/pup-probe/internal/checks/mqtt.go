package checks

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

type mqttOptions struct {
	brokerOptions
	Version      string `json:"version" enum:"3.1.1,5" doc:"The version of the protocol to speak."`
	User         string `json:"user" doc:"The user to log in as, unless the URL names one."`
	Password     string `json:"password" secret:"true" doc:"The user's password."`
	Mechanism    string `json:"mechanism" enum:"SCRAM-SHA-512,SCRAM-SHA-256,SCRAM-SHA-1" doc:"Log in by this mechanism instead of sending the password; needs version 5."`
	ClientID     string `json:"client_id" doc:"The client identifier, instead of a random one. Two clients with the same one throw each other out."`
	Topic        string `json:"topic" doc:"Subscribe to this topic, and wait for a message: the retained one, if there is one, or the next."`
	Live         bool   `json:"live" doc:"Pass over retained messages of topic, and wait for one that is sent now."`
	Canary       bool   `json:"canary" doc:"Subscribe to a topic of our own, publish a token to it, and wait for the token."`
	CanaryPrefix string `json:"canary_prefix" doc:"What the topic of canary begins with; a random token follows."`
	QoS          int    `json:"qos" min:"0" max:"2" doc:"The quality of service of canary: 0 at most once, 1 at least once, 2 exactly once."`
}

type mqttFacts struct {
	Code             *int     `json:"code" doc:"The code of CONNACK: 0 if we are in."`
	ReasonText       string   `json:"reason_text" doc:"What the server says about it (version 5)."`
	SessionPresent   *bool    `json:"session_present" doc:"Whether the server has kept a session for the client identifier, though none was asked for."`
	AssignedClientID string   `json:"assigned_client_id" doc:"The client identifier that the server has given us (version 5)."`
	ServerReference  string   `json:"server_reference" doc:"The other server that it sends us to (version 5)."`
	MaximumQoS       *int     `json:"maximum_qos" doc:"The highest quality of service that the server knows (version 5)."`
	RetainAvailable  *bool    `json:"retain_available" doc:"Whether the server retains messages (version 5)."`
	ReceiveMaximum   *int     `json:"receive_maximum" doc:"How many messages of QoS 1 and 2 it takes before they are acknowledged (version 5)."`
	MaxPacketBytes   *int64   `json:"max_packet_bytes" doc:"The largest packet that the server takes; absent: it names no limit (version 5)."`
	KeepAliveSeconds *int     `json:"keep_alive_seconds" doc:"How often the server wants to hear from a client; absent: as often as the client likes (version 5)."`
	Message          *string  `json:"message" doc:"The payload of the message of topic, its first 1024 bytes."`
	MessageBytes     *int     `json:"message_bytes" doc:"The length of the whole payload."`
	MessageTopic     string   `json:"message_topic" doc:"The topic of that message, which topic matches."`
	Retained         *bool    `json:"retained" doc:"Whether the server had retained it."`
	CanaryMS         *float64 `json:"canary_ms" doc:"Time from the publishing of the canary to its arrival, in ms."`
	GrantedQoS       *int     `json:"granted_qos" doc:"The quality of service that the server has granted the subscription of canary."`
}

func init() {
	register(probe.Info{
		Name:    "mqtt",
		Summary: "an MQTT broker takes clients and answers",
		Schemes: []probe.Scheme{{Name: "mqtt", Port: 1883}, {Name: "mqtts", Port: 8883, TLS: true}},
		Example: "mqtt://broker.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the broker accepts our CONNECT, with the credentials if there are any, and answers PINGREQ, and that what the options ask for works. It does not mean that messages get through: ` + "`canary`" + ` proves that.

` + "`topic`" + ` waits for a message until the target's timeout. With a retained message, such as ` + "`$SYS/broker/version`" + ` or the last value of a sensor, it comes at once. Where none is retained and nobody publishes, the target is down with reason ` + "`timeout`" + ` in phase wait. The value can be judged: ` + "`float(mqtt.message) < 30`" + `. ` + "`canary`" + ` publishes a message to ` + "`canary_prefix/TOKEN`" + `, which is not retained, and waits until it comes back and every acknowledgement of its quality of service has come. A broker that speaks 3.1.1 does not tell a client that it may not publish: that ends in ` + "`timeout`" + `, too.

Codes of CONNACK, SUBACK, PUBACK, PUBREC and DISCONNECT about credentials, rights, identifiers and bans are ` + "`denied`" + `; those about load, quotas, shutdown and other servers ` + "`unavailable`" + `; those about what can't be done, such as QoS or a topic's name, ` + "`mismatch`" + `.

Without credentials the check goes on as a stranger; a broker that wants some answers with code 5 (0x87 in version 5), which is down, denied in phase auth. The session is new (clean start) and ends with the check. Phases: greet has CONNECT and CONNACK, auth the exchange of a mechanism, request everything sent after, wait the answers. This follows MQTT 3.1.1 and 5.0 by OASIS; MQTT over WebSocket is not spoken.`,
	}, mqttOptions{Version: "3.1.1", CanaryPrefix: "pup/canary"}, mqtt)
}

func mqtt(ctx context.Context, p *probe.Probe, opt *mqttOptions, facts *mqttFacts) error {
	o := *opt
	var err error
	if o.User, err = brokerUser(p, opt.User); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if o.Password != "" {
		if err := o.private(p, c); err != nil {
			return err
		}
	}
	s := &mqttSession{p: p, c: c, facts: facts, v5: opt.Version == "5"}
	p.Phase(wire.Greet)
	if err := s.connect(&o); err != nil {
		return err
	}
	for _, step := range []func(*mqttOptions) error{s.ping, s.subscribed, s.canary} {
		if err := step(&o); err != nil {
			return err
		}
	}
	return s.send(mqttDISCONNECT, 0, nil)
}

// check refuses options that can't be meant.
func (o *mqttOptions) check() error {
	bad := func(format string, args ...any) error {
		return probe.Failf(wire.BadOptions, "mqtt."+format, args...)
	}
	switch {
	case o.Password != "" && o.User == "":
		return bad("password: needs mqtt.user as well")
	case o.Mechanism != "" && (o.Version != "5" || o.User == ""):
		return bad("mechanism: needs mqtt.version = \"5\", and mqtt.user as well")
	case o.Live && o.Topic == "":
		return bad("live: needs mqtt.topic as well")
	case strings.ContainsAny(o.CanaryPrefix, "+#"):
		return bad("canary_prefix: %.80q has a wildcard", o.CanaryPrefix)
	}
	for name, text := range map[string]string{"user": o.User, "password": o.Password, "client_id": o.ClientID, "topic": o.Topic, "canary_prefix": o.CanaryPrefix} {
		if len(text) > 4096 || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return bad("%s: is longer than 4096 bytes, or has a NUL, or is not in UTF-8", name)
		}
	}
	return nil
}

// mqttMaxPacket bounds a packet of the server, in bytes.
const mqttMaxPacket = 1 << 20

// mqttKeepAlive is what we promise the server, in seconds. No attempt that is
// sensible takes longer.
const mqttKeepAlive = 300

// mqttSession is a client's session.
type mqttSession struct {
	p     *probe.Probe
	c     *probe.Conn
	facts *mqttFacts
	v5    bool
	id    uint16
}

func (s *mqttSession) send(kind, flags byte, body []byte) error {
	_, err := s.c.Write(mqttAppendPacket(nil, kind, flags, body))
	return err
}

// read reads a packet.
func (s *mqttSession) read() (*mqttPacket, error) {
	var head [5]byte
	length, size, more := 0, 2, true
	for more {
		b, err := s.c.Peek(size)
		if err != nil {
			return nil, err
		}
		copy(head[:], b)
		if length, _, more, err = mqttHeader(b); err != nil {
			return nil, probe.Protocolf("got % x, which is no packet of MQTT: %w", b, err)
		}
		if more {
			size++
		}
	}
	if length > mqttMaxPacket {
		return nil, s.oversized(head[0], length)
	}
	b := make([]byte, size+length)
	if err := s.c.Full(b); err != nil {
		return nil, err
	}
	m, err := mqttParse(head[0], b[size:], s.v5)
	if err != nil {
		return nil, probe.Protocolf("%w", err)
	}
	return m, nil
}

func (s *mqttSession) oversized(first byte, length int) error {
	if first>>4 == mqttPUBLISH {
		return probe.Failf(wire.TooLarge, "the server sends a message of %d bytes, more than %d", length, mqttMaxPacket)
	}
	return probe.Protocolf("the server sends a packet of %d bytes, more than %d, and it is no PUBLISH", length, mqttMaxPacket)
}

// connect says CONNECT, carries a mechanism if there is one, and reads
// CONNACK.
func (s *mqttSession) connect(opt *mqttOptions) error {
	var mechanism sasl.Client
	if opt.Mechanism != "" {
		var err error
		if mechanism, err = sasl.New(opt.Mechanism, sasl.Credentials{User: opt.User, Password: opt.Password}); err != nil {
			return probe.Failf(wire.BadOptions, "mqtt.mechanism: %w", err)
		}
	}
	if err := s.send(mqttCONNECT, 0, mqttConnect(opt, mechanism)); err != nil {
		return err
	}
	m, err := s.read()
	for err == nil && m.kind == mqttAUTH && mechanism != nil {
		s.p.Phase(wire.Auth)
		if err = s.answer(mechanism, m); err == nil {
			m, err = s.read()
		}
	}
	switch {
	case err != nil:
		return err
	case m.kind != mqttCONNACK:
		return probe.Protocolf("CONNECT: got %s, want CONNACK", mqttNames[m.kind])
	}
	s.took(m)
	if m.code != 0 {
		return s.refused("CONNECT", m, opt.User != "")
	}
	if mechanism == nil {
		return nil
	}
	if data, ok := m.properties.texts[mqttAuthData]; ok {
		if _, err := mechanism.Next([]byte(data)); err != nil {
			return loginError(err)
		}
	}
	return loginError(mechanism.Done())
}

// mqttConnect makes the body of a CONNECT.
func mqttConnect(opt *mqttOptions, mechanism sasl.Client) []byte {
	level, flags := byte(4), byte(2) // clean start
	if opt.Version == "5" {
		level = 5
	}
	password := opt.Password != "" && mechanism == nil
	if opt.User != "" {
		flags |= 0x80
	}
	if password {
		flags |= 0x40
	}
	b := append(mqttAppendText(nil, "MQTT"), level, flags)
	b = binary.BigEndian.AppendUint16(b, mqttKeepAlive)
	if level == 5 {
		var props []byte
		if mechanism != nil {
			name, initial := mechanism.Start()
			props = mqttAppendText(append(props, mqttAuthMethod), name)
			props = mqttAppendText(append(props, mqttAuthData), string(initial))
		}
		b = append(mqttAppendVarint(b, len(props)), props...)
	}
	id := opt.ClientID
	if id == "" {
		id = "pup" + brokerToken()[:20] // 23 letters and digits, which every server must take
	}
	b = mqttAppendText(b, id)
	if opt.User != "" {
		b = mqttAppendText(b, opt.User)
	}
	if password {
		b = mqttAppendText(b, opt.Password)
	}
	return b
}

// answer carries a step of a mechanism.
func (s *mqttSession) answer(mechanism sasl.Client, m *mqttPacket) error {
	const continueAuth = 0x18
	if m.code != continueAuth {
		return probe.Protocolf("AUTH: got the code 0x%02x, want 0x%02x", m.code, continueAuth)
	}
	response, err := mechanism.Next([]byte(m.properties.texts[mqttAuthData]))
	if err != nil {
		return loginError(err)
	}
	name, _ := mechanism.Start()
	props := mqttAppendText([]byte{mqttAuthMethod}, name)
	props = mqttAppendText(append(props, mqttAuthData), string(response))
	return s.send(mqttAUTH, 0, append(mqttAppendVarint([]byte{continueAuth}, len(props)), props...))
}

// took takes the facts from a CONNACK.
func (s *mqttSession) took(m *mqttPacket) {
	f := s.facts
	f.Code, f.SessionPresent = new(int(m.code)), &m.session
	texts, numbers := m.properties.texts, m.properties.numbers
	f.ReasonText, f.AssignedClientID, f.ServerReference = texts[mqttReasonString], texts[mqttAssignedClientID], texts[mqttServerReference]
	if !s.v5 || m.code != 0 {
		return
	}
	number := func(id byte, otherwise uint32) *int {
		n, ok := numbers[id]
		if !ok {
			n = otherwise
		}
		return new(int(n))
	}
	f.MaximumQoS, f.ReceiveMaximum = number(mqttMaximumQoS, 2), number(mqttReceiveMaximum, 65535)
	f.RetainAvailable = new(*number(mqttRetainAvailable, 1) == 1)
	if n, ok := numbers[mqttMaximumPacket]; ok {
		f.MaxPacketBytes = new(int64(n))
	}
	if _, ok := numbers[mqttServerKeepAlive]; ok {
		f.KeepAliveSeconds = number(mqttServerKeepAlive, 0)
	}
}

// refused words a code that says no. What names the packet that was answered.
func (s *mqttSession) refused(what string, m *mqttPacket, given bool) error {
	reason := mqttReason(m.code)
	text := ""
	if t := m.properties.texts[mqttReasonString]; t != "" {
		text = fmt.Sprintf("; it says %.160q", t)
	}
	if reason == wire.Denied && what == "CONNECT" {
		s.p.Phase(wire.Auth)
		if !given {
			text += "; no credentials are set"
		}
	}
	if m.code == 0x01 || m.code == 0x84 {
		text += "; mqtt.version picks another"
	}
	return probe.Failf(reason, "%s: the server answers with %v%s", what, mqttCode{m.code, s.v5}, text)
}

// mqttReason says what a code comes down to.
func mqttReason(code byte) wire.Reason {
	switch code {
	case 2, 4, 5, 0x85, 0x86, 0x87, 0x8a, 0x8c:
		return wire.Denied
	case 3, 0x80, 0x83, 0x88, 0x89, 0x8b, 0x8e, 0x93, 0x96, 0x97, 0x98, 0x9c, 0x9d, 0x9f, 0xa0:
		return wire.Unavailable
	case 0x8f, 0x90, 0x95, 0x99, 0x9a, 0x9b, 0x9e, 0xa1, 0xa2:
		return wire.Mismatch
	}
	return wire.BadProtocol
}

// next reads a packet in an open session, and acknowledges messages.
func (s *mqttSession) next() (*mqttPacket, error) {
	m, err := s.read()
	if err != nil {
		return nil, err
	}
	id := binary.BigEndian.AppendUint16(nil, m.id)
	switch {
	case m.kind == mqttDISCONNECT:
		return nil, s.refused("the session", m, true)
	case m.kind == mqttPUBREL:
		return m, s.send(mqttPUBCOMP, 0, id)
	case m.kind == mqttPUBLISH && m.qos() == 1:
		return m, s.send(mqttPUBACK, 0, id)
	case m.kind == mqttPUBLISH && m.qos() == 2:
		return m, s.send(mqttPUBREC, 0, id)
	}
	return m, nil
}

// ping asks for a sign of life.
func (s *mqttSession) ping(*mqttOptions) error {
	s.p.Phase(wire.Request)
	if err := s.send(mqttPINGREQ, 0, nil); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	m, err := s.next()
	if err == nil && m.kind != mqttPINGRESP {
		err = probe.Protocolf("PINGREQ: got %s, want PINGRESP", mqttNames[m.kind])
	}
	return err
}

// subscribe subscribes to a topic, and gives the quality of service that is
// granted and the messages that came before the answer, at most 16.
func (s *mqttSession) subscribe(topic string, qos int) (granted int, early []*mqttPacket, err error) {
	s.p.Phase(wire.Request)
	s.id++
	body := binary.BigEndian.AppendUint16(nil, s.id)
	if s.v5 {
		body = append(body, 0)
	}
	if err := s.send(mqttSUBSCRIBE, mqttFlags(mqttSUBSCRIBE), append(mqttAppendText(body, topic), byte(qos))); err != nil {
		return 0, nil, err
	}
	s.p.Phase(wire.Wait)
	for {
		m, err := s.next()
		switch {
		case err != nil:
			return 0, nil, err
		case m.kind == mqttPUBLISH || m.kind == mqttPUBREL: // messages may come before
			if len(early) < 16 {
				early = append(early, m)
			}
		case m.kind != mqttSUBACK || m.id != s.id || len(m.codes) != 1:
			return 0, nil, probe.Protocolf("SUBSCRIBE: got %s %d with %d codes, want SUBACK %d with one", mqttNames[m.kind], m.id, len(m.codes), s.id)
		case m.codes[0] == 0x80 && !s.v5:
			return 0, nil, probe.Failf(wire.Denied, "SUBSCRIBE: the server does not let us subscribe to %.80q", topic)
		case m.codes[0] > 2:
			m.code = m.codes[0]
			return 0, nil, s.refused("SUBSCRIBE", m, true)
		default:
			return int(m.codes[0]), early, nil
		}
	}
}

// subscribed waits for a message of the option topic.
func (s *mqttSession) subscribed(opt *mqttOptions) error {
	if opt.Topic == "" {
		return nil
	}
	_, early, err := s.subscribe(opt.Topic, 0)
	for err == nil {
		var m *mqttPacket
		if len(early) > 0 {
			m, early = early[0], early[1:]
		} else if m, err = s.next(); err != nil {
			break
		}
		if m.kind != mqttPUBLISH || opt.Live && m.retain() {
			continue
		}
		s.facts.Message, s.facts.MessageBytes = new(ndjson.Cut(string(m.payload), 1024)), new(len(m.payload))
		s.facts.MessageTopic, s.facts.Retained = m.topic, new(m.retain())
		return s.unsubscribe(opt.Topic)
	}
	return err
}

// unsubscribe ends a subscription, so that what it brings can't hold up the
// steps that follow.
func (s *mqttSession) unsubscribe(topic string) error {
	s.p.Phase(wire.Request)
	s.id++
	body := binary.BigEndian.AppendUint16(nil, s.id)
	if s.v5 {
		body = append(body, 0)
	}
	if err := s.send(mqttUNSUBSCRIBE, mqttFlags(mqttUNSUBSCRIBE), mqttAppendText(body, topic)); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	for {
		m, err := s.next()
		if err != nil || m.kind == mqttUNSUBACK && m.id == s.id {
			return err
		}
		if !slices.Contains([]byte{mqttPUBLISH, mqttPUBREL}, m.kind) {
			return probe.Protocolf("UNSUBSCRIBE: got %s, want UNSUBACK %d", mqttNames[m.kind], s.id)
		}
	}
}

// canary publishes a token and waits for it, and for all acknowledgements.
func (s *mqttSession) canary(opt *mqttOptions) error {
	if !opt.Canary {
		return nil
	}
	if most := s.facts.MaximumQoS; most != nil && opt.QoS > *most {
		return probe.Failf(wire.Mismatch, "the server knows QoS up to %d only, and mqtt.qos is %d", *most, opt.QoS)
	}
	token := brokerToken()
	topic := opt.CanaryPrefix + "/" + token
	granted, _, err := s.subscribe(topic, opt.QoS)
	if err != nil {
		return err
	}
	s.facts.GrantedQoS = &granted
	s.p.Phase(wire.Request)
	s.id++
	message := &mqttPacket{flags: byte(opt.QoS) << 1, id: s.id, topic: topic, payload: []byte(token)}
	start := time.Now()
	if _, err := s.c.Write(mqttAppendPublish(nil, message, s.v5)); err != nil {
		return err
	}
	s.p.Phase(wire.Wait)
	acknowledged, arrived, released := opt.QoS == 0, false, true
	for !acknowledged || !arrived || !released {
		m, err := s.next()
		if err != nil {
			return err
		}
		ours := m.id == message.id
		switch {
		case m.code >= 0x80:
			return s.refused("PUBLISH", m, true)
		case m.kind == mqttPUBLISH && m.topic == topic:
			if string(m.payload) != token {
				return probe.Failf(wire.Mismatch, "canary: got %.80q, want the token that was published", m.payload)
			}
			arrived, released = true, m.qos() < 2
			s.facts.CanaryMS = new(wire.MS(time.Since(start)))
		case m.kind == mqttPUBREL:
			released = true
		case m.kind == mqttPUBACK && ours && opt.QoS == 1, m.kind == mqttPUBCOMP && ours && opt.QoS == 2:
			acknowledged = true
		case m.kind == mqttPUBREC && ours && opt.QoS == 2:
			if err := s.send(mqttPUBREL, mqttFlags(mqttPUBREL), binary.BigEndian.AppendUint16(nil, m.id)); err != nil {
				return err
			}
		case m.kind != mqttPUBLISH:
			return probe.Protocolf("PUBLISH with QoS %d: got %s %d", opt.QoS, mqttNames[m.kind], m.id)
		}
	}
	return nil
}
