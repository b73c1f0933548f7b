package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/cache"
)

// The outside world of these tests: a Kafka of slices, Raft groups that commit as soon as something is
// proposed, and a Feed that reads the one for the other. Each has a few levers for what can go wrong.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errAway = errors.New("no broker can be reached")
	nolog   = func() zerolog.Logger {
		if os.Getenv("BRIDGE_TEST_LOG") != "" {
			return zerolog.New(zerolog.NewConsoleWriter())
		}
		return zerolog.New(io.Discard)
	}()
)

// A fakePart is one partition: offsets [start, end), some of which hold records.
type fakePart struct {
	start, end Offset
	records    []Record
	leaders    leaderList // each with where it began; none: its batches tell no leader epoch
}

// leaderOf is the epoch of what is at offset o, and where that ends.
func (p *fakePart) leaderOf(o Offset) (LeaderEpoch, Offset) {
	leader, end := NoLeaderEpoch, p.end
	for _, s := range slices.Backward(p.leaders) {
		if s.First <= o {
			leader = s.Leader
			break
		}
		end = s.First
	}
	return leader, end
}

// epochEnd is Kafka's answer to OffsetForLeaderEpoch.
func (p *fakePart) epochEnd(leader LeaderEpoch) (LeaderEpoch, Offset) {
	end := p.end
	for _, s := range slices.Backward(p.leaders) {
		if s.Leader <= leader {
			return s.Leader, end
		}
		end = s.First
	}
	return NoLeaderEpoch, -1
}

func (p *fakePart) append(r Record) Offset {
	r.Offset = p.end
	if r.Timestamp == 0 {
		r.Timestamp = time.Now().UnixMilli()
	}
	p.records = append(p.records, r)
	p.end++
	return r.Offset
}

type fakeKafka struct {
	mu           sync.Mutex
	parts        map[TopicPartition]*fakePart
	committed    map[TopicPartition]CommitOffset
	commitsAsked int
	away         bool
	changed      chan struct{} // closed and made anew at every change
	// produce decides what becomes of a write: whether it is written and what the caller is told.
	// It is called without the lock.
	produce func(tp TopicPartition, r Record) (write bool, err error)
	writes  int
	ids     map[string]TopicID
	asked   func() // somebody asks for a topic's id
}

func newKafka() *fakeKafka {
	return &fakeKafka{
		parts:     make(map[TopicPartition]*fakePart),
		committed: make(map[TopicPartition]CommitOffset),
		changed:   make(chan struct{}),
		ids:       make(map[string]TopicID),
	}
}

// do changes Kafka.
func (k *fakeKafka) do(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *fakeKafka) part(tp TopicPartition) *fakePart {
	p := k.parts[tp]
	if p == nil {
		p = new(fakePart)
		k.parts[tp] = p
	}
	return p
}

// write appends records with a key and values, and returns the first offset.
func (k *fakeKafka) write(tp TopicPartition, key string, values ...string) (first Offset) {
	k.do(func() {
		p := k.part(tp)
		first = p.end
		for _, v := range values {
			r := Record{Value: []byte(v)}
			if key != "" {
				r.Key = []byte(key)
			}
			p.append(r)
		}
	})
	return first
}

func (k *fakeKafka) truncate(tp TopicPartition, end Offset) {
	k.do(func() {
		p := k.part(tp)
		p.end = end
		p.records = slices.DeleteFunc(slices.Clone(p.records), func(r Record) bool { return r.Offset >= end })
	})
}

// elect makes another broker the leader, which has the log up to end.
func (k *fakeKafka) elect(tp TopicPartition, end Offset) {
	k.truncate(tp, end)
	k.do(func() {
		p := k.part(tp)
		epoch := p.leaders.last() + 1
		for len(p.leaders) > 0 && p.leaders[len(p.leaders)-1].First >= end {
			p.leaders = p.leaders[:len(p.leaders)-1]
		}
		p.leaders = append(p.leaders, leaderStart{epoch, end})
	})
}

func (k *fakeKafka) evict(tp TopicPartition, start Offset) {
	k.do(func() {
		p := k.part(tp)
		p.start, p.end = start, max(p.end, start)
		p.records = slices.DeleteFunc(slices.Clone(p.records), func(r Record) bool { return r.Offset < start })
	})
}

