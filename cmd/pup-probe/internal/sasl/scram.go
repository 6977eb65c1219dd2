package sasl

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// maxIterations bounds the work that a server can put on us: about a second.
const maxIterations = 1 << 20

var scramHashes = map[string]func() hash.Hash{
	ScramSHA1: sha1.New, ScramSHA256: sha256.New, ScramSHA512: sha512.New,
}

// scram is SCRAM (RFC 5802) with any hash.
type scram struct {
	name      string
	hash      func() hash.Hash
	user      string // prepared and escaped
	password  string // prepared
	nonce     string
	header    string // gs2-header
	binding   []byte // channel binding data
	plus      bool
	step      int    // number of challenges that were answered
	signature []byte // what the server has to send at the end
}

func newScram(name string, cred Credentials) (*scram, error) {
	base, plus := strings.CutSuffix(name, "-PLUS")
	s := &scram{name: name, hash: scramHashes[base], plus: plus, nonce: rand.Text()}
	if s.hash == nil {
		return nil, fmt.Errorf("no such mechanism: %.40q", name)
	}
	user, err := prepare(cred.User)
	if err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	if s.password, err = prepare(cred.Password); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	s.user, s.header = scramName(user), "n,,"
	if plus {
		if s.binding, err = channelBinding(cred.Binding, cred.TLS); err != nil {
			return nil, err
		}
		s.header = "p=" + cred.Binding + ",,"
	}
	if cred.Act != "" {
		s.header = s.header[:len(s.header)-1] + "a=" + scramName(cred.Act) + ","
	}
	return s, nil
}

// scramName escapes a name (saslname of RFC 5802, section 7).
func scramName(s string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s) }

func (s *scram) first() string { return "n=" + s.user + ",r=" + s.nonce }

func (s *scram) Start() (string, []byte) { return s.name, []byte(s.header + s.first()) }

func (s *scram) Next(challenge []byte) ([]byte, error) {
	s.step++
	switch s.step {
	case 1:
		return s.prove(string(challenge))
	case 2:
		return []byte{}, s.verify(string(challenge))
	}
	return nil, fmt.Errorf("%s: one more challenge than there should be: %.80q", s.name, challenge)
}

// prove answers the server's first message with client-final-message.
func (s *scram) prove(challenge string) ([]byte, error) {
	nonce, salt, n, err := s.parse(challenge)
	if err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(s.hash, s.password, salt, n, s.hash().Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	header := base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...))
	final := "c=" + header + ",r=" + nonce
	message := []byte(s.first() + "," + challenge + "," + final)

	clientKey := s.mac(salted, []byte("Client Key"))
	h := s.hash()
	h.Write(clientKey)
	proof := s.mac(h.Sum(nil), message)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.signature = s.mac(s.mac(salted, []byte("Server Key")), message)
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func (s *scram) mac(key, message []byte) []byte {
	m := hmac.New(s.hash, key)
	m.Write(message)
	return m.Sum(nil)
}

// parse takes server-first-message apart: r=nonce,s=salt,i=iterations, and
// extensions that may be ignored.
func (s *scram) parse(challenge string) (nonce string, salt []byte, iterations int, err error) {
	bad := func(format string, args ...any) (string, []byte, int, error) {
		return "", nil, 0, fmt.Errorf("%s: %w", s.name, fmt.Errorf(format, args...))
	}
	if text, ok := strings.CutPrefix(challenge, "e="); ok {
		return bad("%w: %.80q", ErrRefused, text)
	}
	parts := strings.Split(challenge, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r=") || !strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return bad("got %.80q, want r=…,s=…,i=…", challenge)
	}
	nonce = parts[0][2:]
	if !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce) {
		return bad("the server's nonce %.80q does not continue ours", nonce)
	}
	salt, err = base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil || len(salt) == 0 {
		return bad("the salt %.80q is not in base64", parts[1][2:])
	}
	n, err := strconv.ParseUint(parts[2][2:], 10, 32)
	if err != nil || n == 0 || n > maxIterations {
		return bad("the number of iterations %.20q is not from 1 to %d", parts[2][2:], maxIterations)
	}
	return nonce, salt, int(n), nil
}

// verify checks server-final-message: v=signature, or e=error.
func (s *scram) verify(challenge string) error {
	want := s.signature
	s.signature = nil
	text, _, _ := strings.Cut(challenge, ",")
	if e, ok := strings.CutPrefix(text, "e="); ok {
		return fmt.Errorf("%s: %w: %.80q", s.name, ErrRefused, e)
	}
	v, ok := strings.CutPrefix(text, "v=")
	got, err := base64.StdEncoding.DecodeString(v)
	if !ok || err != nil {
		return fmt.Errorf("%s: got %.80q, want v=…", s.name, challenge)
	}
	if want == nil || !hmac.Equal(got, want) {
		return fmt.Errorf("%s: the server's signature is wrong: it does not know the password", s.name)
	}
	s.step = verified
	return nil
}

// verified is the step of a run in which the server's signature was right.
const verified = 100

func (s *scram) Done() error {
	if s.step != verified {
		return fmt.Errorf("%s: the server lets us in without having proved that it knows the password", s.name)
	}
	return nil
}

// channelBinding gives the data that ties a login to its TLS connection.
func channelBinding(kind string, st *tls.ConnectionState) ([]byte, error) {
	switch {
	case st == nil:
		return nil, errors.New("channel binding: the connection has no TLS")
	case kind == "tls-exporter":
		b, err := st.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			return nil, fmt.Errorf("channel binding: %w", err)
		}
		return b, nil
	case kind == "tls-server-end-point" && len(st.PeerCertificates) > 0:
		return endPoint(st.PeerCertificates[0]), nil
	}
	return nil, fmt.Errorf("channel binding: no such kind as %.40q; there are tls-exporter and tls-server-end-point", kind)
}

// endPoint hashes a certificate as it was signed, but MD5 and SHA-1 become
// SHA-256 (RFC 5929, section 4.1).
func endPoint(c *x509.Certificate) []byte {
	var h hash.Hash
	switch c.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = sha512.New384()
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = sha512.New()
	default:
		h = sha256.New()
	}
	h.Write(c.Raw)
	return h.Sum(nil)
}

// prepare is SASLprep (RFC 4013) in so far as it matters to what people use:
// spaces become the ASCII one, what is invisible goes, control characters are
// refused. It does not compose characters (NFKC): a password with accents must
// be written in composed form, as keyboards do.
func prepare(s string) (string, error) {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return s, nil
	}
	if !bytes.Equal([]byte(s), bytes.ToValidUTF8([]byte(s), nil)) {
		return "", errors.New("is not in UTF-8, as SCRAM wants")
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' || r >= 0x7f && r <= 0x9f: // table C.2
			return "", errors.New("contains a control character, which SCRAM forbids")
		case r == 0xa0 || r == 0x1680 || r >= 0x2000 && r <= 0x200a || r == 0x202f || r == 0x205f || r == 0x3000: // table C.1.2
			b.WriteByte(' ')
		case r == 0xad || r == 0x34f || r == 0x1806 || r >= 0x180b && r <= 0x180d || r >= 0x200b && r <= 0x200d ||
			r == 0x2060 || r >= 0xfe00 && r <= 0xfe0f || r == 0xfeff: // table B.1
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}
