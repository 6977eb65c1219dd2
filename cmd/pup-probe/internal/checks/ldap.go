package checks

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type ldapOptions struct {
	starttlsOptions
	loginOptions
	Base       string   `json:"base" doc:"Where to search, instead of the URL's path."`
	Scope      string   `json:"scope" enum:"base,one,sub" doc:"How deep: the base alone, its children, or all below it."`
	Filter     string   `json:"filter" doc:"What to search for (RFC 4515), such as (&(objectClass=person)(uid=a*))."`
	Attributes []string `json:"attributes" doc:"The attributes whose values become facts."`
	Providers  []string `json:"providers" doc:"Other servers of the same directory, as host or host:port. Their contextCSN says how far this one is behind."`
}

type ldapFacts struct {
	NamingContexts []string            `json:"naming_contexts" doc:"The directories that the server holds."`
	Vendor         string              `json:"vendor" doc:"Vendor and version, where it tells them."`
	Mechanisms     []string            `json:"auth_mechanisms" doc:"The SASL mechanisms that it offers."`
	StartTLS       *bool               `json:"starttls" doc:"Whether it can start TLS in the session; absent where TLS is spoken from the start, or starttls is off."`
	Anonymous      *bool               `json:"anonymous" doc:"Whether it tells about itself without a login."`
	LoggedIn       *bool               `json:"logged_in" doc:"Whether it has taken our credentials."`
	Code           *int                `json:"code" doc:"The last result code (RFC 4511, section 4.1.9)."`
	Entries        *int                `json:"entries" doc:"How many entries the search has found."`
	Values         map[string][]string `json:"values" doc:"The values of the attributes asked for, over all entries, 100 at most each."`
	CSN            string              `json:"csn" doc:"The newest contextCSN of the directory at base: its last change."`
	LagMS          *float64            `json:"lag_ms" doc:"How much older that is than the newest contextCSN of the providers; 0 if it is not."`
}

func init() {
	register(probe.Info{
		Name:    "ldap",
		Summary: "a directory answers a search",
		Schemes: []probe.Scheme{{Name: "ldap", Port: 389}, {Name: "ldaps", Port: 636, TLS: true}},
		Example: "ldap://ldap.example.org/dc=example,dc=org",
		Common:  probe.OverTCP,
		Doc: `Switches to TLS if the server can, reads what it tells about itself (the root DSE), logs in if a user is given, and searches if the URL's path or base names where. Up means that all of these succeeded; how many entries were found, and their values, are for expressions:

    url    = "ldap://ldap.example.org/ou=people,dc=example,dc=org"
    ldap   = { user = "cn=pup,dc=example,dc=org", password = "${secret:ldap}", filter = "(uid=anna)", attributes = ["mail"] }
    expect = ["ldap.entries == 1", "'anna@example.org' in ldap.values.mail"]

User is a DN, for a simple bind, unless mechanism names one of SASL; EXTERNAL logs in with the client certificate of tls. Without a user and a base, up means that an anonymous search of the root DSE was answered. A server that tells nothing without a login is down with the reason denied.

With providers it compares the contextCSN of the directory at base with theirs, as OpenLDAP replicates it; ldap.lag_ms is the difference.

Phases: greet is StartTLS and the root DSE, auth the bind, request the search and the providers. It follows RFC 4511, RFC 4513, RFC 4515.`,
	}, ldapOptions{starttlsOptions: starttlsOptions{StartTLS: "auto"}, Scope: "sub", Filter: "(objectClass=*)"}, ldap)
}

func ldap(ctx context.Context, p *probe.Probe, opt *ldapOptions, facts *ldapFacts) error {
	filter, err := ldapFilter(opt.Filter)
	if err != nil {
		return probe.Failf(wire.BadOptions, "ldap.%w", err)
	}
	if err := opt.valid(p, opt.StartTLS); err != nil {
		return err
	}
	base := opt.Base
	if base == "" {
		base = strings.TrimPrefix(p.URL.Path, "/")
	}
	if len(opt.Providers) > 0 && base == "" {
		return probe.Failf(wire.BadOptions, "ldap.providers: needs ldap.base, or a path in the URL")
	}
	s := &ldapSession{p: p, opt: opt, facts: facts}
	if s.c, err = p.Dial(ctx); err != nil {
		return err
	}
	defer func() { s.close() }()
	if err := s.open(ctx, facts); err != nil {
		return err
	}
	p.Phase(wire.Request)
	if base != "" {
		if err := s.find(base, filter); err != nil {
			return err
		}
	}
	if len(opt.Providers) > 0 {
		return s.compare(ctx, base)
	}
	return nil
}

