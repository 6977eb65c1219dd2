package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type fakeOptions struct {
	Take  wire.Duration `json:"take" doc:"How long it takes."`
	Fail  int           `json:"fail" doc:"How many attempts fail."`
	Panic bool          `json:"panic" doc:"Panic."`
}

type fakeFacts struct {
	Ran int `json:"ran" doc:"Which run it was."`
}

// fake is a check that takes some time, and counts.
type fake struct {
	now, most, ran atomic.Int64
	failed         atomic.Int64
}

func (f *fake) runner() *probe.Runner {
	return probe.NewRunner([]*probe.Check{probe.New(probe.Info{
		Name: "fake", Schemes: []probe.Scheme{{Name: "fake", Port: 1}},
	}, fakeOptions{}, f.run)})
}

func (f *fake) run(ctx context.Context, p *probe.Probe, opt *fakeOptions, facts *fakeFacts) error {
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for m := f.most.Load(); n > m && !f.most.CompareAndSwap(m, n); m = f.most.Load() {
	}
	facts.Ran = int(f.ran.Add(1))
	p.Phase(wire.Request)
	if opt.Panic {
		panic("fake panic")
	}
	select {
	case <-time.After(time.Duration(opt.Take)):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.failed.Add(1) <= int64(opt.Fail) {
		return probe.Failf(wire.Refused, "fake failure")
	}
	return nil
}

// run filters in, and gives the output lines.
func run(t *testing.T, ctx context.Context, f *fake, in io.Reader, change func(*Engine)) ([]string, Summary, error) {
	t.Helper()
	var out bytes.Buffer
	e := &Engine{Runner: f.runner(), In: in, Out: &out, Jobs: 4, Grace: time.Second, MaxLine: ndjson.MaxLine}
	if change != nil {
		change(e)
	}
	sum, err := e.Run(ctx)
	var lines []string
	if s := strings.TrimSuffix(out.String(), "\n"); s != "" {
		lines = strings.Split(s, "\n")
	}
	for _, l := range lines {
		if err := ndjson.Valid([]byte(l)); err != nil {
			t.Errorf("%s: %v", l, err)
		}
	}
	return lines, sum, err
}

func targets(n int, take string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"name":"t%d","url":"fake://h%d/","fake":{"take":%q}}`+"\n", i, i%3, take)
	}
	return b.String()
}

// names gives the names of result lines with their status, and what has no
// name as it is.
func names(lines []string) string {
	var got []string
	for _, l := range lines {
		m := map[string]string{}
		ndjson.Members([]byte(l), func(k, v []byte) error { m[string(k)] = strings.Trim(string(v), `"`); return nil })
		switch s := m["name"] + ":" + m["status"]; m["reason"] {
		case "":
			got = append(got, s)
		default:
			got = append(got, s+"/"+m["reason"])
		}
	}
	return strings.Join(got, " ")
}

func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		start := time.Now()
		lines, sum, err := run(t, t.Context(), f, strings.NewReader(targets(20, "1s")), nil)
		if len(lines) != 20 || err != nil || sum.Worst != wire.Up {
			t.Errorf("%d lines, %v, worst %q", len(lines), err, sum.Worst)
		}
		if f.most.Load() != 4 || time.Since(start) != 5*time.Second {
			t.Errorf("%d at once, %v in all; want 4, 5s", f.most.Load(), time.Since(start))
		}
	})
}

func TestCrowded(t *testing.T) {
	for jobs, want := range map[int]bool{0: true, 1: false, crowd - 1: false, crowd: true} {
		if got := (&Engine{Jobs: jobs}).crowded(); got != want {
			t.Errorf("%d jobs: got %v, want %v", jobs, got, want)
		}
	}
}

func TestNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		run(t, t.Context(), f, strings.NewReader(targets(50, "1s")), func(e *Engine) { e.Jobs = 0 })
		if f.most.Load() != 50 {
			t.Errorf("%d at once, want 50", f.most.Load())
		}
	})
}

func TestPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		start := time.Now()
		run(t, t.Context(), f, strings.NewReader(targets(12, "1s")), func(e *Engine) { e.Jobs, e.PerHost = 100, 2 })
		if f.most.Load() != 6 || time.Since(start) != 2*time.Second {
			t.Errorf("%d at once of 3 hosts, %v; want 6, 2s", f.most.Load(), time.Since(start))
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		run(t, t.Context(), &fake{}, strings.NewReader(targets(11, "0s")), func(e *Engine) { e.Rate = 10 })
		if d := time.Since(start); d != time.Second {
			t.Errorf("11 starts at 10/s took %v, want 1s", d)
		}
	})
}

func TestOrder(t *testing.T) {
	in := `{"name":"slow","url":"fake://h/","fake":{"take":"9s"}}
{"name":"event","type":"event"}
{"name":"fast","url":"fake://h/"}
`
	for ordered, want := range map[bool]string{
		false: "event: fast:up slow:up",
		true:  "slow:up event: fast:up",
	} {
		synctest.Test(t, func(t *testing.T) {
			lines, _, _ := run(t, t.Context(), &fake{}, strings.NewReader(in), func(e *Engine) { e.Ordered = ordered })
			if got := names(lines); got != want {
				t.Errorf("ordered %v: got %s, want %s", ordered, got, want)
			}
		})
	}
}

