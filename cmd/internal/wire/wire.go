// Package wire holds the words of the lines that the pup programs exchange:
// statuses, phases, reasons, times. pup-lines(5) documents the lines.
package wire

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Version is the major version of the line format, the member "v". Within a
// version members, types and reasons are only ever added.
const Version = 1

// The types of line.
const (
	TypeTarget  = "target"
	TypeResult  = "result"
	TypeEvent   = "event"
	TypeBeat    = "beat"
	TypeRemoved = "removed"
	TypeError   = "error"
)

// A Status is the verdict on a target.
type Status string

// The four statuses.
const (
	Up       Status = "up"       // the protocol was spoken and the service did its work
	Degraded Status = "degraded" // it works, but a warn expression did not hold
	Down     Status = "down"     // it does not work
	Unknown  Status = "unknown"  // no verdict: the check could not be carried out
)

// Statuses lists the statuses in the order of Severity.
var Statuses = []Status{Up, Degraded, Down, Unknown}

// Severity gives the exit code that a Nagios plugin has for the status: 0 up,
// 1 degraded, 2 down, 3 unknown or any other.
func (s Status) Severity() int {
	switch s {
	case Up:
		return 0
	case Degraded:
		return 1
	case Down:
		return 2
	}
	return 3
}

// Worse says whether s is worse than t. Down is worst: an unknown is no
// verdict, and must not hide one.
func (s Status) Worse(t Status) bool { return s.rank() > t.rank() }

func (s Status) rank() int {
	switch s {
	case Up:
		return 0
	case Degraded:
		return 1
	case Down:
		return 3
	}
	return 2
}

// A Phase says where in a check time was spent, or where the check ended.
type Phase string

// The phases, in their usual order.
const (
	Prepare  Phase = "prepare"
	Resolve  Phase = "resolve"
	Connect  Phase = "connect"
	TLS      Phase = "tls"
	Greet    Phase = "greet"
	Auth     Phase = "auth"
	Request  Phase = "request"
	Wait     Phase = "wait"
	Transfer Phase = "transfer"
	Verify   Phase = "verify"
)

// A Reason says what went wrong, in the same words for every check.
type Reason string

// The reasons. The last six belong to status unknown.
const (
	Timeout         Reason = "timeout"
	NoSuchHost      Reason = "no-such-host"
	Refused         Reason = "refused"
	Unreachable     Reason = "unreachable"
	Reset           Reason = "reset"
	Closed          Reason = "closed"
	BadTLS          Reason = "tls"
	CertExpired     Reason = "certificate-expired"
	CertNotYetValid Reason = "certificate-not-yet-valid"
	CertUntrusted   Reason = "certificate-untrusted"
	CertName        Reason = "certificate-name"
	CertRevoked     Reason = "certificate-revoked"
	Denied          Reason = "denied"
	Unavailable     Reason = "unavailable"
	BadProtocol     Reason = "protocol"
	Mismatch        Reason = "mismatch"
	Slow            Reason = "slow"
	TooLarge        Reason = "too-large"

	BadOptions Reason = "options"
	NoSecret   Reason = "secret"
	Expired    Reason = "expired"
	Local      Reason = "local"
	Canceled   Reason = "canceled"
	Internal   Reason = "internal"
)

// Doc is a word of the format and its meaning.
type Doc[T ~string] struct {
	Word T
	Doc  string
}

// Phases lists every phase with its meaning.
var Phases = []Doc[Phase]{
	{Prepare, "before anything is sent: options, secrets, expressions"},
	{Resolve, "finding the addresses of the host name"},
	{Connect, "opening the connection, through a proxy if there is one"},
	{TLS, "the TLS handshake and the verification of the certificate"},
	{Greet, "the server's greeting and the negotiation of the session"},
	{Auth, "logging in"},
	{Request, "sending the request, or the protocol's own commands"},
	{Wait, "waiting for the first byte of the answer"},
	{Transfer, "receiving the rest of the answer"},
	{Verify, "judging what came, by expect, warn and the check's own rules"},
}

