package httpconn

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"pup/cmd/pup-probe/internal/probe"
)

// exchange lets f talk to a server that sends b, whatever it is asked.
func exchange(t testing.TB, b []byte, f func(p *probe.Probe, c *probe.Conn)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write(b)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	}()
	info := probe.Info{Name: "test", Schemes: []probe.Scheme{{Name: "test"}}, Common: probe.OverTCP}
	r := probe.NewRunner([]*probe.Check{probe.New(info, struct{}{}, func(ctx context.Context, p *probe.Probe, _, _ *struct{}) error {
		c, err := p.Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.Conn.(*net.TCPConn).SetLinger(0) // a fuzz test would use up all ports
		f(p, c)
		return nil
	})})
	j, err := r.Parse([]byte(`{"url":"test://` + ln.Addr().String() + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	j.Run(t.Context())
	<-served
}

var request = &Request{Method: "GET", Scheme: "http", Authority: "x", Path: "/"}

// FuzzHTTP1 compares our reading of a response with that of net/http: where
// we take it, net/http takes it too, and has the same status, fields and body.
func FuzzHTTP1(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n c\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
		"HTTP/1.0 404 \r\n\r\nhello",
		"HTTP/1.1 200\nContent-Length: 1,1\n\nx",
		"HTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0x7f }
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.ContainsFunc(b, control) {
			return // of these, RFC 9110 (section 5.5) lets us keep what net/http refuses
		}
		exchange(t, b, func(p *probe.Probe, c *probe.Conn) {
			resp, err := New(p, c).Do(request)
			if err != nil {
				return
			}
			body, err := io.ReadAll(resp.Body)
			br := bufio.NewReader(bytes.NewReader(b))
			want, werr := http.ReadResponse(br, nil)
			for werr == nil && want.StatusCode < 200 && want.StatusCode != 101 {
				want, werr = http.ReadResponse(br, nil)
			}
			if werr != nil {
				t.Fatalf("%q: we take it, but net/http says %v", b, werr)
			}
			if resp.Status != want.StatusCode {
				t.Errorf("%q: status %d, net/http has %d", b, resp.Status, want.StatusCode)
			}
			for _, x := range resp.Fields {
				if strings.ContainsAny(x.Name+x.Value, "\r\n\x00") || x.Name != strings.ToLower(x.Name) {
					t.Errorf("%q: field %q: %q", b, x.Name, x.Value)
				}
			}
			wantBody, wantErr := io.ReadAll(want.Body)
			if err == nil && wantErr == nil && !bytes.Equal(body, wantBody) {
				t.Errorf("%q: body %q, net/http has %q", b, body, wantBody)
			}
		})
	})
}

// FuzzHTTP2 checks that whatever a server sends, an exchange ends, keeps to
// its bounds, and blames the server.
func FuzzHTTP2(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88" + "\x00\x00\x05\x00\x01\x00\x00\x00\x01hello"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		exchange(t, b, func(p *probe.Probe, c *probe.Conn) {
			resp, err := NewHTTP2(p, c).Do(request)
			if err != nil {
				return
			}
			body, err := io.ReadAll(resp.Body)
			if len(body) > len(b) {
				t.Errorf("%q: a body of %d bytes out of %d", b, len(body), len(b))
			}
			if err == nil && resp.Length >= 0 && int64(len(body)) != resp.Length && resp.Status != 204 && resp.Status != 304 {
				t.Errorf("%q: a body of %d bytes, content-length says %d", b, len(body), resp.Length)
			}
		})
	})
}

// TestHTTP2Floods sends what never becomes a response.
func TestHTTP2Floods(t *testing.T) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	ping := "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "12345678"
	interim := "\x00\x00\x05\x01\x04\x00\x00\x00\x01\x08\x03100"
	head := "\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88"
	empty := "\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	reset := func(code string) string { return "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00" + code }
	for _, tt := range []struct{ name, sent, want string }{
		{"pings", settings + strings.Repeat(ping, 1000), "frames beside"},
		{"settings", strings.Repeat(settings, 1000), "frames beside"},
		{"interim", settings + strings.Repeat(interim, 20), "interim"},
		{"empty", settings + head + strings.Repeat(empty, 1000), "empty frames"},
		{"refused", settings + reset("\x07"), "refuses"},
		{"reset", settings + reset("\x02"), "INTERNAL_ERROR"},
		{"goes away", settings + "\x00\x00\x0b\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00bye", "bye"},
		{"ping first", ping, "want SETTINGS"},
		{"http/1", "HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1"},
		{"body without head", settings + "\x00\x00\x05\x00\x01\x00\x00\x00\x01hello", "without a head"},
		{"too large a frame", settings + "\x10\x00\x00\x00\x00\x00\x00\x00\x01", "too large"},
		{"nothing", "", "EOF"},
		{"cut", settings + head[:9], "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exchange(t, []byte(tt.sent), func(p *probe.Probe, c *probe.Conn) {
				resp, err := NewHTTP2(p, c).Do(request)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
			})
		})
	}
}
