package sched

// An entry says when a target is due next.
type entry struct {
	due int64 // milliseconds since the epoch
	i   uint32
}

// A queue is a heap with four children to a node: half the levels of a binary
// one, and the children of a node share a cache line.
type queue []entry

// newQueue makes an empty queue for n entries. The children of a node begin at
// index 4i+1; with three entries left out in front, they fill one cache line
// of 64 bytes instead of parts of two.
func newQueue(n int) queue { return make(queue, 3, n+3)[3:] }

func (q queue) less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].i < q[j].i
}

// order makes a heap of entries in any order.
func (q queue) order() {
	for i := (len(q) - 2) / 4; i >= 0; i-- {
		q.down(i)
	}
}

// down moves the entry at i below all that are due earlier.
func (q queue) down(i int) {
	for {
		first := 4*i + 1
		if first >= len(q) {
			return
		}
		m := first
		for c := first + 1; c < min(first+4, len(q)); c++ {
			if q.less(c, m) {
				m = c
			}
		}
		if !q.less(m, i) {
			return
		}
		q[i], q[m] = q[m], q[i]
		i = m
	}
}

// push adds an entry.
func (q *queue) push(e entry) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 4
		if !h.less(i, up) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// pop drops the entry that is due first.
func (q *queue) pop() {
	old := *q
	n := len(old) - 1
	old[0] = old[n]
	*q = old[:n]
	q.down(0)
}
