package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/golden"
	"pup/cmd/internal/manual"
)

func TestMain(m *testing.M) {
	if os.Getenv("PUP_SCHED_TEST") == "main" {
		main()
	}
	testscript.Main(m, map[string]func(){"pup-sched": main})
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		e.Setenv("SOURCES", filepath.Join(scripts, "sources"))
		e.Setenv("IMPORT", filepath.Join(scripts, "import"))
		return nil
	}, RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: os.Getenv("PUP_UPDATE") != ""})
}

// TestGeneratedManual keeps pup-sched(1).
func TestGeneratedManual(t *testing.T) {
	p := program(cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	golden.File(t, "docs/man/pup-sched.1", manual.Roff(manual.Program(p)))
}

// A process is a pup-sched that runs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Reader
	pipe   io.Closer
	stderr *os.File
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe, args...)}
	p.cmd.Env = append(os.Environ(), "PUP_SCHED_TEST=main")
	var ends [2]*os.File // of ours
	for i, end := range []*io.Writer{&p.cmd.Stdout, &p.cmd.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		t.Cleanup(func() { r.Close() })
		r.SetReadDeadline(time.Now().Add(time.Minute)) // a hung test must end
		ends[i], *end = r, w
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	p.pipe, p.out, p.stderr = ends[0], bufio.NewReader(ends[0]), ends[1]
	return p
}

// until reads lines until f takes one.
func (p *process) until(f func(m map[string]any) bool) {
	p.t.Helper()
	for {
		line, err := p.out.ReadBytes('\n')
		if err != nil {
			_, said, state := p.end()
			p.t.Fatalf("the output ended: %v; %v, stderr %q", err, state, said)
		}
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		if f(m) {
			return
		}
	}
}

func beat(targets float64) func(map[string]any) bool {
	return func(m map[string]any) bool { return m["type"] == "beat" && m["targets"] == targets }
}

// end waits for the end of the process and gives what is left of its output.
func (p *process) end() (stdout, stderr string, state *os.ProcessState) {
	p.t.Helper()
	out, err := io.ReadAll(p.out)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		p.t.Fatal(err)
	}
	said, err := io.ReadAll(p.stderr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Wait()
	return string(out), string(said), p.cmd.ProcessState
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pup.toml")
	rewrite(t, path, text)
	return path
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func target(name string) string { return targetEvery(name, "1h") }

func targetEvery(name, every string) string {
	return "[[target]]\nname = \"" + name + "\"\nurl = \"tcp://192.0.2.1:80\"\nevery = \"" + every + "\"\n"
}

func TestTermEndsWithABeat(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, "-q", configFile(t, targetEvery("a", "100ms"))) // a busy machine may skip runs
		p.until(func(m map[string]any) bool { return m["type"] == "target" && m["seq"] == 3.0 })
		p.cmd.Process.Signal(sig)
		rest, said, state := p.end()
		lines := strings.Split(strings.TrimSuffix(rest, "\n"), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"type":"beat"`) {
			t.Errorf("%v: the last line is %q, want a beat", sig, last)
		}
		if state.ExitCode() != 0 || said != "" {
			t.Errorf("%v: exit code %d, stderr %q", sig, state.ExitCode(), said)
		}
	}
}

func TestReload(t *testing.T) {
	path := configFile(t, target("a"))
	p := start(t, "--beat", "1s", path)
	p.until(beat(1))
	rewrite(t, path, target("a")+target("b"))
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.until(beat(2))

	rewrite(t, path, target("a")+"evry = 1\n"+target("a"))
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.until(beat(2))
	p.until(beat(2))
	p.cmd.Process.Signal(syscall.SIGTERM)
	_, said, _ := p.end()
	for _, want := range []string{"not reloaded, going on as before", path + `:5:1: unknown key "evry"`, `the name "a" is taken`} {
		if !strings.Contains(said, want) {
			t.Errorf("stderr is %q, want %q in it", said, want)
		}
	}
}

func TestSourceIsAskedAgain(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	rewrite(t, list, "tcp://192.0.2.1:80\n")
	path := filepath.Join(dir, "pup.toml")
	rewrite(t, path, "[[source]]\nname = \"s\"\nfile = \"list\"\nrefresh = \"1s\"\n")
	p := start(t, "--beat", "1s", path)
	p.until(beat(1))
	rewrite(t, list, "tcp://192.0.2.1:80\ntcp://192.0.2.2:80\n")
	p.until(beat(2))
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(p.stderr)
	if line, err := said.ReadString('\n'); err != nil || !strings.Contains(line, "source s: open") || !strings.Contains(line, "going on with what it printed before") {
		t.Errorf("stderr says %q, %v", line, err)
	}
	p.until(beat(2))
	rewrite(t, list, "tcp://192.0.2.1:80\n")
	p.until(beat(1))
	p.cmd.Process.Signal(syscall.SIGTERM)
}

func TestControl(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "control")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-q", "--control", fifo, configFile(t, "[[target]]\nname = \"a\"\nurl = \"tcp://192.0.2.1:80\"\nevery = \"1d\"\nrecheck = \"100ms\"\n"))
	p.until(beat(1))
	for _, say := range []struct {
		line string
		seq  float64
	}{{`{"type":"recheck","name":"a"}`, 1}, {`{"v":1,"type":"result","name":"a","status":"down"}`, 4}} {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(say.line + "\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
		p.until(func(m map[string]any) bool { return m["type"] == "target" && m["seq"] == say.seq })
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if _, said, _ := p.end(); said != "" {
		t.Errorf("stderr is %q", said)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rewrite(t, filepath.Join(dir, "a.toml"), target("a"))
	p := start(t, "--watch", "--beat", "1s", dir)
	p.until(beat(1))
	rewrite(t, filepath.Join(dir, "b.toml"), target("b"))
	p.until(beat(2))
	rewrite(t, filepath.Join(dir, "b.toml"), target("b")+target("c"))
	p.until(beat(3))
	p.cmd.Process.Signal(syscall.SIGTERM)
	_, said, _ := p.end()
	for line := range strings.Lines(said) {
		if !strings.Contains(line, "runs were skipped") { // on a machine that is busy elsewhere
			t.Errorf("stderr has %q", line)
		}
	}
}

func TestReaderThatLeaves(t *testing.T) {
	p := start(t, "--beat", "1s", configFile(t, target("a")))
	p.until(beat(1))
	p.pipe.Close()
	_, said, state := p.end()
	if ws := state.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGPIPE {
		t.Errorf("ended with %v, want SIGPIPE", state)
	}
	if said != "" {
		t.Errorf("stderr is %q", said)
	}
}

// TestTermWhileTheReaderStalls takes as long as the alarm.
func TestTermWhileTheReaderStalls(t *testing.T) {
	t.Parallel()
	text := ""
	for i := range 200 {
		text += targetEvery("a"+strconv.Itoa(i), "100ms")
	}
	p := start(t, configFile(t, text))
	said := bufio.NewReader(p.stderr)
	line, err := said.ReadString('\n')
	for err == nil && strings.Contains(line, "runs were skipped") { // on a machine that is busy elsewhere
		line, err = said.ReadString('\n')
	}
	if err != nil || !strings.HasPrefix(line, "pup-sched: the reader has kept us waiting for 10s") {
		t.Fatalf("stderr says %q, %v", line, err)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(said)
	p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(string(rest), "without a last beat") {
		t.Errorf("exit code %d, stderr %q", code, rest)
	}
}
