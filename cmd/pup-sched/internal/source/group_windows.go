package source

import "os/exec"

// group leaves the program as it is: Windows has no process groups to kill.
func group(*exec.Cmd) {}
