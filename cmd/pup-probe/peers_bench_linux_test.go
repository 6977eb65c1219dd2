package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
)

// A peer does what pup-probe does, for ops operations in a run.
type peer struct {
	name string
	ops  int
	cpu  func(b *testing.B) time.Duration // of one run
}

// comparePeers runs the peers in turns, and reports the CPU time of an
// operation for each, and how that of the first one compares to the others.
func comparePeers(b *testing.B, peers ...peer) {
	sums := make([]time.Duration, len(peers))
	for b.Loop() {
		for i, p := range peers {
			sums[i] += p.cpu(b)
		}
	}
	each := func(i int) float64 { return float64(sums[i].Microseconds()) / float64(b.N) / float64(peers[i].ops) }
	for i, p := range peers {
		b.ReportMetric(each(i), "cpu-us/"+p.name)
		if i > 0 {
			b.ReportMetric(each(0)/each(i), "ratio/"+p.name)
		}
	}
}

// installed says whether a peer is there. One that is not is left out, and said.
func installed(b *testing.B, program string, more ...string) (string, bool) {
	for _, p := range append([]string{program}, more...) {
		if path, err := exec.LookPath(p); err == nil {
			return path, true
		}
	}
	b.Logf("%s is not installed, so it is left out", program)
	return "", false
}

