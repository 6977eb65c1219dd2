package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pup/cmd/pup-route/internal/state"
)

var at = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// heard is what a journal told.
type heard struct{ said []string }

func (h *heard) Name(m state.Memory) { h.say("name %s %s", m.Name, m.Line) }
func (h *heard) Note(n state.Note)   { h.say("note %s %s %v", n.Name, n.Hook, n.Told) }
func (h *heard) Result(line []byte, clock, wall time.Time) {
	h.say("result %s %v", line, clock.Sub(at))
}
func (h *heard) Kept(key string, value []byte) error {
	h.say("kept %q %q", key, value)
	return nil
}
func (h *heard) say(format string, args ...any) {
	h.said = append(h.said, fmt.Sprintf(format, args...))
}

func open(t testing.TB, dir string) (*Spool, *heard) {
	t.Helper()
	h := &heard{}
	s, err := Open(dir, h)
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(jobs []*Job) string {
	var s []string
	for _, j := range jobs {
		s = append(s, fmt.Sprintf("%s#%d", j.ID, j.Attempts))
	}
	return strings.Join(s, " ")
}

// fill accepts n results, each with a job, in a batch of its own.
func fill(t testing.TB, s *Spool, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		line := fmt.Sprintf(`{"n": %d, "t":"<&>"}`, i)
		s.Result([]byte(line), at.Add(time.Duration(i)*time.Second), at)
		must(t, s.Note(&state.Note{Name: "a", Hook: "h", Told: state.Down}))
		must(t, s.Job(&Job{ID: fmt.Sprint("job", i), Hook: "h", Key: "a", Created: at, Event: []byte(line)}))
		must(t, s.Commit([]byte(line+"\n")))
	}
}

func TestKeepsWhatWasCommitted(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fill(t, s, 1, 3)
	s.Done("job2")
	j := *s.jobs["job3"]
	j.Attempts, j.After, j.Reason = 4, at, "exit status 75"
	must(t, s.Retry(&j))
	must(t, s.Write())
	s.Result([]byte("never committed"), at, at)
	s.Close()

	s, h := open(t, dir)
	defer s.Close()
	want := `result {"n": 1, "t":"<&>"} 1s,note a h down,result {"n": 2, "t":"<&>"} 2s,note a h down,result {"n": 3, "t":"<&>"} 3s,note a h down`
	if got := strings.Join(h.said, ","); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := ids(s.Jobs()), "job1#0 job3#4"; got != want {
		t.Errorf("jobs %s, want %s", got, want)
	}
	if j := s.jobs["job1"]; string(j.Event) != `{"n": 1, "t":"<&>"}` {
		t.Errorf("the event is not as it was: %s", j.Event)
	}
	if n, crc := s.Input(); n != 20 || crc == 0 {
		t.Errorf("input %d %x", n, crc)
	}
}

// TestTorn cuts the journal at each byte: what was committed before is there,
// and it can be written on.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	var ends []int64
	for i := range 4 {
		fill(t, s, i, 1)
		ends = append(ends, s.size)
	}
	s.Close()
	whole, err := os.ReadFile(s.path(1))
	must(t, err)
	for n := len(header); n <= len(whole); n++ {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "journal-1"), whole[:n], 0o600))
		must(t, os.Rename(filepath.Join(dir, "journal-1"), filepath.Join(dir, filepath.Base(s.path(1)))))
		want := 0
		for _, end := range ends {
			if int64(n) >= end {
				want++
			}
		}
		got, _ := open(t, dir)
		if len(got.Jobs()) != want {
			t.Fatalf("cut at %d: %d jobs, want %d", n, len(got.Jobs()), want)
		}
		fill(t, got, 10, 1)
		got.Close()
		again, _ := open(t, dir)
		if len(again.Jobs()) != want+1 {
			t.Fatalf("cut at %d and written on: %d jobs, want %d", n, len(again.Jobs()), want+1)
		}
		again.Close()
	}
}

