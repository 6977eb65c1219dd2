package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through, as in the
// kernel.
const maxLinks = 40

// Trusted checks that nobody but root and ourselves can change the file at
// path or put another in its place: every file on the way, with all symbolic
// links and what they lead through, belongs to root or us and is not writable
// for others. A folder that all may write, such as /tmp, is passed where its
// sticky bit keeps them from replacing what is not theirs. So what is found
// stays true until root or we change it.
func Trusted(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	at, links := "/", 0
	if _, err := component(at); err != nil {
		return err
	}
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		link, err := component(next)
		switch {
		case err != nil:
			return err
		case !link:
			at = next
			continue
		case links == maxLinks:
			return &os.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
		}
		links++
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return nil
}

// component checks one file by itself, and reports whether it is a symbolic
// link.
func component(path string) (link bool, err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return false, errors.New("this system does not say who owns a file")
	}
	if sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return false, fmt.Errorf("%s belongs to uid %d, who could put another command in its place; chown it to root", path, sys.Uid)
	}
	mode := st.Mode()
	switch {
	case mode&os.ModeSymlink != 0:
		return true, nil
	case mode.Perm()&0o022 == 0, mode.IsDir() && mode&os.ModeSticky != 0:
		return false, nil
	}
	return false, fmt.Errorf("%s may be written by others than its owner; chmod go-w it", path)
}

// begin starts a command, if it is still to be trusted where that is asked
// for.
func begin(s *spec) (*process, error) {
	if s.command.Guard {
		if err := Trusted(s.command.Argv[0]); err != nil {
			return nil, err
		}
	}
	return launchIn(s)
}
