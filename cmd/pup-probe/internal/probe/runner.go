package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/child"
)

// A Runner turns target lines into result lines. Its fields are set before
// the first use and not changed later.
type Runner struct {
	Checks     map[string]*Check
	Catalog    *catalog.Catalog // of Checks
	Secrets    string           // folder of the secrets, or ""
	Resolver   string           // name server for targets that name none, as in a target; "": the system's configuration
	Deny       []netip.Prefix   // addresses that are never dialled
	AllowExec  bool             // targets may run commands
	AllowFiles bool             // targets may use socket files and look at files
	Vantage    string           // where we are, for the result
	MaxTimeout time.Duration    // no attempt takes longer; 0: no limit
	MaxRecord  int              // bytes of a result line with its newline; ndjson.MaxWrite if 0
	Bug        func(string)     // told of panics in checks; may be nil

	resolver resolver
	urls     urls
	icmp     icmpSockets
	juries   juries
	open     openConns
	filters  child.Pool
}

var tlsField = sync.OnceValue(func() *schema.Field { f := schema.Of(DefaultTLS); return &f })

// NewRunner makes a Runner of the given checks.
func NewRunner(checks []*Check) *Runner {
	r := &Runner{Checks: make(map[string]*Check, len(checks)), MaxRecord: ndjson.MaxWrite}
	ks := make([]catalog.Check, 0, len(checks))
	for _, c := range checks {
		r.Checks[c.Name] = c
		ks = append(ks, c.Check)
	}
	r.Catalog = catalog.New(ks,
		func() schema.Field { return *tlsField() },
		func() schema.Field { return schema.Of(TLSFacts{}) })
	return r
}

func (r *Runner) bug(text string) {
	if r.Bug != nil {
		r.Bug(text)
	}
}

// A Job is a target line that has been read, and its result line. Line is
// ready after Run.
type Job struct {
	Line   []byte // the result line, without newline
	Status wire.Status
	Lag    time.Duration // of the start behind due; 0 if there is no due time
	Host   string        // of the URL, for limits per host

	r    *Runner
	t    Target
	plan plan // without a URL if the target has none
	err  error

	verdict verdict
	buffer  *lineBuffer // that Line is in
}

var jobs = sync.Pool{New: func() any { return new(Job) }}

// Release says that the job and its Line are not needed any more.
func (j *Job) Release() {
	if j.buffer != nil {
		j.buffer.release()
	}
	options, copied := j.t.options, j.t.copied
	clear(options)
	clear(copied)
	*j = Job{t: Target{options: options[:0], copied: copied[:0]}}
	jobs.Put(j)
}

// ErrOtherType says that a line is of another type than target.
var ErrOtherType = errors.New("no target")

// Parse reads a target line. An error means that it is no target at all, and
// ErrOtherType that it does not mean to be one; a target that can't be carried
// out gives a job whose result says so.
func (r *Runner) Parse(text []byte) (*Job, error) {
	j := jobs.Get().(*Job)
	j.r = r
	var err error
	if j.err, err = r.parseTarget(&j.t, text); err != nil {
		return nil, err
	}
	if j.err == nil {
		j.err = r.prepare(&j.plan, &j.t)
	}
	if u := j.plan.url; u != nil {
		j.Host = u.Host
		if u.Check.Name == "exec" { // the only one that hands it on; of thousands that wait it would be a burden
			j.t.line = bytes.Clone(text)
		}
	}
	return j, nil
}

// Dry ends the job without sending anything. What is wrong with the target, its
// options, secrets and expressions, gives the same result as Run; a target
// that is fine is its own line again, since there is no verdict on it.
func (j *Job) Dry(text []byte) {
	if j.err != nil {
		j.finish(&verdict{outcome: j.local(j.err)})
		return
	}
	j.Line = bytes.Clone(text)
}

// Cancel ends the job since the program was told to stop.
func (j *Job) Cancel() {
	j.finish(&verdict{outcome: j.local(Failf(wire.Canceled, "canceled: the program was told to stop"))})
}

// Run does the check and makes the result line.
func (j *Job) Run(ctx context.Context) {
	if err := j.refused(time.Now()); err != nil {
		j.finish(&verdict{outcome: j.local(err)})
		return
	}
	j.finish(j.attempts(ctx))
}

// refused says why the target is not to be probed, if it isn't. It notes how
// late we are.
func (j *Job) refused(now time.Time) error {
	if j.err != nil {
		return j.err
	}
	if !j.t.Expires.IsZero() && now.After(j.t.Expires) {
		late := wire.Duration(now.Sub(j.t.Expires).Round(time.Millisecond))
		return Failf(wire.Expired, "came %s too late, after expires", late)
	}
	if !j.t.Due.IsZero() {
		j.Lag = max(0, now.Sub(j.t.Due))
	}
	return nil
}

