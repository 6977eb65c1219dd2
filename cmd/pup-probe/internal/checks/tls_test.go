package checks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"pup/cmd/internal/realserver"
)

// tlsSigner signs certificates.
type tlsSigner struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func tlsKey() crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

var tlsRSA = sync.OnceValue(func() crypto.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

var tlsSerial int64 = 100

// sign makes a certificate for key; nil parent: for itself.
func (s *tlsSigner) sign(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *tlsSigner {
	t.Helper()
	tlsSerial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(tlsSerial), Subject: pkix.Name{CommonName: fmt.Sprint("number ", tlsSerial)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if change != nil {
		change(tmpl)
	}
	parent, signer := tmpl, key
	if s != nil {
		parent, signer = s.cert, s.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tlsSigner{cert, key}
}

func tlsAuthority(c *x509.Certificate) {
	c.IsCA, c.IPAddresses = true, nil
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
}

func tlsExpired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }

func tlsBoth(fs ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, f := range fs {
			f(c)
		}
	}
}

// chain is what a server presents: s and the others.
func (s *tlsSigner) chain(others ...*tlsSigner) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key}
	for _, o := range others {
		c.Certificate = append(c.Certificate, o.cert.Raw)
	}
	return c
}

func (s *tlsSigner) pin() string {
	sum := sha256.Sum256(s.cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (s *tlsSigner) fingerprint() string {
	sum := sha256.Sum256(s.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// tlsServe serves TLS, and reads until the client closes.
func tlsServe(t testing.TB, cfg *tls.Config) string {
	return serve(t, func(c net.Conn) {
		tc := tls.Server(c, cfg)
		if tc.Handshake() == nil {
			io.Copy(io.Discard, tc)
			tc.Close()
		}
	})
}

func tlsFile(t testing.TB, certs ...*tlsSigner) string {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "certs.pem")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTLSCertificates(t *testing.T) {
	var none *tlsSigner
	root := none.sign(t, tlsKey(), tlsAuthority)
	middle := root.sign(t, tlsKey(), tlsAuthority)
	low := middle.sign(t, tlsKey(), tlsAuthority)
	oldMiddle := root.sign(t, tlsKey(), tlsBoth(tlsAuthority, tlsExpired))
	stranger := none.sign(t, tlsKey(), tlsAuthority)
	leaf := middle.sign(t, tlsKey(), nil)
	self := none.sign(t, tlsKey(), nil)
	oldSelf := none.sign(t, tlsKey(), tlsExpired)
	soon := middle.sign(t, tlsKey(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(5 * 24 * time.Hour) })
	soonMiddle := root.sign(t, tlsKey(), tlsBoth(tlsAuthority, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(5 * 24 * time.Hour) }))
	rsaLeaf := middle.sign(t, tlsRSA(), nil)
	sha1Root := none.sign(t, tlsRSA(), tlsAuthority)
	sha1 := sha1Root.sign(t, tlsKey(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	ca := tlsFile(t, root)

	for _, tt := range []struct {
		name  string
		cert  tls.Certificate
		opts  string // of tls, beside ca
		want  string
		facts []string
	}{
		{"good", leaf.chain(middle), "", "up", []string{
			"tls.verified and tls.trusted and tls.name_matches", "not tls.missing_intermediate", "tls.days_left > 29 and tls.days_left < 30.1",
			"tls.version == '1.3'", "tls.key == 'ECDSA-P-256'", "tls.signature == 'ECDSA-SHA256'", "len(tls.chain) == 2", "tls.names[0] == '127.0.0.1'",
			"tls.pin == '" + leaf.pin() + "'", "tls.sha256 == '" + leaf.fingerprint() + "'", "not tls.client_certificate", "ms.tls > 0",
		}},
		{"RSA", rsaLeaf.chain(middle), "", "up", []string{"tls.key == 'RSA-2048'"}},
		{"three levels in the wrong order", low.sign(t, tlsKey(), nil).chain(middle, low), "", "up", []string{"not tls.missing_intermediate"}},
		{"root sent as well", leaf.chain(middle, root), "", "up", nil},
		{"expired", middle.sign(t, tlsKey(), tlsExpired).chain(middle), "", "down certificate-expired tls",
			[]string{"not tls.verified", "tls.trusted", "tls.days_left < 0", "error contains 'expired 2'"}},
		{"not yet valid", middle.sign(t, tlsKey(), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }).chain(middle), "",
			"down certificate-not-yet-valid tls", []string{"tls.trusted"}},
		{"expired intermediate", oldMiddle.sign(t, tlsKey(), nil).chain(oldMiddle), "", "down certificate-expired tls",
			[]string{"tls.days_left < 0", "tls.trusted", "error contains 'certificate of \"CN=" + oldMiddle.cert.Subject.CommonName + "\"'"}},
		{"wrong name", middle.sign(t, tlsKey(), func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"elsewhere.example"} }).chain(middle), "",
			"down certificate-name tls", []string{"tls.trusted", "not tls.name_matches", "error contains 'elsewhere.example'"}},
		{"server_name", middle.sign(t, tlsKey(), func(c *x509.Certificate) { c.DNSNames = []string{"*.example.org"} }).chain(middle), `"server_name":"www.example.org"`, "up", nil},
		{"common name alone", middle.sign(t, tlsKey(), func(c *x509.Certificate) { c.IPAddresses = nil; c.Subject.CommonName = "127.0.0.1" }).chain(middle), "",
			"down certificate-name tls", nil},
		{"self-signed", self.chain(), "", "down certificate-untrusted tls", []string{"not tls.trusted", "not tls.missing_intermediate", "tls.name_matches"}},
		{"untrusted root", stranger.sign(t, tlsKey(), nil).chain(stranger), "", "down certificate-untrusted tls", []string{"not tls.trusted"}},
		{"missing intermediate", leaf.chain(), "", "down certificate-untrusted tls",
			[]string{"tls.missing_intermediate", "error contains 'does not send the certificate of the issuer \"CN=" + middle.cert.Subject.CommonName + "\"'"}},
		{"missing upper intermediate", low.sign(t, tlsKey(), nil).chain(low), "", "down certificate-untrusted tls",
			[]string{"tls.missing_intermediate", "error contains 'CN=" + middle.cert.Subject.CommonName + "'"}},
		{"extra certificate that has expired", leaf.chain(middle, oldMiddle), "", "up", []string{"tls.days_left > 29", "len(tls.chain) == 3"}},
		{"extra certificate in place of the right one", leaf.chain(stranger), "", "down certificate-untrusted tls", []string{"tls.missing_intermediate"}},
		{"SHA-1", sha1.chain(sha1Root), "", "down certificate-untrusted tls", []string{"tls.signature == 'SHA1-RSA'"}},
		{"expires soon", soon.chain(middle), "", "degraded mismatch verify", []string{"tls.verified", "error contains 'tls.days_left'"}},
		{"intermediate expires soon", soonMiddle.sign(t, tlsKey(), nil).chain(soonMiddle), "", "degraded mismatch verify", []string{"tls.days_left < 5.1"}},
		{"not verified", stranger.sign(t, tlsKey(), nil).chain(stranger), `"verify":false`, "up", []string{"not tls.verified"}},

		{"pinned self-signed", self.chain(), `"pin":["` + self.pin() + `"]`, "up", []string{"tls.verified", "tls.trusted"}},
		{"pinned by fingerprint", self.chain(), `"pin":["` + self.fingerprint() + `"]`, "up", nil},
		{"pinned and expired", oldSelf.chain(), `"pin":["` + oldSelf.pin() + `"]`, "down certificate-expired tls", nil},
		{"pinned intermediate", leaf.chain(middle), `"pin":["sha256/` + middle.pin() + `"]`, "up", nil},
		{"pinned root that is not sent", leaf.chain(middle), `"pin":["` + root.pin() + `"]`, "up", nil},
		{"another pin", leaf.chain(middle), `"pin":["` + self.pin() + `"]`, "down certificate-untrusted tls", []string{"not tls.verified", "error contains '" + leaf.pin() + "'"}},
		{"pinned certificate that only stands by", self.chain(middle), `"pin":["` + middle.pin() + `"]`, "down certificate-untrusted tls", nil},
		{"trusted, with a pinned one that only stands by", leaf.chain(middle, stranger), `"pin":["` + stranger.pin() + `"]`, "down certificate-untrusted tls", nil},
		{"not verified but pinned", self.chain(), `"verify":false,"pin":["` + self.pin() + `"]`, "up", nil},
		{"not verified and another pin", self.chain(), `"verify":false,"pin":["` + leaf.pin() + `"]`, "down certificate-untrusted tls", nil},
		{"no pin", self.chain(), `"pin":["abc"]`, "unknown options tls", nil},
		{"no such CA file", leaf.chain(), `"ca":"/nonexistent"`, "unknown options tls", []string{"error contains 'tls.ca'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := tt.opts
			if !strings.Contains(opts, `"ca"`) {
				opts = strings.TrimSuffix(fmt.Sprintf(`"ca":%q,`, ca)+opts, ",")
			}
			addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}})
			check(t, "tls://"+addr, `"tls":{`+opts+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestTLSOCSP(t *testing.T) {
	var none *tlsSigner
	root := none.sign(t, tlsKey(), tlsAuthority)
	leaf := root.sign(t, tlsKey(), nil)
	staple := root.sign(t, tlsKey(), func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
	})
	responder := root.sign(t, tlsKey(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	stranger := none.sign(t, tlsKey(), tlsAuthority)
	ca := tlsFile(t, root)
	now := time.Now()
	response := func(by *tlsSigner, enclose bool, change func(*ocsp.Response)) []byte {
		r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.cert.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
		if enclose {
			r.Certificate = by.cert
		}
		if change != nil {
			change(&r)
		}
		b, err := ocsp.CreateResponse(root.cert, by.cert, r, by.key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := response(root, false, nil)
	revoked := response(root, false, func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now.Add(-2*time.Hour) })
	stale := response(root, false, func(r *ocsp.Response) { r.NextUpdate = now.Add(-time.Minute) })
	unknown := response(root, false, func(r *ocsp.Response) { r.Status = ocsp.Unknown })
	for _, tt := range []struct {
		name   string
		staple []byte
		opts   string
		want   string
		facts  []string
	}{
		{"none", nil, "", "up", nil},
		{"required", nil, `"ocsp":"require"`, "down tls tls", []string{"error contains 'tls.ocsp requires'", "not tls.verified"}},
		{"good", good, "", "up", []string{"tls.ocsp == 'good'"}},
		{"good and required", good, `"ocsp":"require"`, "up", nil},
		{"by a responder", response(responder, true, nil), "", "up", []string{"tls.ocsp == 'good'"}},
		{"the issuer's certificate enclosed", response(root, true, nil), "", "up", []string{"tls.ocsp == 'good'"}},
		{"revoked", revoked, "", "down certificate-revoked tls", []string{"tls.ocsp == 'revoked'", "tls.trusted"}},
		{"revoked but ignored", revoked, `"ocsp":"ignore"`, "up", []string{"tls.ocsp == 'revoked'"}},
		{"revoked and not verified", revoked, `"verify":false`, "up", []string{"tls.ocsp == 'revoked'", "not tls.verified"}},
		{"stale", stale, "", "down tls tls", []string{"tls.ocsp == 'stale'"}},
		{"unknown", unknown, "", "up", []string{"tls.ocsp == 'unknown'"}},
		{"unknown but required", unknown, `"ocsp":"require"`, "down tls tls", nil},
		{"garbage", []byte("garbage"), "", "down tls tls", []string{"tls.ocsp == 'invalid'"}},
		{"from the future", response(root, false, func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Hour); r.NextUpdate = now.Add(2 * time.Hour) }), "", "down tls tls", []string{"tls.ocsp == 'invalid'"}},
		{"for another certificate", response(root, false, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(1) }), "", "down tls tls", nil},
		{"signed by the server itself", response(leaf, true, nil), "", "down tls tls", []string{"tls.ocsp == 'invalid'"}},
		{"signed by a stranger", response(stranger, true, nil), "", "down tls tls", []string{"tls.ocsp == 'invalid'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert := leaf.chain()
			cert.OCSPStaple = tt.staple
			addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{cert}})
			opts := strings.TrimSuffix(fmt.Sprintf(`"ca":%q,`, ca)+tt.opts, ",")
			check(t, "tls://"+addr, `"tls":{`+opts+`}`).want(t, tt.want, tt.facts...)
		})
	}
	t.Run("must-staple", func(t *testing.T) {
		addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{staple.chain()}})
		check(t, "tls://"+addr, fmt.Sprintf(`"tls":{"ca":%q}`, ca)).want(t, "down tls tls", "error contains 'its certificate demands'")
	})
}

