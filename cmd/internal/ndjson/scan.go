package ndjson

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 64

var (
	errNotObject = errors.New("not a JSON object")
	errDepth     = fmt.Errorf("nested deeper than %d", MaxDepth)
	errUTF8      = errors.New("not valid UTF-8")
)

// Members calls f for each member of the object in text, with the key
// unescaped and the value as it stands there. All of text is checked in the
// same pass, against RFC 8259 and for valid UTF-8, nesting deeper than
// MaxDepth, and keys of the outer object that come twice; an error ends the
// walk, after f may have been called. The error of f ends it as well.
func Members(text []byte, f func(key, value []byte) error) error {
	s := scanner{b: text}
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != '{' {
		if err := Valid(text); err != nil {
			return err
		}
		return errNotObject
	}
	if err := s.object(1, f); err != nil {
		return err
	}
	return s.end()
}

// Valid checks that text is one JSON value, with the same rules as Members.
func Valid(text []byte) error {
	s := scanner{b: text}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	return s.end()
}

// Elements calls f for each element of the array in text, like Members.
func Elements(text []byte, f func(value []byte) error) error {
	s := scanner{b: text}
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != '[' {
		return errors.New("not a JSON array")
	}
	if err := s.array(1, f); err != nil {
		return err
	}
	return s.end()
}

type scanner struct {
	b []byte
	i int
}

func (s *scanner) fail() error {
	if s.i >= len(s.b) {
		return errors.New("JSON ends too early")
	}
	r, _ := utf8.DecodeRune(s.b[s.i:])
	return fmt.Errorf("unexpected %q at byte %d", r, s.i)
}

func (s *scanner) end() error {
	if s.space(); s.i < len(s.b) {
		return s.fail()
	}
	return nil
}

// space steps over white space. Mostly there is none, and that is told inline.
func (s *scanner) space() {
	if s.i >= len(s.b) || s.b[s.i] <= ' ' {
		s.skip()
	}
}

func (s *scanner) skip() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// value steps over the value that begins here.
func (s *scanner) value(depth int) error {
	if s.i >= len(s.b) {
		return s.fail()
	}
	switch c := s.b[s.i]; {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(depth+1, nil)
	case c == '[':
		return s.array(depth+1, nil)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return s.fail()
}

// object steps over an object, and calls f, unless that is nil, for its
// members.
func (s *scanner) object(depth int, f func(key, value []byte) error) error {
	if depth > MaxDepth {
		return errDepth
	}
	if f != nil {
		return s.members(depth, f)
	}
	for first := true; ; first = false {
		if !s.comma('}') {
			if more, err := s.next(first, '}'); !more {
				return err
			}
		}
		if _, _, err := s.key(); err != nil {
			return err
		}
		if err := s.value(depth); err != nil {
			return err
		}
	}
}

func (s *scanner) members(depth int, f func(key, value []byte) error) error {
	var seen keySet
	for first := true; ; first = false {
		if !s.comma('}') {
			if more, err := s.next(first, '}'); !more {
				return err
			}
		}
		key, plain, err := s.key()
		if err != nil {
			return err
		}
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if !plain {
			var k string
			if err := json.Unmarshal(key, &k); err != nil {
				return err
			}
			key = []byte(k)
		} else {
			key = key[1 : len(key)-1]
		}
		if !seen.add(key) {
			return fmt.Errorf("key %.80q comes twice", key)
		}
		if err := f(key, s.b[start:s.i]); err != nil {
			return err
		}
	}
}

// key steps over a key and its colon, to the value. It gives the key with its
// quotes.
func (s *scanner) key() (key []byte, plain bool, err error) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, false, s.fail()
	}
	start := s.i
	if plain, err = s.str(); err != nil {
		return nil, false, err
	}
	key = s.b[start:s.i]
	if s.space(); s.i >= len(s.b) || s.b[s.i] != ':' {
		return nil, false, s.fail()
	}
	s.i++
	s.space()
	return key, plain, nil
}

func (s *scanner) array(depth int, f func(value []byte) error) error {
	if depth > MaxDepth {
		return errDepth
	}
	for first := true; ; first = false {
		if !s.comma(']') {
			if more, err := s.next(first, ']'); !more {
				return err
			}
		}
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if f != nil {
			if err := f(s.b[start:s.i]); err != nil {
				return err
			}
		}
	}
}

// comma moves to the next element where nothing but a comma stands before it,
// as it does in lines that programs write.
func (s *scanner) comma(end byte) bool {
	i := s.i + 1
	if i >= len(s.b) || s.b[i-1] != ',' || s.b[i] <= ' ' || s.b[i] == end {
		return false
	}
	s.i = i
	return true
}