func (k *fakeKafka) values(tp TopicPartition) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.part(tp).records {
		out = append(out, string(r.Value))
	}
	return out
}

// look calls f with a partition, or returns errAway.
func (k *fakeKafka) look(tp TopicPartition, f func(p *fakePart)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errAway
	}
	f(k.part(tp))
	return nil
}

func (k *fakeKafka) Earliest(_ context.Context, tp TopicPartition) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { o = p.start })
	return o, err
}

func (k *fakeKafka) Latest(_ context.Context, tp TopicPartition) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { o = p.end })
	return o, err
}

func (k *fakeKafka) AtTime(_ context.Context, tp TopicPartition, t time.Time) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) {
		o = p.end
		for _, r := range slices.Backward(p.records) {
			if r.Timestamp >= t.UnixMilli() {
				o = r.Offset
			}
		}
	})
	return o, err
}

func (k *fakeKafka) EpochEnd(_ context.Context, tp TopicPartition, leader LeaderEpoch) (l LeaderEpoch, o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { l, o = p.epochEnd(leader) })
	return l, o, err
}

func (k *fakeKafka) TopicID(_ context.Context, topic string) (TopicID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked != nil {
		k.asked()
	}
	return k.ids[topic], nil
}

func (k *fakeKafka) Committed(_ context.Context, tps []TopicPartition) (map[TopicPartition]CommitOffset, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return nil, errAway
	}
	k.commitsAsked++
	out := make(map[TopicPartition]CommitOffset)
	for _, tp := range tps {
		if c, ok := k.committed[tp]; ok {
			out[tp] = c
		}
	}
	return out, nil
}

func (k *fakeKafka) askedForCommits() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.commitsAsked
}

func (k *fakeKafka) Produce(ctx context.Context, tp TopicPartition, r Record) (Produced, error) {
	k.mu.Lock()
	hook := k.produce
	k.mu.Unlock()
	write, err := true, error(nil)
	if hook != nil {
		write, err = hook(tp, r)
	}
	var o Offset
	k.do(func() {
		if k.away {
			write, err = false, errAway
		}
		if write {
			k.writes++
			o = k.part(tp).append(r)
		}
	})
	if err == nil {
		err = ctx.Err() // written, but the caller is not told
	}
	return Produced{Offset: o, Timestamp: r.Timestamp}, err
}

// fetch returns up to limit records of tp from an offset on, or blocks nothing: next == from when there
// is nothing yet.
// last is the leader epoch of what the reader has read: a *diverged tells it of a truncation.
func (k *fakeKafka) fetch(tp TopicPartition, from Offset, last LeaderEpoch, limit int) (f Fetched, changed chan struct{}, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed = k.changed
	if k.away {
		return f, changed, errAway
	}
	p := k.part(tp)
	if leader, end := p.epochEnd(last); last >= 0 && from >= p.start && (leader < last || end < from) {
		return f, changed, &diverged{leader, end}
	}
	if from < p.start || from > p.end {
		return f, changed, &OffsetOutOfRangeError{TP: tp, At: from, LogStart: p.start, LogEnd: p.end}
	}
	f = Fetched{TP: tp, From: from, LogStart: p.start, End: p.end}
	f.Leader, f.Next = p.leaderOf(from)
	for _, r := range p.records {
		if r.Offset < from {
			continue
		}
		if r.Offset >= f.Next {
			break
		}
		if len(f.Records) == limit {
			f.Next = r.Offset
			break
		}
		f.Records = append(f.Records, r)
	}
	return f, changed, nil
}

type diverged struct {
	leader LeaderEpoch
	end    Offset
}

func (d *diverged) Error() string { return "the logs part" }

