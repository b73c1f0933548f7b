package kafkatest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clientTimeout bounds each call of the reference clients.
const clientTimeout = time.Minute

// Record is a record as the reference clients write and read it.
type Record = kgo.Record

// Producer is a kgo producer, the reference for writing: acks=all, idempotent,
// and keys partitioned by murmur2 as the Java client does.
type Producer struct {
	Client *kgo.Client
	t      testing.TB
}

// NewProducer returns a producer that is closed with the test. Records with a
// key go to the key's partition, those without stay on one partition for a
// batch; a record's Partition is ignored. opts are added to kgo's options, for
// example kgo.ProducerBatchCompression.
func NewProducer(t testing.TB, brokers []string, opts ...kgo.Opt) *Producer {
	t.Helper()
	all := append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // nil: murmur2, made positive and taken modulo, as in Java
		kgo.ProducerLinger(0),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}, opts...)
	cl, err := kgo.NewClient(all...)
	if err != nil {
		t.Fatalf("make a producer: %v", err)
	}
	t.Cleanup(cl.Close)
	return &Producer{Client: cl, t: t}
}

// NewManualProducer is [NewProducer] with each record going to its Partition.
func NewManualProducer(t testing.TB, brokers []string, opts ...kgo.Opt) *Producer {
	t.Helper()
	return NewProducer(t, brokers, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
}

// NewTransactionalProducer is [NewProducer] for use with [Producer.Commit] and
// [Producer.Abort] only. The id must be the producer's own in the cluster.
func NewTransactionalProducer(t testing.TB, brokers []string, id string, opts ...kgo.Opt) *Producer {
	t.Helper()
	return NewProducer(t, brokers, append([]kgo.Opt{kgo.TransactionalID(id)}, opts...)...)
}

// Produce writes records and returns once all are acknowledged; their Partition
// and Offset are then set.
func (p *Producer) Produce(records ...*Record) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	if err := p.Client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		p.t.Fatalf("produce: %v", err)
	}
}

// Commit writes records in one transaction that it commits.
func (p *Producer) Commit(records ...*Record) {
	p.t.Helper()
	p.transaction(kgo.TryCommit, records)
}

// Abort writes records in one transaction that it aborts: they are in the log,
// and no read_committed consumer may ever see them.
func (p *Producer) Abort(records ...*Record) {
	p.t.Helper()
	p.transaction(kgo.TryAbort, records)
}

func (p *Producer) transaction(end kgo.TransactionEndTry, records []*Record) {
	p.t.Helper()
	if err := p.Client.BeginTransaction(); err != nil {
		p.t.Fatalf("begin a transaction: %v", err)
	}
	p.Produce(records...)
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	if err := p.Client.EndTransaction(ctx, end); err != nil {
		p.t.Fatalf("end a transaction: %v", err)
	}
}

// ReadCommitted returns all records of a topic that a read_committed consumer
// sees, by partition and offset: the reference for what Tidewire must deliver.
// It reads to the last stable offsets as they are when it is called, so records
// of transactions still open then, and any after them, are left out.
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
	admin, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...)}, opts...)...)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	meta, err := topicMetadata(ctx, admin, topic)
	if err != nil {
		return nil, err
	}
	var partitions []int32
	for _, p := range meta.Partitions {
		partitions = append(partitions, p.Partition)
	}
	ends, err := stableOffsets(ctx, admin, topic, partitions, -1)
	if err != nil {
		return nil, err
	}
	starts, err := stableOffsets(ctx, admin, topic, partitions, -2)
	if err != nil {
		return nil, err
	}
	from := make(map[int32]kgo.Offset)
	for p, end := range ends {
		if starts[p] < end {
			from[p] = kgo.NewOffset().At(starts[p])
		}
	}
	if len(from) == 0 {
		return nil, nil
	}
	// Control records are kept: a partition that ends in a commit or abort marker
	// has been read to its end only once the marker has been seen.
	all := append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchMaxWait(100 * time.Millisecond),
	}, opts...)
	cl, err := kgo.NewClient(all...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return readTo(ctx, cl, topic, from, ends)
}

// readTo polls until every partition of from has been read to its end.
//
// The position, not the last record, tells: after compaction or with aborted
// records the end of a log may hold nothing to hand out. kgo moves a partition's
// position over such holes only when it hands out a record, so where the client
// stays silent for a while, a partition counts as read if the broker, asked
// directly from the position on, has nothing committed below the end.
func readTo(ctx context.Context, cl *kgo.Client, topic string, from map[int32]kgo.Offset, ends map[int32]int64) ([]Record, error) {
	var out []Record
	left := make(map[int32]bool)
	for p := range from {
		left[p] = true
	}
	for len(left) > 0 {
		quiet, cancel := context.WithTimeout(ctx, quietTime)
		fetches := cl.PollFetches(quiet)
		cancel()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w with partitions %v unfinished", err, left)
		}
		for _, e := range fetches.Errors() {
			if e.Topic != "" && kerr.IsRetriable(e.Err) || e.Err == context.DeadlineExceeded {
				continue
			}
			return nil, e.Err
		}
		got := 0
		fetches.EachRecord(func(r *kgo.Record) {
			got++
			if r.Offset >= ends[r.Partition]-1 {
				delete(left, r.Partition)
			}
			if r.Offset < ends[r.Partition] && !r.Attrs.IsControl() {
				out = append(out, *r)
			}
		})
		if got == 0 && fetches.NumRecords() == 0 {
			break // silence: what is left ends in a hole
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return out, nil
}

// quietTime is how long a client that has more to hand out is silent at most.
const quietTime = 2 * time.Second

// stableOffsets returns the offsets of partitions for a timestamp: -1 the last
// stable ones, -2 the first.
func stableOffsets(ctx context.Context, cl *kgo.Client, topic string, partitions []int32, timestamp int64) (map[int32]int64, error) {
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, p := range partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p, timestamp
		t.Partitions = append(t.Partitions, lp)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl) // kgo splits it by leader
	if err != nil {
		return nil, err
	}
	out := make(map[int32]int64)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("partition %d: %w", p.Partition, err)
			}
			out[p.Partition] = p.Offset
		}
	}
	return out, nil
}
