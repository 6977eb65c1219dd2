package checks

import (
	"context"
	"encoding/hex"
	"errors"
	"os"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/datagram"
	"pup/cmd/pup-probe/internal/probe"
	"pup/cmd/pup-probe/internal/snmp"
)

// An snmpSession asks one agent.
type snmpSession struct {
	ctx       context.Context
	p         *probe.Probe
	asker     *datagram.Asker
	version   int
	community string
	user      *snmp.User // of version 3, or nil
	facts     *snmpFacts
}

func snmpNew(ctx context.Context, p *probe.Probe, c *probe.Conn, opt *snmpOptions, facts *snmpFacts) *snmpSession {
	s := &snmpSession{ctx: ctx, p: p, asker: &datagram.Asker{Probe: p, Conn: c}, version: snmp.V2c, community: "public", facts: facts}
	if opt.Community != "" {
		s.community = opt.Community
	}
	switch opt.Version {
	case "1":
		s.version = snmp.V1
	case "3":
		s.version = snmp.V3
		s.user = &snmp.User{Name: opt.User, Context: opt.Context, AuthPassword: opt.AuthPassword, PrivPassword: opt.PrivPassword}
		if opt.AuthPassword != "" {
			s.user.Auth = opt.Auth
		}
		if opt.PrivPassword != "" {
			s.user.Priv = opt.Priv
		}
	}
	return s
}

// discover finds the agent's identity and clock.
func (s *snmpSession) discover() error {
	message, id := snmp.Discover()
	s.asker.AskPhase, s.asker.WaitPhase = wire.Auth, wire.Auth
	err := s.asker.Ask(s.ctx, func() []byte { return message }, func(b []byte) error {
		m, _, err := new(snmp.User).Parse(b)
		switch {
		case err != nil:
			return datagram.Stray("no SNMP message of version 3: %w", err)
		case m.ID != id:
			return datagram.Stray("an answer to another request")
		case m.PDU.Type != snmp.Report || len(m.EngineID) == 0:
			return probe.Protocolf("the agent does not say who it is, as version 3 wants it to")
		}
		s.user.Know(m)
		s.facts.EngineID, s.facts.EngineBoots = hex.EncodeToString(m.EngineID), new(m.Boots)
		return nil
	})
	s.asker.AskPhase, s.asker.WaitPhase = "", ""
	return err
}

// get reads objects, each of which then has a variable, in their order. In
// version 1 one missing object spoils a whole request, so those are asked for
// one by one.
func (s *snmpSession) get(oids []string) ([]snmp.Variable, error) {
	m, err := s.ask(oids)
	if err != nil {
		return nil, err
	}
	switch status := m.PDU.ErrorStatus; {
	case status == 0:
		return m.PDU.Variables, nil
	case (status == 1 || status == 2) && len(oids) > 1: // tooBig, noSuchName
		var all []snmp.Variable
		for _, oid := range oids {
			vs, err := s.get([]string{oid})
			if err != nil {
				return nil, err
			}
			all = append(all, vs...)
		}
		return all, nil
	case status == 2:
		return []snmp.Variable{{OID: oids[0], Type: "noSuchName"}}, nil
	case status == 6 || status == 16: // noAccess, authorizationError
		return nil, probe.Failf(wire.Denied, "the agent answers %s", snmp.ErrorStatus(status))
	default:
		return nil, probe.Failf(wire.Unavailable, "the agent answers %s for object %d of the request", snmp.ErrorStatus(status), m.PDU.ErrorIndex)
	}
}

