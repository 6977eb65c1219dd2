package catalog

import (
	"strings"
	"testing"

	"pup/cmd/internal/schema"
)

type options struct {
	Password string `json:"password" secret:"true" doc:"Password."`
}

func testCatalog() *Catalog {
	field := func(v any) func() *schema.Field { f := schema.Of(v); return func() *schema.Field { return &f } }
	empty := func() schema.Field { return schema.Of(struct{}{}) }
	common := []string{"connect"}
	return New([]Check{
		{Info: Info{Name: "redis", Schemes: []Scheme{{Name: "redis", Port: 6379}, {Name: "rediss", Port: 6380, TLS: true}}, Common: common}, Options: field(options{}), Facts: field(struct{}{})},
		{Info: Info{Name: "tcp", Schemes: []Scheme{{Name: "tcp"}}, Common: common}, Options: field(struct{}{}), Facts: field(struct{}{})},
		{Info: Info{Name: "file", Schemes: []Scheme{{Name: "file", Path: true}}}, Options: field(struct{}{}), Facts: field(struct{}{})},
	}, empty, empty)
}

func TestParseURL(t *testing.T) {
	c := testCatalog()
	for _, tt := range []struct {
		url, check string
		host       string
		port       int
		name       string
	}{
		{"redis://cache", "", "cache", 6379, "redis"},
		{"rediss://cache:7000/3", "", "cache", 7000, "redis"},
		{"redis://[2001:db8::1]", "", "2001:db8::1", 6379, "redis"},
		{"tcp://cache:6379", "redis", "cache", 6379, "redis"},
		{"file:///etc/passwd", "", "", 0, "file"},
		{"redis://user@cache", "", "cache", 6379, "redis"},
		{"redis://Bücher.example:7", "", "xn--bcher-kva.example", 7, "redis"},
	} {
		u, err := c.ParseURL(tt.url, tt.check)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if u.Hostname() != tt.host || u.Host != tt.host || u.Port != tt.port || u.Check.Name != tt.name {
			t.Errorf("%s: got %s %d %s", tt.url, u.Host, u.Port, u.Check.Name)
		}
	}
	for _, tt := range []struct{ url, check, want string }{
		{"", "", "url: is required"},
		{"cache:6379", "", `url: no check speaks "cache"`},
		{"www.example.org", "", "has no scheme; write one such as https://www.example.org"},
		{"redsi://x", "", `url: no check speaks "redsi"; did you mean "redis"?`},
		{"redis://x", "redsi", `check: no such check as "redsi"; did you mean "redis"?`},
		{"tcp://x", "", "url: names no port; write tcp://x:PORT"},
		{"redis://x:0", "", `url: "0" is no port`},
		{"redis://x:99999", "", `url: "99999" is no port`},
		{"redis:///0", "", "url: names no host"},
		{"redis://ü_x", "", `url: "ü_x" is no host name: idna: `},
		{"redis://:hunter2@x", "", "url: holds a password; put it in an option of the check, as ${secret:NAME} or ${env:PUP_NAME} (redis.password)"},
		{"redis://u:hunter2@x:y", "", "url: invalid port"},
		{"redis://" + strings.Repeat("x", MaxURL), "", "url: longer than 2048 bytes"},
	} {
		_, err := c.ParseURL(tt.url, tt.check)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40s: got %v, want %s", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"redis://u:pw@h/0", "redis://u:***@h/0"},
		{"redis://:p@w:x@h", "redis://:***@h"},
		{"redis://u@h/a:b@c", "redis://u@h/a:b@c"},
		{"https://h/?x=a:b@c", "https://h/?x=a:b@c"},
		{"redis://u:pw@h:bad port", "redis://u:***@h:bad port"},
		{"no url: at@all", "no url: at@all"},
	} {
		if got := Redact(tt.in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// FuzzParseURL: no URL shows its password in what people get to see.
func FuzzParseURL(f *testing.F) {
	f.Add("u", "h:1/x")
	f.Add("", "[::1]")
	c := testCatalog()
	f.Fuzz(func(t *testing.T, user, rest string) {
		if strings.ContainsAny(user+rest, "@/?#:") {
			return
		}
		url := "redis://" + user + ":SeCrEt@" + rest
		if got := Redact(url); strings.Contains(got, "SeCrEt") {
			t.Errorf("%q: redacted as %q", url, got)
		}
		if _, err := c.ParseURL(url, ""); err == nil || strings.Contains(err.Error(), "SeCrEt") {
			t.Errorf("%q: got %v", url, err)
		}
	})
}

// The catalogue that is built in is complete.
func TestLoad(t *testing.T) {
	c := Load()
	if len(c.Checks) == 0 {
		t.Fatal("no checks")
	}
	if k, s := c.Scheme("tcp"); k == nil || s == nil || k.Env() == nil {
		t.Error("no scheme tcp")
	}
}
