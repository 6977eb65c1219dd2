package checks

import (
	"bytes"
	"math/big"
	"strconv"

	"pup/cmd/pup-probe/internal/probe"
)

// Bounds of a reply. INFO has some 6 KiB, and a few hundred bytes more for
// each replica or database.
const (
	redisMaxBytes  = 1 << 20 // of all strings in it
	redisMaxValues = 1 << 14
	redisMaxDepth  = 8
)

// A redisValue is a reply of RESP2 or RESP3.
type redisValue struct {
	kind byte         // the character that announces it: + - : $ * _ # , ( = % ~ ! >
	null bool         // the null of either protocol
	text []byte       // of what is no list: as it came
	list []redisValue // of what is; a map has keys and values in turn
}

// isString says whether the value is text in one of its forms.
func (v *redisValue) isString() bool {
	return !v.null && (v.kind == '+' || v.kind == '$' || v.kind == '=')
}

func (v *redisValue) isError() bool { return v.kind == '-' || v.kind == '!' }

// integer gives the value of a number, also where an old server sends it as
// text.
func (v *redisValue) integer() (int64, bool) {
	n, err := strconv.ParseInt(string(v.text), 10, 64)
	return n, err == nil && (v.kind == ':' || v.isString())
}

// show is the value for people, in an error.
func (v *redisValue) show() string {
	switch {
	case v.null:
		return "null"
	case v.list != nil:
		return "a list"
	}
	return string(v.kind) + string(v.text[:min(len(v.text), 200)])
}

// A redisSource is what replies are read from: a probe.Conn.
type redisSource interface {
	Line() (string, error)
	Full(b []byte) error
}

// A redisReader reads one reply.
type redisReader struct {
	src    redisSource
	bytes  int // what it may still have
	values int
}

// redisRead reads the next reply. What the server pushes in between, and the
// attributes of replies (RESP3), are dropped.
func redisRead(src redisSource) (redisValue, error) {
	r := redisReader{src, redisMaxBytes, redisMaxValues}
	for {
		v, err := r.value(0)
		if err != nil || v.kind != '>' {
			return v, err
		}
	}
}

func (r *redisReader) value(depth int) (redisValue, error) {
	line, err := r.src.Line()
	if err != nil {
		return redisValue{}, err
	}
	if r.values--; r.values < 0 || depth > redisMaxDepth {
		return redisValue{}, probe.Protocolf("a reply of more than %d values, or nested deeper than %d", redisMaxValues, redisMaxDepth)
	}
	if line == "" {
		return redisValue{}, probe.Protocolf("got an empty line, want a reply of RESP")
	}
	v := redisValue{kind: line[0]}
	rest := line[1:]
	switch v.kind {
	case '+', '-', ':', ',', '(', '#', '_':
		v.text, v.null = []byte(rest), v.kind == '_'
		if !redisScalar(v.kind, rest) {
			return redisValue{}, probe.Protocolf("got %.80q, want a reply of RESP", line)
		}
	case '$', '=', '!':
		err = r.bulk(&v, rest)
	case '*', '~', '>', '%', '|':
		err = r.aggregate(&v, rest, depth)
		if err == nil && v.kind == '|' { // attributes of the reply that follows
			return r.value(depth + 1)
		}
	default:
		return redisValue{}, probe.Protocolf("got %.80q, want a reply of RESP", line)
	}
	return v, err
}

// redisScalar says whether text is what the kind announces.
func redisScalar(kind byte, text string) bool {
	var err error
	switch kind {
	case ':':
		_, err = strconv.ParseInt(text, 10, 64)
	case ',':
		_, err = strconv.ParseFloat(text, 64)
	case '(':
		if len(text) > 400 {
			return false
		}
		_, ok := new(big.Int).SetString(text, 10)
		return ok
	case '#':
		return text == "t" || text == "f"
	case '_':
		return text == ""
	}
	return err == nil
}

// redisLength reads the length of a string or list; -1 is the null of RESP2.
func redisLength(text string) (int, bool) {
	if text == "-1" {
		return -1, true
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err == nil
}

func (r *redisReader) bulk(v *redisValue, length string) error {
	n, ok := redisLength(length)
	switch {
	case !ok || n < 0 && v.kind != '$':
		return probe.Protocolf("got %c%.80q, want the length of a string", v.kind, length)
	case n < 0:
		v.null = true
		return nil
	case n > r.bytes:
		return probe.Protocolf("a reply of more than %d bytes", redisMaxBytes)
	}
	r.bytes -= n
	b := make([]byte, n+2)
	if err := r.src.Full(b); err != nil {
		return err
	}
	text, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if ok && v.kind == '=' { // "txt:" or "mkd:" stands before it
		ok = len(text) >= 4 && text[3] == ':'
		text = text[min(4, len(text)):]
	}
	if !ok {
		return probe.Protocolf("a string of %d bytes is not ended by CRLF, or has no format", n)
	}
	v.text = text
	return nil
}

func (r *redisReader) aggregate(v *redisValue, count string, depth int) error {
	n, ok := redisLength(count)
	switch {
	case !ok || n < 0 && v.kind != '*':
		return probe.Protocolf("got %c%.80q, want the length of a list", v.kind, count)
	case n < 0:
		v.null = true
		return nil
	}
	if v.kind == '%' || v.kind == '|' {
		n *= 2
	}
	v.list = []redisValue{}
	for range n { // no memory ahead of what has really come
		e, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		v.list = append(v.list, e)
	}
	return nil
}

// redisAppend appends a command, as a list of strings.
func redisAppend(dst []byte, args ...string) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	dst = append(dst, "\r\n"...)
	for _, a := range args {
		dst = append(dst, '$')
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, "\r\n"...)
		dst = append(dst, a...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
