package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/spool"
)

// An answer is what a hook may ask of us.
type answer struct {
	Acknowledge wire.Duration     `json:"acknowledge"`
	Silence     wire.Duration     `json:"silence"`
	Recheck     bool              `json:"recheck"`
	Label       map[string]string `json:"label"`
}

// answered does what a hook asks for in the last line that it printed.
func (r *router) answered(j *spool.Job, printed []byte) {
	printed = bytes.TrimSpace(printed)
	line := printed[bytes.LastIndexByte(printed, '\n')+1:]
	if len(line) == 0 {
		return
	}
	var a answer
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err := d.Decode(&a)
	incident, vantage := about(j)
	if err == nil && len(a.Label) > 0 {
		err = r.label(j.Name, vantage, a.Label)
	}
	if err == nil && a.Acknowledge > 0 {
		err = r.silence(j, "ack-"+incident, time.Duration(a.Acknowledge), true)
	}
	if err == nil && a.Silence > 0 {
		err = r.silence(j, "hook-"+j.ID, time.Duration(a.Silence), false)
	}
	if err == nil && a.Recheck {
		err = r.recheck(j.Name)
	}
	if err != nil {
		r.log.printf("hook %s for %s: its answer %.80q: %v", j.Hook, ndjson.Printable(ndjson.Cut(j.Name, 100)), line, err)
	}
}

// about says which incident a job is about, and which vantage sees it; ""
// if there is none.
func about(j *spool.Job) (incident, vantage string) {
	_ = ndjson.Members(j.Event, func(key, value []byte) error { // ours, so it is valid
		switch string(key) {
		case "incident":
			incident = string(plain(value))
		case "vantage":
			vantage = string(plain(value))
		}
		return nil
	})
	return incident, vantage
}

// silence makes a silence of an answer: a file where there is a directory for
// it, so that people see it and a restart keeps it.
func (r *router) silence(j *spool.Job, name string, d time.Duration, ack bool) error {
	s := config.Silence{File: name + ".toml", Until: r.clock.now().Add(d), Names: []string{j.Name}, Reason: "by hook " + j.Hook}
	if ack {
		if s.Incident, _ = about(j); s.Incident == "" {
			return errors.New("there is no incident to acknowledge")
		}
	}
	if r.Config.Silences == "" {
		r.silences.own = append(r.silences.own, s)
		return nil
	}
	r.silences.looked = time.Time{}
	return config.WriteSilence(r.Config.Silences, &s)
}

// recheck asks pup-sched to have a name checked at once. Nothing is waited
// for: when nobody reads, the next regular check has to do.
func (r *router) recheck(name string) error {
	if r.Config.Recheck == "" {
		return errors.New("recheck needs the key recheck, the FIFO that pup-sched --control reads")
	}
	fd, err := syscall.Open(r.Config.Recheck, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: r.Config.Recheck, Err: err}
	}
	defer syscall.Close(fd)
	line := append(ndjson.AppendString([]byte(`{"v":1,"type":"recheck","name":`), name), "}\n"...)
	if _, err := syscall.Write(fd, line); err != nil {
		return &os.PathError{Op: "write", Path: r.Config.Recheck, Err: err}
	}
	return nil
}
