package checks

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

type etcdOptions struct {
	User           string `json:"user" doc:"The user to log in as, where etcd's own authentication is on. A client certificate goes into tls."`
	Password       string `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Send the password without TLS to a host that is not loopback."`
	Key            string `json:"key" doc:"A key to read, by the word of a majority; it must exist."`
}

type etcdFacts struct {
	Healthy      *bool    `json:"healthy" doc:"Whether the member says that it is healthy: it has a leader, a majority answers, no alarm is on."`
	Version      string   `json:"version" doc:"The version of the member."`
	MemberID     string   `json:"member_id" doc:"The member's id, in hex."`
	ClusterID    string   `json:"cluster_id" doc:"The cluster's id, in hex."`
	HasLeader    *bool    `json:"has_leader" doc:"Whether the member knows a leader."`
	LeaderID     string   `json:"leader_id" doc:"The leader's id, in hex."`
	IsLeader     *bool    `json:"is_leader" doc:"Whether the member leads."`
	IsLearner    *bool    `json:"is_learner" doc:"Whether the member only learns and has no vote."`
	Members      *int     `json:"members" doc:"Members of the cluster, learners included."`
	RaftTerm     *int64   `json:"raft_term" doc:"The term: it grows with each election."`
	RaftIndex    *int64   `json:"raft_index" doc:"The last entry of the log."`
	RaftLag      *int64   `json:"raft_lag" doc:"Entries of the log that the member has not applied yet."`
	DBBytes      *int64   `json:"db_bytes" doc:"Size of the database file, in bytes."`
	DBInUseBytes *int64   `json:"db_in_use_bytes" doc:"The part of it that is used, in bytes; the rest is freed by defragmenting."`
	Alarms       []string `json:"alarms" doc:"Alarms that are on in the cluster: NOSPACE, CORRUPT."`
	Errors       []string `json:"errors" doc:"What the member complains of."`
	KeyBytes     *int     `json:"key_bytes" doc:"Size of the key's value, in bytes."`
	KeyRevision  *int64   `json:"key_revision" doc:"The revision of the store at the key's last change."`
	Value        string   `json:"value" large:"true" doc:"The key's value."`
	JSON         any      `json:"json" large:"true" doc:"The key's value as JSON; absent if it is none."`
}

func init() {
	register(probe.Info{
		Name:    "etcd",
		Summary: "a healthy member of an etcd cluster",
		Schemes: []probe.Scheme{{Name: "etcd", Port: 2379}, {Name: "etcds", Port: 2379, TLS: true}},
		Example: "etcds://etcd1.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"etcd.healthy", "etcd.has_leader", "etcd.alarms == nil or len(etcd.alarms) == 0"},
		Doc: `Up means that the member says that it is healthy, for which it reads by the word of a majority, that it has a leader, and that no alarm is on in the cluster. With ` + "`key`" + ` it also reads that key by the word of a majority.

It asks for ` + "`/health`" + ` and, by the JSON gateway of the API (` + "`/v3`" + `, etcd 3.4 or later), for the status, the alarms and the members, over one connection. Where etcd's authentication is on, those work without a login; a key needs user and password.

Unless an expression mentions ` + "`etcd.healthy`" + `, an unhealthy member is unavailable, with its own complaints as the error. A wrong password, a login that is asked for, and a key that the user may not read are denied, in phase auth. A key that does not exist is a mismatch.`,
	}, etcdOptions{}, etcdRun)
}

// etcdNumber is a number that the gateway writes as a string.
type etcdNumber struct{ n *int64 }

// UnmarshalJSON reads the number in either form.
func (x *etcdNumber) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // an id takes all of 64 bits
		var u uint64
		u, err = strconv.ParseUint(text, 10, 64)
		n = int64(u)
	}
	x.n = &n
	return err
}

// hex writes an id as etcdctl does; an absent one is "".
func (x etcdNumber) hex() string {
	if x.n == nil || *x.n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*x.n), 16)
}

type etcdStatus struct {
	Header struct {
		Cluster etcdNumber `json:"cluster_id"`
		Member  etcdNumber `json:"member_id"`
	} `json:"header"`
	Version string     `json:"version"`
	Leader  etcdNumber `json:"leader"`
	Learner bool       `json:"isLearner"`
	Term    etcdNumber `json:"raftTerm"`
	Index   etcdNumber `json:"raftIndex"`
	Applied etcdNumber `json:"raftAppliedIndex"`
	DB      etcdNumber `json:"dbSize"`
	InUse   etcdNumber `json:"dbSizeInUse"`
	Errors  []string   `json:"errors"`
}

func etcdRun(ctx context.Context, p *probe.Probe, opt *etcdOptions, facts *etcdFacts) error {
	switch {
	case opt.Password != "" && opt.User == "":
		return probe.Failf(wire.BadOptions, "etcd.password: needs etcd.user as well")
	case opt.User != "" && !p.URL.Scheme.TLS && !opt.AllowPlainAuth && !p.Loopback(p.URL.Host):
		return probe.Failf(wire.BadOptions, "etcd: the password would be sent without TLS; use etcds, or say etcd.allow_plain_auth = true")
	}
	s := &etcdSession{p: p, opt: opt, facts: facts, api: httpconn.NewAPI(p, "h2", "http/1.1")}
	defer s.api.Close()
	complaint, err := s.health(ctx)
	if err != nil {
		return err
	}
	if err := s.status(ctx); err != nil {
		return err
	}
	if !*facts.Healthy && !p.Reads("etcd.healthy") {
		if len(facts.Errors) > 0 {
			complaint = strings.Join(facts.Errors, ", ")
		}
		return probe.Failf(wire.Unavailable, "the member is not healthy: %.200q", complaint)
	}
	if !*facts.HasLeader {
		return nil // whatever needs a majority would wait for it
	}
	if err := s.cluster(ctx); err != nil || opt.Key == "" {
		return err
	}
	if opt.User != "" {
		if err := s.login(ctx); err != nil {
			return err
		}
	}
	return s.key(ctx)
}

