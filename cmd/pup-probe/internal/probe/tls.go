package probe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// TLSOptions are the members of "tls" in a target, for every check that speaks
// TLS.
type TLSOptions struct {
	Verify     bool     `json:"verify" doc:"Verify the certificate: its chain, its validity, its name. The facts are measured either way."`
	ServerName string   `json:"server_name" doc:"The name to ask for (SNI) and to verify, instead of the URL's host."`
	CA         string   `json:"ca" doc:"A PEM file of the authorities to trust, instead of the system's."`
	Cert       string   `json:"cert" doc:"A PEM file with our own certificate and its chain, if the server wants one."`
	Key        string   `json:"key" secret:"true" doc:"The PEM private key of cert."`
	MinVersion string   `json:"min_version" enum:"1.0,1.1,1.2,1.3" doc:"The lowest version to accept."`
	MaxVersion string   `json:"max_version" enum:"1.0,1.1,1.2,1.3" doc:"The highest version to offer."`
	Ciphers    []string `json:"ciphers" doc:"The cipher suites to offer up to TLS 1.2, by their IANA names."`
	ALPN       []string `json:"alpn" doc:"The application protocols to offer; the server must pick one."`
	Pin        []string `json:"pin" doc:"SHA-256 of a public key (SPKI) or of a whole certificate in the chain, in base64 or hex. One must match. A pinned leaf needs no authority."`
	OCSP       string   `json:"ocsp" enum:"ignore,check,require" doc:"The stapled OCSP response: ignore it, check it if there is one, or require one."`
}

// DefaultTLS holds the defaults of TLSOptions.
var DefaultTLS = TLSOptions{Verify: true, MinVersion: "1.2", OCSP: "check"}

// Certificate is a certificate that a server has sent.
type Certificate struct {
	Subject  string    `json:"subject" doc:"Its subject."`
	Issuer   string    `json:"issuer" doc:"Its issuer."`
	NotAfter time.Time `json:"not_after" doc:"When it expires."`
	DaysLeft *float64  `json:"days_left" doc:"Days until then; negative when it has expired."`
	SHA256   string    `json:"sha256" doc:"SHA-256 of the certificate, in hex."`
}

// TLSFacts are the members of "tls" in a result. They are measured even where
// the verification fails.
type TLSFacts struct {
	Version             string        `json:"version" doc:"The TLS version: 1.2, 1.3."`
	Cipher              string        `json:"cipher" doc:"The cipher suite, by its IANA name."`
	Group               string        `json:"group" doc:"The key exchange group."`
	ALPN                string        `json:"alpn" doc:"The application protocol that was agreed on."`
	Verified            *bool         `json:"verified" doc:"Whether the certificate passes: chain, validity and name."`
	Subject             string        `json:"subject" doc:"The subject of the server's certificate."`
	Issuer              string        `json:"issuer" doc:"Its issuer."`
	Names               []string      `json:"names" doc:"The names and addresses that it is for."`
	Serial              string        `json:"serial" doc:"Its serial number, in hex."`
	Key                 string        `json:"key" doc:"Its kind of key: RSA-2048, ECDSA-P-256, Ed25519."`
	Signature           string        `json:"signature" doc:"How it is signed: SHA256-RSA."`
	NotBefore           time.Time     `json:"not_before" doc:"When it becomes valid."`
	NotAfter            time.Time     `json:"not_after" doc:"When it expires."`
	DaysLeft            *float64      `json:"days_left" doc:"Days until the first certificate of the chain expires; negative when one has."`
	SHA256              string        `json:"sha256" doc:"SHA-256 of the certificate, in hex."`
	Pin                 string        `json:"pin" doc:"SHA-256 of its public key (SPKI), in base64."`
	MissingIntermediate *bool         `json:"missing_intermediate" doc:"Whether the server leaves out the certificate of its issuer, so that some clients fail."`
	OCSP                string        `json:"ocsp" doc:"What the stapled OCSP response says: good, revoked, unknown, invalid; absent without one."`
	OCSPNextUpdate      time.Time     `json:"ocsp_next_update" doc:"Until when the stapled response holds."`
	Chain               []Certificate `json:"chain" doc:"The certificates that the server has sent, its own first."`
}

