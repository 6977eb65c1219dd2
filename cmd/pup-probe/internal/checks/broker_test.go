package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
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
