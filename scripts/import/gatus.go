package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// readGatus reads https://github.com/TwiN/gatus.
func readGatus(r *result, files []string) error {
	for _, file := range files {
		doc, err := readTree(file)
		if err != nil {
			return err
		}
		for _, e := range doc.get("endpoints").items {
			gatusEndpoint(r, e)
		}
		for _, line := range doc.rest() {
			r.note("%s", line)
		}
	}
	return nil
}

func gatusEndpoint(r *result, e *tree) {
	group, name := e.get("group").str(), e.get("name").str()
	t := r.target(strings.Trim(group+"/"+name, "/"))
	url := e.get("url").str()
	check, _, _ := strings.Cut(url, "://")
	check = strings.TrimSuffix(check, "s")
	if dns := e.get("dns"); dns.exists() {
		check = "dns"
		url = "dns://" + strings.TrimPrefix(url, "dns://") + "/" + dns.get("query-name").str()
		if kind := dns.get("query-type").str(); kind != "" {
			defer t.option("dns", "type", kind)
		}
	}
	switch check {
	case "http", "dns", "icmp", "tcp", "ssh", "udp", "w":
	case "tl":
		check = "tls"
	case "starttl":
		check, url = "smtp", "smtp://"+strings.TrimPrefix(url, "starttls://")
		t.note("starttls: an SMTP server is assumed")
	default:
		t.note("url %s: see whether a check speaks that", url)
	}
	t.add("url", url)
	if every := e.get("interval").str(); every != "" {
		t.add("every", every)
	}
	if timeout := e.get("client", "timeout").str(); timeout != "" {
		t.add("timeout", timeout)
	}
	if e.get("enabled").is("false") {
		t.off = true
	}
	e.get("enabled").skip()
	if method := e.get("method").str(); method != "" {
		t.option("http", "method", method)
	}
	if body := e.get("body").str(); body != "" {
		t.option("http", "body", body)
	}
	headers(t, e.get("headers"))
	if e.get("client", "insecure").is("true") {
		t.option("tls", "verify", false)
	}
	if e.get("client", "ignore-redirect").is("true") {
		t.option("http", "redirects", 0)
	}
	for _, c := range e.get("conditions").strs() {
		if text, ok := gatusCondition(c, check); !ok {
			t.note("condition %s is not carried over", c)
		} else if text != "" {
			t.expect("%s", text)
		}
	}
	if group != "" {
		t.add("labels", []pair{{"group", group}})
	}
	if e.get("alerts").exists() {
		t.note("alerts: hooks of pup-route take their place")
		e.get("alerts").skip()
	}
	t.rest(e)
}

// headers carries header fields over; those that may hold credentials by
// reference.
func headers(t *table, h *tree) {
	var open, secret []pair
	for _, k := range h.keys {
		if secretKey(k) {
			h.kids[k].skip()
			secret = append(secret, pair{k, t.secret(k)})
		} else {
			open = append(open, pair{k, h.kids[k].str()})
		}
	}
	if open != nil {
		t.option("http", "headers", open)
	}
	if secret != nil {
		t.option("http", "secret_headers", secret)
	}
}

var (
	condition = regexp.MustCompile(`^\s*(.+?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*$`)
	plainPath = regexp.MustCompile(`^(\.[A-Za-z_][A-Za-z0-9_]*|\[[0-9]+\])+$`)
)

// gatusCondition translates a condition. An empty text with ok is one that
// holds anyway.
func gatusCondition(c, check string) (expression string, ok bool) {
	m := condition.FindStringSubmatch(c)
	if m == nil {
		return "", false
	}
	left, op, right := m[1], m[2], m[3]
	switch left {
	case "[CONNECTED]":
		return "", op == "==" && right == "true"
	case "[STATUS]":
		if list, ok := strings.CutPrefix(right, "any("); ok && op == "==" {
			return "http.status in [" + strings.TrimSuffix(list, ")") + "]", true
		}
		return "http.status " + op + " " + right, isNumber(right)
	case "[RESPONSE_TIME]":
		return "ms.total " + op + " " + right, isNumber(right)
	case "[CERTIFICATE_EXPIRATION]":
		d, err := time.ParseDuration(right)
		return "tls.days_left " + op + " " + strconv.FormatFloat(d.Hours()/24, 'f', -1, 64), err == nil
	case "[DNS_RCODE]":
		return "dns.rcode " + op + " " + text(right), true
	case "[IP]":
		return "address contains " + text(right), op == "=="
	}
	value, ok := gatusBody(left, check)
	if !ok {
		return "", false
	}
	if check == "dns" {
		return fmt.Sprintf("any(dns.answers, %s)", gatusMatch("#", op, right)), op == "=="
	}
	return gatusMatch(value, op, right), true
}

// gatusBody names the part of the answer that a condition is about.
func gatusBody(left, check string) (string, bool) {
	if inner, ok := strings.CutPrefix(left, "len("); ok {
		value, ok := gatusBody(strings.TrimSuffix(inner, ")"), check)
		return "len(" + value + ")", ok
	}
	path, ok := strings.CutPrefix(left, "[BODY]")
	switch {
	case !ok:
		return "", false
	case path == "":
		return "http.body", true
	}
	return "http.json" + path, plainPath.MatchString(path)
}

// gatusMatch compares a value with a literal or a pattern.
func gatusMatch(value, op, right string) string {
	if pattern, ok := strings.CutPrefix(right, "pat("); ok {
		re := "^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSuffix(pattern, ")")), `\*`, "(?s:.*)") + "$"
		if op == "!=" {
			return fmt.Sprintf("not (%s matches %s)", value, text(re))
		}
		return fmt.Sprintf("%s matches %s", value, text(re))
	}
	if !isNumber(right) && right != "true" && right != "false" {
		right = text(strings.Trim(right, `"`))
	} else if value == "http.body" {
		right = text(right)
	}
	return value + " " + op + " " + right
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}
