package checks

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/snmp"
)

type snmpOptions struct {
	Version        string            `json:"version" enum:"1,2c,3" doc:"The version to speak."`
	Community      string            `json:"community" secret:"true" doc:"The community, for versions 1 and 2c. The word public if absent."`
	User           string            `json:"user" doc:"The user, for version 3."`
	Auth           string            `json:"auth" enum:"md5,sha,sha224,sha256,sha384,sha512" doc:"The hash that auth_password goes with."`
	AuthPassword   string            `json:"auth_password" secret:"true" doc:"The user's authentication password; without it nothing is authenticated."`
	Priv           string            `json:"priv" enum:"des,aes,aes192,aes256,aes192c,aes256c" doc:"The cipher that priv_password goes with. The ones with c lengthen keys as Cisco does."`
	PrivPassword   string            `json:"priv_password" secret:"true" doc:"The user's privacy password; without it nothing is encrypted."`
	Context        string            `json:"context" doc:"The context, for version 3."`
	OIDs           map[string]string `json:"oids" doc:"Objects to read, by a name of your own: {\"in\": \"1.3.6.1.2.1.31.1.1.1.6.1\"} gives the fact snmp.values.in."`
	AllowPlainAuth bool              `json:"allow_plain_auth" doc:"Send the community, which versions 1 and 2c can't hide, to a host that is not loopback."`
	RateOver       wire.Duration     `json:"rate_over" doc:"Read the objects again after this time, and give the rates of those that count."`
}

type snmpFacts struct {
	Version     string             `json:"version" doc:"The version spoken."`
	Security    string             `json:"security" doc:"How the answer is protected, in version 3: noAuthNoPriv, authNoPriv, authPriv."`
	EngineID    string             `json:"engine_id" doc:"The agent's identity in version 3, in hex."`
	EngineBoots *int               `json:"engine_boots" doc:"How often the agent has started, in version 3."`
	Description string             `json:"description" doc:"The agent's description of itself (sysDescr)."`
	Name        string             `json:"name" doc:"The name of the system (sysName)."`
	UptimeMS    *float64           `json:"uptime_ms" doc:"The time since the agent started (sysUpTime)."`
	Values      map[string]any     `json:"values" doc:"The values of the objects, by the names in oids: numbers, or text. Time ticks are hundredths of a second; octets that are no text are in hex."`
	Types       map[string]string  `json:"types" doc:"Their types, such as Counter64."`
	Rates       map[string]float64 `json:"rates" doc:"How much the counters and numbers grew in a second, with rate_over. A Counter32 that went round is noticed."`
	Missing     []string           `json:"missing" doc:"The names in oids of which the agent has no object."`
	Ignored     int                `json:"ignored" doc:"Datagrams that were no answers to our requests."`
}

// The objects of the system group (RFC 3418) that every agent has.
const (
	snmpDescription = "1.3.6.1.2.1.1.1.0"
	snmpUptime      = "1.3.6.1.2.1.1.3.0"
	snmpName        = "1.3.6.1.2.1.1.5.0"
)

func init() {
	register(probe.Info{
		Name:    "snmp",
		Summary: "the agent answers, and has the objects that are asked for",
		Schemes: []probe.Scheme{{Name: "snmp", Port: 161}},
		Example: "snmp://switch.example.org",
		Common:  probe.OverUDP,
		Doc: `Up means that the agent has answered a Get request for its description, name and uptime, and for every object in ` + "`oids`" + `; that an object is right or wrong, ` + "`expect`" + ` says (` + "`snmp.values.temperature < 60`, `snmp.rates.in < 1e8`" + `). An object that the agent does not have is a ` + "`mismatch`" + `.

In version 3 the agent's identity and clock are asked for first; its reports tell an unknown user, a wrong authentication password and a level of security that it does not allow apart (` + "`denied`" + `, phase auth). An answer must be authenticated if the request was. An agent drops what it can't decrypt: silence after a good authentication most likely means a wrong privacy password. To a wrong community agents of versions 1 and 2c say nothing, which is a ` + "`timeout`" + `.

The phases: auth finding the agent's identity in version 3, request and wait each request until its answer, verify judging. RFC 1157, 1901, 3412, 3414, 3416, 3826, 7860.`,
	}, snmpOptions{Version: "2c", Auth: "sha", Priv: "aes"}, snmpCheck)
}

