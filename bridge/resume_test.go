package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// readNode is a node that has read the records given, each a run in its own epoch.
func readNode(t *testing.T, k *fakeKafka, r *fakeRaft, runs ...[]string) *testNode {
	t.Helper()
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	for _, values := range runs {
		n.lead()
		k.write(orders0, "", values...)
		n.wantNext(orders0, k.end(orders0))
	}
	return n
}

func (n *testNode) emptyCache() {
	p := n.started(orders0)
	p.mu.Lock()
	p.log.Reset(p.ledger.head())
	p.mu.Unlock()
}

func (n *testNode) wantResolve(from Position, want Resolution) {
	n.t.Helper()
	got, err := n.Resolve(testContext(n.t), orders0, from)
	if err != nil || got != want {
		n.t.Errorf("resolve %v: %+v %v, want %+v", from, got, err, want)
	}
}

func TestResolve(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := readNode(t, k, r, []string{"a", "b", "c", "d"}, []string{"e", "f"}) // (1,1)…(1,4) (2,1) (2,2)
	for _, p := range []Position{{}, at(1, 0), at(1, 3), at(1, 4), at(2, 0), at(2, 2)} {
		n.wantResolve(p, Resolution{Verdict: FromCache, At: p}) // nothing has left the cache
	}
	for _, p := range []Position{at(0, 1), at(1, 5), at(2, 3), at(3, 0), at(1<<63+1, 0), at(1, 1<<63)} {
		n.wantResolve(p, Resolution{Verdict: Unknown})
	}
	n.emptyCache()
	n.wantResolve(at(2, 2), Resolution{Verdict: FromCache, At: at(2, 2)})
	n.wantResolve(at(2, 1), Resolution{Verdict: FromKafka, Offset: 5, At: at(2, 1)})
	n.wantResolve(at(1, 4), Resolution{Verdict: FromKafka, Offset: 4, At: at(2, 0)})
	n.wantResolve(at(1, 1), Resolution{Verdict: FromKafka, Offset: 1, At: at(1, 1)})
	n.wantResolve(Position{}, Resolution{Verdict: FromKafka, Offset: 0, At: at(1, 0)})
	if got := replay(t, n.Bridge, orders0, 1, 5); fmt.Sprint(got) != "[b@1,2 c@1,3 d@1,4 e@2,1 f@2,2]" {
		t.Errorf("replayed %v", got)
	}

	k.evict(orders0, 2) // a and b are gone
	n.wantResolve(at(1, 1), Resolution{Verdict: Lost, Offset: 2, At: at(1, 2), Reason: ReasonEvicted, LostFrom: at(1, 2), LostTo: at(1, 2)})
	n.wantResolve(at(1, 2), Resolution{Verdict: FromKafka, Offset: 2, At: at(1, 2)})
	k.evict(orders0, 5)
	n.wantResolve(at(1, 1), Resolution{Verdict: Lost, Offset: 5, At: at(2, 1), Reason: ReasonEvicted, LostFrom: at(1, 2), LostTo: at(2, 1)})
	n.wantResolve(at(2, 1), Resolution{Verdict: FromKafka, Offset: 5, At: at(2, 1)})

	k.evict(orders0, 9) // beyond what was read: a new epoch at 9
	n.wantNext(orders0, 9)
	n.emptyCache()
	n.wantResolve(at(2, 1), Resolution{Verdict: Lost, Offset: 9, At: at(3, 0), Reason: ReasonEvicted, LostFrom: at(2, 2), LostTo: at(2, 2)})
	n.wantResolve(at(2, 2), Resolution{Verdict: Lost, Offset: 9, At: at(3, 0), Reason: ReasonEvicted}) // what, nobody knows

	k.do(func() { k.away = true })
	var ue *UnavailableError
	if _, err := n.Resolve(testContext(t), orders0, at(1, 1)); !errors.As(err, &ue) {
		t.Errorf("Kafka away: %v", err)
	}
	n.wantResolve(at(3, 0), Resolution{Verdict: FromCache, At: at(3, 0)})
}

