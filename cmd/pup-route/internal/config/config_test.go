package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pup/cmd/pup-route/internal/state"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
		err  string
	}{
		{"./page", []string{"./page"}, ""},
		{"  a  b\tc ", []string{"a", "b", "c"}, ""},
		{`mail -s 'it is' "down \"now\""`, []string{"mail", "-s", "it is", `down "now"`}, ""},
		{`a\ b '' "" c`, []string{"a b", "", "", "c"}, ""},
		{`'a'"b"c`, []string{"abc"}, ""},
		{`'$x' \$y "\$z"`, []string{"$x", "$y", "$z"}, ""},
		{`"a\b"`, []string{`a\b`}, ""},
		{`curl https://x/?a=b*`, []string{"curl", "https://x/?a=b*"}, ""},
		{"", nil, ""},
		{"a $x", nil, `"$" is for a shell`},
		{"a \"`b`\"", nil, "is for a shell"},
		{"a | b", nil, `"|" is for a shell`},
		{"a > b", nil, `">" is for a shell`},
		{"a; b", nil, `";" is for a shell`},
		{"a 'b", nil, "a quote is not closed"},
		{`a \`, nil, "nothing stands behind"},
	} {
		got, err := Split(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: got %q, %v, want the error %q", tt.in, got, err, tt.err)
			}
		} else if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

// FuzzSplit: quoted words come back as they were.
func FuzzSplit(f *testing.F) {
	f.Add("a b", "it's")
	f.Add("$x", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
		got, err := Split(quote(a) + "  " + quote(b))
		if err != nil || len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("%q and %q come back as %q, %v", a, b, got, err)
		}
		words, err := Split(a)
		for _, w := range words {
			if err == nil && !strings.ContainsAny(a, `'"\`) && strings.ContainsAny(w, " \t\n$|&;<>()`") {
				t.Errorf("%q: the word %q holds what separates or needs a shell", a, w)
			}
		}
	})
}

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hooks.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load([]string{path}, nil, Options{})
	if err != nil {
		err = &Error{"", 0, stripped{err, dir + "/"}}
	}
	return c, err
}

// stripped is an error without the test's own folder.
type stripped struct {
	error
	dir string
}

func (s stripped) Error() string { return strings.ReplaceAll(s.error.Error(), s.dir, "") }

func TestLoad(t *testing.T) {
	c, err := load(t, `
stale_after = "10m"

[[hook]]
name          = "page"
on            = ["down", "recovered", "stale", "up->degraded"]
when          = "labels.team == 'web'"
after         = "2m"
recover_after = 2
repeat        = "1h"
command       = ["./page", "-v", "$x"]
input         = "file"
timeout       = "1m"
env           = { B = "2", A = "1" }
jobs          = 2
`)
	if err != nil {
		t.Fatal(err)
	}
	h := c.Hooks[0]
	want := state.Rule{Hook: "page", Recovered: true, Becomes: state.Set(0).Add(state.Down).Add(state.Stale),
		Transitions: []state.Transition{{From: state.Up, To: state.Degraded}},
		After:       state.Threshold{For: 2 * time.Minute}, RecoverAfter: state.Threshold{Count: 2}, Repeat: time.Hour}
	if !reflect.DeepEqual(h.Rule, want) {
		t.Errorf("rule %+v, want %+v", h.Rule, want)
	}
	if c.StaleAfter != 10*time.Minute || h.When == nil || h.Jobs != 2 || h.Command.Timeout != time.Minute || h.Command.Grace != 5*time.Second || h.Command.Input != "file" {
		t.Errorf("got %+v", h)
	}
	if filepath.Base(h.Command.Argv[0]) != "page" || !filepath.IsAbs(h.Command.Argv[0]) || h.Command.Argv[2] != "$x" {
		t.Errorf("argv %q", h.Command.Argv)
	}
	if !reflect.DeepEqual(h.Command.Env, []string{"A=1", "B=2"}) {
		t.Errorf("env %q", h.Command.Env)
	}
}

