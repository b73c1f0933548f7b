package kafkaio

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// Leaders knows which broker leads a partition. Its methods may be called from any goroutine.
type Leaders interface {
	// Leader is the leader's address and epoch as far as is known. It does not block.
	Leader(tp bridge.TopicPartition) (addr string, epoch int32, ok bool)
	// Refresh asks Kafka for the leaders again.
	Refresh(ctx context.Context) error
}

// ProducerConfig holds a Producer's settings. Client and Leaders are required; zero stands for the
// default elsewhere.
type ProducerConfig struct {
	Client  *Client
	Leaders Leaders
	Log     zerolog.Logger

	QueueRecords int // records waiting for one partition; default 10,000
	QueueBytes   int // and their bytes; default 16 MiB; also the largest record
	BatchBytes   int // of a batch of several records; default 512 KiB

	// RequestTimeout is how long a broker may wait for the in-sync replicas; default 2 s. A broker
	// that has not answered a second later counts as gone.
	RequestTimeout time.Duration
}

// Producer writes records with acks=all, each once even if it has to be sent again (Kafka's idempotent
// producer, KIP-98).
//
// How it works. Each partition has a queue and at most one batch on its way. While that batch is under
// way further records gather in the queue and make the next batch: batches grow with the load and no
// record lingers. A request to a broker carries a batch of every partition that has one ready for it.
//
// Invariants, which make a retry harmless:
//
//  1. A batch keeps its bytes, producer id and sequence number until it is settled, that is until
//     Kafka has answered for good.
//  2. A partition's next batch is not made before the last one is settled or given up.
//  3. A batch whose fate is unknown is given up only together with the producer id it was sent
//     under: the partition goes on with a newer id, whose sequence starts at 0. So the next batch
//     cannot be taken for the lost one, nor be refused for the gap the lost one may have left.
//
// A caller whose time is up gets its error at once. Its batch is not sent again for a caller that is
// gone: clients repeat a publish under the same message id, and that is recognised for a limited time
// only, so an echo that reached Kafka minutes later would be a second copy. What is on the wire at that
// moment is waited for, and given up under invariant 3 if the answer does not settle it.
type Producer struct {
	cfg    ProducerConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	kickRetry   chan struct{} // one slot: the set of waiting partitions has changed
	kickRefresh chan struct{} // one slot: leaders are out of date
	kickID      chan struct{} // one slot: a newer producer id is needed

	mu         sync.Mutex
	closed     bool
	partitions map[bridge.TopicPartition]*partition
	waiting    map[*partition]struct{} // those in stateWaiting
	brokers    map[string]*broker
	warm       []bridge.TopicPartition
	current    producerID // the newest id
	generation uint64     // of current; 0: none yet
	wantID     uint64     // a generation above this one is wanted
	idErr      error      // why there is none
}

var _ bridge.Producer = (*Producer)(nil)

// ErrQueueFull says that too many records wait for the partition. The record was not written.
var ErrQueueFull = errors.New("kafkaio: too many records are waiting for the partition")

// ErrOutcomeUnknown says that Kafka lost track of what it has of a batch that had been sent before: the
// record may or may not have been written.
var ErrOutcomeUnknown = errors.New("kafkaio: unknown whether Kafka has the record")

// errNoLeader: Kafka names no leader for the partition.
var errNoLeader = errors.New("the partition has no known leader")

// NewProducer starts a producer. It asks for a producer id at once, so that the first record need not
// wait for one.
func NewProducer(cfg ProducerConfig) (*Producer, error) {
	if cfg.Client == nil || cfg.Leaders == nil {
		return nil, errors.New("kafkaio: a producer needs a client and leaders")
	}
	if cfg.QueueRecords <= 0 {
		cfg.QueueRecords = 10_000
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 16 << 20
	}
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = 512 << 10
	}
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = 2 * time.Second
	}
	p := &Producer{
		cfg:         cfg,
		kickRetry:   make(chan struct{}, 1),
		kickRefresh: make(chan struct{}, 1),
		kickID:      make(chan struct{}, 1),
		partitions:  make(map[bridge.TopicPartition]*partition),
		waiting:     make(map[*partition]struct{}),
		brokers:     make(map[string]*broker),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Add(4)
	go p.retryLoop()
	go p.refreshLoop()
	go p.idLoop()
	go p.warmLoop()
	kick(p.kickID)
	return p, nil
}

