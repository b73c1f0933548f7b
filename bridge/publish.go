package bridge

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// publishTimeout bounds a publish from the edge's call to its answer.
const publishTimeout = 5 * time.Second

// Publish writes a client's record to Kafka through the coordinator of its partition, wherever that
// is. While the coordinator moves it tries again, as long as it is sure that nothing was written.
func (b *Bridge) Publish(ctx context.Context, req PublishRequest) (PublishResult, error) {
	select {
	case <-b.known:
	default: // just started: whether the topic is open is not known either
		return PublishResult{}, unavailable(errors.New("the topics of Kafka are not known yet"))
	}
	m, ok := b.topicMeta(req.Topic)
	if !ok || !m.Publish || m.Partitions < 1 {
		return PublishResult{}, ErrNotExposed
	}
	if req.Ack == AckReplicated && !m.Exposed {
		return PublishResult{}, &RejectedError{Err: fmt.Errorf("topic %q is not read by the edge: use ack \"kafka\"", req.Topic)}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	tp := TopicPartition{req.Topic, partitionOf(req, m.Partitions)}
	for {
		res, err := b.publishOnce(ctx, tp, req)
		if !errors.Is(err, ErrNotCoordinator) {
			return res, err
		}
		if !pause(ctx, coordinatorRetry) {
			return PublishResult{}, unavailable(fmt.Errorf("coordinator of %v: %w", tp, err))
		}
	}
}

// publishOnce asks the node that coordinates now.
func (b *Bridge) publishOnce(ctx context.Context, tp TopicPartition, req PublishRequest) (PublishResult, error) {
	node, ok := b.cfg.Replicator.Leader(b.groupOf(tp))
	switch {
	case !ok:
		return PublishResult{}, ErrNotCoordinator
	case node == b.cfg.Node:
		return b.LocalPublish(ctx, tp, req)
	}
	return b.cfg.Peers.Publish(ctx, node, tp, req)
}

// partitionOf returns the partition of a publish: murmur2 of the key as Java's producer has it; without
// a key by the message id, so that a repeat finds the partition of the first; else any.
func partitionOf(req PublishRequest, partitions int32) int32 {
	switch {
	case req.Key != nil:
		return PartitionFor(req.Key, partitions)
	case req.Mid != "":
		h := fnv.New32a()
		h.Write([]byte(req.User))
		h.Write([]byte{0})
		h.Write([]byte(req.Mid))
		return int32(h.Sum32() % uint32(partitions))
	}
	return rand.Int32N(partitions)
}

// LocalPublish writes a record to a partition that this node coordinates; another node may have sent
// it here. ErrNotCoordinator means that nothing was written.
func (b *Bridge) LocalPublish(ctx context.Context, tp TopicPartition, req PublishRequest) (PublishResult, error) {
	l := b.lead(b.groupOf(tp))
	if l == nil {
		return PublishResult{}, ErrNotCoordinator
	}
	if m, ok := b.topicMeta(tp.Topic); !ok || !m.Publish {
		return PublishResult{}, ErrNotExposed
	}
	res, err := l.pub.publish(ctx, tp, req)
	if !errors.Is(err, ErrNotCoordinator) {
		b.cfg.Metrics.Published(outcome(res, err))
	}
	return res, err
}

func outcome(res PublishResult, err error) string {
	var rejected *RejectedError
	switch {
	case err == nil && res.Duplicate:
		return "duplicate"
	case err == nil:
		return "acked"
	case errors.As(err, &rejected), errors.Is(err, ErrTooLarge), errors.Is(err, ErrNotExposed):
		return "refused"
	}
	return "unavailable"
}

// publishing is a coordinator's side of the publishes of its group: it sees to it that one message id
// of one user is written once.
//
// Three places know a message id, and each hands over to the next without a hole: first while it is
// on its way to Kafka, then until the ledger has read it back, here (flights); from then on in the
// ledger's window, on every node. A new coordinator does not know what the old one had on its way, so
// it takes no id in a partition before its ledger has read everything that was in Kafka when it asked
// (settled). A ledger that was taken up from commits begins at Kafka's end, and gets the ids of what is before
// it by a recall. What still slips through, a record of a dead coordinator that reaches Kafka after that,
// is dropped by the ledger, so that subscribers get it once.
type publishing struct {
	l *lead

	mu    sync.Mutex
	parts map[TopicPartition]*publishPart
}

type publishPart struct {
	settle  chan struct{} // one slot: taken while finding out whether the ledger is at Kafka's end
	settled bool
	doubts  int // counts outcomes that were not known; a settling that one overtook does not count
	flights map[midKey]*flight
	written midWindow // of a topic that the edge does not read: there the ledger knows nothing
}

type flight struct {
	done chan struct{}
	at   landing // once done, when err is nil
	err  error
}

// A landing is where a record was written, with what the ledger said before. An offset that the ledger had
// passed already then is one of another log: Kafka has truncated the partition or made it anew, and the
// ledger has yet to find out. It has the record only in an epoch that began after.
type landing struct {
	offset Offset
	next   Offset // the ledger's next offset before
	epoch  Epoch  // and its epoch
}

// departure returns a landing that lacks its offset yet. lp may be nil.
func departure(lp *partition) (a landing) {
	if lp != nil {
		lp.view(func(l *ledger) {
			if l.started() {
				a.next, a.epoch = l.next(), l.head().Epoch
			}
		})
	}
	return a
}

// in says whether the ledger has taken the record.
func (a landing) in(l *ledger) bool {
	if !l.started() || l.next() <= a.offset {
		return false
	}
	e := l.epochs.at(a.offset)
	return a.offset >= a.next || (e != nil && e.Epoch > a.epoch)
}

// maxFlights bounds the message ids of one partition that are on their way to the ledger.
const maxFlights = 65536

func newPublishing(l *lead) *publishing {
	return &publishing{l: l, parts: make(map[TopicPartition]*publishPart)}
}

func (p *publishing) part(tp TopicPartition) *publishPart {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.parts[tp]
	if part == nil {
		part = &publishPart{settle: make(chan struct{}, 1), flights: make(map[midKey]*flight)}
		p.parts[tp] = part
	}
	return part
}

func (p *publishing) publish(ctx context.Context, tp TopicPartition, req PublishRequest) (PublishResult, error) {
	if req.Mid == "" {
		at, err := p.produce(ctx, tp, req)
		if err != nil {
			return PublishResult{}, err
		}
		return p.result(ctx, tp, req, at, false)
	}
	part := p.part(tp)
	if err := p.settle(ctx, tp, part); err != nil {
		return PublishResult{}, err
	}
	if p.l.ctx.Err() != nil {
		return PublishResult{}, ErrNotCoordinator // the role ended meanwhile: let the next one write it
	}
	key := keyOfMid(req.User, req.Mid)
	f, first, offset, err := p.take(tp, part, key)
	switch {
	case err != nil:
		return PublishResult{}, err
	case f == nil: // the ledger has it
		return p.result(ctx, tp, req, landing{offset: offset}, true)
	case first:
		// The caller may go away, but what is on its way to Kafka is followed to its end: the next
		// one with this id waits for it. The deadline stays: what settling took is not to be had again.
		end, ok := ctx.Deadline()
		if !ok {
			end = time.Now().Add(publishTimeout)
		}
		pctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
		f.at, f.err = p.produce(pctx, tp, req)
		cancel()
		p.land(tp, part, key, f)
		if f.err != nil {
			return PublishResult{}, f.err
		}
		return p.result(ctx, tp, req, f.at, false)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return PublishResult{}, unavailable(ctx.Err())
	}
	if f.err != nil {
		return PublishResult{}, f.err
	}
	return p.result(ctx, tp, req, f.at, true)
}

// ledgerOf returns the partition when its ledger follows what is written to it: a topic that the edge
// once read and reads no more has a ledger that stands still.
func (p *publishing) ledgerOf(tp TopicPartition) *partition {
	if m, ok := p.l.b.topicMeta(tp.Topic); !ok || !m.Exposed {
		return nil
	}
	return p.l.b.started(tp)
}

// take says what is known of a message id: its flight (first is true for the one who must fly it), or
// with f nil the offset where the ledger has it.
func (p *publishing) take(tp TopicPartition, part *publishPart, key midKey) (f *flight, first bool, o Offset, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := part.flights[key]; f != nil {
		return f, false, 0, nil
	}
	// Flights leave only after the ledger has them, so looking here second misses nothing.
	if lp := p.ledgerOf(tp); lp != nil {
		found := false
		lp.view(func(l *ledger) { o, found = l.mids.find(key) })
		if found {
			return nil, false, o, nil
		}
	} else if o, found := part.written.find(key); found {
		return nil, false, o, nil
	}
	if len(part.flights) >= maxFlights {
		return nil, false, 0, unavailable(fmt.Errorf("%d publishes to %v are waiting to be read back", maxFlights, tp))
	}
	f = &flight{done: make(chan struct{})}
	part.flights[key] = f
	return f, true, 0, nil
}

// land ends a flight. One that reached Kafka stays until the ledger has it.
func (p *publishing) land(tp TopicPartition, part *publishPart, key midKey, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(f.done)
	lp := p.ledgerOf(tp)
	switch {
	case f.err != nil:
		delete(part.flights, key)
		var rejected *RejectedError
		if !errors.As(f.err, &rejected) && !errors.Is(f.err, ErrTooLarge) {
			part.settled = false // it may have been written: look before the next one
			part.doubts++
		}
	case lp == nil:
		delete(part.flights, key)
		if _, seen := part.written.find(key); !seen {
			part.written.add(key, f.at.offset)
		}
	default:
		read := false
		lp.view(func(l *ledger) { read = f.at.in(l) })
		if read {
			delete(part.flights, key)
		}
	}
}

// reached is told that the ledger of a partition has moved on.
func (p *publishing) reached(tp TopicPartition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part, lp := p.parts[tp], p.l.b.started(tp)
	if part == nil || lp == nil || len(part.flights) == 0 {
		return
	}
	lp.view(func(l *ledger) {
		for key, f := range part.flights {
			select {
			case <-f.done:
				if f.err == nil && f.at.in(l) {
					delete(part.flights, key)
				}
			default:
			}
		}
	})
}

// settle waits until the ledger has read what was in Kafka when this coordinator began, so that it
// knows the message ids of the one before; also those of an earlier life of the cluster, which it does not read.
func (p *publishing) settle(ctx context.Context, tp TopicPartition, part *publishPart) error {
	if m, ok := p.l.b.topicMeta(tp.Topic); !ok || !m.Exposed {
		return nil // never read: the ids are known in this role's memory alone
	}
	select {
	case part.settle <- struct{}{}:
		defer func() { <-part.settle }()
	case <-ctx.Done():
		return unavailable(fmt.Errorf("%v is not read to its end yet: %w", tp, ctx.Err()))
	}
	p.mu.Lock()
	settled, doubts := part.settled, part.doubts
	p.mu.Unlock()
	if settled {
		return nil
	}
	end, err := p.l.b.cfg.Offsets.Latest(ctx, tp)
	if err != nil {
		return unavailable(fmt.Errorf("ask Kafka for the end of %v: %w", tp, err))
	}
	for {
		if lp := p.l.b.started(tp); lp != nil {
			if err := lp.wait(ctx, func(l *ledger) bool { return l.next() >= end && p.l.knowsMids(tp, l) }); err != nil {
				return unavailable(fmt.Errorf("%v is not read to its end yet: %w", tp, err))
			}
			break
		}
		if !pause(ctx, coordinatorRetry) {
			return unavailable(fmt.Errorf("%v is not being read yet: %w", tp, ctx.Err()))
		}
	}
	p.mu.Lock()
	part.settled = part.doubts == doubts
	p.mu.Unlock()
	return nil
}

// produce writes to Kafka.
func (p *publishing) produce(ctx context.Context, tp TopicPartition, req PublishRequest) (landing, error) {
	r := Record{Timestamp: time.Now().UnixMilli(), Key: req.Key, Value: req.Value, Headers: req.Headers}
	if req.Mid != "" {
		r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], Header{Key: HeaderMid, Value: []byte(req.Mid)})
	}
	if req.User != "" {
		r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], Header{Key: HeaderUser, Value: []byte(req.User)})
	}
	at := departure(p.ledgerOf(tp))
	produced, err := p.l.b.cfg.Producer.Produce(ctx, tp, r)
	var rejected *RejectedError
	switch {
	case err == nil:
		at.offset = produced.Offset
		return at, nil
	case errors.As(err, &rejected) && rejected.TooLarge:
		return landing{}, p.tooLarge(ctx, tp, rejected.Err)
	case errors.As(err, &rejected):
		return landing{}, err
	}
	return landing{}, unavailable(fmt.Errorf("write to %v: %w", tp, err))
}

