// Package probe runs a check against a target and words what happened. It
// knows no protocol: it resolves, dials, speaks TLS, measures, judges, tries
// again and writes the result line, so that a check only has to talk.
package probe

import (
	"bytes"
	"context"
	"sync"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/schema"
)

// Info is what a check says of itself.
type Info = catalog.Info

// CatalogCheck is what there is to know about a check without running it.
type CatalogCheck = catalog.Check

// Scheme is the first word of the URLs that a check speaks.
type Scheme = catalog.Scheme

// The common members of a target that checks over TCP and UDP can use, for
// Info.Common.
var (
	OverTCP = []string{"tls", "resolver", "address", "connect", "family", "source", "proxy"}
	OverUDP = []string{"resolver", "address", "connect", "family", "source"}
)

// A Func runs one attempt of a check. O holds the check's options, which must
// not be written to, F takes the facts that it finds; a fact that is left zero
// is unknown, so one whose zero means something is a pointer. Nil means that
// the target does its work. Func must return soon after ctx is done, and must
// neither open connections, set deadlines, log, retry nor time on its own:
// the Probe does all that.
type Func[O, F any] func(ctx context.Context, p *Probe, opt *O, facts *F) error

// A Check is an Info that can be run.
type Check struct {
	catalog.Check
	kind
}

// A kind knows the types of a check's options and facts.
type kind interface {
	decode(raw []byte, s *secrets) (opt any, err error)
	newFacts() any
	run(ctx context.Context, p *Probe, opt, facts any) error
}

// New makes a Check. The values of defaults are the defaults of its options.
func New[O, F any](info Info, defaults O, run Func[O, F]) *Check {
	t := &typed[O, F]{defaults: defaults, talk: run} // all in one piece: every start makes those of all checks
	t.check = Check{catalog.Check{Info: info, Options: t.options, Facts: t.facts}, t}
	return &t.check
}

type typed[O, F any] struct {
	check    Check
	defaults O
	talk     Func[O, F]
	known    decoded
	fields   struct {
		once           sync.Once
		options, facts schema.Field
	}
}

func (t *typed[O, F]) options() *schema.Field { t.describe(); return &t.fields.options }
func (t *typed[O, F]) facts() *schema.Field   { t.describe(); return &t.fields.facts }

func (t *typed[O, F]) describe() {
	t.fields.once.Do(func() {
		var zero F
		t.fields.options, t.fields.facts = schema.Of(t.defaults), schema.Of(zero)
	})
}

func (t *typed[O, F]) decode(raw []byte, s *secrets) (any, error) {
	if len(raw) == 0 {
		return &t.defaults, nil
	}
	if opt, ok := t.known.get(raw); ok {
		return opt, nil
	}
	opt := t.defaults
	if err := t.options().Decode(t.check.Name, raw, &opt); err != nil {
		return nil, err
	}
	if err := s.resolve(t.check.Name, t.options, &opt); err != nil {
		return nil, err
	}
	t.known.add(raw, &opt)
	return &opt, nil
}

func (t *typed[O, F]) newFacts() any { return new(F) }

func (t *typed[O, F]) run(ctx context.Context, p *Probe, opt, facts any) error {
	return t.talk(ctx, p, opt.(*O), facts.(*F))
}

// decoded remembers options by their text, since the same target comes again
// and again. Targets from a pipe may bring ever new ones, so it forgets them
// all when there are too many.
type decoded struct {
	mu    sync.Mutex
	known map[string]any
}

const (
	maxDecoded     = 1024
	maxDecodedText = 1024 // bytes
)

func (d *decoded) get(raw []byte) (opt any, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	opt, ok = d.known[string(raw)]
	return opt, ok
}

// add leaves out what may refer to a secret, which has to be looked up each
// time, also if it is written with escapes.
func (d *decoded) add(raw []byte, opt any) {
	if len(raw) > maxDecodedText || bytes.ContainsAny(raw, `$\`) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxDecoded {
		d.known = map[string]any{}
	}
	d.known[string(raw)] = opt
}
