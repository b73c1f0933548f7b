package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func pub(mid, value string) PublishRequest {
	return PublishRequest{Topic: "orders", Key: []byte("k"), Value: []byte(value), User: "u", Mid: mid}
}

// publishNode is a node that leads the one partition of "orders".
func publishNode(t *testing.T, k *fakeKafka, r *fakeRaft, opts ...nodeOption) *testNode {
	n := r.node(t, k, "n1", opts...)
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, k.end(orders0))
	return n
}

func (k *fakeKafka) end(tp TopicPartition) Offset {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.part(tp).end
}

func mustPublish(t *testing.T, b *Bridge, req PublishRequest) PublishResult {
	t.Helper()
	res, err := b.Publish(testContext(t), req)
	if err != nil {
		t.Fatalf("publish %q: %v", req.Value, err)
	}
	return res
}

func TestPublishOnceByMid(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	first := mustPublish(t, n.Bridge, pub("m", "a"))
	if first.Duplicate || first.Offset != 0 || first.Partition != 0 {
		t.Fatalf("%+v", first)
	}
	for range 3 { // before and after the ledger has it
		again := mustPublish(t, n.Bridge, pub("m", "a"))
		if !again.Duplicate || again.Offset != 0 {
			t.Fatalf("%+v", again)
		}
		n.wantNext(orders0, 1)
	}
	if again := mustPublish(t, n.Bridge, pub("m", "a")); again.Pos != at(1, 1) {
		t.Fatalf("%+v: its position is known", again)
	}
	other := pub("m", "b")
	other.User = "v"
	mustPublish(t, n.Bridge, other)        // another user's id is another id
	mustPublish(t, n.Bridge, pub("", "c")) // without an id each is its own
	mustPublish(t, n.Bridge, pub("", "c")) //
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "c@1,4")
	k.mu.Lock()
	h := k.part(orders0).records[0].Headers
	k.mu.Unlock()
	if len(h) != 2 || h[0].Key != HeaderMid || string(h[0].Value) != "m" || h[1].Key != HeaderUser || string(h[1].Value) != "u" {
		t.Errorf("headers %v", h)
	}
}

// Two with one id at the same moment: one is written, the other waits for it.
func TestPublishTwiceInFlight(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	entered, release := make(chan struct{}, 10), make(chan struct{})
	k.produce = func(TopicPartition, Record) (bool, error) {
		entered <- struct{}{}
		<-release
		return true, nil
	}
	results := make(chan PublishResult, 2)
	var wg sync.WaitGroup
	publish := func() {
		wg.Go(func() {
			res, err := n.Publish(testContext(t), pub("m", "a"))
			if err != nil {
				t.Error(err)
			}
			results <- res
		})
	}
	publish()
	<-entered
	publish()
	// One that gives up waiting is told so in time, and disturbs nobody.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	var ue *UnavailableError
	if _, err := n.Publish(ctx, pub("m", "a")); !errors.As(err, &ue) || ue.RetryAfter <= 0 {
		t.Errorf("error %v", err)
	}
	close(release)
	wg.Wait()
	a, b := <-results, <-results
	if a.Duplicate == b.Duplicate || a.Offset != b.Offset {
		t.Errorf("%+v and %+v", a, b)
	}
	if k.writes != 1 {
		t.Errorf("%d writes", k.writes)
	}
}

// The caller goes away while its record is on its way: the next one with the id still finds it.
func TestPublishCallerGone(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	ctx, cancel := context.WithCancel(context.Background())
	k.produce = func(TopicPartition, Record) (bool, error) { cancel(); return true, nil }
	if _, err := n.Publish(ctx, pub("m", "a")); err != nil {
		t.Errorf("what is on its way was not followed to its end: %v", err)
	}
	if again := mustPublish(t, n.Bridge, pub("m", "a")); !again.Duplicate {
		t.Errorf("%+v", again)
	}
	n.wantShown(orders0, "a@1,1")
}

// The coordinator dies after Kafka has the record and before its ledger has: the next one takes no id
// before it has read what was there.
func TestPublishRepeatedAfterFailover(t *testing.T) {
	k, r := newKafka(), newRaft()
	n1 := publishNode(t, k, r)
	n2 := r.node(t, k, "n2")
	n2.TopicsChanged(topicMap("orders", 1, 1))
	r.hold(0, "n2", true)
	n1.feed.close() // n1 reads nothing back any more
	n1.feed.quit = make(chan struct{})
	first := mustPublish(t, n1.Bridge, pub("m", "a"))
	r.hold(0, "n2", false)
	n2.lead()
	again := mustPublish(t, n1.Bridge, pub("m", "a")) // forwarded
	if !again.Duplicate || again.Offset != first.Offset {
		t.Errorf("first %+v, again %+v", first, again)
	}
	n2.wantShown(orders0, "a@2,1")
	if k.writes != 1 {
		t.Errorf("%d writes", k.writes)
	}
}

