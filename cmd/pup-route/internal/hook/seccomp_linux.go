package hook

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Instructions of a seccomp filter, and offsets in what it looks at:
// struct seccomp_data of linux/seccomp.h.
const (
	load      = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpSet   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	jumpLess  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	answer    = unix.BPF_RET | unix.BPF_K

	offsetCall  = 0
	offsetArch  = 4
	offsetArg0  = 16
	x32Bit      = 0x40000000
	newSpaces   = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	answerAllow = unix.SECCOMP_RET_ALLOW
	answerKill  = unix.SECCOMP_RET_KILL_PROCESS
)

// forbidden are system calls that no hook needs, and that have been ways out
// of a sandbox or into the kernel. io_uring can open sockets unseen.
var forbidden = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
}

func refuse(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// filter is the program that judges each system call.
func (s *Sandbox) filter() []unix.SockFilter {
	f := []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: jumpEqual, Jt: 1, K: auditArch},
		{Code: answer, K: answerKill},
		{Code: load, K: offsetCall},
	}
	if auditArch == unix.AUDIT_ARCH_X86_64 { // the same calls by other numbers
		f = append(f, unix.SockFilter{Code: jumpLess, Jf: 1, K: x32Bit}, unix.SockFilter{Code: answer, K: answerKill})
	}
	for _, call := range forbidden {
		f = append(f, unix.SockFilter{Code: jumpEqual, Jf: 1, K: call}, unix.SockFilter{Code: answer, K: refuse(unix.EPERM)})
	}
	f = append(f,
		// The flags of clone3 are out of sight; libraries fall back to clone.
		unix.SockFilter{Code: jumpEqual, Jf: 1, K: unix.SYS_CLONE3}, unix.SockFilter{Code: answer, K: refuse(unix.ENOSYS)},
		unix.SockFilter{Code: jumpEqual, Jf: 4, K: unix.SYS_CLONE},
		unix.SockFilter{Code: load, K: offsetArg0},
		unix.SockFilter{Code: jumpSet, Jf: 1, K: newSpaces}, unix.SockFilter{Code: answer, K: refuse(unix.EPERM)},
		unix.SockFilter{Code: answer, K: answerAllow},
	)
	if !s.Network {
		f = append(f,
			unix.SockFilter{Code: jumpEqual, Jf: 3, K: unix.SYS_SOCKET},
			unix.SockFilter{Code: load, K: offsetArg0},
			unix.SockFilter{Code: jumpEqual, Jt: 1, K: unix.AF_UNIX}, unix.SockFilter{Code: answer, K: refuse(unix.EACCES)},
		)
	}
	return append(f, unix.SockFilter{Code: answer, K: answerAllow})
}

// seccomp puts the filter on this thread.
func (s *Sandbox) seccomp() error {
	f := s.filter()
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return nil
}
