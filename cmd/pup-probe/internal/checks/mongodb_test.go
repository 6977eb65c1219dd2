package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// mongodbFake answers commands until the check leaves. F gets the name of the
// command and the whole of it; without an answer it closes.
func mongodbFake(t *testing.T, f func(command string, d mongodbDoc) mongodbDoc) string {
	return serve(t, func(c net.Conn) {
		for {
			var head [16]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			body := make([]byte, binary.LittleEndian.Uint32(head[:])-16)
			io.ReadFull(c, body)
			d, ok := mongodbParse(body[5:])
			if !ok {
				t.Errorf("got %q, want a document", body)
				return
			}
			answer := f(d[0].name, d)
			if answer == nil {
				return
			}
			c.Write(mongodbAppend(nil, 7, binary.LittleEndian.Uint32(head[4:]), answer))
		}
	})
}

func mongodbOK(members ...mongodbElement) mongodbDoc {
	return append(mongodbDoc(members), mongodbNewInt("ok", 1))
}

func mongodbFails(code int32, text string) mongodbDoc {
	return mongodbDoc{mongodbNewInt("ok", 0), mongodbNewString("errmsg", text), mongodbNewInt("code", code)}
}

func mongodbAt(name string, ms int64) mongodbElement {
	return mongodbElement{mongodbDate, name, binary.LittleEndian.AppendUint64(nil, uint64(ms))}
}

func mongodbTestMember(name, state string, health int32, optime int64) mongodbDoc {
	return mongodbDoc{mongodbNewString("name", name), mongodbNewString("stateStr", state), mongodbNewInt("health", health), mongodbAt("optimeDate", optime)}
}

func TestMongoDB(t *testing.T) {
	yes := func(name string) mongodbElement { return mongodbNewBool(name, true) }
	set, primaryAt := mongodbNewString("setName", "rs0"), mongodbNewString("primary", "db1:27017")
	for _, tt := range []struct {
		name, target string
		hello        mongodbDoc
		others       map[string]mongodbDoc
		want, fact   string
	}{
		{"standalone", "", mongodbOK(yes("isWritablePrimary")), map[string]mongodbDoc{"buildInfo": mongodbOK(mongodbNewString("version", "7.0.5"))}, "up",
			"mongodb.role == 'standalone' and mongodb.version == '7.0.5' and mongodb.authenticated == false and not ('has_primary' in mongodb)"},
		{"primary", "", mongodbOK(yes("isWritablePrimary"), set, primaryAt, mongodbAt("localTime", 5000), mongodbNewDoc("lastWrite", mongodbDoc{mongodbAt("lastWriteDate", 4000)})), map[string]mongodbDoc{
			"serverStatus": mongodbOK(mongodbElement{mongodbInt64, "uptimeMillis", []byte{1, 2, 0, 0, 0, 0, 0, 0}}, mongodbNewDoc("connections", mongodbDoc{mongodbNewInt("current", 3), mongodbNewInt("available", 97)})),
			"replSetGetStatus": mongodbOK(mongodbNewDoc("members", mongodbDoc{
				mongodbNewDoc("0", mongodbTestMember("db1:27017", "PRIMARY", 1, 9000)), mongodbNewDoc("1", mongodbTestMember("db2:27017", "SECONDARY", 1, 6000)), mongodbNewDoc("2", mongodbTestMember("db3:27017", "ARBITER", 1, 0))})),
		}, "up", "mongodb.role == 'primary' and mongodb.last_write_age_ms == 1000 and mongodb.uptime_ms == 513 and mongodb.connections_left == 97 and mongodb.lag_ms == 3000 and mongodb.unhealthy_members == 0 and len(mongodb.members) == 3"},
		{"a member is down", "", mongodbOK(yes("secondary"), set, primaryAt), map[string]mongodbDoc{"replSetGetStatus": mongodbOK(mongodbNewDoc("members", mongodbDoc{
			mongodbNewDoc("0", mongodbTestMember("db1:27017", "(not reachable/healthy)", 0, 0))}))}, "degraded mismatch verify", "mongodb.role == 'secondary' and mongodb.unhealthy_members == 1"},
		{"no primary", "", mongodbOK(yes("secondary"), set), nil, "down mismatch verify", "mongodb.has_primary == false"},
		{"starting", "", mongodbOK(set, primaryAt), nil, "down mismatch verify", "mongodb.role == 'other'"},
		{"not initiated", "", mongodbOK(yes("isreplicaset")), nil, "down mismatch verify", "mongodb.has_primary == false"},
		{"arbiter", "", mongodbOK(yes("arbiterOnly"), set, primaryAt), nil, "up", "mongodb.role == 'arbiter'"},
		{"mongos", "", mongodbOK(yes("isWritablePrimary"), mongodbNewString("msg", "isdbgrid")), nil, "up", "mongodb.role == 'mongos'"},
		{"old", "", mongodbFails(59, "no such command: 'hello'"), map[string]mongodbDoc{"isMaster": mongodbOK(yes("ismaster"))}, "up", "mongodb.role == 'standalone'"},
		{"shutting down", "", mongodbFails(91, "shutdown in progress"), nil, "down unavailable greet", "mongodb.error_code == 91"},
		{"no ok", "", mongodbDoc{mongodbNewInt("x", 1)}, nil, "down protocol greet", "true"},
		{"leaves", "", nil, nil, "down closed greet", "true"},
		{"ping fails", "", mongodbOK(yes("isWritablePrimary")), map[string]mongodbDoc{"ping": mongodbFails(11600, "interrupted at shutdown")}, "down unavailable request", "true"},
		{"leaves later", "", mongodbOK(yes("isWritablePrimary")), map[string]mongodbDoc{"buildInfo": nil}, "down closed request", "true"},
		{"no stats", `"mongodb":{"stats":false}`, mongodbOK(yes("isWritablePrimary")), map[string]mongodbDoc{"buildInfo": nil}, "up", "true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := mongodbFake(t, func(command string, d mongodbDoc) mongodbDoc {
				if command == "hello" {
					return tt.hello
				}
				if a, ok := tt.others[command]; ok {
					return a
				}
				if command == "ping" {
					return mongodbOK()
				}
				return mongodbFails(13, "command requires authentication")
			})
			check(t, "mongodb://"+addr, tt.target).want(t, tt.want, tt.fact)
		})
	}
	check(t, "mongodb://pup@127.0.0.1", "").want(t, "unknown options prepare", "error contains 'go together'")
	nginx := realserver.Shared(t, "nginx")
	check(t, "mongodb://"+nginx["http"], "").want(t, "down protocol greet")
}

