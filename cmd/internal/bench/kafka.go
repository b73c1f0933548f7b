package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producer writes the messages of a feed to a topic, as its own records: acknowledged by all in-sync replicas,
// uncompressed, sent as soon as the one before is.
type producer struct {
	cl     *kgo.Client
	topic  string
	size   int
	keys   [][]byte
	failed atomic.Pointer[error]
}

// adminWait bounds an administrative step.
const adminWait = 30 * time.Second

func newProducer(brokers []string, opts []kgo.Opt, topic string, size int, linger time.Duration) (*producer, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.ClientID("tidewire-bench"),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Kafka's own clients
		kgo.ProducerLinger(linger), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(100_000), kgo.RecordDeliveryTimeout(adminWait),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("client of Kafka: %w", err)
	}
	return &producer{cl: cl, topic: topic, size: size}, nil
}

// produce hands a record over. It waits only if a hundred thousand are on their way.
func (p *producer) produce(key int, count uint64) {
	value := appendValue(make([]byte, 0, p.size), time.Now().UnixNano(), count, p.size)
	p.cl.Produce(context.Background(), &kgo.Record{Topic: p.topic, Key: p.keys[key], Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			p.failed.CompareAndSwap(nil, &err)
		}
	})
}

// flush waits until all records are acknowledged.
func (p *producer) flush(ctx context.Context) error {
	if err := p.cl.Flush(ctx); err != nil {
		return fmt.Errorf("write to Kafka: %w", err)
	}
	return p.err()
}

func (p *producer) err() error {
	if err := p.failed.Load(); err != nil {
		return fmt.Errorf("write to Kafka: %w", *err)
	}
	return nil
}

// createTopic creates a topic unless it exists; partitions is how many it has then. With create false it only looks.
func createTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int, create bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	if create {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), -1
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = int32(adminWait.Milliseconds())
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return 0, fmt.Errorf("create topic %s: %w", topic, err)
		}
		for _, r := range resp.Topics {
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
				return 0, fmt.Errorf("create topic %s: %w", topic, err)
			}
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err == nil && len(resp.Topics) == 1 {
			led := 0
			for _, p := range resp.Topics[0].Partitions {
				if p.ErrorCode == 0 && p.Leader >= 0 {
					led++
				}
			}
			if err = kerr.ErrorForCode(resp.Topics[0].ErrorCode); err == nil && led > 0 && led == len(resp.Topics[0].Partitions) {
				return led, nil
			} else if errors.Is(err, kerr.UnknownTopicOrPartition) && !create {
				return 0, fmt.Errorf("there is no topic %s: create it, or have it created with -create", topic)
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("topic %s: %w: %w", topic, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// deleteTopic deletes a topic of our own, to give its disk back; what goes wrong there harms nobody.
func deleteTopic(ctx context.Context, cl *kgo.Client, topic string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminWait)
	defer cancel()
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(adminWait.Milliseconds())
	req.Topics = append(req.Topics, t)
	req.TopicNames = append(req.TopicNames, topic)
	_, _ = req.RequestWith(ctx, cl)
}
