package checks

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

type elasticsearchOptions struct {
	httpLogin
	APIKey string `json:"api_key" secret:"true" doc:"Encoded API key, instead of user and password."`
	Index  string `json:"index" doc:"Look at the health of this index, or pattern of indices, instead of the whole cluster."`
}

type elasticsearchFacts struct {
	Status              string   `json:"status" doc:"The health of the cluster, or of the index: green, yellow (replicas are missing), red (data is missing)."`
	Distribution        string   `json:"distribution" doc:"elasticsearch or opensearch."`
	Version             string   `json:"version" doc:"The version of the node."`
	Cluster             string   `json:"cluster" doc:"The name of the cluster."`
	Node                string   `json:"node" doc:"The name of the node that answered."`
	Nodes               *int     `json:"nodes" doc:"Nodes in the cluster."`
	DataNodes           *int     `json:"data_nodes" doc:"Nodes that hold data."`
	ActiveShards        *int     `json:"active_shards" doc:"Shards that are in use."`
	ActivePrimaryShards *int     `json:"active_primary_shards" doc:"Primary shards that are in use."`
	ActiveShardsPercent *float64 `json:"active_shards_percent" doc:"The part of all shards that are in use, in percent."`
	UnassignedShards    *int     `json:"unassigned_shards" doc:"Shards that no node holds."`
	InitializingShards  *int     `json:"initializing_shards" doc:"Shards that are being set up."`
	RelocatingShards    *int     `json:"relocating_shards" doc:"Shards that are moving to another node."`
	DelayedShards       *int     `json:"delayed_unassigned_shards" doc:"Shards that wait for their node to come back."`
	PendingTasks        *int     `json:"pending_tasks" doc:"Changes of the cluster that are not done yet."`
	OldestTaskMS        *float64 `json:"oldest_task_ms" doc:"How long the oldest of them has waited, in milliseconds."`
	TimedOut            *bool    `json:"timed_out" doc:"Whether the answer came without the master's word."`
	HTTPStatus          int      `json:"http_status" doc:"The HTTP status of the last answer."`
}

func init() {
	register(probe.Info{
		Name:    "elasticsearch",
		Summary: "a cluster of Elasticsearch or OpenSearch that is not red",
		Schemes: []probe.Scheme{
			{Name: "elasticsearch", Port: 9200}, {Name: "elasticsearchs", Port: 9200, TLS: true},
			{Name: "opensearch", Port: 9200}, {Name: "opensearchs", Port: 9200, TLS: true},
		},
		Example: "elasticsearchs://search.example.org",
		Common:  probe.OverTCP,
		Expect:  []string{"elasticsearch.status != 'red'", "not elasticsearch.timed_out"},
		Warn:    []string{"elasticsearch.status != 'yellow'"},
		Doc: `Up means that the node answers and that, by what its master says, every shard of the cluster has a primary and its replicas: green. Yellow, where replicas are missing, is degraded; red, where data is missing, is down. ` + "`elasticsearch.nodes`, `unassigned_shards` and `pending_tasks`" + ` have no default: say what your cluster needs.

It asks for ` + "`/`" + ` and ` + "`/_cluster/health`" + ` over one connection; a path in the URL goes before them. The health is asked for without waiting, so that a slow cluster is told from a silent one. A node that has no master answers 503, which is unavailable; 401 and 403 are denied, in phase auth.

elasticsearch:// and opensearch:// are the same check, as the two have these documents in common.`,
	}, elasticsearchOptions{}, elasticsearchRun)
}

// elasticsearchRoot is the document at /.
type elasticsearchRoot struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster_name"`
	Version struct {
		Number       string `json:"number"`
		Distribution string `json:"distribution"`
	} `json:"version"`
}

