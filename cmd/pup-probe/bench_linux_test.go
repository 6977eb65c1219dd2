package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// built builds the program as it is shipped.
func built(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "pup-probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags=urfave_cli_no_docs,urfave_cli_no_suggest", "-o", program, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

func rusage(b *testing.B, cmd *exec.Cmd) (cpu time.Duration, peakKiB int64) {
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), u.Maxrss
}

// BenchmarkStart is the CPU time from the program's start to one local TCP
// result, beside that of a program that does nothing.
func BenchmarkStart(b *testing.B) {
	program, addr := built(b), benchAddr(0, benchServer(b, "tcp", ""))
	for name, args := range map[string][]string{"one result": {program, "tcp://" + addr}, "reference true": {"/bin/true"}} {
		b.Run(name, func(b *testing.B) {
			var sum time.Duration
			for b.Loop() {
				cpu, _ := rusage(b, exec.Command(args[0], args[1:]...))
				sum += cpu
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/1000, "cpu-ms/op")
		})
	}
}

// BenchmarkStream pipes targets through the program: its peak memory is the
// same however many there are.
func BenchmarkStream(b *testing.B) {
	program, addr := built(b), benchAddr(0, benchServer(b, "tcp", ""))
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var sum time.Duration
			var peak int64
			for b.Loop() {
				r, w := io.Pipe()
				go func() {
					bw := bufio.NewWriter(w)
					for i := range n {
						fmt.Fprintf(bw, `{"name":"t%d","url":"tcp://%s"}`+"\n", i, addr)
					}
					bw.Flush()
					w.Close()
				}()
				cmd := exec.Command(program, "--jobs", "64")
				cmd.Stdin = r
				cpu, kib := rusage(b, cmd)
				sum, peak = sum+cpu, max(peak, kib)
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/float64(n), "cpu-us/target")
			b.ReportMetric(float64(peak)/1024, "peak-MiB")
		})
	}
}
