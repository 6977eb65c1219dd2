package httpconn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// window is how much a server may send ahead, in bytes.
const window = 1 << 20

// maxControl bounds the frames that a server sends beside those of the
// response: it must not keep us busy with them.
const maxControl = 256

// HTTP2 carries requests over a connection, one after the other. It reads only
// while a request is under way, and so needs no goroutine.
type HTTP2 struct {
	p      *probe.Probe
	c      *probe.Conn
	fr     *http2.Framer
	out    bytes.Buffer // frames that are yet to be sent
	enc    *hpack.Encoder
	fields bytes.Buffer // of enc
	next   uint32       // number of a stream; those of a client are odd

	greeted    bool  // the server's first SETTINGS have come
	frameSize  int   // the largest frame that the server takes
	streamSize int64 // what it lets a stream send at first
	credit     int64 // what it lets the connection send
	unread     int64 // bytes of the connection that the server must be told of
	control    int   // frames beside the response
}

// NewHTTP2 makes an HTTP2 on a connection that has agreed on it, or without
// asking ("prior knowledge", RFC 9113, section 3.3).
func NewHTTP2(p *probe.Probe, c *probe.Conn) *HTTP2 {
	h := &HTTP2{p: p, c: c, next: 1, frameSize: 16 << 10, streamSize: 65535, credit: 65535}
	h.fr = http2.NewFramer(&h.out, c)
	h.fr.SetReuseFrames()
	h.fr.SetMaxReadFrameSize(16 << 10)
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.MaxHeaderListSize = MaxHeader
	h.enc = hpack.NewEncoder(&h.fields)
	h.out.WriteString(http2.ClientPreface)
	_ = h.fr.WriteSettings( // the buffer takes everything
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: MaxHeader},
	)
	_ = h.fr.WriteWindowUpdate(0, window-65535)
	return h
}

// stream is a request that is under way.
type stream struct {
	h       *HTTP2
	r       *Response
	id      uint32
	method  string
	credit  int64  // what the server lets us send
	data    []byte // of the last DATA frame, not read yet
	unread  int64  // bytes that the server must be told of
	got     int64
	done    bool
	interim int
}

// Do sends a request and reads the head of its response.
func (h *HTTP2) Do(req *Request) (*Response, error) {
	h.p.Phase(wire.Request)
	s := &stream{h: h, id: h.next, method: req.Method, credit: h.streamSize}
	h.next += 2
	h.writeHead(req, s.id)
	if err := s.send(req.Body); err != nil {
		return nil, err
	}
	if err := h.flush(); err != nil && s.r == nil {
		return nil, err
	}
	h.p.Phase(wire.Wait)
	for s.r == nil {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	h.p.Phase(wire.Transfer)
	return s.r, nil
}

func (h *HTTP2) writeHead(req *Request, id uint32) {
	h.fields.Reset()
	put := func(name, value string, secret bool) {
		_ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: secret})
	}
	put(":method", req.Method, false)
	put(":scheme", req.Scheme, false)
	put(":authority", req.Authority, false)
	put(":path", req.Path, false)
	for _, f := range req.Fields {
		put(f.Name, f.Value, f.Name == "authorization" || f.Name == "cookie")
	}
	if len(req.Body) > 0 {
		put("content-length", strconv.Itoa(len(req.Body)), false)
	}
	block := h.fields.Bytes()
	first := true
	for len(block) > 0 {
		part := block[:min(len(block), h.frameSize)]
		block = block[len(part):]
		if first {
			_ = h.fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: part, EndStream: len(req.Body) == 0, EndHeaders: len(block) == 0,
			})
		} else {
			_ = h.fr.WriteContinuation(id, len(block) == 0, part)
		}
		first = false
	}
}

func (h *HTTP2) flush() error {
	if h.out.Len() == 0 {
		return nil
	}
	_, err := h.c.Write(h.out.Bytes())
	h.out.Reset()
	return err
}