// next moves to the next element of an array or object, or behind its end.
func (s *scanner) next(first bool, end byte) (more bool, err error) {
	if first {
		s.i++ // the opening bracket
	}
	s.space()
	if s.i >= len(s.b) {
		return false, s.fail()
	}
	switch {
	case s.b[s.i] == end:
		s.i++
		return false, nil
	case first:
		return true, nil
	case s.b[s.i] != ',':
		return false, s.fail()
	}
	s.i++
	if s.space(); s.i < len(s.b) && s.b[s.i] == end {
		return false, s.fail() // a comma before the end
	}
	return true, nil
}

const ones, highs = 0x0101010101010101, 0x8080808080808080

// special marks, by the high bit of each byte of w, those that need a closer
// look in a string: controls, quotes, backslashes, and whatever is not ASCII.
// A mark above the lowest may be false. The quote is 0x22: with its second bit
// flipped it comes right behind the controls, and one comparison finds both.
func special(w uint64) uint64 {
	return (w | (w ^ ones*2 - ones*0x21) | (w ^ ones*'\\' - ones)) & highs
}

// ordinary gives the index of the quote that ends the string whose first byte
// is at i, or of the first byte that needs a closer look: a control, a
// backslash, one that is not ASCII, or one of the last seven of b.
func ordinary(b []byte, i int) int {
	for i+8 <= len(b) {
		if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	return i
}

// str steps over a string, and says whether it is free of escapes.
func (s *scanner) str() (plain bool, err error) {
	i := ordinary(s.b, s.i+1)
	if i < len(s.b) && s.b[i] == '"' {
		s.i = i + 1
		return true, nil
	}
	return s.rest(i)
}

// rest steps over what is left of a string from i on.
func (s *scanner) rest(i int) (plain bool, err error) {
	plain = true
	b := s.b
	for {
		if s.i = i; i >= len(b) {
			return plain, s.fail()
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return plain, nil
		case c == '\\':
			plain = false
			n := escape(b[i:])
			if n == 0 {
				return plain, fmt.Errorf("bad escape at byte %d", i)
			}
			i = ordinary(b, i+n)
		case c < 0x20:
			return plain, fmt.Errorf("raw control character %q in a string at byte %d", c, i)
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				return plain, fmt.Errorf("%w at byte %d", errUTF8, i)
			}
			i = ordinary(b, i+n)
		}
	}
}

// escape gives the length of the escape sequence that b begins with, or 0.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) literal(word string) error {
	for j := range len(word) {
		if s.i >= len(s.b) || s.b[s.i] != word[j] {
			return s.fail()
		}
		s.i++
	}
	return nil
}

func (s *scanner) number() error {
	b, i := s.b, s.i
	if b[i] == '-' {
		i++
	}
	whole := digits(b, i)
	if whole > i+1 && b[i] == '0' {
		whole = i + 1 // what follows is no part of it
	}
	if s.i = whole; whole == i {
		return s.fail()
	}
	if i = whole; i < len(b) && b[i] == '.' {
		i++
		if s.i = digits(b, i); s.i == i {
			return s.fail()
		}
		i = s.i
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if s.i = digits(b, i); s.i == i {
			return s.fail()
		}
	}
	return nil
}

// digits gives the index of the first byte from i on that is no digit.
func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// A keySet finds keys that come twice. Up to a handful it compares those that
// may be the same, beyond that it keeps a map, so that an object with many keys
// costs no square.
type keySet struct {
	few  [24][]byte
	n    int
	some [4]uint64 // a bit for each kind of key there is
	many map[string]bool
}

func (k *keySet) add(key []byte) bool {
	if k.many != nil {
		if k.many[string(key)] {
			return false
		}
		k.many[string(key)] = true
		return true
	}
	kind := uint8(len(key))
	if len(key) > 0 {
		kind += key[0]*7 + key[len(key)-1]*31
	}
	if word, bit := &k.some[kind>>6], uint64(1)<<(kind&63); *word&bit == 0 {
		*word |= bit
	} else {
		for _, have := range k.few[:k.n] {
			if string(have) == string(key) {
				return false
			}
		}
	}
	if k.n < len(k.few) {
		k.few[k.n] = key
		k.n++
		return true
	}
	k.many = map[string]bool{string(key): true}
	for _, have := range k.few {
		k.many[string(have)] = true
	}
	return true
}
