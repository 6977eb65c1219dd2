package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

type httpOptions struct {
	Method   string            `json:"method" enum:"GET,HEAD,POST" doc:"The method."`
	Headers  map[string]string `json:"headers" doc:"More headers."`
	Password string            `json:"password" secret:"true" doc:"For basic authentication."`
	Limit    float64           `json:"limit" doc:"A limit."`
	Secret   map[string]string `json:"secret_headers" secret:"true" doc:"Credentials."`
	Steps    []httpStep        `json:"steps" doc:"Steps."`
	Wait     wire.Duration     `json:"wait" doc:"A wait."`
}

type httpStep struct {
	Path string `json:"path" required:"true" doc:"The path."`
}

type httpFacts struct {
	Status int    `json:"status" doc:"The status."`
	Body   string `json:"body" large:"true" doc:"The body."`
}

type redisOptions struct {
	Password string `json:"password" secret:"true" doc:"The password."`
}

type redisFacts struct {
	Role string `json:"role" doc:"The role."`
}

type tlsOptions struct {
	ServerName string `json:"server_name" doc:"The name."`
}

type tlsFacts struct {
	DaysLeft float64 `json:"days_left" doc:"Days."`
}

// testChecks is a small catalogue with one of everything.
func testChecks() *catalog.Catalog {
	options := func(v any) func() *schema.Field {
		f := schema.Of(v)
		return func() *schema.Field { return &f }
	}
	commons := []string{"tls", "resolver", "address", "connect", "family", "source", "proxy"}
	return catalog.New([]catalog.Check{
		{
			Info:    catalog.Info{Name: "http", Schemes: []catalog.Scheme{{Name: "http", Port: 80}, {Name: "https", Port: 443, TLS: true}}, Common: commons},
			Options: options(httpOptions{}), Facts: options(httpFacts{}),
		},
		{
			Info:    catalog.Info{Name: "redis", Schemes: []catalog.Scheme{{Name: "redis", Port: 6379}}, Common: commons},
			Options: options(redisOptions{}), Facts: options(redisFacts{}),
		},
		{
			Info:    catalog.Info{Name: "tcp", Schemes: []catalog.Scheme{{Name: "tcp"}}, Common: []string{"connect"}},
			Options: options(struct{}{}), Facts: options(struct{}{}),
		},
	}, func() schema.Field { return schema.Of(tlsOptions{}) }, func() schema.Field { return schema.Of(tlsFacts{}) })
}

// loadText loads one file of that text.
func loadText(t testing.TB, text string) (*Config, error) {
	t.Helper()
	return Load([]string{"-"}, Options{Checks: testChecks(), Stdin: strings.NewReader(text)})
}

