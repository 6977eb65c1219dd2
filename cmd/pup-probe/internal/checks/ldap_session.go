package checks

import (
	"context"
	"fmt"
	"sync"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// ldapSession is a client's session over LDAP, one operation after the other.
type ldapSession struct {
	p     *probe.Probe
	c     *probe.Conn
	opt   *ldapOptions
	facts *ldapFacts
	id    int
}

// ldapStartTLS is the name of that extended operation (RFC 4511, section
// 4.14).
const ldapStartTLS = "1.3.6.1.4.1.1466.20037"

func (s *ldapSession) close() {
	if s.c != nil {
		s.send(ldapTLV(ldapUnbind)) // nothing is answered to it
		s.c.Close()
	}
}

func (s *ldapSession) send(op []byte) error {
	s.id++
	_, err := s.c.Write(ldapTLV(ldapSequence, ldapInt(ldapInteger, s.id), op))
	return err
}

// receive reads the next message that answers our last request.
func (s *ldapSession) receive() (op byte, content []byte, err error) {
	id, op, content, err := ldapRead(s.c)
	switch {
	case err != nil:
		return 0, nil, err
	case id == 0 && op == ldapExtendedOK: // notice of disconnection (RFC 4511, section 4.4.1)
		r, err := ldapParseResult(content)
		if err != nil {
			return 0, nil, probe.Protocolf("notice of disconnection: %w", err)
		}
		return 0, nil, probe.Failf(wire.Unavailable, "the server ends the session: %s", r)
	case id != s.id:
		return 0, nil, probe.Protocolf("got an answer to message %d, want one to %d", id, s.id)
	}
	return op, content, nil
}

// ask sends a request and gives its result.
func (s *ldapSession) ask(request []byte, want byte) (ldapResult, error) {
	if err := s.send(request); err != nil {
		return ldapResult{}, err
	}
	op, content, err := s.receive()
	if err != nil {
		return ldapResult{}, err
	}
	if op != want {
		return ldapResult{}, probe.Protocolf("got operation %#x, want %#x", op, want)
	}
	r, err := ldapParseResult(content)
	if err != nil {
		return r, probe.Protocolf("the result %w", err)
	}
	s.facts.Code = &r.code
	return r, nil
}

type ldapMeaning struct {
	name   string
	reason wire.Reason
}

// ldapCodes names the result codes (RFC 4511, appendix A) that say more than
// that something is wrong.
var ldapCodes = sync.OnceValue(func() map[int]ldapMeaning {
	return map[int]ldapMeaning{
		1:  {"operationsError", wire.Denied}, // how Active Directory asks for a login
		2:  {"protocolError", wire.BadProtocol},
		3:  {"timeLimitExceeded", wire.Timeout},
		4:  {"sizeLimitExceeded", wire.TooLarge},
		7:  {"authMethodNotSupported", wire.Denied},
		8:  {"strongerAuthRequired", wire.Denied},
		10: {"referral", wire.Mismatch},
		11: {"adminLimitExceeded", wire.Unavailable},
		13: {"confidentialityRequired", wire.Denied},
		32: {"noSuchObject", wire.Mismatch},
		34: {"invalidDNSyntax", wire.BadOptions},
		48: {"inappropriateAuthentication", wire.Denied},
		49: {"invalidCredentials", wire.Denied},
		50: {"insufficientAccessRights", wire.Denied},
		51: {"busy", wire.Unavailable},
		52: {"unavailable", wire.Unavailable},
		53: {"unwillingToPerform", wire.Denied},
	}
})

func (r ldapResult) String() string {
	name := ldapCodes()[r.code].name
	if name == "" {
		name = "result"
	}
	if r.text == "" {
		return fmt.Sprintf("%s (%d)", name, r.code)
	}
	return fmt.Sprintf("%s (%d) %.120q", name, r.code, r.text)
}

func (r ldapResult) err(what string) error {
	if r.code == 0 {
		return nil
	}
	reason := ldapCodes()[r.code].reason
	if reason == "" {
		reason = wire.Unavailable
	}
	return probe.Failf(reason, "%s: got %s", what, r)
}

// ldapAbout says which other server an error is about.
func ldapAbout(server string, err error) error { return fmt.Errorf("provider %.80q: %w", server, err) }

// ldapMaxEntries bounds the entries that a search gives.
const ldapMaxEntries = 10_000

// search searches, and calls f for every entry.
func (s *ldapSession) search(base string, scope int, filter []byte, attributes []string, f func([]ldapAttribute)) error {
	var names [][]byte
	for _, a := range attributes {
		names = append(names, ldapText(a))
	}
	request := ldapTLV(ldapSearch, ldapText(base), ldapTLV(ldapEnumerated, []byte{byte(scope)}), ldapTLV(ldapEnumerated, []byte{0}),
		ldapInt(ldapInteger, ldapMaxEntries), ldapInt(ldapInteger, 0), ldapTLV(ldapBoolean, []byte{0}), filter, ldapTLV(ldapSequence, names...))
	if err := s.send(request); err != nil {
		return err
	}
	for n := 0; ; {
		op, content, err := s.receive()
		switch {
		case err != nil:
			return err
		case op == ldapReference: // another server holds more of it
		case op == ldapDone:
			r, err := ldapParseResult(content)
			if err != nil {
				return probe.Protocolf("the result %w", err)
			}
			s.facts.Code = &r.code
			return r.err("search")
		case op != ldapEntry:
			return probe.Protocolf("search: got operation %#x, want an entry or the end", op)
		default:
			_, entry, err := ldapParseEntry(content)
			if err != nil {
				return probe.Protocolf("an entry %w", err)
			}
			if n++; n > ldapMaxEntries {
				return probe.Failf(wire.TooLarge, "search: more than %d entries", ldapMaxEntries)
			}
			f(entry)
		}
	}
}

// open switches to TLS, reads the root DSE, and logs in. It asks for TLS before
// anything else: OpenLDAP refuses to start it while it puts an operation away
// that it has answered already.
func (s *ldapSession) open(ctx context.Context, facts *ldapFacts) error {
	s.p.Phase(wire.Greet)
	must := s.opt.must(s.c)
	tls, err := s.opt.wanted(s.p, s.c, true, must)
	if tls && err == nil {
		err = s.startTLS(ctx, must || s.opt.StartTLS == "required")
	}
	if err != nil {
		return err
	}
	s.p.Phase(wire.Greet)
	if err := s.rootDSE(facts); err != nil {
		return err
	}
	if s.opt.given() {
		s.p.Phase(wire.Auth)
		return s.bind(facts)
	}
	if !*facts.Anonymous {
		s.p.Phase(wire.Auth)
		return probe.Failf(wire.Denied, "the server tells nothing without a login: result code %d", *facts.Code)
	}
	return nil
}

// rootDSE reads what the server tells about itself (RFC 4512, section 5.1).
func (s *ldapSession) rootDSE(facts *ldapFacts) error {
	wanted := []string{"namingContexts", "supportedSASLMechanisms", "vendorName", "vendorVersion"}
	found := false
	err := s.search("", 0, ldapTLV(0x87, []byte("objectClass")), wanted, func(attributes []ldapAttribute) {
		found = true
		for _, a := range attributes {
			switch {
			case a.name == "namingContexts":
				facts.NamingContexts = a.values
			case a.name == "supportedSASLMechanisms":
				facts.Mechanisms = a.values
			case len(a.values) > 0 && facts.Vendor == "":
				facts.Vendor = a.values[0]
			case len(a.values) > 0:
				facts.Vendor += " " + a.values[0]
			}
		}
	})
	refused := facts.Code != nil && *facts.Code != 0 && ldapCodes()[*facts.Code].reason == wire.Denied
	facts.Anonymous = new(found && err == nil)
	if refused {
		return nil
	}
	return err
}

// startTLS asks for TLS. A server that does not have it says so; the session
// goes on without, unless it must not.
func (s *ldapSession) startTLS(ctx context.Context, must bool) error {
	r, err := s.ask(ldapTLV(ldapExtended, ldapTLV(0x80, []byte(ldapStartTLS))), ldapExtendedOK)
	if err != nil {
		return err
	}
	s.facts.StartTLS = new(r.code == 0)
	switch {
	case r.code == 0:
		s.c, err = s.p.StartTLS(ctx, s.c)
		return err
	case must:
		return probe.Failf(wire.BadTLS, "StartTLS: got %s", r)
	}
	return nil
}

// bind logs in: by name and password, or by SASL.
func (s *ldapSession) bind(facts *ldapFacts) error {
	facts.LoggedIn = new(false)
	version := ldapTLV(ldapInteger, []byte{3})
	if s.opt.Mechanism == "" {
		if s.opt.Password == "" {
			return probe.Failf(wire.BadOptions, "ldap.user: needs ldap.password as well; without one the server would take anybody")
		}
		r, err := s.ask(ldapTLV(ldapBind, version, ldapText(s.opt.User), ldapTLV(ldapSimple, []byte(s.opt.Password))), ldapBound)
		if err == nil {
			err = r.err("bind")
		}
		facts.LoggedIn = new(err == nil)
		return err
	}
	client, err := s.opt.client(s.p, s.c, facts.Mechanisms)
	if err != nil {
		return err
	}
	mechanism, response := client.Start()
	for {
		creds := [][]byte{ldapText(mechanism)}
		if response != nil {
			creds = append(creds, ldapText(string(response)))
		}
		r, err := s.ask(ldapTLV(ldapBind, version, ldapText(""), ldapTLV(ldapSASL, creds...)), ldapBound)
		switch {
		case err != nil:
			return err
		case r.code == 14: // saslBindInProgress
			if response, err = client.Next(r.creds); err != nil {
				return loginError(err)
			}
			continue
		case r.code != 0:
			return r.err("bind")
		}
		if r.creds != nil { // the server's last word, which SCRAM wants to see
			if _, err := client.Next(r.creds); err != nil {
				return loginError(err)
			}
		}
		if err := loginError(client.Done()); err != nil {
			return err
		}
		facts.LoggedIn = new(true)
		return nil
	}
}
