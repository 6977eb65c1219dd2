package checks

import (
	"encoding/json"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type natsStream struct {
	Messages  *int64   `json:"messages" doc:"How many messages the stream holds."`
	Bytes     *int64   `json:"bytes" doc:"How many bytes they take."`
	FirstSeq  *int64   `json:"first_seq" doc:"The sequence number of the oldest message; one more than last_seq if there is none."`
	LastSeq   *int64   `json:"last_seq" doc:"The sequence number of the newest message, which grows with each one."`
	LastAgeMS *float64 `json:"last_age_ms" doc:"The age of the newest message in milliseconds, by the server's clock, or by ours where it does not tell its own; absent if there never was one."`
	Consumers *int     `json:"consumers" doc:"How many consumers it has."`
	Subjects  []string `json:"subjects" doc:"The subjects that it stores, at most 32."`
	Storage   string   `json:"storage" doc:"file or memory."`
	natsReplicas
}

type natsConsumer struct {
	Pending      *int64   `json:"pending" doc:"How many messages have not been delivered to it yet."`
	AckPending   *int64   `json:"ack_pending" doc:"How many have been delivered and not been acknowledged yet."`
	Redelivered  *int64   `json:"redelivered" doc:"How many of those have been delivered more than once."`
	Waiting      *int     `json:"waiting" doc:"How many requests for messages are waiting; absent for a push consumer, 0 if nobody pulls."`
	Bound        *bool    `json:"bound" doc:"Whether somebody is subscribed to a push consumer."`
	DeliveredSeq *int64   `json:"delivered_seq" doc:"The sequence number, in the stream, of the last message that was delivered."`
	AckFloorSeq  *int64   `json:"ack_floor_seq" doc:"The sequence number, in the stream, up to which everything is acknowledged."`
	LastActiveMS *float64 `json:"last_active_ms" doc:"Milliseconds since the last delivery; absent if there was none."`
	Paused       *bool    `json:"paused" doc:"Whether deliveries are paused."`
	natsReplicas
}

// natsReplicas are the servers that keep a stream or a consumer.
type natsReplicas struct {
	Leader          string `json:"leader" doc:"The server that leads; absent if none is known."`
	Replicas        *int   `json:"replicas" doc:"How many servers follow the leader."`
	ReplicasCurrent *int   `json:"replicas_current" doc:"How many of those have all that the leader has, and can be reached."`
}

// natsPosition is a place in a stream and when it was reached.
type natsPosition struct {
	StreamSeq  int64      `json:"stream_seq"`
	LastActive *time.Time `json:"last_active"`
}

// natsAnswer is what $JS.API.STREAM.INFO and $JS.API.CONSUMER.INFO answer.
type natsAnswer struct {
	Error *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
	Type      string     `json:"type"`
	Timestamp *time.Time `json:"ts"` // since 2.10
	Config    struct {
		Subjects       []string `json:"subjects"`
		Storage        string   `json:"storage"`
		DeliverSubject string   `json:"deliver_subject"`
	} `json:"config"`
	Cluster *struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Current bool `json:"current"`
			Offline bool `json:"offline"`
		} `json:"replicas"`
	} `json:"cluster"`

	State *struct {
		Messages  int64     `json:"messages"`
		Bytes     int64     `json:"bytes"`
		FirstSeq  int64     `json:"first_seq"`
		LastSeq   int64     `json:"last_seq"`
		LastTime  time.Time `json:"last_ts"`
		Consumers int       `json:"consumer_count"`
	} `json:"state"`

	Delivered   *natsPosition `json:"delivered"`
	AckFloor    *natsPosition `json:"ack_floor"`
	Pending     int64         `json:"num_pending"`
	AckPending  int64         `json:"num_ack_pending"`
	Redelivered int64         `json:"num_redelivered"`
	Waiting     int           `json:"num_waiting"`
	PushBound   bool          `json:"push_bound"`
	Paused      *bool         `json:"paused"`
}

// jetstream asks JetStream's API.
func (s *natsSession) jetstream(opt *natsOptions, call string) (*natsAnswer, error) {
	prefix := "$JS.API."
	if opt.Domain != "" {
		prefix = "$JS." + opt.Domain + ".API."
	}
	m, err := s.ask(prefix+call, "")
	if err != nil {
		return nil, err
	}
	a := new(natsAnswer)
	if err := json.Unmarshal(m.payload, a); err != nil {
		return nil, probe.Protocolf("%s: got %.80q, which is not what JetStream answers: %w", call, m.payload, err)
	}
	if a.Error != nil {
		reason := wire.Mismatch
		if a.Error.Code >= 500 {
			reason = wire.Unavailable
		}
		return nil, probe.Failf(reason, "%s: JetStream says %d (%d) %.160q", call, a.Error.Code, a.Error.ErrCode, a.Error.Description)
	}
	return a, nil
}

// now is the server's time, or ours.
func (a *natsAnswer) now() time.Time {
	if a.Timestamp != nil {
		return *a.Timestamp
	}
	return time.Now()
}

func (a *natsAnswer) replicas() natsReplicas {
	if a.Cluster == nil {
		return natsReplicas{}
	}
	current := 0
	for _, r := range a.Cluster.Replicas {
		if r.Current && !r.Offline {
			current++
		}
	}
	return natsReplicas{a.Cluster.Leader, new(len(a.Cluster.Replicas)), &current}
}

// stream asks for the state of a stream.
func (s *natsSession) stream(opt *natsOptions) error {
	if opt.Stream == "" {
		return nil
	}
	a, err := s.jetstream(opt, "STREAM.INFO."+opt.Stream)
	switch {
	case err != nil:
		return err
	case a.State == nil:
		return probe.Protocolf("STREAM.INFO: got an answer of type %.80q without the state of a stream", a.Type)
	}
	st := a.State
	f := &natsStream{
		Messages: &st.Messages, Bytes: &st.Bytes, FirstSeq: &st.FirstSeq, LastSeq: &st.LastSeq, Consumers: &st.Consumers,
		Subjects: a.Config.Subjects[:min(len(a.Config.Subjects), 32)], Storage: a.Config.Storage, natsReplicas: a.replicas(),
	}
	if !st.LastTime.IsZero() && st.LastSeq > 0 {
		f.LastAgeMS = new(max(0, wire.MS(a.now().Sub(st.LastTime))))
	}
	s.facts.Stream = f
	return nil
}

// consumer asks for the state of a consumer.
func (s *natsSession) consumer(opt *natsOptions) error {
	if opt.Consumer == "" {
		return nil
	}
	a, err := s.jetstream(opt, "CONSUMER.INFO."+opt.Stream+"."+opt.Consumer)
	switch {
	case err != nil:
		return err
	case a.Delivered == nil || a.AckFloor == nil:
		return probe.Protocolf("CONSUMER.INFO: got an answer of type %.80q without the state of a consumer", a.Type)
	}
	f := &natsConsumer{
		Pending: &a.Pending, AckPending: &a.AckPending, Redelivered: &a.Redelivered, Paused: a.Paused,
		DeliveredSeq: &a.Delivered.StreamSeq, AckFloorSeq: &a.AckFloor.StreamSeq, natsReplicas: a.replicas(),
	}
	if a.Config.DeliverSubject != "" {
		f.Bound = &a.PushBound
	} else {
		f.Waiting = &a.Waiting
	}
	if t := a.Delivered.LastActive; t != nil {
		f.LastActiveMS = new(max(0, wire.MS(a.now().Sub(*t))))
	}
	s.facts.Consumer = f
	return nil
}