func heads(c *Config) []string {
	var hs []string
	for i := range c.Targets {
		hs = append(hs, string(c.Targets[i].Head)+"}")
	}
	return hs
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var targetTests = []struct {
	name, text string
	want       []string
}{
	{"the least", `[[target]]
name = "www"
url = "https://www.example.org/"`,
		[]string{`{"v":1,"type":"target","name":"www","url":"https://www.example.org/","every":"1m"}`}},
	{"everything", `
[defaults]
every = "30s"
timeout = "5s"
labels = { env = "prod", team = "ops" }
resolver = "192.0.2.53"
http.headers.Accept = "text/html"
redis.password = "${secret:redis}"

[[target]]
name = "www"
url = "https://www.example.org/a?b=1&c=2"
expect = ["http.status == 200", "http.body contains 'Welcome'"]
warn = ["tls.days_left > 21", "ms.total < 800"]
labels = { team = "web" }
retries = 2
retry_wait = "500ms"
[target.http]
method = "HEAD"
limit = +1_0.5
[[target.http.steps]]
path = "/a"
[[target.http.steps]]
path = "/b"

[[target]]
name = "cache"
every = "1h"
url = "redis://cache:6379/0"
`,
		[]string{
			`{"v":1,"type":"target","name":"www","url":"https://www.example.org/a?b=1&c=2","resolver":"192.0.2.53","http":{"headers":{"Accept":"text/html"},"method":"HEAD","limit":10.5,"steps":[{"path":"/a"},{"path":"/b"}]},"expect":["http.status == 200","http.body contains 'Welcome'"],"warn":["tls.days_left > 21","ms.total < 800"],"retries":2,"retry_wait":"500ms","timeout":"5s","every":"30s","labels":{"env":"prod","team":"web"}}`,
			`{"v":1,"type":"target","name":"cache","url":"redis://cache:6379/0","resolver":"192.0.2.53","redis":{"password":"${secret:redis}"},"timeout":"5s","every":"1h","labels":{"env":"prod","team":"ops"}}`,
		}},
	{"inline and out of order", `
target = [ { name = "a", url = "tcp://a:1" }, { name = "b", url = "tcp://b:1", enabled = false } ]
defaults = { every = "1d" }`,
		[]string{`{"v":1,"type":"target","name":"a","url":"tcp://a:1","every":"24h"}`}},
	{"check against the scheme", `[[target]]
name = "a"
url = "tcp://a:1"
check = "redis"`,
		[]string{`{"v":1,"type":"target","name":"a","url":"tcp://a:1","check":"redis","every":"1m"}`}},
	{"templates", `
[defaults]
labels = { env = "prod" }
http.method = "GET"
[template.web]
every = "5m"
expect = ["http.status == 200"]
labels = { kind = "web", team = "a" }
http = { headers = { A = "1" } }
[template.slow]
cron = "0 * * * *"
expect = ["http.status in [200, 503]"]
[[target]]
name = "x"
use = ["web", "slow"]
url = "http://x/"
labels.team = "b"
[[target]]
name = "y"
use = ["slow", "web"]
url = "http://y/"`,
		[]string{
			`{"v":1,"type":"target","name":"x","url":"http://x/","http":{"method":"GET","headers":{"A":"1"}},"expect":["http.status in [200, 503]"],"labels":{"env":"prod","kind":"web","team":"b"}}`,
			`{"v":1,"type":"target","name":"y","url":"http://y/","http":{"method":"GET","headers":{"A":"1"}},"expect":["http.status == 200"],"every":"5m","labels":{"env":"prod","kind":"web","team":"a"}}`,
		}},
	{"matrix", `
[template.web]
url = "http://${host}:${port}/"
http.password = "${secret:web}"
labels.host = "${host}"
[[target]]
name = "web-${host}-${port}"
use = ["web"]
matrix = { host = ["a", "b"], port = [80, 8080] }`,
		[]string{
			`{"v":1,"type":"target","name":"web-a-80","url":"http://a:80/","http":{"password":"${secret:web}"},"every":"1m","labels":{"host":"a"}}`,
			`{"v":1,"type":"target","name":"web-a-8080","url":"http://a:8080/","http":{"password":"${secret:web}"},"every":"1m","labels":{"host":"a"}}`,
			`{"v":1,"type":"target","name":"web-b-80","url":"http://b:80/","http":{"password":"${secret:web}"},"every":"1m","labels":{"host":"b"}}`,
			`{"v":1,"type":"target","name":"web-b-8080","url":"http://b:8080/","http":{"password":"${secret:web}"},"every":"1m","labels":{"host":"b"}}`,
		}},
	{"dependencies", `
defaults.depends_on = ["gw"]
[[target]]
name = "gw"
url = "tcp://gw:1"
[[target]]
name = "a"
url = "tcp://a:1"`,
		[]string{
			`{"v":1,"type":"target","name":"gw","url":"tcp://gw:1","every":"1m"}`,
			`{"v":1,"type":"target","name":"a","url":"tcp://a:1","every":"1m","depends_on":["gw"]}`,
		}},
}

func TestTargets(t *testing.T) {
	for _, test := range targetTests {
		t.Run(test.name, func(t *testing.T) {
			c, err := loadText(t, test.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := heads(c); strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestPlans(t *testing.T) {
	c, err := loadText(t, `
[[window]]
name = "office"
days = "mon-fri"
from = "08:00"
to = "18:00"
tz = "Europe/Berlin"
[[window]]
name = "patch"
cron = "0 2 1 * *"
for = "2h"
[[window]]
name = "move"
begin = 2026-11-28T12:00:00+01:00
end = 2026-11-28T13:00:00Z
[[target]]
name = "a"
url = "tcp://a:1"
active = ["office", "move"]
every = "1h"
recheck = "10s"
relax = "2h"
[[target]]
name = "b"
url = "tcp://b:1"
cron = "30 9 * * sat"
tz = "America/New_York"
maintenance = ["patch"]`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{
		{"2026-11-27T16:37:08Z", "2026-11-28T11:37:08Z", "2026-11-28T12:37:08Z", "2026-11-30T07:37:08Z"},
		{"2026-11-28T14:30:00Z", "2026-12-05T14:30:00Z"},
	} {
		due := time.Date(2026, 11, 27, 16, 0, 0, 0, time.UTC).UnixMilli()
		for _, w := range want {
			due = c.Targets[i].Due(due)
			if got := time.UnixMilli(due).UTC().Format(time.RFC3339); got != w {
				t.Errorf("%s is due at %s, want %s", c.Targets[i].Name(), got, w)
			}
		}
	}
	if a, b := c.Targets[0].Plan, c.Targets[1].Plan; len(a.Active) != 2 || len(a.Maintenance) != 0 || len(b.Active) != 0 || len(b.Maintenance) != 1 {
		t.Errorf("plans %+v and %+v", a, b)
	}
	if p := c.Targets[0].Plan; p.Failing.Every != 10*time.Second || p.Relaxed.Every != 2*time.Hour || p.RelaxAfter != 24*time.Hour || c.Targets[1].Plan.Failing != nil {
		t.Errorf("plan %+v", p)
	}
}