func snmpCheck(ctx context.Context, p *probe.Probe, opt *snmpOptions, facts *snmpFacts) error {
	names, oids, err := snmpPlan(p, opt)
	if err != nil {
		return err
	}
	c, err := p.DialUDP(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	s := snmpNew(ctx, p, c, opt, facts)
	defer func() { facts.Ignored = s.asker.Ignored }()
	facts.Version = opt.Version
	if s.user != nil {
		if err := s.discover(); err != nil {
			return err
		}
	}
	system, err := s.get([]string{snmpDescription, snmpUptime, snmpName})
	if err != nil {
		return err
	}
	facts.system(system)
	first, at, err := snmpRead(s, oids)
	if err != nil {
		return err
	}
	facts.values(names, first)
	if opt.RateOver > 0 && len(oids) > 0 {
		if !snmpPause(ctx, time.Duration(opt.RateOver)-time.Since(at)) {
			return ctx.Err()
		}
		second, then, err := snmpRead(s, oids)
		if err != nil {
			return err
		}
		facts.values(names, second)
		facts.rates(names, first, second, then.Sub(at))
	}
	p.Phase(wire.Verify)
	if len(facts.Missing) > 0 {
		return probe.Failf(wire.Mismatch, "the agent has no object for %s", strings.Join(facts.Missing, ", "))
	}
	return nil
}

// snmpMaxOIDs bounds the objects of a target.
const snmpMaxOIDs = 256

// snmpPlan reads the options: names in order, and the object of each.
func snmpPlan(p *probe.Probe, opt *snmpOptions) (names, oids []string, err error) {
	bad := func(format string, args ...any) error {
		return probe.Failf(wire.BadOptions, "snmp."+format, args...)
	}
	if len(opt.OIDs) > snmpMaxOIDs {
		return nil, nil, bad("oids: more than %d", snmpMaxOIDs)
	}
	names = slices.Sorted(maps.Keys(opt.OIDs))
	for _, name := range names {
		if _, err := snmp.ParseOID(opt.OIDs[name]); err != nil {
			return nil, nil, bad("oids.%.40s: %w", name, err)
		}
		oids = append(oids, strings.TrimPrefix(opt.OIDs[name], "."))
	}
	switch {
	case opt.Version == "3" && opt.User == "":
		err = bad("user: version 3 needs one")
	case opt.Version != "3" && opt.User+opt.AuthPassword+opt.PrivPassword != "":
		err = bad("user, auth_password and priv_password are of version 3; set version")
	case opt.Version == "3" && opt.Community != "":
		err = bad("community: version 3 has users instead")
	case opt.Community != "" && !opt.AllowPlainAuth && !p.Loopback(p.URL.Host):
		err = bad("community: anybody on the way can read it; use version 3, or say snmp.allow_plain_auth = true")
	case opt.PrivPassword != "" && opt.AuthPassword == "":
		err = bad("priv_password: needs auth_password")
	case opt.AuthPassword != "" && len(opt.AuthPassword) < snmp.MinPassword, opt.PrivPassword != "" && len(opt.PrivPassword) < snmp.MinPassword:
		err = bad("auth_password and priv_password have %d bytes or more", snmp.MinPassword)
	case opt.RateOver < 0:
		err = bad("rate_over: must not be negative")
	}
	return names, oids, err
}

// snmpAtOnce is the number of objects in one request: more of them may not fit
// into an answer.
const snmpAtOnce = 16

// snmpRead reads the objects, and says when.
func snmpRead(s *snmpSession, oids []string) (values []snmp.Variable, at time.Time, err error) {
	for some := range slices.Chunk(oids, snmpAtOnce) {
		vs, err := s.get(some)
		if err != nil {
			return nil, at, err
		}
		values = append(values, vs...)
	}
	return values, time.Now(), nil
}

func snmpPause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *snmpFacts) system(vs []snmp.Variable) {
	if s, ok := vs[0].Value.(string); ok {
		f.Description = s
	}
	if n, ok := vs[1].Value.(uint64); ok {
		f.UptimeMS = new(float64(n) * 10)
	}
	if s, ok := vs[2].Value.(string); ok {
		f.Name = s
	}
}

func (f *snmpFacts) values(names []string, vs []snmp.Variable) {
	if len(names) == 0 {
		return
	}
	f.Values, f.Types, f.Missing = map[string]any{}, map[string]string{}, nil
	for i, name := range names {
		if vs[i].Missing() {
			f.Missing = append(f.Missing, fmt.Sprintf("%s (%s: %s)", name, vs[i].OID, vs[i].Type))
			continue
		}
		f.Values[name], f.Types[name] = vs[i].Value, vs[i].Type
	}
}

// rates compares two readings. A Counter64 that is smaller than before means
// that the agent has started again, so there is no rate.
func (f *snmpFacts) rates(names []string, first, second []snmp.Variable, over time.Duration) {
	f.Rates = map[string]float64{}
	for i, name := range names {
		var grown float64
		switch b := second[i].Value.(type) {
		case uint64:
			a, ok := first[i].Value.(uint64)
			switch {
			case !ok || second[i].Type == "Counter64" && b < a:
				continue
			case second[i].Type == "Counter32":
				grown = float64(uint32(b) - uint32(a))
			default:
				grown = float64(b) - float64(a)
			}
		case int64:
			a, ok := first[i].Value.(int64)
			if !ok {
				continue
			}
			grown = float64(b) - float64(a)
		default:
			continue
		}
		f.Rates[name] = math.Round(1000*grown/over.Seconds()) / 1000
	}
}