type etcdSession struct {
	p     *probe.Probe
	opt   *etcdOptions
	facts *etcdFacts
	api   *httpconn.API
}

// health asks the member for its health, and gives the reason that it names.
func (s *etcdSession) health(ctx context.Context) (complaint string, err error) {
	resp, text, err := s.api.Do(ctx, "/health", nil)
	if err != nil {
		return "", err
	}
	var h struct {
		Health string `json:"health"`
		Reason string `json:"reason"`
	}
	if json.Unmarshal(text, &h) != nil || h.Health != "true" && h.Health != "false" {
		return "", probe.Protocolf("/health: got status %d and %.80q, want JSON with health", resp.Status, text)
	}
	s.facts.Healthy = new(h.Health == "true" && resp.Status == 200)
	return h.Reason, nil
}

// ask calls a method of the gateway.
func (s *etcdSession) ask(ctx context.Context, method string, request, into any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return probe.Failf(wire.Internal, "%s: %w", method, err)
	}
	resp, text, err := s.api.Do(ctx, "/v3/"+method, body)
	if err != nil {
		return err
	}
	if resp.Status != 200 {
		return s.refused(method, resp, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return probe.Protocolf("%s: got %.80q, want JSON: %w", method, text, err)
	}
	return nil
}

// refused words the error of a method. The gateway gives the code of gRPC.
func (s *etcdSession) refused(method string, resp *httpconn.Response, text []byte) error {
	var e struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &e) != nil || e.Message == "" {
		return probe.Protocolf("%s: got status %d and %.80q, want JSON", method, resp.Status, text)
	}
	switch {
	case e.Code == grpcPermissionDenied, e.Code == grpcUnauthenticated,
		strings.Contains(e.Message, "authentication failed"), strings.Contains(e.Message, "user name is empty"):
		s.p.Phase(wire.Auth)
		return probe.Failf(wire.Denied, "%s: %.200q", method, e.Message)
	case e.Code == grpcUnavailable:
		return probe.Failf(wire.Unavailable, "%s: %.200q", method, e.Message)
	}
	return probe.Failf(wire.Mismatch, "%s: %.200q", method, e.Message)
}

func (s *etcdSession) status(ctx context.Context) error {
	var st etcdStatus
	if err := s.ask(ctx, "maintenance/status", struct{}{}, &st); err != nil {
		return err
	}
	if st.Version == "" || st.Header.Member.n == nil {
		return probe.Protocolf("maintenance/status: got JSON without version and member")
	}
	f := s.facts
	f.Version, f.Errors = st.Version, st.Errors
	f.MemberID, f.ClusterID, f.LeaderID = st.Header.Member.hex(), st.Header.Cluster.hex(), st.Leader.hex()
	f.HasLeader, f.IsLeader, f.IsLearner = new(f.LeaderID != ""), new(f.LeaderID == f.MemberID), &st.Learner
	f.RaftTerm, f.RaftIndex = st.Term.n, st.Index.n
	f.DBBytes, f.DBInUseBytes = st.DB.n, st.InUse.n
	if st.Index.n != nil && st.Applied.n != nil {
		f.RaftLag = new(*st.Index.n - *st.Applied.n)
	}
	return nil
}

// cluster asks for the alarms and the members.
func (s *etcdSession) cluster(ctx context.Context) error {
	var a struct {
		Alarms []struct {
			Alarm string `json:"alarm"`
		} `json:"alarms"`
	}
	if err := s.ask(ctx, "maintenance/alarm", map[string]string{"action": "GET"}, &a); err != nil {
		return err
	}
	s.facts.Alarms = []string{}
	for _, x := range a.Alarms[:min(len(a.Alarms), 32)] {
		s.facts.Alarms = append(s.facts.Alarms, x.Alarm)
	}
	var m struct {
		Members []struct{} `json:"members"`
	}
	if err := s.ask(ctx, "cluster/member/list", struct{}{}, &m); err != nil {
		return err
	}
	s.facts.Members = new(len(m.Members))
	return nil
}

func (s *etcdSession) login(ctx context.Context) error {
	s.p.Phase(wire.Auth)
	var t struct {
		Token string `json:"token"`
	}
	err := s.ask(ctx, "auth/authenticate", map[string]string{"name": s.opt.User, "password": s.opt.Password}, &t)
	if err != nil {
		return err
	}
	if t.Token == "" || !httpconn.FieldValue(t.Token) {
		return probe.Protocolf("auth/authenticate: got no token")
	}
	s.api.Fields.Set("authorization", t.Token)
	return nil
}

func (s *etcdSession) key(ctx context.Context) error {
	var r struct {
		KVs []struct {
			Value    []byte     `json:"value"`
			Revision etcdNumber `json:"mod_revision"`
		} `json:"kvs"`
	}
	if err := s.ask(ctx, "kv/range", map[string][]byte{"key": []byte(s.opt.Key)}, &r); err != nil {
		return err
	}
	if len(r.KVs) == 0 {
		s.p.Phase(wire.Verify)
		return probe.Failf(wire.Mismatch, "there is no key %.80q", s.opt.Key)
	}
	f, kv := s.facts, r.KVs[0]
	f.KeyBytes, f.KeyRevision, f.Value = new(len(kv.Value)), kv.Revision.n, string(kv.Value)
	if s.p.Reads("etcd.json") {
		f.JSON, _ = expr.Value(kv.Value)
	}
	return nil
}
