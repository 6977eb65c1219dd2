package checks

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/probe"
)

// dnsAnswerer makes the answer to a question; nil says nothing.
type dnsAnswerer func(q *dns.Msg, overTCP bool) *dns.Msg

// dnsServe serves over UDP and TCP on one port of loopback until the test ends.
func dnsServe(t testing.TB, f dnsAnswerer) (addr string) {
	t.Helper()
	var pc net.PacketConn
	var ln net.Listener
	for pc == nil {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", ln.Addr().String()); err != nil {
			ln.Close()
		}
	}
	dnsRun(t, &dns.Server{PacketConn: pc}, f, false)
	dnsRun(t, &dns.Server{Listener: ln}, f, true)
	return ln.Addr().String()
}

func dnsRun(t testing.TB, s *dns.Server, f dnsAnswerer, overTCP bool) {
	started, done := make(chan struct{}), make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if m := f(q, overTCP); m != nil {
			w.WriteMsg(m)
		}
	})
	go func() { defer close(done); s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { s.Shutdown(); <-done })
}

func dnsRR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// dnsZone answers with the records of a zone, and with NXDOMAIN for names
// without any.
func dnsZone(records ...string) dnsAnswerer {
	var rrs []dns.RR
	for _, r := range records {
		rrs = append(rrs, dnsRR(r))
	}
	return func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		name, known := q.Question[0].Name, false
		for _, rr := range rrs {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			known = true
			switch t := rr.Header().Rrtype; {
			case t == q.Question[0].Qtype:
				m.Answer = append(m.Answer, rr)
			case t == dns.TypeCNAME:
				m.Answer = append(m.Answer, rr)
				name = rr.(*dns.CNAME).Target
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(1232, opt.Do())
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "6e7331"})
		}
		return m
	}
}

var dnsPlain = dnsZone(
	"alias.example.org. 30 CNAME www.example.org.", // before what it leads to
	"www.example.org. 60 A 192.0.2.1", "www.example.org. 90 A 192.0.2.2",
	"example.org. 60 MX 10 Mail.Example.Org.", "example.org. 60 MX 20 mail2.example.org.",
	`example.org. 60 TXT "v=spf1 " "mx -all"`, `quote.example.org. 60 TXT "say \"hi\"; \195\188"`,
	"example.org. 60 SOA ns1.example.org. host.example.org. 7 1 1 1 1",
	"_ldap._tcp.example.org. 60 SRV 1 2 389 www.example.org.",
	"1.2.0.192.in-addr.arpa. 60 PTR www.example.org.",
	"v6.example.org. 60 AAAA 2001:db8::1", `odd.example.org. 60 TYPE65280 \# 2 abcd`,
)