// send sends the body as fast as the server lets it. It stops when the
// response has come already.
func (s *stream) send(body []byte) error {
	h := s.h
	for len(body) > 0 && s.r == nil && !s.done {
		n := int(min(int64(len(body)), int64(h.frameSize), h.credit, s.credit))
		if n <= 0 {
			if err := h.flush(); err != nil {
				return err
			}
			if err := s.step(); err != nil {
				return err
			}
			continue
		}
		_ = h.fr.WriteData(s.id, n == len(body), body[:n])
		body = body[n:]
		h.credit -= int64(n)
		s.credit -= int64(n)
	}
	return nil
}

// step reads a frame and deals with it.
func (s *stream) step() error {
	h := s.h
	if err := h.c.Wait(); err != nil {
		return unexpected(err)
	}
	if !h.greeted {
		if err := h.checkGreeting(); err != nil {
			return err
		}
	}
	f, err := h.fr.ReadFrame()
	if err != nil {
		return h.frameError(err)
	}
	if _, ok := f.(*http2.SettingsFrame); !ok && !h.greeted {
		return probe.Protocolf("HTTP/2: the first frame is %s, want SETTINGS", f.Header().Type)
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		err = s.headers(f)
	case *http2.DataFrame:
		err = s.dataFrame(f)
	case *http2.RSTStreamFrame:
		if f.StreamID == s.id && !s.done {
			err = resetError(f.ErrCode)
		}
	default:
		err = h.controlFrame(s, f)
	}
	if err == nil {
		err = h.flush()
		if s.r != nil { // a server that has answered need not listen any more
			err = nil
		}
	}
	return err
}

// checkGreeting tells a server of HTTP/1.1 from one that garbles frames.
func (h *HTTP2) checkGreeting() error {
	b, err := h.c.Peek(9)
	if err != nil && len(b) == 0 {
		return unexpected(err)
	}
	if bytes.HasPrefix(b, []byte("HTTP/1")) {
		return probe.Protocolf("the server does not speak HTTP/2 but HTTP/1")
	}
	if b[3] != byte(http2.FrameSettings) || b[0] != 0 {
		return probe.Protocolf("HTTP/2: got %.40q, want SETTINGS", b)
	}
	return nil
}

func (h *HTTP2) frameError(err error) error {
	if detail := h.fr.ErrorDetail(); detail != nil {
		return probe.Protocolf("HTTP/2: %w: %w", err, detail)
	}
	_, stream := errors.AsType[http2.StreamError](err)
	_, conn := errors.AsType[http2.ConnectionError](err)
	if stream || conn || errors.Is(err, http2.ErrFrameTooLarge) {
		return probe.Protocolf("HTTP/2: %w", err)
	}
	return unexpected(err)
}

func resetError(code http2.ErrCode) error {
	switch code {
	case http2.ErrCodeRefusedStream, http2.ErrCodeEnhanceYourCalm:
		return probe.Failf(wire.Unavailable, "HTTP/2: the server refuses the request: %s", code)
	}
	return probe.Protocolf("HTTP/2: the server reset the request: %s", code)
}

