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
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
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
	Pin        []string `json:"pin" doc:"SHA-256 of a public key (SPKI) or of a whole certificate, in base64 or hex. The chain must lead through one of them; a pinned certificate that the server sends needs no other authority. With verify = false the server's own certificate must match."`
	OCSP       string   `json:"ocsp" enum:"ignore,check,require" doc:"The stapled OCSP response: ignore it, check it if there is one or the certificate demands one (must-staple), or require one."`
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
	Version             string        `json:"version" doc:"The TLS version: 1.0, 1.1, 1.2, 1.3."`
	Cipher              string        `json:"cipher" doc:"The cipher suite, by its IANA name."`
	Group               string        `json:"group" doc:"The key exchange group."`
	ALPN                string        `json:"alpn" doc:"The application protocol that was agreed on."`
	ClientCertificate   *bool         `json:"client_certificate" doc:"Whether the server asks for a client certificate, which it may do without insisting."`
	Verified            *bool         `json:"verified" doc:"Whether the certificate passes in all: authority, validity, name, pin, OCSP."`
	Trusted             *bool         `json:"trusted" doc:"Whether a trusted authority, or a pin, vouches for the certificate, whatever its dates and names."`
	NameMatches         *bool         `json:"name_matches" doc:"Whether the certificate is for the name or address that was asked for."`
	Subject             string        `json:"subject" doc:"The subject of the server's certificate."`
	Issuer              string        `json:"issuer" doc:"Its issuer."`
	Names               []string      `json:"names" doc:"The names and addresses that it is for."`
	Serial              string        `json:"serial" doc:"Its serial number, in hex."`
	Key                 string        `json:"key" doc:"Its kind of key: RSA-2048, ECDSA-P-256, Ed25519."`
	Signature           string        `json:"signature" doc:"How it is signed: SHA256-RSA."`
	NotBefore           time.Time     `json:"not_before" doc:"When it becomes valid."`
	NotAfter            time.Time     `json:"not_after" doc:"When it expires."`
	DaysLeft            *float64      `json:"days_left" doc:"Days until the first certificate of the chain expires, from the server's own up to the authority's, which does not count; negative when one has."`
	SHA256              string        `json:"sha256" doc:"SHA-256 of the certificate, in hex."`
	Pin                 string        `json:"pin" doc:"SHA-256 of its public key (SPKI), in base64."`
	MissingIntermediate *bool         `json:"missing_intermediate" doc:"Whether the server leaves out a certificate between its own and the authority, so that some clients fail."`
	OCSP                string        `json:"ocsp" doc:"What the stapled OCSP response says: good, revoked, unknown, stale, invalid; absent without one."`
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
	if own && (o.Cert != "" || o.Key != "") {
		cert, err := clientCertificate(o.Cert, o.Key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

func clientCertificate(file, key string) (tls.Certificate, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, Failf(wire.BadOptions, "tls.cert: %w", err)
	}
	cert, err := tls.X509KeyPair(pem, []byte(key))
	if err != nil {
		return cert, Failf(wire.BadOptions, "tls.cert and tls.key: %w", err)
	}
	return cert, nil
}

func cipherID(name string) (uint16, bool) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.Name == name {
			return s.ID, true
		}
	}
	return 0, false
}

// KeepTLS makes the TLS connections of the attempt resume the session of those
// before them, as FTP servers want it from a data connection.
func (p *Probe) KeepTLS() { p.sessions = tls.NewLRUClientSessionCache(1) }

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
	asked := false
	own := tls.Certificate{}
	if len(cfg.Certificates) > 0 {
		own = cfg.Certificates[0]
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &own, nil
	}
	cfg.ClientSessionCache = p.sessions
	tc := tls.Client(c, cfg)
	if err := tc.Handshake(); err != nil {
		return nil, p.handshakeError(err, asked)
	}
	st := tc.ConnectionState()
	p.out.tlsFacts = tlsFactsOf(&st)
	p.out.tlsFacts.ClientCertificate = &asked
	if err := p.verify(&st, cfg.ServerName, c.host == p.URL.Host); err != nil {
		return nil, err
	}
	// the end of the context interrupts the connection below, and so this one
	return &Conn{Conn: tc, host: c.host, ctx: c.ctx, p: p}, nil
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
var clientAlerts = map[tls.AlertError]bool{
	42:  true, // bad_certificate
	43:  true, // unsupported_certificate
	44:  true, // certificate_revoked
	45:  true, // certificate_expired
	46:  true, // certificate_unknown
	48:  true, // unknown_ca
	49:  true, // access_denied
	116: true, // certificate_required
}