func TestDNS(t *testing.T) {
	addr := dnsServe(t, dnsPlain)
	for _, tt := range []struct {
		path, opt, want string
		facts           []string
	}{
		{"www.example.org", ``, "up", []string{
			"dns.rcode == 'NOERROR'", "dns.count == 2", "same(dns.answers, ['192.0.2.2','192.0.2.1'])", "dns.ttl_min_seconds == 60",
			"dns.ttl_max_seconds == 90", "dns.aa", "not dns.tc", "dns.server_id == 'ns1'", "dns.transport == 'udp'", "dns.edns", "dns.resent == 0",
			"dns.records[0].name == 'www.example.org'", "dns.name == 'www.example.org.'", "dns.type == 'A'",
		}},
		{"WWW.Example.ORG.", `"answers":["192.0.2.2","192.0.2.1"]`, "up", nil},
		{"www.example.org", `"answers":["192.0.2.1"]`, "down mismatch verify", []string{`error == 'www.example.org. A: unexpected "192.0.2.2"'`}},
		{"www.example.org", `"answers":["192.0.2.1","192.0.2.2","192.0.2.3"]`, "down mismatch verify", []string{`error == 'www.example.org. A: missing "192.0.2.3"'`}},
		{"www.example.org", `"answers":["192.0.2.1","192.0.2.66"]`, "down mismatch verify", []string{`error contains 'missing "192.0.2.66"; unexpected "192.0.2.2"'`}},
		{"www.example.org", `"contains":["192.0.2.1"]`, "up", nil},
		{"www.example.org", `"contains":["192.0.2.3"]`, "down mismatch verify", nil},
		{"www.example.org", `"any":["192.0.2.3","192.0.2.2"]`, "up", nil},
		{"www.example.org", `"any":["192.0.2.3"]`, "down mismatch verify", nil},
		{"www.example.org", `"none":["192.0.2.3"]`, "up", nil},
		{"www.example.org", `"none":["192.0.2.2"]`, "down mismatch verify", []string{`error contains 'unwanted "192.0.2.2"'`}},
		{"www.example.org", `"networks":["192.0.2.0/24"]`, "up", nil},
		{"www.example.org", `"networks":["192.0.2.1"]`, "down mismatch verify", []string{`error contains 'outside of the networks "192.0.2.2"'`}},
		{"alias.example.org", ``, "up", []string{"dns.aliases == ['www.example.org']", "dns.count == 2", "dns.ttl_min_seconds == 30"}},
		{"example.org", `"type":"MX","answers":["20 MAIL2.example.org","10 mail.example.org."]`, "up", nil},
		{"example.org", `"type":"MX","answers":["10 mail2.example.org","10 mail.example.org."]`, "down mismatch verify", nil},
		{"example.org", `"type":"TXT","answers":["v=spf1 mx -all"]`, "up", []string{"dns.answers == ['v=spf1 mx -all']"}},
		{"example.org", `"type":"TXT","answers":["\"v=spf1 mx\" \" -all\""]`, "up", nil},
		{"example.org", `"type":"TXT","answers":["V=spf1 mx -all"]`, "down mismatch verify", nil},
		{"quote.example.org", `"type":"TXT","answers":["say \"hi\"; ü"]`, "up", []string{`dns.answers == ['say "hi"; ü']`}},
		{"example.org", `"type":"soa"`, "up", []string{"dns.serial == 7"}},
		{"_ldap._tcp.example.org", `"type":"SRV","answers":["1 2 389 www.example.org"]`, "up", nil},
		{"192.0.2.1", `"answers":["www.example.org"]`, "up", []string{"dns.type == 'PTR'", "dns.name == '1.2.0.192.in-addr.arpa.'"}},
		{"v6.example.org", `"type":"AAAA","answers":["2001:DB8:0::1"],"networks":["2001:db8::/32"]`, "up", nil},
		{"odd.example.org", `"type":"TYPE65280","answers":["\\# 2 ABCD"]`, "up", nil},
		{"example.org", ``, "down mismatch verify", []string{"error == 'example.org. has no A record'", "dns.count == 0"}},
		{"example.org", `"answers":[]`, "up", []string{"dns.count == 0"}},
		{"www.example.org", `"answers":[]`, "down mismatch verify", nil},
		{"nope.example.org", ``, "down mismatch verify", []string{"dns.rcode == 'NXDOMAIN'", "error == 'nope.example.org. A: got NXDOMAIN, want NOERROR'"}},
		{"nope.example.org", `"rcode":"nxdomain"`, "up", nil},
		{"www.example.org", `"rcode":"NXDOMAIN"`, "down mismatch verify", nil},
		{"www.example.org", `"authoritative":true`, "up", nil},
		{"www.example.org", `"edns":false`, "up", []string{"dns.edns == nil"}},
		{"www.example.org", `"type":"NOPE"`, "unknown options prepare", nil},
		{"www.example.org", `"rcode":"NOPE"`, "unknown options prepare", nil},
		{"www.example.org", `"class":"XX"`, "unknown options prepare", nil},
		{"www.example.org", `"answers":["not an address"]`, "unknown options prepare", nil},
		{"www.example.org", `"answers":["192.0.2.1\n$INCLUDE /etc/passwd"]`, "unknown options prepare", nil},
		{"www.example.org", `"type":"ANY","answers":["192.0.2.1"]`, "unknown options prepare", nil},
		{"www.example.org", `"networks":["x"]`, "unknown options prepare", nil},
		{"www.example.org", `"ds":["1 2 3 44"]`, "unknown options prepare", nil},
		{"www.example.org", `"serial":"agree","type":"A"`, "unknown options prepare", nil},
		{"a..b", ``, "unknown options prepare", nil},
		{"www.example.org", `"verify":true`, "down mismatch verify", []string{"error contains 'no signatures'", "not dns.verified"}},
	} {
		t.Run(tt.path+" "+tt.opt, func(t *testing.T) {
			check(t, "dns://"+addr+"/"+tt.path, `"dns":{`+tt.opt+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

func TestDNSRcodes(t *testing.T) {
	for _, tt := range []struct {
		rcode int
		want  string
	}{
		{dns.RcodeServerFailure, "down unavailable verify"},
		{dns.RcodeRefused, "down denied verify"},
		{dns.RcodeFormatError, "down mismatch verify"},
		{dns.RcodeNotImplemented, "down mismatch verify"},
		{dns.RcodeBadVers, "down mismatch verify"},
	} {
		addr := dnsServe(t, func(q *dns.Msg, _ bool) *dns.Msg {
			m := new(dns.Msg).SetRcode(q, tt.rcode)
			if m.Rcode > 15 {
				m.SetEdns0(1232, false)
			}
			return m
		})
		check(t, "dns://"+addr+"/www.example.org", "").want(t, tt.want, "dns.rcode == '"+dnsmsg.Rcode(tt.rcode)+"'")
	}
	bogus := dnsServe(t, func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSignatureExpired})
		return m
	})
	check(t, "dns://"+bogus+"/www.example.org", "").want(t, "down unavailable verify", "dns.extended_error == 'Signature Expired'")
	referral := dnsServe(t, func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Ns = []dns.RR{dnsRR("example.org. 60 NS ns1.example.org.")}
		return m
	})
	check(t, "dns://"+referral+"/www.example.org", "").want(t, "down mismatch verify", "error contains 'refers to other servers'")
}

// A server without EDNS is asked again without it.
func TestDNSWithoutEDNS(t *testing.T) {
	addr := dnsServe(t, func(q *dns.Msg, overTCP bool) *dns.Msg {
		if q.IsEdns0() != nil {
			m := new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
			m.Question = nil
			return m
		}
		return dnsPlain(q, overTCP)
	})
	check(t, "dns://"+addr+"/www.example.org", "").want(t, "up", "dns.edns == false", "dns.count == 2")
}

func TestDNSTransports(t *testing.T) {
	cut := func(q *dns.Msg, overTCP bool) *dns.Msg {
		m := dnsPlain(q, overTCP)
		if !overTCP {
			m.Answer, m.Truncated = nil, true
		}
		return m
	}
	addr := dnsServe(t, cut)
	check(t, "dns://"+addr+"/www.example.org", "").want(t, "up", "dns.tc", "dns.transport == 'tcp'", "dns.count == 2", "ms.transfer >= 0")
	check(t, "dns+tcp://"+addr+"/www.example.org", "").want(t, "up", "not dns.tc", "dns.transport == 'tcp'", "dns.count == 2")

	udpOnly := serveUDP(t, func(b []byte) [][]byte { return [][]byte{dnsPack(cut(dnsUnpack(b), false))} })
	check(t, "dns://"+udpOnly+"/www.example.org", "").want(t, "down refused connect", "error contains 'the answer over UDP is truncated, and over TCP'")

	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
	if err != nil {
		t.Fatal(err)
	}
	dnsRun(t, &dns.Server{Listener: ln, Net: "tcp-tls"}, dnsPlain, true)
	check(t, "dns+tls://"+ln.Addr().String()+"/www.example.org", trustTestCA()).want(t, "up", "dns.transport == 'tls'", "tls.verified", "dns.count == 2")
	check(t, "dns+tls://"+ln.Addr().String()+"/www.example.org", "").want(t, "down certificate-untrusted tls")
}

func dnsUnpack(b []byte) *dns.Msg {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		panic(err)
	}
	return m
}

