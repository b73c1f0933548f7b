package bridge

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

var orders0 = TopicPartition{"orders", 0}

func TestCoordinatorReadsAndStampsOnEveryNode(t *testing.T) {
	k, r := newKafka(), newRaft()
	k.write(orders0, "", "a", "b")
	n1, n2 := r.node(t, k, "n1"), r.node(t, k, "n2")
	for _, n := range []*testNode{n1, n2} {
		n.TopicsChanged(topicMap("orders", 1, 1))
	}
	n1.lead()
	k.write(orders0, "", "c")
	for _, n := range []*testNode{n1, n2} {
		n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3")
	}
	// Another coordinator goes on where the ledger is, in a new epoch that begins with its first record.
	n2.lead()
	k.write(orders0, "", "d")
	n1.wantNext(orders0, 4)
	n1.lead()
	k.write(orders0, "", "e")
	for _, n := range []*testNode{n1, n2} {
		n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@2,1", "e@3,1")
	}
	if got := n2.feed.startsOf(orders0); !slices.Equal(got, []Offset{3}) {
		t.Errorf("the second coordinator read from %v, want from 3 alone", got)
	}
	if c := n1.Commits(); len(c) != 1 || c[0].Offset != 5 || len(n2.Commits()) != 0 {
		t.Errorf("commits %v on the coordinator, %v on the other", c, n2.Commits())
	}
	eventually(t, func() bool { return n1.feed.idle(orders0) }, func() string { return "a Fetched was not given back" })
	s := n1.PartitionStatuses()
	if len(s) != 1 || s[0].Coordinator != "n1" || s[0].Epoch != 3 || s[0].Seqno != 1 || s[0].Next != 5 || s[0].Lag != 0 {
		t.Errorf("status %+v", s)
	}
}

// Proposals fail in every way there is, over and over: nothing is lost and nothing comes twice.
func TestProposalsThatFail(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1", func(c *Config) {})
	n.feed.limit = 2
	var batches atomic.Int64
	r.refuse = func(_ GroupID, ops []op) (fail, commit bool) {
		if _, ok := ops[0].(*batchOp); !ok {
			return false, true
		}
		switch batches.Add(1) % 4 {
		case 1:
			return true, false
		case 2:
			return true, true // the leader was told no, and yet it was committed
		}
		return false, true
	}
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	var want []string
	for i := range 40 {
		k.write(orders0, "", fmt.Sprint(i))
		want = append(want, fmt.Sprintf("%d@1,%d", i, i+1))
	}
	n.wantShown(orders0, want...)
	if batches.Load() < 8 {
		t.Fatalf("only %d batches were proposed", batches.Load())
	}
}

// A batch that does not follow on the ledger is refused there, and the coordinator reads again.
func TestRefusedBatchIsReadAgain(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a")
	n.wantShown(orders0, "a@1,1")
	eventually(t, func() bool { return n.feed.idle(orders0) }, func() string { return "not idle" })
	// The Feed jumps ahead of the ledger behind the coordinator's back.
	n.feed.mu.Lock()
	n.feed.runs[orders0].next = 3
	n.feed.mu.Unlock()
	k.write(orders0, "", "b", "c", "d")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4")
	if got := n.feed.startsOf(orders0); !slices.Equal(got, []Offset{0, 1}) {
		t.Errorf("read from %v", got)
	}
}

func TestRecordsLostInKafka(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b", "c")
	n.wantNext(orders0, 3)
	k.truncate(orders0, 1)
	n.wantNext(orders0, 1)
	k.write(orders0, "", "x")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "GAP:truncated@2,0", "x@2,1")
	// Retention passes the coordinator by while it cannot read.
	k.do(func() { k.away = true })
	k.write(orders0, "", "y", "z")
	k.evict(orders0, 9)
	k.do(func() { k.away = false })
	n.wantNext(orders0, 9)
	k.write(orders0, "", "w")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "GAP:truncated@2,0", "x@2,1", "GAP:evicted@3,0", "w@3,1")
}

