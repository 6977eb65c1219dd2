package checks

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pup/cmd/internal/realserver"
	"pup/cmd/pup-probe/internal/snmp"
)

// snmpElement makes an element of BER of less than 64 KiB.
func snmpElement(tag byte, parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	return append([]byte{tag, 0x82, byte(len(b) >> 8), byte(len(b))}, b...)
}

// snmpReply answers a request of version 1 or 2c. Values are in BER; an object
// without one does not exist. A status spoils the whole.
func snmpReply(req []byte, status byte, values map[string][]byte) []byte {
	m, err := snmp.Parse(req)
	if err != nil {
		panic(err)
	}
	var list []byte
	for _, v := range m.PDU.Variables {
		oid, _ := snmp.ParseOID(v.OID)
		value, ok := values[v.OID]
		if !ok {
			value = []byte{0x80, 0}
			if m.Version == snmp.V1 {
				status, value = 2, []byte{5, 0}
			}
		}
		list = append(list, snmpElement(0x30, snmpElement(6, oid), value)...)
	}
	id := []byte{2, 4, byte(m.PDU.RequestID >> 24), byte(m.PDU.RequestID >> 16), byte(m.PDU.RequestID >> 8), byte(m.PDU.RequestID)}
	pdu := snmpElement(0xa2, id, []byte{2, 1, status}, []byte{2, 1, status}, snmpElement(0x30, list))
	return snmpElement(0x30, []byte{2, 1, byte(m.Version)}, snmpElement(4, []byte(m.Community)), pdu)
}

var snmpValues = map[string][]byte{
	snmpDescription: []byte("\x04\x06switch"), snmpUptime: {0x43, 2, 0x03, 0xe8}, snmpName: []byte("\x04\x03sw1"),
	"1.3.6.1.4.1.1": {2, 1, 0xff}, "1.3.6.1.4.1.2": {0x46, 9, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "1.3.6.1.4.1.3": []byte("\x04\x03\x00\x01\x02"),
}

func TestSNMP(t *testing.T) {
	agent := func(b []byte) [][]byte { return [][]byte{snmpReply(b, 0, snmpValues)} }
	ref := secret(t, "SNMP", "community")
	short := secret(t, "SNMP_SHORT", "short")
	oids := `"oids":{"a":"1.3.6.1.4.1.1","big":".1.3.6.1.4.1.2","mac":"1.3.6.1.4.1.3"}`
	for _, tt := range []struct {
		name, opt, timeout, want string
		serve                    func(b []byte) [][]byte
		facts                    []string
	}{
		{"2c", ``, "5s", "up", agent, []string{"snmp.description == 'switch'", "snmp.name == 'sw1'", "snmp.uptime_ms == 10000", "snmp.version == '2c'"}},
		{"1", `"version":"1",` + oids, "5s", "up", agent, []string{"snmp.values.a == -1"}},
		{"objects", oids, "5s", "up", agent, []string{"snmp.values.a == -1", "snmp.values.mac == '00:01:02'", "snmp.types.big == 'Counter64'", "snmp.types.a == 'Integer'"}},
		{"missing", `"oids":{"x":"1.3.6.1.4.1.9","a":"1.3.6.1.4.1.1"}`, "5s", "down mismatch verify", agent, []string{"len(snmp.missing) == 1", "error contains 'x (1.3.6.1.4.1.9: noSuchObject)'", "snmp.values.a == -1"}},
		{"missing in 1", `"version":"1","oids":{"x":"1.3.6.1.4.1.9","a":"1.3.6.1.4.1.1"}`, "5s", "down mismatch verify", agent, []string{"error contains 'noSuchName'", "snmp.values.a == -1"}},
		{"genErr", ``, "5s", "down unavailable wait", func(b []byte) [][]byte { return [][]byte{snmpReply(b, 5, snmpValues)} }, []string{"error contains 'genErr'"}},
		{"authorizationError", ``, "5s", "down denied wait", func(b []byte) [][]byte { return [][]byte{snmpReply(b, 16, snmpValues)} }, nil},
		{"silent", ``, "200ms", "down timeout wait", func([]byte) [][]byte { return nil }, []string{"error contains 'wrong community'"}},
		{"echo", ``, "200ms", "down timeout wait", func(b []byte) [][]byte { return [][]byte{b} }, []string{"error contains 'no response'", "snmp.ignored == 1"}},
		{"garbage", ``, "200ms", "down timeout wait", func([]byte) [][]byte { return [][]byte{[]byte("220 mail.example.org ESMTP\r\n")} }, []string{"error contains 'no SNMP message'"}},
		{"cut off", ``, "200ms", "down timeout wait", func(b []byte) [][]byte { return [][]byte{agent(b)[0][:40]} }, nil},
		{"another identifier", ``, "200ms", "down timeout wait", func(b []byte) [][]byte {
			r := agent(b)[0]
			i := bytes.Index(r, []byte{0xa2})
			r[i+9]++
			return [][]byte{r}
		}, []string{"error contains 'another request'"}},
		{"another object", ``, "5s", "down protocol wait", func(b []byte) [][]byte {
			return [][]byte{bytes.Replace(agent(b)[0], []byte{0x2b, 6, 1, 2, 1, 1, 1, 0}, []byte{0x2b, 6, 1, 2, 1, 1, 9, 0}, 1)}
		}, []string{"error contains 'want 1.3.6.1.2.1.1.1.0'"}},
		{"silent to 3", `"version":"3","user":"x"`, "200ms", "down timeout auth", func([]byte) [][]byte { return nil }, nil},
		{"echo to 3", `"version":"3","user":"x"`, "200ms", "down protocol auth", func(b []byte) [][]byte { return [][]byte{b} }, nil},
		{"2c to 3", `"version":"3","user":"x"`, "200ms", "down timeout auth", func([]byte) [][]byte {
			get, _ := snmp.NewGet(snmp.V2c, "public", nil)
			return [][]byte{get}
		}, []string{"error contains 'version 2'"}},
		{"bad object", `"oids":{"x":"1.3.x"}`, "5s", "unknown options prepare", agent, nil},
		{"user in 2c", `"user":"x"`, "5s", "unknown options prepare", agent, nil},
		{"community in 3", `"version":"3","user":"x","community":"` + ref + `"`, "5s", "unknown options prepare", agent, nil},
		{"no user in 3", `"version":"3"`, "5s", "unknown options prepare", agent, nil},
		{"short password", `"version":"3","user":"x","auth_password":"` + short + `"`, "5s", "unknown options prepare", agent, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, "snmp://"+serveUDP(t, tt.serve), `"snmp":{`+tt.opt+`},"timeout":"`+tt.timeout+`"`).want(t, tt.want, tt.facts...)
		})
	}
	check(t, "snmp://"+realserver.ClosedPort(t), "").want(t, "down refused wait")
	check(t, "snmp://192.0.2.1", `"snmp":{"community":"`+ref+`"}`).want(t, "unknown options prepare", "error contains 'snmp.allow_plain_auth = true'")
}

