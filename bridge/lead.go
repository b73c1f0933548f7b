package bridge

import (
	"context"
	"errors"
	"sync"
	"time"
)

var _ FeedSink = (*Bridge)(nil)

// A lead is the role of coordinator of one Raft group: it keeps every exposed partition of the group
// read, proposes what was read, and takes the group's publishes. It lives as long as its leadership.
//
// One goroutine (run) decides what is read from where; one (settle) waits for proposals in order. The
// Feed's credit of two open Fetched a partition bounds what is between them.
type lead struct {
	b     *Bridge
	group GroupID
	ctx   context.Context
	wake  chan struct{}
	queue chan proposal // run → settle

	mu      sync.Mutex
	fetched []fetchedRun
	lost    []outOfRange
	restart map[TopicPartition]uint64 // partitions to read again from the ledger, by the run that failed

	lag map[TopicPartition]int64 // offsets in Kafka not yet fetched, as of the last fetch

	reads map[TopicPartition]*readState // owned by run
	// noting are the partitions with a note on its way; one at a time. Guarded by mu.
	noting map[TopicPartition]bool

	pub *publishing
}

// readState is what the coordinator knows of one partition that it reads.
type readState struct {
	run   uint64
	topic TopicID
}

type fetchedRun struct {
	run uint64
	Fetched
}

// outOfRange is what a Feed said when Kafka did not have what a run was to go on with: where the log
// begins and ends, or, with diverged set, what it knows of the leader epochs that were read.
type outOfRange struct {
	run              uint64
	tp               TopicPartition
	logStart, logEnd Offset
	diverged         bool
	leader           LeaderEpoch
	leaderEnd        Offset
}

// A proposal is one entry on its way through Raft, and the Fetched it completes or the partition it makes
// a note of.
type proposal struct {
	future Future
	parts  []proposed
	noted  *TopicPartition
}

type proposed struct {
	tp   TopicPartition
	run  uint64
	last bool // the Fetched ends with this piece: give it back
}

const (
	// maxEntryBytes is where an entry is closed; one record alone may exceed it.
	maxEntryBytes = 256 << 10
	// maxProposals bounds what settle has not seen the end of.
	maxProposals = 64
	// retryStart is the pause after Kafka or Raft refused something a partition needs to begin.
	retryStart = 250 * time.Millisecond
)

// Lead implements StateMachine: it holds the coordinator's role until ctx ends.
func (b *Bridge) Lead(ctx context.Context, group GroupID, term Term) {
	select {
	case <-b.wired:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &lead{
		b:       b,
		group:   group,
		ctx:     ctx,
		wake:    make(chan struct{}, 1),
		queue:   make(chan proposal, maxProposals),
		restart: make(map[TopicPartition]uint64),
		lag:     make(map[TopicPartition]int64),
		reads:   make(map[TopicPartition]*readState),
		noting:  make(map[TopicPartition]bool),
	}
	l.pub = newPublishing(l)
	log := b.log.With().Uint16("group", uint16(group)).Uint64("term", uint64(term)).Logger()
	log.Info().Msg("coordinator of the group")
	b.mu.Lock()
	b.leads[group] = l
	b.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(l.settle)
	l.run()
	cancel()

	b.mu.Lock()
	if b.leads[group] == l {
		delete(b.leads, group)
	}
	b.mu.Unlock()
	for tp := range l.reads {
		b.feed.Stop(tp)
		b.cfg.Metrics.LagGone(tp)
	}
	close(l.queue)
	wg.Wait()
	log.Info().Msg("no longer coordinator of the group")
}

// lead returns the role for a group, or nil when this node does not hold it.
func (b *Bridge) lead(g GroupID) *lead {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.leads[g]
}

// Fetched implements FeedSink.
func (b *Bridge) Fetched(run uint64, f Fetched) {
	l := b.lead(b.groupOf(f.TP))
	if l == nil {
		b.feed.Done(f.TP, run)
		return
	}
	lag := max(int64(f.End-f.Next), 0)
	b.cfg.Metrics.Lag(f.TP, lag)
	l.mu.Lock()
	l.lag[f.TP] = lag
	l.fetched = append(l.fetched, fetchedRun{run, f})
	l.mu.Unlock()
	l.poke()
}

// OutOfRange implements FeedSink.
func (b *Bridge) OutOfRange(run uint64, tp TopicPartition, at, logStart, logEnd Offset) {
	b.cannotGoOn(outOfRange{run: run, tp: tp, logStart: logStart, logEnd: logEnd})
}

// Diverged implements FeedSink.
func (b *Bridge) Diverged(run uint64, tp TopicPartition, at Offset, leader LeaderEpoch, end Offset) {
	b.cannotGoOn(outOfRange{run: run, tp: tp, diverged: true, leader: leader, leaderEnd: end})
}

func (b *Bridge) cannotGoOn(o outOfRange) {
	l := b.lead(b.groupOf(o.tp))
	if l == nil {
		return
	}
	l.mu.Lock()
	l.lost = append(l.lost, o)
	l.mu.Unlock()
	l.poke()
}

// poke makes run look again.
func (l *lead) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lead) run() {
	select {
	case <-l.b.known:
	case <-l.ctx.Done():
		return
	}
	// starting holds one goroutine a partition that is being begun; they end with ctx.
	starting := &starter{l: l, busy: make(map[TopicPartition]bool)}
	defer starting.wg.Wait()
	for l.ctx.Err() == nil {
		l.follow(starting)
		l.propose()
		select {
		case <-l.wake:
		case <-l.ctx.Done():
		}
	}
}