var tlsVersions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// TLSConfig makes the configuration of a client for the given host name. The
// verification is left out, since StartTLS does it after the facts are taken.
func (p *Probe) TLSConfig(host string) (*tls.Config, error) {
	o := p.opt.tls
	cfg := &tls.Config{
		ServerName: host, InsecureSkipVerify: true,
		MinVersion: tlsVersions[o.MinVersion], MaxVersion: tlsVersions[o.MaxVersion],
		NextProtos: o.ALPN,
	}
	own := host == p.URL.Host // not one that a redirect names
	if o.ServerName != "" && own {
		cfg.ServerName = o.ServerName
	}
	for _, name := range o.Ciphers {
		id, ok := cipherID(name)
		if !ok {
			return nil, Failf(wire.BadOptions, "tls.ciphers: no cipher suite %.60q", name)
		}
		cfg.CipherSuites = append(cfg.CipherSuites, id)
	}
	ours := new(tls.Certificate) // none
	if own && (o.Cert != "" || o.Key != "") {
		pem, err := os.ReadFile(o.Cert)
		if err != nil {
			return nil, Failf(wire.BadOptions, "tls.cert: %w", err)
		}
		cert, err := tls.X509KeyPair(pem, []byte(o.Key))
		if err != nil {
			return nil, Failf(wire.BadOptions, "tls.cert and tls.key: %w", err)
		}
		ours = &cert
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p.certWanted = true
		return ours, nil
	}
	return cfg, nil
}

func cipherID(name string) (uint16, bool) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.Name == name {
			return s.ID, true
		}
	}
	return 0, false
}

// StartTLS speaks TLS on c, takes the facts, and verifies the certificate. It
// marks the phase tls. It refuses bytes that came before the handshake: they
// were plain text passed off as protected. On an error c is closed.
func (p *Probe) StartTLS(ctx context.Context, c *Conn, alpn ...string) (*Conn, error) {
	p.Phase(wire.TLS)
	tc, err := p.startTLS(c, alpn)
	if err != nil {
		c.Close()
		return nil, err
	}
	return tc, nil
}

func (p *Probe) startTLS(c *Conn, alpn []string) (*Conn, error) {
	if n := c.Buffered(); n > 0 {
		return nil, Protocolf("the server sent %d bytes before the TLS handshake", n)
	}
	cfg, err := p.TLSConfig(c.host)
	if err != nil {
		return nil, err
	}
	if cfg.NextProtos == nil {
		cfg.NextProtos = alpn
	}
	tc := tls.Client(c, cfg)
	if err := tc.Handshake(); err != nil {
		if a, ok := alertOf(err); ok && a == handshakeFailure && p.certWanted {
			return nil, Failf(wire.Denied, "the server refuses our client certificate, or the lack of one: %w", err)
		}
		return nil, HandshakeError(err)
	}
	st := tc.ConnectionState()
	p.tlsFacts = tlsFactsOf(&st)
	if err := p.verify(&st, cfg.ServerName, c.host == p.URL.Host); err != nil {
		return nil, err
	}
	// the context's end reaches the connection below, which interrupts this one
	return &Conn{Conn: tc, host: c.host, ctx: c.ctx, p: p, stop: c.stop}, nil
}

// TLSState gives the state of a connection that speaks TLS, or nil.
func (c *Conn) TLSState() *tls.ConnectionState {
	tc, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	st := tc.ConnectionState()
	return &st
}

// clientAlerts are the alerts (RFC 8446, section 6.2) by which a server asks
// for a client certificate, or refuses ours.
var clientAlerts = map[uint8]bool{
	42:  true, // bad_certificate
	43:  true, // unsupported_certificate
	44:  true, // certificate_revoked
	45:  true, // certificate_expired
	46:  true, // certificate_unknown
	48:  true, // unknown_ca
	49:  true, // access_denied
	116: true, // certificate_required
}

// handshakeFailure is the alert by which servers up to TLS 1.2 may refuse a
// client without a certificate, among other things.
const handshakeFailure = 40

