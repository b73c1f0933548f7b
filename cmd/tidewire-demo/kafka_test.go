package main

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// earliest is the first offset that a partition of the demo's Kafka still holds.
func earliest(t *testing.T, k *kafka, topic string, partition int32) int64 {
	t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	rt, rp := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp = partition, -2
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(context.Background(), k.client)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].Partitions[0].Offset
}

// The embedded Kafka keeps everything in memory unless it is told not to: old segments must go.
func TestOldRecordsAreRemoved(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	k, err := startKafka(ctx, config{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	producer, err := kgo.NewClient(kgo.SeedBrokers(k.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for range 60 { // 6 MB: three times what the topic keeps
		if err := producer.ProduceSync(ctx, &kgo.Record{Topic: "chat", Partition: 1, Value: make([]byte, 100_000)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first segments of chat/1 are removed", func() bool { return earliest(t, k, "chat", 1) > 30 })
}
