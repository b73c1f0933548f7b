package bench

// Metric is a figure that runs give.
type Metric struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
	// Better is -1 where less is better, 1 where more is, 0 where neither.
	Better int `json:"better"`
}

// The metrics, in the order in which a table has them. Times of messages are from the making of the record, in
// its producer, to the return of the read(2) that brought it.
var metrics = []Metric{
	{"cpu_us", "CPU a delivered message", "µs", -1},
	{"cores", "CPU", "cores", -1},
	{"rate", "delivered", "msg/s", 1},
	{"p50_ms", "latency, median", "ms", -1},
	{"p99_ms", "latency, 99%", "ms", -1},
	{"p999_ms", "latency, 99.9%", "ms", -1},
	{"max_ms", "latency, worst", "ms", -1},
	{"gc_pauses", "pauses for garbage", "", 0},
	{"gc_p999_ms", "such a pause, 99.9%, at most", "ms", -1},
	{"gc_max_ms", "such a pause, longest, at most", "ms", -1},
	{"kb_conn", "memory a connection", "KB", -1},
	{"conns", "connections", "", 0},
	{"open_s", "time to connect and subscribe all", "s", -1},
	{"records_s", "records taken in by all nodes", "rec/s", 1},
	{"cpu_record_us", "CPU a record", "µs", -1},
	{"n1_p50_ms", "n1: median", "ms", -1},
	{"n1_p99_ms", "n1: 99%", "ms", -1},
	{"n2_p50_ms", "n2: median", "ms", -1},
	{"n2_p99_ms", "n2: 99%", "ms", -1},
	{"n3_p50_ms", "n3: median", "ms", -1},
	{"n3_p99_ms", "n3: 99%", "ms", -1},
	{"more_p50_ms", "slowest node's median over the consumer's", "ms", -1},
	{"more_p99_ms", "slowest node's 99% over the consumer's", "ms", -1},
	{"resume_s", "until all are subscribed again", "s", -1},
	{"not_resumed", "subscriptions that did not resume whole", "", -1},
	{"before_p99_ms", "latency, 99%, before some stopped reading", "ms", -1},
	{"p99_ratio", "the others' 99%, after over before", "×", -1},
	{"rss_more_mb", "memory that was added", "MB", -1},
	{"rss_mb", "memory at the end", "MB", -1},
	{"missing", "records missed", "", -1},
	{"repeated", "records that came twice", "", -1},
	{"closed", "connections closed by the server", "", 0},
	{"load_us", "CPU of the load a message", "µs", 0},
	{"load_busy", "time in which the load ran or waited for a processor", "%", 0},
	{"per_read", "messages a read", "", 0},
}

// metric returns the metric of a name.
func metric(name string) Metric {
	for _, m := range metrics {
		if m.Name == name {
			return m
		}
	}
	panic("no metric " + name)
}

// Target is a bound that ARCHITECTURE.md sets.
type Target struct {
	Metric string  `json:"metric"`
	Over   string  `json:"over,omitempty"` // the bound is for the ratio to this server
	AtMost bool    `json:"at_most"`        // else: at least
	Bound  float64 `json:"bound"`
}
