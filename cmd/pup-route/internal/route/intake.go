package route

import (
	"errors"

	"pup/cmd/internal/ndjson"
)

// A batch holds the lines that one read brought.
type batch struct {
	buf   []byte
	lines []lineAt
	input []byte // what the lines were made of, where the source knows it
	known bool   // the lines were accepted by an earlier run
	end   error  // io.EOF or a read error, after the lines
}

// A lineAt is a line of a batch.
type lineAt struct {
	no         int
	raw, until int // in buf, as are the ends of its text
	text, end  int
	json       bool              // it can be passed on
	err        *ndjson.LineError // it can't be read, or is no result though it should be
}

func (b *batch) raw(l *lineAt) []byte  { return b.buf[l.raw:l.until] }
func (b *batch) text(l *lineAt) []byte { return b.buf[l.text:l.end] }

// An intake reads lines in a goroutine of its own and hands them over in
// batches. It does not read on before a batch has been given back, so that
// what was read and not yet dealt with is bounded, and known.
type intake struct {
	batches chan *batch
	back    chan *batch
}

func newIntake(src source, maxLine int) *intake {
	in := &intake{batches: make(chan *batch), back: make(chan *batch, 1)}
	in.back <- &batch{}
	go in.run(src, ndjson.NewReader(src, maxLine))
	return in
}

func (in *intake) run(src source, r *ndjson.Reader) {
	b := <-in.back
	for b.end == nil {
		b.add(r)
		if b.end != nil || !r.Buffered() {
			b.input, b.known = src.Input(), src.Known()
			in.batches <- b
			if b.end == nil {
				b = <-in.back
				b.buf, b.lines = b.buf[:0], b.lines[:0]
			}
		}
	}
}

// add reads one line.
func (b *batch) add(r *ndjson.Reader) {
	line, err := r.Next()
	if err != nil {
		if bad, ok := errors.AsType[*ndjson.LineError](err); ok {
			b.lines = append(b.lines, lineAt{no: bad.No, err: bad})
		} else {
			b.end = err
		}
		return
	}
	l := lineAt{no: line.No, raw: len(b.buf)}
	b.buf = append(b.buf, line.Raw...)
	l.until = len(b.buf)
	// Text is a part of Raw: what was cut off its ends tells where.
	l.text = l.raw + cap(line.Raw) - cap(line.Text)
	l.end = l.text + len(line.Text)
	b.lines = append(b.lines, l)
}
