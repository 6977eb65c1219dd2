// Pup-probe reads targets, checks them, and writes a result for each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/view"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/checks"
	"pup/cmd/pup-probe/internal/engine"
	"pup/cmd/pup-probe/internal/probe"
)

func main() {
	std := cmdline.Std{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(program(std).Main(os.Args, std))
}

func program(std cmdline.Std) *cmdline.Program {
	return &cmdline.Program{
		App: &cli.App{
			Name:   "pup-probe",
			Usage:  "check targets and write a result for each",
			Flags:  flags(),
			Action: func(c *cli.Context) error { return run(c, std) },
		},
		Synopsis:    []string{"[flags] < targets > results", "[flags] TARGET..."},
		Description: description,
		Examples: []cmdline.Example{
			{Doc: "is this Redis working?", Command: "pup-probe redis://localhost"},
			{Doc: "a page with a text, an answer in time, a certificate that lasts", Command: `pup-probe '{"url":"https://www.example.org/","expect":["http.body contains '\''Example'\''"],"warn":["ms.total < 800","tls.days_left > 21"]}'`},
			{Doc: "as a Nagios plugin", Command: "pup-probe -e https://www.example.org/"},
			{Doc: "what is not up, from a file of targets", Command: `pup-probe < targets.ndjson | jq -c 'select(.status != "up")'`},
		},
		Exits:    []int{cmdline.OK, cmdline.Degraded, cmdline.Down, cmdline.Unknown, cmdline.Usage, cmdline.Data, cmdline.Bug, cmdline.IO},
		Sections: []cmdline.Section{{Title: "Environment", Text: environment}},
		SeeAlso:  []string{"pup-checks(7)", "pup-lines(5)", "pup-sched(1)", "pup-route(1)"},
	}
}

const description = `**pup-probe** reads target lines, one JSON object a line, checks each target by speaking its protocol, and writes exactly one result line for each, in the order in which the checks end. A target may also be an argument, as a URL or as a JSON object; then standard input is not read. A bare URL is a target, too.

The scheme of the URL picks the check; see **pup-checks**(7) for the checks with their options and facts, and **pup-lines**(5) for the lines.

The status of a result is *up*, *degraded*, *down* or *unknown*. Up means that the protocol was spoken and the service did its work. Unknown is no verdict on the target: the check could not be carried out, for a reason on our side.

Lines of other types pass through byte for byte; to a *beat* line, **pup-probe** adds its counters. At the end of the input it finishes what is in flight and exits. SIGTERM and SIGINT start nothing new, give what is in flight the time of **--grace**, and then report the rest as canceled; a second signal ends the program at once.

It pulls its input: nothing is read while **--jobs** checks are under way, so that the pipe is the only queue. A target that is read after its *expires* is not probed.`

const environment = `Targets can use variables whose names begin with **PUP_**, as ${env:PUP_NAME}.

**CREDENTIALS_DIRECTORY**, which systemd sets, is the default of **--secrets**. **SSL_CERT_FILE** and **SSL_CERT_DIR** name the certificates of authorities that are trusted in place of the system's. With **NO_COLOR**, or **TERM** set to *dumb*, the text on a terminal has no colours.

**GOMAXPROCS** set to 1 keeps the program to one processor at a time. Checks without TLS then take a sixth to a third less CPU. More processors pay from many thousand checks a second on, and with many TLS handshakes. **GOGC** and **GOMEMLIMIT** are of the garbage collector; without **GOGC** it runs less often while few checks are under way.`

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 256, Usage: "run at most `N` checks at once; 0: no limit"},
		&cli.IntFlag{Name: "per-host", Value: 0, Usage: "run at most `N` checks of one host at once; 0: no limit"},
		&cli.Float64Flag{Name: "rate", Value: 0, Usage: "start at most `N` checks a second; 0: no limit"},
		&cli.StringFlag{Name: "timeout", Usage: "let no attempt take longer than `DURATION`, whatever its target says"},
		&cli.StringFlag{Name: "grace", Value: "10s", Usage: "after a signal, give checks in flight `DURATION` to finish"},
		&cli.BoolFlag{Name: "ordered", Usage: "write the results in the order of their targets; a slow check holds up those behind it"},
		&cli.StringFlag{Name: "vantage", Usage: "say in every result that we probe from `NAME`"},
		&cli.StringFlag{Name: "secrets", EnvVars: []string{"CREDENTIALS_DIRECTORY"}, Usage: "take ${secret:NAME} from the file NAME in `DIR`"},
		&cli.StringFlag{Name: "resolver", Usage: "ask the name server `SERVER` for the addresses of targets that name none, in place of those of the system: HOST or HOST:PORT, with tcp:// or tls:// before it if not over UDP"},
		&cli.StringSliceFlag{Name: "deny", Usage: "never connect to an address in the network `CIDR`; may be repeated"},
		&cli.BoolFlag{Name: "allow-exec", Usage: "let targets run commands (check exec)"},
		&cli.BoolFlag{Name: "allow-files", Usage: "let targets connect to socket files and look at files (checks unix and file, connect = \"unix:PATH\")"},
		&cli.BoolFlag{Name: "exit-status", Aliases: []string{"e"}, Usage: "exit with the worst status, as Nagios plugins do"},
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "send nothing: print the targets that are fine, and a result for those whose options, secrets or expressions are not"},
		&cli.StringFlag{Name: "format", Value: "auto", Usage: "write `FORMAT`: ndjson, text, or auto: text on a terminal"},
		&cli.IntFlag{Name: "max-line", Value: ndjson.MaxLine, Usage: "drop input lines longer than `BYTES`"},
		&cli.IntFlag{Name: "max-record", Value: ndjson.MaxWrite, Usage: "cut result lines to `BYTES`; above 4096 several writers can't share a pipe"},
		&cli.BoolFlag{Name: "list-checks", Usage: "list the checks with their schemes and exit"},
		&cli.BoolFlag{Name: "list-reasons", Usage: "list the reasons and phases with their meaning and exit"},
		&cli.BoolFlag{Name: "schema", Usage: "print the JSON Schema of target lines with all options and facts and exit"},
	}
}

