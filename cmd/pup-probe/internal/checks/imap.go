package checks

import (
	"context"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type imapOptions struct {
	imapSessionOptions
	Mailbox string `json:"mailbox" doc:"The mailbox to open, read-only, once logged in."`
}

type imapFacts struct {
	imapSessionFacts
	Messages    *int64   `json:"messages" doc:"How many messages are in the mailbox."`
	Unseen      *int64   `json:"unseen" doc:"How many of them are unseen."`
	UIDNext     int64    `json:"uid_next" doc:"The number that the next message will get: it grows with each that comes in."`
	UIDValidity int64    `json:"uid_validity" doc:"Changes when the mailbox was made anew."`
	NewestAgeMS *float64 `json:"newest_age_ms" doc:"How long ago the newest message came in (INTERNALDATE), in milliseconds."`
	QuotaUsed   *int64   `json:"quota_used_bytes" doc:"How much of the mailbox's quota is used; absent where there is none, or the server does not tell (QUOTA)."`
	QuotaLimit  *int64   `json:"quota_limit_bytes" doc:"The quota; a mailbox that has reached it takes no more mail."`
}

func init() {
	register(probe.Info{
		Name:    "imap",
		Summary: "a mailbox can be read by IMAP",
		Schemes: []probe.Scheme{{Name: "imap", Port: 143}, {Name: "imaps", Port: 993, TLS: true}},
		Example: "imaps://imap.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the server greets and says what it can do (RFC 3501, RFC 9051), that TLS works where it is spoken, and, with a user, that the login works and the mailbox can be opened and its messages counted. The mailbox is opened read-only (EXAMINE): no message changes its state.

Without a user the check ends before the login: logged_in is false, and up says nothing of the mailboxes.

newest_age_ms is that of the youngest among the last ten messages. ` + "`warn = [\"imap.newest_age_ms < 3600000\"]`" + ` tells that mail has stopped coming in.

BYE, and refusals with a code such as UNAVAILABLE or INUSE (RFC 5530), are ` + "`unavailable`" + `; a refused login is ` + "`denied`" + `; a mailbox that can't be opened is ` + "`mismatch`" + `.

Phases: greet has the greeting, the capabilities and STARTTLS, auth the login, request the mailbox and LOGOUT.`,
	}, imapOptions{imapSessionOptions: imapSessionOptions{starttlsOptions: starttlsOptions{"auto"}}, Mailbox: "INBOX"}, imap)
}

func imap(ctx context.Context, p *probe.Probe, given *imapOptions, facts *imapFacts) (err error) {
	opt := new(*given)
	opt.fromURL(p)
	if err := opt.valid(p, opt.StartTLS); err != nil {
		return err
	}
	if err := loginText(p, "mailbox", opt.Mailbox); err != nil {
		return err
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	s, err := imapOpen(p, c, &facts.imapSessionFacts)
	defer func() { err = s.close(err) }()
	if err == nil {
		err = s.secure(ctx, &opt.imapSessionOptions)
	}
	if err == nil && opt.given() && !*facts.LoggedIn {
		err = s.auth(&opt.imapSessionOptions)
	}
	if err != nil {
		return err
	}
	p.Phase(wire.Request)
	if !*facts.LoggedIn {
		return imapRefusal("NOOP", wire.BadProtocol, s.command(nil, "NOOP"))
	}
	return s.look(opt.Mailbox, facts)
}

// look counts the messages of a mailbox and finds the age of the newest.
func (s *imapSession) look(mailbox string, facts *imapFacts) error {
	name := imapMailbox(mailbox)
	err := s.command(facts.status, "STATUS %s (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)", name)
	if err != nil {
		return imapRefusal("STATUS", wire.Mismatch, err)
	}
	exists := int64(-1)
	err = s.command(func(text string) {
		if n, ok := imapNumber(text, "EXISTS"); ok {
			exists = n
		}
	}, "EXAMINE %s", name)
	switch {
	case err != nil:
		return imapRefusal("EXAMINE", wire.Mismatch, err)
	case exists < 0:
		return probe.Protocolf("EXAMINE: the server does not say how many messages there are")
	}
	facts.Messages = &exists
	if s.can("QUOTA") {
		if err := s.command(facts.quota, "GETQUOTAROOT %s", name); err != nil {
			return imapRefusal("GETQUOTAROOT", wire.Mismatch, err)
		}
	}
	if exists == 0 {
		return nil
	}
	var newest time.Time
	err = s.command(func(text string) {
		if t, ok := imapDate(text); ok && t.After(newest) {
			newest = t
		}
	}, "FETCH %d:%d (INTERNALDATE)", max(1, exists-9), exists)
	switch {
	case err != nil:
		return imapRefusal("FETCH", wire.Mismatch, err)
	case newest.IsZero():
		return probe.Protocolf("FETCH: the server does not say when the messages came in")
	}
	facts.NewestAgeMS = new(wire.MS(time.Since(newest)))
	return nil
}

// status reads `STATUS name (MESSAGES 3 UNSEEN 1 …)`.
func (f *imapFacts) status(text string) {
	list := text[strings.LastIndexByte(text, '(')+1:]
	if !strings.HasPrefix(strings.ToUpper(text), "STATUS ") {
		return
	}
	words := strings.Fields(strings.TrimSuffix(list, ")"))
	for i := 0; i+1 < len(words); i += 2 {
		n, err := strconv.ParseInt(words[i+1], 10, 64)
		if err != nil || n < 0 {
			continue
		}
		switch strings.ToUpper(words[i]) {
		case "MESSAGES":
			f.Messages = &n
		case "UNSEEN":
			f.Unseen = &n
		case "UIDNEXT":
			f.UIDNext = n
		case "UIDVALIDITY":
			f.UIDValidity = n
		}
	}
}

// quota reads `QUOTA name (STORAGE 10 512 …)`, in units of 1024 bytes (RFC
// 9208). Of several the fullest counts.
func (f *imapFacts) quota(text string) {
	if !strings.HasPrefix(strings.ToUpper(text), "QUOTA ") {
		return
	}
	words := strings.Fields(strings.TrimSuffix(text[strings.LastIndexByte(text, '(')+1:], ")"))
	for i := 0; i+2 < len(words); i += 3 {
		used, err := strconv.ParseUint(words[i+1], 10, 52)
		limit, err2 := strconv.ParseUint(words[i+2], 10, 52)
		if !strings.EqualFold(words[i], "STORAGE") || err != nil || err2 != nil || limit == 0 {
			continue
		}
		if f.QuotaLimit == nil || float64(used)*float64(*f.QuotaLimit) > float64(*f.QuotaUsed)*float64(limit) {
			f.QuotaUsed, f.QuotaLimit = new(int64(used<<10)), new(int64(limit<<10))
		}
	}
}

// imapNumber reads `3 EXISTS`.
func imapNumber(text, word string) (int64, bool) {
	number, rest, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	return n, err == nil && n >= 0 && strings.EqualFold(rest, word)
}

// imapDate reads `3 FETCH (… INTERNALDATE "24-Nov-2026 08:09:10 +0100")`.
func imapDate(text string) (time.Time, bool) {
	_, rest, ok := strings.Cut(text, `INTERNALDATE "`)
	date, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 {
		return time.Time{}, false
	}
	t, err := time.Parse("_2-Jan-2006 15:04:05 -0700", date)
	return t, err == nil
}
