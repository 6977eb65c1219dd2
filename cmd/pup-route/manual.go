package main

import (
	"pup/cmd/internal/cmdline"
)

// manual is the part of pup-route(1) that is not its flags.
func manual() *cmdline.Program {
	return &cmdline.Program{
		Synopsis: []string{"[FLAGS] [HOOKS.TOML…]"},
		Description: `Pup-route reads result lines on standard input and writes every line to standard output, unchanged. Beside that it keeps the state of each name, and runs commands, called hooks, when a state changes. hooks.toml says which; pup-hooks(5) describes it.

A hook gets one line of type event on its standard input, with the result that caused it. It gets an environment made from nothing, a session of its own, and an end: after its time-out its process group gets SIGTERM, then SIGKILL. What it prints goes to standard error, escaped and cut to its last 4 KiB. A hook that fails is reported by a line of type error on standard output.

Lines of other types pass through. A line that can't be read is replaced by an error line, and the exit code is 65. At the end of the input pup-route waits for its hooks. When nobody reads its output any more, it goes on running hooks.

Time is the time of the input: each result moves the clock to its own time, and while none comes the clock goes on by itself. So a recorded file is routed as it was live.`,
		Examples: []cmdline.Example{
			{Doc: "call a program when something goes down, and when it is up again", Command: "pup-sched pup.toml | pup-probe | pup-route --on down,recovered=./page"},
			{Doc: "with a file of hooks, and the results kept", Command: "pup-sched pup.toml | pup-probe | pup-route hooks.toml >> results.ndjson"},
			{Doc: "what would have been called last month", Command: "pup-route -n hooks.toml < results.ndjson"},
		},
		Exits: []int{cmdline.OK, cmdline.Degraded, cmdline.Down, cmdline.Unknown, cmdline.Usage, cmdline.Data, cmdline.Bug, cmdline.IO, cmdline.Config},
		Sections: []cmdline.Section{
			{Title: "SIGNALS", Text: `SIGTERM and SIGINT: nothing more is read and no hook is started; running ones have --grace to end. A second one ends them and pup-route at once. SIGHUP: the configuration is read again; it is taken as a whole, or not at all where it has a mistake.`},
			{Title: "ENVIRONMENT OF HOOKS", Text: `PATH, LANG, HOME, TZ, and with a user USER and LOGNAME. PUP_EVENT, PUP_STATUS, PUP_PREVIOUS, PUP_COUNT, PUP_HOOK, PUP_INCIDENT; PUP_JOB, the same for every attempt of a call; PUP_ATTEMPT; PUP_NAME, only where the name has nothing but letters, digits and ._:@/-; PUP_FILE with input = "file". No text from the network is among them.`},
		},
		SeeAlso: []string{"pup-hooks(5)", "pup-sched(1)", "pup-probe(1)", "pup-lines(5)"},
	}
}
