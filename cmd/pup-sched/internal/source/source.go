// Package source asks the programs and files that targets come from.
package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-sched/internal/config"
)

// maxOutput bounds what a source may print, in bytes.
const maxOutput = 256 << 20

// A Memory keeps what each source has printed last.
type Memory struct {
	mu   sync.Mutex
	kept map[string]answer
}

// An answer is what a source has printed, or why it could not, if it never
// could.
type answer struct {
	out []byte
	err error
	at  time.Time // when it was last asked
}

// NewMemory makes an empty Memory.
func NewMemory() *Memory { return &Memory{kept: map[string]answer{}} }

// Fetch gives what the source has printed last. The first time, it is asked.
func (m *Memory) Fetch(ctx context.Context, s *config.Source) ([]byte, error) {
	m.mu.Lock()
	a, ok := m.kept[id(s)]
	m.mu.Unlock()
	if ok {
		return a.out, a.err
	}
	a.out, a.err = ask(ctx, s)
	a.at = time.Now()
	m.mu.Lock()
	m.kept[id(s)] = a
	m.mu.Unlock()
	return a.out, a.err
}

// Wait gives the time until the source is to be asked again.
func (m *Memory) Wait(s *config.Source) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, s.Refresh-time.Since(m.kept[id(s)].at))
}

// Refresh asks the source again, and says whether it has printed something
// else. When it fails, what it printed before is kept.
func (m *Memory) Refresh(ctx context.Context, s *config.Source) (changed bool, err error) {
	out, err := ask(ctx, s)
	m.mu.Lock()
	defer m.mu.Unlock()
	a, known := m.kept[id(s)]
	a.at = time.Now()
	if err == nil {
		changed = !known || a.err != nil || !bytes.Equal(a.out, out)
		a.out, a.err = out, nil
	} else if !known {
		a.err = err
	}
	m.kept[id(s)] = a
	return changed, err
}

// id tells sources apart: one that has changed is another.
func id(s *config.Source) string {
	return fmt.Sprintf("%q %q %q", s.Command, s.File, s.Dir)
}

// ask runs the program of a source or reads its file.
func ask(ctx context.Context, s *config.Source) ([]byte, error) {
	if s.File != "" {
		f, err := os.Open(s.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return bounded(f)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	argv := s.Command
	if strings.ContainsRune(argv[0], filepath.Separator) && !filepath.IsAbs(argv[0]) {
		abs, err := filepath.Abs(filepath.Join(s.Dir, argv[0]))
		if err != nil {
			return nil, err
		}
		argv = append([]string{abs}, argv[1:]...)
	}
	var out, said limited
	out.room, said.room = maxOutput+1, 1024
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, &out, &said
	group(cmd)
	cmd.WaitDelay = time.Second // for children that keep our pipe open
	err := cmd.Run()
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return nil, fmt.Errorf("%s took longer than %s", argv[0], s.Timeout)
	case err != nil && said.buf.Len() > 0:
		return nil, fmt.Errorf("%s: %w: %s", argv[0], err, ndjson.Printable(strings.TrimSpace(said.buf.String())))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	case out.buf.Len() > maxOutput:
		return nil, errTooMuch
	}
	return out.buf.Bytes(), nil
}

var errTooMuch = errors.New("prints more than 256 MiB")

func bounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxOutput+1))
	if err == nil && len(b) > maxOutput {
		err = errTooMuch
	}
	return b, err
}

// A limited buffer takes what there is room for and drops the rest.
type limited struct {
	buf  bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	l.buf.Write(p[:min(len(p), max(0, l.room-l.buf.Len()))])
	return len(p), nil
}