func dnsPack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// dnsDoH is a DoH server that misbehaves as the path says.
func dnsDoH(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	q := dnsUnpack(b)
	answer := dnsPack(dnsPlain(q, true))
	w.Header().Set("Content-Type", "application/dns-message")
	switch r.URL.Path {
	case "/dns-query":
		if q.Id != 0 || r.Method != "POST" || r.Header.Get("Content-Type") != "application/dns-message" {
			w.WriteHeader(400)
			return
		}
	case "/html":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		answer = []byte("<html>")
	case "/denied":
		w.WriteHeader(403)
	case "/busy":
		w.WriteHeader(503)
	case "/garbage":
		answer = []byte("garbage, and more of it")
	case "/large":
		answer = make([]byte, 1<<17)
	default:
		w.WriteHeader(404)
	}
	w.Write(answer)
}

func TestDNSOverHTTPS(t *testing.T) {
	for _, version := range []string{"h2", "http/1.1"} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(dnsDoH))
		srv.EnableHTTP2 = version == "h2"
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{testCA().leaf}}
		srv.StartTLS()
		t.Cleanup(srv.Close)
		url := "dns+https://" + srv.Listener.Addr().String() + "/www.example.org"
		for _, tt := range []struct{ path, want string }{
			{"/dns-query", "up"},
			{"/html", "down protocol transfer"},
			{"/denied", "down denied transfer"},
			{"/busy", "down unavailable transfer"},
			{"/garbage", "down protocol transfer"},
			{"/large", "down too-large transfer"},
			{"/nope", "down protocol transfer"},
			{"nope", "unknown options prepare"},
		} {
			t.Run(version+tt.path, func(t *testing.T) {
				res := check(t, url, trustTestCA()+`,"dns":{"path":"`+tt.path+`"}`)
				res.want(t, tt.want)
				if tt.want == "up" {
					res.want(t, "up", "dns.transport == 'https'", "dns.count == 2", "tls.alpn == '"+version+"'")
				}
			})
		}
	}
}

