package ndjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"testing"
	"unicode/utf8"
)

func members(text string) (string, error) {
	var got []string
	err := Members([]byte(text), func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	})
	return strings.Join(got, " "), err
}

func TestMembers(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{}`, ""},
		{` { "a" : 1 , "b":[1, {"c":null}], "d":"\u0041\"x" } `, `a=1 b=[1, {"c":null}] d="\u0041\"x"`},
		{`{"\u0061":true}`, `a=true`},
		{`{"n":12345678901234567890,"x":-1.5e+10}`, `n=12345678901234567890 x=-1.5e+10`},
	} {
		if got, err := members(tt.in); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{``, "ends too early"},
		{`[]`, "not a JSON object"},
		{`3`, "not a JSON object"},
		{`{"a":1`, "ends too early"},
		{`{"a":1}x`, "unexpected 'x' at byte 7"},
		{`{"a":1,}`, "unexpected '}'"},
		{`{"a" 1}`, "unexpected '1'"},
		{`{a:1}`, "unexpected 'a'"},
		{`{"a":01}`, "unexpected '1'"},
		{`{"a":+1}`, "unexpected '+'"},
		{`{"a":1.}`, "unexpected '}'"},
		{`{"a":NaN}`, "unexpected 'N'"},
		{`{"a":truE}`, "unexpected 'E'"},
		{"{\"a\":\"\x01\"}", "raw control character"},
		{`{"a":"\x"}`, "bad escape"},
		{`{"a":"\u12g4"}`, "bad escape"},
		{"{\"a\":\"\xff\"}", "not valid UTF-8"},
		{"{\"a\":\"\xed\xa0\x80\"}", "not valid UTF-8"},
		{`{"a":1,"a":2}`, `key "a" comes twice`},
		{`{"a":1,"\u0061":2}`, `key "a" comes twice`},
		{`{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, "nested deeper than 64"},
		{strings.Repeat("[", 1<<20), "nested deeper than 64"},
	} {
		if _, err := members(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40s: got %v, want %q", tt.in, err, tt.want)
		}
	}
}

func TestMembersManyKeys(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	if _, err := members("{" + b.String()[1:] + "}"); err != nil {
		t.Error(err)
	}
	if _, err := members("{" + b.String()[1:] + `,"k99":0}`); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v, want a key that comes twice", err)
	}
}

func TestMembersStop(t *testing.T) {
	stop := errors.New("stop")
	if err := Members([]byte(`{"a":1,"b":2}`), func(k, v []byte) error { return stop }); err != stop {
		t.Errorf("got %v, want the error of f", err)
	}
}