// Warm says to which partitions' leaders a connection is kept open even while nothing is written, so
// that the first record after a failover need not wait for one. It replaces the set of the last call.
func (p *Producer) Warm(tps []bridge.TopicPartition) {
	p.mu.Lock()
	p.warm = append([]bridge.TopicPartition(nil), tps...)
	p.mu.Unlock()
	p.keepWarm()
}

// pending is one record on its way. All fields but done are guarded by the producer's mutex.
type pending struct {
	record bridge.Record
	size   int
	solo   bool          // to be sent in a batch of its own
	elem   *list.Element // in the partition's queue; nil: not queued
	batch  *batch        // nil: not taken yet
	gone   bool          // its caller has left
	done   chan outcome  // one slot
}

type outcome struct {
	produced bridge.Produced
	err      error
}

func (r *pending) finish(o outcome) {
	if !r.gone {
		r.done <- o // one slot, and settled once
	}
}

// Produce implements bridge.Producer. A zero timestamp stands for now; the record's offset is ignored;
// key, value and headers must not change until it returns, nor after it if it fails. It retries until
// ctx ends.
func (p *Producer) Produce(ctx context.Context, tp bridge.TopicPartition, r bridge.Record) (bridge.Produced, error) {
	if err := ctx.Err(); err != nil {
		return bridge.Produced{}, fmt.Errorf("produce to %s: %w", tp, err)
	}
	if r.Timestamp == 0 {
		r.Timestamp = time.Now().UnixMilli()
	}
	rec := &pending{record: r, size: recordSize(r), done: make(chan outcome, 1)}
	if rec.size > p.cfg.QueueBytes {
		err := fmt.Errorf("%d bytes are more than this program sends (%d)", rec.size, p.cfg.QueueBytes)
		return bridge.Produced{}, &bridge.RejectedError{TooLarge: true, Err: err}
	}
	pt, err := p.enqueue(tp, rec)
	if err != nil {
		return bridge.Produced{}, fmt.Errorf("produce to %s: %w", tp, err)
	}
	select {
	case o := <-rec.done:
		return o.produced, o.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case o := <-rec.done: // settled meanwhile
		return o.produced, o.err
	default:
	}
	last := pt.lastErr
	if last == nil && pt.batch == nil && p.generation == 0 {
		last = p.idErr
	}
	p.abandon(pt, rec)
	if last != nil {
		return bridge.Produced{}, fmt.Errorf("produce to %s: %w (Kafka: %w)", tp, ctx.Err(), last)
	}
	return bridge.Produced{}, fmt.Errorf("produce to %s: %w", tp, ctx.Err())
}

func (p *Producer) enqueue(tp bridge.TopicPartition, rec *pending) (*partition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	pt := p.partitions[tp]
	if pt == nil {
		pt = &partition{tp: tp}
		p.partitions[tp] = pt
	}
	if pt.queue.Len() >= p.cfg.QueueRecords || pt.queued+rec.size > p.cfg.QueueBytes {
		return nil, ErrQueueFull
	}
	pt.push(rec)
	if pt.state == stateIdle {
		p.schedule(pt)
	}
	return pt, nil
}

// Close ends what is under way and waits for the producer's goroutines. Calls of Produce that have not
// been answered return ErrClosed; their records may or may not have been written.
func (p *Producer) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.cancel()
		for _, pt := range p.partitions {
			err := fmt.Errorf("produce to %s: %w", pt.tp, ErrClosed)
			for rec := pt.pop(); rec != nil; rec = pt.pop() {
				rec.finish(outcome{err: err})
			}
			if pt.batch != nil {
				for _, rec := range pt.batch.records {
					rec.finish(outcome{err: err})
					rec.gone = true
				}
			}
		}
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// kick wakes the reader of a one-slot channel.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
