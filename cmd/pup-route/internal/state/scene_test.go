package state

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// scene plays a script against rules, each word of which is
// name/vantage=status#run, and lets ten seconds pass before it unless it ends
// in +: then it comes with the one before. "@5m" lets time pass; "-name"
// removes a name. It returns what was emitted, as
// "hook:kind(name,status)[what else it says]".
func scene(t *testing.T, rules []Rule, script string) string {
	t.Helper()
	var got []string
	now := epoch
	table := New(func(e *Event) { got = append(got, brief(e)) }, nil)
	table.ForgetAfter = time.Hour
	table.SetRules(rules, 0, nil)
	pass := func(d time.Duration) {
		until := now.Add(d)
		for due := table.Next(); !due.IsZero() && !due.After(until); due = table.Next() {
			table.Advance(due)
		}
		now = until
	}
	for word := range strings.FieldsSeq(script) {
		if at, ok := strings.CutPrefix(word, "@"); ok {
			d, err := time.ParseDuration(at)
			if err != nil {
				t.Fatal(err)
			}
			pass(d)
			continue
		}
		if name, ok := strings.CutPrefix(word, "-"); ok {
			table.Remove([]byte(name), now, now)
			continue
		}
		word, with := strings.CutSuffix(word, "+")
		if !with {
			pass(10 * time.Second)
		}
		word, run, _ := strings.Cut(word, "#")
		who, word, _ := strings.Cut(word, "=")
		name, vantage, _ := strings.Cut(who, "/")
		status, ok := ParseStatus([]byte(word))
		if !ok {
			t.Fatalf("no status %q", word)
		}
		// The first letter of a name is its pool, the second its network.
		line := fmt.Sprintf(`{"name":%q,"status":%q,"labels":{"pool":%q},"address":"10.0.%d.%d:80"}`, name, word, name[:1], name[min(1, len(name)-1)], name[len(name)-1])
		table.Observe(&Result{Name: []byte(name), Vantage: []byte(vantage), Status: status, Run: []byte(run), Every: 10 * time.Second, Due: now, Line: []byte(line)}, now)
	}
	return strings.Join(got, " ")
}

func brief(e *Event) string {
	more := ""
	for _, v := range e.Seen {
		more += "," + v.Vantage + "=" + v.Status.String()
	}
	if e.Whole != nil {
		for _, m := range e.Whole.Members {
			more += "," + m.Vantage
		}
		more += fmt.Sprintf(",of %d", e.Whole.Total)
	}
	if e.Reason != "" {
		more += "," + e.Reason
	}
	if more != "" {
		more = "[" + more[1:] + "]"
	}
	who := e.Name
	if e.Vantage != "" {
		who += "/" + e.Vantage
	}
	return fmt.Sprintf("%s:%s(%s,%s)%s", e.Hook, e.Kind, who, e.Status, more)
}

func check(t *testing.T, rules []Rule, script, want string) {
	t.Helper()
	if got := scene(t, rules, script); got != want {
		t.Errorf("%s:\n got %s\nwant %s", script, got, want)
	}
}

// measures writes out the runs of a script: "uud" is what the vantages a, b
// and c say of web in one run, "." is silence.
func measures(script string) string {
	var words []string
	for i, run := range strings.Fields(script) {
		if strings.HasPrefix(run, "@") {
			words = append(words, run)
			continue
		}
		for v, c := range run {
			status := map[rune]string{'u': "up", 'd': "down", 'g': "degraded", '?': "unknown"}[c]
			if status != "" {
				words = append(words, fmt.Sprintf("web/%c=%s#%d", 'a'+v, status, i))
			}
		}
	}
	return strings.Join(words, " ")
}