// After a truncation, readers that had the lost records lose nothing, and the others are told which.
func TestResolveTruncated(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := readNode(t, k, r, []string{"a", "b", "c", "d", "e"})
	k.truncate(orders0, 2)
	n.wantNext(orders0, 2)
	k.write(orders0, "", "C")
	n.wantShown(orders0, "a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5", "GAP:truncated@2,0", "C@2,1")
	n.wantResolve(at(1, 3), Resolution{Verdict: FromCache, At: at(1, 3)}) // the cache has it all, and the gap
	n.emptyCache()
	n.wantResolve(at(1, 1), Resolution{Verdict: Lost, Offset: 1, At: at(1, 1), Reason: ReasonTruncated, LostFrom: at(1, 3), LostTo: at(1, 5)})
	n.wantResolve(at(1, 4), Resolution{Verdict: Lost, Offset: 2, At: at(2, 0), Reason: ReasonTruncated, LostFrom: at(1, 5), LostTo: at(1, 5)})
	n.wantResolve(at(1, 5), Resolution{Verdict: FromKafka, Offset: 2, At: at(2, 0)})
	if got := replay(t, n.Bridge, orders0, 1, 2); fmt.Sprint(got) != "[b@1,2 C@2,1]" {
		t.Errorf("replayed %v", got)
	}
	// And then retention comes as well. Before, only the truncated part was said to be lost.
	k.write(orders0, "", "D", "E")
	n.wantNext(orders0, 5)
	k.evict(orders0, 4)
	n.wantResolve(at(1, 4), Resolution{Verdict: Lost, Offset: 4, At: at(2, 2), Reason: ReasonTruncated, LostFrom: at(1, 5), LostTo: at(2, 2)})
	n.wantResolve(at(1, 1), Resolution{Verdict: Lost, Offset: 4, At: at(2, 2), Reason: ReasonTruncated, LostFrom: at(1, 2), LostTo: at(2, 2)})
}

// twoNodes have read a record of orders0, of which the first is the coordinator.
func twoNodes(t *testing.T) (k *fakeKafka, r *fakeRaft, n1, n2 *testNode) {
	t.Helper()
	k, r = newKafka(), newRaft()
	n1, n2 = r.node(t, k, "n1"), r.node(t, k, "n2")
	for _, n := range []*testNode{n1, n2} {
		n.TopicsChanged(topicMap("orders", 1, 1))
	}
	n1.lead()
	k.write(orders0, "", "a")
	n2.wantNext(orders0, 1)
	return k, r, n1, n2
}

// A client that comes from a node that is ahead: this one waits until it is there too.
func TestResolveAheadOfThisNode(t *testing.T) {
	k, r, n1, n2 := twoNodes(t)
	r.hold(0, "n2", true)
	k.write(orders0, "", "b", "c")
	n1.wantNext(orders0, 3)
	n2.wantResolve(at(1, 4), Resolution{Verdict: Unknown}) // nobody is there
	resolved := make(chan Resolution)
	var wg sync.WaitGroup
	wg.Go(func() {
		got, err := n2.Resolve(testContext(t), orders0, at(1, 3))
		if err != nil {
			t.Error(err)
		}
		resolved <- got
	})
	select {
	case got := <-resolved:
		t.Errorf("resolved before this node is there: %+v", got)
	case <-time.After(30 * time.Millisecond):
	}
	r.hold(0, "n2", false)
	if got := <-resolved; got != (Resolution{Verdict: FromCache, At: at(1, 3)}) {
		t.Errorf("%+v", got)
	}
	wg.Wait()
	// A partition that nobody has read: only its beginning is known.
	ctx := testContext(t)
	unread := TopicPartition{"orders", 5}
	if got, err := n2.Resolve(ctx, unread, Position{}); err != nil || got.Verdict != FromCache {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := n2.Resolve(ctx, unread, at(1, 1)); err != nil || got.Verdict != Unknown {
		t.Errorf("%+v %v", got, err)
	}
	// Without a coordinator nobody can say.
	n1.depose()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var ue *UnavailableError
	if _, err := n2.Resolve(short, orders0, at(1, 9)); !errors.As(err, &ue) {
		t.Errorf("error %v", err)
	}
	if _, err := n1.LocalHead(ctx, orders0); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("error %v", err)
	}
}

// A coordinator that was deposed without noticing it, or that lags behind its followers, does not say where the partition
// ends: it would take for unknown what clients of others have seen, and tell them of a loss.
func TestHeadIsWhatTheClusterKnows(t *testing.T) {
	k, r, n1, n2 := twoNodes(t)
	r.hold(0, "n1", true)
	r.usurped(0, "n2")
	ctx := testContext(t)
	if head, err := n1.LocalHead(ctx, orders0); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("deposed: head %v, error %v", head, err)
	}
	n2.lead() // n1 goes on as before
	k.write(orders0, "", "b", "c")
	n2.wantNext(orders0, 3)
	known, err := n2.LocalHead(ctx, orders0)
	if err != nil {
		t.Fatal(err)
	}
	r.usurped(0, "n1") // which has it all, but has not applied it
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if head, err := n1.LocalHead(short, orders0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind: head %v, error %v", head, err)
	}
	r.hold(0, "n1", false)
	if head, err := n1.LocalHead(ctx, orders0); err != nil || head != known {
		t.Errorf("head %v, error %v, want %v", head, err, known)
	}
}

