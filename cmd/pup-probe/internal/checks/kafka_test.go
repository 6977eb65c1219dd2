package checks

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// kafkaCluster starts a fake cluster of three brokers, with the topics orders
// (three partitions) and canary (one).
func kafkaCluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	opts = append([]kfake.Opt{kfake.NumBrokers(3), kfake.ClusterID("pup-cluster"), kfake.SeedTopics(3, "orders"), kfake.SeedTopics(1, "canary")}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, "kafka://" + c.ListenAddrs()[0]
}

// kafkaAnswer lets the cluster change each response to requests of a kind.
func kafkaAnswer[R kmsg.Request](c *kfake.Cluster, f func(R) kmsg.Response) {
	var zero R
	c.ControlKey(zero.Key(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := f(r.(R))
		return resp, nil, resp != nil
	})
}

func TestKafka(t *testing.T) {
	_, url := kafkaCluster(t)
	for _, tt := range []struct {
		name, options, want string
		facts               []string
	}{
		{"up", ``, "up", []string{"kafka.brokers == 3", "kafka.cluster_id == 'pup-cluster'", "kafka.controller_id >= 0", "kafka.partitions == nil"}},
		{"topics", `"topics":["orders","canary"]`, "up", []string{"kafka.topics == 2", "kafka.partitions == 4", "kafka.leaderless == 0", "kafka.under_replicated == 0", "kafka.offline_replicas == 0"}},
		{"all topics", `"topics":["*"]`, "up", []string{"kafka.topics >= 2", "kafka.partitions >= 4"}},
		{"no topic", `"topics":["none","orders"]`, "down mismatch wait", []string{"error contains 'UNKNOWN_TOPIC'", "error contains 'none'", "kafka.partitions == 3"}},
		{"every broker", `"every_broker":true`, "up", nil},
		{"no group", `"group":"none"`, "down mismatch wait", []string{"error contains 'none'"}},
		{"canary", `"canary_topic":"canary"`, "up", []string{"kafka.canary_offset == 0", "kafka.topics == nil", "kafka.canary_write_ms > 0", "kafka.canary_read_ms > 0"}},
		{"canary again", `"canary_topic":"canary","topics":["orders"]`, "up", []string{"kafka.canary_offset == 1", "kafka.topics == 1"}},
		{"canary elsewhere", `"canary_topic":"orders","canary_partition":2,"topics":["*"]`, "up", []string{"kafka.canary_offset == 0"}},
		{"no such partition", `"canary_topic":"canary","canary_partition":9`, "down mismatch wait", nil},
		{"no such topic", `"canary_topic":"none"`, "down mismatch wait", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, url, `"kafka":{`+tt.options+`}`).want(t, tt.want, tt.facts...)
		})
	}
	check(t, url, `"expect":["kafka.api_versions.Metadata >= 5"]`).want(t, "up")
}

func TestKafkaGroup(t *testing.T) {
	cluster, url := kafkaCluster(t)
	kafkaConsume(t, cluster)
	for _, tt := range []struct {
		name, options, more, want string
		facts                     []string
	}{
		{"all its topics", `"group":"bill"`, "", "up", []string{"kafka.lag == 7", "kafka.lag_max == 5", "kafka.lag_by_topic.orders == 7", "kafka.uncommitted == 0", "kafka.group_members == 0", "kafka.group_state == 'Empty'"}},
		{"one of them", `"group":"bill","topics":["orders","canary"]`, "", "up", []string{"kafka.lag == 7", "kafka.uncommitted == 2"}},
		{"another", `"group":"bill","topics":["canary"]`, "", "down mismatch wait", []string{"kafka.uncommitted == 1"}},
		{"too much", `"group":"bill"`, `"expect":["kafka.lag < 7"]`, "down mismatch verify", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := `"kafka":{` + tt.options + `}`
			if tt.more != "" {
				target += "," + tt.more
			}
			check(t, url, target).want(t, tt.want, tt.facts...)
		})
	}
	codes := map[int16]string{14: "down unavailable wait", 30: "down denied wait", 99: "down protocol wait"}
	for code, want := range codes {
		cluster, url := kafkaCluster(t)
		kafkaAnswer(cluster, func(r *kmsg.FindCoordinatorRequest) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.FindCoordinatorResponse)
			resp.ErrorCode = code
			return resp
		})
		check(t, url, `"kafka":{"group":"bill"}`).want(t, want)
	}
}

