package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// secret is a part of every URL and token: no process list may show it.
const secret = "c4n4ry"

// hostile is an event whose texts try to be commands, headers, markup and
// terminal control.
const hostile = `{"v":1,"type":"event","name":"web\r\nBcc: evil@example.org","event":"down","status":"down","previous":"up",` +
	`"time":"2026-11-22T06:00:10.000Z","since":"2026-11-22T06:00:00.000Z","for_ms":3723000,"count":1,"incident":"b1d1670ed9597479",` +
	`"job":"50e13143c19a5a8360d032d9106a7f7e","hook":"x","result":{"name":"a","status":"down","url":"https://a/?x=1&y='2'",` +
	`"error":"$(touch evil) ` + "`touch evil`" + ` ; touch evil\n| touch evil \" ' \\ \u001b[31m \u009b <!here> *x* é","phase":"connect","reason":"refused"}}`

// script runs a script of scripts/hooks with the hostile event and returns
// its exit status.
func script(t *testing.T, name string, env ...string) int {
	t.Helper()
	return scriptWith(t, name, hostile, env...)
}

func scriptWith(t *testing.T, name, event string, env ...string) int {
	t.Helper()
	path, err := filepath.Abs("../../scripts/hooks/" + name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Dir = t.TempDir()
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "LANG=C.UTF-8", "PUP_JOB=50e13143c19a5a8360d032d9106a7f7e")
	cmd.Stdin = strings.NewReader(event + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), secret) {
		t.Errorf("%s shows the secret: %s", name, out)
	}
	if cmd.ProcessState.ExitCode() == 0 && len(out) > 0 {
		t.Errorf("%s is not silent: %s", name, out)
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "evil")); err == nil {
		t.Errorf("%s ran a command out of the event", name)
	}
	return cmd.ProcessState.ExitCode()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fake is a web server that answers with status and keeps the last request.
type fake struct {
	*httptest.Server
	header http.Header
	body   string
	shown  string // the command line that showed the secret
}

func newFake(t *testing.T, status int) *fake {
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/"+secret {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		f.header, f.body = r.Header, string(b)
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Error(err)
		}
		for _, path := range lines {
			if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), secret) {
				f.shown = string(line)
			}
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "answer")
	}))
	t.Cleanup(f.Close)
	return f
}

