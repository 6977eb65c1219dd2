package ndjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"pup/cmd/internal/wire"
)

const hex = "0123456789abcdef"

// AppendString appends s as a JSON string. What could act on a terminal or
// deceive a reader is escaped: C0 and C1 controls, DEL, bidirectional marks,
// zero-width and tag characters, line and paragraph separators. Invalid UTF-8
// becomes U+FFFD. There is no HTML escaping.
func AppendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && 0x20 <= s[i] && s[i] < 0x7f && s[i] != '"' && s[i] != '\\' {
			i++ // nearly always up to the end
		}
		if dst = append(dst, s[start:i]...); i == len(s) {
			break
		}
		c := s[i]
		if c < utf8.RuneSelf {
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = appendEscape(dst, rune(c))
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
		switch {
		case unsafeRune(r):
			dst = appendEscape(dst, r)
		case r == utf8.RuneError:
			dst = append(dst, "\ufffd"...)
		default:
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return append(dst, '"')
}

func unsafeRune(r rune) bool {
	switch {
	case 0x80 <= r && r <= 0x9f, r == 0xad, r == 0x61c, r == 0x180e,
		0x200b <= r && r <= 0x200f, 0x2028 <= r && r <= 0x202e,
		0x2060 <= r && r <= 0x206f, r == 0xfeff, 0xfff9 <= r && r <= 0xfffb,
		0xe0000 <= r && r <= 0xe007f:
		return true
	}
	return false
}

func appendEscape(dst []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		dst = appendEscape(dst, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// Printable gives s as AppendString writes it, without the quotes: text from
// strangers for a terminal or a log.
func Printable(s string) string {
	b := AppendString(nil, s)
	b = b[1 : len(b)-1]
	return string(bytes.ReplaceAll(b, []byte(`\"`), []byte(`"`)))
}

// Cut shortens s to at most n bytes, at the border of a character, and marks
// the cut with "…".
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(0, n-len("…"))
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// Unquote gives the text of a JSON string.
func Unquote(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", errors.New("not a string")
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), nil
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err
}

// Splice appends object to dst with one more member before its closing
// brace. All else stays as it is, byte for byte. The object must be valid.
func Splice(dst, object []byte, key string, value []byte) []byte {
	end := bytes.LastIndexByte(object, '}')
	head := bytes.TrimRight(object[:end], " \t\r\n")
	dst = append(dst, head...)
	if head[len(head)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = AppendString(dst, key)
	dst = append(dst, ':')
	dst = append(dst, value...)
	return append(dst, object[end:]...)
}

// AppendError appends a line of type error that stands in the place of an
// input line: who could not read it, its number, what is wrong, how it begins.
func AppendError(dst []byte, program string, e *LineError) []byte {
	dst = append(dst, `{"v":1,"type":"`+wire.TypeError+`","program":`...)
	dst = AppendString(dst, program)
	dst = append(dst, `,"error":`...)
	dst = AppendString(dst, Cut(e.Err.Error(), 512))
	dst = append(dst, `,"line_no":`...)
	dst = strconv.AppendInt(dst, int64(e.No), 10)
	dst = append(dst, `,"line":`...)
	dst = AppendString(dst, Cut(string(e.Line[:min(len(e.Line), 1024)]), 256))
	return append(dst, '}')
}
