package checks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// A kafkaAPI is a request of the protocol in the version that is spoken here:
// the last before its encoding became flexible, or an older one. Kafka has all
// of them from 1.0 to 4.x.
type kafkaAPI struct {
	key, version int16
	name         string
}

var (
	kafkaProduce          = kafkaAPI{0, 3, "Produce"}
	kafkaFetch            = kafkaAPI{1, 4, "Fetch"}
	kafkaListOffsets      = kafkaAPI{2, 1, "ListOffsets"}
	kafkaMetadata         = kafkaAPI{3, 5, "Metadata"}
	kafkaOffsetFetch      = kafkaAPI{9, 3, "OffsetFetch"}
	kafkaFindCoordinator  = kafkaAPI{10, 1, "FindCoordinator"}
	kafkaDescribeGroups   = kafkaAPI{15, 1, "DescribeGroups"}
	kafkaSASLHandshake    = kafkaAPI{17, 1, "SaslHandshake"}
	kafkaAPIVersions      = kafkaAPI{18, 0, "ApiVersions"}
	kafkaSASLAuthenticate = kafkaAPI{36, 0, "SaslAuthenticate"}
)

var kafkaAPIs = []kafkaAPI{kafkaProduce, kafkaFetch, kafkaListOffsets, kafkaMetadata, kafkaOffsetFetch, kafkaFindCoordinator,
	kafkaDescribeGroups, kafkaSASLHandshake, kafkaAPIVersions, kafkaSASLAuthenticate}

// kafkaMaxResponse bounds a response, in bytes.
const kafkaMaxResponse = 4 << 20

// kafkaAppendRequest adds a request with its length and header (version 1).
func kafkaAppendRequest(dst []byte, api kafkaAPI, correlation int32, body []byte) []byte {
	head := binary.BigEndian.AppendUint16(nil, uint16(api.key))
	head = binary.BigEndian.AppendUint16(head, uint16(api.version))
	head = binary.BigEndian.AppendUint32(head, uint32(correlation))
	head = kafkaAppendString(head, "pup")
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(head)+len(body)))
	return append(append(dst, head...), body...)
}

func kafkaAppendInt32(dst []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

func kafkaAppendInt64(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n))
}

func kafkaAppendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func kafkaAppendBytes(dst, b []byte) []byte {
	return append(kafkaAppendInt32(dst, int32(len(b))), b...)
}

// kafkaAppendStrings adds an array of strings; nil is the null array.
func kafkaAppendStrings(dst []byte, list []string) []byte {
	if list == nil {
		return kafkaAppendInt32(dst, -1)
	}
	dst = kafkaAppendInt32(dst, int32(len(list)))
	for _, s := range list {
		dst = kafkaAppendString(dst, s)
	}
	return dst
}

// A kafkaReader reads fields off the front of a response. After the first that
// is not whole every field is zero, and err is set.
type kafkaReader struct {
	b   []byte
	err error
}

func (r *kafkaReader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		if r.err == nil {
			r.err = errors.New("it ends too early")
		}
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *kafkaReader) number(size int) uint64 {
	var n uint64
	for _, c := range r.take(size) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *kafkaReader) int8() int8   { return int8(r.number(1)) }
func (r *kafkaReader) int16() int16 { return int16(r.number(2)) }
func (r *kafkaReader) int32() int32 { return int32(r.number(4)) }
func (r *kafkaReader) int64() int64 { return int64(r.number(8)) }

// string reads a string; the null string becomes the empty one.
func (r *kafkaReader) string() string {
	n := r.int16()
	if n == -1 {
		return ""
	}
	return string(r.take(int(n)))
}

// bytes reads bytes, which are valid as long as the response; null becomes nil.
func (r *kafkaReader) bytes() []byte {
	n := r.int32()
	if n == -1 {
		return nil
	}
	return r.take(int(n))
}

// count reads the length of an array, whose elements have at least size bytes.
// Null becomes 0.
func (r *kafkaReader) count(size int) int {
	n := int(r.int32())
	if n > len(r.b)/size || n < -1 {
		if r.err == nil {
			r.err = fmt.Errorf("an array of %d elements does not fit", n)
		}
		return 0
	}
	return max(n, 0)
}

