package route

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"pup/cmd/internal/ndjson"
)

// A log writes to people, each line with our name before it.
type log struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *log) printf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "pup-route: %s\n", strings.ReplaceAll(text, "\n", "\npup-route: "))
}

// output copies what a hook printed, escaped, with its name before each line.
func (l *log) output(hook, name string, out []byte) {
	if len(out) == 0 {
		return
	}
	prefix := "hook " + hook
	if name != "" {
		prefix += " for " + ndjson.Printable(ndjson.Cut(name, 100))
	}
	for line := range bytes.Lines(out) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			l.printf("%s: %s", prefix, ndjson.Printable(string(line)))
		}
	}
}
