package snmp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// The examples of RFC 3414, sections A.3.1 and A.3.2.
func TestKeys(t *testing.T) {
	engine := unhex("000000000000000000000002")
	for _, tt := range []struct{ auth, key, local string }{
		{"md5", "9faf3283884e92834ebc9847d8edd963", "526f5eed9fcce26f8964c2930787d82b"},
		{"sha", "9fb5cc0381497b3793528939ff788d5d79145211", "6695febc9288e36282235fc7151f128497b38f3f"},
	} {
		if got := hex.EncodeToString(passwordKey(tt.auth, "maplesyrup")); got != tt.key {
			t.Errorf("%s: got key %s, want %s", tt.auth, got, tt.key)
		}
		if got := hex.EncodeToString(localized(tt.auth, "maplesyrup", engine)); got != tt.local {
			t.Errorf("%s: got localized key %s, want %s", tt.auth, got, tt.local)
		}
	}
	for priv, p := range privProtocols {
		if got := lengthened("md5", localized("md5", "maplesyrup", engine), priv, engine); len(got) != p.key {
			t.Errorf("%s: got a key of %d bytes, want %d", priv, len(got), p.key)
		}
	}
}

func TestOID(t *testing.T) {
	for in, want := range map[string]string{
		"1.3.6.1.2.1.1.3.0": "2b06010201010300", ".1.3": "2b", "2.999.4294967295": "88378fffffff7f", "0.39": "27", "2.40": "8100" + "",
		"": "", "1": "", "3.1": "", "1.40": "", "1.3.x": "", "1..3": "", "1.3.4294967296": "", "1.3.-1": "",
	} {
		got, err := ParseOID(in)
		if in == "2.40" {
			want = "78"
		}
		if hex.EncodeToString(got) != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %x, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "80", "2b80", "2b8001", "2bffffffffff7f"} {
		if text, err := oidText(unhex(in)); err == nil {
			t.Errorf("%s: got %s, want an error", in, text)
		}
	}
}

func TestInteger(t *testing.T) {
	for _, n := range []int{0, 1, -1, 127, 128, -128, -129, 255, 256, math.MaxInt32, math.MinInt32} {
		got, rest, err := takeInt(intElement(n))
		if got != n || len(rest) != 0 || err != nil {
			t.Errorf("%d: got %d, %v (% x)", n, got, err, intElement(n))
		}
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		in, kind string
		want     any
	}{
		{"0201ff", "Integer", int64(-1)}, {"41050000000001", "Counter32", uint64(1)}, {"4609 00ffffffffffffffff", "Counter64", uint64(math.MaxUint64)},
		{"430203e8", "TimeTicks", uint64(1000)}, {"04026869", "OctetString", "hi"}, {"0403000102", "OctetString", "00:01:02"}, {"0402c3bc", "OctetString", "ü"},
		{"04021b5b", "OctetString", "1b:5b"}, {"06032b0601", "ObjectIdentifier", "1.3.6.1"}, {"4004c0000201", "IpAddress", "192.0.2.1"},
		{"44079f78043fc00000", "Opaque", 1.5}, {"44079f78047f800000", "Opaque", "9f:78:04:7f:80:00:00"}, {"8000", "noSuchObject", nil}, {"8100", "noSuchInstance", nil},
		{"8200", "endOfMibView", nil}, {"0500", "Null", nil},
	} {
		b := append(element(tagOID, []byte{0x2b, 6}), unhex(string(bytes.ReplaceAll([]byte(tt.in), []byte(" "), nil)))...)
		v, err := parseVariable(b)
		if err != nil || v.Type != tt.kind || v.Value != tt.want || v.OID != "1.3.6" {
			t.Errorf("%s: got %+v, %v, want %s %v", tt.in, v, err, tt.kind, tt.want)
		}
	}
	for _, in := range []string{"0200", "0209000000000000000000", "46 0a 00000000000000000000", "400100", "4101", "630100", "1f0100", "0480", "0485ffffffffff", "0201010201 01"} {
		if v, err := parseVariable(append(element(tagOID, []byte{0x2b, 6}), unhex(string(bytes.ReplaceAll([]byte(in), []byte(" "), nil)))...)); err == nil {
			t.Errorf("%s: got %+v, want an error", in, v)
		}
	}
}

