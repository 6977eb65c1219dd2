package checks

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// ldapSays is a message of the server, as a step of a script.
func ldapSays(id int, op byte, parts ...[]byte) string {
	return "Sx " + hex.EncodeToString(ldapTLV(ldapSequence, ldapInt(ldapInteger, id), ldapTLV(op, parts...))) + "\n"
}

func ldapEnds(id int, op byte, code int, text string) string {
	return ldapSays(id, op, ldapInt(ldapEnumerated, code), ldapText(""), ldapText(text))
}

func ldapFound(id int, dn string, attributes ...string) string {
	var list [][]byte
	for i := 0; i < len(attributes); i += 2 {
		list = append(list, ldapTLV(ldapSequence, ldapText(attributes[i]), ldapTLV(ldapSet, ldapText(attributes[i+1]))))
	}
	return ldapSays(id, ldapEntry, ldapText(dn), ldapTLV(ldapSequence, list...))
}

func TestLDAP(t *testing.T) {
	// the first requests, as other clients send them
	startTLS := "Cx 30 1d 02 01 01 77 18 80 16 31 2e 33 2e 36 2e 31 2e 34 2e 31 2e 31 34 36 36 2e 32 30 30 33 37\n"
	ask := startTLS + ldapEnds(1, ldapExtendedOK, 2, "unsupported extended operation") +
		"Cx 30 6a 02 01 02 63 65 04 00 0a 01 00 0a 01 00 02 02 27 10 02 01 00 01 01 00 87 0b 6f 62 6a 65 63 74 43 6c 61 73 73 30 44 040e6e616d696e67436f6e74657874730417737570706f727465645341534c4d656368616e69736d73040a76656e646f724e616d65040d76656e646f7256657273696f6e\n"
	root := ask + ldapFound(2, "", "namingContexts", "dc=x", "supportedSASLMechanisms", "EXTERNAL") + ldapEnds(2, ldapDone, 0, "")
	password := secret(t, "LDAP", "word-of-pass")
	login := `"ldap":{"user":"cn=a","password":"` + password + `"}`
	bound := func(code int) string {
		return root + "Cx 30 1c 02 01 03 60 17 02 01 03 04 04 63 6e 3d 61 80 0c 77 6f 72 64 2d 6f 66 2d 70 61 73 73\n" + ldapEnds(3, ldapBound, code, "no: word-of-pass")
	}
	talks(t, "ldap://HOST", []talk{
		{"anonymous", "", root, "up", []string{"ldap.anonymous", "'dc=x' in ldap.naming_contexts", "ldap.auth_mechanisms[0] == 'EXTERNAL'", "not ldap.starttls", "ldap.code == 0"}},
		{"login", login, bound(0), "up", []string{"ldap.logged_in", "ms.auth > 0"}},
		{"wrong password", login, bound(49), "down denied auth", []string{"error contains 'invalidCredentials (49)'", "not (error contains 'word-of-pass')", "not ldap.logged_in"}},
		{"busy", login, bound(51), "down unavailable auth", nil},
		{"user without password", `"ldap":{"user":"cn=a"}`, "", "unknown options prepare", nil},
		{"anonymous refused", "", ask + ldapEnds(2, ldapDone, 48, "anonymous bind disallowed"), "down denied auth", []string{"not ldap.anonymous", "ldap.code == 48"}},
		{"not ready", "", ask + ldapEnds(2, ldapDone, 52, "starting"), "down unavailable greet", nil},
		{"notice of disconnection", "", ask + ldapEnds(0, ldapExtendedOK, 52, "going down"), "down unavailable greet", []string{"error contains 'going down'"}},
		{"another message", "", ask + ldapEnds(7, ldapDone, 0, ""), "down protocol greet", nil},
		{"another operation", "", ask + ldapEnds(2, ldapBound, 0, ""), "down protocol greet", nil},
		{"text", "", "S: 220 mail.example.org ESMTP", "down protocol greet", nil},
		{"too long", "", "Sx 30 84 7f ff ff ff", "down protocol greet", nil},
		{"garbage inside", "", "Sx 30 03 02 01 01", "down protocol greet", nil},
		{"closes in a message", "", "Sx 30 20 02 01\n! close", "down closed greet", nil},
		{"StartTLS", trustTestCA(), startTLS + ldapEnds(1, ldapExtendedOK, 0, "") + "! tls\nCx 30\n" + ldapFound(2, "") + ldapEnds(2, ldapDone, 0, ""), "up", []string{"ldap.starttls", "tls.verified"}},
		{"StartTLS refused", `"ldap":{"starttls":"required"}`, startTLS + ldapEnds(1, ldapExtendedOK, 52, "no"), "down tls greet", nil},
		{"StartTLS off", `"ldap":{"starttls":"off"}`, "Cx 30 6a 02 01 01 63\n" + ldapFound(1, "") + ldapEnds(1, ldapDone, 0, ""), "up", []string{"ldap.starttls == nil"}},
		{"StartTLS untrusted", "", startTLS + ldapEnds(1, ldapExtendedOK, 0, "") + "! tls", "down certificate-untrusted tls", nil},
		{"bad filter", `"ldap":{"filter":"(a=b"}`, "", "unknown options prepare", []string{"error contains 'filter'"}},
	})
	talks(t, "ldap://HOST/dc=x", []talk{
		{"search", `"ldap":{"attributes":["cn"]}`, root + ldapFound(3, "cn=a,dc=x", "CN", "a") + ldapFound(3, "cn=b,dc=x", "CN", "b\x1b") +
			ldapSays(3, ldapReference, ldapText("ldap://other/")) + ldapEnds(3, ldapDone, 0, ""), "up", []string{"ldap.entries == 2", "ldap.values.cn[0] == 'a'", "ms.request > 0"}},
		{"nothing found", "", root + ldapEnds(3, ldapDone, 0, ""), "up", []string{"ldap.entries == 0"}},
		{"no such base", "", root + ldapEnds(3, ldapDone, 32, ""), "down mismatch request", []string{"error contains 'noSuchObject'"}},
		{"login wanted", "", root + ldapEnds(3, ldapDone, 1, "a successful bind must be completed"), "down denied request", nil},
	})
	check(t, "ldap://192.0.2.1", `"ldap":{"user":"cn=a","password":"`+password+`","starttls":"off"}`).want(t, "unknown options prepare", "error contains 'allow_plain_auth'")
}

