package checks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type mailtripOptions struct {
	smtpSessionOptions
	From          string        `json:"from" doc:"The sender. Without it: to."`
	To            string        `json:"to" doc:"The recipient, whose mailbox fetch reads. Without it: user, if that is an address."`
	Fetch         string        `json:"fetch" doc:"Where the mailbox is: imap://HOST, imaps://HOST, pop3://HOST or pop3s://HOST, with or without a port. Without it: imaps on the URL's host."`
	FetchUser     string        `json:"fetch_user" doc:"The user of the mailbox. Without it: user and password."`
	FetchPassword string        `json:"fetch_password" secret:"true" doc:"The password of fetch_user."`
	FetchStartTLS string        `json:"fetch_starttls" enum:"auto,required,off" doc:"What starttls is for fetch."`
	Mailbox       string        `json:"mailbox" doc:"The mailbox in which the message arrives (IMAP)."`
	Poll          wire.Duration `json:"poll" doc:"How long to wait between two looks into the mailbox; deliver_ms can't be more exact than this."`
}

type mailtripFacts struct {
	Leg          string   `json:"leg" doc:"What was under way last: submit (SMTP), open (the mailbox), deliver, delete, or done."`
	SubmitMS     *float64 `json:"submit_ms" doc:"How long it took until the server had taken the message, from connecting to the reply to DATA, in milliseconds."`
	DeliverMS    *float64 `json:"deliver_ms" doc:"How long it took from then until the message was in the mailbox, in milliseconds."`
	TotalMS      *float64 `json:"total_ms" doc:"Both together, in milliseconds."`
	Deleted      *int     `json:"deleted" doc:"How many messages of ours were deleted: this one, and forgotten ones older than a day."`
	Code         int      `json:"code" doc:"The code of the last reply of the SMTP server but that to QUIT."`
	EnhancedCode string   `json:"enhanced_code" doc:"The enhanced status code (RFC 3463) of that reply."`
}