func TestV2c(t *testing.T) {
	oid, _ := ParseOID("1.3.6.1.2.1.1.3.0")
	b, id := NewGet(V2c, "public", [][]byte{oid})
	m, err := Parse(b)
	if err != nil || m.Version != V2c || m.Community != "public" || m.PDU.RequestID != id || m.PDU.Type != Get || len(m.PDU.Variables) != 1 || m.PDU.Variables[0].OID != "1.3.6.1.2.1.1.3.0" {
		t.Errorf("got %+v, %v", m, err)
	}
}

// What a user has signed and encrypted the same user can read, and nobody
// else.
func TestV3(t *testing.T) {
	oid, _ := ParseOID("1.3.6.1.2.1.1.3.0")
	engine := &Message{EngineID: unhex("80001f8880"), Boots: 7, Time: 12345}
	for auth := range authProtocols {
		for priv := range privProtocols {
			u := &User{Name: "anna", Auth: auth, AuthPassword: "auth-password", Priv: priv, PrivPassword: "priv-password"}
			u.Know(engine)
			b, id, err := u.NewGet([][]byte{oid})
			if err != nil {
				t.Fatal(err)
			}
			m, authenticated, err := u.Parse(b)
			if err != nil || !authenticated || m.PDU.RequestID != id || m.Boots != 7 || m.User != "anna" {
				t.Fatalf("%s %s: got %+v, %v", auth, priv, m, err)
			}
			if bytes.Contains(b, oid) {
				t.Errorf("%s %s: the message is not encrypted", auth, priv)
			}
			changed := bytes.Clone(b)
			changed[len(changed)-1] ^= 1
			if _, _, err := u.Parse(changed); !errors.Is(err, ErrDigest) {
				t.Errorf("%s %s: a changed message gives %v, want %v", auth, priv, err, ErrDigest)
			}
			other := &User{Name: "anna", Auth: auth, AuthPassword: "another-password", Priv: priv, PrivPassword: "priv-password"}
			other.Know(engine)
			if _, _, err := other.Parse(b); !errors.Is(err, ErrDigest) {
				t.Errorf("%s %s: another's authentication gives %v, want %v", auth, priv, err, ErrDigest)
			}
			other = &User{Name: "anna", Auth: auth, AuthPassword: "auth-password", Priv: priv, PrivPassword: "another-password"}
			other.Know(engine)
			if _, _, err := other.Parse(b); !errors.Is(err, ErrDecrypt) {
				t.Errorf("%s %s: another's privacy gives %v, want %v", auth, priv, err, ErrDecrypt)
			}
		}
	}
}

// FuzzOID: what is written as text is read as the same bytes.
func FuzzOID(f *testing.F) {
	f.Add([]byte{0x2b, 6, 1})
	f.Add([]byte{0x88, 0x37, 0x8f, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := oidText(b)
		if err != nil || len(b) == 1 && b[0] > 119 {
			return
		}
		if again, err := ParseOID(text); err == nil && !bytes.Equal(again, b) {
			t.Errorf("% x is %s, which is % x", b, text, again)
		}
	})
}

func FuzzParse(f *testing.F) {
	oid, _ := ParseOID("1.3.6.1.2.1.1.3.0")
	get, _ := NewGet(V2c, "public", [][]byte{oid})
	discover, _ := Discover()
	u := &User{Name: "anna", Auth: "md5", AuthPassword: "auth-password", Priv: "aes", PrivPassword: "priv-password"}
	u.Know(&Message{EngineID: []byte("engine")})
	sealed, _, err := u.NewGet([][]byte{oid})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(get)
	f.Add(discover)
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil && (m.Version > V2c || len(m.PDU.Variables) > maxVariables || len(b) > maxSize) {
			t.Errorf("% x is taken as %+v", b, m)
		}
		m, authenticated, err := u.Parse(b)
		if err == nil && !authenticated && m.PDU.Type != Report {
			t.Errorf("% x is taken without authentication: %+v", b, m)
		}
	})
}
