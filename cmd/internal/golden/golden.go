// Package golden compares what a test made with a file of the tree, and
// rewrites the file where that is asked for. For tests only.
package golden

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// File compares got with the file at path, a path from the root of the
// repository. With PUP_UPDATE set (make generate) it writes the file instead.
func File(t testing.TB, path string, got []byte) {
	t.Helper()
	file := filepath.Join(root(t), path)
	if os.Getenv("PUP_UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; run 'make generate' (%v)", path, err)
	}
}

// root finds the folder of go.mod.
func root(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}
