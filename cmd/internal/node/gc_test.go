package node

import (
	"math"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func TestPausesAreNeverShorterThanTheyWere(t *testing.T) {
	h := &runtimemetrics.Float64Histogram{
		Buckets: []float64{math.Inf(-1), 0, 0.00009, 0.0011, 0.0049, 0.0051, 3, math.Inf(1)},
		Counts:  []uint64{0, 1, 2, 4, 8, 16, 32},
	}
	count, sum, buckets := rebucket(h)
	if want := 1*0.00009 + 2*0.0011 + 4*0.0049 + 8*0.0051 + 16*3.0 + 32*3.0; count != 63 || math.Abs(sum-want) > 1e-9 {
		t.Errorf("count %d, sum %v", count, sum)
	}
	for le, want := range map[float64]uint64{0.0001: 1, 0.001: 1, 0.002: 3, 0.005: 7, 0.0075: 15, 0.5: 15} {
		if buckets[le] != want {
			t.Errorf("up to %v: %d, want %d", le, buckets[le], want)
		}
	}
}

func TestPausesOfTheRuntimeAreCounted(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(newGCPauses())
	pauses := func() uint64 {
		all, err := r.Gather()
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0].Metric[0].Histogram.GetSampleCount()
	}
	before := pauses()
	runtime.GC()
	if after := pauses(); after < before+2 { // a cycle stops all goroutines twice
		t.Errorf("%d pauses before a collection, %d after it", before, after)
	}
}

func TestLimitMemory(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	total := memory()
	if total == 0 {
		t.Fatal("this machine's memory is not known")
	}
	for _, tc := range []struct{ budget, want int64 }{
		{1 << 20, total / 10 * 9},
		{2 * total, 2*total + total/2},
	} {
		c := Config{CacheBytes: tc.budget, Log: zerolog.Nop()}
		c.LimitMemory()
		if got := debug.SetMemoryLimit(-1); got != tc.want {
			t.Errorf("budget %d: limit %d, want %d", tc.budget, got, tc.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "123MiB")
	before := debug.SetMemoryLimit(-1)
	c := Config{CacheBytes: 1 << 20, Log: zerolog.Nop()}
	if c.LimitMemory(); debug.SetMemoryLimit(-1) != before {
		t.Error("GOMEMLIMIT was overridden")
	}
}
