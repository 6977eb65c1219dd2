//go:build !linux

package dnsudp

// waitersRead says that who waits reads from the socket.
const waitersRead = false

func open(r route) (endpoint, error) { return openNet(r) }

// sendBatch sends a datagram.
func (k *socket) sendBatch(out *outgoing) (sent int, err error) {
	if _, err := k.udp.Write(out.bytes[:out.sizes[0]]); err != nil {
		return 0, err
	}
	return 1, nil
}

// A receiver is where the socket's reader keeps what it receives.
type receiver struct {
	b *buffer
	n int
}

// wait waits for a datagram, or for an error of the socket.
func (k *socket) wait() (err error) {
	k.b = buffers.Get().(*buffer)
	if k.n, err = k.udp.Read(k.b[:]); err != nil {
		buffers.Put(k.b)
	}
	return err
}

// deliverAll delivers what wait has received. The socket is locked.
func (k *socket) deliverAll() { k.deliver(k.b, k.n) }

// catchUp does nothing: there is a goroutine that reads.
func (k *socket) catchUp() {}
