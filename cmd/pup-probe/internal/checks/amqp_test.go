package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// amqpSay makes the line of a script that sends a method on a channel.
func amqpSay(channel uint16, m amqpMethod, args ...byte) string {
	return fmt.Sprintf("Sx %x\n", amqpAppendMethod(nil, channel, m, args))
}

// amqpHear makes the line that wants a method.
func amqpHear(channel uint16, m amqpMethod, args ...byte) string {
	return fmt.Sprintf("Cx %x\n", amqpAppendMethod(nil, channel, m, args))
}

// amqpCloses makes the arguments of connection.close and channel.close.
func amqpCloses(code int, text string, cause amqpMethod) []byte {
	b := amqpAppendShortstr([]byte{byte(code >> 8), byte(code)}, text)
	return append(b, byte(cause>>24), byte(cause>>16), byte(cause>>8), byte(cause))
}

func amqpOffers(mechanisms string) string {
	b := amqpAppendTable([]byte{0, 9}, map[string]any{"product": "RabbitMQ", "version": "3.10.8", "cluster_name": "c1",
		"capabilities": map[string]any{"consumer_priorities": true}})
	return fmt.Sprintf("Cx %x\n", "AMQP\x00\x00\x09\x01") + amqpSay(0, amqpStart, amqpAppendLongstr(amqpAppendLongstr(b, mechanisms), "en_US")...)
}

func amqpLogsIn(mechanism, response string) string {
	b := amqpAppendTable(nil, map[string]any{"product": "pup", "capabilities": map[string]any{
		"authentication_failure_close": true, "connection.blocked": true, "publisher_confirms": true}})
	b = amqpAppendLongstr(amqpAppendShortstr(b, mechanism), response)
	return amqpHear(0, amqpStartOK, amqpAppendShortstr(b, "en_US")...)
}

var (
	amqpTuned  = amqpSay(0, amqpTune, 0x07, 0xff, 0, 2, 0, 0, 0, 60) + amqpHear(0, amqpTuneOK, 0x07, 0xff, 0, 2, 0, 0, 0, 0)
	amqpOpened = amqpHear(0, amqpOpen, 1, '/', 0, 0) + amqpSay(0, amqpOpenOK, 0)
	amqpInside = amqpHear(1, amqpChannelOpen, 0) + amqpSay(1, amqpChannelOpenOK, 0, 0, 0, 0)
	amqpIn     = amqpOffers("PLAIN ANONYMOUS") + amqpLogsIn("ANONYMOUS", "") + amqpTuned + amqpOpened + amqpInside
	amqpBye    = amqpHear(0, amqpClose, amqpCloses(200, "", 0)...) + amqpSay(0, amqpCloseOK)
)

