package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// ask gets a page of a node's admin port; code 0 when there is no answer.
func (a *aNode) ask(path string) (code int, body string) {
	client := http.Client{Timeout: waitTime, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + a.node.AdminAddr() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (a *aNode) cluster(t *testing.T) (s ClusterStatus) {
	t.Helper()
	code, body := a.ask("/status?cluster=true")
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		t.Fatalf("/status?cluster=true: %d, %v: %s", code, err, body)
	}
	return s
}

// A node without a majority lives, is not ready and says why; with one it is ready, and /status says
// the same.
func TestReadinessNeedsAMajority(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 2, nil)
	c := startCluster(t, k, 3, topic, nil)
	// Leaderships that are still being spread make it not ready for a moment.
	ready := func(a *aNode) func() bool {
		return func() bool { code, body := a.ask("/readyz"); return code == http.StatusOK && body == "ready\n" }
	}
	for _, a := range c.nodes {
		eventually(t, string(a.cfg.NodeID)+" to be ready", ready(a))
	}
	alone := func(when string) {
		t.Helper()
		a := c.nodes[0]
		want := ""
		eventually(t, when+", the node knows that it has no majority", func() bool {
			code, body := a.ask("/readyz")
			want = body
			return code == http.StatusServiceUnavailable && strings.Contains(body, "not caught up: group 0: no leader")
		})
		if code, body := a.ask("/healthz"); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: /healthz %d %q", when, code, body)
		}
		var s bridge.NodeStatus
		if _, body := a.ask("/status"); json.Unmarshal([]byte(body), &s) != nil || s.Ready || len(s.NotReady) == 0 || s.Node != "n1" {
			t.Errorf("%s: /readyz says %q, /status %s", when, want, body)
		}
		all := a.cluster(t)
		if len(all.Nodes) != 1 || len(all.Unreachable) != 2 || all.Unreachable["n2"] == "" || all.Unreachable["n3"] == "" {
			t.Errorf("%s: cluster status %+v", when, all)
		}
	}
	c.stop(1)
	c.stop(2)
	alone("after the others stopped")
	// The same from the beginning: ready only once another node is there.
	c.stop(0)
	c.start(0)
	alone("after a start alone")
	select {
	case <-c.nodes[0].node.Ready():
		t.Error("ready without a majority")
	default:
	}
	c.start(1)
	c.waitReady()
	eventually(t, "n1 to be ready with a majority", ready(c.nodes[0]))
	eventually(t, "the status of both", func() bool {
		s := c.nodes[0].cluster(t)
		return len(s.Nodes) == 2 && s.Nodes[0].Ready && s.Nodes[1].Node == "n2" && s.Unreachable["n3"] != ""
	})
}

// Kafka being away keeps no node from being ready, but a node that starts waits a while for it.
func TestReadyWithoutKafka(t *testing.T) {
	t.Parallel() // it waits for most of its time
	k := &aKafka{brokers: []string{fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])}}
	begun := time.Now()
	c := startCluster(t, k, 1, "nothing", func(cfg *Config) { cfg.Groups = 1 })
	if took := time.Since(begun); took < kafkaPatience {
		t.Errorf("ready after %v, without having waited for Kafka", took)
	}
	eventually(t, "/readyz", func() bool { code, _ := c.nodes[0].ask("/readyz"); return code == http.StatusOK })
}

// What an operator watches is there after traffic, with numbers that fit it.
func TestMetricsAfterTraffic(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 1, nil)
	c := startCluster(t, k, 1, topic, openForPublishing(t, topic))
	n := c.nodes[0]
	w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(0) })
	conn, err := dialWire(t.Context(), c.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	for i, op := range []map[string]any{
		{"op": "pub", "subject": "/" + topic + "/k", "data": 1, "mid": "one", "ack": "replicated"},
		{"op": "pub", "subject": "/" + topic + "/k", "data": 1, "mid": "one"},
		{"op": "pub", "subject": "/not-open/k", "data": 1},
	} {
		if _, err := conn.ask(t.Context(), int64(i+1), op); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the record", func() bool { return w.count() == 1 })
	w.cut()
	eventually(t, "the resume", func() bool { return w.subscriptions() == 2 })
	labels := fmt.Sprintf(`{topic=%q}`, topic)
	want := []string{
		`tidewire_connections 2`, `tidewire_subscriptions 1`,
		`tidewire_delivered_messages_total 1`, `tidewire_delivered_bytes_total [1-9]\d+`,
		`tidewire_ingest_records_total` + labels + ` 1`, `tidewire_ingest_bytes_total` + labels + ` 2`,
		fmt.Sprintf(`tidewire_ingest_lag_offsets{partition="0",topic=%q} 0`, topic),
		`tidewire_leader_changes_total [1-9]\d*`,
		`tidewire_replication_seconds_count` + labels + ` 1`, `tidewire_end_to_end_seconds_count \d+`,
		`tidewire_cache_bytes [1-9].*`, `tidewire_cache_budget_bytes 6.7108864e\+07`, `tidewire_cache_records 1`,
		`tidewire_publishes_total{outcome="duplicate"} 1`, `tidewire_publishes_total{outcome="ok"} 1`, `tidewire_publishes_total{outcome="refused"} 1`,
		`tidewire_slow_closes_total 0`, `tidewire_resumes_total{outcome="cache"} 1`,
		`tidewire_errors_total{code="bad_subject"} 1`, `tidewire_node_info{node="n1",version=".*"} 1`,
	}
	// Counters that others add to a moment after the client has its answer settle soon.
	missing := func() (out []string) {
		_, body := n.ask("/metrics")
		for _, line := range want {
			if !regexp.MustCompile(`(?m)^` + strings.NewReplacer("{", `\{`, "}", `\}`).Replace(line) + `$`).MatchString(body) {
				out = append(out, line)
			}
		}
		return out
	}
	for deadline := time.Now().Add(waitTime); len(missing()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			_, body := n.ask("/metrics")
			t.Fatalf("missing %s in\n%s", strconv.Quote(strings.Join(missing(), "\n")), body)
		}
	}
}

// docs/metrics.md names every metric, and none that is not there.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(tidewire_[a-z_]+)").FindAllStringSubmatch(string(b), -1) {
		documented = append(documented, m[1])
	}
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 1, k.topic(t, 1, nil), nil)
	descs := make(chan *prometheus.Desc)
	go func() { c.nodes[0].node.metrics.registry.Describe(descs); close(descs) }()
	name := regexp.MustCompile(`fqName: "(tidewire_[a-z_]+)"`)
	var registered []string
	for d := range descs {
		if m := name.FindStringSubmatch(d.String()); m != nil {
			registered = append(registered, m[1])
		}
	}
	for _, m := range registered {
		if !slices.Contains(documented, m) {
			t.Errorf("docs/metrics.md lacks %s", m)
		}
	}
	for _, m := range documented {
		if !slices.Contains(registered, m) {
			t.Errorf("docs/metrics.md has %s, which is no metric", m)
		}
	}
}
