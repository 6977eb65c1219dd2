package hook

import "golang.org/x/sys/unix"

// auditArch is how seccomp calls this processor.
const auditArch = unix.AUDIT_ARCH_X86_64
