// Package ndjson reads and writes newline-delimited JSON, and looks into a
// line without decoding all of it.
package ndjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxLine is the usual bound on the length of a line that is read.
const MaxLine = 1 << 20

// ErrTooLong says that a line is longer than the reader's bound.
var ErrTooLong = errors.New("line too long")

// A LineError is a line that can't be used. Reading may go on after it.
type LineError struct {
	No   int    // number of the line, from 1
	Line []byte // how it begins
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.No, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// A Line is one line of input. Its bytes are valid until the next call of
// Next.
type Line struct {
	No   int    // number of the line, from 1
	Raw  []byte // as it was read, without the newline
	Text []byte // without byte order mark, carriage return and outer blanks
}

// A Reader splits its input into lines. Memory is bounded by the longest line
// allowed; a longer one is dropped whole and reading goes on behind it.
type Reader struct {
	r        io.Reader
	buf      []byte
	pos, end int // unread bytes are buf[pos:end]
	scanned  int // of these, buf[pos:scanned] hold no newline
	no       int
	max      int
	size     int   // of buf at first
	err      error // what ended the input
}

// NewReader returns a Reader of r whose lines have at most max bytes. It reads
// 64 KiB at a time, as much as a pipe holds.
func NewReader(r io.Reader, max int) *Reader { return NewReaderSize(r, max, 64<<10) }

// NewReaderSize is NewReader with a buffer of so many bytes, unless a line
// needs more.
func NewReaderSize(r io.Reader, max, size int) *Reader {
	return &Reader{r: r, max: max, size: size}
}

// Buffered says whether Next would return without reading.
func (r *Reader) Buffered() bool { return r.err != nil || r.ended() }

// ended looks for the end of the line at pos, and moves scanned up to it.
func (r *Reader) ended() bool {
	i := bytes.IndexByte(r.buf[r.scanned:r.end], '\n')
	if i < 0 {
		r.scanned = r.end
		return false
	}
	r.scanned += i
	return true
}

var bom = []byte("\xef\xbb\xbf")

// Next returns the next line that is not blank. A last line without a newline
// counts. It returns a *LineError for a line that is too long, io.EOF at the
// end, and any other error of the underlying reader.
func (r *Reader) Next() (Line, error) {
	for {
		raw, err := r.line()
		if err != nil {
			return Line{}, err
		}
		if l := r.trim(raw); len(l.Text) > 0 {
			return l, nil
		}
	}
}

// AppendLines appends to dst what Next returns and those of up to max lines
// that have been read already. It returns lines and an error where the error
// came behind the lines. All stay valid as long as the next call need not
// read, which Buffered tells.
func (r *Reader) AppendLines(dst []Line, max int) ([]Line, error) {
	l, err := r.Next()
	for err == nil {
		if len(l.Text) > 0 {
			dst = append(dst, l)
		}
		if len(dst) >= max || !r.Buffered() {
			break
		}
		var raw []byte
		if raw, err = r.line(); err == nil {
			l = r.trim(raw)
		}
	}
	return dst, err
}

func (r *Reader) trim(raw []byte) Line {
	r.no++
	text := raw
	if r.no == 1 {
		text = bytes.TrimPrefix(text, bom)
	}
	return Line{No: r.no, Raw: raw, Text: bytes.Trim(text, " \t\r")}
}

func (r *Reader) line() ([]byte, error) {
	for {
		if r.ended() {
			line := r.buf[r.pos:r.scanned]
			r.scanned++
			r.pos = r.scanned
			if len(line) > r.max {
				return nil, r.tooLong(line)
			}
			return line, nil
		}
		if r.end-r.pos > r.max {
			return nil, r.skip()
		}
		if r.err != nil {
			line := r.buf[r.pos:r.end]
			r.pos, r.scanned = r.end, r.end
			if len(line) > 0 {
				return line, nil
			}
			return nil, r.err
		}
		r.fill()
	}
}

// skip drops the rest of a line that has outgrown the bound.
func (r *Reader) skip() error {
	err := r.tooLong(r.buf[r.pos:r.end])
	for {
		r.pos, r.end, r.scanned = 0, 0, 0
		if r.err != nil {
			return err
		}
		r.fill()
		if i := bytes.IndexByte(r.buf[:r.end], '\n'); i >= 0 {
			r.pos, r.scanned = i+1, i+1
			return err
		}
	}
}

func (r *Reader) tooLong(line []byte) error {
	r.no++
	return &LineError{r.no, bytes.Clone(line[:min(len(line), 256)]), fmt.Errorf("%w: more than %d bytes", ErrTooLong, r.max)}
}

// fill reads once, after making room.
func (r *Reader) fill() {
	if r.pos > 0 {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.scanned -= r.pos
		r.pos = 0
	}
	if r.end == len(r.buf) {
		buf := make([]byte, min(max(2*len(r.buf), r.size), r.max+r.size))
		copy(buf, r.buf[:r.end])
		r.buf = buf
	}
	for range 100 {
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.err = err
			return
		}
		if n > 0 {
			return
		}
	}
	r.err = io.ErrNoProgress
}