func TestHookWebhook(t *testing.T) {
	f := newFake(t, 202)
	if code := script(t, "webhook", "WEBHOOK_FILE="+file(t, f.URL+"/"+secret), "TOKEN_FILE="+file(t, secret)); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	if f.body != hostile+"\n" {
		t.Errorf("got %q, want the event as it was", f.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Idempotency-Key": "50e13143c19a5a8360d032d9106a7f7e", "Authorization": "Bearer " + secret,
	} {
		if got := f.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if f.shown != "" {
		t.Errorf("a command line shows the secret: %q", f.shown)
	}
}

func TestHookWebhookFailures(t *testing.T) {
	for status, want := range map[int]int{200: 0, 404: 65, 429: 75, 503: 75} {
		f := newFake(t, status)
		if code := script(t, "webhook", "WEBHOOK_FILE="+file(t, f.URL+"/"+secret)); code != want {
			t.Errorf("answer %d: exit status %d, want %d", status, code, want)
		}
	}
	closed := newFake(t, 200)
	closed.Close()
	for text, want := range map[string]int{
		closed.URL + "/" + secret:           75,
		"file:///etc/passwd":                78,
		"http://x/\"\noutput = \"evil":      78,
		"http://x/" + secret + `" -o "evil`: 78,
		"":                                  78,
	} {
		if code := script(t, "webhook", "WEBHOOK_FILE="+file(t, text)); code != want {
			t.Errorf("%q: exit status %d, want %d", text, code, want)
		}
	}
}

func TestHookSlack(t *testing.T) {
	f := newFake(t, 200)
	if code := script(t, "slack", "SLACK_FILE="+file(t, f.URL+"/"+secret)); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	var m struct {
		Text        string
		Attachments []struct{ Color, Text string }
	}
	if err := json.Unmarshal([]byte(f.body), &m); err != nil || len(m.Attachments) != 1 {
		t.Fatalf("%q: %v", f.body, err)
	}
	if want := "web  Bcc: evil@example.org: down"; m.Text != want {
		t.Errorf("text %q, want %q", m.Text, want)
	}
	a := m.Attachments[0]
	if a.Color != "#e01e5a" || !strings.Contains(a.Text, "&lt;!here&gt;") || !strings.Contains(a.Text, "x=1&amp;y=") || !strings.Contains(a.Text, "connect/refused") {
		t.Errorf("attachment %+v: the mark-up of Slack must be escaped", a)
	}
	if strings.ContainsAny(f.body, "\x1b\u009b") || f.shown != "" {
		t.Errorf("control characters or the secret got out: %q %q", f.body, f.shown)
	}
}

func TestHookTeams(t *testing.T) {
	f := newFake(t, 202)
	if code := script(t, "teams", "TEAMS_FILE="+file(t, f.URL+"/"+secret)); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	var m struct {
		Type        string
		Attachments []struct {
			ContentType string
			Content     struct {
				Type string
				Body []struct {
					Text, Color string
					Facts       []struct{ Title, Value string }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(f.body), &m); err != nil || len(m.Attachments) != 1 || len(m.Attachments[0].Content.Body) != 2 {
		t.Fatalf("%q: %v", f.body, err)
	}
	card := m.Attachments[0].Content
	if m.Type != "message" || card.Type != "AdaptiveCard" || card.Body[0].Text != "web  Bcc: evil@example.org: down" || card.Body[0].Color != "attention" {
		t.Errorf("card %+v", card)
	}
	facts := fmt.Sprint(card.Body[1].Facts)
	if !strings.Contains(facts, "{for 1 h 2 min}") || strings.ContainsAny(facts, "*<`") {
		t.Errorf("facts %s: strangers' Markdown must not act", facts)
	}
}

func TestHookMail(t *testing.T) {
	dir := t.TempDir()
	sendmail := filepath.Join(dir, "sendmail")
	if err := os.WriteFile(sendmail, []byte("#!/bin/sh\necho \"$@\" >"+dir+"/args; cat >"+dir+"/mail\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if code := script(t, "mail", "SENDMAIL="+sendmail, "MAIL_TO=ops@example.org", "MAIL_FROM=Pup <pup@example.org>"); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	text, err := os.ReadFile(dir + "/mail")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mail.ReadMessage(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "[pup] web  Bcc: evil@example.org down" {
		t.Errorf("subject %q: %v", subject, err)
	}
	for name, want := range map[string]string{"To": "ops@example.org", "Bcc": "", "References": "<incident-b1d1670ed9597479@example.org>",
		"Message-Id": "<50e13143c19a5a8360d032d9106a7f7e@example.org>"} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	body, err := io.ReadAll(m.Body)
	if err != nil || !strings.Contains(string(body), "where: connect/refused\n") || strings.ContainsAny(string(body), "\x1b\u009b") {
		t.Errorf("body %q: %v", body, err)
	}
	args, err := os.ReadFile(dir + "/args")
	if err != nil || string(args) != "-oi -t\n" {
		t.Errorf("sendmail got the arguments %q: %v", args, err)
	}
}

func TestHookLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		if code := script(t, "log", "LOG_FILE="+path); code != 0 {
			t.Fatalf("exit status %d", code)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(string(text), "\n")
	if rest != line+"\n" || !strings.HasPrefix(line, "2026-11-22T06:00:10.000Z web  Bcc: evil@example.org down down connect/refused $(touch evil)") || strings.ContainsAny(line, "\x1b\u009b\r") {
		t.Errorf("log holds %q", text)
	}
}
