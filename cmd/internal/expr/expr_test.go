package expr

import (
	"fmt"
	"strings"
	"testing"

	"pup/cmd/internal/schema"
)

type httpFacts struct {
	Status  int               `json:"status" doc:"Status."`
	Body    string            `json:"body" doc:"Body."`
	Headers map[string]string `json:"headers" doc:"Headers."`
	JSON    any               `json:"json" doc:"JSON."`
}

type root struct {
	Status string    `json:"status" doc:"Status."`
	HTTP   httpFacts `json:"http" doc:"HTTP."`
	MS     struct {
		Total float64 `json:"total" doc:"Total."`
	} `json:"ms" doc:"MS."`
	DNS struct {
		Answers []string `json:"answers" doc:"Answers."`
	} `json:"dns" doc:"DNS."`
	Address string            `json:"address" doc:"Address."`
	Labels  map[string]string `json:"labels" doc:"Labels."`
}

func env() *Env { return NewEnv(schema.Of(root{})) }

const line = `{"status":"up","http":{"status":200,"body":"Welcome","headers":{"server":"nginx/1.22.1"},"json":{"n":[1,2.5,"x"]}},
	"ms":{"total":12},"dns":{"answers":["192.0.2.2","192.0.2.1"]},"address":"[2001:db8::1]:53","labels":{"team":"web"}}`

