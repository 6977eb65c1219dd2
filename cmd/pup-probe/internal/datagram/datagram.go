// Package datagram asks and waits over UDP, for the checks whose protocols do
// so: a lost datagram is sent again, and a datagram that is no answer is
// counted and does not end the waiting.
package datagram

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	resend    = time.Second // until a datagram is sent again; doubles
	maxResend = 4 * time.Second
)

// Stray returns an error that says why a datagram is no answer. The arguments
// are those of fmt.Errorf.
func Stray(format string, args ...any) error { return &stray{fmt.Errorf(format, args...)} }

// ErrMore is what take returns for a datagram that belongs to the answer and
// does not end it.
var ErrMore = errors.New("more is to come")

type stray struct{ err error }

func (s *stray) Error() string { return s.err.Error() }
func (s *stray) Unwrap() error { return s.err }

// An Asker asks over a connected UDP socket, and counts.
type Asker struct {
	Probe     *probe.Probe
	Conn      *probe.Conn
	AskPhase  wire.Phase // request if empty
	WaitPhase wire.Phase // wait if empty
	Resent    int        // datagrams that were sent again
	Ignored   int        // datagrams that were no answers
	Last      error      // why the last of them was none
}

func phase(ph, standard wire.Phase) wire.Phase {
	if ph == "" {
		return standard
	}
	return ph
}

// Ask sends what request gives, after one, two, four seconds and so on again,
// until take has taken an answer or the time is up. Take gets each datagram,
// of which it must not keep the bytes; it returns nil if that is the answer, a
// Stray if it belongs to something else, and any other error to end the
// waiting.
func (a *Asker) Ask(ctx context.Context, request func() []byte, take func(b []byte) error) error {
	for pause := resend; ; pause = min(2*pause, maxResend) {
		a.Probe.Phase(phase(a.AskPhase, wire.Request))
		if _, err := a.Conn.Write(request()); err != nil {
			return err
		}
		a.Probe.Phase(phase(a.WaitPhase, wire.Wait))
		err := a.Wait(time.Now().Add(pause), take)
		if oe, ok := errors.AsType[*net.OpError](err); ok && oe.Op == "write" { // a shared socket sends a little later
			a.Probe.Phase(phase(a.AskPhase, wire.Request))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if over(ctx) {
			return a.silence(ctx, err)
		}
		a.Resent++
	}
}

// over says whether the time is up. The context may notice it a little later
// than a deadline of the connection.
func over(ctx context.Context) bool {
	t, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(t)
}

// silence words that there was no answer, but something.
func (a *Asker) silence(ctx context.Context, err error) error {
	if a.Ignored == 0 || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	return probe.Failf(wire.Timeout, "no answer in time; of %d datagrams that were none the last is %v", a.Ignored, a.Last)
}

// Wait waits until the given time for a datagram that take takes.
func (a *Asker) Wait(until time.Time, take func(b []byte) error) error {
	a.Conn.SetReadDeadline(until)
	for {
		err := a.Conn.Wait()
		if err == io.EOF || err == nil && a.Conn.Buffered() == 0 { // of a datagram EOF means that it is empty
			a.ignore(errors.New("empty"))
			continue
		}
		if err != nil {
			return err
		}
		b := make([]byte, a.Conn.Buffered())
		if err := a.Conn.Full(b); err != nil {
			return err
		}
		err = take(b)
		if err == ErrMore {
			continue
		}
		if _, none := errors.AsType[*stray](err); !none {
			return err
		}
		a.ignore(err)
	}
}

func (a *Asker) ignore(why error) {
	a.Ignored++
	a.Last = why
}
