// Pup-route passes result lines on and runs hooks for what they mean.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/view"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/route"
)

func main() {
	hook.Shim()
	os.Exit(run())
}

func run() int {
	std := cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	return program(std).Main(os.Args, std)
}

func program(std cmdline.Std) *cmdline.Program {
	p := manual()
	p.App = &cli.App{
		Name:  "pup-route",
		Usage: "pass results on and run hooks for what they mean",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "on", Usage: "run a command when a name becomes this: `STATUS=COMMAND`, as in down,recovered=./page; split into words as a shell would, but no shell runs it"},
			&cli.StringFlag{Name: "user", Usage: "run hooks that do not say a user as `NAME`; must be said, here or there, when pup-route runs as root"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 16, Usage: "run at most `N` hooks at once; each hook may always run one"},
			&cli.GenericFlag{Name: "grace", Value: &duration{30 * time.Second}, Usage: "after a signal, give running hooks `DURATION` to end"},
			&cli.BoolFlag{Name: "check", Usage: "check the configuration and exit"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "run no hooks and pass nothing on; write the events that they would get, on the time of the results, and a line of type held where one is kept from hearing of a problem, with the reason"},
			&cli.BoolFlag{Name: "exit-status", Aliases: []string{"e"}, Usage: "exit with the worst status, as Nagios plugins do: 1 degraded, 2 down, 3 unknown"},
			&cli.StringFlag{Name: "format", Value: "auto", Usage: "write `FORMAT`: ndjson, text, or auto: text on a terminal"},
			&cli.IntFlag{Name: "max-line", Value: ndjson.MaxLine, Usage: "drop and report input lines longer than `BYTES`"},
			&cli.IntFlag{Name: "max-record", Value: ndjson.MaxWrite, Usage: "write at most `BYTES` at once; more than 4096 is not safe when several programs write to one pipe"},
			&cli.BoolFlag{Name: "sd-notify", Usage: "tell systemd that the pipe is ready at the first line, and feed its watchdog with each beat of pup-sched"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "do not show on standard error what hooks print"},
		},
		Commands: []*cli.Command{spoolCommand(std), silenceCommand(std), ackCommand(std)},
		Action:   func(c *cli.Context) error { return act(c, std) },
	}
	return p
}

func act(c *cli.Context, std cmdline.Std) error {
	files, flags := c.Args().Slice(), c.StringSlice("on")
	switch {
	case c.Int("jobs") < 1:
		return cmdline.Errorf(cmdline.Usage, "--jobs must be at least 1")
	case c.Int("max-line") < 1 || c.Int("max-record") < 1:
		return cmdline.Errorf(cmdline.Usage, "--max-line and --max-record must be at least 1")
	}
	view, err := viewer(c.String("format"), std.Out)
	if err != nil {
		return err
	}
	load := func() (*config.Config, error) {
		return config.Load(files, flags, config.Options{User: c.String("user"), Root: os.Getuid() == 0})
	}
	cfg, err := load()
	if err != nil {
		return cmdline.Errorf(cmdline.Config, "%w", err)
	}
	if c.Bool("check") {
		if cfg.Spool == "" && len(files) > 0 {
			fmt.Fprintln(std.Err, "pup-route: there is no spool: what hooks have not taken is kept in memory, and lost when pup-route ends")
		}
		return nil
	}
	if cmdline.IsTerminal(std.In) {
		return cmdline.Errorf(cmdline.Usage, "standard input is a terminal; pipe results into it: pup-probe https://example.org | pup-route --on down=./page")
	}
	if err := hook.KeepDescriptors(); err != nil {
		return fmt.Errorf("keep our descriptors from hooks: %w", err)
	}
	signals := make(chan os.Signal, 4)
	// SIGPIPE is caught, not ignored, since hooks would inherit that.
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer signal.Stop(signals)
	notify := ""
	if c.Bool("sd-notify") {
		notify = route.NotifySocket()
	}
	sum, err := route.Run(std.In, std.Out, std.Err, route.Options{
		Config:    cfg,
		Reload:    load,
		Jobs:      c.Int("jobs"),
		Grace:     c.Generic("grace").(*duration).d,
		MaxLine:   c.Int("max-line"),
		MaxRecord: c.Int("max-record"),
		DryRun:    c.Bool("dry-run"),
		View:      view,
		Notify:    notify,
		Quiet:     c.Bool("quiet"),
		Signals:   signals,
		Wall:      time.Now,
	})
	switch {
	case err != nil:
		return cmdline.Errorf(cmdline.IO, "%w", err)
	case c.Bool("exit-status") && sum.Worst != wire.Up:
		return cmdline.Exit(sum.Worst.Severity())
	case sum.Bad > 0:
		return cmdline.Exit(cmdline.Data)
	}
	return nil
}

// viewer returns what shows lines to people; nil if programs read them.
func viewer(format string, out *os.File) (func(dst, line []byte) []byte, error) {
	switch {
	case format == "text", format == "auto" && cmdline.IsTerminal(out):
		return view.Line(cmdline.Color(out)), nil
	case format == "auto", format == "ndjson":
		return nil, nil
	}
	return nil, cmdline.Errorf(cmdline.Usage, "--format: %.40q is none of auto, ndjson, text", format)
}

// A duration is a flag's value such as 30s.
type duration struct{ d time.Duration }

func (d *duration) String() string { return wire.Duration(d.d).String() }

func (d *duration) Set(s string) error {
	v, err := wire.ParseDuration(s)
	if err == nil && v < 0 {
		err = errors.New("must not be negative")
	}
	d.d = time.Duration(v)
	return err
}