// attempts probes until an attempt succeeds or there are no more retries.
func (j *Job) attempts(ctx context.Context) *verdict {
	v := &j.verdict
	v.lag = j.Lag
	for {
		v.attempts++
		v.outcome, v.addresses = j.r.addresses(ctx, &j.plan)
		if v.attempts > j.t.Retries || !retryable(v.outcome) {
			return v
		}
		v.earlier = append(v.earlier, v.line())
		if !pause(ctx, j.t.RetryWait) {
			return v
		}
	}
}

// retryable says whether another attempt may end otherwise. What lies in the
// target's own text will not change.
func retryable(o *outcome) bool {
	switch o.reason {
	case wire.BadOptions, wire.NoSecret, wire.Canceled, wire.Internal:
		return false
	}
	return o.status == wire.Down || o.status == wire.Unknown
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// local is the outcome of what never reached the target.
func (j *Job) local(err error) *outcome {
	r, ok := reasonOf(err)
	if !ok {
		r = wire.BadOptions
	}
	o := &outcome{status: wire.Down, phase: wire.Prepare, reason: r, err: err.Error(), time: time.Now()}
	if r.Unknown() {
		o.status = wire.Unknown
	}
	return o
}

func (j *Job) finish(v *verdict) {
	check := j.t.Check
	if j.plan.check != nil {
		check = j.plan.check.Name
	}
	j.Status = v.status
	j.buffer = lineBuffers.Get().(*lineBuffer)
	j.Line = j.r.result(j.buffer, &j.t, check, v, &j.plan.secrets)
}

// addresses runs an attempt on the first address that answers, or on every
// address of the host, as the target asks.
func (r *Runner) addresses(ctx context.Context, pl *plan) (*outcome, []attemptLine) {
	mode := pl.common.address
	if mode == "" || mode == "first" {
		return r.attempt(ctx, pl, nil, ""), nil
	}
	return r.eachAddress(ctx, pl, mode)
}

func (r *Runner) eachAddress(ctx context.Context, pl *plan, mode string) (*outcome, []attemptLine) {
	host := pl.url.Host
	if pl.common.connectHost != "" {
		host = pl.common.connectHost
	}
	addrs, failed := r.lookupAll(ctx, pl, host)
	if failed != nil {
		return failed, nil
	}
	outcomes := make([]*outcome, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() { outcomes[i] = r.attempt(ctx, pl, []netip.Addr{a}, host) })
	}
	wg.Wait()
	lines := make([]attemptLine, len(outcomes))
	for i, o := range outcomes {
		if lines[i] = o.line(); lines[i].Address == "" {
			lines[i].Address = addrs[i].String()
		}
	}
	return combine(mode, outcomes), lines
}

// maxAddresses bounds the addresses of a host that are probed in one run.
const maxAddresses = 32

func (r *Runner) lookupAll(ctx context.Context, pl *plan, host string) ([]netip.Addr, *outcome) {
	ctx, cancel := context.WithTimeout(ctx, pl.Timeout)
	defer cancel()
	p := &Probe{URL: pl.url, run: r, opt: pl.common, since: time.Now()}
	start := time.Now()
	addrs, err := p.Lookup(ctx, host)
	if err == nil && len(addrs) > maxAddresses {
		err = Failf(wire.BadOptions, "%.80q has %d addresses, more than the %d that are probed", host, len(addrs), maxAddresses)
	}
	if err == nil {
		return addrs, nil
	}
	end := time.Now()
	p.endPhase(end)
	o := &p.out
	o.status, o.phase, o.reason, o.time, o.total = wire.Down, p.phase, p.reason(ctx, err), start, end.Sub(start)
	if o.phase == "" {
		o.phase = wire.Resolve
	}
	o.err = wording(err, o.reason, pl.Timeout)
	if o.reason.Unknown() {
		o.status = wire.Unknown
	}
	return nil, o
}

// combine picks the outcome that stands for all: the best for "any", else the
// worst. With "each", a target of which some addresses work is degraded.
func combine(mode string, outcomes []*outcome) *outcome {
	best, worst := outcomes[0], outcomes[0]
	bad := 0
	for _, o := range outcomes {
		if o.status.Worse(worst.status) {
			worst = o
		}
		if best.status.Worse(o.status) {
			best = o
		}
		if o.status == wire.Down || o.status == wire.Unknown {
			bad++
		}
	}
	if mode == "any" {
		return best
	}
	if mode == "each" && bad > 0 && bad < len(outcomes) {
		o := *worst
		o.status = wire.Degraded
		o.err = fmt.Sprintf("%d of %d addresses fail; %s: %s", bad, len(outcomes), addressText(worst.address), worst.err)
		return &o
	}
	return worst
}
