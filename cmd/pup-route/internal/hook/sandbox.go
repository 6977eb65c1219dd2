package hook

import "fmt"

// A Level says how closely a command is held.
type Level string

// The levels. Each holds what the one before it does.
const (
	Off    Level = "off"    // a session of its own; its process group is killed
	Basic  Level = "basic"  // every descendant is killed; limits; no new privileges
	Strict Level = "strict" // files by list, no dangerous system calls, no network if so wished
)

// A Sandbox says what a command may do.
type Sandbox struct {
	Level      Level
	Lenient    bool     // go without what this kernel lacks, rather than not run
	Network    bool     // strict: it may use other sockets than local ones
	Read       []string // strict: files and directories that it may read and execute
	Write      []string // strict: and those that it may change
	Privileges bool     // it may gain privileges, by a set-user-ID program for one
	Limits     Limits
}

// Limits bound the resources of each process of a command; 0 leaves them.
type Limits struct {
	Files     uint64 // open files
	Processes uint64 // of the user; root is not bound by it
	FileMiB   uint64 // size of a file that it writes
	DataMiB   uint64 // data segment, which is the heap
	CPUS      uint64 // seconds of CPU time
}

// Available reports whether this system can hold commands as closely as the
// level says; the error says what it lacks.
func (s *Sandbox) Available() error {
	if err := available(s); err != nil {
		return fmt.Errorf("level %q is not to be had here: %w", s.Level, err)
	}
	return nil
}
