package checks

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

// The bounds of an answer.
const (
	sipMaxLines = 128
	sipMaxBody  = 64 << 10
	sipMaxStray = 16 // messages over TCP that are no answers of ours
	sipMaxEmpty = 8  // empty lines between messages, which keep a connection alive
)

// sipToken makes a random word.
func sipToken() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sipPlain says whether r may stand in a part of an address.
func sipPlain(r rune, more string) bool {
	return r < 0x80 && (r|0x20 >= 'a' && r|0x20 <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r))
}

// A sipResponse is an answer, without its body.
type sipResponse struct {
	method string // of the request
	status int
	phrase string
	fields []sipField
}

type sipField struct{ name, value string }

// sipCompact are the short forms of names (RFC 3261, section 7.3.3).
var sipCompact = map[string]string{
	"i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type",
	"f": "from", "s": "subject", "k": "supported", "t": "to", "v": "via",
}

// get gives the first field with the name, in lower case, or "".
func (r *sipResponse) get(name string) string {
	for _, f := range r.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

func (r *sipResponse) callID() string { return r.get("call-id") }

// list gives the elements of all fields with the name.
func (r *sipResponse) list(name string) []string {
	var all []string
	for _, f := range r.fields {
		if f.name == name {
			for _, e := range sipSplit(f.value) {
				if e != "" {
					all = append(all, e)
				}
			}
		}
	}
	return all
}

// sipSplit splits at commas that stand neither in quotes nor in <>.
func sipSplit(s string) []string {
	var parts []string
	quoted, angle, start := false, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<' || c == '>':
			angle = c == '<'
		case c == ',' && !angle:
			parts = append(parts, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(parts, strings.TrimSpace(s[start:]))
}

// sipParameter gives the parameter of the first element of a field, or "".
func sipParameter(field, name string) string {
	element := sipSplit(field)[0]
	for p := range strings.SplitSeq(element, ";") {
		k, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// sipParse takes an answer in a datagram apart.
func sipParse(b []byte) (*sipResponse, error) {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return nil, errors.New("its head does not end")
	}
	lines := strings.Split(string(head), "\r\n")
	if len(lines) > sipMaxLines {
		return nil, fmt.Errorf("more than %d lines", sipMaxLines)
	}
	r, err := sipHead(lines)
	if err != nil {
		return nil, err
	}
	if n, err := r.length(); err != nil || n > len(body) {
		return nil, errors.New("its body is not there")
	}
	return r, nil
}

// sipHead reads a status line and fields. A line that begins with a blank goes
// on with the one before it.
func sipHead(lines []string) (*sipResponse, error) {
	version, rest, _ := strings.Cut(lines[0], " ")
	code, phrase, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if version != "SIP/2.0" || err != nil || len(code) != 3 || status < 100 || status > 699 {
		return nil, fmt.Errorf("got %.80q, want SIP/2.0 and a status", lines[0])
	}
	r := &sipResponse{status: status, phrase: phrase}
	for _, line := range lines[1:] {
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, fmt.Errorf("%.80q is no text", line)
		}
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if len(r.fields) == 0 {
				return nil, errors.New("its first field has no name")
			}
			last := &r.fields[len(r.fields)-1]
			last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(line))
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" {
			return nil, fmt.Errorf("%.80q is no header field", line)
		}
		if long := sipCompact[name]; long != "" {
			name = long
		}
		r.fields = append(r.fields, sipField{name, strings.TrimSpace(value)})
	}
	return r, nil
}

// length gives the length of the body, 0 if nothing is said of it.
func (r *sipResponse) length() (int, error) {
	s := r.get("content-length")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("content-length %.40q is no length", s)
	}
	return int(n), nil
}

// read reads messages from a connection until take has taken an answer.
func (s *sipSession) read(take func(*sipResponse) error) error {
	for range sipMaxStray {
		r, err := s.message()
		if err != nil {
			return err
		}
		err = take(r)
		if err == nil {
			return nil
		}
		if err != datagram.ErrMore {
			s.facts.Ignored++
		}
	}
	return probe.Protocolf("%d messages, and none is the final answer to our request", sipMaxStray)
}

