package bridge

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidewire/tidewire/cache"
)

// A partition is one partition on this node: its ledger and its part of the cache, which move
// together. One goroutine applies (the group's); anyone may look.
//
// At a node's start the cache is filled from Kafka before what Raft brings is shown: batches that
// arrive meanwhile wait in pending, so that the log stays in order and without a seam.
type partition struct {
	tp      TopicPartition
	group   GroupID
	log     *cache.Log
	encoder Encoder

	mu      sync.RWMutex
	ledger  ledger
	changed chan struct{} // closed and made anew whenever the ledger has moved; nil while nobody waits

	filling      bool
	fillTo       Offset // where the filling ends: the ledger's next offset when it began
	fillRun      int    // counts the fillings, so that an overtaken one writes nothing more
	fillTaken    int    // the run that a worker has taken
	filled       chan struct{}
	pending      []func()
	pendingBytes int
}

// maxPendingBytes bounds what waits for one partition's filling; beyond it the filling is given up:
// resumes that reach further back are served from Kafka.
const maxPendingBytes = 32 << 20

// Encoder makes the frame of a record as clients get it. prev is the position of the record before it
// with the same key, when it is known.
type Encoder interface {
	AppendMsg(dst []byte, tp TopicPartition, r Record, pos, prev Position, hasPrev bool) []byte
}

func newPartition(tp TopicPartition, g GroupID, log *cache.Log, enc Encoder) *partition {
	filled := make(chan struct{})
	close(filled)
	return &partition{tp: tp, group: g, log: log, encoder: enc, filled: filled}
}

// opResult is what one operation came to; it is the same on every node.
type opResult struct {
	TP      TopicPartition
	Next    Offset // the ledger's next offset after it
	Refused bool   // it did not fit the ledger's state
	Repeats int    // records left out as repeats of a publish
}

// apply carries out a committed operation.
func (p *partition) apply(term Term, o op) opResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	res := opResult{TP: p.tp}
	switch o := o.(type) {
	case *startOp:
		res.Refused = !p.ledger.start(term, *o)
		switch {
		case res.Refused:
		case p.ledger.first() < p.ledger.next(): // adopted from commits: there is something to show
			p.log.Reset(p.ledger.head())
			p.beginFill()
		default:
			// Clients may be waiting in the empty log: it moves on to the first epoch under them.
			p.append(stamped{Head: p.ledger.head()}, time.Time{})
		}
	case *batchOp:
		s, ok := p.ledger.batch(term, *o)
		res.Refused, res.Repeats = !ok, s.Repeats
		if ok {
			p.show(func() { p.append(s, time.Time{}) }, batchBytes(s.Records))
		}
	case *resetOp:
		res.Refused = !p.ledger.reset(term, *o)
		if !res.Refused {
			p.gap(o.Reason)
		}
	case *noteOp:
		res.Refused = !p.ledger.note(*o)
	case *recallOp:
		before := p.ledger.dropped
		res.Refused = !p.ledger.recall(*o)
		if !slices.Equal(before, p.ledger.dropped) { // the filling that the start began may have shown them
			p.log.Reset(p.ledger.head())
			p.beginFill()
		}
	}
	if p.ledger.started() {
		res.Next = p.ledger.next()
	}
	p.signal()
	return res
}

// show changes the log now, or after the filling. The caller holds mu.
func (p *partition) show(f func(), bytes int) {
	if !p.filling {
		f()
		return
	}
	p.pending = append(p.pending, f)
	if p.pendingBytes += bytes; p.pendingBytes > maxPendingBytes {
		p.endFill(false)
	}
}

// append puts stamped records into the log. They arrived now if arrived is zero. The caller holds mu.
func (p *partition) append(s stamped, arrived time.Time) {
	records := make([]cache.Record, len(s.Records))
	for i, r := range s.Records {
		records[i] = cache.Record{Key: r.Key, Pos: s.Positions[i], Timestamp: r.Timestamp}
	}
	p.log.Append(cache.Batch{
		Records: records,
		Head:    s.Head,
		Arrived: arrived,
		Encode: func(dst []byte, i int, prev Position, hasPrev bool) []byte {
			return p.encoder.AppendMsg(dst, p.tp, s.Records[i], s.Positions[i], prev, hasPrev)
		},
	})
}

// gap tells the log's readers that records were lost. A log that is being filled has no readers yet:
// it begins after the loss. The caller holds mu.
func (p *partition) gap(reason string) {
	if p.filling {
		p.pending, p.pendingBytes = nil, 0
		p.fillTo = p.ledger.next()
		p.endFill(false)
		return
	}
	p.log.AppendGap(cache.Gap{At: p.ledger.head(), Reason: reason})
}

func batchBytes(records []Record) int {
	n := 0
	for _, r := range records {
		n += len(r.Key) + len(r.Value) + 64
	}
	return n
}

// restore replaces the ledger by one from a snapshot. What was missed is not in the log then: the log
// starts anew at the head, and readers that are behind are served from Kafka.
func (p *partition) restore(l *ledger, fill bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.ledger.started() && p.ledger.next() == l.next() && p.ledger.head() == l.head()
	p.ledger = *l
	if !same {
		p.pending, p.pendingBytes = nil, 0
		p.log.Reset(l.head())
		if fill || p.filling {
			p.beginFill()
		}
	}
	p.signal()
}

// beginFill marks the partition as waiting for its filling. The caller holds mu.
func (p *partition) beginFill() {
	if !p.filling {
		p.filled = make(chan struct{})
	}
	p.filling = true
	p.fillTo = p.ledger.next()
	p.fillRun++
}

// endFill shows what has waited. When the filling failed, the log starts where it was to end. The
// caller holds mu.
func (p *partition) endFill(ok bool) {
	if !ok {
		p.log.Reset(p.ledger.before(p.fillTo))
	}
	for _, f := range p.pending {
		f()
	}
	p.pending, p.pendingBytes = nil, 0
	p.filling = false
	p.fillRun++
	close(p.filled)
}

// signal wakes those who wait for a change. The caller holds mu.
func (p *partition) signal() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// wait returns nil as soon as cond is true of the ledger, or ctx's error. cond is called with mu held.
func (p *partition) wait(ctx context.Context, cond func(l *ledger) bool) error {
	for {
		p.mu.Lock()
		if cond(&p.ledger) {
			p.mu.Unlock()
			return nil
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ready returns a channel that is closed when the log is filled.
func (p *partition) ready() <-chan struct{} {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.filled
}

// view calls f with the ledger, which f must not change or keep.
func (p *partition) view(f func(l *ledger)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	f(&p.ledger)
}
