package checks

import (
	"net"
	"strconv"
	"strings"
	"time"
)

// A redisInfo is a reply to INFO: the fields that a fact is made of, by name.
type redisInfo map[string]string

// redisFields are those fields. INFO has more than a hundred others.
var redisFields = map[string]bool{
	"redis_version": true, "redis_mode": true, "role": true, "run_id": true, "uptime_in_seconds": true,
	"connected_clients": true, "rejected_connections": true, "evicted_keys": true, "used_memory": true, "maxmemory": true,
	"loading": true, "rdb_last_bgsave_status": true, "rdb_last_save_time": true, "aof_enabled": true, "aof_last_write_status": true,
	"connected_slaves": true, "master_repl_offset": true, "master_host": true, "master_port": true, "master_link_status": true,
	"master_link_down_since_seconds": true, "master_last_io_seconds_ago": true, "master_sync_in_progress": true, "slave_read_only": true,
	"cluster_state": true, "cluster_slots_ok": true, "cluster_slots_fail": true, "cluster_known_nodes": true,
}

// redisNumbered are the beginnings of fields that are followed by a number.
var redisNumbered = []string{"db", "slave", "master"}

func redisWanted(field string) bool {
	if redisFields[field] {
		return true
	}
	for _, name := range redisNumbered {
		if rest, ok := strings.CutPrefix(field, name); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return true
		}
	}
	return false
}

func redisParseInfo(text string) redisInfo {
	info := make(redisInfo, 32)
	for len(text) > 0 {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if k, v, ok := strings.Cut(line, ":"); ok && redisWanted(k) {
			info[k] = strings.TrimSuffix(v, "\r")
		}
	}
	return info
}

func (i redisInfo) number(field string) *int {
	n, err := strconv.Atoi(i[field])
	if err != nil {
		return nil
	}
	return &n
}

// seconds gives a field of seconds in milliseconds; negative ones mean that
// nobody knows.
func (i redisInfo) seconds(field string) *float64 {
	n := i.number(field)
	if n == nil || *n < 0 {
		return nil
	}
	return new(float64(*n) * 1000)
}

func (i redisInfo) ok(field string) *bool {
	if i[field] == "" {
		return nil
	}
	return new(i[field] == "ok")
}

func (i redisInfo) flag(field string) *bool {
	if i[field] == "" {
		return nil
	}
	return new(i[field] == "1")
}

// facts fills in what INFO tells.
func (i redisInfo) facts(f *redisFacts, db int) {
	f.Version, f.Mode, f.Role, f.RunID = i["redis_version"], i["redis_mode"], i["role"], i["run_id"]
	f.UptimeMS = i.seconds("uptime_in_seconds")
	f.Clients, f.Rejected, f.Evicted = i.number("connected_clients"), i.number("rejected_connections"), i.number("evicted_keys")
	f.UsedMemory = i.number("used_memory")
	if most := i.number("maxmemory"); most != nil && *most > 0 && f.UsedMemory != nil {
		f.MaxMemory = most
		f.MemoryPercent = new(100 * float64(*f.UsedMemory) / float64(*most))
	}
	if keys, ok := strings.CutPrefix(i["db"+strconv.Itoa(db)], "keys="); ok {
		keys, _, _ = strings.Cut(keys, ",")
		f.Keys = redisInfo{"n": keys}.number("n")
	} else if f.Mode != "sentinel" {
		f.Keys = new(0) // a database without keys is not listed
	}
	f.LastBgsaveOK = i.ok("rdb_last_bgsave_status")
	if t := i.number("rdb_last_save_time"); t != nil {
		f.LastSaveAgeMS = new(float64(time.Since(time.Unix(int64(*t), 0)).Milliseconds()))
	}
	if i["aof_enabled"] == "1" {
		f.AOFOK = i.ok("aof_last_write_status")
	}
	switch f.Role {
	case "master":
		i.replicas(f)
	case "slave":
		f.Master = net.JoinHostPort(i["master_host"], i["master_port"])
		f.Link = i["master_link_status"]
		f.LinkDownMS, f.MasterLastIOMS = i.seconds("master_link_down_since_seconds"), i.seconds("master_last_io_seconds_ago")
		f.Syncing, f.ReadOnly = i.flag("master_sync_in_progress"), i.flag("slave_read_only")
	}
}

// replicas looks at the lines slave0, slave1 and so on of a master.
func (i redisInfo) replicas(f *redisFacts) {
	f.Replicas = i.number("connected_slaves")
	offset := i.number("master_repl_offset")
	for n := 0; ; n++ {
		line, ok := i["slave"+strconv.Itoa(n)]
		if !ok {
			return
		}
		slave := redisPairs(line)
		if at := slave.number("offset"); at != nil && offset != nil {
			if behind := max(0, *offset-*at); f.ReplicaLagBytes == nil || behind > *f.ReplicaLagBytes {
				f.ReplicaLagBytes = &behind
			}
		}
		if lag := slave.seconds("lag"); lag != nil && (f.ReplicaLagMS == nil || *lag > *f.ReplicaLagMS) {
			f.ReplicaLagMS = lag
		}
	}
}

// redisPairs reads a line such as "ip=127.0.0.1,port=1,state=online".
func redisPairs(line string) redisInfo {
	m := redisInfo{}
	for pair := range strings.SplitSeq(line, ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			m[k] = v
		}
	}
	return m
}

func redisParseMaster(line string) redisMaster {
	m := redisPairs(line)
	return redisMaster{
		Name: m["name"], Status: m["status"], Address: m["address"],
		Replicas: m.number("slaves"), Sentinels: m.number("sentinels"),
	}
}
