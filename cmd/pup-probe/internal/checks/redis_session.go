package checks

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	redisMaxMasters   = 32       // of a sentinel that are looked at
	redisMaxSentinels = 8        // others that are asked
	redisMaxValue     = 64 << 10 // bytes of a key's value
	redisMaxNames     = 256      // of a canary that are tried on a node of a cluster
)

// send writes several commands at once.
func (s *redisSession) send(commands ...[]string) error {
	var b []byte
	for _, args := range commands {
		b = redisAppend(b, args...)
	}
	_, err := s.c.Write(b)
	return err
}

// cluster asks a node of a cluster how it sees it.
func (s *redisSession) cluster() error {
	v, err := s.do("CLUSTER", "INFO")
	switch {
	case err != nil:
		return err
	case v.isError(): // an ACL
		return nil
	case !v.isString():
		return probe.Protocolf("CLUSTER INFO: got %.80q, want a string", v.show())
	}
	f := s.facts
	numbers := map[string]**int64{
		"cluster_slots_ok": &f.ClusterSlotsOK, "cluster_slots_pfail": &f.ClusterSlotsPfail, "cluster_slots_fail": &f.ClusterSlotsFail,
		"cluster_known_nodes": &f.ClusterKnownNodes, "cluster_size": &f.ClusterSize,
	}
	for line := range strings.SplitSeq(string(v.text), "\n") {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		if n, ok := redisNumber(value); ok && numbers[key] != nil {
			*numbers[key] = &n
		}
		if key == "cluster_state" {
			f.ClusterState = value
		}
	}
	return nil
}

// sentinel looks at the masters of a sentinel.
func (s *redisSession) sentinel(ctx context.Context) error {
	f := s.facts
	if s.opt.Master != "" {
		i := slices.IndexFunc(f.Masters, func(m redisMaster) bool { return m.Name == s.opt.Master })
		if i < 0 {
			return probe.Failf(wire.Mismatch, "the sentinel has no master %.80q", s.opt.Master)
		}
		f.Masters = f.Masters[i : i+1]
	}
	var ask [][]string
	for _, m := range f.Masters {
		ask = append(ask, []string{"SENTINEL", "CKQUORUM", m.Name})
	}
	if ask == nil {
		return nil
	}
	if err := s.send(ask...); err != nil {
		return err
	}
	all := true
	for i := range f.Masters {
		v, err := redisRead(s.c)
		if err != nil {
			return err
		}
		m := &f.Masters[i]
		if !v.isError() || strings.HasPrefix(string(v.text), "NOQUORUM") {
			m.QuorumOK = new(!v.isError())
		}
		all = all && m.Status == "ok" && (m.QuorumOK == nil || *m.QuorumOK)
	}
	f.QuorumOK = &all
	if s.opt.Master == "" {
		return nil
	}
	return s.agree(ctx, f.Masters[0].Address)
}

// agree asks the other sentinels where the master is.
func (s *redisSession) agree(ctx context.Context, master string) error {
	v, err := s.do("SENTINEL", "SENTINELS", s.opt.Master)
	if err != nil {
		return err
	}
	if v.isError() {
		return redisRefusal("SENTINEL SENTINELS", v.text, wire.BadProtocol)
	}
	for _, e := range v.list {
		var host, port string
		for i := 0; i+1 < len(e.list); i += 2 {
			switch string(e.list[i].text) {
			case "ip":
				host = string(e.list[i+1].text)
			case "port":
				port = string(e.list[i+1].text)
			}
		}
		if len(s.facts.Sentinels) < redisMaxSentinels {
			s.facts.Sentinels = append(s.facts.Sentinels, redisPeer{Address: net.JoinHostPort(host, port)})
		}
	}
	if own, err := netip.ParseAddrPort(s.c.RemoteAddr().String()); err == nil {
		defer s.p.SetAddress(own) // the result is about this one
	}
	agree := true
	for i := range s.facts.Sentinels {
		peer := &s.facts.Sentinels[i]
		if peer.Master, err = s.ask(ctx, peer.Address, len(s.facts.Sentinels)-i); err != nil {
			peer.Error = err.Error()
		}
		agree = agree && peer.Master == master
	}
	s.p.Phase(wire.Verify)
	s.facts.SentinelsAgree = &agree
	return ctx.Err()
}

