package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/internal/lines"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/cron"
	"pup/cmd/pup-sched/internal/sched"
)

// common describes the members of a target that many checks share. Those of
// TLS are in the catalogue.
var common = schema.Of(lines.Common{})

// A layer is a table of settings: the defaults, a template, a target.
type layer struct {
	name    string // for people
	set     [keyCount]*member
	options []*member // members named after a check, and the common ones
}

// layer sorts the members of a table by what they mean. Wrong ones are
// reported and left out.
func (l *loader) layer(t *table, name string, scope Scope) *layer {
	a := &layer{name: name}
	for i := range t.members {
		m := &t.members[i]
		k, ok := targetKeyIndex[m.key]
		switch {
		case ok && targetKeys[k].Where&scope == 0:
			l.probs.add(m.at, "", "%s belongs to a target, not to %s", m.key, name)
		case ok:
			if targetKeys[k].accept(&m.value, l.probs) {
				a.set[k] = m
			}
		case common.Field(m.key) != nil:
			a.options = append(a.options, m)
		case m.key == "tls" || l.opt.Checks.Check(m.key) != nil:
			if m.value.kind != tableKind {
				l.probs.add(m.value.at, fmt.Sprintf("write %s = { option = value }", m.key), "%s takes a table of options, not %s", m.key, m.value.kind)
			} else {
				a.options = append(a.options, m)
			}
		default:
			l.probs.add(m.at, hint(m.key, l.knownKeys()), "unknown key %q in %s", m.key, name)
		}
	}
	for _, k := range []int{keyCron, keyTZ} {
		if a.set[k] != nil && a.set[keyEvery] != nil {
			l.probs.add(a.set[k].at, "", "every and %s exclude each other", targetKeys[k].Name)
		}
	}
	return a
}

// knownKeys are the names that a target may hold.
func (l *loader) knownKeys() []string {
	var names []string
	for i := range targetKeys {
		names = append(names, targetKeys[i].Name)
	}
	names = append(names, common.Names()...)
	names = append(names, "tls")
	for i := range l.opt.Checks.Checks {
		names = append(names, l.opt.Checks.Checks[i].Name)
	}
	return names
}

// A merged target is its layers laid over one another, the last on top.
type merged struct {
	layers []*layer
	set    [keyCount]*member // the last word on each
}

func merge(layers []*layer) *merged {
	m := &merged{layers: layers}
	for _, a := range layers {
		for i, s := range a.set {
			if s != nil {
				m.set[i] = s
			}
		}
		// what says when on a higher layer replaces the other way below
		switch {
		case a.set[keyEvery] != nil:
			m.set[keyCron], m.set[keyTZ] = nil, nil
		case a.set[keyCron] != nil:
			m.set[keyEvery] = nil
		}
	}
	return m
}

func (m *merged) text(k int) string {
	if s := m.set[k]; s != nil {
		return s.value.text
	}
	return ""
}

// span gives a duration, 0 where none is set.
func (m *merged) span(k int) time.Duration {
	if m.set[k] == nil {
		return 0
	}
	d, _ := wire.ParseDuration(m.text(k)) // accept has checked it
	return time.Duration(d)
}

// defaultEvery is the interval where none is given.
const defaultEvery = time.Minute

// target makes the target of a table, or those of its matrix.
func (l *loader) target(t *table) {
	matrix := t.get(targetKeys[keyMatrix].Name)
	if matrix == nil {
		l.layered(t, nil)
		return
	}
	if !targetKeys[keyMatrix].accept(matrix, l.probs) {
		return // what the rest says depends on it
	}
	for _, r := range rows(matrix) {
		l.layered(l.expand(t, r), r)
	}
}

// layered lays a target over its templates and the defaults.
func (l *loader) layered(t *table, r row) {
	own := l.layer(t, "[[target]]", InTarget)
	layers := []*layer{l.defaults}
	if use := own.set[keyUse]; use != nil {
		layers = append(layers, l.templateLayers(&use.value, r)...)
	}
	l.one(merge(append(layers, own)), t)
}

// templateLayers finds the templates that are used, with the values of a row
// of the matrix if there is one.
func (l *loader) templateLayers(use *value, r row) []*layer {
	var layers []*layer
	for i := range use.items {
		name := use.items[i].text
		known := l.templates[name]
		switch {
		case known == nil:
			l.probs.add(use.items[i].at, hint(name, keysOf(l.templates)), "there is no template %q", name)
		case r == nil:
			layers = append(layers, known.layer)
		default:
			layers = append(layers, l.layer(l.expand(known.table, r), templateName(name), InTemplate))
		}
	}
	return layers
}

