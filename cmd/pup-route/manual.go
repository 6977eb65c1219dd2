package main

import (
	"pup/cmd/internal/cmdline"
)

// manual is the part of pup-route(1) that is not its flags.
func manual() *cmdline.Program {
	return &cmdline.Program{
		Synopsis:    []string{"[flags] [HOOKS.TOML...] < results"},
		Description: description,
		Examples: []cmdline.Example{
			{Doc: "call a program when something goes down, and when it is up again", Command: "pup-sched pup.toml | pup-probe | pup-route --on down,recovered=./page"},
			{Doc: "with a file of hooks, and the results kept", Command: "pup-sched pup.toml | pup-probe | pup-route hooks.toml >> results.ndjson"},
			{Doc: "what would have been called last month", Command: "pup-route -n hooks.toml < results.ndjson"},
		},
		Exits: []int{cmdline.OK, cmdline.Degraded, cmdline.Down, cmdline.Unknown, cmdline.Usage, cmdline.Data, cmdline.Bug, cmdline.IO, cmdline.Config},
		Sections: []cmdline.Section{
			{Title: "THE PROMISE", Text: promise},
			{Title: "SILENCES", Text: silencing},
			{Title: "SIGNALS", Text: signals},
		},
		SeeAlso: []string{"pup-hooks(5)", "pup-sched(1)", "pup-probe(1)", "pup-lines(5)"},
	}
}

const description = `**pup-route** reads result lines and writes every line to standard output, unchanged. Beside that it keeps the state of each name and runs commands, called hooks, when a state changes. Files say which, see **pup-hooks**(5), or flags such as **--on** *down=./page*.

A line is passed on first; then its hooks run, beside the stream. A hook that fails is reported by a line of type *error* on standard output and a message on standard error, where what hooks print goes too, escaped and cut to its last 4 KiB.

Lines of other types pass through. A line that can't be read is replaced by an *error* line, and the exit code at the end is 65. At the end of the input **pup-route** waits for its hooks. When nobody reads its output any more, it goes on running hooks until the end of the input.

**pup-sched** numbers its lines. Results that do not arrive for longer than *gap_after* are reported by a line of type *error*, with the numbers, and on standard error; those that come after all are too. At the end of the input all that has not come is lost. Runs that **pup-sched** skipped itself have no number. A series of numbers is counted from its first beat; one that began before **pup-route** did, from the first number that comes. With a *spool*, a restart goes on counting.

The clock is that of the input: each result moves it to its own time, never back, and while none comes it goes on by itself. So a recorded file is routed as it was when it was live.

When hooks are slower than the results that call them, up to 16 MiB of events wait for them; then nothing is read until some have run. The pipe is the queue.`

const promise = `With a *spool*: a result is accepted when its journal entry is synced. From then on every hook that it triggers is started at least once, or its job lies in the folder *dead* with a reason, through kill -9, restart, power loss and a full disk. Nothing is passed to standard output before it is accepted. A result that was not accepted can be lost only with the pipe that held it. After a crash a line may be passed on twice, and a hook may be called twice with the same *job*.

With and without a spool: who has heard of a problem hears of its end exactly once, through maintenance, silence, dependency, flapping, reload and, with a spool, restart. A hook that is taken out of the configuration hears of nothing any more.

A spool belongs to one **pup-route** at a time. **pup-route spool** *list*, *retry* and *drop* show and mend what it holds, also while another has it.`

const silencing = `A silence is a file in the directory that *silences* in the file of hooks names, see **pup-hooks**(5). **pup-route silence** *add*, *list* and *remove* write such files, list them, a line of JSON each with *state*, which is pending, active or expired, and remove them by name, or with **--expired**. **pup-route ack** acknowledges the problems that names have now; which these are it reads from the spool, or it is told by **--incident**. A running **pup-route** sees all of it within 5 seconds. Flags come before the file of hooks:

**--for** *DURATION* or **--until** *TIME* say when it ends; an acknowledgement ends after a day if neither is given, and with its problem. **--from** *TIME*: when it begins. **--when** *EXPRESSION*, **--hook** *NAME* and the names behind the file say what it covers. **--reason** and **--by** are for people.

    pup-route silence add --for 2h --reason 'new disks' hooks.toml db1 db2
    pup-route silence add --until 2026-11-22T07:00:00Z --when 'labels.team == "db"' hooks.toml
    pup-route ack --reason 'on it' hooks.toml www`

