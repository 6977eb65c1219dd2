package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// A Probe is one attempt of one check. The check uses it to reach its target
// and to mark what it is doing; it is gone when the check returns.
type Probe struct {
	URL *catalog.URL // the target's

	run    *Runner
	opt    *options
	target *Target

	judges []judge

	ctx attemptContext
	out outcome // as far as it is known

	pinned     []netip.Addr // use these for pinnedHost instead of asking
	pinnedHost string

	phase    wire.Phase
	since    time.Time
	sessions tls.ClientSessionCache // nil: none are kept
	ioErr    error                  // the first error of a connection
}

var phases = [...]wire.Phase{
	wire.Prepare, wire.Resolve, wire.Connect, wire.TLS, wire.Greet,
	wire.Auth, wire.Request, wire.Wait, wire.Transfer, wire.Verify,
}

func phaseIndex(ph wire.Phase) int {
	for i := range phases {
		if phases[i] == ph {
			return i
		}
	}
	panic("probe: no phase " + string(ph))
}

// Phase says that what follows belongs to the given phase; the time until now
// goes to the one before. A check that fails has failed in the phase that was
// named last. A phase may come again; its times add up.
func (p *Probe) Phase(ph wire.Phase) {
	if ph == p.phase {
		return
	}
	now := time.Now()
	p.endPhase(now)
	p.phase, p.since = ph, now
}

func (p *Probe) endPhase(now time.Time) {
	if p.phase != "" {
		i := phaseIndex(p.phase)
		p.out.spent[i] += now.Sub(p.since)
		p.out.reached[i] = true
	}
}

// TLS gives what the last TLS handshake of the attempt found, or nil.
func (p *Probe) TLS() *TLSFacts { return p.out.tlsFacts }

// TLSOptions gives the target's TLS options.
func (p *Probe) TLSOptions() *TLSOptions { return p.opt.tls }

// Reads says whether an expression of the target reads the fact, such as
// "http.body", so that one which costs something is made only for those who
// ask. The defaults of the check don't count.
func (p *Probe) Reads(fact string) bool {
	return slices.ContainsFunc(p.judges, func(j judge) bool { return !j.standard && j.Reads(fact) })
}

// Family gives the IP version that the target asks for: "4", "6" or "".
func (p *Probe) Family() string { return p.opt.family }

// Address gives the address that was dialled last, or that SetAddress noted.
func (p *Probe) Address() netip.AddrPort { return p.out.address }

// SetAddress notes the address that is talked to, for checks that use sockets
// of their own kind.
func (p *Probe) SetAddress(a netip.AddrPort) { p.out.address = a }

// Allowed refuses an address that --deny names. Dial asks by itself.
func (p *Probe) Allowed(a netip.Addr) error { return p.run.allowed(a) }

// An outcome is what an attempt found.
type outcome struct {
	status   wire.Status
	phase    wire.Phase
	reason   wire.Reason
	err      string
	failed   []failedLine
	time     time.Time
	total    time.Duration
	spent    [len(phases)]time.Duration
	reached  [len(phases)]bool
	address  netip.AddrPort
	tried    []attemptLine
	facts    any
	tlsFacts *TLSFacts
}

// attempt runs the check once. It always returns an outcome, whatever the
// check does.
func (r *Runner) attempt(ctx context.Context, pl *plan, pinned []netip.Addr, host string) *outcome {
	start := time.Now()
	p := &Probe{URL: pl.url, run: r, opt: pl.common, target: pl.Target, judges: pl.judges, pinned: pinned, pinnedHost: host, since: start}
	p.ctx.Context, p.ctx.deadline = ctx, start.Add(pl.Timeout)
	defer p.ctx.end()
	ctx = &p.ctx
	facts := pl.check.newFacts()
	err := p.lateAlert(guard(ctx, p, pl, facts))
	end := time.Now()
	p.endPhase(end)
	o := &p.out
	o.status, o.time, o.total, o.facts = wire.Up, start, end.Sub(start), facts
	if err != nil {
		o.phase, o.reason = p.phase, p.reason(ctx, err)
		if o.phase == "" {
			o.phase = wire.Prepare
		}
		o.err = wording(err, o.reason, pl.Timeout)
		o.status = failedStatus(err, o.reason)
	}
	pl.judge(r, o)
	return o
}

func guard(ctx context.Context, p *Probe, pl *plan, facts any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p.run.bug(fmt.Sprintf("check %s: %v\n%s", p.URL.Check.Name, v, debug.Stack()))
			err = Failf(wire.Internal, "bug in check %s: %.200v", p.URL.Check.Name, v)
		}
	}()
	return pl.check.run(ctx, p, pl.opt, facts)
}

