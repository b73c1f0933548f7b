package bridge

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// What replays and fillings make of a log that Kafka has truncated or replaced, between that and the ledger's
// reset. Before, they showed its new records at the positions of those that were gone.

// A replayed is what a replay has emitted, and how it ended.
type replayed struct {
	mu    sync.Mutex
	shown []string
	at    Position
	ended chan error
}

// replay begins a replay that ends when it has shown as many records.
func (n *testNode) replay(from Offset, records int) *replayed {
	r := &replayed{ended: make(chan error, 1)}
	go func() {
		r.ended <- n.Replay(testContext(n.t), orders0, from, nil, func(run Replayed) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, rec := range run.Records {
				r.shown = append(r.shown, fmt.Sprintf("%s@%d,%d", rec.Value, rec.Pos.Epoch, rec.Pos.Seqno))
			}
			r.at = run.At
			if len(r.shown) >= records {
				return ErrStop
			}
			return nil
		})
	}()
	return r
}

func (r *replayed) is(want []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Equal(r.shown, want)
}

// wantCut wants a replay from the beginning to end where the log was cut, and to go on behind the cut when
// the coordinator has found it out, with the right records declared lost. early says that the replay finds it
// out by itself.
func wantCut(t *testing.T, n *testNode, early bool, kept []string, lostFrom, lostTo Position, onward ...string) {
	t.Helper()
	r := n.replay(0, 1000)
	eventually(t, func() bool { return r.is(kept) }, func() string { return fmt.Sprintf("shown %q, want %q", r.shown, kept) })
	var err error
	if early {
		err = <-r.ended
	}
	n.lead()
	if !early {
		err = <-r.ended
	}
	var ue *UnavailableError
	if !errors.As(err, &ue) || !errors.Is(err, errMoved) {
		t.Errorf("ended with %v", err)
	}
	if !r.is(kept) || r.at.Seqno != Seqno(len(kept)) {
		t.Errorf("shown %q up to %v, want %q", r.shown, r.at, kept)
	}
	eventually(t, func() bool { return n.head().Epoch > 1 }, func() string { return "no reset" })
	n.forget()
	res, err := n.Resolve(testContext(t), orders0, r.at)
	if err != nil || res.Verdict != Lost || res.Reason != ReasonTruncated || res.LostFrom != lostFrom || res.LostTo != lostTo {
		t.Errorf("a reader at %v: %+v %v", r.at, res, err)
	}
	r = n.replay(res.Offset, len(onward))
	if err = <-r.ended; err != nil || !r.is(onward) {
		t.Errorf("behind the cut: %q, %v, want %q", r.shown, err, onward)
	}
}

func (n *testNode) head() (head Position) {
	n.started(orders0).view(func(l *ledger) { head = l.head() })
	return head
}

// forget empties the cache, so that readers are fed from Kafka.
func (n *testNode) forget() {
	p := n.started(orders0)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.Reset(p.ledger.head())
}

func TestReplayOfATruncatedLog(t *testing.T) {
	k, _, n := electing(t)
	n.depose()
	k.elect(orders0, 2)
	k.write(orders0, "", "X", "Y", "Z", "W", "V")
	wantCut(t, n, true, oldAtoE[:2], at(1, 3), at(1, 5), "X@2,1", "Y@2,2", "Z@2,3", "W@2,4", "V@2,5")
}

// The old leader comes back: its log goes on in the old epoch where the one that was read had another. What
// parts is in the middle of what one fetch brings.
func TestReplayOfAnOlderLog(t *testing.T) {
	k, _, n := electing(t)
	k.elect(orders0, 5)
	k.write(orders0, "", "f", "g")
	n.wantNext(orders0, 7)
	n.depose()
	k.truncate(orders0, 5)
	k.do(func() { k.part(orders0).leaders = leaderList{{0, 0}} })
	k.write(orders0, "", "F", "G", "H")
	k.do(func() { k.part(orders0).leaders = leaderList{{0, 0}, {2, 8}} })
	wantCut(t, n, true, oldAtoE[:3], at(1, 6), at(1, 7), "d@1,4", "e@1,5", "F@2,1", "G@2,2", "H@2,3")
}

// Nothing that a consumer sees has taken the place of what is gone: an aborted transaction, say. The reader must
// not be moved past it.
func TestReplayOfATruncatedLogWithoutRecords(t *testing.T) {
	k, r, n := electing(t)
	snapshot := n.snapshot()
	n.depose()
	k.elect(orders0, 2)
	k.do(func() { k.part(orders0).end = 6 })
	k.write(orders0, "", "X")
	n2 := r.heldNode(t, k, "n2")
	n2.join(snapshot)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	if log, _ := n2.store.Lookup("orders", 0); log.Bounds().Base != at(1, 5) {
		t.Errorf("the cache begins at %v, and has not got what is gone", log.Bounds().Base)
	}
	wantCut(t, n, false, oldAtoE[:2], at(1, 3), at(1, 5), "X@2,5")
}

