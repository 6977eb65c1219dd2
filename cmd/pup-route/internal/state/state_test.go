package state

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// play runs a script against rules: "up down@30s" gives one result each ten
// seconds unless a time is said; "-@5m" only lets time pass. It returns what
// was emitted, as "rule:kind(previous>status,count)@seconds".
func play(t *testing.T, rules []Rule, script string) string {
	t.Helper()
	var got []string
	now := epoch
	table := New(nil, nil)
	table.SetRules(rules, 0, nil)
	table.emit = func(e *Event) {
		previous := e.Previous.String()
		if e.First {
			previous = "?"
		}
		got = append(got, fmt.Sprintf("%d:%s(%s>%s,%d)@%v", e.Rule, e.Kind, previous, e.Status, e.Count, now.Sub(epoch)))
	}
	for i, step := range strings.Fields(script) {
		word, at, timed := strings.Cut(step, "@")
		next := now.Add(10 * time.Second)
		if i == 0 {
			next = epoch
		}
		if timed {
			d, err := time.ParseDuration(at)
			if err != nil {
				t.Fatal(err)
			}
			next = epoch.Add(d)
		}
		for due := table.Next(); !due.IsZero() && !due.After(next); due = table.Next() {
			now = due
			table.Advance(due)
		}
		now = next
		if word == "-" {
			continue
		}
		status, ok := ParseStatus([]byte(word))
		if !ok {
			t.Fatalf("no status %q", word)
		}
		table.Observe(&Result{Name: []byte("web"), Status: status, Every: 10 * time.Second, Timeout: 5 * time.Second,
			Line: []byte(`{"status":"` + word + `"}`)}, now)
	}
	return strings.Join(got, " ")
}

func set(statuses ...Status) (t Set) {
	for _, s := range statuses {
		t = t.Add(s)
	}
	return t
}

