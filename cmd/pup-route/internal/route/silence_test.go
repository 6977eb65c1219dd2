package route

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pup/cmd/pup-route/internal/config"
)

// TestSilenceWhileRunning: a silence that is written while pup-route runs
// holds after silencesEvery, and no longer when it is gone or has ended.
func TestSilenceWhileRunning(t *testing.T) {
	dir := t.TempDir()
	silences := filepath.Join(dir, "silences")
	if err := os.Mkdir(silences, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "hooks.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "silences = %q\n", silences), 0o644); err != nil {
		t.Fatal(err)
	}
	o := options(t)
	c, err := config.Load([]string{file}, []string{"down=false"}, config.Options{User: "root", Root: os.Getuid() == 0})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	var passed atomic.Int64
	o.Config, o.DryRun, o.Wall = c, true, func() time.Time { return start.Add(time.Duration(passed.Load())) }
	in, w := io.Pipe()
	r, out := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := Run(in, out, io.Discard, o)
		out.Close()
		done <- err
	}()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	expect := func(name, want string) {
		t.Helper()
		for line := range lines { // those of other names may come between
			if strings.Contains(line, fmt.Sprintf(`"name":%q,`, name)) {
				if !strings.Contains(line, want) {
					t.Errorf("%s: got %s, want %s", name, line, want)
				}
				return
			}
		}
		t.Errorf("%s: nothing came", name)
	}
	down := func(name, want string) {
		t.Helper()
		fmt.Fprintf(w, `{"name":%q,"status":"down"}`+"\n", name)
		expect(name, want)
	}
	down("a", `"event":"down"`)
	s := config.Silence{File: "s.toml", Until: start.Add(time.Hour), Reason: "disks"}
	if err := config.WriteSilence(silences, &s); err != nil {
		t.Fatal(err)
	}
	passed.Add(int64(silencesEvery))
	down("b", `silenced by s.toml: disks`)
	if err := config.RemoveSilence(silences, s.File); err != nil {
		t.Fatal(err)
	}
	passed.Add(int64(silencesEvery))
	down("c", `"event":"down"`)
	s.Until = start.Add(time.Minute)
	if err := config.WriteSilence(silences, &s); err != nil {
		t.Fatal(err)
	}
	passed.Add(int64(silencesEvery))
	down("d", `silenced by s.toml: disks`)
	fmt.Fprintln(w, `{"name":"x","status":"up","time":"2026-11-22T06:01:00Z"}`) // the end of the silence
	expect("d", `"event":"down"`)
	w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
