package checks

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

type mongodbOptions struct {
	User           string `json:"user" doc:"The user to log in as, unless the URL names one. Without either nobody logs in."`
	Password       string `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback that is always allowed."`
	AuthSource     string `json:"auth_source" doc:"The database that knows the user, unless the path of the URL names one. Without either it is admin."`
	Mechanism      string `json:"mechanism" enum:"SCRAM-SHA-256,SCRAM-SHA-1" doc:"The SASL mechanism, instead of the best that the user has."`
	Stats          bool   `json:"stats" doc:"Ask for the version, the connections and the members of the set, in up to three more round trips."`
}

type mongodbFacts struct {
	Role             string          `json:"role" doc:"standalone, primary, secondary, arbiter, mongos, or other for a member that is starting, rolling back or removed."`
	SetName          string          `json:"set_name" doc:"The name of the replica set."`
	HasPrimary       *bool           `json:"has_primary" doc:"Of a member of a replica set: whether it knows a primary."`
	Primary          string          `json:"primary" doc:"Host and port of the primary."`
	Me               string          `json:"me" doc:"Host and port of this member, as the set calls it."`
	ReadOnly         *bool           `json:"read_only" doc:"Whether the server was started for reading only."`
	LastWriteAgeMS   *float64        `json:"last_write_age_ms" doc:"Of a member of a replica set: age of the last write that it has, by its own clock, in ms."`
	Authenticated    *bool           `json:"authenticated" doc:"Whether the check has logged in."`
	Mechanism        string          `json:"mechanism" doc:"The SASL mechanism that was used."`
	ErrorCode        *int            `json:"error_code" doc:"The number of the server's error, such as 18."`
	Version          string          `json:"version" doc:"The server's version."`
	UptimeMS         *float64        `json:"uptime_ms" doc:"Time since the start of the server, in ms. This, and what follows, only a user may see who has the role clusterMonitor."`
	Connections      *int            `json:"connections" doc:"How many clients are connected."`
	ConnectionsLeft  *int            `json:"connections_left" doc:"How many more may be."`
	Members          []mongodbMember `json:"members" doc:"The members of the replica set, 50 at most."`
	UnhealthyMembers *int            `json:"unhealthy_members" doc:"How many of them are neither primary, secondary nor arbiter, or can't be reached from here."`
	LagMS            *float64        `json:"lag_ms" doc:"How far the slowest secondary that can be reached is behind the primary, in ms."`
}

// A mongodbMember is a member of a replica set, as this one sees it.
type mongodbMember struct {
	Name    string   `json:"name" doc:"Its host and port."`
	State   string   `json:"state" doc:"PRIMARY, SECONDARY, ARBITER, STARTUP, RECOVERING, ROLLBACK, DOWN and so on."`
	Healthy bool     `json:"healthy" doc:"Whether it can be reached and is one of the first three."`
	LagMS   *float64 `json:"lag_ms" doc:"How far it is behind the primary, in ms."`
}

func init() {
	register(probe.Info{
		Name:    "mongodb",
		Summary: "a MongoDB server answers, and its replica set has a primary",
		Schemes: []probe.Scheme{{Name: "mongodb", Port: 27017}, {Name: "mongodbs", Port: 27017, TLS: true}},
		Example: "mongodb://db.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"mongodb.role != 'other'", "mongodb.has_primary ?? true"},
		Warn:    []string{"(mongodb.unhealthy_members ?? 0) == 0"},
		Doc: `Up means that the server answers hello and ping, that it takes the credentials if there are any, and that it works within its replica set: it is no member that is starting or rolling back, and knows a primary. A member that is down, seen from this one, degrades. Expect ` + "`mongodb.role == 'primary'`" + ` of the one that has to be.

Without credentials the check goes as far as ping, which every server answers; authenticated tells that. What needs the role clusterMonitor is left out for who does not have it.

Logging in is with SCRAM-SHA-256 or SCRAM-SHA-1. A cluster is checked member by member: the URL names one host, not mongodb+srv.

Reasons: errors 18, 13 and 11 are ` + "`denied`" + `; shutting down, stepping down, recovering are ` + "`unavailable`" + `.

Phases: greet has hello, auth the login, request the other commands. It speaks OP_MSG (MongoDB 3.6 and newer, and what is compatible with it), and is tested with transcripts, since no MongoDB server can be had from Debian; FerretDB 1.24 was asked by hand, with good, bad and no credentials.`,
	}, mongodbOptions{Stats: true}, mongodb)
}

// mongodbMaxMembers bounds the members of a set that are looked at; MongoDB
// itself allows no more.
const mongodbMaxMembers = 50

// A mongodbSession is a connection on which commands are sent.
type mongodbSession struct {
	c            *probe.Conn
	p            *probe.Probe
	opt          *mongodbOptions
	facts        *mongodbFacts
	user, source string
	id           uint32
}

