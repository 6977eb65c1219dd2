package route

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pup/cmd/internal/ndjson"
)

func TestFindingIsKept(t *testing.T) {
	for _, f := range []finding{
		{Name: "trace", Exit: 3, Took: 12 * time.Millisecond, Output: "a\n\u202e<&>", Cut: true, ended: true},
		{Name: "trace", Error: "timeout after 1s", ended: true},
		{Name: "trace", Error: unfinished, ended: true},
	} {
		b, err := json.Marshal(&f)
		if err != nil {
			t.Fatal(err)
		}
		var got finding
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("got %+v, %v, want %+v", got, err, f)
		}
	}
	pending := finding{Name: "a"}
	if got, want := string(pending.append(nil, tooLate)), `{"name":"a","error":"it had not ended yet"}`; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

// FuzzEnd: what is kept of an output fits, is its end, and misses nothing
// that would have fitted whole.
func FuzzEnd(f *testing.F) {
	f.Add("a\nb\nc", 4)
	f.Add(strings.Repeat("\x1b[1m\n", 1000), 512)
	f.Add("ä\xff\u202e€", 10)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 2 + n&0xfff // the quotes
		got, cut := end(s, n)
		if size := len(ndjson.AppendString(nil, got)); size > n {
			t.Errorf("%q takes %d bytes, not %d", got, size, n)
		}
		if !strings.HasSuffix(s, got) || cut != (got != s) {
			t.Errorf("%q of %q, cut %v", got, s, cut)
		}
		if !cut && len(got) != len(s) || cut && len(ndjson.AppendString(nil, s)) <= n {
			t.Errorf("%q was cut to %q", s, got)
		}
	})
}
