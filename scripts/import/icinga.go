package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A block is an object, template or apply of Icinga 2.
type block struct {
	verb, kind, name string
	loop             string // of apply … for (…)
	where            string // file:line
	imports          []string
	keys             []string
	set              map[string]string // raw values; vars.a["b"] is vars.a.b
	assign, ignore   []string
}

// readIcinga reads objects, templates and apply rules of Icinga 2. Its
// language can say more than that; what it says beyond is reported.
func readIcinga(r *result, files []string) error {
	var all []*block
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		blocks, left := icingaBlocks(f[strings.LastIndexByte(f, '/')+1:], string(b))
		all = append(all, blocks...)
		for _, l := range left {
			r.note("%s", l)
		}
	}
	templates := map[string]*block{}
	for _, b := range all {
		if b.verb == "template" {
			templates[b.kind+" "+b.name] = b
		}
	}
	left := map[string]int{}
	var hosts []*block
	for _, b := range all {
		switch {
		case b.verb == "object" && b.kind == "Host":
			hosts = append(hosts, b.over(templates))
		case b.verb == "template", b.kind == "Service":
		default:
			left[b.verb+" "+b.kind]++
		}
	}
	for _, h := range hosts {
		if h.set["check_command"] != "" {
			icingaTarget(r, h.name, h, h)
		}
		for _, b := range all {
			if b.kind == "Service" && b.verb != "template" {
				icingaService(r, b.over(templates), h)
			}
		}
	}
	for _, k := range sortedKeys(left) {
		r.note("%d of %s are not carried over", left[k], k)
	}
	return nil
}

var (
	icingaHead   = regexp.MustCompile(`^(object|template|apply)\s+(\w+)\s*("[^"]*"|\w+)?\s*(?:to\s+\w+\s*)?(for\s*\(.*\)\s*)?(?:to\s+\w+\s*)?\{$`)
	icingaAssign = regexp.MustCompile(`^([\w.]+(?:\["[^"]*"\])*)\s*(\+?=)\s*(.*)$`)
	icingaNote   = regexp.MustCompile(`(?s)/\*.*?\*/`)
)

// icingaBlocks takes a file apart; left says what it could not read.
func icingaBlocks(file, text string) (blocks []*block, left []string) {
	text = icingaNote.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) })
	var b *block
	var path []string // of nested dictionaries
	depth := 0        // of blocks that are not read
	for no, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(uncomment(line))
		where := fmt.Sprintf("%s:%d", file, no+1)
		m := icingaHead.FindStringSubmatch(line)
		switch {
		case line == "":
		case depth > 0:
			depth += strings.Count(line, "{") - strings.Count(line, "}")
		case b == nil && m != nil:
			b = &block{verb: m[1], kind: m[2], name: unquote(m[3]), loop: m[4], where: where, set: map[string]string{}}
		case b == nil && strings.HasSuffix(line, "{"):
			left = append(left, fmt.Sprintf("%s: %s is not carried over", where, line))
			depth = 1
		case b == nil:
			left = append(left, fmt.Sprintf("%s: %s is not carried over", where, line))
		case line == "}" && len(path) > 0:
			path = path[:len(path)-1]
		case line == "}":
			blocks = append(blocks, b)
			b = nil
		case b.line(line, path):
		default:
			if a := icingaAssign.FindStringSubmatch(line); a != nil && a[3] == "{" {
				path = append(path, icingaKey(a[1]))
				b.put(strings.Join(path, "."), "{}")
				continue
			}
			if b.kind == "Host" || b.kind == "Service" { // the others are reported as a whole
				left = append(left, fmt.Sprintf("%s: %s is not carried over", where, line))
			}
			depth = max(0, strings.Count(line, "{")-strings.Count(line, "}"))
		}
	}
	return blocks, left
}

// uncomment drops a comment that begins with // or #, outside of quotes.
func uncomment(line string) string {
	quoted := false
	for i := range len(line) {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case !quoted && (line[i] == '#' || strings.HasPrefix(line[i:], "//")):
			return line[:i]
		}
	}
	return line
}

