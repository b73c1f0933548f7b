package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A failingReplayer lets the first part of a replay through, as far as fails says, and then fails.
type failingReplayer struct {
	Replayer
	fails func() (after int, err error)
}

func (r failingReplayer) Replay(ctx context.Context, what ReplayRange, emit func(Fetched) error) error {
	after, err := r.fails()
	if err == nil {
		return r.Replayer.Replay(ctx, what, emit)
	}
	if err := r.Replayer.Replay(ctx, what, func(f Fetched) error {
		if after--; after < 0 {
			return err
		}
		return emit(f)
	}); err != nil {
		return err
	}
	return nil
}

// recallOf is a recall by a coordinator whose ledger was taken up at next.
func recallOf(k *fakeKafka, replayer Replayer, next Offset, leaders leaderList) *recall {
	b := New(Config{Groups: 1, Replicator: replicator{}, Peers: replicator{}, Offsets: k, Replayer: replayer, Log: nolog})
	b.topics = topicMap("orders", 1, 1)
	p := &partition{tp: orders0}
	p.ledger.start(1, startOp{Topic: TopicID{1}, Epochs: epochList{{1, 0, next}}, First: next, Leaders: leaders})
	return newRecall(&lead{b: b, recalled: make(map[TopicPartition]bool)}, p)
}

// Whatever Kafka holds and however often the reading breaks off: what is read back is what a ledger would know
// that had read the records around the commit.
func TestRecallAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newKafka()
		p := k.part(orders0)
		commit := Offset(rapid.IntRange(0, 3*recallBefore).Draw(t, "commit"))
		next := commit + Offset(rapid.IntRange(0, recallBehind+9).Draw(t, "behind"))
		near := []Offset{0, commit - recallBefore, commit, next, commit + recallBehind}
		offsets := map[Offset]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "records") {
			o := rapid.SampledFrom(near).Draw(t, "near") + Offset(rapid.IntRange(-4, 4).Draw(t, "by"))
			if o >= 0 {
				offsets[o] = true
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "many") == 0 {
			for o := max(0, commit-midWindowSize); o < commit+100; o++ {
				offsets[o] = true
			}
		}
		for o := range offsets {
			mid := rapid.SampledFrom([]string{"", "a", "b", fmt.Sprint(o)}).Draw(t, "mid")
			p.records = append(p.records, midRecord(o, "u", mid))
		}
		slices.SortFunc(p.records, func(a, b Record) int { return int(a.Offset - b.Offset) })
		p.end = max(0, next-Offset(rapid.IntRange(0, 2).Draw(t, "cut off"))) // a log may have been truncated
		for len(p.records) > 0 {
			last := p.records[len(p.records)-1].Offset
			if last < p.end || rapid.Bool().Draw(t, "longer") {
				p.end = max(p.end, last+1)
				break
			}
			p.records = p.records[:len(p.records)-1]
		}
		p.start = min(p.end, Offset(rapid.SampledFrom([]int{0, 0, int(commit), int(next)}).Draw(t, "evicted")))
		p.records = slices.DeleteFunc(p.records, func(r Record) bool { return r.Offset < p.start })

		r := recallOf(k, failingReplayer{k, func() (int, error) {
			return rapid.IntRange(0, 5).Draw(t, "goes well"), rapid.SampledFrom([]error{nil, errAway}).Draw(t, "fails")
		}}, next, nil)
		for tries := 0; ; tries++ {
			if err := r.read(context.Background(), commit); err == nil {
				break
			} else if tries == 10_000 {
				t.Fatalf("no end: %v", err)
			}
		}
		var mids []twinMid
		var dropped []Offset
		for _, rec := range p.records {
			id, has := twinID(rec)
			switch {
			case !has || rec.Offset < commit-recallBefore || rec.Offset >= min(next, commit+recallBehind):
			case slices.ContainsFunc(mids, func(m twinMid) bool { return m.id == id }):
				dropped = append(dropped, rec.Offset)
			default:
				mids = lastOf(append(mids, twinMid{id, rec.Offset}), midWindowSize)
			}
		}
		got := r.seen.mids.entries()
		if len(got) != len(mids) || !slices.Equal(r.seen.dropped, lastOf(dropped, maxDropped)) {
			t.Fatalf("%d ids, repeats %v; want %d, %v", len(got), r.seen.dropped, len(mids), dropped)
		}
		for i, m := range got {
			if m.Offset != mids[i].off {
				t.Fatalf("id %d is that of offset %d, want %d", i, m.Offset, mids[i].off)
			}
		}
	})
}

