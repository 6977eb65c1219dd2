package checks

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/golden"
	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/probe"
)

// A matrixServer is a column: a real server, or a liar.
type matrixServer struct{ name, addr string }

// A matrixCheck is a row: a check as it is used on its own servers, which are
// the columns of its own. HOST stands for the server.
type matrixCheck struct {
	url, target string
	own         []string
}

// TestMatrix has every check meet every real server and every liar: it is up
// at its own servers and nowhere else. With PUP_UPDATE set (make matrix) it
// writes what it saw to docs/matrix.md.
func TestMatrix(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("<!-- Made by 'make matrix' from cmd/pup-probe/internal/checks/matrix_test.go. Do not edit. -->\n\n# Every check against every server\n\n" +
		"Columns are checks with the options that they need for their own server; rows are the real servers that the tests start, and liars. A check must be **up** at its own servers and down everywhere else. " +
		"The reason in a cell is what was seen when the table was made: where a server may close a connection sooner or later, it can be `closed`, `reset`, `timeout` or `protocol`.\n")
	overTCP, tcpServers := matrixTCP(t)
	matrixTable(t, &doc, "Over TCP", overTCP, tcpServers, matrixLiars(t))
	overUDP, udpServers := matrixUDP(t)
	matrixTable(t, &doc, "Over UDP", overUDP, udpServers, []matrixServer{
		{"silent", serveUDP(t, func([]byte) [][]byte { return nil })},
		{"echo", serveUDP(t, func(b []byte) [][]byte { return [][]byte{b} })},
		{"garbage", serveUDP(t, func([]byte) [][]byte { return [][]byte{[]byte("\xff\x00garbage\r\n")} })},
		{"closed port", realserver.ClosedPort(t)},
	})
	doc.WriteString("\netcd speaks gRPC on the same port, with the health service. The checks mongodb and elasticsearch are tested against transcripts, kafka against a broker within the tests: none of these has a server among Debian's packages, so they have no row of their own here and must be down everywhere. The check mailtrip uses those of smtp, imap and pop3. The checks tcp and udp accept whatever answers, unless their steps say otherwise; exec, file, unix and icmp have no server to mistake.\n")
	if os.Getenv("PUP_UPDATE") != "" {
		golden.File(t, "docs/matrix.md", []byte(doc.String()))
	}
}

func matrixLiars(t *testing.T) []matrixServer {
	return []matrixServer{
		{"silent", serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })},
		{"closes at once", serve(t, func(net.Conn) {})},
		{"echo", serve(t, func(c net.Conn) { io.Copy(c, c) })},
		{"garbage", serve(t, noisy("\xff\x00\x1b"))},
		{"lines", serve(t, noisy("abc\r\n"))},
		{"banner only", serve(t, func(c net.Conn) { io.WriteString(c, "220 ready\r\n"); io.Copy(io.Discard, c) })},
		{"closed port", realserver.ClosedPort(t)},
	}
}

