package probe

import (
	"context"

	"pup/cmd/pup-probe/internal/child"
)

// AskFilter writes the target line, as it came, to the long-lived command,
// which is started unless it runs, and waits for its answer. All targets share
// the commands; Runner.Close ends them.
func (p *Probe) AskFilter(ctx context.Context, c child.Command) (child.Answer, child.Counts, error) {
	return p.run.filters.Ask(ctx, c, p.target.line, p.target.Name)
}

// Close ends what runs for longer than a target: the commands of AskFilter.
// No job may be run afterwards.
func (r *Runner) Close() { r.filters.Close() }
