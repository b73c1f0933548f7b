package bridge

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

var orders1 = TopicPartition{"orders", 1}

// A topic grows, its first partition notes that, and the node restarts before it has begun with the second.
// That one came while the cluster watched and is read from its first record. Before, the first partition's
// note looked as if there had always been two, and the policy (latest) left records out.
func TestNewPartitionAfterARestart(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 0)
	k.commit(n)
	n.Apply(0, 1, 99, encodeOps([]op{&noteOp{TP: orders0, Partitions: 2, Scattered: true}}))
	snapshot := n.snapshot()
	n.depose()
	k.write(orders1, "", "first")

	again := newRaft().node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	if err := again.Restore(0, snapshot); err != nil {
		t.Fatal(err)
	}
	k.do(func() { clear(k.committed) })
	again.TopicsChanged(topicMap("orders", 2, 1))
	again.lead()
	again.wantShown(orders1, "first@1,1")
}

// The same when this node has yet to learn of the first partition, which is in another group: the group's
// commits tell how many partitions there were.
func TestNewPartitionKnownFromCommits(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 0)
	k.commit(n)
	n.depose()
	k.write(orders1, "", "first")
	two := func(c *Config) { c.Start, c.Groups = StartPolicy{}, 2 }
	again := newRaft().node(t, k, "n1", two)
	again.TopicsChanged(topicMap("orders", 2, 1))
	again.lead(again.groupOf(orders1))
	again.wantShown(orders1, "first@1,1")
}

// lateNotes holds notes back until gate is closed, and counts them.
type lateNotes struct {
	replicator
	notes atomic.Int32
	gate  chan struct{}
}

type lateFuture func() (any, error)

func (f lateFuture) Wait() (any, error) { return f() }

func (r *lateNotes) Propose(g GroupID, entry []byte) Future {
	ops, _ := decodeEntry(entry)
	if _, ok := ops[0].(*noteOp); !ok {
		return r.replicator.Propose(g, entry)
	}
	r.notes.Add(1)
	return lateFuture(func() (any, error) {
		<-r.gate
		return r.replicator.Propose(g, entry).Wait()
	})
}

// However often the coordinator looks while a note is on its way, it proposes no second one. Before, each
// look brought one.
func TestOneNoteAtATime(t *testing.T) {
	k, r := newKafka(), newRaft()
	late := &lateNotes{gate: make(chan struct{})}
	n := r.node(t, k, "n1", func(c *Config) {
		late.replicator = c.Replicator.(replicator)
		c.Replicator = late
	})
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 0)
	n.TopicsChanged(topicMap("orders", 2, 1))
	eventually(t, func() bool { return late.notes.Load() > 0 }, func() string { return "no note" })
	for i := range 20 { // each is a look, and none waits for the note
		k.write(orders0, "", "x")
		eventually(t, func() bool { return k.fetched(n, orders0) > Offset(i) }, func() string { return "not fetched" })
		n.TopicsChanged(topicMap("orders", 2, 1))
		if i == 1 {
			break // two Fetched may be open while the note holds the proposals' ends up
		}
	}
	if got := late.notes.Load(); got != 1 {
		t.Errorf("%d notes on their way", got)
	}
	close(late.gate)
	eventually(t, func() bool { v, _ := n.Topic("orders"); return v.Scattered }, func() string { return "not noted" })
	n.wantShown(orders0, "x@1,1", "x@1,2")
	if got := late.notes.Load(); got != 1 { // the looks may come as late as that
		t.Errorf("%d notes", got)
	}
}

// fetched is how far n's Feed has come.
func (k *fakeKafka) fetched(n *testNode, tp TopicPartition) Offset {
	n.feed.mu.Lock()
	defer n.feed.mu.Unlock()
	if r := n.feed.runs[tp]; r != nil {
		return r.next
	}
	return -1
}

// A client comes with the vector of a node that knows of an added partition before this one. Before, it was told
// that its vector was wrong.
func TestGrown(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1", func(c *Config) { c.TopicIDs = k })
	n.TopicsChanged(topicMap("orders", 1, 1))
	asked := 0
	k.do(func() {
		k.asked = func() {
			if asked++; asked == 3 { // the brokers before it do not know either
				n.TopicsChanged(topicMap("orders", 2, 1))
			}
		}
	})
	if v, err := n.Grown(testContext(t), "orders", 0); err != nil || v.Partitions != 1 || asked > 0 {
		t.Errorf("a partition that is known: %+v, %v, asked %d times", v, err, asked)
	}
	if v, err := n.Grown(testContext(t), "orders", 1); err != nil || v.Partitions != 2 {
		t.Errorf("an added partition: %+v, %v", v, err)
	}
	short, cancel := context.WithTimeout(testContext(t), 2*grownRetry)
	defer cancel()
	if v, err := n.Grown(short, "orders", 2); err != nil || v.Partitions != 2 {
		t.Errorf("a partition that there is not: %+v, %v", v, err)
	}
	var ue *UnavailableError
	n.cfg.TopicIDs = awayIDs{}
	// It has to have been asked before the time is up, which is resolveTimeout at the latest.
	if _, err := n.Grown(testContext(t), "orders", 2); !errors.As(err, &ue) || !errors.Is(err, errAway) {
		t.Errorf("Kafka away: %v", err)
	}
}

type awayIDs struct{}

func (awayIDs) TopicID(context.Context, string) (TopicID, error) { return TopicID{}, errAway }