// kafkaConsume writes 5 records to orders/0 and 4 to orders/1, and commits for
// the group bill that it has read none of the first and 2 of the others.
func kafkaConsume(t *testing.T, cluster *kfake.Cluster) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxVersions(kversion.V2_8_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for partition, n := range []int{5, 4} {
		for range n {
			r := &kgo.Record{Topic: "orders", Partition: int32(partition), Value: []byte("x")}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = "bill"
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = "orders"
	for partition, offset := range []int64{0, 2} {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = int32(partition), offset
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.Topics[0].Partitions {
		if p.ErrorCode != 0 {
			t.Fatalf("commit of partition %d: error %d", p.Partition, p.ErrorCode)
		}
	}
}

// The states of partitions that a fake cluster does not get into by itself.
func TestKafkaPartitions(t *testing.T) {
	for _, tt := range []struct {
		name, more, want string
		change           func(*kmsg.MetadataResponse)
		facts            []string
	}{
		{"no leader", "", "down mismatch verify", func(m *kmsg.MetadataResponse) {
			m.Topics[0].Partitions[0].Leader, m.Topics[0].Partitions[0].ErrorCode = -1, 5
		}, []string{"kafka.leaderless == 1", "kafka.leaderless_partitions == ['orders/0']", "error contains 'leaderless'"}},
		{"no leader, expected", `,"expect":["kafka.leaderless == 1"]`, "up", func(m *kmsg.MetadataResponse) { m.Topics[0].Partitions[0].Leader = -1 }, nil},
		{"not in sync", "", "degraded mismatch verify", func(m *kmsg.MetadataResponse) { m.Topics[0].Partitions[0].ISR = []int32{0} }, []string{"kafka.under_replicated_partitions == ['orders/0']"}},
		{"offline", "", "degraded mismatch verify", func(m *kmsg.MetadataResponse) {
			m.Topics[0].Partitions[0].OfflineReplicas = []int32{2}
			m.Topics[0].Partitions[0].ISR = []int32{0, 1}
		}, []string{"kafka.offline_replicas == 1"}},
		{"no controller", "", "down mismatch verify", func(m *kmsg.MetadataResponse) { m.ControllerID = -1 }, nil},
		{"forbidden topic", "", "down denied wait", func(m *kmsg.MetadataResponse) { m.Topics[0].ErrorCode = 29 }, nil},
		{"partition's error", "", "down unavailable wait", func(m *kmsg.MetadataResponse) { m.Topics[0].Partitions[0].ErrorCode = 56 }, nil},
		{"dead leader", `,"kafka":{"topics":["orders"],"canary_topic":"orders"}`, "down unavailable wait", func(m *kmsg.MetadataResponse) { m.Topics[0].Partitions[0].Leader = 7 }, nil},
		{"leader elsewhere", `,"kafka":{"topics":["orders"],"canary_topic":"orders"}`, "down refused connect", func(m *kmsg.MetadataResponse) {
			m.Brokers[0].Port = 1
		}, []string{"error contains 'broker 0: connect 127.0.0.1:1:'"}},
		{"no address", `,"kafka":{"every_broker":true}`, "down protocol wait", func(m *kmsg.MetadataResponse) { m.Brokers[0].Host = "" }, nil},
		{"another service", `,"kafka":{"every_broker":true}`, "down closed greet", func(m *kmsg.MetadataResponse) {
			addr := serve(t, func(c net.Conn) { io.ReadFull(c, make([]byte, 17)) })
			_, port, _ := net.SplitHostPort(addr)
			fmt.Sscan(port, &m.Brokers[0].Port)
		}, []string{"error contains 'broker 0 closed'"}},
		{"bad port", `,"kafka":{"every_broker":true}`, "down protocol wait", func(m *kmsg.MetadataResponse) { m.Brokers[0].Port = 99999 }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster, url := kafkaCluster(t)
			addr := cluster.ListenAddrs()[0]
			_, port, _ := net.SplitHostPort(addr)
			kafkaAnswer(cluster, func(r *kmsg.MetadataRequest) kmsg.Response {
				m := r.ResponseKind().(*kmsg.MetadataResponse)
				m.ControllerID = 0
				b := kmsg.NewMetadataResponseBroker()
				b.Host = "127.0.0.1"
				fmt.Sscan(port, &b.Port)
				m.Brokers = append(m.Brokers, b)
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic = new("orders")
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Replicas, p.ISR = []int32{0, 1, 2}, []int32{0, 1, 2}
				topic.Partitions = append(topic.Partitions, p)
				m.Topics = append(m.Topics, topic)
				tt.change(m)
				return m
			})
			target := `"name":"t"` + tt.more
			if !strings.Contains(tt.more, `"kafka"`) {
				target = `"kafka":{"topics":["orders"]}` + tt.more
			}
			check(t, url, strings.TrimPrefix(target, `"name":"t",`)).want(t, tt.want, tt.facts...)
		})
	}
}

// What leaders say to writing and reading.
func TestKafkaCanary(t *testing.T) {
	produced := func(code int16) func(*kmsg.ProduceRequest) kmsg.Response {
		return func(r *kmsg.ProduceRequest) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.ProduceResponse)
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic = r.Topics[0].Topic
			p := kmsg.NewProduceResponseTopicPartition()
			p.ErrorCode = code
			topic.Partitions = append(topic.Partitions, p)
			resp.Topics = append(resp.Topics, topic)
			return resp
		}
	}
	fetched := func(code int16, batches []byte) func(*kmsg.FetchRequest) kmsg.Response {
		return func(r *kmsg.FetchRequest) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.FetchResponse)
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic = r.Topics[0].Topic
			p := kmsg.NewFetchResponseTopicPartition()
			p.ErrorCode, p.RecordBatches = code, batches
			topic.Partitions = append(topic.Partitions, p)
			resp.Topics = append(resp.Topics, topic)
			return resp
		}
	}
	compressed := kafkaAppendBatch(nil, 1, "what the topic's settings make of it")
	compressed[kafkaBatchAfter+1] |= 1 // gzip
	binary.BigEndian.PutUint32(compressed[kafkaBatchCRC:], crc32.Checksum(compressed[kafkaBatchAfter:], kafkaCastagnoli()))
	broken := kafkaAppendBatch(nil, 1, "token")
	broken[len(broken)-2] ^= 1
	for _, tt := range []struct {
		name, want string
		produce    func(*kmsg.ProduceRequest) kmsg.Response
		fetch      func(*kmsg.FetchRequest) kmsg.Response
	}{
		{"too few replicas", "down unavailable wait", produced(19), nil},
		{"may not write", "down denied wait", produced(29), nil},
		{"not the leader", "down unavailable wait", produced(6), nil},
		{"may not read", "down denied wait", nil, fetched(29, nil)},
		{"another record", "down mismatch wait", nil, fetched(0, kafkaAppendBatch(nil, 1, "another"))},
		{"no record", "down mismatch wait", nil, fetched(0, nil)},
		{"compressed record", "up", nil, fetched(0, compressed)},
		{"broken record", "down protocol wait", nil, fetched(0, broken)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster, url := kafkaCluster(t)
			if tt.produce != nil {
				kafkaAnswer(cluster, tt.produce)
			}
			if tt.fetch != nil {
				kafkaAnswer(cluster, tt.fetch)
			}
			check(t, url, `"kafka":{"canary_topic":"canary"}`).want(t, tt.want)
		})
	}
}