func TestTopicCreatedAgain(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b", "c")
	n.wantNext(orders0, 3)
	n.TopicsChanged(map[string]TopicMeta{})
	eventually(t, func() bool { return k.fetched(n, orders0) < 0 }, func() string { return "it goes on reading what is not there" })
	k.do(func() { k.parts[orders0] = new(fakePart) })
	k.write(orders0, "", "A", "B", "C", "D", "E") // more than there were: offset 3 is in range
	n.TopicsChanged(topicMap("orders", 1, 2))
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "GAP:truncated@2,0", "A@2,1", "B@2,2", "C@2,3", "D@2,4", "E@2,5")
	// The same while it is being read, noticed by its id before a fetch fails.
	k.do(func() { k.away, k.parts[orders0] = true, new(fakePart) })
	n.TopicsChanged(topicMap("orders", 1, 3))
	k.do(func() { k.away = false })
	n.wantNext(orders0, 0)
	k.write(orders0, "", "1")
	eventually(t, func() bool {
		s := n.shown(orders0)
		return len(s) > 1 && slices.Equal(s[len(s)-2:], []string{"GAP:truncated@3,0", "1@3,1"})
	}, func() string { return fmt.Sprint(n.shown(orders0)) })
}

// A topic is created again and read on before its new id is known: the reading fails first. The coordinator
// asks for the id and waits for the new topic's description.
//
// Before, it took the end of the new log for a truncated one's: the records there were shown in one epoch
// and, once the id was known, again in the next.
func TestTopicCreatedAgainFoundByTheFeed(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1", func(c *Config) { c.TopicIDs = k })
	k.do(func() { k.ids["orders"] = TopicID{1} })
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b", "c")
	n.wantNext(orders0, 3)
	asked := make(chan struct{}, 100)
	k.do(func() {
		k.ids["orders"] = TopicID{2}
		k.asked = func() {
			select {
			case asked <- struct{}{}:
			default: // asked more often than anybody looks
			}
		}
		k.parts[orders0] = new(fakePart)
		k.part(orders0).append(Record{Value: []byte("A")})
	})
	<-asked
	<-asked
	k.write(orders0, "", "B")
	n.TopicsChanged(topicMap("orders", 1, 2))
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "GAP:truncated@2,0", "A@2,1", "B@2,2")
	k.truncate(orders0, 1) // the same topic: asked, and answered at once
	n.wantNext(orders0, 1)
	k.write(orders0, "", "C")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "GAP:truncated@2,0", "A@2,1", "B@2,2", "GAP:truncated@3,0", "C@3,1")
}

// A topic that grows: its first partitions began by the policy, the new one begins at its first record,
// and its keys may be in two places from then on.
func TestTopicGrows(t *testing.T) {
	k, r := newKafka(), newRaft()
	orders1 := TopicPartition{"orders", 1}
	k.write(orders0, "", "before")
	n := r.node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 1)
	if v, ok := n.Topic("orders"); !ok || v.Scattered || v.Partitions != 1 {
		t.Fatalf("view %+v %v", v, ok)
	}
	k.write(orders1, "", "first")
	n.TopicsChanged(topicMap("orders", 2, 1))
	n.wantShown(orders1, "first@1,1")
	k.write(orders0, "", "after")
	n.wantShown(orders0, "after@1,1")
	eventually(t, func() bool { v, _ := n.Topic("orders"); return v.Scattered && v.Partitions == 2 },
		func() string { return "growth did not scatter the topic" })
	// A topic that appears while the cluster watches is read from its first record.
	k.write(TopicPartition{"new", 0}, "", "n")
	topics := topicMap("orders", 2, 1)
	topics["new"] = TopicMeta{ID: TopicID{7}, Partitions: 1, Exposed: true}
	n.TopicsChanged(topics)
	n.wantShown(TopicPartition{"new", 0}, "n@1,1")
}

