package httpconn

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type http1 struct {
	p    *probe.Probe
	c    *probe.Conn
	keep bool // the connection is to carry more requests
}

var scratch = sync.Pool{New: func() any { return new(make([]byte, 0, 4<<10)) }}

// Do asks the server to close when it is done, if nothing more will come over
// this connection.
func (h *http1) Do(req *Request) (*Response, error) {
	last := "close"
	if h.keep {
		last = ""
	}
	resp, err := h.exchange(req, last)
	if err == nil && resp.Status == 101 {
		return nil, probe.Protocolf("status 101: nobody asked for another protocol")
	}
	return resp, err
}

// Upgrade asks for another protocol on the connection (RFC 9110, section
// 7.8). If the status of the response is 101, it is spoken from then on.
func Upgrade(p *probe.Probe, c *probe.Conn, req *Request, protocol string) (*Response, error) {
	h := &http1{p: p, c: c}
	req.Fields = append(req.Fields, Field{"upgrade", protocol})
	return h.exchange(req, "Upgrade")
}

func (h *http1) exchange(req *Request, connection string) (*Response, error) {
	h.p.Phase(wire.Request)
	b := scratch.Get().(*[]byte)
	*b = appendRequest((*b)[:0], req, connection)
	_, werr := h.c.Write(*b)
	giveBack(b)
	method := req.Method // the rest of the request need not wait with us
	h.p.Phase(wire.Wait)
	if err := h.c.Wait(); err != nil {
		if werr != nil { // a server may answer, and close, before it has read all
			err = werr
		}
		return nil, err
	}
	h.p.Phase(wire.Transfer)
	for range maxInterim + 1 {
		resp, err := h.head()
		if err != nil {
			return nil, err
		}
		if resp.Status == 101 {
			return resp, nil
		}
		if resp.Status >= 200 {
			return resp, h.frame(method, resp)
		}
	}
	return nil, probe.Protocolf("more than %d interim responses (1xx)", maxInterim)
}

// giveBack leaves large buffers to the garbage collector.
func giveBack(b *[]byte) {
	if cap(*b) <= MaxHeader {
		scratch.Put(b)
	}
}

