package snmp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// authProtocols are the hashes and the lengths of their codes in a message
// (RFC 3414, section 6; RFC 7860, section 4).
var authProtocols = map[string]struct {
	hash func() hash.Hash
	size int
}{
	"md5": {md5.New, 12}, "sha": {sha1.New, 12}, "sha224": {sha256.New224, 16},
	"sha256": {sha256.New, 24}, "sha384": {sha512.New384, 32}, "sha512": {sha512.New, 48},
}

// privProtocols are the ciphers and the lengths of their keys. The ones with
// longer keys than AES-128 were never standardized: there are two ways to
// lengthen a key, of which some vendors use the second, here with a c.
var privProtocols = map[string]struct {
	key    int
	vendor bool
}{
	"des": {16, false}, "aes": {16, false}, "aes192": {24, false}, "aes256": {32, false},
	"aes192c": {24, true}, "aes256c": {32, true},
}

// A User is a user of version 3, with the keys for one agent.
type User struct {
	Name, Context  string
	Auth, Priv     string // protocols; "" without
	authKey        []byte
	privKey        []byte
	AuthPassword   string
	PrivPassword   string
	engineID       []byte
	boots, seconds int
	salt           uint64
}

// MinPassword is the length of the shortest password (RFC 3414, section 11.2).
const MinPassword = 8

// Discover makes the message that asks an agent for its identity (RFC 3414,
// section 4).
func Discover() (message []byte, id int) {
	id = newID()
	scoped := element(tagSequence, element(tagOctets), element(tagOctets), getPDU(id, nil))
	return v3(id, flagReportable, usmParameters(nil, 0, 0, "", nil, nil), scoped), id
}

func v3(id int, flags byte, security, scoped []byte) []byte {
	global := element(tagSequence, intElement(id), intElement(maxSize), element(tagOctets, []byte{flags}), intElement(usmModel))
	return element(tagSequence, intElement(V3), global, element(tagOctets, security), scoped)
}

func usmParameters(engineID []byte, boots, seconds int, user string, auth, priv []byte) []byte {
	return element(tagSequence, element(tagOctets, engineID), intElement(boots), intElement(seconds),
		element(tagOctets, []byte(user)), element(tagOctets, auth), element(tagOctets, priv))
}

// Know takes over the agent's identity and clock, from a report.
func (u *User) Know(m *Message) {
	if !bytes.Equal(u.engineID, m.EngineID) {
		u.engineID = bytes.Clone(m.EngineID)
		if u.Auth != "" {
			u.authKey = localized(u.Auth, u.AuthPassword, u.engineID)
		}
		if u.Priv != "" {
			u.privKey = lengthened(u.Auth, localized(u.Auth, u.PrivPassword, u.engineID), u.Priv, u.engineID)
		}
		var b [8]byte
		rand.Read(b[:]) // never fails
		u.salt = binary.BigEndian.Uint64(b[:])
	}
	u.boots, u.seconds = m.Boots, m.Time
}

// NewGet makes a Get request of version 3, and gives its identifier.
func (u *User) NewGet(oids [][]byte) (message []byte, id int, err error) {
	id = newID()
	scoped := element(tagSequence, element(tagOctets, u.engineID), element(tagOctets, []byte(u.Context)), getPDU(id, oids))
	flags := byte(flagReportable)
	var priv, code []byte
	if u.Priv != "" {
		flags |= flagPriv
		if scoped, priv, err = u.encrypt(scoped); err != nil {
			return nil, 0, err
		}
		scoped = element(tagOctets, scoped)
	}
	if u.Auth != "" {
		flags |= flagAuth
		code = make([]byte, authProtocols[u.Auth].size)
	}
	b := v3(id, flags, usmParameters(u.engineID, u.boots, u.seconds, u.Name, code, priv), scoped)
	if u.Auth == "" {
		return b, id, nil
	}
	_, at, err := parseV3(b)
	if err != nil {
		return nil, 0, err
	}
	copy(b[at:], u.mac(b))
	return b, id, nil
}

func (u *User) mac(b []byte) []byte {
	p := authProtocols[u.Auth]
	h := hmac.New(p.hash, u.authKey)
	h.Write(b)
	return h.Sum(nil)[:p.size]
}

// The errors of Parse that a caller can tell apart.
var (
	ErrDigest  = errors.New("its authentication code is not of our key")
	ErrDecrypt = errors.New("it can't be decrypted with our key")
)

