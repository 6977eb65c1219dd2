package probe

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// attemptLine is an element of tried, addresses or earlier.
type attemptLine struct {
	Address string
	Status  wire.Status
	Phase   wire.Phase
	Reason  wire.Reason
	Error   string
	Total   time.Duration
}

func (o *outcome) line() attemptLine {
	return attemptLine{addressText(o.address), o.status, o.phase, o.reason, o.err, o.total}
}

func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return string(appendAddress(nil, a))
}

func appendAddress(dst []byte, a netip.AddrPort) []byte {
	if a.Port() == 0 {
		return a.Addr().AppendTo(dst)
	}
	return a.AppendTo(dst)
}

// failedLine is an element of failed.
type failedLine struct {
	text string
	warn bool
	saw  map[string]any
	err  string
}

// wording is the text for people: the expression and what it saw.
func (f *failedLine) wording() string {
	kind := "expect"
	if f.warn {
		kind = "warn"
	}
	if f.err != "" {
		return fmt.Sprintf("%s %s: %s", kind, f.text, f.err)
	}
	var saw []string
	for _, k := range sortedKeys(f.saw) {
		saw = append(saw, k+" is "+ndjson.Cut(fmt.Sprint(f.saw[k]), 80))
	}
	if saw == nil {
		return kind + " " + f.text + ": does not hold"
	}
	return kind + " " + f.text + ": " + strings.Join(saw, ", ")
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// verdict is what is to be said of a target.
type verdict struct {
	*outcome
	attempts  int
	earlier   []attemptLine
	addresses []attemptLine
	lag       time.Duration
}

// The classes of members, by how easily they are given up when a line is too
// long. Identity and verdict never are.
const (
	vital = iota
	carried
	free
)

type resultMember struct {
	name  string
	value []byte
	class int
	inner []schema.Member // of an object whose members can be given up one by one
}

// appendResult appends the result line of t, cut to at most max bytes with its
// newline. The secrets that were used are hidden in all text.
func (r *Runner) appendResult(dst []byte, t *Target, check string, v *verdict, s *secrets) []byte {
	b := buffers8K.Get().(*buffer)
	b.b, b.s = b.b[:0], s
	defer b.release()
	ms := r.members(b, t, check, v)
	var cut []string
	for {
		b.line = appendMembers(b.line[:0], ms, cut)
		excess := len(b.line) + 1 - r.MaxRecord
		if excess <= 0 {
			return append(dst, b.line...)
		}
		name := shorten(ms, excess)
		if name == "" {
			return append(dst, b.line...)
		}
		if !slices.Contains(cut, name) {
			cut = append(cut, name)
		}
	}
}

// A buffer holds the values of members, which are parts of it, the members and
// the line of a result while it is made.
type buffer struct {
	b, line []byte
	s       *secrets
	members []resultMember
	inner   []schema.Member // of all members
}

var buffers8K = sync.Pool{New: func() any {
	return &buffer{
		b: make([]byte, 0, 8<<10), line: make([]byte, 0, 1<<10),
		members: make([]resultMember, 0, 24), inner: make([]schema.Member, 0, 32),
	}
}}

// release gives the buffer back, without what it refers to.
func (b *buffer) release() {
	b.s = nil
	clear(b.members)
	clear(b.inner)
	b.members, b.inner = b.members[:0], b.inner[:0]
	buffers8K.Put(b)
}

// value gives what f appends.
func (b *buffer) value(f func(dst []byte) []byte) []byte {
	n := len(b.b)
	b.b = f(b.b)
	return b.b[n:len(b.b):len(b.b)]
}

// text gives a string of our own, which holds no secret.
func (b *buffer) text(x string) []byte {
	return b.value(func(dst []byte) []byte { return ndjson.AppendString(dst, x) })
}

// hidden takes the secrets out of the strings of a JSON value. Numbers and
// words stay as they are, whatever the secret.
func (b *buffer) hidden(v []byte) []byte {
	if len(b.s.given) == 0 {
		return v
	}
	var out []byte
	for i := 0; i < len(v); {
		if v[i] != '"' {
			out = append(out, v[i])
			i++
			continue
		}
		end := i + 1
		for v[end] != '"' {
			if v[end] == '\\' {
				end++
			}
			end++
		}
		token := v[i : end+1]
		text, err := ndjson.Unquote(token)
		if clean := b.s.hide(text); err == nil && clean != text {
			out = ndjson.AppendString(out, clean)
		} else {
			out = append(out, token...)
		}
		i = end + 1
	}
	return out
}

func (r *Runner) members(b *buffer, t *Target, check string, v *verdict) []resultMember {
	ms := b.members
	add := func(class int, name string, value []byte) {
		ms = append(ms, resultMember{name: name, value: value, class: class})
	}
	text := func(class int, name, value string) {
		if value != "" {
			add(class, name, b.text(value))
		}
	}
	add(vital, "v", []byte("1"))
	add(vital, "type", []byte(`"result"`))
	add(vital, "name", b.text(t.Name))
	text(vital, "check", check)
	text(vital, "url", catalog.Redact(t.URL))
	text(vital, "status", string(v.status))
	text(vital, "phase", string(v.phase))
	text(vital, "reason", string(v.reason))
	text(free, "error", b.s.hide(v.err))
	if len(v.failed) > 0 {
		add(free, "failed", b.hidden(b.value(func(dst []byte) []byte { return appendFailed(dst, v.failed) })))
	}
	add(vital, "time", b.value(func(dst []byte) []byte { return wire.AppendTime(dst, v.time) }))
	add(vital, "ms", b.value(v.appendMS))
	if v.address.Addr().Zone() != "" { // which may be any text
		text(vital, "address", addressText(v.address))
	} else if v.address.IsValid() {
		add(vital, "address", b.value(func(dst []byte) []byte { return append(appendAddress(append(dst, '"'), v.address), '"') }))
	}
	attempts := func(name string, list []attemptLine) {
		if len(list) > 0 {
			add(free, name, b.hidden(b.value(func(dst []byte) []byte { return appendAttempts(dst, list) })))
		}
	}
	attempts("tried", v.tried)
	attempts("addresses", v.addresses)
	add(vital, "attempts", b.value(func(dst []byte) []byte { return strconv.AppendInt(dst, int64(v.attempts), 10) }))
	attempts("earlier", v.earlier)
	if !t.Due.IsZero() {
		add(vital, "lag_ms", b.value(func(dst []byte) []byte { return wire.AppendMS(dst, max(0, v.lag)) }))
	}
	for _, m := range t.copied {
		add(carried, m.Name, m.Value)
	}
	text(vital, "vantage", r.Vantage)
	facts := func(name string, facts any) {
		n := len(b.inner)
		b.inner, b.b = schema.AppendMembers(b.inner, b.b, facts)
		if inner := b.inner[n:len(b.inner):len(b.inner)]; len(inner) > 0 {
			for i := range inner {
				inner[i].Value = b.hidden(inner[i].Value)
			}
			ms = append(ms, resultMember{name: name, class: free, inner: inner})
		}
	}
	if v.tlsFacts != nil {
		facts("tls", v.tlsFacts)
	}
	if v.facts != nil && check != "tls" {
		facts(check, v.facts)
	}
	b.members = ms
	return ms
}

func appendMembers(dst []byte, ms []resultMember, cut []string) []byte {
	dst = append(dst, '{')
	first := true
	key := func(name string) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(ndjson.AppendString(dst, name), ':')
	}
	for _, m := range ms {
		switch {
		case m.inner != nil:
			if len(m.inner) > 0 {
				key(m.name)
				dst = appendObject(dst, m.inner)
			}
		case m.value != nil:
			key(m.name)
			dst = append(dst, m.value...)
		}
	}
	if len(cut) > 0 {
		key("truncated")
		dst = append(dst, '[')
		for i, name := range cut {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = ndjson.AppendString(dst, name)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendObject(dst []byte, members []schema.Member) []byte {
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), m.Name...), `":`...) // a name of ours
		dst = append(dst, m.Value...)
	}
	return append(dst, '}')
}

