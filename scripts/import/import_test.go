package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImports reads a file of every format and compares what comes of it, and
// what is said about it, with files beside it. With PUP_UPDATE set it writes
// these instead.
func TestImports(t *testing.T) {
	for format, files := range map[string]string{
		"puptime": "puptime.yml", "gatus": "gatus.yaml", "blackbox": "blackbox.yml prometheus.yml", "kuma": "kuma.json",
		"nagios": "nagios.cfg", "icinga": "icinga.conf", "monit": "monitrc",
	} {
		t.Run(format, func(t *testing.T) {
			args := []string{format}
			for f := range strings.FieldsSeq(files) {
				args = append(args, filepath.Join("testdata", f))
			}
			var out, said bytes.Buffer
			if code := run(args, &out, &said); code != 0 {
				t.Fatalf("exit code %d: %s", code, &said)
			}
			golden(t, filepath.Join("testdata", format+".toml"), out.Bytes())
			golden(t, filepath.Join("testdata", format+".report"), said.Bytes())
			if strings.Contains(out.String()+said.String(), "geheim") {
				t.Error("a credential has been copied")
			}
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("PUP_UPDATE") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (%v); got\n%s", file, err, got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"gatus"}, {"cacti", "x"}} {
		var out, said bytes.Buffer
		if code := run(args, &out, &said); code != 64 || out.Len() > 0 || !strings.Contains(said.String(), "usage:") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, &out, &said)
		}
	}
	for _, args := range [][]string{{"gatus", "testdata/missing"}, {"gatus", "testdata/monitrc"}, {"nagios", "testdata"}} {
		var out, said bytes.Buffer
		if code := run(args, &out, &said); code != 65 || out.Len() > 0 || said.Len() == 0 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, &out, &said)
		}
	}
}

// FuzzImports wants that no file brings an importer down.
func FuzzImports(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/monitrc") {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		for format := range formats {
			var out, said bytes.Buffer
			if code := run([]string{format, file}, &out, &said); code == 0 && said.Len() == 0 {
				t.Errorf("%s: no report", format)
			}
		}
	})
}
