package ndjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll gives the texts of all lines, errors as "!number".
func readAll(t testing.TB, r *Reader) []string {
	var got []string
	for {
		l, err := r.Next()
		le, bad := errors.AsType[*LineError](err)
		switch {
		case bad:
			got = append(got, fmt.Sprintf("!%d", le.No))
		case err == io.EOF:
			return got
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, fmt.Sprintf("%d:%s", l.No, l.Text))
		}
	}
}

// readBatches is readAll in batches.
func readBatches(t testing.TB, r *Reader, max int) []string {
	var got []string
	var lines []Line
	for {
		var err error
		if lines, err = r.AppendLines(lines[:0], max); len(lines) > max {
			t.Fatalf("got %d lines, want %d at most", len(lines), max)
		}
		for _, l := range lines {
			got = append(got, fmt.Sprintf("%d:%s", l.No, l.Text))
		}
		le, bad := errors.AsType[*LineError](err)
		switch {
		case bad:
			got = append(got, fmt.Sprintf("!%d", le.No))
		case err == io.EOF:
			return got
		case err != nil:
			t.Fatal(err)
		case len(lines) == 0:
			t.Fatal("got neither a line nor an error")
		}
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"two", "a\nb\n", []string{"1:a", "2:b"}},
		{"no line end", "a\nb", []string{"1:a", "2:b"}},
		{"CRLF, BOM, blank lines", "\xef\xbb\xbfa\r\n\r\n  \nb\r\n", []string{"1:a", "4:b"}},
		{"too long", "a\n" + long + "\nb\n", []string{"1:a", "!2", "3:b"}},
		{"too long at the end", "a\n" + long, []string{"1:a", "!2"}},
		{"as long as allowed", strings.Repeat("x", 100) + "\nb\n", []string{"1:" + strings.Repeat("x", 100), "2:b"}},
		{"one more", strings.Repeat("x", 101) + "\nb\n", []string{"!1", "2:b"}},
	} {
		for _, how := range []struct {
			name string
			r    io.Reader
		}{
			{"at once", strings.NewReader(tt.in)},
			{"byte by byte", iotest.OneByteReader(strings.NewReader(tt.in))},
			{"with error", iotest.DataErrReader(strings.NewReader(tt.in))},
		} {
			got := readAll(t, NewReader(how.r, 100))
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%s, %s: got %q, want %q", tt.name, how.name, got, tt.want)
			}
		}
	}
}

// A line longer than everything else costs no memory.
func TestReaderMemory(t *testing.T) {
	in := io.MultiReader(strings.NewReader("ok\n"), io.LimitReader(zeros{}, 64<<20), strings.NewReader("\nok2\n"))
	r := NewReader(in, MaxLine)
	if got := fmt.Sprint(readAll(t, r)); got != "[1:ok !2 3:ok2]" {
		t.Errorf("got %s", got)
	}
	if n := len(r.buf); n > 2*MaxLine {
		t.Errorf("the buffer has grown to %d bytes", n)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// FuzzReader compares with the obvious way to split.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n\xef\xbb\xbfc"), 3)
	f.Add([]byte(strings.Repeat("x", 300)+"\ny"), 7)
	f.Fuzz(func(t *testing.T, in []byte, chunk int) {
		const most = 64
		var want []string
		parts := bytes.Split(in, []byte("\n"))
		if len(parts[len(parts)-1]) == 0 {
			parts = parts[:len(parts)-1]
		}
		for i, p := range parts {
			if len(p) > most {
				want = append(want, fmt.Sprintf("!%d", i+1))
				continue
			}
			if i == 0 {
				p = bytes.TrimPrefix(p, bom)
			}
			if p = bytes.Trim(p, " \t\r"); len(p) > 0 {
				want = append(want, fmt.Sprintf("%d:%s", i+1, p))
			}
		}
		size := 1 + (chunk&0x7fff)%97
		got := readAll(t, NewReader(&chunks{in, size}, most))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if got := readBatches(t, NewReader(&chunks{in, size}, most), 1+size%5); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q in batches: got %q, want %q", in, got, want)
		}
	})
}

type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}

func TestWriter(t *testing.T) {
	var writes []string
	w := NewWriter(writerFunc(func(b []byte) (int, error) { writes = append(writes, string(b)); return len(b), nil }), 10)
	for _, l := range []string{"aaa", "bbb", "ccc", "a line that is longer than a write", "d"} {
		w.Add([]byte(l))
	}
	w.Flush()
	w.Flush()
	want := []string{"aaa\nbbb\n", "ccc\n", "a line that is longer than a write\n", "d\n"}
	if fmt.Sprintf("%q", writes) != fmt.Sprintf("%q", want) {
		t.Errorf("got %q, want %q", writes, want)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWriterError(t *testing.T) {
	n := 0
	full := errors.New("full")
	w := NewWriter(writerFunc(func([]byte) (int, error) { n++; return 0, full }), 4)
	for range 5 {
		if err := w.Add([]byte("abcdef")); err != full {
			t.Errorf("got %v, want the writer's error", err)
		}
	}
	if n != 1 {
		t.Errorf("wrote %d times after an error", n)
	}
}

func BenchmarkReader(b *testing.B) {
	line := strings.Repeat("x", 616) + "\n"
	in := strings.Repeat(line, 1000)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(strings.NewReader(in), MaxLine)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}