// dnsLiars answer over UDP with what is no answer.
var dnsLiars = []struct {
	name, want, text string
	reply            func(b []byte) [][]byte
}{
	{"silent", "down timeout wait", "no answer within", func([]byte) [][]byte { return nil }},
	{"echo", "down timeout wait", "a query, not a response", func(b []byte) [][]byte { return [][]byte{b} }},
	{"empty", "down timeout wait", "the last is empty", func([]byte) [][]byte { return [][]byte{{}} }},
	{"garbage", "down timeout wait", "5 bytes are no DNS message", func([]byte) [][]byte { return [][]byte{[]byte("hello")} }},
	{"text", "down timeout wait", "identifier", func([]byte) [][]byte { return [][]byte{[]byte("SSH-2.0-OpenSSH_9.2\r\n")} }},
	{"another identifier", "down timeout wait", "identifier", dnsReplied(func(m *dns.Msg) { m.Id++ })},
	{"another question", "down timeout wait", "another question", dnsReplied(func(m *dns.Msg) { m.Question[0].Name = "evil.example.org." })},
	{"another type", "down timeout wait", "another question", dnsReplied(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX })},
	{"no question", "down timeout wait", "another question", dnsReplied(func(m *dns.Msg) { m.Question = nil })},
	{"another opcode", "down timeout wait", "opcode", dnsReplied(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })},
	{"cut off", "down protocol wait", "no whole DNS message", func(b []byte) [][]byte {
		a := dnsPack(dnsPlain(dnsUnpack(b), false))
		return [][]byte{a[:len(a)-20]}
	}},
	{"compression loop", "down protocol wait", "no whole DNS message", func(b []byte) [][]byte {
		a := bytes.Clone(b)
		a[2] |= 0x80
		a[7] = 1 // an answer, whose name points to itself
		n := len(dnsPack(&dns.Msg{Question: dnsUnpack(b).Question}))
		return [][]byte{append(a[:n:n], 0xc0, byte(n), 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4)}
	}},
}

func dnsReplied(change func(m *dns.Msg)) func(b []byte) [][]byte {
	return func(b []byte) [][]byte {
		m := dnsPlain(dnsUnpack(b), false)
		m.Question = append([]dns.Question{}, m.Question...)
		change(m)
		return [][]byte{dnsPack(m)}
	}
}

func TestDNSLiars(t *testing.T) {
	for _, l := range dnsLiars {
		t.Run(l.name, func(t *testing.T) {
			res := check(t, "dns://"+serveUDP(t, l.reply)+"/www.example.org", `"timeout":"300ms"`)
			res.want(t, l.want)
			if text := fmt.Sprint(res.vars["error"]); !strings.Contains(text, l.text) {
				t.Errorf("got error %q, want %q in it", text, l.text)
			}
		})
		t.Run(l.name+" and then the truth", func(t *testing.T) {
			if strings.Contains(l.want, "protocol") {
				return
			}
			addr := serveUDP(t, func(b []byte) [][]byte {
				return append(l.reply(b), dnsPack(dnsPlain(dnsUnpack(b), false)))
			})
			check(t, "dns://"+addr+"/www.example.org", "").want(t, "up", "dns.count == 2")
		})
	}
	t.Run("refused", func(t *testing.T) {
		check(t, "dns://"+realserver.ClosedPort(t)+"/www.example.org", "").want(t, "down refused wait")
	})
	t.Run("lost once", func(t *testing.T) {
		var n atomic.Int32
		addr := serveUDP(t, func(b []byte) [][]byte {
			if n.Add(1) == 1 {
				return nil
			}
			return [][]byte{dnsPack(dnsPlain(dnsUnpack(b), false))}
		})
		check(t, "dns://"+addr+"/www.example.org", "").want(t, "up", "dns.resent == 1")
	})
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		addr := serveUDP(t, func([]byte) [][]byte { cancel(); return nil })
		checkContext(t, ctx, probe.NewRunner(All()), "dns://"+addr+"/www.example.org", "").want(t, "unknown canceled wait")
	})
}