func TestQuorum(t *testing.T) {
	two := Rule{Hook: "h", Becomes: set(Down), Recovered: true, Quorum: Share{Count: 2}}
	most := two
	most.Quorum = Share{Majority: true}
	any := two
	any.Quorum = Share{Count: 1}
	all := two
	all.Quorum = Share{Percent: 100}
	twice := two
	twice.After.Count = 2
	unknown := two
	unknown.Becomes = unknown.Becomes.Add(Unknown)
	both := two
	both.Becomes = both.Becomes.Add(Degraded)
	for _, tt := range []struct {
		name string
		rule Rule
		runs string
		want string
	}{
		{"one of three", two, "uuu duu uuu", ""},
		{"two of three", two, "uuu ddu uuu", "h:down(web,down)[a=down,b=down,c=up] h:recovered(web,up)[a=up,b=up,c=up]"},
		{"the end needs a quorum too", two, "uuu ddd ddu duu", "h:down(web,down)[a=down,b=down,c=up] h:recovered(web,up)[a=down,b=up,c=up]"},
		{"not over two runs", two, "uuu duu udu uud uuu", ""},
		{"two of two disagree", two, "uu ud ud uu", ""},
		{"which is unknown", unknown, "uu ud ud uu", "h:unknown(web,unknown)[a=up,b=down] h:recovered(web,up)[a=up,b=up]"},
		{"unknown does not count", two, "uuu d?u dd? u?u", "h:down(web,down)[a=down,b=down,c=up] h:recovered(web,up)[a=up,b=unknown,c=up]"},
		{"majority of those who can tell", most, "uuu d?u d?d u?u", "h:down(web,down)[a=down,b=unknown,c=down] h:recovered(web,up)[a=up,b=unknown,c=up]"},
		{"after counts runs", twice, "uuu ddd ddd", "h:down(web,down)[a=down,b=down,c=down]"},
		{"one missing", two, "uuu .du .dd", "h:down(web,down)[a=up,b=down,c=down]"},
		{"missing for a while, majority", most, "uuu d.. d.. d.. d.. d..", "h:down(web,down)[a=down]"},
		{"missing for good, a number", two, "uuu d.. d.. d.. d.. d.. d..", ""},
		{"a single one, majority", most, "u d u", "h:down(web,down)[a=down] h:recovered(web,up)[a=up]"},
		{"a single one at first sight", most, "d d", "h:down(web,down)[a=down]"},
		{"one is not down because the others are slow at first sight", most, "duu duu", ""},
		{"any", any, "uuu uud uuu", "h:down(web,down)[a=up,b=up,c=down] h:recovered(web,up)[a=up,b=up,c=up]"},
		{"all", all, "uuu ddu ddd", "h:down(web,down)[a=down,b=down,c=down]"},
		{"degraded and down make degraded", both, "uuu gdu", "h:degraded(web,degraded)[a=degraded,b=down,c=up]"},
		{"two down make down", both, "uuu dgd", "h:down(web,down)[a=down,b=degraded,c=down]"},
		{"one comes back", two, "uu. dd. ddd uuu", "h:down(web,down)[a=down,b=down] h:recovered(web,up)[a=up,b=up,c=down]"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, []Rule{tt.rule}, measures(tt.runs), tt.want) })
	}
}

func TestQuorumOfLateResults(t *testing.T) {
	two := []Rule{{Hook: "h", Becomes: set(Down), Recovered: true, Quorum: Share{Count: 2}}}
	// A result that comes after the next run has begun still counts for its own.
	check(t, two, "web/a=up#0 web/b=up#0 web/c=up#0 web/a=down#1 web/a=up#2 web/b=down#1 web/b=up#2",
		"h:down(web,down)[a=up,b=down,c=up] h:recovered(web,up)[a=up,b=up,c=up]")
	// A second delivery is no second vote.
	check(t, two, "web/a=up#0 web/b=up#0 web/c=up#0 web/a=down#1 web/a=down#1 web/a=down#1", "")
	// Results that do not say their run are taken as they come.
	check(t, two, "web/a=up web/b=up web/a=down web/b=down web/a=up web/b=up",
		"h:down(web,down)[a=down,b=down] h:recovered(web,up)[a=up,b=up]")
	// Nothing of any vantage: stale.
	stale := []Rule{{Hook: "h", Becomes: set(Down, Stale), Recovered: true, Quorum: Share{Count: 2}}}
	check(t, stale, "web/a=up#0 web/b=up#0 web/a=up#1 web/b=up#1 @2m web/a=up#2 web/b=up#2",
		"h:stale(web,unknown)[a=up,b=up] h:recovered(web,up)[a=up,b=up]")
}

func TestRemove(t *testing.T) {
	rules := []Rule{{Hook: "h", Becomes: set(Down), Recovered: true, Repeat: time.Minute}, {Hook: "late", Becomes: set(Down), Recovered: true, After: Threshold{For: time.Minute}}}
	check(t, rules, "web=down -web @5m", "h:down(web,down) h:recovered(web,unknown)[removed]")
	check(t, rules, "web=down web=up -web @5m", "h:down(web,down) h:recovered(web,up)")
	check(t, rules, "web=down -web -web web=up", "h:down(web,down) h:recovered(web,unknown)[removed]")
	check(t, rules, "web=down -web web=down", "h:down(web,down) h:recovered(web,unknown)[removed] h:down(web,down)")
	check(t, rules[:1], "web/a=down web/b=down -web", "h:down(web/a,down) h:down(web/b,down) h:recovered(web/a,unknown)[removed] h:recovered(web/b,unknown)[removed]")
	change := []Rule{{Hook: "h", Change: true}}
	check(t, change, "web=down -web", "h:down(web,down) h:recovered(web,unknown)[removed]")

	quorum := []Rule{{Hook: "h", Becomes: set(Down), Recovered: true, Quorum: Share{Majority: true}}}
	check(t, quorum, measures("uuu ddd")+" -web", "h:down(web,down)[a=down,b=down,c=up] h:recovered(web,unknown)[a=down,b=down,c=down,removed]")
}