// one makes one target, or reports all that is wrong with it.
func (l *loader) one(m *merged, t *table) {
	named := l.named(m, t)
	before := l.probs.count()
	plan := l.plan(m)
	head := l.head(m, t, plan)
	if !named || head == nil || l.probs.count() > before {
		return
	}
	name := &m.set[keyName].value
	if n := len(head) + len(name.text) + sched.TailMax; n > l.opt.MaxRecord {
		l.probs.add(name.at, "shorten its options, or allow longer lines with --max-record", "the line of the target takes up to %d bytes, and a line has at most %d", n, l.opt.MaxRecord)
		return
	}
	target := sched.Target{Head: l.arena.keep(head), Plan: plan}
	if l.opt.Explain == name.text {
		l.explained = explain(m, &target)
	}
	if on := m.set[keyEnabled]; on != nil && on.value.text == "false" {
		return
	}
	if l.opt.Keep == nil || l.opt.Keep(name.text, m.label) {
		l.targets = append(l.targets, target)
	}
}

// named says whether the target has a name of its own.
func (l *loader) named(m *merged, t *table) bool {
	name := m.set[keyName]
	if name == nil {
		if l.partial = l.partial || t.broken; t.get("name") == nil && !t.broken {
			l.probs.add(t.at, "", "the target has no name")
		}
		return false
	}
	if err := nameError(name.value.text); err != nil {
		l.probs.add(name.value.at, "", "name: %v", err)
		return false
	}
	return l.claim(name)
}

// label gives the value of a label, or "".
func (m *merged) label(key string) string {
	for _, a := range slices.Backward(m.layers) {
		if s := a.set[keyLabels]; s != nil {
			if v := s.value.table.get(key); v != nil {
				return v.text
			}
		}
	}
	return ""
}

// claim takes a name, and reports it when it is taken.
func (l *loader) claim(name *member) bool {
	key := sched.Hash(name.value.text)
	if i, ok := l.names[key]; ok && l.origins[i].name == name.value.text {
		l.probs.add(name.value.at, "a name is an identity; give each target its own", "the name %q is taken by the target at %s", name.value.text, l.origins[i].at)
		return false
	}
	l.names[key] = uint32(len(l.origins))
	l.origins = append(l.origins, origin{name.value.text, name.value.at})
	return true
}

// A planKey tells plans apart.
type planKey struct {
	every, recheck, relax, relaxAfter time.Duration
	cron, tz, active, maintenance     string
}

// plan finds the plan of a target among those that there are, or makes it.
func (l *loader) plan(m *merged) *sched.Plan {
	key := planKey{cron: m.text(keyCron), tz: m.text(keyTZ), active: joinTexts(m.set[keyActive]), maintenance: joinTexts(m.set[keyMaintenance])}
	if key.cron == "" {
		if key.every = defaultEvery; m.set[keyEvery] != nil {
			key.every = m.span(keyEvery)
		}
	}
	key.recheck, key.relax = m.span(keyRecheck), m.span(keyRelax)
	if key.relax > 0 {
		if key.relaxAfter = 24 * time.Hour; m.set[keyRelaxAfter] != nil {
			key.relaxAfter = m.span(keyRelaxAfter)
		}
	}
	if p := l.plans[key]; p != nil {
		return p
	}
	p := &sched.Plan{Every: key.every, Active: l.namedWindows(m.set[keyActive]), Maintenance: l.namedWindows(m.set[keyMaintenance])}
	if key.cron != "" {
		p.Cron, _ = cron.Parse(key.cron) // accept has checked it
		if p.Zone = time.UTC; key.tz != "" {
			p.Zone, _ = loadZone(key.tz)
		}
		if p.Cron.Next(time.Now()).IsZero() {
			l.probs.add(m.set[keyCron].value.at, "", "cron: %q never comes", key.cron)
		}
	}
	if key.recheck > 0 {
		p.Failing = &sched.Plan{Every: key.recheck, Active: p.Active}
	}
	if key.relax > 0 {
		p.Relaxed, p.RelaxAfter = &sched.Plan{Every: key.relax, Active: p.Active}, key.relaxAfter
	}
	p.Text = key.String()
	l.plans[key] = p
	return p
}

