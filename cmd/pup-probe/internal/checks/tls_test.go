package checks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"pup/cmd/internal/realserver"
)

// tlsServe serves TLS: the handshake, then it waits for the client to close,
// and closes as well.
func tlsServe(t testing.TB, cfg *tls.Config) string {
	return serve(t, func(c net.Conn) {
		tc := tls.Server(c, cfg)
		if tc.Handshake() != nil {
			return
		}
		io.Copy(io.Discard, tc)
		tc.Close()
	})
}

func tlsWith(certs ...tls.Certificate) *tls.Config { return &tls.Config{Certificates: certs} }

// tlsChain makes a certificate that is issued by an intermediate authority,
// and gives it with and without that authority in its chain.
func tlsChain(change func(intermediate *x509.Certificate)) (whole, bare tls.Certificate) {
	ca := testCA()
	inter := ca.issue(func(c *x509.Certificate) {
		c.Subject.CommonName = "pup test intermediate"
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.DNSNames, c.IPAddresses = nil, nil
		if change != nil {
			change(c)
		}
	})
	sub := &authority{cert: inter.Leaf, key: inter.PrivateKey.(*ecdsa.PrivateKey)}
	bare = sub.issue(nil)
	whole = bare
	whole.Certificate = append([][]byte{bare.Certificate[0]}, inter.Certificate[0])
	return whole, bare
}

func tlsSelfSigned() tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(9), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	tmpl.Subject.CommonName = "self"
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func tlsStaple(status int, thisUpdate, nextUpdate time.Time) tls.Certificate {
	ca := testCA()
	cert := ca.issue(nil)
	der, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{
		Status: status, SerialNumber: cert.Leaf.SerialNumber, ThisUpdate: thisUpdate, NextUpdate: nextUpdate, RevokedAt: time.Now().Add(-time.Hour),
	}, ca.key)
	if err != nil {
		panic(err)
	}
	cert.OCSPStaple = der
	cert.Certificate = append(cert.Certificate, ca.cert.Raw)
	return cert
}

