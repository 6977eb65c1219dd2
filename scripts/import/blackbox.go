package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// readBlackbox reads modules of
// https://github.com/prometheus/blackbox_exporter, which become templates. If
// a second file is named, it is Prometheus' own configuration, whose static
// targets become targets. Without it, every module gets one that is not
// enabled.
func readBlackbox(r *result, files []string) error {
	doc, err := readTree(files[0])
	if err != nil {
		return err
	}
	modules := doc.get("modules")
	probers := map[string]*tree{}
	for _, name := range modules.keys {
		m := modules.kids[name]
		probers[name] = m
		blackboxModule(r.template(name), m)
	}
	for _, line := range doc.rest() {
		r.note("%s", line)
	}
	if len(files) == 1 {
		r.note("Prometheus' configuration was not named, which holds the targets: one for each module stands in their place, and is not enabled")
		for _, name := range modules.keys {
			t := r.target(name)
			t.add("use", []string{identifier(name)})
			t.add("url", blackboxURL("host.example.org", probers[name]))
			t.off = true
		}
	}
	for _, file := range files[1:] {
		if err := readPrometheus(r, file, probers); err != nil {
			return err
		}
	}
	return nil
}

func blackboxModule(t *table, m *tree) {
	prober := m.get("prober").str()
	if timeout := m.get("timeout").str(); timeout != "" {
		t.add("timeout", timeout)
	}
	o := m.get(prober)
	switch prober {
	case "http":
		blackboxHTTP(t, o)
	case "tcp", "unix":
		blackboxSteps(t, o)
	case "dns":
		blackboxDNS(t, o)
	case "icmp":
	case "grpc":
		if service := o.get("service").str(); service != "" {
			t.option("grpc", "services", []string{service})
		}
		o.get("tls").skip() // in the scheme
	case "websocket":
		headers(t, o.get("headers"))
		blackboxClient(t, o.get("http_config"))
	default:
		t.note("prober %s is unknown here", prober)
	}
	if prober != "websocket" && prober != "http" {
		blackboxTLS(t, o.get("tls_config"))
	}
	switch family := o.get("preferred_ip_protocol"); {
	case family.is("ip4"):
		t.add("family", "4")
	case family.is("ip6"):
		t.add("family", "6")
	}
	if o.get("preferred_ip_protocol").exists() && !o.get("ip_protocol_fallback").is("false") {
		t.note("family: there is no falling back to the other IP version; leave family out to use both")
	}
	if source := o.get("source_ip_address").str(); source != "" {
		t.add("source", source)
	}
	t.rest(m)
}

func blackboxHTTP(t *table, o *tree) {
	if method := o.get("method").str(); method != "" {
		t.option("http", "method", method)
	}
	if codes := o.get("valid_status_codes").strs(); len(codes) > 0 {
		t.expect("http.status in [%s]", strings.Join(codes, ", "))
	}
	if versions := o.get("valid_http_versions").strs(); len(versions) > 0 {
		var list []string
		for _, v := range versions {
			v = strings.TrimSuffix(strings.TrimPrefix(v, "HTTP/"), ".0")
			if v == "3" {
				t.note("valid_http_versions: HTTP/3 is not spoken")
			}
			list = append(list, text(v))
		}
		t.expect("http.version in [%s]", strings.Join(list, ", "))
	}
	headers(t, o.get("headers"))
	for _, name := range o.get("http_headers").keys {
		values := o.get("http_headers", name, "values").strs()
		switch {
		case len(values) == 0:
			o.get("http_headers", name).skip()
			t.option("http", "secret_headers", []pair{{name, t.secret(name)}})
		case len(values) == 1:
			t.option("http", "headers", []pair{{name, values[0]}})
		default:
			t.note("http_headers.%s has several values: the first is taken", name)
			t.option("http", "headers", []pair{{name, values[0]}})
		}
	}
	if body := o.get("body").str(); body != "" {
		t.option("http", "body", body)
	}
	if o.get("compression").is("gzip") {
		t.option("http", "compression", true)
	}
	for _, re := range o.get("fail_if_body_matches_regexp").strs() {
		t.expect("not (http.body matches %s)", text(re))
	}
	for _, re := range o.get("fail_if_body_not_matches_regexp").strs() {
		t.expect("http.body matches %s", text(re))
	}
	for _, h := range o.get("fail_if_header_matches").items {
		t.expect("not (%s)", blackboxHeader(h))
	}
	for _, h := range o.get("fail_if_header_not_matches").items {
		t.expect("%s", blackboxHeader(h))
	}
	if o.get("fail_if_not_ssl").is("true") {
		t.expect(`tls.version != ""`)
	}
	if proxy := o.get("proxy_url").str(); proxy != "" {
		t.add("proxy", proxy)
		o.get("skip_resolve_phase_with_proxy").skip()
	}
	blackboxClient(t, o)
	if o.get("follow_redirects").is("false") {
		t.option("http", "redirects", 0)
	}
	o.get("follow_redirects").is("true")
	o.get("enable_http2").is("true")
}

func blackboxHeader(h *tree) string {
	h.get("allow_missing").skip()
	field := text(strings.ToLower(h.get("header").str()))
	return fmt.Sprintf("(http.headers[%s] ?? \"\") matches %s", field, text(h.get("regexp").str()))
}

