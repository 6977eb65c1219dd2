package checks

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
	"time"

	"pup/cmd/pup-probe/internal/probe"
)

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
