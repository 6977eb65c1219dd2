package checks

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type memcachedOptions struct {
	User           string        `json:"user" doc:"The user to log in as, where the server keeps a file of users (-Y)."`
	Password       string        `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool          `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
	Key            string        `json:"key" doc:"Read this key: whether it exists, its length and value."`
	Canary         bool          `json:"canary" doc:"Write a key with a random name, read it back and delete it."`
	CanaryPrefix   string        `json:"canary_prefix" doc:"What the name of the canary's key begins with."`
	CanaryTTL      wire.Duration `json:"canary_ttl" doc:"After this time the server removes the canary by itself, should the check not get to it: 1s at least."`
}

type memcachedFacts struct {
	Version             string   `json:"version" doc:"The server's version."`
	UptimeMS            *int64   `json:"uptime_ms" doc:"Time since its start, in ms."`
	PID                 *int64   `json:"pid" doc:"Its process, another after each start."`
	Connections         *int64   `json:"connections" doc:"How many clients are connected."`
	MaxConnections      *int64   `json:"max_connections" doc:"How many may be."`
	RejectedConnections *int64   `json:"rejected_connections" doc:"How many were refused since the start, since there were too many."`
	Accepting           *bool    `json:"accepting" doc:"Whether the server accepts connections at present; at its limit it stops."`
	UsedBytes           *int64   `json:"used_bytes" doc:"Memory for items, in bytes."`
	LimitBytes          *int64   `json:"limit_bytes" doc:"Its limit, in bytes."`
	MemoryPercent       *float64 `json:"memory_percent" doc:"Memory for items, in percent of the limit."`
	Items               *int64   `json:"items" doc:"How many items are stored."`
	Evictions           *int64   `json:"evictions" doc:"Items that were removed before their time since the start, for want of memory."`
	Reclaimed           *int64   `json:"reclaimed" doc:"Items since the start whose place was taken after they had expired."`
	OutOfMemory         *int64   `json:"out_of_memory" doc:"Items since the start that could not be stored for want of memory."`
	Gets                *int64   `json:"gets" doc:"Reads since the start."`
	Sets                *int64   `json:"sets" doc:"Writes since the start."`
	HitPercent          *float64 `json:"hit_percent" doc:"Reads since the start that found their key, in percent."`
	KeyExists           *bool    `json:"key_exists" doc:"Whether key exists."`
	KeyLength           *int64   `json:"key_length" doc:"Length of its value, in bytes."`
	Value               *string  `json:"value" doc:"Its value."`
	CanaryWriteMS       *float64 `json:"canary_write_ms" doc:"Time to write the canary, in ms."`
	CanaryReadMS        *float64 `json:"canary_read_ms" doc:"Time to read it back, in ms."`
	CanaryDeleteMS      *float64 `json:"canary_delete_ms" doc:"Time to delete it, in ms."`
}

func init() {
	register(probe.Info{
		Name:    "memcached",
		Summary: "a memcached server answers commands",
		Schemes: []probe.Scheme{{Name: "memcached", Port: 11211}, {Name: "memcacheds", Port: 11211, TLS: true}},
		Example: "memcached://cache.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"memcached.accepting ?? true", "memcached.key_exists ?? true"},
		Doc: `Up means that the server takes the credentials, if there are any, and answers version and stats (one round trip). That it stores anything is proved by canary: a key with a random name, which expires by itself, is set, read back and deleted, also when reading fails. key reads a key that is there.

It speaks the text protocol (doc/protocol.txt of memcached), and logs in the way of that protocol (a file of users, -Y). A server that wants SASL (-S) speaks the binary protocol only, and is down.

Reasons: a server that wants a login or refuses it is ` + "`denied`" + ` in phase auth; SERVER_ERROR, such as out of memory, and too many connections are ` + "`unavailable`" + `; a canary that does not come back is a ` + "`mismatch`" + `. A server at its limit of connections may also accept and say nothing, which ends in ` + "`timeout`" + `.

Phases: auth the login, request all other commands.`,
	}, memcachedOptions{CanaryPrefix: "pup:canary:", CanaryTTL: wire.Duration(60e9)}, memcached)
}

// Bounds of what a server may send.
const (
	memcachedMaxStats = 1000
	memcachedMaxValue = 1 << 20
	memcachedMaxKey   = 250 // by the protocol
)

// A memcachedSession is a connection on which commands are sent.
type memcachedSession struct {
	*probe.Conn
	p     *probe.Probe
	opt   *memcachedOptions
	facts *memcachedFacts
}