func matrixTCP(t *testing.T) ([]matrixCheck, []matrixServer) {
	get := func(name string) map[string]string { return realserver.Shared(t, name) }
	web, knot, redis, mail, exim, ftp, ssh := get("nginx"), get("knot"), get("redis"), get("mail"), get("exim"), get("ftp"), get("ssh")
	mem, pg, my, mqtt, amqp, nats := get("memcached"), get("postgres"), get("mysql"), get("mosquitto"), get("rabbitmq"), get("nats")
	etcd, ldap, xmpp, ws, sip := get("etcd"), get("ldap"), get("xmpp"), get("websocket"), get("sip")
	ca := func(s map[string]string) string { return fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"]) }
	login := func(check, user, password string) string {
		return fmt.Sprintf(`%q:{"user":%q,"password":%q}`, check, user, secret(t, "M_"+strings.ToUpper(check), password))
	}
	password := func(check, password string) string {
		return fmt.Sprintf(`%q:{"password":%q}`, check, secret(t, "M_"+strings.ToUpper(check), password))
	}
	servers := []matrixServer{
		{"nginx", web["http"]}, {"nginx TLS", web["https"]}, {"Knot", knot["ns1"]}, {"Redis", redis["redis"]},
		{"Postfix", mail["smtp"]}, {"Exim", exim["smtp"]}, {"Dovecot LMTP", mail["lmtp"]}, {"Dovecot IMAP", mail["imap"]}, {"Dovecot POP3", mail["pop3"]},
		{"ProFTPD", ftp["ftp"]}, {"OpenSSH", ssh["ssh"]}, {"Dropbear", ssh["dropbear"]},
		{"memcached", mem["memcached"]}, {"PostgreSQL", pg["postgres"]}, {"PgBouncer", pg["pgbouncer"]}, {"MariaDB", my["mysql"]},
		{"Mosquitto", mqtt["mosquitto"]}, {"RabbitMQ", amqp["rabbitmq"]}, {"NATS", nats["nats"]}, {"etcd", etcd["etcd"]},
		{"slapd", ldap["ldap"]}, {"Prosody", xmpp["xmpp"]}, {"websocketd", ws["websocket"]}, {"Kamailio", sip["sip"]},
	}
	rows := []matrixCheck{
		{"http://HOST/", "", []string{"nginx"}},
		{"tls://HOST", ca(web), []string{"nginx TLS"}},
		{"dns+tcp://HOST/www.example.test", `"dns":{"recursion":false}`, []string{"Knot"}},
		{"redis://HOST", "", []string{"Redis"}},
		{"smtp://HOST", `"smtp":{"starttls":"off"}`, []string{"Postfix", "Exim"}},
		{"lmtp://HOST", `"lmtp":{"starttls":"off"}`, []string{"Dovecot LMTP"}},
		{"imap://HOST", `"imap":{"starttls":"off"}`, []string{"Dovecot IMAP"}},
		{"pop3://HOST", `"pop3":{"starttls":"off"}`, []string{"Dovecot POP3"}},
		{"ftp://HOST", ca(ftp), []string{"ProFTPD"}},
		{"ssh://HOST", "", []string{"OpenSSH", "Dropbear"}},
		{"sftp://HOST/", fmt.Sprintf(`"sftp":{"user":%q,"password":%q}`, ssh["user"], secret(t, "M_SFTP", ssh["password"])), []string{"OpenSSH"}},
		{"memcached://HOST", "", []string{"memcached"}},
		{"postgres://pup@HOST/pup", password("postgres", pg["postgres_password"]) + `,"tls":{"verify":false}`, []string{"PostgreSQL", "PgBouncer"}},
		{"mysql://pup@HOST/pup", password("mysql", my["mysql_password"]) + `,"tls":{"verify":false}`, []string{"MariaDB"}},
		{"mqtt://HOST", "", []string{"Mosquitto"}},
		{"amqp://HOST", login("amqp", amqp["rabbitmq_user"], amqp["rabbitmq_password"]), []string{"RabbitMQ"}},
		{"nats://HOST", "", []string{"NATS"}},
		{"etcd://HOST", "", []string{"etcd"}},
		{"ldap://HOST", `"ldap":{"starttls":"off"}`, []string{"slapd"}},
		{"xmpp://HOST", ca(xmpp), []string{"Prosody"}},
		{"ws://HOST/echo", "", []string{"websocketd"}},
		{"sip+tcp://HOST", "", []string{"Kamailio"}},
		{"mongodb://HOST", "", nil},
		{"elasticsearch://HOST", "", nil},
		{"grpc://HOST", "", []string{"etcd"}},
		{"kafka://HOST", "", nil},
	}
	return rows, servers
}

func matrixUDP(t *testing.T) ([]matrixCheck, []matrixServer) {
	get := func(name string) map[string]string { return realserver.Shared(t, name) }
	knot, ntp, snmp, radius, sip := get("knot"), get("ntp"), get("snmp"), get("radius"), get("sip")
	servers := []matrixServer{{"Knot", knot["ns1"]}, {"chrony", ntp["ntp"]}, {"snmpd", snmp["snmp"]}, {"FreeRADIUS", radius["radius"]}, {"Kamailio", sip["sip"]}}
	rows := []matrixCheck{
		{"dns://HOST/www.example.test", `"dns":{"recursion":false}`, []string{"Knot"}},
		{"ntp://HOST", "", []string{"chrony"}},
		{"snmp://HOST", fmt.Sprintf(`"snmp":{"version":"2c","community":%q}`, secret(t, "M_SNMP", "pup-community")), []string{"snmpd"}},
		{"radius://HOST", fmt.Sprintf(`"radius":{"secret":%q}`, secret(t, "M_RADIUS", "pup-secret")), []string{"FreeRADIUS"}},
		{"sip://HOST", "", []string{"Kamailio"}},
	}
	return rows, servers
}

// matrixJobs is how many cells are probed at once.
const matrixJobs = 8

func matrixTable(t *testing.T, doc *strings.Builder, title string, rows []matrixCheck, servers, liars []matrixServer) {
	columns := append(slices.Clip(servers), liars...)
	cells := make([][]string, len(rows))
	jobs := make(chan func(), matrixJobs)
	var workers sync.WaitGroup
	for range matrixJobs {
		workers.Go(func() {
			for f := range jobs {
				f()
			}
		})
	}
	r := probe.NewRunner(All())
	for i, row := range rows {
		cells[i] = make([]string, len(columns))
		for j, col := range columns {
			jobs <- func() { cells[i][j] = matrixCell(t, r, row, col, slices.Contains(row.own, col.name)) }
		}
	}
	close(jobs)
	workers.Wait()
	fmt.Fprintf(doc, "\n## %s\n\n| |", title)
	for _, row := range rows {
		name, _, _ := strings.Cut(row.url, "://")
		fmt.Fprintf(doc, " %s |", name)
	}
	doc.WriteString("\n|---|" + strings.Repeat("---|", len(rows)) + "\n")
	for j, col := range columns {
		fmt.Fprintf(doc, "| %s |", col.name)
		for i := range rows {
			fmt.Fprintf(doc, " %s |", cells[i][j])
		}
		doc.WriteString("\n")
	}
}

// matrixCell probes a server with a check. At its own server the check has
// time; elsewhere it is a matter of a moment until it gives up.
func matrixCell(t *testing.T, r *probe.Runner, row matrixCheck, col matrixServer, own bool) string {
	timeout := "1s"
	if own {
		timeout = "20s"
	}
	line := fmt.Sprintf(`{"name":"t","url":%q,"timeout":%q`, strings.Replace(row.url, "HOST", col.addr, 1), timeout)
	if row.target != "" {
		line += "," + row.target
	}
	j, err := r.Parse([]byte(line + "}"))
	if err != nil {
		t.Errorf("%s: %v", line, err)
		return "?"
	}
	j.Run(t.Context())
	vars, err := expr.Vars(j.Line)
	if err != nil {
		t.Errorf("%s: %v", j.Line, err)
		return "?"
	}
	got := fmt.Sprint(vars["status"])
	if own != (got == "up") || !own && got != "down" {
		t.Errorf("%s at %s: %s\n%s", row.url, col.name, got, j.Line)
	}
	if own {
		return "**" + got + "**"
	}
	return fmt.Sprint(vars["reason"])
}
