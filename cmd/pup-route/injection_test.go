//go:build faults

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/realserver"
)

// injections are texts of strangers that want to be more than text: commands
// that make the file FILE, options, headers, mark-up, terminal control.
var injections = []string{
	"$(touch FILE)", "`touch FILE`", "; touch FILE", "| touch FILE", "& touch FILE", "&& touch FILE", "|| touch FILE", "a\ntouch FILE\n",
	"a\r\ntouch FILE\r\n", "'; touch FILE; '", "\"; touch FILE; \"", "'$(touch FILE)'", "\"$(touch FILE)\"", "\\$(touch FILE)", "\\`touch FILE\\`",
	"$(($(touch FILE)))", "${x:-$(touch FILE)}", "x[$(touch FILE)]", "<(touch FILE)", ">FILE", ">>FILE", "x;touch${IFS}FILE", "{touch,FILE}",
	"() { :;}; touch FILE", "%0atouch FILE", "\x00touch FILE", "!touch FILE", "\nEOF\ntouch FILE\n", "CONFIG\ntouch FILE", "\noutput = \"FILE\"\n",
	"-f/etc/passwd", "--output=FILE", "-oFILE", "@/etc/passwd", "file:///etc/passwd", "../../../etc/passwd", "~root", "*", "?", "[a-z]*", "$HOME", "$0",
	"\") | input_filename | (\"", "\\(env)", "\\(input)", "{{env}}", "{{.Secret}}", "${jndi:ldap://127.0.0.1/}", "#{7*7}", "%s%n%x%p", "%00",
	"x\r\nBcc: evil@example.org", "x\n\nevil body", "\r\n.\r\nQUIT", "=?UTF-8?B?QmNjOg==?=", "<script>alert(1)</script>", "<!channel>", "<!here|x>", "[x](javascript:1)",
	"&lt;", "]]>", "' OR 1=1 --", "=cmd|' /C calc'!A0", "LD_PRELOAD=/tmp/x.so", "PUP_NAME=evil", "\"}\n{\"type\":\"result\",\"name\":\"evil\",\"status\":\"down\"}\n{\"x\":\"",
	"\x1b[31mred", "\x1b]0;title\x07", "\x1b]52;c;ZXZpbA==\x07", "\x1bP$q\x1b\\", "\u009b31m", "\u009dx\u009c", "\x07", "\x08\x08\x08", "\x7f", "\r", "\n", "\t", "\v", "\f",
	"\u202edcba", "\u2066x\u2069", "\u200bx", "\u200ex", "\u2028", "\u2029", "\ufeffx", "\u00adx", "\U000e0041", "\ufffd", "é🐕",
	"\"", "\\", "'", "\\u0000", "null", "{}", strings.Repeat("A", 5000), strings.Repeat("$(touch FILE)", 4000),
}

// injectionFields make a result of a text, in every field that comes from the
// network or a target line.
var injectionFields = []string{
	`{"name":%s,"status":"down"}`,
	`{"name":"n%d","status":"down","url":%s,"check":%s,"phase":%s,"reason":%s,"error":%s,"time":%s,"address":%s,"failed":[{"expect":%s}],` +
		`"labels":{"team":%s,%s:"x"},"tls":{"issuer":%s,"names":[%s]},"http":{"body":%s},"run":%s,%s:1}`,
	`{"name":"n%d","status":"down","error":%s}`,
	`{"name":"n%d","status":"down","vantage":%s}`,
	`{"name":"n%d","status":%s}`,
	`{"name":"n%d","status":"down","type":%s}`,
}

// control finds what may not stand raw in any output.
func control(text []byte) string {
	for _, r := range string(text) {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
			return fmt.Sprintf("%U", r)
		}
	}
	return ""
}

