// Package lines declares the members of every line type, for pup-lines(5), for
// the JSON Schemas in docs/, and for the names that expressions may use. The
// structs are declarations only: lines are scanned and appended by hand.
package lines

import (
	"encoding/json"
	"time"

	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// Common are the target members that every check over the network understands.
// A check that can't use one refuses it.
type Common struct {
	Resolver string `json:"resolver" doc:"The DNS server that finds the addresses of the host, such as 192.0.2.53, [2001:db8::53]:5353, tcp://192.0.2.53 or tls://dns.example.org. The system's configuration if absent."`
	Address  string `json:"address" enum:"first,each,all,any" doc:"Which addresses of the host are checked. first: in order, until one accepts a connection, as a client does. each: every one, reported each; degraded if some are down. all: every one must pass. any: one must pass."`
	Connect  string `json:"connect" doc:"Another host:port to connect to, or a socket file as unix:PATH, which needs --allow-files; the URL still gives the name that the server is asked for."`
	Family   string `json:"family" enum:"4,6" doc:"Use addresses of this IP version only."`
	Source   string `json:"source" doc:"The local IP address to connect from."`
	Proxy    string `json:"proxy" doc:"Connect through this proxy: socks5://host:port or http://host:port (CONNECT)."`
}

type target struct {
	V         int               `json:"v" doc:"Major version of the format: 1. Missing means 1."`
	Type      string            `json:"type" doc:"target. Missing means target."`
	Name      string            `json:"name" doc:"Identity of the target; its URL without credentials if absent."`
	URL       string            `json:"url" doc:"What and where. The scheme picks the check."`
	Check     string            `json:"check" doc:"The check, where the scheme does not pick it."`
	Expect    []string          `json:"expect" doc:"Expressions over the result that must hold, else it is down."`
	Warn      []string          `json:"warn" doc:"Expressions that must hold, else it is degraded."`
	Timeout   wire.Duration     `json:"timeout" doc:"Wall clock for a whole attempt, from the first look-up to the last byte. 10s if absent."`
	Retries   int               `json:"retries" min:"0" max:"20" doc:"How often a failed attempt is repeated within the run."`
	RetryWait wire.Duration     `json:"retry_wait" doc:"The pause before a repeated attempt. 1s if absent."`
	Labels    map[string]string `json:"labels" doc:"Copied to the result."`
	Every     wire.Duration     `json:"every" doc:"How often the target is due. Copied to the result, so that silence can be noticed."`
	Due       time.Time         `json:"due" doc:"When the run was due."`
	Expires   time.Time         `json:"expires" doc:"When the run is no longer worth doing."`
	Run       string            `json:"run" doc:"Identity of the run, derived from name and due time."`
	Series    string            `json:"series" doc:"Which series of numbers seq belongs to: that of one run of one scheduler. Who counts lines can tell a restart from a loss by it."`
	Seq       int               `json:"seq" doc:"Counts the target lines of a series, from 1."`
	DependsOn []string          `json:"depends_on" doc:"Names of targets without which this one can't work. Copied to the result."`

	Maintenance string `json:"maintenance" doc:"The maintenance window that is open at due. Copied to the result."`
	Common
}

type ms struct {
	Prepare  float64 `json:"prepare" doc:"Options and secrets."`
	Resolve  float64 `json:"resolve" doc:"Finding the addresses."`
	Connect  float64 `json:"connect" doc:"Opening the connection."`
	TLS      float64 `json:"tls" doc:"The TLS handshake."`
	Greet    float64 `json:"greet" doc:"Greeting and negotiation."`
	Auth     float64 `json:"auth" doc:"Logging in."`
	Request  float64 `json:"request" doc:"Sending the request, or the protocol's commands."`
	Wait     float64 `json:"wait" doc:"Waiting for the first byte."`
	Transfer float64 `json:"transfer" doc:"Receiving the rest."`
	Verify   float64 `json:"verify" doc:"Judging."`
	Total    float64 `json:"total" doc:"The whole attempt."`
}

type attempt struct {
	Address string  `json:"address" doc:"The address that was tried."`
	Status  string  `json:"status" enum:"up,degraded,down,unknown" doc:"Its verdict."`
	Phase   string  `json:"phase" doc:"Where it ended."`
	Reason  string  `json:"reason" doc:"What went wrong."`
	Error   string  `json:"error" doc:"The same for people."`
	TotalMS float64 `json:"total_ms" doc:"How long it took."`
}

type failed struct {
	Expect string         `json:"expect" doc:"The expect expression that did not hold."`
	Warn   string         `json:"warn" doc:"The warn expression that did not hold."`
	Saw    map[string]any `json:"saw" doc:"The values of the members that it reads."`
	Error  string         `json:"error" doc:"Why it could not be judged."`
}

type result struct {
	V         int               `json:"v" doc:"Major version of the format: 1."`
	Type      string            `json:"type" doc:"result."`
	Name      string            `json:"name" doc:"Identity of the target."`
	Check     string            `json:"check" doc:"The check that was made."`
	URL       string            `json:"url" doc:"The target's URL without its password."`
	Status    string            `json:"status" enum:"up,degraded,down,unknown" doc:"The verdict. unknown is none: the check could not be carried out."`
	Phase     string            `json:"phase" doc:"Where it went wrong."`
	Reason    string            `json:"reason" doc:"What went wrong, in one word of a fixed list."`
	Error     string            `json:"error" doc:"What went wrong, for people. The wording may change."`
	Failed    []failed          `json:"failed" doc:"Each expression that did not hold."`
	Time      time.Time         `json:"time" doc:"When the deciding attempt began."`
	MS        ms                `json:"ms" doc:"Milliseconds spent in each phase of the deciding attempt, not overlapping. Absent: not reached."`
	Address   string            `json:"address" doc:"The address that was talked to, with its port."`
	Tried     []attempt         `json:"tried" doc:"Addresses that did not accept a connection before one did."`
	Addresses []attempt         `json:"addresses" doc:"The verdict on each address, with address = each, all or any."`
	Attempts  int               `json:"attempts" doc:"How many attempts were made."`
	Earlier   []attempt         `json:"earlier" doc:"The attempts before the deciding one."`
	Labels    map[string]string `json:"labels" doc:"From the target."`
	Every     wire.Duration     `json:"every" doc:"From the target."`
	Due       time.Time         `json:"due" doc:"From the target."`
	LagMS     float64           `json:"lag_ms" doc:"How long after due the first attempt began."`
	Run       string            `json:"run" doc:"From the target."`
	Series    string            `json:"series" doc:"From the target."`
	Seq       int               `json:"seq" doc:"From the target."`
	DependsOn []string          `json:"depends_on" doc:"From the target."`

	Maintenance string `json:"maintenance" doc:"From the target."`

	Vantage   string   `json:"vantage" doc:"Where pup-probe runs, as --vantage says."`
	Truncated []string `json:"truncated" doc:"Members that were cut or left out to keep the line short."`
}

type event struct {
	V        int             `json:"v" doc:"Major version of the format: 1."`
	Type     string          `json:"type" doc:"event."`
	Name     string          `json:"name" doc:"The target; of several together the hook, or what they have in common."`
	Event    string          `json:"event" doc:"What happened: the new status, recovered, reminder, flapping or stale; diagnose for a diagnose command; input-lost when results and beats stay away; group for several events together."`
	Status   string          `json:"status" enum:"up,degraded,down,unknown" doc:"The status now."`
	Previous string          `json:"previous" doc:"The status before."`
	Time     time.Time       `json:"time" doc:"When it happened, on the clock of the results."`
	Since    time.Time       `json:"since" doc:"When the incident began."`
	ForMS    float64         `json:"for_ms" doc:"How long the incident has lasted."`
	Count    int             `json:"count" doc:"How many results in a row had the status; of a group, how many events it has; of members, how many have a problem."`
	Incident string          `json:"incident" doc:"Identity of the problem, from its first result to recovery."`
	Vantage  string          `json:"vantage" doc:"Where the result comes from."`
	Reason   string          `json:"reason" enum:"removed,forgotten,reconfigured" doc:"Of the end of a problem that has not ended: the target was removed; nothing was heard of it for forget_after; the hook does not look at it any more."`
	Vantages []seen          `json:"vantages" doc:"With quorum: how each vantage sees it."`
	Cause    string          `json:"cause" doc:"With common_cause: what the members have in common."`
	Members  []member        `json:"members" doc:"Those with a problem, 20 at most."`
	Total    int             `json:"total" doc:"How many members there are."`
	Job      string          `json:"job" doc:"The idempotency key: the same when a hook is tried again."`
	Hook     string          `json:"hook" doc:"The hook that gets the event."`
	Events   []any           `json:"events" doc:"Of a group: its events."`
	Result   json.RawMessage `json:"result" doc:"The result that caused it, as it came."`

	Labels    map[string]string `json:"labels" doc:"What hooks have answered as label, as long as the problem lasts. Those of the target are in result."`
	Diagnosis []finding         `json:"diagnosis" doc:"What diagnose commands found at the first bad result of the name."`
}

type finding struct {
	Name      string   `json:"name" doc:"The diagnose command."`
	Exit      int      `json:"exit" doc:"Its exit status."`
	MS        float64  `json:"ms" doc:"How long it took."`
	Output    string   `json:"output" doc:"The end of what it printed."`
	Error     string   `json:"error" doc:"Why it found nothing: it was ended, was not run, or had not ended yet."`
	Truncated []string `json:"truncated" doc:"output, where its beginning was left out."`
}

type seen struct {
	Vantage string `json:"vantage" doc:"Where the results come from."`
	Status  string `json:"status" enum:"up,degraded,down,unknown" doc:"The last one."`
}

type member struct {
	Name   string `json:"name" doc:"The target."`
	Status string `json:"status" enum:"up,degraded,down,unknown" doc:"Its status."`
}

type removed struct {
	V    int       `json:"v" doc:"Major version of the format: 1."`
	Type string    `json:"type" doc:"removed."`
	Name string    `json:"name" doc:"The target."`
	Time time.Time `json:"time" doc:"When it was removed. Results of runs that were due before do not count."`
}

type held struct {
	V       int       `json:"v" doc:"Major version of the format: 1."`
	Type    string    `json:"type" doc:"held."`
	Name    string    `json:"name" doc:"The target."`
	Hook    string    `json:"hook" doc:"The hook that is not called."`
	Time    time.Time `json:"time" doc:"When it would have been called, on the clock of the results."`
	Reason  string    `json:"reason" doc:"Why it is not."`
	Vantage string    `json:"vantage" doc:"Where the result comes from."`
}

type beat struct {
	V         int       `json:"v" doc:"Major version of the format: 1."`
	Type      string    `json:"type" doc:"beat."`
	Time      time.Time `json:"time" doc:"When it was written."`
	Series    string    `json:"series" doc:"The series of numbers that the target lines of this scheduler have."`
	EveryMS   float64   `json:"every_ms" doc:"When the next one is due."`
	Targets   int       `json:"targets" doc:"How many targets are scheduled."`
	Emitted   int       `json:"emitted" doc:"Target lines written since the start, and so the last number of the series."`
	Skipped   int       `json:"skipped" doc:"Runs that could not be written in time, since the start. They have no number."`
	BlockedMS float64   `json:"blocked_ms" doc:"Time spent waiting for the reader, since the start."`
	LagMaxMS  float64   `json:"lag_max_ms" doc:"The longest that a line left after it was due, since the last beat."`
	Probe     probeBeat `json:"probe" doc:"Added by pup-probe."`
}

type probeBeat struct {
	InFlight int     `json:"in_flight" doc:"Checks under way."`
	Done     int     `json:"done" doc:"Results written since the start."`
	Bad      int     `json:"bad" doc:"Lines that could not be read."`
	LagMaxMS float64 `json:"lag_max_ms" doc:"The largest lag since the last beat."`
	Vantage  string  `json:"vantage" doc:"Where pup-probe runs."`
}

type errorLine struct {
	V       int    `json:"v" doc:"Major version of the format: 1."`
	Type    string `json:"type" doc:"error."`
	Program string `json:"program" doc:"Who reports it."`
	Error   string `json:"error" doc:"What is wrong."`
	LineNo  int    `json:"line_no" doc:"The number of the input line that can't be read."`
	Line    string `json:"line" doc:"How that line begins, escaped."`
	Name    string `json:"name" doc:"The target, where a hook failed."`
	Hook    string `json:"hook" doc:"The hook that failed."`
	Job     string `json:"job" doc:"The job that failed."`
	Series  string `json:"series" doc:"The series of numbers in which results are missing."`
	Vantage string `json:"vantage" doc:"The vantage whose results are missing."`
	From    int    `json:"from" doc:"The first number that is missing."`
	To      int    `json:"to" doc:"The last one."`
	Count   int    `json:"count" doc:"How many are missing from the first to the last. Negative: so many that were reported as missing have come, so that the sum is what is lost."`
}

// A Doc describes one type of line.
type Doc struct {
	Type    string
	Summary string
	Field   schema.Field
}

// Docs describes every type of line.
func Docs() []Doc {
	return []Doc{
		{wire.TypeTarget, "Something to check, once, now. Written by pup-sched or any other program. The member named after the check holds its options, the member tls those of TLS.", schema.Of(target{})},
		{wire.TypeResult, "What a check found. Exactly one for each target. The member named after the check holds its facts, the member tls those of TLS. Members of the target that pup-probe does not know are copied.", schema.Of(result{})},
		{wire.TypeEvent, "What a hook of pup-route reads.", schema.Of(event{})},
		{"held", "Written by a dry run of pup-route only: a hook that is not called, and why.", schema.Of(held{})},
		{wire.TypeBeat, "A sign of life. Written by pup-sched at a steady pace, completed by pup-probe, watched by pup-route.", schema.Of(beat{})},
		{wire.TypeRemoved, "A target that has left the configuration. Written by pup-sched when it reads its files again; any program may write it. pup-route closes what is open of the target.", schema.Of(removed{})},
		{wire.TypeError, "Stands in the place of a line that can't be read, or reports a hook that failed, or results that did not arrive.", schema.Of(errorLine{})},
	}
}

// Target describes the members of a target line that are not a check's.
func Target() schema.Field { return schema.Of(target{}) }

// Result describes the members of a result line that are not facts.
func Result() schema.Field { return schema.Of(result{}) }