func TestTLSParameters(t *testing.T) {
	leaf := []tls.Certificate{testCA().leaf}
	for _, tt := range []struct {
		name  string
		cfg   *tls.Config
		opts  string
		want  string
		facts []string
	}{
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, "", "up", []string{"tls.version == '1.2'", "tls.cipher startsWith 'TLS_ECDHE'"}},
		{"TLS 1.1 alone", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "down tls tls", []string{"error contains 'no TLS version from 1.2 on'"}},
		{"TLS 1.0 if asked for", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, `"min_version":"1.0"`, "up", []string{"tls.version == '1.0'"}},
		{"TLS 1.3 alone", &tls.Config{MinVersion: tls.VersionTLS13}, `"max_version":"1.2"`, "down tls tls", nil},
		{"no shared cipher", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}},
			`"ciphers":["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]`, "down tls tls", []string{"error contains 'no cipher suite'"}},
		{"unknown cipher", &tls.Config{}, `"ciphers":["TLS_NONSENSE"]`, "unknown options tls", nil},
		{"ALPN", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, `"alpn":["http/1.1"]`, "up", []string{"tls.alpn == 'http/1.1'"}},
		{"ALPN refused", &tls.Config{NextProtos: []string{"h2"}}, `"alpn":["imap"]`, "down tls tls", nil},
		{"ALPN not known", &tls.Config{}, `"alpn":["h2"]`, "down tls tls", []string{"error contains 'ALPN'", "tls.verified"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Certificates = leaf
			opts := strings.TrimSuffix(fmt.Sprintf(`"ca":%q,`, testCA().file)+tt.opts, ",")
			// the test's certificates are short-lived
			check(t, "tls://"+tlsServe(t, tt.cfg), `"warn":["tls.days_left > 0"],"tls":{`+opts+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestTLSClientCertificate(t *testing.T) {
	var none *tlsSigner
	root, stranger := none.sign(t, tlsKey(), tlsAuthority), none.sign(t, tlsKey(), tlsAuthority)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	client := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	member := func(by *tlsSigner, name string) string {
		c := by.sign(t, tlsKey(), client)
		der, err := x509.MarshalPKCS8PrivateKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		return fmt.Sprintf(`,"cert":%q,"key":%q`, tlsFile(t, c), secret(t, name, string(key)))
	}
	ours, theirs := member(root, "OURS"), member(stranger, "THEIRS")
	for _, v := range []struct {
		name    string
		version uint16
	}{{"1.2", tls.VersionTLS12}, {"1.3", tls.VersionTLS13}} {
		for _, tt := range []struct {
			name, opts, want string
			auth             tls.ClientAuthType
			facts            []string
		}{
			{"accepted", ours, "up", tls.RequireAndVerifyClientCert, []string{"tls.client_certificate"}},
			{"none given", "", "down denied tls", tls.RequireAndVerifyClientCert, []string{"error contains 'wants a client certificate'"}},
			{"none given nor needed", "", "up", tls.VerifyClientCertIfGiven, []string{"tls.client_certificate"}},
			{"another authority", theirs, "down denied tls", tls.RequireAndVerifyClientCert, []string{"error contains 'refuses our client certificate'"}},
			{"given but not asked for", ours, "up", tls.NoClientCert, []string{"not tls.client_certificate"}},
		} {
			t.Run(v.name+" "+tt.name, func(t *testing.T) {
				addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}, MaxVersion: v.version, ClientAuth: tt.auth, ClientCAs: pool})
				res := check(t, "tls://"+addr, fmt.Sprintf(`"warn":["tls.days_left > 0"],"tls":{"ca":%q%s}`, testCA().file, tt.opts))
				res.want(t, tt.want, tt.facts...)
				if strings.Contains(res.line, "PRIVATE KEY") {
					t.Errorf("the key is in the line: %s", res.line)
				}
			})
		}
	}
	t.Run("cert without key", func(t *testing.T) {
		addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
		check(t, "tls://"+addr, fmt.Sprintf(`"tls":{"cert":%q}`, tlsFile(t, root))).want(t, "unknown options tls", "error contains 'tls.key'")
	})
	t.Run("another check learns it when it reads", func(t *testing.T) {
		addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
		check(t, "tcps://"+addr, trustTestCA()+`,"tcp":{"steps":[{"send":"x","expect":"y"}]}`).want(t, "down denied tls", "error contains 'wants a client certificate'")
	})
}