// FuzzValid compares with encoding/json, which knows neither our bound on
// nesting nor that strings must be UTF-8.
func FuzzValid(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,true,null,"x\u00e9"]}`, `[[[`, `"\ud800"`, `-0.0`, "{\"\xff\":1}", ` {} `, "\u2028"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Valid(b)
		if errors.Is(err, errDepth) {
			return
		}
		want := json.Valid(b) && utf8.Valid(b)
		if (err == nil) != want {
			t.Errorf("%q: got %v, encoding/json says %v", b, err, want)
		}
	})
}

// FuzzMembers compares what is seen with what encoding/json decodes.
func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":[]},"\u0041":"\n"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[string]json.RawMessage{}
		if Members(b, func(k, v []byte) error { got[string(k)] = bytes.Clone(v); return nil }) != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("%q: accepted, but %v", b, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%q: got %d members, want %d", b, len(got), len(want))
		}
		for k, v := range want {
			if !bytes.Equal(bytes.TrimSpace(got[k]), bytes.TrimSpace(v)) {
				t.Errorf("%q: %q is %q, want %q", b, k, got[k], v)
			}
		}
	})
}

func TestSplice(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{}`, `{"k":[1]}`},
		{`{ }`, `{"k":[1]}`},
		{`{"a":12345678901234567890 , "b":"}"}`, `{"a":12345678901234567890 , "b":"}","k":[1]}`},
		{`{"a":1} `, `{"a":1,"k":[1]} `},
	} {
		got := string(Splice(nil, []byte(tt.in), "k", []byte("[1]")))
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
		if err := Valid([]byte(got)); err != nil {
			t.Errorf("%s: %s: %v", tt.in, got, err)
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain & <b>", `"plain & <b>"`},
		{"\x1b[31m\a\x7f", `"\u001b[31m\u0007\u007f"`},
		{"a\"b\\c\n\r\t", `"a\"b\\c\n\r\t"`},
		{"\u009b\u202e\u200b\ufeff\u2028", `"\u009b\u202e\u200b\ufeff\u2028"`},
		{"\U000e0041é世", `"\udb40\udc41é世"`},
		{"\xff\xfeok", `"��ok"`},
	} {
		if got := string(AppendString(nil, tt.in)); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// FuzzAppendString: what is written is valid, harmless, and means the same.
func FuzzAppendString(f *testing.F) {
	f.Add("a\x1b\u202e\xff\U000e0041")
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || Valid(b) != nil {
			t.Fatalf("%q: %s: %v, %v", s, b, err, Valid(b))
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && back != want {
			t.Errorf("%q came back as %q", s, back)
		}
		for _, r := range string(b) {
			if r < 0x20 || r == 0x7f || unsafeRune(r) {
				t.Errorf("%q: %s holds %U", s, b, r)
			}
		}
		if string(AppendString(nil, []byte(s))) != string(b) {
			t.Errorf("%q: bytes and string differ", s)
		}
	})
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s    string
		n    int
		want string
	}{{"short", 10, "short"}, {"0123456789", 8, "01234…"}, {"ééééé", 8, "éé…"}, {"abc", 1, "…"}} {
		if got := Cut(tt.s, tt.n); got != tt.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", tt.s, tt.n, got, tt.want)
		}
	}
}

func TestAppendError(t *testing.T) {
	b := AppendError(nil, "pup-x", &LineError{7, bytes.Repeat([]byte("\x1b"), 2000), io.ErrUnexpectedEOF})
	if err := Valid(b); err != nil || len(b) > 2048 {
		t.Errorf("%d bytes, %v: %s", len(b), err, b)
	}
}

func BenchmarkMembers(b *testing.B) {
	line := []byte(`{"v":1,"type":"result","name":"web-home","check":"http","url":"https://www.example.org/","status":"up","time":"2026-11-22T06:00:00.012Z","ms":{"resolve":3.102,"connect":9.87,"tls":21.44,"request":0.051,"wait":44.9,"transfer":3.851,"total":83.214},"address":"203.0.113.10:443","attempts":1,"labels":{"env":"prod","team":"web"},"due":"2026-11-22T06:00:00.000Z","lag_ms":12.1,"run":"web-home@1795327200","seq":381,"vantage":"mon1","http":{"status":200,"version":"2","body_bytes":5120,"redirects":0,"content_type":"text/html; charset=utf-8"},"tls":{"version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","days_left":36.7}}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Members(line, func(k, v []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMembersReference(b *testing.B) {
	line := []byte(`{"v":1,"type":"result","name":"web-home","status":"up","ms":{"resolve":3.102,"connect":9.87,"total":83.214},"labels":{"env":"prod","team":"web"}}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		var r struct{ Name, Status string }
		if err := json.Unmarshal(line, &r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSpecial tries every byte at every place of a word.
func TestSpecial(t *testing.T) {
	for c := range 256 {
		want := c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf
		for at := range 8 {
			w := []byte("abc !#[]")
			w[at] = byte(c)
			m := special(binary.LittleEndian.Uint64(w))
			if got := m != 0; got != want {
				t.Errorf("byte %#x: got %v, want %v", c, got, want)
			}
			if want && bits.TrailingZeros64(m)>>3 != at {
				t.Errorf("byte %#x at %d: the mark is at %d", c, at, bits.TrailingZeros64(m)>>3)
			}
		}
	}
}