func (r *kafkaReader) int32s() []int32 {
	list := make([]int32, r.count(4))
	for i := range list {
		list[i] = r.int32()
	}
	return list
}

// varint reads a zig-zag number.
func (r *kafkaReader) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 && r.err == nil {
		r.err = errors.New("a number does not end")
	}
	r.take(max(size, 0))
	return n
}

// A kafkaCode is an error code of the protocol.
type kafkaCode int16

// The codes that are told apart here.
const (
	kafkaNone                 kafkaCode = 0
	kafkaUnknownTopic         kafkaCode = 3
	kafkaLeaderNotAvailable   kafkaCode = 5
	kafkaReplicaNotAvailable  kafkaCode = 9
	kafkaUnsupportedMechanism kafkaCode = 33
)

type kafkaMeaning struct {
	name   string
	reason wire.Reason
}

var kafkaCodes = sync.OnceValue(func() map[kafkaCode]kafkaMeaning {
	return map[kafkaCode]kafkaMeaning{
		-1: {"UNKNOWN_SERVER_ERROR", wire.Unavailable},
		1:  {"OFFSET_OUT_OF_RANGE", wire.Mismatch},
		2:  {"CORRUPT_MESSAGE", wire.BadProtocol},
		3:  {"UNKNOWN_TOPIC_OR_PARTITION", wire.Mismatch},
		5:  {"LEADER_NOT_AVAILABLE", wire.Unavailable},
		6:  {"NOT_LEADER_OR_FOLLOWER", wire.Unavailable},
		7:  {"REQUEST_TIMED_OUT", wire.Unavailable},
		8:  {"BROKER_NOT_AVAILABLE", wire.Unavailable},
		9:  {"REPLICA_NOT_AVAILABLE", wire.Unavailable},
		10: {"MESSAGE_TOO_LARGE", wire.Mismatch},
		13: {"NETWORK_EXCEPTION", wire.Unavailable},
		14: {"COORDINATOR_LOAD_IN_PROGRESS", wire.Unavailable},
		15: {"COORDINATOR_NOT_AVAILABLE", wire.Unavailable},
		16: {"NOT_COORDINATOR", wire.Unavailable},
		17: {"INVALID_TOPIC_EXCEPTION", wire.Mismatch},
		19: {"NOT_ENOUGH_REPLICAS", wire.Unavailable},
		20: {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", wire.Unavailable},
		24: {"INVALID_GROUP_ID", wire.Mismatch},
		29: {"TOPIC_AUTHORIZATION_FAILED", wire.Denied},
		30: {"GROUP_AUTHORIZATION_FAILED", wire.Denied},
		31: {"CLUSTER_AUTHORIZATION_FAILED", wire.Denied},
		33: {"UNSUPPORTED_SASL_MECHANISM", wire.Denied},
		34: {"ILLEGAL_SASL_STATE", wire.Denied},
		35: {"UNSUPPORTED_VERSION", wire.BadProtocol},
		41: {"NOT_CONTROLLER", wire.Unavailable},
		42: {"INVALID_REQUEST", wire.BadProtocol},
		44: {"POLICY_VIOLATION", wire.Denied},
		56: {"KAFKA_STORAGE_ERROR", wire.Unavailable},
		58: {"SASL_AUTHENTICATION_FAILED", wire.Denied},
		69: {"GROUP_ID_NOT_FOUND", wire.Mismatch},
		72: {"LISTENER_NOT_FOUND", wire.Unavailable},
		87: {"INVALID_RECORD", wire.Mismatch},
		89: {"THROTTLING_QUOTA_EXCEEDED", wire.Unavailable},
	}
})

func (c kafkaCode) String() string {
	if e, ok := kafkaCodes()[c]; ok {
		return fmt.Sprintf("%d %s", int16(c), e.name)
	}
	return fmt.Sprintf("error %d", int16(c))
}

// kafkaRefusal words an error of the broker. What says what was asked for, and
// text what the broker adds.
func kafkaRefusal(code kafkaCode, what, text string) error {
	reason := wire.BadProtocol
	if e, ok := kafkaCodes()[code]; ok {
		reason = e.reason
	}
	if text != "" {
		text = fmt.Sprintf(": %.160q", text)
	}
	return probe.Failf(reason, "%s: the broker says %v%s", what, code, text)
}

// A batch of records, format 2: where its fields lie, and how long they are
// without the records.
const (
	kafkaBatchMagic = 16
	kafkaBatchCRC   = 17
	kafkaBatchAfter = 21 // what the checksum is of
	kafkaBatchSize  = 61
)

// kafkaCastagnoli is made when it is needed: it takes a twentieth of a start.
var kafkaCastagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// kafkaAppendBatch adds a batch of one record without a key. Now is in
// milliseconds since 1970.
func kafkaAppendBatch(dst []byte, now int64, value string) []byte {
	record := []byte{0, 0, 0} // attributes, and differences of time and offset
	record = binary.AppendVarint(record, -1)
	record = binary.AppendVarint(record, int64(len(value)))
	record = append(append(record, value...), 0) // no headers
	body := binary.BigEndian.AppendUint16(nil, 0)
	body = kafkaAppendInt32(body, 0) // the last offset's difference to the first
	body = kafkaAppendInt64(kafkaAppendInt64(body, now), now)
	body = kafkaAppendInt64(body, -1) // no idempotent producer: neither id, epoch nor sequence
	body = binary.BigEndian.AppendUint16(body, 0xffff)
	body = kafkaAppendInt32(body, -1)
	body = kafkaAppendInt32(body, 1)
	body = append(binary.AppendVarint(body, int64(len(record))), record...)

	dst = kafkaAppendInt64(dst, 0)
	dst = kafkaAppendInt32(dst, int32(len(body)+kafkaBatchAfter-12))
	dst = append(kafkaAppendInt32(dst, -1), 2)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(body, kafkaCastagnoli()))
	return append(dst, body...)
}

