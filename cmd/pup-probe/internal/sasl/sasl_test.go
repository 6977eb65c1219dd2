package sasl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// The exchanges of RFC 5802, section 5, and RFC 7677, section 3.
var scramVectors = []struct{ name, nonce, first, server, final, end string }{
	{
		ScramSHA1, "fyko+d2lbbFgONRv9qkxdawL",
		"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
		"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
		"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
		"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
	},
	{
		ScramSHA256, "rOprNGfwEbeRWgbNEkqO",
		"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
		"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
	},
}

func scramClient(t *testing.T, name, nonce string) *scram {
	t.Helper()
	c, err := New(name, Credentials{User: "user", Password: "pencil"})
	if err != nil {
		t.Fatal(err)
	}
	s := c.(*scram)
	s.nonce = nonce
	return s
}

func TestScramVectors(t *testing.T) {
	for _, v := range scramVectors {
		s := scramClient(t, v.name, v.nonce)
		if name, first := s.Start(); name != v.name || string(first) != v.first {
			t.Errorf("%s: got %q, want %q", name, first, v.first)
		}
		if got, err := s.Next([]byte(v.server)); err != nil || string(got) != v.final {
			t.Errorf("%s: got %q, %v, want %q", v.name, got, err, v.final)
		}
		if s.Done() == nil {
			t.Errorf("%s: done before the server has proved anything", v.name)
		}
		if got, err := s.Next([]byte(v.end)); err != nil || got == nil || len(got) > 0 {
			t.Errorf("%s: got %q, %v, want an empty response", v.name, got, err)
		}
		if err := s.Done(); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

func TestScramServer(t *testing.T) {
	v := scramVectors[1]
	nonce := "r=" + v.nonce
	for _, tt := range []struct {
		name, server, end string
		refused           bool
		want              string
	}{
		{"refused at the end", v.server, "e=invalid-proof", true, "invalid-proof"},
		{"refused at once", "e=unknown-user", "", true, "unknown-user"},
		{"wrong signature", v.server, "v=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), false, "does not know"},
		{"short signature", v.server, "v=6rri", false, "does not know"},
		{"no signature", v.server, "", false, "want v="},
		{"nonce is ours", nonce + ",s=W22ZaA==,i=4096", "", false, "does not continue"},
		{"nonce of another", "r=x" + v.nonce + "y,s=W22ZaA==,i=4096", "", false, "does not continue"},
		{"too much work", nonce + "x,s=W22ZaA==,i=99999999", "", false, "iterations"},
		{"no work", nonce + "x,s=W22ZaA==,i=0", "", false, "iterations"},
		{"no salt", nonce + "x,s=,i=4096", "", false, "salt"},
		{"an extension that is a must", "m=x," + nonce + "x,s=W22ZaA==,i=4096", "", false, "want r="},
		{"short", nonce + "x", "", false, "want r="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := scramClient(t, v.name, v.nonce)
			_, err := s.Next([]byte(tt.server))
			if err == nil {
				_, err = s.Next([]byte(tt.end))
			}
			if err == nil || errors.Is(err, ErrRefused) != tt.refused || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want refused %v and %q in it", err, tt.refused, tt.want)
			}
			if s.Done() == nil {
				t.Error("done in spite of it")
			}
		})
	}
}

func TestScramEscapes(t *testing.T) {
	c, err := New(ScramSHA256, Credentials{User: "a=b,c\u00a0d\u00ad", Password: "p", Act: "x,y"})
	if err != nil {
		t.Fatal(err)
	}
	_, first := c.Start()
	if want := "n,a=x=2Cy,n=a=3Db=2Cc d,r="; !strings.HasPrefix(string(first), want) {
		t.Errorf("got %q, want %q at its start", first, want)
	}
	for _, bad := range []string{"a\x00b", "a\u0085b", "a\xffb"} {
		if _, err := New(ScramSHA256, Credentials{User: "u", Password: bad}); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("password %q: got %v, want an error without it", bad, err)
		}
	}
}

