package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ReadCommitted returns all records of a topic that a read_committed consumer
// sees, by partition and offset: the reference for what Tidewire must deliver.
// It reads up to the last stable offsets as they are when it is called, or soon
// after for transactions that have just ended; so records of transactions that
// are still open, and any after them, are left out.
// opts are for the connection, such as kgo.DialTLSConfig.
//
// It sends its own fetches and has kgo take the batches apart, rather than poll a
// kgo consumer: a log may end in aborted or compacted records, of which a
// consumer hands out nothing, so that only a fetch's position tells that the end
// was reached.
func ReadCommitted(t testing.TB, brokers []string, topic string, opts ...kgo.Opt) []Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	records, err := readCommitted(ctx, brokers, topic, opts)
	if err != nil {
		t.Fatalf("read %s: %v", topic, err)
	}
	return records
}

func readCommitted(ctx context.Context, brokers []string, topic string, opts []kgo.Opt) ([]Record, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...)}, opts...)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var meta *kmsg.MetadataResponseTopic
	var starts, ends map[int32]int64
	// A broker that stood still leads nothing for a moment, also when it is the only one.
	err = pollOn(ctx, leaderAway, func() error {
		var err error
		if meta, err = topicMetadata(ctx, cl, topic); err != nil {
			return err
		}
		if starts, err = listOffsets(ctx, cl, meta, topic, earliest, true); err != nil {
			return err
		}
		ends, err = stableEnds(ctx, cl, meta, topic)
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []Record
	for p := range int32(len(meta.Partitions)) {
		records, err := readPartition(ctx, cl, topic, p, starts[p], ends[p])
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
		out = append(out, records...)
	}
	return out, nil
}

// stableEnds returns the last stable offset of each partition once it has reached what was the high watermark: a broker
// says that a transaction has ended before it has written so into the partitions. One that is open is waited for only
// for stableTime.
func stableEnds(ctx context.Context, cl *kgo.Client, meta *kmsg.MetadataResponseTopic, topic string) (ends map[int32]int64, err error) {
	written, err := listOffsets(ctx, cl, meta, topic, latest, false)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(stableTime); ; {
		if ends, err = listOffsets(ctx, cl, meta, topic, latest, true); err != nil {
			return nil, err
		}
		behind := false
		for p, end := range ends {
			behind = behind || end < written[p]
		}
		if !behind || time.Now().After(deadline) {
			return ends, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

const stableTime = 30 * time.Second

// leaderAway says whether an error means that a partition has no leader just now, or another one.
func leaderAway(err error) bool {
	return errors.Is(err, kerr.LeaderNotAvailable) || errors.Is(err, kerr.NotLeaderForPartition)
}

// readPartition returns the committed records with offsets in [from, end).
func readPartition(ctx context.Context, cl *kgo.Client, topic string, partition int32, from, end int64) ([]Record, error) {
	var out []Record
	for at := from; at < end; {
		var fetched kgo.FetchPartition
		var next int64
		err := poll(ctx, func() error { // leaders move while brokers come and go
			var err error
			fetched, next, err = fetch(ctx, cl, topic, partition, at)
			if errors.Is(err, kerr.OffsetOutOfRange) {
				next, err = movedStart(ctx, cl, topic, partition, at)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("fetch at %d: %w", at, err)
		}
		if next <= at {
			return nil, fmt.Errorf("fetch at %d: nothing there, though the last stable offset is %d", at, end)
		}
		for _, r := range fetched.Records {
			if r.Offset < end {
				out = append(out, *r)
			}
		}
		at = next
	}
	return out, nil
}

// movedStart returns where a partition begins since its records from at on were deleted, and an error when they were not.
func movedStart(ctx context.Context, cl *kgo.Client, topic string, partition int32, at int64) (int64, error) {
	meta, err := topicMetadata(ctx, cl, topic)
	if err != nil {
		return 0, err
	}
	starts, err := listOffsets(ctx, cl, meta, topic, earliest, true)
	if err != nil {
		return 0, err
	}
	if starts[partition] <= at {
		return 0, fmt.Errorf("%w: it begins at %d", kerr.OffsetOutOfRange, starts[partition])
	}
	return starts[partition], nil
}

// fetch sends one fetch to the partition's leader and returns the committed
// records of its answer and the offset that follows the answer's last batch.
func fetch(ctx context.Context, cl *kgo.Client, topic string, partition int32, at int64) (kgo.FetchPartition, int64, error) {
	none := kgo.FetchPartition{}
	meta, err := topicMetadata(ctx, cl, topic)
	if err != nil {
		return none, 0, err
	}
	leader := int32(-1)
	for _, p := range meta.Partitions {
		if p.Partition == partition {
			leader = p.Leader
		}
	}
	if leader < 0 {
		return none, 0, kerr.LeaderNotAvailable
	}

	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, at, 16<<20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID, ft.Partitions = topic, meta.TopicID, append(ft.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, 16<<20
	req.IsolationLevel = 1 // read_committed: the answer lists the aborted transactions
	req.Topics = append(req.Topics, ft)
	raw, err := cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return none, 0, err
	}
	resp := raw.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return none, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return none, 0, errors.New("the answer is not for the one partition asked for")
	}
	fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset:         at,
		IsolationLevel: kgo.ReadCommitted(),
		Topic:          topic,
		Partition:      partition,
	}, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	return fetched, next, fetched.Err
}

// What ListOffsets takes in place of a time.
const (
	latest   = -1
	earliest = -2
)

// listOffsets returns an offset of each partition of a topic: at latest the last
// stable one if committed, else the high watermark.
func listOffsets(ctx context.Context, cl *kgo.Client, meta *kmsg.MetadataResponseTopic, topic string, when int64, committed bool) (map[int32]int64, error) {
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, m := range meta.Partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = m.Partition, when
		t.Partitions = append(t.Partitions, p)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	if committed {
		req.IsolationLevel = 1
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl) // kgo sends each leader its part
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	out := make(map[int32]int64)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("list offsets of partition %d: %w", p.Partition, err)
			}
			out[p.Partition] = p.Offset
		}
	}
	return out, nil
}