// controlFrame deals with frames that belong to no response.
func (h *HTTP2) controlFrame(s *stream, f http2.Frame) error {
	if h.control++; h.control > maxControl {
		return probe.Protocolf("HTTP/2: more than %d frames beside the response", maxControl)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		h.greeted = true
		if err := f.ForeachSetting(func(x http2.Setting) error { return h.setting(s, x) }); err != nil {
			return err
		}
		_ = h.fr.WriteSettingsAck()
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = h.fr.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		switch f.StreamID {
		case 0:
			h.credit += int64(f.Increment)
		case s.id:
			s.credit += int64(f.Increment)
		}
		if max(h.credit, s.credit) > 1<<31-1 {
			return probe.Protocolf("HTTP/2: the server opens a window of more than 2^31-1 bytes")
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID >= s.id {
			return nil // it finishes what it has begun
		}
		text := fmt.Sprintf("HTTP/2: the server goes away: %s %.80q", f.ErrCode, f.DebugData())
		if f.ErrCode == http2.ErrCodeNo || f.ErrCode == http2.ErrCodeEnhanceYourCalm {
			return probe.Failf(wire.Unavailable, "%s", text)
		}
		return probe.Protocolf("%s", text)
	case *http2.PushPromiseFrame:
		return probe.Protocolf("HTTP/2: the server pushes, although it was told not to")
	}
	return nil
}

func (h *HTTP2) setting(s *stream, x http2.Setting) error {
	if err := x.Valid(); err != nil {
		return probe.Protocolf("HTTP/2: %s: %w", x, err)
	}
	switch x.ID {
	case http2.SettingMaxFrameSize:
		h.frameSize = min(int(x.Val), 64<<10)
	case http2.SettingInitialWindowSize:
		s.credit += int64(x.Val) - h.streamSize
		h.streamSize = int64(x.Val)
	case http2.SettingHeaderTableSize:
		h.enc.SetMaxDynamicTableSizeLimit(x.Val)
	}
	return nil
}

// headers deals with the head of a response, final or interim, and with its
// trailer.
func (s *stream) headers(f *http2.MetaHeadersFrame) error {
	if f.StreamID != s.id {
		return nil // what is left of an earlier request
	}
	if f.Truncated {
		return probe.Protocolf("the server sent more than %d bytes of fields", MaxHeader)
	}
	fields := make(Fields, 0, len(f.Fields))
	for _, x := range f.RegularFields() {
		fields = append(fields, Field{x.Name, strings.Trim(x.Value, " \t")})
	}
	if s.r != nil {
		if !f.StreamEnded() {
			return probe.Protocolf("HTTP/2: a trailer that does not end the response")
		}
		s.r.Trailer = fields
		return s.end()
	}
	status, ok := statusCode(f.PseudoValue("status"))
	if !ok || status == 101 {
		return probe.Protocolf(":status: got %.20q, want a status from 100 to 999", f.PseudoValue("status"))
	}
	if status < 200 {
		if s.interim++; s.interim > maxInterim {
			return probe.Protocolf("more than %d interim responses (1xx)", maxInterim)
		}
		return nil
	}
	r := &Response{Version: "2", Status: status, Fields: fields, Body: s}
	var err error
	if r.Length, err = contentLength(fields); err != nil {
		return err
	}
	s.r = r
	if f.StreamEnded() {
		return s.end()
	}
	return nil
}

// end checks that the body is as long as the server has said.
func (s *stream) end() error {
	s.done = true
	if r := s.r; r.Length >= 0 && s.got != r.Length && !bodiless(s.method, r.Status) {
		return probe.Protocolf("the body has %d bytes, but content-length says %d", s.got, r.Length)
	}
	return nil
}

func (s *stream) dataFrame(f *http2.DataFrame) error {
	n := int64(f.Length)
	s.h.unread += n
	switch {
	case f.StreamID != s.id || s.done:
		return nil
	case s.r == nil:
		return probe.Protocolf("HTTP/2: a body without a head")
	}
	s.unread += n
	s.data = f.Data()
	if s.got += int64(len(s.data)); s.r.Length >= 0 && s.got > s.r.Length {
		return probe.Protocolf("the body has more than the %d bytes that content-length says", s.r.Length)
	}
	if f.StreamEnded() {
		return s.end()
	}
	if len(s.data) == 0 {
		if s.h.control++; s.h.control > maxControl {
			return probe.Protocolf("HTTP/2: more than %d empty frames", maxControl)
		}
	}
	return nil
}

// Read reads from the body.
func (s *stream) Read(b []byte) (int, error) {
	for len(s.data) == 0 {
		if s.done {
			return 0, io.EOF
		}
		s.openWindow()
		if err := s.step(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.data)
	s.data = s.data[n:]
	return n, nil
}

// openWindow lets the server send on, when it has used up half of what it may.
func (s *stream) openWindow() {
	if s.h.unread > window/2 {
		_ = s.h.fr.WriteWindowUpdate(0, uint32(s.h.unread))
		s.h.unread = 0
	}
	if s.unread > window/2 {
		_ = s.h.fr.WriteWindowUpdate(s.id, uint32(s.unread))
		s.unread = 0
	}
}
