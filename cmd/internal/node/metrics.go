package node

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/replication"
)

// metrics are the node's own: what the bridge tells, and what is read off the parts when Prometheus
// asks. The edge registers its own beside them.
type metrics struct {
	registry *prometheus.Registry

	records, recordBytes atomic.Int64 // of all topics, for /status

	ingested  *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	lag       *prometheus.GaugeVec
	published *prometheus.CounterVec
	delay     *prometheus.HistogramVec
	scattered *prometheus.CounterVec
}

var _ bridge.Metrics = (*metrics)(nil)

// delayBuckets, in seconds, span what a record takes from its producer's clock to a node's cache.
var delayBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

func newMetrics(node bridge.NodeID) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ingested: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidewire_ingest_records_total",
			Help: "Records that were committed by the cluster and put into this node's cache."}, []string{"topic"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidewire_ingest_bytes_total",
			Help: "Bytes of keys and values of those records."}, []string{"topic"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidewire_ingest_lag_offsets",
			Help: "Offsets in Kafka that this node, the coordinator, has not fetched yet."}, []string{"topic", "partition"}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidewire_publishes_coordinated_total",
			Help: "Publishes that this node coordinated, by outcome."}, []string{"outcome"}),
		scattered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidewire_scattered_topics_total",
			Help: "Topics whose keys were found in several partitions, or that grew: vectors of their keys hold all partitions."}, []string{"topic"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tidewire_replication_seconds",
			Help: "From a record's Kafka timestamp to its being in this node's cache, one record a batch.", Buckets: delayBuckets}, []string{"topic"}),
	}
	m.registry.MustRegister(m.ingested, m.bytes, m.lag, m.published, m.delay, m.scattered,
		collectors.NewGoCollector(), newGCPauses(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidewire_node_info", Help: "Always 1.",
			ConstLabels: prometheus.Labels{"node": string(node), "version": Version()}}, func() float64 { return 1 }))
	return m
}

// watchCache adds what the cache says of itself.
func (m *metrics) watchCache(store *cache.Store) {
	gauge := func(name, help string, f func(cache.Stats) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return f(store.Stats()) }))
	}
	gauge("tidewire_cache_bytes", "Bytes that the cache holds, overhead included.", func(s cache.Stats) float64 { return float64(s.Bytes) })
	gauge("tidewire_cache_budget_bytes", "What it may hold (TIDEWIRE_CACHE_BYTES).", func(s cache.Stats) float64 { return float64(s.Budget) })
	gauge("tidewire_cache_records", "Records in the cache.", func(s cache.Stats) float64 { return float64(s.Records) })
}

// watchRevocations adds how many tokens and subjects are revoked.
func (m *metrics) watchRevocations(b *bridge.Bridge) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidewire_revocations",
		Help: "Revocations of tokens that this node has applied and that have not expired."}, func() float64 { return float64(b.RevocationCount()) }))
}

// watchReplication adds what replication says of itself.
func (m *metrics) watchReplication(r *replication.Node) {
	m.registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tidewire_leader_changes_total",
			Help: "How often this node became the leader of a group."}, func() float64 { return float64(r.LeaderChanges()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tidewire_cluster_strangers_total",
			Help: "Connections to the cluster port that were refused because they were not of a node."}, func() float64 { return float64(r.Strangers()) }),
	)
}

// Ingested implements bridge.Metrics.
func (m *metrics) Ingested(topic string, records []bridge.Record) {
	if len(records) == 0 {
		return
	}
	n := 0
	for i := range records {
		n += len(records[i].Key) + len(records[i].Value)
	}
	m.records.Add(int64(len(records)))
	m.recordBytes.Add(int64(n))
	m.ingested.WithLabelValues(topic).Add(float64(len(records)))
	m.bytes.WithLabelValues(topic).Add(float64(n))
	last := records[len(records)-1].Timestamp
	m.delay.WithLabelValues(topic).Observe(max(0, time.Since(time.UnixMilli(last)).Seconds()))
}

// Lag implements bridge.Metrics.
func (m *metrics) Lag(tp bridge.TopicPartition, offsets int64) {
	m.lag.WithLabelValues(tp.Topic, partitionLabel(tp.Partition)).Set(float64(offsets))
}

// LagGone implements bridge.Metrics.
func (m *metrics) LagGone(tp bridge.TopicPartition) {
	m.lag.DeleteLabelValues(tp.Topic, partitionLabel(tp.Partition))
}

// Scattered implements bridge.Metrics.
func (m *metrics) Scattered(topic string) { m.scattered.WithLabelValues(topic).Inc() }

// Published implements bridge.Metrics.
func (m *metrics) Published(outcome string) { m.published.WithLabelValues(outcome).Inc() }
