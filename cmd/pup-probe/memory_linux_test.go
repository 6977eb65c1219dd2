package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// silentChecks is how many checks wait at once in TestSilent. Each takes a
// descriptor here and one in the server.
const silentChecks = 10_000

// TestSilentServer is no test: as a child of TestSilent it accepts connections on
// an address of the loopback, and datagrams on all of them, says nothing, and
// tells when all have sent something.
func TestSilentServer(t *testing.T) {
	if os.Getenv("PUP_SILENT_SERVER") == "" {
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	n, _ := strconv.Atoi(os.Getenv("PUP_SILENT_SERVER"))
	asked := make(chan bool, n)
	silentDatagrams(t, port, asked)
	fmt.Println(port)
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	go func() {
		for range n {
			<-asked
		}
		fmt.Println("all")
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Read(make([]byte, 1))
			asked <- true
			io.Copy(io.Discard, c)
		}()
	}
}

// silentDatagrams takes datagrams from whoever sends any to a loopback address.
func silentDatagrams(t *testing.T, port string, asked chan<- bool) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, "lo")
		})
		return errors.Join(err, cerr)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:"+port)
	if err != nil {
		t.Fatal(err)
	}
	pc.(*net.UDPConn).SetReadBuffer(4 << 20)
	go func() {
		seen := map[string]bool{} // by where they come from and how they begin, since they are sent again
		for buf := make([]byte, 512); ; {
			_, a, err := pc.ReadFrom(buf)
			if err != nil {
				panic(err)
			}
			if key := a.String() + string(buf[:2]); !seen[key] {
				seen[key] = true
				asked <- true
			}
		}
	}()
}

// slack is for machines that are busy elsewhere, where memory is given back
// late: the goals are 12 KiB and 36 KiB, and BenchmarkSilent shows them.
const slack = 1.25

// TestSilent bounds what each of 10,000 checks holds whose server accepts and
// says nothing, or whose servers, each another, do not answer.
func TestSilent(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pup-probe")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		url  string
		most float64 // KiB
	}{{"http://127.0.0.1:%[1]s/", 12 * slack}, {"https://127.0.0.1:%[1]s/", 36 * slack}, {silentDNS, 12 * slack}} {
		name, _, _ := strings.Cut(tt.url, ":")
		t.Run(name, func(t *testing.T) {
			got := silentKiB(t, program, tt.url, tt.most)
			t.Logf("%.1f KiB per check", got)
			if got > tt.most {
				t.Errorf("got %.1f KiB per check, want at most %v", got, tt.most)
			}
		})
	}
}

// silentDNS asks a server that no other check asks.
const silentDNS = "dns://127.1.%[2]d.%[3]d:%[1]s/example.org"

// BenchmarkSilent is the memory that a check of each kind holds while its
// server says nothing.
func BenchmarkSilent(b *testing.B) {
	program := built(b)
	for _, url := range []string{
		"http://HOST/", "https://HOST/", "redis://HOST/0", "dns+tcp://HOST/example.org", "postgres://u@HOST/", "ldap://HOST", "mqtt://HOST",
		"kafka://HOST", "grpc://HOST", "ws://HOST/", "dns://HOST/example.org", silentDNS,
	} {
		name, _, _ := strings.Cut(url, ":")
		if url == silentDNS {
			name += " of servers of its own"
		}
		url = strings.Replace(url, "HOST", "127.0.0.1:%[1]s", 1)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(silentKiB(b, program, url, 0), "KiB/check")
			}
		})
	}
}

// silentKiB gives the resident memory that each of many waiting checks adds to
// the program, once all of them wait and it has come to rest: when it is no
// more than enough, or after five seconds.
func silentKiB(t testing.TB, program, url string, enough float64) float64 {
	alone := silentRun(t, program, url, 1, func(int) bool { return false })
	each := func(kib int) float64 { return float64(kib-alone) / (silentChecks - 1) }
	return each(silentRun(t, program, url, silentChecks, func(kib int) bool { return each(kib) <= enough }))
}

// silentRun gives the resident memory, in KiB, of the program with n checks
// that wait.
func silentRun(t testing.TB, program, url string, n int, enough func(kib int) bool) int {
	port, said := silentServer(t, n)
	var targets bytes.Buffer
	for i := range n {
		fmt.Fprintf(&targets, "{\"name\":\"t%d\",\"url\":%q,\"timeout\":\"5m\"}\n", i, fmt.Sprintf(url, port, i/250, 1+i%250))
	}
	cmd := exec.Command(program, "--jobs", "0")
	cmd.Stdin = &targets
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if line := said(); line != "all" {
		t.Fatalf("the server says %q", line)
	}
	got := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	rest := 50
	if n == 1 {
		rest = 5
	}
	for range rest { // a crowd has to come to rest
		<-tick.C
		if got = realserver.Memory(t, cmd.Process.Pid, "VmRSS"); enough(got) {
			break
		}
	}
	return got
}

func silentServer(t testing.TB, n int) (port string, said func() string) {
	said = realserver.Own(t, "TestSilentServer", fmt.Sprintf("PUP_SILENT_SERVER=%d", n))
	return said(), said
}
