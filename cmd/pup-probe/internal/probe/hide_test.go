package probe

import (
	"encoding/json"
	"strings"
	"testing"

	"pup/cmd/internal/ndjson"
)

// FuzzHidden: whatever the secret, a value stays valid JSON with the same
// numbers, and no string in it holds the secret any more.
func FuzzHidden(f *testing.F) {
	f.Add("hunter2", "the password is hunter2\n")
	f.Add("123", "123 and \"quotes\"")
	f.Add("true", "x")
	f.Add("\"}", "a\"}b")
	f.Fuzz(func(t *testing.T, secret, text string) {
		if len(secret) < 3 || strings.Contains("***", secret) {
			return
		}
		s := &secrets{given: []string{secret}}
		v := ndjson.AppendString([]byte(`{"n":[1234567.5,true,null],"s":`), text)
		out := s.hidden(append(v, '}'))
		var got struct {
			N []any
			S string
		}
		if err := json.Unmarshal(out, &got); err != nil || ndjson.Valid(out) != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if len(got.N) != 3 || got.N[0] != 1234567.5 {
			t.Errorf("the numbers have changed: %s", out)
		}
		valid := strings.ToValidUTF8(text, "\ufffd")
		if want := s.hide(valid); got.S != want && valid == text {
			t.Errorf("got %q, want %q", got.S, want)
		}
	})
}