func TestTLSCertificates(t *testing.T) {
	ca := testCA()
	whole, bare := tlsChain(nil)
	oldInter, _ := tlsChain(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	shortInter, _ := tlsChain(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Hour) })
	self := tlsSelfSigned()
	spki := sha256.Sum256(self.Leaf.RawSubjectPublicKeyInfo)
	sum := sha256.Sum256(self.Certificate[0])
	foreign := tlsSelfSigned()
	mixed := ca.leaf
	mixed.Certificate = append(mixed.Certificate, foreign.Certificate[0])
	issue := func(f func(*x509.Certificate)) *tls.Config { return tlsWith(ca.issue(f)) }
	day := 24 * time.Hour
	for _, tt := range []struct {
		name   string
		cfg    *tls.Config
		tls    string // more of the member tls
		target string
		want   string
		facts  []string
	}{
		{"good but short", tlsWith(ca.leaf), "", "", "degraded mismatch verify", []string{"tls.verified", "tls.days_left < 1", "tls.version == '1.3'", "tls.key == 'ECDSA-P-256'", "not tls.missing_intermediate"}},
		{"lasting", issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(20 * day) }), "", "", "up", []string{"tls.days_left > 19.9"}},
		{"the target judges the days", tlsWith(ca.leaf), "", `"warn":["tls.days_left > 0.1"]`, "up", nil},
		{"address", issue(func(c *x509.Certificate) { c.DNSNames = nil }), "", `"warn":["tls.days_left > 0.1"]`, "up", []string{"'127.0.0.1' in tls.names"}},
		{"wrong name", issue(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"other.example"}, nil }), "", "", "down certificate-name tls", []string{"not tls.verified", "tls.names[0] == 'other.example'"}},
		{"another name is asked for", tlsWith(ca.leaf), `"server_name":"other.example"`, "", "down certificate-name tls", nil},
		{"expired", issue(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day) }), "", "", "down certificate-expired tls", []string{"tls.days_left < -0.9", "not tls.verified"}},
		{"expired, not verified", issue(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day) }), `"verify":false`, `"warn":["tls.days_left < 0"]`, "up", []string{"not tls.verified"}},
		{"not yet valid", issue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "", "", "down certificate-not-yet-valid tls", nil},
		{"self-signed", tlsWith(self), "", "", "down certificate-untrusted tls", []string{"tls.subject == 'CN=self'", "not tls.missing_intermediate"}},
		{"untrusted authority", tlsWith(ca.leaf), `"ca":"` + tlsOtherCA(t) + `"`, "", "down certificate-untrusted tls", nil},
		{"chain", tlsWith(whole), "", `"warn":["tls.days_left > 0.1"]`, "up", []string{"len(tls.chain) == 2"}},
		{"the chain's end counts", tlsWith(shortInter), "", `"warn":["tls.days_left > 0.2"]`, "degraded mismatch verify", nil},
		{"missing intermediate", tlsWith(bare), "", "", "down certificate-untrusted tls", []string{"tls.missing_intermediate", "error contains 'does not send the certificate of its issuer'"}},
		{"expired intermediate", tlsWith(oldInter), "", "", "down certificate-expired tls", nil},
		{"a stranger in the chain", tlsWith(mixed), "", `"warn":["tls.days_left > 0.01"]`, "up", nil},
		{"pinned key", tlsWith(self), `"pin":["` + base64.StdEncoding.EncodeToString(spki[:]) + `"]`, `"warn":["tls.days_left > 0"]`, "up", []string{"tls.verified"}},
		{"pinned certificate", tlsWith(self), `"pin":["` + hex.EncodeToString(sum[:]) + `"]`, `"warn":["tls.days_left > 0"]`, "up", nil},
		{"another pin", tlsWith(ca.leaf), `"pin":["` + hex.EncodeToString(sum[:]) + `"]`, "", "down certificate-untrusted tls", nil},
		{"no pin", tlsWith(ca.leaf), `"pin":["abc"]`, "", "unknown options tls", nil},
		{"OCSP good", tlsWith(tlsStaple(ocsp.Good, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))), `"ocsp":"require"`, `"warn":["tls.days_left > 0"]`, "up", []string{"tls.ocsp == 'good'"}},
		{"OCSP revoked", tlsWith(tlsStaple(ocsp.Revoked, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))), "", "", "down certificate-revoked tls", []string{"tls.ocsp == 'revoked'"}},
		{"OCSP revoked, ignored", tlsWith(tlsStaple(ocsp.Revoked, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))), `"ocsp":"ignore"`, `"warn":["tls.days_left > 0"]`, "up", nil},
		{"OCSP stale", tlsWith(tlsStaple(ocsp.Good, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))), "", "", "down tls tls", nil},
		{"OCSP garbage", tlsWith(tlsGarbageStaple()), "", "", "down tls tls", []string{"tls.ocsp == 'invalid'"}},
		{"OCSP required, none", tlsWith(ca.leaf), `"ocsp":"require"`, "", "down tls tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opt := fmt.Sprintf(`"ca":%q`, ca.file)
			if len(tt.tls) > 5 && tt.tls[:5] == `"ca":` {
				opt = tt.tls
			} else if tt.tls != "" {
				opt += "," + tt.tls
			}
			target := `"tls":{` + opt + "}"
			if tt.target != "" {
				target += "," + tt.target
			}
			check(t, "tls://"+tlsServe(t, tt.cfg), target).want(t, tt.want, tt.facts...)
		})
	}
}

func tlsGarbageStaple() tls.Certificate {
	cert := testCA().issue(nil)
	cert.OCSPStaple = []byte("garbage")
	return cert
}

