package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/lines"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// A Target is a target line, taken apart.
type Target struct {
	Name, URL, Check   string
	Expect, Warn       []string
	Timeout, RetryWait time.Duration
	Retries            int
	Due, Expires       time.Time
	common             *lines.Common   // nil: none is given
	options            []schema.Member // those that may belong to a check, tls among them
	copied             []schema.Member // what goes to the result as it is
	line               []byte          // for AskFilter
}

// The defaults of a target.
const (
	DefaultTimeout   = 10 * time.Second
	DefaultRetryWait = time.Second
	maxName          = 256
	maxExpressions   = 64
)

// parseTarget reads a target line. An error means that it is none. A target
// about which something is wrong holds what could be read, so that its result
// has a name.
func (r *Runner) parseTarget(t *Target, text []byte) (wrong, err error) {
	t.Timeout, t.RetryWait = DefaultTimeout, DefaultRetryWait
	err = ndjson.Members(text, func(k, v []byte) error {
		err := t.member(r, string(k), v)
		switch {
		case err == ErrOtherType || err == errType:
			return err
		case err != nil && wrong == nil:
			wrong = fmt.Errorf("%.80s: %w", k, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(t.URL) > catalog.MaxURL {
		t.URL = ndjson.Cut(t.URL, 256)
		wrong = cmp.Or(wrong, fmt.Errorf("url: longer than %d bytes", catalog.MaxURL))
	}
	switch {
	case len(t.Name) > maxName:
		t.Name = ndjson.Cut(t.Name, maxName)
		wrong = cmp.Or(wrong, fmt.Errorf("name: longer than %d bytes", maxName))
	case t.Name == "":
		t.Name = ndjson.Cut(catalog.Redact(t.URL), maxName)
	}
	if r.MaxTimeout > 0 && t.Timeout > r.MaxTimeout {
		t.Timeout = r.MaxTimeout
	}
	if wrong != nil {
		wrong = Failf(wire.BadOptions, "%w", wrong)
	}
	return wrong, nil
}

var errType = errors.New("type: want a string")

func (t *Target) member(r *Runner, k string, v []byte) (err error) {
	switch k {
	case "type":
		if string(v) == `"target"` {
			return nil
		}
		kind, err := ndjson.Unquote(v)
		if err != nil {
			return errType
		}
		if kind != wire.TypeTarget {
			return ErrOtherType
		}
	case "v":
		if string(v) != "1" {
			err = fmt.Errorf("version %.20s of the line format is not known here", v)
		}
	case "name":
		t.Name, err = ndjson.Unquote(v)
	case "url":
		t.URL, err = ndjson.Unquote(v)
	case "check":
		t.Check, err = ndjson.Unquote(v)
	case "expect":
		t.Expect, err = stringList(v)
	case "warn":
		t.Warn, err = stringList(v)
	case "timeout":
		if err = duration(v, &t.Timeout); err == nil && t.Timeout <= 0 {
			err = errors.New("must be more than nothing")
		}
	case "retry_wait":
		err = duration(v, &t.RetryWait)
	case "retries":
		t.Retries, err = smallInt(v, 20)
	case "due":
		err = moment(v, &t.Due)
		t.copied = append(t.copied, member(k, v))
	case "expires":
		err = moment(v, &t.Expires)
	case "resolver":
		t.commons().Resolver, err = ndjson.Unquote(v)
	case "address":
		t.commons().Address, err = ndjson.Unquote(v)
	case "connect":
		t.commons().Connect, err = ndjson.Unquote(v)
	case "family":
		t.commons().Family, err = ndjson.Unquote(v)
	case "source":
		t.commons().Source, err = ndjson.Unquote(v)
	case "proxy":
		t.commons().Proxy, err = ndjson.Unquote(v)
	default:
		if k == "tls" || r.Catalog.Check(k) != nil {
			t.options = append(t.options, member(k, v))
			return nil
		}
		if !ours[k] { // a member of the result of that name would come twice
			t.copied = append(t.copied, member(k, v))
		}
	}
	return err
}

// option gives the value of a member; nil if it is absent.
func (t *Target) option(name string) []byte {
	for _, o := range t.options {
		if o.Name == name {
			return o.Value
		}
	}
	return nil
}

func (t *Target) commons() *lines.Common {
	if t.common == nil {
		t.common = new(lines.Common)
	}
	return t.common
}

// ours are the members of a result that a target can't bring along.
var ours = map[string]bool{
	"status": true, "phase": true, "reason": true, "error": true, "failed": true, "time": true, "ms": true,
	"tried": true, "addresses": true, "attempts": true, "earlier": true, "lag_ms": true, "vantage": true, "truncated": true,
}

func member(k string, v []byte) schema.Member { return schema.Member{Name: k, Value: slices.Clone(v)} }

func stringList(v []byte) ([]string, error) {
	var list []string
	err := ndjson.Elements(v, func(e []byte) error {
		s, err := ndjson.Unquote(e)
		list = append(list, s)
		return err
	})
	if err != nil {
		return nil, errors.New("want a list of strings")
	}
	if len(list) > maxExpressions {
		return nil, fmt.Errorf("more than %d expressions", maxExpressions)
	}
	return list, nil
}

func duration(v []byte, d *time.Duration) error {
	s, err := ndjson.Unquote(v)
	if err != nil {
		return fmt.Errorf("want a duration such as \"5s\", not %.20s", v)
	}
	x, err := wire.ParseDuration(s)
	if err == nil && x < 0 {
		err = errors.New("must not be negative")
	}
	if err == nil {
		*d = time.Duration(x)
	}
	return err
}

func smallInt(v []byte, most int) (int, error) {
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' || n > most {
			return 0, fmt.Errorf("want a whole number from 0 to %d, not %.20s", most, v)
		}
		n = 10*n + int(c-'0')
	}
	if n > most {
		return 0, fmt.Errorf("want a whole number from 0 to %d, not %.20s", most, v)
	}
	return n, nil
}

func moment(v []byte, t *time.Time) error {
	s, err := ndjson.Unquote(v)
	if err == nil {
		*t, err = time.Parse(time.RFC3339Nano, s)
	}
	if err != nil {
		return fmt.Errorf("want a time such as %q, not %.40s", wire.TimeFormat, v)
	}
	return nil
}

// A plan is a target that is ready to be probed.
type plan struct {
	*Target
	url     *catalog.URL
	check   *Check
	opt     any // the check's options
	common  *options
	secrets secrets
	*jury
}

// options are the common options of a target, ready for use.
type options struct {
	connectHost string
	connectPort int
	socket      string // connect to this socket file instead
	family      string
	source      netip.Addr
	proxy       *url.URL
	resolver    string
	address     string
	tls         *TLSOptions
}

// noOptions are those of a target that gives none. Thousands of targets may be
// waiting, so they share it.
var noOptions = &options{tls: &DefaultTLS}

// prepare checks everything that can be checked before anything is sent.
func (r *Runner) prepare(pl *plan, t *Target) error {
	u, err := r.urls.parse(r.Catalog, t.URL, t.Check)
	if err != nil {
		return err
	}
	pl.Target, pl.url, pl.check, pl.secrets.dir = t, u, r.Checks[u.Check.Name], r.Secrets
	if err := r.permitted(u.Check.Name); err != nil {
		return err
	}
	for _, o := range t.options {
		if o.Name != u.Check.Name && o.Name != "tls" {
			return fmt.Errorf("%s: options of another check; %s:// is checked by %s", o.Name, u.Scheme.Name, u.Check.Name)
		}
	}
	if err := pl.prepareCommon(); err != nil {
		return err
	}
	if pl.common.socket != "" && !r.AllowFiles {
		return errors.New("connect: a socket file needs --allow-files")
	}
	if pl.jury, err = r.juries.of(u.Check, t.Expect, t.Warn); err != nil {
		return err
	}
	pl.opt, err = pl.check.decode(t.option(u.Check.Name), &pl.secrets)
	return err
}

// urls remembers URLs by their text, since the same target comes again and
// again. Targets from a pipe may bring ever new ones, so it forgets them all
// when there are too many.
type urls struct {
	mu    sync.Mutex
	known map[urlKey]*catalog.URL
}

type urlKey struct{ url, check string }

const (
	maxURLs    = 4096
	maxURLText = 512 // bytes
)

func (us *urls) parse(c *catalog.Catalog, url, check string) (*catalog.URL, error) {
	key := urlKey{url, check}
	us.mu.Lock()
	u := us.known[key]
	us.mu.Unlock()
	if u != nil {
		return u, nil
	}
	u, err := c.ParseURL(url, check)
	if err != nil || len(url)+len(check) > maxURLText {
		return u, err
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.known == nil || len(us.known) >= maxURLs {
		us.known = map[urlKey]*catalog.URL{}
	}
	us.known[key] = u
	return u, nil
}

// permitted refuses what a target from a pipe may not do unless it was allowed
// on the command line.
func (r *Runner) permitted(check string) error {
	switch {
	case check == "exec" && !r.AllowExec:
		return errors.New("check exec runs commands, which needs --allow-exec")
	case (check == "file" || check == "unix") && !r.AllowFiles:
		return fmt.Errorf("check %s uses local files, which needs --allow-files", check)
	}
	return nil
}

func (pl *plan) prepareCommon() error {
	if pl.common = noOptions; pl.Target.common == nil && pl.option("tls") == nil {
		return nil
	}
	c, o, can := pl.commons(), new(options), pl.url.Check.Common
	pl.common = o
	for _, m := range []struct{ name, value string }{
		{"resolver", c.Resolver}, {"address", c.Address}, {"connect", c.Connect},
		{"family", c.Family}, {"source", c.Source}, {"proxy", c.Proxy}, {"tls", string(pl.option("tls"))},
	} {
		if m.value != "" && !slices.Contains(can, m.name) {
			return fmt.Errorf("%s: check %s can't use it", m.name, pl.check.Name)
		}
	}
	var err error
	switch c.Family {
	case "", "4", "6":
		o.family = c.Family
	default:
		return fmt.Errorf("family: %.20q is neither 4 nor 6", c.Family)
	}
	switch c.Address {
	case "", "first", "each", "all", "any":
		o.address = c.Address
	default:
		return fmt.Errorf("address: %.20q is none of first, each, all, any", c.Address)
	}
	if path, ok := strings.CutPrefix(c.Connect, "unix:"); ok {
		if o.socket = path; !strings.HasPrefix(path, "/") {
			return fmt.Errorf("connect: write unix:/PATH, with the whole path of the socket file")
		}
		for _, m := range []struct{ name, value string }{{"address", c.Address}, {"family", c.Family}, {"source", c.Source}, {"proxy", c.Proxy}} {
			if m.value != "" {
				return fmt.Errorf("%s: has no meaning for the socket file that connect names", m.name)
			}
		}
	} else if c.Connect != "" {
		if o.connectHost, o.connectPort, err = splitHostPort(c.Connect); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if c.Source != "" {
		if o.source, err = netip.ParseAddr(c.Source); err != nil {
			return fmt.Errorf("source: %.60q is no IP address", c.Source)
		}
	}
	if c.Proxy != "" {
		if o.proxy, err = parseProxy(c.Proxy); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		if o.address != "" && o.address != "first" {
			return fmt.Errorf("address: %s can't be had through a proxy, which resolves the name itself", o.address)
		}
	}
	o.resolver = c.Resolver
	if err := checkResolver(c.Resolver); err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	o.tls = &DefaultTLS
	if raw := pl.option("tls"); len(raw) > 0 {
		o.tls, err = decodeTLS(raw, &pl.secrets)
	}
	return err
}

var knownTLS decoded

func decodeTLS(raw []byte, s *secrets) (*TLSOptions, error) {
	if o, ok := knownTLS.get(raw); ok {
		return o.(*TLSOptions), nil
	}
	o := DefaultTLS
	if err := tlsField().Decode("tls", raw, &o); err != nil {
		return nil, err
	}
	if err := s.resolve("tls", tlsField, &o); err != nil {
		return nil, err
	}
	knownTLS.add(raw, &o)
	return &o, nil
}

func parseProxy(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "socks5" && u.Scheme != "http") || u.Hostname() == "" || u.Port() == "" {
		return nil, errors.New("write socks5://HOST:PORT or http://HOST:PORT")
	}
	if u.User != nil {
		return nil, errors.New("a proxy that wants a login can't be used yet")
	}
	return u, nil
}

// A judge is an expression that has to hold.
type judge struct {
	*expr.Expr
	warn     bool
	standard bool // a default of the check
}

// A jury is all the judges of a target, and what they read. Targets with the
// same expressions share it.
type jury struct {
	judges []judge
	reads  []reading
}

// A reading is a member of the result that is judged.
type reading struct {
	member string
	facts  []string // those in it that are; nil: the member as a whole
}

func (j *jury) read(path string) {
	member, rest, inside := strings.Cut(path, ".")
	fact, _, _ := strings.Cut(rest, ".")
	i := slices.IndexFunc(j.reads, func(r reading) bool { return r.member == member })
	switch {
	case i < 0 && inside:
		j.reads = append(j.reads, reading{member, []string{fact}})
	case i < 0:
		j.reads = append(j.reads, reading{member, nil})
	case !inside:
		j.reads[i].facts = nil
	case j.reads[i].facts != nil && !slices.Contains(j.reads[i].facts, fact):
		j.reads[i].facts = append(j.reads[i].facts, fact)
	}
}

// juries remembers juries by their expressions. Targets from a pipe may bring
// ever new ones, so it forgets them all when there are too many.
type juries struct {
	mu    sync.Mutex
	known map[string]*jury
}

const maxJuries = 4096

func (js *juries) of(k *catalog.Check, expect, warn []string) (*jury, error) {
	key := make([]byte, 0, 256)
	key = append(append(key, k.Name...), 0)
	for _, list := range [][]string{expect, warn} {
		for _, text := range list {
			key = append(append(key, text...), 0)
		}
		key = append(key, 1)
	}
	js.mu.Lock()
	j := js.known[string(key)]
	js.mu.Unlock()
	if j != nil {
		return j, nil
	}
	judges, err := compileJudges(k, expect, warn)
	if err != nil {
		return nil, err
	}
	j = &jury{judges: judges}
	for _, g := range judges {
		for _, path := range g.Paths() {
			j.read(path)
		}
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.known == nil || len(js.known) >= maxJuries {
		js.known = map[string]*jury{}
	}
	js.known[string(key)] = j
	return j, nil
}

// compileJudges compiles the expressions of a target and those defaults of its
// check that judge a fact which the target does not judge itself.
func compileJudges(k *catalog.Check, expect, warn []string) ([]judge, error) {
	if len(expect)+len(warn)+len(k.Expect)+len(k.Warn) == 0 {
		return nil, nil
	}
	var given []judge
	add := func(member string, texts []string) error {
		for _, text := range texts {
			e, err := expr.Compile(text, k.Env())
			if err != nil {
				return fmt.Errorf("%s: %w", member, err)
			}
			given = append(given, judge{Expr: e, warn: member == "warn"})
		}
		return nil
	}
	if err := errors.Join(add("expect", expect), add("warn", warn)); err != nil {
		return nil, err
	}
	mentioned := func(e *expr.Expr) bool {
		return slices.ContainsFunc(given[:len(expect)+len(warn)], func(g judge) bool {
			return slices.ContainsFunc(e.Paths(), g.Reads)
		})
	}
	for i, text := range append(slices.Clip(k.Expect), k.Warn...) {
		e, err := expr.Compile(text, k.Env())
		if err != nil {
			panic(fmt.Sprintf("check %s: default %q: %v", k.Name, text, err))
		}
		if !mentioned(e) {
			given = append(given, judge{Expr: e, warn: i >= len(k.Expect), standard: true})
		}
	}
	return given, nil
}

func onlyTime(e *expr.Expr) bool {
	return len(e.Paths()) > 0 && !slices.ContainsFunc(e.Paths(), func(p string) bool {
		return !strings.HasPrefix(p, "ms.") && p != "lag_ms"
	})
}
