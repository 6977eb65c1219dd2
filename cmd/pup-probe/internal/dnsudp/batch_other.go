//go:build !linux

package dnsudp

// sendBatch sends a datagram.
func (k *socket) sendBatch(out *outgoing) (sent int, err error) {
	if _, err := k.udp.Write(out.bytes[:out.sizes[0]]); err != nil {
		return 0, err
	}
	return 1, nil
}

// receiveBatch waits for a datagram and delivers it.
func (k *socket) receiveBatch() error {
	b := buffers.Get().(*buffer)
	n, err := k.udp.Read(b[:])
	if err != nil {
		buffers.Put(b)
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deliver(b, n)
	return nil
}
