package checks

import (
	"context"
	"fmt"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type kafkaOptions struct {
	brokerOptions
	User            string   `json:"user" doc:"The user to log in as, unless the URL names one."`
	Password        string   `json:"password" secret:"true" doc:"The user's password."`
	Token           string   `json:"token" secret:"true" doc:"An OAuth 2 access token, instead of a user and a password."`
	Mechanism       string   `json:"mechanism" enum:"SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER" doc:"The SASL mechanism. Without it the best that the broker offers, which takes a second connection unless that is SCRAM-SHA-512, or OAUTHBEARER for a token."`
	Topics          []string `json:"topics" doc:"Judge every partition of these topics, which must exist; with [\"*\"] all that we may see."`
	EveryBroker     bool     `json:"every_broker" doc:"Connect to every broker that the cluster names, at the address that it names, and log in there."`
	Group           string   `json:"group" doc:"Measure the lag of this consumer group: in topics, or else in all topics in which it has committed."`
	CanaryTopic     string   `json:"canary_topic" doc:"Write a record to this topic and read it again. It stays there as long as the topic keeps its records, so this should be a topic of its own."`
	CanaryPartition int      `json:"canary_partition" min:"0" max:"2147483647" doc:"The partition of that topic."`
}

type kafkaFacts struct {
	APIVersions               map[string]int   `json:"api_versions" large:"true" doc:"The highest version of each request that the broker knows, of those that are used here, such as Fetch."`
	SASLMechanisms            []string         `json:"sasl_mechanisms" doc:"The mechanisms that the broker offers, where it said so."`
	Mechanism                 string           `json:"mechanism" doc:"The mechanism that we have logged in with."`
	ClusterID                 string           `json:"cluster_id" doc:"The cluster's id."`
	ControllerID              *int             `json:"controller_id" doc:"The broker that is named as the controller; -1: none is."`
	Brokers                   *int             `json:"brokers" doc:"How many brokers the cluster has that are alive."`
	Topics                    *int             `json:"topics" doc:"How many topics were judged."`
	Partitions                *int             `json:"partitions" doc:"How many partitions they have."`
	Leaderless                *int             `json:"leaderless" doc:"How many of those have no leader: they can be neither written nor read."`
	UnderReplicated           *int             `json:"under_replicated" doc:"How many of those have a replica that is not in sync."`
	OfflineReplicas           *int             `json:"offline_replicas" doc:"How many replicas are on brokers or disks that are not there."`
	LeaderlessPartitions      []string         `json:"leaderless_partitions" doc:"The partitions without a leader as topic/number, at most 16."`
	UnderReplicatedPartitions []string         `json:"under_replicated_partitions" doc:"The under-replicated partitions as topic/number, at most 16."`
	GroupState                string           `json:"group_state" doc:"The group's state: Stable, Empty, PreparingRebalance, CompletingRebalance, or Dead, which is also what a broker calls a group of the protocol of Kafka 4."`
	GroupMembers              *int             `json:"group_members" doc:"How many members the group has."`
	Lag                       *int64           `json:"lag" doc:"How many records the group has not yet committed, in all its partitions together."`
	LagMax                    *int64           `json:"lag_max" doc:"The lag in the partition where it is largest."`
	LagByTopic                map[string]int64 `json:"lag_by_topic" doc:"The lag in each topic."`
	Uncommitted               *int             `json:"uncommitted" doc:"In how many partitions of topics the group has never committed; they don't count as lag."`
	CanaryWriteMS             *float64         `json:"canary_write_ms" doc:"Time until all replicas in sync had the record, in ms."`
	CanaryReadMS              *float64         `json:"canary_read_ms" doc:"Time to read it, in ms."`
	CanaryOffset              *int64           `json:"canary_offset" doc:"The offset of the record that was written."`
}

func init() {
	register(probe.Info{
		Name:    "kafka",
		Summary: "a Kafka cluster has its partitions led and its groups up to date",
		Schemes: []probe.Scheme{{Name: "kafka", Port: 9092}, {Name: "kafkas", Port: 9093, TLS: true}},
		Example: "kafka://broker.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"kafka.controller_id != -1", "(kafka.leaderless ?? 0) == 0"},
		Warn:    []string{"(kafka.under_replicated ?? 0) == 0"},
		Doc: `Up means that the broker at the URL answers ApiVersions and Metadata, after a login if there are credentials, that the cluster has a controller, and that everything the options ask for works. Without topics no partition is judged.

` + "`topics`" + ` expects a leader for every partition, and warns of partitions with replicas that are not in sync. ` + "`group`" + ` finds the group's coordinator, the offsets that it has committed and the ends of its partitions. ` + "`canary_topic`" + ` writes a record of 26 characters, waits until all replicas in sync have it, and reads it again; of a topic that compresses only the offset is compared. A topic is never created.

**Other brokers.** A partition is served by its leader, and a group by its coordinator. They are reached as clients reach them: at the host and port that the cluster advertises, with the resolver, family, source and proxy of the target. Behind NAT, in a container network or through a tunnel these addresses may mean nothing from here; then group and canary_topic fail in phase resolve or connect although the broker of the URL is fine, as real clients from here would. The member connect holds for the first connection only. With TLS each broker must have a certificate for its advertised host, unless tls.server_name names another. The address and the TLS facts of the result are those of the last connection.

Codes that tell of missing rights or wrong credentials are ` + "`denied`" + `; those of leaders, coordinators, replicas and load ` + "`unavailable`" + `; a topic or group that does not exist ` + "`mismatch`" + `. A broker that wants a login closes the connection at the first request; where it turns out on a second connection to offer SASL, that is ` + "`denied`" + ` in phase auth.

Phases: greet has ApiVersions, auth SASL, request and wait the rest; with several brokers the times add up. The requests are those of the Kafka protocol guide in versions that brokers from 1.0 to 4.x have: Metadata 5, FindCoordinator 1, OffsetFetch 3, DescribeGroups 1, ListOffsets 1, Produce 3, Fetch 4, SaslHandshake 1, SaslAuthenticate 0, ApiVersions 0. It is tested against the fake cluster of franz-go, which implements the protocol independently.`,
	}, kafkaOptions{}, kafka)
}

func kafka(ctx context.Context, p *probe.Probe, opt *kafkaOptions, facts *kafkaFacts) error {
	o := *opt
	var err error
	if o.User, err = brokerUser(p, opt.User); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	s := kafkaNew(p, &o, facts)
	defer s.close()
	if err := s.cluster(ctx); err != nil {
		return err
	}
	if opt.EveryBroker {
		if err := s.everyBroker(ctx); err != nil {
			return err
		}
	}
	if opt.Group != "" {
		if err := s.group(ctx, opt.Group); err != nil {
			return err
		}
	}
	if opt.CanaryTopic != "" {
		return s.canary(ctx, opt.CanaryTopic, int32(opt.CanaryPartition))
	}
	return nil
}

// given says whether there is anything to log in with.
func (o *kafkaOptions) given() bool { return o.User != "" || o.Token != "" }

// check refuses options that can't be meant.
func (o *kafkaOptions) check() error {
	bad := func(format string, args ...any) error {
		return probe.Failf(wire.BadOptions, "kafka.%w", fmt.Errorf(format, args...))
	}
	const most = 249 // the longest name of a topic
	for _, t := range append([]string{o.CanaryTopic}, o.Topics...) {
		if len(t) > most {
			return bad("topics, kafka.canary_topic: %.80q is longer than %d bytes", t, most)
		}
	}
	switch {
	case o.Password != "" && o.User == "":
		return bad("password: needs kafka.user as well")
	case o.User != "" && o.Password == "":
		return bad("user: needs kafka.password as well")
	case o.User != "" && o.Token != "":
		return bad("token: can't be used together with kafka.user")
	case o.Mechanism != "" && !o.given():
		return bad("mechanism: needs kafka.user and kafka.password, or kafka.token")
	case o.Token != "" && o.Mechanism != "" && o.Mechanism != "OAUTHBEARER" || o.Token == "" && o.Mechanism == "OAUTHBEARER":
		return bad("token: goes with the mechanism OAUTHBEARER, and with no other")
	case len(o.Group) > 4096:
		return bad("group: is longer than 4096 bytes")
	}
	return nil
}
