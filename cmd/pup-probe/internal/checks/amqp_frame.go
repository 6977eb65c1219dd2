package checks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
)

// The types of frames (AMQP 0-9-1, section 4.2.3).
const (
	amqpMethodFrame    = 1
	amqpHeaderFrame    = 2
	amqpBodyFrame      = 3
	amqpHeartbeatFrame = 8

	amqpFrameEnd = 0xce
)

// amqpMaxFrame bounds the payload of a frame, in bytes; it is what we agree to.
const amqpMaxFrame = 128 << 10

// An amqpMethod is a class and a method within it.
type amqpMethod uint32

// The methods that are used here.
const (
	amqpStart          amqpMethod = 10<<16 | 10
	amqpStartOK        amqpMethod = 10<<16 | 11
	amqpSecure         amqpMethod = 10<<16 | 20
	amqpSecureOK       amqpMethod = 10<<16 | 21
	amqpTune           amqpMethod = 10<<16 | 30
	amqpTuneOK         amqpMethod = 10<<16 | 31
	amqpOpen           amqpMethod = 10<<16 | 40
	amqpOpenOK         amqpMethod = 10<<16 | 41
	amqpClose          amqpMethod = 10<<16 | 50
	amqpCloseOK        amqpMethod = 10<<16 | 51
	amqpBlocked        amqpMethod = 10<<16 | 60
	amqpUnblocked      amqpMethod = 10<<16 | 61
	amqpChannelOpen    amqpMethod = 20<<16 | 10
	amqpChannelOpenOK  amqpMethod = 20<<16 | 11
	amqpChannelClose   amqpMethod = 20<<16 | 40
	amqpChannelCloseOK amqpMethod = 20<<16 | 41
	amqpDeclare        amqpMethod = 50<<16 | 10
	amqpDeclareOK      amqpMethod = 50<<16 | 11
	amqpPublish        amqpMethod = 60<<16 | 40
	amqpReturn         amqpMethod = 60<<16 | 50
	amqpGet            amqpMethod = 60<<16 | 70
	amqpGetOK          amqpMethod = 60<<16 | 71
	amqpGetEmpty       amqpMethod = 60<<16 | 72
	amqpAck            amqpMethod = 60<<16 | 80
	amqpNack           amqpMethod = 60<<16 | 120
	amqpConfirm        amqpMethod = 85<<16 | 10
	amqpConfirmOK      amqpMethod = 85<<16 | 11
)

var amqpNames = sync.OnceValue(func() map[amqpMethod]string {
	return map[amqpMethod]string{
		amqpStart: "connection.start", amqpStartOK: "connection.start-ok", amqpSecure: "connection.secure",
		amqpTune: "connection.tune", amqpOpen: "connection.open", amqpOpenOK: "connection.open-ok",
		amqpClose: "connection.close", amqpCloseOK: "connection.close-ok", amqpBlocked: "connection.blocked",
		amqpChannelOpen: "channel.open", amqpChannelOpenOK: "channel.open-ok", amqpChannelClose: "channel.close",
		amqpDeclare: "queue.declare", amqpDeclareOK: "queue.declare-ok", amqpPublish: "basic.publish", amqpReturn: "basic.return",
		amqpGet: "basic.get", amqpGetOK: "basic.get-ok", amqpGetEmpty: "basic.get-empty", amqpAck: "basic.ack", amqpNack: "basic.nack",
		amqpConfirm: "confirm.select", amqpConfirmOK: "confirm.select-ok",
	}
})

func (m amqpMethod) String() string {
	if name, ok := amqpNames()[m]; ok {
		return name
	}
	return fmt.Sprintf("method %d.%d", m>>16, m&0xffff)
}

// amqpHeader reads the header of a frame: its type, its channel and the length
// of its payload.
func amqpHeader(b [7]byte) (kind byte, channel uint16, length int, err error) {
	kind, channel, size := b[0], binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint32(b[3:])
	switch {
	case kind < amqpMethodFrame || kind > amqpBodyFrame && kind != amqpHeartbeatFrame:
		return 0, 0, 0, fmt.Errorf("got % x, which begins no frame of AMQP 0-9-1", b)
	case size > amqpMaxFrame:
		return 0, 0, 0, fmt.Errorf("the server sends a frame of %d bytes, more than %d", size, amqpMaxFrame)
	}
	return kind, channel, int(size), nil
}