func TestEvents(t *testing.T) {
	down := Rule{Hook: "h", Becomes: set(Down), Recovered: true}
	for _, tt := range []struct {
		name   string
		rule   Rule
		script string
		want   string
	}{
		{"peace", down, "up up up", ""},
		{"down once", down, "up down down up up", "0:down(up>down,1)@10s 0:recovered(down>up,1)@30s"},
		{"down at first sight", down, "down", "0:down(?>down,1)@0s"},
		{"recovery not owed", down, "degraded up", ""},
		{"degraded does not end down", down, "down degraded down up", "0:down(?>down,1)@0s 0:recovered(down>up,1)@30s"},
		{"unknown is no verdict", down, "down unknown unknown down up", "0:down(?>down,1)@0s 0:recovered(down>up,1)@40s"},
		{"after", Rule{Becomes: set(Down), Recovered: true, After: Threshold{Count: 3}}, "down down up down down down down up",
			"0:down(up>down,3)@50s 0:recovered(down>up,1)@1m10s"},
		{"unknown does not break a streak", Rule{Becomes: set(Down), After: Threshold{Count: 3}}, "up down unknown down unknown down",
			"0:down(up>down,3)@50s"},
		{"degraded counts towards degraded or down", Rule{Becomes: set(Degraded, Down), After: Threshold{Count: 3}}, "up degraded down degraded",
			"0:degraded(up>degraded,3)@30s"},
		{"but not towards down alone", Rule{Becomes: set(Down), After: Threshold{Count: 2}}, "up degraded down degraded down", ""},
		{"after a time", Rule{Becomes: set(Down), After: Threshold{For: 25 * time.Second}}, "up down down -@20s -@2m", "0:down(up>down,2)@35s"},
		{"recover after", Rule{Becomes: set(Down), Recovered: true, RecoverAfter: Threshold{Count: 2}}, "down up down up up up",
			"0:down(?>down,1)@0s 0:recovered(down>up,2)@40s"},
		{"recover after a time", Rule{Becomes: set(Down), Recovered: true, RecoverAfter: Threshold{For: 15 * time.Second}}, "down up -@1m",
			"0:down(?>down,1)@0s 0:recovered(down>up,1)@25s"},
		{"change", Rule{Change: true}, "up down degraded up", "0:down(up>down,1)@10s 0:degraded(down>degraded,2)@20s 0:up(degraded>up,1)@30s"},
		{"transition", Rule{Transitions: []Transition{{Degraded, Down}}}, "up down degraded down up", "0:down(degraded>down,3)@30s"},
		{"up", Rule{Becomes: set(Up)}, "up down up", "0:up(down>up,1)@20s"},
		{"only recovered", Rule{Recovered: true}, "up degraded up", "0:recovered(degraded>up,1)@20s"},
		{"unknown", Rule{Becomes: set(Unknown), Recovered: true}, "up unknown unknown up", "0:unknown(up>unknown,1)@10s 0:recovered(unknown>up,2)@30s"},
		{"reminders", Rule{Becomes: set(Down), Recovered: true, Repeat: 20 * time.Second}, "down down down down -@1m1s up@70s",
			"0:down(?>down,1)@0s 0:reminder(down>down,2)@20s 0:reminder(down>down,4)@40s 0:reminder(down>down,4)@1m0s 0:recovered(down>up,1)@1m10s"},
		{"reminders alone", Rule{Reminders: true, Repeat: 20 * time.Second, Recovered: true}, "down down down up",
			"0:reminder(down>down,2)@20s 0:recovered(down>up,1)@30s"},
		{"recovered without a reminder", Rule{Reminders: true, Repeat: time.Hour, Recovered: true}, "down down down up", ""},
		{"stale", Rule{Becomes: set(Stale), Recovered: true}, "up up -@2m up@2m30s",
			"0:stale(up>unknown,0)@35s 0:recovered(unknown>up,3)@2m30s"},
		{"stale while down", Rule{Becomes: set(Down, Stale), Recovered: true}, "down -@1m down@2m up",
			"0:down(?>down,1)@0s 0:stale(down>unknown,0)@25s 0:down(unknown>down,2)@2m0s 0:recovered(down>up,1)@2m10s"},
		{"some of the last", Rule{Becomes: set(Down), Recovered: true, After: Threshold{Count: 3, Of: 5}}, "down up down up up down up down down up",
			"0:down(up>down,2)@1m20s 0:recovered(down>up,1)@1m30s"},
		{"flapping holds", Rule{Becomes: set(Down), Recovered: true, Flap: 4}, "up down up down up down up " + strings.Repeat("up ", 17) + "down",
			"0:down(up>down,1)@10s 0:recovered(down>up,1)@20s 0:down(up>down,1)@30s 0:recovered(down>up,17)@3m40s 0:down(up>down,1)@4m0s"},
		{"flapping is told", Rule{Becomes: set(Down, Flapping), Recovered: true, Flap: 4}, "up down up down up down up " + strings.Repeat("up ", 17),
			"0:down(up>down,1)@10s 0:recovered(down>up,1)@20s 0:down(up>down,1)@30s 0:flapping(down>degraded,4)@40s 0:recovered(degraded>up,17)@3m40s"},
		{"reminders with longer pauses", Rule{Becomes: set(Down), Repeat: 20 * time.Second, RepeatMax: time.Minute}, "down -@10m",
			"0:down(?>down,1)@0s 0:reminder(down>down,1)@20s 0:reminder(down>down,1)@1m0s 0:reminder(down>down,1)@2m0s 0:reminder(down>down,1)@3m0s 0:reminder(down>down,1)@4m0s 0:reminder(down>down,1)@5m0s 0:reminder(down>down,1)@6m0s 0:reminder(down>down,1)@7m0s 0:reminder(down>down,1)@8m0s 0:reminder(down>down,1)@9m0s 0:reminder(down>down,1)@10m0s"},
		{"always", Rule{Always: true}, "up down", "0:result(?>up,1)@0s 0:result(up>down,1)@10s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := play(t, []Rule{tt.rule}, tt.script); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.script, got, tt.want)
			}
		})
	}
}

func TestWhenKeepsOpeningsNotEndings(t *testing.T) {
	allowed := false
	rule := Rule{Becomes: set(Down), Recovered: true, When: func(line []byte) bool { return allowed && strings.Contains(string(line), "down") }}
	if got := play(t, []Rule{rule}, "up down up"); got != "" {
		t.Errorf("refused by when, got %s", got)
	}
	allowed = true
	if got, want := play(t, []Rule{rule}, "up down up"), "0:down(up>down,1)@10s 0:recovered(down>up,1)@20s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRepeatedRun(t *testing.T) {
	calls := 0
	table := New(func(*Event) { calls++ }, nil)
	table.SetRules([]Rule{{Always: true}}, 0, nil)
	r := &Result{Name: []byte("a"), Run: []byte("a@1"), Line: []byte("{}")}
	if !table.Observe(r, epoch) || table.Observe(r, epoch) {
		t.Error("the second delivery of a run was not told from the first")
	}
	r.Vantage = []byte("fra")
	if !table.Observe(r, epoch) {
		t.Error("another vantage's result of a run was taken for a repetition")
	}
	if calls != 2 || table.Len() != 2 {
		t.Errorf("calls %d, names %d, want 2 and 2", calls, table.Len())
	}
}

