package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/spool"
)

// silenceCommand is pup-route silence: silences are files, and this writes
// them right.
func silenceCommand(std cmdline.Std) *cli.Command {
	return &cli.Command{
		Name:      "silence",
		Usage:     "keep hooks from hearing of new problems for a time, also while pup-route runs; see SILENCES",
		ArgsUsage: "add|list|remove [flags] HOOKS.TOML [NAME...|FILE...]",
		Action: func(c *cli.Context) error {
			return cmdline.Errorf(cmdline.Usage, "want add, list or remove behind silence, then the file of hooks")
		},
		Subcommands: []*cli.Command{
			{Name: "add", Usage: "write a silence", ArgsUsage: "HOOKS.TOML [NAME...]", Flags: append(timeFlags(0),
				&cli.GenericFlag{Name: "from", Usage: "begin at `TIME`, not at once", Value: &moment{}},
				&cli.StringFlag{Name: "when", Usage: "only results for which `EXPRESSION` holds"},
				&cli.StringSliceFlag{Name: "hook", Usage: "only the hook `NAME`"},
			), Action: func(c *cli.Context) error { return addSilence(c, std) }},
			{Name: "list", Usage: "write the silences, a line of JSON each", ArgsUsage: "HOOKS.TOML", Action: func(c *cli.Context) error { return listSilences(c, std) }},
			{Name: "remove", Usage: "remove silences", ArgsUsage: "HOOKS.TOML [FILE...]", Flags: []cli.Flag{
				&cli.BoolFlag{Name: "expired", Usage: "those that have ended"},
			}, Action: removeSilences},
		},
	}
}

// ackCommand is pup-route ack.
func ackCommand(std cmdline.Std) *cli.Command {
	return &cli.Command{
		Name:      "ack",
		Usage:     "acknowledge the problems that names have now: no reminders, and no other hook hears of them; see SILENCES",
		ArgsUsage: "[flags] HOOKS.TOML NAME...",
		Flags:     append(timeFlags(24*time.Hour), &cli.StringFlag{Name: "incident", Usage: "this `INCIDENT`, as its events have it; needed without a spool"}),
		Action:    func(c *cli.Context) error { return acknowledge(c, std) },
	}
}

// timeFlags are the flags that every silence has.
func timeFlags(span time.Duration) []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "for", Usage: "end after `DURATION`", Value: &duration{span}},
		&cli.GenericFlag{Name: "until", Usage: "end at `TIME`, as in 2026-11-22T07:00:00Z", Value: &moment{}},
		&cli.StringFlag{Name: "reason", Usage: "say why"},
		&cli.StringFlag{Name: "by", Usage: "say that it is `WHO`'s; whoever calls, if it is not said"},
	}
}

// A moment is a flag's value that is a time.
type moment struct{ time.Time }

func (m *moment) String() string {
	if m.IsZero() {
		return ""
	}
	return m.Format(time.RFC3339)
}

func (m *moment) Set(s string) (err error) {
	if m.Time, err = time.Parse(time.RFC3339, s); err != nil {
		err = errors.New("want a time such as 2026-11-22T07:00:00Z")
	}
	return err
}

// newSilence makes a silence of the flags, and says where its file goes.
func newSilence(c *cli.Context, now time.Time) (s *config.Silence, dir, spoolDir string, err error) {
	if c.NArg() < 1 {
		return nil, "", "", cmdline.Errorf(cmdline.Usage, "want the file of hooks, which says where silences are")
	}
	spoolDir, dir, err = config.Places(c.Args().First())
	if err != nil {
		return nil, "", "", cmdline.Errorf(cmdline.Config, "%w", err)
	}
	span, until := c.Generic("for").(*duration).d, c.Generic("until").(*moment).Time
	switch {
	case c.IsSet("for") && c.IsSet("until"):
		return nil, "", "", cmdline.Errorf(cmdline.Usage, "--for and --until exclude one another")
	case until.IsZero() && span <= 0:
		return nil, "", "", cmdline.Errorf(cmdline.Usage, "a silence needs an end: --for 2h, or --until TIME")
	case until.IsZero():
		until = now.Add(span)
	}
	if !until.After(now) {
		return nil, "", "", cmdline.Errorf(cmdline.Usage, "--until: %s has passed", until.Format(time.RFC3339))
	}
	return &config.Silence{Until: until, Names: c.Args().Tail(), Reason: c.String("reason"), By: cmp.Or(c.String("by"), caller())}, dir, spoolDir, nil
}

// caller is who runs us, for people.
func caller() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

