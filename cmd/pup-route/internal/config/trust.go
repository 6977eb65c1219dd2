package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// trusted checks that nobody but root and ourselves can change the file at
// path or put another in its place: every component, behind symbolic links
// too, belongs to root or us and is not writable for others. A folder that
// all may write, such as /tmp, is passed where its sticky bit keeps them from
// replacing what is not theirs.
func trusted(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, p := range []string{path, real} {
		for at := p; ; at = filepath.Dir(at) {
			if err := component(at); err != nil {
				return err
			}
			if at == "/" {
				break
			}
		}
	}
	return nil
}

func component(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("this system does not say who owns a file")
	}
	if sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d, who could put another command in its place; chown it to root", path, sys.Uid)
	}
	mode := st.Mode()
	switch {
	case mode&os.ModeSymlink != 0 || mode.Perm()&0o022 == 0:
	case mode.IsDir() && mode&os.ModeSticky != 0:
	default:
		return fmt.Errorf("%s may be written by others than its owner; chmod go-w it", path)
	}
	return nil
}