// follow brings what is read in line with the topics there are and with what went wrong.
func (l *lead) follow(starting *starter) {
	l.mu.Lock()
	restart, lost := l.restart, l.lost
	l.restart, l.lost = make(map[TopicPartition]uint64), nil
	l.mu.Unlock()

	l.b.mu.RLock()
	want := make(map[TopicPartition]TopicMeta)
	for name, m := range l.b.topics {
		for i := int32(0); m.Exposed && i < m.Partitions; i++ {
			if tp := (TopicPartition{name, i}); l.b.groupOf(tp) == l.group {
				want[tp] = m
			}
		}
	}
	l.b.mu.RUnlock()

	for tp, r := range l.reads {
		m, ok := want[tp]
		if ok && (r.topic == m.ID || r.topic.IsZero() || m.ID.IsZero()) {
			continue
		}
		l.b.feed.Stop(tp)
		l.b.cfg.Metrics.LagGone(tp)
		delete(l.reads, tp)
	}
	for tp, m := range want {
		if l.reads[tp] == nil {
			starting.start(tp, m)
		} else if p := l.b.started(tp); p != nil {
			l.noteGrowth(p, m)
		}
	}
	for _, o := range lost {
		if r := l.reads[o.tp]; r != nil && r.run == o.run {
			delete(l.reads, o.tp)
			starting.recover(o)
		}
	}
	for tp, run := range restart {
		if r := l.reads[tp]; r != nil && r.run == run {
			l.read(tp, r.topic)
		}
	}
}

// noteGrowth tells the ledger when a topic has grown: keys may now be in two partitions.
func (l *lead) noteGrowth(p *partition, m TopicMeta) {
	grown := false
	p.view(func(led *ledger) { grown = led.started() && led.partitions != m.Partitions })
	if grown {
		l.note(&noteOp{TP: p.tp, Partitions: m.Partitions, Scattered: true})
	}
}

// note proposes to note something, unless a note of the partition is still on its way: run looks again
// when that one has arrived.
func (l *lead) note(o *noteOp) {
	l.mu.Lock()
	busy := l.noting[o.TP]
	l.noting[o.TP] = true
	l.mu.Unlock()
	if !busy {
		l.queue <- proposal{future: l.proposeOps(o), noted: &o.TP} // settle always takes
	}
}

// read begins or moves the reading of a partition to where its ledger is.
func (l *lead) read(tp TopicPartition, topic TopicID) {
	p := l.b.started(tp)
	if p == nil {
		return
	}
	from := FeedStart{Topic: topic}
	p.view(func(led *ledger) { from.Next, from.Leader = led.next(), led.leaders.last() })
	l.reads[tp] = &readState{run: l.b.feed.Start(tp, from), topic: topic}
}

