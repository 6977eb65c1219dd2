package route

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// usualPipe is what a pipe holds on Linux, see pipe(7).
const usualPipe = 64 << 10

// widen makes a pipe hold what is read at once, if it has the size that pipes
// have: who gave it another knew why. That it may not be so large is no harm.
func widen(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		if size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil && size == usualPipe {
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, readSize)
		}
	})
}

// newSource returns a reader of f from which nothing is lost between reading
// and accepting, and a word on why not where that can't be had. The input may
// begin with what an earlier run had accepted, n bytes with the checksum.
func newSource(f *os.File, n uint64, sum uint32) (source, string) {
	st, err := f.Stat()
	switch {
	case err != nil:
		return &plainSource{Reader: f}, err.Error()
	case st.Mode().IsRegular():
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return &plainSource{Reader: f}, err.Error()
		}
		return &fileSource{window: window{accepted: int(n), sum: sum}, f: f, at: at}, ""
	case st.Mode()&os.ModeDevice != 0: // /dev/null, a terminal
		return &plainSource{Reader: f}, ""
	case st.Mode()&os.ModeNamedPipe == 0:
		return &plainSource{Reader: f}, "standard input is neither a pipe nor a file"
	}
	s := &pipeSource{window: window{accepted: int(n), sum: sum}, fd: int(f.Fd())}
	if err := s.open(); err != nil {
		return &plainSource{Reader: f}, err.Error()
	}
	return s, ""
}

// A window is what has been handed to the reader of lines and still stands
// in the input.
type window struct {
	held     []byte
	whole    int    // bytes of it up to the end of its last line
	fresh    []byte // copied from the input, behind held, and not handed out
	accepted int    // what an earlier run had accepted, to be looked for at the start
	sum      uint32
	again    int  // bytes of fresh that it had accepted
	known    bool // what was handed out last was
}

// Input is what the lines since the last Read were made of.
func (w *window) Input() []byte { return w.held[:w.whole] }

// Known reports whether the lines since the last Read were accepted before.
func (w *window) Known() bool { return w.known }

// hand moves fresh bytes to the reader.
func (w *window) hand(p []byte) int {
	n := copy(p, w.fresh)
	if w.known = w.again > 0; w.known {
		n = min(n, w.again)
		w.again -= n
	}
	w.fresh = w.fresh[n:]
	w.held = append(w.held, p[:n]...)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		w.whole = len(w.held) - n + i + 1
	}
	return n
}

// recognize looks whether the input begins with what an earlier run had
// accepted and could not take off it any more.
func (w *window) recognize() {
	n := w.accepted
	w.accepted = 0
	if n > 0 && n <= len(w.fresh) && crc32.Checksum(w.fresh[:n], crc32.MakeTable(crc32.Castagnoli)) == w.sum {
		w.again = n
	}
}

// drop forgets the first n bytes of the window.
func (w *window) drop(n int) {
	w.held = w.held[:copy(w.held, w.held[n:])]
	w.whole = max(0, w.whole-n)
}

// A pipeSource reads a pipe with tee(2): it reads a copy, and takes from the
// pipe what has been accepted, and not before. A Read says that all lines of
// earlier ones have been.
type pipeSource struct {
	window
	fd   int
	r, w int // a pipe of our own, for the copy
	size int
	buf  []byte // the copy; fresh is a part of it
	bin  []byte // where what is taken off goes
}

func (s *pipeSource) open() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe2: %w", err)
	}
	s.r, s.w = p[0], p[1]
	return s.fit()
}

// fit makes our pipe and buffer as large as the one that we read.
func (s *pipeSource) fit() error {
	size, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return fmt.Errorf("F_GETPIPE_SZ: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(s.w), unix.F_SETPIPE_SZ, size); err != nil {
		return fmt.Errorf("F_SETPIPE_SZ: %w", err)
	}
	s.size, s.buf, s.bin = size, make([]byte, size), make([]byte, size)
	return nil
}

func (s *pipeSource) Read(p []byte) (int, error) {
	if err := s.take(s.whole); err != nil {
		return 0, err
	}
	for tries := 0; len(s.fresh) == 0; tries++ {
		if err := s.copy(tries); err != nil {
			if err == io.EOF {
				s.whole = len(s.held) // a last line without its end
			}
			return 0, err
		}
	}
	return s.hand(p), nil
}

// take takes n bytes off the pipe, which we have seen in it.
func (s *pipeSource) take(n int) error {
	for left := n; left > 0; {
		got, err := unix.Read(s.fd, s.bin[:min(left, len(s.bin))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if got == 0 {
			return errors.New("another process reads our standard input")
		}
		left -= got
	}
	s.drop(n)
	return nil
}

// copy copies what the pipe holds. Tries counts how often in a row nothing
// was there but the beginning of a line that we have seen.
func (s *pipeSource) copy(tries int) error {
	n, err := unix.Tee(s.fd, s.w, s.size, 0)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.EAGAIN):
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		return nil
	case err != nil:
		return os.NewSyscallError("tee", err)
	case n == 0:
		return io.EOF
	}
	for at := 0; at < int(n); {
		got, err := unix.Read(s.r, s.buf[at:n])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("read", err)
		}
		at += max(got, 0)
	}
	if len(s.held) > int(n) {
		return errors.New("another process reads our standard input")
	}
	s.fresh = s.buf[len(s.held):n]
	s.recognize()
	if len(s.fresh) > 0 {
		return nil
	}
	return s.unfinished(tries)
}

// patience is how often a line that is not complete is waited for, for
// stepMS each time, before it is taken for one that does not fit the pipe.
const (
	patience = 100
	stepMS   = 5
)

// unfinished waits for the rest of a line: tee can't wait for more than what
// is there.
func (s *pipeSource) unfinished(tries int) error {
	fds := []unix.PollFd{{Fd: int32(s.fd)}}
	if _, err := unix.Poll(fds, stepMS); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	left, err := unix.IoctlGetInt(s.fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return fmt.Errorf("FIONREAD: %w", err)
	}
	switch {
	case left > len(s.held):
		return nil
	case fds[0].Revents&unix.POLLHUP != 0:
		return io.EOF
	case len(s.held) < s.size && tries < patience:
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETPIPE_SZ, 2*s.size); err == nil {
		return s.fit()
	}
	return s.take(len(s.held)) // no pipe is large enough for this line
}

// A fileSource reads a file where it stands, and moves the offset that we
// share with whoever opened it behind what has been accepted.
type fileSource struct {
	window
	f  *os.File
	at int64 // of the window
}

func (s *fileSource) Read(p []byte) (int, error) {
	if err := s.take(s.whole); err != nil {
		return 0, err
	}
	n, err := s.f.ReadAt(p, s.at+int64(len(s.held)))
	if n == 0 {
		if err == io.EOF {
			s.whole = len(s.held)
		}
		return 0, err
	}
	s.fresh = p[:n]
	s.recognize()
	n = s.hand(p)
	s.fresh = nil
	return n, nil
}

func (s *fileSource) take(n int) error {
	if n == 0 {
		return nil
	}
	s.at += int64(n)
	s.drop(n)
	_, err := s.f.Seek(s.at, io.SeekStart)
	return err
}
