package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/cron"
)

// A Type is what a key takes.
type Type string

// The types of keys.
const (
	Text      Type = "string"
	Texts     Type = "list of strings"
	Span      Type = "duration"
	Count     Type = "integer"
	Switch    Type = "boolean"
	TextTable Type = "table of strings"
	Lists     Type = "table of lists"
	Instant   Type = "date and time"
)

// A Key is a key of pup.toml: the loader and the manual both read this
// declaration.
type Key struct {
	Name    string
	Type    Type
	Default string // as the manual shows it
	Doc     string
	Where   Scope

	check func(v *value) []error // of a value of the right type
}

// A Scope is the set of tables that may hold a key.
type Scope uint8

// The tables of settings.
const (
	InTarget Scope = 1 << iota
	InTemplate
	InDefaults
	InLine // of a source

	Anywhere = InTarget | InTemplate | InDefaults | InLine
)

// The keys of a target, in the order of targetKeys.
const (
	keyName = iota
	keyURL
	keyCheck
	keyEnabled
	keyUse
	keyMatrix
	keyEvery
	keyCron
	keyTZ
	keyActive
	keyMaintenance
	keyRecheck
	keyRelax
	keyRelaxAfter
	keyTimeout
	keyExpect
	keyWarn
	keyRetries
	keyRetryWait
	keyDependsOn
	keyLabels
	keyCount
)

// targetKeys are the keys of [[target]], [template.NAME] and [defaults].
var targetKeys = [keyCount]Key{
	keyName:        {"name", Text, "", "The identity of the target, unique in the whole configuration: letters, digits and . _ : @ / -, at most 128.", InTarget | InLine, nil},
	keyURL:         {"url", Text, "", "What to check, and where. The scheme picks the check, see pup-checks(7).", InTarget | InTemplate | InLine, nil},
	keyCheck:       {"check", Text, "", "The check, where the scheme of the url does not pick it.", Anywhere, nil},
	keyEnabled:     {"enabled", Switch, "true", "false takes the target out; what it says is still checked.", Anywhere, nil},
	keyUse:         {"use", Texts, "", "Names of templates whose settings the target takes over, later ones on top of earlier ones.", InTarget, nil},
	keyMatrix:      {"matrix", Lists, "", "Makes a target of every combination of the values: where a string of the target or of its templates says ${KEY}, each gets its own.", InTarget, checkMatrix},
	keyEvery:       {"every", Span, "60s", "How often the target is due. When exactly follows from its name, so that targets are spread evenly and keep their place over restarts.", Anywhere, one(checkEvery)},
	keyCron:        {"cron", Text, "", "When the target is due, instead of every: minute, hour, day of month, month and day of week, or the second in front of these, as crontab(5) has them.", Anywhere, one(checkCron)},
	keyTZ:          {"tz", Text, "UTC", "The time zone of cron, such as Europe/Berlin.", Anywhere, one(checkZone)},
	keyActive:      {"active", Texts, "", "Names of windows; the target is due only while one of them is open.", Anywhere, nil},
	keyMaintenance: {"maintenance", Texts, "", "Names of windows; while one of them is open, the lines of the target say so, and pup-route does not raise an alarm.", Anywhere, nil},
	keyRecheck:     {"recheck", Span, "", "How often the target is due while it is not up, if pup-sched is told so (--control).", Anywhere, one(checkEvery)},
	keyRelax:       {"relax", Span, "", "How often the target is due once it has been up for long, if pup-sched is told so (--control).", Anywhere, one(checkEvery)},
	keyRelaxAfter:  {"relax_after", Span, "24h", "How long that is.", Anywhere, one(checkPositive)},
	keyTimeout:     {"timeout", Span, "pup-probe's, 10s", "Wall clock for a whole attempt.", Anywhere, one(checkPositive)},
	keyExpect:      {"expect", Texts, "the check's own", "Expressions over the result that must hold, else the target is down.", Anywhere, nil},
	keyWarn:        {"warn", Texts, "", "Expressions that must hold, else the target is degraded.", Anywhere, nil},
	keyRetries:     {"retries", Count, "0", "How often a failed attempt is repeated within the run, at most 20.", Anywhere, one(checkRetries)},
	keyRetryWait:   {"retry_wait", Span, "1s", "The pause before a repeated attempt.", Anywhere, nil},
	keyDependsOn:   {"depends_on", Texts, "", "Names of targets without which this one can't work; pup-route blames them and not this one.", Anywhere, nil},
	keyLabels:      {"labels", TextTable, "", "Copied to every result. Those of [defaults], of the templates and of the target are merged.", Anywhere, checkLabels},
}

