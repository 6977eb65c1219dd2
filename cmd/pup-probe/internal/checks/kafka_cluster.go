package checks

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// kafkaTopic is a topic as Metadata describes it.
type kafkaTopic struct {
	code       kafkaCode
	name       string
	partitions []kafkaReplicas
}

// kafkaReplicas is the state of a partition.
type kafkaReplicas struct {
	code                   kafkaCode
	index, leader          int32 // a leader of -1 is none
	replicas, sync, absent []int32
}

// cluster asks the broker of the URL for the cluster and the topics.
func (s *kafkaSession) cluster(ctx context.Context) error {
	k, err := s.first(ctx)
	if err != nil {
		return err
	}
	topics := s.opt.Topics
	if s.opt.CanaryTopic != "" && !s.everything() && !slices.Contains(topics, s.opt.CanaryTopic) {
		topics = append(slices.Clip(topics), s.opt.CanaryTopic)
	}
	list, err := s.metadata(k, topics)
	if err != nil {
		if kafkaClosed(err) && !s.opt.given() {
			return s.wantsLogin(ctx, err)
		}
		return err
	}
	if s.opt.Topics == nil {
		return s.exist(list)
	}
	return errors.Join(s.judge(list), s.exist(list))
}

// everything says whether all topics are to be judged.
func (s *kafkaSession) everything() bool { return slices.Equal(s.opt.Topics, []string{"*"}) }

// metadata asks for the cluster and some topics. It remembers the brokers and
// the leaders.
func (s *kafkaSession) metadata(k *kafkaConn, topics []string) ([]kafkaTopic, error) {
	names := append([]string{}, topics...)
	if s.everything() && slices.Equal(topics, s.opt.Topics) {
		names = nil // the null array means all
	}
	r, err := k.call(kafkaMetadata, append(kafkaAppendStrings(nil, names), 0)) // never create a topic
	if err != nil {
		return nil, err
	}
	r.int32() // throttle time
	for range r.count(10) {
		id := r.int32()
		s.brokers[id] = net.JoinHostPort(r.string(), strconv.Itoa(int(r.int32())))
		r.string() // rack
	}
	cluster, controller := r.string(), r.int32()
	list := make([]kafkaTopic, r.count(9))
	for i := range list {
		t := &list[i]
		t.code, t.name = kafkaCode(r.int16()), r.string()
		r.int8() // internal
		t.partitions = make([]kafkaReplicas, r.count(22))
		for j := range t.partitions {
			p := &t.partitions[j]
			p.code, p.index, p.leader = kafkaCode(r.int16()), r.int32(), r.int32()
			p.replicas, p.sync, p.absent = r.int32s(), r.int32s(), r.int32s()
			s.leaders[kafkaPartition{t.name, p.index}] = p.leader
		}
	}
	if err := kafkaWhole(kafkaMetadata, r); err != nil {
		return nil, err
	}
	s.facts.ClusterID, s.facts.ControllerID, s.facts.Brokers = cluster, new(int(controller)), new(len(s.brokers))
	return list, nil
}

// exist says which of the topics that were asked for is missing or forbidden.
// One that has a partition without a leader is there.
func (s *kafkaSession) exist(list []kafkaTopic) error {
	for _, t := range list {
		if t.code != kafkaNone && t.code != kafkaLeaderNotAvailable {
			return kafkaRefusal(t.code, "topic "+strconv.QuoteToASCII(t.name), "")
		}
	}
	return nil
}

// kafkaMaxList bounds the lists of partitions among the facts.
const kafkaMaxList = 16

// judge takes the facts about the partitions of the topics.
func (s *kafkaSession) judge(list []kafkaTopic) error {
	f := s.facts
	topics, partitions, leaderless, under, offline := 0, 0, 0, 0, 0
	note := func(names []string, t kafkaTopic, p kafkaReplicas) []string {
		if len(names) == kafkaMaxList {
			return names
		}
		return append(names, kafkaPartition{t.name, p.index}.String())
	}
	for _, t := range list {
		if !s.everything() && !slices.Contains(s.opt.Topics, t.name) {
			continue // asked for by another option
		}
		topics++
		for _, p := range t.partitions {
			partitions++
			offline += len(p.absent)
			if p.leader < 0 {
				leaderless++
				f.LeaderlessPartitions = note(f.LeaderlessPartitions, t, p)
			}
			if len(p.sync) < len(p.replicas) {
				under++
				f.UnderReplicatedPartitions = note(f.UnderReplicatedPartitions, t, p)
			}
			if p.code != kafkaNone && p.code != kafkaLeaderNotAvailable && p.code != kafkaReplicaNotAvailable {
				return kafkaRefusal(p.code, "partition "+kafkaPartition{t.name, p.index}.String(), "")
			}
		}
	}
	f.Topics, f.Partitions, f.Leaderless, f.UnderReplicated, f.OfflineReplicas = &topics, &partitions, &leaderless, &under, &offline
	return nil
}