// Reasons lists every reason with its meaning.
var Reasons = []Doc[Reason]{
	{Timeout, "no answer in time"},
	{NoSuchHost, "the name does not exist, or has no address of the wanted family"},
	{Refused, "the connection was refused: nothing listens there"},
	{Unreachable, "the network says that the host or port can't be reached"},
	{Reset, "the peer reset the connection"},
	{Closed, "the peer closed the connection too early"},
	{BadTLS, "the TLS handshake failed, or the TLS parameters are not as asked for"},
	{CertExpired, "a certificate of the chain has expired"},
	{CertNotYetValid, "a certificate of the chain is not valid yet"},
	{CertUntrusted, "no trusted authority vouches for the certificate, or a pin does not match"},
	{CertName, "the certificate is for other names"},
	{CertRevoked, "the certificate is revoked"},
	{Denied, "the server refused our credentials, or asked for some that were not given"},
	{Unavailable, "the server speaks, but says that it can't serve now"},
	{BadProtocol, "what came is not the protocol that was expected"},
	{Mismatch, "the answer is not the expected one"},
	{Slow, "only limits on time did not hold"},
	{TooLarge, "the answer is larger than allowed"},
	{BadOptions, "the target's own settings are wrong, or forbidden here"},
	{NoSecret, "a secret that the target refers to could not be read"},
	{Expired, "the target came too late to be worth probing"},
	{Local, "our own side failed: network, resolver, descriptors, ports, rights"},
	{Canceled, "the program was told to stop"},
	{Internal, "a bug of ours"},
}

// Unknown says whether the reason is about us and not about the target, so
// that the status is unknown.
func (r Reason) Unknown() bool {
	switch r {
	case BadOptions, NoSecret, Expired, Local, Canceled, Internal:
		return true
	}
	return false
}

// TimeFormat is RFC 3339 in UTC with milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// AppendTime appends t as a JSON string.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return append(t.AppendFormat(append(dst, '"'), TimeFormat), '"')
	}
	// by hand, since every result has one, and to interpret the format anew
	// takes ten times as long
	hour, minute, second := t.Clock()
	dst = append(dst, '"')
	dst = appendTwo(appendTwo(dst, year/100), year%100)
	dst = appendTwo(append(dst, '-'), int(month))
	dst = appendTwo(append(dst, '-'), day)
	dst = appendTwo(append(dst, 'T'), hour)
	dst = appendTwo(append(dst, ':'), minute)
	dst = appendTwo(append(dst, ':'), second)
	ms := t.Nanosecond() / 1e6
	return append(appendTwo(append(dst, '.', byte('0'+ms/100)), ms%100), 'Z', '"')
}

// appendTwo appends the two digits of n.
func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// AppendMS appends d as a JSON number of milliseconds with at most three
// decimals.
func AppendMS(dst []byte, d time.Duration) []byte {
	us := d.Round(time.Microsecond).Microseconds()
	if us < 0 {
		dst, us = append(dst, '-'), -us
	}
	dst = strconv.AppendInt(dst, us/1000, 10)
	if frac := us % 1000; frac != 0 {
		s := [4]byte{'.', byte('0' + frac/100), byte('0' + frac/10%10), byte('0' + frac%10)}
		n := len(s)
		for s[n-1] == '0' {
			n--
		}
		dst = append(dst, s[:n]...)
	}
	return dst
}

// MS gives d in milliseconds, in steps of a microsecond.
func MS(d time.Duration) float64 { return float64(d.Round(time.Microsecond).Microseconds()) / 1000 }

// A Duration is a span of time, written as text: "1.5s", "2h30m", "7d", "1w".
// A bare number is refused, since nobody can tell its unit.
type Duration time.Duration

func (d Duration) String() string {
	s := time.Duration(d).String()
	// time.Duration says 2h0m0s where a person says 2h
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// ParseDuration reads what Go reads, and days and weeks of 24 and 168 hours.
func ParseDuration(s string) (Duration, error) {
	rest, total := s, time.Duration(0)
	for _, u := range []struct {
		suffix byte
		span   time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}} {
		i := strings.IndexByte(rest, u.suffix)
		if i < 0 {
			continue
		}
		n, err := strconv.ParseUint(rest[:i], 10, 16)
		if err != nil {
			return 0, badDuration(s)
		}
		total, rest = total+time.Duration(n)*u.span, rest[i+1:]
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || (total > 0 && d < 0) {
			return 0, badDuration(s)
		}
		total += d
	} else if s == "" {
		return 0, badDuration(s)
	}
	return Duration(total), nil
}

func badDuration(s string) error {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Errorf("%q has no unit; write a duration such as %q", s, s+"s")
	}
	return fmt.Errorf("%.40q is not a duration; write one such as \"30s\", \"5m\", \"2h\" or \"7d\"", s)
}

// MarshalText writes the text form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}