// elasticsearchHealth is the document at /_cluster/health.
type elasticsearchHealth struct {
	Status              string   `json:"status"`
	Cluster             string   `json:"cluster_name"`
	TimedOut            *bool    `json:"timed_out"`
	Nodes               *int     `json:"number_of_nodes"`
	DataNodes           *int     `json:"number_of_data_nodes"`
	ActiveShards        *int     `json:"active_shards"`
	ActivePrimaryShards *int     `json:"active_primary_shards"`
	Relocating          *int     `json:"relocating_shards"`
	Initializing        *int     `json:"initializing_shards"`
	Unassigned          *int     `json:"unassigned_shards"`
	Delayed             *int     `json:"delayed_unassigned_shards"`
	PendingTasks        *int     `json:"number_of_pending_tasks"`
	OldestTask          *float64 `json:"task_max_waiting_in_queue_millis"`
	ActivePercent       *float64 `json:"active_shards_percent_as_number"`
}

func elasticsearchRun(ctx context.Context, p *probe.Probe, opt *elasticsearchOptions, facts *elasticsearchFacts) error {
	if err := opt.allowed(p, opt.given(p) || opt.APIKey != ""); err != nil {
		return err
	}
	if !httpconn.FieldValue(opt.APIKey) || opt.APIKey != "" && opt.given(p) {
		return probe.Failf(wire.BadOptions, "elasticsearch.api_key: holds a control character, or is given beside user or token")
	}
	api := httpconn.NewAPI(p, "http/1.1")
	defer api.Close()
	opt.add(p, &api.Fields)
	if opt.APIKey != "" {
		api.Fields.Set("authorization", "ApiKey "+opt.APIKey)
	}
	base := strings.TrimRight(p.URL.EscapedPath(), "/")
	ask := func(path string, into any) error {
		resp, text, err := api.Do(ctx, base+path, nil)
		if err != nil {
			return err
		}
		facts.HTTPStatus = resp.Status
		return elasticsearchRead(p, path, resp, text, into)
	}
	var root elasticsearchRoot
	if err := ask("/", &root); err != nil {
		return err
	}
	facts.Node, facts.Cluster, facts.Version = root.Name, root.Cluster, root.Version.Number
	if facts.Distribution = root.Version.Distribution; facts.Distribution == "" {
		facts.Distribution = "elasticsearch"
	}
	if root.Version.Number == "" || root.Cluster == "" {
		return probe.Protocolf("/: got JSON without a cluster's name and version")
	}
	path := "/_cluster/health"
	if opt.Index != "" {
		path += "/" + url.PathEscape(opt.Index)
	}
	var h elasticsearchHealth
	if err := ask(path, &h); err != nil {
		return err
	}
	facts.take(&h)
	if h.Status == "" || h.Nodes == nil {
		return probe.Protocolf("%s: got JSON without status and number_of_nodes", path)
	}
	return nil
}

// elasticsearchRead reads a document, or the refusal that came instead.
func elasticsearchRead(p *probe.Probe, path string, resp *httpconn.Response, text []byte, into any) error {
	f := resp.Fields
	if err := httpRefused(p, resp.Status, f.Get("retry-after"), f.Get("www-authenticate"), true); err != nil {
		return err
	}
	var failure struct {
		Error struct {
			Reason string `json:"reason"`
		} `json:"error"`
	}
	switch {
	case resp.Status == 200:
	case ndjson.Valid(text) == nil && json.Unmarshal(text, &failure) == nil && failure.Error.Reason != "":
		return probe.Failf(wire.Mismatch, "%s: status %d: %.200q", path, resp.Status, failure.Error.Reason)
	case resp.Status == 408: // the health of an index that isn't there comes with it
	default:
		return probe.Protocolf("%s: status %d, want 200 and JSON", path, resp.Status)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return probe.Protocolf("%s: got %.80q, want JSON: %w", path, text, err)
	}
	return nil
}

func (f *elasticsearchFacts) take(h *elasticsearchHealth) {
	f.Status, f.TimedOut, f.Nodes, f.DataNodes = h.Status, h.TimedOut, h.Nodes, h.DataNodes
	f.ActiveShards, f.ActivePrimaryShards, f.ActiveShardsPercent = h.ActiveShards, h.ActivePrimaryShards, h.ActivePercent
	f.UnassignedShards, f.InitializingShards, f.RelocatingShards = h.Unassigned, h.Initializing, h.Relocating
	f.DelayedShards, f.PendingTasks, f.OldestTaskMS = h.Delayed, h.PendingTasks, h.OldestTask
}
