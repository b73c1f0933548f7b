package kafkaio

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// The reading side against real Apache Kafka, what kgo reads being the reference: kfake and our code
// could agree on a mistake.

// TestKafkaCodecs: each codec as kgo compresses it and the broker stores it, in one topic.
func TestKafkaCodecs(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		c.CreateTopic(topic, 3, nil)
		r := newRig(t, c.Brokers(), topic)
		for p := range int32(3) {
			r.start(bridge.TopicPartition{Topic: topic, Partition: p}, 0)
		}
		for _, codec := range []kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
		} {
			pr := kafkatest.NewManualProducer(t, c.Brokers(), kgo.ProducerBatchCompression(codec))
			for round := range 3 {
				var recs []*kafkatest.Record
				for i := range 60 {
					x := rec(topic, int32(i%3), fmt.Sprint("k", i), strings.Repeat(fmt.Sprint("value ", round), i))
					if i%5 == 0 {
						x.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte(fmt.Sprint(i))}, {Key: "null"}}
					}
					if i%11 == 0 {
						x.Key = nil
					}
					if i%13 == 0 {
						x.Value = nil
					}
					recs = append(recs, x)
				}
				pr.Produce(recs...)
			}
		}
		r.equalToReference(c.Brokers(), topic, 3)
	})
}

// TestKafkaCodecByBroker: the broker compresses anew itself (Java's snappy framing among them) and
// stamps the records with its own time.
func TestKafkaCodecByBroker(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		for _, codec := range []string{"gzip", "snappy", "lz4", "zstd"} {
			topic := kafkatest.Topic(t)
			c.CreateTopic(topic, 1, map[string]string{"compression.type": codec, "message.timestamp.type": "LogAppendTime"})
			r := newRig(t, c.Brokers(), topic)
			r.start(bridge.TopicPartition{Topic: topic}, 0)
			pr := kafkatest.NewManualProducer(t, c.Brokers(), kgo.ProducerBatchCompression(kgo.NoCompression()))
			var recs []*kafkatest.Record
			for i := range 300 {
				recs = append(recs, rec(topic, 0, fmt.Sprint("k", i), strings.Repeat("long value ", 50)))
			}
			pr.Produce(recs...)
			r.equalToReference(c.Brokers(), topic, 1)
		}
	})
}

// TestKafkaTransactions: committed, aborted and plain records.
func TestKafkaTransactions(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		c.CreateTopic(topic, 2, nil)
		transactions(t, c.Brokers(), topic, newRig(t, c.Brokers(), topic))
	})
}

// TestKafkaCompacted: a topic with holes where records were, whole batches emptied among them.
func TestKafkaCompacted(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		c.CreateTopic(topic, 1, map[string]string{
			"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001",
			"max.compaction.lag.ms": "100", "min.compaction.lag.ms": "0", "delete.retention.ms": "0", "file.delete.delay.ms": "0",
		})
		txn := kafkatest.NewTransactionalProducer(t, c.Brokers(), topic, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		pr := kafkatest.NewManualProducer(t, c.Brokers())
		written := 0
		write := func(i int) {
			pr.Produce(rec(topic, 0, fmt.Sprint("k", i%5), fmt.Sprint("plain ", i)), rec(topic, 0, fmt.Sprint("gone ", i), "x"))
			txn.Commit(rec(topic, 0, fmt.Sprint("k", i%5), fmt.Sprint("committed ", i)))
			txn.Abort(rec(topic, 0, "never", fmt.Sprint("aborted ", i)))
			tomb := rec(topic, 0, fmt.Sprint("gone ", i), "")
			tomb.Value = nil
			pr.Produce(tomb)
			written += 4 // visible ones
		}
		for i := range 20 {
			write(i)
		}
		tp := bridge.TopicPartition{Topic: topic}
		// A segment is rolled by the next write, and only closed segments are cleaned.
		compacted := func() bool {
			return len(kafkatest.ReadCommitted(t, c.Brokers(), topic)) < written/2
		}
		for i := 20; !compacted(); i++ {
			if i == 2000 {
				t.Fatal("Kafka has not compacted the topic")
			}
			write(i)
		}
		r := newRig(t, c.Brokers(), topic)
		end := r.latest(tp)
		r.start(tp, 0)
		r.untilNext(tp, end)
		r.mu.Lock()
		if n := len(r.records(tp)); n == 0 || n > written*3/4 {
			t.Errorf("%d records of %d written: what was read had not been compacted", n, written)
		}
		r.mu.Unlock()
		// Cleaning goes on between any two readings, so both are compared for what is still there.
		want := describeTheirs(kafkatest.ReadCommitted(t, c.Brokers(), topic))
		r.mu.Lock()
		got := map[string]bool{}
		for _, s := range describeOurs(0, r.records(tp)) {
			got[s] = true
		}
		r.mu.Unlock()
		for _, s := range want {
			if !got[s] {
				t.Errorf("not read: %s", s)
			}
		}
	})
}

