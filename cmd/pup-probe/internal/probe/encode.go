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
	switch {
	case !a.IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
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

// A lineBuffer is a result line that is being made, with its members, which
// are parts of it, if they are wanted.
type lineBuffer struct {
	line    []byte
	parts   bool // they are
	members []resultMember
	inner   []schema.Member // of all members
	cut     []byte          // the line, made again of what could stay
}

// maxLineBuffer is the size of the largest that is used again, in bytes.
const maxLineBuffer = 64 << 10

var lineBuffers = sync.Pool{New: func() any {
	return &lineBuffer{line: make([]byte, 0, 1<<10), members: make([]resultMember, 0, 24), inner: make([]schema.Member, 0, 32)}
}}

// release gives the buffer back, without what it refers to.
func (b *lineBuffer) release() {
	if cap(b.line) > maxLineBuffer {
		return
	}
	clear(b.members)
	clear(b.inner)
	b.line, b.members, b.inner = b.line[:0], b.members[:0], b.inner[:0]
	lineBuffers.Put(b)
}

// result makes the result line of t, of at most MaxRecord bytes with its
// newline. The secrets that were used are hidden in all text.
func (r *Runner) result(b *lineBuffer, t *Target, check string, v *verdict, s *secrets) []byte {
	b.parts = len(s.given) > 0
	r.write(b, t, check, v, s)
	if len(b.line) < r.MaxRecord && !b.parts {
		return b.line
	}
	if !b.parts {
		b.parts = true
		r.write(b, t, check, v, s)
	}
	b.hide(s)
	var cut []string
	for {
		b.cut = appendMembers(b.cut[:0], b.members, cut)
		excess := len(b.cut) + 1 - r.MaxRecord
		if excess <= 0 {
			return b.cut
		}
		name := shorten(b.members, excess)
		if name == "" {
			return b.cut
		}
		if !slices.Contains(cut, name) {
			cut = append(cut, name)
		}
	}
}

// begin begins a member and says where its value begins.
func (b *lineBuffer) begin(name string) int {
	if len(b.line) > len("{") {
		b.line = append(b.line, ',')
	}
	b.line = append(ndjson.AppendString(b.line, name), ':')
	return len(b.line)
}

// end ends the member whose value begins at start.
func (b *lineBuffer) end(class int, name string, start int) {
	if !b.parts {
		return
	}
	b.members = append(b.members, resultMember{name: name, value: b.line[start:len(b.line):len(b.line)], class: class})
}

func (b *lineBuffer) value(class int, name string, f func(dst []byte) []byte) {
	start := b.begin(name)
	b.line = f(b.line)
	b.end(class, name, start)
}

func (b *lineBuffer) text(class int, name, value string) {
	start := b.begin(name)
	b.line = ndjson.AppendString(b.line, value)
	b.end(class, name, start)
}

// some is text of what is absent if it is empty.
func (b *lineBuffer) some(class int, name, value string) {
	if value != "" {
		b.text(class, name, value)
	}
}

// facts leaves out an object without members.
func (b *lineBuffer) facts(name string, facts any) {
	before, n := len(b.line), len(b.inner)
	start := b.begin(name)
	inner := &b.inner
	if !b.parts {
		inner = nil
	}
	b.line = schema.AppendMembers(inner, append(b.line, '{'), facts)
	if len(b.line) == start+len("{") {
		b.line = b.line[:before]
		return
	}
	b.line = append(b.line, '}')
	b.end(free, name, start)
	if b.parts {
		last := &b.members[len(b.members)-1]
		last.value, last.inner = nil, b.inner[n:len(b.inner):len(b.inner)]
	}
}

// hide takes the secrets out of what is not the target's own.
func (b *lineBuffer) hide(s *secrets) {
	for i := range b.members {
		m := &b.members[i]
		if m.class != free {
			continue
		}
		m.value = s.hidden(m.value)
		for j := range m.inner {
			m.inner[j].Value = s.hidden(m.inner[j].Value)
		}
	}
}

// hidden takes the secrets out of the strings of a JSON value. Numbers and
// words stay as they are, whatever the secret.
func (s *secrets) hidden(v []byte) []byte {
	if len(s.given) == 0 {
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
		if clean := s.hide(text); err == nil && clean != text {
			out = ndjson.AppendString(out, clean)
		} else {
			out = append(out, token...)
		}
		i = end + 1
	}
	return out
}

// write writes the whole line.
func (r *Runner) write(b *lineBuffer, t *Target, check string, v *verdict, s *secrets) {
	b.line = append(b.line[:0], '{')
	b.value(vital, "v", func(dst []byte) []byte { return append(dst, '1') })
	b.text(vital, "type", "result")
	b.text(vital, "name", t.Name)
	b.some(vital, "check", check)
	b.some(vital, "url", catalog.Redact(t.URL))
	b.some(vital, "status", string(v.status))
	b.some(vital, "phase", string(v.phase))
	b.some(vital, "reason", string(v.reason))
	b.some(free, "error", s.hide(v.err))
	if len(v.failed) > 0 {
		b.value(free, "failed", func(dst []byte) []byte { return appendFailed(dst, v.failed) })
	}
	b.value(vital, "time", func(dst []byte) []byte { return wire.AppendTime(dst, v.time) })
	b.value(vital, "ms", v.appendMS)
	b.some(vital, "address", addressText(v.address))
	attempts := func(name string, list []attemptLine) {
		if len(list) > 0 {
			b.value(free, name, func(dst []byte) []byte { return appendAttempts(dst, list) })
		}
	}
	attempts("tried", v.tried)
	attempts("addresses", v.addresses)
	b.value(vital, "attempts", func(dst []byte) []byte { return strconv.AppendInt(dst, int64(v.attempts), 10) })
	attempts("earlier", v.earlier)
	if !t.Due.IsZero() {
		b.value(vital, "lag_ms", func(dst []byte) []byte { return wire.AppendMS(dst, max(0, v.lag)) })
	}
	for _, m := range t.copied {
		b.value(carried, m.Name, func(dst []byte) []byte { return append(dst, m.Value...) })
	}
	b.some(vital, "vantage", r.Vantage)
	if v.tlsFacts != nil {
		b.facts("tls", v.tlsFacts)
	}
	if v.facts != nil && check != "tls" {
		b.facts(check, v.facts)
	}
	b.line = append(b.line, '}')
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
