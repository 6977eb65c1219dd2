package checks

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/sasl"
)

type postgresOptions struct {
	starttlsOptions
	User           string `json:"user" doc:"The role to log in as, unless the URL names one. Without either it is postgres."`
	Password       string `json:"password" secret:"true" doc:"Its password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Log in with a password over a connection without TLS, too. To the loopback that is always allowed."`
	Database       string `json:"database" doc:"The database, unless the path of the URL names one. Without either it has the name of the role."`
	Query          string `json:"query" doc:"The query whose first value becomes the fact value."`
	Stats          bool   `json:"stats" doc:"Ask for what most facts come from: role, lag, connections, start."`
}

type postgresFacts struct {
	StartTLS          *bool      `json:"starttls" doc:"Whether the server offers TLS."`
	Auth              string     `json:"auth" doc:"How the server lets this role log in: none (also with a certificate), password, md5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, gss, sspi."`
	SQLState          string     `json:"sqlstate" doc:"The code of the server's error, such as 28P01."`
	Version           string     `json:"version" doc:"The server's version."`
	Value             *string    `json:"value" doc:"The first column of the query's first row; absent if that is NULL."`
	Rows              *int       `json:"rows" doc:"How many rows the query has."`
	Stats             *bool      `json:"stats" doc:"Whether the server answered the question for the facts below. A pooler's own database does not."`
	Role              string     `json:"role" doc:"primary or replica."`
	ReadOnly          *bool      `json:"read_only" doc:"Whether the session can only read, as on a replica."`
	StartTime         *time.Time `json:"start_time" doc:"When the server started."`
	UptimeMS          *float64   `json:"uptime_ms" doc:"Time since then, in ms."`
	Connections       *int64     `json:"connections" doc:"How many sessions there are."`
	MaxConnections    *int64     `json:"max_connections" doc:"How many there may be."`
	ConnectionsLeft   *int64     `json:"connections_left" doc:"How many more there may be of roles that are not superusers."`
	Link              string     `json:"link" doc:"Of a replica: up if it receives the stream of its primary, else down."`
	LagMS             *float64   `json:"lag_ms" doc:"Of a replica: age of the last transaction that it has applied, in ms; 0 if it has applied all that it receives."`
	LagBytes          *int64     `json:"lag_bytes" doc:"Of a replica: what it has received but not applied yet."`
	Replicas          *int64     `json:"replicas" doc:"Of a primary: how many replicas stream from it."`
	ReplicaLagMS      *float64   `json:"replica_lag_ms" doc:"Of a primary: how long the slowest of them takes to apply, in ms. Only a role with pg_monitor can see it, and the next."`
	ReplicaLagBytes   *int64     `json:"replica_lag_bytes" doc:"Of a primary: how far the slowest of them is behind, in bytes."`
	XIDAge            *int64     `json:"xid_age" doc:"Transactions since the oldest that is not frozen. At two billion the server stops writing."`
	DatabaseSizeBytes *int64     `json:"database_size_bytes" doc:"Size of the database on disk."`
}

func init() {
	register(probe.Info{
		Name:    "postgres",
		Summary: "a PostgreSQL server lets a role in and answers its query",
		Schemes: []probe.Scheme{{Name: "postgres", Port: 5432}, {Name: "postgresql", Port: 5432}},
		Example: "postgres://pup@db.example.org/app",
		Common:  probe.OverTCP,
		Warn:    []string{"(postgres.link ?? 'up') == 'up'"},
		Doc: `Up means that the server lets the role into the database, and answers the query, SELECT 1 if there is none. By default a replica that receives no stream from its primary is degraded. expect judges the value: ` + "`int(postgres.value) > 0`" + `.

TLS is negotiated within the protocol (SSLRequest); starttls says whether it must be. The client certificate of tls can stand for the password. Logging in is with SCRAM-SHA-256, bound to the TLS connection where the server offers that (-PLUS), MD5 or the password in clear.

Without credentials the check goes as far as the server's question for a password, which is ` + "`denied`" + ` in phase auth.

Reasons, by the code of the error (SQLSTATE): class 28 and 42501 are ` + "`denied`" + `; 57P03 (starting up, shutting down), 53300 (too many connections) and all else of the classes 08, 53, 57 and 58 are ` + "`unavailable`" + `; 3D000 (no such database) and a query that fails are a ` + "`mismatch`" + `. pgbouncer and its kin give 08P01 for everything; its text tells it apart.

The facts from Role on come from a second query in the same round trip, over the functions and views that PostgreSQL has had since version 10.

Phases: greet has the negotiation of TLS and the start, tls the handshake, auth the login, request the database and the queries. It follows the chapter "Frontend/Backend Protocol" of PostgreSQL's manual, version 3.0.`,
	}, postgresOptions{starttlsOptions: starttlsOptions{"auto"}, Query: "SELECT 1", Stats: true}, postgres)
}