// TestFlipped flips each bit: no damage is taken for data.
func TestFlipped(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fill(t, s, 1, 2)
	s.Close()
	path := s.path(1)
	whole, err := os.ReadFile(path)
	must(t, err)
	for bit := len(header) * 8; bit < len(whole)*8; bit++ {
		text := bytes.Clone(whole)
		text[bit/8] ^= 1 << (bit % 8)
		h := &heard{}
		s := &Spool{jobs: map[string]*Job{}}
		if err := s.replay(text, h); err != nil {
			t.Fatal(err)
		}
		for _, j := range s.Jobs() {
			if want := fmt.Sprintf(`{"n": %s, "t":"<&>"}`, strings.TrimPrefix(j.ID, "job")); string(j.Event) != want {
				t.Fatalf("bit %d: %s has the event %s", bit, j.ID, j.Event)
			}
		}
	}
	// What is whole behind the damage is put aside, not thrown away.
	whole[len(header)+40] ^= 1
	must(t, os.WriteFile(path, whole, 0o600))
	s, _ = open(t, dir)
	s.Close()
	aside, err := filepath.Glob(filepath.Join(dir, "quarantine", "*"))
	if err != nil || len(aside) != 1 {
		t.Errorf("quarantine: %v, %v", aside, err)
	}
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fill(t, s, 1, 5)
	s.Done("job1")
	must(t, s.Flush())
	n, crc := s.Input()
	must(t, s.Rotate(func(f func(*state.Memory)) { f(&state.Memory{Name: "a", Line: []byte(`{"x": "<"}`)}) }))
	fill(t, s, 6, 1)
	s.Close()
	names, err := filepath.Glob(filepath.Join(dir, "journal-*"))
	if err != nil || len(names) != 1 {
		t.Errorf("journals %v, %v", names, err)
	}
	s, h := open(t, dir)
	defer s.Close()
	if got, want := ids(s.Jobs()), "job2#0 job3#0 job4#0 job5#0 job6#0"; got != want {
		t.Errorf("jobs %s, want %s", got, want)
	}
	if want := []string{`name a {"x": "<"}`, `result {"n": 6, "t":"<&>"} 6s`, "note a h down"}; !reflect.DeepEqual(h.said, want) {
		t.Errorf("got %q, want %q", h.said, want)
	}
	if n == 0 || crc == 0 {
		t.Errorf("the mark of the input is gone")
	}
}

func TestOthersAreKeptOut(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	defer s.Close()
	if _, err := Open(dir, nobody{}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	writable := t.TempDir()
	must(t, os.Chmod(writable, 0o777))
	if _, err := Open(writable, nobody{}); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a spool that everybody may write: %v", err)
	}
	newer := t.TempDir()
	path := (&Spool{dir: newer}).path(7)
	must(t, os.WriteFile(path, []byte("pup-spool 9\nwhat do we know"), 0o600))
	if _, err := Open(newer, nobody{}); err == nil || !strings.Contains(err.Error(), "update pup-route") {
		t.Errorf("a newer format: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "pup-spool 9\nwhat do we know" {
		t.Errorf("a newer format was changed: %q, %v", text, err)
	}
}

func TestDeadAndRequests(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fill(t, s, 1, 3)
	j := s.jobs["job1"]
	j.Reason = "exit status 64"
	must(t, s.Die(j))
	must(t, s.Flush())
	live, dead, err := List(dir)
	if err != nil || ids(live) != "job2#0 job3#0" || ids(dead) != "job1#0" || dead[0].Reason != "exit status 64" || string(dead[0].Event) != `{"n": 1, "t":"<&>"}` {
		t.Errorf("list: %s; %s; %v", ids(live), ids(dead), err)
	}
	// While somebody has the spool, requests are left for him.
	must(t, Ask(dir, Request{ID: "job1"}))
	must(t, Ask(dir, Request{ID: "job2", Drop: true}))
	if err := Ask(dir, Request{ID: "job9"}); err == nil {
		t.Error("a request for a job that is not there was taken")
	}
	asked, err := s.Requests()
	if err != nil || !reflect.DeepEqual(asked, []Request{{true, "job2"}, {false, "job1"}}) {
		t.Errorf("requests %v, %v", asked, err)
	}
	for _, r := range asked {
		if _, err := s.Carry(r); err != nil {
			t.Error(err)
		}
	}
	must(t, s.Flush())
	if got, want := ids(s.Jobs()), "job3#0 job1#0"; got != want {
		t.Errorf("jobs %s, want %s", got, want)
	}
	s.Close()
	// Otherwise they are carried out at once.
	must(t, Ask(dir, Request{ID: "job3", Drop: true}))
	live, dead, err = List(dir)
	if err != nil || ids(live) != "job1#0" || len(dead) != 0 {
		t.Errorf("list: %s; %s; %v", ids(live), ids(dead), err)
	}
}

// FuzzReplay: any bytes behind the header are read without harm, and what is
// read was committed.
func FuzzReplay(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, kindDone, []byte("x")), kindCommit, make([]byte, 12)))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 'A'})
	f.Fuzz(func(t *testing.T, text []byte) {
		s := &Spool{jobs: map[string]*Job{}}
		h := &heard{}
		if err := s.replay(append([]byte(header), text...), h); err != nil {
			return
		}
		if s.size < int64(len(header)) || s.size > int64(len(header)+len(text)) {
			t.Errorf("size %d of %d", s.size, len(text))
		}
		if s.size == int64(len(header)) && len(h.said) > 0 {
			t.Errorf("%q came from nothing committed", h.said)
		}
	})
}

