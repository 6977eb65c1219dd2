// Package config reads hooks.toml files and --on flags. It is strict: what it
// does not understand is an error that names file and line, and the remedy.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/state"
)

const seconds = time.Second

// Config is all that the files and flags say.
type Config struct {
	Spool       string // "": in memory
	Silences    string // "": none
	Recheck     string // "": none
	StaleAfter  time.Duration
	ForgetAfter time.Duration // 0: never
	GapAfter    time.Duration // 0: nobody counts results
	Hooks       []Hook
	Diagnoses   []Hook // of their rules, only Becomes is used

	DiagnoseWait time.Duration

	given map[string]bool // keys whose zero means something
}

// A Hook is a command and when to run it.
type Hook struct {
	Name    string
	Rule    state.Rule // without When
	When    *expr.Expr // nil: always
	Command hook.Command
	Jobs    int

	Group time.Duration // 0: each event by itself
	Lacks error         // what this system can't do of its sandbox, where that is let pass

	RetryMin, RetryMax, RetryFor time.Duration
	PermanentExit                []int
	At                           string // file:line, for messages
}

// Options are the flags that the loader needs.
type Options struct {
	User string // of hooks that do not say theirs
	Root bool   // we run as root
}

// An Error is a mistake in a file.
type Error struct {
	File string
	Line int
	Err  error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Load reads the files and the flags of --on, in this order. The error joins
// all mistakes that were found.
func Load(files, flags []string, o Options) (*Config, error) {
	c := &Config{ForgetAfter: time.Duration(defaults.ForgetAfter), GapAfter: time.Duration(defaults.GapAfter), DiagnoseWait: time.Duration(defaults.DiagnoseWait), given: map[string]bool{}}
	var errs []error
	names := map[string]string{}
	for _, file := range files {
		errs = append(errs, c.load(file, o, names)...)
	}
	for i, flag := range flags {
		k, err := parseFlag(flag, i)
		if err == nil {
			err = errors.Join(c.add(k, ".", "--on "+k.On[0], o, names)...)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--on %.80q: %w", flag, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// load adds what a file says.
func (c *Config) load(file string, o Options, names map[string]string) []error {
	text, err := os.ReadFile(file)
	if err == nil && o.Root {
		err = hook.Trusted(file)
	}
	if err != nil {
		return []error{err}
	}
	tree, badLine, err := decode(text)
	if err != nil {
		return []error{&Error{file, badLine, err}}
	}
	lines := places(text)
	at := func(path string, err error) error { return &Error{file, line(lines, path), err} }
	raw, err := json.Marshal(tree)
	if err != nil {
		return []error{at("", err)}
	}
	field := Field()
	if errs := field.Check("", raw); errs != nil {
		for i, err := range errs {
			path := ""
			if se, ok := errors.AsType[*schema.Error](err); ok {
				path = se.Path
			}
			errs[i] = at(path, err)
		}
		slices.SortStableFunc(errs, func(a, b error) int { return a.(*Error).Line - b.(*Error).Line })
		return errs
	}
	var parts struct {
		Spool       string            `json:"spool"`
		Silences    string            `json:"silences"`
		Recheck     string            `json:"recheck"`
		StaleAfter  wire.Duration     `json:"stale_after"`
		GapAfter    *wire.Duration    `json:"gap_after"`
		ForgetAfter *wire.Duration    `json:"forget_after"`
		Hook        []json.RawMessage `json:"hook"`
		Diagnose    []json.RawMessage `json:"diagnose"`
		Wait        *wire.Duration    `json:"diagnose_wait"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return []error{at("", err)}
	}
	if parts.StaleAfter != 0 {
		if c.StaleAfter != 0 {
			return []error{at("stale_after", errors.New("stale_after has been given by another file"))}
		}
		c.StaleAfter = time.Duration(parts.StaleAfter)
	}
	if err := errors.Join(c.once("forget_after", parts.ForgetAfter, &c.ForgetAfter), c.once("gap_after", parts.GapAfter, &c.GapAfter), c.once("diagnose_wait", parts.Wait, &c.DiagnoseWait)); err != nil {
		return []error{at("", err)}
	}
	for _, once := range []struct {
		key, value string
		to         *string
	}{{"spool", parts.Spool, &c.Spool}, {"silences", parts.Silences, &c.Silences}, {"recheck", parts.Recheck, &c.Recheck}} {
		switch {
		case once.value == "":
		case *once.to != "":
			return []error{at(once.key, fmt.Errorf("%s has been given by another file", once.key))}
		default:
			*once.to = once.value
		}
	}
	if parts.Silences != "" {
		if _, err := os.ReadDir(parts.Silences); err != nil {
			return []error{at("silences", err)}
		}
	}
	var errs []error
	hookField := HookField()
	for i, part := range parts.Hook {
		k, path := hookDefaults, fmt.Sprintf("hook[%d]", i)
		if err := hookField.Decode(path, part, &k); err != nil { // not json: it would write into the defaults' lists
			errs = append(errs, at(path, err))
			continue
		}
		for _, err := range c.add(k, filepath.Dir(file), fmt.Sprintf("%s:%d", file, line(lines, path)), o, names) {
			if ke, ok := errors.AsType[*keyError](err); ok {
				path = fmt.Sprintf("hook[%d].%s", i, ke.key)
			}
			errs = append(errs, at(path, err))
		}
	}
	return append(errs, c.loadDiagnoses(file, parts.Diagnose, lines, o, names)...)
}

// once takes a time that one file may give.
func (c *Config) once(key string, value *wire.Duration, to *time.Duration) error {
	switch {
	case value == nil:
		return nil
	case c.given[key]:
		return fmt.Errorf("%s has been given by another file", key)
	case *value < 0:
		return fmt.Errorf("%s: must not be negative", key)
	}
	c.given[key] = true
	*to = time.Duration(*value)
	return nil
}

// A keyError is a mistake in the value of a key.
type keyError struct {
	key string
	err error
}

func (e *keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// Compiled when needed: a shim, which is this program too, does not pay.
var (
	nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) })
	envForm  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })
)

// add checks a hook and adds it. Dir is where a relative command is looked
// for, at is for messages.
func (c *Config) add(k hookKeys, dir, at string, o Options, names map[string]string) (errs []error) {
	fail := func(key string, err error) {
		if err != nil {
			errs = append(errs, &keyError{key, err})
		}
	}
	h := Hook{Name: k.Name, Jobs: k.Jobs, At: at}
	if !nameForm().MatchString(k.Name) {
		fail("name", fmt.Errorf("%.80q: a name has letters, digits, dot, dash and underscore, 64 at most", k.Name))
	} else if first, ok := names[k.Name]; ok {
		fail("name", fmt.Errorf("there is a hook %q already, at %s", k.Name, first))
	}
	names[k.Name] = at
	var err error
	h.Rule, err = parseOn(k.On)
	fail("on", err)
	h.Rule.Hook = k.Name
	h.Rule.After, err = threshold(k.After)
	fail("after", err)
	h.Rule.RecoverAfter, err = threshold(k.RecoverAfter)
	fail("recover_after", err)
	h.Rule.Repeat, h.Rule.RepeatMax, h.Rule.Flap = time.Duration(k.Repeat), time.Duration(k.RepeatMax), k.Flapping
	switch {
	case h.Rule.Becomes.Has(state.Flapping) && k.Flapping == 0:
		fail("on", errors.New("flapping needs the key flapping, how many changes that is"))
	case h.Rule.RepeatMax > 0 && h.Rule.RepeatMax < h.Rule.Repeat:
		fail("repeat_max", errors.New("is less than repeat"))
	case h.Rule.RecoverAfter.Of > 0:
		fail("recover_after", errors.New("is a number in a row or a time"))
	case h.Rule.Reminders && k.Repeat == 0:
		fail("on", errors.New("reminder needs repeat, the time between reminders"))
	case h.Rule.Always && (k.Repeat != 0 || k.After != nil || k.RecoverAfter != nil):
		fail("on", errors.New("always is for every result; after, recover_after and repeat do not go with it"))
	}
	if k.When != "" {
		h.When, err = expr.Compile(k.When, catalog.Load().Env())
		fail("when", err)
	}
	fail("quorum", quorum(&h.Rule, k.Quorum))
	fail("members", members(&h.Rule, k.Members))
	fail("common_cause", commonCause(&h.Rule, k.CommonCause))
	h.Group = time.Duration(k.Group)
	if k.Input == string(hook.Stream) && (k.Group > 0 || k.Answers) {
		fail("input", errors.New("group and answers do not go with a stream"))
	}
	h.Command = hook.Command{Answers: k.Answers, Input: hook.Input(k.Input), Timeout: time.Duration(k.Timeout), Grace: time.Duration(k.Grace)}
	h.RetryMin, h.RetryMax, h.RetryFor = time.Duration(k.RetryMin), time.Duration(k.RetryMax), time.Duration(k.RetryFor)
	h.PermanentExit = k.PermanentExit
	if k.RetryMax < k.RetryMin {
		fail("retry_max", errors.New("is less than retry_min"))
	}
	if slices.Contains(k.PermanentExit, 75) || slices.Contains(k.PermanentExit, 0) {
		fail("permanent_exit", errors.New("0 is success, and 75 always asks for another attempt"))
	}
	h.Command.Sandbox, err = sandbox(&k.Sandbox)
	if fail("sandbox", err); k.Sandbox.Missing == "warn" {
		h.Lacks = h.Command.Sandbox.Available()
		h.Command.Sandbox.Lenient = h.Lacks != nil
	} else {
		fail("sandbox.level", h.Command.Sandbox.Available())
	}
	if k.Timeout <= 0 {
		fail("timeout", errors.New("must be more than zero: a hook without an end holds its name's later events for ever"))
	}
	if len(k.Command) == 0 {
		fail("command", errors.New("is empty"))
	} else if path, err := hook.Find(k.Command[0], dir); err != nil {
		fail("command", err)
	} else {
		h.Command.Argv = append([]string{path}, k.Command[1:]...)
		if h.Command.Guard = o.Root; o.Root {
			fail("command", hook.Trusted(path))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.Env)) {
		value := k.Env[name]
		switch {
		case !envForm().MatchString(name) || strings.HasPrefix(name, "PUP_"):
			fail("env", fmt.Errorf("%.80q can't be set: a variable has letters, digits and underscores, and PUP_ is ours", name))
		case strings.ContainsRune(value, 0):
			fail("env", fmt.Errorf("the value of %s holds a zero byte", name))
		}
		h.Command.Env = append(h.Command.Env, name+"="+value)
	}
	h.Command.User, err = whom(k.User, o)
	fail("user", err)
	if k.Enabled && len(errs) == 0 {
		c.Hooks = append(c.Hooks, h)
	}
	return errs
}

// sandbox reads the keys of a sandbox.
func sandbox(k *sandboxKeys) (hook.Sandbox, error) {
	for _, path := range slices.Concat(k.Read, k.Write) {
		if !filepath.IsAbs(path) {
			return hook.Sandbox{}, fmt.Errorf("read and write: %.200q is no absolute path", path)
		}
		if _, err := os.Stat(path); err != nil {
			return hook.Sandbox{}, fmt.Errorf("read and write: %w", err)
		}
	}
	level := hook.Level(k.Level)
	switch {
	case level != hook.Strict && (len(k.Read)+len(k.Write) > 0 || !k.Network):
		return hook.Sandbox{}, fmt.Errorf("read, write and network are kept only at level \"strict\", not %q", k.Level)
	case level == hook.Strict && k.Gain:
		return hook.Sandbox{}, errors.New("gain_privileges does not go with level \"strict\"")
	}
	return hook.Sandbox{Level: level, Network: k.Network, Read: k.Read, Write: k.Write, Privileges: k.Gain, Limits: hook.Limits{
		Files: uint64(k.Limits.Files), Processes: uint64(k.Limits.Processes), FileMiB: uint64(k.Limits.FileMiB),
		DataMiB: uint64(k.Limits.DataMiB), CPUS: uint64(k.Limits.CPUSeconds)}}, nil
}

// whom finds the user that a hook runs as; nil is our own.
func whom(name string, o Options) (*hook.User, error) {
	if name == "" {
		name = o.User
	}
	switch {
	case name == "" && o.Root:
		return nil, errors.New("must be said when pup-route runs as root: user = \"nobody\" here or --user nobody for all hooks; user = \"root\" if it has to be")
	case name == "":
		return nil, nil
	}
	u, err := hook.LookupUser(name)
	if err == nil && !o.Root && int(u.UID) != os.Getuid() {
		err = fmt.Errorf("only root can run a hook as %q; pup-route runs as uid %d", name, os.Getuid())
	}
	return u, err
}

// parseOn reads the words of on.
func parseOn(words []string) (state.Rule, error) {
	var r state.Rule
	if len(words) == 0 {
		return r, errors.New("is empty; name what to run the hook for, such as down and recovered")
	}
	known := []string{"up", "degraded", "down", "unknown", "recovered", "change", "stale", "flapping", "input-lost", "reminder", "always"}
	for _, word := range words {
		from, to, transition := strings.Cut(word, "->")
		switch {
		case transition:
			a, ok := state.ParseStatus([]byte(from))
			b, ok2 := state.ParseStatus([]byte(to))
			if !ok || !ok2 || a == b {
				return r, fmt.Errorf("%.40q is no transition; write two statuses, such as up->down", word)
			}
			r.Transitions = append(r.Transitions, state.Transition{From: a, To: b})
		case word == "recovered":
			r.Recovered = true
		case word == "change":
			r.Change = true
		case word == "stale":
			r.Becomes = r.Becomes.Add(state.Stale)
		case word == "flapping":
			r.Becomes = r.Becomes.Add(state.Flapping)
		case word == "input-lost":
			r.Becomes = r.Becomes.Add(state.InputLost)
		case word == "reminder":
			r.Reminders = true
		case word == "always":
			r.Always = true
		default:
			s, ok := state.ParseStatus([]byte(word))
			if !ok {
				return r, fmt.Errorf("%.40q is nothing that a hook can run for%s", word, schema.DidYouMean(word, known))
			}
			r.Becomes = r.Becomes.Add(s)
		}
	}
	if r.Always && len(words) > 1 {
		return r, errors.New("always stands alone; make another hook for the rest")
	}
	return r, nil
}

// threshold reads after: a number of results, or a time.
func threshold(raw json.RawMessage) (t state.Threshold, err error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return t, nil
	}
	if raw[0] == '"' {
		if n, err := fmt.Sscanf(string(raw), `"%d of %d"`, &t.Count, &t.Of); n == 2 && err == nil {
			if t.Count < 1 || t.Count > t.Of || t.Of > state.MaxOf {
				return t, fmt.Errorf("%s: want x of y with y from x to %d", raw, state.MaxOf)
			}
			return t, nil
		}
		t = state.Threshold{}
		var d wire.Duration
		if err := json.Unmarshal(raw, &d); err != nil {
			return t, fmt.Errorf("%w; write a number of results or a time such as \"2m\"", err)
		}
		t.For = time.Duration(d)
		if d <= 0 {
			return t, errors.New("must be more than zero")
		}
		return t, nil
	}
	if err := json.Unmarshal(raw, &t.Count); err != nil || t.Count < 1 || t.Count > 1_000_000 {
		return t, fmt.Errorf("want a number of results in a row, 1 or more, or a time such as \"2m\", not %.40s", raw)
	}
	return t, nil
}