// An outcome that is not known, of a record that was written, and of one that was not.
func TestPublishOutcomeUnknown(t *testing.T) {
	for _, written := range []bool{true, false} {
		k, r := newKafka(), newRaft()
		n := publishNode(t, k, r)
		k.produce = func(TopicPartition, Record) (bool, error) { return written, errors.New("connection reset") }
		var ue *UnavailableError
		if _, err := n.Publish(testContext(t), pub("m", "a")); !errors.As(err, &ue) || ue.RetryAfter <= 0 {
			t.Fatalf("error %v", err)
		}
		k.do(func() { k.produce = nil })
		if again := mustPublish(t, n.Bridge, pub("m", "a")); again.Duplicate != written || again.Offset != 0 {
			t.Errorf("written %v: again %+v", written, again)
		}
		n.wantShown(orders0, "a@1,1")
		if k.writes != 1 {
			t.Errorf("%d writes", k.writes)
		}
	}
}

// A record of a dead coordinator reaches Kafka after the next one has looked: two copies are there, and
// subscribers get one, live and from Kafka.
func TestTwoCopiesInKafka(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	mustPublish(t, n.Bridge, pub("m", "a"))
	late := midRecord(0, "u", "m")
	late.Value = []byte("a again")
	k.do(func() { k.part(orders0).append(late) })
	k.write(orders0, "", "b")
	n.wantShown(orders0, "a@1,1", "b@1,3")
	got := replay(t, n.Bridge, orders0, 0, 2)
	if fmt.Sprint(got) != "[a@1,1 b@1,3]" {
		t.Errorf("replayed %v", got)
	}
	if again := mustPublish(t, n.Bridge, pub("m", "a")); !again.Duplicate || again.Offset != 0 || again.Pos != at(1, 1) {
		t.Errorf("again %+v", again)
	}
}

