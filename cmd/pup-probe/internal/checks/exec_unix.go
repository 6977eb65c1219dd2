//go:build unix

package checks

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// execApart gives the command a process group of its own, and kills that and
// all descendants when the time is over.
func execApart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		tree := execTree(cmd.Process.Pid, nil) // before their parents are gone
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		for _, pid := range tree {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		return err
	}
}

// execTree adds the descendants of a process, as Linux tells them; elsewhere
// the process group has to do.
func execTree(pid int, tree []int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return tree
	}
	for _, f := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(f); err == nil && len(tree) < 1000 {
			tree = execTree(child, append(tree, child))
		}
	}
	return tree
}
