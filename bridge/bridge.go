package bridge

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/cache"
)

// Config of a Bridge. Everything but TopicIDs, Start, AnyPartitioner, Metrics and Now is required.
type Config struct {
	Node       NodeID
	Groups     int // TIDEWIRE_GROUPS
	Cache      *cache.Store
	CacheTTL   time.Duration // how far back the cache is filled at a node's start
	Encoder    Encoder
	Replicator Replicator
	Peers      Peers
	Offsets    Offsets
	// TopicIDs tells a truncated topic from one that was created again before topic discovery does.
	// Without it the first records of the latter may be shown in two epochs.
	TopicIDs  TopicIDs
	Committed OffsetStore
	Replayer  Replayer
	Producer  Producer
	Start     StartPolicy // where a partition begins that the cluster has never read
	// AnyPartitioner says that producers put keys anywhere (TIDEWIRE_KAFKA_PARTITIONER=any).
	AnyPartitioner bool
	Metrics        Metrics
	Now            func() time.Time // the clock; default time.Now
	Log            zerolog.Logger
}

// Metrics is told what happens. Its methods are called from many goroutines and must not block.
type Metrics interface {
	// Ingested: a batch of a topic was committed and is in the cache of this node.
	Ingested(topic string, records []Record)
	// Lag: so many offsets of a partition are in Kafka and not yet read by its coordinator, this node.
	Lag(tp TopicPartition, offsets int64)
	// LagGone: this node coordinates the partition no more.
	LagGone(tp TopicPartition)
	// Scattered: a topic's keys were found to be in several partitions.
	Scattered(topic string)
	// Published: a publish that this node coordinated ended with an outcome.
	Published(outcome string)
}

// Bridge is the domain of one node: its ledgers, the partitions' place in the cache, the coordinator's
// roles that it holds and the publish path. The Replicator drives it as StateMachine, the Feed as
// FeedSink, topic discovery through TopicsChanged, and the edge asks it as its Backend.
type Bridge struct {
	cfg  Config
	log  zerolog.Logger
	feed Feed

	wired    chan struct{} // closed once Replicator and Peers are there
	starting atomic.Bool   // until the node was ready once: snapshots lead to filling

	mu        sync.RWMutex
	parts     map[TopicPartition]*partition
	topics    map[string]TopicMeta
	known     chan struct{} // closed once topics has been told
	atFirst   map[string]int32
	scattered map[string]bool
	asked     map[string]grownAnswer // for topics that clients know more partitions of
	leads     map[GroupID]*lead
	onTopics  func() // the edge

	fills   *filler
	revoked revocations
}

// New returns a Bridge. SetFeed must be called before the first Lead.
func New(cfg Config) *Bridge {
	if cfg.Metrics == nil {
		cfg.Metrics = noMetrics{}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Bridge{
		cfg:       cfg,
		log:       cfg.Log,
		parts:     make(map[TopicPartition]*partition),
		topics:    make(map[string]TopicMeta),
		wired:     make(chan struct{}),
		known:     make(chan struct{}),
		atFirst:   make(map[string]int32),
		scattered: make(map[string]bool),
		asked:     make(map[string]grownAnswer),
		leads:     make(map[GroupID]*lead),
	}
	if cfg.Replicator != nil && cfg.Peers != nil {
		close(b.wired)
	}
	b.fills = newFiller(b)
	b.revoked.set, b.revoked.changed = make(revocationSet), make(chan struct{}, 1)
	b.starting.Store(true)
	return b
}

// SetFeed gives the Bridge its Feed, which needs the Bridge as its sink.
func (b *Bridge) SetFeed(f Feed) { b.feed = f }

// SetCommitted gives the Bridge the group's commits, which need the Bridge too. Before Wire.
func (b *Bridge) SetCommitted(s OffsetStore) { b.cfg.Committed = s }

// Wire gives the Bridge what can only be made with it: the replication that it is the state machine of,
// which calls it as soon as it is opened. Leads begin after Wire; entries are applied before, too. Call
// it once, unless Config had both.
func (b *Bridge) Wire(r Replicator, p Peers) {
	b.cfg.Replicator, b.cfg.Peers = r, p
	close(b.wired)
}

// OnTopics sets a function that is called whenever topics came, went or changed. Set before Run.
func (b *Bridge) OnTopics(f func()) { b.onTopics = f }

// Run fills the cache as partitions ask for it, and tells of revocations, until ctx ends.
func (b *Bridge) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { b.revoked.run(ctx) })
	b.fills.run(ctx)
	wg.Wait()
}

