package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	gotoml "github.com/pelletier/go-toml/v2"
)

// plain gives a value as Go types.
func (v *value) plain() any {
	switch v.kind {
	case tableKind:
		m := map[string]any{}
		for i := range v.table.members {
			m[v.table.members[i].key] = v.table.members[i].value.plain()
		}
		return m
	case arrayKind:
		a := []any{}
		for i := range v.items {
			a = append(a, v.items[i].plain())
		}
		return a
	case intKind:
		n, err := parseInt(v.text)
		if err != nil {
			return err
		}
		return n
	case floatKind:
		f, _ := strconv.ParseFloat(strings.NewReplacer("_", "", "-nan", "nan", "+nan", "nan").Replace(v.text), 64)
		return fmt.Sprint(f)
	case boolKind:
		return v.text == "true"
	case timeKind:
		return errors.New("a time, which no key takes")
	}
	return v.text
}

// plainOther does the same for what another parser has read.
func plainOther(v any) any {
	switch x := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k := range x {
			m[k] = plainOther(x[k])
		}
		return m
	case []map[string]any:
		a := []any{}
		for i := range x {
			a = append(a, plainOther(x[i]))
		}
		return a
	case []any:
		a := []any{}
		for i := range x {
			a = append(a, plainOther(x[i]))
		}
		return a
	case float64:
		return fmt.Sprint(x)
	}
	return v
}

// FuzzRead compares the reader of ours with two decoders: what both take it
// takes, with the same values, and what one refuses it refuses. (BurntSushi is
// lax about tables that are defined twice, go-toml lexes with the same code as
// we do.)
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		good, good + good, "a.b.c = 1\na.b.d = '''x\ny'''\n[x.y]\n[x]\n[[x.z]]\n[x.z.q]\n[[x.z]]", "a = [1, [2.5, true], {b = {}, c.d = 1}]",
		"target = []\n[[target]]", "[[target]]\n[target]", "[a]\nb.c = 1\n[a.b]", "[[a]]\n[[a.b]]\n[a.b.c]\n[[a.b]]\n[[a]]", "a = 1979-05-27T07:32:00Z\nb = 07:32:00",
		"a = 0x1f\nb = 0o17\nc = 0b11\nd = 1_000\ne = -1e3\nf = inf\ng = -nan", "[a]\n[b]\n[a.c]", "a = {b = 1}\na.c = 2", "'' = 1\n\"\".x = 2", "a=\"\\u00e4\\n\"\r\n",
		"[a.b]\n[a.b.c.d]\n[a]\nx = 1\n[a.b.c]\n", "x = 99999999999999999999", "[[a.b]]\n[a.b]", "[a]\n[[a]]", "[x]\n[a]\n[x.y]\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want map[string]any
		_, wantErr := toml.Decode(text, &want)
		if wantErr == nil {
			var other map[string]any
			wantErr = gotoml.Unmarshal([]byte(text), &other)
		}
		var probs Errors
		arrays := map[string][]any{}
		root := read(&source{name: "x", data: []byte(text)}, &probs, func(string) bool { return true }, func(array string, elem *table) {
			arrays[array] = append(arrays[array], (&value{table: elem}).plain())
		})
		for i := range probs.list {
			_ = probs.list[i].Error()
		}
		for _, p := range probs.list {
			// what we refuse beyond the format
			if strings.Contains(p.Msg, "must stand right below") || strings.Contains(p.Msg, "nest deeper") {
				return
			}
		}
		got := (&value{table: root}).plain().(map[string]any)
		for k, v := range arrays {
			got[k] = v
		}
		if hasError(got) {
			return // reported where it is used
		}
		if (wantErr == nil) != (len(probs.list) == 0) {
			t.Fatalf("our error: %v\nthe other's: %v", probs.err(), wantErr)
		}
		if wantErr == nil && !reflect.DeepEqual(got, plainOther(want)) {
			t.Errorf("got  %#v\nwant %#v", got, plainOther(want))
		}
	})
}

func hasError(v any) bool {
	switch x := v.(type) {
	case error:
		return true
	case map[string]any:
		for _, e := range x {
			if hasError(e) {
				return true
			}
		}
	case []any:
		for _, e := range x {
			if hasError(e) {
				return true
			}
		}
	}
	return false
}
