package checks

import (
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// radiusReply answers a request with a code and attributes, signed with the
// secret.
func radiusReply(req []byte, code byte, secret string, signed bool, attributes ...[]byte) []byte {
	b := append([]byte{code, req[1], 0, 0}, req[4:20]...)
	if signed {
		b = append(b, radiusMessageAuthenticator, 18)
		b = append(b, make([]byte, 16)...)
	}
	for _, a := range attributes {
		b = append(b, a...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if signed {
		copy(b[22:38], radiusMAC([]byte(secret), b))
	}
	sum := md5.Sum(append(bytes.Clone(b), secret...))
	copy(b[4:20], sum[:])
	return b
}

// radiusFake is a server that takes one user, and drops what another secret
// has signed.
func radiusFake(secret string) func(b []byte) [][]byte {
	return func(b []byte) [][]byte {
		p, err := radiusParse(b)
		if err != nil {
			return nil
		}
		q := &radiusRequest{secret: []byte(secret), wire: b}
		if v := p.value(radiusMessageAuthenticator); v != nil {
			c := bytes.Clone(b)
			clear(c[v.at : v.at+16])
			if !bytes.Equal(radiusMAC(q.secret, c), v.value) {
				return nil
			}
		}
		if p.code == radiusStatusServer {
			return [][]byte{radiusReply(b, radiusAccept, secret, true)}
		}
		ok := false
		if v := p.value(radiusUserPassword); v != nil {
			ok = bytes.Equal(v.value, q.hide("right"))
		}
		if v := p.value(radiusCHAPPassword); v != nil {
			h := md5.Sum(append([]byte{v.value[0]}, "right"+string(b[4:20])...))
			ok = bytes.Equal(v.value[1:], h[:])
		}
		if ok && string(p.value(radiusUserName).value) == "anna" {
			return [][]byte{radiusReply(b, radiusAccept, secret, false,
				[]byte("\x12\x07hello"), []byte("\x12\x05\x1b[m"), []byte{27, 6, 0, 0, 14, 16}, []byte{8, 6, 192, 0, 2, 7}, []byte{200, 3, 255})}
		}
		return [][]byte{radiusReply(b, radiusReject, secret, true, []byte("\x12\x04no"))}
	}
}

func TestRADIUS(t *testing.T) {
	good, bad := secret(t, "RADIUS", "shared"), secret(t, "RADIUS_BAD", "other")
	right, wrong := secret(t, "RADIUS_RIGHT", "right"), secret(t, "RADIUS_WRONG", strings.Repeat("wrong", 20))
	server := radiusFake("shared")
	changed := func(change func(b []byte) []byte) func(b []byte) [][]byte {
		return func(b []byte) [][]byte {
			if r := server(b); r != nil {
				return [][]byte{change(r[0])}
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name, opt, timeout, want string
		serve                    func(b []byte) [][]byte
		facts                    []string
	}{
		{"status", `"secret":"` + good + `"`, "5s", "up", server, []string{"radius.request == 'Status-Server'", "radius.code == 'Access-Accept'", "radius.message_authenticator", "radius.secret_matches"}},
		{"PAP", `"secret":"` + good + `","user":"anna","password":"` + right + `"`, "5s", "up", server, []string{
			"radius.request == 'Access-Request'", "radius.session_timeout_seconds == 3600", "not radius.message_authenticator", "radius.reply_message startsWith 'hello'",
			"radius.attributes[1].name == 'Framed-IP-Address'", "radius.attributes[1].value == '192.0.2.7'", "radius.attributes[2].name == 'Attribute-200'", "radius.attributes[2].value == 'ff'",
		}},
		{"CHAP", `"secret":"` + good + `","user":"anna","method":"chap","password":"` + right + `"`, "5s", "up", server, nil},
		{"wrong password", `"secret":"` + good + `","user":"anna","password":"` + wrong + `"`, "5s", "down denied auth", server, []string{"radius.code == 'Access-Reject'", `error == 'Access-Reject: "no"'`}},
		{"wrong password by CHAP", `"secret":"` + good + `","user":"anna","method":"chap","password":"` + wrong + `"`, "5s", "down denied auth", server, nil},
		{"challenge", `"secret":"` + good + `","user":"anna"`, "5s", "down denied auth", func(b []byte) [][]byte { return [][]byte{radiusReply(b, radiusChallenge, "shared", true)} }, []string{"radius.code == 'Access-Challenge'"}},
		{"another code", `"secret":"` + good + `"`, "5s", "down protocol auth", func(b []byte) [][]byte { return [][]byte{radiusReply(b, 41, "shared", true)} }, nil},
		{"wrong secret", `"secret":"` + bad + `"`, "4s", "down denied auth", server, []string{"radius.secret_matches == false", "error contains 'not signed with our secret'"}},
		{"wrong secret with user", `"secret":"` + bad + `","user":"anna","password":"` + right + `"`, "4s", "down denied auth", server, []string{"radius.secret_matches == false"}},
		{"answer signed by another", `"secret":"` + good + `"`, "5s", "down denied auth", func(b []byte) [][]byte { return [][]byte{radiusReply(b, radiusAccept, "other", false)} }, nil},
		{"no Status-Server", `"secret":"` + good + `"`, "4s", "down unavailable auth", func(b []byte) [][]byte {
			if b[0] == radiusStatusServer {
				return nil
			}
			return server(b)
		}, []string{"radius.secret_matches"}},
		{"changed on the way", `"secret":"` + good + `"`, "5s", "down protocol auth", func(b []byte) [][]byte {
			r := radiusReply(b, radiusAccept, "shared", true)
			r[30]++
			copy(r[4:20], b[4:20])
			sum := md5.Sum(append(bytes.Clone(r), "shared"...))
			copy(r[4:20], sum[:])
			return [][]byte{r}
		}, nil},
		{"silent", `"secret":"` + good + `"`, "300ms", "down timeout auth", func([]byte) [][]byte { return nil }, []string{"radius.secret_matches == nil"}},
		{"echo", `"secret":"` + good + `"`, "300ms", "down timeout auth", func(b []byte) [][]byte { return [][]byte{b} }, []string{"error contains 'a request, not an answer'"}},
		{"garbage", `"secret":"` + good + `"`, "300ms", "down timeout auth", func([]byte) [][]byte { return [][]byte{[]byte("220 mail.example.org ESMTP\r\n")} }, nil},
		{"another identifier", `"secret":"` + good + `"`, "300ms", "down timeout auth", changed(func(b []byte) []byte { b[1]++; return b }), []string{"error contains 'an answer to request'"}},
		{"broken attribute", `"secret":"` + good + `"`, "300ms", "down timeout auth", changed(func(b []byte) []byte { b[21] = 1; return b }), []string{"error contains 'broken attribute'"}},
		{"cut off", `"secret":"` + good + `"`, "300ms", "down timeout auth", changed(func(b []byte) []byte { return b[:30] }), nil},
		{"padded", `"secret":"` + good + `"`, "5s", "up", changed(func(b []byte) []byte { return append(b, "xyz"...) }), nil},
		{"no secret", ``, "5s", "unknown options prepare", server, nil},
		{"password alone", `"secret":"` + good + `","password":"` + right + `"`, "5s", "unknown options prepare", server, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, "radius://"+serveUDP(t, tt.serve), `"radius":{`+tt.opt+`},"timeout":"`+tt.timeout+`"`)
			res.want(t, tt.want, tt.facts...)
			if strings.Contains(res.line, "shared") || strings.Contains(res.line, "right") {
				t.Errorf("a secret is in the line: %s", res.line)
			}
		})
	}
	check(t, "radius://"+realserver.ClosedPort(t), `"radius":{"secret":"`+good+`"}`).want(t, "down refused auth")
}

func TestRADIUSOverTLS(t *testing.T) {
	script := func(answer func(b []byte) []byte) string {
		return serve(t, func(c net.Conn) {
			tc := radiusTLS(c)
			b := make([]byte, 49) // of Status-Server with our identifier
			if _, err := io.ReadFull(tc, b); err != nil {
				return
			}
			tc.Write(answer(b))
			io.Copy(io.Discard, tc)
		})
	}
	for name, tt := range map[string]struct {
		want   string
		answer func(b []byte) []byte
	}{
		"up":           {"up", func(b []byte) []byte { return radiusReply(b, radiusAccept, "radsec", true) }},
		"wrong secret": {"down denied auth", func(b []byte) []byte { return radiusReply(b, radiusAccept, "other", true) }},
		"another":      {"down protocol auth", func(b []byte) []byte { b[1]++; return radiusReply(b, radiusAccept, "radsec", true) }},
		"garbage":      {"down protocol auth", func(b []byte) []byte { return []byte("220 mail.example.org ESMTP\r\n") }},
		"half":         {"down timeout auth", func(b []byte) []byte { return radiusReply(b, radiusAccept, "radsec", true)[:30] }},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, "radsec://"+script(tt.answer), trustTestCA()+`,"timeout":"500ms"`).want(t, tt.want)
		})
	}
}