// wording makes the text for people. A time-out says how long was waited, in
// place of what the kernel or the context call it.
func wording(err error, r wire.Reason, timeout time.Duration) string {
	switch r {
	case wire.Timeout:
		if _, said := errors.AsType[*failure](err); !said {
			return fmt.Sprintf("no answer within %s", wire.Duration(timeout))
		}
	case wire.Canceled:
		return "canceled: the program was told to stop"
	case wire.Closed:
		if _, said := errors.AsType[*failure](err); !said {
			return "the peer closed the connection"
		}
	}
	return err.Error()
}

// A varsMaker gives the maps for the names that judges read, and takes them
// back when nobody holds on to them.
type varsMaker struct {
	maps []map[string]any
	used int
}

var varsMakers = sync.Pool{New: func() any { return new(varsMaker) }}

func (vm *varsMaker) next() map[string]any {
	if vm.used == len(vm.maps) {
		vm.maps = append(vm.maps, map[string]any{})
	}
	vm.used++
	return vm.maps[vm.used-1]
}

func (vm *varsMaker) release() {
	for _, m := range vm.maps[:vm.used] {
		clear(m)
	}
	vm.used = 0
	varsMakers.Put(vm)
}

// vars makes the names that the judges read.
func (pl *plan) vars(r *Runner, o *outcome, vm *varsMaker) map[string]any {
	m := vm.next()
	for _, rd := range pl.reads {
		if v := pl.value(r, o, vm, rd); v != nil && v != "" {
			m[rd.member] = v
		}
	}
	return m
}

// value gives a member of the result; nil or "" if it is absent.
func (pl *plan) value(r *Runner, o *outcome, vm *varsMaker, rd reading) any {
	facts := func(v any) any {
		values := vm.next()
		schema.AddValues(values, v, rd.facts)
		return values
	}
	switch rd.member {
	case "name":
		return pl.Name
	case "check":
		return pl.check.Name
	case "url":
		return catalog.Redact(pl.URL)
	case "status":
		return string(o.status)
	case "phase":
		return string(o.phase)
	case "reason":
		return string(o.reason)
	case "error":
		return o.err
	case "vantage":
		return r.Vantage
	case "address":
		return addressText(o.address)
	case "ms":
		ms := vm.next()
		ms["total"] = wire.MS(o.total)
		for i, ph := range phases {
			if o.reached[i] {
				ms[string(ph)] = wire.MS(o.spent[i])
			}
		}
		return ms
	case "lag_ms":
		if !pl.Due.IsZero() {
			return wire.MS(max(0, o.time.Sub(pl.Due)))
		}
	case "tls":
		if o.tlsFacts != nil {
			return facts(o.tlsFacts)
		}
	case pl.check.Name:
		return facts(o.facts)
	default:
		return pl.copiedValue(rd.member)
	}
	return nil
}

// judge turns the outcome of the check into the verdict on the target.
func (pl *plan) judge(r *Runner, o *outcome) {
	if len(pl.judges) == 0 || o.status == wire.Unknown {
		return
	}
	if o.status == wire.Down {
		// a target may expect to be refused
		if !slices.ContainsFunc(pl.judges, func(j judge) bool { return !j.warn && (j.Reads("reason") || j.Reads("phase")) }) {
			return
		}
	}
	vm := varsMakers.Get().(*varsMaker)
	vars := pl.vars(r, o, vm)
	var expect, warn []failedLine
	slow := true
	for _, j := range pl.judges {
		if j.standard && o.status == wire.Down {
			continue // a failure that was expected has no facts to judge
		}
		ok, err := j.Eval(vars)
		if ok {
			continue
		}
		f := failedLine{text: j.String(), warn: j.warn, saw: j.Saw(vars)}
		if err != nil {
			f.err = err.Error()
		}
		if j.warn {
			warn = append(warn, f)
		} else {
			expect = append(expect, f)
		}
		slow = slow && onlyTime(j.Expr)
	}
	if o.status == wire.Down && len(expect) > 0 && unexpectedFailure(pl.judges, vars) {
		return // it did not fail as expected: the check's own words say more
	}
	if o.status == wire.Degraded && len(expect) == 0 {
		o.failed = warn // and the check's own words
		return
	}
	o.status, o.phase, o.reason, o.err = wire.Up, "", "", ""
	o.failed = append(expect, warn...)
	if len(o.failed) == 0 {
		vm.release() // else the failed lines show what it holds
		return
	}
	o.status = wire.Degraded
	if len(expect) > 0 {
		o.status = wire.Down
	}
	o.phase, o.reason = wire.Verify, wire.Mismatch
	if slow {
		o.reason = wire.Slow
	}
	o.err = o.failed[0].wording()
}

// unexpectedFailure says whether an expression that speaks of the reason or
// the phase of a failure does not hold.
func unexpectedFailure(judges []judge, vars map[string]any) bool {
	return slices.ContainsFunc(judges, func(j judge) bool {
		if j.warn || !(j.Reads("reason") || j.Reads("phase")) {
			return false
		}
		ok, _ := j.Eval(vars)
		return !ok
	})
}