func (k *fakeKafka) Replay(ctx context.Context, r ReplayRange, emit func(Fetched) error) error {
	for from := r.From; r.To < 0 || from < r.To; {
		f, changed, err := k.fetch(r.TP, from, NoLeaderEpoch, 3)
		if id, _ := k.TopicID(ctx, r.TP.Topic); err == nil && !r.Topic.IsZero() && !id.IsZero() && id != r.Topic {
			err = ErrAnotherTopic
		}
		if err != nil {
			return err
		}
		if f.Next == from {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if r.To >= 0 && f.Next > r.To {
			f.Next = r.To
			f.Records = slices.DeleteFunc(f.Records, func(rec Record) bool { return rec.Offset >= r.To })
		}
		if err := emit(f); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
		from = f.Next
	}
	return nil
}

// A fakeFeed reads for one node. Its one goroutine ends with close.
type fakeFeed struct {
	k     *fakeKafka
	limit int
	sink  FeedSink

	mu     sync.Mutex
	last   uint64
	runs   map[TopicPartition]*fakeRun
	starts map[TopicPartition][]Offset
	wake   chan struct{}
	quit   chan struct{}
	wg     sync.WaitGroup
}

type fakeRun struct {
	run  uint64
	next Offset
	last LeaderEpoch
	open int
}

func newFeed(k *fakeKafka, sink FeedSink) *fakeFeed {
	f := &fakeFeed{
		k: k, limit: 1000, sink: sink, runs: make(map[TopicPartition]*fakeRun),
		starts: make(map[TopicPartition][]Offset), wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	f.wg.Go(f.run)
	return f
}

func (f *fakeFeed) close() {
	close(f.quit)
	f.wg.Wait()
}

func (f *fakeFeed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fakeFeed) Start(tp TopicPartition, from FeedStart) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.runs[tp] = &fakeRun{run: f.last, next: from.Next, last: from.Leader}
	f.starts[tp] = append(f.starts[tp], from.Next)
	f.poke()
	return f.last
}

func (f *fakeFeed) Stop(tp TopicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.runs, tp)
}

func (f *fakeFeed) Done(tp TopicPartition, run uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.runs[tp]; r != nil && r.run == run {
		if r.open--; r.open < 0 {
			panic("a Fetched was given back twice")
		}
	}
	f.poke()
}

// idle says whether tp is being read and everything was given back.
func (f *fakeFeed) idle(tp TopicPartition) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.runs[tp]
	return r != nil && r.open == 0
}

func (f *fakeFeed) startsOf(tp TopicPartition) []Offset {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.starts[tp])
}

func (f *fakeFeed) run() {
	for {
		f.k.mu.Lock()
		changed := f.k.changed
		f.k.mu.Unlock()
		for f.round() {
		}
		select {
		case <-f.wake:
		case <-changed:
		case <-f.quit:
			return
		}
	}
}

// round fetches once for each partition and says whether that brought anything.
func (f *fakeFeed) round() (more bool) {
	f.mu.Lock()
	var calls []func()
	for tp, r := range f.runs {
		if r.open >= 2 {
			continue
		}
		run := r.run
		got, _, err := f.k.fetch(tp, r.next, r.last, f.limit)
		var out *OffsetOutOfRangeError
		var div *diverged
		at := r.next
		switch {
		case errors.As(err, &out):
			delete(f.runs, tp)
			calls = append(calls, func() { f.sink.OutOfRange(run, tp, out.At, out.LogStart, out.LogEnd) })
		case errors.As(err, &div):
			delete(f.runs, tp)
			calls = append(calls, func() { f.sink.Diverged(run, tp, at, div.leader, div.end) })
		case err == nil && got.Next > r.next:
			r.open++
			r.last = max(r.last, got.Leader)
			r.next = got.Next
			calls = append(calls, func() { f.sink.Fetched(run, got) })
		}
	}
	f.mu.Unlock()
	for _, call := range calls {
		call()
	}
	return len(calls) > 0
}

// A fakeRaft is the log of every group, shared by the nodes of a test. An entry is committed as soon as
// the leader proposes it; nodes that are held back apply it later.
type fakeRaft struct {
	mu     sync.Mutex
	groups map[GroupID]*fakeGroup
	nodes  map[NodeID]*testNode
	// refuse decides whether a proposal fails, and whether it is committed all the same. nil: never.
	refuse func(g GroupID, ops []op) (fail, commit bool)
	old    []NodeID // whose builds do not know of revocations
}

type fakeGroup struct {
	mu      sync.Mutex // held while applying
	term    Term
	leader  NodeID
	log     []fakeEntry
	applied map[NodeID]int
	held    map[NodeID]bool
}

type fakeEntry struct {
	term Term
	b    []byte
}

func newRaft() *fakeRaft {
	return &fakeRaft{groups: make(map[GroupID]*fakeGroup), nodes: make(map[NodeID]*testNode)}
}

