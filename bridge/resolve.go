package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// resolveTimeout bounds what a resume may wait for another node or for Kafka.
	resolveTimeout = 3 * time.Second
	// unavailableRetry is what a client is told to wait when something could not be reached.
	unavailableRetry = 500 * time.Millisecond
)

func unavailable(err error) error {
	return &UnavailableError{RetryAfter: unavailableRetry, Err: err}
}

// Resolve says how a reader that has everything up to position at goes on in a partition. A position
// that this node does not know yet but its coordinator does is waited for: the client may come from
// a node that is ahead of this one.
func (b *Bridge) Resolve(ctx context.Context, tp TopicPartition, at Position) (Resolution, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	p := b.started(tp)
	if p == nil && at == (Position{}) {
		return Resolution{Verdict: FromCache}, nil // it is before whatever will be read there
	}
	if p == nil || b.ahead(p, at) {
		head, err := b.clusterHead(ctx, tp)
		if err != nil {
			return Resolution{}, unavailable(fmt.Errorf("ask the coordinator of %v for its head: %w", tp, err))
		}
		if at.After(head) {
			return Resolution{Verdict: Unknown}, nil
		}
		if p == nil {
			return Resolution{Verdict: FromCache, At: at}, nil // nothing has been read there, by anyone
		}
		if err := p.wait(ctx, func(l *ledger) bool { return l.started() && !at.After(l.head()) }); err != nil {
			return Resolution{}, unavailable(fmt.Errorf("this node is behind on %v: %w", tp, err))
		}
	}
	if r, done := p.resolveHere(at); done {
		return r, nil
	}
	earliest, err := b.cfg.Offsets.Earliest(ctx, tp)
	if err != nil {
		return Resolution{}, unavailable(fmt.Errorf("ask Kafka for the first offset of %v: %w", tp, err))
	}
	return p.resolveFrom(at, earliest), nil
}

func (b *Bridge) ahead(p *partition, at Position) (ahead bool) {
	p.view(func(l *ledger) { ahead = at.After(l.head()) })
	return ahead
}

// resolveHere decides what needs no question to Kafka.
func (p *partition) resolveHere(at Position) (Resolution, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	o, ok := p.ledger.epochs.resolve(at)
	if !ok {
		return Resolution{Verdict: Unknown}, true
	}
	base := p.log.Bounds().Base
	if at.Compare(base) >= 0 {
		// The log knows what came after, gaps included.
		return Resolution{Verdict: FromCache, At: at}, true
	}
	if place := p.ledger.before(o.Next); !o.Truncated && !o.Evicted && place.Compare(base) >= 0 {
		return Resolution{Verdict: FromCache, At: place}, true
	}
	return Resolution{}, false
}

// resolveFrom decides for a position that has left the cache, knowing Kafka's first offset.
func (p *partition) resolveFrom(at Position, earliest Offset) Resolution {
	p.mu.RLock()
	defer p.mu.RUnlock()
	epochs := p.ledger.epochs
	o, ok := epochs.resolve(at)
	if !ok {
		return Resolution{Verdict: Unknown}
	}
	earliest = min(earliest, p.ledger.next())
	r := Resolution{Verdict: FromKafka, Offset: max(o.Next, earliest)}
	r.At = p.ledger.before(r.Offset)
	evicted := o.Evicted
	lostFrom, lostTo, some := o.LostFrom, o.LostTo, o.Truncated
	if o.Next < earliest { // what Kafka held until lately comes on top of what it lost before
		evicted = true
		if first, last, given := epochs.given(o.Next, earliest); given {
			if !some || lostFrom.After(first) {
				lostFrom = first
			}
			if !some || last.After(lostTo) {
				lostTo = last
			}
			some = true
		}
	}
	switch {
	case o.Truncated:
		r.Verdict, r.Reason = Lost, ReasonTruncated
	case evicted:
		r.Verdict, r.Reason = Lost, ReasonEvicted
	}
	if some && !o.Evicted { // else more is missing than the range would say
		r.LostFrom, r.LostTo = lostFrom, lostTo
	}
	return r
}

// clusterHead returns the head of a partition as its coordinator knows it.
func (b *Bridge) clusterHead(ctx context.Context, tp TopicPartition) (Position, error) {
	for {
		node, ok := b.cfg.Replicator.Leader(b.groupOf(tp))
		err := errNoCoordinator
		if ok {
			var head Position
			if node == b.cfg.Node {
				head, err = b.LocalHead(ctx, tp)
			} else {
				head, err = b.cfg.Peers.Head(ctx, node, tp)
			}
			if err == nil {
				return head, nil
			}
		}
		select {
		case <-ctx.Done():
			return Position{}, errors.Join(err, ctx.Err())
		case <-time.After(coordinatorRetry):
		}
	}
}

