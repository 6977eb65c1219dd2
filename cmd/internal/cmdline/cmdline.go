// Package cmdline gives the pup programs the same manners: flags as GNU
// programs have them, help on standard output only when asked for, errors on
// standard error, the same exit codes and signals.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/schema"
)

// Exit codes, the same for the three programs. 1, 2 and 3 come with -e only.
const (
	OK       = 0
	Degraded = 1
	Down     = 2
	Unknown  = 3
	Usage    = 64
	Data     = 65
	Bug      = 70
	IO       = 74
	Config   = 78
)

// Exits explains the exit codes, for help and manual.
var Exits = []struct {
	Code int
	Doc  string
}{
	{OK, "everything was dealt with; a target that is down is no failure of the program"},
	{Degraded, "with -e: the worst status was degraded"},
	{Down, "with -e: the worst status was down"},
	{Unknown, "with -e: the worst status was unknown"},
	{Usage, "wrong usage: flags or arguments"},
	{Data, "some input line could not be read; the others were dealt with"},
	{Bug, "a bug in the program"},
	{IO, "output or spool can't be written"},
	{Config, "the configuration is wrong"},
}

// Version is set when a release is built.
var Version = ""

// Std is what a program is connected to.
type Std struct {
	In       *os.File
	Out, Err *os.File
}

// An Example is a command and what it is for.
type Example struct{ Doc, Command string }

// A Section is a part of the manual beyond the flags.
type Section struct{ Title, Text string }

// A Program is a command-line program with its manual.
type Program struct {
	*cli.App
	Synopsis    []string // what comes behind the name
	Description string   // paragraphs, Markdown
	Examples    []Example
	Exits       []int     // those of Exits that the program can end with
	Sections    []Section // more of the manual
	SeeAlso     []string
}

// An Error ends a program with an exit code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error with the given exit code. With an empty text the
// program ends silently.
func Errorf(code int, format string, args ...any) error {
	return &Error{code, fmt.Errorf(format, args...)}
}

// Exit makes an Error that ends the program without a message; nil for 0.
func Exit(code int) error {
	if code == OK {
		return nil
	}
	return &Error{code, errors.New("")}
}

// Main runs the program and returns its exit code.
func (p *Program) Main(args []string, std Std) (code int) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(std.Err, "%s: bug: %v\n%s", p.Name, v, debug.Stack())
			code = Bug
		}
	}()
	p.prepare(std)
	err := p.Run(append(args[:1:1], p.permute(args[1:])...))
	if err == nil {
		return OK
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Bug, err}
	}
	if msg := e.Error(); msg != "" {
		fmt.Fprintf(std.Err, "%s: %s\n", p.Name, strings.ReplaceAll(msg, "\n", "\n"+p.Name+": "))
		if e.Code == Usage {
			fmt.Fprintf(std.Err, "Try '%s --help'.\n", p.Name)
		}
	}
	return e.Code
}

// prepare makes urfave/cli safe in a pipe: of itself it prints usage errors
// and help on standard output, which is another program's input.
func (p *Program) prepare(std Std) {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version and exit"}
	cli.HelpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "print this help and exit"}
	cli.VersionPrinter = func(*cli.Context) { fmt.Fprintf(std.Out, "%s %s\n", p.Name, version()) }
	cli.HelpPrinter = func(w io.Writer, _ string, data any) { fmt.Fprint(w, p.Help()) }
	p.Flags = append(p.Flags, &cli.StringFlag{
		Name: "completion", Usage: "print the completion script for `SHELL` (bash, zsh or fish) and exit",
	})
	for i, f := range p.Flags {
		p.Flags[i] = named(f)
	}
	p.Writer, p.ErrWriter = std.Out, std.Err
	p.Version = version()
	p.HideHelpCommand = true
	p.UseShortOptionHandling = true
	p.DisableSliceFlagSeparator = true
	p.ExitErrHandler = func(*cli.Context, error) {}
	usage := func(c *cli.Context, err error, _ bool) error { return &Error{Usage, tidy(err, c.Command.Flags)} }
	p.OnUsageError = usage
	for _, c := range p.Commands {
		c.OnUsageError = usage
		for _, sub := range c.Subcommands {
			sub.OnUsageError = usage
		}
	}
	act := p.Action
	p.Action = func(c *cli.Context) error {
		if shell := c.String("completion"); shell != "" {
			return p.completion(std.Out, shell)
		}
		return act(c)
	}
}

// A namedFlag remembers its names. Of themselves, flags of urfave/cli find them
// with a regular expression each time, and it asks each flag for those of all.
type namedFlag struct {
	docFlag
	names []string
}

type docFlag interface {
	cli.DocGenerationFlag
	cli.VisibleFlag
}

func (f *namedFlag) Names() []string { return f.names }

