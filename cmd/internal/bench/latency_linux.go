package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is a plain consumer of a topic, from the end of every partition: what Tidewire is compared with.
type consumer struct {
	cl     *kgo.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	latency histogram
	seen    int64
}

// startConsumer returns once it has read the record that mark writes.
func startConsumer(ctx context.Context, brokers []string, opts []kgo.Opt, topic string, mark func()) (*consumer, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.ClientID("tidewire-bench-consumer"),
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd())}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("client of Kafka: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &consumer{cl: cl, cancel: cancel}
	c.wg.Go(func() { c.read(run) })
	// It does not say when it has found the ends; so records are written until one comes.
	wait, stop := context.WithTimeout(ctx, adminWait)
	defer stop()
	err = poll(wait, func() error {
		mark()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.seen == 0 {
			return errors.New("a plain consumer gets nothing")
		}
		return nil
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *consumer) read(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := c.cl.PollFetches(ctx)
		now := time.Now().UnixNano()
		c.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			if at, _, _, found, err := nextStamp(r.Value); found && err == nil {
				c.latency.add(now - at)
				c.seen++
			}
		})
		c.mu.Unlock()
	}
}

// take returns what was measured since the last call.
func (c *consumer) take() *histogram {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.latency
	c.latency = histogram{}
	return &h
}

func (c *consumer) close() {
	c.cancel()
	c.wg.Wait()
	c.cl.Close()
}

// latency has subscribers of everything on each node beside a plain consumer of the same topic.
func (m *measurement) latency(ctx context.Context) (map[string]map[string]float64, error) {
	t := m.sys.(*tidewire) // no other server is asked for here
	c, err := startConsumer(ctx, m.b.brokers, m.b.o.Kafka, t.topic, func() { _ = t.send(t.keys) })
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	var clients []client
	per := m.b.scaled(m.s.Clients)
	for node := range min(len(t.addrs), maxGroups) {
		for range per {
			cl := t.client(node, "/"+t.topic+"/*")
			cl.group, cl.several = uint8(node), true
			clients = append(clients, cl)
		}
	}
	if err := m.open(ctx, clients); err != nil {
		return nil, err
	}
	// The marks may still be on their way to the nodes' subscribers: what is expected counts from when they have passed.
	if err := m.quiet(ctx); err != nil {
		return nil, err
	}
	base := m.load.counters()
	if err := m.pace(ctx, m.b.o.Warmup); err != nil {
		return nil, err
	}
	c.take()
	from, err := m.begin()
	if err != nil {
		return nil, err
	}
	if err := m.pace(ctx, m.b.o.Duration); err != nil {
		return nil, err
	}
	v, w, err := m.end(from)
	if err != nil {
		return nil, err
	}
	plain := c.take()
	for _, name := range []string{"p50_ms", "p99_ms", "p999_ms", "max_ms", "cpu_us"} {
		delete(v, name) // of the first node's subscribers, over the deliveries of all: they mean nothing here
	}
	theirs := map[string]float64{}
	latencies(theirs, "", plain)
	for i := range min(len(t.addrs), maxGroups) {
		h := &w.groups[i]
		p50, p99 := millis(h.quantile(0.5)), millis(h.quantile(0.99))
		if i < 3 {
			latencies(v, fmt.Sprintf("n%d_", i+1), h)
		}
		if i == 0 {
			v["more_p50_ms"], v["more_p99_ms"] = p50-theirs["p50_ms"], p99-theirs["p99_ms"]
		}
		v["more_p50_ms"] = max(v["more_p50_ms"], p50-theirs["p50_ms"])
		v["more_p99_ms"] = max(v["more_p99_ms"], p99-theirs["p99_ms"])
		v["max_ms"] = max(v["max_ms"], millis(time.Duration(h.max)))
	}
	if err := m.drain(ctx, v, base.messages+int64(m.sent)*int64(len(clients))); err != nil {
		return nil, err
	}
	return map[string]map[string]float64{ServerTidewire: v, ServerConsumer: theirs}, t.died()
}

// quiet waits until nothing came for a while.
func (m *measurement) quiet(ctx context.Context) error {
	last, at := int64(-1), time.Now()
	return m.load.until(ctx, func(c counters) (bool, string) {
		if c.messages != last {
			last, at = c.messages, time.Now()
		}
		return time.Since(at) > 300*time.Millisecond, "records keep coming that this program does not send"
	})
}
