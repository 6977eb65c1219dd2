package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// built builds the program as it is shipped.
func built(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "pup-probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags=urfave_cli_no_docs,urfave_cli_no_suggest", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // to load a C library takes a millisecond
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// cpuTime runs a command and gives the CPU time that it took.
func cpuTime(b *testing.B, cmd *exec.Cmd) time.Duration {
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// BenchmarkStart is the CPU time from the program's start to one local TCP
// result, beside that of a program that does nothing.
func BenchmarkStart(b *testing.B) {
	program, addr := built(b), benchAddr(0, benchServer(b, "tcp", ""))
	for name, args := range map[string][]string{"one result": {program, "tcp://" + addr}, "reference true": {"/bin/true"}} {
		b.Run(name, func(b *testing.B) {
			var sum time.Duration
			for b.Loop() {
				sum += cpuTime(b, exec.Command(args[0], args[1:]...))
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/1000, "cpu-ms/op")
		})
	}
}

// BenchmarkStream pipes targets through the program: its peak memory is the
// same however many there are. The kernel tells it only of a process that
// lives; what it tells of one that has ended counts the parent, too, from which
// it was forked. So the input ends once all results are there.
//
// What a target costs is higher where there are more of them than ports: the
// kernel then looks for one among those of connections that have just ended.
func BenchmarkStream(b *testing.B) {
	program, addr := built(b), benchAddr(0, benchServer(b, "tcp", ""))
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var sum time.Duration
			peak := 0
			for b.Loop() {
				cmd := exec.Command(program, "--jobs", "64")
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
				go func() {
					bw := bufio.NewWriter(in)
					for i := range n {
						fmt.Fprintf(bw, `{"name":"t%d","url":"tcp://%s"}`+"\n", i, addr)
					}
					bw.Flush()
				}()
				results := bufio.NewReader(out)
				for range n {
					if _, err := results.ReadSlice('\n'); err != nil {
						b.Fatal(err)
					}
				}
				peak = max(peak, realserver.Memory(b, cmd.Process.Pid, "VmHWM"))
				in.Close()
				if err := cmd.Wait(); err != nil {
					b.Fatal(err)
				}
				sum += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/float64(n), "cpu-us/target")
			b.ReportMetric(float64(peak)/1024, "peak-MiB")
		})
	}
}