func TestEval(t *testing.T) {
	vars, err := Vars([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	e := env()
	for _, tt := range []struct {
		text string
		want string // "true", "false" or the error
	}{
		{"http.status == 200", "true"},
		{"http.status in [200, 204]", "true"},
		{"http.status != 200 or ms.total < 12.5", "true"},
		{"http.body contains 'come' and http.body matches '^W'", "true"},
		{"http.headers.server startsWith 'nginx'", "true"},
		{`http.headers["server"] == 'x'`, "false"},
		{"http.headers.missing == 'x'", "http.headers.missing is absent"},
		{"http.json.n[1] == 2.5", "true"},
		{"labels.team == 'web'", "true"},
		{"len(dns.answers) == 2", "true"},
		{"same(dns.answers, ['192.0.2.1', '192.0.2.2'])", "true"},
		{"same(dns.answers, ['192.0.2.1'])", "false"},
		{"same(dns.answers, ['192.0.2.1', '192.0.2.1'])", "false"},
		{"subset(dns.answers, ['192.0.2.1', '192.0.2.2', '192.0.2.3'])", "true"},
		{"cidr(dns.answers, '192.0.2.0/24')", "true"},
		{"cidr(dns.answers, '10.0.0.0/8', '192.0.2.2')", "false"},
		{"cidr(address, '2001:db8::/32')", "true"},
		{"cidr(http.body, '10.0.0.0/8')", `"Welcome" is not an IP address`},
		{"version(http.headers.server, '>= 1.20, < 2')", "true"},
		{"version(http.headers.server, '= 1.22')", "false"},
		{"version(http.body, '> 1')", `there is no version in "Welcome"`},
		{"all(dns.answers, # startsWith '192')", "true"},
		{"let x = http.status; x > 100 and x < 300", "true"},
		{"http.json.absent > 3", "http.json.absent is absent"},
		{"labels.absent == 'x' or labels.team == 'web'", "true"},
		{"labels.team == 'web' or labels.absent < '3'", "true"},
		{"labels.absent != 'x'", "labels.absent is absent"},
		{"labels.absent not in ['x']", "true"},
		{"not (labels.absent == 'x')", "true"},
		{"labels.team not in ['x']", "true"},
		{"labels.absent == nil", "true"},
		{"(labels.absent ?? 'x') == 'x'", "true"},
		{"labels.absent contains 'x'", "labels.absent is absent"},
		{"labels.absent matches 'x' or true", "true"},
	} {
		x, err := Compile(tt.text, e)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		got, err := x.Eval(vars)
		if s := fmt.Sprint(got); err != nil && (got || !strings.Contains(err.Error(), tt.want)) || err == nil && s != tt.want {
			t.Errorf("%s: got %v, %v, want %s", tt.text, got, err, tt.want)
		}
	}
}

func TestAbsent(t *testing.T) {
	e := env()
	for _, text := range []string{"http.status == 200", "ms.total < 5", "http.body contains 'x'", "len(dns.answers) > 0", "same(dns.answers, ['x'])"} {
		x, err := Compile(text, e)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := x.Eval(map[string]any{}); ok {
			t.Errorf("%s holds although all is absent", text)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	e := env()
	for _, tt := range []struct{ text, want string }{
		{"htpp.status == 200", `unknown name "htpp"; did you mean "http"?`},
		{"http.statuss == 200", `unknown name "http.statuss"; did you mean "status"?`},
		{"http.status == 'x'", "column 13"},
		{"http.status +", "column"},
		{"http.status", "expected bool"},
		{"http.body > 3", "column 11"},
		{"now() > date('2020-01-01')", "now"},
		{"nofunc(1)", "nofunc"},
		{"cidr(address, 3)", "cidr"},
		{"http.body matches '('", "regexp"},
		{strings.Repeat("(", 5000), "longer than 4096 bytes"},
	} {
		if _, err := Compile(tt.text, e); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: got %v, want one line with %s", tt.text, err, tt.want)
		}
	}
}

func TestPaths(t *testing.T) {
	x, err := Compile("http.status == 200 and len(dns.answers) > ms.total and any(dns.answers, # == labels.team)", env())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(x.Paths()); got != "[http.status dns.answers ms.total labels.team]" {
		t.Errorf("got %s", got)
	}
	for path, want := range map[string]bool{"http": true, "http.status": true, "http.body": false, "status": false} {
		if x.Reads(path) != want {
			t.Errorf("Reads(%s) is %v", path, !want)
		}
	}
}

// The same text is compiled once, and the memory of it is bounded.
func TestCache(t *testing.T) {
	e := env()
	a, _ := Compile("http.status == 200", e)
	if b, _ := Compile("http.status == 200", e); a != b {
		t.Error("compiled twice")
	}
	for i := range 2 * maxCache / 64 { // compiling is slow, so fill it by hand
		for j := range 64 {
			e.cache[fmt.Sprint(i, j)] = compiled{}
		}
	}
	Compile("http.status == 201", e)
	if len(e.cache) > maxCache {
		t.Errorf("the memory has %d entries", len(e.cache))
	}
}

// FuzzCompile: whatever compiles can be evaluated without a panic, on a result
// that is full and on one that is empty.
func FuzzCompile(f *testing.F) {
	f.Add("http.status in [200] and same(dns.answers, [1])")
	f.Add("any(dns.answers, {# == labels.team}) ? true : len(http.json) > 3")
	vars, err := Vars([]byte(line))
	if err != nil {
		f.Fatal(err)
	}
	e := env()
	f.Fuzz(func(t *testing.T, text string) {
		x, err := Compile(text, e)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error of several lines: %v", text, err)
			}
			return
		}
		x.Eval(vars)
		x.Eval(map[string]any{})
		x.Saw(vars)
	})
}

// quickCases are expressions that need no machine, with odd ones among them.
var quickCases = []string{
	"http.status == 200", "http.status >= 200 and http.status < 300", "ms.total < 50", "ms.total <= 12 && 200.0 == http.status",
	"http.body contains 'come'", "http.body startsWith 'W' or http.body endsWith 'x'", "'a' < http.body", "status != 'down'",
	"(labels.team ?? 'x') == 'web'", "not (labels.absent == 'x')", "!(http.status > 3)", "(labels.absent ?? 'up') == 'up'",
	"labels.absent < labels.team", "(labels.absent ?? labels.gone) == 'x'", "http.json.n == 3", "http.json == 'x'", "http.json ?? true",
	"labels.absent ?? true", "true", "http.status == 200 ? true : false", "(1 ?? 2) == 1", "1 == 1.0", "'a' contains ''", "http.json.a.b == 1",
}

func TestQuick(t *testing.T) {
	vars, err := Vars([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"http.status >= 200 and http.status < 300": true, "(labels.absent ?? 'up') == 'up'": true, "not (labels.absent == 'x')": true,
		"labels.absent ?? true": true, "http.json.n == 3": false, "http.json.a.b == 1": false, "len(dns.answers) == 2": false, "labels?.team == 'web'": false,
	} {
		x, err := Compile(text, env())
		if err != nil {
			t.Fatal(err)
		}
		if _, known := x.quickly(vars); known != want {
			t.Errorf("%s: known is %v, want %v", text, known, want)
		}
	}
}

// FuzzQuick: what is evaluated quickly is what the program says.
func FuzzQuick(f *testing.F) {
	for i, text := range quickCases {
		f.Add(text, []string{line, `{}`, `{"http":{"status":null,"body":""},"labels":{"team":3,"absent":null}}`, `{"http":{"json":true},"ms":3,"status":"x"}`}[i%4])
	}
	e := env()
	f.Fuzz(func(t *testing.T, text, result string) {
		x, err := Compile(text, e)
		if err != nil {
			return
		}
		for _, of := range []string{result, line, `{}`} {
			vars, err := Vars([]byte(of))
			if err != nil {
				continue
			}
			got, known := x.quickly(vars)
			if !known {
				continue
			}
			if want, err := x.run(vars); got != want || err != nil {
				t.Errorf("%s of %s: got %v, the program says %v, %v", text, of, got, want, err)
			}
		}
	})
}

func BenchmarkEval(b *testing.B) {
	vars, err := Vars([]byte(line))
	if err != nil {
		b.Fatal(err)
	}
	e := env()
	b.ReportAllocs()
	for b.Loop() {
		x, err := Compile("http.status == 200 and http.body contains 'Welcome'", e)
		if err != nil {
			b.Fatal(err)
		}
		if ok, err := x.Eval(vars); !ok {
			b.Fatal(err)
		}
	}
}