// named leaves slices alone, to which urfave/cli tells more behind our back.
func named(f cli.Flag) cli.Flag {
	switch f := f.(type) {
	case *cli.BoolFlag:
		return &namedFlag{f, append([]string{f.Name}, f.Aliases...)}
	case *cli.StringFlag:
		return &namedFlag{f, append([]string{f.Name}, f.Aliases...)}
	case *cli.IntFlag:
		return &namedFlag{f, append([]string{f.Name}, f.Aliases...)}
	case *cli.Float64Flag:
		return &namedFlag{f, append([]string{f.Name}, f.Aliases...)}
	case *cli.GenericFlag:
		return &namedFlag{f, append([]string{f.Name}, f.Aliases...)}
	}
	return f
}

// tidy words the errors of package flag as other programs do.
func tidy(err error, flags []cli.Flag) error {
	msg := err.Error()
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		return fmt.Errorf("unknown flag %q%s", dashed(name), likely(name, flags))
	}
	if name, ok := strings.CutPrefix(msg, "flag needs an argument: -"); ok {
		return fmt.Errorf("flag %q needs a value", dashed(name))
	}
	if value, name, ok := strings.Cut(msg, " for flag -"); ok {
		name, why, _ := strings.Cut(name, ": ")
		return fmt.Errorf("%s for flag %q: %s", value, dashed(name), why)
	}
	return err
}

// likely gives the long flag that may be meant by one that is not there.
func likely(name string, flags []cli.Flag) string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	name = strings.TrimLeft(name, "-")
	if n := schema.Nearest(name, names); n != "" && len(name) > 2 && n[0] == name[0] { // few letters are near to much
		return fmt.Sprintf("; did you mean %q?", "--"+n)
	}
	return ""
}

func dashed(name string) string {
	if name = strings.TrimLeft(name, "-"); len(name) > 1 {
		return "--" + name
	}
	return "-" + name
}

// permute moves flags in front of the other arguments, as GNU getopt does;
// package flag stops at the first argument that is no flag. "--" ends the
// flags. Behind the name of a command nothing is moved.
func (p *Program) permute(args []string) []string {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return append(append(flags, "--"), append(rest, args[i+1:]...)...)
		case len(a) < 2 || a[0] != '-':
			if len(rest) == 0 && p.Command(a) != nil {
				return append(flags, args[i:]...)
			}
			rest = append(rest, a)
		default:
			flags = append(flags, a)
			if p.takesValue(a) {
				if i++; i == len(args) {
					return flags // which ends with an error: the value is missing
				}
				flags = append(flags, args[i])
			}
		}
	}
	if len(rest) > 0 {
		flags = append(flags, "--")
	}
	return append(flags, rest...)
}

// takesValue says whether the value of flag a is the next argument.
func (p *Program) takesValue(a string) bool {
	if strings.Contains(a, "=") {
		return false
	}
	name := strings.TrimLeft(a, "-")
	if !strings.HasPrefix(a, "--") && len(name) > 1 && !p.hasFlag(name) {
		name = name[len(name)-1:] // -ej: the last of several short flags
	}
	for _, f := range p.Flags {
		if slices.Contains(f.Names(), name) {
			df, ok := f.(cli.DocGenerationFlag)
			return ok && df.TakesValue()
		}
	}
	return false
}

func (p *Program) hasFlag(name string) bool {
	return slices.ContainsFunc(p.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

func version() string {
	if Version != "" {
		return Version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "unreleased"
}

// Signals returns a context that ends at the first SIGINT or SIGTERM; the
// second one ends the process at once. Stop gives the signals back. For so long
// as after the first one ends the process as well: to be told of signals takes
// threads, half a millisecond of CPU, which a program that will have ended
// before anybody can want it to need not spend.
func Signals(parent context.Context, after time.Duration) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	c := make(chan os.Signal, 2)
	watch := func() {
		if _, ok := <-c; !ok {
			return
		}
		cancel()
		if s, ok := <-c; ok {
			code := 128
			if n, ok := s.(syscall.Signal); ok {
				code += int(n)
			}
			os.Exit(code)
		}
	}
	var mu sync.Mutex
	stopped := false
	begin := func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			signal.Notify(c, os.Interrupt, syscall.SIGTERM)
			go watch()
		}
	}
	if after <= 0 {
		begin()
	} else {
		time.AfterFunc(after, begin)
	}
	return ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		signal.Stop(c)
		close(c)
		cancel()
	}
}

// IsTerminal says whether f is a terminal.
func IsTerminal(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0 && isTerminal(f)
}

// Color says whether text on f may be coloured: f is a terminal that can, and
// NO_COLOR (https://no-color.org) is not set.
func Color(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && IsTerminal(f)
}
