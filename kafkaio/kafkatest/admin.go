package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateTopic creates a topic and waits until every broker knows the leaders of
// its partitions. It has one replica a broker, three at most. configs may be nil.
func (c *Cluster) CreateTopic(name string, partitions int, configs map[string]string) {
	c.t.Helper()
	tries := 0
	c.admin("create topic "+name, func(ctx context.Context, cl *kgo.Client) error {
		tries++
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), -1
		for _, k := range slices.Sorted(maps.Keys(configs)) {
			cfg := kmsg.NewCreateTopicsRequestTopicConfig()
			cfg.Name, cfg.Value = k, kmsg.StringPtr(configs[k])
			t.Configs = append(t.Configs, cfg)
		}
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = int32(adminTimeout.Milliseconds())
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, r := range resp.Topics {
			if err := codeError(r.ErrorCode, r.ErrorMessage); err != nil && !(tries > 1 && errors.Is(err, kerr.TopicAlreadyExists)) {
				return err
			}
		}
		return c.waitTopic(ctx, name, partitions)
	})
}

// AddPartitions raises a topic's number of partitions to total and waits as
// [Cluster.CreateTopic] does.
func (c *Cluster) AddPartitions(name string, total int) {
	c.t.Helper()
	tries := 0
	c.admin("add partitions to "+name, func(ctx context.Context, cl *kgo.Client) error {
		tries++
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = name, int32(total)
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = int32(adminTimeout.Milliseconds())
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, r := range resp.Topics {
			if err := codeError(r.ErrorCode, r.ErrorMessage); err != nil && !(tries > 1 && errors.Is(err, kerr.InvalidPartitions)) {
				return err
			}
		}
		return c.waitTopic(ctx, name, total)
	})
}

// DeleteTopic deletes a topic and waits until no broker knows it.
func (c *Cluster) DeleteTopic(name string) {
	c.t.Helper()
	tries := 0
	c.admin("delete topic "+name, func(ctx context.Context, cl *kgo.Client) error {
		tries++
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis = int32(adminTimeout.Milliseconds())
		req.Topics = append(req.Topics, t)
		req.TopicNames = append(req.TopicNames, name) // for requests older than version 6
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, r := range resp.Topics {
			if err := codeError(r.ErrorCode, r.ErrorMessage); err != nil && !(tries > 1 && errors.Is(err, kerr.UnknownTopicOrPartition)) {
				return err
			}
		}
		return c.waitTopic(ctx, name, 0)
	})
}

// DeleteRecords removes the records of a partition with offsets below before, so
// that its log begins there. Before -1 removes all there are.
func (c *Cluster) DeleteRecords(topic string, partition int, before int64) {
	c.t.Helper()
	c.admin(fmt.Sprintf("delete records of %s/%d", topic, partition), func(ctx context.Context, cl *kgo.Client) error {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = int32(partition), before
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = int32(adminTimeout.Milliseconds())
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// SetTopicConfig sets properties of a topic that exists.
func (c *Cluster) SetTopicConfig(name string, configs map[string]string) {
	c.t.Helper()
	c.admin("set properties of "+name, func(ctx context.Context, cl *kgo.Client) error {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
		for _, k := range slices.Sorted(maps.Keys(configs)) {
			cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			cfg.Name, cfg.Value = k, kmsg.StringPtr(configs[k])
			r.Configs = append(r.Configs, cfg)
		}
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = append(req.Resources, r)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			if err := codeError(r.ErrorCode, r.ErrorMessage); err != nil {
				return err
			}
		}
		return nil
	})
}

// Leader returns the index of the broker that leads a partition, as for
// [Cluster.KillBroker]; of an external cluster, its node id less one. It waits
// while there is none.
func (c *Cluster) Leader(topic string, partition int) int {
	c.t.Helper()
	leader := -1
	c.admin(fmt.Sprintf("find the leader of %s/%d", topic, partition), func(ctx context.Context, cl *kgo.Client) error {
		return poll(ctx, func() error {
			t, err := topicMetadata(ctx, cl, topic)
			if err != nil {
				return err
			}
			for _, p := range t.Partitions {
				if p.Partition == int32(partition) && p.ErrorCode == 0 && p.Leader > 0 {
					leader = int(p.Leader) - 1
					return nil
				}
			}
			return errors.New("it has none yet")
		})
	})
	return leader
}

// admin runs one administrative step and ends the test if it fails. It may be run again when the broker did not answer: f then
// bears with what it has done already.
func (c *Cluster) admin(what string, f func(context.Context, *kgo.Client) error) {
	c.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	if err := pollOn(ctx, brokersAway, func() error { return f(ctx, cl) }); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// codeError returns the error for a code and message of a Kafka response.
func codeError(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err != nil && message != nil {
		return fmt.Errorf("%w: %s", err, *message)
	}
	return err
}

// waitTopic waits until every running broker shows the topic with this many
// partitions, all led; with 0, until none shows it. Brokers learn of a change at
// their own pace, and a client may ask any of them.
func (c *Cluster) waitTopic(ctx context.Context, name string, partitions int) error {
	addrs := c.Brokers()
	for i, n := range c.k.nodes {
		if c.k.process(n) == nil {
			addrs[i] = ""
		}
	}
	for _, addr := range addrs {
		if addr == "" {
			continue
		}
		if err := waitTopicAt(ctx, addr, name, partitions); err != nil {
			return fmt.Errorf("at broker %s: %w", addr, err)
		}
	}
	return nil
}

func waitTopicAt(ctx context.Context, addr, name string, partitions int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	return poll(ctx, func() error {
		t, err := topicMetadata(ctx, cl, name)
		if errors.Is(err, kerr.UnknownTopicOrPartition) && partitions == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		led := 0
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		if led != partitions {
			return fmt.Errorf("%d partitions have a leader, want %d", led, partitions)
		}
		return nil
	})
}

// topicMetadata asks the client's seed broker about one topic.
func topicMetadata(ctx context.Context, cl *kgo.Client, name string) (*kmsg.MetadataResponseTopic, error) {
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(name)
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, t)
	req.AllowAutoTopicCreation = false
	var last error
	for _, b := range cl.SeedBrokers() {
		resp, err := b.RetriableRequest(ctx, req)
		if err != nil {
			last = err
			continue
		}
		meta := resp.(*kmsg.MetadataResponse)
		if len(meta.Topics) != 1 {
			return nil, fmt.Errorf("asked for one topic, got %d", len(meta.Topics))
		}
		return &meta.Topics[0], kerr.ErrorForCode(meta.Topics[0].ErrorCode)
	}
	return nil, last
}

// pollOn calls f as poll does, but only while it fails for a reason that passes.
func pollOn(ctx context.Context, passes func(error) bool, f func() error) error {
	var last error
	err := poll(ctx, func() error {
		if last = f(); last != nil && passes(last) {
			return last
		}
		return nil
	})
	if err != nil {
		return err
	}
	return last
}

// brokersAway says whether an error means that there was no broker to do a thing, or to put a partition on. One that stood
// still for the length of its session counts as gone until its next heartbeat, also when it is the only one.
func brokersAway(err error) bool {
	return kgo.IsRetryableBrokerErr(err) || errors.Is(err, kerr.InvalidReplicationFactor)
}

// poll calls f until it returns nil or ctx ends; then the error tells what f
// said last.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
