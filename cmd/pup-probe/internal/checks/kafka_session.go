package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

// kafkaSession holds the connections to the brokers of a cluster.
type kafkaSession struct {
	p     *probe.Probe
	opt   *kafkaOptions
	facts *kafkaFacts

	mechanism string                // that the brokers are known to take
	conns     map[string]*kafkaConn // by host:port
	brokers   map[int32]string      // host:port by the broker's id
	leaders   map[kafkaPartition]int32
}

// A kafkaPartition is a partition of a topic.
type kafkaPartition struct {
	topic string
	index int32
}

func (p kafkaPartition) String() string { return p.topic + "/" + strconv.Itoa(int(p.index)) }

func kafkaNew(p *probe.Probe, opt *kafkaOptions, facts *kafkaFacts) *kafkaSession {
	return &kafkaSession{
		p: p, opt: opt, facts: facts, mechanism: opt.Mechanism,
		conns: map[string]*kafkaConn{}, brokers: map[int32]string{}, leaders: map[kafkaPartition]int32{},
	}
}

func (s *kafkaSession) close() {
	for _, k := range s.conns {
		k.c.Close()
	}
}

// A kafkaConn is a connection to a broker.
type kafkaConn struct {
	p           *probe.Probe
	c           *probe.Conn
	correlation int32
}

// call sends a request and reads its response. Those of greeting and logging
// in leave the phase as it is.
func (k *kafkaConn) call(api kafkaAPI, body []byte) (*kafkaReader, error) {
	session := api != kafkaAPIVersions && api != kafkaSASLHandshake && api != kafkaSASLAuthenticate
	if session {
		k.p.Phase(wire.Request)
	}
	k.correlation++
	if _, err := k.c.Write(kafkaAppendRequest(nil, api, k.correlation, body)); err != nil {
		return nil, err
	}
	if session {
		k.p.Phase(wire.Wait)
	}
	if err := k.c.Wait(); err != nil {
		return nil, err
	}
	var head [8]byte
	if err := k.c.Full(head[:]); err != nil {
		return nil, err
	}
	r := kafkaReader{b: head[:]}
	size, correlation := r.int32(), r.int32()
	switch {
	case head[0] == 0x15 && head[1] == 3:
		return nil, probe.Protocolf("%s: got an alert of TLS; kafkas:// speaks TLS", api.name)
	case size < 4 || correlation != k.correlation:
		return nil, probe.Protocolf("%s: got %.80q, which begins no response of Kafka", api.name, head[:])
	case size > kafkaMaxResponse:
		return nil, probe.Failf(wire.TooLarge, "%s: the response has %d bytes, more than %d", api.name, size, kafkaMaxResponse)
	}
	var b bytes.Buffer // grows with what comes, not with what is promised
	if _, err := io.CopyN(&b, k.c, int64(size)-4); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return &kafkaReader{b: b.Bytes()}, nil
}

// kafkaWhole says whether all fields of a response were there.
func kafkaWhole(api kafkaAPI, r *kafkaReader) error {
	if r.err == nil && len(r.b) > 0 {
		return probe.Protocolf("%s: the response has %d bytes too many", api.name, len(r.b))
	}
	if r.err != nil {
		return probe.Protocolf("%s: the response: %w", api.name, r.err)
	}
	return nil
}

// first connects to the broker of the URL, and logs in.
func (s *kafkaSession) first(ctx context.Context) (*kafkaConn, error) {
	addr := net.JoinHostPort(s.p.URL.Host, strconv.Itoa(s.p.URL.Port))
	return s.connect(addr, func() (*probe.Conn, error) { return s.p.Dial(ctx) })
}

// broker connects to a broker of the cluster, at its advertised address, and
// logs in, unless that is done.
func (s *kafkaSession) broker(ctx context.Context, id int32) (*kafkaConn, error) {
	addr, ok := s.brokers[id]
	if !ok {
		return nil, probe.Failf(wire.Unavailable, "broker %d is not alive: the cluster names no address of it", id)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, probe.Protocolf("%s: broker %d has the address %.80q", kafkaMetadata.name, id, addr)
	}
	k, err := s.connect(addr, func() (*probe.Conn, error) {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || host == "" {
			return nil, probe.Protocolf("%s: broker %d has the address %.80q", kafkaMetadata.name, id, addr)
		}
		c, err := s.p.DialHost(ctx, "tcp", host, int(n))
		if err != nil || !s.p.URL.Scheme.TLS {
			return c, err
		}
		return s.p.StartTLS(ctx, c)
	})
	return k, kafkaAt(err, id)
}

// kafkaAt says at which broker an error came up.
func kafkaAt(err error, id int32) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return probe.Failf(wire.Closed, "broker %d closed the connection", id)
	}
	return fmt.Errorf("broker %d: %w", id, err)
}

// connect greets a broker and logs in, over a connection that dial makes.
func (s *kafkaSession) connect(addr string, dial func() (*probe.Conn, error)) (*kafkaConn, error) {
	if k := s.conns[addr]; k != nil {
		return k, nil
	}
	for {
		c, err := dial()
		if err != nil {
			return nil, err
		}
		k := &kafkaConn{p: s.p, c: c}
		s.p.Phase(wire.Greet)
		err = s.hello(k)
		again := false
		if err == nil && s.opt.given() {
			s.p.Phase(wire.Auth)
			again, err = s.login(k)
		}
		if err == nil && !again {
			s.conns[addr] = k
			return k, nil
		}
		c.Close()
		if err != nil {
			return nil, err
		}
	}
}