const signals = `SIGTERM and SIGINT: nothing more is read and no hook is started; running ones have **--grace** to end. A second one ends them at once. SIGHUP: the configuration is read again; it is taken as a whole, or, where it has a mistake, not at all.`

// hooksPage is the text of pup-hooks(5) before the keys.
const hooksPage = `## Description

A hooks.toml file tells **pup-route**(1) which commands to run for what. It is read strictly: an unknown key, a wrong type or a command that is not there is an error, with file and line, and the exit code is 78. Several files count as one; **pup-route --check** tells whether they are right.

    [[hook]]
    name    = "page"
    on      = ["down", "recovered"]
    when    = "labels.team == 'web'"
    after   = 3
    repeat  = "1h"
    command = ["/usr/local/libexec/pup/slack"]
    timeout = "30s"
    user    = "pup-hook"

## State

For each name, as each vantage sees it, **pup-route** counts results in a row. An *unknown* result is no verdict on the target: it neither adds to a row of bad results nor breaks it, and nobody is told of it but hooks whose *on* has unknown. A name that was never seen counts as up.

Each hook has its own view: it is told of a problem once *after* confirms it, and has then heard of it. Who has heard of a problem hears of its end, once, if its *on* has recovered: *when* keeps a hook from hearing of a problem, never from hearing of its end. A hook whose *on* has recovered and no problem hears of the end of every problem.

An incident lasts from the first result that is not up to recovery. *since* and *for_ms* of an event are those of the incident.

## What a hook gets

One line of type event, see **pup-lines**(5), on standard input, with the result that caused it in it as it came. Its *job* is the same when a call is repeated and different for every other call: a receiver can use it to drop repetitions.

The environment is made from nothing: PATH, LANG, HOME, TZ, with a user USER and LOGNAME, and what *env* says; PUP_HOOK, PUP_EVENT, PUP_STATUS, PUP_PREVIOUS, PUP_COUNT, PUP_INCIDENT; PUP_JOB; PUP_ATTEMPT, from 1; PUP_NAME, only where the name consists of letters, digits and any of ".\\_:@/-"; PUP_FILE with input = "file". No text from the network is among them, nor ever in the arguments: it is in the event line only. A hook runs in a session of its own, with no descriptors but the three standard ones.

Where **pup-route** runs as root, the file of hooks and every command must belong to root, with all folders and symbolic links that lead to them, and nobody else may write them. The file is looked at when it is read, and a command again before each start: one that somebody else could have changed meanwhile is not run, and the call is tried again later.

## How a hook ends

Exit status 0: done. 75, a signal, the time-out, or a command that can't be started: it is tried again, later and later. Any other status: it has failed. After *timeout* its process group gets SIGTERM, and SIGKILL after *grace*; so do processes that it leaves in its group.

Calls of a hook for one name never overlap and keep their order. Calls for other names, and other hooks, do not wait for them.

## Diagnosis

A [[diagnose]] command looks closer while the problem is fresh: it runs at the first bad result of a name, once for each problem, before *after* confirms it and somebody is told. It gets an event called *diagnose*, as a hook does. What it prints, 4 KiB at most for all of them, escaped, is in the member *diagnosis* of every event that tells of the problem. A hook waits for it, *diagnose_wait* at most; measuring does not. It ends when the name is up again before anybody was told, and is not run for what nobody would hear of: in maintenance, silence, or while what the name depends on is not up. With a *spool*, what was found survives a restart; a command that had not ended by then is not run again.

## Silences

A silence is a file NAME.toml in the directory that *silences* names. While it holds, hooks do not hear of new problems that it covers, and get no reminders; they do hear of the end of what they have heard of. When it has ended, they hear of what is still wrong.

    when   = "labels.team == 'db'"
    until  = 2026-11-22T07:00:00Z
    reason = "new disks"

With *incident* it acknowledges one incident. To lift a silence, remove the file. **pup-route silence** and **pup-route ack** write such files, see **pup-route**(1). Two members of a result work in the same way: *maintenance*, which **pup-sched** adds while a window is open, and *depends_on*, names of other targets that are not up.

## Keys

`

// diagnoseKeysPage stands before the keys of a diagnose command.
const diagnoseKeysPage = `## Keys of [[diagnose]]

`

// silenceKeysPage stands before the keys of a silence.
const silenceKeysPage = `## Keys of a silence

`

// hookKeysPage stands before the keys of a hook.
const hookKeysPage = `## Keys of [[hook]]

`