func (r *fakeRaft) group(g GroupID) *fakeGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups[g] == nil {
		r.groups[g] = &fakeGroup{applied: make(map[NodeID]int), held: make(map[NodeID]bool)}
	}
	return r.groups[g]
}

// catchUp applies on every node that is not held back, and returns the leader's last result.
func (r *fakeRaft) catchUp(g GroupID, fg *fakeGroup) (last any) {
	r.mu.Lock()
	nodes := make(map[NodeID]*testNode, len(r.nodes))
	for id, n := range r.nodes {
		nodes[id] = n
	}
	r.mu.Unlock()
	for id, n := range nodes {
		for !fg.held[id] && fg.applied[id] < len(fg.log) {
			e := fg.log[fg.applied[id]]
			fg.applied[id]++
			res := n.Apply(g, e.term, uint64(fg.applied[id]), e.b)
			if id == fg.leader {
				last = res
			}
		}
	}
	return last
}

// hold keeps a node from applying until release.
func (r *fakeRaft) hold(g GroupID, id NodeID, held bool) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	fg.held[id] = held
	r.catchUp(g, fg)
}

func (r *fakeRaft) entries(g GroupID) (sizes []int) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	for _, e := range fg.log {
		sizes = append(sizes, len(e.b))
	}
	return sizes
}

type settledFuture struct {
	res any
	err error
}

func (f settledFuture) Wait() (any, error) { return f.res, f.err }

// replicator is the Raft of one node.
type replicator struct {
	*fakeRaft
	node NodeID
}

func (r replicator) Propose(g GroupID, entry []byte) Future {
	ops, err := decodeEntry(entry)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	fail, commit := false, true
	if refuse != nil {
		fail, commit = refuse(g, ops)
	}
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	if fg.leader != r.node {
		return settledFuture{err: ErrNotCoordinator}
	}
	var res any
	if commit || !fail {
		fg.log = append(fg.log, fakeEntry{fg.term, entry})
		res = r.catchUp(g, fg)
	}
	if fail {
		return settledFuture{err: ErrNotCoordinator}
	}
	return settledFuture{res: res}
}

func (r replicator) Leader(g GroupID) (NodeID, bool) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	return fg.leader, fg.leader != ""
}

// Peers: calls go straight to the other node.
func (r replicator) Publish(ctx context.Context, node NodeID, tp TopicPartition, req PublishRequest) (PublishResult, error) {
	n := r.other(node)
	if n == nil {
		return PublishResult{}, ErrNotCoordinator
	}
	return n.LocalPublish(ctx, tp, req)
}

func (r replicator) Head(ctx context.Context, node NodeID, tp TopicPartition) (Position, error) {
	n := r.other(node)
	if n == nil {
		return Position{}, ErrNotCoordinator
	}
	return n.LocalHead(ctx, tp)
}

func (r replicator) WithoutRevocations() []NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.old)
}

func (r replicator) Revoke(ctx context.Context, node NodeID, v Revocation) error {
	n := r.other(node)
	if n == nil {
		return ErrNotCoordinator
	}
	return n.LocalRevoke(ctx, v)
}

func (r replicator) Status(context.Context, NodeID) (NodeStatus, error) { return NodeStatus{}, nil }

func (r replicator) other(id NodeID) *testNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[id]
}

// A testEncoder writes a frame that says what a record was, and where.
type testEncoder struct{}

func (testEncoder) AppendMsg(dst []byte, _ TopicPartition, r Record, pos, _ Position, _ bool) []byte {
	return fmt.Appendf(dst, "%s@%d,%d\n", r.Value, pos.Epoch, pos.Seqno)
}

// A testNode is a Bridge with its Feed.
type testNode struct {
	*Bridge
	t     *testing.T
	id    NodeID
	raft  *fakeRaft
	kafka *fakeKafka
	feed  *fakeFeed
	store *cache.Store

	mu    sync.Mutex
	roles map[GroupID]func() // ends the role and waits for it
}

type nodeOption func(*Config)

