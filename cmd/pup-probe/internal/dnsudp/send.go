package dnsudp

import (
	"errors"
	"runtime"
)

// outgoing are datagrams to be sent. Their bytes lie one behind the other.
type outgoing struct {
	bytes []byte
	sizes []int
	from  []*Conn
}

func (o *outgoing) add(c *Conn, b []byte) {
	o.bytes = append(o.bytes, b...)
	o.sizes = append(o.sizes, len(b))
	o.from = append(o.from, c)
}

// drop takes the first n datagrams off.
func (o *outgoing) drop(n int) {
	for _, size := range o.sizes[:n] {
		o.bytes = o.bytes[size:]
	}
	o.sizes, o.from = o.sizes[n:], o.from[n:]
}

// send sends b, which has the given identifier, unless that is another's. It
// does so together with what others send in this moment: who comes first lets
// those have a turn who are ready to run, and then sends for all.
func (k *socket) send(c *Conn, id uint16, b []byte) bool {
	k.mu.Lock()
	if k.reader == nil && len(k.ids) > 0 && !k.sending {
		k.catchUp() // what came before a question does not answer it
	}
	if !k.claim(c, id) {
		k.mu.Unlock()
		return false
	}
	k.out.add(c, b)
	first := !k.sending
	k.sending = true
	k.mu.Unlock()
	if first {
		runtime.Gosched()
		k.flush()
	}
	return true
}

// flush sends until there is nothing to be sent.
func (k *socket) flush() {
	k.mu.Lock()
	for len(k.out.sizes) > 0 {
		batch := k.out
		k.out = outgoing{k.spare.bytes[:0], k.spare.sizes[:0], k.spare.from[:0]}
		k.mu.Unlock()
		k.sendAll(batch)
		clear(batch.from)
		k.mu.Lock()
		k.spare = batch
	}
	k.sending = false
	k.mu.Unlock()
}

// sendAll sends a batch. An error that does not come again is about what was
// sent before; one that does is about the datagram that is the next.
func (k *socket) sendAll(batch outgoing) {
	var earlier error
	for len(batch.sizes) > 0 {
		n, err := k.sendBatch(&batch)
		switch {
		case n > 0:
			if earlier != nil {
				k.fail(earlier)
			}
			batch.drop(n)
			earlier = nil
		case earlier == nil:
			earlier = err
		default:
			if !errors.Is(err, earlier) {
				k.fail(earlier)
			}
			k.mu.Lock()
			k.post(batch.from[0], mail{err: k.wrap("write", err)})
			k.mu.Unlock()
			batch.drop(1)
			earlier = nil
		}
	}
}