// A Counter32 goes round, a Counter64 does not.
func TestSNMPRates(t *testing.T) {
	var n atomic.Int32
	addr := serveUDP(t, func(b []byte) [][]byte {
		values := map[string][]byte{
			snmpDescription: {4, 0}, snmpUptime: {0x43, 1, 1}, snmpName: {4, 0},
			"1.3.1": {0x41, 5, 0, 0xff, 0xff, 0xff, 0xff}, "1.3.2": {0x46, 1, 5}, "1.3.3": {2, 1, 5}, "1.3.4": {0x46, 1, 9}, "1.3.5": {4, 1, 'x'},
		}
		if m, _ := snmp.Parse(b); m.PDU.Variables[0].OID != snmpDescription && n.Add(1) > 1 {
			values["1.3.1"], values["1.3.2"], values["1.3.3"], values["1.3.4"] = []byte{0x41, 1, 4}, []byte{0x46, 1, 15}, []byte{2, 1, 0xfb}, []byte{0x46, 1, 1}
		}
		return [][]byte{snmpReply(b, 0, values)}
	})
	check(t, "snmp://"+addr, `"snmp":{"rate_over":"100ms","oids":{"round":"1.3.1","up":"1.3.2","down":"1.3.3","restarted":"1.3.4","text":"1.3.5"}}`).want(t, "up",
		"snmp.rates.round > 0", "snmp.rates.round < 50.1", "snmp.rates.up > 0", "snmp.rates.up <= 100", "snmp.rates.down < 0",
		"snmp.rates.restarted == nil", "snmp.rates.text == nil", "snmp.values.up == 15")
}

// snmpRelay stands between a check and a real server. It calls f with the number
// of each datagram before it passes that on.
func snmpRelay(t *testing.T, addr string, f func(n int)) string {
	up, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	n := 0
	return serveUDP(t, func(b []byte) [][]byte {
		n++
		f(n)
		up.Write(b)
		up.SetReadDeadline(time.Now().Add(time.Second))
		reply := make([]byte, 1<<16)
		size, err := up.Read(reply)
		if err != nil {
			return nil
		}
		return [][]byte{reply[:size]}
	})
}