const (
	alertHandshakeFailure tls.AlertError = 40
	alertProtocolVersion  tls.AlertError = 70
)

// alertOf finds an alert that the peer has sent. Package tls has a type of its
// own for it, which it does not export.
func alertOf(err error) (tls.AlertError, bool) {
	oe, ok := errors.AsType[*net.OpError](err)
	if !ok || oe.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(oe.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return tls.AlertError(v.Uint()), true
}

// tlsReason words what crypto/tls says, at whatever time: with TLS 1.3 a
// server refuses a client certificate only after our handshake is over.
func tlsReason(err error) (wire.Reason, bool) {
	if a, ok := alertOf(err); ok {
		if clientAlerts[a] {
			return wire.Denied, true
		}
		return wire.BadTLS, true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return wire.BadTLS, true
	}
	return "", false
}

// handshakeError words why a handshake failed. Asked says that the server
// wanted a client certificate.
func (p *Probe) handshakeError(err error, asked bool) error {
	a, alert := alertOf(err)
	given := p.opt.tls.Cert != ""
	switch {
	case alert && (clientAlerts[a] || asked && a == alertHandshakeFailure):
		if given {
			return Failf(wire.Denied, "the server refuses our client certificate: %w", err)
		}
		return Failf(wire.Denied, "the server wants a client certificate (tls.cert, tls.key): %w", err)
	case alert && a == alertProtocolVersion, strings.Contains(err.Error(), "unsupported protocol version"):
		return Failf(wire.BadTLS, "the server speaks no TLS version from %s on (tls.min_version, tls.max_version): %w", p.opt.tls.MinVersion, err)
	case alert && a == alertHandshakeFailure:
		return Failf(wire.BadTLS, "the server shares no cipher suite or parameter with us: %w", err)
	}
	if rh, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return Failf(wire.BadTLS, "the server does not speak TLS here: got %.20q", rh.RecordHeader[:])
	}
	return err
}

// Accepted makes sure that the server takes our client certificate, or does
// without one. With TLS 1.3 it says so only after the handshake, so that the
// end of what we send is said, and the server's answer to that awaited for a
// second at most. Nothing can be sent on c afterwards.
func (p *Probe) Accepted(c *Conn) error {
	tc, ok := c.Conn.(*tls.Conn)
	if !ok || p.out.tlsFacts == nil || !*p.out.tlsFacts.ClientCertificate || tc.ConnectionState().Version < tls.VersionTLS13 {
		return nil
	}
	if err := tc.CloseWrite(); err != nil {
		return p.handshakeError(err, true)
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	_, err := tc.Read(make([]byte, 1))
	if _, alert := alertOf(err); alert {
		return p.handshakeError(err, true)
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return Failf(wire.Denied, "the server resets the connection after it has asked for a client certificate: %w", err)
	}
	return c.ctx.Err()
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
	for _, c := range st.PeerCertificates {
		x := shownCerts.of(c)
		f.Chain = append(f.Chain, Certificate{
			Subject: x.subject, Issuer: x.issuer, NotAfter: c.NotAfter,
			DaysLeft: daysLeft(c.NotAfter), SHA256: x.sha256,
		})
	}
	if len(st.PeerCertificates) == 0 {
		return f
	}
	leaf := st.PeerCertificates[0]
	x := shownCerts.of(leaf)
	f.Subject, f.Issuer, f.Names, f.Serial = x.subject, x.issuer, x.names, x.serial
	f.Key, f.Signature = x.key, x.signature
	f.NotBefore, f.NotAfter = leaf.NotBefore, leaf.NotAfter
	f.SHA256, f.Pin = x.sha256, x.pin
	return f
}

// A shownCert is what is shown of a certificate.
type shownCert struct {
	subject, issuer, serial, key, signature, sha256, pin string
	names                                                []string
}

func showCert(c *x509.Certificate, sum [sha256.Size]byte) *shownCert {
	x := &shownCert{
		subject: c.Subject.String(), issuer: c.Issuer.String(), serial: c.SerialNumber.Text(16),
		key: keyName(c.PublicKey), signature: c.SignatureAlgorithm.String(), sha256: hex.EncodeToString(sum[:]),
		names: slices.Clone(c.DNSNames),
	}
	for _, ip := range c.IPAddresses {
		x.names = append(x.names, ip.String())
	}
	spki := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	x.pin = base64.StdEncoding.EncodeToString(spki[:])
	return x
}

// shownCerts remembers what is shown of certificates by their SHA-256, since
// the same ones come again and again. It forgets them all when there are too
// many.
var shownCerts certMemory

type certMemory struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]*shownCert
}

