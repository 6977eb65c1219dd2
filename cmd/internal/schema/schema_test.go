package schema

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

type inner struct {
	Depth int `json:"depth" doc:"Depth."`
}

type options struct {
	Method   string            `json:"method" enum:"GET,POST" doc:"Method."`
	Count    int               `json:"count" min:"1" max:"10" doc:"Count."`
	Codes    []int             `json:"codes" doc:"Codes."`
	Headers  map[string]string `json:"headers" doc:"Headers."`
	Password string            `json:"password" secret:"true" doc:"Password."`
	Wait     wire.Duration     `json:"wait" doc:"Wait."`
	Inner    inner             `json:"inner" doc:"Inner."`
	Steps    []inner           `json:"steps" doc:"Steps."`
	Must     string            `json:"must" required:"true" doc:"Must."`
	On       bool              `json:"on" doc:"On."`
	Any      any               `json:"any" doc:"Any."`
	Ratio    *float64          `json:"ratio" doc:"Ratio."`
}

func defaults() options {
	return options{Method: "GET", Count: 3, Codes: []int{200, 204}, Headers: map[string]string{"a": "b"}, Inner: inner{5}}
}

func TestDecode(t *testing.T) {
	f := Of(defaults())
	base := defaults()
	got := base
	raw := `{"must":"x","codes":[500],"headers":{"c":"d"},"wait":"1.5s","inner":{"depth":6},"password":"${secret:pw}","ratio":0.5}`
	if err := f.Decode("o", []byte(raw), &got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Must, want.Codes, want.Headers, want.Wait, want.Inner.Depth = "x", []int{500}, map[string]string{"c": "d"}, wire.Duration(1500*time.Millisecond), 6
	want.Password, want.Ratio = "${secret:pw}", new(0.5)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !reflect.DeepEqual(base, defaults()) {
		t.Errorf("the defaults have changed: %+v", base)
	}
}

func TestCheck(t *testing.T) {
	f := Of(defaults())
	for _, tt := range []struct{ raw, want string }{
		{`{}`, "o.must: is required"},
		{`[]`, "o: want an object, not an array"},
		{`{"must":"x","methode":"GET"}`, `o.methode: no such option; did you mean "method"?`},
		{`{"must":"x","Method":"GET"}`, `o.Method: no such option; did you mean "method"?`},
		{`{"must":"x","method":"PUT"}`, `o.method: "PUT" is none of GET, POST`},
		{`{"must":"x","count":0}`, "o.count: must be at least 1"},
		{`{"must":"x","count":11}`, "o.count: must be at most 10"},
		{`{"must":"x","count":1.5}`, "o.count: want an integer, not a number"},
		{`{"must":"x","count":"3"}`, "o.count: want an integer, not a string"},
		{`{"must":"x","codes":[1,"2"]}`, "o.codes[1]: want an integer, not a string"},
		{`{"must":"x","headers":{"a":1}}`, "o.headers.a: want a string, not an integer"},
		{`{"must":"x","wait":30}`, `o.wait: want a duration such as "30s", not an integer`},
		{`{"must":"x","wait":"30"}`, `o.wait: "30" has no unit; write a duration such as "30s"`},
		{`{"must":"x","wait":"-1s"}`, "o.wait: must not be negative"},
		{`{"must":"x","inner":{"deep":1}}`, "o.inner.deep: no such option"},
		{`{"must":"x","steps":[{"depth":1},{"depth":true}]}`, "o.steps[1].depth: want an integer, not a boolean"},
		{`{"must":null}`, "o.must: want a string, not null"},
		{`{"must":"x","password":"hunter2"}`, "o.password: a credential must not stand here"},
		{`{"must":"x","password":"${secret:../x}"}`, "o.password: a credential must not stand here"},
		{`{"must":"x","password":"${env:HOME}"}`, "o.password: a credential must not stand here"},
		{`{"must":"x","must":"y"}`, `o: key "must" comes twice`},
		{`{"must":"x"`, "o: JSON ends too early"},
		{`{"must":"x","ratio":1e999}`, "o.ratio: number out of range"},
	} {
		errs := f.Check("o", []byte(tt.raw))
		if len(errs) == 0 || !strings.HasPrefix(errs[0].Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.raw, errs, tt.want)
		}
		for _, err := range errs {
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the credential is in the error: %v", err)
			}
		}
	}
	if errs := f.Check("o", []byte(`{"methode":1,"count":99,"on":3}`)); len(errs) != 4 {
		t.Errorf("got %d errors, want all 4: %v", len(errs), errs)
	}
}