func TestLoadErrors(t *testing.T) {
	hook := func(lines string) string {
		return "[[hook]]\nname = \"a\"\non = [\"down\"]\ncommand = [\"./page\"]\n" + lines
	}
	for _, tt := range []struct{ text, want string }{
		{hook("after = 0"), "hooks.toml:5: after: want a number of results in a row, 1 or more"},
		{hook(`after = "3"`), `hooks.toml:5: after: "3" has no unit`},
		{hook(`after = "0s"`), "hooks.toml:5: after: must be more than zero"},
		{hook(`timeout = "0s"`), "hooks.toml:5: timeout: must be more than zero"},
		{hook("jobs = 0"), "hooks.toml:5: hook[0].jobs: must be at least 1"},
		{hook(`input = "stdn"`), `hooks.toml:5: hook[0].input: "stdn" is none of stdin, file, stream; did you mean "stdin"?`},
		{hook(`when = "labels.team = 3"`), "hooks.toml:5: when: "},
		{hook(`env = { PUP_X = "1" }`), `hooks.toml:5: env: "PUP_X" can't be set`},
		{hook(`user = "no-such-user"`), `hooks.toml:5: user: user "no-such-user": `},
		{hook("") + hook(""), `hooks.toml:6: name: there is a hook "a" already, at hooks.toml:1`},
		{strings.Replace(hook(""), `"down"`, `"dwon"`, 1), `hooks.toml:3: on: "dwon" is nothing that a hook can run for; did you mean "down"?`},
		{strings.Replace(hook(""), `"down"`, `"up->up"`, 1), `hooks.toml:3: on: "up->up" is no transition`},
		{strings.Replace(hook(""), `"down"`, `"always", "down"`, 1), "hooks.toml:3: on: always stands alone"},
		{strings.Replace(hook(""), `"down"`, `"reminder"`, 1), "hooks.toml:3: on: reminder needs repeat"},
		{strings.Replace(hook(""), `"down"`, ``, 1), "hooks.toml:3: on: is empty"},
		{strings.Replace(hook(""), `./page`, `./plain`, 1), `hooks.toml:4: command: "plain" may not be executed; chmod +x it`},
		{strings.Replace(hook(""), `./page`, `./gone`, 1), `hooks.toml:4: command: there is no command "gone"`},
		{strings.Replace(hook(""), `"a"`, `"a b"`, 1), `hooks.toml:2: name: "a b": a name has letters`},
		{"# nothing\nhook = 3", "hooks.toml:2: hook: want an array, not an integer"},
		{hook("retry_max = \"1s\""), "hooks.toml:5: retry_max: is less than retry_min"},
		{hook("permanent_exit = [75]"), "hooks.toml:5: permanent_exit: 0 is success"},
		{"a = 1\na = 2", "hooks.toml:2: "},
		{"[[hook]]\nname = 'x'\n[hook.nested]\nx = 1", "hooks.toml:3: hook[0].nested: no such option"},
	} {
		_, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestFlag(t *testing.T) {
	c, err := Load(nil, []string{"down,recovered=sh -c 'echo $1'", "up=true"}, Options{})
	if err != nil || len(c.Hooks) != 2 {
		t.Fatal(c, err)
	}
	if h := c.Hooks[0]; h.Name != "on1-sh" || h.Command.Argv[2] != "echo $1" || !h.Rule.Recovered || !h.Rule.Becomes.Has(state.Down) {
		t.Errorf("got %+v", h)
	}
	for flag, want := range map[string]string{
		"./page":   "want STATUS=COMMAND",
		"=./page":  "want STATUS=COMMAND",
		"down=":    "there is no command",
		"dwon=sh":  `did you mean "down"?`,
		"down=a|b": "is for a shell",
	} {
		if _, err := Load(nil, []string{flag}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", flag, err, want)
		}
	}
}

func TestRootNeedsUser(t *testing.T) {
	_, err := Load(nil, []string{"down=true"}, Options{Root: true})
	if err == nil || !strings.Contains(err.Error(), `user = "nobody"`) {
		t.Errorf("got %v", err)
	}
	c, err := Load(nil, []string{"down=true"}, Options{Root: true, User: "root"})
	if err != nil || c.Hooks[0].Command.User.UID != 0 {
		t.Errorf("user root was said, got %v", err)
	}
}
