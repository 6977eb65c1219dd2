// Package httpconn speaks HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113) as a
// client, on a connection that it is given. It has no pool, no goroutine and no
// retry: what a check measures is what happened. It trusts nothing that the
// server sends: every length is bounded, and a message that two readers could
// understand in two ways is an error.
package httpconn

import (
	"io"
	"strconv"
	"strings"

	"pup/cmd/pup-probe/internal/probe"
)

// MaxHeader bounds the status line and the fields of a response, in bytes, and
// the trailer as well.
const MaxHeader = 64 << 10

// maxInterim bounds the responses 1xx before the real one.
const maxInterim = 8

// A Field is a header field. Its name is in lower case.
type Field struct{ Name, Value string }

// Fields are header fields in the order in which they came.
type Fields []Field

// Get gives the value of the first field with the name, in lower case, or "".
func (fs Fields) Get(name string) string {
	for i := range fs {
		if fs[i].Name == name {
			return fs[i].Value
		}
	}
	return ""
}

// All gives the values of all fields with the name.
func (fs Fields) All(name string) []string {
	var values []string
	for i := range fs {
		if fs[i].Name == name {
			values = append(values, fs[i].Value)
		}
	}
	return values
}

// Set replaces the first field with the name, or adds one.
func (fs *Fields) Set(name, value string) {
	for i := range *fs {
		if (*fs)[i].Name == name {
			(*fs)[i].Value = value
			return
		}
	}
	*fs = append(*fs, Field{name, value})
}

// A Request is what to ask for. Its parts must be valid: no spaces or control
// characters in Method, Authority and Path, and neither in the fields. The
// field host, the fields of the connection and those of the body's length are
// made here.
type Request struct {
	Method    string
	Scheme    string // "http" or "https"
	Authority string // host, and port unless it is the scheme's
	Path      string // with the query
	Fields    Fields
	Body      []byte
}

// A Response is the head of a response, and its body to be read.
type Response struct {
	Version string // "1.0", "1.1" or "2"
	Status  int
	Fields  Fields
	Length  int64     // of the body as the server says; -1: it does not say
	Body    io.Reader // until io.EOF; framing is removed, content coding is not
	Trailer Fields    // after io.EOF
}

// An Exchanger carries requests over a connection.
type Exchanger interface {
	// Do sends a request and reads the head of its response. It marks the
	// phases request, wait and transfer.
	Do(req *Request) (*Response, error)
}

// New makes an Exchanger for HTTP/2 if TLS has agreed on it, else for
// HTTP/1.1, over which a connection carries one request.
func New(p *probe.Probe, c *probe.Conn) Exchanger {
	if st := c.TLSState(); st != nil && st.NegotiatedProtocol == "h2" {
		return NewHTTP2(p, c)
	}
	return &http1{p: p, c: c}
}

// Token says whether s is a token (RFC 9110, section 5.6.2), as names of
// fields and methods are.
func Token(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// FieldValue says whether s can be the value of a field: no control
// characters, and no spaces around it.
func FieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return trim(s) == s
}

// Authority gives the host, in brackets if it is an IPv6 address, and the port
// unless it is usual.
func Authority(host string, port, usual int) string {
	host = strings.ToLower(host)
	if strings.Contains(host, ":") {
		host, _, _ = strings.Cut(host, "%") // a zone means something to us only
		host = "[" + host + "]"
	}
	if port != usual {
		host += ":" + strconv.Itoa(port)
	}
	return host
}

// bodiless says whether the response has no body, whatever its fields say
// (RFC 9110, section 6.4.1).
func bodiless(method string, status int) bool {
	return method == "HEAD" || status == 204 || status == 304
}

// contentLength reads the fields content-length: one value, however often it
// is sent. It gives -1 without any.
func contentLength(fs Fields) (int64, error) {
	length := int64(-1)
	for i := range fs {
		if fs[i].Name != "content-length" {
			continue
		}
		n, ok := decimal(fs[i].Value)
		if !ok {
			return 0, probe.Protocolf("content-length: %.80q is no length", fs[i].Value)
		}
		if length >= 0 && n != length {
			return 0, probe.Protocolf("content-length is given twice, as %d and as %d", length, n)
		}
		length = n
	}
	return length, nil
}

func decimal(s string) (int64, bool) {
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i >= 18 {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, s != ""
}

// statusCode reads a status code: three digits, of which the first is not 0.
func statusCode(s string) (int, bool) {
	n, ok := decimal(s)
	return int(n), ok && len(s) == 3 && n >= 100
}
