package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// complaints gives the place and message of every mistake, and its hint behind
// a bar.
func complaints(t *testing.T, err error) string {
	t.Helper()
	var es *Errors
	if !errors.As(err, &es) {
		t.Fatalf("got error %v, want a list of mistakes", err)
	}
	var b strings.Builder
	for _, e := range es.List() {
		fmt.Fprintf(&b, "%d:%d: %s", e.Line, e.Column, e.Msg)
		if e.Hint != "" {
			b.WriteString(" | " + e.Hint)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

const good = "[[target]]\nname = \"a\"\nurl = \"tcp://a:1\"\n"

var mistakeTests = []struct{ name, text, want string }{
	{"unknown key", good + `evry = "30s"`, `4:1: unknown key "evry" in [[target]] | did you mean "every"?`},
	{"unknown section", good + "[default]", `4:2: unknown key "default" at the top level | did you mean "defaults"?`},
	{"bare number", good + `every = 30`, `4:9: every takes a duration, not an integer | write every = "30s" for seconds (units: ms, s, m, h, d, w)`},
	{"no unit", good + `every = "30"`, `4:9: every: "30" is not a duration | write a number with its unit: every = "30s" (ms, s, m, h, d, w)`},
	{"negative", good + `timeout = "-1s"`, `4:11: timeout must not be negative`},
	{"zero", good + `timeout = "0s"`, `4:11: the duration must be longer than 0`},
	{"too often", good + `every = "1ms"`, `4:9: an interval must be at least 100ms`},
	{"one string for a list", good + `expect = "a"`, `4:10: expect takes a list of strings, not a string | write expect = ["…", "…"]`},
	{"number in a list", good + `expect = ["ms.total < 1", 2]`, `4:27: expect takes a list of strings, and this element is an integer | write expect = ["…", "…"]`},
	{"label number", good + `labels = { a = 1 }`, `4:16: label "a" takes a string, not an integer; write it in quotes`},
	{"label name", good + `labels = { "a b" = "1" }`, `4:12: "a b" can't name a label: use letters, digits and . _ -`},
	{"too many retries", good + `retries = 21`, `4:11: retries must be from 0 to 20`},
	{"huge number", good + `retries = 99999999999999999999`, `4:11: retries: 99999999999999999999 does not fit into 64 bits`},
	{"enabled", good + `enabled = "yes"`, `4:11: enabled takes true or false, not a string`},
	{"no name", "[[target]]\nurl = \"tcp://a:1\"", `1:3: the target has no name`},
	{"no url", "[[target]]\nname = \"a\"", `1:3: the target has no url | write url = "https://www.example.org/"`},
	{"bad name", "[[target]]\nname = \"a b\"\nurl = \"tcp://a:1\"", `2:8: name: "a b" is no name: it may hold letters, digits and . _ : @ / - and begins with a letter or digit`},
	{"empty name", "[[target]]\nname = \"\"\nurl = \"tcp://a:1\"", `2:8: name is empty`},
	{"name in defaults", "[defaults]\nname = \"a\"\n" + good, `2:1: name belongs to a target, not to [defaults]`},
	{"twice", good + good, `5:8: the name "a" is taken by the target at stdin:2 | a name is an identity; give each target its own`},
	{"unknown scheme", "[[target]]\nname = \"a\"\nurl = \"htpt://a/\"", `3:7: url: no check speaks "htpt" | did you mean "http"?`},
	{"no scheme", "[[target]]\nname = \"a\"\nurl = \"www.example.org\"", `3:7: url: "www.example.org" has no scheme | write one such as https://www.example.org`},
	{"no port", "[[target]]\nname = \"a\"\nurl = \"tcp://a\"", `3:7: url: names no port | write tcp://a:PORT`},
	{"password in a url", "[[target]]\nname = \"a\"\nurl = \"http://u:geheim@a/\"", `3:7: url: holds a password | put it in an option of the check, as ${secret:NAME} or ${env:PUP_NAME} (http.password, http.secret_headers)`},
	{"unknown check", good + `check = "tpc"`, `4:9: check: no such check as "tpc" | did you mean "tcp"?`},
	{"unknown option", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp = { metod = \"GET\" }", `4:10: http.metod: no such option | did you mean "method"?`},
	{"wrong word", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp = { method = \"GOT\" }", `4:19: http.method: "GOT" is none of GET, HEAD, POST | did you mean "GET"?`},
	{"in a list of tables", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp.steps = [{path=\"/\"}, {pat=\"/\"}]", `4:27: http.steps[1].path: is required
4:28: http.steps[1].pat: no such option | did you mean "path"?`},
	{"literal secret", "[[target]]\nname = \"a\"\nurl = \"redis://a/\"\nredis = { password = \"geheim\" }", `4:22: redis.password: a credential must not stand here | put it in a file NAME of the directory given by --secrets and write ${secret:NAME}, or ${env:PUP_NAME} for an environment variable`},
	{"options of another check", good + `http = { method = "GET" }`, `4:1: the check tcp has no use for http`},
	{"common that is of no use", good + `proxy = "http://p:1"`, `4:1: the check tcp has no use for proxy`},
	{"options that are no table", good + `tcp = "x"`, `4:7: tcp takes a table of options, not a string | write tcp = { option = value }`},
	{"infinite", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp = { limit = inf }", `4:18: inf can't stand in a target | write it as a string`},
	{"a date", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp = { limit = 2026-01-01 }", `4:18: a date or time can't stand in a target | write it as a string`},
	{"unknown fact", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nexpect = [\"ms.total < 5\", \"http.statos == 200\"]", `4:27: in "http.statos == 200": unknown name "http.statos" | did you mean "status"?`},
	{"wrong type of fact", "[[target]]\nname = \"a\"\nurl = \"http://a/\"\nexpect = [\"http.status == 'x'\"]", `4:11: in "http.status == 'x'", column 13: invalid operation: == (mismatched types int and string)`},
	{"fact of another check", good + `expect = ["http.status == 200"]`, `4:11: in "http.status == 200": unknown name "http" | did you mean "tcp"?`},
	{"no target", "[defaults]\nevery = \"1m\"\n", "0:0: no target | write one:\n        [[target]]\n        name = \"www\"\n        url  = \"https://www.example.org/\""},
	{"default given twice", "defaults.every = \"1m\"\n" + good + "[defaults]\ntimeout = \"1s\"\n", `5:2: "defaults" has been defined on line 1`},
	{"one mistake of the defaults", "[defaults]\nexpect = [\"nope\"]\n" + good + strings.Replace(good, `"a"`, `"b"`, 1), `2:11: in "nope": unknown name "nope" | did you mean "name"?`},
	{"too long", good + `labels = { a = "` + strings.Repeat("x", 4000) + `" }`, `2:8: the line of the target takes up to 4403 bytes, and a line has at most 4096 | shorten its options, or allow longer lines with --max-record`},
	{"unknown template", good + `use = ["wbe"]` + "\n[template.web]", `4:8: there is no template "wbe" | did you mean "web"?`},
	{"template twice", good + "[template.web]\n[template.\"web\"]", `5:11: "web" has been defined on line 4`},
	{"template that uses", good + "[template.web]\nuse = [\"x\"]", `5:1: use belongs to a target, not to [template.web]`},
	{"template without a name", good + "[template]\nevery = \"1m\"", `5:1: a template is a table, not a string | write [template.NAME]`},
	{"url in the defaults", good + "[defaults]\nurl = \"tcp://a:1\"", `5:1: url belongs to a target, not to [defaults]`},
	{"every and cron", good + "every = \"1m\"\ncron = \"* * * * *\"", `5:1: every and cron exclude each other`},
	{"every and tz", good + "every = \"1m\"\ntz = \"UTC\"", `5:1: every and tz exclude each other`},
	{"bad cron", good + `cron = "61 * * * *"`, `4:8: cron: minute: "61" is not within 0-59`},
	{"cron that never comes", good + `cron = "0 0 31 2 *"`, `4:8: cron: "0 0 31 2 *" never comes`},
	{"bad zone", good + "cron = \"* * * * *\"\ntz = \"Europe/Berln\"", `5:6: tz: there is no time zone "Europe/Berln"; write one such as Europe/Berlin`},
	{"zone of the host", good + "cron = \"* * * * *\"\ntz = \"Local\"", `5:6: tz: "Local" names no time zone; write one such as Europe/Berlin`},
	{"unknown window", good + `active = ["ofice"]` + "\n[[window]]\nname = \"office\"\ndays = \"mon-fri\"", `4:11: active: there is no window "ofice" | did you mean "office"?`},
	{"window without a name", good + "[[window]]\ndays = \"mon\"", `4:3: the window has no name`},
	{"window twice", good + strings.Repeat("[[window]]\nname = \"w\"\ndays = \"mon\"\n", 2), `8:8: the name "w" is taken by the window at stdin:5`},
	{"window without a time", good + "[[window]]\nname = \"w\"", `4:3: window "w": it says no time; give it days, from and to, or cron and for, or begin and end`},
	{"window of two kinds", good + "[[window]]\nname = \"w\"\ndays = \"mon\"\ncron = \"* * * * *\"\nfor = \"1h\"", `4:3: window "w": cron and for don't go with days, from and to`},
	{"window with half a time", good + "[[window]]\nname = \"w\"\nfor = \"1h\"", `4:3: window "w": cron and for belong together`},
	{"window that ends before it begins", good + "[[window]]\nname = \"w\"\nbegin = 2026-12-01T20:00:00Z\nend = \"2026-12-01 20:00:00+01:00\"", `4:3: window "w": end must be after begin`},
	{"window without a zone", good + "[[window]]\nname = \"w\"\nbegin = 2026-12-01T20:00:00\nend = 2026-12-02", `6:9: begin: "2026-12-01T20:00:00" is no date and time with a zone; write one such as 2026-12-01T20:00:00+01:00
7:7: end: "2026-12-02" is no date and time with a zone; write one such as 2026-12-01T20:00:00+01:00`},
	{"window of nothing", good + "[[window]]\nname = \"w\"\nfrom = \"08:00\"\nto = \"08:00\"", `4:3: window "w": from and to leave nothing between them; leave both out for whole days`},
	{"bad time of day", good + "[[window]]\nname = \"w\"\nfrom = \"8\"\nto = \"24:01\"", `6:8: "8" is no time of day; write one such as "08:30"
7:6: "24:01" is no time of day; write one such as "08:30"`},
	{"bad days", good + "[[window]]\nname = \"w\"\ndays = \"mo\"", `6:8: days: "mo" is not within 0-7`},
	{"unknown key of a window", good + "[[window]]\nname = \"w\"\nday = \"mon\"", `6:1: unknown key "day" in [[window]] | did you mean "days"?`},
	{"source without a name", good + "[[source]]\nfile = \"x\"", `4:3: the source has no name`},
	{"source of nothing", good + "[[source]]\nname = \"s\"", `4:3: source "s": give it a command or a file`},
	{"source of two things", good + "[[source]]\nname = \"s\"\nfile = \"x\"\ncommand = [\"x\"]", `4:3: source "s": give it a command or a file`},
	{"source without a program", good + "[[source]]\nname = \"s\"\ncommand = []", `6:1: command names no program`},
	{"source in a hurry", good + "[[source]]\nname = \"s\"\nfile = \"x\"\nrefresh = \"10ms\"", `7:11: refresh must be at least 1s`},
	{"source twice", good + strings.Repeat("[[source]]\nname = \"s\"\nfile = \"x\"\n", 2), `8:8: there are two sources of the name "s"`},
	{"source with an unknown template", good + "[[source]]\nname = \"s\"\nfile = \"x\"\nuse = [\"t\"]", `7:8: there is no template "t"`},
	{"empty matrix", good + `matrix = {}`, `4:10: the matrix is empty`},
	{"matrix of no list", good + `matrix = { a = "b" }`, `4:16: matrix key "a" takes a list of values`},
	{"matrix of tables", good + `matrix = { a = [{}] }`, `4:17: matrix key "a" holds a table; write strings or integers`},
	{"matrix too big", good + `matrix = { a = [` + strings.Repeat("1,", 400) + `], b = [` + strings.Repeat("1,", 400) + `] }`, `4:10: the matrix makes more than 100000 targets`},
	{"matrix without the key", "[[target]]\nname = \"a-${b}\"\nurl = \"tcp://${c}:1\"\nmatrix = { b = [\"1\"] }", "3:7: the matrix has no \"c\" | did you mean \"b\"?\n3:7: url: invalid character \"{\" in host name"},
	{"matrix that makes the same name twice", good + `matrix = { a = [1, 2] }`, `2:8: the name "a" is taken by the target at stdin:2 | a name is an identity; give each target its own`},
	{"depends on nothing", good + `depends_on = ["b"]`, `4:15: depends_on: there is no target "b" | did you mean "a"?`},
	{"depends on itself", good + `depends_on = ["a"]`, `4:15: depends_on goes round in a circle: a > a`},
	{"depends in a circle", good + `depends_on = ["b"]` + strings.NewReplacer(`"a"`, `"b"`).Replace("\n"+good) + `depends_on = ["c", "a"]` + strings.NewReplacer(`"a"`, `"c"`).Replace("\n"+good) + `depends_on = ["a"]`, `8:20: depends_on goes round in a circle: a > b > a
12:15: depends_on goes round in a circle: a > b > c > a`},
	{"lists with several", good + "expect = [\"nope\", 2, true]\nlabels = { a = 1, \"b c\" = true }\nmatrix = { a = 1, b = [1.5, {}] }", `6:16: matrix key "a" takes a list of values
6:24: matrix key "b" holds a float; write strings or integers
6:29: matrix key "b" holds a table; write strings or integers`},
	{"all of a target whose name is taken", good + "[[target]]\nname = \"a\"\nurl = \"tcp://a\"\nevery = 30\ntcp = { no = 1 }\nexpect = [\"nope\", 2]\nlabels = { a = 1, \"b c\" = true }\ndepends_on = [\"z\"]", `5:8: the name "a" is taken by the target at stdin:2 | a name is an identity; give each target its own
6:7: url: names no port | write tcp://a:PORT
7:9: every takes a duration, not an integer | write every = "30s" for seconds (units: ms, s, m, h, d, w)
8:9: tcp.no: no such option
9:11: in "nope": unknown name "nope" | did you mean "name"?
9:19: expect takes a list of strings, and this element is an integer | write expect = ["…", "…"]
10:16: label "a" takes a string, not an integer; write it in quotes
10:19: "b c" can't name a label: use letters, digits and . _ -
10:27: label "b c" takes a string, not a boolean; write it in quotes
11:15: depends_on: there is no target "z" | did you mean "a"?`},
	{"all of a target without a url or a name", "[[target]]\nhttp = { metod = \"GET\" }\nexpect = [\"http.statos == 200\"]\nretries = \"1\"", `1:3: the target has no name
1:3: the target has no url | write url = "https://www.example.org/"
2:10: http.metod: no such option | did you mean "method"?
3:11: in "http.statos == 200": unknown name "http.statos" | did you mean "status"?
4:11: retries takes an integer, not a string`},
	{"all of a target whose url is wrong", "[[target]]\nname = 7\nurl = \"htpt://a\"\nhttp = { metod = \"GET\" }\nwarn = [\"http.statos == 200\"]", `2:8: name takes a string, not an integer | write it in quotes: name = "…"
3:7: url: no check speaks "htpt" | did you mean "http"?
4:10: http.metod: no such option | did you mean "method"?
5:9: in "http.statos == 200": unknown name "http.statos" | did you mean "status"?`},
	{"all of a target whose url holds a password", "[[target]]\nname = \"a\"\nurl = \"http://u:geheim@a/\"\nhttp = { metod = \"GET\" }", `3:7: url: holds a password | put it in an option of the check, as ${secret:NAME} or ${env:PUP_NAME} (http.password, http.secret_headers)
4:10: http.metod: no such option | did you mean "method"?`},
	{"a window that is broken", good + "active = [\"w\"]\n[[window]]\nname = \"w\"\ndays = \"mo\"", `7:8: days: "mo" is not within 0-7`},
	{"all in one go", "[defaults]\nevry = \"1s\"\n[[target]]\nname = \"a\"\nurl = \"x://a\"\n[[target]]\nname = 7\n[nope]\n", `2:1: unknown key "evry" in [defaults] | did you mean "every"?
5:7: url: no check speaks "x" | there are http, https, redis, tcp
6:3: the target has no url | write url = "https://www.example.org/"
7:8: name takes a string, not an integer | write it in quotes: name = "…"
8:2: unknown key "nope" at the top level | there are include, defaults, template, target, window, source`},
}

func TestMistakes(t *testing.T) {
	for _, test := range mistakeTests {
		t.Run(test.name, func(t *testing.T) {
			_, err := loadText(t, test.text)
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.TrimSuffix(complaints(t, err), "\n"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"string without an end", "[[target]]\nname = \"a\nurl = \"tcp://a:1\"\n" + good, `2:10: basic strings cannot have new lines`},
		{"two values", "a = 1 2", `1:7: expected newline but got U+0032 '2'`},
		{"two errors", "[[target]]\nname = \n[defaults]\nevery = 1 2\n", `2:8: unexpected character U+000A at start of value
4:11: expected newline but got U+0032 '2'`},
		{"beside all other mistakes of the target", "[[target]]\nevery = 30s\nname = \"a\"\nurl = \"tcp://a\"\ntimeout = 5s\nevry = 1\n", `2:11: strings must be quoted
4:7: url: names no port | write tcp://a:PORT
5:12: strings must be quoted
6:1: unknown key "evry" in [[target]] | did you mean "every"?`},
		{"beside mistakes before it, in a list", "[[target]]\nevry = 1\nexpect = [\n  a\n]\nname = 7\n" + good, `2:1: unknown key "evry" in [[target]] | did you mean "every"?
4:3: unexpected character U+0061 'a' at start of value`},
		{"key twice", good + "url = \"tcp://a:1\"", `4:1: "url" has been defined on line 3`},
		{"key twice inline", good + "labels = { a = \"1\", a = \"2\" }", `4:21: "a" has been defined on line 4`},
		{"table twice", "[defaults]\n[defaults]\n" + good, `2:2: "defaults" has been defined on line 1`},
		{"table and array", "[target]\n[[target]]", `1:2: target is a list of tables, not a table | write [[target]], once for each
2:3: [[target]] has been defined as a table on line 1`},
		{"array and table", good + "[target]", `4:2: [target] has been defined as [[target]]`},
		{"far from its target", good + "[defaults]\n[target.tcp]", `5:2: [target.tcp] must stand right below the [[target]] that it belongs to`},
		{"into an inline table", good + "tcp = {}\n[target.tcp.x]", `5:9: "tcp" has been defined on line 4`},
		{"into a table from afar", "[defaults.http]\n[defaults]\nhttp.method = \"GET\"\n" + good, `3:1: "http" has been defined on line 1`},
		{"not UTF-8", "[[target]]\nname = \"\xff\"", `2:9: invalid UTF-8 character in basic string`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := loadText(t, test.text)
			if err == nil {
				t.Fatal("no error")
			}
			if got := complaints(t, err); !strings.Contains(got, test.want+"\n") {
				t.Errorf("got\n%s\nwant it to contain\n%s", got, test.want)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	_, err := loadText(t, "[[target]]\n\tname\t=\t\"ä b\" # \x1b\nurl = \"tcp://a:1\"\n")
	if err == nil {
		t.Fatal("no error")
	}
	_, err = loadText(t, "[[target]]\n\tname\t=\t\"ä b\"\nurl = \"tcp://a:1\"\n")
	want := `stdin:2:9: name: "ä b" is no name: it may hold letters, digits and . _ : @ / - and begins with a letter or digit
    2 | 	name	=	"ä b"
      | 	    	 	^^^^^`
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestExcerptOfALongLine(t *testing.T) {
	_, err := loadText(t, good+`labels = { a = "`+strings.Repeat("x", 200)+`", b = 1`+strings.Repeat(" ", 200)+"}")
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if len(line) > 160 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

func TestManyMistakes(t *testing.T) {
	_, err := loadText(t, strings.Repeat("[[target]]\nevry=1\n", 500))
	if got := err.Error(); !strings.HasSuffix(got, "\nand 1400 more") {
		t.Errorf("the end is %q, want a count of those left out", got[max(0, len(got)-40):])
	}
}

// TestErrorsHideCredentials wants no credential in what may end in a log,
// whatever is wrong with its line.
func TestErrorsHideCredentials(t *testing.T) {
	for _, text := range []string{
		"[[target]]\nname = \"a\"\nurl = \"redis://a/\"\nredis = { password = \"geheim\" }",
		"[[target]]\nname = \"a\"\nurl = \"redis://a/\"\nredis = { pasword = 1, password = 'geheim' }",
		"[[target]]\nname = \"a\"\nurl = \"redis://u:geheim@a/\"",
		"[[target]]\nname = \"a\"\nurl = \"redis://a/\"\nredis.password = [\"x\" # ]\nPassword: \"geheim",
		"[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp.secret_headers = { X = \"geheim\" }",
		"[[target]]\nname = \"a\"\nurl = \"http://a/\"\nhttp = { headers = { Authorization = \"geheim\" }, no = 1 }",
		"[[target]]\nname = \"a\"\nurl = \"http://a/\"\ntoken = \"ge\\\"geheim\" x",
	} {
		_, err := loadText(t, text)
		if err == nil {
			t.Errorf("%s: no error", text)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("the credential is in the error:\n%v", err)
		}
	}
}
