package checks

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type ftpOptions struct {
	starttlsOptions
	User           string `json:"user" doc:"The user to log in as, instead of the URL's; anonymous needs no password. Without any, anonymous if there is a path, and else nobody logs in."`
	Password       string `json:"password" secret:"true" doc:"The user's password."`
	AllowPlainAuth bool   `json:"allow_plain_auth" doc:"Log in over a connection without TLS, too. To the loopback, and as anonymous, that is always allowed."`
	Path           string `json:"path" doc:"The file or directory to look at, instead of the URL's path, which is taken from where the login leads to; write // for the root."`
	List           bool   `json:"list" doc:"List the directory, or the one that the file is in, over a data connection."`
}

type ftpFacts struct {
	Greeting    string   `json:"greeting" doc:"What the server greets with."`
	Features    []string `json:"features" doc:"What it can do (FEAT), such as MLST, MDTM, AUTH, without parameters; absent where it does not say."`
	StartTLS    *bool    `json:"starttls" doc:"Whether it offers to switch to TLS; absent where TLS is spoken from the start."`
	LoggedIn    *bool    `json:"logged_in" doc:"Whether we are logged in."`
	Type        string   `json:"type" doc:"What is at the path: file, directory or other."`
	SizeBytes   *int64   `json:"size_bytes" doc:"How large the file is."`
	AgeMS       *float64 `json:"age_ms" doc:"How long ago it was changed, in milliseconds; FTP has whole seconds only."`
	Entries     *int     `json:"entries" doc:"How many files and directories were listed."`
	NewestAgeMS *float64 `json:"newest_age_ms" doc:"How long ago the newest of the listed files was changed, in milliseconds; absent where the server can't say (MLSD)."`
}

