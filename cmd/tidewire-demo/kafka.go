package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafka is the Kafka of the demo, its own or one that was there, and a client of it.
type kafka struct {
	brokers []string
	fake    *kfake.Cluster // nil: not ours
	client  *kgo.Client
}

// startKafka starts the embedded Kafka unless there are brokers, and creates the topics.
func startKafka(ctx context.Context, cfg config) (*kafka, error) {
	k := &kafka{brokers: cfg.brokers}
	if len(k.brokers) == 0 {
		fake, err := kfake.NewCluster(
			kfake.NumBrokers(1),
			kfake.ListenFn(func(network, _ string) (net.Listener, error) {
				return net.Listen(network, net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.kafkaPort)))
			}),
			// The embedded Kafka keeps its log in memory and removes old segments only when its
			// cleaner runs: once an hour by default.
			kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "1000"}),
		)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("port %d for the embedded Kafka is in use: choose another with -kafka-port, or set TIDEWIRE_KAFKA_BROKERS=127.0.0.1:%d to use what listens there", cfg.kafkaPort, cfg.kafkaPort)
		} else if err != nil {
			return nil, fmt.Errorf("start the embedded Kafka: %w", err)
		}
		k.fake, k.brokers = fake, fake.ListenAddrs()
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(k.brokers...),
		kgo.ClientID("tidewire-demo"),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(10000),
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		k.close()
		return nil, fmt.Errorf("client of Kafka %v: %w", k.brokers, err)
	}
	k.client = client
	if err := k.createTopics(ctx); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// close waits for what was produced and ends everything that startKafka began.
func (k *kafka) close() {
	if k.client != nil {
		k.client.Close()
	}
	if k.fake != nil {
		k.fake.Close()
	}
}

// The demo's topics. Retention is bounded in bytes, with small segments, because the embedded Kafka frees
// memory by whole closed segments: together they hold some 40 MB at most.
var topics = []struct {
	name              string
	partitions        int32
	retention, segnum int
}{
	{"prices", 4, 8 << 20, 8},
	{"chat", 2, 2 << 20, 8},
}

// createTopics creates what is missing. A Kafka that is not ours may forbid it: the nodes pick the topics
// up when somebody else creates them.
func (k *kafka) createTopics(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15000
	for _, t := range topics {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, t.partitions, -1
		for name, value := range map[string]int{"retention.bytes": t.retention, "segment.bytes": t.retention / t.segnum} {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = name, kmsg.StringPtr(strconv.Itoa(value))
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil {
		return fmt.Errorf("reach Kafka at %v: %w", k.brokers, err)
	}
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if k.fake == nil && (errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)) {
			continue
		}
		return fmt.Errorf("create topic %s: %w", t.Topic, err)
	}
	return nil
}
