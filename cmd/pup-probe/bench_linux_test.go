package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// TestAcceptServer is no test: as a child of a benchmark it accepts and closes.
func TestAcceptServer(t *testing.T) {
	if os.Getenv("PUP_ACCEPT_SERVER") == "" {
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// accepting starts that server, in a process of its own: its CPU time is not
// ours.
func accepting(b *testing.B) (addr string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcceptServer$")
	cmd.Env = append(os.Environ(), "PUP_ACCEPT_SERVER=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
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
	program, addr := built(b), accepting(b)
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
// same however many there are. The reference is a bare loop of net.Dial.
func BenchmarkStream(b *testing.B) {
	program, addr := built(b), accepting(b)
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
	b.Run("reference dial", func(b *testing.B) {
		const n = 10_000
		start := processCPU(b)
		for b.Loop() {
			for range n {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		}
		b.ReportMetric(float64((processCPU(b)-start).Microseconds())/float64(b.N)/n, "cpu-us/target")
	})
}

// processCPU is the CPU time that this process has used.
func processCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