// alertOf finds the alert that the peer has sent. Package tls keeps its type
// to itself, a number of eight bits.
func alertOf(err error) (alert uint8, ok bool) {
	oe, ok := errors.AsType[*net.OpError](err)
	if !ok || oe.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(oe.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// HandshakeError words an error of the handshake, or one of the first read
// behind it.
func HandshakeError(err error) error {
	if a, ok := alertOf(err); ok && clientAlerts[a] {
		return Failf(wire.Denied, "the server refuses our client certificate, or wants one: %w", err)
	}
	if rh, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return Failf(wire.BadTLS, "the server does not speak TLS here: got %.20q", rh.RecordHeader[:])
	}
	return err
}

func daysLeft(t time.Time) *float64 {
	d := time.Until(t).Hours() / 24
	return &d
}

func tlsFactsOf(st *tls.ConnectionState) *TLSFacts {
	f := &TLSFacts{
		Version: strings.TrimPrefix(tls.VersionName(st.Version), "TLS "),
		Cipher:  tls.CipherSuiteName(st.CipherSuite),
		ALPN:    st.NegotiatedProtocol,
	}
	if st.CurveID != 0 {
		f.Group = st.CurveID.String()
	}
	for i, c := range st.PeerCertificates {
		f.Chain = append(f.Chain, Certificate{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotAfter: c.NotAfter,
			DaysLeft: daysLeft(c.NotAfter), SHA256: fingerprint(c),
		})
		// a root in the chain is ballast: nobody looks at its dates
		if root := bytes.Equal(c.RawSubject, c.RawIssuer); i == 0 || !root {
			if d := daysLeft(c.NotAfter); f.DaysLeft == nil || *d < *f.DaysLeft {
				f.DaysLeft = d
			}
		}
	}
	if len(st.PeerCertificates) == 0 {
		return f
	}
	leaf := st.PeerCertificates[0]
	f.Subject, f.Issuer = leaf.Subject.String(), leaf.Issuer.String()
	f.Names = slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		f.Names = append(f.Names, ip.String())
	}
	f.Serial = leaf.SerialNumber.Text(16)
	f.Key, f.Signature = keyName(leaf.PublicKey), leaf.SignatureAlgorithm.String()
	f.NotBefore, f.NotAfter = leaf.NotBefore, leaf.NotAfter
	f.SHA256 = fingerprint(leaf)
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	f.Pin = base64.StdEncoding.EncodeToString(spki[:])
	return f
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func keyName(key any) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA-" + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "unknown"
}

// verify does what crypto/tls would have done, after the facts are taken, and
// tells the causes apart. Own says that the host is the target's, and none
// that a redirect names: the pins are for that alone.
func (p *Probe) verify(st *tls.ConnectionState, name string, own bool) error {
	o, f := p.opt.tls, p.tlsFacts
	if len(st.PeerCertificates) == 0 {
		return Failf(wire.BadTLS, "the server sent no certificate")
	}
	var pinned bool
	var err error
	if own {
		pinned, err = p.checkPin(st.PeerCertificates)
	}
	if err != nil {
		return err
	}
	if len(o.ALPN) > 0 && st.NegotiatedProtocol == "" {
		return Failf(wire.BadTLS, "the server picked none of the protocols %q (ALPN)", o.ALPN)
	}
	err = p.verifyChain(st.PeerCertificates, name, pinned)
	if err == nil {
		err = p.checkOCSP(st)
	}
	if r, ok := reasonOf(err); ok && r.Unknown() {
		return err // our own roots can't be read
	}
	verified := err == nil
	f.Verified = &verified
	if !o.Verify {
		return nil
	}
	return err
}

// lacksIssuer says whether the server left out the certificate of its issuer,
// although that is no root.
func lacksIssuer(chain []*x509.Certificate, roots *x509.CertPool) bool {
	leaf := chain[0]
	if bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
		return false
	}
	for _, c := range chain[1:] {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			return false
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}

func (p *Probe) roots(leaf *x509.Certificate, pinned bool) (*x509.CertPool, error) {
	switch {
	case pinned:
		pool := x509.NewCertPool()
		pool.AddCert(leaf)
		return pool, nil
	case p.opt.tls.CA != "":
		return rootsOf(p.opt.tls.CA)
	}
	return systemRoots()
}

func (p *Probe) verifyChain(chain []*x509.Certificate, name string, pinned bool) error {
	roots, err := p.roots(chain[0], pinned)
	if err != nil {
		return err
	}
	missing := lacksIssuer(chain, roots)
	p.tlsFacts.MissingIntermediate = &missing
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err = chain[0].Verify(opts); err != nil {
		return p.chainError(chain, err)
	}
	if err := chain[0].VerifyHostname(name); err != nil {
		return Failf(wire.CertName, "the certificate is for %.200q, not %.80q", p.tlsFacts.Names, name)
	}
	return nil
}

