package kafkaio

import (
	"container/list"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// partition is what the producer knows of one partition. It is guarded by the producer's mutex.
//
// It is in one of four states: idle (nothing to send), waiting (for a time, a leader or a producer id),
// ready (in the list of its leader's broker), sending (its batch is with a worker of a broker).
type partition struct {
	tp     bridge.TopicPartition
	queue  list.List // of *pending
	queued int       // their bytes
	batch  *batch    // taken from the queue and not settled; nil: none

	state    partitionState
	retryAt  time.Time // in stateWaiting and before stateReady: not sooner than this
	failures int       // in a row, for the backoff
	failedAt string    // the leader that failed last; a new one is tried at once
	lastErr  error     // for callers whose time is up

	pid      producerID
	gen      uint64 // the generation of pid; 0: the partition needs one
	burned   uint64 // generations up to this one must not be used again here
	sequence int32  // of the next batch

	limit      int // bytes of a batch, learnt from a refusal; 0: none known
	limitUntil time.Time
}

type partitionState uint8

const (
	stateIdle partitionState = iota
	stateWaiting
	stateReady
	stateSending
)

// batch is a number of records that are written together, or not at all.
type batch struct {
	records   []*pending
	live      int // records whose callers still wait
	bytes     []byte
	sequence  int32
	attempts  int   // times it was put on a connection
	ambiguous bool  // an attempt ended without Kafka saying whether it wrote the batch
	maxTime   int64 // newest timestamp
}

const (
	produceBackoff    = 10 * time.Millisecond
	maxProduceBackoff = 500 * time.Millisecond
	limitMemory       = time.Minute
)

func (pt *partition) push(rec *pending) {
	rec.batch = nil
	rec.elem = pt.queue.PushBack(rec)
	pt.queued += rec.size
}

// unpop puts records back to the front of the queue, in their order.
func (pt *partition) unpop(recs []*pending) {
	for i := len(recs) - 1; i >= 0; i-- {
		if rec := recs[i]; !rec.gone {
			rec.batch = nil
			rec.elem = pt.queue.PushFront(rec)
			pt.queued += rec.size
		}
	}
}

func (pt *partition) remove(rec *pending) {
	pt.queue.Remove(rec.elem)
	pt.queued -= rec.size
	rec.elem = nil
}

func (pt *partition) pop() *pending {
	front := pt.queue.Front()
	if front == nil {
		return nil
	}
	rec := front.Value.(*pending)
	pt.remove(rec)
	return rec
}

// form makes the next batch from the queue's front; there is none under way. It holds one record at
// least, however large.
func (pt *partition) form(maxBytes int) *batch {
	now := time.Now()
	if pt.limit > 0 && now.Before(pt.limitUntil) {
		maxBytes = min(maxBytes, pt.limit)
	}
	b := &batch{sequence: pt.sequence}
	size := batchHeaderSize
	for {
		front := pt.queue.Front()
		if front == nil {
			break
		}
		rec := front.Value.(*pending)
		if len(b.records) > 0 && (rec.solo || size+rec.size > maxBytes) {
			break
		}
		pt.remove(rec)
		rec.batch = b
		b.records = append(b.records, rec)
		b.maxTime = max(b.maxTime, rec.record.Timestamp)
		size += rec.size
		if rec.solo {
			break
		}
	}
	b.live = len(b.records)
	if b.live == 0 {
		return nil
	}
	pt.batch = b
	return b
}

// encode makes the batch's bytes, once. The batch is with the caller alone.
func (b *batch) encode(pid producerID) {
	if b.bytes != nil {
		return
	}
	size := 4 + batchHeaderSize
	records := make([]bridge.Record, len(b.records))
	for i, rec := range b.records {
		records[i] = rec.record
		size += rec.size
	}
	b.bytes = appendBatch(make([]byte, 0, size), records, pid, b.sequence)
}

// burnID makes the partition take a newer producer id before its next batch.
func (pt *partition) burnID() {
	pt.burned = max(pt.burned, pt.gen)
	pt.gen = 0
}

// schedule moves a partition that is not sending to where it belongs. The mutex is held.
func (p *Producer) schedule(pt *partition) {
	delete(p.waiting, pt)
	if p.closed || (pt.batch == nil && pt.queue.Len() == 0) {
		pt.state = stateIdle
		return
	}
	now := time.Now()
	if now.Before(pt.retryAt) {
		p.wait(pt)
		return
	}
	if pt.gen == 0 { // then there is no batch: invariant 3
		if p.generation <= pt.burned {
			p.wantID = max(p.wantID, pt.burned)
			pt.retryAt = now.Add(time.Second) // the new id comes sooner
			kick(p.kickID)
			p.wait(pt)
			return
		}
		pt.pid, pt.gen, pt.sequence = p.current, p.generation, 0
	}
	addr, _, ok := p.cfg.Leaders.Leader(pt.tp)
	if !ok {
		if pt.lastErr == nil {
			pt.lastErr = errNoLeader
		}
		p.later(pt, "")
		return
	}
	pt.state = stateReady
	b := p.brokerAt(addr)
	b.ready = append(b.ready, pt)
	b.wake()
}

// wait puts the partition aside until pt.retryAt, or an event that schedules it again.
func (p *Producer) wait(pt *partition) {
	pt.state = stateWaiting
	p.waiting[pt] = struct{}{}
	kick(p.kickRetry)
}

// later lets the partition wait for its next attempt, and asks for its leader meanwhile.
func (p *Producer) later(pt *partition, failedAt string) {
	pt.failedAt = failedAt
	pt.retryAt = time.Now().Add(min(maxProduceBackoff, produceBackoff<<min(pt.failures, 10)))
	pt.failures++
	kick(p.kickRefresh)
	p.wait(pt)
}

// abandon forgets a record whose caller leaves.
func (p *Producer) abandon(pt *partition, rec *pending) {
	rec.gone = true
	if rec.elem != nil {
		pt.remove(rec)
		return
	}
	b := rec.batch
	if b == nil || b != pt.batch {
		return
	}
	b.live--
	if b.live == 0 && pt.state != stateSending {
		p.giveUp(pt)
		// It stays where it is, waiting or ready; with nothing to send it becomes idle there.
	}
}

// giveUp drops the partition's batch, for which no caller waits any more.
func (p *Producer) giveUp(pt *partition) {
	if pt.batch.ambiguous {
		pt.burnID()
		p.wantID = max(p.wantID, pt.burned)
		kick(p.kickID)
	}
	pt.batch = nil
}

// settle takes Kafka's answer for the batch that was sent to the broker at addr. The partition is in
// stateSending. code 0 is success.
func (p *Producer) settle(pt *partition, addr string, a answer) {
	b := pt.batch
	v := verdictOf(a)
	switch {
	case v == verdictWritten:
		pt.sequence = int32((int64(b.sequence) + int64(len(b.records))) & math.MaxInt32)
		deliver(b, a)
		pt.batch, pt.lastErr = nil, nil

	case v == verdictRetry:
		b.ambiguous = b.ambiguous || a.ambiguous
		pt.lastErr = a.err
		if b.live == 0 {
			p.giveUp(pt)
		}
		p.later(pt, addr)
		return

	case b.ambiguous:
		// Kafka refuses this attempt, but an earlier one may have been written.
		p.cfg.Log.Warn().Stringer("partition", pt.tp).Err(a.err).Msg("outcome of a batch is unknown")
		err := fmt.Errorf("produce to %s: %w: %w", pt.tp, ErrOutcomeUnknown, a.err)
		for _, rec := range b.records {
			rec.finish(outcome{err: err})
		}
		pt.batch = nil
		pt.burnID()

	case v == verdictStaleID:
		// The first attempt was refused, so nothing was written: the same records may go under a new id.
		p.cfg.Log.Info().Stringer("partition", pt.tp).Err(a.err).Msg("new producer id")
		pt.lastErr = a.err
		pt.unpop(b.records)
		pt.batch = nil
		pt.burnID()
		p.later(pt, addr)
		return

	case v == verdictUnknown:
		err := fmt.Errorf("produce to %s: %w: %w", pt.tp, ErrOutcomeUnknown, a.err)
		for _, rec := range b.records {
			rec.finish(outcome{err: err})
		}
		pt.batch = nil
		pt.burnID()

	default: // refused for good; the sequence number was not used
		p.refuse(pt, b, a, v)
	}
	pt.failures = 0
	p.schedule(pt)
}

// refuse tells the callers, or sends the records again in smaller batches if only some are at fault.
func (p *Producer) refuse(pt *partition, b *batch, a answer, v verdict) {
	pt.batch = nil
	refusal := outcome{err: &bridge.RejectedError{TooLarge: v == verdictTooLarge, Err: a.err}}
	if len(b.records) == 1 || v == verdictRefusedAll {
		for _, rec := range b.records {
			rec.finish(refusal)
		}
		return
	}
	switch {
	case v == verdictTooLarge:
		// Halving finds the topic's limit in a few steps; one large record ends up in a batch of its
		// own and is refused there without its neighbours.
		pt.limit = max(1, len(b.bytes)/2)
		pt.limitUntil = time.Now().Add(limitMemory)
		pt.unpop(b.records)
	case len(a.badRecords) > 0:
		bad := make(map[int]bool, len(a.badRecords))
		for _, i := range a.badRecords {
			if i >= 0 && i < len(b.records) {
				bad[i] = true
			}
		}
		var good []*pending
		for i, rec := range b.records {
			if bad[i] {
				rec.finish(refusal)
			} else {
				rec.solo = len(bad) == 0 // should the indices be nonsense
				good = append(good, rec)
			}
		}
		pt.unpop(good)
	default:
		for _, rec := range b.records {
			rec.solo = true
		}
		pt.unpop(b.records)
	}
}

// deliver tells the callers where their records are.
func deliver(b *batch, a answer) {
	for i, rec := range b.records {
		pr := bridge.Produced{Offset: -1, Timestamp: rec.record.Timestamp}
		if a.baseOffset >= 0 {
			pr.Offset = bridge.Offset(a.baseOffset + int64(i))
		}
		// Kafka answers a repeated batch with its newest timestamp in the place of the append time,
		// whatever the topic's message.timestamp.type.
		repeat := b.attempts > 1 && a.appendTime == b.maxTime
		if a.appendTime >= 0 && !repeat {
			pr.Timestamp = a.appendTime
		}
		rec.finish(outcome{produced: pr})
	}
}

// errMissing: the broker's answer leaves out a partition that it was asked about.
var errMissing = errors.New("the broker's answer lacks the partition")
