package checks

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/child"
	"pup/cmd/pup-probe/internal/probe"
)

type execOptions struct {
	Mode      string            `json:"mode" enum:"plugin,filter" doc:"How to talk to the command. plugin: it is run once for each target. filter: it stays alive, reads target lines and answers with result lines."`
	Args      []string          `json:"args" doc:"The arguments of the command. No shell reads them."`
	Stdin     string            `json:"stdin" doc:"What a plugin reads on its standard input."`
	Env       map[string]string `json:"env" doc:"Its environment, beside PATH, HOME, LANG=C.UTF-8 and TZ."`
	SecretEnv map[string]string `json:"secret_env" secret:"true" doc:"More of its environment, for credentials: each a reference such as ${secret:NAME}."`
	Codes     string            `json:"codes" enum:"nagios,any" doc:"What the exit code of a plugin means. nagios: 0 up, 1 degraded, 2 down, anything else unknown. any: nothing by itself; expect judges exec.exit_code."`
	MaxBytes  int               `json:"max_bytes" min:"1" max:"16777216" doc:"The most output of a plugin to take; what is more is dropped. Of a filter: the longest line; a longer one is ignored."`
}

type execFacts struct {
	ExitCode *int               `json:"exit_code" doc:"The exit code of a plugin; absent if a signal has ended it."`
	Text     string             `json:"text" doc:"The first line of a plugin's output, up to the performance data."`
	Perf     map[string]float64 `json:"perf" doc:"Its performance data by label, in the unit that the plugin gives them."`
	Units    map[string]string  `json:"units" doc:"The units of those that have one: s, ms, us, %, B, KB, MB, TB, c."`
	Output   string             `json:"output" large:"true" doc:"All that it has written to its standard output."`
	Stderr   string             `json:"stderr" doc:"The beginning of what it has written to its standard error, at most 256 bytes."`
	Facts    json.RawMessage    `json:"facts" doc:"What a filter has found: the member exec of its answer, or the member named after the check that the answer names."`
	Starts   int                `json:"starts" doc:"How often the filter was started."`
	Ignored  int                `json:"ignored" doc:"How many lines of the filter, since it was last started, were no answers."`
}

func init() {
	register(probe.Info{
		Name:    "exec",
		Summary: "a command, such as a Nagios plugin, says that all is well",
		Schemes: []probe.Scheme{{Name: "exec", Path: true}},
		Example: "exec:///usr/lib/nagios/plugins/check_load",
		Doc: `Runs a command of this machine, which needs --allow-exec, and takes its exit code as Nagios, Icinga and their kin do (Monitoring Plugins Development Guidelines): 0 is up, 1 degraded, 2 down with the reason mismatch, everything else unknown with the reason local. A target whose expressions read exec.exit_code judges the code 1 itself. A command that can't be started, or that a signal ends, is unknown too. The text and the performance data become facts:

    url    = "exec:///usr/lib/nagios/plugins/check_disk"
    exec   = { args = ["-w", "10%", "-c", "5%", "-p", "/"] }
    warn   = ["exec.perf['/'] < 20000"]

With codes = "any" any exit code is taken, and expect has to judge exec.exit_code or exec.output.

When the time is over the command is killed, with its process group and all descendants that can be found; the target is then down with the reason timeout. The command does not inherit our environment.

With mode = "filter" the command is a filter as the pup programs are. It is started for the first target, stays alive, and serves all targets with the same command, arguments, environment and max_bytes, as many at once as there are. It reads each target line as it came, with the references to secrets in place of the secrets, and writes one result line for it, in any order. The answer has the run of the target, or its name if the target has no run; and status, and with trouble reason and error, which become those of the result. What it says of the target in its member exec becomes exec.facts:

    url    = "exec:///usr/local/lib/pup/check-backups"
    exec   = { mode = "filter" }
    expect = ["exec.facts.newest_age_ms < 26 * 3600 * 1000"]

    {"run":"backups@1795327200","status":"up","exec":{"newest_age_ms":3600000}}

Without an answer in time the target is down with the reason timeout, and the filter goes on. An answer that comes later is ignored where the target has a run, as pup-sched gives it to each; without a run it is known by its name alone, so that it may be taken for the answer to the next target of that name. A line that is no answer is ignored and counted. When the filter ends, the targets that wait for it are unknown with the reason local. It is started again for the next target, but if it has not answered any only after a second, which doubles up to a minute. When pup-probe ends, the filter's input ends; a second later it is killed with all that it has started.

Phases: of a plugin, wait is from its start to its end; of a filter, from the target line to the answer.`,
	}, execOptions{Mode: "plugin", Codes: "nagios", MaxBytes: 64 << 10}, execCheck)
}

func execCheck(ctx context.Context, p *probe.Probe, opt *execOptions, facts *execFacts) error {
	if opt.Mode == "filter" {
		return execFilter(ctx, p, opt, facts)
	}
	return execPlugin(ctx, p, opt, facts)
}