// String says what a target line does not.
func (k planKey) String() string {
	var parts []string
	if k.cron != "" {
		parts = append(parts, "cron "+k.cron)
		if k.tz != "" {
			parts = append(parts, "tz "+k.tz)
		}
	}
	if k.active != "" {
		parts = append(parts, "active "+k.active)
		if k.every > 0 && k.relax == 0 {
			parts = append(parts, "every "+wire.Duration(k.every).String())
		}
	}
	if k.recheck > 0 {
		parts = append(parts, "recheck "+wire.Duration(k.recheck).String())
	}
	if k.relax > 0 {
		if k.every > 0 {
			parts = append(parts, "every "+wire.Duration(k.every).String())
		}
		parts = append(parts, "relax "+wire.Duration(k.relax).String()+" after "+wire.Duration(k.relaxAfter).String())
	}
	if k.maintenance != "" {
		parts = append(parts, "maintenance "+k.maintenance)
	}
	return strings.Join(parts, ", ")
}

func joinTexts(m *member) string {
	if m == nil {
		return ""
	}
	texts := make([]string, len(m.value.items))
	for i := range m.value.items {
		texts[i] = m.value.items[i].text
	}
	return strings.Join(texts, " ")
}

func (l *loader) namedWindows(m *member) []*sched.Window {
	if m == nil {
		return nil
	}
	var ws []*sched.Window
	for i := range m.value.items {
		v := &m.value.items[i]
		if w := l.windows[v.text]; w != nil {
			ws = append(ws, w)
		} else if _, broken := l.windowAt[v.text]; !broken {
			l.probs.add(v.at, hint(v.text, keysOf(l.windows)), "%s: there is no window %q", m.key, v.text)
		}
	}
	return ws
}

// head makes the line of a target up to what changes from run to run, or nil
// if its URL does not say which check it is for.
func (l *loader) head(m *merged, t *table, plan *sched.Plan) []byte {
	u := l.url(m, t)
	if u == nil {
		l.judgeOptions(m)
		l.appendNeeds(nil, m)
		return nil
	}
	b := append(l.scratch[:0], sched.Prefix...)
	b = append(b, m.text(keyName)...)
	b = append(b, `","url":`...)
	b = ndjson.AppendString(b, m.text(keyURL))
	if m.set[keyCheck] != nil && u.Check.Name != l.schemeCheck(u) {
		b = append(b, `,"check":`...)
		b = ndjson.AppendString(b, u.Check.Name)
	}
	b = l.appendOptions(b, m, u.Check)
	for _, k := range []int{keyExpect, keyWarn} {
		b = l.appendExpressions(b, m.set[k], u.Check)
	}
	if s := m.set[keyRetries]; s != nil {
		n, _ := parseInt(s.value.text)
		b = strconv.AppendInt(append(b, `,"retries":`...), n, 10)
	}
	for _, k := range []int{keyRetryWait, keyTimeout} {
		if m.set[k] != nil {
			b = append(b, `,"`+targetKeys[k].Name+`":"`...)
			b = append(append(b, wire.Duration(m.span(k)).String()...), '"')
		}
	}
	if plan.Every > 0 && plan.Steady() {
		b = append(b, `,"every":"`...)
		b = append(append(b, wire.Duration(plan.Every).String()...), '"')
	}
	b = l.appendNeeds(b, m)
	b = appendLabels(b, m)
	l.scratch = b
	return b
}

// judgeOptions judges the options of a target whose URL says nothing, each by
// the check that it is named after, and the expressions by that check if there
// is but one.
func (l *loader) judgeOptions(m *merged) {
	checks := map[string]*catalog.Check{}
	if c := l.opt.Checks.Check(m.text(keyCheck)); c != nil {
		checks[c.Name] = c
	}
	for _, o := range m.layers[len(m.layers)-1].options {
		l.appendOption(nil, m, o.key)
		if c := l.opt.Checks.Check(o.key); c != nil {
			checks[c.Name] = c
		}
	}
	if len(checks) != 1 {
		return
	}
	for _, c := range checks {
		l.appendExpressions(nil, m.set[keyExpect], c)
		l.appendExpressions(nil, m.set[keyWarn], c)
	}
}

func (l *loader) schemeCheck(u *catalog.URL) string {
	c, _ := l.opt.Checks.Scheme(u.URL.Scheme)
	return c.Name
}

