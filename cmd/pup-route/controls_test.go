//go:build faults

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-route/internal/hook"
)

// TestFaultControls runs the test of each fault twice: as the program is, and
// against a build without the protection, where it has to fail. Tests of
// faults that make faults runs anyway are run only in the second way.
func TestFaultControls(t *testing.T) {
	dir := t.TempDir()
	builds := map[string]func() (string, error){}
	passes := map[string]func() error{}
	for i, f := range faultMatrix {
		if builds[f.pkg] == nil {
			builds[f.pkg] = sync.OnceValues(func() (string, error) { return buildTest(f.pkg, filepath.Join(dir, fmt.Sprint("plain", i)), nil) })
		}
		if key := f.pkg + f.test; passes[key] == nil {
			passes[key] = sync.OnceValue(func() error {
				bin, err := builds[f.pkg]()
				if err != nil || strings.HasPrefix(f.test, "TestFault") {
					return err
				}
				if failure, out := runTest(bin, &f); failure != "" {
					return fmt.Errorf("it fails as the program is: %s\n%s", failure, out)
				}
				return nil
			})
		}
	}
	for i, f := range faultMatrix {
		t.Run(strings.ReplaceAll(fmt.Sprintf("%s without %s", f.row, f.without), "/", "-"), func(t *testing.T) {
			if f.root {
				realserver.NeedRoot(t)
			}
			realserver.Need(t, f.tools...)
			t.Parallel()
			if err := passes[f.pkg+f.test](); err != nil {
				t.Fatal(err)
			}
			bin, err := buildTest(f.pkg, filepath.Join(dir, fmt.Sprint(i)), f.edits)
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(bin)
			failure, out := runTest(bin, &f)
			if !strings.Contains(failure, f.fails) || failure == "" {
				t.Errorf("%s without %s: got %q, want a failure that says %q\n%s", f.test, f.without, failure, f.fails, out)
			}
		})
	}
}

// buildTest builds the tests of a package, with changes to the source that
// the tree does not see.
func buildTest(pkg, bin string, edits []edit) (string, error) {
	replace := map[string]string{}
	for i, e := range edits {
		path, text, err := e.apply(replace)
		if err != nil {
			return "", err
		}
		changed := fmt.Sprintf("%s.%d.go", bin, i)
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(bin+".json", text, 0o600); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-c", "-tags", "faults", "-ldflags=-s -w", "-overlay", bin+".json", "-o", bin, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}

// A test that is to hang has hangTime to end; any other may take its time.
const (
	hangTime = 20 * time.Second
	testTime = 3 * time.Minute
)

// runTest runs the test of a fault, and ends all that it leaves behind. It
// returns how the test failed, "" if it did not, and what it printed.
func runTest(bin string, f *fault) (failure, out string) {
	printed, err := os.CreateTemp(filepath.Dir(bin), "out")
	if err != nil {
		return err.Error(), ""
	}
	defer printed.Close()
	dir, err := filepath.Abs(f.pkg)
	if err != nil {
		return err.Error(), ""
	}
	limit := testTime
	if f.fails == hangs {
		limit = hangTime
	}
	pattern := "^" + strings.ReplaceAll(f.test, "/", "$/^") + "$"
	c := hook.Command{
		Argv:    []string{"/bin/sh", "-c", `cd "$1" && exec "$2" -test.short -test.run "$3" > "$4" 2>&1`, "sh", dir, bin, pattern, printed.Name()},
		Env:     append(os.Environ(), "GOFLAGS=-buildvcs=false -overlay="+bin+".json"), // for tests that build
		Input:   hook.Stdin,
		Timeout: limit,
		Sandbox: hook.Sandbox{Level: hook.Basic, Privileges: true},
	}
	o := c.Run(hook.NewStop(), nil, nil)
	text, err := os.ReadFile(printed.Name())
	switch {
	case err != nil:
		return err.Error(), ""
	case o.TimedOut:
		return hangs, string(text)
	case o.Err == nil:
		return "", string(text)
	case o.Exit == 1 || o.Exit == 2: // FAIL, a panic
		return string(text), string(text)
	}
	return o.Err.Error(), string(text)
}
