package cmdline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// run runs a program with a few flags, and gives its exit code, standard
// output and standard error.
func run(t *testing.T, action cli.ActionFunc, args ...string) (int, string, string) {
	t.Helper()
	p := &Program{
		App: &cli.App{
			Name: "pup-x", Usage: "do things",
			Flags: []cli.Flag{
				&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 4, Usage: "run `N` at once"},
				&cli.BoolFlag{Name: "exit-status", Aliases: []string{"e"}, Usage: "exit with it"},
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "do nothing"},
				&cli.StringSliceFlag{Name: "deny", Usage: "deny `CIDR`"},
			},
			Action: action,
			Commands: []*cli.Command{{Name: "spool", Usage: "look", ArgsUsage: "list", Subcommands: []*cli.Command{
				{Name: "list", Flags: []cli.Flag{&cli.BoolFlag{Name: "all"}}, Action: func(c *cli.Context) error {
					fmt.Fprintln(c.App.Writer, "listed", c.Bool("all"), c.Args().Slice())
					return nil
				}},
			}}},
		},
		Synopsis: []string{"[flags]"},
		Exits:    []int{OK, Usage},
	}
	dir := t.TempDir()
	out, _ := os.Create(filepath.Join(dir, "out"))
	errs, _ := os.Create(filepath.Join(dir, "err"))
	code := p.Main(append([]string{"pup-x"}, args...), Std{In: os.Stdin, Out: out, Err: errs})
	o, _ := os.ReadFile(out.Name())
	e, _ := os.ReadFile(errs.Name())
	return code, string(o), string(e)
}

func TestMainCodes(t *testing.T) {
	echo := func(c *cli.Context) error {
		fmt.Fprint(c.App.Writer, c.Int("jobs"), c.Bool("e"), c.Bool("n"), c.StringSlice("deny"), c.Args().Slice())
		return nil
	}
	for _, tt := range []struct {
		args     string
		action   cli.ActionFunc
		code     int
		out, err string
	}{
		{"", echo, OK, "4 false false [] []", ""},
		{"-j 3 a b", echo, OK, "3 false false [] [a b]", ""},
		{"a -j 3 b", echo, OK, "3 false false [] [a b]", ""},
		{"a --jobs=3 b -en", echo, OK, "3 true true [] [a b]", ""},
		{"a -ej 3", echo, OK, "3 true false [] [a]", ""},
		{"--deny 10.0.0.0/8,x a --deny y", echo, OK, "4 false false [10.0.0.0/8,x y] [a]", ""},
		{"-- -j a", echo, OK, "4 false false [] [-j a]", ""},
		{"a -- -j", echo, OK, "4 false false [] [a -j]", ""},
		{"-", echo, OK, "4 false false [] [-]", ""},
		{"help", echo, OK, "4 false false [] [help]", ""},
		{"spool list --all x", echo, OK, "listed true [x]\n", ""},
		{"--nope", echo, Usage, "", "pup-x: unknown flag \"--nope\"\nTry 'pup-x --help'.\n"},
		{"--jbos", echo, Usage, "", "pup-x: unknown flag \"--jbos\"; did you mean \"--jobs\"?\nTry 'pup-x --help'.\n"},
		{"-x", echo, Usage, "", "pup-x: unknown flag \"-x\"\nTry 'pup-x --help'.\n"},
		{"a --jobs", echo, Usage, "", "pup-x: flag \"--jobs\" needs a value\nTry 'pup-x --help'.\n"},
		{"spool list --nope", echo, Usage, "", "pup-x: unknown flag \"--nope\"\nTry 'pup-x --help'.\n"},
		{"", func(*cli.Context) error { return Errorf(Config, "line 3:\nbad") }, Config, "", "pup-x: line 3:\npup-x: bad\n"},
		{"", func(*cli.Context) error { return Exit(Down) }, Down, "", ""},
		{"", func(*cli.Context) error { return errors.New("odd") }, Bug, "", "pup-x: odd\n"},
	} {
		code, out, errs := run(t, tt.action, strings.Fields(tt.args)...)
		if code != tt.code || out != tt.out || errs != tt.err {
			t.Errorf("%q: got %d, %q, %q\nwant %d, %q, %q", tt.args, code, out, errs, tt.code, tt.out, tt.err)
		}
	}
}

// To find a flag by its name costs nothing, and hidden ones stay hidden.
func TestNamed(t *testing.T) {
	f := named(&cli.BoolFlag{Name: "exit-status", Aliases: []string{"e"}, Hidden: true})
	if got := f.Names(); !slices.Equal(got, []string{"exit-status", "e"}) {
		t.Errorf("got the names %q", got)
	}
	if n := testing.AllocsPerRun(10, func() { f.Names() }); n > 0 {
		t.Errorf("the names take %v allocations", n)
	}
	if f.(cli.VisibleFlag).IsVisible() {
		t.Error("a hidden flag is visible")
	}
}

func TestPanic(t *testing.T) {
	code, out, errs := run(t, func(*cli.Context) error { panic("ouch") })
	if code != Bug || out != "" || !strings.HasPrefix(errs, "pup-x: bug: ouch\n") {
		t.Errorf("got %d, %q, %q", code, out, errs)
	}
}

func TestHelp(t *testing.T) {
	code, out, errs := run(t, nil, "--help")
	if code != OK || errs != "" {
		t.Errorf("got %d, %q", code, errs)
	}
	for _, want := range []string{"Usage: pup-x [flags]\n", "-j, --jobs N", "run N at once (default 4)", "pup-x spool list", "  64  wrong usage"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "  78  ") {
		t.Error("help lists an exit code that the program can't end with")
	}
	for line := range strings.Lines(out) {
		if len(line) > 81 {
			t.Errorf("longer than 80 characters: %q", line)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, errs := run(t, nil, "--completion", shell)
		if code != OK || errs != "" || !strings.Contains(out, "jobs") || !strings.Contains(out, "pup-x") {
			t.Errorf("%s: got %d, %q, %q", shell, code, out, errs)
		}
	}
}

// Every exit code is explained, once.
func TestExits(t *testing.T) {
	for _, code := range []int{OK, Degraded, Down, Unknown, Usage, Data, Bug, IO, Config} {
		n := 0
		for _, e := range Exits {
			if e.Code == code && e.Doc != "" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d is explained %d times", code, n)
		}
	}
	if !slices.IsSortedFunc(Exits, func(a, b struct {
		Code int
		Doc  string
	}) int {
		return a.Code - b.Code
	}) {
		t.Error("not in order")
	}
}
