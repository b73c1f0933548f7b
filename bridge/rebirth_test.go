package bridge

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A cluster that lost every disk, and what its clients' positions mean to the one that takes its place.

// dead is a cluster that has read a, b, c and e and died; its last commit was made after b.
func dead(t *testing.T) *fakeKafka {
	k, r := newKafka(), newRaft()
	k.elect(orders0, 0)
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b")
	n.wantNext(orders0, 2)
	k.commit(n)
	k.write(orders0, "", "c", "d", "e")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5")
	n.depose()
	return k
}

// commit stores what n would have the group commit.
func (k *fakeKafka) commit(n *testNode) {
	k.do(func() {
		for _, c := range n.Commits() {
			k.committed[c.TP] = c
		}
	})
}

// reborn is a cluster that knows nothing but what Kafka has, and commits what it reads.
func reborn(t *testing.T, k *fakeKafka, partitions int32) *testNode {
	n := mute(t, k, partitions)
	k.commitAlways(t, n)
	return n
}

// mute is one that cannot commit.
func mute(t *testing.T, k *fakeKafka, partitions int32) *testNode {
	n := newRaft().node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	n.TopicsChanged(topicMap("orders", partitions, 1))
	n.lead()
	return n
}

// commitAlways commits for n what it leads, as the group does once a second.
func (k *fakeKafka) commitAlways(t *testing.T, n *testNode) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for pause(ctx, time.Millisecond) {
			k.commit(n)
		}
	}()
}

// resumes says what a client that stopped at p gets from n, as values, or the verdict that it gets nothing.
func (n *testNode) resumes(p Position) (onward, bool) {
	n.t.Helper()
	var o onward
	var ok bool
	n.started(orders0).view(func(l *ledger) { o, ok = l.epochs.resolve(p) })
	return o, ok
}

// A position that was given out after the last commit means what it meant; what the cluster writes on gets
// a higher epoch. Before, c to e were unknown to the commit and given out anew in epoch 2: a client that
// had them was told that its position was never given out.
func TestRebornKnowsWhatTheCommitDidNot(t *testing.T) {
	k := dead(t)
	k.write(orders0, "", "f") // while there was no cluster
	n := reborn(t, k, 1)
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1,6")
	n.wantNext(orders0, 6)
	k.write(orders0, "", "g")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1,6", "g@1001,1")
	for s := range Seqno(7) {
		if o, ok := n.resumes(at(1, s)); !ok || o != (onward{Next: Offset(s)}) {
			t.Errorf("from 1,%d on: %+v %v", s, o, ok)
		}
	}
	for _, p := range []Position{at(1, 7), at(2, 0), at(2, 1), at(1000, 3), at(1001, 2)} {
		if o, ok := n.resumes(p); ok {
			t.Errorf("%v was never given out and resolves to %+v", p, o)
		}
	}
	// And again, with nothing read in between and with something.
	k.commit(n)
	n.depose()
	n = reborn(t, k, 1)
	n.wantNext(orders0, 7)
	eventually(t, func() bool { return len(n.Commits()) > 0 }, func() string { return "it has nothing to commit: its message ids are not back" })
	k.commit(n)
	n.depose()
	n = reborn(t, k, 1)
	n.wantNext(orders0, 7)
	k.write(orders0, "", "h")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1,6", "g@1001,1", "h@3001,1")
}

// All disks are lost again before the cluster that took up the epochs has committed its own. It used to read
// on at once, and what it gave out was given other positions by the next, which found the same commit (`make
// faults SCENARIO=kill-all-wiped SEED=2`: 3,265 records of 2,074 "lost", 615 out of order). Now it gives
// nothing out until the commits know its epoch.
func TestRebornTwiceFromOneCommit(t *testing.T) {
	k := dead(t)
	n := mute(t, k, 1)
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5")
	k.write(orders0, "", "f", "g")
	asked := k.askedForCommits()
	eventually(t, func() bool { return k.askedForCommits() > asked+1 }, func() string { return "it does not look for its commit" })
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5")
	n.depose()

	n = reborn(t, k, 1)
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1,6", "g@1,7")
	n.wantNext(orders0, 7)
	k.write(orders0, "", "h")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1,6", "g@1,7", "h@1001,1")
}

