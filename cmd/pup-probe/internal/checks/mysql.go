package checks

import (
	"context"
	"encoding/binary"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type mysqlOptions struct {
	starttlsOptions
	User           string `json:"user" doc:"The user to log in as, unless the URL names one. Without either it is root."`
	Password       string `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Log in with a password over a connection without TLS, too. To the loopback that is always allowed."`
	Database       string `json:"database" doc:"The database, unless the path of the URL names one. Without either there is none."`
	Query          string `json:"query" doc:"The query whose first value becomes the fact value."`
	Stats          bool   `json:"stats" doc:"Ask for what most facts come from: role, threads and lag of a replica, connections, start. That takes three more round trips."`
}

type mysqlFacts struct {
	Version         string   `json:"version" doc:"The server's version, as it greets."`
	Server          string   `json:"server" doc:"mysql or mariadb."`
	StartTLS        *bool    `json:"starttls" doc:"Whether the server offers TLS."`
	Auth            string   `json:"auth" doc:"How this user logs in: mysql_native_password, caching_sha2_password, sha256_password, client_ed25519, mysql_clear_password."`
	ErrorCode       *int     `json:"error_code" doc:"The number of the server's error, such as 1045."`
	Value           *string  `json:"value" doc:"The first column of the query's first row; absent if that is NULL."`
	Rows            *int     `json:"rows" doc:"How many rows the query has."`
	UptimeMS        *int64   `json:"uptime_ms" doc:"Time since the start of the server, in ms."`
	ReadOnly        *bool    `json:"read_only" doc:"Whether the server refuses writes of ordinary users."`
	Connections     *int64   `json:"connections" doc:"How many clients are connected."`
	MaxConnections  *int64   `json:"max_connections" doc:"How many may be."`
	ConnectionsLeft *int64   `json:"connections_left" doc:"How many more may be."`
	Rejected        *int64   `json:"rejected_connections" doc:"Connections refused since the start, since there were too many."`
	SlowQueries     *int64   `json:"slow_queries" doc:"Slow queries since the start."`
	Role            string   `json:"role" doc:"replica, or primary for what is none. Absent if the user may not ask: that takes REPLICATION CLIENT, in MariaDB SLAVE MONITOR."`
	Primary         string   `json:"primary" doc:"Of a replica: host and port of its primary."`
	IORunning       *bool    `json:"io_running" doc:"Of a replica: whether it receives from its primary. Of several channels: from all."`
	SQLRunning      *bool    `json:"sql_running" doc:"Of a replica: whether it applies what it has received."`
	LagMS           *float64 `json:"lag_ms" doc:"Of a replica: how far it is behind, in ms; the server counts in seconds. Absent while it does not replicate."`
	ReplicaError    string   `json:"replica_error" doc:"Of a replica: why it does not replicate."`
}

func init() {
	register(probe.Info{
		Name:    "mysql",
		Summary: "a MySQL or MariaDB server lets a user in and answers its query",
		Schemes: []probe.Scheme{{Name: "mysql", Port: 3306}, {Name: "mariadb", Port: 3306}},
		Example: "mysql://pup@db.example.org/app",
		Common:  probe.OverTCP,
		Warn:    []string{"mysql.io_running ?? true", "mysql.sql_running ?? true"},
		Doc: `Up means that the server lets the user into the database, and answers the query, SELECT 1 if there is none. By default a replica of which one of both threads does not run is degraded. expect judges the value: ` + "`int(mysql.value) > 0`" + `.

TLS is negotiated within the protocol; starttls says whether it must be. Logging in is with mysql_native_password, caching_sha2_password and sha256_password (the password under TLS, else encrypted for the server's RSA key), client_ed25519 and, where that is safe, mysql_clear_password; the server picks.

Without credentials the check logs in as root without a password, which is ` + "`denied`" + ` in phase auth.

Reasons, by the number of the error: 1045 and all else about rights, hosts, locked accounts and expired passwords are ` + "`denied`" + `; 1040 (too many connections), 1203 and 1226 (of this user), 1129 (our address is blocked), a shutdown and want of memory are ` + "`unavailable`" + `; 1049 (no such database) and a query that fails are a ` + "`mismatch`" + `.

Phases: greet has the greeting, tls the handshake, auth the login, request the queries. It follows the chapter "Client/Server Protocol" of MySQL's source documentation, protocol version 10.`,
	}, mysqlOptions{starttlsOptions: starttlsOptions{"auto"}, Query: "SELECT 1", Stats: true}, mysql)
}

// A mysqlSession is a connection on which packets are exchanged.
type mysqlSession struct {
	c              *probe.Conn
	p              *probe.Probe
	opt            *mysqlOptions
	facts          *mysqlFacts
	user, database string
	number         byte // of the next packet
	plugin         string
	scramble       []byte
}

func mysql(ctx context.Context, p *probe.Probe, opt *mysqlOptions, facts *mysqlFacts) error {
	s := &mysqlSession{p: p, opt: opt, facts: facts, user: opt.User, database: opt.Database}
	if err := s.prepare(); err != nil {
		return err
	}
	var err error
	if s.c, err = p.DialPlain(ctx); err != nil {
		return err
	}
	defer func() { s.c.Close() }()
	p.Phase(wire.Greet)
	g, err := s.greeting()
	if err != nil {
		return err
	}
	if err := s.secure(ctx, g); err != nil {
		return err
	}
	p.Phase(wire.Auth)
	if err := s.login(g); err != nil {
		return err
	}
	p.Phase(wire.Request)
	if err := s.query(); err != nil {
		return err
	}
	if opt.Stats {
		if err := s.stats(); err != nil {
			return err
		}
	}
	s.number = 0
	return s.send([]byte{1}) // COM_QUIT, so that the server counts no aborted client
}

func (s *mysqlSession) prepare() error {
	if s.user == "" {
		s.user = s.p.URL.User.Username()
	}
	if s.user == "" {
		s.user = "root"
	}
	path := strings.Trim(s.p.URL.Path, "/")
	switch {
	case path != "" && s.database != "":
		return probe.Failf(wire.BadOptions, "mysql.database: the path of the URL names a database, too")
	case strings.ContainsRune(s.user+s.database+path+s.opt.Password, 0):
		return probe.Failf(wire.BadOptions, "mysql: user, password and database must not hold a zero byte")
	}
	s.database += path
	return nil
}

func (s *mysqlSession) read() ([]byte, error) {
	b, number, err := mysqlRead(s.c)
	s.number = number + 1
	return b, err
}

func (s *mysqlSession) send(body []byte) error {
	_, err := s.c.Write(mysqlAppend(nil, s.number, body))
	s.number++
	return err
}

// mysqlMaxGreeting bounds the first packet: whatever claims to be longer is
// another protocol, whose text was taken for a length.
const mysqlMaxGreeting = 4096

func (s *mysqlSession) greeting() (mysqlGreeting, error) {
	if head, err := s.c.Peek(4); err != nil {
		return mysqlGreeting{}, err
	} else if n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16; n > mysqlMaxGreeting {
		return mysqlGreeting{}, probe.Protocolf("got %.80q, want the greeting of a MySQL server", head)
	}
	b, err := s.read()
	if err != nil {
		return mysqlGreeting{}, err
	}
	if e, ok := mysqlParseError(b); ok {
		return mysqlGreeting{}, s.refused("greeting", e)
	}
	g, ok := mysqlParseGreeting(b)
	if !ok || s.number != 1 || g.caps&mysqlProtocol41 == 0 {
		return g, probe.Protocolf("got %.80q, want the greeting of a MySQL server", b)
	}
	f := s.facts
	f.Server, f.Version = "mysql", strings.TrimPrefix(g.version, "5.5.5-") // which MariaDB says for old replicas
	if strings.Contains(g.version, "MariaDB") {
		f.Server = "mariadb"
	}
	f.StartTLS = new(g.caps&mysqlSSL != 0)
	return g, nil
}

// head makes what TLS and the login begin with.
func (s *mysqlSession) head() []byte {
	caps := uint32(mysqlLongPassword | mysqlProtocol41 | mysqlTransactions | mysqlSecureConnection | mysqlPluginAuth)
	if s.database != "" {
		caps |= mysqlConnectWithDB
	}
	if s.c.TLSState() != nil {
		caps |= mysqlSSL
	}
	const utf8mb4 = 45
	b := binary.LittleEndian.AppendUint32(nil, caps)
	b = binary.LittleEndian.AppendUint32(b, mysqlMaxPacket)
	return append(append(b, utf8mb4), make([]byte, 23)...)
}

// secure speaks TLS where that is wanted, and refuses to send a password
// where everybody on the way could read it.
func (s *mysqlSession) secure(ctx context.Context, g mysqlGreeting) error {
	must := s.opt.Password != "" && !s.opt.AllowPlainAuth && !s.c.Private()
	wanted, err := s.opt.wanted(s.p, s.c, g.caps&mysqlSSL != 0, must)
	if err != nil || !wanted {
		return err
	}
	head := s.head()
	head[1] |= mysqlSSL >> 8
	if err := s.send(head); err != nil {
		return err
	}
	c, err := s.p.StartTLS(ctx, s.c)
	if err == nil {
		s.c = c
	}
	return err
}

func (s *mysqlSession) login(g mysqlGreeting) error {
	plugin := g.plugin
	if plugin == "" {
		plugin = mysqlNative
	}
	if plugin != mysqlNative && plugin != mysqlCaching && plugin != mysqlEd25519 {
		plugin = mysqlNative // the server will switch to what the user has
	}
	proof, err := s.proof(plugin, g.scramble)
	if err != nil {
		return err
	}
	b := append(append(s.head(), s.user...), 0, byte(len(proof)))
	b = append(b, proof...)
	if s.database != "" {
		b = append(append(b, s.database...), 0)
	}
	if err := s.send(append(append(b, plugin...), 0)); err != nil {
		return err
	}
	const rounds = 8
	for range rounds {
		done, err := s.loginStep()
		if done || err != nil {
			return err
		}
	}
	return probe.Protocolf("login: more than %d rounds", rounds)
}

// loginStep reads what the server has to say to a login, and answers.
func (s *mysqlSession) loginStep() (done bool, err error) {
	b, err := s.read()
	if err != nil {
		return false, err
	}
	if e, ok := mysqlParseError(b); ok {
		return false, s.refused("login", e)
	}
	var answer []byte
	switch {
	case len(b) >= 7 && b[0] == 0: // OK
		return true, nil
	case len(b) > 1 && b[0] == 1:
		if answer, err = s.more(b[1:]); err != nil || answer == nil {
			return false, err
		}
	case len(b) > 1 && b[0] == 0xfe:
		plugin, scramble, _ := strings.Cut(string(b[1:]), "\x00")
		if answer, err = s.proof(plugin, []byte(strings.TrimSuffix(scramble, "\x00"))); err != nil {
			return false, err
		}
	default:
		return false, probe.Protocolf("login: got %.80q", b)
	}
	return false, s.send(answer)
}

// refused words an error of the server.
func (s *mysqlSession) refused(what string, e mysqlError) error {
	s.facts.ErrorCode = new(e.code)
	reason := mysqlReason(e.code)
	if reason == wire.Denied && what != "query" {
		s.p.Phase(wire.Auth)
	}
	return probe.Failf(reason, "%s: got %d: %.200q", what, e.code, e.message)
}

// mysqlReason tells errors apart by their number.
func mysqlReason(code int) wire.Reason {
	switch code {
	case 1044, 1045, 1130, 1142, 1143, 1227, 1251, 1370, 1410, 1524, 1698, 1820, 1862, 3118, 3159, 3955, 4151:
		return wire.Denied
	case 1021, 1037, 1038, 1040, 1041, 1053, 1077, 1079, 1080, 1129, 1135, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1226, 1290, 1836, 1927, 3168, 3169:
		return wire.Unavailable
	}
	return wire.Mismatch
}