// blackboxClient carries over what Prometheus calls http_client_config.
func blackboxClient(t *table, o *tree) {
	if user := o.get("basic_auth", "username").str(); user != "" {
		t.option("http", "user", user)
		t.option("http", "password", t.secret("password"))
		o.get("basic_auth").skip()
	}
	if o.get("authorization").exists() {
		o.get("authorization").skip()
		t.option("http", "token", t.secret("token"))
	}
	blackboxTLS(t, o.get("tls_config"))
}

func blackboxTLS(t *table, o *tree) {
	if o.get("insecure_skip_verify").is("true") {
		t.option("tls", "verify", false)
	}
	for _, key := range []string{"ca_file", "cert_file", "server_name"} {
		if v := o.get(key).str(); v != "" {
			t.option("tls", strings.TrimSuffix(key, "_file"), v)
		}
	}
	if o.get("key_file").exists() {
		o.get("key_file").skip()
		t.option("tls", "key", t.secret("key"))
	}
	if v := o.get("min_version").str(); v != "" {
		v = strings.TrimPrefix(v, "TLS")
		t.option("tls", "min_version", v[:1]+"."+strings.TrimPrefix(v[1:]+"0", ".")[:1])
	}
}

// blackboxSteps carries over a conversation. Blackbox_exporter ends what it
// sends with a line feed, and waits for lines that match.
func blackboxSteps(t *table, o *tree) {
	var steps [][]pair
	if o.get("tls").is("true") {
		steps = append(steps, []pair{{"starttls", true}})
	}
	for _, q := range o.get("query_response").items {
		if e := q.get("expect"); e.exists() {
			steps = append(steps, []pair{{"expect_regex", "(?m)" + e.str()}})
		}
		if e := q.get("expect_bytes"); e.exists() {
			steps = append(steps, []pair{{"expect", e.str()}})
		}
		switch s := q.get("send"); {
		case s.tag == "!!binary":
			if b, err := base64.StdEncoding.DecodeString(s.str()); err == nil {
				steps = append(steps, []pair{{"send_hex", hex.EncodeToString(b)}})
			}
		case s.exists():
			if strings.Contains(s.text, "${") {
				t.note("send %s: what a step has caught can't be sent; the text is sent as it is", s.text)
			}
			steps = append(steps, []pair{{"send", s.str() + "\n"}})
		}
		if q.get("starttls").is("true") {
			steps = append(steps, []pair{{"starttls", true}})
		}
	}
	if steps != nil {
		t.option("tcp", "steps", steps)
	}
}

func blackboxDNS(t *table, o *tree) {
	o.get("query_name").skip() // in the URL
	o.get("transport_protocol").skip()
	if kind := o.get("query_type").str(); kind != "" {
		t.option("dns", "type", kind)
	}
	switch codes := o.get("valid_rcodes").strs(); len(codes) {
	case 0:
	case 1:
		t.option("dns", "rcode", codes[0])
	default:
		t.note("valid_rcodes: the first is taken")
		t.option("dns", "rcode", codes[0])
	}
}

// blackboxURL makes a URL of what Prometheus calls a target.
func blackboxURL(host string, m *tree) string {
	if strings.Contains(host, "://") {
		return host
	}
	prober := m.get("prober").text
	o := m.get(prober)
	switch prober {
	case "websocket":
		return "ws://" + host
	case "grpc":
		if !strings.Contains(host, ":") {
			host += ":50051" // the usual one; Prometheus' targets name theirs
		}
		if o.get("tls").text == "true" {
			return "grpcs://" + host
		}
	case "tcp":
		if !strings.Contains(host, ":") {
			return "tcp://" + host + ":1"
		}
	case "unix":
		return "unix://" + host
	case "dns":
		scheme := "dns"
		if o.get("transport_protocol").text == "tcp" {
			scheme = "dns+tcp"
		}
		return scheme + "://" + host + "/" + o.get("query_name").text
	}
	return prober + "://" + host
}

// readPrometheus takes the static targets of the jobs that use a module.
func readPrometheus(r *result, file string, probers map[string]*tree) error {
	doc, err := readTree(file)
	if err != nil {
		return err
	}
	every := doc.get("global", "scrape_interval").str()
	for _, job := range doc.get("scrape_configs").items {
		name := job.get("job_name").str()
		modules := job.get("params", "module").strs()
		if len(modules) == 0 || probers[modules[0]] == nil {
			r.note("job %s: uses no module of blackbox_exporter that is there; not carried over", name)
			job.skip()
			continue
		}
		interval := job.get("scrape_interval").str()
		if interval == "" {
			interval = every
		}
		for _, static := range job.get("static_configs").items {
			for _, host := range static.get("targets").strs() {
				t := r.target(name + "/" + strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"), "/"))
				t.add("use", []string{identifier(modules[0])})
				t.add("url", blackboxURL(host, probers[modules[0]]))
				if interval != "" {
					t.add("every", interval)
				}
				labels := []pair{{"job", name}}
				for _, k := range static.get("labels").keys {
					labels = append(labels, pair{k, static.get("labels", k).str()})
				}
				t.add("labels", labels)
			}
		}
		job.get("metrics_path").skip()
		job.get("scheme").skip()
		job.get("relabel_configs").skip() // the usual ones say where the exporter is
	}
	for _, line := range doc.rest() {
		r.note("%s", line)
	}
	return nil
}
