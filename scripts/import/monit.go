package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// readMonit reads the services of a control file of Monit that are on the
// network. What Monit watches on its own host (processes, files, load) is
// reported.
func readMonit(r *result, files []string) error {
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		every := 0
		for _, statement := range monitStatements(string(b)) {
			switch {
			case len(statement) > 2 && statement[0] == "set" && statement[1] == "daemon":
				if every, _ = strconv.Atoi(statement[2]); every > 0 {
					r.defaults = append(r.defaults, pair{"every", fmt.Sprintf("%ds", every)})
				}
			case statement[0] == "check" && len(statement) > 2:
				monitCheck(r, statement, every)
			case statement[0] == "set" && len(statement) > 1 && (statement[1] == "alert" || statement[1] == "mailserver" || statement[1] == "mail-format"):
				r.note("set %s: hooks of pup-route take its place", statement[1])
			default:
				r.note("%s is not carried over", monitText(statement))
			}
		}
	}
	return nil
}

var monitToken = regexp.MustCompile(`"[^"]*"|'[^']*'|\{|\}|[^\s{}]+`)

// monitStatements splits a control file at the words that begin a statement.
func monitStatements(text string) (all [][]string) {
	var now []string
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for i, tok := range monitToken.FindAllString(line, -1) {
			if first := strings.ToLower(tok); i == 0 && (first == "set" || first == "check" || first == "include") && now != nil {
				all = append(all, now)
				now = nil
			}
			now = append(now, strings.Trim(tok, `"'`))
		}
	}
	if now != nil {
		all = append(all, now)
	}
	return all
}

// monitText shows a statement without what may be a password.
func monitText(statement []string) string {
	for i, word := range statement {
		if secretKey(word) || strings.Contains(word, "@") || strings.ToLower(word) == "allow" {
			return strings.Join(statement[:i], " ") + " …"
		}
	}
	s := strings.Join(statement, " ")
	return s[:min(len(s), 160)]
}

func monitCheck(r *result, s []string, daemon int) {
	kind, name := strings.ToLower(s[1]), s[2]
	host := "127.0.0.1"
	rest := s[3:]
	for i, w := range rest {
		if strings.EqualFold(w, "address") && i+1 < len(rest) {
			host = rest[i+1]
			rest = rest[i+2:]
			break
		}
	}
	tests, other := monitTests(rest)
	made := 0
	for _, test := range tests {
		t := monitTarget(r, name, host, test)
		if t == nil {
			other = append(other, "if "+strings.Join(test, " "))
			continue
		}
		made++
		for i, w := range rest {
			if strings.EqualFold(w, "every") && i+2 < len(rest) && strings.HasPrefix(strings.ToLower(rest[i+2]), "cycle") && daemon > 0 {
				if n, err := strconv.Atoi(rest[i+1]); err == nil {
					t.add("every", fmt.Sprintf("%ds", n*daemon))
				}
			}
		}
		t.add("labels", []pair{{"monit", name}})
	}
	for _, o := range other {
		if strings.HasPrefix(o, "every ") && made > 0 && daemon > 0 {
			continue
		}
		r.note("check %s %s: %s is not carried over", kind, name, monitText(strings.Fields(o)))
	}
	if made == 0 && len(other) == 0 {
		r.note("check %s %s: is not about the network; not carried over", kind, name)
	}
}

// monitTests gives the words behind each if, and what else there is.
func monitTests(words []string) (tests [][]string, other []string) {
	var now []string
	in := false
	flush := func() {
		switch {
		case in:
			tests = append(tests, now)
		case len(now) > 0:
			other = append(other, strings.Join(now, " "))
		}
		now = nil
	}
	for i := 0; i < len(words); i++ {
		switch w := strings.ToLower(words[i]); w {
		case "if":
			flush()
			in = true
		case "start", "stop", "restart", "depend", "depends", "group", "mode", "every", "alert", "noalert", "onreboot":
			if in && i > 0 && strings.EqualFold(words[i-1], "then") {
				now = append(now, words[i])
				continue
			}
			flush()
			in = false
			now = append(now, words[i])
		default:
			now = append(now, words[i])
		}
	}
	flush()
	return tests, other
}

