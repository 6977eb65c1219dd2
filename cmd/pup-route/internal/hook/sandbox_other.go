//go:build unix && !linux

package hook

import "errors"

// launchIn starts a command. This system has no shim: what leaves the process
// group of a command is not ended with it.
func launchIn(s *spec) (*process, error) { return launch(s) }

func available(s *Sandbox) error {
	if s.Level == Strict && !s.Lenient {
		return errors.New("this system has neither Landlock nor seccomp")
	}
	return nil
}

// Shim is to be called first thing in main. Here it does nothing.
func Shim() {}
