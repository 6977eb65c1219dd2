package checks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"pup/cmd/internal/realserver"
)

// The first packets of a session in 3.1.1 and in 5, with the client identifier
// "me".
const (
	mqttMe    = `"mqtt":{"client_id":"me"}`
	mqttMe5   = `"mqtt":{"client_id":"me","version":"5"}`
	mqttOpen  = "Cx 10 0e 0004 4d515454 04 02 012c 0002 6d65\n"
	mqttOpen5 = "Cx 10 0f 0004 4d515454 05 02 012c 00 0002 6d65\n"
	mqttIn    = mqttOpen + "Sx 20 02 00 00\n"
	mqttIn5   = mqttOpen5 + "Sx 20 03 00 00 00\n"
	mqttPing  = "Cx c0 00\nSx d0 00\n"
	mqttBye   = "Cx e0 00\n"
	mqttSub   = "Cx 82 06 0001 0001 74 00\n" // to the topic t
	mqttUnsub = "Cx a2 05 0002 0001 74\nSx b0 02 0002\n"
)

func TestMQTT(t *testing.T) {
	user := fmt.Sprintf(`"mqtt":{"client_id":"me","user":"u","password":%q}`, secret(t, "MQTT_PASSWORD", "hush"))
	login := "Cx 10 17 0004 4d515454 04 c2 012c 0002 6d65 0001 75 0004 68757368\n"
	talks(t, "mqtt://HOST", []talk{
		{"up", mqttMe, mqttIn + mqttPing + mqttBye, "up", []string{"mqtt.code == 0", "not mqtt.session_present", "mqtt.maximum_qos == nil"}},
		{"up with 5", mqttMe5, mqttOpen5 + "Sx 20 18 00 00 15 24 01 25 00 21 0010 27 00010000 13 001e 12 0003 616263\n" + mqttPing + mqttBye, "up", []string{
			"mqtt.maximum_qos == 1", "not mqtt.retain_available", "mqtt.receive_maximum == 16", "mqtt.max_packet_bytes == 65536",
			"mqtt.keep_alive_seconds == 30", "mqtt.assigned_client_id == 'abc'"}},
		{"defaults of 5", mqttMe5, mqttIn5 + mqttPing + mqttBye, "up", []string{"mqtt.maximum_qos == 2", "mqtt.retain_available", "mqtt.receive_maximum == 65535", "mqtt.max_packet_bytes == nil"}},
		{"session present", mqttMe, mqttOpen + "Sx 20 02 01 00\n" + mqttPing, "up", []string{"mqtt.session_present"}},
		{"password", user, login + "Sx 20 02 00 00\n" + mqttPing, "up", nil},
		{"wrong password", user, login + "Sx 20 02 00 04", "down denied auth", []string{"error contains 'bad user name or password'", "mqtt.code == 4", "not (error contains 'no credentials')"}},
		{"not authorized", mqttMe, mqttOpen + "Sx 20 02 00 05", "down denied auth", []string{"error contains 'no credentials are set'"}},
		{"not authorized in 5", mqttMe5, mqttOpen5 + "Sx 20 09 00 87 06 1f 0003 6e6f70", "down denied auth", []string{"error contains 'nop'", "mqtt.reason_text == 'nop'"}},
		{"identifier", mqttMe, mqttOpen + "Sx 20 02 00 02", "down denied auth", nil},
		{"unavailable", mqttMe, mqttOpen + "Sx 20 02 00 03", "down unavailable greet", nil},
		{"use another", mqttMe5, mqttOpen5 + "Sx 20 08 00 9c 05 1c 0002 6232", "down unavailable greet", []string{"mqtt.server_reference == 'b2'"}},
		{"version", mqttMe, mqttOpen + "Sx 20 02 00 01", "down protocol greet", []string{"error contains 'mqtt.version'"}},
		{"knows 3.1.1 only", mqttMe5, mqttOpen5 + "Sx 20 02 00 01", "down protocol greet", []string{"error contains 'unacceptable protocol version'"}},
		{"version in 5", mqttMe5, mqttOpen5 + "Sx 20 03 00 84 00", "down protocol greet", []string{"error contains 'mqtt.version'"}},
		{"strange code", mqttMe, mqttOpen + "Sx 20 02 00 42", "down protocol greet", nil},
		{"other packet", mqttMe, mqttOpen + "Sx d0 00", "down protocol greet", nil},
		{"client's packet", mqttMe, mqttOpen + "Sx c0 00", "down protocol greet", nil},
		{"short", mqttMe, mqttOpen + "Sx 20 01 00", "down protocol greet", nil},
		{"long", mqttMe, mqttOpen + "Sx 20 03 00 00 00", "down protocol greet", nil},
		{"bad flags", mqttMe, mqttOpen + "Sx 21 02 00 00", "down protocol greet", nil},
		{"bad acknowledge flags", mqttMe, mqttOpen + "Sx 20 02 02 00", "down protocol greet", nil},
		{"huge", mqttMe, mqttOpen + "Sx 20 ff ff ff 7f", "down protocol greet", nil},
		{"no length", mqttMe, mqttOpen + "Sx 20 ff ff ff ff", "down protocol greet", nil},
		{"bad property", mqttMe5, mqttOpen5 + "Sx 20 05 00 00 02 7e 00", "down protocol greet", nil},
		{"half", mqttMe, mqttOpen + "Sx 20 02 00\n! close", "down closed greet", nil},
		{"closes", mqttMe, mqttOpen + "! close", "down closed greet", nil},
		{"hangs", mqttMe + `,"timeout":"200ms"`, mqttOpen + "! hang", "down timeout greet", nil},
		{"no PINGRESP", mqttMe + `,"timeout":"200ms"`, mqttIn + "! hang", "down timeout wait", nil},
		{"garbage for PINGRESP", mqttMe, mqttIn + "Cx c0 00\nSx 90 03 00 01 00", "down protocol wait", nil},
		{"shuts down", mqttMe5, mqttIn5 + "Sx e0 01 8b", "down unavailable wait", nil},
		{"throws us out", mqttMe5, mqttIn5 + "Sx e0 02 98 00", "down unavailable wait", nil},
		{"DISCONNECT in 3.1.1", mqttMe, mqttIn + "Sx e0 00", "down protocol wait", nil},
	})
}