// monitSchemes are the protocols of Monit that have a check here.
var monitSchemes = map[string]string{
	"http": "http", "https": "https", "ssh": "ssh", "smtp": "smtp", "smtps": "smtps", "imap": "imap", "imaps": "imaps", "pop": "pop3", "pops": "pop3s",
	"redis": "redis", "mysql": "mysql", "pgsql": "postgres", "postgresql": "postgres", "ldap2": "ldap", "ldap3": "ldap", "dns": "dns", "ntp3": "ntp",
	"mqtt": "mqtt", "lmtp": "lmtp", "memcache": "memcached", "websocket": "ws", "default": "tcp",
}

// monitStatus makes an expression of = 200, >= 400 or 200.
func monitStatus(op string, next func() string) string {
	if isNumber(op) {
		return "http.status == " + op
	}
	if op == "=" {
		op = "=="
	}
	return "http.status " + op + " " + next()
}

var monitFiller = map[string]bool{"times": true, "time": true, "within": true, "cycles": true, "cycle": true}

// monitTarget makes a target of a test such as failed port 80 protocol http,
// or nothing if it is another kind of test.
func monitTarget(r *result, name, host string, test []string) *table {
	if len(test) < 2 || !strings.EqualFold(test[0], "failed") {
		return nil
	}
	scheme, port, path, timeout, udp := "tcp", "", "", "", false
	var expects, notes []string
	for i := 1; i < len(test); i++ {
		next := func() string {
			if i++; i < len(test) {
				return test[i]
			}
			return ""
		}
		switch w := strings.ToLower(test[i]); w {
		case "ping", "icmp", "ping4", "ping6":
			t := r.target(name + "/ping")
			t.add("url", "icmp://"+bracket(host))
			if w == "ping6" {
				t.add("family", "6")
			}
			return t
		case "host", "hostname":
			host = next()
		case "port":
			port = next()
		case "type":
			udp = strings.EqualFold(next(), "udp")
		case "protocol", "proto":
			p := strings.ToLower(next())
			if scheme = monitSchemes[p]; scheme == "" {
				scheme = "tcp"
				notes = append(notes, "protocol "+p+" has no counterpart here")
			}
		case "request":
			path = next()
		case "status":
			expects = append(expects, monitStatus(next(), next))
		case "content":
			op, re := next(), next()
			not := ""
			if op == "!=" {
				not = "not "
			}
			expects = append(expects, fmt.Sprintf("%s(http.body matches %s)", not, text(re)))
		case "timeout":
			timeout = next() + "s"
		case "with", "and", "seconds", "second", "use":
		case "then":
			if action := strings.Join(test[i+1:], " "); !strings.EqualFold(action, "alert") {
				notes = append(notes, "then "+action+": a hook of pup-route may do that")
			}
			i = len(test)
		case "for":
			n := next()
			notes = append(notes, "for "+n+" cycles: write after = "+n+" in the hooks of pup-route")
			for i+1 < len(test) && !strings.EqualFold(test[i+1], "then") && (isNumber(test[i+1]) || monitFiller[strings.ToLower(test[i+1])]) {
				i++ // times within so many cycles
			}
		default:
			notes = append(notes, test[i]+" is not carried over")
		}
	}
	if port == "" {
		return nil
	}
	if udp && scheme == "tcp" {
		scheme = "udp"
	}
	t := r.target(name + "/" + scheme + ":" + port)
	if scheme == "dns" {
		t.add("url", "dns://"+bracket(host)+":"+port+"/.")
		t.option("dns", "type", "NS")
	} else {
		t.add("url", scheme+"://"+bracket(host)+":"+port+path)
	}
	if timeout != "" {
		t.add("timeout", timeout)
	}
	for _, e := range expects {
		t.expect("%s", e)
	}
	for _, n := range notes {
		t.note("%s", n)
	}
	return t
}
