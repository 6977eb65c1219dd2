// Pup-sched reads targets from TOML files and writes each as a line of JSON at
// the moment when it is due. It does not touch the network.
package main

import (
	"os"
	_ "time/tzdata" // zones must not depend on what the host has installed

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/source"
)

func main() {
	std := cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(program(std).Main(os.Args, std))
}

// A span is the value of a flag that takes a duration.
type span wire.Duration

func (s *span) Set(text string) error { return (*wire.Duration)(s).UnmarshalText([]byte(text)) }

func (s *span) String() string {
	if s == nil || *s == 0 {
		return ""
	}
	return wire.Duration(*s).String()
}

// flags are the values of the command line.
type flags struct {
	once, list, check, quiet  bool
	watch                     bool
	window, slack, beat, stop span
	explain, diff, shard      string
	control                   string
	selects                   []string
	maxRecord                 int

	keeper func(name string, label func(string) string) bool // of selects and shard
	memory *source.Memory
	stdin  []byte // a configuration from standard input
}

func program(std cmdline.Std) *cmdline.Program {
	f := &flags{slack: span(defaultSlack), beat: span(defaultBeat)}
	return &cmdline.Program{
		App: &cli.App{
			Name:  "pup-sched",
			Usage: "write targets as lines of JSON when they are due",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "once", Aliases: []string{"1"}, Usage: "write every target now, and exit", Destination: &f.once},
				&cli.GenericFlag{Name: "window", Usage: "write the targets that were due in the last complete window of `DURATION`, and exit; for cron", Value: &f.window},
				&cli.BoolFlag{Name: "check", Usage: "read the configuration, report all mistakes, and exit", Destination: &f.check},
				&cli.BoolFlag{Name: "list", Usage: "write the targets without due times, and exit", Destination: &f.list},
				&cli.StringFlag{Name: "explain", Usage: "say where each setting of target `NAME` comes from and when it is due next, and exit", Destination: &f.explain},
				&cli.StringFlag{Name: "diff", Usage: "say which targets are new, gone or different compared with the configuration `FILE`, and exit", Destination: &f.diff},
				&cli.StringSliceFlag{Name: "select", Usage: "take only targets that match `KEY=PATTERN`: a label, or name; may be repeated, all must match"},
				&cli.StringFlag{Name: "shard", Usage: "take only part `I/N` of the targets, by a hash of the name; when N grows, only what goes to the new part moves", Destination: &f.shard},
				&cli.GenericFlag{Name: "for", Usage: "end after `DURATION`", Value: &f.stop},
				&cli.GenericFlag{Name: "slack", Usage: "let due times that lie within `DURATION` leave together; waking up costs more than probing", Value: &f.slack},
				&cli.GenericFlag{Name: "beat", Usage: "write a beat with the counters every `DURATION`; 0s for none", Value: &f.beat},
				&cli.StringFlag{Name: "control", Usage: "read results and rechecks from `FIFO`, for recheck and relax of pup.toml", Destination: &f.control},
				&cli.BoolFlag{Name: "watch", Usage: "read the configuration again when its files change", Destination: &f.watch},
				&cli.IntFlag{Name: "max-record", Usage: "allow lines of up to `BYTES`; over 4096, several writers must not share a pipe", Value: ndjson.MaxWrite, Destination: &f.maxRecord},
				&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing about skipped runs", Destination: &f.quiet},
			},
			Action: func(c *cli.Context) error {
				f.selects = c.StringSlice("select")
				return f.run(c.Args().Slice(), std)
			},
		},
		Synopsis: []string{"[flags] FILE|FOLDER..."},
		Description: `pup-sched reads targets from TOML files, see pup.toml(5), and writes each of them to standard output, as a line of JSON, at the moment when it is due. pup-probe reads such lines. A folder stands for the \*.toml files in it, in the order of their names; - is standard input.

When a target is due follows from its name and its interval alone: the due times are those of the clock that are a multiple of the interval away from an offset, and the offset is a hash of the name. So targets are spread evenly, keep their places when the program is started again, and two schedulers with the same files write the same runs.

The pipe is the only queue. A run that can't be written within a second of its due time, since the reader is busy, is skipped and counted; what has passed is never made up for in a burst. The beats tell how many runs were written (emitted) and skipped, and for how long the reader kept the program waiting (blocked_ms).`,
		Examples: []cmdline.Example{
			{Doc: "watch the targets of a file", Command: "pup-sched pup.toml | pup-probe | pup-route hooks.toml"},
			{Doc: "check everything once", Command: "pup-sched -1 pup.toml | pup-probe"},
			{Doc: "from cron, once a minute, without a daemon", Command: "* * * * * pup-sched --window 1m /etc/pup/pup.toml | timeout 55 pup-probe | pup-route hooks.toml > /dev/null"},
			{Doc: "see whether a configuration is right", Command: "pup-sched --check pup.toml"},
			{Doc: "what would change", Command: "pup-sched --diff /etc/pup/pup.toml new.toml"},
			{Doc: "check more often what has failed", Command: "mkfifo /run/pup/control\npup-sched --control /run/pup/control pup.toml | pup-probe | tee /run/pup/control | pup-route hooks.toml"},
			{Doc: "share the work of one configuration among three machines", Command: "pup-sched --shard 2/3 pup.toml | pup-probe --vantage \"$(hostname)\""},
		},
		Exits: []int{cmdline.OK, cmdline.Usage, cmdline.Bug, cmdline.IO, cmdline.Config},
		Sections: []cmdline.Section{
			{Title: "Signals", Text: `SIGTERM and SIGINT end the program after a last beat, a second one ends it at once. SIGHUP makes it read its files again (not standard input): if there is a mistake in them, all of it is reported and the program goes on as before, else the new targets take the place of the old ones. Targets that have kept their name and interval keep their due times.`},
			{Title: "Control", Text: `With **--control** the program reads lines from a FIFO. A result line says whether its target is up: while it is not, the target is due every *recheck*, and once it has been up for *relax\_after*, every *relax*; see pup.toml(5). A status of unknown changes nothing. A line such as {"type":"recheck","name":"www"} makes a target due at once. Lines are never waited for: when too many come, some are dropped.`},
			{Title: "The clock", Text: `When the clock is set forward, or the machine has slept, the runs that lay between are passed over and counted as skipped. When it is set back by more than a second, the schedule starts again from the new time. Either is reported once, on standard error.`},
		},
		SeeAlso: []string{"pup.toml(5)", "pup-lines(5)", "pup-probe(1)", "pup-route(1)"},
	}
}