// A replay shows nothing that the cluster has not agreed on, and goes on as soon as it has.
func TestReplayNeverAheadOfTheLedger(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := readNode(t, k, r, []string{"a", "b"})
	n.depose() // Kafka goes on without the cluster
	k.write(orders0, "", "c", "d", "e", "f", "g")
	var mu sync.Mutex
	var got []string
	var reached Position
	ctx, cancel := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		err := n.Replay(ctx, orders0, 0, nil, func(run Replayed) error {
			ledger := n.next(orders0)
			mu.Lock()
			defer mu.Unlock()
			for _, rec := range run.Records {
				if rec.Offset >= ledger {
					t.Errorf("record %d shown, the ledger is at %d", rec.Offset, ledger)
				}
				if !rec.Pos.After(reached) {
					t.Errorf("%v after %v", rec.Pos, reached)
				}
				reached = rec.Pos
				got = append(got, string(rec.Value))
			}
			if reached.After(run.At) {
				t.Errorf("at %v after a record at %v", run.At, reached)
			}
			reached = run.At
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("replay ended with %v", err)
		}
	})
	shown := func(want string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return fmt.Sprint(got) == want }
	}
	what := func() string { mu.Lock(); defer mu.Unlock(); return fmt.Sprint(got) }
	eventually(t, shown("[a b]"), what)
	n.lead()
	eventually(t, shown("[a b c d e f g]"), what)
	k.write(orders0, "", "h")
	eventually(t, shown("[a b c d e f g h]"), what)
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return reached == at(2, 6) }, what)
	cancel()
	wg.Wait()
}

// Kafka truncates while a reader is fed from it.
//
// Before, the reader went on at the offset where it was: it never got the records written below it,
// and no word of a loss.
func TestReplayEndsWhenKafkaTruncates(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := readNode(t, k, r, []string{"a", "b", "c", "d"})
	emitted := make(chan string, 20)
	ended := make(chan error)
	go func() {
		ended <- n.Replay(testContext(t), orders0, 0, nil, func(run Replayed) error {
			for _, rec := range run.Records {
				emitted <- string(rec.Value)
			}
			return nil
		})
	}()
	for range 4 {
		<-emitted
	}
	// Between two looks of the reader: truncated to 1 and grown beyond where it is.
	k.do(func() {
		p := k.part(orders0)
		p.records, p.end = slices.Clone(p.records[:1]), 1
	})
	n.wantNext(orders0, 1)
	k.write(orders0, "", "B", "C", "D", "E")
	var ue *UnavailableError
	var out *OffsetOutOfRangeError
	if err := <-ended; !errors.As(err, &ue) && !errors.As(err, &out) {
		t.Errorf("ended with %v", err)
	}
	if len(emitted) > 0 {
		t.Errorf("%q shown after the truncation", <-emitted)
	}
	if err := n.Replay(testContext(t), TopicPartition{"orders", 9}, 0, nil, nil); !errors.As(err, &ue) {
		t.Errorf("partition not read: %v", err)
	}
}

// A reset while a replay waits at the ledger's end, holding records that Kafka has lost since.
func TestReplayEndsWhenTheLedgerIsReset(t *testing.T) {
	k, r := newKafka(), newRaft()
	n := readNode(t, k, r, []string{"a", "b"})
	n.depose()
	k.write(orders0, "", "c", "d")
	waiting := make(chan struct{}, 20)
	ended := make(chan error)
	go func() {
		ended <- n.Replay(testContext(t), orders0, 0, nil, func(run Replayed) error {
			if run.At == at(1, 2) {
				waiting <- struct{}{}
			}
			for _, rec := range run.Records {
				if rec.Offset > 1 {
					t.Errorf("%q shown", rec.Value)
				}
			}
			return nil
		})
	}()
	<-waiting
	k.truncate(orders0, 1)
	n.lead()
	var ue *UnavailableError
	if err := <-ended; !errors.As(err, &ue) || !errors.Is(err, errMoved) {
		t.Errorf("ended with %v", err)
	}
}
