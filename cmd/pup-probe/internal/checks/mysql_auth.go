package checks

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"

	"filippo.io/edwards25519"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// The ways to log in that the check knows.
const (
	mysqlNative   = "mysql_native_password"
	mysqlCaching  = "caching_sha2_password"
	mysqlSHA256   = "sha256_password"
	mysqlEd25519  = "client_ed25519"
	mysqlClear    = "mysql_clear_password"
	mysqlScramble = 20 // bytes of the server's challenge that count, for the first three
)

// proof answers the server's challenge in the way that it asks for.
func (s *mysqlSession) proof(plugin string, scramble []byte) ([]byte, error) {
	password := s.opt.Password
	s.plugin, s.scramble = plugin, scramble
	s.facts.Auth = plugin
	switch plugin {
	case mysqlNative, mysqlCaching, mysqlSHA256:
		if len(scramble) < mysqlScramble {
			return nil, probe.Protocolf("%s: a challenge of %d bytes, want %d", plugin, len(scramble), mysqlScramble)
		}
		s.scramble = scramble[:mysqlScramble]
	case mysqlEd25519, mysqlClear:
	default:
		return nil, probe.Failf(wire.Denied, "the server wants a login by %.80q, which this check can't do", plugin)
	}
	switch {
	case password == "" && plugin == mysqlClear, password == "" && plugin == mysqlSHA256:
		return []byte{0}, nil
	case password == "":
		return nil, nil
	case plugin == mysqlNative:
		return mysqlNativeProof(password, s.scramble), nil
	case plugin == mysqlCaching:
		return mysqlCachingProof(password, s.scramble), nil
	case plugin == mysqlEd25519:
		return mysqlSign(password, scramble), nil
	case plugin == mysqlSHA256 && s.c.TLSState() == nil:
		return []byte{1}, nil // asks for the server's key
	}
	return []byte(password + "\x00"), nil // valid has seen to it that nobody listens
}

// mysqlNativeProof is SHA1(p) xor SHA1(challenge, SHA1(SHA1(p))).
func mysqlNativeProof(password string, scramble []byte) []byte {
	one := sha1.Sum([]byte(password))
	two := sha1.Sum(one[:])
	mask := sha1.Sum(append(append([]byte{}, scramble...), two[:]...))
	subtle.XORBytes(mask[:], mask[:], one[:])
	return mask[:]
}

// mysqlCachingProof is SHA256(p) xor SHA256(SHA256(SHA256(p)), challenge).
func mysqlCachingProof(password string, scramble []byte) []byte {
	one := sha256.Sum256([]byte(password))
	two := sha256.Sum256(one[:])
	mask := sha256.Sum256(append(two[:], scramble...))
	subtle.XORBytes(mask[:], mask[:], one[:])
	return mask[:]
}

// mysqlSign signs the challenge as Ed25519 does (RFC 8032, section 5.1.6), but
// with a password of any length in the place of the private key.
func mysqlSign(password string, challenge []byte) []byte {
	az := sha512.Sum512([]byte(password))
	secret, err := new(edwards25519.Scalar).SetBytesWithClamping(az[:32])
	if err != nil {
		panic(err) // it has 32 bytes
	}
	public := new(edwards25519.Point).ScalarBaseMult(secret).Bytes()
	r := mysqlHashScalar(az[32:], challenge)
	signature := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k := mysqlHashScalar(signature, public, challenge)
	return append(signature, new(edwards25519.Scalar).MultiplyAdd(k, secret, r).Bytes()...)
}

func mysqlHashScalar(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	s, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic(err) // it has 64 bytes
	}
	return s
}

// more answers what a server sends while it verifies a password.
func (s *mysqlSession) more(data []byte) ([]byte, error) {
	switch {
	case s.plugin == mysqlCaching && len(data) == 1 && data[0] == 3: // it knows the password already
		return nil, nil
	case s.plugin == mysqlCaching && len(data) == 1 && data[0] == 4: // it wants all of it
		if s.c.TLSState() != nil {
			return []byte(s.opt.Password + "\x00"), nil
		}
		return []byte{2}, nil // asks for the server's key
	case s.plugin == mysqlCaching || s.plugin == mysqlSHA256:
		return mysqlEncrypt(data, s.opt.Password, s.scramble)
	}
	return nil, probe.Protocolf("%s: got %.80q", s.plugin, data)
}

// mysqlEncrypt encrypts the password, masked with the challenge, for the key
// that the server has sent.
func mysqlEncrypt(key []byte, password string, scramble []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, probe.Protocolf("login: got %.80q, want a key in PEM", key)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, probe.Protocolf("login: the server's key is none of RSA (%v)", err)
	}
	masked := []byte(password + "\x00")
	for i := range masked {
		masked[i] ^= scramble[i%len(scramble)]
	}
	out, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, masked, nil)
	if err != nil {
		return nil, probe.Protocolf("login: the server's key: %w", err)
	}
	return out, nil
}