// url takes the target's URL apart, and reports what is wrong with it. It is
// nil where not even the check is known.
func (l *loader) url(m *merged, t *table) *catalog.URL {
	if m.set[keyURL] == nil {
		if t.get("url") == nil && !t.broken {
			l.probs.add(t.at, `write url = "https://www.example.org/"`, "the target has no url")
		}
		return nil
	}
	u, err := l.opt.Checks.ParseURL(m.text(keyURL), m.text(keyCheck))
	if err == nil {
		return u
	}
	at := m.set[keyURL].value.at
	msg := err.Error()
	if strings.HasPrefix(msg, "check:") {
		at = m.set[keyCheck].value.at
	}
	msg, h, _ := strings.Cut(msg, "; ")
	l.probs.add(at, h, "%s", msg)
	return u
}

// appendOptions appends the options of the check and the common members. A
// table in a higher layer is laid over those below, option by option.
func (l *loader) appendOptions(b []byte, m *merged, check *catalog.Check) []byte {
	var names []string
	for i, a := range m.layers {
		last := i == len(m.layers)-1
		for _, o := range a.options {
			usable := o.key == check.Name || slices.Contains(check.Common, o.key)
			switch {
			case usable && !slices.Contains(names, o.key):
				names = append(names, o.key)
			case !usable && last: // what defaults say need not fit every check
				l.probs.add(o.at, "", "the check %s has no use for %s", check.Name, o.key)
			}
		}
	}
	for _, name := range names {
		b = l.appendOption(b, m, name)
	}
	return b
}

// appendOption appends an option with all its layers, and reports what its
// schema finds wrong.
func (l *loader) appendOption(b []byte, m *merged, name string) []byte {
	start := len(b)
	b = append(ndjson.AppendString(append(b, ','), name), ':')
	body := len(b)
	v := m.option(name)
	var bad *value
	if b, bad = v.appendJSON(b); bad != nil {
		l.probs.add(bad.at, `write it as a string`, "%s can't stand in a target", describe(bad))
		return b[:start]
	}
	for _, err := range l.optionField(name).Check(name, b[body:]) {
		l.optionError(m, name, err)
	}
	return b
}

func describe(v *value) string {
	if v.kind == floatKind {
		return v.text
	}
	return v.kind.String()
}

func (l *loader) optionField(name string) *schema.Field {
	if name == "tls" { // of any check; the check tls has none but these
		return &l.tls
	}
	if check := l.opt.Checks.Check(name); check != nil {
		return check.Options()
	}
	return common.Field(name)
}

// option gives the value of an option member with all layers merged.
func (m *merged) option(name string) *value {
	var v *value
	for _, a := range m.layers {
		o := findMember(a.options, name)
		if o == nil {
			continue
		}
		if v == nil || v.kind != tableKind || o.value.kind != tableKind {
			v = &o.value
			continue
		}
		both := &table{at: o.value.table.at, members: slices.Clone(v.table.members)}
		for _, sub := range o.value.table.members {
			if old := both.get(sub.key); old != nil {
				*old = sub.value
			} else {
				both.members = append(both.members, sub)
			}
		}
		v = &value{kind: tableKind, at: o.value.at, table: both}
	}
	return v
}

// optionError reports what the schema found, at the place of the value.
func (l *loader) optionError(m *merged, name string, err error) {
	at := m.find(name)
	if se, ok := err.(*schema.Error); ok {
		at = m.locate(name, strings.TrimPrefix(se.Path, name), strings.HasPrefix(se.Err.Error(), "no such option"))
	}
	msg, h, _ := strings.Cut(err.Error(), "; ")
	l.probs.add(at, h, "%s", msg)
	if strings.Contains(msg, "credential") {
		l.probs.hide()
	}
}

func (m *merged) find(name string) place {
	for _, a := range slices.Backward(m.layers) {
		if o := findMember(a.options, name); o != nil {
			return o.at
		}
	}
	return place{}
}

// locate finds the place of a path such as ".headers.Accept" or ".steps[2]"
// below the option member of that name, in the highest layer that has it, or
// of as much of the path as exists. It is that of the value, or of its key.
func (m *merged) locate(name, path string, key bool) place {
	at, left := m.find(name), len(path)+1
	for _, a := range slices.Backward(m.layers) {
		o := findMember(a.options, name)
		if o == nil {
			continue
		}
		if found, rest := o.walk(path, key); len(rest) < left {
			at, left = found, len(rest)
		}
	}
	return at
}