func TestKafkaLogin(t *testing.T) {
	_, url := kafkaCluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "plain", "plain-secret"), kfake.Superuser("SCRAM-SHA-256", "s256", "s256-secret"), kfake.Superuser("SCRAM-SHA-512", "s512", "s512-secret"))
	user := func(name, password string) string {
		return fmt.Sprintf(`"user":%q,"password":%q`, name, secret(t, "KAFKA_"+strings.ToUpper(name), password))
	}
	wrong := fmt.Sprintf(`"user":"s512","password":%q`, secret(t, "KAFKA_WRONG", "wrong-secret"))
	for _, tt := range []struct {
		name, options, want string
		facts               []string
	}{
		{"scram 512", user("s512", "s512-secret") + `,"every_broker":true`, "up", []string{"kafka.mechanism == 'SCRAM-SHA-512'"}},
		{"scram 256", user("s256", "s256-secret") + `,"mechanism":"SCRAM-SHA-256","canary_topic":"canary"`, "up", []string{"kafka.mechanism == 'SCRAM-SHA-256'"}},
		{"plain", user("plain", "plain-secret") + `,"mechanism":"PLAIN","topics":["orders"]`, "up", []string{"kafka.mechanism == 'PLAIN'"}},
		{"wrong password", wrong, "down closed auth", nil}, // this cluster does not say why
		{"no password", "", "down denied auth", []string{"error contains 'no credentials are set'", "'PLAIN' in kafka.sasl_mechanisms"}},
		{"token", fmt.Sprintf(`"token":%q`, secret(t, "KAFKA_TOKEN", "token-secret")), "down denied auth", []string{"error contains 'OAUTHBEARER'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, url, `"kafka":{`+tt.options+`}`).want(t, tt.want, append(tt.facts, "not (error contains 'secret')")...)
		})
	}
}