func TestForget(t *testing.T) {
	rules := []Rule{{Hook: "h", Becomes: set(Down), Recovered: true}}
	busy := strings.Repeat(" @20m db=up", 4)
	check(t, rules, "db=up web=down"+busy, "h:down(web,down) h:recovered(web,unknown)[forgotten]")
	// A vantage that is gone for good.
	check(t, rules, "web/b=up web/a=down"+strings.ReplaceAll(busy, "db", "web/b"), "h:down(web/a,down) h:recovered(web/a,unknown)[forgotten]")
	// Nothing came at all: the input was lost, not the name.
	check(t, rules, "db=up web=down @10h", "h:down(web,down)")
	check(t, rules, "db=up web=down @10h db=up @40m db=up web=up", "h:down(web,down) h:recovered(web,up)")
}

// TestResultsFromBeforeTheRemoval: what was due before is still under way
// when a target is removed.
func TestResultsFromBeforeTheRemoval(t *testing.T) {
	var got []string
	table := New(func(e *Event) { got = append(got, brief(e)) }, nil)
	table.SetRules([]Rule{{Hook: "h", Becomes: set(Down), Recovered: true}}, 0, nil)
	at := epoch.Add(time.Minute)
	table.Remove([]byte("web"), at, at)
	r := &Result{Name: []byte("web"), Status: Down, Due: epoch, Line: []byte("{}")}
	if table.Observe(r, at) || len(got) != 0 {
		t.Errorf("a result of before the removal counted: %v", got)
	}
	r.Due = at.Add(time.Second)
	if !table.Observe(r, at) || len(got) != 1 {
		t.Errorf("a result of after the removal did not count: %v", got)
	}
}

func TestMembers(t *testing.T) {
	named := Rule{Hook: "h", Becomes: set(Down), Recovered: true, Together: &Together{Names: []string{"w1", "w2", "w3"}, AtLeast: Share{Count: 2}}}
	same := named
	same.Together = &Together{Same: []string{"labels.pool"}, AtLeast: Share{Percent: 50}}
	slow := named
	slow.After.Count = 2
	remind := named
	remind.Repeat = time.Minute
	worst := same
	worst.Becomes = worst.Becomes.Add(Degraded)
	worst.Together = &Together{Names: []string{"w1", "w2", "w3"}, AtLeast: Share{Count: 2}}
	quorum := named
	quorum.Quorum = Share{Count: 2}
	for _, tt := range []struct {
		name   string
		rule   Rule
		script string
		want   string
	}{
		{"one of three", named, "w1=up w2=up w3=up w1=down w1=up", ""},
		{"two of three", named, "w1=down w2=down w3=down w1=up w2=up w3=up", "h:down(h,down)[w1,w2,of 3] h:recovered(h,up)[w3,of 3]"},
		{"others do not matter", named, "x1=down x2=down w1=down", ""},
		{"one of them at a time", named, "w1=down w1=up w2=down w2=up", ""},
		{"after is for each", slow, "w1=down w2=down w1=down w2=down w1=up", "h:down(h,down)[w1,w2,of 3] h:recovered(h,up)[w2,of 3]"},
		{"reminders are of the whole", remind, "w1=down w2=down @1m30s w1=up", "h:down(h,down)[w1,w2,of 3] h:reminder(h,down)[w1,w2,of 3] h:recovered(h,up)[w2,of 3]"},
		{"a share of a pool", same, "a1=up a2=up b1=up b2=up b3=up a1=down b1=down b2=down a1=up b1=up b2=up",
			"h:down(labels.pool=a,down)[a1,of 2] h:down(labels.pool=b,down)[b1,b2,of 3] h:recovered(labels.pool=a,up)[of 2] h:recovered(labels.pool=b,up)[b2,of 3]"},
		{"a new member makes it fewer", same, "a1=up a2=up a1=down a3=up", "h:down(labels.pool=a,down)[a1,of 2] h:recovered(labels.pool=a,up)[a1,of 3]"},
		{"the worst that enough have", worst, "w1=degraded w2=down w1=down w3=degraded w2=up w3=up",
			"h:degraded(h,degraded)[w1,w2,of 3] h:down(h,down)[w1,w2,of 3] h:degraded(h,degraded)[w1,w3,of 3] h:recovered(h,up)[w1,of 3]"},
		{"by quorum", quorum, "w1/a=up#1 w1/b=up#1 w2/a=up#1 w2/b=up#1 w1/a=down#2 w1/b=down#2 w2/a=down#2 w2/b=up#2 w2/a=down#3 w2/b=down#3 w2/a=up#4 w2/b=up#4",
			"h:down(h,down)[w1,w2,of 3] h:recovered(h,up)[w1,of 3]"},
		{"as each vantage sees them", named, "w1/a=down w2/b=down w2/a=down -w1", "h:down(h/a,down)[w1,w2,of 3] h:recovered(h/a,up)[w2,of 3]"},
		{"one is removed", named, "w1=down w2=down -w1", "h:down(h,down)[w1,w2,of 3] h:recovered(h,up)[w2,of 3]"},
		{"all are removed", same, "a1=down -a1", "h:down(labels.pool=a,down)[a1,of 1] h:recovered(labels.pool=a,unknown)[of 0,removed]"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, []Rule{tt.rule}, tt.script, tt.want) })
	}
}