// tlsOtherCA is the file of an authority that nothing here is signed by.
func tlsOtherCA(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "other.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tlsSelfSigned().Certificate[0]})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTLSParameters(t *testing.T) {
	ca := testCA()
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	rsaCert := ca.issue(nil)
	der, err := x509.CreateCertificate(rand.Reader, rsaCert.Leaf, ca.cert, &rsaKey.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(*tls.Config)) *tls.Config { c := tlsWith(ca.leaf); f(c); return c }
	fine := `"warn":["tls.days_left > 0"]`
	for _, tt := range []struct {
		name  string
		cfg   *tls.Config
		tls   string
		want  string
		facts []string
	}{
		{"RSA", tlsWith(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: rsaKey}), "", "up", []string{"tls.key == 'RSA-2048'"}},
		{"TLS 1.2 only", with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "", "up", []string{"tls.version == '1.2'", "tls.cipher startsWith 'TLS_ECDHE_'"}},
		{"TLS 1.2 only, 1.3 wanted", with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), `,"min_version":"1.3"`, "down tls tls", nil},
		{"TLS 1.1 only", with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), "", "down tls tls", nil},
		{"TLS 1.1 only, allowed", with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), `,"min_version":"1.0"`, "up", []string{"tls.version == '1.1'"}},
		{"no shared cipher", with(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}), `,"ciphers":["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]`, "down tls tls", nil},
		{"unknown cipher", with(func(c *tls.Config) {}), `,"ciphers":["TLS_NOPE"]`, "unknown options tls", nil},
		{"ALPN", with(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }), `,"alpn":["h2"]`, "up", []string{"tls.alpn == 'h2'"}},
		{"ALPN not spoken", with(func(c *tls.Config) {}), `,"alpn":["h2"]`, "down tls tls", nil},
		{"ALPN refused", with(func(c *tls.Config) { c.NextProtos = []string{"x"} }), `,"alpn":["h2"]`, "down tls tls", nil},
		{"client certificate wanted", with(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), "", "down denied tls", nil},
		{"client certificate wanted, 1.2", with(func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }), "", "down denied tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := fmt.Sprintf(`"tls":{"ca":%q%s},%s`, ca.file, tt.tls, fine)
			check(t, "tls://"+tlsServe(t, tt.cfg), target).want(t, tt.want, tt.facts...)
		})
	}
}

func TestTLSClientCertificate(t *testing.T) {
	ca := testCA()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	files := func(c tls.Certificate) (cert, key string) {
		cert = filepath.Join(t.TempDir(), "cert.pem")
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600)
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return cert, secret(t, "KEY", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version})
		cert, key := files(ca.issue(nil))
		check(t, "tls://"+addr, fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q},"warn":["tls.days_left > 0"]`, ca.file, cert, key)).want(t, "up")
		cert, key = files(tlsSelfSigned())
		check(t, "tls://"+addr, fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q}`, ca.file, cert, key)).want(t, "down denied tls")
		check(t, "tls://"+addr, fmt.Sprintf(`"tls":{"ca":%q},"expect":["reason == 'denied'"]`, ca.file)).want(t, "up")
	}
}

