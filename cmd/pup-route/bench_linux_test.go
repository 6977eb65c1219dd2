package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"pup/cmd/pup-route/internal/spool"
	"pup/cmd/pup-route/internal/state"
)

// A rival is a pipeline of programs that reads lines. The last is ours.
type rival struct {
	name     string
	pipeline [][]string
}

// programs names the rivals that are installed, with ours at the end.
func rivals(b *testing.B, ours []string, others ...rival) []rival {
	b.Helper()
	var rs []rival
	for _, r := range others {
		if _, err := exec.LookPath(r.pipeline[0][0]); err != nil {
			b.Logf("%s is not installed: no reference", r.pipeline[0][0])
			continue
		}
		rs = append(rs, r)
	}
	return append(rs, rival{"pup-route", [][]string{ours}})
}

// cost runs a pipeline behind cat FILE, and gives the CPU time and the largest
// memory of its programs without that cat. (What a child has taken of memory
// before it became the program counts as well: a benchmark holds little.)
func cost(b *testing.B, pipeline [][]string, file string) (cpu time.Duration, peakKiB int64) {
	b.Helper()
	cat := exec.Command("cat", file)
	in, err := cat.StdoutPipe()
	if err == nil {
		err = cat.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	defer cat.Wait()
	cmds := make([]*exec.Cmd, len(pipeline))
	for i, argv := range pipeline {
		cmds[i] = exec.Command(argv[0], argv[1:]...)
		cmds[i].Stderr = os.Stderr
		if i == 0 {
			cmds[i].Stdin = in
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		cmds[i-1].Stdout, cmds[i].Stdin = w, r
	}
	for i, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		cmd.Stdin.(*os.File).Close()
		if i > 0 {
			cmds[i-1].Stdout.(*os.File).Close()
		}
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			b.Fatalf("%s: %v", cmd, err)
		}
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		peakKiB = max(peakKiB, u.Maxrss)
	}
	return cpu, peakKiB
}

// compare runs the rivals in turn, round by round, and reports the CPU time of
// each for one of the n lines, and ours as a share of each.
func compare(b *testing.B, rs []rival, file string, n int) {
	b.Helper()
	sums := make([]time.Duration, len(rs))
	var peak int64
	for b.Loop() {
		for i, r := range rs {
			cpu, kib := cost(b, r.pipeline, file)
			if sums[i] += cpu; i == len(rs)-1 {
				peak = max(peak, kib)
			}
		}
	}
	ours := sums[len(sums)-1]
	for i, r := range rs {
		b.ReportMetric(float64(sums[i].Nanoseconds())/float64(b.N)/float64(n)/1000, "us/line:"+r.name)
		if i < len(rs)-1 {
			b.ReportMetric(float64(ours)/float64(sums[i]), "of:"+r.name)
		}
	}
	b.ReportMetric(float64(peak)/1024, "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// measured writes n results of that many names to a file, as pup-probe does.
func measured(b *testing.B, n, names int) (file string) {
	b.Helper()
	file = filepath.Join(b.TempDir(), "results.ndjson")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	defer w.Flush()
	for i := range n {
		due := time.Unix(1_795_327_200+int64(i/names)*60, 0).UTC().Format(time.RFC3339)
		fmt.Fprintf(w, `{"v":1,"type":"result","name":"web-%d","check":"http","url":"https://www%d.example.org/","status":"up","time":%q,"ms":{"resolve":3.102,"connect":9.87,"tls":21.44,"request":0.051,"wait":44.9,"transfer":3.851,"total":83.214},"address":"203.0.113.10:443","attempts":1,"labels":{"env":"prod","team":"web"},"due":%q,"lag_ms":12.1,"run":"web-%d@%d","seq":%d,"vantage":"mon1","http":{"status":200,"version":"2","body_bytes":5120,"redirects":0,"content_type":"text/html; charset=utf-8"},"tls":{"version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","days_left":36.7}}`+"\n",
			i%names, i%names, due, due, i%names, i/names, i)
	}
	return file
}

// BenchmarkNothingMatches is the cost of a result that calls no hook, with the
// state of its name kept. Goals: a twentieth of jq -c ., a ninth of a select,
// 2.2 times two cats.
func BenchmarkNothingMatches(b *testing.B) {
	program := built(b)
	for _, names := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(names), func(b *testing.B) {
			compare(b, rivals(b, []string{program, "--on", "down=/bin/true", "--user", "root"},
				rival{"jq-c", [][]string{{"jq", "-c", "."}}},
				rival{"jq-select", [][]string{{"jq", "-c", `select(.status == "down")`}}},
				rival{"cat|cat", [][]string{{"cat"}, {"cat"}}},
			), measured(b, 200_000, names), 200_000)
		})
	}
}

