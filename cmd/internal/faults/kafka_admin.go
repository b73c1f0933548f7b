package faults

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const adminTimeout = 30 * time.Second

func (k *Kafka) admin(ctx context.Context, what string, f func(context.Context, *kgo.Client) error) error {
	addrs, err := k.Addrs(Driver)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DialTimeout(2*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if err := f(ctx, cl); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// CreateTopic creates a topic and waits until all its partitions are led.
func (k *Kafka) CreateTopic(ctx context.Context, name string, partitions, copies int, configs map[string]string) error {
	return k.admin(ctx, "create topic "+name, func(ctx context.Context, cl *kgo.Client) error {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), int16(copies)
		for key, v := range configs {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = key, &v
			t.Configs = append(t.Configs, c)
		}
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Topics = append(req.Topics, t)
		// The name may still be on its way out after a deletion.
		err := poll(ctx, func() error {
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
		})
		if err != nil {
			return err
		}
		return k.waitLed(ctx, cl, name, partitions)
	})
}

func (k *Kafka) waitLed(ctx context.Context, cl *kgo.Client, name string, partitions int) error {
	return poll(ctx, func() error {
		t, err := topicMetadata(ctx, cl, name)
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
			return fmt.Errorf("%d of %d partitions have a leader", led, partitions)
		}
		return nil
	})
}

func topicMetadata(ctx context.Context, cl *kgo.Client, name string) (*kmsg.MetadataResponseTopic, error) {
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("asked for one topic, got %d", len(resp.Topics))
	}
	return &resp.Topics[0], kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// DeleteTopic deletes a topic.
func (k *Kafka) DeleteTopic(ctx context.Context, name string) error {
	return k.admin(ctx, "delete topic "+name, func(ctx context.Context, cl *kgo.Client) error {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &name
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Topics, req.TopicNames = append(req.Topics, t), []string{name}
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	})
}

// AddPartitions raises a topic's number of partitions to total.
func (k *Kafka) AddPartitions(ctx context.Context, name string, total int) error {
	return k.admin(ctx, "add partitions to "+name, func(ctx context.Context, cl *kgo.Client) error {
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = name, int32(total)
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
			return err
		}
		return k.waitLed(ctx, cl, name, total)
	})
}

// DeleteRecords removes the records of a partition below an offset.
func (k *Kafka) DeleteRecords(ctx context.Context, name string, partition int32, before int64) error {
	return k.admin(ctx, fmt.Sprintf("delete records of %s-%d", name, partition), func(ctx context.Context, cl *kgo.Client) error {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = partition, before
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic, t.Partitions = name, append(t.Partitions, p)
		req := kmsg.NewPtrDeleteRecordsRequest()
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

// End returns the offset that the next record of each partition gets.
func (k *Kafka) End(ctx context.Context, name string, partitions int) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := k.admin(ctx, "offsets of "+name, func(ctx context.Context, cl *kgo.Client) error {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = name
		for i := range partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = int32(i), -1
			t.Partitions = append(t.Partitions, p)
		}
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		req.Topics = append(req.Topics, t)
		// A leader that was just elected may not know yet.
		return poll(ctx, func() error {
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						return err
					}
					out[p.Partition] = p.Offset
				}
			}
			return nil
		})
	})
	return out, err
}

// MoveLeaders makes the next copy of each partition its leader, by putting it first and asking for the
// election of the first.
func (k *Kafka) MoveLeaders(ctx context.Context, name string) error {
	return k.admin(ctx, "move leaders of "+name, func(ctx context.Context, cl *kgo.Client) error {
		meta, err := topicMetadata(ctx, cl, name)
		if err != nil {
			return err
		}
		change := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		change.Topic = name
		elect := kmsg.NewElectLeadersRequestTopic()
		elect.Topic = name
		for _, p := range meta.Partitions {
			c := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			c.Partition = p.Partition
			c.Replicas = append(append([]int32{}, p.Replicas[1:]...), p.Replicas[0])
			change.Partitions = append(change.Partitions, c)
			elect.Partitions = append(elect.Partitions, p.Partition)
		}
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.Topics = append(req.Topics, change)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		election := kmsg.NewPtrElectLeadersRequest()
		election.Topics = append(election.Topics, elect)
		return poll(ctx, func() error {
			resp, err := election.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil && err != kerr.ElectionNotNeeded {
						return err
					}
				}
			}
			return kerr.ErrorForCode(resp.ErrorCode)
		})
	})
}