// everyBroker connects to each broker of the cluster, in the order of their
// ids.
func (s *kafkaSession) everyBroker(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(s.brokers)) {
		k, err := s.broker(ctx, id)
		if err != nil {
			return err
		}
		if _, err = s.metadata(k, nil); err != nil {
			return kafkaAt(err, id)
		}
	}
	return nil
}

// group measures the lag of a consumer group.
func (s *kafkaSession) group(ctx context.Context, group string) error {
	k, err := s.coordinator(ctx, group)
	if err != nil {
		return err
	}
	if err := s.describe(k, group); err != nil {
		return err
	}
	committed, err := s.committed(k, group)
	if err != nil {
		return err
	}
	ends, err := s.ends(ctx, slices.Collect(maps.Keys(committed)))
	if err != nil {
		return err
	}
	var sum, most int64
	byTopic, uncommitted := map[string]int64{}, 0
	for p, offset := range committed {
		if offset < 0 {
			uncommitted++
			continue
		}
		lag := max(0, ends[p]-offset)
		sum, most = sum+lag, max(most, lag)
		byTopic[p.topic] += lag
	}
	s.facts.Uncommitted = &uncommitted
	if len(byTopic) == 0 {
		return probe.Failf(wire.Mismatch, "group %.80q has committed no offset", group)
	}
	s.facts.Lag, s.facts.LagMax, s.facts.LagByTopic = &sum, &most, byTopic
	return nil
}

// coordinator finds and connects to the broker that is in charge of a group.
func (s *kafkaSession) coordinator(ctx context.Context, group string) (*kafkaConn, error) {
	k, err := s.first(ctx)
	if err != nil {
		return nil, err
	}
	r, err := k.call(kafkaFindCoordinator, append(kafkaAppendString(nil, group), 0)) // 0: of a group
	if err != nil {
		return nil, err
	}
	r.int32() // throttle time
	code, text, id := kafkaCode(r.int16()), r.string(), r.int32()
	host, port := r.string(), r.int32()
	if err := kafkaWhole(kafkaFindCoordinator, r); err != nil {
		return nil, err
	}
	if code != kafkaNone {
		return nil, kafkaRefusal(code, kafkaFindCoordinator.name, text)
	}
	s.brokers[id] = net.JoinHostPort(host, strconv.Itoa(int(port)))
	return s.broker(ctx, id)
}

// describe asks for the state of a group.
func (s *kafkaSession) describe(k *kafkaConn, group string) error {
	r, err := k.call(kafkaDescribeGroups, kafkaAppendStrings(nil, []string{group}))
	if err != nil {
		return err
	}
	r.int32() // throttle time
	if n := r.count(2); n != 1 && r.err == nil {
		return probe.Protocolf("%s: got %d groups, want one", kafkaDescribeGroups.name, n)
	}
	code, _, state := kafkaCode(r.int16()), r.string(), r.string()
	r.string() // kind of protocol
	r.string() // and its data
	members := r.count(14)
	for range members {
		r.string() // id
		r.string() // client
		r.string() // host
		r.bytes()  // subscription
		r.bytes()  // assignment
	}
	if err := kafkaWhole(kafkaDescribeGroups, r); err != nil {
		return err
	}
	if code != kafkaNone {
		return kafkaRefusal(code, "group "+strconv.QuoteToASCII(group), "")
	}
	s.facts.GroupState, s.facts.GroupMembers = state, &members
	return nil
}

