package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// An object is a define of Nagios or an object of Icinga.
type object struct {
	kind  string
	where string // file:line
	keys  []string
	set   map[string]string
}

func (o *object) put(key, value string) {
	if _, ok := o.set[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.set[key] = value
}

// A nagios configuration, with its templates resolved.
type nagios struct {
	objects   []*object
	templates map[string]*object // kind and name
	commands  map[string]string
	macros    map[string]string // $USER1$ and so on
	groups    map[string][]string
	hosts     map[string]*object
}

// readNagios reads object files and, for macros such as $USER1$, resource
// files.
func readNagios(r *result, files []string) error {
	n := &nagios{
		templates: map[string]*object{}, commands: map[string]string{}, hosts: map[string]*object{}, groups: map[string][]string{},
		macros: map[string]string{"$USER1$": "/usr/lib/nagios/plugins"},
	}
	for _, f := range files {
		if err := n.read(f); err != nil {
			return err
		}
	}
	for _, o := range n.objects {
		o := n.resolve(o)
		switch o.kind {
		case "command":
			n.commands[o.set["command_name"]] = o.set["command_line"]
		case "host":
			if o.set["register"] != "0" {
				n.hosts[o.set["host_name"]] = o
				for _, g := range list(o.set["hostgroups"]) {
					n.groups[g] = append(n.groups[g], o.set["host_name"])
				}
			}
		case "hostgroup":
			n.groups[o.set["hostgroup_name"]] = append(n.groups[o.set["hostgroup_name"]], list(o.set["members"])...)
		}
	}
	left := map[string]int{}
	for _, raw := range n.objects {
		o := n.resolve(raw)
		switch {
		case o.set["register"] == "0":
		case o.kind == "host":
			n.host(r, o)
		case o.kind == "service":
			n.service(r, o)
		case o.kind != "command" && o.kind != "hostgroup":
			left[o.kind]++
		}
	}
	for _, kind := range sortedKeys(left) {
		r.note("%d objects of type %s are not carried over%s", left[kind], kind, nagiosHints[kind])
	}
	return nil
}

var nagiosHints = map[string]string{
	"contact": ": hooks of pup-route take their place", "contactgroup": ": hooks of pup-route take their place",
	"timeperiod": ": write [[window]]s and name them under active",
}

func (n *nagios) read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var o *object
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for no := 1; sc.Scan(); no++ {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") || line == "" {
			continue
		}
		if i := strings.Index(line, ";"); i >= 0 && (i == 0 || line[i-1] != '\\') {
			line = strings.TrimSpace(line[:i])
		}
		switch kind, isDefine := strings.CutPrefix(line, "define"); {
		case o == nil && isDefine:
			o = &object{kind: strings.TrimSpace(strings.TrimRight(kind, "{ \t")), where: fmt.Sprintf("%s:%d", path.Base(file), no), set: map[string]string{}}
		case o == nil:
			if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, "$") {
				n.macros[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		case line == "{":
		case line == "}":
			n.objects = append(n.objects, o)
			if name := o.set["name"]; name != "" {
				n.templates[o.kind+" "+name] = o
			}
			o = nil
		default:
			key, value := line, ""
			if i := strings.IndexAny(line, " \t"); i >= 0 {
				key, value = line[:i], strings.TrimSpace(line[i:])
			}
			o.put(key, value)
		}
	}
	return sc.Err()
}

// resolve lays an object over its templates.
func (n *nagios) resolve(o *object) *object { return n.over(o, 0) }

func (n *nagios) over(o *object, depth int) *object {
	all := &object{kind: o.kind, where: o.where, set: map[string]string{}}
	for _, name := range slices.Backward(list(o.set["use"])) {
		if t := n.templates[o.kind+" "+name]; t != nil && depth < 20 {
			base := n.over(t, depth+1)
			for _, k := range base.keys {
				if k != "register" && k != "name" {
					all.put(k, base.set[k])
				}
			}
		}
	}
	for _, k := range o.keys {
		all.put(k, o.set[k])
	}
	return all
}

func list(s string) []string {
	var all []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			all = append(all, p)
		}
	}
	return all
}

// nagiosCarried are the keys that are carried over, or say nothing to us.
var nagiosCarried = []string{
	"use", "name", "register", "host_name", "alias", "address", "display_name", "service_description", "check_command", "hostgroup_name", "hostgroups", "parents",
	"check_interval", "normal_check_interval", "max_check_attempts", "retry_interval", "retry_check_interval", "active_checks_enabled",
	"passive_checks_enabled", "event_handler_enabled", "flap_detection_enabled", "process_perf_data", "retain_status_information",
	"retain_nonstatus_information", "is_volatile", "parallelize_check", "obsess_over_service", "notifications_enabled", "check_freshness",
	"icon_image", "icon_image_alt", "vrml_image", "statusmap_image", "failure_prediction_enabled",
}