// line reads a line of a block's body, if it is one of the simple ones.
func (b *block) line(line string, path []string) bool {
	if name, ok := strings.CutPrefix(line, "import "); ok {
		b.imports = append(b.imports, unquote(strings.TrimSpace(name)))
		return true
	}
	if cond, ok := strings.CutPrefix(line, "assign where "); ok {
		b.assign = append(b.assign, cond)
		return true
	}
	if cond, ok := strings.CutPrefix(line, "ignore where "); ok {
		b.ignore = append(b.ignore, cond)
		return true
	}
	a := icingaAssign.FindStringSubmatch(line)
	if a == nil || strings.Contains(a[3], "{") {
		return false
	}
	b.put(strings.Join(append(path[:len(path):len(path)], icingaKey(a[1])), "."), a[3])
	return true
}

func (b *block) put(key, value string) {
	if _, ok := b.set[key]; !ok {
		b.keys = append(b.keys, key)
	}
	b.set[key] = value
}

// icingaKey writes vars.a["b"] as vars.a.b.
func icingaKey(s string) string { return strings.NewReplacer(`["`, ".", `"]`, "").Replace(s) }

func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}

// over lays a block over its templates.
func (b *block) over(templates map[string]*block) *block {
	all := *b
	all.keys, all.set = nil, map[string]string{}
	var lay func(b *block, depth int)
	lay = func(b *block, depth int) {
		for _, name := range b.imports {
			if t := templates[b.kind+" "+name]; t != nil && depth < 20 {
				lay(t, depth+1)
			}
		}
		for _, k := range b.keys {
			all.put(k, b.set[k])
		}
	}
	lay(b, 0)
	return &all
}

// icingaService makes the targets of a service for a host, if it is for it.
func icingaService(r *result, s, h *block) {
	if s.verb == "object" {
		if unquote(s.set["host_name"]) == h.name {
			icingaTarget(r, h.name+"/"+s.name, s, h)
		}
		return
	}
	for _, c := range s.ignore {
		if holds, ok := icingaHolds(c, h); holds && ok {
			return
		}
	}
	for _, c := range s.assign {
		holds, ok := icingaHolds(c, h)
		if !ok {
			r.note("%s: assign where %s can't be read; not carried over", s.where, c)
		}
		if holds && ok {
			icingaTarget(r, h.name+"/"+s.name, s, h)
			return
		}
	}
	if _, rest, ok := strings.Cut(s.loop, " in host."); ok && len(s.assign) == 0 {
		prefix := strings.TrimRight(rest, ") ") + "."
		for _, k := range h.keys {
			entry, ok := strings.CutPrefix(k, prefix)
			if !ok || strings.Contains(entry, ".") {
				continue
			}
			one := *s
			one.keys, one.set = append([]string(nil), s.keys...), map[string]string{}
			for k, v := range s.set {
				one.set[k] = v
			}
			for _, sub := range h.keys {
				if name, ok := strings.CutPrefix(sub, prefix+entry+"."); ok {
					one.put("vars."+name, h.set[sub])
				}
			}
			icingaTarget(r, h.name+"/"+s.name+entry, &one, h)
		}
	}
}

// icingaHolds evaluates a condition about a host: names, ==, !=, !, && and ||
// with parentheses. It is not ok when there is more in it.
func icingaHolds(cond string, h *block) (holds, ok bool) {
	p := &icingaParser{rest: cond, host: h}
	holds = p.either()
	return holds, !p.bad && strings.TrimSpace(p.rest) == ""
}

type icingaParser struct {
	rest string
	host *block
	bad  bool
}

func (p *icingaParser) take(token string) bool {
	p.rest = strings.TrimLeft(p.rest, " \t")
	if !strings.HasPrefix(p.rest, token) {
		return false
	}
	p.rest = p.rest[len(token):]
	return true
}

func (p *icingaParser) either() bool {
	v := p.both()
	for p.take("||") {
		w := p.both()
		v = v || w
	}
	return v
}

func (p *icingaParser) both() bool {
	v := p.term()
	for p.take("&&") {
		w := p.term()
		v = v && w
	}
	return v
}

var icingaOperand = regexp.MustCompile(`^\s*("[^"]*"|[\w.]+)`)

