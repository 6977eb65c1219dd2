package dnsudp

import (
	"sync"

	"golang.org/x/sys/unix"

	"pup/cmd/pup-probe/internal/mmsg"
)

// batchSize is the number of datagrams in a system call.
const batchSize = 32

type messages struct {
	headers [batchSize]mmsg.Message
	vectors [batchSize]unix.Iovec
	buffers [batchSize]*buffer // to receive into
}

var batches = sync.Pool{New: func() any {
	m := new(messages)
	for i := range m.headers {
		m.headers[i].Header.Iov = &m.vectors[i]
		m.headers[i].Header.SetIovlen(1)
	}
	return m
}}

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
	if cerr := k.raw.Control(func(fd uintptr) { sent, err = mmsg.Send(fd, m.headers[:n]) }); cerr != nil {
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
		if !k.answered { // one of thousands that wait for a silent server should not grow its stack
			if err = mmsg.Ready(fd); err != nil {
				return err != unix.EAGAIN
			}
		}
		m = batches.Get().(*messages)
		for i := range m.buffers {
			if m.buffers[i] == nil {
				m.buffers[i] = buffers.Get().(*buffer)
			}
			m.vectors[i].Base = &m.buffers[i][0]
			m.vectors[i].SetLen(bufSize)
		}
		if n, err = mmsg.Receive(fd, m.headers[:]); err == nil {
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
	k.answered = true
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range n {
		b := m.buffers[i]
		m.buffers[i] = nil
		k.deliver(b, int(m.headers[i].N))
	}
	batches.Put(m)
	return nil
}
