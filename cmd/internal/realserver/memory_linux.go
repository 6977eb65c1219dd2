package realserver

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// Memory gives what the kernel says of the memory of a process, in KiB: VmRSS is
// what is resident, VmHWM the most that ever was. (What wait4 says of one that
// has ended is never less than what its parent had when it started it.)
func Memory(t testing.TB, pid int, what string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\n"+what+":"))
	kib := 0
	if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return kib
}