func TestLDAPReal(t *testing.T) {
	s := realserver.Shared(t, "ldap")
	const dc = "/dc=example,dc=org"
	ca := fmt.Sprintf(`"tls":{"ca":%q},`, s["ca"])
	login := func(dn, password string) string {
		return fmt.Sprintf(`"user":%q,"password":%q`, dn, secret(t, strings.ToUpper(strings.ReplaceAll(password, "-", "_")), password))
	}
	admin, anna := login("cn=admin,dc=example,dc=org", "admin-secret"), login("uid=anna,ou=people,dc=example,dc=org", "anna-secret")
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"anonymous", "ldap://" + s["ldap"], ca + `"timeout":"5s"`, "up", []string{"ldap.starttls", "tls.verified", "'dc=example,dc=org' in ldap.naming_contexts"}},
		{"ldaps", "ldaps://" + s["ldap_tls"] + dc, ca + `"ldap":{"filter":"(uid=*)"}`, "up", []string{"ldap.entries == 2"}},
		{"login", "ldap://" + s["ldap"] + dc, ca + `"ldap":{` + anna + `,"filter":"(&(objectClass=person)(|(uid=an*a)(cn=none))(!(uid=bert)))","attributes":["mail"]}`, "up",
			[]string{"ldap.logged_in", "ldap.entries == 1", "ldap.values.mail[0] == 'anna@example.org'"}},
		{"escaped filter", "ldap://" + s["ldap"] + dc, ca + `"ldap":{"filter":"(cn=Bert \\28the second\\29)"}`, "up", []string{"ldap.entries == 1"}},
		{"one level", "ldap://" + s["ldap"] + dc, ca + `"ldap":{"scope":"one"}`, "up", []string{"ldap.entries == 1"}},
		{"wrong password", "ldap://" + s["ldap"], ca + `"ldap":{` + login("cn=admin,dc=example,dc=org", "wrong-secret") + `}`, "down denied auth", nil},
		{"no such base", "ldap://" + s["ldap"] + "/dc=other", ca + `"timeout":"5s"`, "down mismatch request", nil},
		{"external", "ldap://" + s["ldap"], fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q},"ldap":{"mechanism":"EXTERNAL"}`, s["ca"], s["ldap_cert"], ldapKey(t, s["ldap_key"])), "up", []string{"ldap.logged_in"}},
		{"external without certificate", "ldap://" + s["ldap"], ca + `"ldap":{"mechanism":"EXTERNAL"}`, "down denied auth", nil},
		{"behind", "ldap://" + s["ldap_behind"] + dc, ca + `"ldap":{"providers":["` + s["ldap"] + `"]}`, "up", []string{"ldap.lag_ms == 10000", "ldap.csn startsWith '20260101120000'"}},
		{"not behind", "ldap://" + s["ldap"] + dc, ca + `"ldap":{"providers":["` + s["ldap_behind"] + `"]}`, "up", []string{"ldap.lag_ms == 0"}},
		{"provider gone", "ldap://" + s["ldap"] + dc, ca + `"ldap":{"providers":["` + realserver.ClosedPort(t) + `"]}`, "down refused connect", nil},
		{"strict", "ldap://" + s["ldap_strict"] + dc, ca + `"timeout":"5s"`, "down denied auth", nil},
		{"strict, with a login", "ldap://" + s["ldap_strict"] + dc, ca + `"ldap":{` + admin + `}`, "up", []string{"ldap.entries == 4"}},
		{"another service", "smtp://" + s["ldap"], `"timeout":"1s"`, "down timeout greet", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
	t.Run("tls+ldap", func(t *testing.T) { check(t, "tls+ldap://"+s["ldap"], ca+`"timeout":"5s"`).want(t, "up") })
}

// ldapKey puts the key in a file into the environment.
func ldapKey(t *testing.T, file string) string {
	return func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return secret(t, "LDAP_KEY", string(b))
	}()
}

func TestLDAPPaused(t *testing.T) {
	s := realserver.Start(t, "ldap")
	inside := between(t, s["ldap"], "dc=example", func() { realserver.Pause(t, s, "ldap") })
	check(t, "ldap://"+inside+"/dc=example,dc=org", `"timeout":"1s","ldap":{"starttls":"off"}`).want(t, "down timeout request", "'dc=example,dc=org' in ldap.naming_contexts")
	check(t, "ldap://"+s["ldap"], `"timeout":"500ms"`).want(t, "down timeout greet")
	realserver.Resume(t, s, "ldap")
	check(t, "ldap://"+s["ldap"], fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])).want(t, "up")
}

func TestLDAPFilter(t *testing.T) {
	for _, tt := range []struct{ filter, want string }{
		{"(cn=*)", "8702636e"},
		{"cn=a", "a307 0402636e 040161"},
		{"(n>=3)", "a506 04016e 040133"},
		{"(n<=3)", "a606 04016e 040133"},
		{"(n~=3)", "a806 04016e 040133"},
		{"(n=a*b*c)", "a40e 04016e 3009 800161 810162 820163"},
		{"(n=*b*)", "a408 04016e 3003 810162"},
		{"(!(n=3))", "a208 a306 04016e 040133"},
		{"(&(n=3)(m=*))", "a00b a306 04016e 040133 87016d"},
		{"(|)", "a100"},
		{`(n=\2a\28)`, "a307 04016e 04022a28"},
	} {
		got, err := ldapFilter(tt.filter)
		if err != nil || hex.EncodeToString(got) != strings.ReplaceAll(tt.want, " ", "") {
			t.Errorf("%s: got %x, %v, want %s", tt.filter, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "(", "()", "(cn)", "(=a)", "(cn=a", "(cn=a))", "(cn=(a)", "(!(a=b)(c=d))", "(!)", `(a=\2)`, `(a=\xx)`, "(a=**)", "(&(a=b)", strings.Repeat("(!", 40) + "(a=b)" + strings.Repeat(")", 40)} {
		if b, err := ldapFilter(bad); err == nil {
			t.Errorf("%q: got %x, want an error", bad, b)
		}
	}
}

// FuzzLDAPFilter: what is accepted is one element of BER.
func FuzzLDAPFilter(f *testing.F) {
	f.Add(`(&(cn=a*b)(!(n>=3))(x=\2a))`)
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ldapFilter(s)
		if err != nil {
			return
		}
		if _, _, rest, err := ldapNext(b); err != nil || len(rest) > 0 {
			t.Errorf("%q: %x is not one element (%v)", s, b, err)
		}
	})
}

// FuzzLDAPMessage: an element that is read is part of what came, and writes
// back to the same bytes where the length is in its shortest form; results and
// entries are never larger than what they were read from.
func FuzzLDAPMessage(f *testing.F) {
	f.Add(ldapTLV(ldapInteger, []byte{1}))
	f.Add(append(ldapInt(ldapInteger, 1), ldapTLV(ldapEntry, ldapText("cn=a"), ldapTLV(ldapSequence, ldapTLV(ldapSequence, ldapText("cn"), ldapTLV(ldapSet, ldapText("a")))))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, value, rest, err := ldapNext(b)
		if err == nil {
			if again := append(ldapTLV(tag, value), rest...); len(again) == len(b) && len(value) < 0x80 && b[1] < 0x80 && !bytes.Equal(again, b) {
				t.Errorf("% x became % x", b, again)
			}
			if len(value)+len(rest) > len(b)-2 {
				t.Errorf("%d and %d bytes out of %d", len(value), len(rest), len(b))
			}
		}
		if _, _, content, err := ldapMessage(b); err == nil {
			if r, err := ldapParseResult(content); err == nil && len(r.text)+len(r.creds) > len(b) {
				t.Errorf("a result of %d bytes out of %d", len(r.text)+len(r.creds), len(b))
			}
			dn, attributes, _ := ldapParseEntry(content)
			n := len(dn)
			for _, a := range attributes {
				n += len(a.name)
				for _, v := range a.values {
					n += len(v)
				}
			}
			if n > len(b) {
				t.Errorf("an entry of %d bytes out of %d", n, len(b))
			}
		}
	})
}
