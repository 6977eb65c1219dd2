package route

import (
	"errors"

	"pup/cmd/internal/ndjson"
)

// A batch holds the lines that one read brought. They stand in the buffer of
// the reader, which reads on when the batch is given back.
type batch struct {
	lines []lineAt
	input []byte // what the lines were made of, where the source knows it
	known bool   // the lines were accepted by an earlier run
	end   error  // io.EOF or a read error, after the lines
}

// A lineAt is a line of a batch.
type lineAt struct {
	ndjson.Line
	json bool              // it can be passed on
	err  *ndjson.LineError // it can't be read, or is no result though it should be
}

// An intake reads lines in a goroutine of its own and hands them over in
// batches. It does not read on before a batch has been given back, so that
// what was read and not yet dealt with is bounded, and known.
type intake struct {
	batches chan *batch
	back    chan *batch
}

// readSize is how much is read at once, of a pipe that holds as much. Each
// batch wakes a thread or two, which costs as much as ten lines.
const readSize = 256 << 10

func newIntake(src source, maxLine int) *intake {
	in := &intake{batches: make(chan *batch), back: make(chan *batch, 1)}
	go in.run(src, ndjson.NewReaderSize(src, maxLine, readSize+4<<10)) // with room for the beginning of a line
	return in
}

func (in *intake) run(src source, r *ndjson.Reader) {
	for b := new(batch); ; b = <-in.back {
		b.fill(r)
		b.input, b.known = src.Input(), src.Known()
		if in.batches <- b; b.end != nil {
			return
		}
	}
}

// fill reads once, and takes all lines that there are.
func (b *batch) fill(r *ndjson.Reader) {
	for b.lines = b.lines[:0]; ; {
		line, err := r.Next()
		bad, ok := errors.AsType[*ndjson.LineError](err)
		switch {
		case ok:
			b.lines = append(b.lines, lineAt{Line: ndjson.Line{No: bad.No}, err: bad})
		case err != nil:
			b.end = err
			return
		default:
			b.lines = append(b.lines, lineAt{Line: line})
		}
		if !r.Buffered() {
			return
		}
	}
}
