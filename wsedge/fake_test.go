package wsedge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// fakeNode is what stands behind the edge in these tests: a "Kafka" of slices, a ledger that numbers
// records, and a real cache.
type fakeNode struct {
	store *cache.Store
	enc   *FrameEncoder

	mu       sync.Mutex
	changed  *sync.Cond
	topics   map[string]TopicView
	grown    map[string]TopicView // what Grown finds out
	parts    map[bridge.TopicPartition]*fakePartition
	ready    map[string]chan struct{} // a topic that is still being filled
	down     bool                     // Kafka is away
	publish  func(bridge.PublishRequest) (bridge.PublishResult, error)
	replays  int    // how often Replay was called
	onReplay func() // called with mu held
	// onResolve is called, without mu, before a position is resolved. Set once.
	onResolve func(bridge.TopicPartition)
	waiting   int // how many wait in Ready
	stale     int // how many times Resolve says FromCache though it is not so
}

type fakePartition struct {
	records  []ReplayedRecord
	next     bridge.Offset
	logStart bridge.Offset
	head     bridge.Position
}

func newFakeNode(cfg cache.Config) *fakeNode {
	n := &fakeNode{
		store: cache.NewStore(cfg), enc: NewFrameEncoder(nil),
		topics: make(map[string]TopicView), parts: make(map[bridge.TopicPartition]*fakePartition),
		ready: make(map[string]chan struct{}),
	}
	n.changed = sync.NewCond(&n.mu)
	return n
}

func (n *fakeNode) topic(name string, view TopicView) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.topics[name] = view
}

func (n *fakeNode) part(tp bridge.TopicPartition) *fakePartition {
	p := n.parts[tp]
	if p == nil {
		p = &fakePartition{head: bridge.Position{Epoch: 1}}
		n.parts[tp] = p
	}
	return p
}

// put writes a record to Kafka, and it comes to the node at once. A nil key goes to partition 0 of put's
// argument.
func (n *fakeNode) put(topic string, partition int32, key, value []byte) bridge.Position {
	return n.putRecord(topic, partition, bridge.Record{Timestamp: time.Now().UnixMilli(), Key: key, Value: value})
}

func (n *fakeNode) putRecord(topic string, partition int32, r bridge.Record) bridge.Position {
	tp := bridge.TopicPartition{Topic: topic, Partition: partition}
	n.mu.Lock()
	p := n.part(tp)
	r.Offset = p.next
	p.next++
	p.head.Seqno++
	pos := p.head
	p.records = append(p.records, ReplayedRecord{Record: r, Pos: pos})
	n.changed.Broadcast()
	log := n.store.Log(topic, partition)
	log.Append(cache.Batch{
		Records: []cache.Record{{Key: r.Key, Pos: pos, Timestamp: r.Timestamp}},
		Head:    pos,
		Encode: func(dst []byte, _ int, prev bridge.Position, hasPrev bool) []byte {
			return n.enc.AppendMsg(dst, tp, r, pos, prev, hasPrev)
		},
	})
	n.mu.Unlock()
	return pos
}

func (n *fakeNode) Topic(name string) (TopicView, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.topics[name]
	return v, ok
}

func (n *fakeNode) Grown(_ context.Context, topic string, _ int32) (TopicView, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return TopicView{}, &bridge.UnavailableError{RetryAfter: 700 * time.Millisecond, Err: errors.New("Kafka is away")}
	}
	if v, ok := n.grown[topic]; ok {
		n.topics[topic] = v
	}
	return n.topics[topic], nil
}

func (n *fakeNode) Ready(ctx context.Context, topic string) error {
	n.mu.Lock()
	ch := n.ready[topic]
	if ch != nil {
		n.waiting++
	}
	n.mu.Unlock()
	if ch == nil {
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return &bridge.UnavailableError{RetryAfter: 700 * time.Millisecond, Err: ctx.Err()}
	}
}