// A broker that does not know the first mechanism closes the connection; the
// second takes one that it has offered.
func TestKafkaSecondMechanism(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		for {
			key, body, correlation, err := kafkaRequest(c)
			if err != nil {
				return
			}
			switch {
			case key == kafkaSASLHandshake.key && !strings.Contains(string(body), "PLAIN"):
				kafkaRespond(c, correlation, kafkaAppendStrings([]byte{0, 33}, []string{"PLAIN", "GSSAPI"}))
				return
			case key == kafkaSASLHandshake.key:
				kafkaRespond(c, correlation, kafkaAppendStrings([]byte{0, 0}, []string{"PLAIN", "GSSAPI"}))
			case key == kafkaSASLAuthenticate.key && strings.HasSuffix(string(body), "\x00u\x00hush-hush"):
				kafkaRespond(c, correlation, []byte{0, 0, 0xff, 0xff, 0, 0, 0, 0})
			case key == kafkaSASLAuthenticate.key:
				kafkaRespond(c, correlation, append(kafkaAppendString([]byte{0, 58}, "nope"), 0, 0, 0, 0))
			case key == kafkaMetadata.key:
				kafkaRespond(c, correlation, append(kafkaAppendInt32(kafkaAppendString(make([]byte, 8), "c"), 1), 0, 0, 0, 0))
			case key == kafkaAPIVersions.key:
				kafkaRespond(c, correlation, kafkaVersions(0, 9))
			}
		}
	})
	pw := func(p string) string {
		return fmt.Sprintf(`"kafka":{"user":"u","password":%q}`, secret(t, "KAFKA_PW", p))
	}
	check(t, "kafka://"+addr, pw("hush-hush")).want(t, "up", "kafka.mechanism == 'PLAIN'", "kafka.cluster_id == 'c'")
	check(t, "kafka://"+addr, pw("wrong")).want(t, "down denied auth", "error contains 'nope'")
	check(t, "kafka://"+addr, strings.Replace(pw("hush-hush"), `"user"`, `"mechanism":"SCRAM-SHA-512","user"`, 1)).want(t, "down denied auth", "error contains 'GSSAPI'")
}

// A broker that says what is wrong with the credentials, and one that proves
// that it knows the password.
func TestKafkaScram(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		scram := brokerScram{password: "hush-hush"}
		for step := 0; ; {
			key, body, correlation, err := kafkaRequest(c)
			if err != nil {
				return
			}
			r := kafkaReader{b: body}
			switch key {
			case kafkaAPIVersions.key:
				kafkaRespond(c, correlation, kafkaVersions(0, 9))
			case kafkaSASLHandshake.key:
				kafkaRespond(c, correlation, kafkaAppendStrings([]byte{0, 0}, []string{"SCRAM-SHA-256"}))
			case kafkaSASLAuthenticate.key:
				if step++; step == 1 {
					kafkaRespond(c, correlation, kafkaAppendBytes([]byte{0, 0, 0xff, 0xff}, []byte(scram.first(string(r.bytes())))))
					continue
				}
				final, ok := scram.final(string(r.bytes()))
				if !ok {
					kafkaRespond(c, correlation, append(kafkaAppendString([]byte{0, 58}, "invalid credentials"), 0, 0, 0, 0))
					return
				}
				kafkaRespond(c, correlation, kafkaAppendBytes([]byte{0, 0, 0xff, 0xff}, []byte(final)))
			case kafkaMetadata.key:
				kafkaRespond(c, correlation, append(kafkaAppendInt32(kafkaAppendString(make([]byte, 8), "c"), 1), 0, 0, 0, 0))
			}
		}
	})
	for password, want := range map[string]string{"hush-hush": "up", "wrong-secret": "down denied auth"} {
		options := fmt.Sprintf(`"kafka":{"user":"u","mechanism":"SCRAM-SHA-256","password":%q}`, secret(t, "KAFKA_PW", password))
		check(t, "kafka://"+addr, options).want(t, want, "status == 'up' or error contains 'invalid credentials'")
	}
}

// kafkaRequest reads a request.
func kafkaRequest(r io.Reader) (key int16, body []byte, correlation int32, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, nil, 0, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = io.ReadFull(r, b)
	in := kafkaReader{b: b}
	key = in.int16()
	in.int16()
	correlation = in.int32()
	in.string()
	return key, in.b, correlation, cmp.Or(err, in.err)
}