func TestAMQP(t *testing.T) {
	pw := fmt.Sprintf(`"amqp":{"user":"u","password":%q}`, secret(t, "AMQP_PASSWORD", "hush-hush"))
	plain := amqpOffers("AMQPLAIN PLAIN") + amqpLogsIn("PLAIN", "\x00u\x00hush-hush")
	header := fmt.Sprintf("Cx %x\n", "AMQP\x00\x00\x09\x01")
	mac := hmac.New(md5.New, []byte("hush-hush"))
	mac.Write([]byte("x"))
	cram := fmt.Sprintf("u %x", mac.Sum(nil))
	talks(t, "amqp://HOST", []talk{
		{"up", "", amqpIn + amqpBye, "up", []string{"amqp.product == 'RabbitMQ'", "amqp.version == '3.10.8'", "amqp.cluster_name == 'c1'", "amqp.vhost == '/'",
			"amqp.channel_max == 2047", "amqp.frame_max_bytes == 131072", "amqp.heartbeat_seconds == 60", "amqp.mechanism == 'ANONYMOUS'", "'PLAIN' in amqp.mechanisms"}},
		{"closes without a word", "", amqpIn + "! close", "up", nil},
		{"resets", "", amqpIn + amqpHear(0, amqpClose, amqpCloses(200, "", 0)...) + "! reset", "up", nil},
		{"hangs at the end", `"timeout":"500ms"`, amqpIn + "! hang", "down timeout wait", nil},
		{"heartbeat between", "", amqpIn + "Sx 08 0000 00000000 ce\n" + amqpBye, "up", nil},
		{"password", pw, plain + amqpTuned + amqpOpened + amqpInside + amqpBye, "up", []string{"amqp.mechanism == 'PLAIN'"}},
		{"challenge", strings.Replace(pw, `"user"`, `"mechanism":"CRAM-MD5","user"`, 1), amqpOffers("PLAIN CRAM-MD5") + amqpLogsIn("CRAM-MD5", "") + amqpSay(0, amqpSecure, 0, 0, 0, 1, 'x') +
			amqpHear(0, amqpSecureOK, amqpAppendLongstr(nil, cram)...) + amqpTuned + amqpOpened + amqpInside + amqpBye, "up", []string{"amqp.mechanism == 'CRAM-MD5'"}},
		{"no limits", "", amqpOffers("ANONYMOUS") + amqpLogsIn("ANONYMOUS", "") + amqpSay(0, amqpTune, 0, 0, 0, 0, 0, 0, 0, 0) + amqpHear(0, amqpTuneOK, 0, 0, 0, 2, 0, 0, 0, 0) + amqpOpened + amqpInside + amqpBye, "up", []string{"amqp.frame_max_bytes == 0"}},
		{"wrong password", pw, plain + amqpSay(0, amqpClose, amqpCloses(403, "ACCESS_REFUSED - hush-hush", 0)...), "down denied auth", []string{"amqp.code == 403", "not (error contains 'hush')"}},
		{"wrong password, old server", pw, plain + "! close", "down closed auth", nil},
		{"no credentials", "", amqpOffers("PLAIN"), "down denied auth", []string{"error contains 'no credentials are set'", "amqp.product == 'RabbitMQ'"}},
		{"no mechanism", pw, amqpOffers("RABBIT-CR-DEMO"), "down denied auth", nil},
		{"mechanism not offered", `"amqp":{"mechanism":"EXTERNAL"}`, amqpOffers("PLAIN"), "down denied auth", nil},
		{"no vhost", pw, plain + amqpTuned + amqpHear(0, amqpOpen, 1, '/', 0, 0) + amqpSay(0, amqpClose, amqpCloses(530, "NOT_ALLOWED - vhost / not found", amqpOpen)...), "down denied auth", []string{"error contains 'connection.open'", "amqp.vhost == nil"}},
		{"vhost down", "", amqpOffers("ANONYMOUS") + amqpLogsIn("ANONYMOUS", "") + amqpTuned + amqpHear(0, amqpOpen, 1, '/', 0, 0) + amqpSay(0, amqpClose, amqpCloses(541, "INTERNAL_ERROR - vhost is down", amqpOpen)...), "down unavailable auth", nil},
		{"shuts down", "", strings.TrimSuffix(amqpIn, amqpInside) + amqpSay(0, amqpClose, amqpCloses(320, "CONNECTION_FORCED", 0)...), "down unavailable wait", nil},
		{"AMQP 1.0", "", header + "Sx 414d5150 00 01 00 00\n! close", "down protocol greet", []string{"error contains 'AMQP 1.0'"}},
		{"SASL of 1.0", "", header + "Sx 414d5150 03 01 00 00\n! close", "down protocol greet", []string{"error contains 'AMQP 1.0'"}},
		{"AMQP 0-10", "", header + "Sx 414d5150 01 01 00 0a\n! close", "down protocol greet", nil},
		{"our own header", "", header + "Sx 414d5150 00 00 09 01", "down protocol greet", nil},
		{"other method", "", header + amqpSay(0, amqpOpenOK, 0), "down protocol greet", nil},
		{"version 8-0", "", header + amqpSay(0, amqpStart, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "down protocol greet", nil},
		{"short start", "", header + amqpSay(0, amqpStart, 0, 9, 0, 0, 0, 9), "down protocol greet", nil},
		{"no frame end", "", header + "Sx 01 0000 00000004 000a000a 00", "down protocol greet", nil},
		{"huge frame", "", header + "Sx 01 0000 7f000000", "down protocol greet", nil},
		{"other channel", "", header + "Sx 01 0007 00000004 000a000a ce", "down protocol greet", nil},
		{"body for a method", "", header + "Sx 03 0000 00000004 000a000a ce", "down protocol greet", nil},
		{"half", "", header + "Sx 01 0000 00000004 000a\n! close", "down closed greet", nil},
		{"hangs in login", pw + `,"timeout":"200ms"`, plain + "! hang", "down timeout auth", nil},
		{"hangs after", `"timeout":"200ms"`, strings.TrimSuffix(amqpIn, amqpInside) + "! hang", "down timeout wait", nil},
	})
}

func TestAMQPQueue(t *testing.T) {
	queue := `"amqp":{"queue":"q"}`
	asks := amqpIn + amqpHear(1, amqpDeclare, 0, 0, 1, 'q', 1, 0, 0, 0, 0)
	talks(t, "amqp://HOST", []talk{
		{"up", queue, asks + amqpSay(1, amqpDeclareOK, 1, 'q', 0, 0, 1, 4, 0, 0, 0, 2) + amqpBye, "up", []string{"amqp.messages == 260", "amqp.consumers == 2"}},
		{"empty", queue, asks + amqpSay(1, amqpDeclareOK, 1, 'q', 0, 0, 0, 0, 0, 0, 0, 0) + amqpBye, "up", []string{"amqp.messages == 0", "amqp.consumers == 0"}},
		{"none", queue, asks + amqpSay(1, amqpChannelClose, amqpCloses(404, "NOT_FOUND - no queue 'q'", amqpDeclare)...), "down mismatch wait", []string{"error contains 'queue.declare'", "amqp.code == 404"}},
		{"forbidden", queue, asks + amqpSay(1, amqpChannelClose, amqpCloses(403, "ACCESS_REFUSED", amqpDeclare)...), "down denied wait", nil},
		{"another's", queue, asks + amqpSay(1, amqpChannelClose, amqpCloses(405, "RESOURCE_LOCKED", amqpDeclare)...), "down unavailable wait", nil},
		{"another queue", queue, asks + amqpSay(1, amqpDeclareOK, 1, 'r', 0, 0, 0, 0, 0, 0, 0, 0), "down protocol wait", nil},
		{"short", queue, asks + amqpSay(1, amqpDeclareOK, 1, 'q', 0, 0, 0), "down protocol wait", nil},
		{"other method", queue, asks + amqpSay(1, amqpGetEmpty, 0), "down protocol wait", nil},
	})
}

// amqpRote is a server that answers by rote, up to the message: then it says
// answer, or once it is asked for the message if it is to acknowledge it before.
func amqpRote(t *testing.T, c net.Conn, ack bool, answer string) {
	io.ReadFull(c, make([]byte, 8))
	s := func(script string) { play(t, c, script+"\n! end") }
	s(amqpOffers("ANONYMOUS")[len("Cx 414d515000000901\n"):])
	for {
		var head [7]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		kind, _, length, _ := amqpHeader(head)
		b := make([]byte, length+1)
		io.ReadFull(c, b)
		r := amqpReader{b: b}
		switch m := amqpMethod(r.long()); {
		case kind == amqpBodyFrame && ack:
			s(amqpSay(1, amqpAck, 0, 0, 0, 0, 0, 0, 0, 1, 0))
		case kind == amqpBodyFrame, m == amqpGet:
			s(answer)
			if strings.HasSuffix(answer, "! close") {
				return
			}
		case kind != amqpMethodFrame:
		case m == amqpStartOK:
			s(amqpSay(0, amqpTune, 0, 0, 0, 0, 0, 0, 0, 0))
		case m == amqpOpen:
			s(amqpSay(0, amqpOpenOK, 0))
		case m == amqpChannelOpen:
			s(amqpSay(1, amqpChannelOpenOK, 0, 0, 0, 0))
		case m == amqpDeclare:
			r.short()
			s(amqpSay(1, amqpDeclareOK, append(amqpAppendShortstr(nil, r.shortstr()), 0, 0, 0, 0, 0, 0, 0, 0)...))
		case m == amqpConfirm:
			s(amqpSay(1, amqpConfirmOK))
		}
	}
}

func TestAMQPCanary(t *testing.T) {
	got := amqpSay(1, amqpGetOK, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
	header := func(size byte) string {
		return fmt.Sprintf("Sx 02 0001 0000000e 003c0000 00000000000000%02x 0000 ce\n", size)
	}
	for _, tt := range []struct{ name, answer, want string }{
		{"blocked", amqpSay(0, amqpBlocked, amqpAppendShortstr(nil, "low on disk")...), "down unavailable wait"},
		{"nack", amqpSay(1, amqpNack, 0, 0, 0, 0, 0, 0, 0, 1, 0), "down unavailable wait"},
		{"returned", amqpSay(1, amqpReturn, 1, 0x38, 0), "down mismatch wait"},
		{"not confirmed", got, "down protocol wait"},
		{"forbidden", amqpSay(1, amqpChannelClose, amqpCloses(403, "ACCESS_REFUSED", amqpPublish)...), "down denied wait"},
		{"empty", "ack" + amqpSay(1, amqpGetEmpty, 0), "down mismatch wait"},
		{"other text", "ack" + got + header(3) + "Sx 03 0001 00000003 616263 ce", "down mismatch transfer"},
		{"too long", "ack" + got + header(3) + "Sx 03 0001 00000004 61626364 ce", "down protocol transfer"},
		{"no header", "ack" + got + "Sx 03 0001 00000003 616263 ce", "down protocol transfer"},
		{"no body", "ack" + got + header(3) + "! close", "down closed transfer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer, ack := strings.CutPrefix(tt.answer, "ack")
			addr := serve(t, func(c net.Conn) { amqpRote(t, c, ack, answer) })
			check(t, "amqp://"+addr, `"amqp":{"canary":true}`).want(t, tt.want)
		})
	}
}

func TestAMQPVHost(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"amqp://h", "/"}, {"amqp://h/", "/"}, {"amqp://h/%2f", "/"}, {"amqp://h/shop", "shop"}, {"amqp://h/a%2Fb", "a/b"}, {"amqp://h/a/b", "a/b"}, {"amqp://h/%20", " "},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := amqpVHost(u); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.url, got, err, tt.want)
		}
	}
}