func init() {
	register(probe.Info{
		Name:    "mailtrip",
		Summary: "a message that is sent by SMTP arrives in a mailbox",
		Schemes: []probe.Scheme{{Name: "mailtrip", Port: 25}, {Name: "mailtrips", Port: 465, TLS: true}},
		Example: "mailtrip://mail.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that a message was handed in to the URL's host by SMTP, was found in the mailbox that fetch names by IMAP or POP3 before the timeout, and was deleted there. It is a small message with a token of its own in the subject, behind the word pupmailtrip, and with Auto-Submitted (RFC 3834), so that nobody answers it.

It needs to and, mostly, a user and a password; without them it gets no further than the login. The mailbox is opened before anything is sent: if that fails, nothing is. The timeout must leave time for the delivery: some minutes, if there is greylisting on the way.

What was not found in time is deleted by a later run, once it is a day old. By IMAP only what is ours is expunged (UIDPLUS, RFC 4315); a server without UIDPLUS keeps it, marked as deleted.

Options in tls are for both servers. user, password and so on are for SMTP, and for the mailbox too unless there is a fetch_user.

Phases: those of smtp, and of imap or pop3; transfer has the message itself, wait the time until it arrives. The fact leg says where it went wrong.`,
	}, mailtripOptions{
		smtpSessionOptions: smtpSessionOptions{starttlsOptions: starttlsOptions{"auto"}},
		FetchStartTLS:      "auto", Mailbox: "INBOX", Poll: wire.Duration(500 * time.Millisecond),
	}, mailtrip)
}

// mailtripBox is the mailbox at the end of the trip.
type mailtripBox interface {
	// find looks for a token, and gives false if the message is not there.
	find(ctx context.Context, token string) (bool, error)
	// remove deletes what was found, and what is old.
	remove(ctx context.Context, today time.Time) (int, error)
	close(err error) error
}

// mailtripSubject is the first word of each subject.
const mailtripSubject = "pupmailtrip"

func mailtrip(ctx context.Context, p *probe.Probe, given *mailtripOptions, facts *mailtripFacts) (err error) {
	opt := new(*given)
	opt.fromURL(p)
	f, err := mailtripPlan(p, opt)
	if err != nil {
		return err
	}
	facts.Leg = "submit"
	start := time.Now()
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	var found smtpSessionFacts
	s, err := smtpOpen(p, c, &opt.smtpSessionOptions, &found, "EHLO")
	defer func() {
		if s != nil {
			err = s.close(err)
		}
		facts.Code, facts.EnhancedCode = found.Code, found.EnhancedCode
	}()
	if err == nil {
		err = s.secure(ctx, &opt.smtpSessionOptions)
	}
	if err == nil && opt.given() {
		err = s.auth(&opt.smtpSessionOptions)
	}
	if err == nil && f.to == "" { // only now: a server that is down is more than an option that is missing
		err = probe.Failf(wire.BadOptions, "mailtrip.to: is required, unless mailtrip.user is an address")
	}
	if err != nil {
		return err
	}
	submit := time.Since(start)
	facts.Leg = "open"
	box, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = box.close(err) }()

	facts.Leg = "submit"
	start = time.Now()
	token := rand.Text()
	if err := s.send(f.from, f.to, token); err != nil {
		return err
	}
	taken := time.Now()
	submit += taken.Sub(start)
	facts.SubmitMS = new(wire.MS(submit))
	if err := s.close(nil); err != nil {
		return err
	}
	s = nil

	facts.Leg = "deliver"
	p.Phase(wire.Wait)
	if err := f.await(ctx, box, token); err != nil {
		return err
	}
	deliver := time.Since(taken)
	facts.DeliverMS, facts.TotalMS = new(wire.MS(deliver)), new(wire.MS(submit+deliver))
	facts.Leg = "delete"
	p.Phase(wire.Request)
	n, err := box.remove(ctx, time.Now())
	if err != nil {
		return err
	}
	facts.Deleted, facts.Leg = &n, "done"
	return nil
}

// send hands in the message.
func (s *smtpSession) send(from, to, token string) error {
	s.p.Phase(wire.Request)
	for _, step := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">"} {
		r, err := s.command("%s", step)
		if err != nil {
			return err
		}
		if r.class() != 2 {
			return smtpRefusal(step[:4], r)
		}
	}
	r, err := s.command("DATA")
	if err != nil {
		return err
	}
	if r.Code != 354 {
		return smtpRefusal("DATA", r)
	}
	s.p.Phase(wire.Transfer)
	_, domain, _ := strings.Cut(from, "@")
	r, err = s.command("From: <%s>\r\nTo: <%s>\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\nSubject: %s %s\r\nAuto-Submitted: auto-generated\r\n\r\n"+
		"A message of pup-probe, to see how long it is on the way. It will be deleted.\r\n.",
		from, to, time.Now().Format(time.RFC1123Z), token, domain, mailtripSubject, token)
	if err != nil {
		return err
	}
	if r.class() != 2 {
		return smtpRefusal("DATA", r)
	}
	return nil
}

// mailtripFetch is the second half of the trip, and the envelope.
type mailtripFetch struct {
	p        *probe.Probe
	from, to string
	scheme   string
	host     string
	port     int
	starttls starttlsOptions
	login    loginOptions
	mailbox  string
	poll     time.Duration
}

var mailtripPorts = map[string]int{"imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995}

// mailtripPlan checks the options, and puts in what they leave out.
func mailtripPlan(p *probe.Probe, opt *mailtripOptions) (*mailtripFetch, error) {
	f := &mailtripFetch{
		p: p, from: opt.From, to: opt.To, scheme: "imaps", host: p.URL.Host, login: opt.loginOptions,
		starttls: starttlsOptions{opt.FetchStartTLS}, mailbox: opt.Mailbox, poll: max(time.Duration(opt.Poll), 10*time.Millisecond),
	}
	if opt.Fetch != "" {
		u, err := url.Parse(opt.Fetch)
		if err != nil || mailtripPorts[u.Scheme] == 0 || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return nil, probe.Failf(wire.BadOptions, "mailtrip.fetch: write imap://HOST, imaps://HOST, pop3://HOST or pop3s://HOST; the user goes to fetch_user")
		}
		f.scheme, f.host = u.Scheme, u.Hostname()
		if u.Port() != "" {
			if f.port, err = strconv.Atoi(u.Port()); err != nil || f.port < 1 || f.port > 65535 {
				return nil, probe.Failf(wire.BadOptions, "mailtrip.fetch: %.20q is no port", u.Port())
			}
		}
	}
	if f.port == 0 {
		f.port = mailtripPorts[f.scheme]
	}
	prefix := ""
	if opt.FetchUser != "" {
		prefix = "fetch_"
		f.login = loginOptions{User: opt.FetchUser, Password: opt.FetchPassword, AllowPlainAuth: opt.AllowPlainAuth}
	}
	if f.to == "" && strings.Contains(opt.User, "@") {
		f.to = opt.User
	}
	if f.from == "" {
		f.from = f.to
	}
	return f, errors.Join(
		opt.valid(p, opt.StartTLS),
		f.login.validFor(p, prefix, f.host, strings.HasSuffix(f.scheme, "s"), f.starttls.StartTLS),
		smtpAddress(p, "from", f.from), smtpAddress(p, "to", f.to),
		loginText(p, "helo", opt.Helo), loginText(p, "mailbox", opt.Mailbox),
	)
}

// open logs in to the mailbox.
func (f *mailtripFetch) open(ctx context.Context) (mailtripBox, error) {
	c, err := f.p.DialHost(ctx, "tcp", f.host, f.port)
	if err == nil && strings.HasSuffix(f.scheme, "s") {
		c, err = f.p.StartTLS(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(f.scheme, "pop3") {
		return f.openPOP3(ctx, c)
	}
	opt := imapSessionOptions{f.starttls, f.login}
	s, err := imapOpen(f.p, c, &imapSessionFacts{})
	if err == nil {
		err = s.secure(ctx, &opt)
	}
	if err == nil && !*s.facts.LoggedIn {
		err = s.auth(&opt)
	}
	if err == nil {
		f.p.Phase(wire.Request)
		err = imapRefusal("SELECT", wire.Mismatch, s.command(nil, "SELECT %s", imapMailbox(f.mailbox)))
	}
	if err != nil {
		return nil, s.close(err)
	}
	return &mailtripIMAP{imapSession: s}, nil
}

// await looks into the mailbox until the message is there.
func (f *mailtripFetch) await(ctx context.Context, box mailtripBox, token string) error {
	late := probe.Failf(wire.Timeout, "the server has taken the message, but it was not seen in the mailbox in time")
	for looks := 0; ; looks++ {
		found, err := box.find(ctx, token)
		if looks > 0 && errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(ctx.Err(), context.Canceled) {
			f.p.Phase(wire.Wait)
			return late
		}
		if err != nil || found {
			return err
		}
		select {
		case <-time.After(f.poll):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return late
		}
	}
}

// mailtripIMAP is a mailbox that stays open.
type mailtripIMAP struct {
	*imapSession
	found []string // UIDs
}

func (b *mailtripIMAP) search(format string, args ...any) ([]string, error) {
	var uids []string
	err := b.command(func(text string) {
		if list, ok := strings.CutPrefix(text, "SEARCH"); ok {
			uids = append(uids, strings.Fields(list)...)
		}
	}, "UID SEARCH "+format, args...)
	for _, uid := range uids {
		if _, perr := strconv.ParseUint(uid, 10, 32); perr != nil && err == nil {
			err = probe.Protocolf("SEARCH: got %.40q, want a number", uid)
		}
	}
	return uids, imapRefusal("SEARCH", wire.Mismatch, err)
}

func (b *mailtripIMAP) find(_ context.Context, token string) (bool, error) {
	if err := b.command(nil, "NOOP"); err != nil { // brings in what is new
		return false, imapRefusal("NOOP", wire.BadProtocol, err)
	}
	var err error
	b.found, err = b.search("SUBJECT %s", token)
	return len(b.found) > 0, err
}

func (b *mailtripIMAP) remove(_ context.Context, today time.Time) (int, error) {
	old, err := b.search("SUBJECT %s BEFORE %s", mailtripSubject, today.AddDate(0, 0, -1).Format("2-Jan-2006"))
	if err != nil {
		return 0, err
	}
	uids := strings.Join(append(old, b.found...), ",")
	if err := b.command(nil, `UID STORE %s +FLAGS.SILENT (\Deleted)`, uids); err != nil {
		return 0, imapRefusal("STORE", wire.Mismatch, err)
	}
	if b.can("UIDPLUS") {
		if err := b.command(nil, "UID EXPUNGE %s", uids); err != nil {
			return 0, imapRefusal("EXPUNGE", wire.Mismatch, err)
		}
	}
	return len(old) + len(b.found), nil
}

// mailtripPOP3 is a mailbox that shows what is new only to who logs in anew.
type mailtripPOP3 struct {
	*pop3Session
	fetch *mailtripFetch
	ours  []int64 // messages to delete
}

func (f *mailtripFetch) openPOP3(ctx context.Context, c *probe.Conn) (mailtripBox, error) {
	opt := pop3SessionOptions{f.starttls, f.login}
	s, err := pop3Open(f.p, c, &pop3SessionFacts{})
	if err == nil {
		err = s.secure(ctx, &opt)
	}
	if err == nil {
		err = s.auth(&opt)
	}
	if err != nil {
		return nil, s.close(err)
	}
	return &mailtripPOP3{pop3Session: s, fetch: f}, nil
}

// mailtripRecent is how many of the last messages are looked at by POP3.
const mailtripRecent = 50

func (b *mailtripPOP3) find(ctx context.Context, token string) (bool, error) {
	if err := b.close(nil); err != nil {
		return false, err
	}
	box, err := b.fetch.open(ctx)
	if err != nil {
		return false, err
	}
	b.pop3Session, b.ours = box.(*mailtripPOP3).pop3Session, nil
	b.p.Phase(wire.Wait)
	n, _, err := b.stat()
	if err != nil {
		return false, err
	}
	found := false
	for i := n; i > max(0, n-mailtripRecent); i-- {
		head, err := b.head(i)
		if err != nil {
			return false, err
		}
		subject := pop3Field(head, "subject")
		this := strings.Contains(subject, token)
		old := strings.HasPrefix(subject, mailtripSubject+" ") && time.Since(pop3Date(head)) > 24*time.Hour
		if this || old {
			b.ours = append(b.ours, i)
		}
		found = found || this
	}
	return found, nil
}

func (b *mailtripPOP3) remove(context.Context, time.Time) (int, error) {
	for _, i := range b.ours {
		if _, err := b.command("DELE %d", i); err != nil {
			return 0, pop3Refusal(fmt.Sprintf("DELE %d", i), wire.Mismatch, err)
		}
	}
	return len(b.ours), nil
}