func kafkaRespond(w io.Writer, correlation int32, body []byte) {
	b := kafkaAppendInt32(kafkaAppendInt32(nil, int32(len(body)+4)), correlation)
	w.Write(append(b, body...))
}

// kafkaVersions is a response to ApiVersions in which each request has the
// versions from low to high.
func kafkaVersions(low, high int16) []byte {
	b := kafkaAppendInt32([]byte{0, 0}, int32(len(kafkaAPIs)))
	for _, api := range kafkaAPIs {
		for _, n := range []int16{api.key, low, high} {
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
	}
	return b
}

func TestKafkaTLS(t *testing.T) {
	_, url := kafkaCluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{testCA().leaf}}))
	tlsURL := strings.Replace(url, "kafka:", "kafkas:", 1)
	check(t, tlsURL, trustTestCA()+`,"kafka":{"every_broker":true,"canary_topic":"canary"}`).want(t, "up", "tls.version == '1.3'")
	check(t, tlsURL, "").want(t, "down certificate-untrusted tls")
	check(t, url, `"timeout":"2s"`).want(t, "down closed greet")
	_, plain := kafkaCluster(t)
	check(t, strings.Replace(plain, "kafka:", "kafkas:", 1), `"timeout":"1s","expect":["reason != ''","phase == 'tls'"]`).want(t, "up")
}

func TestKafkaOptions(t *testing.T) {
	pw := secret(t, "KAFKA_PASSWORD", "hush-hush")
	for _, tt := range []struct{ options, want string }{
		{`{"password":"` + pw + `"}`, "kafka.user"},
		{`{"user":"u"}`, "kafka.password"},
		{`{"user":"u","password":"` + pw + `","token":"` + pw + `"}`, "kafka.token"},
		{`{"mechanism":"PLAIN"}`, "kafka.mechanism"},
		{`{"user":"u","password":"` + pw + `","mechanism":"OAUTHBEARER"}`, "OAUTHBEARER"},
		{`{"topics":["` + strings.Repeat("t", 250) + `"]}`, "249"},
	} {
		check(t, "kafka://broker.example.org", `"kafka":`+tt.options).want(t, "unknown options prepare", fmt.Sprintf("error contains %q", tt.want), "not (error contains 'hush')")
	}
}

// Answers of servers that are no good brokers, or no brokers at all.
func TestKafkaTalks(t *testing.T) {
	asked := "Cx 0000000d 0012 0000 00000001 0003 707570\n"
	versions := fmt.Sprintf("Sx %08x 00000001 %x\n", len(kafkaVersions(0, 9))+4, kafkaVersions(0, 9))
	old := kafkaVersions(0, 4)
	metadata := "Cx 00000012 0003 0005 00000002 0003 707570 00000000 00\n"
	talks(t, "kafka://HOST", []talk{
		{"up", "", asked + versions + metadata + "Sx 0000001d 00000002 00000000 00000000 0003 616263 00000001 00000000 00000000\n! hang", "down protocol wait", nil},
		{"no brokers", "", asked + versions + metadata + "Sx 00000019 00000002 00000000 00000000 0003 616263 ffffffff 00000000", "down mismatch verify", []string{"kafka.cluster_id == 'abc'", "kafka.brokers == 0"}},
		{"refuses", "", asked + "Sx 0000000a 00000001 0023 00000000", "down protocol greet", nil},
		{"too old", "", asked + fmt.Sprintf("Sx %08x 00000001 %x\n", len(old)+4, old), "down protocol greet", []string{"error contains 'Metadata from version 0 to 4'"}},
		{"knows nothing", "", asked + "Sx 0000000a 00000001 0000 00000000", "down protocol greet", nil},
		{"too many versions", "", asked + "Sx 0000000a 00000001 0000 7fffffff", "down protocol greet", nil},
		{"short", "", asked + "Sx 00000006 00000001 0000", "down protocol greet", nil},
		{"long", "", asked + "Sx 0000000c 00000001 0000 00000000 0000", "down protocol greet", nil},
		{"no size", "", asked + "Sx 00000000 00000001", "down protocol greet", nil},
		{"negative size", "", asked + "Sx ffffffff 00000001", "down protocol greet", nil},
		{"huge", "", asked + "Sx 7fffffff 00000001", "down too-large greet", nil},
		{"another's response", "", asked + "Sx 0000000a 00000002 0000 00000000", "down protocol greet", nil},
		{"half", "", asked + "Sx 0000000a 00000001 0000\n! close", "down closed greet", nil},
		{"HTTP", "", asked + "S: HTTP/1.1 400 Bad Request", "down protocol greet", nil},
		{"TLS", "", asked + "Sx 15 0303 0002 0228 0000", "down protocol greet", []string{"error contains 'kafkas'"}},
		{"hangs", `"timeout":"200ms"`, asked + versions + "! hang", "down timeout wait", nil},
	})
	// a broker that ends the connection, and does not want a login
	addr := serve(t, func(c net.Conn) {
		for {
			key, _, correlation, err := kafkaRequest(c)
			switch {
			case err != nil || key == kafkaMetadata.key:
				return
			case key == kafkaSASLHandshake.key:
				kafkaRespond(c, correlation, []byte{0, 34, 0, 0, 0, 0})
			default:
				kafkaRespond(c, correlation, kafkaVersions(0, 9))
			}
		}
	})
	check(t, "kafka://"+addr, "").want(t, "down closed wait")
}