// TestPlus has both ends of a TLS connection agree on what ties a login to it.
func TestPlus(t *testing.T) {
	client, server := tlsPair(t)
	exported, err := server.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	hashed := sha256.Sum256(client.PeerCertificates[0].Raw) // signed with SHA-256
	for kind, want := range map[string][]byte{"tls-exporter": exported, "tls-server-end-point": hashed[:]} {
		cred := Credentials{User: "user", Password: "pencil", Binding: kind, TLS: client}
		c, err := Pick([]string{"SCRAM-SHA-512", "SCRAM-SHA-512-PLUS"}, cred, true)
		if err != nil {
			t.Fatal(err)
		}
		name, first := c.Start()
		header, nonce := "p="+kind+",,", string(first[strings.LastIndex(string(first), "r=")+2:])
		if name != ScramSHA512Plus || !strings.HasPrefix(string(first), header) {
			t.Errorf("got %s %q, want PLUS and %q", name, first, header)
		}
		final, err := c.Next([]byte("r=" + nonce + "x,s=W22ZaA==,i=1"))
		if want := "c=" + base64.StdEncoding.EncodeToString(append([]byte(header), want...)) + ","; !strings.HasPrefix(string(final), want) {
			t.Errorf("%s: got %q, %v, want %q at its start", kind, final, err, want)
		}
	}
	cred := Credentials{User: "user", Password: "pencil", Binding: "tls-exporter", TLS: client}
	c, err := Pick([]string{"SCRAM-SHA-256"}, cred, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, first := c.Start(); !strings.HasPrefix(string(first), "y,,n=") {
		t.Errorf("got %q, want the flag y for a server without PLUS", first)
	}
	for _, bad := range []Credentials{{Password: "p", Binding: "tls-unique", TLS: client}, {Password: "p", Binding: "tls-exporter"}} {
		if c, err := Pick([]string{ScramSHA1Plus}, bad, true); err == nil || c != nil {
			t.Errorf("binding %s, TLS %v: got %v, want an error", bad.Binding, bad.TLS != nil, c)
		}
	}
}

// tlsPair gives both ends' state of a TLS connection.
func tlsPair(t *testing.T) (client, server *tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	cs, ss := c.ConnectionState(), s.ConnectionState()
	return &cs, &ss
}

func TestCramMD5(t *testing.T) { // RFC 2195, section 2
	c, _ := New(CramMD5, Credentials{User: "tim", Password: "tanstaaftanstaaf"})
	if _, initial := c.Start(); initial != nil {
		t.Errorf("got initial response %q, want none", initial)
	}
	if c.Done() == nil {
		t.Error("done before the challenge")
	}
	got, err := c.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if want := "tim b913a602c7eda7a495b4e6e7334d3890"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := c.Next(nil); err == nil {
		t.Error("got no error for one challenge too many")
	}
}

func TestSimple(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cred    Credentials
		initial string
		answers []string
	}{
		{Plain, Credentials{User: "tim", Password: "tanstaaftanstaaf"}, "\x00tim\x00tanstaaftanstaaf", nil},
		{Plain, Credentials{User: "Kurt", Password: "xipj3plmq", Act: "Ursel"}, "Ursel\x00Kurt\x00xipj3plmq", nil}, // RFC 4616, section 4
		{Login, Credentials{User: "tim", Password: "tan"}, "none", []string{"tim", "tan"}},
		{External, Credentials{}, "", nil},
		{External, Credentials{Act: "fred"}, "fred", nil},
		{XOAuth2, Credentials{User: "u@x", Token: "vF9"}, "user=u@x\x01auth=Bearer vF9\x01\x01", nil},
		// RFC 7628, section 4.1
		{OAuthBearer, Credentials{User: "user@example.com", Token: "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", Host: "server.example.com", Port: 143},
			"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01", nil},
	} {
		c, err := New(tt.name, tt.cred)
		if err != nil {
			t.Fatal(err)
		}
		name, initial := c.Start()
		got := string(initial)
		if initial == nil {
			got = "none"
		}
		if name != tt.name || got != tt.initial {
			t.Errorf("%s: got %q %q, want %q", tt.name, name, got, tt.initial)
		}
		for _, want := range tt.answers {
			if got, err := c.Next(nil); err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, want)
			}
		}
		if err := c.Done(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := New(Plain, Credentials{User: "a\x00b"}); err == nil {
		t.Error("got no error for a NUL in PLAIN")
	}
}

