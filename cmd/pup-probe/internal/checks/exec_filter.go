package checks

import (
	"context"
	"errors"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/child"
	"pup/cmd/pup-probe/internal/probe"
)

// execFilter asks the command, which lives on, and takes its answer for the
// verdict.
func execFilter(ctx context.Context, p *probe.Probe, opt *execOptions, facts *execFacts) error {
	switch {
	case opt.Stdin != "":
		return probe.Failf(wire.BadOptions, "exec.stdin: a filter reads target lines; give it exec.args or exec.env")
	case opt.Codes == "any":
		return probe.Failf(wire.BadOptions, "exec.codes: a filter has no exit code for each target; leave it out")
	}
	p.Phase(wire.Wait)
	answer, counts, err := p.AskFilter(ctx, child.Command{Path: p.URL.Path, Args: opt.Args, Env: execEnv(opt), MaxLine: opt.MaxBytes})
	facts.Starts, facts.Ignored = counts.Starts, counts.Ignored
	switch {
	case errors.Is(err, context.DeadlineExceeded) && counts.Ignored > 0:
		return probe.Failf(wire.Timeout, "no answer in time; of %d lines that were none the last: %.120s", counts.Ignored, counts.Why)
	case ctx.Err() != nil && err != nil:
		return err
	case err != nil:
		return probe.Failf(wire.Local, "%w", err)
	}
	facts.Facts = answer.Facts
	said := ndjson.Cut(answer.Error, maxShown)
	if said == "" {
		said = "the filter says " + string(answer.Status)
	}
	switch answer.Status {
	case wire.Up:
		return nil
	case wire.Degraded:
		return probe.Degradef(answer.Reason, "%s", said)
	}
	return probe.Failf(answer.Reason, "%s", said)
}
