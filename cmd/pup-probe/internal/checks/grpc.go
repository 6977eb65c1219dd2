package checks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

type grpcOptions struct {
	Services       []string          `json:"services" doc:"The services whose health is asked for, by their full names; an empty name, or none, is the server as a whole."`
	Health         bool              `json:"health" doc:"Ask for the health (grpc.health.v1). A server without it needs reflection instead."`
	Reflection     bool              `json:"reflection" doc:"List the services by server reflection, as the fact reflection."`
	Authority      string            `json:"authority" doc:"The authority to ask for, instead of the URL's host and port."`
	Metadata       map[string]string `json:"metadata" doc:"Metadata to send with each call."`
	SecretMetadata map[string]string `json:"secret_metadata" secret:"true" doc:"Metadata to send whose values are credentials."`
	Token          string            `json:"token" secret:"true" doc:"Bearer token, sent as the metadata authorization."`
	AllowPlainAuth bool              `json:"allow_plain_auth" doc:"Send credentials without TLS to a host that is not loopback."`
}

type grpcFacts struct {
	Health     string            `json:"health" doc:"The health of the services that were asked for, the worst of them: SERVING, NOT_SERVING, SERVICE_UNKNOWN, UNKNOWN."`
	Services   map[string]string `json:"services" doc:"The health of each service by name; the server as a whole has the name server."`
	Code       *int              `json:"code" doc:"The gRPC status code of the last call; 0 is OK."`
	CodeName   string            `json:"code_name" doc:"Its name: OK, UNIMPLEMENTED, UNAVAILABLE."`
	Message    string            `json:"message" doc:"The message that came with it."`
	Reflection []string          `json:"reflection" doc:"The services that the server has, by reflection."`
	HTTPStatus int               `json:"http_status" doc:"The HTTP status of the last call; it is 200 whatever the code."`
}

func init() {
	register(probe.Info{
		Name:    "grpc",
		Summary: "answers a gRPC health check with SERVING",
		Schemes: []probe.Scheme{{Name: "grpc"}, {Name: "grpcs", Port: 443, TLS: true}},
		Example: "grpcs://api.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"grpc.health == nil or grpc.health == 'SERVING'"},
		Doc: `Up means that the server speaks gRPC over HTTP/2 and says that every service asked for is SERVING (gRPC Health Checking Protocol, ` + "`grpc.health.v1.Health/Check`" + `). What that proves is up to the server; many say SERVING as long as they run.

A server without the health service has the reason mismatch. With ` + "`health = false`" + ` and ` + "`reflection = true`" + ` up means that it lists its services (` + "`grpc.reflection.v1`" + `, or v1alpha).

UNAUTHENTICATED and PERMISSION_DENIED are denied, UNAVAILABLE and RESOURCE_EXHAUSTED unavailable, any other status but OK is a mismatch, and what is no gRPC, such as a web server's page, protocol. All calls go over one connection, without a library's retries.

Metadata whose name ends in -bin holds base64, as it is sent.`,
	}, grpcOptions{Health: true}, grpcRun)
}