// committed asks for the offsets that a group has committed; one of -1 is none.
func (s *kafkaSession) committed(k *kafkaConn, group string) (map[kafkaPartition]int64, error) {
	body := kafkaAppendString(nil, group)
	if s.opt.Topics == nil || s.everything() {
		body = kafkaAppendInt32(body, -1) // all topics
	} else {
		body = kafkaAppendInt32(body, int32(len(s.opt.Topics)))
		for _, t := range s.opt.Topics {
			body = kafkaAppendString(body, t)
			var partitions []int32
			for p := range s.leaders {
				if p.topic == t {
					partitions = append(partitions, p.index)
				}
			}
			body = kafkaAppendInt32(body, int32(len(partitions)))
			for _, p := range partitions {
				body = kafkaAppendInt32(body, p)
			}
		}
	}
	r, err := k.call(kafkaOffsetFetch, body)
	if err != nil {
		return nil, err
	}
	offsets := map[kafkaPartition]int64{}
	var failed error
	r.int32() // throttle time
	for range r.count(6) {
		topic := r.string()
		for range r.count(16) {
			p := kafkaPartition{topic, r.int32()}
			offsets[p] = r.int64()
			r.string() // metadata
			if code := kafkaCode(r.int16()); code != kafkaNone && failed == nil {
				failed = kafkaRefusal(code, kafkaOffsetFetch.name+" of "+strconv.QuoteToASCII(p.String()), "")
			}
		}
	}
	if code := kafkaCode(r.int16()); code != kafkaNone {
		failed = kafkaRefusal(code, kafkaOffsetFetch.name+" of group "+strconv.QuoteToASCII(group), "")
	}
	return offsets, cmp.Or(kafkaWhole(kafkaOffsetFetch, r), failed)
}

// ends finds the offsets behind the last record of each partition, which the
// leaders know.
func (s *kafkaSession) ends(ctx context.Context, partitions []kafkaPartition) (map[kafkaPartition]int64, error) {
	var unknown []string
	for _, p := range partitions {
		if _, ok := s.leaders[p]; !ok && !slices.Contains(unknown, p.topic) {
			unknown = append(unknown, p.topic)
		}
	}
	if unknown != nil {
		k, err := s.first(ctx)
		if err != nil {
			return nil, err
		}
		list, err := s.metadata(k, unknown)
		if err == nil {
			err = s.exist(list)
		}
		if err != nil {
			return nil, err
		}
	}
	byLeader := map[int32][]kafkaPartition{}
	for _, p := range partitions {
		leader, err := s.leader(p)
		if err != nil {
			return nil, err
		}
		byLeader[leader] = append(byLeader[leader], p)
	}
	ends := map[kafkaPartition]int64{}
	for _, leader := range slices.Sorted(maps.Keys(byLeader)) {
		k, err := s.broker(ctx, leader)
		if err != nil {
			return nil, err
		}
		if err = kafkaEnds(k, byLeader[leader], ends); err != nil {
			return nil, kafkaAt(err, leader)
		}
	}
	return ends, nil
}

func (s *kafkaSession) leader(p kafkaPartition) (int32, error) {
	leader, ok := s.leaders[p]
	switch {
	case !ok:
		return 0, probe.Failf(wire.Mismatch, "there is no partition %.160q", p)
	case leader < 0:
		return 0, probe.Failf(wire.Unavailable, "partition %.160q has no leader", p)
	}
	return leader, nil
}

// kafkaEnds asks one leader for the ends of its partitions.
func kafkaEnds(k *kafkaConn, partitions []kafkaPartition, ends map[kafkaPartition]int64) error {
	const latest = -1
	body := kafkaAppendInt32(nil, -1) // we are no replica
	body = kafkaAppendInt32(body, int32(len(partitions)))
	for _, p := range partitions {
		body = kafkaAppendInt32(kafkaAppendInt32(kafkaAppendString(body, p.topic), 1), p.index)
		body = kafkaAppendInt64(body, latest)
	}
	r, err := k.call(kafkaListOffsets, body)
	if err != nil {
		return err
	}
	var failed error
	for range r.count(6) {
		topic := r.string()
		for range r.count(22) {
			p := kafkaPartition{topic, r.int32()}
			code := kafkaCode(r.int16())
			r.int64() // time
			ends[p] = r.int64()
			if code != kafkaNone && failed == nil {
				failed = kafkaRefusal(code, kafkaListOffsets.name+" of "+strconv.QuoteToASCII(p.String()), "")
			}
		}
	}
	for _, p := range partitions {
		if _, ok := ends[p]; !ok && failed == nil {
			failed = probe.Protocolf("%s: the response does not tell of %.160q", kafkaListOffsets.name, p)
		}
	}
	return cmp.Or(kafkaWhole(kafkaListOffsets, r), failed)
}