func addSilence(c *cli.Context, std cmdline.Std) error {
	now := time.Now()
	s, dir, _, err := newSilence(c, now)
	if err != nil {
		return err
	}
	s.From, s.Hooks = c.Generic("from").(*moment).Time, c.StringSlice("hook")
	if when := c.String("when"); when != "" {
		if err := s.SetWhen(when); err != nil {
			return cmdline.Errorf(cmdline.Usage, "--when: %w", err)
		}
	}
	switch {
	case len(s.Names) == 0 && s.When == nil && len(s.Hooks) == 0:
		return cmdline.Errorf(cmdline.Usage, "want names, --when or --hook; --when true silences everything")
	case !s.From.IsZero() && !s.From.Before(s.Until):
		return cmdline.Errorf(cmdline.Usage, "--from: it would end before it begins")
	case len(s.Names) == 0:
		s.Names = nil
	}
	s.File = fmt.Sprintf("silence-%s-%d.toml", now.UTC().Format("20060102-150405"), os.Getpid())
	return write(dir, s, std)
}

// write writes a silence, and its file name to standard output.
func write(dir string, s *config.Silence, std cmdline.Std) error {
	err := config.WriteSilence(dir, s)
	if err == nil {
		_, err = fmt.Fprintln(std.Out, s.File)
	}
	if err != nil {
		return cmdline.Errorf(cmdline.IO, "%w", err)
	}
	return nil
}

func acknowledge(c *cli.Context, std cmdline.Std) error {
	s, dir, spoolDir, err := newSilence(c, time.Now())
	if err != nil {
		return err
	}
	if s.Incident = c.String("incident"); s.Incident != "" {
		if len(s.Names) == 0 {
			s.Names = nil
		}
		s.File = "ack-" + s.Incident + ".toml"
		return write(dir, s, std)
	}
	switch {
	case len(s.Names) == 0:
		return cmdline.Errorf(cmdline.Usage, "want the names of targets, or --incident")
	case spoolDir == "":
		return cmdline.Errorf(cmdline.Usage, "%s has no spool, which knows the problems of names; say --incident, as the event has it", c.Args().First())
	}
	var wrong []error
	for _, name := range s.Names {
		incidents, err := spool.Incidents(spoolDir, name)
		switch {
		case err != nil:
			return cmdline.Errorf(cmdline.IO, "%w", err)
		case len(incidents) == 0:
			wrong = append(wrong, fmt.Errorf("no hook has heard of a problem of %.80q", name))
		}
		for _, s.Incident = range incidents {
			one := *s
			one.Names, one.File = []string{name}, "ack-"+s.Incident+".toml"
			if err := write(dir, &one, std); err != nil {
				return err
			}
		}
	}
	if wrong != nil {
		return cmdline.Errorf(cmdline.Usage, "%w", errors.Join(wrong...))
	}
	return nil
}

// silencesOf reads the silences that the file of hooks names. The error tells
// of those that can't be read.
func silencesOf(c *cli.Context) (all []config.Silence, dir string, err error) {
	if c.NArg() < 1 {
		return nil, "", cmdline.Errorf(cmdline.Usage, "want the file of hooks, which says where silences are")
	}
	_, dir, err = config.Places(c.Args().First())
	if err != nil {
		return nil, "", cmdline.Errorf(cmdline.Config, "%w", err)
	}
	if all, err = config.LoadSilences(dir); err != nil {
		err = cmdline.Errorf(cmdline.Config, "%w", err)
	}
	return all, dir, err
}

func listSilences(c *cli.Context, std cmdline.Std) error {
	all, _, bad := silencesOf(c)
	w := ndjson.NewWriter(std.Out, ndjson.MaxWrite)
	now := time.Now()
	for i := range all {
		line, err := all[i].Line(now)
		if err == nil {
			err = w.Add(line)
		}
		if err != nil {
			return cmdline.Errorf(cmdline.IO, "%w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return cmdline.Errorf(cmdline.IO, "%w", err)
	}
	return bad
}

func removeSilences(c *cli.Context) error {
	all, dir, bad := silencesOf(c)
	if dir == "" {
		return bad
	}
	files := c.Args().Tail()
	if c.Bool("expired") {
		for i := range all {
			if all[i].State(time.Now()) == "expired" {
				files = append(files, filepath.Base(all[i].File))
			}
		}
	} else if len(files) == 0 {
		return cmdline.Errorf(cmdline.Usage, "want names of files, as pup-route silence list shows them, or --expired")
	}
	var wrong []error
	for _, f := range files {
		wrong = append(wrong, config.RemoveSilence(dir, strings.TrimPrefix(f, dir+"/")))
	}
	if err := errors.Join(wrong...); err != nil {
		return cmdline.Errorf(cmdline.IO, "%w", err)
	}
	return nil
}