func (p *Probe) chainError(chain []*x509.Certificate, err error) error {
	now := time.Now()
	if ie, ok := errors.AsType[x509.CertificateInvalidError](err); ok && ie.Reason == x509.Expired {
		switch c := ie.Cert; {
		case now.Before(c.NotBefore):
			return Failf(wire.CertNotYetValid, "the certificate of %.80q is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		default:
			return Failf(wire.CertExpired, "the certificate of %.80q expired %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if *p.tlsFacts.MissingIntermediate {
		return Failf(wire.CertUntrusted, "no trusted authority: the server does not send the certificate of its issuer %.80q", chain[0].Issuer)
	}
	return Failf(wire.CertUntrusted, "%s", ndjson.Cut(strings.TrimPrefix(err.Error(), "x509: "), 200))
}

// checkPin says whether the leaf itself is pinned, and fails if there are pins
// and no certificate matches one.
func (p *Probe) checkPin(chain []*x509.Certificate) (leaf bool, err error) {
	pins := p.opt.tls.Pin
	if len(pins) == 0 {
		return false, nil
	}
	for i, c := range chain {
		spki, whole := sha256.Sum256(c.RawSubjectPublicKeyInfo), sha256.Sum256(c.Raw)
		for _, pin := range pins {
			want, err := decodePin(pin)
			if err != nil {
				return false, err
			}
			if bytes.Equal(want, spki[:]) || bytes.Equal(want, whole[:]) {
				return i == 0, nil
			}
		}
	}
	return false, Failf(wire.CertUntrusted, "no certificate matches tls.pin; the server's key is %s", p.tlsFacts.Pin)
}

func decodePin(s string) ([]byte, error) {
	s = strings.TrimPrefix(s, "sha256/")
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(s)
	}
	if err != nil || len(b) != sha256.Size {
		return nil, Failf(wire.BadOptions, "tls.pin: %.80q is no SHA-256 in base64 or hex", s)
	}
	return b, nil
}

// parseOCSP reads and verifies an OCSP response. An issuer that signs the
// response itself may enclose its own certificate (RFC 6960, section 4.2.1);
// package ocsp would have that signed by the issuer as well.
func parseOCSP(b []byte, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(b, leaf, issuer)
	if err == nil || issuer == nil {
		return r, err
	}
	own, ownErr := ocsp.ParseResponseForCert(b, leaf, nil)
	if ownErr == nil && own.Certificate != nil && own.Certificate.Equal(issuer) {
		return own, nil // with issuer nil its signature is verified with the enclosed certificate
	}
	return nil, err
}

// checkOCSP looks at the stapled response (RFC 6066, section 8).
func (p *Probe) checkOCSP(st *tls.ConnectionState) error {
	o, f := p.opt.tls, p.tlsFacts
	if len(st.OCSPResponse) == 0 {
		if o.OCSP == "require" {
			return Failf(wire.BadTLS, "the server staples no OCSP response")
		}
		return nil
	}
	leaf := st.PeerCertificates[0]
	var issuer *x509.Certificate
	for _, c := range st.PeerCertificates[1:] {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			issuer = c
		}
	}
	r, err := parseOCSP(st.OCSPResponse, leaf, issuer)
	if err != nil {
		f.OCSP = "invalid"
		if o.OCSP == "ignore" {
			return nil
		}
		return Failf(wire.BadTLS, "stapled OCSP response: %w", err)
	}
	f.OCSPNextUpdate = r.NextUpdate
	f.OCSP = map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked"}[r.Status]
	if f.OCSP == "" {
		f.OCSP = "unknown"
	}
	switch {
	case o.OCSP == "ignore":
	case r.Status == ocsp.Revoked:
		return Failf(wire.CertRevoked, "the certificate was revoked %s", r.RevokedAt.UTC().Format(time.RFC3339))
	case !r.NextUpdate.IsZero() && time.Now().After(r.NextUpdate):
		return Failf(wire.BadTLS, "the stapled OCSP response is stale since %s", r.NextUpdate.UTC().Format(time.RFC3339))
	case r.Status != ocsp.Good && o.OCSP == "require":
		return Failf(wire.BadTLS, "the stapled OCSP response does not know the certificate")
	}
	return nil
}

// bundles are where systems keep all their authorities in one file. Reading
// that alone costs half of what package x509 does, which goes through a folder
// of single files as well.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
	"/usr/local/share/certs/ca-root-nss.crt",
}

var systemRoots = sync.OnceValues(func() (*x509.CertPool, error) {
	if os.Getenv("SSL_CERT_FILE") == "" && os.Getenv("SSL_CERT_DIR") == "" {
		for _, file := range bundles {
			if pem, err := os.ReadFile(file); err == nil {
				pool := x509.NewCertPool()
				if pool.AppendCertsFromPEM(pem) {
					return pool, nil
				}
			}
		}
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, Failf(wire.Local, "the system's authorities: %w", err)
	}
	return pool, nil
})

var rootFiles sync.Map // file name -> rootFile

type rootFile struct {
	modified time.Time
	pool     *x509.CertPool
}

// rootsOf reads a file of authorities, again only when it has changed.
func rootsOf(file string) (*x509.CertPool, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, Failf(wire.BadOptions, "tls.ca: %w", err)
	}
	if r, ok := rootFiles.Load(file); ok && r.(rootFile).modified.Equal(fi.ModTime()) {
		return r.(rootFile).pool, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, Failf(wire.BadOptions, "tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, Failf(wire.BadOptions, "tls.ca: %s holds no certificate in PEM", file)
	}
	rootFiles.Store(file, rootFile{fi.ModTime(), pool})
	return pool, nil
}
