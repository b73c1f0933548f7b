package replication

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// BenchmarkFollowerDelay prints how long after the leader a follower applies an entry: three nodes in this
// process with their logs on disk, at 200 entries/s and at 10 entries/s, with nudges and without.
func BenchmarkFollowerDelay(b *testing.B) {
	for _, nudged := range []bool{true, false} {
		for _, rate := range []int{200, 10} {
			b.Run(fmt.Sprintf("nudge=%v/rate=%d", nudged, rate), func(b *testing.B) { followerDelay(b, nudged, rate) })
		}
	}
}

func followerDelay(b *testing.B, nudged bool, rate int) {
	c := newCluster(b, 3, 1, func(_ int, c *Config) {
		c.NoNudge = !nudged
		c.HeartbeatTimeout, c.LeaderLease = time.Second, 500*time.Millisecond
	})
	leader := c.waitLeader(0)
	count := 4 * rate
	var mu sync.Mutex
	applied := make([][]time.Time, 3)
	var wg sync.WaitGroup
	for i := range c.toys {
		applied[i] = make([]time.Time, count)
		c.toys[i].mu.Lock()
		c.toys[i].onApply = func(_ bridge.GroupID, e []byte) {
			if len(e) != 512 {
				return
			}
			mu.Lock()
			applied[i][binary.BigEndian.Uint32(e)] = time.Now()
			mu.Unlock()
			wg.Done()
		}
		c.toys[i].mu.Unlock()
	}
	wg.Add(3 * count)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	proposed := make([]time.Time, count)
	b.ResetTimer()
	for i := range count {
		<-tick.C
		e := make([]byte, 512)
		binary.BigEndian.PutUint32(e, uint32(i))
		proposed[i] = time.Now()
		c.nodes[leader].Propose(0, e)
	}
	wg.Wait()
	b.StopTimer()
	var delays, commits []time.Duration
	for f := range applied {
		for i := range applied[f] {
			if f == leader {
				commits = append(commits, applied[f][i].Sub(proposed[i]))
			} else {
				delays = append(delays, applied[f][i].Sub(applied[leader][i]))
			}
		}
	}
	ms := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[min(int(q*float64(len(d))), len(d)-1)].Microseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(commits, 0.5), "ms-commit-p50")
	b.ReportMetric(ms(delays, 0.5), "ms-delay-p50")
	b.ReportMetric(ms(delays, 0.99), "ms-delay-p99")
	b.ReportMetric(ms(delays, 1), "ms-delay-max")
}
