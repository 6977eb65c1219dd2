package checks

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
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
		{"warning", "echo WARN; exit 1", "", "degraded mismatch wait", []string{"exec.exit_code == 1", "error contains 'WARN'"}},
		{"warning is judged", "exit 1", `"warn":["exec.exit_code <= 1"]`, "up", nil},
		{"warning and limits", "echo 'W | t=5s'; exit 1", `"warn":["exec.perf.t < 3"]`, "degraded mismatch wait", []string{"failed[0].saw['exec.perf.t'] == 5", "error contains 'warning'"}},
		{"warning and worse", "echo 'W | t=5s'; exit 1", `"expect":["exec.perf.t < 3"]`, "down mismatch verify", nil},
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

// execContract: the command is missing, hangs, floods or talks garbage, as a
// plugin and as a filter. When the time is over, or the program is told to
// stop, all descendants end, one in a session of its own included.
func execContract(t *testing.T, s subject) {
	plain := filepath.Join(t.TempDir(), "plain")
	os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600)
	garbage := `printf '\033[31m\377\000\302\233 | \033=1 a=\377\r\n'`
	var all sync.WaitGroup
	var runs []func()
	for _, tt := range []struct{ name, command, plugin, filter string }{
		{"missing", "/nonexistent/command", "unknown local", "unknown local"},
		{"a directory", "/", "unknown local", "unknown local"},
		{"not to be executed", plain, "unknown local", "unknown local"},
		{"silent", execScript(t, "cat; exec sleep 1000"), "down timeout", "down timeout"},
		{"curt", execScript(t, "exit 3"), "unknown local", "unknown local"},
		{"killed", execScript(t, "kill -9 $$"), "unknown local", "unknown local"},
		{"noisy", execScript(t, "exec yes"), "down timeout", "down timeout"},
		{"noisy errors", execScript(t, "yes >&2; true"), "down timeout", "down timeout"},
		{"noisy without lines", execScript(t, "exec cat /dev/zero"), "down timeout", "down timeout"},
		{"garbage", execScript(t, garbage+"; exit 2"), "down mismatch", "unknown local"},
		{"garbage errors", execScript(t, garbage+" >&2; exit 3"), "unknown local", "unknown local"},
		{"echo", execScript(t, "cat; echo; exec sleep 1000"), "down timeout", "down timeout"},
	} {
		for mode, want := range map[string]string{"plugin": tt.plugin, "filter": tt.filter} {
			run := func() {
				s := s
				s.runner = allowing()
				defer s.runner.Close()
				timeout := "30s" // while the noisy ones are at work
				if want == "down timeout" {
					timeout = "200ms"
				}
				target := fmt.Sprintf(`"exec":{"mode":%q,"max_bytes":4096},"timeout":%q`, mode, timeout)
				s.run(t, "exec://"+tt.command, target).beginsWith(t, mode+" "+tt.name, want)
			}
			all.Go(run)
			if tt.name == "silent" || tt.name == "curt" || tt.name == "missing" {
				runs = append(runs, run)
			}
		}
	}
	all.Wait()
	leavesNothing(t, func() {
		for _, run := range runs {
			all.Go(run)
		}
		all.Wait()
	})
	for _, mode := range []string{"plugin", "filter"} {
		for _, want := range []string{"down timeout", "unknown canceled"} {
			s.runner = allowing()
			pids, started := execTree(t)
			target := fmt.Sprintf(`"exec":{"mode":%q,"args":[%q]}`, mode, pids)
			if url := "exec://" + execScript(t, execTreeScript); want == "unknown canceled" {
				s.canceled(t, started, url, target)
			} else {
				s.run(t, url, join(target, `"timeout":"1s"`)).beginsWith(t, "hangs", want)
			}
			s.runner.Close()
			execGone(t, pids)
		}
	}
}

// execTreeScript is a command that has descendants, and hangs. Each writes its
// process ID to the file; the last one then says so.
const execTreeScript = `trap '' TERM
sh -c 'echo $$ >>"$0"; while :; do sleep 100; done' "$1" &
echo $$ >>"$1"
setsid sh -c 'echo $$ >>"$0"; while [ $(wc -l <"$0") != 3 ]; do :; done; echo >"$0.started"; while :; do sleep 100; done' "$1" &
wait
`