// runPeer gives the CPU time of a command with its children.
func runPeer(b *testing.B, stdin string, args ...string) time.Duration {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%.500s", args[0], err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// runProbe runs pup-probe on targets, which must all be up.
func runProbe(b *testing.B, program, targets string, args ...string) time.Duration {
	b.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(targets)
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	want := bytes.Count([]byte(targets), []byte("\n"))
	if up := bytes.Count(out, []byte(`"status":"up"`)); up != want {
		b.Fatalf("%d of %d are up: %.800s", up, want, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// BenchmarkPing is the CPU time of an echo to loopback addresses beside that of
// fping as it is shipped, which sends every 10 ms, and without its pauses.
// Pup-probe makes a check of each echo.
func BenchmarkPing(b *testing.B) {
	program := built(b)
	const n = 1000
	var hosts, targets, series strings.Builder
	for i := range n {
		a := fmt.Sprintf("127.0.%d.%d", i/200, 1+i%200)
		fmt.Fprintln(&hosts, a)
		fmt.Fprintf(&targets, `{"url":"icmp://%s","icmp":{"count":1}}`+"\n", a)
		fmt.Fprintf(&series, `{"url":"icmp://%s","icmp":{"count":10,"interval":"10ms"}}`+"\n", a)
	}
	peers := []peer{
		{"pup", n, func(b *testing.B) time.Duration { return runProbe(b, program, targets.String()) }},
		{"pup-10-each", 10 * n, func(b *testing.B) time.Duration { return runProbe(b, program, series.String()) }},
		{"pup-10ms-apart", n, func(b *testing.B) time.Duration { return runProbe(b, program, targets.String(), "--rate", "100") }},
	}
	if fping, ok := installed(b, "fping"); ok {
		peers = append(peers,
			peer{"fping", n, func(b *testing.B) time.Duration { return runPeer(b, hosts.String(), fping, "-q", "-c1") }},
			peer{"fping-at-once", n, func(b *testing.B) time.Duration { return runPeer(b, hosts.String(), fping, "-q", "-c1", "-i0") }},
			peer{"fping-10-each", 10 * n, func(b *testing.B) time.Duration {
				return runPeer(b, hosts.String(), fping, "-q", "-c10", "-p10", "-i0")
			}},
		)
	}
	comparePeers(b, peers...)
}

// TestNameServer is no test: as a child of a benchmark it answers every question
// with one address.
func TestNameServer(t *testing.T) {
	if os.Getenv("PUP_NAME_SERVER") == "" {
		return
	}
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pc.SetReadBuffer(4 << 20)
	fmt.Println(pc.LocalAddr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for buf := make([]byte, 1500); ; {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		end := 12 + bytes.IndexByte(buf[12:n], 0) + 1 + 4 // of the question, without compression
		answer := append(buf[:end], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
		copy(answer[2:], []byte{0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0})
		if _, err := pc.WriteToUDPAddrPort(answer, from); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkDNSPeers is the CPU time of a DNS check beside that of programs that
// ask many questions: massdns, and dnsperf, which only counts the answers.
func BenchmarkDNSPeers(b *testing.B) {
	program, addr := built(b), realserver.Own(b, "TestNameServer", "PUP_NAME_SERVER=1")()
	host, port, _ := net.SplitHostPort(addr)
	const n = 20_000
	var targets, names, queries strings.Builder
	for i := range n {
		fmt.Fprintf(&targets, `{"url":"dns://%s/h%d.example.org"}`+"\n", addr, i)
		fmt.Fprintf(&names, "h%d.example.org\n", i)
		fmt.Fprintf(&queries, "h%d.example.org A\n", i)
	}
	peers := []peer{{"pup", n, func(b *testing.B) time.Duration { return runProbe(b, program, targets.String(), "--jobs", "64") }}}
	if p, ok := installed(b, "massdns"); ok {
		servers := filepath.Join(b.TempDir(), "resolvers")
		if err := os.WriteFile(servers, []byte(addr+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		peers = append(peers, peer{"massdns", n, func(b *testing.B) time.Duration {
			return runPeer(b, names.String(), p, "-q", "-r", servers, "-t", "A", "-o", "J", "-s", "64", "-w", "/dev/null")
		}})
	}
	if p, ok := installed(b, "dnsperf"); ok {
		peers = append(peers, peer{"dnsperf", n, func(b *testing.B) time.Duration {
			return runPeer(b, queries.String(), p, "-s", host, "-p", port, "-q", "64", "-n", "1")
		}})
	}
	comparePeers(b, peers...)
}

// TestPageServer is no test: as a child of a benchmark it serves a page.
func TestPageServer(t *testing.T) {
	if os.Getenv("PUP_PAGE_SERVER") == "" {
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	page := strings.Repeat("x", 199) + "\n"
	http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) }))
}

// BenchmarkHTTPPeers is the CPU time of an HTTP check beside that of the
// programs that people use for it.
func BenchmarkHTTPPeers(b *testing.B) {
	program, addr := built(b), realserver.Own(b, "TestPageServer", "PUP_PAGE_SERVER=1")()
	host, port, _ := net.SplitHostPort(addr)
	const n, few, served = 5000, 100, 1024
	targets := strings.Repeat(fmt.Sprintf(`{"name":"www","url":"http://%s/"}`+"\n", addr), n)
	peers := []peer{{"pup", n, func(b *testing.B) time.Duration { return runProbe(b, program, targets, "--jobs", "64") }}}
	if p, ok := installed(b, "prometheus-blackbox-exporter", "blackbox_exporter"); ok {
		probe, cpu := startBlackbox(b, p, addr)
		peers = append(peers, peer{"blackbox", served, func(b *testing.B) time.Duration {
			before := cpu()
			probe(served)
			return cpu() - before
		}})
	}
	if p, ok := installed(b, "check_http", "/usr/lib/nagios/plugins/check_http"); ok {
		peers = append(peers, peer{"check_http", few, func(b *testing.B) (sum time.Duration) {
			for range few {
				sum += runPeer(b, "", p, "-I", host, "-p", port)
			}
			return sum
		}})
	}
	if p, ok := installed(b, "curl"); ok {
		peers = append(peers, peer{"curl-parallel", n, func(b *testing.B) time.Duration {
			config := strings.Repeat("url = http://"+addr+"/\noutput = /dev/null\n", n)
			return runPeer(b, config, p, "-s", "-Z", "--parallel-max", "64", "-H", "Connection: close", "-K", "-")
		}})
	}
	if p, ok := installed(b, "zgrab2"); ok {
		peers = append(peers, peer{"zgrab2", n, func(b *testing.B) time.Duration {
			return runPeer(b, strings.Repeat(host+"\n", n), p, "-s", "64", "http", "--port", port)
		}})
	}
	comparePeers(b, peers...)
}

// startBlackbox starts the exporter. Probe makes it check the address so often,
// 16 at once; cpu is what it has used.
func startBlackbox(b *testing.B, program, addr string) (probe func(n int), cpu func() time.Duration) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // to find a port
	if err != nil {
		b.Fatal(err)
	}
	listen := ln.Addr().String()
	ln.Close()
	config := filepath.Join(b.TempDir(), "blackbox.yml")
	if err := os.WriteFile(config, []byte("modules: {http: {prober: http, http: {preferred_ip_protocol: ip4}}}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, "--config.file="+config, "--web.listen-address="+listen, "--log.level=error")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	url := "http://" + listen + "/probe?module=http&target=http://" + addr + "/"
	one := func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Contains(body, []byte("\nprobe_success 1\n")) {
			err = fmt.Errorf("blackbox: %.300s", body)
		}
		return err
	}
	for end := time.Now().Add(10 * time.Second); one() != nil; {
		if time.Now().After(end) {
			b.Fatal("blackbox exporter does not start: ", one())
		}
		<-time.After(50 * time.Millisecond)
	}
	probe = func(n int) {
		errs := make(chan error)
		for range 16 {
			go func() {
				for range n / 16 {
					if err := one(); err != nil {
						errs <- err
						return
					}
				}
				errs <- nil
			}()
		}
		for range 16 {
			if err := <-errs; err != nil {
				b.Fatal(err)
			}
		}
	}
	return probe, func() time.Duration { return processTime(b, cmd.Process.Pid) }
}

// processTime is the CPU time that a process has used, to a hundredth of a second.
func processTime(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(stat, []byte(") ")) // the third field and those behind it
	fields := bytes.Fields(rest)
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(user+system) * tick
}

// BenchmarkStartPeers is the CPU time from the start of a program to the result
// of one TCP check.
func BenchmarkStartPeers(b *testing.B) {
	program, addr := built(b), benchAddr(0, benchServer(b, "tcp", ""))
	host, port, _ := net.SplitHostPort(addr)
	const few = 20
	again := func(args ...string) func(b *testing.B) time.Duration {
		return func(b *testing.B) (sum time.Duration) {
			for range few {
				sum += runPeer(b, "", args...)
			}
			return sum
		}
	}
	peers := []peer{{"pup", few, again(program, "tcp://"+addr)}}
	if p, ok := installed(b, "check_tcp", "/usr/lib/nagios/plugins/check_tcp"); ok {
		peers = append(peers, peer{"check_tcp", few, again(p, "-H", host, "-p", port)})
	}
	if p, ok := installed(b, "curl"); ok {
		page := realserver.Own(b, "TestPageServer", "PUP_PAGE_SERVER=1")()
		peers = append(peers, peer{"curl", few, again(p, "-s", "http://"+page+"/")})
	}
	comparePeers(b, peers...)
}