func TestBearerRefused(t *testing.T) {
	for name, bye := range map[string]string{OAuthBearer: "\x01", XOAuth2: ""} {
		c, _ := New(name, Credentials{Token: "secret-token"})
		got, err := c.Next([]byte(`{"status":"invalid_token"}`))
		if err != nil || string(got) != bye {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, bye)
		}
		if err := c.Done(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "invalid_token") || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestPick(t *testing.T) {
	pw, token, cert := Credentials{User: "u", Password: "p"}, Credentials{User: "u", Token: "t"}, Credentials{}
	for _, tt := range []struct {
		offered string
		cred    Credentials
		secure  bool
		want    string // a mechanism, "plain" or "none"
	}{
		{"PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256", pw, true, ScramSHA256},
		{"plain scram-sha-256-plus scram-sha-256", pw, true, ScramSHA256},
		{"PLAIN LOGIN CRAM-MD5", pw, true, Plain},
		{"PLAIN LOGIN CRAM-MD5", pw, false, CramMD5},
		{"LOGIN", pw, true, Login},
		{"LOGIN PLAIN", pw, false, "plain"},
		{"GSSAPI EXTERNAL", pw, true, "none"},
		{"", pw, true, "none"},
		{"PLAIN XOAUTH2 OAUTHBEARER", token, true, OAuthBearer},
		{"PLAIN XOAUTH2", token, true, XOAuth2},
		{"XOAUTH2", token, false, "plain"},
		{"PLAIN EXTERNAL", cert, false, External},
		{"PLAIN", cert, true, "none"},
	} {
		c, err := Pick(strings.Fields(tt.offered), tt.cred, tt.secure)
		got := "none"
		switch {
		case err == nil:
			got, _ = c.Start()
		case errors.Is(err, ErrPlain):
			got = "plain"
		}
		if got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.offered, got, tt.want)
		}
	}
}

// FuzzScram holds the client to what a server of our own computes from its
// messages: whatever comes first, only a server that knows the password gets
// Done without an error.
func FuzzScram(f *testing.F) {
	for _, v := range scramVectors {
		f.Add(v.server, v.end)
	}
	f.Add("r=N,s=AA==,i=1,x=y", "v=")
	f.Fuzz(func(t *testing.T, server, end string) {
		v := scramVectors[1]
		s := scramClient(t, ScramSHA256, v.nonce)
		if i := strings.LastIndex(server, "i="); i >= 0 && len(server)-i > 7 {
			return // many iterations only take long
		}
		final, err := s.Next([]byte(server))
		if err != nil {
			if final != nil || s.Done() == nil {
				t.Fatalf("%q: a response %q or an end in spite of %v", server, final, err)
			}
			return
		}
		_, err = s.Next([]byte(end))
		right := wantSignature(t, server, string(final))
		text, _, _ := strings.Cut(end, ",")
		got, derr := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "v="))
		knows := derr == nil && strings.HasPrefix(text, "v=") && hmac.Equal(got, right)
		if (err == nil) != knows || (s.Done() == nil) != knows {
			t.Fatalf("%q %q: got %v, %v, and the server knows the password: %v", server, end, err, s.Done(), knows)
		}
	})
}

// wantSignature computes the server's signature in the words of RFC 5802.
func wantSignature(t *testing.T, server, final string) []byte {
	parts := strings.Split(server, ",")
	salt, err := base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil {
		t.Fatalf("accepted the salt %q", parts[1])
	}
	n := 0
	for _, c := range parts[2][2:] {
		n = 10*n + int(c-'0')
	}
	key, err := pbkdf2.Key(sha256.New, "pencil", salt, n, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key, text []byte) []byte { m := hmac.New(sha256.New, key); m.Write(text); return m.Sum(nil) }
	bare, _, _ := strings.Cut(final, ",p=")
	return mac(mac(key, []byte("Server Key")), []byte("n=user,r="+scramVectors[1].nonce+","+server+","+bare))
}
