package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// ftpReply is a reply of one or more lines.
type ftpReply struct {
	code  int
	lines []string // the first without its code
}

func (r *ftpReply) class() int { return r.code / 100 }

func (r *ftpReply) String() string {
	return ndjson.Cut(fmt.Sprintf("%d %s", r.code, strings.Join(r.lines, " ")), 160)
}

// The bounds of what a server may send.
const (
	ftpMaxLines   = 512
	ftpMaxEntries = 100000
)

// ftpSession is a client's session over FTP (RFC 959).
type ftpSession struct {
	p        *probe.Probe
	c        *probe.Conn
	facts    *ftpFacts
	features []string // as the server has them, in upper case
	private  bool     // data connections speak TLS, too
}

// ftpOpen reads the greeting and what the server can do.
func ftpOpen(p *probe.Probe, c *probe.Conn, facts *ftpFacts) (*ftpSession, error) {
	s := &ftpSession{p: p, c: c, facts: facts}
	p.Phase(wire.Greet)
	r, err := s.read()
	for err == nil && r.code == 120 { // ready in so many minutes
		r, err = s.read()
	}
	switch {
	case err != nil:
		return s, err
	case r.class() >= 4:
		return s, probe.Failf(wire.Unavailable, "greeting: got %q", r)
	case r.code != 220:
		return s, probe.Protocolf("greeting: got %q, want 220", r)
	}
	facts.Greeting, facts.LoggedIn = strings.Join(r.lines, "\n"), new(false)
	if err := s.feat(); err != nil {
		return s, err
	}
	if c.TLSState() == nil {
		facts.StartTLS = new(s.can("AUTH TLS"))
	}
	return s, nil
}

// close ends the session. After an error it does not wait for the answer.
func (s *ftpSession) close(err error) error {
	defer s.c.Close()
	if werr := s.c.Printf("QUIT\r\n"); err != nil || werr != nil {
		return err
	}
	// a server that has done its work may close without a word, but not hang
	if _, err = s.reply(); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// feat asks what the server can do (RFC 2389). Old ones do not know the
// question; some want a login first.
func (s *ftpSession) feat() error {
	r, err := s.command("FEAT")
	if err != nil {
		return err
	}
	if r.code != 211 && r.class() != 5 {
		return ftpRefusal("FEAT", r)
	}
	if r.class() == 5 || len(r.lines) < 2 {
		return nil
	}
	s.features, s.facts.Features = nil, nil
	for _, line := range r.lines[1 : len(r.lines)-1] {
		line = strings.ToUpper(strings.TrimSpace(line))
		name, _, _ := strings.Cut(line, " ")
		if s.features = append(s.features, line); name != "" && !slices.Contains(s.facts.Features, name) {
			s.facts.Features = append(s.facts.Features, name)
		}
	}
	return nil
}

// can says whether the server has a feature, by the beginning of its line.
func (s *ftpSession) can(what string) bool {
	return slices.ContainsFunc(s.features, func(f string) bool {
		rest, ok := strings.CutPrefix(f, what)
		return ok && (rest == "" || strings.ContainsAny(rest[:1], " ;*"))
	})
}

// secure switches to TLS (RFC 4217) if the options and the server want it, and
// asks for TLS on the data connections.
func (s *ftpSession) secure(ctx context.Context, opt *ftpOptions) error {
	yes, err := opt.wanted(s.p, s.c, s.can("AUTH TLS"), opt.must(s.c))
	if err != nil {
		return err
	}
	if yes {
		r, err := s.command("AUTH TLS")
		switch {
		case err != nil:
			return err
		case r.class() == 4:
			return probe.Failf(wire.Unavailable, "AUTH TLS: got %q", r)
		case r.code != 234:
			return probe.Failf(wire.BadTLS, "AUTH TLS is offered, but refused: got %q", r)
		}
		c, err := s.p.StartTLS(ctx, s.c)
		if err != nil {
			return err
		}
		s.c = c
		s.p.Phase(wire.Greet)
	}
	if s.c.TLSState() == nil {
		return nil
	}
	for _, c := range []string{"PBSZ 0", "PROT P"} {
		r, err := s.command("%s", c)
		if err != nil {
			return err
		}
		if r.class() != 2 {
			return probe.Failf(wire.BadTLS, "%s: got %q", c, r)
		}
	}
	s.private = true
	return nil
}

// auth logs in.
func (s *ftpSession) auth(user, password string) error {
	s.p.Phase(wire.Auth)
	r, err := s.command("USER %s", user)
	if err == nil && r.code == 331 {
		r, err = s.command("PASS %s", password)
	}
	switch {
	case err != nil:
		return err
	case r.class() == 4:
		return probe.Failf(wire.Unavailable, "login: got %q", r)
	case r.code >= 500 && r.code <= 502:
		return probe.Protocolf("login: got %q", r)
	case r.class() == 5 || r.code == 332:
		return probe.Failf(wire.Denied, "login: got %q", r)
	case r.class() != 2:
		return probe.Protocolf("login: got %q, want 230", r)
	}
	*s.facts.LoggedIn = true
	return s.feat() // some say more to whom they know
}

// command sends a command and reads the reply.
func (s *ftpSession) command(format string, args ...any) (*ftpReply, error) {
	if err := s.c.Printf(format+"\r\n", args...); err != nil {
		return nil, err
	}
	return s.read()
}

// read reads a reply. A server that goes away says 421 whatever it was asked.
func (s *ftpSession) read() (*ftpReply, error) {
	r, err := s.reply()
	if err == nil && r.code == 421 {
		return nil, probe.Failf(wire.Unavailable, "got %q", r)
	}
	return r, err
}

// reply reads a reply (RFC 959, section 4.2): what lies between the first line
// and the one with the same code and a space may be anything.
func (s *ftpSession) reply() (*ftpReply, error) {
	r := &ftpReply{}
	for len(r.lines) < ftpMaxLines {
		line, err := s.c.Line()
		if err != nil {
			return nil, err
		}
		code, text, more, ok := ftpLine(line)
		switch {
		case r.code == 0 && !ok:
			return nil, probe.Protocolf("got %.80q, want a reply of FTP", line)
		case r.code == 0:
			r.code = code
		case code != r.code || more:
			r.lines = append(r.lines, line)
			continue
		}
		if r.lines = append(r.lines, text); !more {
			return r, nil
		}
	}
	return nil, probe.Failf(wire.TooLarge, "a reply of more than %d lines", ftpMaxLines)
}

// ftpLine takes a line of a reply apart: code, space or hyphen, text.
func ftpLine(line string) (code int, text string, more, ok bool) {
	if len(line) < 3 || line[0] < '1' || line[0] > '6' {
		return 0, "", false, false
	}
	code, err := strconv.Atoi(line[:3])
	if err != nil || code < 100 {
		return 0, "", false, false
	}
	if len(line) == 3 {
		return code, "", false, true
	}
	return code, line[4:], line[3] == '-', line[3] == '-' || line[3] == ' '
}

// ftpRefusal words a reply that is not the wanted one.
func ftpRefusal(what string, r *ftpReply) error {
	reason := wire.Mismatch
	switch {
	case r.code == 530 || r.code == 532 || r.code == 533 || r.code == 534:
		reason = wire.Denied
	case r.class() == 4:
		reason = wire.Unavailable
	case r.class() < 4, r.code >= 500 && r.code <= 504:
		reason = wire.BadProtocol
	}
	return probe.Failf(reason, "%s: got %q", what, r)
}

// passive has the server open a port for data (RFC 2428, or RFC 959 for those
// that do not know it). Where it says that this is does not matter: data only
// ever comes from the server itself.
func (s *ftpSession) passive() (port int, err error) {
	r, err := s.command("EPSV")
	if err != nil {
		return 0, err
	}
	ok := false
	if r.code == 229 {
		port, ok = ftpEPSV(r.lines[0])
	} else if r, err = s.command("PASV"); err != nil {
		return 0, err
	} else if r.code == 227 {
		port, ok = ftpPASV(r.lines[0])
	} else {
		return 0, ftpRefusal("PASV", r)
	}
	if !ok {
		return 0, probe.Protocolf("got %q, want a port for data", r)
	}
	return port, nil
}

// ftpEPSV reads `Entering Extended Passive Mode (|||6446|)`.
func ftpEPSV(text string) (port int, ok bool) {
	_, text, _ = strings.Cut(text, "(")
	text, _, _ = strings.Cut(text, ")")
	if len(text) < 5 || text[1] != text[0] || text[2] != text[0] || text[len(text)-1] != text[0] {
		return 0, false
	}
	return ftpPort(text[3 : len(text)-1])
}

func ftpPort(text string) (port int, ok bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil && n > 0
}

// ftpPASV reads `Entering Passive Mode (127,0,0,1,25,46)`, with or without the
// parentheses.
func ftpPASV(text string) (port int, ok bool) {
	i := strings.LastIndexAny(text, " (") + 1
	parts := strings.Split(strings.TrimRight(text[i:], ")."), ",")
	if len(parts) != 6 {
		return 0, false
	}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return 0, false
		}
		port = port<<8&0xffff | int(n)
	}
	return port, port > 0
}