const (
	maxShownCerts = 1024
	maxShownCert  = 4 << 10 // bytes of a certificate
)

func (m *certMemory) of(c *x509.Certificate) *shownCert {
	sum := sha256.Sum256(c.Raw)
	m.mu.Lock()
	x := m.known[sum]
	m.mu.Unlock()
	if x != nil {
		return x
	}
	x = showCert(c, sum)
	if len(c.Raw) > maxShownCert {
		return x
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxShownCerts {
		m.known = map[[sha256.Size]byte]*shownCert{}
	}
	m.known[sum] = x
	return x
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
	o, f := p.opt.tls, p.out.tlsFacts
	if len(st.PeerCertificates) == 0 {
		return Failf(wire.BadTLS, "the server sent no certificate")
	}
	v := &verification{Probe: p, chain: sentChain(st.PeerCertificates), sent: st.PeerCertificates}
	if own {
		if err := v.readPins(o.Pin); err != nil {
			return err
		}
	}
	err := v.run(name)
	if r, ok := reasonOf(err); ok && r.Unknown() {
		return err // our own roots can't be read
	}
	if ocspErr := v.checkOCSP(st); err == nil {
		err = ocspErr
	}
	f.Verified = new(err == nil)
	switch {
	case o.Verify && err != nil:
		return err
	case !o.Verify && len(v.pins) > 0 && !v.pinned(v.sent[0]):
		return v.pinError()
	case len(o.ALPN) > 0 && st.NegotiatedProtocol == "":
		return Failf(wire.BadTLS, "the server picked none of the protocols %q (ALPN)", o.ALPN)
	}
	return nil
}

// sentChain gives the way from the server's certificate to its authority, as
// far as the server has sent it. Servers send certificates in any order, and
// some that don't belong there.
func sentChain(sent []*x509.Certificate) []*x509.Certificate {
	chain := sent[:1:1]
	for last := sent[0]; !selfSigned(last) && len(chain) <= len(sent); {
		var next *x509.Certificate
		for _, c := range sent {
			if !bytes.Equal(c.RawSubject, last.RawIssuer) {
				continue
			}
			if next == nil || last.CheckSignatureFrom(next) != nil { // a namesake
				next = c
			}
		}
		if next == nil {
			break
		}
		last = next
		chain = append(chain, last)
	}
	return chain
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// A verification is one look at the certificates of a server.
type verification struct {
	*Probe
	sent  []*x509.Certificate   // all of them, the server's own first
	chain []*x509.Certificate   // those that lead from there to the authority
	found [][]*x509.Certificate // the chains up to an authority, roots included
	pins  [][]byte
	roots *x509.CertPool // of all authorities only those that the certificates name
}

// run finds out whether the server's certificate is trusted, valid and for the
// given name, and sets those facts.
func (v *verification) run(name string) error {
	f, leaf := v.out.tlsFacts, v.sent[0]
	nameErr := leaf.VerifyHostname(name)
	f.NameMatches = new(nameErr == nil)
	f.DaysLeft = lowestDays([][]*x509.Certificate{v.chain}, selfSigned)
	if err := v.setRoots(); err != nil {
		return err
	}
	opts := x509.VerifyOptions{Roots: v.roots, Intermediates: x509.NewCertPool()}
	for _, c := range v.sent[1:] {
		opts.Intermediates.AddCert(c)
	}
	var err error
	v.found, err = leaf.Verify(opts)
	f.Trusted = new(err == nil)
	f.MissingIntermediate = new(false)
	if err != nil {
		f.MissingIntermediate = new(v.lacksIssuer())
		f.Trusted = new(v.trustedOnce(err, opts))
		return v.chainError(err)
	}
	f.DaysLeft = lowestDays(v.found, nil)
	switch {
	case len(v.pins) > 0 && !slices.ContainsFunc(v.found, func(chain []*x509.Certificate) bool { return slices.ContainsFunc(chain, v.pinned) }):
		f.Trusted = new(false)
		return v.pinError()
	case nameErr != nil:
		return Failf(wire.CertName, "the certificate is for %.200q, not %.80q", f.Names, name)
	}
	return nil
}

// lowestDays gives the days until the first certificate of a chain expires, of
// the chain that lasts longest. The last certificate of a chain does not count
// if root says so, or if root is nil: it is the authority, at whose dates
// nobody looks.
func lowestDays(chains [][]*x509.Certificate, root func(*x509.Certificate) bool) *float64 {
	var latest time.Time
	for _, chain := range chains {
		end := chain[0].NotAfter
		for i, c := range chain {
			if last := i == len(chain)-1; last && i > 0 && (root == nil || root(c)) {
				continue
			}
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(latest) {
			latest = end
		}
	}
	return daysLeft(latest)
}

// setRoots picks the authorities to trust: pinned certificates that were sent,
// those of tls.ca, or the system's.
func (v *verification) setRoots() (err error) {
	for _, c := range v.sent {
		if v.pinned(c) {
			if v.roots == nil {
				v.roots = x509.NewCertPool()
			}
			v.roots.AddCert(c)
		}
	}
	if v.roots != nil {
		return nil
	}
	var all *Authorities
	if v.opt.tls.CA != "" {
		all, err = rootsOf(v.opt.tls.CA)
	} else {
		all, err = SystemRoots()
	}
	if err == nil {
		v.roots = all.named(v.sent)
	}
	return err
}

// lacksIssuer says whether the server has left out the certificate that would
// come next in its chain, although that is no authority of ours.
func (v *verification) lacksIssuer() bool {
	last := v.chain[len(v.chain)-1]
	if selfSigned(last) {
		return false
	}
	_, err := last.Verify(x509.VerifyOptions{Roots: v.roots, CurrentTime: last.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}

// trustedOnce says whether the chain that failed with err is, or will be,
// trusted at a time when its certificates are valid.
func (v *verification) trustedOnce(err error, opts x509.VerifyOptions) bool {
	for range v.sent {
		ie, ok := errors.AsType[x509.CertificateInvalidError](err)
		if !ok || ie.Reason != x509.Expired {
			return false
		}
		opts.CurrentTime = ie.Cert.NotAfter
		if time.Now().Before(ie.Cert.NotBefore) {
			opts.CurrentTime = ie.Cert.NotBefore
		}
		if _, err = v.sent[0].Verify(opts); err == nil {
			return true
		}
	}
	return false
}

func (v *verification) chainError(err error) error {
	if ie, ok := errors.AsType[x509.CertificateInvalidError](err); ok && ie.Reason == x509.Expired {
		c := ie.Cert
		if time.Now().Before(c.NotBefore) {
			return Failf(wire.CertNotYetValid, "the certificate of %.80q is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		}
		return Failf(wire.CertExpired, "the certificate of %.80q expired %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	}
	last := v.chain[len(v.chain)-1]
	switch {
	case *v.out.tlsFacts.MissingIntermediate && len(v.pins) == 0:
		return Failf(wire.CertUntrusted, "no trusted authority: the server does not send the certificate of the issuer %.80q of %.80q", last.Issuer, last.Subject)
	case len(v.chain) == 1 && selfSigned(last) && v.opt.tls.CA == "":
		return Failf(wire.CertUntrusted, "the certificate of %.80q is self-signed; trust it with tls.ca or tls.pin", last.Subject)
	}
	return Failf(wire.CertUntrusted, "%s", ndjson.Cut(strings.TrimPrefix(err.Error(), "x509: "), 200))
}

// issuer gives the certificate of the authority that has signed the server's
// own, or nil.
func (v *verification) issuer() *x509.Certificate {
	if len(v.found) > 0 && len(v.found[0]) > 1 {
		return v.found[0][1]
	}
	if len(v.chain) > 1 && v.sent[0].CheckSignatureFrom(v.chain[1]) == nil {
		return v.chain[1]
	}
	return nil
}

func (v *verification) readPins(pins []string) error {
	for _, s := range pins {
		pin, err := decodePin(s)
		if err != nil {
			return err
		}
		v.pins = append(v.pins, pin)
	}
	return nil
}

func (v *verification) pinned(c *x509.Certificate) bool {
	if len(v.pins) == 0 {
		return false
	}
	spki, whole := sha256.Sum256(c.RawSubjectPublicKeyInfo), sha256.Sum256(c.Raw)
	return slices.ContainsFunc(v.pins, func(pin []byte) bool { return bytes.Equal(pin, spki[:]) || bytes.Equal(pin, whole[:]) })
}

func (v *verification) pinError() error {
	return Failf(wire.CertUntrusted, "no certificate matches tls.pin; the server's key is %s", v.out.tlsFacts.Pin)
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

// parseOCSP reads and verifies an OCSP response. It is signed by the issuer of
// leaf, or by a responder that the issuer has certified for that (RFC 6960,
// section 4.2.2.2). An issuer that signs itself may enclose its own certificate
// (section 4.2.1), which package ocsp would have signed by itself.
func parseOCSP(b []byte, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	if issuer == nil {
		return nil, errors.New("the certificate of the issuer, which must vouch for it, is not known")
	}
	r, err := ocsp.ParseResponseForCert(b, leaf, issuer)
	if err != nil {
		enclosed, ownErr := ocsp.ParseResponseForCert(b, leaf, nil)
		if ownErr != nil || enclosed.Certificate == nil || !enclosed.Certificate.Equal(issuer) {
			return nil, err
		}
		return enclosed, nil // its signature is verified with the enclosed certificate
	}
	if c := r.Certificate; c != nil && !c.Equal(issuer) {
		if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return nil, fmt.Errorf("it is signed by %.80q, whose certificate is not for OCSP", c.Subject)
		}
		if now := time.Now(); now.After(c.NotAfter) || now.Before(c.NotBefore) {
			return nil, fmt.Errorf("the certificate of its signer %.80q is not valid now", c.Subject)
		}
	}
	return r, nil
}

// tlsFeature is the extension by which a certificate demands a stapled
// response (RFC 7633), and what it says then.
var tlsFeature, mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, []byte{0x30, 3, 2, 1, 5}

// checkOCSP looks at the stapled response (RFC 6066, section 8).
func (v *verification) checkOCSP(st *tls.ConnectionState) error {
	o, f, leaf := v.opt.tls, v.out.tlsFacts, st.PeerCertificates[0]
	if len(st.OCSPResponse) == 0 {
		demanded := slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool {
			return e.Id.Equal(tlsFeature) && bytes.Equal(e.Value, mustStaple)
		})
		if o.OCSP == "require" || demanded && o.OCSP == "check" {
			return Failf(wire.BadTLS, "the server staples no OCSP response, which %s", map[bool]string{true: "its certificate demands", false: "tls.ocsp requires"}[demanded])
		}
		return nil
	}
	err := v.judgeOCSP(st.OCSPResponse, leaf, v.issuer())
	if o.OCSP == "ignore" || f.OCSP == "unknown" && o.OCSP != "require" {
		return nil
	}
	return err
}

func (p *Probe) judgeOCSP(b []byte, leaf, issuer *x509.Certificate) error {
	f, now := p.out.tlsFacts, time.Now()
	r, err := parseOCSP(b, leaf, issuer)
	if err == nil && r.ThisUpdate.After(now.Add(ocspSkew)) {
		err = fmt.Errorf("it holds only from %s on", r.ThisUpdate.UTC().Format(time.RFC3339))
	}
	if err != nil {
		f.OCSP = "invalid"
		return Failf(wire.BadTLS, "stapled OCSP response: %w", err)
	}
	f.OCSPNextUpdate = r.NextUpdate
	switch {
	case r.Status == ocsp.Revoked:
		f.OCSP = "revoked"
		return Failf(wire.CertRevoked, "the certificate was revoked %s", r.RevokedAt.UTC().Format(time.RFC3339))
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		f.OCSP = "stale"
		return Failf(wire.BadTLS, "the stapled OCSP response is stale since %s", r.NextUpdate.UTC().Format(time.RFC3339))
	case r.Status != ocsp.Good:
		f.OCSP = "unknown"
		return Failf(wire.BadTLS, "the stapled OCSP response does not know the certificate")
	}
	f.OCSP = "good"
	return nil
}

// ocspSkew is by how much a responder's clock may be ahead of ours.
const ocspSkew = 5 * time.Minute

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

// SystemRoots gives the system's authorities, read when TLS is first used.
func SystemRoots() (*Authorities, error) {
	files := bundles
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		files = []string{file}
	}
	if os.Getenv("SSL_CERT_DIR") == "" && runtime.GOOS != "darwin" && runtime.GOOS != "windows" {
		for _, file := range files {
			if all, err := rootsOf(file); err == nil {
				return all, nil
			}
		}
	}
	pool, err := x509.SystemCertPool() // which keeps it
	if err != nil {
		return nil, Failf(wire.Local, "the system's authorities: %w", err)
	}
	return &Authorities{pool: pool}, nil
}

// Authorities are the certificates that are trusted. Parsing them costs more
// than a handshake each, so that only those are parsed that a server's
// certificates name as their issuers.
type Authorities struct {
	bySubject map[string][]func() *x509.Certificate // each parsed when it is first wanted; nil if it can't be
	pool      *x509.CertPool                        // the system's own, where it has no file
}

// parseAuthorities reads a file of certificates in PEM, and passes over what
// it can't use, as package x509 does.
func parseAuthorities(text []byte) *Authorities {
	a := &Authorities{bySubject: map[string][]func() *x509.Certificate{}}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return a
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			continue
		}
		if subject, ok := subjectOf(block.Bytes); ok {
			a.bySubject[subject] = append(a.bySubject[subject], sync.OnceValue(func() *x509.Certificate {
				cert, _ := x509.ParseCertificate(block.Bytes)
				return cert
			}))
		}
	}
}

// subjectOf finds the subject of a certificate (RFC 5280, section 4.1), as it
// is encoded.
func subjectOf(der []byte) (subject string, ok bool) {
	in := cryptobyte.String(der)
	var cert, tbs, name cryptobyte.String
	ok = in.ReadASN1(&cert, cbasn1.SEQUENCE) && cert.ReadASN1(&tbs, cbasn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.SkipASN1(cbasn1.INTEGER) && // serial number
		tbs.SkipASN1(cbasn1.SEQUENCE) && // signature algorithm
		tbs.SkipASN1(cbasn1.SEQUENCE) && // issuer
		tbs.SkipASN1(cbasn1.SEQUENCE) && // validity
		tbs.ReadASN1Element(&name, cbasn1.SEQUENCE)
	return string(name), ok
}

// named gives the authorities that certificates name as their issuers, and
// those among the certificates themselves.
func (a *Authorities) named(certs []*x509.Certificate) *x509.CertPool {
	if a.pool != nil {
		return a.pool
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		for _, name := range [][]byte{c.RawIssuer, c.RawSubject} {
			for _, parse := range a.bySubject[string(name)] {
				if root := parse(); root != nil {
					pool.AddCert(root)
				}
			}
		}
	}
	return pool
}

// A rootFile holds the authorities of a file.
type rootFile struct {
	sync.Mutex
	modified time.Time
	all      *Authorities
}

var rootFiles sync.Map // file name -> *rootFile

// rootsOf reads a file of authorities, again only when it has changed.
func rootsOf(file string) (*Authorities, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, rootsError(err)
	}
	v, _ := rootFiles.LoadOrStore(file, new(rootFile))
	r := v.(*rootFile)
	r.Lock() // many checks may want it at once; one reads
	defer r.Unlock()
	if r.all != nil && r.modified.Equal(fi.ModTime()) {
		return r.all, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, rootsError(err)
	}
	all := parseAuthorities(text)
	if len(all.bySubject) == 0 {
		return nil, Failf(wire.BadOptions, "tls.ca: %s holds no certificate in PEM", file)
	}
	r.modified, r.all = fi.ModTime(), all
	return all, nil
}

// rootsError tells the target's fault, a wrong file name, from our own lack of
// descriptors.
func rootsError(err error) error {
	if r, ok := reasonOf(err); ok && r == wire.Local && !errors.Is(err, os.ErrPermission) {
		return Failf(wire.Local, "tls.ca: %w", err)
	}
	return Failf(wire.BadOptions, "tls.ca: %w", err)
}
