package ndjson

import "io"

// MaxWrite is PIPE_BUF on Linux: a write of up to so many bytes to a pipe is
// not mixed with those of other writers.
const MaxWrite = 4096

// A Writer gathers lines and writes them whole: a write never holds a part of
// a line, nor more than the bound, unless a single line is longer than that.
// It is not for concurrent use.
type Writer struct {
	w   io.Writer
	buf []byte
	max int
	err error
}

// NewWriter returns a Writer to w with writes of at most max bytes.
func NewWriter(w io.Writer, max int) *Writer { return &Writer{w: w, max: max} }

// Add takes a line, without its newline. The line is written when the next
// one does not fit beside it, or by Flush.
func (w *Writer) Add(line []byte) error {
	if len(w.buf) > 0 && len(w.buf)+len(line)+1 > w.max {
		w.Flush()
	}
	w.buf = append(append(w.buf, line...), '\n')
	if len(w.buf) >= w.max {
		w.Flush()
	}
	return w.err
}

// Flush writes what has been gathered. Call it before waiting for anything.
// The first error is kept, and later lines are dropped.
func (w *Writer) Flush() error {
	if len(w.buf) > 0 && w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > 16*w.max {
		w.buf = nil
	}
	return w.err
}
