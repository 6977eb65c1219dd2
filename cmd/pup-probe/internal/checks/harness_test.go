package checks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pup/cmd/internal/expr"
	"pup/cmd/pup-probe/internal/probe"
)

// A talk is a conversation that a scripted server has with a check. Each line
// of the script is one of
//
//	C: text     the check must send this text and CRLF
//	C~ regexp   the check must send a line that matches
//	C. text     the check must send this text, without CRLF
//	Cx hex      the check must send these bytes (spaces are ignored)
//	S: text     the server sends this text and CRLF; with a backslash at the end, without CRLF
//	Sx hex      the server sends these bytes
//	! tls       the server starts TLS, with the certificate of testCA
//	! close     the server closes; ! reset resets; ! hang says nothing more
//	! end       the script ends at once, and the caller goes on with the connection
//
// At the end of the script the server reads until the check closes.
type talk struct {
	name   string
	target string   // more members of the target: `"redis":{"user":"u"},"timeout":"1s"`
	script string   // the conversation
	want   string   // status, and for trouble reason and phase: "down denied auth"
	facts  []string // expressions over the result that must hold
}

// talks runs the check of each talk against its server. URL has HOST in the
// place of the server's host and port: "redis://HOST/0".
func talks(t *testing.T, url string, list []talk) {
	t.Helper()
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) { play(t, c, tt.script) })
			res := check(t, strings.ReplaceAll(url, "HOST", addr), tt.target)
			res.want(t, tt.want, tt.facts...)
		})
	}
}

