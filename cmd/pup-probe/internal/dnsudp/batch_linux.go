package dnsudp

import (
	"sync"

	"golang.org/x/sys/unix"

	"pup/cmd/pup-probe/internal/mmsg"
)

// waitersRead says that who waits reads from the socket. Elsewhere a goroutine
// does, since what is there can't be read without waiting.
const waitersRead = true

// batchSize is the number of datagrams in a system call.
const batchSize = 32

// messages are datagrams that are sent or received together.
type messages struct {
	headers [batchSize]mmsg.Message
	vectors [batchSize]unix.Iovec
	buffers [batchSize]*buffer // to receive into
	n       int                // of them: to be sent, or how many were sent or received
	err     error
	send    func(fd uintptr)
}

var batches = sync.Pool{New: func() any {
	m := new(messages)
	for i := range m.headers {
		m.headers[i].Header.Iov = &m.vectors[i]
		m.headers[i].Header.SetIovlen(1)
	}
	m.send = func(fd uintptr) { m.n, m.err = mmsg.Send(fd, m.headers[:m.n]) }
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
	m.n = n
	if err := k.raw.Control(m.send); err != nil {
		return 0, err
	}
	for i := range n {
		m.vectors[i].Base = nil
	}
	return m.n, m.err
}

// A receiver is where the socket's reader keeps what it receives.
type receiver struct {
	readable func(fd uintptr) bool // receive
	got      *messages
	err      error
}

// wait waits for datagrams, or for an error of the socket.
func (k *socket) wait() error {
	if k.readable == nil {
		k.readable = k.receive
	}
	if err := k.raw.Read(k.readable); err != nil {
		return err
	}
	return k.err
}

// receive receives what is there. Only if there is something it takes buffers
// for it.
func (r *receiver) receive(fd uintptr) (done bool) {
	if r.err = mmsg.Ready(fd); r.err != nil { // which takes little stack, for those who wait
		return r.err != unix.EAGAIN
	}
	m := batches.Get().(*messages)
	for i := range m.buffers {
		if m.buffers[i] == nil {
			m.buffers[i] = buffers.Get().(*buffer)
		}
		m.vectors[i].Base = &m.buffers[i][0]
		m.vectors[i].SetLen(bufSize)
	}
	if m.n, r.err = mmsg.Receive(fd, m.headers[:]); r.err != nil {
		batches.Put(m)
		return r.err != unix.EAGAIN
	}
	r.got = m
	return true
}

// deliverAll delivers what wait has received. The socket is locked.
func (k *socket) deliverAll() {
	m := k.got
	for i := range m.n {
		b := m.buffers[i]
		m.buffers[i] = nil
		k.deliver(b, int(m.headers[i].N))
	}
	k.got = nil
	batches.Put(m)
}

// catchUp deals with what came while nobody read. The socket is locked, and has
// no reader.
func (k *socket) catchUp() {
	for more := true; more; {
		if err := k.raw.Control(func(fd uintptr) { more = k.receive(fd) }); err != nil || !more {
			return
		}
		if k.err != nil {
			k.tell(k.err)
			continue
		}
		more = k.got.n == batchSize
		k.deliverAll()
	}
}