// node adds a node that runs until the test ends. It is past its start unless the option says otherwise.
func (r *fakeRaft) node(t *testing.T, k *fakeKafka, id NodeID, opts ...nodeOption) *testNode {
	store := cache.NewStore(cache.Config{})
	rep := replicator{r, id}
	cfg := Config{
		Node: id, Groups: 1, Cache: store, CacheTTL: time.Hour, Encoder: testEncoder{}, Replicator: rep, Peers: rep,
		Offsets: k, Committed: k, Replayer: k, Producer: k, Start: StartPolicy{Earliest: true}, Log: nolog,
		Now: func() time.Time { return time.Unix(0, 0) }, // epochs after a rebirth then rise by the leap alone
	}
	for _, o := range opts {
		o(&cfg)
	}
	n := &testNode{Bridge: New(cfg), t: t, id: id, raft: r, kafka: k, store: store, roles: make(map[GroupID]func())}
	n.feed = newFeed(k, n.Bridge)
	n.SetFeed(n.feed)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	r.mu.Lock()
	r.nodes[id] = n
	r.mu.Unlock()
	t.Cleanup(func() {
		n.depose()
		cancel()
		wg.Wait()
		n.feed.close()
	})
	return n
}

// lead makes the node the leader of the groups, in a new term.
func (n *testNode) lead(groups ...GroupID) {
	if len(groups) == 0 {
		groups = []GroupID{0}
	}
	for _, g := range groups {
		fg := n.raft.group(g)
		fg.mu.Lock()
		old := fg.leader
		fg.mu.Unlock()
		if o := (replicator{n.raft, n.id}).other(old); o != nil {
			o.depose(g)
		}
		fg.mu.Lock()
		fg.term++
		term := fg.term
		fg.leader = n.id
		fg.held[n.id] = false
		n.raft.catchUp(g, fg)
		fg.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { n.Lead(ctx, g, term) })
		n.mu.Lock()
		n.roles[g] = func() { cancel(); wg.Wait() }
		n.mu.Unlock()
	}
}

// depose ends the node's role in groups (all: none named).
func (n *testNode) depose(groups ...GroupID) {
	n.mu.Lock()
	var ends []func()
	for g, end := range n.roles {
		if len(groups) == 0 || slices.Contains(groups, g) {
			fg := n.raft.group(g)
			ends = append(ends, func() {
				fg.mu.Lock()
				if fg.leader == n.id {
					fg.leader = ""
				}
				fg.mu.Unlock()
				end()
			})
			delete(n.roles, g)
		}
	}
	n.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// shown is what the log of a partition holds, in order, gaps as GAP:reason@position.
func (n *testNode) shown(tp TopicPartition) (out []string) {
	log, ok := n.store.Lookup(tp.Topic, tp.Partition)
	if !ok {
		return nil
	}
	for i := log.Bounds().Start; ; {
		c := log.ReadAll(i, 1)
		switch {
		case c.Behind || c.Next == i:
			return out
		case c.Gap != nil:
			out = append(out, fmt.Sprintf("GAP:%s@%d,%d", c.Gap.Reason, c.Gap.At.Epoch, c.Gap.At.Seqno))
		default:
			out = append(out, string(c.Bytes[:len(c.Bytes)-1]))
		}
		i = c.Next
	}
}

func (n *testNode) wantShown(tp TopicPartition, want ...string) {
	n.t.Helper()
	var got []string
	eventually(n.t, func() bool { got = n.shown(tp); return slices.Equal(got, want) }, func() string {
		return fmt.Sprintf("node %s shows of %v\n%q, want\n%q", n.id, tp, got, want)
	})
}

// next is the ledger's next offset, -1 before its start.
func (n *testNode) next(tp TopicPartition) Offset {
	o := Offset(-1)
	if p := n.started(tp); p != nil {
		p.view(func(l *ledger) { o = l.next() })
	}
	return o
}

func (n *testNode) wantNext(tp TopicPartition, want Offset) {
	n.t.Helper()
	eventually(n.t, func() bool { return n.next(tp) == want }, func() string {
		return fmt.Sprintf("node %s: %v is at %d, want %d", n.id, tp, n.next(tp), want)
	})
}

// eventually waits for a condition that something else brings about.
func eventually(t *testing.T, cond func() bool, what func() string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what())
		}
	}
}

func topicMap(name string, partitions int32, id byte) map[string]TopicMeta {
	return map[string]TopicMeta{name: {ID: TopicID{id}, Partitions: partitions, Exposed: true, Publish: true, Initial: true}}
}

// testContext ends with the test, and long before the test times out.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
