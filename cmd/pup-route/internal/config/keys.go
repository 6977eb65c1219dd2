package config

import (
	"encoding/json"
	"time"

	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// keys declares what may stand in a hooks.toml: for the strict loader and for
// pup-hooks(5).
type keys struct {
	Spool       string        `json:"spool" doc:"A directory for what has been accepted and not yet dealt with. Absent: it is kept in memory, and lost when pup-route ends."`
	Silences    string        `json:"silences" doc:"A directory of silences: while one holds, hooks do not hear of new problems and get no reminders, but hear of the end of what they have heard of. It is looked at every few seconds."`
	Recheck     string        `json:"recheck" doc:"The FIFO that pup-sched --control reads. A hook that answers recheck has a name checked at once."`
	StaleAfter  wire.Duration `json:"stale_after" doc:"A name is stale when it has had no result for so long. Absent: twice what the member every of its last result says, and its timeout, 10s if that is not said; a name whose results do not say every is never stale."`
	ForgetAfter wire.Duration `json:"forget_after" doc:"A name, or a vantage of it, of which nothing has been heard for so long is forgotten, and who was told of a problem of it is told that it is over. Time in which no results come at all does not count. 0s: never."`
	GapAfter    wire.Duration `json:"gap_after" doc:"How late a result may be, as slow checks are, before it counts as lost: pup-sched numbers its lines, and a gap in the numbers is reported, in a line of type error. 0s: nobody counts, as it has to be where a filter takes results out on the way."`
	Hook        []hookKeys    `json:"hook" doc:"A command and when to run it."`

	Diagnose     []diagnoseKeys `json:"diagnose" doc:"A command to run at the first bad result of a name, before anybody is told."`
	DiagnoseWait wire.Duration  `json:"diagnose_wait" doc:"How long a hook waits for what diagnose commands find, at most. What they find later is in later events."`
}

type hookKeys struct {
	Name          string            `json:"name" required:"true" doc:"Identity of the hook: letters, digits, dot, dash and underscore."`
	On            []string          `json:"on" required:"true" doc:"What to run it for. A status, up, degraded, down or unknown: the name has become that. A transition such as up->down. change: any other status than before. recovered: the name is up again after a problem that this hook was told of. stale: no result came for too long. flapping: see there. input-lost: the beats of pup-sched stay away, or the input has ended; it is recovered when there is input again. reminder: a problem goes on, each repeat. always: every result; stands alone."`
	When          string            `json:"when" doc:"An expression over the result, as in expect. It keeps the hook from hearing of a problem, never from hearing of its end."`
	After         json.RawMessage   `json:"after" doc:"Confirms a problem: so many bad results in a row (3), so many of the last ones (\"3 of 5\", 32 at most), or so long since the first in a row (\"2m\"). 1 if absent. An unknown result neither counts nor breaks the row, unless on has unknown."`
	RecoverAfter  json.RawMessage   `json:"recover_after" doc:"Confirms that a name is up again, like after. 1 if absent."`
	Repeat        wire.Duration     `json:"repeat" doc:"Remind the hook of a problem that goes on, each time this long after the last call."`
	RepeatMax     wire.Duration     `json:"repeat_max" doc:"The pauses between reminders double up to this. Absent: they do not."`
	Flapping      int               `json:"flapping" min:"0" max:"19" doc:"A name is flapping while its last 20 verdicts hold so many changes between up and not up. Then the hook hears nothing of it but, if its on has flapping, that; and afterwards how it stands. 0: never."`
	Quorum        json.RawMessage   `json:"quorum" doc:"How many vantages must agree that a name has changed: a number (2), a share of them (\"67%\"), \"majority\" or \"all\". Their results with the same run are one measurement; an unknown one does not count, and where too few agree the measurement is unknown. Absent: the hook hears of a name as each vantage sees it."`
	Members       *membersKeys      `json:"members" doc:"Hear of several names as of one, when enough of them have a problem. after, when, silences and the like hold for each of them."`
	CommonCause   *causeKeys        `json:"common_cause" doc:"Hear of what many names have in common that fail at once, in place of each of them."`
	Command       []string          `json:"command" required:"true" doc:"The program and its arguments. No shell runs it and nothing in it is expanded. A program without a slash is looked for in the standard directories, ./program beside the file."`
	Input         string            `json:"input" enum:"stdin,file,stream" doc:"How it gets the event. stdin: one line on standard input. file: a file whose path is in PUP_FILE. stream: one long-lived process gets a line for each event on standard input; it is started again when it ends."`
	Timeout       wire.Duration     `json:"timeout" doc:"The longest that a run may take. Then its process group gets SIGTERM, and SIGKILL after grace."`
	Grace         wire.Duration     `json:"grace" doc:"The time between SIGTERM and SIGKILL."`
	Env           map[string]string `json:"env" doc:"Environment variables for it. It gets none of ours. Secrets do not belong here; name a file."`
	User          string            `json:"user" doc:"Whom it runs as. Must be said, here or by --user, when pup-route runs as root; root only if it is said."`
	Group         wire.Duration     `json:"group" doc:"Gather the events of the hook for so long and give them to it in one call: one event called group, with the others in its list events. That limits a storm as well: it is the least time between two calls."`
	Answers       bool              `json:"answers" doc:"The last line that the hook prints on standard output is an answer, a JSON object: {\"acknowledge\":\"2h\"}: no reminders of this incident, and no other hook hears of it, for so long; {\"silence\":\"2h\"}: the same for the name; {\"recheck\":true}: check the name now; {\"label\":{\"ticket\":\"OPS-12\"}}: have this in the member labels of all later events of the name, until the problem is over: 8 labels of 256 bytes at most, \"\" takes one away. Several may stand in one."`
	Jobs          int               `json:"jobs" min:"1" max:"1000" doc:"How many of its runs may go on at once. Those for one name never overlap and keep their order."`
	RetryMin      wire.Duration     `json:"retry_min" doc:"The pause before the second attempt. Later pauses are as long as the job is old, so they double."`
	RetryMax      wire.Duration     `json:"retry_max" doc:"The longest pause between attempts."`
	RetryFor      wire.Duration     `json:"retry_for" doc:"How old a job may become. One that fails when it is older is given up: it is put aside in the spool's folder dead."`
	PermanentExit []int             `json:"permanent_exit" doc:"Exit statuses after which a job is given up at once. 75, a signal, a time-out and a command that can't be started are always tried again."`
	Sandbox       sandboxKeys       `json:"sandbox" doc:"What the command may do."`
	Enabled       bool              `json:"enabled" doc:"false: the hook is checked, but never run."`
}

type membersKeys struct {
	Names   []string        `json:"names" doc:"The names. The event has the name of the hook."`
	Same    string          `json:"same" doc:"Or a member of the result: all names that show the same there belong together, so labels.pool makes one of each pool. address/24 is the network of an address, by the bits of IPv4 (IPv6: 48), address its host. The event has a name such as labels.pool=web."`
	AtLeast json.RawMessage `json:"at_least" doc:"How many of them must have a problem: a number (2), a share (\"50%\"), \"majority\" or \"all\". It is over when fewer have. all if absent."`
}

type causeKeys struct {
	Same    []string        `json:"same" required:"true" doc:"What they may have in common, as in members: labels.network, address/24, tls.issuer. Where several fit, that of most names is told."`
	AtLeast json.RawMessage `json:"at_least" doc:"How many of those that have it in common must fail, as in members. 3 if absent. When fewer have a problem it is over, and those which still have one after another within are told by themselves."`
	Within  wire.Duration   `json:"within" doc:"How long a problem waits for others that fail too. 1m if absent. Names that have nothing in common with enough others do not wait."`
}

type sandboxKeys struct {
	Level   string    `json:"level" enum:"off,basic,strict" doc:"off: a session of its own, and its process group is killed in the end. basic: also, every process that it has started is, wherever that went; it can't gain privileges, as set-user-ID programs do; it has limits. strict: also, it reaches only files that are listed, or that every program needs, and no dangerous system call."`
	Network bool      `json:"network" doc:"strict: it may use the network. false leaves local sockets only."`
	Read    []string  `json:"read" doc:"strict: files and directories that it may read and run, besides its command and the system's programs, libraries and name service."`
	Write   []string  `json:"write" doc:"strict: files and directories that it may read, run and change."`
	Gain    bool      `json:"gain_privileges" doc:"basic: set-user-ID programs work for it, as some sendmail programs need."`
	Missing string    `json:"missing" enum:"fail,warn" doc:"What to do where this system lacks a part of the level. fail: refuse the configuration. warn: say so and go without."`
	Limits  limitKeys `json:"limits" doc:"Bounds for each of its processes. 0: none."`
}

type limitKeys struct {
	Files      int `json:"files" min:"0" doc:"Open files."`
	Processes  int `json:"processes" min:"0" doc:"Processes of its user, all counted; root is not bound by it."`
	FileMiB    int `json:"file_mib" min:"0" doc:"Size of a file that it writes, in MiB."`
	DataMiB    int `json:"data_mib" min:"0" doc:"Data memory, in MiB."`
	CPUSeconds int `json:"cpu_seconds" min:"0" doc:"CPU time."`
}

// defaults are the values of keys that are not given.
var defaults = keys{ForgetAfter: wire.Duration(7 * 24 * time.Hour), GapAfter: wire.Duration(60 * seconds), DiagnoseWait: wire.Duration(5 * seconds)}

// hookDefaults are those of a hook.
var hookDefaults = hookKeys{
	Input:         "stdin",
	Timeout:       wire.Duration(30 * seconds),
	Grace:         wire.Duration(5 * seconds),
	Jobs:          4,
	RetryMin:      wire.Duration(10 * seconds),
	RetryMax:      wire.Duration(900 * seconds),
	RetryFor:      wire.Duration(86400 * seconds),
	PermanentExit: []int{64, 65, 78},
	Sandbox:       sandboxKeys{Level: "basic", Network: true, Missing: "fail", Limits: limitKeys{Files: 256, DataMiB: 512}},
	Enabled:       true,
}

// Field describes the file, for the manual.
func Field() schema.Field { return schema.Of(defaults) }

// HookField describes a hook, for the manual.
func HookField() schema.Field { return schema.Of(hookDefaults) }

// silenceKeys declares what stands in a silence, a file NAME.toml.
type silenceKeys struct {
	Until    time.Time `json:"until" required:"true" doc:"When it ends."`
	From     time.Time `json:"from" doc:"When it begins; at once if absent."`
	When     string    `json:"when" doc:"An expression over the result; absent: all."`
	Names    []string  `json:"names" doc:"Names of targets; absent: all."`
	Hooks    []string  `json:"hooks" doc:"Names of hooks; absent: all."`
	Incident string    `json:"incident" doc:"Only this incident: an acknowledgement. It ends with the incident."`
	Reason   string    `json:"reason" doc:"Why, for people."`
	By       string    `json:"by" doc:"Whose it is, for people."`
}

// SilenceField describes a silence, for the manual.
func SilenceField() schema.Field { return schema.Of(silenceKeys{}) }