func usagef(format string, args ...any) error { return cmdline.Errorf(cmdline.Usage, format, args...) }

func run(c *cli.Context, std cmdline.Std) error {
	runner := probe.NewRunner(checks.All())
	switch {
	case c.Bool("list-checks"):
		return listChecks(runner, std.Out)
	case c.Bool("list-reasons"):
		return listReasons(std.Out)
	case c.Bool("schema"):
		b, err := runner.Catalog.MarshalJSON()
		if err == nil {
			_, err = std.Out.Write(append(b, '\n'))
		}
		return ioError(err)
	}
	e, err := configure(c, std, runner)
	if err != nil {
		return err
	}
	var after time.Duration
	if e.Ready {
		after = 5 * time.Millisecond // a local service has answered by then
	}
	ctx, stop := cmdline.Signals(context.Background(), after)
	defer stop()
	defer runner.Close()
	sum, err := e.Run(ctx)
	switch {
	case err != nil:
		return ioError(err)
	case sum.Bad > 0:
		return cmdline.Exit(cmdline.Data)
	case c.Bool("exit-status") && sum.Worst != "":
		return cmdline.Exit(sum.Worst.Severity())
	}
	return nil
}

func ioError(err error) error {
	if err == nil {
		return nil
	}
	return cmdline.Errorf(cmdline.IO, "%w", err)
}