// dnsSigned signs the answers of a zone with one key, as the change says.
type dnsSigned struct {
	zone   string
	key    *dns.DNSKEY
	signer crypto.Signer
	from   time.Time
	until  time.Time
	tamper func(m *dns.Msg)
}

func newDNSSigned(t *testing.T, zone string) *dnsSigned {
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	priv, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return &dnsSigned{zone: zone, key: k, signer: priv.(crypto.Signer), from: time.Now().Add(-time.Hour), until: time.Now().Add(72 * time.Hour)}
}

func (z *dnsSigned) answer(q *dns.Msg, overTCP bool) *dns.Msg {
	m := dnsPlain(q, overTCP)
	if q.Question[0].Qtype == dns.TypeDNSKEY {
		m.Rcode, m.Answer = 0, []dns.RR{z.key}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{dnsRR("example.org. 60 SOA ns1.example.org. host.example.org. 7 1 1 1 1")}
	}
	if q.IsEdns0() == nil || !q.IsEdns0().Do() {
		return m
	}
	m.Answer, m.Ns = z.sign(m.Answer), z.sign(m.Ns)
	if z.tamper != nil && q.Question[0].Qtype != dns.TypeDNSKEY {
		z.tamper(m)
	}
	return m
}

func (z *dnsSigned) sign(section []dns.RR) []dns.RR {
	for _, set := range dnsSets(section) {
		sig := &dns.RRSIG{Inception: uint32(z.from.Unix()), Expiration: uint32(z.until.Unix()), KeyTag: z.key.KeyTag(), SignerName: z.zone, Algorithm: z.key.Algorithm}
		if err := sig.Sign(z.signer, set.rrs); err != nil {
			panic(err)
		}
		section = append(section, sig)
	}
	return section
}

func TestDNSSEC(t *testing.T) {
	far := func(z *dnsSigned, days int) { z.until = time.Now().Add(time.Duration(days) * 24 * time.Hour) }
	for _, tt := range []struct {
		name, path, opt string
		change          func(t *testing.T, z *dnsSigned)
		want, text      string
		facts           []string
	}{
		{"valid", "www.example.org", ``, nil, "up", "", []string{"dns.verified", "dns.signers == ['example.org']", "dns.rrsig_days_left > 2.9", "dns.rrsig_days_left < 3.1"}},
		{"alias", "alias.example.org", ``, nil, "up", "", []string{"dns.verified", "dns.count == 2"}},
		{"no data", "v6.example.org", `,"answers":[]`, nil, "up", "", []string{"dns.verified"}},
		{"absent", "nope.example.org", `,"rcode":"NXDOMAIN"`, nil, "up", "", []string{"dns.verified"}},
		{"ends soon", "www.example.org", ``, func(_ *testing.T, z *dnsSigned) { z.until = time.Now().Add(time.Hour) }, "degraded mismatch verify", "rrsig_days_left", nil},
		{"expired", "www.example.org", ``, func(_ *testing.T, z *dnsSigned) { far(z, -3) }, "down mismatch verify", "expired", []string{"dns.rrsig_days_left < -2.9", "not dns.verified"}},
		{"not yet", "www.example.org", ``, func(_ *testing.T, z *dnsSigned) { z.from = time.Now().Add(time.Hour) }, "down mismatch verify", "becomes valid only in", nil},
		{"changed", "www.example.org", ``, tampered(func(m *dns.Msg) {
			m.Answer[0] = dns.Copy(m.Answer[0])
			m.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 66)
		}), "down mismatch verify", "does not verify", nil},
		{"unsigned record added", "www.example.org", ``, tampered(func(m *dns.Msg) {
			m.Answer = append(m.Answer, dnsRR("www.example.org. 60 TXT x"))
		}), "down mismatch verify", "TXT has no signature", nil},
		{"of another zone", "www.example.org", ``, func(_ *testing.T, z *dnsSigned) { z.zone = "example.com."; z.key.Hdr.Name = "example.com." }, "down", "", nil},
		{"another key", "www.example.org", ``, func(t *testing.T, z *dnsSigned) {
			other := newDNSSigned(t, z.zone)
			z.signer = other.signer
		}, "down mismatch verify", "does not verify", nil},
		{"right ds", "www.example.org", `,"ds":["1 2 2 00","DS"]`, nil, "up", "", nil},
		{"wrong ds", "www.example.org", `,"ds":["1 13 2 00"]`, nil, "down certificate-untrusted verify", "none of its 1 keys", nil},
		{"bad ds", "www.example.org", `,"ds":["x"]`, nil, "unknown options verify", "no DS record", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newDNSSigned(t, "example.org.")
			if tt.change != nil {
				tt.change(t, z)
			}
			opt := strings.ReplaceAll(tt.opt, "DS", strings.TrimPrefix(z.key.ToDS(dns.SHA256).String(), z.key.ToDS(dns.SHA256).Hdr.String()))
			res := check(t, "dns://"+dnsServe(t, z.answer)+"/"+tt.path, `"dns":{"verify":true`+opt+`}`)
			if !strings.HasPrefix(res.outcome(), tt.want) {
				t.Errorf("got %q, want %q\n%s", res.outcome(), tt.want, res.line)
			}
			if text := fmt.Sprint(res.vars["error"]); !strings.Contains(text, tt.text) && tt.text != "" {
				t.Errorf("got error %q, want %q in it", text, tt.text)
			}
			res.want(t, res.outcome(), tt.facts...)
		})
	}
}

