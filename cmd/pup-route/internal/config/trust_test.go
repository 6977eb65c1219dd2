package config

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
	for name, target := range map[string]string{"tobad": bad, "togood": good} {
		if err := os.Symlink(target, filepath.Join(dir, "good", name)); err != nil {
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
		good:                               "",
		"/bin/sh":                          "",
		bad:                                filepath.Dir(bad) + " may be written by others",
		open:                               open + " may be written by others",
		filepath.Join(dir, "good/togood"):  "",
		filepath.Join(dir, "good/tobad"):   filepath.Dir(bad) + " may be written by others",
		filepath.Join(dir, "good/nothing"): "no such file",
	} {
		err := trusted(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(good, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := trusted(good); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
			t.Errorf("a command of nobody's: %v", err)
		}
	}
}