// hello asks for the versions of the protocol that the broker speaks.
func (s *kafkaSession) hello(k *kafkaConn) error {
	r, err := k.call(kafkaAPIVersions, nil)
	if err != nil {
		return err
	}
	if code := kafkaCode(r.int16()); code != kafkaNone {
		return kafkaRefusal(code, kafkaAPIVersions.name, "")
	}
	type span struct{ low, high int16 }
	known := map[int16]span{}
	for range r.count(6) {
		known[r.int16()] = span{r.int16(), r.int16()}
	}
	if err := kafkaWhole(kafkaAPIVersions, r); err != nil {
		return err
	}
	versions := map[string]int{}
	for _, api := range kafkaAPIs {
		v, ok := known[api.key]
		if ok {
			versions[api.name] = int(v.high)
		}
		if s.needs(api) && (!ok || api.version < v.low || api.version > v.high) {
			return probe.Protocolf("the broker knows %s from version %d to %d, and pup speaks %d", api.name, v.low, v.high, api.version)
		}
	}
	s.facts.APIVersions = versions
	return nil
}

// needs says whether the options lead to a request.
func (s *kafkaSession) needs(api kafkaAPI) bool {
	switch api {
	case kafkaProduce, kafkaFetch:
		return s.opt.CanaryTopic != ""
	case kafkaFindCoordinator, kafkaOffsetFetch, kafkaListOffsets, kafkaDescribeGroups:
		return s.opt.Group != ""
	case kafkaSASLHandshake, kafkaSASLAuthenticate:
		return s.opt.given()
	}
	return true
}

// handshake proposes a mechanism, and gives those that the broker offers if it
// does not take it.
func (s *kafkaSession) handshake(k *kafkaConn, mechanism string) (taken bool, offered []string, err error) {
	r, err := k.call(kafkaSASLHandshake, kafkaAppendString(nil, mechanism))
	if err != nil {
		return false, nil, err
	}
	code := kafkaCode(r.int16())
	for range r.count(2) {
		offered = append(offered, r.string())
	}
	if err := kafkaWhole(kafkaSASLHandshake, r); err != nil {
		return false, nil, err
	}
	if code != kafkaNone && code != kafkaUnsupportedMechanism {
		return false, nil, kafkaRefusal(code, kafkaSASLHandshake.name, "")
	}
	s.facts.SASLMechanisms = offered[:min(len(offered), 16)]
	return code == kafkaNone, offered, nil
}

// login carries a SASL exchange. Again means that the broker does not know the
// mechanism that was tried, that it knows another, and that this takes a new
// connection.
func (s *kafkaSession) login(k *kafkaConn) (again bool, err error) {
	if err := s.opt.private(s.p, k.c); err != nil {
		return false, err
	}
	name := s.mechanism
	if name == "" {
		name = sasl.ScramSHA512
		if s.opt.Token != "" {
			name = sasl.OAuthBearer
		}
	}
	cred := sasl.Credentials{User: s.opt.User, Password: s.opt.Password, Token: s.opt.Token, Host: k.c.Host(), Port: s.p.URL.Port}
	taken, offered, err := s.handshake(k, name)
	switch {
	case err != nil:
		return false, err
	case !taken && s.mechanism != "":
		return false, probe.Failf(wire.Denied, "the broker does not take %s; it offers %.160q", name, offered)
	case !taken:
		cl, err := sasl.Pick(offered, cred, true)
		if err != nil {
			return false, probe.Failf(wire.Denied, "%w", err)
		}
		s.mechanism, _ = cl.Start()
		return true, nil
	}
	cl, err := sasl.New(name, cred)
	if err != nil {
		return false, probe.Failf(wire.BadOptions, "kafka.mechanism: %w", err)
	}
	if err := s.authenticate(k, cl); err != nil {
		return false, err
	}
	s.mechanism, s.facts.Mechanism = name, name
	return false, nil
}

// authenticate exchanges the messages of a mechanism.
func (s *kafkaSession) authenticate(k *kafkaConn, cl sasl.Client) error {
	_, message := cl.Start()
	for {
		r, err := k.call(kafkaSASLAuthenticate, kafkaAppendBytes(nil, message))
		if err != nil {
			return err
		}
		code, text, challenge := kafkaCode(r.int16()), r.string(), r.bytes()
		if err := kafkaWhole(kafkaSASLAuthenticate, r); err != nil {
			return err
		}
		if code != kafkaNone {
			return kafkaRefusal(code, kafkaSASLAuthenticate.name, text)
		}
		if len(challenge) == 0 {
			return loginError(cl.Done())
		}
		if message, err = cl.Next(challenge); err != nil {
			return loginError(err)
		}
		if cl.Done() == nil {
			return nil
		}
	}
}

// wantsLogin finds out, after a broker has closed the connection at our first
// request, whether that was for want of a login: it says so on a new one.
func (s *kafkaSession) wantsLogin(ctx context.Context, closed error) error {
	c, err := s.p.Dial(ctx)
	if err != nil {
		return closed
	}
	defer c.Close()
	s.p.Phase(wire.Auth)
	taken, offered, err := s.handshake(&kafkaConn{p: s.p, c: c}, "none")
	if err == nil && !taken && len(offered) > 0 {
		return probe.Failf(wire.Denied, "the broker wants a login (%.160q), and no credentials are set", offered)
	}
	s.p.Phase(wire.Wait)
	return closed
}

// kafkaClosed says whether the peer has closed or reset the connection.
func kafkaClosed(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}
