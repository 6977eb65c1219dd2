//go:build unix

package child

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Apart gives the command, which has not been started, a process group of its
// own, so that Kill reaches all of it.
func Apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// Kill ends a command that has been started Apart, with its process group and
// all descendants that can be found.
func Kill(cmd *exec.Cmd) error {
	return killTree(cmd.Process.Pid, tree(cmd.Process.Pid, nil))
}

// killTree ends a process group, and what tree has found.
func killTree(pid int, tree []int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	for _, pid := range tree {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	return err
}

// tree adds the descendants of a process, as Linux tells them; elsewhere the
// process group has to do. It must be asked before their parents are gone.
func tree(pid int, list []int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return list
	}
	for _, f := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(f); err == nil && len(list) < 1000 {
			list = tree(child, append(list, child))
		}
	}
	return list
}