// common sets what hosts and services share.
func (n *nagios) common(r *result, t *table, o *object) {
	every := or(o.set["check_interval"], o.set["normal_check_interval"])
	if isNumber(every) && every != "0" {
		t.add("every", minutes(every))
	}
	if a := o.set["max_check_attempts"]; a != "" && a != "1" {
		t.note("max_check_attempts = %s: write after = %s in the hooks of pup-route", a, a)
	}
	if o.set["active_checks_enabled"] == "0" {
		t.off = true
	}
	for _, k := range o.keys {
		if !slices.Contains(nagiosCarried, k) {
			hint := ""
			switch {
			case strings.HasPrefix(k, "contact"), strings.HasPrefix(k, "notification"), strings.HasPrefix(k, "first_notification"):
				hint = ": hooks of pup-route take its place"
			case k == "check_period" && o.set[k] == "24x7":
				continue
			case k == "check_period":
				hint = ": write a [[window]] and name it under active"
			}
			t.note("%s = %s is not carried over%s", k, o.set[k], hint)
		}
	}
}

// minutes gives Nagios' usual unit as a duration.
func minutes(s string) string {
	if strings.Contains(s, ".") {
		var m float64
		fmt.Sscan(s, &m)
		return fmt.Sprintf("%gs", m*60)
	}
	return s + "m"
}

func (n *nagios) host(r *result, o *object) {
	host := o.set["host_name"]
	if o.set["check_command"] == "" {
		return // nothing is checked
	}
	t := r.target(host)
	n.command(t, o.set["check_command"], o)
	n.common(r, t, o)
	if parents := list(o.set["parents"]); parents != nil {
		t.add("depends_on", parents)
	}
	t.add("labels", []pair{{"host", host}})
}

func (n *nagios) service(r *result, o *object) {
	hosts := list(o.set["host_name"])
	for _, g := range list(o.set["hostgroup_name"]) {
		hosts = append(hosts, n.groups[g]...)
	}
	if slices.Contains(hosts, "*") {
		hosts = sortedKeys(n.hosts)
	}
	if hosts == nil {
		r.note("%s: the service %s is of no host", o.where, o.set["service_description"])
	}
	for _, host := range hosts {
		h := n.hosts[host]
		if h == nil {
			r.note("%s: there is no host %s", o.where, host)
			continue
		}
		t := r.target(host + "/" + o.set["service_description"])
		n.command(t, o.set["check_command"], h)
		n.common(r, t, o)
		if h.set["check_command"] != "" {
			t.add("depends_on", []string{identifier(host)})
		}
		t.add("labels", []pair{{"host", host}})
	}
}

// command makes a check of a command: an own one where it says the same, else
// the plugin itself.
func (n *nagios) command(t *table, call string, host *object) {
	parts := strings.Split(call, "!")
	address := or(host.set["address"], host.set["host_name"])
	line, known := n.commands[parts[0]]
	if parts[0] == "check-host-alive" || parts[0] == "check_ping" || parts[0] == "hostalive" {
		t.add("url", "icmp://"+bracket(address))
		if len(parts) > 1 {
			t.note("%s: write its limits as expressions, such as icmp.loss_percent < 20", call)
		}
		return
	}
	if !known {
		t.add("url", "icmp://"+bracket(address))
		t.off = true
		t.note("check_command %s: there is no such command", call)
		return
	}
	expand := []string{"$HOSTADDRESS$", address, "$HOSTNAME$", host.set["host_name"], "$HOSTALIAS$", or(host.set["alias"], host.set["host_name"])}
	for i := 1; i <= 32; i++ {
		arg := ""
		if i < len(parts) {
			arg = parts[i]
		}
		expand = append(expand, fmt.Sprintf("$ARG%d$", i), arg)
	}
	for _, m := range sortedKeys(n.macros) {
		expand = append(expand, m, n.macros[m])
	}
	plugin(t, strings.NewReplacer(expand...).Replace(line))
}

// plugin makes an exec check of a command line.
func plugin(t *table, line string) {
	argv, shell := words(line)
	if len(argv) == 0 {
		argv = []string{"/bin/false"}
	}
	if shell {
		argv = []string{"/bin/sh", "-c", line}
		t.note("the command needs a shell: %s", line)
	}
	if strings.Contains(line, "$") && !shell {
		t.note("a macro is left in %s", line)
	}
	t.add("url", "exec://"+argv[0])
	if len(argv) > 1 {
		t.add("exec", []pair{{"args", argv[1:]}})
	}
}

// words splits a line as a shell would, and tells whether it needs one.
func words(line string) (argv []string, shell bool) {
	var word strings.Builder
	var quote rune
	open := false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == ' ' || c == '\t':
			if word.Len() > 0 || open {
				argv = append(argv, word.String())
			}
			word.Reset()
			open = false
		case strings.ContainsRune("|&;<>()`\\", c):
			shell = true
			word.WriteRune(c)
		default:
			word.WriteRune(c)
		}
	}
	if word.Len() > 0 || open {
		argv = append(argv, word.String())
	}
	return argv, shell
}

func bracket(address string) string {
	if strings.Contains(address, ":") {
		return "[" + address + "]"
	}
	return address
}
