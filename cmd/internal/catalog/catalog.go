// Package catalog describes the checks: their schemes, options and facts.
// Pup-probe makes the catalogue from its code, `make generate` writes it to
// docs/checks.schema.json, and pup-sched reads it from there.
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/lines"
	"pup/cmd/internal/schema"
	"pup/docs"
)

// A Scheme is the first word of a URL, which picks a check.
type Scheme struct {
	Name string `json:"scheme"`
	Port int    `json:"port,omitempty"` // where the URL names none; 0: it must
	TLS  bool   `json:"tls,omitempty"`  // TLS from the first byte
	Path bool   `json:"path,omitempty"` // has no host: the rest is a file or a command
}

// Info is what a check says of itself.
type Info struct {
	Name    string   `json:"-"`                // as the member of a line
	Summary string   `json:"summary"`          // what up means in a few words, no period
	Doc     string   `json:"doc"`              // what up proves and what it does not; Markdown
	Schemes []Scheme `json:"schemes"`          // of the URLs that it speaks
	Example string   `json:"example"`          // a URL that needs no options
	Common  []string `json:"common,omitempty"` // the common members of a target that it can use
	Expect  []string `json:"expect,omitempty"` // its defaults: each holds unless the target judges the same fact
	Warn    []string `json:"warn,omitempty"`
}

// A Check is what there is to know about a check without running it.
type Check struct {
	Info
	Options func() *schema.Field
	Facts   func() *schema.Field

	catalog *Catalog
	env     *expr.Env // once it was needed
}

// A Catalog is the set of checks.
type Catalog struct {
	Checks     []Check // in the order of their names
	TLSOptions func() schema.Field
	TLSFacts   func() schema.Field
	byName     map[string]*Check
	byScheme   map[string]*Check
	envs       sync.Mutex
}

// New makes a catalogue.
func New(checks []Check, tlsOptions, tlsFacts func() schema.Field) *Catalog {
	n := len(checks)
	c := &Catalog{Checks: checks, TLSOptions: tlsOptions, TLSFacts: tlsFacts, byName: make(map[string]*Check, n), byScheme: make(map[string]*Check, 2*n)}
	for i := range checks {
		k := &checks[i]
		k.catalog = c
		c.byName[k.Name] = k
		for _, s := range k.Schemes {
			c.byScheme[s.Name] = k
		}
	}
	return c
}

// Check gives the check with the given name, or nil.
func (c *Catalog) Check(name string) *Check { return c.byName[name] }

// Scheme gives the scheme with the given name, and its check, or nil.
func (c *Catalog) Scheme(name string) (*Check, *Scheme) {
	k := c.byScheme[name]
	if k == nil {
		return nil, nil
	}
	i := slices.IndexFunc(k.Schemes, func(s Scheme) bool { return s.Name == name })
	return k, &k.Schemes[i]
}

// Env is the environment of the expressions that judge the check.
func (k *Check) Env() *expr.Env {
	k.catalog.envs.Lock()
	defer k.catalog.envs.Unlock()
	if k.env == nil {
		root := lines.Result()
		root.Fields = append(root.Fields, named("tls", k.catalog.TLSFacts()))
		if k.Name != "tls" {
			root.Fields = append(root.Fields, named(k.Name, *k.Facts()))
		}
		k.env = expr.NewEnv(root)
	}
	return k.env
}

func named(name string, f schema.Field) schema.Field {
	f.Name = name
	return f
}

// Env is the environment of expressions over the result of any check.
func (c *Catalog) Env() *expr.Env {
	root := lines.Result()
	root.Fields = append(root.Fields, named("tls", c.TLSFacts()))
	for _, k := range c.Checks {
		if k.Name != "tls" {
			root.Fields = append(root.Fields, named(k.Name, *k.Facts()))
		}
	}
	return expr.NewEnv(root)
}

// A URL is a target's URL, taken apart.
type URL struct {
	*url.URL
	Check  *Check
	Scheme *Scheme
	Host   string // without brackets
	Port   int    // the scheme's where the URL names none; 0: none
}

// ParseURL takes a target's URL apart. Check overrides the check that the
// scheme picks; it may be empty.
func (c *Catalog) ParseURL(raw, check string) (*URL, error) {
	if raw == "" {
		return nil, errors.New("url: is required, such as https://www.example.org/")
	}
	if len(raw) > MaxURL {
		return nil, fmt.Errorf("url: longer than %d bytes", MaxURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the whole would show the password
		}
		return nil, fmt.Errorf("url: %w", err)
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("url: %.80q has no scheme; write one such as https://%.80s", Redact(raw), Redact(raw))
	}
	k, s := c.Scheme(u.Scheme)
	if k == nil {
		return nil, fmt.Errorf("url: no check speaks %.40q%s", u.Scheme, schema.DidYouMean(u.Scheme, c.schemeNames()))
	}
	if check != "" && check != k.Name {
		if k = c.Check(check); k == nil {
			return nil, fmt.Errorf("check: no such check as %.40q%s", check, schema.DidYouMean(check, c.names()))
		}
	}
	p := &URL{URL: u, Check: k, Scheme: s, Host: u.Hostname(), Port: s.Port}
	if _, ok := u.User.Password(); ok {
		return p, fmt.Errorf("url: holds a password; put it in an option of the check, as ${secret:NAME} or ${env:PUP_NAME}%s", k.secrets())
	}
	if s.Path {
		return p, nil
	}
	return p, p.hostPort()
}

