package probe

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"
)

func icmpFor(dst string, raw bool) *ICMP {
	a := netip.MustParseAddr(dst)
	return &ICMP{
		dst: a, socket: &icmpSocket{route: icmpRoute{source: a}, raw: raw, id: 0x1234, owners: map[uint16]echoOwner{}},
		payload: append(make([]byte, 8), "token678 and more"...), echoes: make(chan Echo, maxEchoes),
	}
}

// deliver gives what of a message reaches c, which has sent request 7.
func (c *ICMP) deliver(b []byte, from netip.Addr) (Echo, bool) {
	c.socket.owners[7] = echoOwner{c, 1007}
	c.socket.deliver(b, from, 60, time.Time{})
	select {
	case e := <-c.echoes:
		return e, true
	default:
		return Echo{}, false
	}
}

// echo makes a message with our identifier and token.
func echo(kind byte, id, seq uint16, payload string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0}, id)
	return append(binary.BigEndian.AppendUint16(b, seq), payload...)
}

// about makes an error message about a request of ours to dst.
func about(kind, code byte, dst string, inner []byte) []byte {
	a := netip.MustParseAddr(dst)
	if a.Is6() {
		h := make([]byte, 40)
		h[0], h[6] = 0x60, 58
		copy(h[24:], a.AsSlice())
		return append(append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, h...), inner...)
	}
	h := make([]byte, 24) // with an option
	h[0], h[9] = 0x46, 1
	copy(h[16:], a.AsSlice())
	return append(append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, h...), inner...)
}

func TestICMPParse(t *testing.T) {
	const v4, v6, router = "192.0.2.1", "2001:db8::1", "198.51.100.1"
	token := "token678 and more"
	for _, tt := range []struct {
		name, dst, from string
		datagram        bool
		message         []byte
		want            string // trouble, or "answer", or "" if it is not for us
	}{
		{"answer", v4, v4, false, echo(0, 0x1234, 7, token), "answer"},
		{"answer to IPv6", v6, v6, false, echo(129, 0x1234, 7, token), "answer"},
		{"behind an IP header", v4, v4, true, append(append([]byte{0x45}, make([]byte, 19)...), echo(0, 1, 7, token)...), "answer"},
		{"identifier chosen by the kernel", v4, v4, true, echo(0, 99, 7, token), "answer"},
		{"another identifier", v4, v4, false, echo(0, 0x1235, 7, token), ""},
		{"another address", v4, router, false, echo(0, 0x1234, 7, token), ""},
		{"another program's payload", v4, v4, false, echo(0, 0x1234, 7, "token679 and more"), ""},
		{"cut", v4, v4, false, echo(0, 0x1234, 7, "token"), ""},
		{"another number", v4, v4, false, echo(0, 0x1234, 8, token), ""},
		{"short", v4, v4, false, []byte{0, 0, 0}, ""},
		{"our own request", v4, v4, false, echo(8, 0x1234, 7, token), ""},
		{"host unreachable", v4, router, false, about(3, 1, v4, echo(8, 0x1234, 7, "")), "host unreachable from " + router},
		{"unknown code", v4, router, false, about(3, 99, v4, echo(8, 0x1234, 7, "")), "destination unreachable from " + router},
		{"time exceeded", v4, router, false, about(11, 0, v4, echo(8, 0x1234, 7, "")), "time to live exceeded from " + router},
		{"error about another's request", v4, router, false, about(3, 1, v4, echo(8, 0x1235, 7, "")), ""},
		{"error about another address", v4, router, false, about(3, 1, "192.0.2.2", echo(8, 0x1234, 7, "")), ""},
		{"error about nothing", v4, router, false, []byte{3, 1, 0, 0, 0, 0, 0, 0}, ""},
		{"no route over IPv6", v6, "2001:db8::2", false, about(1, 0, v6, echo(128, 0x1234, 7, "")), "no route from 2001:db8::2"},
		{"too big over IPv6", v6, "2001:db8::2", false, about(2, 0, v6, echo(128, 0x1234, 7, "")), "packet too big from 2001:db8::2"},
		{"router advertisement", v6, "fe80::1", false, echo(134, 0, 7, token), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, ok := icmpFor(tt.dst, !tt.datagram).deliver(tt.message, netip.MustParseAddr(tt.from))
			got := e.Trouble
			if ok && got == "" {
				got = "answer"
			}
			if ok != (tt.want != "") || ok && (got != tt.want || e.Seq != 1007) {
				t.Errorf("got %q (%t), number %d, want %q", got, ok, e.Seq, tt.want)
			}
		})
	}
}

