package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/config"
	"pup/cmd/pup-sched/internal/sched"
)

const (
	defaultSlack = 50 * time.Millisecond
	defaultBeat  = 30 * time.Second
	maxSlack     = time.Minute
)

// run does what the flags ask for.
func (f *flags) run(paths []string, std cmdline.Std) error {
	if err := f.validate(paths); err != nil {
		return err
	}
	c, err := f.load(paths, std.In)
	if err != nil {
		return cmdline.Errorf(cmdline.Config, "%w", err)
	}
	out := ndjson.NewWriter(std.Out, f.maxRecord)
	switch {
	case f.check:
		return nil
	case f.explain != "":
		return f.writeExplanation(std.Out, c)
	case f.list:
		return writeErr(list(out, c.Targets))
	case f.once:
		return writeErr(sched.Once(out, c.Targets, time.Now()))
	case f.window > 0:
		return writeErr(sched.Span(out, c.Targets, time.Now(), time.Duration(f.window)))
	}
	return f.schedule(c, paths, std)
}

func (f *flags) validate(paths []string) error {
	modes := 0
	for _, on := range []bool{f.once, f.window != 0, f.check, f.list, f.explain != ""} {
		if on {
			modes++
		}
	}
	switch {
	case len(paths) == 0:
		return cmdline.Errorf(cmdline.Usage, "no configuration named; try pup-sched pup.toml")
	case modes > 1:
		return cmdline.Errorf(cmdline.Usage, "--once, --window, --check, --list and --explain exclude one another")
	case f.window < 0 || f.window > 0 && time.Duration(f.window) < time.Second:
		return cmdline.Errorf(cmdline.Usage, "--window must be at least 1s")
	case f.slack < 0 || time.Duration(f.slack) > maxSlack:
		return cmdline.Errorf(cmdline.Usage, "--slack must be from 0s to %s", wire.Duration(maxSlack))
	case f.beat < 0 || f.beat > 0 && time.Duration(f.beat) < time.Second:
		return cmdline.Errorf(cmdline.Usage, "--beat must be at least 1s, or 0s for none")
	case f.maxRecord < 1024:
		return cmdline.Errorf(cmdline.Usage, "--max-record must be at least 1024")
	}
	return nil
}

func (f *flags) load(paths []string, stdin io.Reader) (*config.Config, error) {
	return config.Load(paths, config.Options{
		Checks: catalog.Load(), Stdin: stdin, MaxRecord: f.maxRecord, Explain: f.explain,
	})
}

// writeErr gives the exit code of a failed write. A reader that has gone is no
// failure.
func writeErr(err error) error {
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return cmdline.Errorf(cmdline.IO, "standard output: %w", err)
}

func list(out *ndjson.Writer, targets []sched.Target) error {
	var line []byte
	for i := range targets {
		line = append(append(line[:0], targets[i].Head...), '}')
		if err := out.Add(line); err != nil {
			return err
		}
	}
	return out.Flush()
}

// explained is how many due times --explain shows.
const explained = 5

func (f *flags) writeExplanation(w io.Writer, c *config.Config) error {
	e := c.Explained
	if e == nil {
		var names []string
		for i := range c.Targets {
			names = append(names, string(c.Targets[i].Name()))
		}
		return cmdline.Errorf(cmdline.Usage, "there is no target %q%s", f.explain, config.Nearest(f.explain, names))
	}
	var b strings.Builder
	b.WriteString(e.String())
	if e.Disabled {
		b.WriteString("\nnever due: it is not enabled\n")
	} else {
		b.WriteString("\nnext due\n")
		due := time.Now().UnixMilli()
		for range explained {
			if due = e.Target.Due(due); due == sched.Never {
				break
			}
			b.WriteString("  " + time.UnixMilli(due).UTC().Format(wire.TimeFormat) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return writeErr(err)
}

// grace is how long a scheduler that is told to stop waits for its reader.
const grace = 2 * time.Second

// schedule writes lines when they are due, until a signal comes.
func (f *flags) schedule(c *config.Config, paths []string, std cmdline.Std) error {
	ctx, stop := cmdline.Signals(context.Background())
	defer stop()
	var mu sync.Mutex
	log := func(format string, args ...any) {
		if f.quiet {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(std.Err, "pup-sched: "+format+"\n", args...)
	}
	s := sched.New(c.Targets, sched.Options{
		Slack: time.Duration(f.slack), Beat: time.Duration(f.beat),
		MaxRecord: f.maxRecord, Out: std.Out, Log: log,
	})
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				f.reload(ctx, s, paths, std.Err)
			case <-ctx.Done():
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case err := <-done:
		return writeErr(err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return writeErr(err)
	case <-time.After(grace):
		log("the reader does not read: ended without a last beat")
		return nil
	}
}

// reload reads the configuration again and takes it if there is nothing wrong
// with it.
func (f *flags) reload(ctx context.Context, s *sched.Scheduler, paths []string, stderr io.Writer) {
	if slices.Contains(paths, "-") {
		fmt.Fprintln(stderr, "pup-sched: not reloaded: standard input can't be read again")
		return
	}
	c, err := f.load(paths, nil)
	if err != nil {
		msg := "not reloaded, going on as before:\n" + err.Error()
		fmt.Fprintln(stderr, "pup-sched: "+strings.ReplaceAll(msg, "\n", "\npup-sched: "))
		return
	}
	s.Replace(ctx, c.Targets)
}