// ask asks one of left other sentinels for the address of the master, with a
// fair share of the time that remains.
func (s *redisSession) ask(ctx context.Context, address string, left int) (string, error) {
	if t, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(t)/time.Duration(left+1))
		defer cancel()
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", errors.New("its port is no number")
	}
	other := *s
	if other.c, err = s.p.DialHost(ctx, "tcp", host, int(n)); err != nil {
		return "", err
	}
	if s.p.URL.Scheme.TLS {
		if other.c, err = s.p.StartTLS(ctx, other.c); err != nil {
			return "", err
		}
	}
	defer other.c.Close()
	s.p.Phase(wire.Verify)
	if s.login() {
		if err := other.safe(); err != nil {
			return "", err
		}
		if err := other.send(s.authArgs()); err != nil {
			return "", err
		}
		if err := other.readAuth("AUTH"); err != nil {
			return "", err
		}
	}
	v, err := other.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.opt.Master)
	switch {
	case err != nil:
		return "", err
	case v.isError():
		return "", redisRefusal("SENTINEL GET-MASTER-ADDR-BY-NAME", v.text, wire.BadProtocol)
	case len(v.list) != 2:
		return "", errors.New("it knows no such master")
	}
	return net.JoinHostPort(string(v.list[0].text), string(v.list[1].text)), nil
}

// redisLengths are the commands that tell how much a key of a type holds.
var redisLengths = map[string]string{
	"string": "STRLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN",
}

// key reads the key that the target asks for.
func (s *redisSession) key() error {
	f, key := s.facts, s.opt.Key
	if err := s.send([]string{"TYPE", key}, []string{"PTTL", key}); err != nil {
		return err
	}
	v, err := redisRead(s.c)
	switch {
	case err != nil:
		return err
	case v.isError():
		return redisRefusal("TYPE", v.text, wire.Mismatch)
	case !v.isString():
		return probe.Protocolf("TYPE: got %.80q, want a type", v.show())
	}
	ttl, err := s.wantInteger("PTTL")
	if err != nil {
		return err
	}
	kind := string(v.text)
	f.KeyExists = new(kind != "none")
	if kind == "none" {
		return nil
	}
	f.KeyType = kind
	f.KeyTTLMS = redisKnown(ttl)
	length := redisLengths[kind]
	if length == "" { // of a module
		return nil
	}
	if err := s.send([]string{length, key}); err != nil {
		return err
	}
	n, err := s.wantInteger(length)
	if err != nil {
		return err
	}
	f.KeyLength = &n
	if kind != "string" {
		return nil
	}
	if v, err = s.do("GETRANGE", key, "0", strconv.Itoa(redisMaxValue-1)); err != nil {
		return err
	}
	if !v.isString() {
		return probe.Protocolf("GETRANGE: got %.80q, want a string", v.show())
	}
	f.Value = new(string(v.text))
	return nil
}

// canary writes a key, reads it back and deletes it. It is deleted also if it
// could not be read.
func (s *redisSession) canary() error {
	text := rand.Text()
	key, err := s.writeCanary(text)
	if err != nil {
		return err
	}
	start := time.Now()
	v, err := s.do("GET", key)
	if err != nil {
		return err // nothing can be sent any more
	}
	s.facts.CanaryReadMS = new(wire.MS(time.Since(start)))
	switch {
	case v.isError():
		err = redisRefusal("GET of the canary", v.text, wire.Mismatch)
	case v.null:
		err = probe.Failf(wire.Mismatch, "GET of the canary: it is gone")
	case !v.isString() || string(v.text) != text:
		err = probe.Failf(wire.Mismatch, "GET of the canary: got %.80q, want %q", v.show(), text)
	}
	start = time.Now()
	if serr := s.send([]string{"DEL", key}); serr != nil {
		return errors.Join(err, serr)
	}
	n, derr := s.wantInteger("DEL of the canary")
	switch {
	case err != nil:
		return err
	case derr != nil:
		return derr
	case n != 1:
		return probe.Failf(wire.Mismatch, "DEL of the canary: %d keys were deleted, want 1", n)
	}
	s.facts.CanaryDeleteMS = new(wire.MS(time.Since(start)))
	return nil
}

// writeCanary sets a key. A node of a cluster takes only those whose slot it
// serves, so that several names may have to be tried.
func (s *redisSession) writeCanary(text string) (key string, err error) {
	ttl := strconv.FormatInt(time.Duration(s.opt.CanaryTTL).Milliseconds(), 10)
	for range redisMaxNames {
		key = s.opt.CanaryPrefix + rand.Text()
		start := time.Now()
		v, err := s.do("SET", key, text, "PX", ttl, "NX")
		switch {
		case err != nil:
			return "", err
		case v.isError() && strings.HasPrefix(string(v.text), "MOVED "):
			continue
		case v.isError():
			return "", redisRefusal("SET of the canary", v.text, wire.Mismatch)
		case v.kind != '+' || string(v.text) != "OK":
			return "", probe.Protocolf("SET of the canary: got %.80q, want +OK", v.show())
		}
		s.facts.CanaryWriteMS = new(wire.MS(time.Since(start)))
		return key, nil
	}
	return "", probe.Failf(wire.Unavailable, "SET of the canary: this node serves none of the slots of %d names", redisMaxNames)
}
