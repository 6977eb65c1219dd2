package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// benchJobs is how many checks run at once, the program's and the reference's.
const benchJobs = 64

// A checkBench is an exchange that a check does, and the smallest program that
// does the same.
type checkBench struct {
	name     string
	server   string // the kind of benchServer
	target   string // members of the target; ADDR is the address, CAFILE the file of the authority
	checks   int    // in a block
	paths    []string
	exchange func(addr, path string, roots *x509.CertPool, buf []byte) error
}

var checkBenches = []checkBench{
	{"tcp", "tcp", `"url":"tcp://ADDR"`, 20_000, []string{""}, bareDial},
	{"redis", "redis", `"url":"redis://ADDR","redis":{"info":false}`, 20_000, []string{""}, barePing},
	{"http", "http", `"url":"http://ADDR/"`, 20_000, []string{"/"}, bareGet},
	{"http body", "http", `"url":"http://ADDR/","expect":["http.status == 200","http.body contains 'xx'"]`, 20_000, []string{"/"}, bareGet},
	{"http redirect", "http", `"url":"http://ADDR/r","expect":["http.status == 200","http.body contains 'xx'"]`, 10_000, []string{"/r", "/"}, bareGet},
	{"tls", "https", `"url":"tls://ADDR","tls":{"ca":"CAFILE"}`, 2000, []string{""}, bareHandshake},
	{"https", "https", `"url":"https://ADDR/","tls":{"ca":"CAFILE"}`, 2000, []string{"/"}, bareGetTLS},
}

// BenchmarkCheck measures the CPU time of the program, from its start to its
// end and from line to line through pipes, beside the smallest Go program that
// does the same exchanges, as many at once, and reads and writes no lines. They
// take turns in blocks; the servers are processes of their own, whose work
// counts for nobody. A TLS handshake is a full one, verified, without
// resumption.
func BenchmarkCheck(b *testing.B) {
	program := built(b)
	for _, bb := range checkBenches {
		b.Run(bb.name, func(b *testing.B) {
			ca := filepath.Join(b.TempDir(), "ca.pem")
			port := benchServer(b, bb.server, ca)
			var roots *x509.CertPool
			if text, err := os.ReadFile(ca); err == nil {
				roots = x509.NewCertPool()
				roots.AppendCertsFromPEM(text)
			}
			var ours, reference time.Duration
			checks := 0
			for b.Loop() {
				ours += benchProgram(b, program, strings.ReplaceAll(bb.target, "CAFILE", ca), port, bb.checks)
				reference += benchReference(b, &bb, port, roots)
				checks += bb.checks
			}
			b.ReportMetric(float64(ours.Microseconds())/float64(checks), "cpu-µs/check")
			b.ReportMetric(float64(reference.Microseconds())/float64(checks), "cpu-µs/reference")
			b.ReportMetric(float64(ours)/float64(reference), "ratio")
		})
	}
}

// benchHosts is how many addresses of the loopback the targets are spread over:
// with one, the kernel would soon look long for a port that is free.
const benchHosts = 32

func benchAddr(i int, port string) string { return fmt.Sprintf("127.0.0.%d:%s", 1+i%benchHosts, port) }

// benchProgram gives the CPU time of the program for n targets, all of which
// must be up.
func benchProgram(b *testing.B, program, target, port string, n int) time.Duration {
	cmd := exec.Command(program, "--jobs", fmt.Sprint(benchJobs))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, `{"name":"t%d",%s,"timeout":"5s"}`+"\n", i, strings.ReplaceAll(target, "ADDR", benchAddr(i, port)))
	}
	go func() {
		lines.WriteTo(in)
		in.Close()
	}()
	out := &upCounter{}
	cmd.Stdout = out
	cpu := cpuTime(b, cmd)
	if out.up != n {
		b.Fatalf("%d of %d are up, the last lines are %s", out.up, n, out.last)
	}
	return cpu
}

type upCounter struct {
	up   int
	last []byte
}

func (o *upCounter) Write(b []byte) (int, error) {
	o.up += bytes.Count(b, []byte("\n")) - bytes.Count(b, []byte(`"reason"`))
	o.last = append(o.last[:0], b...)
	return len(b), nil
}

// benchReference gives the CPU time that this process needs for a block.
func benchReference(b *testing.B, bb *checkBench, port string, roots *x509.CertPool) time.Duration {
	start := processCPU(b)
	var wg sync.WaitGroup
	errs := make([]error, benchJobs)
	work := make(chan int, benchJobs)
	for i := range benchJobs {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for n := range work {
				addr := benchAddr(n, port)
				for _, path := range bb.paths {
					if err := bb.exchange(addr, path, roots, buf); err != nil {
						errs[i] = err
					}
				}
			}
		})
	}
	for n := range bb.checks {
		work <- n
	}
	close(work)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	return processCPU(b) - start
}

// processCPU is the CPU time that this process has used.
func processCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func bareDial(addr, _ string, _ *x509.CertPool, _ []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// bareConn is a connection that gives up in time.
func bareConn(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(5 * time.Second))
	}
	return c, err
}