// Parse takes a message of version 3 apart. With authentication only reports
// may come without, since the agent may not know our key; authenticated says
// which it is.
func (u *User) Parse(b []byte) (_ *Message, authenticated bool, err error) {
	m, at, err := parseV3(b)
	if err != nil {
		return nil, false, err
	}
	if m.Flags&flagAuth != 0 && u.Auth != "" && u.authKey != nil {
		size := authProtocols[u.Auth].size
		if m.auth != size {
			return m.Message, false, ErrDigest
		}
		c := bytes.Clone(b)
		clear(c[at : at+size])
		if !hmac.Equal(u.mac(c), b[at:at+size]) {
			return m.Message, false, ErrDigest
		}
		authenticated = true
	}
	scoped := m.scoped
	if m.Flags&flagPriv != 0 {
		if u.Priv == "" || !authenticated {
			return m.Message, authenticated, ErrDecrypt
		}
		secret, _, err := expect(scoped, tagOctets)
		if err != nil {
			return nil, false, err
		}
		if scoped, err = u.decrypt(secret, m.priv, m.Boots, m.Time); err != nil {
			return m.Message, authenticated, fmt.Errorf("%w: %v", ErrDecrypt, err)
		}
	}
	if err := m.parseScoped(scoped, m.Flags&flagPriv != 0); err != nil {
		if m.Flags&flagPriv != 0 {
			err = fmt.Errorf("%w: %v", ErrDecrypt, err)
		}
		return m.Message, authenticated, err
	}
	if u.Auth != "" && !authenticated && m.PDU.Type != Report {
		return nil, false, errors.New("an answer without authentication")
	}
	return m.Message, authenticated, nil
}

// A sealed is a message of version 3 whose PDU may be encrypted.
type sealed struct {
	*Message
	auth   int // length of the authentication code
	priv   []byte
	scoped []byte
}

// parseV3 takes the outside of a message apart, and says where its
// authentication code is.
func parseV3(b []byte) (m *sealed, at int, err error) {
	outer, rest, err := parseVersion(b)
	if err != nil {
		return nil, 0, err
	}
	if outer.Version != V3 {
		return nil, 0, fmt.Errorf("a message of version %d", outer.Version+1)
	}
	m = &sealed{Message: outer}
	global, rest, err := expect(rest, tagSequence)
	if err != nil {
		return nil, 0, err
	}
	if m.ID, global, err = takeInt(global); err != nil {
		return nil, 0, err
	}
	if _, global, err = takeInt(global); err != nil {
		return nil, 0, err
	}
	flags, global, err := expect(global, tagOctets)
	if err != nil || len(flags) != 1 {
		return nil, 0, errors.New("flags that make no sense")
	}
	m.Flags = flags[0]
	if model, _, err := takeInt(global); err != nil || model != usmModel {
		return nil, 0, fmt.Errorf("security model %d, want %d", model, usmModel)
	}
	security, scoped, err := expect(rest, tagOctets)
	if err != nil {
		return nil, 0, err
	}
	m.scoped = scoped
	code, err := m.parseSecurity(security)
	if err != nil {
		return nil, 0, err
	}
	m.auth = len(code)
	return m, cap(b) - cap(code), nil // it is a part of b, so their ends are the same
}

// parseSecurity reads the parameters of the security model, and gives the
// authentication code, which still is a part of the message.
func (m *sealed) parseSecurity(b []byte) (code []byte, err error) {
	if b, _, err = expect(b, tagSequence); err != nil {
		return nil, err
	}
	if m.EngineID, b, err = expect(b, tagOctets); err != nil {
		return nil, err
	}
	for _, to := range []*int{&m.Boots, &m.Time} {
		if *to, b, err = takeInt(b); err != nil {
			return nil, err
		}
	}
	user, b, err := expect(b, tagOctets)
	if err != nil {
		return nil, err
	}
	m.User = string(user)
	if code, b, err = expect(b, tagOctets); err != nil {
		return nil, err
	}
	m.priv, _, err = expect(b, tagOctets)
	return code, err
}

// parseScoped reads the scoped PDU. After decryption padding may follow it.
func (m *sealed) parseScoped(b []byte, padded bool) error {
	b, after, err := expect(b, tagSequence)
	if err != nil {
		return err
	}
	if len(after) > 0 && !padded {
		return errors.New("something follows the message")
	}
	for range 2 { // the context's engine and name
		if _, b, err = expect(b, tagOctets); err != nil {
			return err
		}
	}
	return m.PDU.parse(b)
}