func TestCommonCause(t *testing.T) {
	rule := Rule{Hook: "h", Becomes: set(Down), Recovered: true,
		Together: &Together{Same: []string{"address/24", "labels.pool"}, AtLeast: Share{Count: 3}, Cause: true, Within: time.Minute}}
	net := "address/24=10.0.110.0/24" // of names whose second letter is n
	up := "an1=up bn2=up cn3=up dn4=up dx5=up dx6=up "
	for _, tt := range []struct {
		name   string
		script string
		want   string
	}{
		{"too few", up + "an1=down bn2=down @2m an1=up", "h:down(an1,down) h:down(bn2,down) h:recovered(an1,up)"},
		{"enough", up + "an1=down bn2=down cn3=down @2m an1=up", "h:down(" + net + ",down)[an1,bn2,cn3,of 4] h:recovered(" + net + ",up)[bn2,cn3,of 4]"},
		{"the rest after it", up + "an1=down bn2=down cn3=down @2m an1=up @2m bn2=up", "h:down(" + net + ",down)[an1,bn2,cn3,of 4] h:recovered(" + net + ",up)[bn2,cn3,of 4]" +
			" h:down(bn2,down) h:down(cn3,down) h:recovered(bn2,up)"},
		{"the rest ends soon", up + "an1=down bn2=down cn3=down @2m an1=up bn2=up cn3=up @2m", "h:down(" + net + ",down)[an1,bn2,cn3,of 4] h:recovered(" + net + ",up)[bn2,cn3,of 4]"},
		{"others join it", up + "an1=down bn2=down cn3=down @1m dn4=down @2m an1=up bn2=up", "h:down(" + net + ",down)[an1,bn2,cn3,of 4] h:recovered(" + net + ",up)[cn3,dn4,of 4]"},
		{"what most have in common", up + "dn4=down dx5=down dx6=down an1=down bn2=down cn3=down @2m", "h:down(" + net + ",down)[an1,bn2,cn3,dn4,of 4] h:down(dx5,down) h:down(dx6,down)"},
		{"over before it is told", up + "an1=down bn2=down cn3=down an1=up bn2=up cn3=up @2m", ""},
		{"nothing in common with enough: at once", "xa1=up yb2=up xa1=down", "h:down(xa1,down)"},
		{"one is removed", up + "an1=down bn2=down cn3=down @2m -an1 @2m", "h:down(" + net + ",down)[an1,bn2,cn3,of 4] h:recovered(" + net + ",up)[bn2,cn3,of 3] h:down(bn2,down) h:down(cn3,down)"},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, []Rule{rule}, tt.script, tt.want) })
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		text string
		of   [4]int // of 1, 2, 3, 10
	}{{"2", [4]int{2, 2, 2, 2}}, {"majority", [4]int{1, 2, 2, 6}}, {"all", [4]int{1, 2, 3, 10}}, {"34%", [4]int{1, 1, 2, 4}}, {"50%", [4]int{1, 1, 2, 5}}, {"1%", [4]int{1, 1, 1, 1}}} {
		s, err := ParseShare(tt.text)
		got := [4]int{s.Of(1), s.Of(2), s.Of(3), s.Of(10)}
		if err != nil || got != tt.of || s.String() != tt.text {
			t.Errorf("%s: %v, %v, %q; want %v", tt.text, got, err, s.String(), tt.of)
		}
	}
	for _, text := range []string{"", "0", "-1", "101%", "0%", "half", "2 of 3", "%"} {
		if s, err := ParseShare(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}
