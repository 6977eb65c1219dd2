package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/cron"
	"pup/cmd/pup-sched/internal/sched"
)

// The keys of a window, in the order of windowKeys.
const (
	windowName = iota
	windowDays
	windowFrom
	windowTo
	windowCron
	windowFor
	windowTZ
	windowBegin
	windowEnd
	windowKeyCount
)

// windowKeys are the keys of [[window]].
var windowKeys = [windowKeyCount]Key{
	windowName:  {"name", Text, "", "What active and maintenance call it.", 0, nil},
	windowDays:  {"days", Text, "every day", "Days of the week, as cron has them: mon-fri, or sat,sun.", 0, one(checkDays)},
	windowFrom:  {"from", Text, "00:00", "When it opens on these days.", 0, one(checkClock)},
	windowTo:    {"to", Text, "24:00", "When it closes; on the next day, if that is not after from.", 0, one(checkClock)},
	windowCron:  {"cron", Text, "", "When it opens, instead of days, from and to.", 0, one(checkCron)},
	windowFor:   {"for", Span, "", "How long it stays open after cron.", 0, one(checkPositive)},
	windowTZ:    {"tz", Text, "UTC", "The time zone of all that.", 0, one(checkZone)},
	windowBegin: {"begin", Instant, "", "When it opens, once and for all: a date and time with a zone, such as 2026-12-01T20:00:00+01:00.", 0, nil},
	windowEnd:   {"end", Instant, "", "When that closes.", 0, nil},
}

var windowKeyIndex = indexKeys(windowKeys[:])

// sort puts the members of a table into the order of keys, and reports those
// that are unknown or take something else. What names the table in errors.
func (l *loader) sort(t *table, keys []Key, index map[string]int, what string) []*member {
	set := make([]*member, len(keys))
	for i := range t.members {
		m := &t.members[i]
		k, ok := index[m.key]
		if !ok {
			names := make([]string, len(keys))
			for i := range keys {
				names[i] = keys[i].Name
			}
			l.probs.add(m.at, hint(m.key, names), "unknown key %q in %s", m.key, what)
		} else if keys[k].accept(&m.value, l.probs) {
			set[k] = m
		}
	}
	return set
}

// scanWindow reads a window.
func (l *loader) scanWindow(t *table) {
	before := l.probs.count()
	set := l.sort(t, windowKeys[:], windowKeyIndex, "[[window]]")
	name := set[windowName]
	if name == nil {
		if t.get("name") == nil && !t.broken {
			l.probs.add(t.at, "", "the window has no name")
		}
		return
	}
	if err := nameError(name.value.text); err != nil {
		l.probs.add(name.value.at, "", "name: %v", err)
		return
	}
	if old, ok := l.windowAt[name.value.text]; ok {
		l.probs.add(name.value.at, "", "the name %q is taken by the window at %s", name.value.text, old)
		return
	}
	l.windowAt[name.value.text] = name.value.at // though it may be broken: those who use it are not to blame
	if t.broken || l.probs.count() > before {
		return
	}
	w, err := makeWindow(set)
	if err != nil {
		l.probs.add(t.at, "", "window %q: %v", name.value.text, err)
		return
	}
	l.windows[name.value.text] = w
}

func makeWindow(set []*member) (*sched.Window, error) {
	has := func(keys ...int) bool {
		for _, k := range keys {
			if set[k] != nil {
				return true
			}
		}
		return false
	}
	name := set[windowName].value.text
	zone := time.UTC
	if s := set[windowTZ]; s != nil {
		zone, _ = loadZone(s.value.text)
	}
	switch {
	case has(windowBegin, windowEnd):
		if has(windowDays, windowFrom, windowTo, windowCron, windowFor, windowTZ) {
			return nil, fmt.Errorf("begin and end go with no other key")
		}
		if !has(windowBegin) || !has(windowEnd) {
			return nil, fmt.Errorf("begin and end belong together")
		}
		begin, _ := parseInstant(set[windowBegin].value.text)
		end, _ := parseInstant(set[windowEnd].value.text)
		if !end.After(begin) {
			return nil, fmt.Errorf("end must be after begin")
		}
		return sched.Onetime(name, begin, end), nil
	case has(windowCron, windowFor):
		if has(windowDays, windowFrom, windowTo) {
			return nil, fmt.Errorf("cron and for don't go with days, from and to")
		}
		if !has(windowCron) || !has(windowFor) {
			return nil, fmt.Errorf("cron and for belong together")
		}
		start, _ := cron.Parse(set[windowCron].value.text)
		span, _ := wire.ParseDuration(set[windowFor].value.text)
		return sched.Recurring(name, start, time.Duration(span), zone), nil
	case !has(windowDays, windowFrom, windowTo):
		return nil, fmt.Errorf("it says no time; give it days, from and to, or cron and for, or begin and end")
	}
	days, from, to := uint8(0x7f), 0, 24*60
	if s := set[windowDays]; s != nil {
		days, _ = cron.Weekdays(s.value.text)
	}
	if s := set[windowFrom]; s != nil {
		from, _ = parseClock(s.value.text)
	}
	if s := set[windowTo]; s != nil {
		to, _ = parseClock(s.value.text)
	}
	if from == to || from == 24*60 {
		return nil, fmt.Errorf("from and to leave nothing between them; leave both out for whole days")
	}
	return sched.Daily(name, days, from, to, zone), nil
}

func checkDays(v *value) error {
	if _, err := cron.Weekdays(v.text); err != nil {
		return fmt.Errorf("days: %w", err)
	}
	return nil
}

func checkClock(v *value) error {
	_, err := parseClock(v.text)
	return err
}

// parseClock reads a time of day such as 08:30, in minutes.
func parseClock(text string) (int, error) {
	h, m, ok := strings.Cut(text, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || len(h) > 2 || len(m) != 2 || err1 != nil || err2 != nil || minute > 59 || hour*60+minute > 24*60 {
		return 0, fmt.Errorf("%.20q is no time of day; write one such as \"08:30\"", text)
	}
	return int(hour*60 + minute), nil
}

// parseInstant reads a date and time with its zone.
func parseInstant(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, strings.Replace(text, " ", "T", 1))
	if err != nil {
		return t, fmt.Errorf("%.60q is no date and time with a zone; write one such as 2026-12-01T20:00:00+01:00", text)
	}
	return t, nil
}
