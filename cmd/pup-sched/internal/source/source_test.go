package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pup/cmd/pup-sched/internal/config"
)

func script(t *testing.T, text string) *config.Source {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return &config.Source{Name: "s", Command: []string{"./list", "a b"}, Dir: dir, Timeout: time.Minute}
}

func TestFetchAsksOnce(t *testing.T) {
	s := script(t, `echo "$1 $(pwd)"; echo x >>asked`)
	m := NewMemory()
	for range 2 {
		out, err := m.Fetch(t.Context(), s)
		if err != nil || !strings.HasPrefix(string(out), "a b /") || !strings.Contains(string(out), filepath.Base(s.Dir)) {
			t.Fatalf("got %q, %v", out, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(s.Dir, "asked")); string(b) != "x\n" {
		t.Errorf("it was asked %q, want once", b)
	}
}

func TestRefreshKeepsWhatWasGood(t *testing.T) {
	s := script(t, `test -e bad && { echo no >&2; exit 3; }; cat list.txt`)
	put := func(text string) {
		if err := os.WriteFile(filepath.Join(s.Dir, "list.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := NewMemory()
	put("one")
	for i, step := range []struct {
		do      func()
		changed bool
		err     string
		want    string
	}{
		{func() {}, true, "", "one"},
		{func() {}, false, "", "one"},
		{func() { put("two") }, true, "", "two"},
		{func() { os.WriteFile(filepath.Join(s.Dir, "bad"), nil, 0o644) }, false, "list: exit status 3: no", "two"},
		{func() { os.Remove(filepath.Join(s.Dir, "bad")); put("three") }, true, "", "three"},
	} {
		step.do()
		changed, err := m.Refresh(t.Context(), s)
		if changed != step.changed || (err == nil) != (step.err == "") || err != nil && !strings.HasSuffix(err.Error(), step.err) {
			t.Errorf("step %d: got %v, %v; want %v, %q", i, changed, err, step.changed, step.err)
		}
		if out, err := m.Fetch(t.Context(), s); string(out) != step.want || err != nil {
			t.Errorf("step %d: got %q, %v; want %q", i, out, err, step.want)
		}
	}
}

func TestAFirstFailureIsTold(t *testing.T) {
	m := NewMemory()
	s := &config.Source{Name: "s", Command: []string{"/nonexistent/x"}, Timeout: time.Second}
	if _, err := m.Fetch(t.Context(), s); err == nil {
		t.Error("no error")
	}
	f := &config.Source{Name: "f", File: filepath.Join(t.TempDir(), "x")}
	if _, err := m.Fetch(t.Context(), f); err == nil {
		t.Error("no error")
	}
	if err := os.WriteFile(f.File, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := m.Refresh(t.Context(), f); !changed || err != nil {
		t.Errorf("got %v, %v", changed, err)
	}
	if out, err := m.Fetch(t.Context(), f); string(out) != "one" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestTimeoutKillsTheWholeGroup(t *testing.T) {
	s := script(t, `sleep 1000 & echo $! >child; wait`)
	s.Timeout = 2 * time.Second
	_, err := NewMemory().Fetch(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "took longer than 2s") {
		t.Fatalf("got %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(s.Dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 { // a killed process is gone once it gets to run
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		<-tick.C
	}
	t.Error("the child lives")
}

func TestFloodIsBounded(t *testing.T) {
	s := script(t, `echo first; head -c 5000 /dev/zero | tr '\0' x >&2; exit 1`)
	_, err := NewMemory().Fetch(t.Context(), s)
	if err == nil || len(err.Error()) > 1200 {
		t.Errorf("got %.100v… of %d bytes", err, len(err.Error()))
	}
}