// MaxURL bounds a URL, in bytes: it is never cut in a result line.
const MaxURL = 2048

func (u *URL) hostPort() error {
	if u.Host == "" {
		return fmt.Errorf("url: names no host; write %s://HOST", u.Scheme.Name)
	}
	if err := u.ascii(); err != nil {
		return err
	}
	if s := u.URL.Port(); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("url: %.20q is no port; ports go from 1 to 65535", s)
		}
		u.Port = int(n)
	} else if u.Port == 0 && slices.Contains(u.Check.Common, "connect") && !u.Check.portless() {
		return fmt.Errorf("url: names no port; write %s://%s:PORT", u.Scheme.Name, u.Host)
	}
	return nil
}

// ascii turns an internationalized host name into the form that is looked up,
// as UTS 46 and RFC 5891 have it.
func (u *URL) ascii() error {
	if strings.IndexFunc(u.Host, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return nil
	}
	host, err := idna.Lookup.ToASCII(u.Host)
	if err != nil {
		return fmt.Errorf("url: %.80q is no host name: %w", u.Host, err)
	}
	u.URL.Host = strings.Replace(u.URL.Host, u.Host, host, 1)
	u.Host = host
	return nil
}

// portless says whether the check's protocol has no ports at all.
func (k *Check) portless() bool { return k.Name == "icmp" }

// secrets names the options that take credentials.
func (k *Check) secrets() string {
	var names []string
	for _, f := range k.Options().Fields {
		if f.Secret {
			names = append(names, k.Name+"."+f.Name)
		}
	}
	if names == nil {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func (c *Catalog) names() []string {
	var names []string
	for _, k := range c.Checks {
		names = append(names, k.Name)
	}
	return names
}

func (c *Catalog) schemeNames() []string {
	var names []string
	for _, k := range c.Checks {
		for _, s := range k.Schemes {
			names = append(names, s.Name)
		}
	}
	return names
}

// Redact takes the password out of a URL. It works on what is no valid URL,
// too.
func Redact(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || strings.IndexByte(rest, '@') < 0 {
		return raw
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return raw
	}
	user, _, ok := strings.Cut(rest[:at], ":")
	if !ok {
		return raw
	}
	return scheme + "://" + user + ":***" + rest[at:]
}

// A document is the JSON form of a catalogue: a JSON Schema of target lines
// whose definitions hold what is more.
type document struct {
	Schema      string                     `json:"$schema"`
	Title       string                     `json:"title"`
	Description string                     `json:"description"`
	Type        string                     `json:"type"`
	Properties  map[string]json.RawMessage `json:"properties"`
	Defs        struct {
		TLSFacts schema.Field          `json:"tls_facts"`
		Checks   map[string]definition `json:"checks"`
	} `json:"$defs"`
}

type definition struct {
	Info
	Options *schema.Field `json:"options"`
	Facts   *schema.Field `json:"facts"`
}

// MarshalJSON writes the catalogue as a JSON Schema of target lines.
func (c *Catalog) MarshalJSON() ([]byte, error) {
	d := document{
		Schema: "https://json-schema.org/draft/2020-12/schema",
		Title:  "pup target line", Type: "object",
		Description: "What pup-probe reads. Other members are allowed and are copied to the result. Below $defs/checks: every check with its schemes, defaults and facts.",
		Properties:  map[string]json.RawMessage{},
	}
	d.Defs.TLSFacts = c.TLSFacts()
	d.Defs.Checks = map[string]definition{}
	put := func(name string, f schema.Field) {
		b, err := json.Marshal(f)
		if err != nil {
			panic(err)
		}
		d.Properties[name] = b
	}
	for _, f := range lines.Target().Fields {
		put(f.Name, f)
	}
	put("tls", c.TLSOptions())
	for _, k := range c.Checks {
		d.Defs.Checks[k.Name] = definition{k.Info, k.Options(), k.Facts()}
		if k.Name != "tls" {
			put(k.Name, *k.Options())
		}
	}
	return json.Marshal(d)
}

// Parse reads what MarshalJSON has written.
func Parse(b []byte) (*Catalog, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	var tls schema.Field
	if err := json.Unmarshal(d.Properties["tls"], &tls); err != nil {
		return nil, err
	}
	var checks []Check
	for name, k := range d.Defs.Checks {
		k.Name = name
		checks = append(checks, Check{
			Info:    k.Info,
			Options: func() *schema.Field { return k.Options },
			Facts:   func() *schema.Field { return k.Facts },
		})
	}
	slices.SortFunc(checks, func(a, b Check) int { return strings.Compare(a.Name, b.Name) })
	return New(checks, func() schema.Field { return tls }, func() schema.Field { return d.Defs.TLSFacts }), nil
}

// Load gives the catalogue that is built into the program.
var Load = sync.OnceValue(func() *Catalog {
	c, err := Parse(docs.Checks)
	if err != nil {
		panic("docs/checks.schema.json: " + err.Error())
	}
	return c
})
