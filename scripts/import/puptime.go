package main

import (
	"fmt"
	"strings"
)

// readPuptime reads https://github.com/IRIS-NITK/puptime.
func readPuptime(r *result, files []string) error {
	for _, file := range files {
		doc, err := readTree(file)
		if err != nil {
			return err
		}
		for _, m := range doc.get("monitors").items {
			group, name := m.get("group").str(), m.get("name").str()
			t := r.target(strings.Trim(group+"/"+name, "/"))
			kind := m.get("type").str()
			o := m.get("options")
			host := o.get("ip_addr").str()
			if host == "" {
				host = o.get("host").str()
			}
			switch strings.ToLower(kind) {
			case "tcp":
				t.add("url", fmt.Sprintf("tcp://%s:%s", host, o.get("port").str()))
			case "redis":
				url := "redis://" + host
				if port := o.get("port").str(); port != "" {
					url += ":" + port
				}
				if db := o.get("db").str(); db != "" {
					url += "/" + db
				}
				t.add("url", url)
				if o.get("password").exists() {
					o.get("password").skip()
					t.option("redis", "password", t.secret("password"))
				}
			case "dns":
				puptimeDNS(t, o)
			case "http", "https":
				t.add("url", o.get("url").str())
			case "icmp", "ping":
				t.add("url", "icmp://"+host)
			default:
				t.add("url", "tcp://invalid.example:1")
				t.off = true
				t.note("type %s is unknown here", kind)
			}
			if every := m.get("interval").str(); every != "" {
				t.add("every", every)
			}
			if group != "" {
				t.add("labels", []pair{{"group", group}})
			}
			t.rest(m)
		}
		if doc.get("notifications").exists() {
			r.note("notifications: hooks of pup-route take their place; see pup-hooks(5) and scripts/hooks")
			for _, n := range doc.get("notifications").items {
				r.note("notification by %s is not carried over", n.get("channel").str())
				n.skip()
			}
		}
		for _, line := range doc.rest() {
			r.note("%s", line)
		}
	}
	return nil
}

// puptimeDNS asks for a record and compares the answers. Without match all of
// the results must come, with match at least one.
func puptimeDNS(t *table, o *tree) {
	t.add("url", "dns://127.0.0.1/"+o.get("resource").str())
	t.note("the system's resolver was asked: put the address of a resolver into the url")
	if kind := o.get("record_type").str(); kind != "" {
		t.option("dns", "type", kind)
	}
	var want []string
	for _, s := range strings.Split(o.get("results").str(), ",") {
		if s = strings.TrimSpace(s); s != "" {
			want = append(want, s)
		}
	}
	if want == nil {
		return
	}
	if o.get("match").exists() {
		n := o.get("match").str()
		t.option("dns", "any", want)
		if n != "1" {
			t.note("match = %s: one of the results is enough here", n)
		}
		return
	}
	t.option("dns", "answers", want)
}
