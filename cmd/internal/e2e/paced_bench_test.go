package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	pacedRate = 1000 // checks a second
	pacedRun  = 5 * pacedRate
)

// BenchmarkPaced is the CPU time that pup-probe takes for a check when
// pup-sched paces a thousand of them a second, beside that for the same checks
// in a burst. An operation is five seconds of that, and the burst.
func BenchmarkPaced(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	config, targets := "[defaults]\nevery = \"1s\"\ntimeout = \"5s\"\n", ""
	for i := range pacedRate {
		config += fmt.Sprintf("[[target]]\nname = \"t%d\"\nurl = \"tcp://%s\"\n", i, ln.Addr())
		targets += fmt.Sprintf(`{"name":"t%d","url":"tcp://%s","timeout":"5s"}`+"\n", i, ln.Addr())
	}
	file := filepath.Join(b.TempDir(), "pup.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	var paced, burst time.Duration
	for b.Loop() {
		paced += pacedCPU(b, file)
		burst += burstCPU(b, strings.Repeat(targets, pacedRun/pacedRate))
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) / pacedRun }
	b.ReportMetric(each(paced), "cpu-us/paced")
	b.ReportMetric(each(burst), "cpu-us/burst")
	b.ReportMetric(each(paced)/each(burst), "ratio")
}

// pacedCPU runs pup-sched | pup-probe until there are so many results.
func pacedCPU(b *testing.B, file string) time.Duration {
	sched, probe := exec.Command(filepath.Join(bin, "pup-sched"), file), exec.Command(filepath.Join(bin, "pup-probe"))
	pipe, err := sched.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	probe.Stdin = pipe.(*os.File)
	out, err := probe.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{sched, probe} {
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
	}
	pipe.Close()
	ups := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if bytes.Contains(lines.Bytes(), []byte(`"status":"up"`)) {
			if ups++; ups == pacedRun {
				sched.Process.Signal(os.Interrupt)
			}
		}
	}
	if err := probe.Wait(); err != nil || ups < pacedRun {
		b.Fatalf("%d are up, %v", ups, err)
	}
	sched.Wait()
	cpu := probe.ProcessState.UserTime() + probe.ProcessState.SystemTime()
	return cpu * pacedRun / time.Duration(ups)
}

// burstCPU runs pup-probe on all targets at once.
func burstCPU(b *testing.B, targets string) time.Duration {
	probe := exec.Command(filepath.Join(bin, "pup-probe"))
	probe.Stdin = strings.NewReader(targets)
	out, err := probe.Output()
	if ups := bytes.Count(out, []byte(`"status":"up"`)); err != nil || ups != pacedRun {
		b.Fatalf("%d are up, %v", ups, err)
	}
	return probe.ProcessState.UserTime() + probe.ProcessState.SystemTime()
}
