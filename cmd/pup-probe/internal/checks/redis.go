package checks

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type redisOptions struct {
	User           string `json:"user" doc:"ACL user to log in as; the default user if only a password is given."`
	Password       string `json:"password" secret:"true" doc:"The password. Without it nobody logs in."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Send the password without TLS to a host that is not loopback."`
	Protocol       int    `json:"protocol" min:"2" max:"3" doc:"The RESP version to speak. With 3, an old server that does not know HELLO is spoken to in 2."`
	Canary         bool   `json:"canary" doc:"Write a key pup:canary:RANDOM that expires after a minute, read it back and delete it."`
	Key            string `json:"key" doc:"A key to look at, for the facts key_type, key_length and value."`
}

type redisFacts struct {
	Version         string        `json:"version" doc:"The server's version."`
	Mode            string        `json:"mode" doc:"standalone, sentinel or cluster."`
	Role            string        `json:"role" doc:"master, slave (a replica) or sentinel."`
	RunID           string        `json:"run_id" doc:"Random identity of the server process: it changes with each restart."`
	UptimeMS        *float64      `json:"uptime_ms" doc:"Milliseconds since the server's start."`
	Clients         *int          `json:"clients" doc:"Connected clients."`
	Rejected        *int          `json:"rejected_connections" doc:"Connections refused since the start since there were too many."`
	UsedMemory      *int          `json:"used_memory_bytes" doc:"Memory that the data takes."`
	MaxMemory       *int          `json:"maxmemory_bytes" doc:"The bound on it; absent without one."`
	MemoryPercent   *float64      `json:"memory_percent" doc:"Used of the bound."`
	Evicted         *int          `json:"evicted_keys" doc:"Keys dropped since the start to stay below the bound."`
	Keys            *int          `json:"keys" doc:"Keys in the database that the URL names."`
	LastBgsaveOK    *bool         `json:"last_bgsave_ok" doc:"Whether the last snapshot was written."`
	LastSaveAgeMS   *float64      `json:"last_save_age_ms" doc:"Milliseconds since the last snapshot, or since the start."`
	AOFOK           *bool         `json:"aof_ok" doc:"Whether the append-only file is written; absent without one."`
	Replicas        *int          `json:"replicas" doc:"Of a master: replicas that are connected."`
	ReplicaLagMS    *float64      `json:"replica_lag_ms" doc:"Of a master: the time since the slowest replica was heard of, in steps of a second."`
	ReplicaLagBytes *int          `json:"replica_lag_bytes" doc:"Of a master: how many bytes the slowest replica is behind."`
	Master          string        `json:"master" doc:"Of a replica: its master, host:port."`
	Link            string        `json:"link" doc:"Of a replica: whether the link to its master is up or down."`
	LinkDownMS      *float64      `json:"link_down_ms" doc:"Of a replica: how long the link has been down."`
	MasterLastIOMS  *float64      `json:"master_last_io_ms" doc:"Of a replica: the time since its master was heard of, in steps of a second."`
	Syncing         *bool         `json:"syncing" doc:"Of a replica: whether it is getting a whole copy."`
	ReadOnly        *bool         `json:"read_only" doc:"Of a replica: whether it refuses writes."`
	Masters         []redisMaster `json:"masters" doc:"Of a sentinel: the masters that it watches."`
	Quorum          *bool         `json:"quorum" doc:"Of a sentinel: whether enough sentinels can be reached to fail over every master."`
	ClusterState    string        `json:"cluster_state" doc:"Of a cluster: ok, or fail when it can't serve some keys."`
	SlotsOK         *int          `json:"slots_ok" doc:"Of a cluster: slots that are served; there are 16384."`
	SlotsFail       *int          `json:"slots_fail" doc:"Of a cluster: slots of nodes that have failed."`
	Nodes           *int          `json:"nodes" doc:"Of a cluster: known nodes."`
	KeyType         string        `json:"key_type" doc:"The type of the key that was asked for: string, list, set, zset, hash, stream, none."`
	KeyLength       *int          `json:"key_length" doc:"How many elements it has, of a string how many bytes."`
	Value           *string       `json:"value" doc:"Its value, if it is a string, at most 256 bytes."`
	WriteMS         *float64      `json:"write_ms" doc:"Of the canary: milliseconds to write."`
	ReadMS          *float64      `json:"read_ms" doc:"Of the canary: milliseconds to read."`
	DeleteMS        *float64      `json:"delete_ms" doc:"Of the canary: milliseconds to delete."`
}

type redisMaster struct {
	Name      string `json:"name" doc:"The master's name."`
	Status    string `json:"status" doc:"ok, sdown (this sentinel can't reach it) or odown (enough can't)."`
	Address   string `json:"address" doc:"Where it is."`
	Replicas  *int   `json:"replicas" doc:"Its replicas."`
	Sentinels *int   `json:"sentinels" doc:"The sentinels that watch it."`
	Quorum    *bool  `json:"quorum" doc:"Whether enough sentinels can be reached."`
}

