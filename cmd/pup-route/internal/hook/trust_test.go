package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTrusted(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"good", "bad"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "page"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	good, bad := filepath.Join(dir, "good", "page"), filepath.Join(dir, "bad", "page")
	for name, target := range map[string]string{
		"good/tobad": bad, "good/togood": good, "good/relative": "../good/./page", "good/loop": "loop",
		"bad/togood": good, "good/around": filepath.Join(dir, "bad/togood"), // leads through a folder of others
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	open := filepath.Join(dir, "good", "open")
	if err := os.WriteFile(open, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(bad): 0o777, open: 0o775} {
		if err := os.Chmod(path, mode); err != nil { // the umask is not asked
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		good:                                "",
		"/bin/sh":                           "",
		bad:                                 filepath.Dir(bad) + " may be written by others",
		open:                                open + " may be written by others",
		filepath.Join(dir, "good/togood"):   "",
		filepath.Join(dir, "good/tobad"):    filepath.Dir(bad) + " may be written by others",
		filepath.Join(dir, "good/around"):   filepath.Dir(bad) + " may be written by others",
		filepath.Join(dir, "good/relative"): "",
		filepath.Join(dir, "good/loop"):     "too many levels of symbolic links",
		filepath.Join(dir, "good/nothing"):  "no such file",
		filepath.Join(dir, "good/page/x"):   "not a directory",
	} {
		err := Trusted(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(good, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := Trusted(good); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
			t.Errorf("a command of nobody's: %v", err)
		}
	}
}

// TestGuard: a command that somebody else could have changed since it was
// checked does not run, whatever its input, and runs again once it is right.
func TestGuard(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "page")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho called\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := shell(t, "")
	c.Argv, c.Guard = []string{path}, true
	run := func() Outcome { return c.Run(NewStop(), nil, []byte("x\n")) }
	if o := run(); o.Err != nil || string(o.Output) != "called\n" {
		t.Fatalf("%v, %q", o.Err, o.Output)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	want := "start: " + dir + " may be written by others than its owner; chmod go-w it"
	if o := run(); o.Err == nil || o.Err.Error() != want || !o.Retry() || len(o.Output) > 0 {
		t.Errorf("got %v, %q, want %s", o.Err, o.Output, want)
	}
	p := &Process{Command: c, Stop: NewStop(), Log: func([]byte, error) { t.Error("a process was started") }}
	if o := p.Send(nil, []byte("x\n")); o.Err == nil || o.Err.Error() != want || !o.Retry() {
		t.Errorf("a stream: got %v, want %s", o.Err, want)
	}
	c.Guard = false
	if o := run(); o.Err != nil {
		t.Errorf("unguarded: %v", o.Err)
	}
	c.Guard = true
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if o := run(); o.Err != nil {
		t.Errorf("put right: %v", o.Err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if o := run(); o.Err == nil || !strings.Contains(o.Err.Error(), "belongs to uid 65534") {
			t.Errorf("a command of nobody's: %v", o.Err)
		}
	}
}

// BenchmarkTrusted is what the check costs before each start.
func BenchmarkTrusted(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := Trusted("/bin/sh"); err != nil {
			b.Fatal(err)
		}
	}
}