// transfer runs a command that sends lines over a data connection.
func (s *ftpSession) transfer(ctx context.Context, command string, f func(line string) error) error {
	port, err := s.passive()
	if err != nil {
		return err
	}
	d, err := s.p.DialBeside(ctx, s.c, port)
	if err != nil {
		return fmt.Errorf("data connection: %w", err)
	}
	defer func() { d.Close() }()
	s.p.Phase(wire.Request)
	r, err := s.command("%s", command)
	if err != nil {
		return err
	}
	if r.class() != 1 {
		return ftpRefusal(command, r)
	}
	if s.private {
		plain := d
		if d, err = s.p.StartTLS(ctx, plain); err != nil {
			d = plain
			return fmt.Errorf("data connection: %w", err)
		}
	}
	s.p.Phase(wire.Transfer)
	if err := ftpLines(d, f); err != nil {
		return err
	}
	d.Close()
	if r, err = s.read(); err != nil {
		return err
	}
	if r.class() != 2 {
		return ftpRefusal(command, r)
	}
	return nil
}

// ftpMLSD reads a line of MLSD or MLST (RFC 3659, section 7.2).
func ftpMLSD(line string) (e ftpEntry, ok bool) {
	facts, name, ok := strings.Cut(line, " ")
	if !ok || !strings.HasSuffix(facts, ";") && facts != "" {
		return e, false
	}
	e.name = name
	for fact := range strings.SplitSeq(facts, ";") {
		key, value, _ := strings.Cut(fact, "=")
		switch strings.ToLower(key) {
		case "type":
			e.kind = strings.ToLower(value)
		case "size":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				e.size = &n
			}
		case "modify":
			e.modified, _ = ftpTime(value)
		}
	}
	return e, true
}

// ftpEntry is what a server says of a file.
type ftpEntry struct {
	name, kind string // kind as in MLSD: file, dir, cdir, pdir
	size       *int64
	modified   time.Time
}

// ftpTime reads YYYYMMDDHHMMSS, with or without a fraction, in UTC.
func ftpTime(text string) (time.Time, bool) {
	text, _, _ = strings.Cut(text, ".")
	t, err := time.Parse("20060102150405", text)
	return t, err == nil
}