// keptText is what is left of a text that is cut, in bytes.
const keptText = 160

// shorten cuts or drops the largest value of the class that is given up most
// easily, and tells its name; "" when nothing is left to give up. Excess is by
// how many bytes the line is too long.
func shorten(ms []resultMember, excess int) string {
	for class := free; class > vital; class-- {
		var best *[]byte
		var name string
		var inner func()
		for i := range ms {
			m := &ms[i]
			if m.class != class {
				continue
			}
			for j := range m.inner {
				if v := &m.inner[j].Value; best == nil || len(*v) > len(*best) {
					best, name = v, m.name+"."+m.inner[j].Name
					inner = func() { m.inner = slices.Delete(m.inner, j, j+1) }
				}
			}
			if m.value != nil && (best == nil || len(m.value) > len(*best)) {
				best, name, inner = &m.value, m.name, func() { m.value = nil }
			}
		}
		if best == nil {
			continue
		}
		if b := *best; b[0] == '"' && len(b) > keptText+32 {
			s, _ := ndjson.Unquote(b)
			short := ndjson.AppendString(nil, ndjson.Cut(s, max(keptText, len(s)-excess-16)))
			if len(short) < len(b) {
				*best = short
				return name
			}
		}
		inner()
		return name
	}
	return ""
}

