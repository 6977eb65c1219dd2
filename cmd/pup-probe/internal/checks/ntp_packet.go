package checks

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
)

// An ntpPacket is the header of a packet (RFC 5905, section 7.3).
type ntpPacket struct {
	leap, version, mode     int
	stratum, poll           int
	precision               int // log2 of seconds
	rootDelay               time.Duration
	rootDispersion          time.Duration
	referenceID             [4]byte
	referenceTime           uint64
	originTime, receiveTime uint64
	transmitTime            uint64
}

const (
	ntpSize           = 48
	ntpClient         = 3
	ntpServerMode     = 4
	ntpUnsynchronized = 3 // leap indicator
	ntpMaxStratum     = 15
)

var ntpLeaps = [...]string{"none", "insert", "delete", "unsynchronized"}

// ntpRequest makes a request that tells nothing of us: its time stamp is a
// number that nobody can guess, and that the answer has to repeat.
func ntpRequest(version int) (b []byte, nonce uint64) {
	b = make([]byte, ntpSize)
	b[0] = byte(version<<3 | ntpClient)
	rand.Read(b[40:48]) // never fails
	return b, binary.BigEndian.Uint64(b[40:])
}

func ntpParse(b []byte) (n ntpPacket, err error) {
	if len(b) < ntpSize {
		return n, fmt.Errorf("of %d bytes, where NTP has %d or more", len(b), ntpSize)
	}
	n = ntpPacket{
		leap: int(b[0] >> 6), version: int(b[0] >> 3 & 7), mode: int(b[0] & 7),
		stratum: int(b[1]), poll: int(int8(b[2])), precision: int(int8(b[3])),
		rootDelay: ntpShort(b[4:]), rootDispersion: ntpShort(b[8:]), referenceID: [4]byte(b[12:]),
		referenceTime: binary.BigEndian.Uint64(b[16:]), originTime: binary.BigEndian.Uint64(b[24:]),
		receiveTime: binary.BigEndian.Uint64(b[32:]), transmitTime: binary.BigEndian.Uint64(b[40:]),
	}
	return n, nil
}

// ntpShort reads seconds with 16 bits behind the point.
func ntpShort(b []byte) time.Duration {
	return time.Duration(uint64(binary.BigEndian.Uint32(b)) * uint64(time.Second) >> 16)
}

// ntpDiff gives a-b. The time stamps begin again after 136 years, which the
// difference does not notice.
func ntpDiff(a, b uint64) time.Duration {
	d := int64(a - b)
	return time.Duration(d>>32)*time.Second + time.Duration(uint64(uint32(d))*uint64(time.Second)>>32)
}

const ntpEpoch = 2208988800 // seconds from 1900 to 1970

// ntpStamp makes a time stamp.
func ntpStamp(t time.Time) uint64 {
	return uint64(t.Unix()+ntpEpoch)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// answers says whether the packet answers our request.
func (n *ntpPacket) answers(nonce uint64) error {
	if n.mode != ntpServerMode {
		return datagram.Stray("of mode %d, where a server answers with mode %d", n.mode, ntpServerMode)
	}
	if n.originTime != nonce {
		return datagram.Stray("an answer to another question")
	}
	return nil
}

// kiss is the code of a kiss-o'-death, or "".
func (n *ntpPacket) kiss() string {
	if n.stratum != 0 {
		return ""
	}
	return n.ascii()
}

func (n *ntpPacket) ascii() string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, string(n.referenceID[:]))
}

// reference words the reference identifier.
func (n *ntpPacket) reference() string {
	if n.stratum <= 1 {
		return n.ascii()
	}
	return netip.AddrFrom4(n.referenceID).String()
}

// usable says why the server's time can't be used.
func (n *ntpPacket) usable() error {
	switch kiss := n.kiss(); {
	case n.stratum == 0 && (kiss == "DENY" || kiss == "RSTR"):
		return probe.Failf(wire.Denied, "the server sends us away: %s", kiss)
	case n.stratum == 0:
		return probe.Failf(wire.Unavailable, "the server gives no time: kiss code %.4q", kiss)
	case n.stratum > ntpMaxStratum:
		return probe.Failf(wire.Unavailable, "the server is not synchronized: stratum %d", n.stratum)
	case n.leap == ntpUnsynchronized:
		return probe.Failf(wire.Unavailable, "the server is not synchronized: leap indicator 3, stratum %d", n.stratum)
	case n.transmitTime == 0 || n.receiveTime == 0:
		return probe.Protocolf("the answer has no time stamp")
	case ntpDiff(n.transmitTime, n.receiveTime) < 0:
		return probe.Protocolf("the answer was sent before the question was received")
	case ntpDiff(n.transmitTime, n.referenceTime) < 0:
		return probe.Protocolf("the server's clock was set after it answered")
	}
	return nil
}

// An ntpSample is an answer and our times at both of its ends.
type ntpSample struct {
	ntpPacket
	sent, received time.Time
}

// offset is how far the server's clock is ahead of ours.
func (s *ntpSample) offset() time.Duration {
	there := ntpDiff(s.receiveTime, ntpStamp(s.sent))
	// our clock may be set in between, so the end is measured from the start
	back := ntpDiff(s.transmitTime, ntpStamp(s.sent.Add(s.received.Sub(s.sent))))
	return there/2 + back/2
}

// delay is the round trip without the time that the server took.
func (s *ntpSample) delay() time.Duration {
	return max(0, s.received.Sub(s.sent)-ntpDiff(s.transmitTime, s.receiveTime))
}
