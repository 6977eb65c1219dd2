package main

import (
	"fmt"
	"strings"
)

// readKuma reads a backup of https://github.com/louislam/uptime-kuma.
func readKuma(r *result, files []string) error {
	for _, file := range files {
		doc, err := readTree(file)
		if err != nil {
			return err
		}
		doc.get("version").skip()
		for _, m := range doc.get("monitorList").list() {
			kumaMonitor(r, m)
		}
		for _, n := range doc.get("notificationList").items {
			r.note("notification %s: hooks of pup-route take its place", n.get("name").str())
			n.skip()
		}
		for _, line := range doc.rest() {
			r.note("%s", line)
		}
	}
	return nil
}

// kumaBookkeeping are members that say nothing about the check.
var kumaBookkeeping = []string{"id", "weight", "pathName", "forceInactive", "includeSensitiveData", "path", "childrenIDs", "maintenance", "screenshot", "userId", "user_id"}

func kumaMonitor(r *result, m *tree) {
	t := r.target(m.get("name").str())
	kind := m.get("type").str()
	host, port, url := m.get("hostname").str(), m.get("port").str(), m.get("url").str()
	if !strings.HasPrefix(kind, "http") && kind != "keyword" && kind != "json-query" && (url == "https://" || url == "http://") {
		url = "" // what the form holds at first
	}
	switch kind {
	case "http", "keyword", "json-query":
		t.add("url", url)
		kumaHTTP(t, m, kind)
	case "port":
		t.add("url", fmt.Sprintf("tcp://%s:%s", host, port))
	case "ping":
		t.add("url", "icmp://"+host)
	case "dns":
		server := m.get("dns_resolve_server").str()
		if port != "" && port != "53" {
			server += ":" + port
		}
		t.add("url", "dns://"+server+"/"+host)
		if k := m.get("dns_resolve_type").str(); k != "" {
			t.option("dns", "type", k)
		}
	case "redis", "postgres", "mysql", "mongodb":
		kumaDatabase(t, m, kind)
	case "group":
		t.add("url", "tcp://invalid.example:1")
		t.off = true
		t.note("a group: give its members a label in its place")
	default:
		t.add("url", "tcp://"+or(host, "invalid.example")+":"+or(port, "1"))
		t.off = true
		t.note("type %s has no counterpart here", kind)
	}
	if s := m.get("interval").str(); s != "" && s != "0" {
		t.add("every", s+"s")
	}
	if s := m.get("timeout").str(); s != "" && s != "0" && s != "48" {
		t.add("timeout", s+"s")
	}
	if n := m.get("maxretries").num(); n > 0 {
		t.add("retries", min(n, 20))
		t.note("maxretries: attempts follow each other within a run here; hooks have after for several runs")
		if s := m.get("retryInterval").str(); s != "" {
			t.add("retry_wait", s+"s")
		}
	}
	m.get("retryInterval").skip()
	if m.get("active").is("false", "0") {
		t.off = true
	}
	m.get("active").skip()
	var labels []pair
	for _, tag := range m.get("tags").items {
		labels = append(labels, pair{strings.NewReplacer("/", "-", ":", "-", "@", "-").Replace(identifier(tag.get("name").str())), or(tag.get("value").str(), "yes")})
		tag.skip()
	}
	if labels != nil {
		t.add("labels", labels)
	}
	if m.get("notificationIDList").exists() {
		m.get("notificationIDList").skip()
		t.note("notifications: hooks of pup-route take their place")
	}
	if m.get("upsideDown").is("true", "1") {
		t.note("upsideDown: say what is to fail, as in expect = [\"reason == 'refused'\"]")
	}
	for _, key := range kumaBookkeeping {
		m.get(key).skip()
	}
	t.rest(m)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func kumaHTTP(t *table, m *tree, kind string) {
	if method := m.get("method").str(); method != "" && method != "GET" {
		t.option("http", "method", method)
	}
	if body := m.get("body").str(); body != "" {
		t.option("http", "body", body)
	}
	m.get("httpBodyEncoding").skip()
	if h := m.get("headers"); h.exists() {
		t.note("headers: write them under http.headers, or http.secret_headers for credentials")
		h.skip()
	}
	switch auth := m.get("authMethod").str(); auth {
	case "", "null":
	case "basic":
		t.option("http", "user", m.get("basic_auth_user").str())
		t.option("http", "password", t.secret("password"))
	default:
		t.note("authMethod %s is not carried over", auth)
	}
	m.get("basic_auth_pass").skip()
	var codes []string
	for _, c := range m.get("accepted_statuscodes").strs() {
		if lo, hi, ok := strings.Cut(c, "-"); ok {
			codes = append(codes, fmt.Sprintf("http.status >= %s and http.status <= %s", lo, hi))
		} else {
			codes = append(codes, "http.status == "+c)
		}
	}
	if len(codes) > 0 && !(len(codes) == 1 && codes[0] == "http.status >= 200 and http.status <= 299") {
		t.expect("%s", strings.Join(codes, " or "))
	}
	if word := m.get("keyword").str(); word != "" && kind == "keyword" {
		if m.get("invertKeyword").is("true", "1") {
			t.expect("not (http.body contains %s)", text(word))
		} else {
			t.expect("http.body contains %s", text(word))
		}
	}
	if path := m.get("jsonPath").str(); path != "" && kind == "json-query" {
		if plainPath.MatchString("." + path) {
			t.expect("string(http.json.%s) == %s", path, text(m.get("expectedValue").str()))
		} else {
			t.note("jsonPath %s: write it as an expression over http.json", path)
		}
	}
	if m.get("ignoreTls").is("true", "1") {
		t.option("tls", "verify", false)
	}
	if n := m.get("maxredirects"); n.exists() && n.text != "10" {
		t.option("http", "redirects", min(n.num(), 20))
	}
	m.get("maxredirects").skip()
	if m.get("expiryNotification").is("true", "1") {
		t.add("warn", []string{"tls.days_left > 21"})
	}
}

// kumaDatabase takes a connection string apart; its password stays behind.
func kumaDatabase(t *table, m *tree, kind string) {
	s := m.get("databaseConnectionString").str()
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		t.add("url", "tcp://invalid.example:1")
		t.off = true
		t.note("the connection string can't be read")
		return
	}
	if user, host, ok := cutLast(rest, "@"); ok {
		name, _, secret := strings.Cut(user, ":")
		rest = host
		if name != "" {
			t.option(kind, "user", name)
		}
		if secret {
			t.option(kind, "password", t.secret("password"))
		}
	}
	t.add("url", strings.Replace(scheme, "postgresql", "postgres", 1)+"://"+rest)
	if query := m.get("databaseQuery").str(); query != "" {
		t.note("databaseQuery %s is not carried over", query)
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}