// TestKafkaOffsetsAndRange: ListOffsets, and offsets outside the log on both sides.
func TestKafkaOffsetsAndRange(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		c.CreateTopic(topic, 2, nil)
		offsets(t, c.Brokers(), topic, func(before int64) error { c.DeleteRecords(topic, 1, before); return nil })
		r := newRig(t, c.Brokers(), topic)
		tp := bridge.TopicPartition{Topic: topic, Partition: 1}
		// Kafka says that a transaction has ended before its marker is written.
		waitFor(t, "the marker", func() bool { return r.latest(tp) == 12 })
		for i, at := range []bridge.Offset{1, 13} {
			r.start(tp, at)
			r.until("out of range", func() bool { return len(r.outs) == i+1 })
			// 12: ten records, one aborted, its marker.
			if got, want := r.outs[i], (bridge.OffsetOutOfRangeError{TP: tp, At: at, LogStart: 2, LogEnd: 12}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	})
}

// TestKafkaTopics: topics that come, go and come back.
func TestKafkaTopics(t *testing.T) {
	t.Parallel()
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := kafkatest.Shared(t, version)
		prefix := kafkatest.Topic(t)
		one, two := prefix+"-1", prefix+"-2"
		c.CreateTopic(one, 2, nil)
		r := newRig(t, c.Brokers(), "/"+strings.ReplaceAll(prefix, ".", `\.`)+"-.*/")
		last := func() map[string]bridge.TopicMeta { return r.metas[len(r.metas)-1] }
		r.until("the first topic", func() bool { return len(r.metas) > 0 })
		r.mu.Lock()
		id := last()[one].ID
		if m := last(); len(m) != 1 || id.IsZero() || m[one].Partitions != 2 || !m[one].Initial {
			t.Errorf("%+v", m)
		}
		r.mu.Unlock()
		c.CreateTopic(two, 1, nil)
		c.AddPartitions(one, 5)
		r.refreshed("a topic and partitions", func() bool {
			return last()[one].Partitions == 5 && last()[two].Partitions == 1 && !last()[two].Initial
		})
		pr := kafkatest.NewManualProducer(t, c.Brokers())
		pr.Produce(rec(one, 4, "k", "v"))
		r.start(bridge.TopicPartition{Topic: one, Partition: 4}, 0)
		r.untilNext(bridge.TopicPartition{Topic: one, Partition: 4}, 1)
		c.DeleteTopic(one)
		c.CreateTopic(one, 1, nil)
		r.refreshed("the topic created again", func() bool {
			m := last()[one]
			return m.ID != id && m.Partitions == 1 && !m.Initial
		})
	})
}

// TestKafkaRestart: the broker is killed and started, and stopped and started, while it is read.
func TestKafkaRestart(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafkatest.Options{})
	c.CreateTopic("restart", 2, nil)
	r := newRig(t, c.Brokers(), "restart")
	for p := range int32(2) {
		r.start(bridge.TopicPartition{Topic: "restart", Partition: p}, 0)
	}
	rp := newReplayer(t, r)
	write := func(i int) {
		pr := kafkatest.NewManualProducer(t, c.Brokers())
		for p := range int32(2) {
			pr.Produce(rec("restart", p, "k", fmt.Sprint(i)))
		}
		for p := range int32(2) {
			r.untilNext(bridge.TopicPartition{Topic: "restart", Partition: p}, bridge.Offset(i+1))
		}
	}
	write(0)
	c.KillBroker(0)
	c.StartBroker(0)
	write(1)
	c.StopBroker(0)
	c.StartBroker(0)
	write(2)
	n := 0
	must(t, rp.Replay(t.Context(), bridge.ReplayRange{TP: bridge.TopicPartition{Topic: "restart"}, To: 3}, func(f bridge.Fetched) error {
		n += len(f.Records)
		return nil
	}))
	if n != 3 {
		t.Errorf("%d records replayed", n)
	}
	r.equalToReference(c.Brokers(), "restart", 2)
}

// TestKafkaFailover: of three brokers the leader is killed; reading goes on at the new one.
func TestKafkaFailover(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	c.CreateTopic("failover", 3, nil)
	r := newRig(t, c.Brokers(), "failover")
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	write := func(i int) {
		for p := range int32(3) {
			pr.Produce(rec("failover", p, "k", fmt.Sprint(i)))
		}
		for p := range int32(3) {
			r.untilNext(bridge.TopicPartition{Topic: "failover", Partition: p}, bridge.Offset(i+1))
		}
	}
	for p := range int32(3) {
		r.start(bridge.TopicPartition{Topic: "failover", Partition: p}, 0)
	}
	write(0)
	leader := c.Leader("failover", 0)
	c.KillBroker(leader)
	write(1)
	c.StartBroker(leader)
	write(2)
	r.equalToReference(c.Brokers(), "failover", 3)
}
