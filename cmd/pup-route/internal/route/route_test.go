package route

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/state"
)

// results makes lines of about 600 bytes, as pup-probe writes them, for so
// many names.
func results(lines, names int) []byte {
	var b bytes.Buffer
	at := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	for i := range lines {
		name := fmt.Sprintf("service-%d.example.org", i%names)
		fmt.Fprintf(&b, `{"v":1,"type":"result","name":%q,"check":"http","url":"https://%s/health?verbose=1","status":"up","time":%q,`+
			`"ms":{"resolve":0.31,"connect":12.12,"tls":25.8,"request":0.04,"wait":38.9,"transfer":0.21,"total":77.38},"address":"192.0.2.%d:443","attempts":1,`+
			`"http":{"status":200,"proto":"HTTP/1.1","length":5120,"type":"text/html; charset=utf-8"},"tls":{"version":"TLS 1.3","cipher":"TLS_AES_128_GCM_SHA256","days_left":61.25},`+
			`"labels":{"team":"web","env":"production"},"every":"30s","due":%q,"lag_ms":3.2,"run":"%s@%d","series":"9f3c2a10b7de","seq":%d,"vantage":"mon1"}`+"\n",
			name, name, at.Add(time.Duration(i)*time.Millisecond).Format(time.RFC3339Nano), i%250, at.Format(time.RFC3339Nano), name, i, i+1)
	}
	return b.Bytes()
}

// hooks is a configuration with a hook that never runs.
func hooks(tb testing.TB, o ...string) *config.Config {
	tb.Helper()
	c, err := config.Load(nil, append(o, "down,recovered=false"), config.Options{User: "root", Root: os.Getuid() == 0})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func options(tb testing.TB) Options {
	return Options{Config: hooks(tb), Jobs: 1, MaxLine: ndjson.MaxLine, MaxRecord: ndjson.MaxWrite, Wall: time.Now}
}

func TestPassesEverything(t *testing.T) {
	in := results(1000, 10)
	var out, errs bytes.Buffer
	sum, err := Run(bytes.NewReader(in), &out, &errs, options(t))
	if err != nil || sum.Bad != 0 || errs.Len() != 0 {
		t.Fatalf("%v, %+v, %s", err, sum, errs.String())
	}
	if !bytes.Equal(in, out.Bytes()) {
		t.Errorf("the output differs from the input")
	}
}

// FuzzLines: whatever comes in, every line goes out, unchanged or as an error
// line that says so, and the output is valid.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"name\":\"a\",\"status\":\"down\"}\nx\n\n{}"))
	f.Add([]byte("{\"v\":2,\"type\":\"result\"}\r\n\xef\xbb\xbf{\"type\":\"beat\"}"))
	f.Add([]byte(`{"name":"\u0000","status":"up","time":"9999-01-01T00:00:00Z","run":"a","every":"1s"}`))
	f.Add([]byte(`{"name":"a","status":"up","series":"s","seq":1}` + "\n" + `{"name":"a","status":"up","series":"s","seq":3}` + "\n" + `{"type":"beat","series":"s","emitted":9}`))
	c := hooks(f)
	c.Hooks = c.Hooks[:0]
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		o := Options{Config: c, Jobs: 1, MaxLine: 100, MaxRecord: ndjson.MaxWrite, Wall: time.Now, Quiet: true}
		sum, err := Run(bytes.NewReader(in), &out, io.Discard, o)
		if err != nil {
			t.Fatal(err)
		}
		rest := out.Bytes()
		bad := 0
		for line := range bytes.Lines(rest) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			text := bytes.Trim(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), " \t\r")
			if err := ndjson.Valid(text); err != nil {
				t.Errorf("%q went out and is %v", line, err)
			}
			if bytes.HasPrefix(line, []byte(`{"v":1,"type":"error","program":"pup-route"`)) && !bytes.Contains(in, line) {
				if !bytes.Contains(line, []byte(`,"series":"`)) { // else it tells of a gap
					bad++
				}
			} else if !bytes.Contains(in, line) {
				t.Errorf("%q went out and never came in", line)
			}
		}
		if bad != sum.Bad {
			t.Errorf("%d error lines for %d bad lines", bad, sum.Bad)
		}
	})
}

