package checks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// websocketServer upgrades, sends the given bytes, and answers each ping with
// a pong if pongs are wanted.
func websocketServer(t testing.TB, head, sent string, pong bool) (addr string) {
	return serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		key := ""
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && name == "sec-websocket-key" {
				key = value
			}
			if strings.TrimSpace(line) == "" {
				break
			}
		}
		io.WriteString(c, strings.ReplaceAll(head, "PROOF", websocketProof(key))+"\r\n"+sent)
		for pong {
			frame := make([]byte, 14) // a ping of eight bytes
			if _, err := io.ReadFull(br, frame); err != nil || frame[0] != 0x89 {
				return
			}
			for i := range 8 {
				frame[6+i] ^= frame[2+i%4]
			}
			c.Write(append([]byte{0x8a, 8}, frame[6:]...))
		}
		io.Copy(io.Discard, br)
	})
}

const websocketHead = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: PROOF\r\n"

func TestWebsocket(t *testing.T) {
	token := secret(t, "WEBSOCKET", "s3cret-token")
	for _, tt := range []struct {
		name, head, sent, target, want string
		pong                           bool
		facts                          []string
	}{
		{name: "up", head: websocketHead, pong: true, want: "up", facts: []string{"websocket.status == 101", "websocket.ping_ms > 0", "websocket.messages == 0"}},
		{name: "a message before the pong", head: websocketHead, sent: "\x81\x02hi", pong: true, want: "up", facts: []string{"websocket.messages == 1"}},
		{name: "no pong", head: websocketHead, target: `"timeout":"200ms"`, want: "down timeout wait"},
		{name: "no ping", head: websocketHead, target: `"websocket":{"ping":false}`, want: "up"},
		{name: "receive", head: websocketHead, sent: "\x01\x02{\"\x80\x06a\":12}", target: `"websocket":{"ping":false,"receive":true},"expect":["websocket.json.a == 12"]`, want: "up", facts: []string{"websocket.reply_bytes == 8"}},
		{name: "subprotocol", head: websocketHead + "Sec-WebSocket-Protocol: b\r\n", target: `"websocket":{"ping":false,"subprotocols":["a","b"]}`, want: "up", facts: []string{"websocket.subprotocol == 'b'"}},
		{name: "no subprotocol", head: websocketHead, target: `"websocket":{"subprotocols":["a"]}`, want: "down mismatch greet"},
		{name: "foreign subprotocol", head: websocketHead + "Sec-WebSocket-Protocol: c\r\n", target: `"websocket":{"subprotocols":["a"]}`, want: "down protocol greet"},
		{name: "extension", head: websocketHead + "Sec-WebSocket-Extensions: permessage-deflate\r\n", want: "down protocol greet"},
		{name: "proof", head: strings.Replace(websocketHead, "PROOF", "AAAA", 1), want: "down protocol greet"},
		{name: "a page", head: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", want: "down protocol greet"},
		{name: "denied", head: "HTTP/1.1 403 No\r\nContent-Length: 0\r\n", target: `"websocket":{"token":"` + token + `"}`, want: "down denied auth"},
		{name: "unavailable", head: "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n", want: "down unavailable greet"},
		{name: "masked", head: websocketHead, sent: "\x81\x82abcdhi", want: "down protocol wait"},
		{name: "reserved bits", head: websocketHead, sent: "\xc1\x02hi", want: "down protocol wait"},
		{name: "opcode", head: websocketHead, sent: "\x83\x02hi", want: "down protocol wait"},
		{name: "long ping", head: websocketHead, sent: "\x89\x7e\x01\x00" + strings.Repeat("x", 256), want: "down protocol wait"},
		{name: "continues nothing", head: websocketHead, sent: "\x80\x02hi", want: "down protocol wait"},
		{name: "message in a message", head: websocketHead, sent: "\x01\x02hi\x81\x02hi", want: "down protocol wait"},
		{name: "not UTF-8", head: websocketHead, sent: "\x81\x02\xff\xfe", want: "down protocol wait"},
		{name: "too large", head: websocketHead, sent: "\x82\x7f\x00\x00\x00\xff\x00\x00\x00\x00", want: "down too-large wait"},
		{name: "messages for ever", head: websocketHead, sent: strings.Repeat("\x81\x02hi", 1100), want: "down protocol wait"},
		{name: "pings for ever", head: websocketHead, sent: strings.Repeat("\x89\x00", 1100), want: "down protocol wait"},
		{name: "restarts", head: websocketHead, sent: "\x88\x09\x03\xf4restart", want: "down unavailable wait", facts: []string{"websocket.close_code == 1012"}},
		{name: "policy", head: websocketHead, sent: "\x88\x02\x03\xf0", want: "down denied wait"},
		{name: "closes", head: websocketHead, sent: "\x88\x00", want: "down closed wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := websocketServer(t, tt.head, tt.sent, tt.pong)
			check(t, "ws://"+addr+"/", tt.target).want(t, tt.want, tt.facts...)
		})
	}
}