// find searches, and makes the facts of what is found.
func (s *ldapSession) find(base string, filter []byte) error {
	scope := slices.Index([]string{"base", "one", "sub"}, s.opt.Scope)
	s.facts.Entries = new(0)
	wanted := s.opt.Attributes
	if len(wanted) == 0 {
		wanted = []string{"1.1"} // none
	}
	return s.search(base, scope, filter, wanted, func(attributes []ldapAttribute) {
		*s.facts.Entries++
		for _, a := range attributes {
			if s.facts.Values == nil {
				s.facts.Values = map[string][]string{}
			}
			name := a.name
			if i := slices.IndexFunc(wanted, func(w string) bool { return strings.EqualFold(w, name) }); i >= 0 {
				name = wanted[i] // as the target writes it
			}
			if n := len(s.facts.Values[name]); n < 100 {
				for _, v := range a.values[:min(len(a.values), 100-n)] {
					s.facts.Values[name] = append(s.facts.Values[name], ndjson.Cut(v, maxShown))
				}
			}
		}
	})
}

// compare finds out how far the server is behind its providers.
func (s *ldapSession) compare(ctx context.Context, base string) error {
	own, err := s.csn(base)
	if err != nil {
		return err
	}
	s.facts.CSN = own
	var newest time.Time
	for _, name := range s.opt.Providers {
		host, port := name, 389
		if h, text, err := net.SplitHostPort(name); err == nil {
			if port, err = strconv.Atoi(text); err != nil {
				return probe.Failf(wire.BadOptions, "ldap.providers: %.80q is neither host nor host:port", name)
			}
			host = h
		}
		t, err := s.providerTime(ctx, host, port, base)
		if err != nil {
			return ldapAbout(name, err)
		}
		if t.After(newest) {
			newest = t
		}
	}
	t, err := ldapCSNTime(own)
	if err != nil {
		return err
	}
	s.facts.LagMS = new(wire.MS(max(0, newest.Sub(t))))
	return nil
}

func (s *ldapSession) providerTime(ctx context.Context, host string, port int, base string) (time.Time, error) {
	if err := s.opt.validFor(s.p, "", host, false, s.opt.StartTLS); err != nil {
		return time.Time{}, err
	}
	c, err := s.p.DialHost(ctx, "tcp", host, port)
	if err != nil {
		return time.Time{}, err
	}
	other := &ldapSession{p: s.p, c: c, opt: s.opt, facts: new(ldapFacts)}
	defer func() { other.close() }()
	if err := other.open(ctx, other.facts); err != nil {
		return time.Time{}, err
	}
	s.p.Phase(wire.Request)
	csn, err := other.csn(base)
	if err != nil {
		return time.Time{}, err
	}
	return ldapCSNTime(csn)
}

// csn reads the newest contextCSN of the directory.
func (s *ldapSession) csn(base string) (csn string, err error) {
	err = s.search(base, 0, ldapTLV(0x87, []byte("objectClass")), []string{"contextCSN"}, func(attributes []ldapAttribute) {
		for _, a := range attributes {
			for _, v := range a.values { // one for each server that takes changes; their beginning is the time
				if v > csn {
					csn = v
				}
			}
		}
	})
	if err == nil && csn == "" {
		err = probe.Failf(wire.Mismatch, "%.80q has no contextCSN: it is no replicated directory of OpenLDAP, or not its root", base)
	}
	return ndjson.Cut(csn, 80), err
}

// ldapCSNTime reads the time of a contextCSN, which begins as in
// 20260101120000.000000Z#000000#000#000000.
func ldapCSNTime(csn string) (time.Time, error) {
	text, _, _ := strings.Cut(csn, "#")
	t, err := time.Parse("20060102150405.000000Z", text)
	if err != nil {
		return t, probe.Protocolf("contextCSN: got %.80q, which begins with no time", csn)
	}
	return t, nil
}