// errNotBegun: the partition's beginning is yet to be agreed on. Where every disk was lost, positions in it
// may have been given out all the same.
var errNotBegun = errors.New("the coordinator has not begun to read the partition yet")

var errNoCoordinator = errors.New("the coordinator is not known now")

// coordinatorRetry is the pause before asking again who coordinates.
const coordinatorRetry = 20 * time.Millisecond

// LocalHead answers another node's question for a head. Only the coordinator knows it: once it has made sure, after the
// question has come, that it leads and has applied what the cluster has committed. One that was deposed while its process
// stood still, and one whose followers were faster than itself, would else take for unknown what clients have seen.
func (b *Bridge) LocalHead(ctx context.Context, tp TopicPartition) (head Position, err error) {
	group := b.groupOf(tp)
	if b.lead(group) == nil {
		return Position{}, ErrNotCoordinator
	}
	if err := b.cfg.Replicator.Barrier(ctx, group); err != nil {
		return Position{}, fmt.Errorf("make sure of the head of %v: %w", tp, err)
	}
	p := b.started(tp)
	if m, ok := b.topicMeta(tp.Topic); p == nil && ok && m.Exposed && tp.Partition < m.Partitions {
		return Position{}, errNotBegun
	}
	if p != nil {
		p.view(func(l *ledger) { head = l.head() })
	}
	return head, nil
}

// errMoved ends a replay whose place in Kafka has become another one: the partition was truncated or
// created again. The ledger may not know it yet.
var errMoved = errors.New("the log in Kafka has changed under the reader")

// Replay reads records from Kafka with their positions, from offset on, until emit returns an error
// (ErrStop ends it well). It never shows a record that the cluster has not agreed on: at the ledger's
// end it waits. When records were lost in Kafka behind what it has shown, or when Kafka holds others in the
// place of those that it is to show, it ends with an *UnavailableError: the reader resolves its position
// anew and learns what, as soon as the coordinator has found out. before is called before each fetch, when nothing that was
// fetched is held any more; nil: nothing is.
func (b *Bridge) Replay(ctx context.Context, tp TopicPartition, from Offset, before func(context.Context) error, emit func(Replayed) error) error {
	p := b.started(tp)
	if p == nil {
		return unavailable(fmt.Errorf("%v has not been read yet", tp))
	}
	r := ReplayRange{TP: tp, From: from, To: -1, Before: before}
	var seen Epoch // up to which epoch the caller's offset is known to be good
	p.view(func(l *ledger) { seen, r.Topic = l.head().Epoch, l.topic })
	next := from
	err := b.cfg.Replayer.Replay(ctx, r, func(f Fetched) error {
		for {
			var out Replayed
			var until Offset // the ledger's
			moved := false
			p.view(func(l *ledger) {
				if moved = l.resetSince(seen); moved {
					return
				}
				seen, until = l.head().Epoch, l.next()
				upTo := f.upTo(until, next)
				if moved = !l.leaders.holds(f, upTo); moved {
					return
				}
				next = upTo
				s := l.stampOld(f.Records, next)
				out.At = s.Head
				out.Records = make([]ReplayedRecord, len(s.Records))
				for i, r := range s.Records {
					out.Records[i] = ReplayedRecord{Record: r, Pos: s.Positions[i]}
				}
			})
			if moved {
				return unavailable(fmt.Errorf("read %v again: %w", tp, errMoved))
			}
			if err := emit(out); err != nil {
				return err
			}
			if next >= f.Next {
				return nil
			}
			for len(f.Records) > 0 && f.Records[0].Offset < next {
				f.Records = f.Records[1:]
			}
			err := p.wait(ctx, func(l *ledger) bool { return l.next() > until || l.resetSince(seen) })
			if err != nil {
				return err
			}
		}
	})
	if errors.Is(err, ErrAnotherTopic) {
		return unavailable(fmt.Errorf("read %v again: %w: %w", tp, errMoved, err))
	}
	return err
}

// upTo is how far f can be shown while the ledger ends at until, from offset from on: all of it, or behind the
// last record that the ledger has. What comes after that may be a hole that the ledger has as well, or records
// that Kafka has lost; the end of f will tell, when the ledger has come to it.
func (f *Fetched) upTo(until, from Offset) Offset {
	if f.Next <= until {
		return f.Next
	}
	for _, r := range f.Records {
		if r.Offset >= until {
			break
		}
		from = r.Offset + 1
	}
	return from
}

// resetSince says whether an epoch after e began elsewhere than where the one before it ended.
func (l *ledger) resetSince(e Epoch) bool {
	for i := len(l.epochs) - 1; i >= 0 && l.epochs[i].Epoch > e; i-- {
		if i == 0 || l.epochs[i].First != l.epochs[i-1].End {
			return true
		}
	}
	return false
}
