package route

import (
	"net"
	"os"
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// missedBeats is how many beats may be missing before the input is lost.
const missedBeats = 3

// heard takes in that a line of the input came at the time now: a beat, which
// promises another, or any other. Once there are beats, only they count.
func (r *router) heard(now time.Time) {
	if r.fields.is(wire.TypeBeat) {
		if ms, err := strconv.ParseFloat(string(r.fields.everyMS), 64); err == nil && ms > 0 && ms < 1e9 {
			r.beatDue = now.Add(time.Duration(missedBeats * ms * float64(time.Millisecond)))
		}
		r.notify("WATCHDOG=1")
	} else if !r.beatDue.IsZero() {
		return
	}
	if !r.ready {
		r.ready = true
		r.notify("READY=1")
	}
	r.table.Input(false, r.inputLine("up", "", now), now)
}

// inputLost takes in that nothing comes any more.
func (r *router) inputLost(why string, now time.Time) {
	r.beatDue = time.Time{}
	if r.table.HearsInput() {
		r.varsOf = nil
		r.table.Input(true, r.inputLine("down", why, now), now)
	}
}

// removed takes in that a target has left the configuration of pup-sched.
func (r *router) removed(now time.Time) {
	at := r.fields.moment()
	if at.IsZero() {
		at = now
	}
	if name := plain(r.fields.name); len(name) > 0 {
		r.table.Remove(name, at, now)
	}
}

// inputLine is what stands for a result in an event about the input.
func (r *router) inputLine(status, why string, now time.Time) []byte {
	b := append(r.buf[:0], `{"v":1,"type":"result","name":"input","check":"`+program+`","status":"`...)
	b = wire.AppendTime(append(append(b, status...), `","time":`...), now)
	if why != "" {
		b = ndjson.AppendString(append(b, `,"error":`...), why)
	}
	r.buf = append(b, '}')
	return r.buf
}

// notify tells systemd how we are; see sd_notify(3). The watchdog is fed by
// beats only, so that it barks when any program of the pipe hangs. That
// nobody listens is no reason to stop.
func (r *router) notify(what string) {
	if r.Notify == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: r.Notify, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(what))
		conn.Close()
	}
	if err != nil {
		r.log.printf("notify systemd: %v", err)
		r.Notify = ""
	}
}

// NotifySocket is where systemd listens; "" if it does not.
func NotifySocket() string { return os.Getenv("NOTIFY_SOCKET") }