// proposeOps proposes operations that no Fetched waits for.
func (l *lead) proposeOps(ops ...op) Future {
	b := newEntry(256)
	for _, o := range ops {
		b = o.appendTo(b)
	}
	return l.b.cfg.Replicator.Propose(l.group, b)
}

// propose packs what was fetched into entries, as many records to one as fit, and proposes them.
func (l *lead) propose() {
	l.mu.Lock()
	fetched := l.fetched
	l.fetched = nil
	l.mu.Unlock()
	entry := newEntry(4096)
	var parts []proposed
	flush := func() {
		if len(parts) == 0 {
			return
		}
		l.queue <- proposal{future: l.b.cfg.Replicator.Propose(l.group, entry), parts: parts} // settle always takes
		entry, parts = newEntry(4096), nil
	}
	for _, f := range fetched {
		r := l.reads[f.TP]
		if r == nil || r.run != f.run {
			l.b.feed.Done(f.TP, f.run)
			continue
		}
		if p := l.b.started(f.TP); p != nil {
			l.checkKeys(p, f.Records)
		}
		for from, rest := f.From, f.Records; ; {
			n := fits(rest, maxEntryBytes-len(entry))
			if n == 0 && len(rest) > 0 {
				if len(parts) > 0 {
					flush()
					continue
				}
				n = 1
			}
			o := &batchOp{TP: f.TP, From: from, Next: f.Next, Leader: f.Leader, Records: rest[:n]}
			if n < len(rest) {
				o.Next = rest[n-1].Offset + 1
			}
			entry = o.appendTo(entry)
			rest, from = rest[n:], o.Next
			parts = append(parts, proposed{f.TP, f.run, len(rest) == 0})
			if len(rest) == 0 {
				break
			}
		}
	}
	flush()
}

// fits returns how many of the records take at most size bytes in an entry.
func fits(records []Record, size int) int {
	for i := range records {
		r := &records[i]
		size -= len(r.Key) + len(r.Value) + 40
		for _, h := range r.Headers {
			size -= len(h.Key) + len(h.Value) + 10
		}
		if size < 0 {
			return i
		}
	}
	return len(records)
}

// checkKeys looks for a key outside its murmur2 partition; the ledger of a topic that has one says so
// before the record does.
func (l *lead) checkKeys(p *partition, records []Record) {
	var known bool
	var partitions int32
	p.view(func(led *ledger) { known, partitions = led.scattered, led.partitions })
	if known || l.b.cfg.AnyPartitioner || partitions < 1 {
		return
	}
	for i := range records {
		if k := records[i].Key; k != nil && PartitionFor(k, partitions) != p.tp.Partition {
			l.note(&noteOp{TP: p.tp, Partitions: partitions, Scattered: true})
			return
		}
	}
}

// settle waits for the proposals in order, gives Fetched back, and has partitions read again whose
// proposals failed or did not fit.
func (l *lead) settle() {
	for p := range l.queue {
		res, err := p.future.Wait()
		results, _ := res.([]opResult)
		if p.noted != nil {
			l.mu.Lock()
			delete(l.noting, *p.noted)
			l.mu.Unlock()
			l.poke()
		}
		for i, part := range p.parts {
			again := err != nil || i >= len(results) || results[i].Refused
			if part.last {
				l.b.feed.Done(part.tp, part.run)
			}
			if again {
				l.mu.Lock()
				l.restart[part.tp] = part.run
				l.mu.Unlock()
			}
			if i < len(results) && !again {
				l.pub.reached(part.tp, results[i].Next)
			}
		}
		if err != nil {
			// The role ends in a moment if leadership is gone; if it is not (a transfer that failed,
			// say), this keeps the new attempt from spinning.
			pause(l.ctx, 20*time.Millisecond)
			l.poke()
			continue
		}
		l.mu.Lock()
		again := len(l.restart) > 0
		l.mu.Unlock()
		if again {
			l.poke()
		}
	}
}

// pause waits for d or until ctx ends; it reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A starter finds out where partitions begin, which may mean asking Kafka, without holding up those
// that are being read.
type starter struct {
	l    *lead
	wg   sync.WaitGroup
	mu   sync.Mutex
	busy map[TopicPartition]bool
}

