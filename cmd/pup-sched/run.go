package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/config"
	"pup/cmd/pup-sched/internal/sched"
	"pup/cmd/pup-sched/internal/source"
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
	var err error
	if f.keeper, err = f.keep(); err != nil {
		return err
	}
	f.memory = source.NewMemory()
	if slices.Contains(append(paths, f.diff), "-") {
		// kept, since it can't be read again when the configuration is reloaded
		if f.stdin, err = io.ReadAll(std.In); err != nil {
			return cmdline.Errorf(cmdline.IO, "standard input: %w", err)
		}
	}
	c, err := f.load(context.Background(), paths)
	if err != nil {
		return cmdline.Errorf(cmdline.Config, "%w", err)
	}
	warn(std.Err, c.Warnings)
	out := ndjson.NewWriter(std.Out, f.maxRecord)
	switch {
	case f.check:
		return nil
	case f.diff != "":
		old, err := f.load(context.Background(), []string{f.diff})
		if err != nil {
			return cmdline.Errorf(cmdline.Config, "%w", err)
		}
		return writeErr(writeDiff(std.Out, old.Targets, c.Targets))
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
	for _, on := range []bool{f.once, f.window != 0, f.check, f.list, f.explain != "", f.diff != ""} {
		if on {
			modes++
		}
	}
	switch {
	case len(paths) == 0:
		return cmdline.Errorf(cmdline.Usage, "no configuration named; try pup-sched pup.toml")
	case modes > 1:
		return cmdline.Errorf(cmdline.Usage, "--once, --window, --check, --list, --explain and --diff exclude one another")
	case f.window < 0 || f.window > 0 && time.Duration(f.window) < time.Second:
		return cmdline.Errorf(cmdline.Usage, "--window must be at least 1s")
	case f.slack < 0 || time.Duration(f.slack) > maxSlack:
		return cmdline.Errorf(cmdline.Usage, "--slack must be from 0s to %s", wire.Duration(maxSlack))
	case f.beat < 0 || f.beat > 0 && time.Duration(f.beat) < time.Second:
		return cmdline.Errorf(cmdline.Usage, "--beat must be at least 1s, or 0s for none")
	case f.stop < 0:
		return cmdline.Errorf(cmdline.Usage, "--for must not be negative")
	case f.maxRecord < 1024:
		return cmdline.Errorf(cmdline.Usage, "--max-record must be at least 1024")
	}
	return nil
}

func (f *flags) load(ctx context.Context, paths []string) (*config.Config, error) {
	opt := config.Options{
		Checks: catalog.Load(), Stdin: bytes.NewReader(f.stdin), MaxRecord: f.maxRecord, Explain: f.explain, Keep: f.keeper,
	}
	if !f.check { // what a program prints is no part of the configuration
		opt.Fetch = func(s *config.Source) ([]byte, error) { return f.memory.Fetch(ctx, s) }
	}
	return config.Load(paths, opt)
}

// warn tells what is wrong with what sources print.
func warn(w io.Writer, err error) {
	if err != nil {
		fmt.Fprintln(w, "pup-sched: "+strings.ReplaceAll(err.Error(), "\n", "\npup-sched: "))
	}
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
	ctx, stop := cmdline.Signals(context.Background(), 0)
	defer stop()
	if f.stop > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(f.stop))
		defer cancel()
	}
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
	if f.control != "" {
		fifo, err := openControl(f.control)
		if err != nil {
			return err
		}
		defer fifo.Close()
		go listen(fifo, s.Signal)
	}
	go f.follow(ctx, s, hup, c, paths, std.Err)
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

// follow reads the configuration again when SIGHUP comes, a source prints
// something else or, with --watch, a file changes, until ctx is done.
func (f *flags) follow(ctx context.Context, s *sched.Scheduler, hup <-chan os.Signal, c *config.Config, paths []string, stderr io.Writer) {
	sources := c.Sources
	var files atomic.Pointer[[]config.Seen]
	files.Store(&c.Files)
	edited := make(chan struct{})
	if f.watch {
		go watch(ctx, func() []config.Seen { return *files.Load() }, edited)
	}
	for {
		again, stop := f.refresh(ctx, sources, stderr)
		select {
		case <-hup:
		case <-again:
		case <-edited:
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return
		}
		if c := f.reload(ctx, paths, stderr); c != nil {
			sources = c.Sources
			files.Store(&c.Files)
			s.Replace(ctx, c.Targets)
		}
	}
}

// refresh asks the sources at their intervals, and sends when one of them has
// printed something else. Stop waits until none is asked any more.
func (f *flags) refresh(ctx context.Context, sources []*config.Source, stderr io.Writer) (again <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() {
			for {
				select {
				case <-time.After(f.memory.Wait(s)):
				case <-ctx.Done():
					return
				}
				changed, err := f.memory.Refresh(ctx, s)
				switch {
				case err != nil && ctx.Err() == nil:
					fmt.Fprintf(stderr, "pup-sched: source %s: %v; going on with what it printed before\n", s.Name, err)
				case changed:
					select {
					case changes <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	return changes, func() { cancel(); wg.Wait() }
}

// reload reads the configuration again. It is nil when there is a mistake in
// it.
func (f *flags) reload(ctx context.Context, paths []string, stderr io.Writer) *config.Config {
	c, err := f.load(ctx, paths)
	if err != nil {
		warn(stderr, fmt.Errorf("not reloaded, going on as before:\n%w", err))
		return nil
	}
	warn(stderr, c.Warnings)
	return c
}