func (n *fakeNode) Resolve(_ context.Context, tp bridge.TopicPartition, at bridge.Position) (Resolution, error) {
	if n.onResolve != nil {
		n.onResolve(tp)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return Resolution{}, &bridge.UnavailableError{RetryAfter: 20 * time.Millisecond, Err: errors.New("down")}
	}
	p := n.part(tp)
	if at.After(p.head) {
		return Resolution{Verdict: Unknown}, nil
	}
	if n.stale > 0 {
		n.stale--
		return Resolution{Verdict: FromCache}, nil
	}
	if b := n.store.Log(tp.Topic, tp.Partition).Bounds(); !b.Base.After(at) {
		return Resolution{Verdict: FromCache}, nil
	}
	i, _ := slices.BinarySearchFunc(p.records, at, func(r ReplayedRecord, at bridge.Position) int {
		if r.Pos.After(at) {
			return 1
		}
		return -1
	})
	if i == len(p.records) {
		return Resolution{Verdict: FromKafka, Offset: p.next}, nil
	}
	off := p.records[i].Offset
	if off >= p.logStart {
		return Resolution{Verdict: FromKafka, Offset: off}, nil
	}
	var res Resolution
	for k, r := range p.records {
		if r.Offset == p.logStart-1 {
			res = Resolution{Verdict: Lost, Offset: p.logStart, At: r.Pos, Reason: bridge.ReasonEvicted, LostFrom: p.records[i].Pos, LostTo: p.records[k].Pos}
		}
	}
	return res, nil
}

func (n *fakeNode) Replay(ctx context.Context, tp bridge.TopicPartition, from bridge.Offset, before func(context.Context) error, emit func(Replayed) error) error {
	n.mu.Lock()
	n.replays++
	if n.onReplay != nil {
		n.onReplay()
	}
	n.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { n.mu.Lock(); n.changed.Broadcast(); n.mu.Unlock() })
	defer stop()
	for {
		if err := before(ctx); err != nil {
			return err
		}
		n.mu.Lock()
		p := n.part(tp)
		for from >= p.next && ctx.Err() == nil && !n.down {
			n.changed.Wait()
		}
		if ctx.Err() != nil {
			n.mu.Unlock()
			return ctx.Err()
		}
		if n.down {
			n.mu.Unlock()
			return &bridge.UnavailableError{Err: errors.New("down")}
		}
		if from < p.logStart {
			n.mu.Unlock()
			return &bridge.OffsetOutOfRangeError{TP: tp, At: from, LogStart: p.logStart, LogEnd: p.next}
		}
		i := int(from)
		k := min(i+7, len(p.records))
		run := Replayed{Records: slices.Clone(p.records[i:k]), At: p.records[k-1].Pos}
		n.mu.Unlock()
		err := emit(run)
		if errors.Is(err, bridge.ErrStop) {
			return nil
		}
		if err != nil {
			return err
		}
		from = bridge.Offset(k)
	}
}

func (n *fakeNode) Publish(_ context.Context, req bridge.PublishRequest) (bridge.PublishResult, error) {
	n.mu.Lock()
	f := n.publish
	view := n.topics[req.Topic]
	n.mu.Unlock()
	if f != nil {
		return f(req)
	}
	var partition int32
	if req.Key != nil {
		partition = bridge.PartitionFor(req.Key, view.Partitions)
	}
	pos := n.putRecord(req.Topic, partition, bridge.Record{Timestamp: time.Now().UnixMilli(), Key: req.Key, Value: req.Value, Headers: req.Headers})
	return bridge.PublishResult{Partition: partition, Offset: bridge.Offset(pos.Seqno - 1), Pos: pos}, nil
}

var _ Backend = (*fakeNode)(nil)

// waitTime is for how long anything is waited for that has to come: long, as machines are busy at times, but less than the
// heartbeat's 25 s, so that no time limit of a session brings what a test waits for.
const waitTime = 20 * time.Second

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitTime); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

func value(i int) []byte { return fmt.Appendf(nil, `{"n":%d}`, i) }

// replayed is how often Replay was called.
func (n *fakeNode) replayed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.replays
}