func appendRequest(b []byte, req *Request, connection string) []byte {
	b = append(append(b, req.Method...), ' ')
	b = append(append(b, req.Path...), " HTTP/1.1\r\nhost: "...)
	b = append(b, req.Authority...)
	b = append(b, "\r\n"...)
	if connection != "" {
		b = append(append(append(b, "connection: "...), connection...), "\r\n"...)
	}
	for _, f := range req.Fields {
		b = append(append(b, f.Name...), ": "...)
		b = append(append(b, f.Value...), "\r\n"...)
	}
	if len(req.Body) > 0 || req.Method == "POST" || req.Method == "PUT" || req.Method == "PATCH" {
		b = append(b, "content-length: "...)
		b = append(strconv.AppendInt(b, int64(len(req.Body)), 10), "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, req.Body...)
}

// head reads a status line and fields. The lines are gathered in one buffer,
// of which all the strings are parts.
func (h *http1) head() (*Response, error) {
	b := scratch.Get().(*[]byte)
	defer giveBack(b)
	buf := (*b)[:0]
	var ends [64]int
	lines := ends[:0]
	for {
		n := len(buf)
		var err error
		buf, err = h.c.AppendLine(buf, MaxHeader)
		*b = buf
		if err != nil {
			return nil, headError(buf, err)
		}
		if len(lines) == 0 && !bytes.HasPrefix(buf, []byte("HTTP/1.")) {
			return nil, probe.Protocolf("status line: got %.80q, want HTTP/1.1", buf)
		}
		if len(buf) == n {
			break
		}
		if len(lines) > 0 {
			lowerName(buf[n:])
		}
		lines = append(lines, len(buf))
	}
	if len(lines) == 0 {
		return nil, probe.Protocolf("status line: got an empty line, want HTTP/1.1")
	}
	return parseHead(string(buf), lines)
}

// headError keeps a stranger who sends no line at all from being told to have
// sent too much.
func headError(got []byte, err error) error {
	if n := min(len(got), 7); n > 0 && string(got[:n]) != "HTTP/1."[:n] {
		return probe.Protocolf("status line: got %.80q, want HTTP/1.1", got)
	}
	return err
}

// parseHead takes apart the lines of a head, which lie in text without their
// line endings, each up to one of ends.
func parseHead(text string, ends []int) (*Response, error) {
	line := text[:ends[0]]
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, ok := statusCode(code)
	if !ok || (version != "HTTP/1.1" && version != "HTTP/1.0") {
		return nil, probe.Protocolf("status line: got %.80q, want HTTP/1.1 and a status from 100 to 999", line)
	}
	r := &Response{Version: version[len("HTTP/"):], Status: status}
	fields, err := parseFields(text, ends)
	r.Fields = fields
	return r, err
}

func parseFields(text string, ends []int) (Fields, error) {
	fields := make(Fields, 0, len(ends)-1)
	for i := 1; i < len(ends); i++ {
		line := text[ends[i-1]:ends[i]]
		if strings.IndexByte(line, 0) >= 0 || strings.IndexByte(line, '\r') >= 0 {
			return nil, probe.Protocolf("field: %.80q holds a control character", line)
		}
		if line[0] == ' ' || line[0] == '\t' { // a folded line (RFC 9112, section 5.2)
			if len(fields) == 0 {
				return nil, probe.Protocolf("field: %.80q continues nothing", line)
			}
			last := &fields[len(fields)-1]
			last.Value = strings.Trim(last.Value+" "+trim(line), " ")
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !Token(name) {
			return nil, probe.Protocolf("field: got %.80q, want NAME: VALUE", line)
		}
		fields = append(fields, Field{name, trim(value)})
	}
	return fields, nil
}

// lowerName makes the name lower case that a line begins with.
func lowerName(line []byte) {
	for i, c := range line {
		switch {
		case c == ':' || c == ' ' || c == '\t': // or the continuation of a value
			return
		case 'A' <= c && c <= 'Z':
			line[i] = c | 0x20
		}
	}
}

// trim takes the blanks off both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// frame finds where the body ends (RFC 9112, section 6.3). A response that
// says it in two ways is an error: it is how one is smuggled into another.
func (h *http1) frame(method string, r *Response) (err error) {
	if r.Length, err = contentLength(r.Fields); err != nil {
		return err
	}
	coding := r.Fields.All("transfer-encoding")
	switch {
	case bodiless(method, r.Status):
		r.Body = bytes.NewReader(nil)
	case len(coding) > 0:
		if len(coding) > 1 || !strings.EqualFold(coding[0], "chunked") || r.Version == "1.0" {
			return probe.Protocolf("transfer-encoding: got %.80q, want chunked, in HTTP/1.1", coding)
		}
		if r.Length >= 0 {
			return probe.Protocolf("both content-length and transfer-encoding: the body's end can't be told")
		}
		r.Body = &chunked{c: h.c, r: r}
	case r.Length >= 0:
		r.Body = &fixed{h.c, r.Length}
	default:
		r.Body = h.c // until the server closes
	}
	return nil
}

// fixed is a body of known length.
type fixed struct {
	c    *probe.Conn
	left int64
}

func (f *fixed) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.c.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	if err == io.EOF && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunked is a body in chunks (RFC 9112, section 7.1).
type chunked struct {
	c        *probe.Conn
	r        *Response
	left     int64 // of the chunk
	began    bool
	done     bool
	overhead int64 // bytes beside the body
}

func (k *chunked) Read(b []byte) (int, error) {
	if k.left == 0 && !k.done {
		if err := k.next(); err != nil {
			return 0, unexpected(err)
		}
	}
	if k.done {
		return 0, io.EOF
	}
	n, err := k.c.Read(b[:min(int64(len(b)), k.left)])
	k.left -= int64(n)
	k.overhead = max(0, k.overhead-int64(n))
	return n, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads the line before a chunk, and what follows the last one.
func (k *chunked) next() error {
	if k.began {
		if err := k.lineEnd(); err != nil {
			return err
		}
	}
	k.began = true
	b := scratch.Get().(*[]byte)
	defer giveBack(b)
	line, err := k.c.AppendLine((*b)[:0], 4<<10)
	*b = line
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 62)
	if err != nil {
		return probe.Protocolf("chunk: got %.80q, want its length in hex", line)
	}
	// a server must not talk on and on in extensions of tiny chunks
	if k.overhead += int64(len(line)); k.overhead > MaxHeader {
		return probe.Protocolf("chunks: more than %d bytes beside the body", MaxHeader)
	}
	if k.left = int64(n); n == 0 {
		k.done = true
		return k.trailer()
	}
	return nil
}

func (k *chunked) lineEnd() error {
	b, err := k.c.ReadByte()
	if err == nil && b == '\r' {
		b, err = k.c.ReadByte()
	}
	if err == nil && b != '\n' {
		err = probe.Protocolf("chunk: got %q behind it, want the end of the line", b)
	}
	return err
}

func (k *chunked) trailer() error {
	var buf []byte
	ends := []int{0}
	for {
		n := len(buf)
		var err error
		if buf, err = k.c.AppendLine(buf, MaxHeader); err != nil {
			return err
		}
		if len(buf) == n {
			break
		}
		lowerName(buf[n:])
		ends = append(ends, len(buf))
	}
	fields, err := parseFields(string(buf), ends)
	k.r.Trailer = fields
	return err
}