// TestFaultInjection gives the texts to hooks in each field, and in each way.
func TestFaultInjection(t *testing.T) {
	r := newRig(t, 0)
	canary := r.dir + "/canary"
	hooks := ""
	if os.Getuid() == 0 {
		hooks = "user = \"root\"\n"
	}
	text := ""
	for _, h := range []struct{ name, on, more, script string }{
		{"stdin", "always", `sandbox.level = "off"`, "cat > stdin/$PUP_JOB"},
		{"file", "always", `input = "file"`, "cat $PUP_FILE > file/$PUP_JOB; head -c 300 $PUP_FILE >&2; env >> env"},
		{"stream", "always", `input = "stream"`, "cat > stream/all"},
		{"says", "degraded", "", "$PUP_NAME -c 3000 raw >&2"},
	} {
		text += fmt.Sprintf("[[hook]]\nname = %q\non = [%q]\n%s\ncommand = [\"sh\", \"-c\", %q]\n%s", h.name, h.on, h.more, "cd "+r.dir+" && "+h.script, hooks)
		if err := os.Mkdir(filepath.Join(r.dir, h.name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"hooks.toml": text, "raw": strings.Join(injections[:len(injections)-2], "\n")} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := bytes.NewBufferString(`{"name":"head","status":"degraded"}` + "\n" + `{"name":"tail","status":"degraded"}` + "\n")
	var lines []string
	for i, text := range injections {
		if testing.Short() && i%5 > 0 && i < len(injections)-1 {
			continue
		}
		text = strings.ReplaceAll(text, "FILE", canary)
		for _, form := range injectionFields {
			value := string(ndjson.AppendString(nil, text))
			line := strings.ReplaceAll(strings.Replace(form, "%d", fmt.Sprint(i), 1), "%s", value)
			fmt.Fprintln(in, line)
			own := strings.Contains(form, `"status":"down"`) && !strings.Contains(form, `"type"`)
			vantage := strings.Contains(form, "vantage")
			refused := len(line) >= ndjson.MaxLine || len(text) > 1024 && (vantage || strings.HasPrefix(form, `{"name":%s`)) || vantage && strings.Contains(text, "\x00")
			if own && !refused {
				lines = append(lines, line)
			}
		}
		fmt.Fprintln(in, strings.ReplaceAll(text, "\n", "\x0b")) // no JSON at all
	}
	cmd := r.command(nil)
	cmd.Stdin = in
	cmd.Env = append(cmd.Env, "PUP_SECRET="+secret)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 65 {
		t.Errorf("exit code %d, %v: some lines can't be read", code, err)
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("a text was executed: the canary is there")
	}
	for name, text := range map[string][]byte{"stdout": out.Bytes(), "stderr": errs.Bytes()} {
		if c := control(text); c != "" {
			t.Errorf("a raw control character on %s: %s", name, c)
		}
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the secret is on %s", name)
		}
	}
	for _, input := range []string{"stdin", "file", "stream"} {
		files, err := filepath.Glob(filepath.Join(r.dir, input, "*"))
		if err != nil {
			t.Error(err)
		}
		var got []byte
		for _, path := range files {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			got = append(got, b...)
		}
		var missing []string
		for _, line := range lines {
			if !bytes.Contains(got, []byte(`"result":`+line+"}\n")) {
				missing = append(missing, line)
			}
		}
		if len(missing) > 0 {
			t.Errorf("%d of %d lines are not in what hooks got by %s, byte for byte: %.80q", len(missing), len(lines), input, missing)
		}
	}
	env, err := os.ReadFile(r.dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	safe := regexp.MustCompile(`^[A-Z_]+=[A-Za-z0-9._:@/-]*$`)
	for line := range strings.Lines(string(env)) {
		if line = strings.TrimSuffix(line, "\n"); !safe.MatchString(line) || strings.Contains(line, secret) {
			t.Fatalf("the environment of a hook has %.80q", line)
		}
	}
}

// TestFaultInjectionScripts gives the texts to the hooks that come with pup.
func TestFaultInjectionScripts(t *testing.T) {
	realserver.Need(t, "jq", "curl")
	dir := t.TempDir()
	sendmail := filepath.Join(dir, "sendmail")
	if err := os.WriteFile(sendmail, []byte("#!/bin/sh\ncat >"+dir+"/mail\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"slack", "teams", "webhook", "mail", "log"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, 200)
			url := file(t, f.URL+"/"+secret)
			canary, log := dir+"/canary", filepath.Join(dir, "log")
			for _, text := range injections {
				if len(text) > 100_000 {
					continue // what a line holds is bounded
				}
				v := string(ndjson.AppendString(nil, strings.ReplaceAll(text, "FILE", canary)))
				event := `{"v":1,"type":"event","name":` + v + `,"event":"down","status":"down","previous":"up","time":"2026-11-22T06:00:10.000Z","since":"2026-11-22T06:00:00.000Z",` +
					`"for_ms":1000,"incident":"b1d1","vantage":` + v + `,"job":"50e1","hook":"x","result":{"url":` + v + `,"error":` + v + `,"phase":` + v + `,"reason":` + v + `,` + v + `:1}}`
				if code := scriptWith(t, name, event, strings.ToUpper(name)+"_FILE="+url, "LOG_FILE="+log, "SENDMAIL="+sendmail, "MAIL_TO=ops@example.org", "MAIL_FROM=pup@example.org"); code != 0 {
					t.Errorf("%q: exit status %d", text, code)
				}
				if _, err := os.Stat(canary); err == nil {
					t.Fatalf("%q was executed", text)
				}
				if name == "webhook" && f.body != event+"\n" {
					t.Errorf("%q: got %q", text, f.body)
				}
				said := []byte(f.body)
				switch name {
				case "slack", "teams":
					if !json.Valid(said) {
						t.Errorf("%q: %q is no JSON", text, said)
					}
				case "mail":
					b, err := os.ReadFile(dir + "/mail")
					if err != nil {
						t.Fatal(err)
					}
					m, err := mail.ReadMessage(bytes.NewReader(b))
					if err != nil || len(m.Header) != 9 || m.Header.Get("Bcc") != "" {
						t.Errorf("%q: header %v, %v", text, m.Header, err)
					}
					said = b
				case "log":
					b, err := os.ReadFile(log)
					if err != nil || bytes.Count(b, []byte("\n")) != 1 {
						t.Errorf("%q: logged %q, %v", text, b, err)
					}
					said = b
					os.Remove(log) //nolint:errcheck // the next reading tells
				}
				if c := control(said); c != "" {
					t.Errorf("%q: raw %s in what it says", text, c)
				}
			}
		})
	}
}