// And what the life in between told its clients means the same to the next, though no commit knows its epoch.
// Before, they were told of a loss, and got records of the epoch before the one that they were in.
func TestRebornTwiceKnowsThePlacesOfTheFirst(t *testing.T) {
	k := dead(t)
	k.elect(orders0, 5)
	life := func(second int64) *testNode {
		n := newRaft().node(t, k, "n1", func(c *Config) { c.Now = func() time.Time { return time.Unix(second, 0) } })
		n.TopicsChanged(topicMap("orders", 1, 1))
		n.lead()
		n.wantNext(orders0, 5)
		eventually(t, func() bool { return n.Filled() == 0 }, func() string { return "not filled" })
		return n
	}
	n := life(10)
	log, _ := n.store.Lookup("orders", 0)
	told := []Position{n.head(), log.Bounds().Head}
	n.forget()
	k.evict(orders0, 5)
	res, err := n.Resolve(testContext(t), orders0, at(1, 2)) // goes on at the end
	if err != nil {
		t.Fatal(err)
	}
	told = append(told, res.At)
	n.depose()
	n = life(20)
	for _, p := range told {
		if res, err := n.Resolve(testContext(t), orders0, p); err != nil || res.Verdict != FromCache {
			t.Errorf("%v: %+v %v", p, res, err)
		}
	}
	k.commitAlways(t, n)
	k.write(orders0, "", "f")
	n.wantShown(orders0, "f@20001000,1")
}

// Another coordinator comes before the first record: the epoch that the commits know is used all the same.
func TestRebornAndAnotherCoordinator(t *testing.T) {
	k := dead(t)
	n := reborn(t, k, 1)
	n.wantNext(orders0, 5)
	n.lead()
	n.lead()
	k.write(orders0, "", "f")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1001,1")
	n.lead()
	k.write(orders0, "", "g")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1001,1", "g@1002,1")
}

// A coordinator had moved after the last commit: the positions of its epoch are unknown for ever. Without
// the leap, epoch 2 would begin elsewhere and they would mean other records.
func TestRebornNeverReusesAnEpoch(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b")
	n.wantNext(orders0, 2)
	k.commit(n)
	n.lead()
	k.write(orders0, "", "c", "d")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@2,1", "d@2,2")
	n.depose()
	n = reborn(t, k, 1)
	n.wantNext(orders0, 4)
	k.write(orders0, "", "e", "f")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1001,1", "f@1001,2")
	for _, p := range []Position{at(2, 1), at(2, 2)} {
		if res, err := n.Resolve(testContext(t), orders0, p); err != nil || res.Verdict != Unknown {
			t.Errorf("%v: %+v %v", p, res, err)
		}
	}
}

// Kafka truncated its log while there was no cluster. What was given out behind the truncation is not taken
// for what stands there now: the extension ends where the leader epoch of the commit does.
func TestRebornAfterATruncation(t *testing.T) {
	for name, tc := range map[string]struct {
		cut   Offset
		known Seqno // up to here positions of epoch 1 mean what they meant
	}{
		"after the commit":  {3, 3},
		"before the commit": {1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			k := dead(t)
			k.elect(orders0, tc.cut)
			k.write(orders0, "", "X", "Y", "Z")
			n := reborn(t, k, 1)
			n.wantNext(orders0, tc.cut+3)
			n.wantShownLast(orders0, "X@1001,1", "Y@1001,2", "Z@1001,3")
			for s := tc.known + 1; s <= 5; s++ {
				if o, ok := n.resumes(at(1, s)); ok {
					t.Errorf("1,%d was lost and resolves to %+v", s, o)
				}
			}
			for s := range tc.known + 1 {
				if o, ok := n.resumes(at(1, s)); !ok || o.Next != min(Offset(s), tc.cut) || o.Truncated != (Offset(s) < 2 && tc.cut < 2) {
					t.Errorf("1,%d resolves to %+v %v", s, o, ok)
				}
			}
		})
	}
}