// walk follows a path as far as it leads, and gives the place and what is
// left of the path.
func (o *member) walk(path string, key bool) (place, string) {
	v := &o.value
	switch {
	case path == "" && key:
		return o.at, ""
	case path == "":
		return v.at, ""
	case path[0] == '[' && v.kind == arrayKind:
		end := strings.IndexByte(path, ']')
		i, err := strconv.Atoi(path[1:max(1, end)])
		if err != nil || i >= len(v.items) {
			return o.at, path
		}
		elem := member{at: v.items[i].at, value: v.items[i]}
		return elem.walk(path[end+1:], key)
	case path[0] == '.' && v.kind == tableKind:
		for i := range v.table.members {
			sub := &v.table.members[i]
			rest, ok := strings.CutPrefix(path[1:], sub.key)
			if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
				return sub.walk(rest, key)
			}
		}
	}
	return o.at, path
}

func (l *loader) appendExpressions(b []byte, s *member, check *catalog.Check) []byte {
	if s == nil {
		return b
	}
	b = append(ndjson.AppendString(append(b, ','), s.key), ":["...)
	for i := range s.value.items {
		v := &s.value.items[i]
		if _, err := expr.Compile(v.text, check.Env()); err != nil {
			msg, h, _ := strings.Cut(err.Error(), "; ")
			l.probs.add(v.at, h, "%s", msg)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = ndjson.AppendString(b, v.text)
	}
	return append(b, ']')
}

// appendNeeds appends the names that the target depends on. What a target
// inherits does not make it depend on itself.
func (l *loader) appendNeeds(b []byte, m *merged) []byte {
	s := m.set[keyDependsOn]
	if s == nil {
		return b
	}
	own := m.layers[len(m.layers)-1].set[keyDependsOn] == s
	var on []value
	for _, v := range s.value.items {
		if own || v.text != m.text(keyName) {
			on = append(on, v)
		}
	}
	if on == nil {
		return b
	}
	l.needs = append(l.needs, need{m.text(keyName), on})
	b = append(b, `,"depends_on":[`...)
	for i := range on {
		if i > 0 {
			b = append(b, ',')
		}
		b = ndjson.AppendString(b, on[i].text)
	}
	return append(b, ']')
}

func appendLabels(b []byte, m *merged) []byte {
	var labels []*member
	for _, a := range m.layers {
		if a.set[keyLabels] == nil {
			continue
		}
		ms := a.set[keyLabels].value.table.members
		for i := range ms {
			j := slices.IndexFunc(labels, func(o *member) bool { return o.key == ms[i].key })
			if j < 0 {
				labels = append(labels, &ms[i])
			} else {
				labels[j] = &ms[i]
			}
		}
	}
	if labels == nil {
		return b
	}
	b = append(b, `,"labels":{`...)
	for i, o := range labels {
		if i > 0 {
			b = append(b, ',')
		}
		b = ndjson.AppendString(b, o.key)
		b = ndjson.AppendString(append(b, ':'), o.value.text)
	}
	return append(b, '}')
}

// appendJSON appends the value as JSON. It stops at one that JSON has no word
// for, and returns that.
func (v *value) appendJSON(b []byte) ([]byte, *value) {
	var bad *value
	switch v.kind {
	case tableKind:
		b = append(b, '{')
		for i := range v.table.members {
			o := &v.table.members[i]
			if i > 0 {
				b = append(b, ',')
			}
			b = append(ndjson.AppendString(b, o.key), ':')
			if b, bad = o.value.appendJSON(b); bad != nil {
				return b, bad
			}
		}
		return append(b, '}'), nil
	case arrayKind:
		b = append(b, '[')
		for i := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			if b, bad = v.items[i].appendJSON(b); bad != nil {
				return b, bad
			}
		}
		return append(b, ']'), nil
	case stringKind:
		return ndjson.AppendString(b, v.text), nil
	case boolKind:
		return append(b, v.text...), nil
	case intKind:
		n, err := parseInt(v.text)
		if err != nil {
			return b, v
		}
		return strconv.AppendInt(b, n, 10), nil
	case floatKind:
		if strings.ContainsAny(v.text, "in") { // inf, nan
			return b, v
		}
		return append(b, strings.ReplaceAll(strings.TrimPrefix(v.text, "+"), "_", "")...), nil
	}
	return b, v
}