func init() {
	register(probe.Info{
		Name:    "redis",
		Summary: "answers PING and serves its data",
		Schemes: []probe.Scheme{{Name: "redis", Port: 6379}, {Name: "rediss", Port: 6379, TLS: true}},
		Example: "redis://cache.example.org/0",
		Common:  probe.OverTCP,
		Expect: []string{
			"(redis.link ?? 'up') == 'up'",
			"(redis.cluster_state ?? 'ok') == 'ok'",
			"redis.quorum ?? true",
		},
		Warn: []string{"redis.last_bgsave_ok ?? true", "redis.aof_ok ?? true"},
		Doc: `Up means that PING was answered, after a login if a password is given and in the database that the URL's path names, and that the server is in a state to serve: not loading, not a replica that has lost its master, not a cluster with slots that nobody serves, not a sentinel without quorum. With the option canary, a key was written, read back and deleted as well.

A server that asks for a password that is not given is down with the reason denied in phase auth. LOADING, MASTERDOWN, BUSY, CLUSTERDOWN, MISCONF and too many clients are unavailable. A user that may not call INFO leaves most facts absent; the target can still be up.

It speaks RESP2 or RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec), to Redis, Valkey and what is like them. Login, SELECT, PING and INFO are sent in one packet. Phases: auth is the login, request is SELECT and PING, transfer is INFO and what follows from it, verify is the canary.`,
	}, redisOptions{Protocol: 2}, redis)
}

// A redisConn is a connection with its options and facts.
type redisConn struct {
	*probe.Conn
	p     *probe.Probe
	opt   *redisOptions
	facts *redisFacts
	db    int
}

func redis(ctx context.Context, p *probe.Probe, opt *redisOptions, facts *redisFacts) error {
	db, err := redisDB(p.URL.Path)
	if err != nil {
		return err
	}
	if opt.User != "" && opt.Password == "" {
		return probe.Failf(wire.BadOptions, "redis.user: needs redis.password as well")
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if opt.Password != "" && !opt.AllowPlainAuth && !c.Private() {
		return probe.Failf(wire.BadOptions, "redis.password: would be sent without TLS; use rediss://, or say redis.allow_plain_auth = true")
	}
	r := &redisConn{c, p, opt, facts, db}
	if err := r.hello(); err != nil {
		return err
	}
	if err := r.opening(); err != nil {
		return err
	}
	if err := r.state(); err != nil {
		return err
	}
	if opt.Key != "" {
		if err := r.key(); err != nil {
			return err
		}
	}
	if opt.Canary {
		p.Phase(wire.Verify)
		return r.canary()
	}
	return nil
}

func redisDB(path string) (int, error) {
	s := strings.Trim(path, "/")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, probe.Failf(wire.BadOptions, "url: %.40q is no number of a database", s)
	}
	return int(n), nil
}

func (r *redisConn) auth() []string {
	if r.opt.User == "" {
		return []string{"AUTH", r.opt.Password}
	}
	return []string{"AUTH", r.opt.User, r.opt.Password}
}

// hello switches to RESP3 where that is asked for. It needs an answer before
// anything else can be sent, since an old server must be spoken to in RESP2.
func (r *redisConn) hello() error {
	if r.opt.Protocol != 3 {
		return nil
	}
	r.p.Phase(wire.Greet)
	args := []string{"HELLO", "3"}
	if r.opt.Password != "" {
		user := r.opt.User
		if user == "" {
			user = "default"
		}
		args = append(args, "AUTH", user, r.opt.Password)
	}
	v, err := r.do(args...)
	switch {
	case err != nil:
		return err
	case v.kind == '-' && strings.HasPrefix(v.text, "ERR unknown command"):
		return nil
	case v.kind == '-':
		r.p.Phase(wire.Auth)
		return redisError("AUTH", v)
	case v.kind != '%':
		return probe.Protocolf("HELLO: got %q, want a map", v.kind)
	}
	return nil
}

// opening sends the login, SELECT, PING and INFO at once, and reads the
// replies up to that of PING.
func (r *redisConn) opening() error {
	login := r.opt.Password != "" && r.opt.Protocol == 2
	r.p.Phase(wire.Request)
	if login {
		r.p.Phase(wire.Auth)
	}
	var b []byte
	if login {
		b = redisAppend(b, r.auth()...)
	}
	if r.db != 0 {
		b = redisAppend(b, "SELECT", strconv.Itoa(r.db))
	}
	b = redisAppend(b, "PING")
	b = redisAppend(b, "INFO")
	if _, err := r.Write(b); err != nil {
		return err
	}
	if login {
		if err := r.expect("AUTH", "OK"); err != nil {
			return err
		}
		r.p.Phase(wire.Request)
	}
	if r.db != 0 {
		if err := r.expect("SELECT", "OK"); err != nil {
			return err
		}
	}
	return r.expect("PING", "PONG")
}