// ask sends a Get request until it is answered.
func (s *snmpSession) ask(oids []string) (*snmp.Message, error) {
	parsed := make([][]byte, len(oids))
	for i, oid := range oids {
		parsed[i], _ = snmp.ParseOID(oid)
	}
	for range 2 { // the second time with the agent's clock set right
		m, err := s.askOnce(parsed)
		if err != nil {
			return nil, s.silence(err)
		}
		if m.PDU.Type == snmp.Report {
			again, err := s.report(m)
			if err != nil {
				return nil, err
			}
			if again {
				continue
			}
		}
		if m.PDU.ErrorStatus == 0 {
			if err := snmpSame(m.PDU.Variables, oids); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return nil, probe.Failf(wire.Denied, "the agent twice says that our message is outside of its time window")
}

func snmpSame(vs []snmp.Variable, oids []string) error {
	if len(vs) != len(oids) {
		return probe.Protocolf("got %d objects, want %d", len(vs), len(oids))
	}
	for i := range vs {
		if vs[i].OID != oids[i] {
			return probe.Protocolf("got object %s, want %s", vs[i].OID, oids[i])
		}
	}
	return nil
}

func (s *snmpSession) askOnce(oids [][]byte) (answer *snmp.Message, err error) {
	var message []byte
	var id int
	if s.user == nil {
		message, id = snmp.NewGet(s.version, s.community, oids)
	} else if message, id, err = s.user.NewGet(oids); err != nil {
		return nil, err
	}
	err = s.asker.Ask(s.ctx, func() []byte { return message }, func(b []byte) (err error) {
		if s.user == nil {
			answer, err = s.parse(b, id)
		} else {
			answer, err = s.parseV3(b, id)
		}
		return err
	})
	return answer, err
}

func (s *snmpSession) parse(b []byte, id int) (*snmp.Message, error) {
	m, err := snmp.Parse(b)
	switch {
	case err != nil:
		return nil, datagram.Stray("no SNMP message: %w", err)
	case m.PDU.RequestID != id:
		return nil, datagram.Stray("an answer to another request")
	case m.PDU.Type != snmp.Response:
		return nil, datagram.Stray("no response")
	case m.Version != s.version:
		return nil, datagram.Stray("an answer in another version")
	}
	return m, nil
}

func (s *snmpSession) parseV3(b []byte, id int) (*snmp.Message, error) {
	m, authenticated, err := s.user.Parse(b)
	switch {
	case errors.Is(err, snmp.ErrDigest):
		return nil, datagram.Stray("a message of which %w", err)
	case errors.Is(err, snmp.ErrDecrypt) && m.ID == id:
		return nil, probe.Failf(wire.Denied, "the agent's answer can't be decrypted: the privacy password or cipher is wrong")
	case err != nil:
		return nil, datagram.Stray("no SNMP message of version 3: %w", err)
	case m.ID != id:
		return nil, datagram.Stray("an answer to another request")
	case m.PDU.Type != snmp.Response && m.PDU.Type != snmp.Report:
		return nil, datagram.Stray("no response")
	case m.PDU.Type == snmp.Report && s.user.Auth != "" && !authenticated && snmpReported(m) == snmpNotInTime:
		return nil, datagram.Stray("a report on the clock that nobody has signed")
	}
	if m.PDU.Type == snmp.Response {
		if m.PDU.RequestID != id {
			return nil, datagram.Stray("an answer to another request")
		}
		s.facts.Security = map[byte]string{0: "noAuthNoPriv", 1: "authNoPriv", 3: "authPriv"}[m.Flags&3]
		if s.user.Priv != "" && m.Flags&3 != 3 {
			return nil, probe.Protocolf("the answer is not encrypted, although the request was")
		}
	}
	return m, nil
}

// snmpReports are the counters that the reports of an agent name (RFC 3414,
// section 5; RFC 3412, section 7.1).
var snmpReports = map[string]string{
	"1.3.6.1.6.3.15.1.1.1.0": "the agent does not allow this level of security: it wants authentication, or privacy, or less",
	"1.3.6.1.6.3.15.1.1.3.0": "the agent does not know the user",
	"1.3.6.1.6.3.15.1.1.4.0": "the agent says that it is not who it said it was",
	"1.3.6.1.6.3.15.1.1.5.0": "wrong authentication password or hash",
	"1.3.6.1.6.3.15.1.1.6.0": "wrong privacy password or cipher",
	"1.3.6.1.6.3.12.1.5.0":   "the agent does not know the context",
}

const snmpNotInTime = "1.3.6.1.6.3.15.1.1.2.0"

// report says what a report means: to ask again, or that we are refused.
func (s *snmpSession) report(m *snmp.Message) (again bool, err error) {
	s.p.Phase(wire.Auth)
	oid := snmpReported(m)
	if oid == snmpNotInTime {
		s.user.Know(m)
		return true, nil
	}
	if text, ok := snmpReports[oid]; ok {
		return false, probe.Failf(wire.Denied, "%s", text)
	}
	return false, probe.Protocolf("the agent sent a report of %.80q", oid)
}

// snmpReported is the counter that a report names.
func snmpReported(m *snmp.Message) string {
	if len(m.PDU.Variables) == 0 {
		return ""
	}
	return m.PDU.Variables[0].OID
}

// silence says what it may mean that the agent does not answer.
func (s *snmpSession) silence(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(s.ctx.Err(), context.Canceled) {
		return err
	}
	switch {
	case s.user == nil:
		return probe.Failf(wire.Timeout, "no answer in time; to a wrong community agents say nothing")
	case s.user.Priv != "":
		return probe.Failf(wire.Timeout, "no answer in time, although the agent has said who it is: the privacy password or cipher may be wrong")
	}
	return probe.Failf(wire.Timeout, "no answer in time, although the agent has said who it is")
}