// BenchmarkCommit is the cost of accepting results, 64 at a time.
func BenchmarkCommit(b *testing.B) {
	s, _ := open(b, b.TempDir())
	line := bytes.Repeat([]byte("x"), 600)
	b.ReportAllocs()
	for b.Loop() {
		for range 64 {
			s.Result(line, at, at)
		}
		must(b, s.Commit(line))
		if s.Full() {
			must(b, s.Rotate(nil))
		}
	}
	b.ReportMetric(64*float64(b.N)/b.Elapsed().Seconds(), "results/s")
}

// BenchmarkRecovery is the time to read a journal of 256 MiB.
func BenchmarkRecovery(b *testing.B) {
	dir := b.TempDir()
	s, _ := open(b, dir)
	line := bytes.Repeat([]byte("x"), 600)
	for s.size < 256<<20 {
		for range 1000 {
			s.Result(line, at, at)
		}
		must(b, s.Commit(line))
	}
	s.Close()
	for b.Loop() {
		s, err := Open(dir, nobody{})
		must(b, err)
		s.Close()
	}
	b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "MiB/s")
}

// TestGoldenFormat: spools of every release are read for ever. A new format
// gets a folder of its own here; the old ones stay.
func TestGoldenFormat(t *testing.T) {
	golden, err := os.ReadFile("testdata/1/journal-0000000000000001")
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "journal-0000000000000001"), golden, 0o600))
	s, h := open(t, dir)
	defer s.Close()
	want := `result {"n": 1, "t":"<&>"} 1s,note a h down,result {"n": 2, "t":"<&>"} 2s,note a h down,result {"n": 3, "t":"<&>"} 3s,note a h down`
	if got := strings.Join(h.said, ","); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := ids(s.Jobs()), "job1#0 job3#4"; got != want {
		t.Errorf("jobs %s, want %s", got, want)
	}
	if j := s.jobs["job3"]; string(j.Event) != `{"n": 3, "t":"<&>"}` || j.Reason != "exit status 75" || !j.After.Equal(at) || j.Hook != "h" || j.Key != "a" {
		t.Errorf("job %+v", j)
	}
	if n, crc := s.Input(); n != 20 || crc != 0xc9e90ce3 {
		t.Errorf("input %d %x", n, crc)
	}
}

func TestKeepsValues(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	must(t, s.Keep("a\x00\n", []byte("1")))
	must(t, s.Keep("b", []byte(`{"n":"<&>\n"}`)))
	must(t, s.Keep("gone", []byte("x")))
	must(t, s.Keep("gone", nil))
	must(t, s.Keep("a\x00\n", []byte("2")))
	must(t, s.Write())
	must(t, s.Keep("never", []byte("written")))
	s.Close()

	s, h := open(t, dir)
	want := []string{`kept "a\x00\n" "1"`, `kept "b" "{\"n\":\"<&>\\n\"}"`, `kept "gone" "x"`, `kept "gone" ""`, `kept "a\x00\n" "2"`}
	if !reflect.DeepEqual(h.said, want) {
		t.Errorf("got %q\nwant %q", h.said, want)
	}
	must(t, s.Rotate(nil))
	s.Close()
	s, h = open(t, dir)
	defer s.Close()
	if want := []string{want[4], want[1]}; !reflect.DeepEqual(h.said, want) {
		t.Errorf("after a new journal got %q\nwant %q", h.said, want)
	}
}

func TestEventOfAJobIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fill(t, s, 1, 3)
	j := s.jobs["job1"]
	j.Event = []byte(`{"n": 1, "found":"<&>"}`)
	must(t, s.Event(j))
	must(t, s.Event(&Job{ID: "none", Event: []byte("{}")}))
	must(t, s.Write())
	s.Close()
	for _, what := range []string{"journal", "snapshot"} {
		s, _ = open(t, dir)
		jobs := s.Jobs()
		if got, want := ids(jobs), "job1#0 job2#0 job3#0"; got != want {
			t.Fatalf("%s: got %s want %s", what, got, want)
		}
		if got := string(jobs[0].Event) + string(jobs[1].Event); got != string(j.Event)+`{"n": 2, "t":"<&>"}` {
			t.Errorf("%s: got %s", what, got)
		}
		must(t, s.Rotate(nil))
		s.Close()
	}
}