func TestTLSTalks(t *testing.T) {
	talks(t, "tls://HOST", []talk{
		{"plain text", `"timeout":"2s"`, "S: HTTP/1.1 400 Bad Request", "down tls tls", []string{"error contains 'does not speak TLS'"}},
		{"silent", `"timeout":"200ms"`, "! hang", "down timeout tls", nil},
		{"resets in the handshake", "", "Cx 16\n! reset", "down reset tls", nil},
		{"alert", "", "Sx 15 0303 0002 0228", "down tls tls", []string{"error contains 'handshake failure'"}},
	})
	fine := trustTestCA() + `,"warn":["tls.days_left > 0"]`
	for _, tt := range []struct {
		scheme string
		talks  []talk
	}{
		{"smtp", []talk{
			{"up", fine, "S: 220-hi\nS: 220 mail ESMTP\nC: EHLO pup.invalid\nS: 250-mail\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n! tls", "up", []string{"ms.greet > 0", "ms.tls > 0"}},
			{"busy", fine, "S: 421 too busy", "down unavailable greet", nil},
			{"no TLS", fine, "S: 220 x\nC: EHLO pup.invalid\nS: 250 x\nC: STARTTLS\nS: 502 no", "down tls greet", nil},
			{"injected", fine, "S: 220 x\nC: EHLO pup.invalid\nS: 250 x\nC: STARTTLS\nS: 220 go\\\nS: \nS: 250 evil", "down protocol tls", nil},
			{"another protocol", fine, "S: SSH-2.0-x", "down protocol greet", nil},
		}},
		{"imap", []talk{
			{"up", fine, "S: * OK hi\nC: a STARTTLS\nS: * CAPABILITY x\nS: a OK go\n! tls", "up", nil},
			{"bye", fine, "S: * BYE no", "down unavailable greet", nil},
		}},
		{"pop3", []talk{{"up", fine, "S: +OK hi\nC: STLS\nS: +OK go\n! tls", "up", nil}, {"no TLS", fine, "S: +OK hi\nC: STLS\nS: -ERR no", "down tls greet", nil}}},
		{"ftp", []talk{{"up", fine, "S: 220 hi\nC: AUTH TLS\nS: 234 go\n! tls", "up", nil}}},
		{"nntp", []talk{{"up", fine, "S: 200 hi\nC: STARTTLS\nS: 382 go\n! tls", "up", nil}}},
		{"sieve", []talk{{"up", fine, "S: \"IMPLEMENTATION\" \"x\"\nS: \"STARTTLS\"\nS: OK\nC: STARTTLS\nS: OK\n! tls", "up", nil}}},
		{"nats", []talk{{"up", fine, "S: INFO {}\n! tls", "up", nil}}},
		{"ldap", []talk{
			{"up", fine, "Cx 301d 0201 01 7718 8016 312e332e362e312e342e312e313436362e3230303337\nSx 300c 020101 7807 0a0100 0400 0400\n! tls", "up", nil},
			{"unavailable", fine, "Sx 300c 020101 7807 0a0134 0400 0400", "down unavailable greet", nil},
			{"no TLS", fine, "Sx 300c 020101 7807 0a0102 0400 0400", "down tls greet", nil},
		}},
		{"postgres", []talk{
			{"up", fine, "Cx 00000008 04d2162f\nS: S\\\n! tls", "up", nil},
			{"no TLS", fine, "Cx 00000008 04d2162f\nS: N\\", "down tls greet", nil},
		}},
		{"mysql", []talk{{"up", fine, "Sx 2e000000 0a 382e3000 01000000 6162636465666768 00 00ff 21 0200 ff00 15 00000000000000000000 616263646566676869 00\n" +
			"Cx 20000001 008a0000 00000001 2d 0000000000000000000000000000000000000000000000\n! tls", "up", nil}}},
		{"xmpp", []talk{{"up", fine, "C. <?xml version='1.0'?><stream:stream to='127.0.0.1' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\nS: <?xml version='1.0'?><stream:stream><stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>\\\n" +
			"C. <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\nS: <proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\\\n! tls", "up", nil}}},
	} {
		t.Run(tt.scheme, func(t *testing.T) { talks(t, "tls+"+tt.scheme+"://HOST", tt.talks) })
	}
}

func TestTLSReal(t *testing.T) {
	s := realserver.Shared(t, "nginx")
	for name, want := range map[string]string{
		"https": "up", "https_expired": "down certificate-expired tls", "https_not_yet_valid": "down certificate-not-yet-valid tls",
		"https_wrong_name": "down certificate-name tls", "https_self_signed": "down certificate-untrusted tls",
		"https_missing_intermediate": "down certificate-untrusted tls", "https_revoked": "down certificate-revoked tls",
		"https_tls12": "up", "https_tls13": "up", "https_root_issued": "up", "https_soon": "degraded mismatch verify",
		"http": "down tls tls",
	} {
		t.Run(name, func(t *testing.T) {
			if s[name] == "" {
				t.Fatalf("the server does not say %s", name)
			}
			check(t, "tls://"+s[name], fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])).want(t, want)
		})
	}
}
