//go:build unix && !linux

package hook

import (
	"bytes"
	"os"
	"os/exec"
)

// give hands the event line over: by a pipe on standard input, or in a
// temporary file that is removed after the run.
func (c *Command) give(cmd *exec.Cmd, line []byte) (release func(), err error) {
	if c.Input != File {
		cmd.Stdin = bytes.NewReader(line)
		return func() {}, nil
	}
	f, err := os.CreateTemp("", "pup-event-*.json")
	if err != nil {
		return nil, err
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
		return nil, err
	}
	cmd.Env = append(cmd.Env, "PUP_FILE="+f.Name())
	return release, nil
}