// mongodbScram is a server that knows one password. Cheat changes its proof.
type mongodbScram struct {
	hash            func() hash.Hash
	password, cheat string
	first, server   string
}

func (s *mongodbScram) answer(command string, d mongodbDoc) mongodbDoc {
	payload := string(d.get("payload").data())
	mac := func(key, text []byte) []byte { m := hmac.New(s.hash, key); m.Write(text); return m.Sum(nil) }
	if command == "saslStart" {
		s.first = payload[3:]
		_, nonce, _ := strings.Cut(payload, "r=")
		s.server = "r=" + nonce + "more,s=c2FsdHNhbHQ=,i=4096"
		return mongodbOK(mongodbNewInt("conversationId", 1), mongodbNewBool("done", false), mongodbNewBinary("payload", []byte(s.server)))
	}
	bare, proof, _ := strings.Cut(payload, ",p=")
	text := []byte(s.first + "," + s.server + "," + bare)
	salted, _ := pbkdf2.Key(s.hash, s.password, []byte("saltsalt"), 4096, s.hash().Size())
	key := mac(salted, []byte("Client Key"))
	h := s.hash()
	h.Write(key)
	want := mac(h.Sum(nil), text)
	for i := range want {
		want[i] ^= key[i]
	}
	if proof != base64.StdEncoding.EncodeToString(want) {
		return mongodbFails(18, "Authentication failed.")
	}
	signature := base64.StdEncoding.EncodeToString(mac(mac(salted, []byte("Server Key")), text))
	return mongodbOK(mongodbNewInt("conversationId", 1), mongodbNewBool("done", true), mongodbNewBinary("payload", []byte("v="+s.cheat+signature)))
}