// errors of kafkaRecord.
var (
	errKafkaNoRecord   = errors.New("there is no record of that offset")
	errKafkaCompressed = errors.New("the record is compressed")
)

// kafkaRecord finds the value of the record with an offset in batches, of which
// the last may be cut short. The error is errKafkaCompressed if it is there but
// compressed by the topic's settings.
func kafkaRecord(b []byte, offset int64) (string, error) {
	for len(b) >= kafkaBatchSize {
		base := int64(binary.BigEndian.Uint64(b))
		length := int64(binary.BigEndian.Uint32(b[8:])) + 12
		if length < kafkaBatchSize || length > int64(len(b)) {
			break
		}
		batch := b[:length]
		b = b[length:]
		if batch[kafkaBatchMagic] != 2 {
			return "", fmt.Errorf("a batch has the format %d, want 2", batch[kafkaBatchMagic])
		}
		if sum := crc32.Checksum(batch[kafkaBatchAfter:], kafkaCastagnoli()); sum != binary.BigEndian.Uint32(batch[kafkaBatchCRC:]) {
			return "", errors.New("the checksum of a batch is wrong")
		}
		r := kafkaReader{b: batch[kafkaBatchAfter:]}
		attributes, last := r.int16(), r.int32()
		if offset < base || offset > base+int64(last) {
			continue
		}
		if attributes&7 != 0 {
			return "", errKafkaCompressed
		}
		r.take(8 + 8 + 8 + 2 + 4) // times, producer, epoch, sequence
		value, err := r.record(offset - base)
		if err == nil || !errors.Is(err, errKafkaNoRecord) {
			return value, err
		}
	}
	return "", errKafkaNoRecord
}

// record finds the value of a record by the difference of its offset to the
// batch's.
func (r *kafkaReader) record(delta int64) (string, error) {
	for range r.int32() {
		in := kafkaReader{b: r.take(int(r.varint())), err: r.err}
		in.int8()
		in.varint()
		got := in.varint()
		if n := in.varint(); n >= 0 {
			in.take(int(n))
		}
		value := ""
		if n := in.varint(); n >= 0 {
			value = string(in.take(int(n)))
		}
		if in.err != nil {
			return "", fmt.Errorf("a record: %w", in.err)
		}
		if got == delta {
			return value, nil
		}
	}
	if r.err != nil {
		return "", fmt.Errorf("a batch: %w", r.err)
	}
	return "", errKafkaNoRecord
}