func TestStartPolicies(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		policy string
		want   []string
	}{
		{"earliest", []string{"old@1,1", "young@1,2"}},
		{"10m", []string{"young@1,1"}},
		{"latest", nil},
	} {
		k, r := newKafka(), newRaft()
		k.do(func() {
			k.part(orders0).append(Record{Value: []byte("old"), Timestamp: now.Add(-time.Hour).UnixMilli()})
			k.part(orders0).append(Record{Value: []byte("young"), Timestamp: now.Add(-time.Minute).UnixMilli()})
		})
		policy, err := ParseStart(tc.policy)
		if err != nil || policy.String() != map[string]string{"10m": "10m0s"}[tc.policy] && policy.String() != tc.policy {
			t.Fatalf("%q: %v %v", tc.policy, policy, err)
		}
		n := r.node(t, k, "n1", func(c *Config) { c.Start = policy })
		n.TopicsChanged(topicMap("orders", 1, 1))
		n.lead()
		n.wantNext(orders0, 2)
		n.wantShown(orders0, tc.want...)
	}
	for _, bad := range []string{"", "now", "-1m", "0s"} {
		if _, err := ParseStart(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A cluster that lost every disk takes up its epochs from the group's commits: positions stay valid and
// go on rising.
func TestEpochsFromCommits(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	k.write(orders0, "", "a", "b")
	n.wantNext(orders0, 2)
	n.lead()
	k.write(orders0, "", "c")
	n.wantNext(orders0, 3)
	k.commit(n)
	n.depose()

	k.write(orders0, "", "d")
	n2 := reborn(t, k, 1)
	// What was there before comes from Kafka, where the epochs place it.
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@2,1", "d@2,2")
	k.write(orders0, "", "e")
	n2.wantShown(orders0, "a@1,1", "b@1,2", "c@2,1", "d@2,2", "e@1002,1")
	n2.depose() // it would go on committing

	for _, meta := range []string{"", "tw1:!", "someone else's"} { // the offset alone still counts
		k.do(func() { k.committed[orders0] = CommitOffset{TP: orders0, Offset: 2, Metadata: meta} })
		n3 := newRaft().node(t, k, "n1", func(c *Config) { c.Start = StartPolicy{} })
		n3.TopicsChanged(topicMap("orders", 1, 1))
		n3.lead()
		n3.wantShown(orders0, "c@1,1", "d@1,2", "e@1,3")
	}
}

// A key where murmur2 would not have put it marks the topic, on every node, before the record shows.
func TestKeyOutOfPlace(t *testing.T) {
	k, r := newKafka(), newRaft()
	n1, n2 := r.node(t, k, "n1"), r.node(t, k, "n2")
	for _, n := range []*testNode{n1, n2} {
		n.TopicsChanged(topicMap("orders", 4, 1))
	}
	key := []byte("k0")
	for i := 0; PartitionFor(key, 4) != 2; i++ {
		key = fmt.Appendf(nil, "k%d", i)
	}
	home, away := TopicPartition{"orders", 2}, TopicPartition{"orders", 3}
	n1.lead()
	k.write(home, string(key), "home")
	k.write(away, "", "no key") // has no place
	n2.wantShown(home, "home@1,1")
	n2.wantShown(away, "no key@1,1")
	if v, _ := n2.Topic("orders"); v.Scattered {
		t.Fatal("scattered although every key is in its place")
	}
	k.write(away, string(key), "away")
	n2.wantShown(away, "no key@1,1", "away@1,2")
	for _, n := range []*testNode{n1, n2} {
		if v, _ := n.Topic("orders"); !v.Scattered {
			t.Errorf("node %s shows the record and does not know that the topic is scattered", n.id)
		}
	}
	// A third node learns it from the snapshot.
	b := n1.snapshot()
	n3 := newRaft().node(t, k, "n3")
	n3.TopicsChanged(topicMap("orders", 4, 1))
	if err := n3.Restore(0, b); err != nil {
		t.Fatal(err)
	}
	if v, _ := n3.Topic("orders"); !v.Scattered {
		t.Error("not known after a restore")
	}
	if !bytes.Equal(b, n3.snapshot()) {
		t.Error("the restored group's snapshot differs")
	}
}

// One Fetched that is too big for an entry becomes several; they apply whole and in order.
func TestLargeFetchedIsSplit(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	big := bytes.Repeat([]byte("x"), 1000)
	var want []string
	k.do(func() {
		for i := range 900 {
			if i%10 == 9 {
				k.part(orders0).end++ // a hole
			}
			o := k.part(orders0).append(Record{Value: big})
			want = append(want, fmt.Sprintf("%s@1,%d", big, o+1))
		}
		o := k.part(orders0).append(Record{Value: bytes.Repeat(big, 400)}) // over the limit by itself
		want = append(want, fmt.Sprintf("%s@1,%d", bytes.Repeat(big, 400), o+1))
		k.part(orders0).end += 5 // a hole at the end
	})
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 900+90+1+5)
	if got := n.shown(orders0); !slices.Equal(got, want) {
		t.Fatalf("%d records shown, want %d", len(got), len(want))
	}
	eventually(t, func() bool { return n.feed.idle(orders0) }, func() string { return "the Fetched was not given back" })
	sizes := r.entries(0)
	if len(sizes) < 5 {
		t.Fatalf("entries of %v bytes", sizes)
	}
	over := 0
	for _, s := range sizes {
		if s > maxEntryBytes {
			over++
		}
	}
	if over != 1 {
		t.Errorf("%d entries over %d bytes, want the one with the great record: %v", over, maxEntryBytes, sizes)
	}
}

func TestMalformedEntryIsAppliedByNobody(t *testing.T) {
	r := newRaft()
	n := r.node(t, newKafka(), "n1")
	good := encodeOps([]op{&startOp{TP: orders0, Partitions: 1, First: 5}})
	if _, ok := n.Apply(0, 1, 1, append(good, 77)).(*MalformedEntryError); !ok {
		t.Error("taken")
	}
	if n.started(orders0) != nil {
		t.Error("applied in part")
	}
	res, _ := n.Apply(0, 1, 2, encodeOps([]op{&batchOp{TP: orders0, From: 5, Next: 6}})).([]opResult)
	if len(res) != 1 || !res[0].Refused {
		t.Errorf("a batch before the start: %+v", res)
	}
	for _, b := range [][]byte{nil, {9}, {1, 5}} {
		if n.Restore(0, b) == nil {
			t.Errorf("snapshot %v is taken", b)
		}
	}
}

func TestTopicView(t *testing.T) {
	n := newRaft().node(t, newKafka(), "n1", func(c *Config) { c.AnyPartitioner = true })
	n.TopicsChanged(map[string]TopicMeta{
		"in": {Partitions: 3, Exposed: true}, "out": {Partitions: 2, Publish: true}, "neither": {Partitions: 1},
	})
	for name, want := range map[string]TopicView{
		"in":  {Partitions: 3, Exposed: true, Scattered: true},
		"out": {Partitions: 2, Publish: true, Scattered: true},
	} {
		if v, ok := n.Topic(name); !ok || v != want {
			t.Errorf("%s: %+v %v", name, v, ok)
		}
	}
	for _, name := range []string{"neither", "unknown"} {
		if v, ok := n.Topic(name); ok {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// Many partitions over many groups, each in exactly one; neighbours in different ones.
func TestGroupOf(t *testing.T) {
	for p := range int32(20) {
		a, b := GroupOf(TopicPartition{"t", p}, 6), GroupOf(TopicPartition{"t", p + 1}, 6)
		if a >= 6 || b != (a+1)%6 {
			t.Fatalf("partition %d in group %d, %d in %d", p, a, p+1, b)
		}
	}
}
