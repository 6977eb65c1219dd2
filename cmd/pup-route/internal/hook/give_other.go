//go:build unix && !linux

package hook

import (
	"bytes"
	"io"
	"os"
)

// give hands the event line over: by a pipe on standard input, or in a
// temporary file that is removed after the run.
func (c *Command) give(line []byte) (stdin io.Reader, files []*os.File, env []string, release func(), err error) {
	if c.Input != File {
		return bytes.NewReader(line), nil, nil, func() {}, nil
	}
	f, err := os.CreateTemp("", "pup-event-*.json")
	if err != nil {
		return nil, nil, nil, nil, err
	}
	release = func() { os.Remove(f.Name()) }
	_, err = f.Write(line)
	if err == nil && c.User != nil {
		err = f.Chown(int(c.User.UID), int(c.User.GID))
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		release()
		return nil, nil, nil, nil, err
	}
	return nil, nil, []string{"PUP_FILE=" + f.Name()}, release, nil
}
