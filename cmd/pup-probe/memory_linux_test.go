package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// silentChecks is how many checks wait at once in TestSilent. Each takes a
// descriptor here and one in the server.
const silentChecks = 10_000

// TestSilentServer is no test: as a child of TestSilent it accepts
// connections, says nothing, and tells when all have sent something.
func TestSilentServer(t *testing.T) {
	if os.Getenv("PUP_SILENT_SERVER") == "" {
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	asked := make(chan bool, silentChecks)
	go func() {
		for range silentChecks {
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

// TestSilent measures what each of 10,000 checks holds whose server accepts
// and says nothing, as it stands once all of them wait: resident memory of the
// program as a whole, divided.
func TestSilent(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pup-probe")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		scheme string
		most   int // KiB
	}{{"http", 12}, {"https", 36}} {
		t.Run(tt.scheme, func(t *testing.T) {
			addr, said := silentServer(t)
			var targets bytes.Buffer
			for i := range silentChecks {
				fmt.Fprintf(&targets, "{\"name\":\"t%d\",\"url\":\"%s://%s/\",\"timeout\":\"5m\"}\n", i, tt.scheme, addr)
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
			for range 200 { // the crowd has to come to rest
				<-tick.C
				if got = resident(t, cmd.Process.Pid) / silentChecks; got < tt.most {
					break
				}
			}
			t.Logf("%d KiB per check", got)
			if got >= tt.most {
				t.Errorf("got %d KiB per check, want less than %d", got, tt.most)
			}
		})
	}
}

func silentServer(t *testing.T) (addr string, said func() string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSilentServer$")
	cmd.Env = append(os.Environ(), "PUP_SILENT_SERVER=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	br := bufio.NewReader(out)
	said = func() string {
		line, _ := br.ReadString('\n')
		return strings.TrimSpace(line)
	}
	return said(), said
}

// resident gives the resident memory of a process, in KiB.
func resident(t *testing.T, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("VmRSS:"))
	kib := 0
	if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
		t.Fatalf("VmRSS: %v", err)
	}
	return kib
}