// A cluster that stops in mid-session, at each step: the connection stays, and
// no more responses come.
func TestKafkaPaused(t *testing.T) {
	for _, tt := range []struct {
		key  int16
		want string
	}{
		{kafkaAPIVersions.key, "down timeout greet"},
		{kafkaSASLHandshake.key, "down timeout auth"},
		{kafkaSASLAuthenticate.key, "down timeout auth"},
		{kafkaMetadata.key, "down timeout wait"},
		{kafkaFindCoordinator.key, "down timeout wait"},
		{kafkaOffsetFetch.key, "down timeout wait"},
		{kafkaListOffsets.key, "down timeout wait"},
		{kafkaProduce.key, "down timeout wait"},
		{kafkaFetch.key, "down timeout wait"},
	} {
		t.Run(fmt.Sprint(tt.key), func(t *testing.T) {
			sasl := tt.key == kafkaSASLHandshake.key || tt.key == kafkaSASLAuthenticate.key
			var opts []kfake.Opt
			options := `"group":"bill","canary_topic":"canary"`
			if sasl {
				opts = []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "hush-hush")}
				options += fmt.Sprintf(`,"user":"u","mechanism":"PLAIN","password":%q`, secret(t, "KAFKA_PW", "hush-hush"))
			}
			cluster, url := kafkaCluster(t, opts...)
			if !sasl {
				kafkaConsume(t, cluster)
			}
			ctx, resume := context.WithCancel(context.Background())
			t.Cleanup(resume) // before the cluster closes
			cluster.ControlKey(tt.key, func(kmsg.Request) (kmsg.Response, error, bool) {
				cluster.SleepControl(func() { <-ctx.Done() })
				return nil, errors.New("resumed"), true
			})
			check(t, url, `"timeout":"1s","kafka":{`+options+`}`).want(t, tt.want)
		})
	}
}

// The record that was written is found, and a change of any byte that the
// checksum is of is noticed.
func FuzzKafkaRecord(f *testing.F) {
	f.Add("token", int64(1), []byte{}, 3)
	f.Add("", int64(-5), kafkaAppendBatch(nil, 1, "x"), 40)
	f.Fuzz(func(t *testing.T, value string, now int64, before []byte, at int) {
		kafkaRecord(before, 0)
		b := kafkaAppendBatch(nil, now, value)
		if got, err := kafkaRecord(b, 0); err != nil || got != value {
			t.Fatalf("got %q, %v, want %q", got, err, value)
		}
		if _, err := kafkaRecord(b, 1); !errors.Is(err, errKafkaNoRecord) {
			t.Fatalf("got %v for another offset", err)
		}
		body := b[kafkaBatchAfter:]
		body[(at%len(body)+len(body))%len(body)] ^= 1
		if _, err := kafkaRecord(b, 0); err == nil {
			t.Fatalf("a changed byte goes unnoticed")
		}
	})
}

// Nothing that is read is larger than the response.
func FuzzKafkaReader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x00\x03abc\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := kafkaReader{b: b}
		size := 0
		for range r.count(2) {
			size += len(r.string())
		}
		size += 4*len(r.int32s()) + len(r.bytes())
		r.varint()
		if size > len(b) {
			t.Fatalf("%d bytes out of %d", size, len(b))
		}
		if r.err != nil && (r.int64() != 0 || r.string() != "" || r.bytes() != nil || r.count(1) != 0) {
			t.Fatalf("fields after an error: %v", r.err)
		}
	})
}