// A postgresSession is a connection on which messages are exchanged.
type postgresSession struct {
	c              *probe.Conn
	p              *probe.Probe
	opt            *postgresOptions
	facts          *postgresFacts
	user, database string
}

func postgres(ctx context.Context, p *probe.Probe, opt *postgresOptions, facts *postgresFacts) error {
	s := &postgresSession{p: p, opt: opt, facts: facts, user: opt.User, database: opt.Database}
	if err := s.prepare(); err != nil {
		return err
	}
	var err error
	if s.c, err = p.DialPlain(ctx); err != nil {
		return err
	}
	defer func() { s.c.Close() }()
	p.Phase(wire.Greet)
	if opt.StartTLS != "off" {
		if err := s.secure(ctx); err != nil {
			return err
		}
	}
	if err := s.start(); err != nil {
		return err
	}
	p.Phase(wire.Request)
	if err := s.queries(); err != nil {
		return err
	}
	_, err = s.c.Write(postgresAppend(nil, 'X', nil)) // so that the server's log has no complaint
	return err
}

func (s *postgresSession) prepare() error {
	if s.user == "" {
		s.user = s.p.URL.User.Username()
	}
	if s.user == "" {
		s.user = "postgres"
	}
	path := strings.Trim(s.p.URL.Path, "/")
	if path != "" && s.database != "" {
		return probe.Failf(wire.BadOptions, "postgres.database: the path of the URL names a database, too")
	}
	s.database += path
	if strings.ContainsRune(s.user+s.database+s.opt.Query+s.opt.Password, 0) {
		return probe.Failf(wire.BadOptions, "postgres: user, password, database and query must not hold a zero byte")
	}
	return nil
}

// secure asks for TLS, and speaks it where the server agrees.
func (s *postgresSession) secure(ctx context.Context) error {
	const sslRequest = 80877103
	if _, err := s.c.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)); err != nil {
		return err
	}
	b, err := s.c.ReadByte()
	if err != nil {
		return err
	}
	switch b {
	case 'S', 'N':
	case 'E': // it is so busy that it can't even answer that
		return s.startError()
	default:
		return probe.Protocolf("SSLRequest: got %q, want S or N", b)
	}
	s.facts.StartTLS = new(b == 'S')
	must := s.opt.Password != "" && !s.opt.AllowPlainAuth && !s.c.Private()
	wanted, err := s.opt.wanted(s.p, s.c, b == 'S', must)
	if err != nil || !wanted {
		return err
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err != nil {
		return err
	}
	s.c = c
	s.p.Phase(wire.Greet)
	return nil
}