func TestWebsocketReal(t *testing.T) {
	n := realserver.Start(t, "websocket")
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, n["ca"])
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"ping", "ws://" + n["websocket"] + "/echo", ``, "up", []string{"websocket.ping_ms > 0"}},
		{"echo", "ws://" + n["websocket"] + "/echo", `"websocket":{"echo":true}`, "up", []string{"websocket.echo_ms > 0"}},
		{"tls", "wss://" + n["websocket_tls"] + "/echo", ca + `,"websocket":{"echo":true}`, "up", []string{"tls.verified"}},
		{"reply", "ws://" + n["websocket"] + "/echo", `"websocket":{"send":"{\"a\":[1]}"},"expect":["websocket.json.a[0] == 1"]`, "up", nil},
		{"greeting", "ws://" + n["websocket"] + "/greets", `"websocket":{"ping":false,"receive":true},"expect":["websocket.json.clients >= 3"]`, "up", nil},
		{"no echo", "ws://" + n["websocket"] + "/silent", `"timeout":"300ms","websocket":{"echo":true}`, "down timeout wait", []string{"websocket.ping_ms > 0"}},
		{"no such program", "ws://" + n["websocket"] + "/none", ``, "down protocol greet", []string{"websocket.status == 404"}},
		{"no subprotocol", "ws://" + n["websocket"] + "/echo", `"websocket":{"subprotocols":["chat"]}`, "down mismatch greet", nil},
		{"plain where there is tls", "ws://" + n["websocket_tls"] + "/echo", ``, "down protocol greet", nil},
		{"untrusted", "wss://" + n["websocket_tls"] + "/echo", ``, "down certificate-untrusted tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
	res := check(t, "ws://"+n["websocket"]+"/leaves", `"websocket":{"echo":true}`)
	if !strings.HasPrefix(res.outcome(), "down closed") && !strings.HasPrefix(res.outcome(), "down reset") {
		t.Errorf("leaves: got %q, want down closed\n%s", res.outcome(), res.line)
	}
	const ping = "\x89" // the first byte of its frame
	paused := between(t, n["websocket"], ping, func() { realserver.Pause(t, n, "websocket") })
	check(t, "ws://"+paused+"/echo", `"timeout":"1s"`).want(t, "down timeout wait", "websocket.status == 101", "websocket.ping_ms == nil")
	check(t, "ws://"+n["websocket"]+"/echo", `"timeout":"300ms"`).want(t, "down timeout wait")
}

// websocketBytes is a connection that holds what the server has sent.
type websocketBytes struct{ *bytes.Reader }

func (websocketBytes) Wait() error                 { return nil }
func (websocketBytes) Write(b []byte) (int, error) { return len(b), nil }
func (c websocketBytes) Full(b []byte) error       { _, err := io.ReadFull(c.Reader, b); return err }

// FuzzWebsocket checks that what we take as a message is whole frames of the
// server, no larger than what was sent.
func FuzzWebsocket(f *testing.F) {
	f.Add([]byte("\x81\x02hi"))
	f.Add([]byte("\x01\x02hi\x89\x00\x80\x7e\x00\x02hi"))
	f.Add([]byte("\x88\x02\x03\xe8"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &websocketSession{c: websocketBytes{bytes.NewReader(b)}, opt: &websocketOptions{}, facts: &websocketFacts{}}
		for total := 0; ; {
			op, message, err := s.message()
			if err != nil {
				return
			}
			if total += len(message) + 2; total > len(b) || op != websocketPong && op != websocketText && op != websocketBinary {
				t.Fatalf("%q: message %d %q", b, op, message)
			}
		}
	})
}