// encrypt encrypts a scoped PDU and gives the salt that goes with it (RFC 3414,
// section 8; RFC 3826, section 3).
func (u *User) encrypt(b []byte) (secret, salt []byte, err error) {
	u.salt++
	salt = binary.BigEndian.AppendUint64(nil, u.salt)
	if u.Priv == "des" {
		salt = binary.BigEndian.AppendUint32(nil, uint32(u.boots))
		salt = binary.BigEndian.AppendUint32(salt, uint32(u.salt))
		block, err := des.NewCipher(u.privKey[:8])
		if err != nil {
			return nil, nil, err
		}
		secret = append(b, make([]byte, (8-len(b)%8)%8)...)
		cipher.NewCBCEncrypter(block, u.desIV(salt)).CryptBlocks(secret, secret)
		return secret, salt, nil
	}
	block, err := aes.NewCipher(u.privKey)
	if err != nil {
		return nil, nil, err
	}
	secret = make([]byte, len(b))
	cfb(block, aesIV(u.boots, u.seconds, salt), secret, b, true)
	return secret, salt, nil
}

func (u *User) decrypt(secret, salt []byte, boots, seconds int) ([]byte, error) {
	if len(salt) != 8 {
		return nil, fmt.Errorf("a salt of %d bytes", len(salt))
	}
	plain := make([]byte, len(secret))
	if u.Priv == "des" {
		if len(secret)%8 != 0 {
			return nil, fmt.Errorf("%d bytes are no blocks of DES", len(secret))
		}
		block, err := des.NewCipher(u.privKey[:8])
		if err != nil {
			return nil, err
		}
		cipher.NewCBCDecrypter(block, u.desIV(salt)).CryptBlocks(plain, secret)
		return plain, nil
	}
	block, err := aes.NewCipher(u.privKey)
	if err != nil {
		return nil, err
	}
	cfb(block, aesIV(boots, seconds, salt), plain, secret, false)
	return plain, nil
}

func (u *User) desIV(salt []byte) []byte {
	iv := bytes.Clone(u.privKey[8:16])
	for i := range iv {
		iv[i] ^= salt[i]
	}
	return iv
}

func aesIV(boots, seconds int, salt []byte) []byte {
	iv := binary.BigEndian.AppendUint32(nil, uint32(boots))
	return append(binary.BigEndian.AppendUint32(iv, uint32(seconds)), salt...)
}

// cfb is cipher feedback with whole blocks, as AES has it here (RFC 3826,
// section 3.1.3); the standard library has given it up.
func cfb(block cipher.Block, iv, dst, src []byte, encrypt bool) {
	var stream [aes.BlockSize]byte
	for len(src) > 0 {
		block.Encrypt(stream[:], iv)
		n := min(len(src), aes.BlockSize)
		for i := range n {
			in := src[i]
			dst[i] = in ^ stream[i]
			if encrypt {
				in = dst[i]
			}
			iv[i] = in
		}
		src, dst = src[n:], dst[n:]
	}
}

// passwordKeys remembers the keys of passwords, since to make one takes a hash
// over a megabyte.
var passwordKeys struct {
	sync.Mutex
	m map[[2]string][]byte
}

const (
	maxPasswordKeys = 1024
	stretched       = 1 << 20 // bytes of repeated password (RFC 3414, section A.2)
)

func passwordKey(auth, password string) []byte {
	at := [2]string{auth, password}
	passwordKeys.Lock()
	defer passwordKeys.Unlock()
	if k := passwordKeys.m[at]; k != nil {
		return k
	}
	if len(passwordKeys.m) >= maxPasswordKeys || passwordKeys.m == nil {
		passwordKeys.m = map[[2]string][]byte{}
	}
	k := stretch(auth, []byte(password))
	passwordKeys.m[at] = k
	return k
}

func stretch(auth string, password []byte) []byte {
	h := authProtocols[auth].hash()
	chunk := bytes.Repeat(password, 4096/len(password)+1)
	for n := 0; n < stretched; n += len(chunk) {
		h.Write(chunk[:min(len(chunk), stretched-n)])
	}
	return h.Sum(nil)
}

// localized makes the key of a password for one agent (RFC 3414, section 2.6).
func localized(auth, password string, engineID []byte) []byte {
	return localize(auth, passwordKey(auth, password), engineID)
}

func localize(auth string, key, engineID []byte) []byte {
	h := authProtocols[auth].hash()
	h.Write(key)
	h.Write(engineID)
	h.Write(key)
	return h.Sum(nil)
}

// lengthened makes a key as long as the cipher needs it.
func lengthened(auth string, key []byte, priv string, engineID []byte) []byte {
	p := privProtocols[priv]
	for last := key; len(key) < p.key; {
		if p.vendor { // draft-reeder-snmpv3-usm-3desede
			last = localize(auth, stretch(auth, last), engineID)
			key = append(bytes.Clone(key), last...)
			continue
		}
		h := authProtocols[auth].hash() // draft-blumenthal-aes-usm
		h.Write(key)
		key = h.Sum(bytes.Clone(key))
	}
	return key[:p.key]
}
