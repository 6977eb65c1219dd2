//go:build unix && !linux

package hook

import (
	"io"
	"os"
)

// give hands the event line over in a temporary file without a name for
// others: as standard input, or by its path.
func (c *Command) give(line []byte) (in *os.File, env []string, release func(), err error) {
	f, err := os.CreateTemp("", "pup-event-*.json")
	if err != nil {
		return nil, nil, nil, err
	}
	release = func() {
		f.Close()
		os.Remove(f.Name())
	}
	_, err = f.Write(line)
	if err == nil && c.User != nil {
		err = f.Chown(int(c.User.UID), int(c.User.GID))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		release()
		return nil, nil, nil, err
	}
	return f, []string{"PUP_FILE=" + f.Name()}, release, nil
}
