//go:build unix

package child

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// beFilter in the environment makes this test binary a filter.
const beFilter = "PUP_TEST_BE_FILTER"

func TestMain(m *testing.M) {
	if os.Getenv(beFilter) == "" {
		os.Exit(m.Run())
	}
	filterMain()
}

// filterMain does what the name of each target says.
func filterMain() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var t struct{ Name, Run string }
		if err := json.Unmarshal(in.Bytes(), &t); err != nil {
			os.Exit(9)
		}
		id := fmt.Sprintf(`"name":%q`, t.Name)
		if t.Run != "" {
			id += fmt.Sprintf(`,"run":%q`, t.Run)
		}
		switch t.Name {
		case "silent":
			continue
		case "garbage":
			fmt.Printf("garbage\n{}\n%s\n{%s,\"status\":\"well\"}\n{\"type\":\"beat\"}\n{\"run\":\"x\",\"status\":\"up\"}\n%s\n",
				in.Bytes(), id, strings.Repeat("x", 2000))
		case "die":
			os.Stderr.WriteString(strings.Repeat("x", 1<<20) + "last words")
			os.Exit(3)
		case "deaf":
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		fmt.Printf("{%s,\"status\":\"down\",\"error\":%q}\n", id, t.Run)
	}
	os.Exit(0)
}

// us is the command of a filter.
func us() Command {
	return Command{Path: os.Args[0], Env: []string{beFilter + "=1"}, MaxLine: 1024}
}

// shell is a command that runs a script.
func shell(script string) Command {
	return Command{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, MaxLine: 1024}
}

func pool(t *testing.T) *Pool {
	p := &Pool{}
	t.Cleanup(p.Close)
	return p
}

// brief is a context that ends soon; only asks that get no answer use it.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// Many ask at once, and each gets its own answer, from one process.
func TestAsk(t *testing.T) {
	p := pool(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			run, line := "", `{"url":"exec:///x","name":"same"}`
			if i%2 == 0 {
				run = fmt.Sprintf("t@%d", i)
				line = fmt.Sprintf(`{"name":"same","run":%q}`, run)
			}
			a, n, err := p.Ask(t.Context(), us(), []byte(line), "same")
			if err != nil || a.Status != wire.Down || a.Error != run || n.Starts != 1 || n.Ignored != 0 {
				t.Errorf("got %v %v %v, want the error %q", a, n, err, run)
			}
		})
	}
	wg.Wait()
	if n := len(p.filters[us().key()].process.waiting); n != 0 {
		t.Errorf("%d are still waited for", n)
	}
}

func TestNoAnswer(t *testing.T) {
	p := pool(t)
	ask := func(ctx context.Context, name string) (Counts, error) {
		_, n, err := p.Ask(ctx, us(), fmt.Appendf(nil, `{"name":%q}`, name), name)
		return n, err
	}
	if n, err := ask(t.Context(), "garbage"); err != nil || n.Ignored != 7 {
		t.Errorf("garbage: got %v %v, want 7 that are ignored", n, err)
	}
	if _, err := ask(brief(t), "silent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: got %v", err)
	}
	if n, err := ask(t.Context(), "after"); err != nil || n.Starts != 1 {
		t.Errorf("after silence: got %v %v, want the same process", n, err)
	}
	_, err := ask(t.Context(), "die")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "last words") || len(err.Error()) > 400 {
		t.Errorf("die: got %.500v", err)
	}
	if n, err := ask(t.Context(), "after"); err != nil || n.Starts != 2 {
		t.Errorf("after death: got %v %v, want a second process at once, since the first has answered", n, err)
	}
	if _, err = ask(brief(t), "deaf"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deaf: got %v", err)
	}
	for range 3 { // more than a pipe holds
		line := fmt.Appendf(nil, `{"name":"x","text":%q}`, strings.Repeat("x", 1<<20))
		if _, _, err = p.Ask(brief(t), us(), line, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deaf: got %v", err)
		}
	}
}

// Who waits when the filter dies for another's sake is told at once.
func TestDeathIsToldToAll(t *testing.T) {
	p := pool(t)
	told := make(chan error)
	go func() {
		_, _, err := p.Ask(t.Context(), us(), []byte(`{"name":"silent"}`), "")
		told <- err
	}()
	for waits := 0; waits == 0; runtime.Gosched() {
		p.mu.Lock()
		if f := p.filters[us().key()]; f != nil && f.process != nil {
			waits = len(f.process.waiting)
		}
		p.mu.Unlock()
	}
	p.Ask(t.Context(), us(), []byte(`{"name":"die"}`), "")
	if err := <-told; err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestBackOff(t *testing.T) {
	for name, c := range map[string]Command{
		"ends at once": shell("exit 4"), "missing": {Path: "/nonexistent/command", MaxLine: 1024},
		"no output": shell("exec >&-; read x; sleep 1000"), "no input": shell("exec <&-; exec sleep 1000"),
	} {
		t.Run(name, func(t *testing.T) {
			p := pool(t)
			line := []byte(`{"name":"t","pad":"` + strings.Repeat("x", 1<<20) + `"}`)
			for life := 1; life <= 3; life++ {
				_, _, first := p.Ask(t.Context(), c, line, "")
				_, _, second := p.Ask(t.Context(), c, line, "")
				if first == nil || second == nil || !strings.HasPrefix(second.Error(), first.Error()+"; it is started again in") {
					t.Fatalf("got %v, then %v", first, second)
				}
				f := p.filters[c.key()]
				if want := minPause << (life - 1); f.pause != want || f.starts != life {
					t.Errorf("pause %v after %d starts, want %v", f.pause, f.starts, want)
				}
				f.next = time.Now()
			}
		})
	}
}

// alive says whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ") && syscall.Kill(pid, 0) == nil
}