// BenchmarkHooks is the cost of a result that calls a hook, which is a program
// that does nothing, beside one that xargs starts for each. A stream hook
// takes them all. Goals: no more than xargs, and less than a quarter of it.
func BenchmarkHooks(b *testing.B) {
	program := built(b)
	lines := measured(b, 500, 500)
	xargs := rival{"xargs", [][]string{{"xargs", "-P8", "-n1", "-d", "\n", "/bin/true"}}}
	for _, input := range []string{"stdin", "stream"} {
		b.Run(input, func(b *testing.B) {
			command := "/bin/true"
			if input == "stream" {
				command = "/bin/cat"
			}
			hooks := written(b, fmt.Sprintf("[[hook]]\nname = \"h\"\non = [\"always\"]\ncommand = [%q]\ninput = %q\nuser = \"root\"\njobs = 8\nsandbox.level = \"off\"\n", command, input))
			compare(b, rivals(b, []string{program, "--quiet", hooks}, xargs), lines, 500)
		})
	}
}

// BenchmarkSandbox is the time from one hook to the next, of one that does
// nothing, run plainly and held as closely as can be. Goals: the sandbox takes
// no more than 3 ms, and 250 are run in a second.
func BenchmarkSandbox(b *testing.B) {
	program := built(b)
	const n = 200
	lines := measured(b, n, n)
	levels := []string{"off", "basic", "strict"}
	took := map[string][]time.Duration{}
	round := func(level string, jobs int) time.Duration {
		hooks := written(b, fmt.Sprintf("[[hook]]\nname = \"h\"\non = [\"always\"]\ncommand = [\"/bin/true\"]\nuser = \"root\"\njobs = %d\nsandbox.level = %q\n", jobs, level))
		start := time.Now()
		cost(b, [][]string{{program, "--quiet", hooks}}, lines)
		return time.Since(start)
	}
	for b.Loop() {
		for _, level := range levels {
			took[level] = append(took[level], round(level, 1)/n)
		}
		took["at once"] = append(took["at once"], round("strict", 8))
	}
	median := func(what string) float64 {
		slices.Sort(took[what])
		return float64(took[what][len(took[what])/2])
	}
	for _, level := range levels {
		b.ReportMetric(median(level)/1e6, "ms/hook:"+level)
	}
	b.ReportMetric((median("strict")-median("off"))/1e6, "ms-more:strict")
	b.ReportMetric(n*1e9/median("at once"), "hooks/s:strict")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDurable is how many results a second are accepted, passed on and
// kept on disk: goal 5,000.
func BenchmarkDurable(b *testing.B) {
	program := built(b)
	lines := measured(b, 100_000, 1000)
	for b.Loop() {
		if _, kib := cost(b, [][]string{{program, written(b, fmt.Sprintf("spool = %q\n", b.TempDir()))}}, lines); kib > 64<<10 {
			b.Errorf("%d KiB of memory", kib)
		}
	}
	b.ReportMetric(100_000*float64(b.N)/b.Elapsed().Seconds(), "results/s")
}

type nobody struct{}

func (nobody) Name(state.Memory)               {}
func (nobody) Result(_ []byte, _, _ time.Time) {}
func (nobody) Note(state.Note)                 {}
func (nobody) Kept(string, []byte) error       { return nil }

// BenchmarkRecover is the time to start with a journal of 1 GiB, all of it
// results that go through the state once more. Each start gets a journal of its
// own, since it leaves a short one behind. Goal: 3 s.
func BenchmarkRecover(b *testing.B) {
	program, dir := built(b), b.TempDir()
	s, err := spool.Open(dir, nobody{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	text, err := os.ReadFile(measured(b, 100_000, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	for size := 0; size < 1<<30; {
		for line := range bytes.Lines(text) {
			s.Result(bytes.TrimSuffix(line, []byte{'\n'}), now, now)
			size += len(line)
		}
		if err := s.Commit(nil); err != nil {
			b.Fatal(err)
		}
	}
	s.Close()
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		full := filepath.Join(b.TempDir(), "spool")
		if err := os.CopyFS(full, os.DirFS(dir)); err != nil {
			b.Fatal(err)
		}
		hooks := written(b, fmt.Sprintf("spool = %q\n[[hook]]\nname = \"h\"\non = [\"down\"]\ncommand = [\"/bin/true\"]\nuser = \"root\"\n", full))
		b.StartTimer()
		c, _ := cost(b, [][]string{{program, hooks}}, os.DevNull)
		cpu += c
		b.StopTimer()
		if err := os.RemoveAll(full); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
}

// written writes a hooks.toml.
func written(b *testing.B, text string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "hooks.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// built builds the program as it is shipped.
func built(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "pup-route")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags=urfave_cli_no_docs,urfave_cli_no_suggest", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // to load a C library takes a millisecond
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}
