package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pup/cmd/internal/golden"
)

// A fault is something that goes wrong, the test that shows how it is dealt
// with, and the control of that test: without the protection it must fail.
type fault struct {
	row   string // of the fault matrix
	fault string
	pkg   string // from here
	test  string // as for go test -run, without anchors

	without string // the protection that the control takes away
	edits   []edit // and how
	fails   string // what the test says then
	root    bool   // it takes root
	tools   []string
}

// hangs is what a test says that does not end.
const hangs = "hangs"

// An edit is a change of a source file.
type edit struct{ file, old, new string }

// apply returns the file as it is with the change, on top of earlier ones.
func (e *edit) apply(changed map[string]string) (path, text string, err error) {
	path, err = filepath.Abs(e.file)
	if err != nil {
		return "", "", err
	}
	from := path
	if earlier := changed[path]; earlier != "" {
		from = earlier
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return "", "", err
	}
	if n := strings.Count(string(b), e.old); n != 1 {
		return "", "", fmt.Errorf("%s holds %q %d times, want once: the control of a fault has to be written again", e.file, e.old, n)
	}
	return path, strings.Replace(string(b), e.old, e.new, 1), nil
}

// TestGeneratedFaults keeps docs/faults.md, and the controls in step with the
// source that they change.
func TestGeneratedFaults(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`<!-- Made by 'make generate' from cmd/pup-route/faults_table_test.go. Do not edit. -->

# Faults

What goes wrong, and the test that shows how pup-route deals with it. A row counts only with its control: the same test, run against a build without the protection, has to fail, and says what stands in the last column. ` + "`make faults`" + ` runs all tests and all controls.

The numbers are those of the study that the matrix comes from. Rows 62 to 72 concern pup-probe.

| | fault | test | without | it says |
|---|---|---|---|---|
`)
	row := ""
	for _, f := range faultMatrix {
		for _, e := range f.edits {
			if _, _, err := e.apply(nil); err != nil {
				t.Errorf("row %s: %v", f.row, err)
			}
		}
		shown := f.row
		if shown == row {
			shown = ""
		}
		row = f.row
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Join("pup-route", f.pkg)), "pup-route/internal/")
		fmt.Fprintf(&b, "| %s | %s | %s `%s` | %s | %s |\n", shown, f.fault, pkg, f.test, f.without, f.fails)
	}
	golden.File(t, "docs/faults.md", b.Bytes())
}
