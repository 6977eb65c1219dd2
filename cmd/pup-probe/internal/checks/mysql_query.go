package checks

import (
	"net"
	"strconv"
	"strings"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	mysqlMaxColumns = 4096
	mysqlMaxRows    = 1 << 16 // that are read
	mysqlKeptRows   = 64      // that are looked at
)

// A mysqlTable is the answer to a query.
type mysqlTable struct {
	names []string
	rows  [][][]byte // the first ones
	count int
}

// ask sends a query and reads its answer. Refused is the error of a server
// that goes on.
func (s *mysqlSession) ask(query string) (t *mysqlTable, refused *mysqlError, err error) {
	const comQuery = 3
	s.number = 0
	if err := s.send(append([]byte{comQuery}, query...)); err != nil {
		return nil, nil, err
	}
	b, err := s.read()
	if err != nil {
		return nil, nil, err
	}
	if e, ok := mysqlParseError(b); ok {
		return nil, &e, nil
	}
	t = &mysqlTable{}
	if len(b) > 0 && b[0] == 0 { // OK, of what has no rows
		return t, nil, nil
	}
	n, null, rest, ok := mysqlInteger(b)
	if !ok || null || n == 0 || n > mysqlMaxColumns || len(rest) > 0 {
		return nil, nil, probe.Protocolf("query: got %.80q, want the number of columns", b)
	}
	for range n {
		if b, err = s.read(); err != nil {
			return nil, nil, err
		}
		column, ok := mysqlStrings(b, 6)
		if !ok {
			return nil, nil, probe.Protocolf("query: got %.80q, want the description of a column", b)
		}
		t.names = append(t.names, string(column[4]))
	}
	if b, err = s.read(); err != nil {
		return nil, nil, err
	}
	if !mysqlIsEOF(b) {
		return nil, nil, probe.Protocolf("query: got %.80q, want the end of the columns", b)
	}
	return s.rows(t)
}

func mysqlIsEOF(b []byte) bool { return len(b) > 0 && len(b) < 9 && b[0] == 0xfe }

func (s *mysqlSession) rows(t *mysqlTable) (*mysqlTable, *mysqlError, error) {
	for range mysqlMaxRows {
		b, err := s.read()
		if err != nil {
			return nil, nil, err
		}
		if e, ok := mysqlParseError(b); ok {
			return nil, &e, nil
		}
		if mysqlIsEOF(b) {
			return t, nil, nil
		}
		row, ok := mysqlStrings(b, len(t.names))
		if !ok {
			return nil, nil, probe.Protocolf("query: got a row %.80q whose lengths are wrong", b)
		}
		if t.count++; len(t.rows) < mysqlKeptRows {
			t.rows = append(t.rows, row)
		}
	}
	return nil, nil, probe.Failf(wire.TooLarge, "query: more than %d rows", mysqlMaxRows)
}

// query asks the target's query.
func (s *mysqlSession) query() error {
	t, refused, err := s.ask(s.opt.Query)
	switch {
	case err != nil:
		return err
	case refused != nil:
		return s.refused("query", *refused)
	}
	s.facts.Rows = &t.count
	if len(t.rows) > 0 && t.rows[0][0] != nil {
		s.facts.Value = new(string(t.rows[0][0]))
	}
	return nil
}

// stats asks for what most facts come from. What the user may not know is
// left out.
func (s *mysqlSession) stats() error {
	f := s.facts
	t, refused, err := s.ask("SELECT @@global.read_only, @@global.max_connections")
	if err != nil {
		return err
	}
	if refused == nil && len(t.rows) == 1 && len(t.rows[0]) == 2 {
		f.ReadOnly = new(string(t.rows[0][0]) != "0")
		f.MaxConnections = mysqlNumber(t.rows[0][1])
	}
	t, refused, err = s.ask("SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Threads_connected', 'Slow_queries', 'Connection_errors_max_connections')")
	if err != nil {
		return err
	}
	if refused == nil {
		for _, row := range t.rows {
			f.status(row)
		}
	}
	if f.Connections != nil && f.MaxConnections != nil {
		f.ConnectionsLeft = new(max(0, *f.MaxConnections-*f.Connections))
	}
	command := "SHOW REPLICA STATUS"
	if f.Server == "mariadb" || mysqlOlder(f.Version, 8, 0, 22) {
		command = "SHOW SLAVE STATUS"
	}
	t, refused, err = s.ask(command)
	if err != nil || refused != nil {
		return err
	}
	f.Role = "primary"
	for _, row := range t.rows {
		f.replica(t.names, row)
	}
	return nil
}

// mysqlOlder says whether a version such as 8.0.35-log is before another.
func mysqlOlder(version string, than ...int) bool {
	number, _, _ := strings.Cut(version, "-")
	parts := strings.Split(number, ".")
	for i, want := range than {
		if i >= len(parts) {
			return true
		}
		if n, err := strconv.Atoi(parts[i]); err != nil || n != want {
			return err == nil && n < want
		}
	}
	return false
}

func mysqlNumber(b []byte) *int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func (f *mysqlFacts) status(row [][]byte) {
	if len(row) != 2 {
		return
	}
	n := mysqlNumber(row[1])
	switch string(row[0]) {
	case "Uptime":
		if n != nil {
			f.UptimeMS = new(1000 * *n)
		}
	case "Threads_connected":
		f.Connections = n
	case "Slow_queries":
		f.SlowQueries = n
	case "Connection_errors_max_connections":
		f.Rejected = n
	}
}

// replica takes facts from a channel of replication, in the words of either
// age. The worst of several counts.
func (f *mysqlFacts) replica(names []string, row [][]byte) {
	get := func(of ...string) []byte {
		for i, n := range names {
			for _, o := range of {
				if n == o {
					return row[i]
				}
			}
		}
		return nil
	}
	f.Role = "replica"
	running := func(fact *bool, text []byte) *bool {
		return new(string(text) == "Yes" && (fact == nil || *fact))
	}
	f.IORunning = running(f.IORunning, get("Slave_IO_Running", "Replica_IO_Running"))
	f.SQLRunning = running(f.SQLRunning, get("Slave_SQL_Running", "Replica_SQL_Running"))
	f.Primary = net.JoinHostPort(string(get("Master_Host", "Source_Host")), string(get("Master_Port", "Source_Port")))
	if n := mysqlNumber(get("Seconds_Behind_Master", "Seconds_Behind_Source")); n != nil {
		if lag := float64(1000 * *n); f.LagMS == nil || lag > *f.LagMS {
			f.LagMS = &lag
		}
	}
	for _, name := range []string{"Last_IO_Error", "Last_SQL_Error"} {
		if text := get(name); len(text) > 0 {
			f.ReplicaError = string(text)
		}
	}
}