// startError reads the error whose first byte has been taken.
func (s *postgresSession) startError() error {
	var head [4]byte
	if err := s.c.Full(head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > 4096 { // a server of the last century sends text here, and others are none of ours
		return probe.Protocolf("SSLRequest: got %.80q, want S or N", "E"+string(head[:]))
	}
	body := make([]byte, n-4)
	if err := s.c.Full(body); err != nil {
		return err
	}
	return s.refused("SSLRequest", body)
}

// start opens the session, and logs in.
func (s *postgresSession) start() error {
	const version = 3 << 16
	body := binary.BigEndian.AppendUint32(nil, version)
	for _, kv := range [][2]string{{"user", s.user}, {"database", s.database}, {"application_name", "pup-probe"}, {"client_encoding", "UTF8"}} {
		if kv[1] != "" {
			body = append(body, kv[0]+"\x00"+kv[1]+"\x00"...)
		}
	}
	if _, err := s.c.Write(postgresAppend(nil, 0, append(body, 0))); err != nil {
		return err
	}
	var cl sasl.Client
	for range postgresMaxMessages {
		kind, body, err := postgresRead(s.c)
		if err != nil {
			return err
		}
		switch kind {
		case 'R':
			if cl, err = s.auth(cl, body); err != nil {
				return err
			}
		case 'E':
			return s.refused("start", body)
		case 'S':
			if kv := postgresStrings(body); len(kv) == 2 && kv[0] == "server_version" {
				s.facts.Version = kv[1]
			}
		case 'K', 'N', 'v':
		case 'Z':
			return nil
		default:
			return probe.Protocolf("start: got a message %q", kind)
		}
	}
	return probe.Protocolf("start: more than %d messages", postgresMaxMessages)
}

// postgresMaxMessages bounds the messages of one step.
const postgresMaxMessages = 1 << 16

// The requests of the server for a proof of identity.
const (
	postgresAuthOK       = 0
	postgresAuthPassword = 3
	postgresAuthMD5      = 5
	postgresAuthGSS      = 7
	postgresAuthSSPI     = 9
	postgresAuthSASL     = 10
	postgresAuthContinue = 11
	postgresAuthFinal    = 12
)

// auth answers a request for a proof. The mechanism in use is handed through.
func (s *postgresSession) auth(cl sasl.Client, body []byte) (sasl.Client, error) {
	s.p.Phase(wire.Auth)
	if len(body) < 4 {
		return nil, probe.Protocolf("authentication: got %.80q", body)
	}
	code, data := binary.BigEndian.Uint32(body), body[4:]
	switch code {
	case postgresAuthOK:
		if cl != nil {
			if err := cl.Done(); err != nil {
				return nil, loginError(err)
			}
		}
		if s.facts.Auth == "" {
			s.facts.Auth = "none"
		}
		s.p.Phase(wire.Request) // the database, limits
		return nil, nil
	case postgresAuthContinue, postgresAuthFinal:
		if cl == nil {
			return nil, probe.Protocolf("authentication: got a challenge before a mechanism")
		}
		response, err := cl.Next(data)
		if err != nil || code == postgresAuthFinal {
			return cl, loginError(err)
		}
		return cl, s.send('p', response)
	}
	if err := s.method(code, data); err != nil {
		return nil, err
	}
	switch {
	case s.opt.Password == "":
		return nil, probe.Failf(wire.Denied, "the server wants a password (%s), and postgres.password is not given", s.facts.Auth)
	case !s.opt.AllowPlainAuth && !s.c.Private():
		return nil, probe.Failf(wire.BadOptions, "postgres: the password would be sent without TLS; use starttls, or say postgres.allow_plain_auth = true")
	}
	switch code {
	case postgresAuthPassword:
		return nil, s.send('p', []byte(s.opt.Password+"\x00"))
	case postgresAuthMD5:
		return nil, s.send('p', []byte(postgresMD5(s.user, s.opt.Password, data[:4])+"\x00"))
	}
	return s.sasl(postgresStrings(data))
}

// method notes how the server wants us to log in.
func (s *postgresSession) method(code uint32, data []byte) error {
	switch {
	case code == postgresAuthPassword:
		s.facts.Auth = "password"
	case code == postgresAuthMD5 && len(data) == 4:
		s.facts.Auth = "md5"
	case code == postgresAuthSASL:
		s.facts.Auth = strings.Join(postgresStrings(data), " ")
	case code == postgresAuthGSS:
		s.facts.Auth = "gss"
		return probe.Failf(wire.Denied, "the server wants a login with Kerberos (gss), which this check can't do")
	case code == postgresAuthSSPI:
		s.facts.Auth = "sspi"
		return probe.Failf(wire.Denied, "the server wants a login of Windows (sspi), which this check can't do")
	default:
		return probe.Protocolf("authentication: got a request %d, which nobody knows", code)
	}
	return nil
}

// postgresMD5 is the answer to a salt: "md5" and the hash of the hash that the
// server keeps.
func postgresMD5(user, password string, salt []byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return "md5" + hex.EncodeToString(outer[:])
}

// sasl starts the best mechanism, bound to the certificate where there is TLS.
// The name of the user is that of the session.
func (s *postgresSession) sasl(offered []string) (sasl.Client, error) {
	cred := sasl.Credentials{User: s.user, Password: s.opt.Password}
	if st := s.c.TLSState(); st != nil {
		cred.Binding, cred.TLS = "tls-server-end-point", st
	}
	cl, err := sasl.Pick(offered, cred, false)
	if err != nil {
		return nil, probe.Failf(wire.Denied, "%w", err)
	}
	name, initial := cl.Start()
	s.facts.Auth = name
	body := append([]byte(name), 0)
	body = binary.BigEndian.AppendUint32(body, uint32(len(initial)))
	return cl, s.send('p', append(body, initial...))
}

func (s *postgresSession) send(kind byte, body []byte) error {
	_, err := s.c.Write(postgresAppend(nil, kind, body))
	return err
}

// refused words an error of the server.
func (s *postgresSession) refused(what string, body []byte) error {
	e := postgresParseError(body)
	if len(e.code) != 5 {
		return probe.Protocolf("%s: got an error without a code: %.80q", what, body)
	}
	s.facts.SQLState = e.code
	reason := postgresReason(e)
	if reason == wire.Denied && what != "query" {
		s.p.Phase(wire.Auth)
	}
	return probe.Failf(reason, "%s: got %s: %.200q", what, e.code, e.message)
}

// postgresReason tells errors apart by their code.
func postgresReason(e postgresError) wire.Reason {
	if e.code == "08P01" { // of a pooler: everything
		switch {
		case strings.Contains(e.message, "authentication failed"), strings.Contains(e.message, "no such user"):
			return wire.Denied
		case strings.Contains(e.message, "no such database"):
			return wire.Mismatch
		}
		return wire.Unavailable
	}
	if e.code == "42501" {
		return wire.Denied
	}
	switch e.code[:2] {
	case "28":
		return wire.Denied
	case "08", "53", "57", "58":
		return wire.Unavailable
	}
	return wire.Mismatch
}
