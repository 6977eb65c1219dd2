package dnsmsg

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestNew(t *testing.T) {
	for _, o := range []Options{{}, {Recurse: true, EDNS: true}, {Checking: true, EDNS: true, DNSSEC: true, NSID: true}} {
		q, err := New("www.example.org.", dns.TypeMX, dns.ClassINET, o)
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(q.Wire); err != nil {
			t.Fatal(err)
		}
		opt := m.IsEdns0()
		if m.Id != q.ID || m.Response || m.RecursionDesired != o.Recurse || m.CheckingDisabled != o.Checking || !m.AuthenticatedData ||
			(opt != nil) != o.EDNS || len(m.Question) != 1 || m.Question[0] != (dns.Question{Name: "www.example.org.", Qtype: dns.TypeMX, Qclass: dns.ClassINET}) {
			t.Errorf("%+v: got %v", o, m)
		}
		if opt != nil && (opt.UDPSize() != UDPSize || opt.Do() != o.DNSSEC || (len(opt.Option) == 1) != o.NSID) {
			t.Errorf("%+v: got %v", o, opt)
		}
	}
	if _, err := New(strings.Repeat("a", 64)+".", dns.TypeA, dns.ClassINET, Options{}); err == nil {
		t.Error("a label of 64 bytes was taken")
	}
	if q, err := New(".", dns.TypeNS, dns.ClassINET, Options{EDNS: true}); err != nil || new(dns.Msg).Unpack(q.Wire) != nil {
		t.Errorf("the root: %v", err)
	}
}

func TestTCP(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTCP(&b, []byte("one"), nil, []byte("three")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "", "three"} {
		if got, err := ReadTCP(&b); string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for in, want := range map[string]error{"": io.EOF, "\x00": io.ErrUnexpectedEOF, "\x00\x02": io.ErrUnexpectedEOF, "\x00\x02a": io.ErrUnexpectedEOF} {
		if _, err := ReadTCP(strings.NewReader(in)); err != want {
			t.Errorf("%q: got %v, want %v", in, err, want)
		}
	}
}

func TestValid(t *testing.T) {
	for name, want := range map[string]bool{
		"www.example.org": true, "_a.b": true, strings.Repeat("a", 63): true, strings.Repeat("abc.", 63) + "a": true,
		"": false, ".a": false, "a..b": false, strings.Repeat("a", 64): false, strings.Repeat("abc.", 64): false, "bücher.de": false,
	} {
		if got := Valid(name) == nil; got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

// FuzzAnswer holds Answer to what keeps strangers out: it takes nothing that
// is no response, or that has another identifier or question.
func FuzzAnswer(f *testing.F) {
	q, err := New("www.example.org.", dns.TypeA, dns.ClassINET, Options{Recurse: true, EDNS: true})
	if err != nil {
		f.Fatal(err)
	}
	q.ID, q.Wire[0], q.Wire[1] = 0x1234, 0x12, 0x34
	asked := new(dns.Msg)
	if err := asked.Unpack(q.Wire); err != nil {
		f.Fatal(err)
	}
	m := new(dns.Msg).SetReply(asked)
	rr, _ := dns.NewRR("www.example.org. 60 A 192.0.2.1")
	m.Answer = []dns.RR{rr}
	b, _ := m.Pack()
	f.Add(b)
	f.Add(q.Wire)
	f.Add(b[:20])
	f.Add([]byte("\x12\x34\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := q.Answer(b)
		if errors.Is(err, ErrNotOurs) {
			return
		}
		if m == nil || m.Id != q.ID || !m.Response || m.Opcode != dns.OpcodeQuery {
			t.Fatalf("% x was taken as %v", b, m)
		}
		bare := len(m.Question) == 0 && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented)
		if !bare && !strings.EqualFold(m.Question[0].Name, q.Name) {
			t.Fatalf("% x was taken as %v", b, m)
		}
		Extended(m)
	})
}