func tampered(f func(m *dns.Msg)) func(*testing.T, *dnsSigned) {
	return func(_ *testing.T, z *dnsSigned) { z.tamper = f }
}

// The zone's servers are on several addresses of loopback, on one port.
func TestDNSSerial(t *testing.T) {
	soa := func(serial uint32) dnsAnswerer {
		return dnsZone("z.test. 60 NS ns1.z.test.", "z.test. 60 NS ns2.z.test.",
			fmt.Sprintf("z.test. 60 SOA ns1.z.test. h.z.test. %d 1 1 1 1", serial))
	}
	glue := func(f dnsAnswerer) dnsAnswerer {
		return func(q *dns.Msg, overTCP bool) *dns.Msg {
			m := f(q, overTCP)
			if q.Question[0].Qtype == dns.TypeNS {
				m.Extra = append(m.Extra, dnsRR("ns1.z.test. 60 A 127.0.0.1"), dnsRR("ns2.z.test. 60 A 127.0.0.2"))
			}
			return m
		}
	}
	lame := func(q *dns.Msg, overTCP bool) *dns.Msg {
		m := soa(7)(q, overTCP)
		m.Authoritative = false
		return m
	}
	rcode := func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) }
	for _, tt := range []struct {
		name   string
		first  uint32
		second dnsAnswerer // nil: nothing listens
		opt    string
		want   string
		facts  []string
	}{
		{"agree", 7, soa(7), "", "up", []string{"dns.serial == 7", "dns.serial_lag == 0", "len(dns.servers) == 2", "dns.servers[1].address == '127.0.0.2'", "dns.servers[1].serial == 7", "dns.count == 2"}},
		{"names of the servers", 7, soa(7), `,"answers":["ns1.z.test","ns2.z.test"]`, "up", nil},
		{"wrong names", 7, soa(7), `,"answers":["ns1.z.test"]`, "down mismatch verify", nil},
		{"behind", 9, soa(7), "", "down mismatch verify", []string{"dns.serial_lag == 2", "error contains 'ns2.z.test (127.0.0.2): serial 7 lies 2 behind 9'"}},
		{"allowed lag", 9, soa(7), `,"max_serial_lag":2`, "up", []string{"dns.serial == 9"}},
		{"round the corner", 1, soa(4294967295), `,"max_serial_lag":1`, "down mismatch verify", []string{"dns.serial == 1", "dns.serial_lag == 2"}},
		{"lame", 7, lame, "", "down mismatch verify", []string{"error contains 'not authoritative'"}},
		{"refuses", 7, rcode, "", "down unavailable verify", []string{"error contains 'REFUSED'"}},
		{"silent", 7, func(*dns.Msg, bool) *dns.Msg { return nil }, `},"timeout":"500ms","labels":{`, "down timeout verify", []string{"error contains '(127.0.0.2): no answer'", "dns.serial == 7"}},
		{"gone", 7, nil, "", "down refused verify", []string{"error contains '(127.0.0.2): connection refused'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := dnsServe(t, glue(soa(tt.first)))
			if tt.second != nil {
				pc, err := net.ListenPacket("udp", strings.Replace(addr, "127.0.0.1", "127.0.0.2", 1))
				if err != nil {
					t.Fatal(err)
				}
				dnsRun(t, &dns.Server{PacketConn: pc}, tt.second, false)
			}
			check(t, "dns://"+addr+"/z.test", `"dns":{"serial":"agree"`+tt.opt+`}`).want(t, tt.want, tt.facts...)
		})
	}
}

