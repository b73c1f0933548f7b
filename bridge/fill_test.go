package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
)

// A gatedReplayer lets a filling go on only when the test says so.
type gatedReplayer struct {
	*fakeKafka
	entered chan struct{}
	gate    chan struct{}
}

func (g *gatedReplayer) Replay(ctx context.Context, r ReplayRange, emit func(Fetched) error) error {
	return g.fakeKafka.Replay(ctx, r, func(f Fetched) error {
		g.entered <- struct{}{}
		select {
		case <-g.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
		return emit(f)
	})
}

func gated(k *fakeKafka) *gatedReplayer {
	return &gatedReplayer{k, make(chan struct{}, 1000), make(chan struct{})}
}

// history is a cluster that has read a few epochs, and its group's snapshot.
func history(t *testing.T, k *fakeKafka) (r *fakeRaft, n *testNode, snapshot []byte) {
	r = newRaft()
	n = readNode(t, k, r, []string{"a", "b", "c"}, []string{"d", "e"})
	return r, n, n.snapshot()
}

func (n *testNode) snapshot() []byte {
	fg := n.raft.group(0)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	b, err := n.Snapshot(0)
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

// join makes a node of the group that has the snapshot and then follows the log.
func (n *testNode) join(snapshot []byte) {
	n.t.Helper()
	fg := n.raft.group(0)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	fg.applied[n.id] = len(fg.log)
	if err := n.Restore(0, snapshot); err != nil {
		n.t.Fatal(err)
	}
	fg.held[n.id] = false
}

// heldNode is a node that applies nothing yet.
func (r *fakeRaft) heldNode(t *testing.T, k *fakeKafka, id NodeID, opts ...nodeOption) *testNode {
	fg := r.group(0)
	fg.mu.Lock()
	fg.held[id] = true
	fg.mu.Unlock()
	n := r.node(t, k, id, opts...)
	n.TopicsChanged(topicMap("orders", 1, 1))
	return n
}

func TestFillAtStart(t *testing.T) {
	k := newKafka()
	k.do(func() {
		k.part(orders0).append(Record{Value: []byte("old"), Timestamp: time.Now().Add(-2 * time.Hour).UnixMilli()})
	})
	r, n1, snapshot := history(t, k)
	n2 := r.heldNode(t, k, "n2")
	n2.join(snapshot)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	// Back to the TTL, with the ledger's positions; what is older comes from Kafka.
	n2.wantShown(orders0, "a@1,2", "b@1,3", "c@1,4", "d@2,1", "e@2,2")
	if n2.Filled() != 0 {
		t.Error("something waits")
	}
	n2.wantResolve(at(1, 1), Resolution{Verdict: FromCache, At: at(1, 1)})
	n2.wantResolve(at(1, 0), Resolution{Verdict: FromKafka, Offset: 0, At: at(1, 0)})
	k.write(orders0, "", "f")
	n2.wantShown(orders0, append(n1.shown(orders0)[1:5], "e@2,2", "f@2,3")...)
}

// A partition that changes while it is being filled is queued again, and still filled by one worker. Two made the
// cache panic.
func TestFillingIsTakenOnce(t *testing.T) {
	k := newKafka()
	r, _, snapshot := history(t, k)
	g := gated(k)
	n2 := r.heldNode(t, k, "n2", func(c *Config) { c.Replayer = g })
	n2.join(snapshot)
	<-g.entered
	over, cancel := context.WithCancel(testContext(t))
	cancel()
	n2.fills.fill(over, n2.started(orders0)) // as a second worker would; this one would give up at once
	if n2.Filled() != 1 {
		t.Error("taken twice")
	}
	close(g.gate)
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@2,1", "e@2,2")
}

// What arrives while the cache is being filled is shown after it, in order and without a seam.
func TestLiveBatchesWaitForFilling(t *testing.T) {
	k := newKafka()
	r, n1, snapshot := history(t, k)
	g := gated(k)
	n2 := r.heldNode(t, k, "n2", func(c *Config) { c.Replayer = g })
	n2.join(snapshot)
	<-g.entered
	k.write(orders0, "", "f")
	n2.wantNext(orders0, 6)
	n1.lead()
	k.write(orders0, "", "g")
	n2.wantNext(orders0, 7)
	if s := n2.shown(orders0); len(s) != 0 || n2.Filled() != 1 {
		t.Fatalf("shown %v, %d waiting", s, n2.Filled())
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var ue *UnavailableError
	if err := n2.Ready(short, "orders"); !errors.As(err, &ue) {
		t.Errorf("ready: %v", err)
	}
	close(g.gate)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@2,1", "e@2,2", "f@2,3", "g@3,1")
}

// Records are lost in Kafka during a filling: the log begins after the loss.
func TestLossDuringFilling(t *testing.T) {
	k := newKafka()
	r, n1, snapshot := history(t, k)
	g := gated(k)
	n2 := r.heldNode(t, k, "n2", func(c *Config) { c.Replayer = g })
	n2.join(snapshot)
	<-g.entered
	k.write(orders0, "", "f")
	n2.wantNext(orders0, 6)
	k.truncate(orders0, 1)
	n1.wantNext(orders0, 1)
	k.write(orders0, "", "B")
	n2.wantShown(orders0, "B@3,1")
	close(g.gate)
	n2.wantResolve(at(1, 1), Resolution{Verdict: Lost, Offset: 1, At: at(3, 0), Reason: ReasonTruncated, LostFrom: at(1, 2), LostTo: at(2, 3)})
	n2.wantShown(orders0, "B@3,1")
	// A node that begins after the loss is filled from where it was.
	n3 := r.heldNode(t, k, "n3")
	n3.join(n1.snapshot())
	if err := n3.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	n3.wantShown(orders0, "B@3,1")
}

// Kafka is away when a node begins: it is ready without a filling, and serves what is older from Kafka
// as soon as that is back.
func TestFillingGivenUp(t *testing.T) {
	k := newKafka()
	r, _, snapshot := history(t, k)
	k.do(func() { k.away = true })
	n2 := r.heldNode(t, k, "n2")
	n2.join(snapshot)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	k.do(func() { k.away = false })
	k.write(orders0, "", "f")
	n2.wantShown(orders0, "f@2,3")
	n2.wantResolve(at(2, 2), Resolution{Verdict: FromCache, At: at(2, 2)})
	n2.wantResolve(at(1, 2), Resolution{Verdict: FromKafka, Offset: 2, At: at(1, 2)})
	if got := replay(t, n2.Bridge, orders0, 2, 4); fmt.Sprint(got) != "[c@1,3 d@2,1 e@2,2 f@2,3]" {
		t.Errorf("replayed %v", got)
	}
}

// A node that fell behind while running takes a snapshot: nothing is filled, its log begins at the head.
func TestSnapshotOnARunningNode(t *testing.T) {
	k := newKafka()
	r, n1, snapshot := history(t, k)
	n2 := r.heldNode(t, k, "n2")
	n2.join(snapshot)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@2,1", "e@2,2")
	n2.Started()
	n2.join(snapshot) // the same again changes nothing
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@2,1", "e@2,2")
	r.hold(0, "n2", true)
	k.write(orders0, "", "f", "g")
	n1.wantNext(orders0, 7)
	n2.join(n1.snapshot())
	n2.wantShown(orders0)
	k.write(orders0, "", "h")
	n2.wantShown(orders0, "h@2,5")
	n2.wantResolve(at(2, 2), Resolution{Verdict: FromKafka, Offset: 5, At: at(2, 2)})
}

// A filling takes no more than the partition's share of the budget: the newest records.
func TestFillingWithinBudget(t *testing.T) {
	k := newKafka()
	k.do(func() {
		for i := range 2000 {
			k.part(orders0).append(Record{Value: []byte(strings.Repeat("x", 1000) + fmt.Sprint(i))})
		}
	})
	r := newRaft()
	n1 := r.node(t, k, "n1")
	n1.TopicsChanged(topicMap("orders", 1, 1))
	n1.lead()
	n1.wantNext(orders0, 2000)
	store := cache.NewStore(cache.Config{Budget: 500 << 10})
	n2 := r.heldNode(t, k, "n2", func(c *Config) { c.Cache = store })
	n2.store = store
	n2.join(n1.snapshot())
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	got := n2.shown(orders0)
	if len(got) < 200 || len(got) > 500 || !strings.HasSuffix(got[len(got)-1], "x1999@1,2000") {
		t.Fatalf("%d records, the last %.5s", len(got), got[len(got)-1])
	}
	if s := store.Stats(); s.Evicted > 100 {
		t.Errorf("%d records were read to be evicted at once", s.Evicted)
	}
}

// Too much arrives while a filling hangs: it is given up, and nothing of what arrived is missing.
func TestFillingOvertakenByBytes(t *testing.T) {
	k := newKafka()
	r, _, snapshot := history(t, k)
	g := gated(k)
	store := cache.NewStore(cache.Config{Budget: 256 << 20})
	n2 := r.heldNode(t, k, "n2", func(c *Config) { c.Replayer = g; c.Cache = store })
	n2.store = store
	n2.join(snapshot)
	<-g.entered
	big := strings.Repeat("x", 4<<20)
	for range maxPendingBytes / len(big) {
		k.write(orders0, "", big)
	}
	k.write(orders0, "", "last")
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	n2.wantNext(orders0, k.end(orders0))
	close(g.gate)
	got := n2.shown(orders0)
	if len(got) != maxPendingBytes/len(big)+1 || got[len(got)-1] != fmt.Sprintf("last@2,%d", k.end(orders0)-3) {
		t.Errorf("%d records shown", len(got))
	}
}

// countMetrics sees each record that is committed once on each node.
type countMetrics struct {
	noMetrics
	ingested, published, lagGone atomic.Int64
}

func (m *countMetrics) Ingested(_ string, r []Record) { m.ingested.Add(int64(len(r))) }
func (m *countMetrics) Published(string)              { m.published.Add(1) }
func (m *countMetrics) LagGone(TopicPartition)        { m.lagGone.Add(1) }

func TestMetrics(t *testing.T) {
	k, r := newKafka(), newRaft()
	m := new(countMetrics)
	n := publishNode(t, k, r, func(c *Config) { c.Metrics = m })
	mustPublish(t, n.Bridge, pub("m", "a"))
	mustPublish(t, n.Bridge, pub("m", "a"))
	n.wantNext(orders0, 1)
	n.depose()
	if m.ingested.Load() != 1 || m.published.Load() != 2 || m.lagGone.Load() != 1 {
		t.Errorf("ingested %d, published %d, lag gone %d", m.ingested.Load(), m.published.Load(), m.lagGone.Load())
	}
}
