package node

import (
	"math"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sort"

	"github.com/prometheus/client_golang/prometheus"
)

// LimitMemory tells the garbage collector how much memory the process may use, unless GOMEMLIMIT does: nine
// tenths of what the container or the machine has, or a quarter more than the cache's budget if that is more. Where
// nobody knows how much memory there is, it is twice that budget and 256 MiB. Without it the heap grows to twice what
// lives before anything is collected, and a cache that takes half of the container's memory would end in its being
// killed. It is for main: the setting is the process's.
func (c *Config) LimitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := 2*c.CacheBytes + 256<<20
	if total := memory(); total > 0 {
		limit = max(total/10*9, c.CacheBytes+c.CacheBytes/4)
		if c.CacheBytes > total/10*6 {
			c.Log.Warn().Int64("cache_bytes", c.CacheBytes).Int64("memory", total).
				Msg("the cache's budget leaves little for everything else: connections, Raft and what is being sent; more than 60% of the memory is not advised")
		}
	}
	debug.SetMemoryLimit(limit)
}

// gcPauses are the garbage collector's pauses, as the runtime counts them.
type gcPauses struct{ desc *prometheus.Desc }

const pausesOfRuntime = "/sched/pauses/total/gc:seconds"

// gcBuckets are finer around 5 ms, over which no pause should be.
var gcBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5}

func newGCPauses() prometheus.Collector {
	return &gcPauses{prometheus.NewDesc("tidewire_gc_pause_seconds", "Pauses of all goroutines for the garbage collector, from asking them to stop until they go on.", nil, nil)}
}

func (c *gcPauses) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *gcPauses) Collect(ch chan<- prometheus.Metric) {
	sample := []runtimemetrics.Sample{{Name: pausesOfRuntime}}
	runtimemetrics.Read(sample)
	if sample[0].Value.Kind() != runtimemetrics.KindFloat64Histogram {
		return
	}
	count, sum, buckets := rebucket(sample[0].Value.Float64Histogram())
	ch <- prometheus.MustNewConstHistogram(c.desc, count, sum, buckets)
}

// rebucket puts what the runtime counted into our buckets, each count where its own bucket ends, so that no pause
// looks shorter than it was. The sum is of those ends, too.
func rebucket(h *runtimemetrics.Float64Histogram) (count uint64, sum float64, out map[float64]uint64) {
	in := make([]uint64, len(gcBuckets))
	for i, n := range h.Counts {
		end := h.Buckets[i+1]
		if math.IsInf(end, 1) {
			end = h.Buckets[i]
		} else if k := sort.SearchFloat64s(gcBuckets, end); k < len(in) {
			in[k] += n
		}
		count += n
		sum += float64(n) * end
	}
	out = make(map[float64]uint64, len(in))
	total := uint64(0)
	for i, n := range in {
		total += n
		out[gcBuckets[i]] = total
	}
	return count, sum, out
}
