package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/golden"
	"pup/cmd/internal/manual"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pup-probe": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true})
}

// TestGeneratedManual keeps pup-probe(1).
func TestGeneratedManual(t *testing.T) {
	p := program(cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	golden.File(t, "docs/man/pup-probe.1", manual.Roff(manual.Program(p)))
}
