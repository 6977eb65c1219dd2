package probe

import (
	"context"
	"net"
	"testing"
)

// The end of a run interrupts its connections, those that are opened later
// too, and no others.
func TestRunEnd(t *testing.T) {
	var open openConns
	run, end := context.WithCancel(t.Context())
	conn := func(ctx context.Context) (*Conn, func() error) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		c := &Conn{Conn: ours, run: open.of(ctx), p: &Probe{}}
		c.run.add(c)
		failed := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			failed <- err
		}()
		return c, func() error { return <-failed }
	}
	first, _ := conn(run)
	middle, middleFailed := conn(run)
	_, lastFailed := conn(run)
	other, otherFailed := conn(t.Context())
	first.Close()
	first.Close() // as tls.Conn and a check may do
	end()
	_, lateFailed := conn(run)
	for i, failed := range []func() error{middleFailed, lastFailed, lateFailed} {
		if ne, ok := failed().(net.Error); !ok || !ne.Timeout() {
			t.Errorf("connection %d: got no time-out", i)
		}
	}
	middle.Close()
	other.Close()
	if ne, ok := otherFailed().(net.Error); ok && ne.Timeout() {
		t.Error("the connection of another run was interrupted")
	}
}

// A run without open connections leaves nothing behind in its context.
func TestRunLeavesNothing(t *testing.T) {
	var open openConns
	run, end := context.WithCancel(t.Context())
	defer end()
	r := open.of(run)
	a, b := &Conn{}, &Conn{}
	r.add(a)
	r.add(b)
	r.remove(a)
	if r.remove(b); r.first != nil || r.stop() {
		t.Error("still registered")
	}
}
