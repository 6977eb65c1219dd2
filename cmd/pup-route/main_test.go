package main

import (
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
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
			// A FIFO is how a script waits for a hook: cat ends when the hook
			// has written to it.
			return syscall.Mkfifo(filepath.Join(env.WorkDir, "fifo"), 0o666)
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getuid() == 0, nil
		},
	})
}