// What is read as data of a record is written so that it is read the same.
func FuzzDNSWanted(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "10 mail.example.org", "v=spf1 -all", `"a" "b\"c"`, `\# 2 abcd`} {
		for _, t := range []uint16{dns.TypeA, dns.TypeMX, dns.TypeTXT, dns.TypeCAA, 65280} {
			f.Add(t, s)
		}
	}
	f.Fuzz(func(t *testing.T, qtype uint16, s string) {
		rr, err := dnsWanted(qtype, s)
		if err != nil || rr.Header().Rrtype != qtype {
			return
		}
		if !dnsEqual(rr, rr) {
			t.Errorf("%q of type %s does not equal itself", s, dnsType(qtype))
		}
		if dnsIsText(qtype) && !strings.HasPrefix(s, `"`) && dnsData(rr) != s {
			t.Errorf("the text %q is read as %q", s, dnsData(rr))
		}
	})
}

func FuzzDNSEscape(f *testing.F) {
	f.Add("a\"\\\x00ü")
	f.Fuzz(func(t *testing.T, s string) {
		if got := dnsUnescape(dnsEscape(s)); got != s {
			t.Errorf("%q comes back as %q", s, got)
		}
	})
}

// TestDNSReal asks real servers: Knot, of which the third is out of step, and
// BIND as a validating resolver.
func TestDNSReal(t *testing.T) {
	k := realserver.Shared(t, "knot")
	ns1, ns3, resolver := k["ns1"], k["ns3"], k["resolver"]
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"authoritative", "dns://" + ns1 + "/www.example.test", `"dns":{"recursion":false,"authoritative":true,"answers":["192.0.2.2","192.0.2.1"]}`, "up", []string{"dns.aa", "not dns.ra"}},
		{"alias", "dns://" + ns1 + "/alias.example.test", ``, "up", []string{"dns.aliases == ['www.example.test']"}},
		{"wildcard", "dns://" + ns1 + "/x.wild.example.test", `"dns":{"verify":true}`, "up", nil},
		{"large", "dns://" + ns1 + "/large.plain.test", `"dns":{"type":"TXT"}`, "up", []string{"dns.tc", "dns.transport == 'tcp'", "dns.count == 20"}},
		{"SPF", "dns://" + ns1 + "/plain.test", `"dns":{"type":"TXT","answers":["v=spf1 mx -all"]}`, "up", nil},
		{"another zone", "dns://" + ns1 + "/www.example.net", ``, "down denied verify", []string{"dns.rcode == 'REFUSED'"}},
		{"nothing", "dns://" + ns1 + "/nope.example.test", `"dns":{"rcode":"NXDOMAIN","verify":true}`, "up", []string{"dns.verified"}},
		{"signed", "dns://" + ns1 + "/www.example.test", `"dns":{"verify":true}`, "up", []string{"dns.verified", "dns.rrsig_days_left > 10"}},
		{"signed and anchored", "dns://" + ns1 + "/www.example.test", `"dns":{"verify":true,"ds":["` + dnsDS(k, "example") + `"]}`, "up", nil},
		{"anchored elsewhere", "dns://" + ns1 + "/www.example.test", `"dns":{"verify":true,"ds":["` + dnsDS(k, "expiring") + `"]}`, "down certificate-untrusted verify", nil},
		{"unsigned", "dns://" + ns1 + "/www.plain.test", `"dns":{"verify":true}`, "down mismatch verify", []string{"error contains 'no signatures'"}},
		{"expiring", "dns://" + ns1 + "/www.expiring.test", `"dns":{"dnssec":true},"warn":["dns.rrsig_days_left > 5"]`, "degraded mismatch verify", nil},
		{"expired", "dns://" + ns1 + "/www.expired.test", `"dns":{"verify":true}`, "down mismatch verify", []string{"error contains 'expired'"}},
		{"bogus", "dns://" + ns1 + "/www.bogus.test", `"dns":{"verify":true}`, "down mismatch verify", []string{"error contains 'does not verify'"}},
		{"validated", "dns://" + resolver + "/www.example.test", `"dns":{"verify":true},"expect":["dns.ad"]`, "up", []string{"dns.ra"}},
		{"not validated", "dns://" + resolver + "/www.plain.test", `"expect":["dns.ad"]`, "down mismatch verify", nil},
		{"resolver on bogus", "dns://" + resolver + "/www.bogus.test", ``, "down unavailable verify", nil},
		{"resolver on bogus unchecked", "dns://" + resolver + "/www.bogus.test", `"dns":{"checking_disabled":true}`, "up", nil},
		{"over TLS", "dns+tls://" + k["resolver_dot"] + "/www.example.test", dnsTrust(k), "up", []string{"tls.verified"}},
		{"over HTTPS", "dns+https://" + strings.TrimSuffix(strings.TrimPrefix(k["resolver_doh"], "https://"), "/dns-query") + "/www.example.test", dnsTrust(k), "up", []string{"tls.alpn == 'h2'", "dns.transport == 'https'"}},
		{"TLS to another service", "dns+tls://" + ns1 + "/www.example.test", `"timeout":"1s"`, "down", nil},
		{"serials", "dns://" + ns1 + "/plain.test", `"dns":{"serial":"agree","answers":["ns1.plain.test","ns2.plain.test"]}`, "up", []string{"len(dns.servers) == 2"}},
		{"serials out of step", "dns://" + ns1 + "/example.test", `"dns":{"serial":"agree"}`, "down mismatch verify", []string{"dns.serial_lag > 0", "error contains 'ns3.example.test'"}},
		{"out of step itself", "dns://" + ns3 + "/example.test", `"dns":{"type":"SOA"},"expect":["dns.serial >= 2026010101"]`, "down mismatch verify", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.url, tt.target)
			if !strings.HasPrefix(res.outcome(), tt.want) {
				t.Errorf("got %q, want %q\n%s", res.outcome(), tt.want, res.line)
			}
			res.want(t, res.outcome(), tt.facts...)
		})
	}
}