var targetKeyIndex = indexKeys(targetKeys[:])

func indexKeys(keys []Key) map[string]int {
	m := make(map[string]int, len(keys))
	for i, k := range keys {
		m[k.Name] = i
	}
	return m
}

// accept reports all that is wrong with a value and what to write instead, and
// says whether the value, or what is left of a list, can be judged further.
func (k *Key) accept(v *value, probs *Errors) bool {
	if hint, err := k.judge(v); err != nil {
		probs.add(v.at, hint, "%v", err)
		return false
	}
	if k.Type == Texts {
		v.items = slices.DeleteFunc(v.items, func(item value) bool {
			if item.kind != stringKind {
				probs.add(item.at, k.hintTexts(), "%s takes a list of strings, and this element is %s", k.Name, item.kind)
			}
			return item.kind != stringKind
		})
	}
	if k.check == nil {
		return true
	}
	faults := k.check(v)
	for _, err := range faults {
		at := v.at
		if f, ok := err.(*fault); ok {
			at = f.at
		}
		probs.add(at, "", "%v", err)
	}
	return faults == nil
}

func (k *Key) hintTexts() string { return `write ` + k.Name + ` = ["…", "…"]` }

// judge says what is wrong with the type of a value.
func (k *Key) judge(v *value) (hint string, problem error) {
	switch k.Type {
	case Text:
		if v.kind != stringKind {
			return `write it in quotes: ` + k.Name + ` = "…"`, fmt.Errorf("%s takes a string, not %s", k.Name, v.kind)
		}
		if strings.TrimSpace(v.text) == "" {
			return "", fmt.Errorf("%s is empty", k.Name)
		}
	case Texts:
		if v.kind != arrayKind {
			return k.hintTexts(), fmt.Errorf("%s takes a list of strings, not %s", k.Name, v.kind)
		}
	case Span:
		return k.judgeSpan(v)
	case Count:
		if v.kind != intKind {
			return "", fmt.Errorf("%s takes an integer, not %s", k.Name, v.kind)
		}
		if _, err := parseInt(v.text); err != nil {
			return "", fmt.Errorf("%s: %w", k.Name, err)
		}
	case Switch:
		if v.kind != boolKind {
			return "", fmt.Errorf("%s takes true or false, not %s", k.Name, v.kind)
		}
	case TextTable:
		if v.kind != tableKind {
			return `write ` + k.Name + ` = { key = "value" }`, fmt.Errorf("%s takes a table of strings, not %s", k.Name, v.kind)
		}
	case Instant:
		if v.kind != stringKind && v.kind != timeKind {
			return "", fmt.Errorf("%s takes a date and time, not %s", k.Name, v.kind)
		}
		if _, err := parseInstant(v.text); err != nil {
			return "", fmt.Errorf("%s: %w", k.Name, err)
		}
	case Lists:
		if v.kind != tableKind {
			return `write ` + k.Name + ` = { key = ["a", "b"] }`, fmt.Errorf("%s takes a table of lists, not %s", k.Name, v.kind)
		}
	}
	return "", nil
}

func (k *Key) judgeSpan(v *value) (hint string, problem error) {
	hint = `write a number with its unit: ` + k.Name + ` = "30s" (ms, s, m, h, d, w)`
	if v.kind != stringKind {
		if v.kind == intKind && v.text != "0" {
			hint = fmt.Sprintf(`write %s = "%ss" for seconds (units: ms, s, m, h, d, w)`, k.Name, v.text)
		}
		return hint, fmt.Errorf("%s takes a duration, not %s", k.Name, v.kind)
	}
	d, err := wire.ParseDuration(v.text)
	if err != nil {
		return hint, fmt.Errorf("%s: %.80q is not a duration", k.Name, v.text)
	}
	if d < 0 {
		return "", fmt.Errorf("%s must not be negative", k.Name)
	}
	return "", nil
}

// A fault is what is wrong with a part of a value.
type fault struct {
	at place
	error
}

func faultf(at place, format string, args ...any) error {
	return &fault{at, fmt.Errorf(format, args...)}
}