func (p *icingaParser) term() bool {
	if p.take("(") {
		v := p.either()
		p.bad = p.bad || !p.take(")")
		return v
	}
	if !strings.HasPrefix(strings.TrimSpace(p.rest), "!=") && p.take("!") {
		return !p.term()
	}
	left := p.operand()
	if p.take("==") {
		return left == p.operand()
	}
	if p.take("!=") {
		return left != p.operand()
	}
	return left != "" && left != "false"
}

func (p *icingaParser) operand() string {
	m := icingaOperand.FindStringSubmatch(p.rest)
	if m == nil {
		p.bad = true
		p.rest = ""
		return ""
	}
	p.rest = p.rest[len(m[0]):]
	if m[1][0] == '"' {
		return unquote(m[1])
	}
	name, ok := strings.CutPrefix(m[1], "host.")
	switch {
	case m[1] == "true" || m[1] == "false" || m[1] == "NodeName":
		return m[1]
	case !ok:
		p.bad = true
		return ""
	case name == "name":
		return p.host.name
	}
	return unquote(p.host.set[name])
}

// icingaKnown are keys that are carried over, or say nothing to us.
var icingaKnown = map[string]bool{
	"address": true, "address6": true, "check_command": true, "check_interval": true, "retry_interval": true, "max_check_attempts": true,
	"host_name": true, "display_name": true, "enable_active_checks": true,
}

func icingaTarget(r *result, name string, s, h *block) {
	t := r.target(name)
	used := icingaCommand(t, unquote(s.set["check_command"]), s, h)
	if every := s.set["check_interval"]; every != "" {
		if isNumber(every) {
			every += "s"
		}
		t.add("every", every)
	}
	if a := s.set["max_check_attempts"]; a != "" && a != "1" {
		t.note("max_check_attempts = %s: write after = %s in the hooks of pup-route", a, a)
	}
	if s.set["enable_active_checks"] == "false" {
		t.off = true
	}
	for _, k := range s.keys {
		isList := s.set[k] == "{}"
		nested := strings.Count(k, ".") > 1
		if k == "vars" && s.loop != "" {
			continue // those of the entry, which are there
		}
		if !icingaKnown[k] && !used[k] && !isList && !(nested && s == h) && !(s == h && strings.HasPrefix(k, "vars.")) {
			if secretKey(k) {
				t.note("%s is not carried over", k)
			} else {
				t.note("%s = %s is not carried over", k, s.set[k])
			}
		}
	}
	t.add("labels", []pair{{"host", h.name}})
}

// icingaCommand makes a check of a command of Icinga's template library, and
// says which keys it has used.
func icingaCommand(t *table, command string, s, h *block) map[string]bool {
	used := map[string]bool{}
	v := func(name string) string {
		used["vars."+name] = true
		return unquote(s.set["vars."+name])
	}
	address := bracket(unquote(or(h.set["address"], or(h.set["address6"], h.name))))
	port := func(name string) string {
		if p := v(name); p != "" {
			return ":" + p
		}
		return ""
	}
	switch command {
	case "hostalive", "hostalive4", "ping", "ping4":
		t.add("url", "icmp://"+address)
	case "hostalive6", "ping6":
		t.add("url", "icmp://"+bracket(unquote(or(h.set["address6"], address))))
		t.add("family", "6")
	case "http":
		scheme, host := "http", or(v("http_vhost"), address)
		if ssl := v("http_ssl"); ssl != "" && ssl != "false" {
			scheme = "https"
		}
		t.add("url", scheme+"://"+host+port("http_port")+or(v("http_uri"), "/"))
		if text := v("http_string"); text != "" {
			t.expect("http.body contains %s", strconv.Quote(text))
		}
	case "ssh":
		t.add("url", "ssh://"+address+port("ssh_port"))
	case "tcp":
		t.add("url", "tcp://"+address+port("tcp_port"))
	case "smtp":
		t.add("url", "smtp://"+address+port("smtp_port"))
	default:
		t.add("url", "exec:///usr/lib/nagios/plugins/check_"+identifier(or(command, "unknown")))
		t.off = true
		t.note("check_command %s: write the arguments of its plugin under exec", or(command, "is missing"))
	}
	return used
}
