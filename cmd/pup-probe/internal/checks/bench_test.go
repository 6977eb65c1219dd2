package checks

import (
	"syscall"
	"testing"
)

// benchCPU runs f in a benchmark and reports the CPU time of this process for
// each run, user and system, as cpu-us/op: time on the wall says little on a
// machine with noisy neighbours.
func benchCPU(b *testing.B, f func()) {
	b.ReportAllocs()
	start := cpuTime()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-us/op")
}

// cpuTime gives the CPU time that this process has used, in microseconds.
func cpuTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Sec*1e6 + u.Utime.Usec + u.Stime.Sec*1e6 + u.Stime.Usec
}