// start has a partition read: at once when its ledger is there, after agreeing on its beginning when
// it is not.
func (s *starter) start(tp TopicPartition, m TopicMeta) {
	s.mu.Lock()
	busy := s.busy[tp]
	s.mu.Unlock()
	if busy {
		return
	}
	if p := s.l.b.started(tp); p != nil {
		var topic TopicID
		p.view(func(led *ledger) { topic = led.topic })
		if topic == m.ID || topic.IsZero() || m.ID.IsZero() {
			s.l.read(tp, m.ID)
			return
		}
	}
	s.background(tp, func(ctx context.Context) error { return s.begin(ctx, tp, m) })
}

// errTopicStale: topic discovery has yet to find that a topic was created again.
var errTopicStale = errors.New("the topic was created again, its description is still the old one")

// recover opens a new epoch where Kafka's log no longer has the ledger's next offset.
func (s *starter) recover(o outOfRange) {
	s.background(o.tp, func(ctx context.Context) error {
		m, ok := s.l.b.topicMeta(o.tp.Topic)
		p := s.l.b.started(o.tp)
		if p == nil || !ok {
			return nil
		}
		// The log of a topic that was created again looks like a truncated one, but all of it is new.
		if ids := s.l.b.cfg.TopicIDs; ids != nil && !m.ID.IsZero() {
			ask, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			switch id, err := ids.TopicID(ask, o.tp.Topic); {
			case err != nil:
				return err
			case !id.IsZero() && id != m.ID:
				return errTopicStale
			}
		}
		reset := &resetOp{TP: o.tp, Topic: m.ID}
		var topic TopicID
		parts := Offset(0)
		p.view(func(led *ledger) {
			reset.Expect, topic = led.next(), led.topic
			parts = led.leaders.parts(o.leader, o.leaderEnd, led.next())
		})
		switch {
		case topic != m.ID && !topic.IsZero() && !m.ID.IsZero():
			return nil // start sees to it
		case o.diverged && parts >= reset.Expect:
			return nil // the ledger has not come to where the log parts
		case o.diverged:
			reset.First, reset.Reason = parts, ReasonTruncated
		case reset.Expect < o.logStart:
			reset.First, reset.Reason = o.logStart, ReasonEvicted
		case reset.Expect > o.logEnd:
			reset.First, reset.Reason = o.logEnd, ReasonTruncated
		default:
			return nil // Kafka has it again
		}
		_, err := s.l.proposeOps(reset).Wait()
		return err
	})
}

// background runs f until it succeeds, and then has the coordinator look at the partition again.
func (s *starter) background(tp TopicPartition, f func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[tp] {
		return
	}
	s.busy[tp] = true
	s.wg.Go(func() {
		logged := ""
		for {
			err := f(s.l.ctx)
			if err == nil || s.l.ctx.Err() != nil {
				break
			}
			if err.Error() != logged && !errors.Is(err, ErrNotCoordinator) {
				logged = err.Error()
				s.l.b.log.Warn().Err(err).Str("topic", tp.Topic).Int32("partition", tp.Partition).
					Msg("cannot begin to read yet: trying again")
			}
			pause(s.l.ctx, retryStart)
			if m, ok := s.l.b.topicMeta(tp.Topic); !ok || tp.Partition >= m.Partitions {
				break // gone meanwhile
			}
		}
		s.mu.Lock()
		delete(s.busy, tp)
		s.mu.Unlock()
		s.l.poke()
	})
}

// begin agrees on where a partition starts, or on its new beginning when Kafka has another topic under
// the name.
func (s *starter) begin(ctx context.Context, tp TopicPartition, m TopicMeta) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p := s.l.b.started(tp)
	if p == nil {
		o, err := s.l.b.begin(ctx, tp, m)
		if err != nil {
			return err
		}
		_, err = s.l.proposeOps(o).Wait()
		return err
	}
	first, err := s.l.b.cfg.Offsets.Earliest(ctx, tp)
	if err != nil {
		return err
	}
	reset := &resetOp{TP: tp, Topic: m.ID, First: first, Reason: ReasonTruncated}
	p.view(func(led *ledger) { reset.Expect = led.next() })
	_, err = s.l.proposeOps(reset).Wait()
	return err
}