// The kernel passes what parse may take, and not what is sent to others, or
// asked of us.
func TestICMPFilter(t *testing.T) {
	head := append([]byte{0x46}, make([]byte, 23)...) // an IPv4 header with an option
	for _, tt := range []struct {
		dst     string
		message []byte
		want    bool
	}{
		{"192.0.2.1", echo(0, 0x1234, 7, "token"), true},
		{"192.0.2.1", echo(0, 0x1235, 7, "token"), false},
		{"192.0.2.1", echo(8, 0x1234, 7, "token"), false},
		{"192.0.2.1", about(3, 1, "192.0.2.1", nil), true},
		{"192.0.2.1", about(11, 0, "192.0.2.1", nil), true},
		{"192.0.2.1", about(12, 0, "192.0.2.1", nil), true},
		{"192.0.2.1", about(5, 0, "192.0.2.1", nil), false},
		{"2001:db8::1", echo(129, 0x1234, 7, "token"), true},
		{"2001:db8::1", echo(129, 0x1235, 7, "token"), false},
		{"2001:db8::1", echo(128, 0x1234, 7, "token"), false},
		{"2001:db8::1", about(1, 0, "2001:db8::1", nil), true},
		{"2001:db8::1", about(4, 0, "2001:db8::1", nil), true},
		{"2001:db8::1", echo(135, 0x1234, 7, "token"), false},
	} {
		k := icmpFor(tt.dst, true).socket
		k.assembled()
		vm, err := bpf.NewVM(k.filter())
		if err != nil {
			t.Fatal(err)
		}
		b := tt.message
		if k.route.source.Is4() {
			b = append(head[:24:24], b...)
		}
		if n, err := vm.Run(b); (n > 0) != tt.want || err != nil {
			t.Errorf("%s, % x: got %d, %v, want it passed: %t", tt.dst, tt.message, n, err, tt.want)
		}
	}
}

func TestChecksum(t *testing.T) {
	b, _ := hex.DecodeString("0001f203f4f5f6f7") // the example of RFC 1071, section 3
	if got := checksum(b); got != ^uint16(0xddf2) {
		t.Errorf("got %#x, want %#x", got, ^uint16(0xddf2))
	}
	b = append(b, 0x80)
	b = append(b, 0, byte(checksum(b)>>8), byte(checksum(b)))
	if got := checksum(b); got != 0 {
		t.Errorf("got %#x over data with its own checksum, want 0", got)
	}
}

// FuzzICMP: what is taken for an answer carries our token, and comes from the
// address that was asked.
func FuzzICMP(f *testing.F) {
	f.Add(echo(0, 0x1234, 7, "token678"), true)
	f.Add(about(3, 1, "192.0.2.1", echo(8, 0x1234, 7, "")), false)
	f.Fuzz(func(t *testing.T, b []byte, same bool) {
		from := netip.MustParseAddr("198.51.100.1")
		c := icmpFor("192.0.2.1", true)
		if same {
			from = c.dst
		}
		e, ok := c.deliver(b, from)
		if ok && e.Trouble == "" && (!same || !bytes.Contains(b, []byte("token678"))) {
			t.Errorf("took % x from %s for an answer", b, from)
		}
	})
}
