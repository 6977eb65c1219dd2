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
	decode   func(raw []byte, secrets *secrets) (any, error)
	newFacts func() any
	run      func(ctx context.Context, p *Probe, opt, facts any) error
}

// New makes a Check. The values of defaults are the defaults of its options.
func New[O, F any](info Info, defaults O, run Func[O, F]) *Check {
	options := sync.OnceValue(func() *schema.Field { f := schema.Of(defaults); return &f })
	facts := sync.OnceValue(func() *schema.Field { var zero F; f := schema.Of(zero); return &f })
	known := &decoded{}
	return &Check{
		Check: catalog.Check{Info: info, Options: options, Facts: facts},
		decode: func(raw []byte, s *secrets) (any, error) {
			if len(raw) == 0 {
				return &defaults, nil
			}
			if opt, ok := known.get(raw); ok {
				return opt, nil
			}
			opt := defaults
			if err := options().Decode(info.Name, raw, &opt); err != nil {
				return nil, err
			}
			if err := s.resolve(info.Name, options, &opt); err != nil {
				return nil, err
			}
			known.add(raw, &opt)
			return &opt, nil
		},
		newFacts: func() any { return new(F) },
		run: func(ctx context.Context, p *Probe, opt, facts any) error {
			return run(ctx, p, opt.(*O), facts.(*F))
		},
	}
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