// expect reads the reply to a command that was sent before.
func (r *redisConn) expect(command, want string) error {
	v, err := redisRead(r.Conn)
	if err != nil {
		return err
	}
	if err := redisError(command, v); err != nil {
		if redisReasons[strings.SplitN(v.text, " ", 2)[0]] == wire.Denied {
			r.p.Phase(wire.Auth)
		}
		return err
	}
	if v.text != want {
		return probe.Protocolf("%s: got %.80q, want %s", command, v.text, want)
	}
	return nil
}

// do sends a command and reads its reply.
func (r *redisConn) do(args ...string) (redisReply, error) {
	if _, err := r.Write(redisAppend(nil, args...)); err != nil {
		return redisReply{}, err
	}
	return redisRead(r.Conn)
}

// state reads the reply to INFO, and asks on where the server is a sentinel or
// belongs to a cluster.
func (r *redisConn) state() error {
	r.p.Phase(wire.Transfer)
	v, err := redisRead(r.Conn)
	if err != nil {
		return err
	}
	if v.kind == '-' {
		return nil // a user without the right to it
	}
	info := redisParseInfo(v.text)
	info.facts(r.facts, r.db)
	switch {
	case info["loading"] == "1":
		return probe.Failf(wire.Unavailable, "INFO: the server is loading its data")
	case r.facts.Mode == "sentinel":
		return r.sentinel(info)
	case r.facts.Mode == "cluster":
		return r.cluster()
	}
	return nil
}

// redisMaxMasters bounds the masters of a sentinel that are asked about.
const redisMaxMasters = 32

func (r *redisConn) sentinel(info redisInfo) error {
	r.facts.Role = "sentinel"
	all := true
	for i := range redisMaxMasters {
		line, ok := info["master"+strconv.Itoa(i)]
		if !ok {
			break
		}
		m := redisParseMaster(line)
		v, err := r.do("SENTINEL", "CKQUORUM", m.Name)
		if err != nil {
			return err
		}
		m.Quorum = new(v.kind == '+')
		all = all && *m.Quorum && m.Status == "ok"
		r.facts.Masters = append(r.facts.Masters, m)
	}
	if len(r.facts.Masters) > 0 {
		r.facts.Quorum = &all
	}
	return nil
}

func (r *redisConn) cluster() error {
	v, err := r.do("CLUSTER", "INFO")
	if err != nil || v.kind == '-' {
		return err
	}
	info := redisParseInfo(v.text)
	r.facts.ClusterState = info["cluster_state"]
	r.facts.SlotsOK, r.facts.SlotsFail = info.number("cluster_slots_ok"), info.number("cluster_slots_fail")
	r.facts.Nodes = info.number("cluster_known_nodes")
	return nil
}

// redisLengths are the commands that tell how long a value of a type is.
var redisLengths = map[string]string{
	"string": "STRLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN",
}

func (r *redisConn) key() error {
	v, err := r.do("TYPE", r.opt.Key)
	if err == nil {
		err = redisError("TYPE", v)
	}
	if err != nil {
		return err
	}
	r.facts.KeyType = v.text
	command := redisLengths[v.text]
	if command == "" {
		return nil // none, or the type of a module
	}
	if v, err = r.do(command, r.opt.Key); err != nil {
		return err
	}
	if n, err := strconv.Atoi(v.text); err == nil && v.kind == ':' {
		r.facts.KeyLength = &n
	}
	if r.facts.KeyType != "string" {
		return nil
	}
	if v, err = r.do("GETRANGE", r.opt.Key, "0", strconv.Itoa(maxShown-1)); err != nil {
		return err
	}
	if v.kind == '$' {
		r.facts.Value = &v.text
	}
	return nil
}

var redisErrMoved = errors.New("the key belongs to another node")

// canary writes, reads and deletes. In a cluster it looks for a key that is
// this node's.
func (r *redisConn) canary() error {
	for range 64 {
		err := r.canaryOnce()
		if !errors.Is(err, redisErrMoved) {
			return err
		}
	}
	return probe.Failf(wire.Mismatch, "canary: no key of 64 belongs to this node of the cluster")
}

func (r *redisConn) canaryOnce() error {
	var b [16]byte
	rand.Read(b[:])
	key, value := "pup:canary:"+hex.EncodeToString(b[:8]), hex.EncodeToString(b[8:])
	leg := func(fact **float64, want string, args ...string) error {
		start := time.Now()
		v, err := r.do(args...)
		if err != nil {
			return err
		}
		if strings.HasPrefix(v.text, "MOVED ") && v.kind == '-' {
			return redisErrMoved
		}
		if err := redisError("canary: "+args[0], v); err != nil {
			return err
		}
		if v.text != want {
			return probe.Failf(wire.Mismatch, "canary: %s: got %.80q, want %q", args[0], v.text, want)
		}
		*fact = new(wire.MS(time.Since(start)))
		return nil
	}
	if err := leg(&r.facts.WriteMS, "OK", "SET", key, value, "EX", "60", "NX"); err != nil {
		return err
	}
	err := leg(&r.facts.ReadMS, value, "GET", key)
	if derr := leg(&r.facts.DeleteMS, "1", "DEL", key); err == nil {
		err = derr
	}
	if err != nil {
		return fmt.Errorf("%w", err)
	}
	return nil
}
