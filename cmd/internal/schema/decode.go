package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// An Error is a value that does not fit its field.
type Error struct {
	Path string // such as "redis.password", or "" for the whole
	Err  error
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Err.Error()
	}
	return e.Path + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Check checks the JSON value raw against f: types, names, bounds, words, and
// that credentials are references. It gives all that is wrong, each an *Error
// whose path begins with path.
func (f *Field) Check(path string, raw []byte) []error {
	if err := ndjson.Valid(raw); err != nil {
		return []error{&Error{path, err}}
	}
	return f.check(path, bytes.TrimSpace(raw))
}

func (f *Field) check(path string, raw []byte) []error {
	fail := func(format string, args ...any) []error {
		return []error{&Error{path, fmt.Errorf(format, args...)}}
	}
	got := kind(raw)
	if f.Type == Any {
		return nil
	}
	if want := f.jsonType(); got != want && !(want == "number" && got == "integer") {
		return fail("want %s, not %s", f.wanted(), article(got))
	}
	switch f.Type {
	case Object:
		return f.checkObject(path, raw)
	case Array:
		var errs []error
		i := 0
		_ = ndjson.Elements(raw, func(v []byte) error {
			errs = append(errs, f.Items.check(path+"["+strconv.Itoa(i)+"]", v)...)
			i++
			return nil
		})
		return errs
	case Table:
		var errs []error
		err := ndjson.Members(raw, func(k, v []byte) error {
			errs = append(errs, f.Items.check(path+"."+string(k), v)...)
			return nil
		})
		if err != nil {
			errs = append(errs, &Error{path, err})
		}
		return errs
	case Integer, Number:
		x, err := strconv.ParseFloat(string(raw), 64)
		switch {
		case err != nil || math.IsInf(x, 0):
			return fail("number out of range")
		case f.Min != nil && x < *f.Min:
			return fail("must be at least %v", *f.Min)
		case f.Max != nil && x > *f.Max:
			return fail("must be at most %v", *f.Max)
		}
	case String, Duration, Time:
		s, err := ndjson.Unquote(raw)
		if err == nil {
			err = f.checkText(s)
		}
		if err != nil {
			return fail("%w", err)
		}
	}
	return nil
}

func (f *Field) checkText(s string) error {
	switch {
	case f.Type == Duration:
		d, err := wire.ParseDuration(s)
		if err == nil && d < 0 {
			err = errors.New("must not be negative")
		}
		return err
	case f.Type == Time:
		_, err := time.Parse(time.RFC3339Nano, s)
		return err
	case f.Enum != nil && !slices.Contains(f.Enum, s):
		return fmt.Errorf("%.40q is none of %s%s", s, strings.Join(f.Enum, ", "), DidYouMean(s, f.Enum))
	case f.Secret && s != "" && !IsReference(s):
		return errors.New("a credential must not stand here; put it in a file NAME of the directory given by --secrets and write ${secret:NAME}, or ${env:PUP_NAME} for an environment variable")
	}
	return nil
}

func (f *Field) checkObject(path string, raw []byte) []error {
	var errs []error
	prefix := path
	if prefix != "" {
		prefix += "."
	}
	present := map[string]bool{}
	err := ndjson.Members(raw, func(k, v []byte) error {
		name := string(k)
		present[name] = true
		sub := f.Field(name)
		if sub == nil {
			errs = append(errs, &Error{prefix + ndjson.Cut(name, 80), fmt.Errorf("no such option%s", DidYouMean(name, f.Names()))})
			return nil
		}
		errs = append(errs, sub.check(prefix+name, v)...)
		return nil
	})
	if err != nil {
		errs = append(errs, &Error{path, err})
	}
	for i := range f.Fields {
		if sub := &f.Fields[i]; sub.Required && !present[sub.Name] {
			errs = append(errs, &Error{prefix + sub.Name, errors.New("is required")})
		}
	}
	return errs
}

// Decode checks raw and puts it into the struct that v points to, whose values
// until then are the defaults. Lists and maps are replaced, not merged, and
// never shared with the defaults. An empty raw stands for {}.
func (f *Field) Decode(path string, raw []byte, v any) error {
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	if errs := f.Check(path, raw); errs != nil {
		return errs[0]
	}
	if len(raw) == 2 {
		return nil
	}
	detach(reflect.ValueOf(v).Elem(), raw)
	if err := json.Unmarshal(raw, v); err != nil {
		return &Error{path, err}
	}
	return nil
}

// detach empties the lists, maps and pointers that raw is about to fill:
// json.Unmarshal would write through them into the defaults.
func detach(rv reflect.Value, raw []byte) {
	_ = ndjson.Members(raw, func(k, v []byte) error {
		for _, sf := range fieldsOf(rv.Type()) {
			name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
			if name != string(k) {
				continue
			}
			switch fv := rv.FieldByIndex(sf.index); fv.Kind() {
			case reflect.Slice, reflect.Map, reflect.Pointer:
				fv.SetZero()
			case reflect.Struct:
				if fv.Type() != timeType {
					detach(fv, v)
				}
			}
		}
		return nil
	})
}

var reference = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\$\{(secret:[A-Za-z0-9][A-Za-z0-9._-]*|env:PUP_[A-Za-z0-9_]+)\}$`)
})

// IsReference says whether s is a reference to a secret: ${secret:NAME} or
// ${env:PUP_NAME}.
func IsReference(s string) bool { return reference().MatchString(s) }

func (f *Field) jsonType() string {
	switch f.Type {
	case Duration, Time:
		return "string"
	case Table:
		return "object"
	}
	return string(f.Type)
}

func (f *Field) wanted() string {
	switch f.Type {
	case Duration:
		return `a duration such as "30s"`
	case Time:
		return "a time (RFC 3339)"
	case Table:
		return "an object"
	}
	return article(string(f.Type))
}

func article(s string) string {
	switch s {
	case "null":
		return s
	case "array", "object", "integer":
		return "an " + s
	}
	return "a " + s
}

// kind names the JSON type of a valid value.
func kind(raw []byte) string {
	switch c := raw[0]; c {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	if bytes.ContainsAny(raw, ".eE") {
		return "number"
	}
	return "integer"
}

// Nearest gives the name that comes nearest to what was written; "" if none
// comes near.
func Nearest(got string, names []string) string {
	best, dist := "", len(got)/2+2
	for _, n := range names {
		d := distance(got, n, dist)
		// of two that are as near, the one with the same beginning: htps is https, not ftps
		if d < dist || best != "" && d == dist && n[0] == got[0] && best[0] != got[0] {
			best, dist = n, d
		}
	}
	return best
}

// DidYouMean gives "; did you mean …?" for the name that comes nearest to
// what was written, or lists a few names when none does.
func DidYouMean(got string, names []string) string {
	best := Nearest(got, names)
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(names) == 0 || len(names) > 40:
		return ""
	}
	return "; there are " + strings.Join(names, ", ")
}

// distance is the Damerau-Levenshtein distance (restricted: no substring is
// edited twice), or limit if that is less.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 {
		return limit
	}
	var prev2, prev, cur [65]int
	for j := range len(b) + 1 {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return min(prev[len(b)], limit)
}
