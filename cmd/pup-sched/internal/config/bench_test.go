package config

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// many gives a configuration of n targets as a big site would generate it.
func many(n int) string {
	var b strings.Builder
	b.WriteString("[defaults]\nevery = \"100s\"\ntimeout = \"5s\"\n")
	for i := range n {
		fmt.Fprintf(&b, "[[target]]\nname = \"host-%d.example.org\"\nurl = \"http://10.%d.%d.%d:80/health\"\nlabels = { team = \"web\" }\n", i, i>>16&255, i>>8&255, i&255)
	}
	return b.String()
}

// BenchmarkLoad loads a million targets: at most 5 s, and 600 bytes kept for
// each.
func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	text := many(n)
	b.ReportAllocs()
	for b.Loop() {
		c, err := loadText(b, text)
		if err != nil {
			b.Fatal(err)
		}
		var m runtime.MemStats
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc-uint64(len(text)))/n, "B-kept/target")
		runtime.KeepAlive(c)
		runtime.KeepAlive(text)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/target")
}
