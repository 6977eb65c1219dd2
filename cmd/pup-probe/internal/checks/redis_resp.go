package checks

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// Bounds on a reply.
const (
	redisMaxBulk  = 1 << 20 // bytes of a string
	redisMaxItems = 16384   // elements in all
	redisMaxDepth = 8
)

// A redisReply is a reply in RESP2 or RESP3
// (https://redis.io/docs/latest/develop/reference/protocol-spec).
type redisReply struct {
	kind  byte // of the wire: '+' '-' ':' '$' '*' and so on
	text  string
	items []redisReply // of maps, keys and values in turn
	null  bool
}

// redisReader is what a reply is read from.
type redisReader interface {
	Line() (string, error)
	Full([]byte) error
}

// redisRead reads a reply. Attributes and push messages of RESP3 are passed
// over.
func redisRead(r redisReader) (redisReply, error) {
	left := redisMaxItems
	for {
		v, err := redisValue(r, redisMaxDepth, &left)
		if err != nil || v.kind != '|' && v.kind != '>' {
			return v, err
		}
	}
}

func redisValue(r redisReader, depth int, left *int) (v redisReply, err error) {
	if *left--; *left < 0 || depth == 0 {
		return v, probe.Failf(wire.TooLarge, "the reply has too many elements, or nests too deep")
	}
	line, err := r.Line()
	if err != nil {
		return v, err
	}
	if line == "" {
		return v, probe.Protocolf("got an empty line, want a reply")
	}
	v.kind, v.text = line[0], line[1:]
	switch v.kind {
	case '+', '-', ':', ',', '#', '(':
		return v, nil
	case '_':
		v.null = true
		return v, nil
	case '$', '!', '=':
		return redisBulk(r, v)
	case '*', '~', '>', '%', '|':
		return redisAggregate(r, v, depth, left)
	}
	return v, probe.Protocolf("got %.80q, want a reply", line)
}

func redisBulk(r redisReader, v redisReply) (redisReply, error) {
	n, err := redisLength(v.text, redisMaxBulk)
	if err != nil {
		return v, err
	}
	if n < 0 {
		v.null, v.text = true, ""
		return v, nil
	}
	b := make([]byte, n+2)
	if err := r.Full(b); err != nil {
		return v, redisCut(err)
	}
	if b[n] != '\r' || b[n+1] != '\n' {
		return v, probe.Protocolf("got %q behind a string of %d bytes, want a line end", b[n:], n)
	}
	v.text = string(b[:n])
	switch v.kind {
	case '!':
		v.kind = '-'
	case '=':
		v.text = v.text[min(n, 4):] // the format, such as "txt:"
	}
	return v, nil
}

func redisAggregate(r redisReader, v redisReply, depth int, left *int) (redisReply, error) {
	n, err := redisLength(v.text, redisMaxItems)
	if err != nil {
		return v, err
	}
	v.text = ""
	if n < 0 {
		v.null = true
		return v, nil
	}
	if v.kind == '%' || v.kind == '|' {
		n *= 2
	}
	for range n {
		item, err := redisValue(r, depth-1, left)
		if err != nil {
			return v, redisCut(err)
		}
		v.items = append(v.items, item)
	}
	return v, nil
}

// redisCut is the error of an end within a reply.
func redisCut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func redisLength(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil || n < -1:
		return 0, probe.Protocolf("got the length %.40q", s)
	case n > most:
		return 0, probe.Failf(wire.TooLarge, "the reply has a length of %d, more than %d", n, most)
	}
	return n, nil
}

// redisAppend appends a command, as an array of strings.
func redisAppend(dst []byte, args ...string) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	for _, a := range args {
		dst = append(dst, "\r\n$"...)
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, "\r\n"...)
		dst = append(dst, a...)
	}
	return append(dst, "\r\n"...)
}

// redisReasons are what the first word of an error tells; others mean that
// the command was not understood.
var redisReasons = map[string]wire.Reason{
	"NOAUTH": wire.Denied, "WRONGPASS": wire.Denied, "NOPERM": wire.Denied, "DENIED": wire.Denied,
	"LOADING": wire.Unavailable, "MASTERDOWN": wire.Unavailable, "BUSY": wire.Unavailable, "CLUSTERDOWN": wire.Unavailable,
	"MISCONF": wire.Unavailable, "OOM": wire.Unavailable, "READONLY": wire.Unavailable, "NOREPLICAS": wire.Unavailable,
	"TRYAGAIN": wire.Unavailable, "UNKILLABLE": wire.Unavailable, "NOQUORUM": wire.Unavailable,
}

// redisError gives the error that a reply to a command is, or nil.
func redisError(command string, v redisReply) error {
	if v.kind != '-' {
		return nil
	}
	word, rest, _ := strings.Cut(v.text, " ")
	reason, known := redisReasons[word]
	switch low := strings.ToLower(rest); {
	case known:
	case word != "ERR":
		reason = wire.Mismatch
	case strings.Contains(low, "max number of clients"), strings.Contains(low, "max clients"):
		reason = wire.Unavailable
	case command == "AUTH" || strings.Contains(low, "password") || strings.Contains(low, "auth"):
		reason = wire.Denied
	case command == "PING":
		reason = wire.BadProtocol
	default:
		reason = wire.Mismatch
	}
	return probe.Failf(reason, "%s: got %.120q", command, v.text)
}