// amqpAppendFrame adds a frame.
func amqpAppendFrame(dst []byte, kind byte, channel uint16, payload []byte) []byte {
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint16(dst, channel)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(append(dst, payload...), amqpFrameEnd)
}

// An amqpReader reads fields off the front of a payload. After the first that
// is not whole every field is zero, and err is set.
type amqpReader struct {
	b   []byte
	err error
}

func (r *amqpReader) take(n uint32) []byte {
	if r.err != nil || uint64(n) > uint64(len(r.b)) {
		if r.err == nil {
			r.err = errors.New("it ends too early")
		}
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// number reads an unsigned number of size bytes.
func (r *amqpReader) number(size uint32) uint64 {
	var n uint64
	for _, c := range r.take(size) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *amqpReader) short() int       { return int(r.number(2)) }
func (r *amqpReader) long() int64      { return int64(r.number(4)) }
func (r *amqpReader) shortstr() string { return string(r.take(uint32(r.number(1)))) }
func (r *amqpReader) longstr() string  { return string(r.take(uint32(r.number(4)))) }

// amqpMaxDepth bounds the nesting of tables and arrays.
const amqpMaxDepth = 8

// table reads a table. Its numbers become int64 or float64.
func (r *amqpReader) table(depth int) map[string]any {
	in := amqpReader{b: r.take(uint32(r.number(4))), err: r.err}
	t := map[string]any{}
	for len(in.b) > 0 && in.err == nil {
		name := in.shortstr()
		t[name] = in.value(depth + 1)
	}
	r.err = in.err
	return t
}

func (r *amqpReader) array(depth int) []any {
	in := amqpReader{b: r.take(uint32(r.number(4))), err: r.err}
	list := []any{}
	for len(in.b) > 0 && in.err == nil {
		list = append(list, in.value(depth+1))
	}
	r.err = in.err
	return list
}

// value reads the value of a field, in the types that RabbitMQ and Qpid use.
func (r *amqpReader) value(depth int) any {
	if depth > amqpMaxDepth {
		r.err = fmt.Errorf("its tables are nested more than %d deep", amqpMaxDepth)
		return nil
	}
	switch kind := r.number(1); kind {
	case 't':
		return r.number(1) != 0
	case 'b':
		return int64(int8(r.number(1)))
	case 'B':
		return int64(r.number(1))
	case 's', 'U':
		return int64(int16(r.number(2)))
	case 'u':
		return int64(r.number(2))
	case 'I':
		return int64(int32(r.number(4)))
	case 'i':
		return int64(r.number(4))
	case 'l', 'L', 'T':
		return int64(r.number(8))
	case 'f':
		return float64(math.Float32frombits(uint32(r.number(4))))
	case 'd':
		return math.Float64frombits(r.number(8))
	case 'D':
		scale := r.number(1)
		return float64(int32(r.number(4))) / math.Pow10(int(scale))
	case 'S', 'x':
		return r.longstr()
	case 'A':
		return r.array(depth)
	case 'F':
		return r.table(depth)
	case 'V':
		return nil
	default:
		if r.err == nil {
			r.err = fmt.Errorf("there is no field of type %q", rune(kind))
		}
		return nil
	}
}

func amqpAppendShortstr(dst []byte, s string) []byte {
	s = s[:min(len(s), 255)] // the options see to it that nothing is lost
	return append(append(dst, byte(len(s))), s...)
}

func amqpAppendLongstr(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// amqpAppendTable adds a table with its names in order.
func amqpAppendTable(dst []byte, t map[string]any) []byte {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(t)) {
		b = amqpAppendValue(amqpAppendShortstr(b, name), t[name])
	}
	return amqpAppendLongstr(dst, string(b))
}

func amqpAppendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return amqpAppendLongstr(append(dst, 'S'), v)
	case bool:
		if v {
			return append(dst, 't', 1)
		}
		return append(dst, 't', 0)
	case int64:
		return binary.BigEndian.AppendUint64(append(dst, 'l'), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, 'd'), math.Float64bits(v))
	case map[string]any:
		return amqpAppendTable(append(dst, 'F'), v)
	case []any:
		var b []byte
		for _, e := range v {
			b = amqpAppendValue(b, e)
		}
		return amqpAppendLongstr(append(dst, 'A'), string(b))
	}
	return append(dst, 'V')
}
