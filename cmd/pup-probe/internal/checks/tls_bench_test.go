package checks

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pup/cmd/pup-probe/internal/probe"
)

// BenchmarkTLS does a verified handshake, beside the smallest program that
// does the same. The server is a process of its own, so that its CPU time does
// not count (goal 2: at most 1.05 times).
func BenchmarkTLS(b *testing.B) {
	addr, ca := tlsBenchServer(b)
	b.Run("pup", func(b *testing.B) {
		r := probe.NewRunner(All())
		line := fmt.Appendf(nil, `{"name":"t","url":"tls://%s","tls":{"ca":%q},"timeout":"5s"}`, addr, ca)
		benchCPU(b, func() {
			j, err := r.Parse(line)
			if err != nil {
				b.Fatal(err)
			}
			if j.Run(b.Context()); j.Status != "up" {
				b.Fatalf("%s", j.Line)
			}
		})
	})
	b.Run("reference", func(b *testing.B) {
		pem, err := os.ReadFile(ca)
		if err != nil {
			b.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		benchCPU(b, func() {
			c, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err != nil {
				b.Fatal(err)
			}
			tc := tls.Client(c, &tls.Config{ServerName: "127.0.0.1", RootCAs: roots})
			if err := tc.Handshake(); err != nil {
				b.Fatal(err)
			}
			tc.Close()
		})
	})
}

// BenchmarkRoots reads the system's authorities for the first time in a
// process, beside what package x509 does (goal 2: at most 0.55 times). Each run
// is a process of its own.
func BenchmarkRoots(b *testing.B) {
	for _, way := range []string{"pup", "reference", "nothing"} {
		b.Run(way, func(b *testing.B) {
			var spent time.Duration
			for b.Loop() {
				cmd := exec.Command(os.Args[0], "-test.run=^TestTLSBenchRoots$")
				cmd.Env = append(os.Environ(), "PUP_BENCH_ROOTS="+way, "SSL_CERT_FILE=", "SSL_CERT_DIR=") // as most systems have it
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// TestTLSBenchRoots is the process that BenchmarkRoots measures. As a test it
// looks whether both ways find authorities.
func TestTLSBenchRoots(t *testing.T) {
	way := os.Getenv("PUP_BENCH_ROOTS")
	if way == "pup" || way == "" {
		if _, err := probe.SystemRoots(); err != nil {
			t.Error(err)
		}
	}
	if way == "reference" || way == "" {
		if _, err := x509.SystemCertPool(); err != nil {
			t.Error(err)
		}
	}
}

// TestTLSBenchServer is the server of BenchmarkTLS in a process of its own: it
// lives until its standard input ends.
func TestTLSBenchServer(t *testing.T) {
	dir := os.Getenv("PUP_BENCH_TLS")
	if dir == "" {
		return
	}
	root := (*tlsSigner)(nil).sign(t, tlsKey(), tlsAuthority)
	middle := root.sign(t, tlsKey(), tlsAuthority)
	cert := middle.sign(t, tlsKey(), nil).chain(middle)
	addr := tlsServe(t, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
	if err := os.Rename(tlsFile(t, root), dir+"/ca.pem"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/addr.new", []byte(addr), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Rename(dir+"/addr.new", dir+"/addr")
	os.Stdin.Read(make([]byte, 1))
}

func tlsBenchServer(b *testing.B) (addr, ca string) {
	dir := b.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTLSBenchServer$")
	cmd.Env = append(os.Environ(), "PUP_BENCH_TLS="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if a, err := os.ReadFile(dir + "/addr"); err == nil {
			return strings.TrimSpace(string(a)), dir + "/ca.pem"
		}
	}
	b.Fatal("the server does not start")
	return "", ""
}