// Started says that the node has been ready once: from now on a snapshot that arrives means that this
// node had fallen behind, and what it missed is left to Kafka.
func (b *Bridge) Started() { b.starting.Store(false) }

// GroupOf returns the Raft group that a partition belongs to: neighbours in one topic are in
// neighbouring groups, so that a topic's partitions have different coordinators.
func GroupOf(tp TopicPartition, groups int) GroupID {
	h := fnv.New32a()
	h.Write([]byte(tp.Topic))
	return GroupID((uint64(h.Sum32()) + uint64(tp.Partition)) % uint64(groups))
}

func (b *Bridge) groupOf(tp TopicPartition) GroupID { return GroupOf(tp, b.cfg.Groups) }

// partition returns the partition, made anew if create is set and it is not there.
func (b *Bridge) partition(g GroupID, tp TopicPartition, create bool) *partition {
	b.mu.RLock()
	p := b.parts[tp]
	b.mu.RUnlock()
	if p != nil || !create {
		return p
	}
	p = newPartition(tp, g, b.cfg.Cache.Log(tp.Topic, tp.Partition), b.cfg.Encoder)
	b.mu.Lock()
	b.parts[tp] = p
	b.mu.Unlock()
	return p
}

// started returns the partition if its ledger has been started.
func (b *Bridge) started(tp TopicPartition) *partition {
	p := b.partition(0, tp, false)
	if p == nil {
		return nil
	}
	ok := false
	p.view(func(l *ledger) { ok = l.started() })
	if !ok {
		return nil
	}
	return p
}

func (b *Bridge) groupPartitions(g GroupID) []*partition {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []*partition
	for _, p := range b.parts {
		if p.group == g {
			out = append(out, p)
		}
	}
	return out
}

