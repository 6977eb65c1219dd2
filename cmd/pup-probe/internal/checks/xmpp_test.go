package checks

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

const (
	xmppOpens  = "C. <?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\n"
	xmppStarts = "S: <?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' from='example.org' version='1.0'>\\\n"
	xmppOffers = "S: <stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>\\\n"
	xmppLogin  = "S: <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>\\\n"
	xmppBinds  = "S: <stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>\\\n"
	xmppToTLS  = "C. <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\nS: <proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\\\n! tls\n"
	xmppAuth   = "C. <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFubmEAd29yZA==</auth>\n"
)

func TestXMPP(t *testing.T) {
	domain := func(more string) string {
		return fmt.Sprintf(`%s,"xmpp":{"domain":"example.org"%s}`, trustTestCA(), more)
	}
	login := domain(`,"user":"anna","password":"` + secret(t, "XMPP", "word") + `"`)
	begin := xmppOpens + xmppStarts
	secure := begin + xmppOffers + xmppToTLS + begin + xmppLogin
	failure := func(what string) string {
		return secure + xmppAuth + "S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><" + what + "/></failure>\\\n"
	}
	streamError := func(what string) string {
		return begin + "S: <stream:error><" + what + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>\\\n"
	}
	talks(t, "xmpp://HOST", []talk{
		{"up", domain(""), secure, "up", []string{"xmpp.from == 'example.org'", "xmpp.starttls", "not xmpp.starttls_required", "'PLAIN' in xmpp.auth_mechanisms", "tls.verified"}},
		{"without TLS", domain(`,"starttls":"off"`), begin + xmppLogin, "up", nil},
		{"TLS offered but off", domain(`,"starttls":"off"`), begin + xmppOffers, "up", []string{"xmpp.starttls", "xmpp.auth_mechanisms == nil"}},
		{"TLS required", domain(`,"starttls":"required"`), begin + xmppLogin, "down tls greet", nil},
		{"TLS refused", domain(""), begin + xmppOffers + "S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>\\", "down tls greet", nil},
		{"injected", domain(""), begin + xmppOffers + "S: <proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>injected", "down protocol tls", nil},
		{"login", login, secure + xmppAuth + "S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\\\n" + begin + xmppBinds, "up", []string{"xmpp.logged_in", "xmpp.mechanism == 'PLAIN'", "'bind' in xmpp.features"}},
		{"login, but nothing to bind", login, secure + xmppAuth + "S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\\\n" + begin + "S: <stream:features/>\\", "down protocol auth", nil},
		{"wrong password", login, failure("not-authorized"), "down denied auth", []string{"not xmpp.logged_in", "error contains 'not-authorized'"}},
		{"temporary", login, failure("temporary-auth-failure"), "down unavailable auth", nil},
		{"bad base64", login, secure + xmppAuth + "S: <challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>!</challenge>\\", "down protocol auth", nil},
		{"unknown domain", domain(""), streamError("host-unknown"), "down mismatch greet", []string{"error contains 'host-unknown'"}},
		{"shuts down", domain(""), streamError("system-shutdown"), "down unavailable greet", nil},
		{"no features", domain(""), begin + "S: </stream:stream>\\", "down closed greet", nil},
		{"no mechanisms", domain(""), begin + "S: <stream:features/>\\", "down protocol greet", nil},
		{"another document", domain(""), xmppOpens + "S: <html>", "down protocol greet", nil},
		{"text", domain(""), "S: 220 mail.example.org ESMTP", "down protocol greet", nil},
		{"a bomb", domain(""), xmppOpens + "S: <!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "down protocol greet", nil},
		{"endless", domain(""), xmppOpens + xmppStarts + "S: <stream:features>" + strings.Repeat("<a/>", 70000), "down protocol greet", nil},
		{"closes", domain(""), begin + "S: <stream:feat\\\n! close", "down closed greet", nil},
	})
	check(t, "xmpp://127.0.0.1", `"xmpp":{"server":true,"user":"a"}`).want(t, "unknown options prepare")
}

func TestXMPPReal(t *testing.T) {
	s := realserver.Shared(t, "xmpp")
	ca := fmt.Sprintf(`"tls":{"ca":%q},`, s["ca"])
	login := func(password string) string {
		return fmt.Sprintf(`"xmpp":{"user":"anna","password":%q}`, secret(t, "X"+strings.ToUpper(strings.ReplaceAll(password, "-", "_")), password))
	}
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"stream", "xmpp://" + s["xmpp"], ca + `"xmpp":{}`, "up", []string{"xmpp.starttls_required", "xmpp.from == 'localhost'", "'SCRAM-SHA-1' in xmpp.auth_mechanisms", "tls.verified"}},
		{"login", "xmpp://" + s["xmpp"], ca + login("anna-secret"), "up", []string{"xmpp.logged_in", "xmpp.mechanism startsWith 'SCRAM'"}},
		{"wrong password", "xmpp://" + s["xmpp"], ca + login("wrong-secret"), "down denied auth", nil},
		{"TLS from the start", "xmpps://" + s["xmpp_tls"], ca + login("anna-secret"), "up", []string{"xmpp.logged_in", "xmpp.starttls == nil"}},
		{"unknown domain", "xmpp://" + s["xmpp"], ca + `"xmpp":{"domain":"other.example"}`, "down mismatch greet", nil},
		{"untrusted", "xmpp://" + s["xmpp"], `"timeout":"5s"`, "down certificate-untrusted tls", nil},
		{"as a server", "xmpp://" + s["xmpp_peers"], ca + `"xmpp":{"server":true}`, "up", nil},
		{"a client where servers talk", "xmpp://" + s["xmpp_peers"], ca + `"xmpp":{}`, "down protocol greet", nil},
		{"tls+xmpp", "tls+xmpp://" + s["xmpp"], ca + `"timeout":"5s"`, "up", nil},
		{"another service", "xmpp://" + s["xmpp_tls"], `"timeout":"1s"`, "down", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.url, tt.target)
			if tt.want == "down" {
				if !strings.HasPrefix(res.outcome(), "down") {
					t.Errorf("got %q, want down\n%s", res.outcome(), res.line)
				}
				return
			}
			res.want(t, tt.want, tt.facts...)
		})
	}
}

