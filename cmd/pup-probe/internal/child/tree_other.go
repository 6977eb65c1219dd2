//go:build !unix

package child

import (
	"os"
	"os/exec"
)

// Apart leaves the command as it is.
func Apart(*exec.Cmd) {}

// Kill ends the command alone.
func Kill(cmd *exec.Cmd) error { return cmd.Process.Kill() }

func killTree(pid int, _ []int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

func tree(int, []int) []int { return nil }