// What took the place of records that Kafka has lost is not what stood there; the reading brings it later.
func TestRecallOfATruncatedLog(t *testing.T) {
	k := newKafka()
	k.elect(orders0, 0)
	k.do(func() { k.part(orders0).append(midRecord(0, "u", "a")) })
	k.elect(orders0, 1)
	k.do(func() { k.part(orders0).append(midRecord(0, "u", "b")) })
	r := recallOf(k, k, 2, leaderList{{0, 0}})
	if err := r.read(testContext(t), 2); err != nil || len(r.seen.mids.ring) != 1 || r.seen.mids.ring[0].Offset != 0 {
		t.Errorf("%v, ids %v", err, r.seen.mids.ring)
	}
}

// Kafka is away until it counts as having no commit: then the recall is to begin near the ledger's end. When Kafka is back,
// there is a commit after all, which lies before that. The recall used to stay where it had been told first, and the ids
// before that place were never read.
func TestRecallOfACommitThatIsFoundLate(t *testing.T) {
	const commit, next = recallBefore, 4 * recallBefore
	k := newKafka()
	k.do(func() {
		p := k.part(orders0)
		p.records, p.end = []Record{midRecord(commit, "u", "a")}, next
		k.away = true
	})
	r := recallOf(k, k, next, nil)
	if err := r.read(testContext(t), next); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	k.do(func() { k.away = false })
	if err := r.read(testContext(t), commit); err != nil || len(r.seen.mids.ring) != 1 {
		t.Errorf("%v, ids %v", err, r.seen.mids.ring)
	}
}

// A batch that cannot be read does not hold the partition for ever.
func TestRecallOfABrokenBatch(t *testing.T) {
	k := newKafka()
	for range 9 {
		k.do(func() { k.part(orders0).append(midRecord(0, "u", fmt.Sprint(k.part(orders0).end))) })
	}
	broken := errors.New("broken batch")
	r := recallOf(k, failingReplayer{k, func() (int, error) { return 1, broken }}, 9, nil)
	if err := r.read(testContext(t), 9); !errors.Is(err, broken) || r.at != 3 {
		t.Fatalf("%v at %d", err, r.at)
	}
	r.l.b.cfg.Replayer = failingReplayer{k, func() (int, error) { return 0, broken }}
	if err := r.read(testContext(t), 9); err == nil {
		t.Fatal("given up at once")
	}
	r.stuck = time.Now().Add(-recallPatience - time.Second)
	if err := r.read(testContext(t), 9); err != nil || len(r.seen.mids.ring) != 3 {
		t.Fatalf("%v, ids %v", err, r.seen.mids.ring)
	}
}

// midsDead is a cluster that took publishes, some after its last commit, and died; others wrote on. It returns
// where each is in Kafka.
func midsDead(t *testing.T) (*fakeKafka, map[string]Offset) {
	k := newKafka()
	n := publishNode(t, k, newRaft())
	where := map[string]Offset{}
	for i := range 8 {
		mid := fmt.Sprint("m", i)
		where[mid] = mustPublish(t, n.Bridge, pub(mid, mid)).Offset
		n.wantNext(orders0, k.end(orders0))
		if i == 4 {
			late := midRecord(0, "u", "m2") // of a coordinator that had died
			late.Value = []byte("m2")
			k.do(func() { k.part(orders0).append(late) })
			n.wantNext(orders0, k.end(orders0))
			k.commit(n)
		}
	}
	n.depose()
	k.write(orders0, "", make([]string, 2*midWindowSize)...)
	return k, where
}

// repeated publishes everything again and wants it answered as it was.
func repeated(t *testing.T, n *testNode, where map[string]Offset) {
	t.Helper()
	for mid, o := range where {
		if again := mustPublish(t, n.Bridge, pub(mid, mid)); !again.Duplicate || again.Offset != o || again.Pos != at(1, Seqno(o)+1) {
			t.Errorf("%s was written at %d, and again: %+v", mid, o, again)
		}
	}
}

