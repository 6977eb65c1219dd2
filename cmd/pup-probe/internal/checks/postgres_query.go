package checks

import (
	"strconv"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// postgresStats is the query that most facts come from, a column each in the
// order of postgresFacts.stats. It uses nothing that an ordinary role may not.
const postgresStats = `SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
 extract(epoch FROM pg_postmaster_start_time()), extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) * 1000,
 (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections'), current_setting('superuser_reserved_connections'),
 (SELECT count(*) FROM pg_stat_wal_receiver),
 CASE WHEN NOT pg_is_in_recovery() THEN NULL
  WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT 1 FROM pg_stat_wal_receiver) THEN 0
  ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000 END,
 CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END,
 (SELECT count(*) FROM pg_stat_replication),
 (SELECT max(extract(epoch FROM replay_lag)) * 1000 FROM pg_stat_replication),
 CASE WHEN NOT pg_is_in_recovery() THEN (SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication) END,
 (SELECT max(age(datfrozenxid)) FROM pg_database), pg_database_size(current_database())`

// queries sends the target's query and ours, and reads the answers to both.
func (s *postgresSession) queries() error {
	b := postgresAppend(nil, 'Q', []byte(s.opt.Query+"\x00"))
	if s.opt.Stats {
		b = postgresAppend(b, 'Q', []byte(postgresStats+"\x00"))
	}
	if _, err := s.c.Write(b); err != nil {
		return err
	}
	first, rows, refused, err := s.answer()
	switch {
	case err != nil:
		return err
	case refused != nil:
		return s.refused("query", refused)
	}
	s.facts.Rows = &rows
	if len(first) > 0 && first[0] != nil {
		s.facts.Value = new(string(first[0]))
	}
	if !s.opt.Stats {
		return nil
	}
	first, _, refused, err = s.answer()
	if err != nil {
		return err
	}
	ok := refused == nil && s.facts.stats(first)
	s.facts.Stats = &ok
	return nil
}

// answer reads the answer to a query up to where the server is ready for the
// next: the first row, the number of rows, and the error if there was one.
func (s *postgresSession) answer() (first [][]byte, rows int, refused []byte, err error) {
	for range postgresMaxMessages {
		kind, body, err := postgresRead(s.c)
		if err != nil {
			return nil, 0, nil, err
		}
		switch kind {
		case 'D':
			columns, ok := postgresRow(body)
			if !ok {
				return nil, 0, nil, probe.Protocolf("query: got a row %.80q whose lengths are wrong", body)
			}
			if rows++; rows == 1 {
				first = columns
			}
		case 'E':
			if refused = body; len(postgresParseError(body).code) == 5 && postgresReason(postgresParseError(body)) == wire.Unavailable {
				return nil, 0, refused, nil // the server may end the session
			}
		case 'Z':
			return first, rows, refused, nil
		case 'T', 'C', 'I', 'N', 'S', 'A':
		case 'G', 'H', 'W':
			return nil, 0, nil, probe.Protocolf("query: COPY can't be used here")
		default:
			return nil, 0, nil, probe.Protocolf("query: got a message %q", kind)
		}
	}
	return nil, 0, nil, probe.Protocolf("query: more than %d messages", postgresMaxMessages)
}

// stats takes facts from the row that postgresStats gives.
func (f *postgresFacts) stats(row [][]byte) bool {
	if len(row) != 15 {
		return false
	}
	integer := func(i int) *int64 {
		n, err := strconv.ParseInt(string(row[i]), 10, 64)
		if err != nil {
			return nil
		}
		return &n
	}
	number := func(i int) *float64 {
		x, err := strconv.ParseFloat(string(row[i]), 64)
		if err != nil {
			return nil
		}
		return new(float64(int64(x*1000)) / 1000)
	}
	replica := string(row[0]) == "t"
	f.ReadOnly = new(string(row[1]) == "t")
	if t, err := strconv.ParseFloat(string(row[2]), 64); err == nil {
		f.StartTime = new(time.UnixMilli(int64(t * 1000)).UTC())
	}
	f.UptimeMS = number(3)
	f.Connections, f.MaxConnections = integer(4), integer(5)
	if reserved := integer(6); f.Connections != nil && f.MaxConnections != nil && reserved != nil {
		f.ConnectionsLeft = new(max(0, *f.MaxConnections-*reserved-*f.Connections))
	}
	f.XIDAge, f.DatabaseSizeBytes = integer(13), integer(14)
	if !replica {
		f.Role = "primary"
		f.Replicas, f.ReplicaLagMS, f.ReplicaLagBytes = integer(10), number(11), integer(12)
		return true
	}
	f.Role, f.Link = "replica", "down"
	if n := integer(7); n != nil && *n > 0 {
		f.Link = "up"
	}
	f.LagMS, f.LagBytes = number(8), integer(9)
	return true
}
