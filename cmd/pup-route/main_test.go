package main

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/golden"
	manpage "pup/cmd/internal/manual"
	"pup/cmd/internal/schema"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/hook"
)

// noSleep keeps a program built with the race detector from sleeping for a
// second at its end.
const noSleep = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	hook.Shim()
	if os.Getenv("PUP_ROUTE_MAIN") != "" { // a test runs us as the program
		runtime.LockOSThread() // strace counts the calls of each thread
		os.Exit(run())
	}
	testscript.Main(m, map[string]func(){"pup-route": func() { os.Exit(run()) }})
}

func TestScripts(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ME", me.Username)
			name, value, _ := strings.Cut(noSleep, "=")
			env.Setenv(name, value)
			// A FIFO is how a script waits for a hook: cat ends when the hook
			// has written to it.
			return syscall.Mkfifo(filepath.Join(env.WorkDir, "fifo"), 0o666)
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getuid() == 0, nil
		},
	})
}

// TestGeneratedManual keeps pup-route(1) and pup-hooks(5).
func TestGeneratedManual(t *testing.T) {
	p := program(cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	golden.File(t, "docs/man/pup-route.1", manpage.Roff(manpage.Program(p)))
	file, keys := config.Field(), config.HookField()
	file.Fields = slices.DeleteFunc(file.Fields, func(f schema.Field) bool { return f.Name == "hook" || f.Name == "diagnose" })
	silence := config.SilenceField()
	diagnose := config.DiagnoseField()
	text := hooksPage + manpage.Fields(&file, "") + hookKeysPage + manpage.Fields(&keys, "") + diagnoseKeysPage + manpage.Fields(&diagnose, "") + silenceKeysPage + manpage.Fields(&silence, "")
	golden.File(t, "docs/man/pup-hooks.5", manpage.Roff(manpage.Page("pup-hooks", 5, "hooks of pup-route", text,
		[]string{"pup-route(1)", "pup-lines(5)", "pup-checks(7)"})))
}

// TestGuides: each key of hooks.toml and of a silence stands in an example of
// the guides, all of which another test runs.
func TestGuides(t *testing.T) {
	files, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var examples []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range bytes.Split(text, []byte("```")) {
			if i%2 == 1 {
				examples = append(examples, part...)
			}
		}
	}
	var look func(at string, f *schema.Field)
	look = func(at string, f *schema.Field) {
		for i := range f.Fields {
			k := &f.Fields[i]
			used := regexp.MustCompile(`(?m)(^|[\s{,\[.])` + k.Name + `( *= |\])`)
			if !used.Match(examples) {
				t.Errorf("%s%s has no example in docs/guide", at, k.Name)
			}
			look(at+k.Name+".", k)
		}
	}
	file, hook, diagnose, silence := config.Field(), config.HookField(), config.DiagnoseField(), config.SilenceField()
	look("", &file)
	look("hook.", &hook)
	look("diagnose.", &diagnose)
	look("silence.", &silence)
}