// replay reads n records.
func replay(t *testing.T, b *Bridge, tp TopicPartition, from Offset, n int) (got []string) {
	t.Helper()
	err := b.Replay(testContext(t), tp, from, nil, func(r Replayed) error {
		last := Position{}
		for _, rec := range r.Records {
			got = append(got, fmt.Sprintf("%s@%d,%d", rec.Value, rec.Pos.Epoch, rec.Pos.Seqno))
			last = rec.Pos
		}
		if last.After(r.At) {
			t.Errorf("a record at %v, and everything up to %v", last, r.At)
		}
		if len(got) >= n {
			return ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("replay: %v after %v", err, got)
	}
	return got
}

func TestAckReplicatedWaitsForTheLedger(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	var mu sync.Mutex
	blocked := true
	r.refuse = func(_ GroupID, ops []op) (fail, commit bool) {
		mu.Lock()
		defer mu.Unlock()
		return blocked, false
	}
	for _, mid := range []string{"", "m"} {
		mu.Lock()
		blocked = true
		mu.Unlock()
		req := pub(mid, "a")
		req.Ack = AckReplicated
		acked := make(chan PublishResult)
		var wg sync.WaitGroup
		before := k.end(orders0)
		wg.Go(func() {
			res, err := n.Publish(testContext(t), req)
			if err != nil {
				t.Error(err)
			}
			acked <- res
		})
		eventually(t, func() bool { return k.end(orders0) > before }, func() string { return "not written" })
		req2 := req
		req2.Ack = AckKafka
		if mid != "" { // who does not ask for it does not wait
			if res := mustPublish(t, n.Bridge, req2); !res.Duplicate || res.Pos != (Position{}) {
				t.Errorf("%+v", res)
			}
		}
		select {
		case res := <-acked:
			t.Errorf("acked before the ledger has it: %+v", res)
		default:
		}
		mu.Lock()
		blocked = false
		mu.Unlock()
		if res := <-acked; res.Pos != at(1, Seqno(before)+1) || res.Offset != before {
			t.Errorf("%+v", res)
		}
		wg.Wait()
	}
}

func TestPublishRefused(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(map[string]TopicMeta{
		"orders": {ID: TopicID{1}, Partitions: 1, Exposed: true},
		"out":    {ID: TopicID{2}, Partitions: 1, Publish: true},
	})
	n.lead()
	ctx := testContext(t)
	for _, topic := range []string{"orders", "unknown"} {
		if _, err := n.Publish(ctx, PublishRequest{Topic: topic}); !errors.Is(err, ErrNotExposed) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	var rejected *RejectedError
	if _, err := n.Publish(ctx, PublishRequest{Topic: "out", Ack: AckReplicated}); !errors.As(err, &rejected) {
		t.Errorf("replicated to a topic that is not read: %v", err)
	}
	k.produce = func(TopicPartition, Record) (bool, error) {
		return false, &RejectedError{TooLarge: true, Err: errors.New("big")}
	}
	if _, err := n.Publish(ctx, PublishRequest{Topic: "out", Mid: "m"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	k.do(func() {
		k.produce = func(TopicPartition, Record) (bool, error) { return false, &RejectedError{Err: errors.New("no")} }
	})
	if _, err := n.Publish(ctx, PublishRequest{Topic: "out", Mid: "m"}); !errors.As(err, &rejected) {
		t.Errorf("rejected: %v", err)
	}
	k.do(func() { k.produce = nil })
	if res := mustPublish(t, n.Bridge, PublishRequest{Topic: "out", Mid: "m"}); res.Duplicate {
		t.Errorf("a refused publish keeps its id: %+v", res)
	}
}

// A topic that the edge does not read: the ids are the coordinator's own, each topic's and partition's
// apart.
//
// Before, one window served all of them: the second topic's publish was acked and never written.
func TestPublishToTopicsNotRead(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(map[string]TopicMeta{
		"one": {ID: TopicID{1}, Partitions: 1, Publish: true}, "two": {ID: TopicID{2}, Partitions: 1, Publish: true},
	})
	n.lead()
	for _, topic := range []string{"one", "two"} {
		for i := range 3 {
			res := mustPublish(t, n.Bridge, PublishRequest{Topic: topic, Mid: "m", Value: []byte(topic)})
			if res.Duplicate != (i > 0) {
				t.Errorf("%s, time %d: %+v", topic, i, res)
			}
		}
		if v := k.values(TopicPartition{topic, 0}); len(v) != 1 {
			t.Errorf("%s holds %v", topic, v)
		}
	}
}

// A topic that was created again holds nothing of what was published before: an id counts anew.
func TestPublishAfterTopicCreatedAgain(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := publishNode(t, k, r)
	mustPublish(t, n.Bridge, pub("m", "a"))
	n.wantNext(orders0, 1)
	k.do(func() { k.away, k.parts[orders0] = true, new(fakePart) })
	n.TopicsChanged(topicMap("orders", 1, 2))
	k.do(func() { k.away = false })
	n.wantNext(orders0, 0)
	if res := mustPublish(t, n.Bridge, pub("m", "a")); res.Duplicate {
		t.Errorf("%+v, and Kafka holds %v", res, k.values(orders0))
	}
	n.wantShown(orders0, "a@1,1", "GAP:truncated@2,0", "a@2,1")
}

// Nobody leads, or Kafka is away, or the ledger does not move: each ends within the deadline.
func TestPublishUnavailableInTime(t *testing.T) {
	within := func(t *testing.T, n *testNode, req PublishRequest) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
		defer cancel()
		var ue *UnavailableError
		if _, err := n.Publish(ctx, req); !errors.As(err, &ue) || ue.RetryAfter <= 0 {
			t.Errorf("error %v", err)
		}
		if ctx.Err() == nil && !n.kafka.away {
			t.Errorf("gave up early")
		}
	}
	k, r := newKafka(), newRaft()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	within(t, n, pub("m", "a")) // no leader
	fg := r.group(0)
	fg.mu.Lock()
	fg.leader = "n9" // one that cannot be reached
	fg.mu.Unlock()
	within(t, n, pub("m", "a"))
	n.lead()
	n.wantNext(orders0, 0)
	r.mu.Lock()
	r.refuse = func(GroupID, []op) (bool, bool) { return true, false }
	r.mu.Unlock()
	k.write(orders0, "", "x") // it is never read: the coordinator cannot settle
	within(t, n, pub("m", "a"))
	replicated := pub("", "a")
	replicated.Ack = AckReplicated
	within(t, n, replicated)
	k.do(func() { k.away = true })
	within(t, n, pub("m", "a"))
	within(t, n, pub("", "a"))
}