func TestAMQPOptions(t *testing.T) {
	pw := secret(t, "AMQP_PASSWORD", "hush-hush")
	for _, tt := range []struct{ options, want string }{
		{`{"password":"` + pw + `"}`, "amqp.user"},
		{`{"user":"u"}`, "amqp.password"},
		{`{"queue":"` + strings.Repeat("q", 256) + `"}`, "255"},
		{`{"mechanism":"NTLM"}`, "amqp.mechanism"},
	} {
		check(t, "amqp://broker.example.org", `"amqp":`+tt.options).want(t, "unknown options prepare", fmt.Sprintf("error contains %q", tt.want), "not (error contains 'hush')")
	}
	check(t, "amqp://broker.example.org/"+strings.Repeat("v", 256), "").want(t, "unknown options prepare")
}

func TestAMQPReal(t *testing.T) {
	s := realserver.Shared(t, "rabbitmq")
	pw := `"user":"` + s["rabbitmq_user"] + `","password":"` + secret(t, "AMQP_PW", s["rabbitmq_password"]) + `"`
	wrong := `"user":"` + s["rabbitmq_user"] + `","password":"` + secret(t, "AMQP_WRONG", "wrong-secret") + `"`
	idle := `"user":"` + s["rabbitmq_idle"] + `","password":"` + secret(t, "AMQP_IDLE", s["rabbitmq_idle_password"]) + `"`
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])
	cert := fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q}`, s["ca"], s["rabbitmq_cert"], amqpKey(t, s["rabbitmq_key"]))
	plain, tls := "amqp://"+s["rabbitmq"], "amqps://"+s["rabbitmq_tls"]
	for _, tt := range []struct {
		name, url, options, more, want string
		facts                          []string
	}{
		{"password", plain, pw, "", "up", []string{"amqp.product == 'RabbitMQ'", "amqp.vhost == '/'", "amqp.mechanism == 'PLAIN'", "amqp.blocked == nil"}},
		{"vhost", plain + "/shop", pw, "", "up", []string{"amqp.vhost == 'shop'"}},
		{"queue", plain, pw + `,"queue":"orders"`, "", "up", []string{"amqp.messages == 0", "amqp.consumers == 0"}},
		{"no consumer", plain, pw + `,"queue":"orders"`, `"expect":["amqp.consumers > 0"]`, "down mismatch verify", nil},
		{"no queue", plain, pw + `,"queue":"none"`, "", "down mismatch wait", []string{"amqp.code == 404"}},
		{"canary", plain, pw + `,"canary":true`, "", "up", []string{"amqp.canary_write_ms > 0", "amqp.canary_read_ms > 0"}},
		{"all at once", plain + "/shop", pw + `,"canary":true,"queue":"orders"`, "", "up", []string{"amqp.messages == 0"}},
		{"wrong password", plain, wrong, "", "down denied auth", []string{"amqp.code == 403", "amqp.version != ''"}},
		{"no password", plain, "", "", "down denied auth", []string{"error contains 'no credentials are set'"}},
		{"no vhost", plain + "/none", pw, "", "down denied auth", []string{"amqp.code == 530"}},
		{"no right to the vhost", plain + "/shop", idle, "", "down denied auth", []string{"amqp.code == 530"}},
		{"may log in", plain, idle, "", "up", nil},
		{"no right", plain, idle + `,"canary":true`, "", "down denied wait", []string{"amqp.code == 403"}},
		{"tls", tls, pw + `,"canary":true`, ca, "up", []string{"tls.version != ''"}},
		{"external", tls, "", cert, "up", []string{"amqp.mechanism == 'EXTERNAL'"}},
		{"external without certificate", tls, `"mechanism":"EXTERNAL"`, ca, "down denied auth", nil},
		{"untrusted", tls, pw, "", "down certificate-untrusted tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := `"amqp":{` + tt.options + `}`
			if tt.more != "" {
				target += "," + tt.more
			}
			check(t, tt.url, target).want(t, tt.want, append(tt.facts, "not (error contains 'secret')")...)
		})
	}
	others := realserver.Shared(t, "mosquitto")
	check(t, "amqp://"+others["mosquitto"], `"expect":["reason in ['closed','reset']","phase == 'greet'"]`).want(t, "up")
	nats := realserver.Shared(t, "nats")
	check(t, "amqp://"+nats["nats"], "").want(t, "down protocol greet")
	check(t, "mqtt://"+s["rabbitmq"], `"expect":["reason in ['protocol','closed','reset']","phase == 'greet'"]`).want(t, "up")
}

func TestAMQPPaused(t *testing.T) {
	s := realserver.Start(t, "rabbitmq") // once, since it takes its time
	for _, tt := range []struct{ trigger, want string }{
		{"AMQP", "down timeout greet"},
		{"pup-secret", "down timeout auth"},
		{"pup.canary", "down timeout wait"},
	} {
		pw := `"user":"` + s["rabbitmq_user"] + `","password":"` + secret(t, "AMQP_PW", s["rabbitmq_password"]) + `"`
		check(t, "amqp://"+brokerPaused(t, s, "rabbitmq", tt.trigger), `"timeout":"2s","amqp":{"canary":true,`+pw+`}`).want(t, tt.want)
		realserver.Resume(t, s, "rabbitmq")
	}
}

// amqpKey gives the reference to a private key in a file.
func amqpKey(t *testing.T, file string) string {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return secret(t, "AMQP_KEY", string(pem))
}

// What is read and written again is the same when it is read again.
func FuzzAMQPTable(f *testing.F) {
	f.Add(amqpAppendTable(nil, map[string]any{"a": "x", "b": true, "c": int64(-1), "d": 0.5, "e": nil, "f": map[string]any{"g": []any{int64(1), "y"}}}))
	f.Add([]byte("\x00\x00\x00\x10\x01aA\x00\x00\x00\x05b\xffB\xffV\x01bV"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := amqpReader{b: b}
		table := r.table(0)
		if r.err != nil {
			return
		}
		first := amqpAppendTable(nil, table)
		again := amqpReader{b: first}
		if second := amqpAppendTable(nil, again.table(0)); again.err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v: written as %q, then (%v) as %q", table, first, again.err, second)
		}
	})
}

// A frame that is written is read as it was.
func FuzzAMQPFrame(f *testing.F) {
	f.Add(byte(1), uint16(0), []byte("x"))
	f.Add(byte(8), uint16(1), []byte{})
	f.Add(byte(4), uint16(1), []byte{})
	f.Fuzz(func(t *testing.T, kind byte, channel uint16, payload []byte) {
		b := amqpAppendFrame(nil, kind, channel, payload)
		gotKind, gotChannel, length, err := amqpHeader([7]byte(b))
		known := kind >= 1 && kind <= 3 || kind == 8
		if (err == nil) != (known && len(payload) <= amqpMaxFrame) {
			t.Fatalf("type %d, %d bytes: %v", kind, len(payload), err)
		}
		if err == nil && !reflect.DeepEqual([]any{gotKind, gotChannel, length, len(b)}, []any{kind, channel, len(payload), len(payload) + 8}) {
			t.Fatalf("got type %d channel %d length %d of %d", gotKind, gotChannel, length, len(b))
		}
	})
}