// All disks are lost, and clients repeat what they had published. Before, each was written and delivered again
// (`make faults SCENARIO=kill-all-wiped`).
func TestPublishRepeatedAfterEveryDiskLost(t *testing.T) {
	k, where := midsDead(t)
	writes, r := k.writes, newRaft()
	n1, n2 := r.node(t, k, "n1"), r.node(t, k, "n2")
	for _, n := range []*testNode{n1, n2} {
		n.TopicsChanged(topicMap("orders", 1, 1))
	}
	n1.lead()
	repeated(t, n1, where)
	repeated(t, n2, where) // forwarded
	for _, n := range []*testNode{n1, n2} {
		eventually(t, func() bool { return n.Filled() == 0 && len(n.shown(orders0)) == 8+2*midWindowSize }, func() string {
			return fmt.Sprintf("node %s shows %d records", n.id, len(n.shown(orders0)))
		})
		n.emptyCache()
		if got := replay(t, n.Bridge, orders0, 0, 8); got[7] != "m7@1,9" {
			t.Errorf("from Kafka: %v", got)
		}
	}
	n2.lead()
	repeated(t, n2, where)
	k.commitAlways(t, n2)
	n2.wantNext(orders0, k.end(orders0))
	repeated(t, n1, where)
	if k.writes != writes {
		t.Errorf("%d written again", k.writes-writes)
	}
	if again := mustPublish(t, n1.Bridge, pub("new", "new")); again.Duplicate {
		t.Errorf("%+v", again)
	}
}

// A shutReplayer waits before it reads, for ever if nobody opens it.
type shutReplayer struct {
	Replayer
	open, asked chan struct{}
}

func newShutReplayer(k *fakeKafka) shutReplayer {
	return shutReplayer{k, make(chan struct{}), make(chan struct{}, 100)}
}

func (r shutReplayer) Replay(ctx context.Context, what ReplayRange, emit func(Fetched) error) error {
	r.asked <- struct{}{}
	select {
	case <-r.open:
		return r.Replayer.Replay(ctx, what, emit)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Before the ids are there no publish is taken, nothing is read and nothing is committed; and a coordinator that
// dies then leaves all of it to the next.
func TestPublishWaitsForTheRecall(t *testing.T) {
	k, where := midsDead(t)
	writes, r, gate := k.writes, newRaft(), newShutReplayer(k)
	n1, n2 := r.node(t, k, "n1", func(c *Config) { c.Replayer = gate }), r.node(t, k, "n2")
	for _, n := range []*testNode{n1, n2} {
		n.TopicsChanged(topicMap("orders", 1, 1))
	}
	n1.lead()
	for range 2 { // the filling, the recall
		<-gate.asked
	}
	k.commitAlways(t, n1)
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	var ue *UnavailableError
	if res, err := n1.Publish(ctx, pub("m7", "m7")); !errors.As(err, &ue) || ue.RetryAfter <= 0 {
		t.Errorf("%+v %v", res, err)
	}
	if c, starts := n1.Commits(), n1.feed.startsOf(orders0); len(c) > 0 || len(starts) > 0 {
		t.Errorf("commits %v, reads from %v", c, starts)
	}
	n2.lead()
	repeated(t, n2, where)
	if k.writes != writes {
		t.Errorf("%d written again", k.writes-writes)
	}
	// n1 comes back when the commits know the epoch: it need not read again, and may not.
	k.commit(n2)
	asked := k.askedForCommits()
	n1.lead()
	eventually(t, func() bool { return k.askedForCommits() > asked }, func() string { return "it does not ask for commits" })
	repeated(t, n1, where)
	n1.wantNext(orders0, k.end(orders0))
}

// Kafka cannot be read for a while.
func TestRecallIsTriedAgain(t *testing.T) {
	k, where := midsDead(t)
	tries := make(chan struct{}, 100)
	n := newRaft().node(t, k, "n1", func(c *Config) {
		c.Replayer = failingReplayer{k, func() (int, error) {
			select {
			case tries <- struct{}{}:
			default:
			}
			if len(tries) < 5 {
				return 2, errAway
			}
			return 0, nil
		}}
	})
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	repeated(t, n, where)
}

// Where nobody may publish, nothing is read back.
func TestNoRecallWithoutPublishing(t *testing.T) {
	k, _ := midsDead(t)
	n := newRaft().node(t, k, "n1", func(c *Config) { c.Replayer = newShutReplayer(k) })
	topics := topicMap("orders", 1, 1)
	m := topics["orders"]
	m.Publish = false
	topics["orders"] = m
	n.TopicsChanged(topics)
	n.lead()
	k.commitAlways(t, n)
	n.wantNext(orders0, k.end(orders0))
	k.write(orders0, "", "read")
	n.wantNext(orders0, k.end(orders0))
}