func TestSNMPReal(t *testing.T) {
	s := realserver.Start(t, "snmp")
	url := "snmp://" + s["snmp"]
	community, wrong := secret(t, "SNMP_C", "pup-community"), secret(t, "SNMP_W", "wrong-password")
	auth, priv := secret(t, "SNMP_A", "auth-password"), secret(t, "SNMP_P", "priv-password")
	v3 := func(user, more string) string { return fmt.Sprintf(`"snmp":{"version":"3","user":%q%s}`, user, more) }
	a := func(hash, password string) string {
		return fmt.Sprintf(`,"auth":%q,"auth_password":%q`, hash, password)
	}
	pr := func(cipher, password string) string {
		return fmt.Sprintf(`,"priv":%q,"priv_password":%q`, cipher, password)
	}
	load := `,"oids":{"load":"1.3.6.1.4.1.2021.10.1.6.1","free":"1.3.6.1.4.1.2021.4.6.0","interfaces":"1.3.6.1.2.1.2.1.0"}`
	for _, tt := range []struct {
		name, target, want string
		facts              []string
	}{
		{"2c", `"snmp":{"community":"` + community + `"}`, "up", []string{"snmp.name == 'pup-test'", "snmp.description == 'pup test agent'", "snmp.uptime_ms >= 0"}},
		{"1", `"snmp":{"version":"1","community":"` + community + `"}`, "up", nil},
		{"wrong community", `"snmp":{"community":"` + wrong + `"},"timeout":"500ms"`, "down timeout wait", []string{"error contains 'wrong community'"}},
		{"values", `"snmp":{"community":"` + community + `"` + load + `}`, "up", []string{"snmp.values.load >= 0", "snmp.types.load == 'Opaque'", "snmp.values.free > 0", "snmp.values.interfaces > 0"}},
		{"rates", `"snmp":{"community":"` + community + `","rate_over":"200ms","oids":{"packets":"1.3.6.1.2.1.11.1.0"}}`, "up", []string{"snmp.types.packets == 'Counter32'", "snmp.rates.packets > 0"}},
		{"missing", `"snmp":{"community":"` + community + `","oids":{"x":"1.3.6.1.4.1.99999.1"}}`, "down mismatch verify", nil},
		{"plain", v3("plain", ""), "up", []string{"snmp.security == 'noAuthNoPriv'", "snmp.engine_boots >= 1"}},
		{"auth", v3("auth", a("sha", auth)), "up", []string{"snmp.security == 'authNoPriv'"}},
		{"private", v3("private", a("sha", auth)+pr("aes", priv)+load), "up", []string{"snmp.security == 'authPriv'", "snmp.values.interfaces > 0"}},
		{"old", v3("old", a("md5", auth)+pr("des", priv)), "up", []string{"snmp.security == 'authPriv'"}},
		{"strong", v3("strong", a("sha512", auth)+pr("aes", priv)), "up", []string{"snmp.security == 'authPriv'"}},
		{"unknown user", v3("nobody", a("sha", auth)), "down denied auth", []string{"error contains 'does not know the user'"}},
		{"wrong password", v3("auth", a("sha", wrong)), "down denied auth", []string{"error contains 'wrong authentication password'"}},
		{"wrong hash", v3("auth", a("md5", auth)), "down denied auth", nil},
		{"too little", v3("private", a("sha", auth)), "down denied", nil},
		{"wrong privacy", v3("private", a("sha", auth)+pr("aes", wrong)) + `,"timeout":"1500ms"`, "down", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, url, tt.target)
			if !strings.HasPrefix(res.outcome(), tt.want) {
				t.Errorf("got %q, want %q\n%s", res.outcome(), tt.want, res.line)
			}
			res.want(t, res.outcome(), tt.facts...)
		})
	}
	check(t, "snmp://"+realserver.Shared(t, "knot")["ns1"], `"timeout":"500ms"`).want(t, "down timeout wait")
	paused := snmpRelay(t, s["snmp"], func(n int) {
		if n == 2 { // what version 3 asks first has been answered
			realserver.Pause(t, s, "snmp")
		}
	})
	check(t, "snmp://"+paused, v3("plain", "")+`,"timeout":"500ms"`).want(t, "down timeout wait", "snmp.engine_boots >= 1")
	check(t, url, v3("plain", "")+`,"timeout":"500ms"`).want(t, "down timeout auth")
	realserver.Kill(t, s, "snmp")
	check(t, url, "").want(t, "down refused wait")
}