// A schema that was written and read again is the same.
func TestJSONSchema(t *testing.T) {
	f := Of(defaults())
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Field
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f, back) {
		t.Errorf("got %+v\nwant %+v", back, f)
	}
	for _, want := range []string{`"writeOnly":true`, `"enum":["GET","POST"]`, `"required":["must"]`, `"default":[200,204]`, `"additionalProperties":false`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

type facts struct {
	Name    string         `json:"name" doc:"Name."`
	Zero    *int           `json:"zero" doc:"Zero."`
	Lag     float64        `json:"lag_ms" doc:"Lag."`
	When    time.Time      `json:"when" doc:"When."`
	List    []inner        `json:"list" doc:"List."`
	Table   map[string]any `json:"table" doc:"Table."`
	Body    string         `json:"body" large:"true" doc:"Body."`
	Missing string         `json:"missing" doc:"Missing."`
}

func TestMembersAndValues(t *testing.T) {
	f := facts{
		Name: "x\x1b", Zero: new(0), Lag: 1.23456, When: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC),
		List: []inner{{1}, {2}}, Table: map[string]any{"b": 1, "a": "\u202e"}, Body: "large",
	}
	var got []string
	var members []Member
	object := AppendMembers(&members, []byte("{"), &f)
	object = append(object, '}')
	for _, m := range members {
		got = append(got, m.Name+"="+string(m.Value))
		if err := ndjson.Valid(m.Value); err != nil {
			t.Errorf("%s: %v", m.Value, err)
		}
	}
	want := `name="x\u001b" zero=0 lag_ms=1.235 when="2026-01-02T03:04:05.006Z" list=[{"depth":1},{"depth":2}] table={"a":"\u202e","b":1}`
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	wantObject := `{"name":"x\u001b","zero":0,"lag_ms":1.235,"when":"2026-01-02T03:04:05.006Z","list":[{"depth":1},{"depth":2}],"table":{"a":"\u202e","b":1}}`
	if string(object) != wantObject {
		t.Errorf("got  %s\nwant %s", object, wantObject)
	}
	if got, want := Values(&f, []string{"zero", "missing", "nothing"}), map[string]any{"zero": 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("some: got  %v\nwant %v", got, want)
	}
	values := Values(&f, nil)
	wantValues := map[string]any{
		"name": "x\x1b", "zero": 0, "lag_ms": 1.23456, "when": "2026-01-02T03:04:05.006Z", "body": "large",
		"list":  []any{map[string]any{"depth": 1}, map[string]any{"depth": 2}},
		"table": map[string]any{"b": 1, "a": "\u202e"},
	}
	if !reflect.DeepEqual(values, wantValues) {
		t.Errorf("got  %v\nwant %v", values, wantValues)
	}
}

func TestDidYouMean(t *testing.T) {
	if got, want := DidYouMean("htps", []string{"ftps", "https", "http"}), `; did you mean "https"?`; got != want {
		t.Errorf("htps: got %q, want %q: it begins the same", got, want)
	}
	names := []string{"timeout", "expect", "labels"}
	for _, tt := range []struct{ got, want string }{
		{"tiemout", `; did you mean "timeout"?`},
		{"expects", `; did you mean "expect"?`},
		{"zzzzzzzzzzzz", "; there are timeout, expect, labels"},
		{strings.Repeat("x", 1000), "; there are timeout, expect, labels"},
	} {
		if got := DidYouMean(tt.got, names); got != tt.want {
			t.Errorf("%.20q: got %q, want %q", tt.got, got, tt.want)
		}
	}
}

// FuzzDecode: what Check accepts, Decode decodes, and nothing else.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"must":"x","codes":[1],"inner":{"depth":3},"any":{"a":[]}}`))
	f.Add([]byte(`{"must":"x","count":1e0}`))
	schema := Of(defaults())
	f.Fuzz(func(t *testing.T, raw []byte) {
		errs := schema.Check("", raw)
		o := defaults()
		err := schema.Decode("", raw, &o)
		if len(raw) > 0 && (errs == nil) != (err == nil) {
			t.Errorf("%s: Check says %v, Decode says %v", raw, errs, err)
		}
	})
}