func TestXMPPPaused(t *testing.T) {
	s := realserver.Start(t, "xmpp")
	inside := between(t, s["xmpp"], "<starttls", func() { realserver.Pause(t, s, "xmpp") })
	check(t, "xmpp://"+strings.Replace(inside, "127.0.0.1", "localhost", 1), `"timeout":"1s"`).want(t, "down timeout greet", "xmpp.from == 'localhost'")
	realserver.Resume(t, s, "xmpp")
	realserver.Pause(t, s, "xmpp")
	check(t, "xmpp://"+s["xmpp"], `"timeout":"500ms"`).want(t, "down timeout greet")
	realserver.Resume(t, s, "xmpp")
	check(t, "xmpp://"+s["xmpp"], fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])).want(t, "up")
}

// FuzzXMPP: whatever a server sends, the check is up only if that opens a
// stream and offers a mechanism, or TLS.
func FuzzXMPP(f *testing.F) {
	f.Add("<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams'><stream:features/>")
	f.Add("<a><b></a>")
	runner := probe.NewRunner(All())
	f.Fuzz(func(t *testing.T, text string) {
		addr := serve(t, func(c net.Conn) { io.WriteString(c, text) })
		res := checkContext(t, t.Context(), runner, "xmpp://"+addr, `"timeout":"200ms","xmpp":{"starttls":"off"}`)
		if res.vars["status"] == string(wire.Up) && !strings.Contains(text, "mechanism") && !strings.Contains(text, "starttls") {
			t.Errorf("up with %q", text)
		}
	})
}