// After Close nothing is left of a filter that does not want to end, nor of
// what it has started, nor of our goroutines.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for name, end := range map[string]string{"polite": "", "stubborn": "while :; do sleep 100; done"} {
		t.Run(name, func(t *testing.T) {
			pids := filepath.Join(t.TempDir(), "pids")
			p := &Pool{}
			a, _, err := p.Ask(t.Context(), shell(fmt.Sprintf(`trap '' TERM HUP
				setsid sh -c 'echo $$ >>%[1]s; while :; do sleep 100; done' &
				sh -c 'echo $$ >>%[1]s; while :; do sleep 100; done' &
				echo $$ >>%[1]s
				while [ $(wc -l <%[1]s) -lt 3 ]; do :; done
				while read -r line; do echo '{"name":"t","status":"up"}'; done
				%[2]s`, pids, end)), []byte(`{"name":"t"}`), "")
			if err != nil || a.Status != wire.Up {
				t.Fatalf("got %v %v", a, err)
			}
			p.Close()
			b, _ := os.ReadFile(pids)
			for _, s := range strings.Fields(string(b)) {
				pid, _ := strconv.Atoi(s)
				for deadline := time.Now().Add(10 * time.Second); alive(pid); {
					if time.Now().After(deadline) {
						t.Fatalf("process %d lives on", pid)
					}
				}
			}
			if _, _, err := p.Ask(t.Context(), us(), []byte(`{"name":"t"}`), ""); err == nil {
				t.Error("a closed pool has answered")
			}
			p.Close()
		})
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, before there were %d", n, before)
	}
}

// One more command than there is room for ends the one that was idle longest.
func TestRoom(t *testing.T) {
	p := pool(t)
	ask := func(i int) {
		c := shell(`while read -r line; do echo '{"name":"t","status":"up"}'; done`)
		c.Env = append(c.Env, fmt.Sprintf("N=%d", i))
		if a, _, err := p.Ask(t.Context(), c, []byte(`{"name":"t"}`), ""); err != nil || a.Status != wire.Up {
			t.Fatalf("%d: got %v %v", i, a, err)
		}
	}
	ask(0)
	first := p.filters
	var cmd *exec.Cmd
	for _, f := range first {
		cmd = f.process.cmd
	}
	for i := range maxFilters {
		ask(i + 1)
	}
	if len(p.filters) != maxFilters {
		t.Errorf("%d filters, want %d", len(p.filters), maxFilters)
	}
	for deadline := time.Now().Add(10 * time.Second); alive(cmd.Process.Pid); {
		if time.Now().After(deadline) {
			t.Fatal("the first filter lives on")
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ line, want, facts string }{
		{`{"run":"r","name":"n","status":"up"}`, "r up", ""},
		{`{"name":"n","status":"up","reason":"slow","exec":{"a": 1.50, "b":"c d"}}`, "n up", `{"a":1.50,"b":"c d"}`},
		{`{"type":"result","name":"n","check":"disk","status":"degraded","reason":"slow","disk":{"a":1},"exec":{"b":1}}`, "n degraded slow", `{"a":1}`},
		{`{"name":"n","status":"degraded"}`, "n degraded mismatch", ""},
		{`{"name":"n","status":"down"}`, "n down mismatch", ""},
		{`{"name":"n","status":"unknown"}`, "n unknown local", ""},
		{`{"run":7,"status":"down","reason":"denied","exec":[1]}`, "7 down denied", ""},
		{"{\"name\":\"n\",\"status\":\"up\",\"exec\":{\"a\":\"\u202e\x7f\"}}", "n up", `{"a":"\u202e\u007f"}`},
		{`{"name":"n","status":"down","reason":"local"}`, "", ""},
		{`{"name":"n","status":"unknown","reason":"denied"}`, "", ""},
		{`{"name":"n","status":"down","reason":"bad luck"}`, "", ""},
		{`{"name":"n","status":7}`, "", ""},
		{`{"name":"n"}`, "", ""},
		{`{"status":"up"}`, "", ""},
		{`{"type":"event","name":"n","status":"up"}`, "", ""},
		{`{"name":"n","status":"up"`, "", ""},
		{`OK | a=1`, "", ""},
	} {
		key, a, err := parse([]byte(tt.line))
		got := strings.TrimSpace(fmt.Sprint(key.run+key.name, " ", a.Status, " ", a.Reason))
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s: got %s, want an error", tt.line, got)
			}
			continue
		}
		if err != nil || got != tt.want || string(a.Facts) != tt.facts {
			t.Errorf("%s: got %s %s %v, want %s %s", tt.line, got, a.Facts, err, tt.want, tt.facts)
		}
	}
}

// FuzzParse: an answer belongs to somebody, its status and reason fit each
// other, and its facts are JSON that is harmless and means what came.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"run":"r","status":"down","reason":"slow","error":"x","exec":{"a":["\u202e\"",1,null]}}`))
	f.Add([]byte(`{"name":"n","check":"x","status":"up","x":{}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		key, a, err := parse(line)
		if err != nil {
			return
		}
		if (key.run == "") == (key.name == "") {
			t.Errorf("%q: key %v", line, key)
		}
		if a.Status == wire.Up != (a.Reason == "") || a.Reason.Unknown() != (a.Status == wire.Unknown) {
			t.Errorf("%q: %s %s", line, a.Status, a.Reason)
		}
		if a.Facts == nil {
			return
		}
		if err := ndjson.Valid(a.Facts); err != nil || !bytes.Equal(clean(a.Facts), a.Facts) || strings.ContainsAny(string(a.Facts), "\u202e\x7f\t\r\n") {
			t.Errorf("%q: facts %q %v", line, a.Facts, err)
		}
	})
}