// message reads a message from a connection, and drops its body.
func (s *sipSession) message() (*sipResponse, error) {
	var lines []string
	for empty := 0; ; {
		line, err := s.conn.Line()
		if err != nil {
			return nil, err
		}
		if line == "" && len(lines) > 0 {
			break
		}
		if line == "" {
			if empty++; empty > sipMaxEmpty {
				return nil, probe.Protocolf("more than %d empty lines", sipMaxEmpty)
			}
			continue
		}
		if len(lines) == 0 && !strings.HasPrefix(line, "SIP/2.0 ") {
			return nil, probe.Protocolf("got %.80q, want SIP/2.0 and a status", line)
		}
		if lines = append(lines, line); len(lines) > sipMaxLines {
			return nil, probe.Protocolf("an answer of more than %d lines", sipMaxLines)
		}
	}
	r, err := sipHead(lines)
	if err != nil {
		return nil, probe.Protocolf("%w", err)
	}
	n, err := r.length()
	if err != nil {
		return nil, probe.Protocolf("%w", err)
	}
	if n > sipMaxBody {
		return nil, probe.Failf(wire.TooLarge, "a body of %d bytes, more than %d", n, sipMaxBody)
	}
	return r, s.conn.Full(make([]byte, n))
}

// A sipChallenge asks for a digest (RFC 7616, section 3.3).
type sipChallenge struct {
	proxy                                bool
	realm, nonce, opaque, algorithm, qop string
	stale                                bool
}

// sipChallenged picks the challenge with the strongest hash that we know.
func sipChallenged(r *sipResponse) (*sipChallenge, error) {
	name := "www-authenticate"
	if r.status == 407 {
		name = "proxy-authenticate"
	}
	var best *sipChallenge
	for _, f := range r.fields {
		scheme, rest, _ := strings.Cut(f.value, " ")
		if f.name != name || !strings.EqualFold(scheme, "Digest") {
			continue
		}
		c := &sipChallenge{proxy: r.status == 407, algorithm: "MD5"}
		for _, p := range sipSplit(rest) {
			k, v, _ := strings.Cut(p, "=")
			c.set(strings.ToLower(strings.TrimSpace(k)), sipUnquote(strings.TrimSpace(v)))
		}
		known := c.algorithm == "MD5" || c.algorithm == "SHA-256"
		if known && (best == nil || best.algorithm == "MD5" && c.algorithm != "MD5") {
			best = c
		}
	}
	if best == nil {
		return nil, probe.Failf(wire.Denied, "the server wants a password, but not by Digest with MD5 or SHA-256: %.120q", r.get(name))
	}
	if best.nonce == "" || strings.ContainsAny(best.realm+best.nonce+best.opaque, "\"\\") {
		return nil, probe.Protocolf("a challenge that makes no sense: %.120q", r.get(name))
	}
	return best, nil
}

func (c *sipChallenge) set(name, value string) {
	switch name {
	case "realm":
		c.realm = value
	case "nonce":
		c.nonce = value
	case "opaque":
		c.opaque = value
	case "algorithm":
		c.algorithm = strings.ToUpper(value)
	case "stale":
		c.stale = strings.EqualFold(value, "true")
	case "qop":
		for _, q := range sipSplit(value) {
			if strings.EqualFold(q, "auth") {
				c.qop = "auth"
			}
		}
	}
}

func sipUnquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// answer makes the header field that proves the password. The nonce is used
// once.
func (c *sipChallenge) answer(user, password, method, uri, cnonce string) string {
	h := func(parts ...string) string {
		text := []byte(strings.Join(parts, ":"))
		if c.algorithm == "SHA-256" {
			sum := sha256.Sum256(text)
			return hex.EncodeToString(sum[:])
		}
		sum := md5.Sum(text)
		return hex.EncodeToString(sum[:])
	}
	const nc = "00000001"
	ha1, ha2 := h(user, c.realm, password), h(method, uri)
	name, response, more := "Authorization", h(ha1, c.nonce, ha2), ""
	if c.qop != "" {
		response = h(ha1, c.nonce, nc, cnonce, c.qop, ha2)
		more = fmt.Sprintf(", qop=%s, nc=%s, cnonce=%q", c.qop, nc, cnonce)
	}
	if c.opaque != "" {
		more += fmt.Sprintf(", opaque=\"%s\"", c.opaque)
	}
	if c.proxy {
		name = "Proxy-Authorization"
	}
	return fmt.Sprintf("%s: Digest username=\"%s\", realm=\"%s\", nonce=\"%s\", uri=\"%s\", response=\"%s\", algorithm=%s%s",
		name, user, c.realm, c.nonce, uri, response, c.algorithm, more)
}
