package config

import (
	"errors"
	"strings"
	"testing"
)

func TestSource(t *testing.T) {
	const text = `
[template.web]
every = "10s"
labels = { kind = "web" }
[[target]]
name = "own"
url = "tcp://a:1"
[[source]]
name = "s"
file = "x"
use = ["web"]
[[source]]
name = "broken"
command = ["x"]
`
	printed := `{"v":1,"type":"target","name":"one","url":"http://one/","http":{"headers":{"A":"\u00e4"},"limit":1.5},"labels":{"team":"x"},"due":"2026-11-22T06:00:00.000Z","seq":4}

http://two/
{"type":"beat"}
{"name":"three","url":"http://three/","evry":"1s"}
{"name":"four","url":"http://four/","http":{"metod":"GET"}}
{"name":"five","url":"http://five/","enabled":null}
{"name":"own","url":"http://own/"}
not a url
{"name":"six","url":"http://six/","depends_on":["one"],"every":"1h"}
{"name":"seven","url":"http://seven/","use":["web"]}
`
	c, err := Load([]string{"-"}, Options{
		Checks: testChecks(), Stdin: strings.NewReader(text),
		Fetch: func(s *Source) ([]byte, error) {
			if s.Name == "broken" {
				return nil, errors.New("exit status 1")
			}
			return []byte(printed), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"v":1,"type":"target","name":"own","url":"tcp://a:1","every":"1m"}`,
		`{"v":1,"type":"target","name":"one","url":"http://one/","http":{"headers":{"A":"ä"},"limit":1.5},"every":"10s","labels":{"kind":"web","team":"x"}}`,
		`{"v":1,"type":"target","name":"http://two/","url":"http://two/","every":"10s","labels":{"kind":"web"}}`,
		`{"v":1,"type":"target","name":"six","url":"http://six/","every":"1h","depends_on":["one"],"labels":{"kind":"web"}}`,
	}
	if got := heads(c); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	wantWarnings := `5:1: unknown key "evry" in a line | did you mean "every"?
6:1: http.metod: no such option | did you mean "method"?
7:1: enabled: null stands for nothing; leave it out
8:1: the name "own" is taken by the target at stdin:6 | a name is an identity; give each target its own
9:1: name: "not a url" is no name: it may hold letters, digits and . _ : @ / - and begins with a letter or digit
9:1: url: "not a url" has no scheme | write one such as https://not a url
11:1: use belongs to a target, not to a line
0:0: exit status 1
`
	if got := complaints(t, c.Warnings); got != wantWarnings {
		t.Errorf("warnings:\n%s\nwant\n%s", got, wantWarnings)
	}
}