// one makes a check of many mistakes from one that knows of one.
func one(check func(v *value) error) func(v *value) []error {
	return func(v *value) []error {
		if err := check(v); err != nil {
			return []error{err}
		}
		return nil
	}
}

// maxName bounds names: they go into the environment of hooks and into the
// names of files.
const maxName = 128

func nameError(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("%.40q… has %d characters; at most %d are allowed", s, len(s), maxName)
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (i == 0 || !strings.ContainsRune("._:@/-", rune(c))) {
			return fmt.Errorf("%.80q is no name: it may hold letters, digits and . _ : @ / - and begins with a letter or digit", s)
		}
	}
	if s == "" {
		return fmt.Errorf("is empty")
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// The shortest and the longest interval.
const (
	minEvery = 100 * time.Millisecond
	maxEvery = 366 * 24 * time.Hour
)

func checkEvery(v *value) error {
	d, _ := wire.ParseDuration(v.text)
	switch every := time.Duration(d); {
	case every < minEvery:
		return fmt.Errorf("an interval must be at least %s", wire.Duration(minEvery))
	case every > maxEvery:
		return fmt.Errorf("an interval must be at most %s", wire.Duration(maxEvery))
	case every%time.Millisecond != 0:
		return fmt.Errorf("an interval must be a whole number of milliseconds")
	}
	return nil
}

func checkPositive(v *value) error {
	if d, _ := wire.ParseDuration(v.text); d == 0 {
		return fmt.Errorf("the duration must be longer than 0")
	}
	return nil
}

func checkRetries(v *value) error {
	if n, _ := parseInt(v.text); n < 0 || n > 20 {
		return fmt.Errorf("retries must be from 0 to 20")
	}
	return nil
}

func checkLabels(v *value) (faults []error) {
	for i := range v.table.members {
		m := &v.table.members[i]
		switch bad := strings.IndexFunc(m.key, func(c rune) bool { return c > 127 || !isAlnum(byte(c)) && !strings.ContainsRune("._-", c) }); {
		case m.key == "":
			faults = append(faults, faultf(m.at, "a label needs a name"))
		case bad >= 0 || !isAlnum(m.key[0]):
			faults = append(faults, faultf(m.at, "%.80q can't name a label: use letters, digits and . _ -", m.key))
		}
		if m.value.kind != stringKind {
			faults = append(faults, faultf(m.value.at, "label %.40q takes a string, not %s; write it in quotes", m.key, m.value.kind))
		}
	}
	return faults
}

// parseInt reads a TOML integer.
func parseInt(text string) (int64, error) {
	digits := strings.TrimPrefix(strings.ReplaceAll(text, "_", ""), "+")
	n, err := strconv.ParseInt(digits, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40s does not fit into 64 bits", text)
	}
	return n, nil
}

func checkCron(v *value) error {
	if _, err := cron.Parse(v.text); err != nil {
		return fmt.Errorf("cron: %w", err)
	}
	return nil
}

func checkZone(v *value) error {
	if _, err := loadZone(v.text); err != nil {
		return fmt.Errorf("tz: %w", err)
	}
	return nil
}

// loadZone finds a time zone by its name. The host's own zone has none: two
// hosts with one configuration are to write the same runs.
func loadZone(name string) (*time.Location, error) {
	if name == "Local" || name == "" {
		return nil, fmt.Errorf("%q names no time zone; write one such as Europe/Berlin", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %.60q; write one such as Europe/Berlin", name)
	}
	return loc, nil
}

// maxMatrix bounds the targets that one matrix makes.
const maxMatrix = 100_000

func checkMatrix(v *value) (faults []error) {
	n := 1
	for i := range v.table.members {
		m := &v.table.members[i]
		if m.value.kind != arrayKind || len(m.value.items) == 0 {
			faults = append(faults, faultf(m.value.at, "matrix key %.40q takes a list of values", m.key))
			continue
		}
		for j := range m.value.items {
			if item := &m.value.items[j]; item.kind != stringKind && item.kind != intKind {
				faults = append(faults, faultf(item.at, "matrix key %.40q holds %s; write strings or integers", m.key, item.kind))
			}
		}
		n = min(n*len(m.value.items), maxMatrix+1)
	}
	switch {
	case len(v.table.members) == 0:
		return []error{fmt.Errorf("the matrix is empty")}
	case n > maxMatrix:
		return append(faults, fmt.Errorf("the matrix makes more than %d targets", maxMatrix))
	}
	return faults
}