func TestMongoDBLogin(t *testing.T) {
	sum := md5.Sum([]byte("pup:mongo:s3cret"))
	old := hex.EncodeToString(sum[:])
	ref := secret(t, "MONGO", "s3cret")
	for _, tt := range []struct {
		name, offered, options string
		server                 mongodbScram
		want, fact             string
	}{
		{"SCRAM-SHA-256", "SCRAM-SHA-1 SCRAM-SHA-256", "", mongodbScram{hash: sha256.New, password: "s3cret"}, "up", "mongodb.authenticated and mongodb.mechanism == 'SCRAM-SHA-256'"},
		{"SCRAM-SHA-1", "SCRAM-SHA-1", "", mongodbScram{hash: sha1.New, password: old}, "up", "mongodb.mechanism == 'SCRAM-SHA-1'"},
		{"asked for", "SCRAM-SHA-1 SCRAM-SHA-256", `,"mechanism":"SCRAM-SHA-1"`, mongodbScram{hash: sha1.New, password: old}, "up", "mongodb.mechanism == 'SCRAM-SHA-1'"},
		{"unknown user", "", "", mongodbScram{hash: sha256.New, password: "x"}, "down denied auth", "mongodb.error_code == 18"},
		{"wrong password", "SCRAM-SHA-256", "", mongodbScram{hash: sha256.New, password: "other"}, "down denied auth", "mongodb.authenticated == false"},
		{"impostor", "SCRAM-SHA-256", "", mongodbScram{hash: sha256.New, password: "s3cret", cheat: "AAAA"}, "down protocol auth", "error contains 'signature'"},
		{"nothing in common", "MONGODB-X509", "", mongodbScram{}, "down denied auth", "true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := mongodbFake(t, func(command string, d mongodbDoc) mongodbDoc {
				switch command {
				case "hello":
					if who := d.get("saslSupportedMechs").text(); who != "app.pup" {
						t.Errorf("got %q, want app.pup", who)
					}
					var list mongodbDoc
					for m := range strings.FieldsSeq(tt.offered) {
						list = append(list, mongodbNewString("0", m))
					}
					hello := mongodbOK(mongodbNewBool("isWritablePrimary", true))
					if list != nil {
						hello = append(hello, mongodbElement{mongodbArray, "saslSupportedMechs", list.encode()})
					}
					return hello
				case "saslStart", "saslContinue":
					if db := d.get("$db").text(); db != "app" {
						t.Errorf("got %q, want app", db)
					}
					return tt.server.answer(command, d)
				}
				return mongodbOK()
			})
			check(t, "mongodb://pup@"+addr+"/app", `"mongodb":{"password":"`+ref+`"`+tt.options+`}`).want(t, tt.want, tt.fact)
		})
	}
}

// FuzzMongoDBParse: a document that is taken apart is the same when it is put
// together again, and no value reaches beyond it.
func FuzzMongoDBParse(f *testing.F) {
	f.Add(mongodbOK(mongodbNewString("a", "b"), mongodbNewBinary("c", []byte("d")), mongodbNewDoc("e", mongodbOK()), mongodbAt("f", 1)).encode())
	f.Add([]byte("\x05\x00\x00\x00\x00"))
	f.Add([]byte("\x10\x00\x00\x00\x02a\x00\xff\xff\xff\x7fabcd\x00"))
	f.Add([]byte("\x0d\x00\x00\x00\x0ba\x00x\x00y\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := mongodbParse(b)
		if !ok {
			return
		}
		if got := d.encode(); !bytes.Equal(got, b) {
			t.Fatalf("% x became % x", b, got)
		}
		for i := range d {
			e := &d[i]
			if x, ok := e.number(); ok && x != x {
				t.Fatalf("%+v is no number", e)
			}
			if n := len(e.text()) + len(e.data()) + len(e.doc()); n > len(b) {
				t.Fatalf("%+v is larger than %d", e, len(b))
			}
			e.yes()
		}
	})
}

// FuzzMongoDBRead: an answer is one to the message that was sent, and is read
// as it was written.
func FuzzMongoDBRead(f *testing.F) {
	f.Add(mongodbAppend(nil, 9, 7, mongodbOK()))
	f.Add(append([]byte("\x23\x00\x00\x00\x09\x00\x00\x00\x07\x00\x00\x00\xdd\x07\x00\x00\x01\x00\x00\x00\x00\x0a\x00\x00\x00\x08a\x00\x01\x00"), 1, 2, 3, 4))
	f.Add([]byte("\x1a\x00\x00\x00\x09\x00\x00\x00\x07\x00\x00\x00\xdd\x07\x00\x00\x01\x00\x00\x00\x00\x05\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := mongodbRead(mysqlStream{bytes.NewReader(b)}, 7)
		if err != nil {
			return
		}
		if binary.LittleEndian.Uint32(b[8:]) != 7 || !bytes.Contains(b, d.encode()) {
			t.Fatalf("% x was read as %+v", b, d)
		}
		again, err := mongodbRead(mysqlStream{bytes.NewReader(mongodbAppend(nil, 1, 7, d))}, 7)
		if err != nil || !bytes.Equal(again.encode(), d.encode()) {
			t.Fatalf("%+v was written and read as %+v, %v", d, again, err)
		}
	})
}
