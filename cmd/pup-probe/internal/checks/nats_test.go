package checks

import (
	"bufio"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

const (
	natsHello  = `S: INFO {"server_id":"ID","server_name":"n1","version":"2.10.1","max_payload":1048576,"headers":true,"jetstream":true,"ldm":false}` + "\n"
	natsLogged = natsHello + "C~ CONNECT \\{.*\"no_responders\":true\\}\nC: PING\nS: PONG\n"
	natsSub    = "C~ SUB _INBOX\\.[a-z0-9]+ 1\nC: UNSUB 1 1\n"
)

func TestNATS(t *testing.T) {
	pw := `"nats":{"user":"u","password":` + fmt.Sprintf("%q", secret(t, "NATS_PASSWORD", "hush-hush")) + `}`
	token := `"nats":{"token":` + fmt.Sprintf("%q", secret(t, "NATS_TOKEN", "hush-hush")) + `}`
	seed := `"nats":{"seed":` + fmt.Sprintf("%q", secret(t, "NATS_SEED", "SUAACCAPCYOSIKZSHFAEOTSVLRRWU4LYP6DI3FE3UKU3BN56YXGNHWVCJA")) + `}`
	talks(t, "nats://HOST", []talk{
		{"up", "", natsLogged, "up", []string{"nats.version == '2.10.1'", "nats.jetstream", "not nats.auth_required", "nats.logged_in", "nats.server_name == 'n1'"}},
		{"ping between", "", natsHello + "C~ CONNECT\nC: PING\nS: PING\nS: +OK\nC: PONG\nS: PONG", "up", nil},
		{"password", pw, natsHello + "C~ CONNECT \\{\"user\":\"u\",\"pass\":\"hush-hush\",\nC: PING\nS: PONG", "up", nil},
		{"token", token, natsHello + "C~ CONNECT \\{\"auth_token\":\"hush-hush\",\nC: PING\nS: PONG", "up", nil},
		{"no nonce", seed, natsHello, "down denied auth", []string{"error contains 'nonce'"}},
		{"denied", pw, natsHello + "C~ CONNECT\nS: -ERR 'Authorization Violation'\n! close", "down denied auth", []string{"error contains 'Authorization Violation'", "nats.logged_in == nil", "not (error contains 'no credentials')"}},
		{"asks for credentials", "", natsHello + "C~ CONNECT\nS: -ERR 'Authorization Violation'", "down denied auth", []string{"error contains 'no credentials are set'"}},
		{"expected", `"expect":["reason == 'denied'"]`, natsHello + "C~ CONNECT\nS: -ERR 'Authorization Violation'", "up", nil},
		{"full", "", natsHello + "C~ CONNECT\nS: -ERR 'maximum connections exceeded'", "down unavailable auth", nil},
		{"full before", "", "S: -ERR 'maximum connections exceeded'", "down unavailable greet", nil},
		{"shutdown", "", natsHello + "C~ CONNECT\nS: -ERR 'Server Shutdown'", "down unavailable auth", nil},
		{"wants TLS", "", natsHello + "C~ CONNECT\nS: -ERR 'Secure Connection - TLS Required'", "down tls auth", nil},
		{"other error", "", natsHello + "C~ CONNECT\nS: -ERR 'Unknown Protocol Operation'", "down protocol auth", nil},
		{"lame duck", "", strings.Replace(natsLogged, `"ldm":false`, `"ldm":true`, 1), "degraded mismatch verify", nil},
		{"long INFO", "", strings.Replace(natsLogged, `"ldm"`, `"connect_urls":["`+strings.Repeat(`10.0.0.1:4222","`, 800)+`"],"ldm"`, 1), "up", []string{"len(nats.connect_urls) == 64"}},
		{"endless INFO", "", "S: INFO {\"server_id\":\"" + strings.Repeat("x", 70000), "down protocol greet", nil},
		{"no JSON", "", "S: INFO {\"server_id\":", "down protocol greet", nil},
		{"another's INFO", "", "S: INFO {\"name\":\"x\"}", "down protocol greet", nil},
		{"no PONG", "", natsHello + "C~ CONNECT\nC: PING\nS: MSG a 1 0\nS: ", "down protocol auth", nil},
		{"garbage for PONG", "", natsHello + "C~ CONNECT\nC: PING\nS: WHAT", "down protocol auth", nil},
		{"hangs", `"timeout":"200ms"`, natsHello + "C~ CONNECT\nC: PING\n! hang", "down timeout auth", nil},
		{"closes", "", natsHello + "C~ CONNECT\nC: PING\n! close", "down closed auth", nil},
		{"half INFO", "", "S: INFO {\\\n! close", "down closed greet", nil},
	})
}

func TestNATSMessages(t *testing.T) {
	canary, request := `"nats":{"canary":true}`, `"nats":{"request":"svc.time","payload":"hello"}`
	stream, consumer := `"nats":{"stream":"ORDERS"}`, `"nats":{"stream":"ORDERS","consumer":"bill"}`
	ask := func(subject string) string {
		return natsLogged + natsSub + "C~ PUB " + subject + " _INBOX\\.[a-z0-9]+ \\d+\nC~ \n"
	}
	msg := func(text string) string { return fmt.Sprintf("S: MSG _INBOX.x 1 %d\nS: %s\n", len(text), text) }
	state := `{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"subjects":["a.>"],"storage":"file"},"ts":"2026-01-01T00:00:10Z","state":{"messages":5,"bytes":500,"first_seq":3,"last_seq":7,"last_ts":"2026-01-01T00:00:08Z","consumer_count":1},"cluster":{"leader":"n1","replicas":[{"name":"n2","current":true},{"name":"n3","current":true,"offline":true}]}}`
	lag := `{"delivered":{"stream_seq":5},"ack_floor":{"stream_seq":4},"num_pending":2,"num_ack_pending":1,"num_redelivered":1,"num_waiting":0}`
	talks(t, "nats://HOST", []talk{
		{"other token", canary, natsLogged + "C~ SUB pup\\.canary\\.\nC~ UNSUB\nC~ PUB\nC~ \nS: MSG pup.canary.x 1 3\nS: abc", "down mismatch wait", nil},
		{"no permission", canary, natsLogged + "C~ SUB pup\\.canary\\.\nS: -ERR 'Permissions Violation for Publish to \"pup.canary.x\"'", "down denied wait", nil},
		{"lost", canary + `,"timeout":"200ms"`, natsLogged, "down timeout wait", nil},
		{"reply", request, ask("svc.time") + msg("noon"), "up", []string{"nats.reply == 'noon'"}},
		{"reply with header", request, ask("svc.time") + "S: HMSG _INBOX.x 1 18 22\nS: NATS/1.0\nS: a: b\nS: \\\nSx 0d 0a\nS: noon\n", "up", []string{"nats.reply == 'noon'"}},
		{"empty reply", request, ask("svc.time") + msg(""), "up", []string{"nats.reply == ''"}},
		{"nobody", request, ask("svc.time") + "S: HMSG _INBOX.x 1 16 16\nS: NATS/1.0 503\nS: \nS: ", "down unavailable wait", nil},
		{"other header", request, ask("svc.time") + "S: HMSG _INBOX.x 1 10 10\nS: HTTP/1.1\nSx 0d 0a 0d 0a", "down protocol wait", nil},
		{"no end", request, ask("svc.time") + "S: MSG _INBOX.x 1 2\nS: noon", "down protocol wait", nil},
		{"too long", request, ask("svc.time") + "S: MSG _INBOX.x 1 9999999", "down protocol wait", nil},
		{"half", request, ask("svc.time") + "S: MSG _INBOX.x 1 9\nS: noon\n! close", "down closed wait", nil},
		{"another's message first", request, ask("svc.time") + "S: MSG _INBOX.x 7 1\nS: x\n" + msg("noon"), "up", []string{"nats.reply == 'noon'"}},
		{"lame duck meanwhile", request, ask("svc.time") + strings.Replace(natsHello, `"ldm":false`, `"ldm":true`, 1) + msg("noon"), "degraded mismatch verify", nil},

		{"stream", stream, ask(`\$JS\.API\.STREAM\.INFO\.ORDERS`) + msg(state), "up", []string{
			"nats.stream.messages == 5", "nats.stream.first_seq == 3", "nats.stream.last_seq == 7", "nats.stream.last_age_ms == 2000",
			"nats.stream.leader == 'n1'", "nats.stream.replicas == 2", "nats.stream.replicas_current == 1", "nats.stream.storage == 'file'"}},
		{"no stream", stream, ask(`\S+`) + msg(`{"error":{"code":404,"err_code":10059,"description":"stream not found"}}`), "down mismatch wait", []string{"error contains 'stream not found'"}},
		{"no leader", stream, ask(`\S+`) + msg(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`), "down unavailable wait", nil},
		{"no JetStream", stream, ask(`\S+`) + "S: HMSG _INBOX.x 1 16 16\nS: NATS/1.0 503\nS: \nS: ", "down unavailable wait", nil},
		{"not JetStream", stream, ask(`\S+`) + msg(`noon`), "down protocol wait", nil},
		{"no state", stream, ask(`\S+`) + msg(`{"type":"x"}`), "down protocol wait", nil},
		{"consumer", consumer, ask(`\S+`) + msg(state) + "C~ SUB _INBOX\\.[a-z0-9]+ 2\nC: UNSUB 2 1\nC~ PUB \\$JS\\.API\\.CONSUMER\\.INFO\\.ORDERS\\.bill \nC~ \n" + strings.Replace(msg(lag), " 1 ", " 2 ", 1), "up", []string{
			"nats.consumer.pending == 2", "nats.consumer.ack_pending == 1", "nats.consumer.waiting == 0", "nats.consumer.delivered_seq == 5", "nats.consumer.ack_floor_seq == 4"}},
		{"domain", `"nats":{"stream":"ORDERS","domain":"hub"}`, ask(`\$JS\.hub\.API\.STREAM\.INFO\.ORDERS`) + msg(state), "up", nil},
	})
}

func TestNATSOptions(t *testing.T) {
	pw := secret(t, "NATS_PASSWORD", "hush-hush")
	for _, tt := range []struct{ options, want string }{
		{`{"password":"` + pw + `"}`, "nats.user"},
		{`{"user":"u","token":"` + pw + `"}`, "only one"},
		{`{"consumer":"c"}`, "nats.stream"},
		{`{"stream":"a.b"}`, "dot"},
		{`{"request":"a b"}`, "wildcard"},
		{`{"request":"a\r\nPUB x 0"}`, "control"},
		{`{"canary_prefix":"a.>"}`, "wildcard"},
		{`{"seed":"` + pw + `"}`, "nats.seed"},
		{`{"creds":"` + pw + `"}`, "nats.creds"},
	} {
		check(t, "nats://broker.example.org", `"nats":`+tt.options).want(t, "unknown options prepare", fmt.Sprintf("error contains %q", tt.want), "not (error contains 'hush')")
	}
}

func TestNATSTLS(t *testing.T) {
	hello := strings.Replace(strings.TrimPrefix(natsHello, "S: "), `"ldm":false`, `"tls_required":true`, 1)
	server := func(first bool) string {
		return serve(t, func(c net.Conn) {
			if !first {
				io.WriteString(c, hello)
			}
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCA().leaf}})
			if tc.Handshake() != nil {
				return
			}
			if first {
				io.WriteString(tc, hello)
			}
			br := bufio.NewReader(tc)
			br.ReadString('\n')
			br.ReadString('\n')
			io.WriteString(tc, "PONG\r\n")
			io.Copy(io.Discard, br)
		})
	}
	check(t, "nats://"+server(false), trustTestCA()).want(t, "up", "tls.version != ''", "nats.tls_required")
	check(t, "nats://"+server(false), "").want(t, "down certificate-untrusted tls")
	check(t, "nats://"+server(false), `"nats":{"starttls":"off"}`).want(t, "down tls greet")
	check(t, "tls+nats://"+server(true), trustTestCA()).want(t, "up", "tls.version != ''")
	talks(t, "nats://HOST", []talk{
		{"not offered", `"nats":{"starttls":"required"}`, natsHello, "down tls greet", nil},
		{"injected", "", "S: " + strings.TrimSuffix(hello, "\n") + "\nS: PONG", "down protocol tls", nil},
	})
}

// A server that checks the signature of the nonce.
func TestNATSSignature(t *testing.T) {
	seed := "SUAACCAPCYOSIKZSHFAEOTSVLRRWU4LYP6DI3FE3UKU3BN56YXGNHWVCJA"
	key, ok := natsSeed(seed)
	if !ok {
		t.Fatal("the seed is not read")
	}
	creds := "-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n\nnote\n\n-----BEGIN USER NKEY SEED-----\n" + seed + "\n------END USER NKEY SEED------\n"
	for _, tt := range []struct{ options, jwt, nkey string }{
		{`{"seed":"` + secret(t, "NATS_SEED", seed) + `"}`, "", "UDSAGCMYZ7K22FZDYFU7SVVKBOPLQYM3LGJL2YJMFL2CR26HT6G7AGME"},
		{`{"creds":"` + secret(t, "NATS_CREDS", creds) + `"}`, "abc.def.ghi", ""},
	} {
		addr := serve(t, func(c net.Conn) {
			io.WriteString(c, `INFO {"server_id":"ID","max_payload":1024,"nonce":"n0nce"}`+"\r\n")
			br := bufio.NewReader(c)
			line, _ := br.ReadString('\n')
			var got natsConnect
			if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "CONNECT ")), &got); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			sig, err := base64.RawURLEncoding.DecodeString(got.Signature)
			if err != nil || !ed25519.Verify(key.Public().(ed25519.PublicKey), []byte("n0nce"), sig) || got.JWT != tt.jwt || got.NKey != tt.nkey {
				t.Errorf("got jwt %q nkey %q sig %q, want %q %q and a signature of the nonce", got.JWT, got.NKey, got.Signature, tt.jwt, tt.nkey)
			}
			io.WriteString(c, "PONG\r\n")
			io.Copy(io.Discard, br)
		})
		check(t, "nats://"+addr, `"nats":`+tt.options).want(t, "up")
	}
}

func TestNATSReal(t *testing.T) {
	s := realserver.Shared(t, "nats")
	pw := `"user":"` + s["nats_auth_user"] + `","password":"` + secret(t, "NATS_PW", s["nats_auth_password"]) + `"`
	wrong := `"user":"` + s["nats_auth_user"] + `","password":"` + secret(t, "NATS_WRONG", "wrong-secret") + `"`
	idle := `"user":"` + s["nats_auth_idle"] + `","password":"` + secret(t, "NATS_IDLE", s["nats_auth_idle_password"]) + `"`
	creds := fmt.Sprintf("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", s["nats_jwt_jwt"], s["nats_jwt_seed"])
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])
	natsFill(t, s["nats"])
	hold, err := net.Dial("tcp", s["nats_full"])
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	bufio.NewReader(hold).ReadString('\n')

	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"plain", s["nats"], "", "up", []string{"nats.server_name == 'nats'", "nats.jetstream", "not nats.auth_required", "not nats.lame_duck"}},
		{"canary", s["nats"], `"nats":{"canary":true}`, "up", []string{"nats.canary_ms > 0"}},
		{"nobody answers", s["nats"], `"nats":{"request":"nobody.here"}`, "down unavailable wait", nil},
		{"request", s["nats"], `"nats":{"request":"$JS.API.INFO"}`, "up", []string{"nats.reply contains 'account_info'"}},
		{"stream", s["nats"], `"nats":{"stream":"ORDERS","consumer":"bill"}`, "up", []string{
			"nats.stream.messages == 3", "nats.stream.last_seq == 3", "nats.stream.consumers == 1", "nats.stream.last_age_ms < 60000",
			"nats.consumer.pending == 3", "nats.consumer.ack_pending == 0", "nats.consumer.waiting == 0"}},
		{"too much lag", s["nats"], `"nats":{"stream":"ORDERS","consumer":"bill"},"expect":["nats.consumer.pending < 3"]`, "down mismatch verify", nil},
		{"no stream", s["nats"], `"nats":{"stream":"NONE"}`, "down mismatch wait", []string{"error contains 'stream not found'"}},
		{"no consumer", s["nats"], `"nats":{"stream":"ORDERS","consumer":"none"}`, "down mismatch wait", []string{"nats.stream.messages == 3"}},
		{"password", s["nats_auth"], `"nats":{` + pw + `,"canary":true}`, "up", []string{"nats.auth_required"}},
		{"wrong password", s["nats_auth"], `"nats":{` + wrong + `}`, "down denied auth", nil},
		{"no password", s["nats_auth"], "", "down denied auth", []string{"error contains 'no credentials are set'"}},
		{"seed", s["nats_auth"], `"nats":{"seed":"` + secret(t, "NATS_S", s["nats_auth_seed"]) + `"}`, "up", nil},
		{"another's seed", s["nats_auth"], `"nats":{"seed":"` + secret(t, "NATS_S2", s["nats_jwt_seed"]) + `"}`, "down denied auth", nil},
		{"no right", s["nats_auth"], `"nats":{` + idle + `,"canary":true}`, "down denied wait", nil},
		{"domain", s["nats_auth"], `"nats":{` + pw + `,"stream":"NONE","domain":"hub"}`, "down mismatch wait", nil},
		{"no domain", s["nats_auth"], `"nats":{` + pw + `,"stream":"NONE","domain":"other"}`, "down unavailable wait", nil},
		{"token", s["nats_token"], `"nats":{"token":"` + secret(t, "NATS_T", s["nats_token_token"]) + `"}`, "up", nil},
		{"wrong token", s["nats_token"], `"nats":{"token":"` + secret(t, "NATS_T2", "wrong-token") + `"}`, "down denied auth", nil},
		{"creds", s["nats_jwt"], `"nats":{"creds":"` + secret(t, "NATS_C", creds) + `"}`, "up", nil},
		{"no creds", s["nats_jwt"], "", "down denied auth", nil},
		{"tls", s["nats_tls"], ca + `,"nats":{` + pw + `}`, "up", []string{"nats.tls_required", "tls.version == '1.3'"}},
		{"untrusted", s["nats_tls"], `"nats":{` + pw + `}`, "down certificate-untrusted tls", nil},
		{"tls off", s["nats_tls"], `"nats":{"starttls":"off"}`, "down tls greet", nil},
		{"tls not offered", s["nats"], `"nats":{"starttls":"required"}`, "down tls greet", nil},
		{"full", s["nats_full"], "", "down unavailable auth", nil},
		{"another service", s["nats_http"], "", "down timeout greet", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := tt.target
			if tt.name == "another service" {
				target = `"timeout":"300ms"` // HTTP waits for us to speak
			}
			check(t, "nats://"+tt.url, target).want(t, tt.want, append(tt.facts, "not (error contains 'secret')")...)
		})
	}
}

// natsFill makes a stream of three messages, with a consumer.
func natsFill(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	br.ReadString('\n')
	io.WriteString(c, "CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\n")
	for _, m := range [][2]string{
		{"$JS.API.STREAM.CREATE.ORDERS", `{"name":"ORDERS","subjects":["orders.>"],"storage":"memory"}`},
		{"$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.bill", `{"stream_name":"ORDERS","config":{"durable_name":"bill","ack_policy":"explicit"}}`},
		{"orders.1", "a"}, {"orders.2", "b"}, {"orders.3", "c"},
	} {
		fmt.Fprintf(c, "PUB %s inbox %d\r\n%s\r\n", m[0], len(m[1]), m[1])
		br.ReadString('\n')
		if reply, err := br.ReadString('\n'); err != nil || strings.Contains(reply, "error") {
			t.Fatalf("%s: %s %v", m[0], reply, err)
		}
	}
}

func TestNATSPaused(t *testing.T) {
	for _, tt := range []struct{ trigger, want string }{
		{"CONNECT", "down timeout auth"},
		{"SUB", "down timeout wait"},
	} {
		s := realserver.Start(t, "nats")
		check(t, "nats://"+brokerPaused(t, s, "nats", tt.trigger), `"timeout":"1s","nats":{"canary":true}`).want(t, tt.want)
	}
}

// What is parsed says the same when it is written again.
func FuzzNATSOp(f *testing.F) {
	for _, line := range []string{"MSG a.b 1 5", "MSG a 1 reply 5", "HMSG a 1 12 17", "HMSG a 9 r 12 12", "-ERR 'x'", "PING", "INFO {}", "msg a 1 1048577"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		op, err := natsParse(line)
		if err != nil {
			return
		}
		if op.headerBytes > op.bytes || op.bytes > natsMaxPayload || op.bytes < 0 {
			t.Fatalf("%q: a header of %d in %d bytes", line, op.headerBytes, op.bytes)
		}
		if !strings.HasSuffix(op.name, "MSG") {
			return
		}
		again := fmt.Sprintf("%s %s %d %s", op.name, op.subject, op.sid, op.reply)
		if op.name == "HMSG" {
			again += fmt.Sprintf(" %d", op.headerBytes)
		}
		again += fmt.Sprintf(" %d", op.bytes)
		op2, err := natsParse(again)
		if err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		op.text, op2.text = "", ""
		if *op2 != *op {
			t.Fatalf("%q: got %+v, want %+v", again, *op2, *op)
		}
	})
}

// A seed that is read has the checksum, so no change of a character goes
// unnoticed.
func FuzzNATSSeed(f *testing.F) {
	f.Add("SUAACCAPCYOSIKZSHFAEOTSVLRRWU4LYP6DI3FE3UKU3BN56YXGNHWVCJA", 7)
	f.Add("UDSAGCMYZ7K22FZDYFU7SVVKBOPLQYM3LGJL2YJMFL2CR26HT6G7AGME", 0)
	f.Fuzz(func(t *testing.T, seed string, at int) {
		if _, ok := natsSeed(seed); !ok {
			return
		}
		seed = strings.TrimSpace(seed)
		b := []byte(seed)
		i := (at%(len(b)-1) + len(b) - 1) % (len(b) - 1) // the last character has unused bits
		b[i] ^= 1
		if _, ok := natsSeed(string(b)); ok {
			t.Errorf("%q and %q are both read", seed, b)
		}
	})
}