func play(t *testing.T, c net.Conn, script string) {
	raw, br := c, bufio.NewReader(c)
	var said []byte // lines of the server that come one after the other are one write
	say := func() {
		c.Write(said)
		said = said[:0]
	}
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		line = strings.TrimLeft(line, "\t")
		if line == "" {
			continue
		}
		op, text, _ := strings.Cut(line, " ")
		if op != "S:" && op != "Sx" && len(said) > 0 {
			say()
		}
		switch op {
		case "C:", "C~":
			got, err := br.ReadString('\n')
			got = strings.TrimRight(got, "\r\n")
			ok := got == text
			if op == "C~" {
				ok = regexp.MustCompile(text).MatchString(got)
			}
			if !ok {
				t.Errorf("the check sent %q, want %q (%v)", got, text, err)
				return
			}
		case "Cx", "C.":
			want := []byte(text)
			if op == "Cx" {
				want = unhex(text)
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the check sent % x, want % x (%v)", got, want, err)
				return
			}
		case "S:":
			text, cut := strings.CutSuffix(text, `\`)
			if !cut {
				text += "\r\n"
			}
			said = append(said, text...)
		case "Sx":
			said = append(said, unhex(text)...)
		case "!":
			switch text {
			case "close":
				// with bytes that nobody has read, the kernel would reset instead
				if tc, ok := c.(*tls.Conn); ok {
					tc.CloseWrite()
				}
				raw.(interface{ CloseWrite() error }).CloseWrite()
				io.Copy(io.Discard, br)
				return
			case "reset":
				c.(*net.TCPConn).SetLinger(0)
				return
			case "end":
				return
			case "hang":
			case "tls":
				tc := tls.Server(readConn{c, br}, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
				if err := tc.Handshake(); err != nil {
					return
				}
				c, br = tc, bufio.NewReader(tc)
			default:
				t.Errorf("no such step: %q", line)
			}
		default:
			t.Errorf("no such line in a script: %q", line)
		}
	}
	if len(said) > 0 {
		say()
	}
	io.Copy(io.Discard, br)
}

// readConn reads what a bufio.Reader has left.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// serve serves TCP connections on loopback until the test ends.
func serve(t testing.TB, f func(net.Conn)) (addr string) {
	t.Helper()
	return serveOn(t, "tcp", "127.0.0.1:0", f)
}

// serveOn is serve for any network and address.
func serveOn(t testing.TB, network, address string, f func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() { ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer c.Close(); f(c) })
		}
	})
	return ln.Addr().String()
}

// serveUDP answers datagrams on loopback until the test ends. F gives the
// datagrams to send back.
func serveUDP(t testing.TB, f func(b []byte) [][]byte) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range f(bytes.Clone(buf[:n])) {
				pc.WriteTo(b, from)
			}
		}
	}()
	return pc.LocalAddr().String()
}

// A result is a result line.
type result struct {
	line string
	vars map[string]any
}

var anyEnv = sync.OnceValue(func() *expr.Env { return probe.NewRunner(All()).Catalog.Env() })

// check runs a target and returns its result. Target has more members of the
// target line, or is empty.
func check(t testing.TB, url, target string) result {
	t.Helper()
	return checkContext(t, t.Context(), probe.NewRunner(All()), url, target)
}

func checkContext(t testing.TB, ctx context.Context, r *probe.Runner, url, target string) result {
	t.Helper()
	u, _ := json.Marshal(url)
	line := fmt.Sprintf(`{"name":"t","url":%s`, u)
	if target != "" {
		line += "," + target
	}
	if !strings.Contains(target, `"timeout"`) {
		line += `,"timeout":"5s"`
	}
	j, err := r.Parse([]byte(line + "}"))
	if err != nil {
		t.Fatalf("%s}: %v", line, err)
	}
	j.Run(ctx)
	vars, err := expr.Vars(j.Line)
	if err != nil {
		t.Fatalf("%s: %v", j.Line, err)
	}
	if len(j.Line)+1 > r.MaxRecord {
		t.Errorf("the result has %d bytes, more than %d", len(j.Line)+1, r.MaxRecord)
	}
	if i := bytes.IndexFunc(j.Line, unicode.IsControl); i >= 0 || !utf8.Valid(j.Line) {
		t.Errorf("the result has a control character, or is no UTF-8: %q", j.Line)
	}
	return result{string(j.Line), vars}
}

// outcome is status, reason and phase, without those that are absent.
func (r result) outcome() string {
	s := fmt.Sprint(r.vars["status"])
	for _, k := range []string{"reason", "phase"} {
		if v, ok := r.vars[k]; ok {
			s += " " + fmt.Sprint(v)
		}
	}
	return s
}

// want checks the outcome and expressions over the result.
func (r result) want(t testing.TB, outcome string, facts ...string) {
	t.Helper()
	if got := r.outcome(); got != outcome {
		t.Errorf("got %q, want %q\n%s", got, outcome, r.line)
	}
	for _, f := range facts {
		e, err := expr.Compile(f, anyEnv())
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := e.Eval(r.vars); !ok {
			t.Errorf("%s does not hold (%v)\n%s", f, err, r.line)
		}
	}
}

// secret puts a secret into the environment and gives the reference to it.
func secret(t testing.TB, name, value string) (ref string) {
	t.Helper()
	t.(interface{ Setenv(string, string) }).Setenv("PUP_"+name, value)
	return "${env:PUP_" + name + "}"
}

// authority is a certificate authority for tests.
type authority struct {
	file string // its certificate, in PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf tls.Certificate // for localhost and 127.0.0.1
}

var testCA = sync.OnceValue(func() *authority {
	dir, err := os.MkdirTemp("", "pup-ca")
	if err != nil {
		panic(err)
	}
	a := &authority{file: filepath.Join(dir, "ca.pem")}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	tmpl.Subject.CommonName = "pup test CA"
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		panic(err)
	}
	a.leaf = a.issue(nil)
	return a
})

// issue makes a certificate for localhost and 127.0.0.1 that is valid for 12
// hours, after change had its say.
func (a *authority) issue(change func(*x509.Certificate)) tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	tmpl.Subject.CommonName = "localhost"
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// trustTestCA is the member of a target that makes it trust testCA.
func trustTestCA() string { return fmt.Sprintf(`"tls":{"ca":%q}`, testCA().file) }

// at puts host and port into a check's example URL.
func at(example, addr string) string {
	u, err := url.Parse(example)
	if err != nil {
		panic(err)
	}
	u.Host = addr
	return u.String()
}