func memcached(ctx context.Context, p *probe.Probe, opt *memcachedOptions, facts *memcachedFacts) error {
	if err := memcachedValid(opt); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	s := &memcachedSession{c, p, opt, facts}
	if opt.User != "" {
		if err := s.login(); err != nil {
			return err
		}
	}
	p.Phase(wire.Request)
	if err := s.Printf("version\r\nstats\r\n"); err != nil {
		return err
	}
	if err := s.version(); err != nil {
		return err
	}
	if err := s.stats(); err != nil {
		return err
	}
	if opt.Key != "" {
		if err := s.key(); err != nil {
			return err
		}
	}
	if opt.Canary {
		return s.canary()
	}
	return nil
}

func memcachedValid(opt *memcachedOptions) error {
	bad := func(option, format string, args ...any) error {
		return probe.Failf(wire.BadOptions, "memcached."+option+": "+format, args...)
	}
	switch {
	case (opt.User == "") != (opt.Password == ""):
		return bad("user", "user and password go together")
	case strings.ContainsAny(opt.User, " \r\n") || strings.ContainsAny(opt.Password, "\r\n"):
		return bad("user", "holds a space or line end")
	case !memcachedIsKey(opt.Key) && opt.Key != "":
		return bad("key", "%.80q is no key: 1 to %d bytes, no space, no control character", opt.Key, memcachedMaxKey)
	case !memcachedIsKey(opt.CanaryPrefix + rand.Text()):
		return bad("canary_prefix", "%.80q makes no key: %d bytes in all, no space, no control character", opt.CanaryPrefix, memcachedMaxKey)
	case opt.CanaryTTL < wire.Duration(time.Second) || opt.CanaryTTL > wire.Duration(30*24*time.Hour):
		return bad("canary_ttl", "is not from 1s to 30d") // more would be a date
	}
	return nil
}

func memcachedIsKey(s string) bool {
	return len(s) > 0 && len(s) <= memcachedMaxKey && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// login sends the credentials in the guise of a set, whose key is of no
// importance.
func (s *memcachedSession) login() error {
	if !s.opt.AllowPlainAuth && !s.Private() {
		return probe.Failf(wire.BadOptions, "memcached: the credentials would be sent without TLS; write memcacheds://, or say memcached.allow_plain_auth = true")
	}
	s.p.Phase(wire.Auth)
	text := s.opt.User + " " + s.opt.Password
	if err := s.Printf("set pup 0 0 %d\r\n%s\r\n", len(text), text); err != nil {
		return err
	}
	line, err := s.Line()
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(line, "CLIENT_ERROR"):
		return probe.Failf(wire.Denied, "login: got %.80q", line)
	case line != "STORED":
		return memcachedError("login", line)
	}
	return nil
}

// memcachedError is the error of a line that is not what was wanted.
func memcachedError(command, line string) error {
	reason := wire.BadProtocol
	switch {
	case strings.HasPrefix(line, "SERVER_ERROR"), strings.HasPrefix(line, "ERROR Too many open connections"):
		reason = wire.Unavailable
	case line == "CLIENT_ERROR unauthenticated":
		reason = wire.Denied
	case line == "NOT_STORED", line == "NOT_FOUND":
		reason = wire.Mismatch
	}
	return probe.Failf(reason, "%s: got %.80q", command, line)
}

func (s *memcachedSession) version() error {
	line, err := s.Line()
	if err != nil {
		return err
	}
	version, ok := strings.CutPrefix(line, "VERSION ")
	if !ok {
		if line == "CLIENT_ERROR unauthenticated" {
			s.p.Phase(wire.Auth)
		}
		return memcachedError("version", line)
	}
	s.facts.Version = version
	return nil
}

func (s *memcachedSession) stats() error {
	var hits, misses int64
	for range memcachedMaxStats {
		line, err := s.Line()
		switch {
		case err != nil:
			return err
		case line == "END":
			s.facts.conclude(hits, misses)
			return nil
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "STAT "), " ")
		if !ok || !strings.HasPrefix(line, "STAT ") {
			return memcachedError("stats", line)
		}
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			switch name {
			case "get_hits":
				hits = n
			case "get_misses":
				misses = n
			default:
				s.facts.stat(name, n)
			}
		}
	}
	return probe.Protocolf("stats: more than %d lines", memcachedMaxStats)
}

