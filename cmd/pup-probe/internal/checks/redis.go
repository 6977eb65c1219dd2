package checks

import (
	"context"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type redisOptions struct {
	User           string        `json:"user" doc:"The ACL user to log in as, unless the URL names one. Without it, and with a password, the default user."`
	Password       string        `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool          `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
	DB             *int          `json:"db" min:"0" doc:"The number of the database, unless the path of the URL has it."`
	Protocol       int           `json:"protocol" min:"2" max:"3" doc:"Speak RESP2, or RESP3 where the server knows it (Redis 6): that costs a round trip, and tells version, mode and role also to users who may not call INFO."`
	Info           bool          `json:"info" doc:"Ask for INFO, which most facts come from. Without it up proves no more than PING."`
	Key            string        `json:"key" doc:"Read this key: whether it exists, its type, length, time to live and, of a string, value."`
	Canary         bool          `json:"canary" doc:"Write a key with a random name, read it back and delete it."`
	CanaryPrefix   string        `json:"canary_prefix" doc:"What the name of the canary's key begins with."`
	CanaryTTL      wire.Duration `json:"canary_ttl" doc:"After this time the server removes the canary by itself, should the check not get to it."`
	Master         string        `json:"master" doc:"Of a sentinel: the name of the one master to look at, and to ask the other sentinels for as well. Without it all masters are looked at, and nobody else is asked."`
}

type redisFacts struct {
	Server              string        `json:"server" doc:"The implementation: redis, valkey, dragonfly. KeyDB calls itself redis."`
	Version             string        `json:"version" doc:"Its version."`
	Protocol            int           `json:"protocol" doc:"The version of RESP that was spoken."`
	Info                *bool         `json:"info" doc:"Whether the server answered INFO. If it did not, most facts are missing."`
	Mode                string        `json:"mode" doc:"standalone, cluster or sentinel."`
	Role                string        `json:"role" doc:"master, replica or sentinel."`
	RunID               string        `json:"run_id" doc:"Random, and new with each start of the server."`
	UptimeMS            *int64        `json:"uptime_ms" doc:"Time since the start of the server, in ms."`
	Loading             *bool         `json:"loading" doc:"Whether the server is still loading its data."`
	ConnectedReplicas   *int          `json:"connected_replicas" doc:"How many replicas are connected to this server."`
	OnlineReplicas      *int          `json:"online_replicas" doc:"How many of them are in step, not still loading a snapshot. Of a master only."`
	Master              string        `json:"master" doc:"Of a replica: host and port of its master."`
	Link                string        `json:"link" doc:"Of a replica: whether the link to its master is up or down."`
	LinkDownMS          *int64        `json:"link_down_ms" doc:"How long it has been down, in ms."`
	Syncing             *bool         `json:"syncing" doc:"Of a replica: whether it is loading a snapshot from its master."`
	ReadOnly            *bool         `json:"read_only" doc:"Of a replica: whether it refuses to be written to."`
	Offset              *int64        `json:"offset" doc:"The position in the replication stream, in bytes: what a master has sent, what a replica has applied."`
	LagMS               *int64        `json:"lag_ms" doc:"Time since the last word of a replica's master, or of the replica of a master that has been silent longest, in ms; the server counts in seconds. A healthy link has a word each second or each ten seconds."`
	LagBytes            *int64        `json:"lag_bytes" doc:"Of a master: how far the slowest online replica is behind. Of a replica: what it has received but not applied yet."`
	Clients             *int64        `json:"clients" doc:"How many clients are connected."`
	MaxClients          *int64        `json:"max_clients" doc:"How many may be."`
	BlockedClients      *int64        `json:"blocked_clients" doc:"How many wait in a blocking command."`
	RejectedConnections *int64        `json:"rejected_connections" doc:"How many connections were refused since the start, since there were too many."`
	UsedMemoryBytes     *int64        `json:"used_memory_bytes" doc:"Memory for data, in bytes."`
	MaxMemoryBytes      *int64        `json:"max_memory_bytes" doc:"Its limit, in bytes; 0 is none."`
	MaxMemoryPolicy     string        `json:"max_memory_policy" doc:"What is evicted at the limit. With noeviction, writes fail."`
	MemoryPercent       *float64      `json:"memory_percent" doc:"Memory for data, in percent of the limit."`
	EvictedKeys         *int64        `json:"evicted_keys" doc:"Keys that were removed since the start for want of memory."`
	OpsPerSecond        *int64        `json:"ops_per_second" doc:"Commands per second, lately."`
	HitPercent          *float64      `json:"hit_percent" doc:"Reads since the start that found their key, in percent."`
	Keys                *int64        `json:"keys" doc:"Keys in the database of the target."`
	LastSaveAgeMS       *int64        `json:"last_save_age_ms" doc:"Age of the last snapshot that succeeded, or time since the start if there was none, in ms."`
	UnsavedChanges      *int64        `json:"unsaved_changes" doc:"Changes since that snapshot."`
	LastBgsaveOK        *bool         `json:"last_bgsave_ok" doc:"Whether the last snapshot succeeded."`
	AOFEnabled          *bool         `json:"aof_enabled" doc:"Whether the server keeps an append-only file."`
	AOFOK               *bool         `json:"aof_ok" doc:"Whether its last write and its last rewrite succeeded."`
	ClusterState        string        `json:"cluster_state" doc:"Of a node of a cluster: ok, or fail if it refuses to serve."`
	ClusterSlotsOK      *int64        `json:"cluster_slots_ok" doc:"Slots, of 16384, that a working node serves."`
	ClusterSlotsPfail   *int64        `json:"cluster_slots_pfail" doc:"Slots whose node this node can't reach."`
	ClusterSlotsFail    *int64        `json:"cluster_slots_fail" doc:"Slots whose node the cluster holds for dead."`
	ClusterKnownNodes   *int64        `json:"cluster_known_nodes" doc:"Nodes that this node knows, dead ones included."`
	ClusterSize         *int64        `json:"cluster_size" doc:"Masters that serve slots."`
	Masters             []redisMaster `json:"masters" doc:"Of a sentinel: its masters, 32 at most."`
	QuorumOK            *bool         `json:"quorum_ok" doc:"Of a sentinel: whether all masters that were looked at are up, and have enough sentinels for a failover."`
	Sentinels           []redisPeer   `json:"sentinels" doc:"With master: the other sentinels that were asked."`
	SentinelsAgree      *bool         `json:"sentinels_agree" doc:"Whether all other sentinels could be asked for master, and name the same address."`
	KeyExists           *bool         `json:"key_exists" doc:"Whether key exists."`
	KeyType             string        `json:"key_type" doc:"Its type: string, list, set, zset, hash, stream."`
	KeyLength           *int64        `json:"key_length" doc:"Its length: bytes of a string, elements of all others."`
	KeyTTLMS            *int64        `json:"key_ttl_ms" doc:"After this time it will be removed, in ms; absent: never."`
	Value               *string       `json:"value" doc:"Value of a string, of which no more than the first 64 KiB are read."`
	CanaryWriteMS       *float64      `json:"canary_write_ms" doc:"Time to write the canary, in ms."`
	CanaryReadMS        *float64      `json:"canary_read_ms" doc:"Time to read it back, in ms."`
	CanaryDeleteMS      *float64      `json:"canary_delete_ms" doc:"Time to delete it, in ms."`
}

// A redisMaster is a master that a sentinel looks after.
type redisMaster struct {
	Name      string `json:"name" doc:"Its name."`
	Status    string `json:"status" doc:"ok, sdown or odown: up, down for this sentinel, down for a quorum of them."`
	Address   string `json:"address" doc:"Its host and port."`
	Replicas  int    `json:"replicas" doc:"Replicas that the sentinel knows."`
	Sentinels int    `json:"sentinels" doc:"Sentinels that look after it, this one included."`
	QuorumOK  *bool  `json:"quorum_ok" doc:"Whether enough of them can be reached for a failover."`
}

// A redisPeer is another sentinel.
type redisPeer struct {
	Address string `json:"address" doc:"Its host and port."`
	Master  string `json:"master" doc:"Host and port of the master, as it says."`
	Error   string `json:"error" doc:"Why it could not be asked."`
}

func init() {
	register(probe.Info{
		Name:    "redis",
		Summary: "a server of Redis, Valkey or their kin answers, and is not cut off from its master or cluster",
		Schemes: []probe.Scheme{{Name: "redis", Port: 6379}, {Name: "rediss", Port: 6379, TLS: true}},
		Example: "redis://cache.example.org/0",
		Common:  probe.OverTCP,
		Expect: []string{
			"(redis.link ?? 'up') == 'up'", "(redis.cluster_state ?? 'ok') == 'ok'", "not (redis.loading ?? false)",
			"redis.quorum_ok ?? true", "redis.sentinels_agree ?? true", "redis.key_exists ?? true",
		},
		Warn: []string{"redis.last_bgsave_ok ?? true", "redis.aof_ok ?? true"},
		Doc: `Up means that the server takes the credentials (AUTH) and the number of the database (SELECT, the path of the URL), and answers PING with PONG. INFO is asked for in the same round trip. By default a replica whose link to its master is down is down, and so are a node of a cluster that refuses to serve, and a sentinel that could not fail over; a snapshot or append-only file that failed degrades. A server whose ACL forbids INFO is up, with info = false and most facts missing.

Up does not prove that data can be written: canary does. It sets a key with a random name that expires by itself, reads it back and deletes it, also when reading fails. On a node of a cluster, names are tried until one belongs to a slot of that node. key reads a key that is there.

A sentinel is known by its mode; for each of its masters, or for master alone, SENTINEL CKQUORUM is asked. With master, the other sentinels that it knows are asked for the address of that master too (eight at most, with the same credentials and the same way to connect).

Without credentials the check goes as far as PING; a server that wants a password is ` + "`denied`" + ` in phase auth.

Reasons: NOAUTH, WRONGPASS, NOPERM and protected mode are ` + "`denied`" + `; LOADING, MASTERDOWN, BUSY, CLUSTERDOWN, MISCONF, OOM, READONLY, NOREPLICAS and too many clients are ` + "`unavailable`" + `; a database that does not exist, or a canary that does not come back, is a ` + "`mismatch`" + `.

Phases: greet has HELLO (protocol = 3 without credentials), auth the login, request the other commands, verify the other sentinels. The protocol is RESP (redis.io/docs/latest/develop/reference/protocol-spec).`,
	}, redisOptions{Protocol: 2, Info: true, CanaryPrefix: "pup:canary:", CanaryTTL: wire.Duration(60e9)}, redis)
}

func redis(ctx context.Context, p *probe.Probe, opt *redisOptions, facts *redisFacts) error {
	s := &redisSession{p: p, opt: opt, facts: facts, user: opt.User}
	if err := s.prepare(); err != nil {
		return err
	}
	var err error
	if s.c, err = p.Dial(ctx); err != nil {
		return err
	}
	defer s.c.Close()
	if err := s.safe(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	switch {
	case facts.Mode == "cluster":
		err = s.cluster()
	case facts.Mode == "sentinel":
		err = s.sentinel(ctx)
	case opt.Master != "":
		err = probe.Failf(wire.Mismatch, "redis.master is for sentinels, and this is none")
	}
	if err == nil && opt.Key != "" {
		err = s.key()
	}
	if err == nil && opt.Canary {
		err = s.canary()
	}
	return err
}

// A redisSession is a connection on which commands are sent.
type redisSession struct {
	p     *probe.Probe
	c     *probe.Conn
	opt   *redisOptions
	facts *redisFacts
	user  string
	db    int
}

// prepare checks the options.
func (s *redisSession) prepare() error {
	if name := s.p.URL.User.Username(); s.user == "" {
		s.user = name
	}
	path := strings.Trim(s.p.URL.Path, "/")
	if s.opt.DB != nil {
		s.db = *s.opt.DB
		if path != "" {
			return probe.Failf(wire.BadOptions, "redis.db: the path of the URL names a database, too")
		}
	}
	if path != "" {
		n, err := strconv.ParseUint(path, 10, 31)
		if err != nil {
			return probe.Failf(wire.BadOptions, "the path of the URL, %.80q, is not the number of a database", path)
		}
		s.db = int(n)
	}
	if s.opt.Canary && s.opt.CanaryTTL < wire.Duration(1e6) {
		return probe.Failf(wire.BadOptions, "redis.canary_ttl: is shorter than a millisecond")
	}
	return nil
}

// safe refuses to log in where everybody on the way could read the password.
func (s *redisSession) safe() error {
	if s.login() && !s.opt.AllowPlainAuth && !s.c.Private() {
		return probe.Failf(wire.BadOptions, "redis: the credentials would be sent without TLS; write rediss://, or say redis.allow_plain_auth = true")
	}
	return nil
}

func (s *redisSession) login() bool { return s.user != "" || s.opt.Password != "" }

// authArgs gives the arguments of AUTH. Servers before Redis 6 have no users.
func (s *redisSession) authArgs() []string {
	if s.user == "" {
		return []string{"AUTH", s.opt.Password}
	}
	return []string{"AUTH", s.user, s.opt.Password}
}

// open logs in, selects the database, and asks for PING and INFO: with RESP2
// all in one round trip.
func (s *redisSession) open() error {
	s.facts.Protocol = 2
	loggedIn := false
	if s.opt.Protocol == 3 {
		var err error
		if loggedIn, err = s.hello(); err != nil {
			return err
		}
	}
	login := s.login() && !loggedIn
	var b []byte
	if login {
		b = redisAppend(b, s.authArgs()...)
	}
	if s.db > 0 {
		b = redisAppend(b, "SELECT", strconv.Itoa(s.db))
	}
	b = redisAppend(b, "PING")
	if s.opt.Info {
		b = redisAppend(b, "INFO")
	}
	s.p.Phase(wire.Request)
	if login {
		s.p.Phase(wire.Auth)
	}
	if _, err := s.c.Write(b); err != nil {
		return err
	}
	if login {
		if err := s.readAuth("AUTH"); err != nil {
			return err
		}
		s.p.Phase(wire.Request)
	}
	return s.readOpen()
}

func (s *redisSession) readOpen() error {
	if s.db > 0 {
		if err := s.want("SELECT", "OK", wire.Mismatch); err != nil {
			return err
		}
	}
	if err := s.want("PING", "PONG", wire.BadProtocol); err != nil {
		return err
	}
	if !s.opt.Info {
		return nil
	}
	v, err := redisRead(s.c)
	switch {
	case err != nil:
		return err
	case v.isError(): // an ACL, or a server that has renamed the command
		s.facts.Info = new(false)
		return nil
	case !v.isString():
		return probe.Protocolf("INFO: got %.80q, want a string", v.show())
	}
	s.facts.Info = new(true)
	redisParseInfo(string(v.text), s.db, s.facts)
	return nil
}

// readAuth reads the reply to a login. Whatever error it is, but that the
// server can't serve now, the login was refused.
func (s *redisSession) readAuth(command string) error {
	v, err := redisRead(s.c)
	switch {
	case err != nil:
		return err
	case v.isError():
		return redisRefusal(command, v.text, wire.Denied)
	case v.kind != '+' || string(v.text) != "OK":
		return probe.Protocolf("%s: got %.80q, want +OK", command, v.show())
	}
	return nil
}

// hello changes to RESP3 and logs in with the same command. On a server that
// does not know it, nothing has happened.
func (s *redisSession) hello() (loggedIn bool, err error) {
	args := []string{"HELLO", "3"}
	if !s.login() {
		s.p.Phase(wire.Greet)
	} else {
		s.p.Phase(wire.Auth)
		user := s.user
		if user == "" {
			user = "default"
		}
		args = append(args, "AUTH", user, s.opt.Password)
	}
	v, err := s.do(args...)
	switch {
	case err != nil:
		return false, err
	case v.isError():
		if redisReason(v.text, "") != "" {
			return false, s.refused("HELLO", v.text, "")
		}
		return false, nil
	case v.kind != '%':
		return false, probe.Protocolf("HELLO: got %.80q, want a map", v.show())
	}
	f := s.facts
	f.Protocol = 3
	for i := 0; i+1 < len(v.list); i += 2 {
		text := string(v.list[i+1].text)
		switch string(v.list[i].text) {
		case "server":
			f.Server = text
		case "version":
			f.Version = text
		case "mode":
			f.Mode = text
		case "role":
			if f.Role = text; text == "slave" {
				f.Role = "replica"
			}
		}
	}
	return s.login(), nil
}

// do sends a command and reads its reply, which may be an error of the server.
func (s *redisSession) do(args ...string) (redisValue, error) {
	if _, err := s.c.Write(redisAppend(nil, args...)); err != nil {
		return redisValue{}, err
	}
	return redisRead(s.c)
}

// want reads a reply that has to be the text. Otherwise is the reason of an
// error that says nothing of its own.
func (s *redisSession) want(command, text string, otherwise wire.Reason) error {
	v, err := redisRead(s.c)
	switch {
	case err != nil:
		return err
	case v.isError():
		return s.refused(command, v.text, otherwise)
	case !v.isString() || string(v.text) != text:
		return probe.Protocolf("%s: got %.80q, want %q", command, v.show(), text)
	}
	return nil
}

// refused is redisRefusal of what everybody may do who is let in at all: for
// want of rights it is a matter of the login.
func (s *redisSession) refused(command string, text []byte, otherwise wire.Reason) error {
	if redisReason(text, otherwise) == wire.Denied {
		s.p.Phase(wire.Auth)
	}
	return redisRefusal(command, text, otherwise)
}

// wantInteger reads a reply that has to be a number.
func (s *redisSession) wantInteger(command string) (int64, error) {
	v, err := redisRead(s.c)
	if err != nil {
		return 0, err
	}
	if v.isError() {
		return 0, redisRefusal(command, v.text, wire.Mismatch)
	}
	n, ok := v.integer()
	if !ok {
		return 0, probe.Protocolf("%s: got %.80q, want a number", command, v.show())
	}
	return n, nil
}

// redisReasons tell the server's errors apart by the words that they begin
// with.
var redisReasons = []struct {
	prefix string
	reason wire.Reason
}{
	{"NOAUTH", wire.Denied}, {"WRONGPASS", wire.Denied}, {"NOPERM", wire.Denied},
	{"DENIED", wire.Denied},                                                             // protected mode
	{"ERR invalid password", wire.Denied}, {"ERR operation not permitted", wire.Denied}, // before Redis 6 and 2.8
	{"LOADING", wire.Unavailable}, {"MASTERDOWN", wire.Unavailable}, {"BUSY", wire.Unavailable},
	{"UNKILLABLE", wire.Unavailable}, {"CLUSTERDOWN", wire.Unavailable}, {"TRYAGAIN", wire.Unavailable},
	{"MISCONF", wire.Unavailable}, {"OOM", wire.Unavailable}, {"READONLY", wire.Unavailable},
	{"NOREPLICAS", wire.Unavailable}, {"ERR max number of clients", wire.Unavailable},
	{"WRONGTYPE", wire.Mismatch},
}

// redisReason finds the reason of an error, or gives otherwise.
func redisReason(text []byte, otherwise wire.Reason) wire.Reason {
	for _, r := range redisReasons {
		if strings.HasPrefix(string(text), r.prefix) {
			return r.reason
		}
	}
	return otherwise
}

// redisRefusal words an error of the server.
func redisRefusal(command string, text []byte, otherwise wire.Reason) error {
	return probe.Failf(redisReason(text, otherwise), "%s: got %.200q", command, "-"+string(text))
}
