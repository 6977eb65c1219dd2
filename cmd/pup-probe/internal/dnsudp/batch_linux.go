package dnsudp

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is the number of datagrams in a system call.
const batchSize = 32

// A message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	n      uint32
}

type messages struct {
	headers [batchSize]message
	vectors [batchSize]unix.Iovec
	buffers [batchSize]*buffer // to receive into
}

var batches = sync.Pool{New: func() any {
	m := new(messages)
	for i := range m.headers {
		m.headers[i].header.Iov = &m.vectors[i]
		m.headers[i].header.SetIovlen(1)
	}
	return m
}}

func (m *messages) call(number, fd uintptr, n int) (int, error) {
	for {
		done, _, errno := syscall.Syscall6(number, fd, uintptr(unsafe.Pointer(&m.headers)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(done), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// sendBatch sends as many datagrams as it can, and gives an error only if that
// is none.
func (k *socket) sendBatch(out *outgoing) (sent int, err error) {
	m := batches.Get().(*messages)
	defer batches.Put(m)
	n, bytes := min(batchSize, len(out.sizes)), out.bytes
	for i, size := range out.sizes[:n] {
		m.vectors[i].Base = &bytes[0]
		m.vectors[i].SetLen(size)
		bytes = bytes[size:]
	}
	if cerr := k.raw.Control(func(fd uintptr) { sent, err = m.call(unix.SYS_SENDMMSG, fd, n) }); cerr != nil {
		err = cerr
	}
	for i := range n {
		m.vectors[i].Base = nil
	}
	return sent, err
}

// receiveBatch waits for datagrams and delivers them. Only when some are there
// it takes buffers for them.
func (k *socket) receiveBatch() error {
	var m *messages
	var n int
	var err error
	cerr := k.raw.Read(func(fd uintptr) bool {
		m = batches.Get().(*messages)
		for i := range m.buffers {
			if m.buffers[i] == nil {
				m.buffers[i] = buffers.Get().(*buffer)
			}
			m.vectors[i].Base = &m.buffers[i][0]
			m.vectors[i].SetLen(bufSize)
		}
		if n, err = m.call(unix.SYS_RECVMMSG, fd, batchSize); err == nil {
			return true
		}
		batches.Put(m)
		return err != unix.EAGAIN
	})
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range n {
		b := m.buffers[i]
		m.buffers[i] = nil
		k.deliver(b, int(m.headers[i].n))
	}
	batches.Put(m)
	return nil
}