// A signal: what is in flight gets the grace, what was read but not started is
// canceled, and no target is without its line.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, w := io.Pipe()
		go func() {
			io.WriteString(w, targets(1, "1500ms")+targets(1, "1h")+targets(5, "1s"))
			time.Sleep(time.Second) // in the bubble's time: the first two run now
			cancel()
		}()
		lines, _, err := run(t, ctx, &fake{}, in, func(e *Engine) { e.Jobs = 2 })
		want := "t0:unknown/canceled t1:unknown/canceled t2:unknown/canceled t3:unknown/canceled t4:unknown/canceled t0:up t0:unknown/canceled"
		if got := names(lines); got != want || err != nil {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		w.Close()
	})
}

// The input has not ended, and nothing comes: a signal ends the program.
func TestStopIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, w := io.Pipe()
		go func() { time.Sleep(time.Minute); cancel() }()
		lines, _, err := run(t, ctx, &fake{}, in, nil)
		if len(lines) != 0 || err != nil {
			t.Errorf("got %q, %v", lines, err)
		}
		w.Close()
	})
}

type failingWriter struct{ n int }

var errFull = errors.New("no space left")

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// Output that fails ends everything at once, however much is in flight.
func TestWriteError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in, w := io.Pipe()
		defer w.Close()
		go io.WriteString(w, targets(1, "1s")+targets(3, "1h"))
		_, _, err := run(t, t.Context(), &fake{}, in, func(e *Engine) { e.Out = &failingWriter{} })
		if !errors.Is(err, errFull) || time.Since(start) > 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestResults(t *testing.T) {
	for _, tt := range []struct{ name, target, want, holds string }{
		{"retries", `"retries":3,"retry_wait":"5s","fake":{"fail":2}`, "t:up", `"attempts":3,"earlier":[{"status":"down","phase":"request","reason":"refused","error":"fake failure"`},
		{"retries used up", `"retries":1,"fake":{"fail":2}`, "t:down/refused", `"attempts":2`},
		{"panic", `"fake":{"panic":true}`, "t:unknown/internal", `bug in check fake: fake panic`},
		{"timeout", `"timeout":"2s","fake":{"take":"1h"}`, "t:down/timeout", `"error":"no answer within 2s"`},
		{"expired", `"expires":"1999-01-01T00:00:00Z"`, "t:unknown/expired", `too late`},
		{"lag", `"due":"2000-01-01T00:00:00Z"`, "t:up", `"lag_ms":0`},
		{"expect", `"expect":["fake.ran == 7"]`, "t:down/mismatch", `"failed":[{"expect":"fake.ran == 7","saw":{"fake.ran":1}}]`},
		{"warn", `"warn":["ms.total < 100"],"fake":{"take":"1s"}`, "t:degraded/slow", `"failed":[{"warn":"ms.total < 100","saw":{"ms.total":1000}}]`},
		{"expected failure", `"expect":["reason == 'refused'"],"fake":{"fail":1}`, "t:up", `"attempts":1`},
		{"unexpected success", `"expect":["reason == 'refused'"]`, "t:down/mismatch", `reason`},
		{"another failure", `"expect":["reason == 'denied'"],"fake":{"fail":1}`, "t:down/refused", `fake failure`},
		{"unknown members", `"zone":{"a":[1.50]},"labels":{"team":"web"}`, "t:up", `"zone":{"a":[1.50]},"labels":{"team":"web"}`},
		{"members of ours", `"status":"up","failed":3,"fake":{"fail":1}`, "t:down/refused", `"attempts":1`},
		{"new version", `"v":2`, "t:unknown/options", `v: version 2 of the line format`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the clock begins at the year 2000
				in := `{"name":"t","url":"fake://h/",` + tt.target + "}"
				lines, _, _ := run(t, t.Context(), &fake{}, strings.NewReader(in), nil)
				if got := names(lines); got != tt.want || !strings.Contains(lines[0], tt.holds) {
					t.Errorf("got %s, want %s with %s\n%s", got, tt.want, tt.holds, lines)
				}
			})
		})
	}
}

// FuzzRun: whatever comes in, each line that is not blank has one line for it
// in the output, and all of them are JSON.
func FuzzRun(f *testing.F) {
	f.Add([]byte(targets(3, "0s") + "garbage\n{}\n\n{\"type\":\"x\"}\nfake://h\n" + `{"url":"fake://h:99999/","expect":["a"],"labels":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		want := 0
		r := ndjson.NewReader(bytes.NewReader(in), 1024)
		for {
			_, err := r.Next()
			if err == io.EOF {
				break
			}
			want++
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		lines, _, err := run(t, ctx, &fake{}, bytes.NewReader(in), func(e *Engine) {
			e.MaxLine = 1024
			e.Ready = len(in)%2 == 0               // which makes no difference
			e.Runner.MaxTimeout = time.Millisecond // no target makes us wait
		})
		if len(lines) != want || err != nil {
			t.Errorf("%q: %d lines for %d, %v\n%s", in, len(lines), want, err, lines)
		}
	})
}
