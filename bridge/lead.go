package bridge

import (
	"context"
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
	stale   bool                      // the topics or a partition's beginning have changed since the last follow

	lag map[TopicPartition]int64 // offsets in Kafka not yet fetched, as of the last fetch

	reads map[TopicPartition]*readState // owned by run
	// recalled are partitions taken up from commits whose message ids are in the ledger again. Guarded by mu,
	// which may be taken with a partition's held.
	recalled map[TopicPartition]bool
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
		stale:   true,
		lag:     make(map[TopicPartition]int64),
		reads:   make(map[TopicPartition]*readState),
		noting:  make(map[TopicPartition]bool),

		recalled: make(map[TopicPartition]bool),
	}
	l.pub = newPublishing(l)
	log := b.log.With().Uint16("group", uint16(group)).Uint64("term", uint64(term)).Logger()
	log.Info().Msg("coordinator of the group")
	b.mu.Lock()
	b.leads[group] = l
	b.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(l.settle)
	if group == RevocationGroup {
		wg.Go(func() { b.expireRevocations(ctx) })
	}
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

// look makes run look at everything again: the topics, or what is known of a partition, have changed.
func (l *lead) look() {
	l.mu.Lock()
	l.stale = true
	l.mu.Unlock()
	l.poke()
}

// poke makes run take what was fetched.
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
	starting := &starter{l: l, busy: make(map[TopicPartition]bool), known: make(map[TopicPartition]bool)}
	defer starting.wg.Wait()
	for l.ctx.Err() == nil {
		if l.due() {
			l.follow(starting)
		}
		l.propose()
		select {
		case <-l.wake:
		case <-l.ctx.Done():
		}
	}
}

// due says whether follow has anything to do. It looks at every partition of the group, which is too much
// to do for each Fetched.
func (l *lead) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := l.stale || len(l.lost) > 0 || len(l.restart) > 0
	l.stale = false
	return due
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
