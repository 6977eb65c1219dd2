package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"pup/cmd/internal/wire"
)

// Failf returns an error with a reason that only the caller can know. The
// arguments are those of fmt.Errorf.
func Failf(r wire.Reason, format string, args ...any) error {
	return &failure{reason: r, err: fmt.Errorf(format, args...)}
}

// Protocolf is Failf with the reason protocol: what came is not what the
// protocol says.
func Protocolf(format string, args ...any) error {
	return Failf(wire.BadProtocol, format, args...)
}

// Degradef is Failf for a target that works, but not as it should.
func Degradef(r wire.Reason, format string, args ...any) error {
	return &failure{reason: r, err: fmt.Errorf(format, args...), degraded: true}
}

type failure struct {
	reason   wire.Reason
	err      error
	degraded bool
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failedStatus is the status of an attempt that has ended with an error.
func failedStatus(err error, r wire.Reason) wire.Status {
	f, said := errors.AsType[*failure](err)
	switch {
	case r.Unknown():
		return wire.Unknown
	case said && f.degraded && f.reason == r:
		return wire.Degraded
	}
	return wire.Down
}

// causes says what the deadline, the kernel and the peer mean, in the order in
// which they are looked for: our own faults come first, since they must never
// be taken for the target's.
var causes = []struct {
	err    error
	reason wire.Reason
}{
	{syscall.EMFILE, wire.Local},
	{syscall.ENFILE, wire.Local},
	{syscall.ENOMEM, wire.Local},
	{syscall.ENOBUFS, wire.Local},
	{syscall.EADDRNOTAVAIL, wire.Local}, // no port left, or no address of the family
	{syscall.EADDRINUSE, wire.Local},
	{syscall.EAFNOSUPPORT, wire.Local},
	{syscall.ENETUNREACH, wire.Local}, // no route from here
	{syscall.ENETDOWN, wire.Local},
	{syscall.EACCES, wire.Local}, // our own firewall, or no right to the socket
	{syscall.EPERM, wire.Local},
	{context.DeadlineExceeded, wire.Timeout},
	{os.ErrDeadlineExceeded, wire.Timeout},
	{syscall.ETIMEDOUT, wire.Timeout},
	{syscall.ECONNREFUSED, wire.Refused},
	{syscall.EHOSTUNREACH, wire.Unreachable},
	{syscall.EHOSTDOWN, wire.Unreachable},
	{syscall.ECONNRESET, wire.Reset},
	{syscall.ECONNABORTED, wire.Reset},
	{syscall.EPIPE, wire.Reset},
	{io.ErrUnexpectedEOF, wire.Closed},
	{io.EOF, wire.Closed},
}

// reasonOf finds the reason in err's tree; what a check has said comes first.
func reasonOf(err error) (wire.Reason, bool) {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.reason, true
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return c.reason, true
		}
	}
	return tlsReason(err)
}

// reason words why an attempt ended. Libraries may hide the cause, so the
// context's end and the first error of a connection are looked at as well.
func (p *Probe) reason(ctx context.Context, err error) wire.Reason {
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	f, said := errors.AsType[*failure](err)
	if said && !late {
		return f.reason
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return wire.Canceled
	}
	if said && f.reason == wire.Local {
		return f.reason // it is our own side that was late
	}
	if late || ctx.Err() != nil {
		return wire.Timeout
	}
	if r, ok := reasonOf(err); ok {
		return r
	}
	if p.ioErr != nil {
		if r, ok := reasonOf(p.ioErr); ok {
			return r
		}
	}
	switch p.phase {
	case wire.Prepare:
		return wire.BadOptions
	case wire.Resolve, wire.Connect:
		return wire.Local
	case wire.TLS:
		return wire.BadTLS
	}
	return wire.BadProtocol
}

// lateAlert words the refusal of our client certificate as that of a handshake,
// also where a server of TLS 1.3 refuses it only afterwards.
func (p *Probe) lateAlert(err error) error {
	_, said := errors.AsType[*failure](err)
	if a, alert := alertOf(err); said || !alert || !clientAlerts[a] {
		return err
	}
	p.Phase(wire.TLS)
	return p.handshakeError(err, true)
}

// IsEnd says whether err means that the peer has closed or reset the
// connection.
func IsEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
