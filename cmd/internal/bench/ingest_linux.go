package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/bridge"
)

// ingest fills a topic before the nodes start, and looks how fast they take it in: from a tenth to nine tenths
// of the records, and what the slowest node has counts.
func (b *bench) ingest(ctx context.Context, s *Scenario) (map[string]map[string]float64, error) {
	records := b.o.Records
	var theirs map[string]float64
	b.o.Progress("  writing %d records", records)
	fill := func(p *producer) error {
		bulk, err := newProducer(b.brokers, b.o.Kafka, p.topic, b.o.Size, 20*time.Millisecond)
		if err != nil {
			return err
		}
		defer bulk.cl.Close()
		bulk.keys = p.keys
		for i := range records {
			if bulk.produce(i%len(p.keys), uint64(i/len(p.keys))); i%10000 == 0 {
				if err := errors.Join(ctx.Err(), bulk.err()); err != nil {
					return err
				}
			}
		}
		if err := bulk.flush(ctx); err != nil {
			return err
		}
		rate, err := b.consumeAll(ctx, p.topic, records)
		if theirs = map[string]float64{}; rate > 0 {
			theirs["records_s"] = rate
		}
		return err
	}
	t, err := b.launchTidewire(ctx, b.keysOf(s), walls{}, fill)
	if err != nil {
		return nil, err
	}
	defer t.close()
	v, err := b.watchIngest(ctx, t, records) // from before they are ready: they read while they start
	if err != nil {
		return nil, err
	}
	return map[string]map[string]float64{ServerTidewire: v, ServerConsumer: theirs}, t.died()
}

// watchIngest follows a cluster until every node has the records.
func (b *bench) watchIngest(ctx context.Context, t *tidewire, records int) (map[string]float64, error) {
	type point struct {
		at  time.Time
		n   int64
		cpu time.Duration
	}
	start := point{at: time.Now()}
	var first, last point
	low, high := int64(records/10), int64(records)*9/10
	node := t.cluster.nodes[0].proc.cmd.Process.Pid
	err := poll(ctx, func() error {
		least := int64(-1)
		for _, n := range t.cluster.nodes {
			s, err := t.cluster.status(ctx, n.admin)
			if err != nil {
				if died := t.cluster.died(); died != nil {
					return errors.Join(errStop, died)
				}
				return err
			}
			if sum := taken(s, t.topic); least < 0 || sum < least {
				least = sum
			}
		}
		u, err := usageOf(node)
		if err != nil {
			return err
		}
		p := point{time.Now(), least, u.cpu}
		if first.n == 0 && p.n >= low {
			first = p
			b.prof.take(b, "ingest", t.cluster.nodes[0].admin, min(b.o.Duration, 4*time.Second))
		}
		if p.n == 0 {
			start = p
		}
		last = p
		if p.n < high {
			return fmt.Errorf("every node has %d of %d records", p.n, records)
		}
		return nil
	})
	b.prof.wait()
	if err != nil {
		return nil, err
	}
	if first.n == last.n {
		b.problem("ingest: %d records were too few to leave the nodes' start out", records)
		first = start
	}
	n, took := float64(last.n-first.n), last.at.Sub(first.at).Seconds()
	u, err := usageOf(node)
	return map[string]float64{"records_s": n / took, "cpu_record_us": micros(last.cpu-first.cpu) / n, "cores": (last.cpu - first.cpu).Seconds() / took,
		"rss_mb": float64(u.rss) / 1e6}, err
}

// taken is how many records of a topic whose partitions begin at offset 0 a node has taken in.
func taken(s bridge.NodeStatus, topic string) (sum int64) {
	for _, p := range s.Partitions {
		if p.Topic == topic {
			sum += max(0, int64(p.Next))
		}
	}
	return sum
}

// consumeAll reads a topic with a plain consumer and returns the records a second; zero if it had all at once.
func (b *bench) consumeAll(ctx context.Context, topic string, records int) (float64, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, b.o.Kafka...)...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	low, high, n := records/10, records*9/10, 0
	var began time.Time
	from := 0
	for n < high {
		f := cl.PollRecords(ctx, 500)
		if err := f.Err0(); err != nil {
			return 0, fmt.Errorf("read %s back: %d of %d records: %w", topic, n, records, err)
		}
		if n += f.NumRecords(); began.IsZero() && n >= low {
			began, from = time.Now(), n
		}
	}
	if n == from {
		return 0, nil
	}
	return float64(n-from) / time.Since(began).Seconds(), nil
}
