// Package e2e holds tests of the built programs in pipelines, and of rules
// that concern the whole tree.
package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var bin string // the folder of the built programs

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pup-e2e")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	bin = dir
	cmd := exec.Command("go", "build", "-o", dir, "pup/cmd/pup-sched", "pup/cmd/pup-probe", "pup/cmd/pup-route")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		panic(err)
	}
	return m.Run()
}

// TestPipelines runs the scripts in testdata. $OPEN is host:port of a server
// that accepts and says nothing, $CLOSED one where nothing listens.
func TestPipelines(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// expand FILE... puts the environment's variables into files.
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, file := range args {
					text := os.Expand(ts.ReadFile(file), ts.Getenv)
					ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o666))
				}
			},
		},
		Setup: func(env *testscript.Env) error {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
				}
			}()
			gone, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			gone.Close()
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			env.Setenv("OPEN", ln.Addr().String())
			env.Setenv("CLOSED", gone.Addr().String())
			env.Setenv("ME", me())
			return nil
		},
	})
}

func me() string {
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
}

// layers lists which of our packages each of our packages may import, by the
// beginning of their paths. Imports go one way.
var layers = []struct{ pkg, may string }{
	{"pup/cmd/internal/wire", ""},
	{"pup/cmd/internal/ndjson", "wire"},
	{"pup/cmd/internal/schema", "wire ndjson"},
	{"pup/cmd/internal/lines", "wire schema"},
	{"pup/cmd/internal/expr", "schema"},
	{"pup/cmd/internal/catalog", "wire ndjson schema lines expr docs"},
	{"pup/cmd/internal/cmdline", "schema"},
	{"pup/cmd/internal/view", "wire ndjson"},
}

func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "pup/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, imports := f[0], f[1:]
		for _, imp := range imports {
			if !strings.HasPrefix(imp, "pup/") {
				continue
			}
			program := func(s string) string {
				s, _, _ = strings.Cut(strings.TrimPrefix(s, "pup/cmd/"), "/")
				return s
			}
			if p := program(imp); strings.HasPrefix(p, "pup-") && p != program(pkg) {
				t.Errorf("%s imports %s, of another program", pkg, imp)
			}
			if strings.HasPrefix(imp, "pup/cmd/pup-probe/internal/checks") && pkg != "pup/cmd/pup-probe" {
				t.Errorf("%s imports %s", pkg, imp)
			}
			for _, l := range layers {
				if l.pkg == pkg && !slices.Contains(strings.Fields(l.may), filepath.Base(imp)) {
					t.Errorf("%s imports %s, and may import only %q of ours", pkg, imp, l.may)
				}
			}
		}
	}
}

// TestLean holds the programs that speak no protocol to that: they would be
// large, and have rights that they don't need.
func TestLean(t *testing.T) {
	for program, banned := range map[string][]string{
		"pup-sched": {"net/http", "crypto/tls", "github.com/miekg/dns"},
		"pup-route": {"net/http", "crypto/tls", "github.com/miekg/dns"},
		"pup-probe": {"google.golang.org/protobuf/proto", "github.com/BurntSushi/toml"},
	} {
		out, err := exec.Command("go", "list", "-deps", "pup/cmd/"+program).Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		for _, b := range banned {
			if slices.Contains(deps, b) {
				t.Errorf("%s links %s", program, b)
			}
		}
		t.Logf("%s: %d packages", program, len(deps))
	}
}
