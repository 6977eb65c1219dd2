//go:build unix

package source

import (
	"os/exec"
	"syscall"
)

// group gives the program a process group of its own, which is killed as a
// whole: what a script has started must not outlive its time.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
