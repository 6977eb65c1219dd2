package httpconn

import (
	"bytes"
	"context"
	"io"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// maxDocument bounds the documents that an API gives, in bytes.
const maxDocument = 4 << 20

// An API asks a service for documents over one connection, HTTP/1.1 and kept
// alive, or HTTP/2. It connects anew only if the server says that it closes.
type API struct {
	Fields Fields // of every request

	p    *probe.Probe
	alpn []string
	c    *probe.Conn
	x    Exchanger
}

// NewAPI makes an API of the target. Over TLS it offers the protocols.
func NewAPI(p *probe.Probe, alpn ...string) *API { return &API{p: p, alpn: alpn} }

// Close closes the connection, if there is one.
func (a *API) Close() error {
	if a.c == nil {
		return nil
	}
	err := a.c.Close()
	a.c, a.x = nil, nil
	return err
}

func (a *API) dial(ctx context.Context) error {
	c, err := a.p.DialPlain(ctx)
	if err == nil && a.p.URL.Scheme.TLS {
		c, err = a.p.StartTLS(ctx, c, a.alpn...)
	}
	if err != nil {
		return err
	}
	a.c, a.x = c, New(a.p, c)
	if h, ok := a.x.(*http1); ok {
		h.keep = true
	}
	return nil
}

// Do asks for the document at path. With a body the method is POST, and the
// body JSON.
func (a *API) Do(ctx context.Context, path string, body []byte) (*Response, []byte, error) {
	req := &Request{Method: "GET", Scheme: "http", Authority: Authority(a.p.URL.Host, a.p.URL.Port, 0), Path: path, Body: body}
	if a.p.URL.Scheme.TLS {
		req.Scheme = "https"
	}
	req.Fields = append(append(req.Fields, a.Fields...), Field{"accept", "application/json"}, Field{"user-agent", "pup-probe"})
	if body != nil {
		req.Method = "POST"
		req.Fields = append(req.Fields, Field{"content-type", "application/json"})
	}
	if a.c == nil {
		if err := a.dial(ctx); err != nil {
			return nil, nil, err
		}
	}
	resp, err := a.x.Do(req)
	if err != nil {
		return nil, nil, err
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(io.LimitReader(resp.Body, maxDocument+1)); err != nil {
		return nil, nil, err
	}
	if text.Len() > maxDocument {
		return nil, nil, probe.Failf(wire.TooLarge, "%s: more than %d bytes", path, maxDocument)
	}
	if resp.Version == "1.0" || strings.EqualFold(resp.Fields.Get("connection"), "close") {
		a.Close()
	}
	return resp, text.Bytes(), nil
}
