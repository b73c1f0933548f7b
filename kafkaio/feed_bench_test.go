package kafkaio

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// lateSink gives each Fetched back after a delay, as replication does, and keeps how old the records
// were when they came.
type lateSink struct {
	feed  *Feed
	delay time.Duration

	mu   sync.Mutex
	ages []time.Duration
}

func (s *lateSink) Fetched(run uint64, f bridge.Fetched) {
	now := time.Now()
	s.mu.Lock()
	for _, r := range f.Records {
		var sent time.Time
		_ = sent.UnmarshalBinary(r.Value)
		s.ages = append(s.ages, now.Sub(sent))
	}
	s.mu.Unlock()
	time.AfterFunc(s.delay, func() { s.feed.Done(f.TP, run) })
}

func (s *lateSink) Diverged(uint64, bridge.TopicPartition, bridge.Offset, bridge.LeaderEpoch, bridge.Offset) {
}

func (s *lateSink) OutOfRange(uint64, bridge.TopicPartition, bridge.Offset, bridge.Offset, bridge.Offset) {
}

// BenchmarkFeedLatency reports the time from producing a record (acknowledged by kfake) to the sink, at
// 1,000 records/s over 12 partitions, each Fetched being given back after 2 ms.
func BenchmarkFeedLatency(b *testing.B) {
	c := kafkatest.Fake(b, kfake.SeedTopics(12, "bench"))
	feedLatency(b, c.Brokers(), "bench")
}

// BenchmarkFeedLatencyKafka is the same with a real Kafka 4.
func BenchmarkFeedLatencyKafka(b *testing.B) {
	c := kafkatest.Shared(b, "4")
	topic := kafkatest.Topic(b)
	c.CreateTopic(topic, 12, nil)
	feedLatency(b, c.Brokers(), topic)
}

func feedLatency(b *testing.B, brokers []string, topic string) {
	client, err := NewClient(Config{Brokers: brokers})
	must(b, err)
	sel, err := ParseSelectors(topic)
	must(b, err)
	topics := NewTopics(client, TopicsConfig{Expose: sel})
	offs := NewOffsets(client, topics)
	sink := &lateSink{delay: 2 * time.Millisecond}
	sink.feed = NewFeed(client, topics, offs, sink, FeedConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { topics.Run(ctx) })
	wg.Go(func() { sink.feed.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	for p := range int32(12) {
		sink.feed.Start(bridge.TopicPartition{Topic: topic, Partition: p}, bridge.FeedStart{Leader: bridge.NoLeaderEpoch})
	}
	pr := kafkatest.NewManualProducer(b, brokers)
	n := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		<-tick.C
		v, _ := time.Now().MarshalBinary()
		pr.Client.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(n*7) % 12, Value: v}, nil)
		n++
	}
	must(b, pr.Client.Flush(ctx))
	deadline := time.Now().Add(waitTimeout)
	for {
		sink.mu.Lock()
		got := len(sink.ages)
		sink.mu.Unlock()
		if got >= n {
			break
		}
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d records came", got, n)
		}
		time.Sleep(time.Millisecond)
	}
	slices.Sort(sink.ages)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50-us", 0.5}, {"p99-us", 0.99}, {"max-us", 1}} {
		age := sink.ages[min(int(q.at*float64(n)), n-1)]
		b.ReportMetric(float64(age.Microseconds()), q.name)
	}
}
