package wsedge

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of an edge. What is counted on the way of every message are plain counters of the shards, read
// when someone asks.
type metrics struct {
	connections   atomic.Int64
	subscriptions atomic.Int64
	slow          atomic.Int64
	streams       atomic.Int64
	acked         atomic.Int64 // publishes
	notAcked      atomic.Int64

	latency   prometheus.Histogram
	resumes   *prometheus.CounterVec
	publishes *prometheus.CounterVec
	errors    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	tlsFailed *prometheus.CounterVec
	ended     *prometheus.CounterVec
	limits    map[string]*limitMetric
	all       []prometheus.Collector
}

func newMetrics(srv *Server) *metrics {
	m := &metrics{
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tidewire_end_to_end_seconds",
			Help:    "From a record's Kafka timestamp to its being written to a subscriber; a sample.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_resumes_total", Help: "Partitions resumed, by where from: cache, kafka, lost, unknown.",
		}, []string{"outcome"}),
		publishes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_publishes_total", Help: "Publishes of clients, by outcome.",
		}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_errors_total", Help: "Error answers to clients, by code.",
		}, []string{"code"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_http_requests_total", Help: "Requests to /sse, /publish and /history, by HTTP status.",
		}, []string{"path", "status"}),
		tlsFailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_tls_handshakes_failed_total", Help: "TLS handshakes of clients that failed, by reason: handshake, plain_http, timeout, gone.",
		}, []string{"reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_token_closes_total", Help: "Sessions and streams closed with 4001, by reason: expired, revoked, unauthenticated.",
		}, []string{"reason"}),
	}
	m.limits = make(map[string]*limitMetric, len(limitNames))
	for _, name := range limitNames {
		l := new(limitMetric)
		m.limits[name] = l
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tidewire_limited_total", Help: "How often a limit was met, by limit.", ConstLabels: prometheus.Labels{"limit": name},
		}, func() float64 { return float64(l.count.Load()) }))
	}
	gauge := func(name, help string, f func() int64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) }))
	}
	counter := func(name, help string, f func() int64) {
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f()) }))
	}
	gauge("tidewire_connections", "Connections of clients.", m.connections.Load)
	gauge("tidewire_sse_connections", "Of these, Server-Sent Events.", m.streams.Load)
	gauge("tidewire_subscriptions", "Subscriptions of clients.", m.subscriptions.Load)
	gauge("tidewire_open_sockets", "Sockets of clients, handshakes and plain HTTP included.", srv.gate.connections)
	gauge("tidewire_handshakes", "Of these, in the handshake.", srv.gate.handshakes)
	gauge("tidewire_pending_bytes", "Bytes kept for sockets that do not take them.", srv.held.Load)
	gauge("tidewire_replays", "Cursors that read from Kafka.", func() int64 { return int64(len(srv.replays)) })
	gauge("tidewire_replays_waiting", "Cursors that wait to read from Kafka or for their clients.", func() int64 { return max(0, srv.replaying.Load()-int64(len(srv.replays))) })
	gauge("tidewire_blocked_connections", "Connections whose socket is full.", func() int64 { return srv.Stats().Blocked })
	counter("tidewire_delivered_messages_total", "Messages written to subscribers.", func() int64 { return srv.Stats().Delivered })
	counter("tidewire_delivered_bytes_total", "Bytes of messages written to subscribers.", func() int64 { return srv.Stats().Bytes })
	counter("tidewire_compressed_frames_total", "Records compressed for clients that asked for it, each once for all of them.", srv.deflated.frames.Load)
	counter("tidewire_compressed_bytes_in_total", "Bytes of these before.", srv.deflated.before.Load)
	counter("tidewire_compressed_bytes_out_total", "Bytes of these after.", srv.deflated.after.Load)
	counter("tidewire_slow_closes_total", "Connections closed with 4008 because the client did not keep up.", m.slow.Load)
	m.all = append(m.all, m.latency, m.resumes, m.publishes, m.errors, m.requests, m.tlsFailed, m.ended)
	return m
}

// limitMetric is one limit of Limits.
type limitMetric struct {
	count  atomic.Int64
	logged atomic.Int64 // when last, in nanoseconds
}

func (m *metrics) register(r prometheus.Registerer) error {
	for i, c := range m.all {
		if err := r.Register(c); err != nil {
			for _, done := range m.all[:i] {
				r.Unregister(done)
			}
			return err
		}
	}
	return nil
}

func (m *metrics) requested(path string, status int) {
	m.requests.WithLabelValues(path, strconv.Itoa(status)).Inc()
}

func (m *metrics) failed(code string) { m.errors.WithLabelValues(code).Inc() }
func (m *metrics) published(outcome string) {
	m.publishes.WithLabelValues(outcome).Inc()
	if outcome == "ok" || outcome == "duplicate" {
		m.acked.Add(1)
	} else {
		m.notAcked.Add(1)
	}
}

func (m *metrics) resumed(v Verdict) {
	outcome := "unknown"
	switch v {
	case FromCache:
		outcome = "cache"
	case FromKafka:
		outcome = "kafka"
	case Lost:
		outcome = "lost"
	}
	m.resumes.WithLabelValues(outcome).Inc()
}
