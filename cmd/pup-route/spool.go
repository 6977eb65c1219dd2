package main

import (
	"encoding/json"
	"os"

	"github.com/urfave/cli/v2"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-route/internal/spool"
)

// spoolCommand is pup-route spool, for looking into a spool and for putting
// it right.
func spoolCommand(std cmdline.Std) *cli.Command {
	ask := func(drop bool) cli.ActionFunc {
		return func(c *cli.Context) error {
			if c.NArg() < 2 {
				return cmdline.Errorf(cmdline.Usage, "want a spool directory and one job or more, as pup-route spool list shows them")
			}
			for _, id := range c.Args().Tail() {
				if err := spool.Ask(c.Args().First(), spool.Request{Drop: drop, ID: id}); err != nil {
					return cmdline.Errorf(cmdline.IO, "%w", err)
				}
			}
			return nil
		}
	}
	return &cli.Command{
		Name:      "spool",
		Usage:     "show and mend what a spool holds",
		ArgsUsage: "list|retry|drop DIR [JOB...]",
		Action: func(c *cli.Context) error {
			return cmdline.Errorf(cmdline.Usage, "want list, retry or drop behind spool, then its directory")
		},
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "write the jobs that are open and those that were given up, a line of JSON each", ArgsUsage: "DIR", Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return cmdline.Errorf(cmdline.Usage, "want one spool directory")
				}
				return listSpool(c.Args().First(), std.Out)
			}},
			{Name: "retry", Usage: "try jobs again that were given up, or that wait", ArgsUsage: "DIR JOB...", Action: ask(false)},
			{Name: "drop", Usage: "forget jobs", ArgsUsage: "DIR JOB...", Action: ask(true)},
		},
	}
}

func listSpool(dir string, out *os.File) error {
	open, dead, err := spool.List(dir)
	if err != nil {
		return cmdline.Errorf(cmdline.IO, "%w", err)
	}
	w := ndjson.NewWriter(out, ndjson.MaxWrite)
	for i, jobs := range [][]*spool.Job{open, dead} {
		for _, j := range jobs {
			b, err := json.Marshal(j)
			if err != nil {
				return err
			}
			state := []byte(`"open"`)
			if i == 1 {
				state = []byte(`"dead"`)
			}
			b = ndjson.Splice(nil, b, "state", state)
			if err := w.Add(ndjson.Splice(nil, b, "event", j.Event)); err != nil {
				return cmdline.Errorf(cmdline.IO, "%w", err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return cmdline.Errorf(cmdline.IO, "%w", err)
	}
	return nil
}