func TestRADIUSReal(t *testing.T) {
	r := realserver.Start(t, "radius")
	good, bad := secret(t, "RADIUS", "pup-secret"), secret(t, "RADIUS_BAD", "other")
	right, wrong := secret(t, "RADIUS_RIGHT", "pup-password"), secret(t, "RADIUS_WRONG", "wrong")
	opt := func(s, user string) string { return fmt.Sprintf(`"radius":{"secret":%q%s}`, s, user) }
	user := func(name, password, method string) string {
		return fmt.Sprintf(`,"user":%q,"password":%q,"method":%q`, name, password, method)
	}
	url := "radius://" + r["radius"]
	check(t, url, opt(good, "")).want(t, "up", "radius.code == 'Access-Accept'")
	for _, method := range []string{"pap", "chap"} {
		check(t, url, opt(good, user("pup", right, method))).want(t, "up", "radius.reply_message == 'hello, pup'", "radius.session_timeout_seconds == 3600")
		check(t, url, opt(good, user("pup", wrong, method))).want(t, "down denied auth", "radius.code == 'Access-Reject'", "radius.secret_matches")
	}
	check(t, url, opt(bad, "")).want(t, "down denied auth", "radius.secret_matches == false")
	check(t, url, opt(bad, user("pup", right, "pap"))).want(t, "down denied auth", "radius.secret_matches == false")
	check(t, "radsec://"+r["radsec"], fmt.Sprintf(`"tls":{"ca":%q}`, r["ca"])).want(t, "up", "tls.verified")
	check(t, "radius://"+realserver.Shared(t, "knot")["ns1"], opt(good, "")+`,"timeout":"500ms"`).want(t, "down timeout auth")
	realserver.Pause(t, r, "radius")
	check(t, url, opt(good, "")+`,"timeout":"1200ms"`).want(t, "down timeout auth")
	realserver.Kill(t, r, "radius")
	check(t, url, opt(good, "")).want(t, "down refused auth")
}

// FuzzRADIUS holds the parser to what a packet is made of: its attributes fill
// it, and lie within it.
func FuzzRADIUS(f *testing.F) {
	q := radiusNew(radiusAccessRequest, "s").add(radiusUserName, []byte("anna")).sign()
	f.Add(q.wire)
	f.Add(radiusReply(q.wire, radiusAccept, "s", true))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := radiusParse(b)
		if err != nil {
			return
		}
		n := radiusHeader
		for _, a := range p.attributes {
			if a.at != n+2 {
				t.Fatalf("% x: an attribute at %d, after %d", b, a.at, n)
			}
			n += 2 + len(a.value)
		}
		if n != len(p.wire) {
			t.Fatalf("% x: attributes end at %d of %d", b, n, len(p.wire))
		}
		q.signed(p)
		new(radiusFacts).measure(p)
	})
}

// radiusTLS speaks TLS with the certificate of testCA.
func radiusTLS(c net.Conn) net.Conn {
	return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
}
