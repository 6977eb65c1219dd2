package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

type httpOptions struct {
	Method   string            `json:"method" enum:"GET,HEAD,POST" doc:"The method."`
	Headers  map[string]string `json:"headers" doc:"More headers."`
	Password string            `json:"password" secret:"true" doc:"For basic authentication."`
	Limit    float64           `json:"limit" doc:"A limit."`
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

func TestTargets(t *testing.T) {
	for _, test := range []struct {
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
	} {
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