// Kafka changed leaders cleanly while there was no cluster: everything that was given out still counts.
func TestRebornAfterACleanElection(t *testing.T) {
	k := dead(t)
	k.elect(orders0, 5)
	k.write(orders0, "", "f")
	n := reborn(t, k, 1)
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "f@1001,1")
}

// The topic was created again meanwhile: its records are none of those that were given out.
func TestRebornToAnotherTopic(t *testing.T) {
	k := dead(t)
	k.do(func() { k.parts[orders0] = new(fakePart) })
	k.write(orders0, "", "A", "B", "C", "D")
	n := newRaft().node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	n.TopicsChanged(topicMap("orders", 1, 2))
	n.lead()
	n.wantNext(orders0, 4)
	n.wantShownLast(orders0, "A@1001,1", "B@1001,2", "C@1001,3", "D@1001,4")
	if o, ok := n.resumes(at(1, 4)); ok {
		t.Errorf("resolves to %+v", o)
	}
}

// That a topic's keys are scattered survives, too.
func TestRebornKnowsThatKeysAreScattered(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 0)
	n.TopicsChanged(topicMap("orders", 2, 1))
	eventually(t, func() bool { v, _ := n.Topic("orders"); return v.Scattered }, func() string { return "not scattered" })
	n.wantNext(TopicPartition{"orders", 1}, 0)
	k.commit(n)
	n.depose()
	n = reborn(t, k, 2)
	n.wantNext(orders0, 0)
	if v, _ := n.Topic("orders"); !v.Scattered {
		t.Error("forgotten")
	}
}

// Kafka is away while the cluster begins anew: a client that comes back is asked to wait. Before, it was told
// that its position was never given out.
func TestRebornIsNotYetAsked(t *testing.T) {
	k := dead(t)
	k.do(func() { k.away = true })
	n := reborn(t, k, 1)
	eventually(t, func() bool { return n.Bridge.lead(0) != nil }, func() string { return "nobody leads" })
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	var wait *UnavailableError
	if res, err := n.Resolve(ctx, orders0, at(1, 4)); !errors.As(err, &wait) {
		t.Fatalf("%+v %v", res, err)
	}
	k.do(func() { k.away = false })
	n.wantNext(orders0, 5)
	if res, err := n.Resolve(testContext(t), orders0, at(1, 4)); err != nil || res.Verdict == Unknown || res.Verdict == Lost {
		t.Fatalf("%+v %v", res, err)
	}
}

// Commits tell of a ledger that was taken up what it will do, so that whoever finds them gives the same
// positions.
func TestCommitsKnowTheUpcomingEpoch(t *testing.T) {
	for name, epochs := range map[string]epochList{
		"few":  {{Epoch: 1, First: 0, End: 100}, {Epoch: 1_800_000_000_000_000, First: 100, End: 100}},
		"full": make(epochList, maxEpochs),
	} {
		for i := range epochs {
			if name == "full" {
				epochs[i] = epochRange{Epoch: Epoch(i + 1), First: Offset(i), End: Offset(i + 1)}
			}
		}
		l := &ledger{}
		l.start(3, startOp{Epochs: epochs, First: epochs.last().End})
		o, ours, err := parseMetadata(l.metadata(), l.next())
		if err != nil || !ours {
			t.Fatalf("%s: %v %v", name, ours, err)
		}
		next := l.next()
		s, ok := l.batch(7, batchOp{From: next, Next: next + 1, Records: []Record{{Offset: next}}})
		if !ok || o.Epochs.last().Epoch != s.Positions[0].Epoch || o.Epochs.last().First != next {
			t.Errorf("%s: the commit tells of %+v, the first record is at %v", name, *o.Epochs.last(), s.Positions)
		}
		if after, _, err := parseMetadata(l.metadata(), l.next()); err != nil || after.Epochs.last().Epoch != s.Positions[0].Epoch {
			t.Errorf("%s: then it tells of %+v, %v", name, after.Epochs, err)
		}
	}
}