func (f *memcachedFacts) stat(name string, n int64) {
	switch name {
	case "uptime":
		f.UptimeMS = new(1000 * n)
	case "pid":
		f.PID = new(n)
	case "curr_connections":
		f.Connections = new(n)
	case "max_connections":
		f.MaxConnections = new(n)
	case "rejected_connections":
		f.RejectedConnections = new(n)
	case "accepting_conns":
		f.Accepting = new(n != 0)
	case "bytes":
		f.UsedBytes = new(n)
	case "limit_maxbytes":
		f.LimitBytes = new(n)
	case "curr_items":
		f.Items = new(n)
	case "evictions":
		f.Evictions = new(n)
	case "reclaimed":
		f.Reclaimed = new(n)
	case "store_no_memory":
		f.OutOfMemory = new(n)
	case "cmd_get":
		f.Gets = new(n)
	case "cmd_set":
		f.Sets = new(n)
	}
}

func (f *memcachedFacts) conclude(hits, misses int64) {
	if f.UsedBytes != nil && f.LimitBytes != nil && *f.LimitBytes > 0 {
		f.MemoryPercent = new(memcachedPercent(*f.UsedBytes, *f.LimitBytes))
	}
	if hits+misses > 0 {
		f.HitPercent = new(memcachedPercent(hits, hits+misses))
	}
}

func memcachedPercent(part, whole int64) float64 {
	return float64(int64(1000*float64(part)/float64(whole))) / 10
}

// get reads a key; ok says whether it is there.
func (s *memcachedSession) get(key string) (value string, ok bool, err error) {
	if err := s.Printf("get %s\r\n", key); err != nil {
		return "", false, err
	}
	line, err := s.Line()
	switch {
	case err != nil:
		return "", false, err
	case line == "END":
		return "", false, nil
	}
	length, found := memcachedHeader(line, key)
	switch {
	case !found:
		return "", false, memcachedError("get", line)
	case length > memcachedMaxValue:
		return "", false, probe.Failf(wire.TooLarge, "get: the value has %d bytes, more than %d", length, memcachedMaxValue)
	}
	b := make([]byte, int(length)+len("\r\nEND\r\n"))
	if err := s.Full(b); err != nil {
		return "", false, err
	}
	value, ok = strings.CutSuffix(string(b), "\r\nEND\r\n")
	if !ok {
		return "", false, probe.Protocolf("get: a value of %d bytes is not ended by END", length)
	}
	return value, true, nil
}

// memcachedHeader reads the length from "VALUE key flags length", which some
// servers follow by the unique number of the item.
func memcachedHeader(line, key string) (length int64, ok bool) {
	w := strings.Fields(line)
	if len(w) < 4 || len(w) > 5 || w[0] != "VALUE" || w[1] != key {
		return 0, false
	}
	n, err := strconv.ParseUint(w[3], 10, 31)
	return int64(n), err == nil
}

func (s *memcachedSession) key() error {
	value, ok, err := s.get(s.opt.Key)
	if err != nil {
		return err
	}
	if s.facts.KeyExists = &ok; ok {
		s.facts.KeyLength, s.facts.Value = new(int64(len(value))), &value
	}
	return nil
}

// canary writes a key, reads it back and deletes it. It is deleted also if it
// could not be read.
func (s *memcachedSession) canary() error {
	key, text := s.opt.CanaryPrefix+rand.Text(), rand.Text()
	start := time.Now()
	ttl := (time.Duration(s.opt.CanaryTTL) + time.Second - 1) / time.Second
	if err := s.Printf("set %s 0 %d %d\r\n%s\r\n", key, ttl, len(text), text); err != nil {
		return err
	}
	if err := s.want("set of the canary", "STORED"); err != nil {
		return err
	}
	s.facts.CanaryWriteMS = new(wire.MS(time.Since(start)))
	start = time.Now()
	value, ok, err := s.get(key)
	switch {
	case err != nil:
	case !ok:
		err = probe.Failf(wire.Mismatch, "get of the canary: it is gone")
	case value != text:
		err = probe.Failf(wire.Mismatch, "get of the canary: got %.80q, want %q", value, text)
	default:
		s.facts.CanaryReadMS = new(wire.MS(time.Since(start)))
	}
	start = time.Now()
	if serr := s.Printf("delete %s\r\n", key); serr != nil {
		return errors.Join(err, serr)
	}
	derr := s.want("delete of the canary", "DELETED")
	if err != nil {
		return err
	}
	if derr == nil {
		s.facts.CanaryDeleteMS = new(wire.MS(time.Since(start)))
	}
	return derr
}

func (s *memcachedSession) want(command, want string) error {
	line, err := s.Line()
	if err != nil {
		return err
	}
	if line != want {
		return memcachedError(command, line)
	}
	return nil
}
