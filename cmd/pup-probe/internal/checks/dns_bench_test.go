package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/dnsudp"
	"pup/cmd/pup-probe/internal/engine"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	dnsBenchName = "www.example.org."
	dnsBenchJobs = 64
)

// TestDNSBenchServer is no test: as a child of BenchmarkDNSShared it is the name
// server, which answers every question with one address, and EDNS with EDNS.
func TestDNSBenchServer(t *testing.T) {
	if os.Getenv("PUP_DNS_BENCH_SERVER") == "" {
		return
	}
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pc.SetReadBuffer(4 << 20)
	fmt.Println(pc.LocalAddr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	buf, out := make([]byte, 1500), make([]byte, 0, 1500)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		end := 12 + bytes.IndexByte(buf[12:n], 0) + 1 + 4
		out = append(out[:0], buf[:end]...)
		out[2], out[3], out[7] = 0x85, 0x80, 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
		if out[11] == 1 {
			out = append(out, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0)
		}
		if _, err := pc.WriteToUDPAddrPort(out, from); err != nil {
			t.Fatal(err)
		}
	}
}

func dnsBenchServer(b *testing.B) netip.AddrPort {
	return netip.MustParseAddrPort(realserver.Own(b, "TestDNSBenchServer", "PUP_DNS_BENCH_SERVER=1")())
}

// dnsBenchAsk asks n times, so many at once, over the connections that dial
// gives, one for each query.
func dnsBenchAsk(n int, dial func() (net.Conn, error)) error {
	var wg sync.WaitGroup
	errs := make([]error, dnsBenchJobs)
	work := make(chan struct{}, dnsBenchJobs)
	for i := range dnsBenchJobs {
		wg.Go(func() {
			buf := make([]byte, 1500)
			for range work {
				if err := dnsBenchQuery(dial, buf); err != nil {
					errs[i] = err
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

// dnsBenchQuery asks once. Of the answer it looks at identifier, question and
// response code, as the smallest program would.
func dnsBenchQuery(dial func() (net.Conn, error), buf []byte) error {
	q, err := dnsmsg.New(dnsBenchName, dns.TypeA, dns.ClassINET, dnsmsg.Options{Recurse: true, EDNS: true})
	if err != nil {
		return err
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(q.Wire); err != nil {
		return err
	}
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		end := 12 + len(dnsBenchName) + 1 + 4
		if n > end && bytes.Equal(buf[:2], q.Wire[:2]) && bytes.Equal(buf[12:end], q.Wire[12:end]) && buf[3]&15 == 0 {
			return nil
		}
	}
}

// BenchmarkDNSShared measures the CPU time of a query over UDP beside that of a
// socket for each query, in blocks that take turns: over shared sockets alone,
// and for the whole check from line to line.
func BenchmarkDNSShared(b *testing.B) {
	server := dnsBenchServer(b)
	r := probe.NewRunner(All())
	target := fmt.Sprintf(`{"name":"ns","url":"dns://%s/www.example.org","timeout":"5s"}`+"\n", server)
	var sockets dnsudp.Sockets
	const block = 5000
	var cpu [3]int64
	ops := 0
	b.ReportAllocs()
	for b.Loop() {
		for i, f := range []func() error{
			func() error {
				return dnsBenchAsk(block, func() (net.Conn, error) { return net.Dial("udp", server.String()) })
			},
			func() error {
				return dnsBenchAsk(block, func() (net.Conn, error) { return sockets.Dial(netip.Addr{}, server) })
			},
			func() error { return dnsBenchCheck(r, target, block) },
		} {
			start := dnsBenchCPU()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			cpu[i] += dnsBenchCPU() - start
		}
		ops += block
	}
	for i, name := range []string{"reference", "query", "check"} {
		b.ReportMetric(float64(cpu[i])/float64(ops), "cpu-us/"+name)
	}
	b.ReportMetric(float64(cpu[1])/float64(cpu[0]), "query-ratio")
	b.ReportMetric(float64(cpu[2])/float64(cpu[0]), "check-ratio")
}

func dnsBenchCheck(r *probe.Runner, target string, n int) error {
	var out dnsBenchOut
	e := engine.Engine{
		Runner: r, In: strings.NewReader(strings.Repeat(target, n)), Out: &out, Jobs: dnsBenchJobs, MaxLine: 1 << 20, Grace: time.Second,
	}
	if _, err := e.Run(context.Background()); err != nil {
		return err
	}
	if out.up != n {
		return fmt.Errorf("%d of %d are up, the last line is %s", out.up, n, out.last)
	}
	return nil
}

type dnsBenchOut struct {
	up   int
	last []byte
}

func (o *dnsBenchOut) Write(b []byte) (int, error) {
	o.up += bytes.Count(b, []byte(`"status":"up"`))
	o.last = append(o.last[:0], b...)
	return len(b), nil
}

// dnsBenchCPU gives the CPU time that this process has used, in microseconds.
func dnsBenchCPU() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Sec*1e6 + u.Utime.Usec + u.Stime.Sec*1e6 + u.Stime.Usec
}
