package checks

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// brokerPaused forwards to the real server of the given name, and stops it for
// good, in mid-session, when the check has sent the trigger: what follows gets
// to its kernel only.
func brokerPaused(t *testing.T, says map[string]string, name, trigger string) (addr string) {
	t.Helper()
	return serve(t, func(c net.Conn) {
		server, err := net.Dial("tcp", says[name])
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		go func() { io.Copy(c, server) }()
		var seen []byte
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			seen = append(seen, b[:n]...)
			if i := bytes.Index(seen, []byte(trigger)); i >= 0 {
				seen = nil
				realserver.Pause(t, says, name)
			}
			server.Write(b[:n])
		}
	})
}

// brokerProxy is a proxy (HTTP CONNECT) that leads to addr, whatever it is
// asked for: to the check, what is behind it is not on this machine.
func brokerProxy(t *testing.T, addr string) (member string) {
	t.Helper()
	proxy := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(c, server); c.Close() }()
		io.Copy(server, br)
	})
	return `"proxy":"http://` + proxy + `"`
}

// A password goes over a plain connection to another machine only where that
// is allowed, and the URL may name the user.
func TestBrokerPlainAuth(t *testing.T) {
	pw := secret(t, "BROKER_PASSWORD", "hush-hush")
	versions := fmt.Sprintf("Cx 0000000d 0012 0000 00000001 0003 707570\nSx %08x 00000001 %x\n", len(kafkaVersions(0, 9))+4, kafkaVersions(0, 9))
	for _, tt := range []struct{ check, before, login, want string }{
		{"nats", natsHello, "C~ CONNECT .*\"pass\":\"hush-hush\"\n! close", "down tls greet"},
		{"mqtt", "", "Cx 10\n! close", "unknown options connect"},
		{"amqp", "", amqpOffers("PLAIN") + amqpLogsIn("PLAIN", "\x00u\x00hush-hush") + "! close", "unknown options connect"},
		{"kafka", versions, "Cx 00000014 0011\n! close", "unknown options auth"},
	} {
		t.Run(tt.check, func(t *testing.T) {
			scripts := make(chan string, 1)
			proxy := brokerProxy(t, serve(t, func(c net.Conn) { play(t, c, <-scripts) }))
			try := func(script, url, options string) result {
				scripts <- script
				return check(t, tt.check+"://"+url, fmt.Sprintf(`%s,%q:{"password":%q%s}`, proxy, tt.check, pw, options))
			}
			mechanism := ""
			if tt.check == "kafka" {
				mechanism = `,"mechanism":"PLAIN"`
			}
			try(tt.before, "u@broker.example.org", mechanism).want(t, tt.want, "error contains 'allow_plain_auth'")
			res := try(tt.before+tt.login, "u@broker.example.org", mechanism+`,"allow_plain_auth":true`)
			if got := res.outcome(); got == "up" || strings.Contains(got, "options") {
				t.Errorf("got %q, want the login to be tried\n%s", got, res.line)
			}
			if tt.check == "nats" {
				try(tt.before, "broker.example.org", `,"user":"u","starttls":"off"`).want(t, "unknown options greet", "error contains 'broker.example.org'")
			}
			check(t, tt.check+"://u@broker.example.org", fmt.Sprintf(`%s,%q:{"user":"v","password":%q}`, proxy, tt.check, pw)).want(t, "unknown options prepare", "error contains '"+tt.check+".user'")
		})
	}
}

// brokerScram is the server's side of SCRAM-SHA-256 (RFC 7677), for a user
// with one password.
type brokerScram struct {
	password  string
	begin     string // what the client sent first, without its header
	challenge string
}

func (s *brokerScram) mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// first answers client-first-message.
func (s *brokerScram) first(message string) string {
	s.begin = strings.TrimPrefix(message, "n,,")
	_, nonce, _ := strings.Cut(s.begin, ",r=")
	s.challenge = "r=" + nonce + "more,s=" + base64.StdEncoding.EncodeToString([]byte("salt")) + ",i=4096"
	return s.challenge
}

// final checks client-final-message, and answers it.
func (s *brokerScram) final(message string) (string, bool) {
	without, proof, _ := strings.Cut(message, ",p=")
	salted, _ := pbkdf2.Key(sha256.New, s.password, []byte("salt"), 4096, sha256.Size)
	text := s.begin + "," + s.challenge + "," + without
	key := s.mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	want := s.mac(stored[:], text)
	for i := range want {
		want[i] ^= key[i]
	}
	got, _ := base64.StdEncoding.DecodeString(proof)
	return "v=" + base64.StdEncoding.EncodeToString(s.mac(s.mac(salted, "Server Key"), text)), hmac.Equal(got, want)
}
