package hook

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchIn starts a command as closely held as its sandbox says.
func launchIn(s *spec) (*process, error) {
	if s.command.Sandbox.Level == Off {
		return launch(s)
	}
	return shimmed(s)
}

// minLandlock is the version of Landlock that knows truncation: below it a
// file could be emptied that may not be written.
const minLandlock = 3

// landlockVersion is what the kernel has; 0: none.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

func available(s *Sandbox) error {
	if s.Level != Strict || s.Lenient {
		return nil
	}
	if v := landlockVersion(); v < minLandlock {
		return fmt.Errorf("the kernel has Landlock version %d, and %d is needed", v, minLandlock)
	}
	if auditArch == 0 {
		return errors.New("there is no table of system calls for this processor")
	}
	return nil
}

// enter takes away from this thread what the command may not have. Whatever
// fails, the command does not run, unless the sandbox is lenient.
func (s *Sandbox) enter(command string) error {
	if err := s.Limits.set(); err != nil {
		return err
	}
	if !s.Privileges || s.Level == Strict {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	if s.Level != Strict {
		return nil
	}
	if err := s.landlock(command); err != nil && !s.Lenient {
		return fmt.Errorf("landlock: %w", err)
	}
	if err := s.seccomp(); err != nil && !s.Lenient {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// set sets the limits of this process, which the command inherits.
func (l *Limits) set() error {
	const mib = 1 << 20
	for _, r := range []struct {
		resource int
		value    uint64
		set      bool
	}{
		{unix.RLIMIT_CORE, 0, true},
		{unix.RLIMIT_NOFILE, l.Files, l.Files > 0},
		{unix.RLIMIT_NPROC, l.Processes, l.Processes > 0},
		{unix.RLIMIT_FSIZE, l.FileMiB * mib, l.FileMiB > 0},
		{unix.RLIMIT_DATA, l.DataMiB * mib, l.DataMiB > 0},
		{unix.RLIMIT_CPU, l.CPUS, l.CPUS > 0},
	} {
		if !r.set {
			continue
		}
		var old syscall.Rlimit
		if err := syscall.Getrlimit(r.resource, &old); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		limit := syscall.Rlimit{Cur: min(r.value, old.Max), Max: min(r.value, old.Max)}
		if err := syscall.Setrlimit(r.resource, &limit); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

// What may be done with files that are listed as read or write.
const (
	readRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// always are files that every program may need; those that are not there are
// left out.
var always = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ssl", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts",
	"/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/localtime", "/etc/passwd", "/etc/group", "/dev/zero", "/dev/urandom",
}

// landlock leaves this thread the files of the lists.
func (s *Sandbox) landlock(command string) error {
	version := landlockVersion()
	if version < minLandlock {
		return fmt.Errorf("the kernel has version %d, and %d is needed", version, minLandlock)
	}
	handled := uint64(unix.LANDLOCK_ACCESS_FS_TRUNCATE<<1 - 1)
	attr := unix.LandlockRulesetAttr{}
	if version >= 5 {
		handled |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	size := unsafe.Offsetof(attr.Handled_access_net)
	if version >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		size = unsafe.Offsetof(attr.Quiet_access_fs)
	}
	attr.Handled_access_fs = handled
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	for _, path := range always {
		if err := allow(int(fd), path, readRights); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := allow(int(fd), "/dev/null", readRights|unix.LANDLOCK_ACCESS_FS_WRITE_FILE); err != nil {
		return err
	}
	for _, path := range append([]string{command}, s.Read...) {
		if err := allow(int(fd), path, readRights); err != nil {
			return err
		}
	}
	for _, path := range s.Write {
		if err := allow(int(fd), path, handled); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

// allow adds a rule for what lies at and below path.
func allow(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return &os.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}