func mongodb(ctx context.Context, p *probe.Probe, opt *mongodbOptions, facts *mongodbFacts) error {
	s := &mongodbSession{p: p, opt: opt, facts: facts, user: opt.User, source: opt.AuthSource}
	if err := s.prepare(); err != nil {
		return err
	}
	var err error
	if s.c, err = p.Dial(ctx); err != nil {
		return err
	}
	defer s.c.Close()
	if s.user != "" && !opt.AllowPlainAuth && !s.c.Private() {
		return probe.Failf(wire.BadOptions, "mongodb: the credentials would be sent without TLS; write mongodbs://, or say mongodb.allow_plain_auth = true")
	}
	p.Phase(wire.Greet)
	offered, err := s.hello()
	if err != nil {
		return err
	}
	facts.Authenticated = new(false)
	if s.user != "" {
		p.Phase(wire.Auth)
		if err := s.login(offered); err != nil {
			return err
		}
		*facts.Authenticated = true
	}
	p.Phase(wire.Request)
	if _, err := s.run("admin", mongodbNewInt("ping", 1)); err != nil {
		return err
	}
	if opt.Stats {
		return s.stats()
	}
	return nil
}

func (s *mongodbSession) prepare() error {
	if s.user == "" {
		s.user = s.p.URL.User.Username()
	}
	path := strings.Trim(s.p.URL.Path, "/")
	switch {
	case path != "" && s.source != "":
		return probe.Failf(wire.BadOptions, "mongodb.auth_source: the path of the URL names a database, too")
	case (s.user == "") != (s.opt.Password == ""):
		return probe.Failf(wire.BadOptions, "mongodb.user: user and password go together")
	}
	if s.source += path; s.source == "" {
		s.source = "admin"
	}
	return nil
}

// A mongodbRefusal is an error of a server that goes on.
type mongodbRefusal struct {
	code    int
	command string
	message string
}

func (r *mongodbRefusal) Error() string {
	return fmt.Sprintf("%s: got %d: %.200q", r.command, r.code, r.message)
}

// run sends a command and reads its answer. What the server refuses comes as
// an error with a reason and a mongodbRefusal in it.
func (s *mongodbSession) run(db string, members ...mongodbElement) (mongodbDoc, error) {
	s.id++
	doc := append(mongodbDoc(members), mongodbNewString("$db", db))
	if _, err := s.c.Write(mongodbAppend(nil, s.id, 0, doc)); err != nil {
		return nil, err
	}
	answer, err := mongodbRead(s.c, s.id)
	if err != nil {
		return nil, err
	}
	if answer.get("ok").yes() {
		return answer, nil
	}
	r := &mongodbRefusal{command: members[0].name, message: answer.get("errmsg").text()}
	code, ok := answer.get("code").number()
	if answer.get("ok").kind == 0 || !ok {
		return nil, probe.Protocolf("%s: got an answer with neither ok nor an error", r.command)
	}
	r.code = int(code)
	return nil, probe.Failf(mongodbReason(r.code), "%w", r)
}

// mongodbReason tells errors apart by their number.
func mongodbReason(code int) wire.Reason {
	switch code {
	case 11, 13, 18, 334, 8000:
		return wire.Denied
	case 6, 7, 89, 91, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436:
		return wire.Unavailable
	}
	return wire.Mismatch
}

// refused notes the number of a refusal.
func (s *mongodbSession) refused(err error) error {
	if r, ok := errors.AsType[*mongodbRefusal](err); ok {
		s.facts.ErrorCode = new(r.code)
	}
	return err
}

// hello asks the server what it is, and how the user may log in.
func (s *mongodbSession) hello() (offered []string, err error) {
	command := []mongodbElement{mongodbNewInt("hello", 1)}
	if s.user != "" {
		command = append(command, mongodbNewString("saslSupportedMechs", s.source+"."+s.user))
	}
	d, err := s.run("admin", command...)
	if r, ok := errors.AsType[*mongodbRefusal](err); ok && r.code == 59 { // no such command, before 4.4.2
		command[0] = mongodbNewInt("isMaster", 1)
		d, err = s.run("admin", command...)
	}
	if err != nil {
		return nil, s.refused(err)
	}
	s.facts.hello(d)
	for _, e := range d.get("saslSupportedMechs").doc() {
		offered = append(offered, e.text())
	}
	if offered == nil {
		offered = []string{sasl.ScramSHA256, sasl.ScramSHA1} // it does not say whether there is such a user
	}
	return offered, nil
}

func (f *mongodbFacts) hello(d mongodbDoc) {
	f.SetName, f.Primary, f.Me = d.get("setName").text(), d.get("primary").text(), d.get("me").text()
	if e := d.get("readOnly"); e.kind == mongodbBool {
		f.ReadOnly = new(e.yes())
	}
	primary := d.get("isWritablePrimary").yes() || d.get("ismaster").yes()
	inSet := f.SetName != "" || d.get("isreplicaset").yes()
	switch {
	case d.get("msg").text() == "isdbgrid":
		f.Role = "mongos"
	case primary && inSet:
		f.Role = "primary"
	case primary:
		f.Role = "standalone"
	case d.get("secondary").yes():
		f.Role = "secondary"
	case d.get("arbiterOnly").yes():
		f.Role = "arbiter"
	default:
		f.Role = "other"
	}
	if inSet {
		f.HasPrimary = new(f.Primary != "" || f.Role == "primary")
	}
	now, known := d.get("localTime").number()
	if last, ok := d.get("lastWrite").doc().get("lastWriteDate").number(); ok && known {
		f.LastWriteAgeMS = new(max(0, now-last))
	}
}

