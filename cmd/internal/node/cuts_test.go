package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// trickle writes records at a steady pace until it is told to stop, and returns how many there were.
func trickle(t *testing.T, k *aKafka, topic string, keys int, pace time.Duration) (stop func() int) {
	t.Helper()
	p := kafkatest.NewProducer(t, k.brokers)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for ctx.Err() == nil {
			p.Produce(&kafkatest.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", rand.IntN(keys)), Value: fmt.Appendf(nil, `{"n":%d}`, n)})
			n++
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	stop = sync.OnceValue(func() int { cancel(); wg.Wait(); return n })
	t.Cleanup(func() { stop() })
	return stop
}

// A subscriber that is cut at random 100 times and comes back each time on another node misses nothing
// and gets nothing twice.
func TestHundredCutsOnOtherNodes(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 4, nil)
		c := startCluster(t, k, 3, topic, nil)
		next := func(from int) func(int) string { return func(i int) string { return c.addr(from + i) } }
		all := watch(t, "/"+topic+"/*", 0, next(0))
		one := watch(t, "/"+topic+"/key-3", 0, next(1))
		stop := trickle(t, k, topic, 5, time.Millisecond)
		cut(t, 100, all, one)
		stop()
		checkCuts(t, k, topic, all, one)
	})
}

// cut breaks each watcher's connection so many times at random moments, each time waiting until it has
// resumed.
func cut(t *testing.T, times int, watchers ...*watcher) {
	t.Helper()
	for range times {
		for _, w := range watchers {
			before := w.subscriptions()
			w.cut()
			eventually(t, "resume of "+w.subject, func() bool { return w.subscriptions() > before })
		}
		pause := time.NewTimer(time.Duration(rand.IntN(20)) * time.Millisecond)
		<-pause.C // at random, so that cuts meet every moment of a delivery
	}
}

func checkCuts(t *testing.T, k *aKafka, topic string, all, one *watcher) {
	t.Helper()
	everything, n := expected(t, k, topic, nil)
	ofKey, m := expected(t, k, topic, func(r kafkatest.Record) bool { return "/"+topic+"/"+string(r.Key) == one.subject })
	compare(t, all, everything, n)
	compare(t, one, ofKey, m)
	samePositions(t, all, one)
	for _, w := range []*watcher{all, one} {
		w.mu.Lock()
		if len(w.gaps) > 0 {
			t.Errorf("%s: told of a loss that was none: %+v", w.subject, w.gaps[0])
		}
		w.mu.Unlock()
	}
}

// The same with vectors that are older than the cache: they are served from Kafka and join the live
// stream without a seam.
func TestCutsWithVectorsOlderThanTheCache(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 2, nil)
		c := startCluster(t, k, 3, topic, func(cfg *Config) { cfg.CacheBytes = 1 << 20; cfg.CacheTTL = time.Second })
		gate := newGate()
		next := func(from int) func(int) string {
			return func(i int) string { gate.wait(); return c.addr(from + i) }
		}
		all := watch(t, "/"+topic+"/*", 0, next(0))
		one := watch(t, "/"+topic+"/key-1", 0, next(1))
		t.Cleanup(gate.open)
		stop := trickle(t, k, topic, 3, 2*time.Millisecond)
		for round := range 8 {
			gate.shut()
			subs := []int{all.subscriptions(), one.subscriptions()}
			all.cut()
			one.cut()
			// They stay away until what they missed has left the caches of all nodes.
			p := kafkatest.NewProducer(t, k.brokers)
			mark := fmt.Sprintf("mark-%d", round)
			p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("key-1"), Value: []byte(mark)})
			c.waitIngested(topic) // forgotten, not: not there yet
			eventually(t, "the cache to forget", func() bool {
				for _, a := range c.nodes {
					for i := range int32(2) {
						if l, ok := a.node.store.Lookup(topic, i); ok && !forgot(l, mark) {
							return false
						}
					}
				}
				return true
			})
			gate.open()
			eventually(t, "both to resume", func() bool { return all.subscriptions() > subs[0] && one.subscriptions() > subs[1] })
		}
		stop()
		checkCuts(t, k, topic, all, one)
	})
}

// gate holds watchers back from connecting.
type gate struct {
	mu   sync.Mutex
	cond *sync.Cond
	held bool
}

func newGate() *gate { g := &gate{}; g.cond = sync.NewCond(&g.mu); return g }

func (g *gate) shut() { g.mu.Lock(); g.held = true; g.mu.Unlock() }
func (g *gate) open() { g.mu.Lock(); g.held = false; g.cond.Broadcast(); g.mu.Unlock() }
func (g *gate) wait() {
	g.mu.Lock()
	for g.held {
		g.cond.Wait()
	}
	g.mu.Unlock()
}

// forgot says whether a value is no longer among a log's records.
func forgot(l *cache.Log, value string) bool {
	for at := l.Bounds().Start; ; {
		c := l.ReadAll(at, 1<<20)
		if bytes.Contains(c.Bytes, []byte(value)) {
			return false
		}
		if c.Behind {
			at = l.Bounds().Start
			continue
		}
		if c.Next <= at {
			return true
		}
		at = c.Next
	}
}
