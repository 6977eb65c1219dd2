package probe

import "syscall"

// readFD always waits: Windows reads into a buffer that is given beforehand,
// so newConn leaves Conn.raw empty there.
func readFD(uintptr, []byte) (int, error) { return 0, syscall.EAGAIN }