// The status codes that have a reason of their own.
const (
	grpcNotFound          = 5
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

var grpcCodes = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// grpcHealths are the values of HealthCheckResponse.ServingStatus.
var grpcHealths = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

func grpcRun(ctx context.Context, p *probe.Probe, opt *grpcOptions, facts *grpcFacts) error {
	s := &grpcSession{p: p, opt: opt, facts: facts}
	if err := s.prepare(); err != nil {
		return err
	}
	c, err := p.DialPlain(ctx)
	if err == nil && p.URL.Scheme.TLS {
		c, err = p.StartTLS(ctx, c, "h2")
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if st := c.TLSState(); st != nil && st.NegotiatedProtocol != "h2" {
		return probe.Protocolf("the server does not agree on HTTP/2 (ALPN h2), which gRPC needs")
	}
	s.h2 = httpconn.NewHTTP2(p, c)
	if opt.Health {
		if err := s.health(); err != nil {
			return err
		}
	}
	if opt.Reflection {
		return s.reflect()
	}
	return nil
}

type grpcSession struct {
	p      *probe.Probe
	opt    *grpcOptions
	facts  *grpcFacts
	h2     *httpconn.HTTP2
	fields httpconn.Fields // of each call
}

func (s *grpcSession) prepare() error {
	o, p := s.opt, s.p
	secret := o.Token != "" || len(o.SecretMetadata) > 0
	if secret && !p.URL.Scheme.TLS && !o.AllowPlainAuth && !p.Loopback(p.URL.Host) {
		return probe.Failf(wire.BadOptions, "grpc: credentials over a connection without TLS; use grpcs, or say grpc.allow_plain_auth = true")
	}
	if !o.Health && !o.Reflection {
		return probe.Failf(wire.BadOptions, "grpc: neither health nor reflection; there is nothing left to ask for")
	}
	for _, table := range []map[string]string{o.Metadata, o.SecretMetadata, {"authorization": o.Token}, {"authority": o.Authority}} {
		for name, value := range table {
			if !httpconn.Token(name) || !httpconn.FieldValue(value) {
				return probe.Failf(wire.BadOptions, "grpc.metadata: %.80q: the name or the value holds what can't be sent", name)
			}
		}
	}
	s.fields = httpconn.Fields{{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: "user-agent", Value: "pup-probe"}}
	for _, table := range []map[string]string{o.Metadata, o.SecretMetadata} {
		for name, value := range table {
			s.fields.Set(strings.ToLower(name), value)
		}
	}
	if o.Token != "" {
		s.fields.Set("authorization", "Bearer "+o.Token)
	}
	return nil
}

// health asks for the health of each service.
func (s *grpcSession) health() error {
	names := s.opt.Services
	if len(names) == 0 {
		names = []string{""}
	}
	s.facts.Services = map[string]string{}
	for _, name := range names {
		answers, err := s.call("/grpc.health.v1.Health/Check", grpcString(nil, 1, name))
		if err != nil {
			return s.healthError(name, err)
		}
		if len(answers) != 1 {
			return probe.Protocolf("health: got %d messages, want 1", len(answers))
		}
		status := uint64(0)
		err = grpcFields(answers[0], func(field int, n uint64, b []byte) {
			if field == 1 && b == nil {
				status = n
			}
		})
		if err != nil {
			return err
		}
		if status >= uint64(len(grpcHealths)) {
			return probe.Protocolf("health: got %d, want a status from 0 to %d", status, len(grpcHealths)-1)
		}
		s.noteHealth(name, grpcHealths[status])
	}
	return nil
}

func (s *grpcSession) noteHealth(name, health string) {
	if name == "" {
		name = "server"
	}
	s.facts.Services[name] = health
	if s.facts.Health == "" || s.facts.Health == "SERVING" {
		s.facts.Health = health
	}
}

// healthError says more of the two refusals that mean something here.
func (s *grpcSession) healthError(name string, err error) error {
	e, ok := errors.AsType[*grpcError](err)
	switch {
	case ok && e.code == grpcUnimplemented:
		return probe.Failf(wire.Mismatch, "the server speaks gRPC but has no health service; say grpc.health = false and grpc.reflection = true: %w", err)
	case ok && e.code == grpcNotFound:
		s.noteHealth(name, "SERVICE_UNKNOWN")
		return probe.Failf(wire.Mismatch, "the server knows no service %.80q: %w", name, err)
	}
	return err
}

// grpcMaxServices bounds the names that are kept of a server's list.
const grpcMaxServices = 256

// reflect lists the services.
func (s *grpcSession) reflect() error {
	var answers [][]byte
	var err error
	for _, version := range []string{"v1", "v1alpha"} {
		answers, err = s.call("/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo", grpcString(nil, 7, "*"))
		if e, ok := errors.AsType[*grpcError](err); !ok || e.code != grpcUnimplemented {
			break
		}
	}
	if err != nil {
		return err
	}
	names := []string{}
	service := func(field int, _ uint64, b []byte) {
		if field == 1 && b != nil && len(names) < grpcMaxServices {
			names = append(names, string(b))
		}
	}
	var wrong error
	each := func(want int, f func(b []byte)) func(int, uint64, []byte) {
		return func(field int, _ uint64, b []byte) {
			if field == want && b != nil {
				f(b)
			}
		}
	}
	for _, a := range answers { // ServerReflectionResponse: ListServiceResponse is 6, in it ServiceResponse 1, in it name 1
		list := each(1, func(b []byte) { wrong = errors.Join(wrong, grpcFields(b, service)) })
		err := grpcFields(a, each(6, func(b []byte) { wrong = errors.Join(wrong, grpcFields(b, list)) }))
		if wrong = errors.Join(wrong, err); wrong != nil {
			return wrong
		}
	}
	if len(answers) == 0 {
		return probe.Protocolf("reflection: got no message")
	}
	slices.Sort(names)
	s.facts.Reflection = names
	return nil
}

// A grpcError is a status other than OK.
type grpcError struct {
	code    int
	message string
}

func (e *grpcError) Error() string {
	return fmt.Sprintf("status %d %s: %.200q", e.code, grpcCodeName(e.code), e.message)
}

func grpcCodeName(code int) string {
	if code < len(grpcCodes) {
		return grpcCodes[code]
	}
	return "UNKNOWN"
}

// call sends a message to a method and gives the messages of the answer.
func (s *grpcSession) call(method string, message []byte) ([][]byte, error) {
	req := &httpconn.Request{
		Method: "POST", Scheme: "http", Authority: s.opt.Authority, Path: method, Fields: s.fields, Body: grpcFrame(message),
	}
	if s.p.URL.Scheme.TLS {
		req.Scheme = "https"
	}
	if req.Authority == "" {
		req.Authority = httpconn.Authority(s.p.URL.Host, s.p.URL.Port, s.p.URL.Scheme.Port)
	}
	resp, err := s.h2.Do(req)
	if err != nil {
		return nil, err
	}
	s.facts.HTTPStatus = resp.Status
	body, err := io.ReadAll(io.LimitReader(resp.Body, grpcMaxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(body) > grpcMaxAnswer {
		return nil, probe.Failf(wire.TooLarge, "%s: the answer has more than %d bytes", method, grpcMaxAnswer)
	}
	if err := s.status(resp); err != nil {
		return nil, err
	}
	return grpcMessages(body)
}

// status reads the status of a call, from the trailer or, if there is nothing
// else, from the head.
func (s *grpcSession) status(resp *httpconn.Response) error {
	kind := resp.Fields.Get("content-type")
	if resp.Status != 200 || kind != "application/grpc" && !strings.HasPrefix(kind, "application/grpc+") && !strings.HasPrefix(kind, "application/grpc;") {
		if err := httpRefused(s.p, resp.Status, resp.Fields.Get("retry-after"), resp.Fields.Get("www-authenticate"), true); err != nil {
			return err
		}
		return probe.Protocolf("no gRPC: got status %d and content-type %.80q, want 200 and application/grpc", resp.Status, kind)
	}
	fields := resp.Trailer
	if fields.Get("grpc-status") == "" {
		fields = resp.Fields
	}
	code, err := strconv.ParseUint(fields.Get("grpc-status"), 10, 31)
	if err != nil {
		return probe.Protocolf("grpc-status: got %.40q, want a number", fields.Get("grpc-status"))
	}
	message, err := url.PathUnescape(fields.Get("grpc-message"))
	if err != nil {
		message = fields.Get("grpc-message")
	}
	s.facts.Code, s.facts.CodeName, s.facts.Message = new(int(code)), grpcCodeName(int(code)), message
	e := &grpcError{int(code), message}
	switch code {
	case 0:
		return nil
	case grpcUnauthenticated, grpcPermissionDenied:
		s.p.Phase(wire.Auth)
		return probe.Failf(wire.Denied, "%w", e)
	case grpcUnavailable, grpcResourceExhausted:
		return probe.Failf(wire.Unavailable, "%w", e)
	}
	return probe.Failf(wire.Mismatch, "%w", e)
}

// grpcMaxAnswer bounds the answer to a call, in bytes.
const grpcMaxAnswer = 1 << 20

// grpcFrame puts the prefix of a message before it: not compressed, so long.
func grpcFrame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// grpcMessages takes the messages out of a body.
func grpcMessages(body []byte) ([][]byte, error) {
	var messages [][]byte
	for len(body) > 0 {
		if len(body) < 5 || body[0] != 0 {
			return nil, probe.Protocolf("message: got % .20x, want its prefix, and no compression", body[:min(len(body), 5)])
		}
		n := binary.BigEndian.Uint32(body[1:5])
		if body = body[5:]; uint64(n) > uint64(len(body)) {
			return nil, probe.Protocolf("message: %d bytes are promised, %d came", n, len(body))
		}
		messages = append(messages, body[:n])
		body = body[n:]
	}
	return messages, nil
}

// grpcString appends a field of protobuf that holds a string.
func grpcString(dst []byte, field int, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3|2)
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// grpcFields calls f for each field of a protobuf message: with the number,
// or with bytes that are not nil.
func grpcFields(b []byte, f func(field int, n uint64, b []byte)) error {
	number := func() (uint64, bool) {
		n, k := binary.Uvarint(b)
		if k > 0 {
			b = b[k:]
		}
		return n, k > 0
	}
	for len(b) > 0 {
		key, ok := number()
		if !ok || key>>3 == 0 || key>>3 > 1<<29-1 {
			return probe.Protocolf("protobuf: no field in % .20x", b)
		}
		field := int(key >> 3)
		n := uint64(0)
		switch key & 7 {
		case 0:
			if n, ok = number(); !ok {
				return probe.Protocolf("protobuf: field %d has no number", field)
			}
			f(field, n, nil)
			continue
		case 1:
			n = 8
		case 2:
			n, ok = number()
		case 5:
			n = 4
		default:
			ok = false
		}
		if !ok || n > uint64(len(b)) {
			return probe.Protocolf("protobuf: field %d is cut, or of no known kind", field)
		}
		f(field, 0, b[:n:n])
		b = b[n:]
	}
	return nil
}