// execTree gives the file for execTreeScript, and when all have started.
func execTree(t *testing.T) (pids string, started <-chan struct{}) {
	pids = filepath.Join(t.TempDir(), "pids")
	if err := syscall.Mkfifo(pids+".started", 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pids+".started", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	all := make(chan struct{}, 1)
	go func() {
		if _, err := f.Read(make([]byte, 1)); err == nil {
			all <- struct{}{}
		}
	}()
	return pids, all
}

func execGone(t *testing.T, pids string) {
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

// execAnswering is a filter that answers each target with the rest of an
// object, in which NAME is the target's name.
func execAnswering(t *testing.T, answer string) string {
	return execScript(t, `while read -r line; do
	name=${line#*\"name\":\"}; name=${name%%\"*}
	printf '%s\n' "{\"name\":\"$name\",`+strings.ReplaceAll(answer, `"`, `\"`)+`}"
done
`)
}

func TestExecFilter(t *testing.T) {
	password := secret(t, "FILTER", "s3cret-word")
	for _, tt := range []struct {
		name, script, target, want string
		facts                      []string
	}{
		{"up", execAnswering(t, `"status":"up","exec":{"age_ms":7,"who":"x"}`), "", "up", []string{"exec.facts.age_ms == 7", "exec.facts.who == 'x'", "exec.starts == 1", "ms.wait > 0"}},
		{"another check", execAnswering(t, `"status":"up","check":"disk","disk":{"free":7}`), "", "up", []string{"exec.facts.free == 7"}},
		{"degraded", execAnswering(t, `"status":"degraded","reason":"slow","error":"so slow"`), "", "degraded slow wait", []string{"error == 'so slow'"}},
		{"down", execAnswering(t, `"status":"down","reason":"denied","error":"who are you?"`), "", "down denied wait", []string{"error == 'who are you?'"}},
		{"no words", execAnswering(t, `"status":"down"`), "", "down mismatch wait", []string{"error == 'the filter says down'"}},
		{"unknown", execAnswering(t, `"status":"unknown","error":"no idea"`), "", "unknown local wait", []string{"error == 'no idea'"}},
		{"expect", execAnswering(t, `"status":"up","exec":{"age_ms":7}`), `"expect":["exec.facts.age_ms < 5"]`, "down mismatch verify", []string{"failed[0].saw['exec.facts.age_ms'] == 7"}},
		{"warn", execAnswering(t, `"status":"up","exec":{"age_ms":7}`), `"warn":["exec.facts.age_ms < 5"]`, "degraded mismatch verify", nil},
		{"expected failure", execAnswering(t, `"status":"down","reason":"denied"`), `"expect":["reason == 'denied'"]`, "up", nil},
		{"garbage", execScript(t, `read x; echo garbage; echo '{}'; echo '{"name":"t","status":"up"}'; read x`), "", "up", []string{"exec.ignored == 2"}},
		{"echo", execScript(t, "cat"), `"timeout":"300ms"`, "down timeout wait", []string{"error contains 'of 1 lines'", "exec.ignored == 1"}},
		{"silent", execScript(t, "cat >/dev/null"), `"timeout":"300ms"`, "down timeout wait", []string{"error == 'no answer within 300ms'"}},
		{"ends", execScript(t, "read x; echo no such table >&2; exit 3"), "", "unknown local wait", []string{"error contains 'exit status 3'", "error contains 'no such table'"}},
		{"missing", "/nonexistent/command", "", "unknown local wait", nil},
		{"stdin", execScript(t, "cat"), `"exec":{"mode":"filter","stdin":"x"}`, "unknown options prepare", []string{"error contains 'exec.stdin'"}},
		{"codes", execScript(t, "cat"), `"exec":{"mode":"filter","codes":"any"}`, "unknown options prepare", []string{"error contains 'exec.codes'"}},
		{"other mode", execScript(t, "cat"), `"exec":{"mode":"server"}`, "unknown options prepare", nil},
		{"controls", execAnswering(t, "\"status\":\"down\",\"error\":\"\u009b1m\u202e\",\"exec\":{\"a\":\"\u009b1m\u202e\"}"), "", "down mismatch wait", []string{"len(exec.facts.a) == 4"}},
		{"secret", execScript(t, `read -r line; case $line in *s3cret*) exit 1;; esac; echo "{\"name\":\"t\",\"status\":\"down\",\"error\":\"it is $P\",\"exec\":{\"p\":\"$P\"}}"; read x`),
			`"exec":{"mode":"filter","secret_env":{"P":"` + password + `"}}`, "down mismatch wait", []string{"error == 'it is ***'", "exec.facts.p == '***'"}},
		{"line as it came", execScript(t, `read -r line; case $line in '{"name":"t","url":'*',"zone":{"a":[1.50]},"run":"t@1",'*) echo '{"run":"t@1","status":"up"}';; esac; read x`), `"zone":{"a":[1.50]},"run":"t@1"`, "up", []string{"run == 't@1'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := allowing()
			t.Cleanup(r.Close)
			target := tt.target
			if !strings.Contains(target, `"exec"`) {
				target = strings.TrimPrefix(target+`,"exec":{"mode":"filter"}`, ",")
			}
			res := checkContext(t, t.Context(), r, "exec://"+tt.script, target)
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, "s3cret") || strings.ContainsAny(res.line, "\u009b\u202e") {
				t.Errorf("the line has what must not be there: %q", res.line)
			}
		})
	}
	check(t, "exec:///bin/cat", `"exec":{"mode":"filter"}`).want(t, "unknown options prepare", "error contains '--allow-exec'")
}

// All targets share the filter, and its death costs no more than those that
// wait.
func TestExecFilterIsShared(t *testing.T) {
	r := allowing()
	t.Cleanup(r.Close)
	url := "exec://" + execScript(t, `while read -r line; do
	case $line in *'"die"'*) exit 1;; esac
	echo "{\"name\":\"t\",\"status\":\"up\",\"exec\":{\"pid\":$$}}"
done`)
	ask := func(more string) result {
		return checkContext(t, t.Context(), r, url, `"exec":{"mode":"filter"}`+more)
	}
	first := ask("")
	pid := first.vars["exec"].(map[string]any)["facts"].(map[string]any)["pid"]
	first.want(t, "up")
	ask("").want(t, "up", fmt.Sprintf("exec.facts.pid == %v", pid))
	ask(`,"do":"die"`).want(t, "unknown local wait")
	ask("").want(t, "up", "exec.starts == 2", fmt.Sprintf("exec.facts.pid != %v", pid))
}
