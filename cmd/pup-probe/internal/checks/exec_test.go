package checks

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// execScript is a command for tests.
func execScript(t *testing.T, text string) string {
	file := filepath.Join(t.TempDir(), "command")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExec(t *testing.T) {
	t.Setenv("PUP_OWN", "must not be seen")
	password := secret(t, "PASSWORD", "s3cret-word")
	for _, tt := range []struct {
		name, script, target, want string
		facts                      []string
	}{
		{"ok", "echo 'DISK OK - fine | /=10MB;20;30;0;100 time=0.5s'", "", "up",
			[]string{"exec.exit_code == 0", "exec.text == 'DISK OK - fine'", "exec.perf['/'] == 10", "exec.units['/'] == 'MB'", "exec.perf.time == 0.5", "ms.wait > 0"}},
		{"warning", "echo WARN; exit 1", "", "degraded mismatch verify", []string{"exec.exit_code == 1"}},
		{"critical", "echo CRIT; exit 2", "", "down mismatch wait", []string{"exec.exit_code == 2", "error contains 'CRIT'"}},
		{"unknown", "echo no idea >&2; exit 3", "", "unknown local wait", []string{"error contains 'no idea'"}},
		{"strange code", "exit 127", "", "unknown local wait", nil},
		{"any code", "exit 7", `"exec":{"codes":"any"},"expect":["exec.exit_code == 7"]`, "up", nil},
		{"any code but another", "exit 2", `"exec":{"codes":"any"},"expect":["exec.exit_code == 7"]`, "down mismatch verify", nil},
		{"signal", "kill -9 $$", "", "unknown local wait", []string{"error contains 'killed'"}},
		{"arguments", `echo "$#:$1:$2"`, `"exec":{"args":["a b","$HOME"]}`, "up", []string{"exec.text == '2:a b:$HOME'"}},
		{"stdin", "read x; echo got $x", `"exec":{"stdin":"hello\n"}`, "up", []string{"exec.text == 'got hello'"}},
		{"environment", `echo "$A:$PUP_OWN:$LANG"`, `"exec":{"env":{"A":"1"}}`, "up", []string{"exec.text == '1::C.UTF-8'"}},
		{"secret", `echo "it is $P"; exit 2`, `"exec":{"secret_env":{"P":"` + password + `"}}`, "down mismatch wait", []string{"exec.text == 'it is ***'"}},
		{"secret in the clear", "true", `"exec":{"secret_env":{"P":"s3cret"}}`, "unknown options prepare", nil},
		{"much output", "yes | head -c 300000", `"exec":{"max_bytes":100},"expect":["len(exec.output) == 100"]`, "up", nil},
		{"limits", "echo 'x | t=5s'", `"expect":["exec.perf.t < 3"]`, "down mismatch verify", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := checkContext(t, t.Context(), allowing(), "exec://"+execScript(t, tt.script), tt.target)
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, "s3cret") {
				t.Errorf("the secret is in the line: %s", res.line)
			}
		})
	}
	checkContext(t, t.Context(), allowing(), "exec:///nonexistent/command", "").want(t, "unknown local wait")
	check(t, "exec:///bin/true", "").want(t, "unknown options prepare", "error contains '--allow-exec'")
}

// When the time is over, all descendants end, one in a session of its own
// included.
func TestExecKillsTheTree(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := execScript(t, fmt.Sprintf("trap '' TERM\nsetsid sh -c 'echo $$ >>%[1]s; while :; do sleep 100; done' &\nsh -c 'echo $$ >>%[1]s; while :; do sleep 100; done' &\necho $$ >>%[1]s\nwait\n", pids))
	checkContext(t, t.Context(), allowing(), "exec://"+script, `"timeout":"500ms"`).want(t, "down timeout wait")
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(b))
	if len(list) != 3 {
		t.Fatalf("%d processes have started, want 3", len(list))
	}
	for _, s := range list {
		pid, _ := strconv.Atoi(s)
		for deadline := time.Now().Add(10 * time.Second); execAlive(pid); {
			if time.Now().After(deadline) {
				t.Fatalf("process %d lives on", pid)
			}
		}
	}
}

// execAlive says whether a process runs; one that nobody has waited for does
// not.
func execAlive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestExecParse(t *testing.T) {
	for _, tt := range []struct {
		out, text string
		perf      map[string]float64
	}{
		{"", "", nil},
		{"OK\n", "OK", nil},
		{"OK | a=1", "OK", map[string]float64{"a": 1}},
		{"OK|'a b'=1.5s;2;3;0;10 'it''s'=-2e3", "OK", map[string]float64{"a b": 1.5, "it's": -2000}},
		{"OK | a=1\nlong text\nmore | b=2\nc=3", "OK", map[string]float64{"a": 1, "b": 2, "c": 3}},
		{"OK | a=U b=2%", "OK", map[string]float64{"b": 2}},
		{"OK | a=0,5s", "OK", map[string]float64{"a": 0.5}},
		{"OK | a", "OK", nil},
		{"OK | 'a", "OK", nil},
		{"OK | a=1e999 b=nan c=inf d=1", "OK", map[string]float64{"d": 1}},
		{"OK | =1 b=2", "OK", map[string]float64{"b": 2}},
	} {
		text, perf, _ := execParse(tt.out)
		if text != tt.text || !reflect.DeepEqual(perf, tt.perf) {
			t.Errorf("%q: got %q %v, want %q %v", tt.out, text, perf, tt.text, tt.perf)
		}
	}
}

// FuzzExecParse: what comes out is bounded, and made of what went in.
func FuzzExecParse(f *testing.F) {
	f.Add("OK | 'a b'=1s;2;3 c=4\nx | d=5%")
	f.Fuzz(func(t *testing.T, out string) {
		text, perf, units := execParse(out)
		if len(text) > maxShown+8 || len(perf) > execMaxPerf || len(units) > len(perf) {
			t.Errorf("%d bytes, %d values, %d units", len(text), len(perf), len(units))
		}
		for label := range perf {
			if utf8.ValidString(out) && !strings.Contains(strings.ReplaceAll(out, "\n", " "), strings.ReplaceAll(label, "'", "''")) && !strings.Contains(label, "'") {
				t.Errorf("label %q is not in %q", label, out)
			}
		}
	})
}