// login runs SCRAM.
func (s *mongodbSession) login(offered []string) error {
	name := s.opt.Mechanism
	for _, m := range []string{sasl.ScramSHA256, sasl.ScramSHA1} {
		if name == "" && slices.Contains(offered, m) {
			name = m
		}
	}
	if name == "" {
		return probe.Failf(wire.Denied, "login: the user may log in by %.200q only, which this check can't do", offered)
	}
	cred := sasl.Credentials{User: s.user, Password: s.opt.Password}
	if name == sasl.ScramSHA1 { // keeps to what the old login had in the place of the password
		sum := md5.Sum([]byte(s.user + ":mongo:" + s.opt.Password))
		cred.Password = hex.EncodeToString(sum[:])
	}
	cl, err := sasl.New(name, cred)
	if err != nil {
		return probe.Failf(wire.BadOptions, "mongodb: %w", err)
	}
	s.facts.Mechanism = name
	_, payload := cl.Start()
	d, err := s.run(s.source, mongodbNewInt("saslStart", 1), mongodbNewString("mechanism", name), mongodbNewBinary("payload", payload),
		mongodbNewDoc("options", mongodbDoc{mongodbNewBool("skipEmptyExchange", true)}))
	const rounds = 4
	for range rounds {
		if err != nil {
			return s.refused(err)
		}
		challenge := d.get("payload").data()
		if cl.Done() != nil || len(challenge) > 0 {
			if payload, err = cl.Next(challenge); err != nil {
				return loginError(err)
			}
		}
		if d.get("done").yes() {
			return loginError(cl.Done())
		}
		id := *d.get("conversationId")
		if id.kind != mongodbInt32 {
			return probe.Protocolf("login: the server names no conversation")
		}
		d, err = s.run(s.source, mongodbNewInt("saslContinue", 1), id, mongodbNewBinary("payload", payload))
	}
	return probe.Protocolf("login: more than %d rounds", rounds)
}

// stats asks for what the user may see.
func (s *mongodbSession) stats() error {
	d, err := s.ask(mongodbNewInt("buildInfo", 1))
	if err != nil {
		return err
	}
	f := s.facts
	f.Version = d.get("version").text()
	d, err = s.ask(mongodbNewInt("serverStatus", 1), mongodbNewInt("metrics", 0), mongodbNewInt("wiredTiger", 0), mongodbNewInt("locks", 0), mongodbNewInt("repl", 0))
	if err != nil {
		return err
	}
	if x, ok := d.get("uptimeMillis").number(); ok {
		f.UptimeMS = &x
	}
	whole := func(e *mongodbElement) *int {
		x, ok := e.number()
		if !ok {
			return nil
		}
		return new(int(x))
	}
	connections := d.get("connections").doc()
	f.Connections, f.ConnectionsLeft = whole(connections.get("current")), whole(connections.get("available"))
	if f.SetName == "" || f.Role == "mongos" {
		return nil
	}
	if d, err = s.ask(mongodbNewInt("replSetGetStatus", 1)); err == nil && d != nil {
		f.members(d.get("members").doc())
	}
	return err
}

// ask is run for what may be refused: then there is no answer, and no error.
func (s *mongodbSession) ask(members ...mongodbElement) (mongodbDoc, error) {
	d, err := s.run("admin", members...)
	if _, ok := errors.AsType[*mongodbRefusal](err); ok {
		return nil, nil
	}
	return d, err
}

func (f *mongodbFacts) members(list mongodbDoc) {
	var newest float64
	optimes := make([]float64, 0, mongodbMaxMembers)
	unhealthy := 0
	for _, e := range list[:min(len(list), mongodbMaxMembers)] {
		d := e.doc()
		m := mongodbMember{Name: d.get("name").text(), State: d.get("stateStr").text()}
		m.Healthy = d.get("health").yes() && (m.State == "PRIMARY" || m.State == "SECONDARY" || m.State == "ARBITER")
		at, _ := d.get("optimeDate").number()
		if m.State == "PRIMARY" {
			newest = at
		}
		if !m.Healthy {
			unhealthy++
		}
		optimes = append(optimes, at)
		f.Members = append(f.Members, m)
	}
	f.UnhealthyMembers = &unhealthy
	for i := range f.Members {
		m := &f.Members[i]
		if newest == 0 || optimes[i] == 0 || !m.Healthy || m.State != "SECONDARY" {
			continue
		}
		m.LagMS = new(max(0, newest-optimes[i]))
		if f.LagMS == nil || *m.LagMS > *f.LagMS {
			f.LagMS = m.LagMS
		}
	}
}