func init() {
	register(probe.Info{
		Name:    "ftp",
		Summary: "an FTP server lets us in, lists a directory and has a file",
		Schemes: []probe.Scheme{{Name: "ftp", Port: 21}, {Name: "ftps", Port: 990, TLS: true}},
		Example: "ftp://ftp.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the server greets with 220 (RFC 959), that TLS works where it is spoken (RFC 4217), and, with a user or a path, that the login works, that what the path names exists, and that a listing comes over a data connection.

Without both the check ends before the login: logged_in is false, and up says nothing of files. A server that wants a password for a path is ` + "`denied`" + `.

The data connection is passive (EPSV, RFC 2428, or PASV) and only ever goes to the server itself, whatever address PASV has; under TLS it is protected (PROT P) and resumes the session. If it can't be made the phase is connect, and the error begins with "data connection": mostly it is a firewall. Sizes and ages come from MLST (RFC 3659), or from SIZE and MDTM.

A path that does not exist is ` + "`mismatch`" + `, 4xx ` + "`unavailable`" + `, 530 and a refused login ` + "`denied`" + `. ` + "`expect = [\"ftp.newest_age_ms < 90000000\"]`" + ` tells that the delivery of last night is missing.

Phases: greet has the greeting and AUTH TLS, auth the login, request the commands, transfer the listing.`,
	}, ftpOptions{starttlsOptions: starttlsOptions{"auto"}, List: true}, ftp)
}

// must says whether a login on c has to wait for TLS.
func (o *ftpOptions) must(c *probe.Conn) bool {
	return o.Password != "" && !o.AllowPlainAuth && !c.Private()
}

func ftp(ctx context.Context, p *probe.Probe, opt *ftpOptions, facts *ftpFacts) (err error) {
	user, password, path, err := ftpPlan(p, opt)
	if err != nil {
		return err
	}
	p.KeepTLS()
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s, err := ftpOpen(p, c, facts)
	defer func() { err = s.close(err) }()
	if err == nil {
		err = s.secure(ctx, opt)
	}
	if err != nil {
		return err
	}
	if user == "" {
		p.Phase(wire.Request)
		return s.noop()
	}
	if err := s.auth(user, password); err != nil {
		return err
	}
	p.Phase(wire.Request)
	if path != "" {
		if err := s.look(path); err != nil {
			return err
		}
	}
	if !opt.List {
		return nil
	}
	if facts.Type == "file" {
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	return s.list(ctx, path)
}

// noop proves that it is FTP that is spoken: SMTP, whose greeting is the same,
// has another answer to NOOP.
func (s *ftpSession) noop() error {
	r, err := s.command("NOOP")
	switch {
	case err != nil:
		return err
	case r.code == 200, r.code == 530: // some want a login even for this
		return nil
	case r.class() == 2 && s.features != nil:
		return nil
	case r.class() == 2:
		return probe.Protocolf("NOOP: got %q, want 200", r)
	}
	return ftpRefusal("NOOP", r)
}

// ftpPlan checks the options, and puts in what they leave out.
func ftpPlan(p *probe.Probe, opt *ftpOptions) (user, password, path string, err error) {
	user, password, path = opt.User, opt.Password, opt.Path
	if user == "" {
		user = p.URL.User.Username()
	}
	if path == "" {
		path = strings.TrimPrefix(p.URL.Path, "/")
	}
	if user == "" && path != "" {
		user = "anonymous"
	}
	if password == "" && user == "anonymous" {
		password = "pup@" // by custom, an address
	}
	login := loginOptions{User: user, Password: password, AllowPlainAuth: opt.AllowPlainAuth || user == "anonymous"}
	if err := errors.Join(login.valid(p, opt.StartTLS), loginText(p, "path", path)); err != nil {
		return "", "", "", err
	}
	return user, password, path, nil
}

// look finds out what a path names.
func (s *ftpSession) look(path string) error {
	if s.can("MLST") {
		return s.mlst(path)
	}
	if r, err := s.command("TYPE I"); err != nil { // in ASCII servers refuse to count
		return err
	} else if r.class() != 2 {
		return ftpRefusal("TYPE", r)
	}
	size, err := s.command("SIZE %s", path)
	if err != nil {
		return err
	}
	if size.code == 213 {
		n, err := strconv.ParseInt(strings.TrimSpace(size.lines[0]), 10, 64)
		if err != nil || n < 0 {
			return probe.Protocolf("SIZE: got %q, want a number", size)
		}
		s.facts.Type, s.facts.SizeBytes = "file", &n
		return s.mdtm(path)
	}
	cwd, err := s.command("CWD %s", path)
	if err != nil {
		return err
	}
	if cwd.class() != 2 { // no directory either
		return ftpRefusal("SIZE", size)
	}
	s.facts.Type = "directory"
	r, err := s.command("CDUP")
	if err == nil && r.class() != 2 {
		err = ftpRefusal("CDUP", r)
	}
	return err
}

func (s *ftpSession) mdtm(path string) error {
	r, err := s.command("MDTM %s", path)
	if err != nil || r.code != 213 {
		return err // an old server does without
	}
	t, ok := ftpTime(strings.TrimSpace(r.lines[0]))
	if !ok {
		return probe.Protocolf("MDTM: got %q, want a time", r)
	}
	s.facts.AgeMS = new(wire.MS(time.Since(t)))
	return nil
}

func (s *ftpSession) mlst(path string) error {
	r, err := s.command("MLST %s", path)
	if err != nil {
		return err
	}
	if r.code != 250 {
		return ftpRefusal("MLST", r)
	}
	if len(r.lines) < 3 {
		return probe.Protocolf("MLST: got %q, want the facts of a file", r)
	}
	e, ok := ftpMLSD(strings.TrimPrefix(r.lines[1], " "))
	if !ok {
		return probe.Protocolf("MLST: got %.80q, want the facts of a file", r.lines[1])
	}
	switch e.kind {
	case "file":
		s.facts.Type, s.facts.SizeBytes = "file", e.size
	case "dir", "cdir", "pdir":
		s.facts.Type = "directory"
	default:
		s.facts.Type = "other"
	}
	if !e.modified.IsZero() {
		s.facts.AgeMS = new(wire.MS(time.Since(e.modified)))
	}
	return nil
}

// list lists a directory over a data connection.
func (s *ftpSession) list(ctx context.Context, dir string) error {
	entries, newest := 0, time.Time{}
	facts := s.can("MLST")
	command := "LIST"
	if facts {
		command = "MLSD"
	}
	if dir != "" {
		command += " " + dir
	}
	err := s.transfer(ctx, command, func(line string) error {
		if !facts {
			if !strings.HasPrefix(line, "total ") {
				entries++
			}
			return nil
		}
		e, ok := ftpMLSD(line)
		if !ok {
			return probe.Protocolf("MLSD: got %.80q, want the facts of a file", line)
		}
		if e.kind == "cdir" || e.kind == "pdir" {
			return nil
		}
		if entries++; e.kind == "file" && e.modified.After(newest) {
			newest = e.modified
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.facts.Entries = &entries
	if !newest.IsZero() {
		s.facts.NewestAgeMS = new(wire.MS(time.Since(newest)))
	}
	return nil
}

// ftpLines reads lines up to the end of the connection.
func ftpLines(d *probe.Conn, f func(line string) error) error {
	for range ftpMaxEntries {
		line, err := d.Line()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(line)
		}
		if err != nil {
			return err
		}
	}
	return probe.Failf(wire.TooLarge, "a listing of more than %d lines", ftpMaxEntries)
}