func (o *outcome) appendMS(dst []byte) []byte {
	dst = append(dst, '{')
	for i, ph := range phases {
		if o.reached[i] {
			dst = append(append(append(dst, '"'), ph...), `":`...)
			dst = append(wire.AppendMS(dst, o.spent[i]), ',')
		}
	}
	dst = append(dst, `"total":`...)
	return append(wire.AppendMS(dst, o.total), '}')
}

// maxAttemptError bounds the error text of each of several attempts, in bytes.
const maxAttemptError = 120

func appendAttempts(dst []byte, list []attemptLine) []byte {
	dst = append(dst, '[')
	for i, a := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		n := len(dst)
		for _, m := range [...]struct{ name, value string }{
			{"address", a.Address}, {"status", string(a.Status)}, {"phase", string(a.Phase)},
			{"reason", string(a.Reason)}, {"error", ndjson.Cut(a.Error, maxAttemptError)},
		} {
			if m.value == "" {
				continue
			}
			if len(dst) > n {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, '"'), m.name...), `":`...)
			dst = ndjson.AppendString(dst, m.value)
		}
		if a.Total > 0 {
			dst = append(dst, `,"total_ms":`...)
			dst = wire.AppendMS(dst, a.Total)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendFailed(dst []byte, list []failedLine) []byte {
	dst = append(dst, '[')
	for i, f := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"expect":`...)
		if f.warn {
			dst = append(dst[:len(dst)-len(`"expect":`)], `"warn":`...)
		}
		dst = ndjson.AppendString(dst, f.text)
		if len(f.saw) > 0 {
			dst = append(dst, `,"saw":{`...)
			for j, k := range sortedKeys(f.saw) {
				if j > 0 {
					dst = append(dst, ',')
				}
				dst = append(ndjson.AppendString(dst, k), ':')
				dst = appendSaw(dst, f.saw[k])
			}
			dst = append(dst, '}')
		}
		if f.err != "" {
			dst = append(dst, `,"error":`...)
			dst = ndjson.AppendString(dst, ndjson.Cut(f.err, maxAttemptError))
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// maxSaw bounds a value that an expression saw, in bytes.
const maxSaw = 200

func appendSaw(dst []byte, v any) []byte {
	switch x := v.(type) {
	case string:
		return ndjson.AppendString(dst, ndjson.Cut(x, maxSaw))
	case float64:
		return strconv.AppendFloat(dst, x, 'f', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil || len(b) > maxSaw {
		return ndjson.AppendString(dst, ndjson.Cut(fmt.Sprint(v), maxSaw))
	}
	// once more through our own escaping, which knows more than JSON's
	if s, err := ndjson.Unquote(b); err == nil {
		return ndjson.AppendString(dst, s)
	}
	return append(dst, b...)
}

// copiedValue gives a member of the target that its result has as well.
func (pl *plan) copiedValue(name string) any {
	for _, c := range pl.copied {
		if c.Name == name {
			v, _ := expr.Value(c.Value)
			return v
		}
	}
	return nil
}
