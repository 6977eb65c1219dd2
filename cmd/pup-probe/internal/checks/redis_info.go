package checks

import (
	"strconv"
	"strings"
	"time"
)

// A redisInfo is what INFO says and several facts are made of.
type redisInfo struct {
	db                                string // whose keys are counted
	now, lastSave                     int64
	offset, readOffset, appliedOffset int64
	lagging, lag                      int64 // the lowest offset and the oldest word of a replica
	replicas                          int   // how many told those
	hits, misses                      int64
	host, port                        string
	aofBroken                         bool
}

// redisParseInfo takes facts from the text that INFO answers. Names that it
// does not know are left alone, and so are values that are not what their
// name promises.
func redisParseInfo(text string, db int, f *redisFacts) {
	i := redisInfo{db: "db" + strconv.Itoa(db), now: -1, lastSave: -1, offset: -1, readOffset: -1, appliedOffset: -1}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		key, value, ok := strings.Cut(line, ":")
		switch {
		case line == "# Keyspace": // has the databases that hold something
			f.Keys = new(int64(0))
		case ok && !i.text(key, value, f):
			i.number(key, value, f)
		}
	}
	i.conclude(f)
}

// text takes what is no number. It says whether the key is one of those.
func (i *redisInfo) text(key string, value string, f *redisFacts) bool {
	switch key {
	case "redis_version":
		if f.Version == "" {
			f.Server, f.Version = "redis", value
		}
	case "valkey_version", "dragonfly_version": // beside the redis_version that they are compatible with
		f.Server, f.Version = strings.TrimSuffix(key, "_version"), value
	case "redis_mode", "server_mode":
		f.Mode = value
	case "run_id":
		f.RunID = value
	case "maxmemory_policy":
		f.MaxMemoryPolicy = value
	case "role":
		if f.Role = value; f.Role == "slave" {
			f.Role = "replica"
		}
	case "master_host":
		i.host = value
	case "master_port":
		i.port = value
	case "master_link_status":
		f.Link = value
	case "rdb_last_bgsave_status":
		f.LastBgsaveOK = new(value == "ok")
	case "aof_last_bgrewrite_status", "aof_last_write_status":
		i.aofBroken = i.aofBroken || value != "ok"
	default:
		return i.listed(key, value, f)
	}
	return true
}

// listed takes lines that hold several values: slave0:ip=…,state=online,
// db0:keys=3,…, master0:name=main,status=ok,….
func (i *redisInfo) listed(key string, value string, f *redisFacts) bool {
	if last := key[max(0, len(key)-1):]; last < "0" || last > "9" { // nearly all of them
		return false
	}
	name := strings.TrimRight(key, "0123456789")
	get := func(member string) string {
		for m := range strings.SplitSeq(value, ",") {
			if k, v, _ := strings.Cut(m, "="); k == member {
				return v
			}
		}
		return ""
	}
	number := func(member string) int64 { n, _ := redisNumber(get(member)); return n }
	switch name {
	case "db":
		if key == i.db {
			f.Keys = new(number("keys"))
		}
	case "slave":
		if get("state") != "online" {
			break
		}
		f.OnlineReplicas = redisAdd(f.OnlineReplicas, 1)
		if offset := number("offset"); i.replicas == 0 || offset < i.lagging {
			i.lagging = offset
		}
		i.lag = max(i.lag, number("lag"))
		i.replicas++
	case "master":
		if len(f.Masters) < redisMaxMasters {
			f.Masters = append(f.Masters, redisMaster{
				Name: get("name"), Status: get("status"), Address: get("address"),
				Replicas: int(number("slaves")), Sentinels: int(number("sentinels")),
			})
		}
	default:
		return false
	}
	return true
}

func redisAdd(n *int, more int) *int {
	if n == nil {
		return new(more)
	}
	*n += more
	return n
}

// number takes numbers.
func (i *redisInfo) number(key string, value string, f *redisFacts) {
	n, ok := redisNumber(value)
	if !ok {
		return
	}
	yes := n != 0
	switch key {
	case "uptime_in_seconds":
		f.UptimeMS = new(1000 * n)
	case "server_time_usec":
		i.now = n / 1e6
	case "connected_clients":
		f.Clients = new(n)
	case "maxclients":
		f.MaxClients = new(n)
	case "blocked_clients":
		f.BlockedClients = new(n)
	case "used_memory":
		f.UsedMemoryBytes = new(n)
	case "maxmemory":
		f.MaxMemoryBytes = new(n)
	case "loading", "async_loading":
		f.Loading = new(yes || f.Loading != nil && *f.Loading)
	case "rdb_last_save_time":
		i.lastSave = n
	case "rdb_changes_since_last_save":
		f.UnsavedChanges = new(n)
	case "aof_enabled":
		f.AOFEnabled = new(yes)
	case "evicted_keys":
		f.EvictedKeys = new(n)
	case "rejected_connections":
		f.RejectedConnections = new(n)
	case "instantaneous_ops_per_sec":
		f.OpsPerSecond = new(n)
	case "keyspace_hits":
		i.hits = n
	case "keyspace_misses":
		i.misses = n
	case "connected_slaves":
		f.ConnectedReplicas = new(int(n))
	case "master_last_io_seconds_ago":
		f.LagMS = new(1000 * n)
	case "master_link_down_since_seconds":
		f.LinkDownMS = new(1000 * n)
	case "master_sync_in_progress":
		f.Syncing = new(yes)
	case "slave_read_only":
		f.ReadOnly = new(yes)
	case "master_repl_offset":
		i.offset = n
	case "slave_read_repl_offset":
		i.readOffset = n
	case "slave_repl_offset":
		i.appliedOffset = n
	}
}

// conclude makes the facts that need several lines.
func (i *redisInfo) conclude(f *redisFacts) {
	if f.Mode == "sentinel" {
		f.Role = "sentinel"
	}
	if i.host != "" {
		f.Master = i.host + ":" + i.port
	}
	if used, most := f.UsedMemoryBytes, f.MaxMemoryBytes; used != nil && most != nil && *most > 0 {
		f.MemoryPercent = new(float64(*used*1000 / *most) / 10)
	}
	if all := i.hits + i.misses; all > 0 {
		f.HitPercent = new(float64(i.hits*1000/all) / 10)
	}
	if f.AOFEnabled != nil && *f.AOFEnabled {
		f.AOFOK = new(!i.aofBroken)
	}
	if i.lastSave > 0 {
		if i.now < 0 {
			i.now = time.Now().Unix() // older than Redis 7, which tells its own time
		}
		f.LastSaveAgeMS = new(1000 * max(0, i.now-i.lastSave))
	}
	if f.Role == "replica" {
		if f.Offset = redisKnown(i.appliedOffset); i.readOffset >= i.appliedOffset && i.appliedOffset >= 0 {
			f.LagBytes = new(i.readOffset - i.appliedOffset)
		}
		return
	}
	f.Offset = redisKnown(i.offset)
	if f.Role == "master" && f.OnlineReplicas == nil && f.ConnectedReplicas != nil {
		f.OnlineReplicas = new(0)
	}
	if i.replicas > 0 {
		f.LagMS = new(1000 * i.lag)
		f.LagBytes = new(max(0, i.offset-i.lagging))
	}
}

func redisKnown(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// redisNumber reads a number that is not negative: -1 stands for unknown.
// Unlike strconv it makes no error, of which INFO would have dozens.
func redisNumber(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}
