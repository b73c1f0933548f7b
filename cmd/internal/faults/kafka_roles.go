package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file asks Kafka which broker has which role. Brokers are numbered from 0 to 2.

// Copies is where a partition is.
type Copies struct {
	Leader int   // -1: nobody leads it
	On     []int // all that have a copy
	InSync []int
}

// indexes translates node ids.
func (k *Kafka) indexes(ids ...int32) []int {
	var out []int
	for _, id := range ids {
		out = append(out, slices.IndexFunc(k.brokers, func(b *broker) bool { return int32(b.id) == id }))
	}
	return out
}

// Copies returns where the partitions of a topic are.
func (k *Kafka) Copies(ctx context.Context, name string) (map[int32]Copies, error) {
	out := map[int32]Copies{}
	err := k.admin(ctx, "copies of "+name, func(ctx context.Context, cl *kgo.Client) error {
		t, err := topicMetadata(ctx, cl, name)
		if err != nil {
			return err
		}
		for _, p := range t.Partitions {
			out[p.Partition] = Copies{Leader: k.indexes(p.Leader)[0], On: k.indexes(p.Replicas...), InSync: k.indexes(p.ISR...)}
		}
		return nil
	})
	return out, err
}

// WaitCopies waits until a partition is as somebody wants it.
func (k *Kafka) WaitCopies(ctx context.Context, name string, partition int32, want func(Copies) bool) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaReady)
	defer cancel()
	return poll(ctx, func() error {
		all, err := k.Copies(ctx, name)
		if err != nil {
			return err
		}
		if c := all[partition]; !want(c) {
			return fmt.Errorf("%s-%d is led by %d and in sync on %v", name, partition, c.Leader, c.InSync)
		}
		return nil
	})
}

// Controller returns the broker that is the active controller.
func (k *Kafka) Controller(ctx context.Context) (i int, err error) {
	err = k.admin(ctx, "ask for the controller", func(ctx context.Context, cl *kgo.Client) error {
		t := kmsg.NewDescribeQuorumRequestTopic()
		t.Topic = "__cluster_metadata"
		t.Partitions = append(t.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
		req := kmsg.NewPtrDescribeQuorumRequest()
		req.Topics = append(req.Topics, t)
		return poll(ctx, func() error {
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
				return err
			}
			if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
				return errors.New("the answer is not about the quorum")
			}
			if i = k.indexes(resp.Topics[0].Partitions[0].LeaderID)[0]; i < 0 {
				return errors.New("there is none")
			}
			return nil
		})
	})
	return i, err
}

// GroupCoordinator returns the broker that coordinates a consumer group.
func (k *Kafka) GroupCoordinator(ctx context.Context, group string) (i int, err error) {
	err = k.admin(ctx, "ask for the coordinator of "+group, func(ctx context.Context, cl *kgo.Client) error {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = group, []string{group}
		return poll(ctx, func() error {
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			id, code := resp.NodeID, resp.ErrorCode
			if len(resp.Coordinators) == 1 {
				id, code = resp.Coordinators[0].NodeID, resp.Coordinators[0].ErrorCode
			}
			if err := kerr.ErrorForCode(code); err != nil {
				return err
			}
			if i = k.indexes(id)[0]; i < 0 {
				return errors.New("there is none")
			}
			return nil
		})
	})
	return i, err
}

// Committed returns the sum of what a group has committed for a topic, and how many of its partitions have
// Tidewire's epochs with them.
func (k *Kafka) Committed(ctx context.Context, group, topic string, partitions int) (sum int64, epochs int, err error) {
	err = k.admin(ctx, "ask for the commits of "+group, func(ctx context.Context, cl *kgo.Client) error {
		sum, epochs = 0, 0
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic = topic
		old := kmsg.NewOffsetFetchRequestTopic()
		old.Topic = topic
		meta, err := topicMetadata(ctx, cl, topic)
		if err != nil {
			return err
		}
		t.TopicID = meta.TopicID
		for p := range int32(partitions) {
			t.Partitions, old.Partitions = append(t.Partitions, p), append(old.Partitions, p)
		}
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group, g.Topics = group, append(g.Topics, t)
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group, req.Topics, req.Groups = group, append(req.Topics, old), append(req.Groups, g)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, g := range resp.Groups {
			if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
				return err
			}
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						return err
					}
					sum += max(0, p.Offset)
					if p.Metadata != nil && len(*p.Metadata) > 4 && (*p.Metadata)[:4] == "tw1:" {
						epochs++
					}
				}
			}
		}
		return nil
	})
	return sum, epochs, err
}

// commitsTime is how long the group may take to commit again after something happened to it. A member that Kafka
// no longer heard is put out of the group after half a minute, and only then do the others go on.
const commitsTime = 90 * time.Second

// WaitCommits waits until the group has committed more than it had, for all partitions and with their epochs.
func (k *Kafka) WaitCommits(ctx context.Context, group, topic string, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, commitsTime)
	defer cancel()
	had := int64(-1)
	err := poll(ctx, func() error {
		sum, epochs, err := k.Committed(ctx, group, topic, partitions)
		switch {
		case err != nil:
			return err
		case had < 0:
			had = sum
		case epochs == partitions && sum > had:
			return nil
		}
		return fmt.Errorf("%d partitions of %d have epochs with their commits, which come to %d; they came to %d", epochs, partitions, sum, had)
	})
	if err != nil {
		return fmt.Errorf("the group %s does not commit: %w", group, err)
	}
	return nil
}