func barePing(addr, _ string, _ *x509.CertPool, buf []byte) error {
	c, err := bareConn(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "*1\r\n$4\r\nPING\r\n"); err != nil {
		return err
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "+PONG\r\n" {
		return fmt.Errorf("got %q, %v", buf[:n], err)
	}
	return nil
}

func bareGet(addr, path string, _ *x509.CertPool, buf []byte) error {
	c, err := bareConn(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return bareExchange(c, addr, path, buf)
}

func bareTLS(addr string, roots *x509.CertPool) (*tls.Conn, error) {
	c, err := bareConn(addr)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(addr)
	tc := tls.Client(c, &tls.Config{ServerName: host, RootCAs: roots})
	if err := tc.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return tc, nil
}

func bareHandshake(addr, _ string, roots *x509.CertPool, _ []byte) error {
	c, err := bareTLS(addr, roots)
	if err != nil {
		return err
	}
	return c.Close()
}

func bareGetTLS(addr, path string, roots *x509.CertPool, buf []byte) error {
	c, err := bareTLS(addr, roots)
	if err != nil {
		return err
	}
	defer c.Close()
	return bareExchange(c, addr, path, buf)
}

// bareExchange asks, reads to the end, and looks at status and body.
func bareExchange(c net.Conn, addr, path string, buf []byte) error {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\naccept: */*\r\nuser-agent: pup-probe\r\n\r\n", path, addr); err != nil {
		return err
	}
	n := 0
	for {
		k, err := c.Read(buf[n:])
		if n += k; err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	head, body, _ := bytes.Cut(buf[:n], []byte("\r\n\r\n"))
	switch {
	case path == "/r" && bytes.HasPrefix(head, []byte("HTTP/1.1 302 ")):
		return nil
	case !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || len(body) != benchBody || !bytes.Contains(body, []byte("xx")):
		return fmt.Errorf("got %q", buf[:n])
	}
	return nil
}

const (
	benchBody     = 200 // bytes
	benchPage     = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 200\r\nConnection: close\r\n\r\n"
	benchRedirect = "HTTP/1.1 302 Found\r\nServer: bench\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

// benchServer starts a server in a process of its own, which listens on the
// addresses that benchAddr gives. One of https writes the certificate of its
// authority to the file ca.
func benchServer(b *testing.B, kind, ca string) (port string) {
	return realserver.Own(b, "TestBenchServer", "PUP_BENCH_SERVER="+kind, "PUP_BENCH_CA="+ca)()
}

// TestBenchServer is no test: as a child of a benchmark it is the server, until
// its standard input ends.
func TestBenchServer(t *testing.T) {
	kind := os.Getenv("PUP_BENCH_SERVER")
	if kind == "" {
		return
	}
	port := "0"
	var listeners []net.Listener
	for i := range benchHosts {
		ln, err := net.Listen("tcp4", benchAddr(i, port))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(ln.Addr().String())
		listeners = append(listeners, ln)
	}
	serve := map[string]func(net.Conn){"tcp": func(net.Conn) {}, "redis": servePong, "http": servePage, "https": servePage}[kind]
	if kind == "https" {
		identity := benchIdentity(t, os.Getenv("PUP_BENCH_CA"))
		for i, ln := range listeners {
			listeners[i] = tls.NewListener(ln, identity)
		}
	}
	for _, ln := range listeners {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					panic(err)
				}
				go func() {
					defer c.Close()
					serve(c)
				}()
			}
		}()
	}
	fmt.Println(port)
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// servePong answers, and leaves it to the client to close, as redis does.
func servePong(c net.Conn) {
	buf := make([]byte, 64)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		io.WriteString(c, "+PONG\r\n")
	}
}

var benchAnswer = []byte(benchPage + strings.Repeat("x", benchBody-1) + "\n")

func servePage(c net.Conn) {
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	switch {
	case err != nil:
	case bytes.HasPrefix(buf[:n], []byte("GET /r")):
		io.WriteString(c, benchRedirect)
	default:
		c.Write(benchAnswer)
	}
}

// benchIdentity makes a chain of three certificates, as most servers have it,
// and writes the authority's to the file ca.
func benchIdentity(t *testing.T, ca string) *tls.Config {
	var chain [3][]byte
	var parent *x509.Certificate
	var parentKey, key *ecdsa.PrivateKey
	for i := range chain {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(1000 + i)), Subject: pkix.Name{Organization: []string{"bench"}, CommonName: fmt.Sprint("level ", i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
			BasicConstraintsValid: true, IsCA: i < 2, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if i == 0 {
			parent, parentKey = c, key
		}
		if !c.IsCA {
			for n := range benchHosts {
				c.IPAddresses = append(c.IPAddresses, net.IPv4(127, 0, 0, byte(1+n)))
			}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		if chain[i], err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey); err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(chain[i]); err != nil {
			t.Fatal(err)
		}
		parentKey = key
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{chain[2], chain[1]}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	}
}