func TestTLSTrouble(t *testing.T) {
	talks(t, "tls://HOST", []talk{
		{"plain text", "", "S: 220 mail.example.org ESMTP", "down tls tls", []string{"error contains 'does not speak TLS here: got \"220 m'"}},
		{"plain text after the hello", "", "Cx 16\nS: HTTP/1.1 400 Bad Request", "down tls tls", nil},
		{"stalls", `"timeout":"200ms"`, "Cx 16\n! hang", "down timeout tls", nil},
		{"stalls in a record", `"timeout":"200ms"`, "Cx 16\nSx 16 03 03 00 7a 02\n! hang", "down timeout tls", nil},
		{"closes", "", "Cx 16\n! close", "down closed tls", nil},
		{"resets", "", "Cx 16\n! reset", "down reset tls", nil},
		{"alert", "", "Cx 16\nSx 15 03 03 00 02 02 50", "down tls tls", []string{"error contains 'internal error'"}},
		{"garbage in a record", "", "Cx 16\nSx 16 03 03 00 04 02 00 00 00", "down tls tls", nil},
	})
}

func TestTLSInside(t *testing.T) {
	trust := trustTestCA() + `,"warn":["tls.days_left > 0"]`
	for scheme, list := range map[string][]talk{
		"tls+smtp": {
			{"up", trust, "S: 220-a\nS: 220 b\nC: EHLO pup.invalid\nS: 250-a\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n! tls", "up", []string{"ms.greet > 0", "tls.verified"}},
			{"busy", trust, "S: 421 busy", "down unavailable greet", nil},
			{"not offered", trust, "S: 220 b\nC: EHLO pup.invalid\nS: 250 b\nC: STARTTLS\nS: 502 no", "down tls greet", []string{"error contains '502 no'"}},
			{"another protocol", trust + `,"timeout":"300ms"`, "S: * OK imap", "down timeout greet", nil},
			{"injected", trust, "S: 220 b\nC: EHLO pup.invalid\nS: 250 b\nC: STARTTLS\nSx 32 32 30 20 67 6f 0d 0a 78 79", "down protocol tls", nil},
			{"endless", trust, strings.Repeat("S: 220-more\n", 101), "down protocol greet", nil},
			{"untrusted", "", "S: 220 b\nC: EHLO pup.invalid\nS: 250 b\nC: STARTTLS\nS: 220 go\n! tls", "down certificate-untrusted tls", nil},
		},
		"tls+lmtp":  {{"up", trust, "S: 220 b\nC: LHLO pup.invalid\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n! tls", "up", nil}},
		"tls+ftp":   {{"up", trust, "S: 220-Hello\nS:  you\nS: 220 ftp\nC: AUTH TLS\nS: 234 go\n! tls", "up", nil}},
		"tls+nntp":  {{"up", trust, "S: 200 news\nC: STARTTLS\nS: 382 go\n! tls", "up", nil}},
		"tls+imap":  {{"up", trust, "S: * OK hi\nC: a STARTTLS\nS: * CAPABILITY x\nS: a OK go\n! tls", "up", nil}, {"refused", trust, "S: * OK hi\nC: a STARTTLS\nS: a BAD no", "down tls greet", nil}},
		"tls+pop3":  {{"up", trust, "S: +OK hi\nC: STLS\nS: +OK go\n! tls", "up", nil}, {"refused", trust, "S: +OK hi\nC: STLS\nS: -ERR no", "down tls greet", nil}},
		"tls+sieve": {{"up", trust, "S: \"STARTTLS\"\nS: OK\nC: STARTTLS\nS: OK go\n! tls", "up", nil}},
		"tls+ldap": {
			{"up", trust, "Cx 30 1d 02 01 01 77 18 80 16 312e332e362e312e342e312e313436362e3230303337\nSx 30 0c 02 01 01 78 07 0a 01 00 04 00 04 00\n! tls", "up", nil},
			{"refused", trust, "Cx 30\nSx 30 0c 02 01 01 78 07 0a 01 34 04 00 04 00", "down tls greet", []string{"error contains 'LDAP result 52'"}},
			{"garbage", trust, "Cx 30\nS: garbage", "down protocol greet", nil},
			{"long", trust, "Cx 30\nSx 30 84 7f ff ff ff", "down protocol greet", nil},
		},
		"tls+postgres": {
			{"up", trust, "Cx 00 00 00 08 04 d2 16 2f\nSx 53\n! tls", "up", nil},
			{"refused", trust, "Cx 00 00 00 08 04 d2 16 2f\nSx 4e", "down tls greet", nil},
			{"garbage", trust, "Cx 00 00 00 08 04 d2 16 2f\nS: x", "down protocol greet", nil},
			{"injected", trust, "Cx 00 00 00 08 04 d2 16 2f\nSx 53 45", "down protocol tls", nil},
		},
		"tls+mysql": {
			{"up", trust, "Sx 1d 00 00 00 0a 38 2e 30 2e 33 33 00 08 00 00 00 61 62 63 64 65 66 67 68 00 ff ff ff 02 00 ff df 15\nCx 20 00 00 01\nCx 00 8a 00 00 00 00 00 01 2d 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n! tls", "up", nil},
			{"refused", trust, "Sx 15 00 00 00 0a 38 00 01 00 00 00 61 62 63 64 65 66 67 68 00 00 00 00 00 00", "down tls greet", nil},
			{"too many", trust, "Sx 0a 00 00 00 ff 10 04 54 6f 6f 20 6d 61 6e", "down unavailable greet", []string{"error contains 'Too man'"}},
			{"garbage", trust, "S: garbage", "down protocol greet", nil},
		},
	} {
		t.Run(scheme, func(t *testing.T) { talks(t, scheme+"://HOST", list) })
	}
}

func TestTLSInsideXMPP(t *testing.T) {
	const stream = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1'>"
	const starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
	for _, tt := range []struct{ name, features, answer, want string }{
		{"up", "<stream:features>" + starttls + "</stream:features>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "up"},
		{"not offered", "<stream:features><bind/></stream:features>", "", "down tls greet"},
		{"refused", "<stream:features>" + starttls + "</stream:features>", "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "down tls greet"},
		{"error", "<stream:error><host-unknown/></stream:error>", "", "down tls greet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) {
				got := ""
				for b := make([]byte, 1); !strings.HasSuffix(got, "streams'>"); got += string(b) {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
				io.WriteString(c, stream+tt.features)
				if _, err := io.ReadFull(c, make([]byte, len(starttls))); err != nil {
					return
				}
				io.WriteString(c, tt.answer)
				tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
				if tc.Handshake() == nil {
					io.Copy(io.Discard, tc)
				}
			})
			check(t, "tls+xmpp://"+addr, trustTestCA()+`,"warn":["tls.days_left > 0"]`).want(t, tt.want)
		})
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