func TestMQTTTopic(t *testing.T) {
	topic, live := `"mqtt":{"client_id":"me","topic":"t"}`, `"mqtt":{"client_id":"me","topic":"t","live":true}`
	topic5 := `"mqtt":{"client_id":"me","version":"5","topic":"t"}`
	talks(t, "mqtt://HOST", []talk{
		{"retained", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 31 05 0001 74 3432\n" + mqttUnsub + mqttBye, "up", []string{"int(mqtt.message) == 42", "mqtt.retained", "mqtt.message_bytes == 2", "mqtt.message_topic == 't'"}},
		{"before SUBACK", topic, mqttIn + mqttPing + mqttSub + "Sx 31 05 0001 74 3432\nSx 90 03 0001 00\n" + mqttUnsub + mqttBye, "up", []string{"mqtt.message == '42'"}},
		{"empty", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 30 03 0001 74\n" + mqttUnsub, "up", []string{"mqtt.message == ''", "not mqtt.retained"}},
		{"live", live, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 31 05 0001 74 3432\nSx 30 05 0001 74 3433\n" + mqttUnsub, "up", []string{"mqtt.message == '43'", "not mqtt.retained"}},
		{"more while leaving", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 31 05 0001 74 3432\nCx a2 05 0002 0001 74\nSx 30 05 0001 74 3433\nSx b0 02 0002", "up", []string{"mqtt.message == '42'"}},
		{"properties", topic5, mqttIn5 + mqttPing + "Cx 82 07 0001 00 0001 74 00\nSx 90 04 0001 00 00\nSx 31 0c 0001 74 06 26 0001 61 0000 3432\nCx a2 06 0002 00 0001 74\nSx b0 04 0002 00 00", "up", []string{"mqtt.message == '42'"}},
		{"QoS 1 is acknowledged", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 01\nSx 33 07 0001 74 0009 3432\nCx 40 02 0009\n" + mqttUnsub, "up", []string{"mqtt.message == '42'"}},
		{"nothing", topic + `,"timeout":"200ms"`, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\n! hang", "down timeout wait", nil},
		{"refused", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 80", "down denied wait", nil},
		{"refused in 5", topic5, mqttIn5 + mqttPing + "Cx 82 07 0001 00 0001 74 00\nSx 90 04 0001 00 87", "down denied wait", []string{"error contains 'not authorized'"}},
		{"filter in 5", topic5, mqttIn5 + mqttPing + "Cx 82 07 0001 00 0001 74 00\nSx 90 04 0001 00 a2", "down mismatch wait", nil},
		{"quota in 5", topic5, mqttIn5 + mqttPing + "Cx 82 07 0001 00 0001 74 00\nSx 90 04 0001 00 97", "down unavailable wait", nil},
		{"another SUBACK", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0002 00", "down protocol wait", nil},
		{"two codes", topic, mqttIn + mqttPing + mqttSub + "Sx 90 04 0001 00 00", "down protocol wait", nil},
		{"too large", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 31 ff ff ff 7f", "down too-large wait", nil},
		{"QoS 3", topic, mqttIn + mqttPing + mqttSub + "Sx 90 03 0001 00\nSx 36 05 0001 74 3432", "down protocol wait", nil},
	})
}

func TestMQTTOptions(t *testing.T) {
	pw := secret(t, "MQTT_PASSWORD", "hush-hush")
	for _, tt := range []struct{ options, want string }{
		{`{"password":"` + pw + `"}`, "mqtt.user"},
		{`{"user":"u","mechanism":"SCRAM-SHA-256"}`, "mqtt.version"},
		{`{"live":true}`, "mqtt.topic"},
		{`{"canary_prefix":"a/#"}`, "wildcard"},
		{`{"topic":"a\u0000"}`, "NUL"},
		{`{"qos":3}`, "mqtt.qos"},
	} {
		check(t, "mqtt://broker.example.org", `"mqtt":`+tt.options).want(t, "unknown options prepare", fmt.Sprintf("error contains %q", tt.want), "not (error contains 'hush')")
	}
}

// mqttServer plays a broker: it accepts the CONNECT, answers pings, grants
// every subscription, and hands each other packet to f.
func mqttServer(t *testing.T, f func(c net.Conn, first byte, body []byte)) (addr string) {
	return serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			first, err := br.ReadByte()
			if err != nil {
				return
			}
			n, _ := br.ReadByte() // none of our packets is longer than 127 bytes
			body := make([]byte, n)
			if _, err := io.ReadFull(br, body); err != nil {
				return
			}
			switch first >> 4 {
			case mqttCONNECT:
				c.Write([]byte{0x20, 2, 0, 0})
			case mqttPINGREQ:
				c.Write([]byte{0xd0, 0})
			case mqttSUBSCRIBE:
				c.Write([]byte{0x90, 3, body[0], body[1], body[len(body)-1]})
			default:
				f(c, first, body)
			}
		}
	})
}

func TestMQTTCanary(t *testing.T) {
	for _, tt := range []struct {
		name, qos, want string
		f               func(c net.Conn, first byte, body []byte)
	}{
		{"up", "0", "up", func(c net.Conn, first byte, body []byte) { c.Write(mqttAppendPacket(nil, first>>4, first&15, body)) }},
		{"without PUBACK", "1", "down timeout wait", func(c net.Conn, first byte, body []byte) {
			if first>>4 == mqttPUBLISH {
				c.Write(mqttAppendPacket(nil, first>>4, first&15, body))
			}
		}},
		{"only PUBACK", "1", "down timeout wait", func(c net.Conn, first byte, body []byte) { c.Write([]byte{0x40, 2, 0, 2}) }},
		{"PUBACK of another", "1", "down protocol wait", func(c net.Conn, first byte, body []byte) { c.Write([]byte{0x40, 2, 0, 3}) }},
		{"PUBREC for QoS 1", "1", "down protocol wait", func(c net.Conn, first byte, body []byte) { c.Write([]byte{0x50, 2, 0, 2}) }},
		{"other payload", "0", "down mismatch wait", func(c net.Conn, first byte, body []byte) {
			if first>>4 == mqttPUBLISH {
				c.Write(mqttAppendPacket(nil, mqttPUBLISH, 0, append(body, '!')))
			}
		}},
		{"without PUBCOMP", "2", "down timeout wait", func(c net.Conn, first byte, body []byte) { c.Write([]byte{0x50, 2, 0, 2}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, "mqtt://"+mqttServer(t, tt.f), `"timeout":"300ms","mqtt":{"canary":true,"qos":`+tt.qos+`}`).want(t, tt.want)
		})
	}
	low := `"mqtt":{"client_id":"me","version":"5","canary":true,"qos":2}`
	talks(t, "mqtt://HOST", []talk{{"QoS unknown to the server", low, mqttOpen5 + "Sx 20 05 00 00 02 24 01\n" + mqttPing, "down mismatch wait", nil}})
}

func TestMQTTMechanism(t *testing.T) {
	for _, tt := range []struct{ password, want string }{{"hush-hush", "up"}, {"wrong-secret", "down denied auth"}} {
		addr := serve(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			read := func() mqttProperties {
				b := make([]byte, 2)
				io.ReadFull(br, b)
				body := make([]byte, b[1])
				if n := int(b[1]); n >= 0x80 {
					hi, _ := br.ReadByte()
					body = make([]byte, n&0x7f+int(hi)<<7)
				}
				io.ReadFull(br, body)
				skip := 10 // of CONNECT
				if b[0]>>4 == mqttAUTH {
					skip = 1
				}
				r := mqttReader{b: body[skip:]}
				return r.properties()
			}
			reply := func(kind byte, head []byte, data string) {
				props := mqttAppendText([]byte{mqttAuthMethod}, "SCRAM-SHA-256")
				props = mqttAppendText(append(props, mqttAuthData), data)
				c.Write(mqttAppendPacket(nil, kind, 0, append(mqttAppendVarint(head, len(props)), props...)))
			}
			scram := brokerScram{password: "hush-hush"}
			reply(mqttAUTH, []byte{0x18}, scram.first(read().texts[mqttAuthData]))
			final, ok := scram.final(read().texts[mqttAuthData])
			if !ok {
				c.Write([]byte{0x20, 3, 0, 0x87, 0})
				return
			}
			reply(mqttCONNACK, []byte{0, 0}, final)
			io.ReadFull(br, make([]byte, 2))
			c.Write([]byte{0xd0, 0})
			io.Copy(io.Discard, br)
		})
		options := fmt.Sprintf(`"mqtt":{"version":"5","user":"u","mechanism":"SCRAM-SHA-256","password":%q}`, secret(t, "MQTT_SCRAM", tt.password))
		check(t, "mqtt://"+addr, options).want(t, tt.want)
	}
}

func TestMQTTReal(t *testing.T) {
	s := realserver.Shared(t, "mosquitto")
	pw := `"user":"` + s["mosquitto_auth_user"] + `","password":"` + secret(t, "MQTT_PW", s["mosquitto_auth_password"]) + `"`
	wrong := `"user":"` + s["mosquitto_auth_user"] + `","password":"` + secret(t, "MQTT_WRONG", "wrong-secret") + `"`
	idle := `"user":"` + s["mosquitto_auth_idle"] + `","password":"` + secret(t, "MQTT_IDLE", s["mosquitto_auth_idle_password"]) + `"`
	ca := fmt.Sprintf(`"tls":{"ca":%q}`, s["ca"])
	for _, tt := range []struct {
		name, url, options, more, want string
		facts                          []string
	}{
		{"plain", "mqtt://" + s["mosquitto"], "", "", "up", []string{"mqtt.code == 0"}},
		{"version 5", "mqtt://" + s["mosquitto"], `"version":"5"`, "", "up", []string{"mqtt.maximum_qos == 2", "mqtt.receive_maximum > 0"}},
		{"retained", "mqtt://" + s["mosquitto"], `"topic":"` + s["mosquitto_topic"] + `"`, "", "up", []string{"float(mqtt.message) == 21.5", "mqtt.retained"}},
		{"retained in 5", "mqtt://" + s["mosquitto"], `"version":"5","topic":"pup/+"`, "", "up", []string{"mqtt.message_topic == 'pup/temperature'"}},
		{"of the broker", "mqtt://" + s["mosquitto"], `"topic":"$SYS/broker/version"`, "", "up", []string{"mqtt.message startsWith 'mosquitto'"}},
		{"live", "mqtt://" + s["mosquitto"], `"topic":"$SYS/broker/uptime","live":true`, "", "up", []string{"not mqtt.retained"}},
		{"nothing retained", "mqtt://" + s["mosquitto"], `"topic":"nobody/here"`, `"timeout":"300ms"`, "down timeout wait", nil},
		{"too warm", "mqtt://" + s["mosquitto"], `"topic":"` + s["mosquitto_topic"] + `"`, `"expect":["float(mqtt.message) < 20"]`, "down mismatch verify", nil},
		{"canary", "mqtt://" + s["mosquitto"], `"canary":true`, "", "up", []string{"mqtt.granted_qos == 0", "mqtt.canary_ms > 0"}},
		{"canary 1", "mqtt://" + s["mosquitto"], `"canary":true,"qos":1`, "", "up", []string{"mqtt.granted_qos == 1"}},
		{"canary 2", "mqtt://" + s["mosquitto"], `"canary":true,"qos":2`, "", "up", []string{"mqtt.granted_qos == 2"}},
		{"canary 2 in 5", "mqtt://" + s["mosquitto"], `"version":"5","canary":true,"qos":2`, "", "up", []string{"mqtt.granted_qos == 2"}},
		{"all at once", "mqtt://" + s["mosquitto"], `"version":"5","canary":true,"qos":1,"topic":"$SYS/#"`, "", "up", nil},
		{"small", "mqtt://" + s["mosquitto_small"], `"version":"5","canary":true,"qos":1`, "", "up", []string{"mqtt.maximum_qos == 1"}},
		{"too small", "mqtt://" + s["mosquitto_small"], `"version":"5","canary":true,"qos":2`, "", "down mismatch wait", nil},
		{"password", "mqtt://" + s["mosquitto_auth"], pw + `,"canary":true`, "", "up", nil},
		{"password in 5", "mqtt://" + s["mosquitto_auth"], pw + `,"version":"5","canary":true,"qos":1`, "", "up", nil},
		{"wrong password", "mqtt://" + s["mosquitto_auth"], wrong, "", "down denied auth", []string{"mqtt.code == 5"}},
		{"wrong password in 5", "mqtt://" + s["mosquitto_auth"], wrong + `,"version":"5"`, "", "down denied auth", []string{"mqtt.code == 135"}},
		{"no password", "mqtt://" + s["mosquitto_auth"], "", "", "down denied auth", []string{"error contains 'no credentials are set'"}},
		{"unknown mechanism", "mqtt://" + s["mosquitto_auth"], pw + `,"version":"5","mechanism":"SCRAM-SHA-256"`, "", "down denied auth", nil},
		{"may log in", "mqtt://" + s["mosquitto_auth"], idle, "", "up", nil},
		{"may not publish", "mqtt://" + s["mosquitto_auth"], idle + `,"version":"5","canary":true,"qos":1`, `"timeout":"1s"`, "down denied wait", nil},
		{"may not publish, 3.1.1", "mqtt://" + s["mosquitto_auth"], idle + `,"canary":true,"qos":1`, `"timeout":"300ms"`, "down timeout wait", nil},
		{"tls", "mqtts://" + s["mosquitto_tls"], `"canary":true`, ca, "up", []string{"tls.version == '1.3'"}},
		{"untrusted", "mqtts://" + s["mosquitto_tls"], "", "", "down certificate-untrusted tls", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := `"mqtt":{` + tt.options + `}`
			if tt.more != "" {
				target += "," + tt.more
			}
			check(t, tt.url, target).want(t, tt.want, append(tt.facts, "not (error contains 'secret')")...)
		})
	}
	nats := realserver.Shared(t, "nats")
	check(t, "mqtt://"+nats["nats"], "").want(t, "down protocol greet")
	check(t, "mqtt://"+nats["nats_http"], `"timeout":"300ms"`).want(t, "down timeout greet")
	// a server that closes before it has read everything resets
	check(t, "mqtt://"+s["mosquitto_tls"], `"expect":["reason in ['closed','reset']","phase == 'greet'"]`).want(t, "up")
	check(t, "mqtts://"+s["mosquitto"], `"expect":["reason in ['closed','reset']","phase == 'tls'"]`).want(t, "up")
}

func TestMQTTPaused(t *testing.T) {
	for _, tt := range []struct{ trigger, want string }{
		{"MQTT", "down timeout greet"},
		{"\xc0\x00", "down timeout wait"},
		{"pup/canary", "down timeout wait"},
	} {
		s := realserver.Start(t, "mosquitto")
		check(t, "mqtt://"+brokerPaused(t, s, "mosquitto", tt.trigger), `"timeout":"1s","mqtt":{"canary":true}`).want(t, tt.want)
	}
}

// A PUBLISH that is read is the same when it is written and read again, and
// whatever is read lies within the packet.
func FuzzMQTTPacket(f *testing.F) {
	for _, seed := range []string{"20 02 00 00", "31 05 0001 74 3432", "33 07 0001 74 0009 3432", "20 09 00 87 06 1f 0003 6e6f70", "90 03 0001 80", "62 02 0001", "e0 02 8b 00", "f0 01 18"} {
		f.Add(unhex(seed), false)
		f.Add(unhex(seed), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		length, size, more, err := mqttHeader(b)
		if more || err != nil || size+length > len(b) {
			return
		}
		head := mqttAppendPacket(nil, b[0]>>4, b[0]&15, make([]byte, length))
		if !bytes.Equal(head[:len(head)-length], b[:size]) {
			t.Fatalf("the header % x of length %d is written as % x", b[:size], length, head[:len(head)-length])
		}
		m, err := mqttParse(b[0], b[size:size+length], v5)
		if err != nil {
			return
		}
		if len(m.topic)+len(m.payload)+len(m.codes) > length {
			t.Fatalf("more than %d bytes in %+v", length, m)
		}
		if m.kind != mqttPUBLISH {
			return
		}
		again := mqttAppendPublish(nil, m, v5)
		_, size, _, _ = mqttHeader(again)
		m2, err := mqttParse(again[0], again[size:], v5)
		if err != nil || m2.topic != m.topic || m2.id != m.id || !bytes.Equal(m2.payload, m.payload) || m2.flags != m.flags {
			t.Fatalf("got %+v (%v), want %+v", m2, err, m)
		}
	})
}
