package checks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pup/cmd/pup-probe/internal/engine"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	httpBenchPage     = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 200\r\nConnection: close\r\n\r\n"
	httpBenchRedirect = "HTTP/1.1 302 Found\r\nServer: bench\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	httpBenchRequest  = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAccept: */*\r\nUser-Agent: pup-probe\r\n\r\n"
	httpBenchJobs     = 64
)

// TestHTTPBenchServer is no test: as a child of BenchmarkHTTP it is the
// server, so that its work counts for nobody.
func TestHTTPBenchServer(t *testing.T) {
	if os.Getenv("PUP_HTTP_BENCH_SERVER") == "" {
		return
	}
	page := []byte(httpBenchPage + strings.Repeat("x", 199) + "\n")
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
		go func() {
			defer c.Close()
			buf := make([]byte, 1024)
			n, _ := c.Read(buf)
			if bytes.HasPrefix(buf[:n], []byte("GET /r")) {
				io.WriteString(c, httpBenchRedirect)
				return
			}
			c.Write(page)
		}()
	}
}

func httpBenchServer(b *testing.B) (addr string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHTTPBenchServer$")
	cmd.Env = append(os.Environ(), "PUP_HTTP_BENCH_SERVER=1")
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
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

// cpu is what this process has used, in user and system mode.
func httpBenchCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// httpBenchReference is the smallest program for the same exchange: it dials,
// asks, reads to the end, and looks at status and body.
func httpBenchReference(addr string, n int, paths ...string) error {
	var wg sync.WaitGroup
	errs := make([]error, httpBenchJobs)
	work := make(chan struct{}, httpBenchJobs)
	for i := range httpBenchJobs {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for range work {
				for _, path := range paths {
					if err := httpBenchGet(addr, path, buf); err != nil {
						errs[i] = err
					}
				}
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

func httpBenchGet(addr, path string, buf []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, httpBenchRequest, path, addr); err != nil {
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
	head, body, ok := bytes.Cut(buf[:n], []byte("\r\n\r\n"))
	switch {
	case path == "/r" && bytes.HasPrefix(head, []byte("HTTP/1.1 302 ")):
		return nil
	case !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || len(body) != 200 || !bytes.Contains(body, []byte("xx")):
		return fmt.Errorf("got %q", buf[:n])
	}
	return nil
}

// httpBenchCheck is pup-probe without its process: target lines in, result
// lines out.
func httpBenchCheck(r *probe.Runner, target string, n int) error {
	var in bytes.Buffer
	for range n {
		in.WriteString(target)
	}
	var out httpBenchOut
	e := engine.Engine{
		Runner: r, In: &in, Out: &out, Jobs: httpBenchJobs, MaxLine: 1 << 20, Grace: time.Second,
	}
	if _, err := e.Run(context.Background()); err != nil {
		return err
	}
	if out.up != n {
		return fmt.Errorf("%d of %d are up, the last line is %s", out.up, n, out.last)
	}
	return nil
}

type httpBenchOut struct {
	up   int
	last []byte
}

func (o *httpBenchOut) Write(b []byte) (int, error) {
	o.up += bytes.Count(b, []byte(`"status":"up"`))
	o.last = append(o.last[:0], b...)
	return len(b), nil
}

// BenchmarkHTTP measures the CPU time of a check beside that of the smallest
// program, in blocks that take turns. The operation of ns/op and allocs/op is
// a block of both.
func BenchmarkHTTP(b *testing.B) {
	addr := httpBenchServer(b)
	for _, bb := range []struct {
		name, target string
		paths        []string
	}{
		{"plain", `{"name":"www","url":"http://%s/","timeout":"5s"}`, []string{"/"}},
		{"body", `{"name":"www","url":"http://%s/","timeout":"5s","expect":["http.status == 200","http.body contains 'xx'"]}`, []string{"/"}},
		{"redirect", `{"name":"www","url":"http://%s/r","timeout":"5s","expect":["http.status == 200","http.body contains 'xx'"]}`, []string{"/r", "/"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const block = 1000
			target := fmt.Sprintf(bb.target, addr) + "\n"
			r := probe.NewRunner(All())
			var ours, reference time.Duration
			ops := 0
			b.ReportAllocs()
			for b.Loop() {
				t := httpBenchCPU()
				if err := httpBenchCheck(r, target, block); err != nil {
					b.Fatal(err)
				}
				ours += httpBenchCPU() - t
				t = httpBenchCPU()
				if err := httpBenchReference(addr, block, bb.paths...); err != nil {
					b.Fatal(err)
				}
				reference += httpBenchCPU() - t
				ops += block
			}
			b.ReportMetric(float64(ours.Microseconds())/float64(ops), "cpu-µs/check")
			b.ReportMetric(float64(reference.Microseconds())/float64(ops), "cpu-µs/reference")
			b.ReportMetric(float64(ours)/float64(reference), "ratio")
		})
	}
}