// topicPartitions returns the partitions of a topic that have been started, by number.
func (b *Bridge) topicPartitions(topic string) []*partition {
	b.mu.RLock()
	var out []*partition
	for tp, p := range b.parts {
		if tp.Topic == topic {
			out = append(out, p)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(out, func(a, b *partition) int { return int(a.tp.Partition - b.tp.Partition) })
	return out
}

// TopicsChanged is the TopicListener.
func (b *Bridge) TopicsChanged(topics map[string]TopicMeta) {
	b.mu.Lock()
	select {
	case <-b.known:
	default:
		for name, m := range topics {
			b.atFirst[name] = m.Partitions
		}
		close(b.known)
	}
	b.topics = topics
	leads := make([]*lead, 0, len(b.leads))
	for _, l := range b.leads {
		leads = append(leads, l)
	}
	b.mu.Unlock()
	for _, l := range leads {
		l.look()
	}
	if b.onTopics != nil {
		b.onTopics()
	}
}

// partitionsChanged follows a change of a partition's ledger that the topic's view depends on.
func (b *Bridge) partitionsChanged(p *partition) {
	var scattered, filling bool
	p.mu.RLock()
	scattered, filling = p.ledger.scattered, p.filling
	p.mu.RUnlock()
	if scattered {
		b.mu.Lock()
		b.scattered[p.tp.Topic] = true
		b.mu.Unlock()
	}
	if filling {
		b.fills.add(p)
	}
	if b.onTopics != nil {
		b.onTopics()
	}
}

// Topic describes a topic; ok is false when clients may neither read nor write it.
func (b *Bridge) Topic(name string) (TopicView, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, ok := b.topics[name]
	if !ok || (!m.Exposed && !m.Publish) {
		return TopicView{}, false
	}
	return TopicView{
		Partitions: m.Partitions,
		Exposed:    m.Exposed,
		Publish:    m.Publish,
		Scattered:  b.cfg.AnyPartitioner || b.scattered[name],
	}, true
}

func (b *Bridge) topicMeta(name string) (TopicMeta, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, ok := b.topics[name]
	return m, ok
}

// Ready waits until the topics of Kafka are known, and every partition of the topic, if it is one of
// them, has been begun by the cluster and is filled here. A subscription must not be made before: where a partition begins may be "the latest record", and what
// came between would be missing from a stream that was promised whole.
func (b *Bridge) Ready(ctx context.Context, topic string) error {
	select {
	case <-b.known:
	case <-ctx.Done():
		return unavailable(fmt.Errorf("the topics of Kafka are not known yet: %w", ctx.Err()))
	}
	m, _ := b.topicMeta(topic)
	for i := int32(0); m.Exposed && i < m.Partitions; i++ {
		p := b.started(TopicPartition{topic, i})
		for ; p == nil; p = b.started(TopicPartition{topic, i}) {
			if !pause(ctx, coordinatorRetry) {
				return unavailable(fmt.Errorf("%s/%d has not been begun: %w", topic, i, ctx.Err()))
			}
		}
		select {
		case <-p.ready():
		case <-ctx.Done():
			return unavailable(fmt.Errorf("%v is being filled: %w", p.tp, ctx.Err()))
		}
	}
	return nil
}

// Grown asks Kafka for the topics anew until one has a partition, for a few seconds at most, and returns the topic
// as it is then. A client may come with the vector of a node that has learned of an added partition before
// this one. The error is an *UnavailableError: Kafka cannot be asked.
func (b *Bridge) Grown(ctx context.Context, topic string, partition int32) (TopicView, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var failed error
	for {
		v, _ := b.Topic(topic)
		if partition < v.Partitions || b.cfg.TopicIDs == nil {
			return v, nil
		}
		// What the answer tells of partitions comes by TopicsChanged, a moment later perhaps; and a
		// broker may be behind as well. Clients that all come with the same wrong vector ask together.
		if err := b.askGrown(ctx, topic); ctx.Err() == nil {
			failed = err
		}
		if !pause(ctx, grownRetry) {
			if failed != nil {
				return v, unavailable(fmt.Errorf("ask Kafka whether topic %s has grown: %w", topic, failed))
			}
			return v, nil
		}
	}
}

const (
	// grownRetry is the pause before looking anew.
	grownRetry = 100 * time.Millisecond
	// grownAsk is how long after one question to Kafka the next may come, for all clients of a topic.
	grownAsk = 500 * time.Millisecond
)

// grownAnswer is what became of the last question.
type grownAnswer struct {
	at  time.Time
	err error
}

// askGrown asks Kafka for a topic, unless that was done a moment ago: then it returns what became of it.
func (b *Bridge) askGrown(ctx context.Context, topic string) error {
	b.mu.Lock()
	last := b.asked[topic]
	recent := time.Since(last.at) < grownAsk
	if !recent {
		b.asked[topic] = grownAnswer{at: time.Now()}
	}
	b.mu.Unlock()
	if recent {
		return last.err
	}
	_, err := b.cfg.TopicIDs.TopicID(ctx, topic)
	b.mu.Lock()
	b.asked[topic] = grownAnswer{time.Now(), err}
	b.mu.Unlock()
	return err
}

// Unbegun returns how many partitions of exposed topics the cluster has not begun to read.
func (b *Bridge) Unbegun() (n int) {
	b.mu.RLock()
	topics := b.topics
	b.mu.RUnlock()
	for name, m := range topics {
		for i := int32(0); m.Exposed && i < m.Partitions; i++ {
			if b.started(TopicPartition{name, i}) == nil {
				n++
			}
		}
	}
	return n
}

// Filled says whether nothing waits for filling, and how many partitions do.
func (b *Bridge) Filled() (waiting int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, p := range b.parts {
		p.mu.RLock()
		if p.filling {
			waiting++
		}
		p.mu.RUnlock()
	}
	return waiting
}

type noMetrics struct{}

func (noMetrics) Ingested(string, []Record) {}
func (noMetrics) Lag(TopicPartition, int64) {}
func (noMetrics) LagGone(TopicPartition)    {}
func (noMetrics) Scattered(string)          {}
func (noMetrics) Published(string)          {}