// dnsDS is the DS record of a zone, as its parent would have it.
func dnsDS(k map[string]string, zone string) string {
	_, ds, _ := strings.Cut(k["ds_"+zone], " DS ")
	return ds
}

// The data of an address is written without the library, and as the library
// writes it.
func TestDNSData(t *testing.T) {
	for _, data := range []string{"A 192.0.2.1", "AAAA 2001:db8::1", "AAAA ::ffff:192.0.2.1", "AAAA ::", "MX 10 mail.example.org.", "CAA 0 issue \"ca.example.org\""} {
		rr := dnsRR("www.example.org. 60 " + data)
		_, want, _ := strings.Cut(data, " ")
		if got := dnsData(rr); got != want || !strings.HasSuffix(rr.String(), "\t"+want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := dnsData(&dns.A{}); got != "" {
		t.Errorf("no address: got %q", got)
	}
}

func dnsTrust(k map[string]string) string { return fmt.Sprintf(`"tls":{"ca":%q}`, k["ca"]) }

// TestDNSRealTrouble stops and kills real servers.
func TestDNSRealTrouble(t *testing.T) {
	k := realserver.Start(t, "knot")
	if _, err := exec.LookPath("knotd"); err != nil {
		t.Fatal(err)
	}
	realserver.Pause(t, k, "ns2")
	check(t, "dns://"+k["ns2"]+"/www.plain.test", `"timeout":"1s"`).want(t, "down timeout wait")
	check(t, "dns+tcp://"+k["ns2"]+"/www.plain.test", `"timeout":"1s"`).want(t, "down timeout wait")
	check(t, "dns://"+k["ns1"]+"/plain.test", `"dns":{"serial":"agree"},"timeout":"2s"`).want(t, "down timeout verify", "error contains 'ns2.plain.test (127.0.0.2): no answer'")
	realserver.Kill(t, k, "ns2")
	check(t, "dns://"+k["ns2"]+"/www.plain.test", "").want(t, "down refused wait")
	check(t, "dns+tcp://"+k["ns2"]+"/www.plain.test", "").want(t, "down refused connect")
	check(t, "dns://"+k["ns1"]+"/plain.test", `"dns":{"serial":"agree"}`).want(t, "down refused verify")
}

func BenchmarkDNS(b *testing.B) {
	addr := dnsServe(b, dnsPlain)
	r := probe.NewRunner(All())
	line := []byte(`{"url":"dns://` + addr + `/www.example.org"}`)
	b.ReportAllocs()
	for b.Loop() {
		j, err := r.Parse(line)
		if err != nil {
			b.Fatal(err)
		}
		j.Run(b.Context())
		if !bytes.Contains(j.Line, []byte(`"status":"up"`)) {
			b.Fatalf("%s", j.Line)
		}
	}
}