// TestHostileLines: what is no line of ours is reported and calls no hook,
// and the lines around it are dealt with.
func TestHostileLines(t *testing.T) {
	c, err := config.Load(nil, []string{"always=false"}, config.Options{User: "root", Root: os.Getuid() == 0})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, line string
		bad        int
		calls      int // beside those for the lines around it
	}{
		{"cut off", `{"name":"b","status":"down","x":"y`, 1, 0},
		{"too long", `{"name":"b","status":"down","x":"` + strings.Repeat("x", 2000) + `"}`, 1, 0},
		{"UTF-8", "{\"name\":\"b\xff\xfe\",\"status\":\"down\"}", 1, 0},
		{"a key twice", `{"name":"b","name":"c","status":"down"}`, 1, 0},
		{"a key in other letters", `{"NAME":"b","status":"down"}`, 1, 0},
		{"deep", `{"name":"b","status":"down","x":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + "}", 1, 0},
		{"zero byte", "{\"name\":\"b\x00\",\"status\":\"down\"}", 1, 0},
		{"zero byte, escaped, in a text", `{"name":"b","status":"down","error":"\u0000"}`, 0, 1},
		{"byte order mark", "\ufeff{\"name\":\"b\",\"status\":\"down\"}", 1, 0},
		{"CRLF and blank lines", "\r\n  \r\n{\"name\":\"b\",\"status\":\"down\"}\r", 0, 1},
		{"large numbers", `{"name":"b","status":"down","n":9007199254740993,"m":1e999}`, 0, 1},
		{"another major version", `{"v":2,"name":"b","status":"down"}`, 1, 0},
		{"unknown members", `{"v":1,"name":"b","status":"down","tomorrow":{"a":1}}`, 0, 1},
		{"twice", `{"name":"b","status":"down","run":"b@1"}` + "\n" + `{"name":"b","status":"down","run":"b@1"}`, 0, 1},
		{"not JSON", "down", 1, 0},
		{"no object", `["name","b"]`, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			in := `{"name":"a","status":"down"}` + "\n" + tt.line + "\n" + `{"name":"z","status":"down"}`
			sum, err := Run(strings.NewReader(in), &out, io.Discard, Options{Config: c, Jobs: 1, MaxLine: 1000, MaxRecord: ndjson.MaxWrite, DryRun: true, Wall: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			calls := strings.Count(out.String(), `"type":"event"`)
			if sum.Bad != tt.bad || calls != tt.calls+2 {
				t.Errorf("%d bad lines and %d calls, want %d and %d:\n%s", sum.Bad, calls, tt.bad, tt.calls+2, out.String())
			}
			if tt.bad == 0 && tt.calls == 1 && !strings.Contains(out.String(), `"result":`+strings.TrimSpace(tt.line[strings.LastIndex(tt.line, "\n")+1:])+"}\n") {
				t.Errorf("the result is not as it was:\n%s", out.String())
			}
		})
	}
}

// TestAgain: pauses double, up to a bound.
func TestAgain(t *testing.T) {
	h := &config.Hook{RetryMin: 10 * time.Second, RetryMax: 15 * time.Minute}
	for age, want := range map[time.Duration]time.Duration{
		0: 10 * time.Second, 10 * time.Second: 10 * time.Second, 20 * time.Second: 20 * time.Second, 5 * time.Minute: 5 * time.Minute,
		time.Hour: 15 * time.Minute, -time.Hour: 10 * time.Second, // the clock was set
	} {
		if got := again(h, age); got < want*8/10 || got > want*12/10 {
			t.Errorf("%v old: again in %v, want about %v", age, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	wall := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	c := clock{}
	old := wall.Add(-30 * 24 * time.Hour)
	for i, tt := range []struct {
		step, at time.Duration // the wall moves by step; a result says old + at
		want     time.Duration
	}{
		{0, 0, 0},
		{0, time.Minute, time.Minute},
		{0, 30 * time.Second, time.Minute},         // never back
		{10 * time.Second, 0, 70 * time.Second},    // goes on by itself
		{0, 31 * 24 * time.Hour, 70 * time.Second}, // a clock that is a day ahead is not believed
		{0, 30*24*time.Hour + 30*time.Second, 30*24*time.Hour + 30*time.Second},
	} {
		wall = wall.Add(tt.step)
		c.tick(wall)
		if got := c.observe(old.Add(tt.at)).Sub(old); got != tt.want {
			t.Errorf("step %d: the clock shows %v, want %v", i, got, tt.want)
		}
	}
}

func TestEventLine(t *testing.T) {
	e := &state.Event{Name: "a\u202eb\n", Kind: "stale", Status: state.Unknown, Previous: state.Unknown, Since: time.Unix(0, 0), Job: "j", Line: []byte(`{"x": 1}`)}
	got := string(appendEvent(nil, "h", e, time.Unix(1, 0)))
	want := `{"v":1,"type":"event","name":"a\u202eb\n","event":"stale","status":"unknown","previous":"unknown","time":"1970-01-01T00:00:01.000Z","since":"1970-01-01T00:00:00.000Z","for_ms":0,"job":"j","hook":"h","result":{"x": 1}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, v := range environ("h", e) {
		if strings.HasPrefix(v, "PUP_NAME") {
			t.Errorf("a dangerous name is in the environment: %q", v)
		}
	}
}

// TestVantageIsText: our own views of a name are told from vantages by a zero
// byte, so no line may bring one.
func TestVantageIsText(t *testing.T) {
	o := options(t)
	in := `{"name":"input","vantage":"\u0000","status":"down"}` + "\n" + `{"name":"a","vantage":"\u0000quorum 2","status":"down"}` + "\n"
	var out bytes.Buffer
	sum, err := Run(strings.NewReader(in), &out, io.Discard, o)
	if err != nil || sum.Bad != 2 || strings.Count(out.String(), "the vantage holds a zero byte") != 2 {
		t.Errorf("%+v, %v: %s", sum, err, out.String())
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	o := options(t)
	o.Notify = path
	in := `{"type":"beat","every_ms":1000}` + "\n" + `{"name":"a","status":"up"}` + "\n" + `{"type":"beat","every_ms":1000}` + "\n"
	if _, err := Run(strings.NewReader(in), io.Discard, io.Discard, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"WATCHDOG=1", "READY=1", "WATCHDOG=1", "STOPPING=1"} {
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("got %q, %v, want %s", b[:n], err, want)
		}
	}
}

// BenchmarkNothingMatches is the cost of a line that calls no hook, beside
// jq -c . on the same lines. Goal: a twentieth of jq.
func BenchmarkNothingMatches(b *testing.B) {
	const n = 20000
	in := results(n, 2000)
	b.Run("route", func(b *testing.B) {
		o := options(b)
		b.ReportAllocs()
		before := spent(b)
		for b.Loop() {
			if _, err := Run(bytes.NewReader(in), io.Discard, io.Discard, o); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((spent(b)-before).Nanoseconds())/float64(b.N)/n, "cpu-ns/line")
	})
	jq, err := exec.LookPath("jq")
	if err != nil {
		b.Log("jq is not installed: no reference")
		return
	}
	b.Run("jq", func(b *testing.B) {
		var cpu time.Duration
		for b.Loop() {
			cmd := exec.Command(jq, "-c", ".")
			cmd.Stdin = bytes.NewReader(in)
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
			cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/n, "cpu-ns/line")
	})
}

// spent is the CPU time of this process.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