// execPlugin runs the command, and takes its exit code for the verdict.
func execPlugin(ctx context.Context, p *probe.Probe, opt *execOptions, facts *execFacts) error {
	cmd := exec.CommandContext(ctx, p.URL.Path, opt.Args...)
	cmd.Env = execEnv(opt)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(opt.Stdin)
	out, errOut := execBuffer{left: opt.MaxBytes}, execBuffer{left: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, &errOut
	child.Apart(cmd)
	cmd.Cancel = func() error { return child.Kill(cmd) }
	cmd.WaitDelay = time.Second // a descendant that we have not found may hold the pipes
	p.Phase(wire.Wait)
	err := cmd.Run()
	facts.Output, facts.Stderr = string(out.kept), shown(errOut.kept)
	facts.Text, facts.Perf, facts.Units = execParse(facts.Output)
	ee, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay):
		return probe.Failf(wire.Local, "the command has ended, but left a process behind that holds its output")
	case err != nil && !exited:
		return probe.Failf(wire.Local, "%w", err)
	case exited && ee.ExitCode() < 0:
		return probe.Failf(wire.Local, "the command was ended: %s", ee)
	}
	code := cmd.ProcessState.ExitCode()
	facts.ExitCode = &code
	if opt.Codes == "any" || code == 0 || code == 1 && p.Reads("exec.exit_code") {
		return nil
	}
	said := facts.Text
	if said == "" {
		said = facts.Stderr
	}
	switch code {
	case 1:
		return probe.Degradef(wire.Mismatch, "warning: %.200q", said)
	case 2:
		return probe.Failf(wire.Mismatch, "critical: %.200q", said)
	}
	return probe.Failf(wire.Local, "exit code %d, which is no verdict: %.200q", code, said)
}

// execEnv makes an environment that holds nothing of ours that the command
// must not see.
func execEnv(opt *execOptions) []string {
	env := []string{"LANG=C.UTF-8"}
	for _, name := range []string{"PATH", "HOME", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, m := range []map[string]string{opt.Env, opt.SecretEnv} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			env = append(env, k+"="+m[k])
		}
	}
	return env
}

// execBuffer keeps the beginning of what is written to it.
type execBuffer struct {
	kept []byte
	left int
}

func (b *execBuffer) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.kept = append(b.kept, p[:n]...)
	return len(p), nil
}

// execMaxPerf bounds the performance data of a plugin.
const execMaxPerf = 200

// execParse takes a plugin's output apart: the text of the first line, and the
// performance data, which follow a "|" on the first line and on a later one.
func execParse(out string) (text string, perf map[string]float64, units map[string]string) {
	first, more, _ := strings.Cut(out, "\n")
	text, data, _ := strings.Cut(first, "|")
	if _, late, ok := strings.Cut(more, "|"); ok {
		data += " " + strings.ReplaceAll(late, "\n", " ")
	}
	for len(perf) < execMaxPerf {
		label, value, rest, ok := execNext(data)
		data = rest
		if !ok {
			break
		}
		value, _, _ = strings.Cut(value, ";")
		n := len(value) - len(strings.TrimLeft(value, "0123456789.,+-eE"))
		number, unit := value[:n], value[n:]
		x, err := execNumber(number)
		if err != nil || label == "" || len(label) > 64 {
			continue // "U" is a value that could not be had
		}
		if perf == nil {
			perf = map[string]float64{}
		}
		perf[label] = x
		if unit != "" && len(unit) < 16 {
			if units == nil {
				units = map[string]string{}
			}
			units[label] = unit
		}
	}
	return ndjson.Cut(strings.TrimSpace(text), maxShown), perf, units
}

// execNext takes the first 'label'=value. A label in quotes may hold blanks,
// and a quote as two.
func execNext(s string) (label, value, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t\r")
	if after, quoted := strings.CutPrefix(s, "'"); quoted {
		var b strings.Builder
		for {
			part, more, closed := strings.Cut(after, "'")
			b.WriteString(part)
			if !closed {
				return "", "", "", false
			}
			if after = more; !strings.HasPrefix(after, "'") {
				break
			}
			b.WriteByte('\'')
			after = after[1:]
		}
		label, s = b.String(), after
	} else {
		i := strings.IndexAny(s, "= ")
		if i < 0 {
			return "", "", "", false
		}
		label, s = s[:i], s[i:]
	}
	value, rest, _ = strings.Cut(s, " ")
	return label, strings.TrimPrefix(value, "="), rest, s != ""
}

// execNumber reads a number as plugins write them; some have a comma for the
// point, from the user's locale.
func execNumber(s string) (float64, error) {
	x, err := strconv.ParseFloat(strings.Replace(s, ",", ".", 1), 64)
	if err == nil && (math.IsInf(x, 0) || math.IsNaN(x)) {
		err = errors.New("not finite")
	}
	return x, err
}