func TestIdentifiers(t *testing.T) {
	run := func() (got []Event) {
		table := New(func(e *Event) { got = append(got, *e) }, nil)
		table.SetRules([]Rule{{Hook: "h", Becomes: set(Down), Recovered: true, Repeat: time.Second}}, 0, nil)
		for i, s := range []Status{Down, Down, Up, Down} {
			table.Observe(&Result{Name: []byte("a"), Status: s, Line: []byte("{}")}, epoch.Add(time.Duration(i)*time.Minute))
		}
		return got
	}
	first, second := run(), run()
	if len(first) != 4 {
		t.Fatalf("got %d events, want 4", len(first))
	}
	jobs := map[string]bool{}
	for i := range first {
		jobs[first[i].Job] = true
		if first[i].Job != second[i].Job || first[i].Incident != second[i].Incident {
			t.Errorf("event %d: the same history gave other identifiers", i)
		}
	}
	if len(jobs) != 4 {
		t.Errorf("%d different jobs, want 4", len(jobs))
	}
	if first[0].Incident != first[2].Incident || first[0].Incident == first[3].Incident {
		t.Errorf("incidents %s %s %s: want two equal, then another", first[0].Incident, first[2].Incident, first[3].Incident)
	}
	if first[2].For != 2*time.Minute || !first[2].Since.Equal(epoch) {
		t.Errorf("recovery says since %v for %v, want the whole incident", first[2].Since, first[2].For)
	}
}

func TestReload(t *testing.T) {
	var got []string
	table := New(func(e *Event) { got = append(got, fmt.Sprint(e.Rule, e.Kind)) }, nil)
	table.SetRules([]Rule{{Hook: "gone", Becomes: set(Down)}, {Hook: "kept", Becomes: set(Down), Recovered: true}}, 0, nil)
	table.Observe(&Result{Name: []byte("a"), Status: Down, Line: []byte("{}")}, epoch)
	table.SetRules([]Rule{{Hook: "kept", Becomes: set(Down), Recovered: true}}, 0, []int{-1, 0})
	table.Observe(&Result{Name: []byte("a"), Status: Down, Line: []byte("{}")}, epoch)
	table.Observe(&Result{Name: []byte("a"), Status: Up, Line: []byte("{}")}, epoch)
	if want := "[0down 1down 0recovered]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestSameTime: results of one time, as those have that say none and come in
// one batch, make problems and jobs of their own.
func TestSameTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule Rule
		run  string
		want int // events
	}{
		{"what a vantage sees", Rule{Becomes: set(Down), Recovered: true}, "", 8},
		{"with runs", Rule{Becomes: set(Down), Recovered: true}, "run-%d", 8},
		{"a quorum", Rule{Becomes: set(Down), Recovered: true, Quorum: Share{Count: 1}}, "run-%d", 8},
		{"every result", Rule{Always: true}, "", 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			incidents, jobs, events := map[string]int{}, map[string]bool{}, 0
			table := New(func(v *Event) {
				incidents[v.Incident]++
				jobs[v.Job] = true
				events++
			}, nil)
			table.SetRules([]Rule{tt.rule}, 0, nil)
			for i := range 4 {
				for j, s := range []Status{Down, Up, Up} {
					r := Result{Name: []byte("web"), Status: s, Line: []byte(`{}`)}
					if tt.run != "" {
						r.Run = fmt.Appendf(nil, tt.run, 3*i+j)
					}
					table.Observe(&r, epoch)
				}
			}
			delete(incidents, "") // of results that are up
			if events != tt.want || len(jobs) != events || len(incidents) != 4 {
				t.Errorf("got %d events, %d jobs, incidents %v, want %d, as many, 4", events, len(jobs), incidents, tt.want)
			}
		})
	}
}
