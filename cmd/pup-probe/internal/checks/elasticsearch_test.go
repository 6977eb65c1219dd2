package checks

import (
	"fmt"
	"strings"
	"testing"
)

const (
	elasticsearchHello = `{"name":"es1","cluster_name":"logs","cluster_uuid":"x","version":{"number":"8.15.0","build_flavor":"default"},"tagline":"You Know, for Search"}`
	opensearchHello    = `{"name":"os1","cluster_name":"logs","version":{"distribution":"opensearch","number":"2.17.0"},"tagline":"The OpenSearch Project: https://opensearch.org/"}`
)

func elasticsearchHealthy(status string) string {
	return `{"cluster_name":"logs","status":"` + status + `","timed_out":false,"number_of_nodes":3,"number_of_data_nodes":2,"active_primary_shards":10,"active_shards":18,"relocating_shards":0,"initializing_shards":0,"unassigned_shards":2,"delayed_unassigned_shards":1,"number_of_pending_tasks":4,"number_of_in_flight_fetch":0,"task_max_waiting_in_queue_millis":1500,"active_shards_percent_as_number":90.0}`
}

// elasticsearchTalk is a script: a request for each answer of status and body.
func elasticsearchTalk(authorization string, answers ...string) string {
	var b strings.Builder
	for i := 0; i < len(answers); i += 3 {
		fmt.Fprintf(&b, "C: GET %s HTTP/1.1\nC~ ^host: 127\n", answers[i])
		if authorization != "" {
			fmt.Fprintf(&b, "C: authorization: %s\n", authorization)
		}
		fmt.Fprintf(&b, "C: accept: application/json\nC: user-agent: pup-probe\nC: \nS: HTTP/1.1 %s\nS: Content-Type: application/json\nS: Content-Length: %d\nS: \nS: %s\\\n", answers[i+1], len(answers[i+2]), answers[i+2])
	}
	return b.String()
}

func TestElasticsearch(t *testing.T) {
	password := secret(t, "ELASTICSEARCH", "s3cret-pass")
	ok, health := "200 OK", "/_cluster/health"
	talks(t, "elasticsearch://HOST", []talk{
		{name: "green", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("green")), want: "up",
			facts: []string{"elasticsearch.distribution == 'elasticsearch'", "elasticsearch.version == '8.15.0'", "elasticsearch.nodes == 3", "elasticsearch.unassigned_shards == 2", "elasticsearch.oldest_task_ms == 1500", "elasticsearch.relocating_shards == 0"}},
		{name: "opensearch", script: elasticsearchTalk("", "/", ok, opensearchHello, health, ok, elasticsearchHealthy("green")), want: "up", facts: []string{"elasticsearch.distribution == 'opensearch'"}},
		{name: "yellow", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("yellow")), want: "degraded mismatch verify"},
		{name: "red", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("red")), want: "down mismatch verify"},
		{name: "nodes", target: `"expect":["elasticsearch.nodes >= 4"]`, script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("green")), want: "down mismatch verify"},
		{name: "without a master's word", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, strings.Replace(elasticsearchHealthy("green"), `"timed_out":false`, `"timed_out":true`, 1)), want: "down mismatch verify"},
		{name: "index", target: `"elasticsearch":{"index":"logs-*"}`, script: elasticsearchTalk("", "/", ok, elasticsearchHello, health+"/logs-%2A", ok, elasticsearchHealthy("green")), want: "up"},
		{name: "no master", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, "503 Service Unavailable", `{"error":{"type":"master_not_discovered_exception","reason":null},"status":503}`), want: "down unavailable transfer"},
		{name: "basic", target: `"elasticsearch":{"user":"u","password":"` + password + `"}`, script: elasticsearchTalk("Basic dTpzM2NyZXQtcGFzcw==", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("green")), want: "up"},
		{name: "api key", target: `"elasticsearch":{"api_key":"` + password + `"}`, script: elasticsearchTalk("ApiKey s3cret-pass", "/", ok, elasticsearchHello, health, ok, elasticsearchHealthy("green")), want: "up"},
		{name: "wrong password", target: `"elasticsearch":{"user":"u","password":"` + password + `"}`, script: elasticsearchTalk("Basic dTpzM2NyZXQtcGFzcw==", "/", "401 Unauthorized", `{"error":{"reason":"no"}}`), want: "down denied auth"},
		{name: "no right", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, "403 Forbidden", `{"error":{"reason":"no"}}`), want: "down denied auth", facts: []string{"elasticsearch.version == '8.15.0'"}},
		{name: "another service", script: elasticsearchTalk("", "/", ok, `{"hello":"world"}`), want: "down protocol transfer"},
		{name: "a page", script: elasticsearchTalk("", "/", ok, `<html>`), want: "down protocol transfer"},
		{name: "a list", script: elasticsearchTalk("", "/", ok, `[]`), want: "down protocol transfer"},
		{name: "404", script: elasticsearchTalk("", "/", "404 Not Found", `no`), want: "down protocol transfer"},
		{name: "error", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, "400 Bad Request", `{"error":{"reason":"bad index"},"status":400}`), want: "down mismatch transfer", facts: []string{"error contains 'bad index'"}},
		{name: "health without status", script: elasticsearchTalk("", "/", ok, elasticsearchHello, health, ok, `{}`), want: "down protocol transfer"},
		{name: "closes in between", script: elasticsearchTalk("", "/", ok, elasticsearchHello) + "C~ ^GET\n! close", want: "down closed wait"},
		{name: "hangs in between", target: `"timeout":"200ms"`, script: elasticsearchTalk("", "/", ok, elasticsearchHello) + "! hang", want: "down timeout wait"},
	})
	talks(t, "opensearch://HOST/proxy/es/", []talk{
		{name: "path", script: elasticsearchTalk("", "/proxy/es/", ok, opensearchHello, "/proxy/es"+health, ok, elasticsearchHealthy("green")), want: "up"},
	})
	check(t, "elasticsearch://192.0.2.1", `"elasticsearch":{"user":"u"}`).want(t, "unknown options prepare")
}