// Compaction takes what stood at a change of leader, on both sides of it.
func TestReplayOfACompactedLog(t *testing.T) {
	k, _, n := electing(t)
	k.elect(orders0, 5)
	k.write(orders0, "", "f", "g", "h")
	n.wantNext(orders0, 8)
	k.do(func() {
		p := k.part(orders0)
		p.records = slices.DeleteFunc(slices.Clone(p.records), func(r Record) bool { return r.Offset >= 3 && r.Offset <= 6 })
		p.leaders = leaderList{{0, 0}, {1, 3}} // what is next after the hole is of the second leader
	})
	r := n.replay(0, 4)
	if err := <-r.ended; err != nil || !r.is([]string{"a@1,1", "b@1,2", "c@1,3", "h@1,8"}) {
		t.Errorf("%q up to %v, %v", r.shown, r.at, err)
	}
}

// The topic is created again, with the leader epochs of the first one. Its id says what it is.
func TestReplayOfATopicCreatedAgain(t *testing.T) {
	k, _, n := electing(t)
	n.depose()
	k.elect(orders0, 0)
	k.write(orders0, "", "X", "Y", "Z", "W", "V")
	k.do(func() {
		k.part(orders0).leaders = leaderList{{0, 0}}
		k.ids["orders"] = TopicID{2}
	})
	var ue *UnavailableError
	r := n.replay(0, 1000)
	if err := <-r.ended; !errors.As(err, &ue) || !errors.Is(err, errMoved) || r.shown != nil {
		t.Errorf("%q, %v", r.shown, err)
	}
}

func TestFillFromATruncatedLog(t *testing.T) {
	k, r, n := electing(t)
	snapshot := n.snapshot()
	n.depose()
	k.elect(orders0, 2)
	k.write(orders0, "", "X", "Y", "Z", "W", "V")
	n2 := r.heldNode(t, k, "n2")
	n2.join(snapshot)
	if err := n2.Ready(testContext(t), "orders"); err != nil {
		t.Fatal(err)
	}
	if got := n2.shown(orders0); got != nil {
		t.Errorf("filled with %q", got)
	}
	n2.lead()
	n2.wantShown(orders0, "GAP:truncated@2,0", "X@2,1", "Y@2,2", "Z@2,3", "W@2,4", "V@2,5")
}

func TestLeaderListHolds(t *testing.T) {
	l := leaderList{{3, 10}, {5, 20}, {6, 30}}
	fetched := func(leader LeaderEpoch, from, next Offset, records ...Offset) Fetched {
		f := Fetched{From: from, Next: next, Leader: leader}
		for _, o := range records {
			f.Records = append(f.Records, Record{Offset: o})
		}
		return f
	}
	for _, c := range []struct {
		f    Fetched
		next Offset
		want bool
	}{
		{fetched(3, 10, 20, 10, 19), 20, true},
		{fetched(5, 20, 30, 20, 29), 30, true},
		{fetched(6, 30, 40, 30, 39), 40, true},
		{fetched(5, 10, 20, 10), 20, false},
		{fetched(3, 10, 25, 10, 24), 25, false},
		{fetched(7, 35, 40, 38), 40, false},
		{fetched(7, 35, 40), 40, false},    // nothing to show, and yet another log
		{fetched(7, 35, 40, 38), 36, true}, // the ledger is not there yet
		{fetched(7, 35, 40, 35, 38), 36, false},
		{fetched(5, 15, 25, 20), 25, true}, // a hole before the change
		{fetched(2, 0, 10, 5), 10, true},   // from before the list
		{fetched(3, 0, 10, 5), 10, true},
		{fetched(6, 0, 10, 5), 10, false},
		{fetched(NoLeaderEpoch, 10, 20, 10), 20, true},
	} {
		if got := l.holds(c.f, c.next); got != c.want {
			t.Errorf("leader %d in [%d, %d), ledger at %d: %v", c.f.Leader, c.f.From, c.f.Next, c.next, got)
		}
	}
	if !(leaderList{}).holds(fetched(9, 0, 5, 1), 5) {
		t.Error("an empty list knows better")
	}
	// The newest word counts, and what was before it is not known.
	if l = l.read(4, 40); !l.holds(fetched(4, 35, 40, 36), 40) || l.holds(fetched(5, 35, 40, 36), 40) {
		t.Errorf("%v", l)
	}
}
