package config

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-sched/internal/sched"
)

// FuzzLoad wants a configuration that is taken to give valid, bounded lines
// with names of their own, and one that is not to give places that exist and
// text that a terminal can take.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		good, good + good, "[defaults]\nevery = \"1d\"\nlabels.a = \"b\"\n" + good,
		"[[target]]\nname = \"a\"\nurl = \"http://a/?x=%00\"\nhttp = { headers = { a = \"\\u0000\" }, limit = 1e3 }\nexpect = [\"http.status == 200\"]\n",
		"[[target]]\nname = \"a\"\nurl = \"redis://a\"\nredis.password = \"${env:PUP_X}\"\ntls.server_name = \"x\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // the fuzzer must not read files
		}
		c, err := loadText(t, text)
		if err != nil {
			var es *Errors
			if !errors.As(err, &es) {
				t.Fatalf("%v is no list of mistakes", err)
			}
			for _, e := range es.List() {
				if n := 1 + strings.Count(text, "\n"); e.Line > n || e.Line > 0 && e.Column < 1 {
					t.Errorf("%d:%d is no place in a text of %d lines", e.Line, e.Column, n)
				}
			}
			for _, r := range err.Error() {
				if r != '\n' && r != '\t' && unicode.IsControl(r) {
					t.Errorf("control character %U in %q", r, err.Error())
				}
			}
			return
		}
		names := map[string]bool{}
		for i := range c.Targets {
			target := &c.Targets[i]
			name := string(target.Name())
			if names[name] {
				t.Errorf("two targets are called %s", name)
			}
			names[name] = true
			line := append(target.Head[:len(target.Head):len(target.Head)], '}')
			got := ""
			err := ndjson.Members(line, func(k, v []byte) error {
				if string(k) == "name" {
					got, _ = ndjson.Unquote(v)
				}
				return nil
			})
			if err != nil || got != name {
				t.Errorf("%s: name %q, %v", line, got, err)
			}
			if len(line)+len(name)+sched.TailMax > ndjson.MaxWrite+1 {
				t.Errorf("a line of %d bytes leaves no room for what follows", len(line))
			}
			if due := target.Due(0); due <= 0 || due > maxEvery.Milliseconds() {
				t.Errorf("due at %d", due)
			}
		}
	})
}
