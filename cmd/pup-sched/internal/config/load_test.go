package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	target := func(name string) string { return "[[target]]\nname = \"" + name + "\"\nurl = \"tcp://a:1\"\n" }
	dir := write(t, map[string]string{
		"pup.toml":      "include = [\"more/*.toml\", \"one.toml\"]\n" + target("main"),
		"one.toml":      target("one"),
		"more/b.toml":   target("b"),
		"more/a.toml":   target("a") + "[defaults]\nevery = \"5m\"\n",
		"more/c.txt":    "not read",
		"more/.d.toml":  "not read either",
		"cycle.toml":    "include = [\"cycle.toml\", \"pup.toml\"]\n" + target("cycle"),
		"bad/main.toml": "include = [\"missing.toml\"]\n" + target("x"),
		"empty/x":       "",
	})
	for _, test := range []struct {
		paths, want, err string
	}{
		{"pup.toml", "main a b one", ""},
		{"more", "a b", ""},
		{"one.toml more one.toml", "one a b", ""},
		{"cycle.toml", "cycle main a b one", ""},
		{"bad/main.toml", "", "there is no "},
		{"nothing.toml", "", "no such file"},
		{"empty", "", "holds no *.toml file"},
	} {
		t.Run(test.paths, func(t *testing.T) {
			var paths []string
			for _, p := range strings.Fields(test.paths) {
				paths = append(paths, filepath.Join(dir, p))
			}
			c, err := Load(paths, Options{Checks: testChecks()})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got error %v, want %q in it", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for i := range c.Targets {
				names = append(names, string(c.Targets[i].Name()))
				if got, want := c.Targets[i].Plan.Every.String(), "5m0s"; strings.Contains(test.want, "a b") && got != want {
					t.Errorf("%s: every %s, want %s: defaults hold for all files", c.Targets[i].Name(), got, want)
				}
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDefaultsOfTwoFilesClash(t *testing.T) {
	dir := write(t, map[string]string{
		"a.toml": "[defaults]\nevery = \"1m\"\n" + good,
		"b.toml": "[defaults]\ntimeout = \"1s\"\nevery = \"2m\"\n",
	})
	_, err := Load([]string{dir}, Options{Checks: testChecks()})
	want := filepath.Join(dir, "b.toml") + `:3:1: default every has been given at ` + filepath.Join(dir, "a.toml") + ":2\n"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want it to begin with %s", err, want)
	}
}

func TestExplain(t *testing.T) {
	c, err := Load([]string{"-"}, Options{Checks: testChecks(), Explain: "a", Stdin: strings.NewReader(`[defaults]
every = "30s"
labels = { env = "prod", team = "ops" }
http = { method = "GET", limit = 1.5 }
[[target]]
name = "a"
url = "http://a/"
labels.team = "web"
http.method = "HEAD"
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := `name         "a"               [[target]] stdin:6
url          "http://a/"       [[target]] stdin:7
enabled      true              built in
every        "30s"             [defaults] stdin:2
timeout      pup-probe's, 10s  built in
expect       the check's own   built in
retries      0                 built in
retry_wait   1s                built in
labels.env   "prod"            [defaults] stdin:3
labels.team  "web"             [[target]] stdin:8
http.method  "HEAD"            [[target]] stdin:9
http.limit   1.5               [defaults] stdin:4
`
	if got := c.Explained.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