// limitTimeout bounds the question for the limit that a record was over: the answer to the client is known.
const limitTimeout = time.Second

// tooLarge is the error of a record that Kafka found too large, with the limit if Kafka tells it: its refusal
// does not.
func (p *publishing) tooLarge(ctx context.Context, tp TopicPartition, why error) error {
	limits, ok := p.l.b.cfg.Producer.(TopicLimits)
	if !ok {
		return fmt.Errorf("%w: %w", ErrTooLarge, why)
	}
	ctx, cancel := context.WithTimeout(ctx, limitTimeout)
	defer cancel()
	limit, err := limits.MaxMessageBytes(ctx, tp.Topic)
	if err != nil {
		return fmt.Errorf("%w: %w (the limit cannot be had: %w)", ErrTooLarge, why, err)
	}
	return fmt.Errorf("%w: a record has at most %d bytes there, its key, its headers and some 70 bytes besides included", ErrTooLarge, limit)
}

// result makes the answer, after waiting for the edge cluster's commit where that was asked for.
func (p *publishing) result(ctx context.Context, tp TopicPartition, req PublishRequest, at landing, duplicate bool) (PublishResult, error) {
	res := PublishResult{Partition: tp.Partition, Offset: at.offset, Duplicate: duplicate}
	lp := p.ledgerOf(tp)
	if req.Ack == AckReplicated {
		for lp == nil {
			if !pause(ctx, coordinatorRetry) {
				return PublishResult{}, unavailable(fmt.Errorf("%v is not being read yet: %w", tp, ctx.Err()))
			}
			lp = p.ledgerOf(tp)
		}
		if err := lp.wait(ctx, at.in); err != nil {
			return PublishResult{}, unavailable(fmt.Errorf("written to Kafka, not yet agreed on by the edge: %w", err))
		}
	}
	if lp == nil {
		return res, nil
	}
	lp.view(func(l *ledger) {
		if !at.in(l) {
			return
		}
		if req.Mid != "" && l.isDropped(at.offset) { // a repeat that a failover let through: answer with the first
			if first, ok := l.mids.find(keyOfMid(req.User, req.Mid)); ok {
				res.Offset, res.Duplicate = first, true
			}
		}
		res.Pos, _ = l.epochs.position(res.Offset)
	})
	return res, nil
}