// configure makes the engine that the flags ask for.
func configure(c *cli.Context, std cmdline.Std, r *probe.Runner) (*engine.Engine, error) {
	e := &engine.Engine{
		Runner: r, In: std.In, Out: std.Out, Jobs: c.Int("jobs"), PerHost: c.Int("per-host"), Rate: c.Float64("rate"),
		Ordered: c.Bool("ordered"), MaxLine: c.Int("max-line"), Dry: c.Bool("dry-run"),
		Warn: func(text string) { fmt.Fprintf(std.Err, "pup-probe: %s\n", ndjson.Printable(text)) },
	}
	r.Secrets, r.Vantage, r.MaxRecord = c.String("secrets"), c.String("vantage"), c.Int("max-record")
	r.AllowExec, r.AllowFiles = c.Bool("allow-exec"), c.Bool("allow-files")
	r.Bug = func(text string) { fmt.Fprintf(std.Err, "pup-probe: bug: %s\n", text) }
	switch {
	case e.Jobs < 0 || e.PerHost < 0 || e.Rate < 0:
		return nil, usagef("--jobs, --per-host and --rate must not be negative; 0 means no limit")
	case r.MaxRecord < 512 || e.MaxLine < 512:
		return nil, usagef("--max-line and --max-record must be at least 512 bytes")
	}
	if err := durationFlag(c, "timeout", &r.MaxTimeout); err != nil {
		return nil, err
	}
	if err := durationFlag(c, "grace", &e.Grace); err != nil {
		return nil, err
	}
	r.Resolver = c.String("resolver")
	if err := probe.CheckResolver(r.Resolver); err != nil {
		return nil, usagef("--resolver: %w", err)
	}
	for _, s := range c.StringSlice("deny") {
		n, err := expr.ParsePrefix(s)
		if err != nil {
			return nil, usagef("--deny: %w", err)
		}
		r.Deny = append(r.Deny, n)
	}
	if args := c.Args().Slice(); len(args) > 0 {
		in, err := argLines(args)
		if err != nil {
			return nil, err
		}
		e.In, e.Ready = in, true
	} else if cmdline.IsTerminal(std.In) {
		return nil, usagef("no target given, and standard input is a terminal\nGive a target, such as: pup-probe https://www.example.org/\nor pipe targets into it:  pup-sched pup.toml | pup-probe")
	}
	switch f := c.String("format"); {
	case f == "text", f == "auto" && cmdline.IsTerminal(std.Out):
		e.View = view.Line(cmdline.Color(std.Out))
	case f != "auto" && f != "ndjson":
		return nil, usagef("--format: %.20q is none of ndjson, text, auto", f)
	}
	return e, nil
}

func durationFlag(c *cli.Context, name string, to *time.Duration) error {
	s := c.String(name)
	if s == "" {
		return nil
	}
	d, err := wire.ParseDuration(s)
	if err == nil && d < 0 {
		err = errors.New("must not be negative")
	}
	if err != nil {
		return usagef("--%s: %w", name, err)
	}
	*to = time.Duration(d)
	return nil
}

// argLines turns arguments into lines of input.
func argLines(args []string) (io.Reader, error) {
	for _, a := range args {
		switch {
		case strings.ContainsAny(a, "\n\r"):
			return nil, usagef("a target must be one line: %.80q", a)
		case a == "-":
			return nil, usagef("\"-\" is no target; standard input is read when there is no argument")
		case !strings.HasPrefix(strings.TrimSpace(a), "{") && !strings.Contains(a, "://"):
			return nil, usagef("%.80q is no target; write a URL such as https://%s, or a JSON object", a, ndjson.Cut(a, 60))
		}
	}
	return strings.NewReader(strings.Join(args, "\n") + "\n"), nil
}

func listChecks(r *probe.Runner, w io.Writer) error {
	for _, k := range r.Catalog.Checks {
		var schemes []string
		for _, s := range k.Schemes {
			schemes = append(schemes, s.Name+"://")
		}
		if _, err := fmt.Fprintf(w, "%-10s %-36s %s\n", k.Name, strings.Join(schemes, " "), k.Summary); err != nil {
			return ioError(err)
		}
	}
	return nil
}

func listReasons(w io.Writer) error {
	for _, d := range wire.Reasons {
		status := wire.Down
		if d.Word.Unknown() {
			status = wire.Unknown
		}
		fmt.Fprintf(w, "reason  %-26s %-8s %s\n", d.Word, status, d.Doc)
	}
	for _, d := range wire.Phases {
		if _, err := fmt.Fprintf(w, "phase   %-26s %-8s %s\n", d.Word, "", d.Doc); err != nil {
			return ioError(err)
		}
	}
	return nil
}
