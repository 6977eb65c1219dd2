package checks

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	if err := os.WriteFile(name, []byte("hello"), 0o640); err != nil {
		t.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	os.Chtimes(name, hourAgo, hourAgo)
	backups := filepath.Join(dir, "backups")
	os.Mkdir(backups, 0o755)
	for i, n := range []string{"old", "new", "older"} {
		os.WriteFile(filepath.Join(backups, n), make([]byte, 10), 0o600)
		age := time.Now().Add(-[]time.Duration{2 * time.Hour, time.Hour, 3 * time.Hour}[i])
		os.Chtimes(filepath.Join(backups, n), age, age)
	}
	os.Mkdir(filepath.Join(backups, "sub"), 0o755)
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, target, want string
		facts                    []string
	}{
		{"exists", name, "", "up", []string{"file.exists", "file.kind == 'file'", "file.size_bytes == 5", "file.mode == '0640'", "file.age_ms > 3599000 and file.age_ms < 3700000"}},
		{"missing", dir + "/b", "", "down mismatch verify", []string{"not file.exists"}},
		{"missing below a file", name + "/b", "", "down mismatch verify", []string{"not file.exists"}},
		{"must not be there", dir + "/b", `"expect":["not file.exists"]`, "up", nil},
		{"must not be there but is", name, `"expect":["not file.exists"]`, "down mismatch verify", nil},
		{"too old", name, `"expect":["file.age_ms < 60000"]`, "down mismatch verify", nil},
		{"text", name, `"expect":["file.text contains 'ell'"]`, "up", nil},
		{"another text", name, `"expect":["file.text == 'x'"]`, "down mismatch verify", nil},
		{"sum", name, `"expect":["file.sha256 == '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'"]`, "up", nil},
		{"too large to read", name, `"file":{"max_bytes":4},"expect":["file.text contains 'ell'"]`, "down too-large request", nil},
		{"large but not read", name, `"file":{"max_bytes":4}`, "up", nil},
		{"directory", backups, "", "up", []string{"file.kind == 'directory'", "file.entries == 4", "file.newest == 'new'", "file.newest_age_ms < 3700000", "file.size_bytes == 30"}},
		{"pipe", pipe, `"expect":["file.exists","file.sha256 == ''"]`, "down mismatch verify", []string{"file.kind == 'pipe'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := checkContext(t, t.Context(), allowing(), "file://"+tt.path, tt.target)
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, `"text":`) {
				t.Errorf("the content is in the line: %s", res.line)
			}
		})
	}
	check(t, "file://"+name, "").want(t, "unknown options prepare", "error contains '--allow-files'")
}

// fileContract: the file is missing, can't be read, hangs, is too large, or
// full of garbage.
func fileContract(t *testing.T, s subject) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	os.Symlink("loop", at("loop"))
	os.WriteFile(at("huge"), nil, 0o600)
	os.Truncate(at("huge"), 1<<40)
	os.WriteFile(at("garbage"), []byte("\x1b[31m\xff\x00\u009b\u202e\r\n"), 0o600)
	os.Mkdir(at("names"), 0o700)
	os.WriteFile(at("names/\x1b[31m\xff\n"), nil, 0o600)
	text := `"expect":["file.text == 'x'"]`
	for _, tt := range []struct{ path, target, want string }{
		{at("missing"), "", "down mismatch verify"},
		{at("loop"), "", "unknown local request"},
		{"/proc/self/mem", text, "unknown local request"}, // regular, and there is nothing at its beginning
		{at("huge"), text, "down too-large request"},
		{at("huge"), "", "up"},
		{at("garbage"), text, "down mismatch verify"},
		{at("names"), "", "up"},
	} {
		s.run(t, "file://"+tt.path, tt.target).beginsWith(t, tt.path+" "+tt.target, tt.want)
	}

	stuck := &fileLook{fileQuestion: fileQuestion{path: at("garbage"), max: 16 << 20}, done: make(chan struct{})}
	fileLooks.Lock()
	fileLooks.underWay = map[fileQuestion]*fileLook{stuck.fileQuestion: stuck}
	fileLooks.Unlock()
	leavesNothing(t, func() {
		s.run(t, "file://"+stuck.path, `"timeout":"20ms"`).want(t, "down timeout request")
	})
	now := make(chan struct{})
	close(now)
	s.canceled(t, now, "file://"+stuck.path, "")
	if l, begun := fileAsk(stuck.fileQuestion); l != stuck || begun {
		t.Errorf("a second look has begun beside one that is stuck")
	}
	done := make(chan result)
	go func() { done <- s.run(t, "file://"+stuck.path, "") }()
	stuck.end(nil)
	(<-done).want(t, "up", "file.exists") // which the stuck look did not see

	leavesNothing(t, func() { s.run(t, "file://"+at("garbage"), text) })
}
