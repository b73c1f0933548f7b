package kafkatest

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientTimeout bounds each call of the reference clients.
const clientTimeout = 2 * time.Minute

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