// canary writes a token to a partition and reads it again.
func (s *kafkaSession) canary(ctx context.Context, topic string, partition int32) error {
	p := kafkaPartition{topic, partition}
	leader, err := s.leader(p)
	if err != nil {
		return err
	}
	k, err := s.broker(ctx, leader)
	if err != nil {
		return err
	}
	token, start := brokerToken(), time.Now()
	offset, err := kafkaWrite(k, p, token)
	if err != nil {
		return err
	}
	s.facts.CanaryOffset, s.facts.CanaryWriteMS = &offset, new(wire.MS(time.Since(start)))
	start = time.Now()
	const patience = 100 // responses that come at once and have nothing
	for range patience {
		batches, err := kafkaRead(k, p, offset)
		if err != nil {
			return err
		}
		got, err := kafkaRecord(batches, offset)
		switch {
		case errors.Is(err, errKafkaNoRecord): // not yet
		case err != nil && !errors.Is(err, errKafkaCompressed):
			return probe.Protocolf("%s: %w", kafkaFetch.name, err)
		case err == nil && got != token:
			return probe.Failf(wire.Mismatch, "canary: got %.80q at offset %d, want the token that was written", got, offset)
		default:
			s.facts.CanaryReadMS = new(wire.MS(time.Since(start)))
			return nil
		}
	}
	return probe.Failf(wire.Mismatch, "canary: the record that was written at offset %d is not there", offset)
}

// kafkaPatience is how long the broker is to wait, for replicas or for a
// record, before it answers.
const kafkaPatience = 5 * time.Second

// kafkaWrite writes a record to a partition, and waits until all replicas in
// sync have it.
func kafkaWrite(k *kafkaConn, p kafkaPartition, value string) (offset int64, err error) {
	const allInSync = -1
	body := []byte{0xff, 0xff} // no transaction
	body = binary.BigEndian.AppendUint16(body, uint16(0xffff&allInSync))
	body = kafkaAppendInt32(body, int32(kafkaPatience.Milliseconds()))
	body = kafkaAppendInt32(body, 1)
	body = kafkaAppendInt32(kafkaAppendString(body, p.topic), 1)
	body = kafkaAppendInt32(body, p.index)
	body = kafkaAppendBytes(body, kafkaAppendBatch(nil, time.Now().UnixMilli(), value))
	r, err := k.call(kafkaProduce, body)
	if err != nil {
		return 0, err
	}
	topics := r.count(6)
	topic := r.string()
	partitions := r.count(22)
	index, code := r.int32(), kafkaCode(r.int16())
	offset = r.int64()
	r.int64() // time
	r.int32() // throttle time
	if err := kafkaWhole(kafkaProduce, r); err != nil {
		return 0, err
	}
	if topics != 1 || partitions != 1 || topic != p.topic || index != p.index {
		return 0, probe.Protocolf("%s: the response is about %.160q, want %.160q", kafkaProduce.name, kafkaPartition{topic, index}, p)
	}
	if code != kafkaNone {
		return 0, kafkaRefusal(code, kafkaProduce.name+" to "+strconv.QuoteToASCII(p.String()), "")
	}
	return offset, nil
}

// kafkaRead reads what a partition has from an offset on, up to 1 MiB.
func kafkaRead(k *kafkaConn, p kafkaPartition, offset int64) ([]byte, error) {
	const most = 1 << 20
	body := kafkaAppendInt32(nil, -1) // we are no replica
	body = kafkaAppendInt32(body, int32(kafkaPatience.Milliseconds()))
	body = kafkaAppendInt32(kafkaAppendInt32(body, 1), most)
	body = kafkaAppendInt32(append(body, 0), 1) // reads what is not committed, too
	body = kafkaAppendInt32(kafkaAppendString(body, p.topic), 1)
	body = kafkaAppendInt64(kafkaAppendInt32(body, p.index), offset)
	r, err := k.call(kafkaFetch, kafkaAppendInt32(body, most))
	if err != nil {
		return nil, err
	}
	r.int32() // throttle time
	topics := r.count(6)
	topic := r.string()
	partitions := r.count(30)
	index, code := r.int32(), kafkaCode(r.int16())
	r.int64() // high watermark
	r.int64() // last stable offset
	for range r.count(16) {
		r.int64() // producer of an aborted transaction
		r.int64() // and its first offset
	}
	batches := r.bytes()
	if err := kafkaWhole(kafkaFetch, r); err != nil {
		return nil, err
	}
	if topics != 1 || partitions != 1 || topic != p.topic || index != p.index {
		return nil, probe.Protocolf("%s: the response is about %.160q, want %.160q", kafkaFetch.name, kafkaPartition{topic, index}, p)
	}
	if code != kafkaNone {
		return nil, kafkaRefusal(code, kafkaFetch.name+" of "+strconv.QuoteToASCII(p.String()), "")
	}
	return batches, nil
}
