package bridge

import (
	"fmt"
	"slices"
	"testing"
)

// What an unclean election in Kafka does to a log that was read, and what the ledger makes of it. The fake
// answers as Kafka does (KIP-320, KIP-279).

// electing starts a node that has read a, b, c, d, e from a first leader.
func electing(t *testing.T) (*fakeKafka, *fakeRaft, *testNode) {
	k, r := newKafka(), newRaft()
	k.elect(orders0, 0)
	k.write(orders0, "", "a", "b", "c", "d", "e")
	n := r.node(t, k, "n1")
	n.TopicsChanged(topicMap("orders", 1, 1))
	n.lead()
	n.wantNext(orders0, 5)
	return k, r, n
}

// change changes Kafka at one blow, as seen by who reads it.
func (k *fakeKafka) change(f func()) {
	k.do(func() { k.away = true })
	f()
	k.do(func() { k.away = false })
}

var oldAtoE = []string{"a@1,1", "b@1,2", "c@1,3", "d@1,4", "e@1,5"}

// The new leader's log ends before our offset and grows beyond it before we fetch again. Before, offset 5
// was in range, and X, Y and Z were never shown.
func TestTruncatedAndGrownAgain(t *testing.T) {
	k, _, n := electing(t)
	k.change(func() {
		k.elect(orders0, 2)
		k.write(orders0, "", "X", "Y", "Z", "W", "V")
	})
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "GAP:truncated@2,0", "X@2,1", "Y@2,2", "Z@2,3", "W@2,4", "V@2,5")...)
	res, err := n.Resolve(testContext(t), orders0, at(1, 1))
	if err != nil || res.Verdict != FromCache { // the cache has b to e, and the gap
		t.Errorf("%+v %v", res, err)
	}
	for p, want := range map[Position]onward{
		at(1, 1): {Next: 1, Truncated: true, LostFrom: at(1, 3), LostTo: at(1, 5)},
		at(1, 4): {Next: 2, Truncated: true, LostFrom: at(1, 5), LostTo: at(1, 5)},
		at(1, 5): {Next: 2},
	} {
		n.started(orders0).view(func(l *ledger) {
			if got, ok := l.epochs.resolve(p); !ok || got != want {
				t.Errorf("%v: %+v %v, want %+v", p, got, ok, want)
			}
		})
	}
}

// The new log has records and is still shorter than our offset. Before, the new epoch began at its end, and
// X was never shown.
func TestTruncatedAndGrownALittle(t *testing.T) {
	k, _, n := electing(t)
	k.change(func() {
		k.elect(orders0, 2)
		k.write(orders0, "", "X")
	})
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "GAP:truncated@2,0", "X@2,1")...)
}

// The log is truncated while nobody reads: the next coordinator knows from the ledger what was read.
func TestTruncatedBetweenCoordinators(t *testing.T) {
	k, r, n := electing(t)
	n.depose()
	n2 := r.node(t, k, "n2")
	n2.TopicsChanged(topicMap("orders", 1, 1))
	if err := n2.Restore(0, n.snapshot()); err != nil {
		t.Fatal(err)
	}
	r.group(0).applied["n2"] = len(r.entries(0))
	k.elect(orders0, 3)
	k.write(orders0, "", "X", "Y", "Z")
	n2.lead()
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "GAP:truncated@2,0", "X@2,1", "Y@2,2", "Z@2,3")...)
}

// A clean election is none of anybody's business.
func TestCleanElections(t *testing.T) {
	k, _, n := electing(t)
	want := slices.Clone(oldAtoE)
	for i := range 3 * maxLeaders {
		k.elect(orders0, Offset(5+i))
		k.write(orders0, "", fmt.Sprint(i))
		want = append(want, fmt.Sprintf("%d@1,%d", i, 6+i))
	}
	n.wantShown(orders0, want...)
	n.started(orders0).view(func(l *ledger) {
		if len(l.leaders) != maxLeaders || l.leaders.last() != 3*maxLeaders {
			t.Errorf("leaders %v", l.leaders)
		}
	})
}

// Two unclean elections: B comes after A with a shorter log and is read on, then A comes back with what only
// it had. The logs part where B's records began, not where A's end.
func TestTruncatedToAnOlderLog(t *testing.T) {
	k, _, n := electing(t) // A: a to e, of which B had all
	k.elect(orders0, 5)    // B
	k.write(orders0, "", "f", "g")
	n.wantNext(orders0, 7)
	k.change(func() { // A had two more by itself, and takes over with its epoch's records and new ones
		k.truncate(orders0, 5)
		k.do(func() { k.part(orders0).leaders = leaderList{{0, 0}} })
		k.write(orders0, "", "F", "G", "H", "I")
		k.do(func() { k.part(orders0).leaders = leaderList{{0, 0}, {2, 8}} })
	})
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "f@1,6", "g@1,7", "GAP:truncated@2,0", "F@2,1", "G@2,2", "H@2,3", "I@2,4")...)
}

// Retention passes the reader by over a change of leader. What is read next adjoins nothing that was, so
// there is nothing to compare.
func TestEvictedOverAnElection(t *testing.T) {
	k, _, n := electing(t)
	k.change(func() {
		k.write(orders0, "", "f", "g")
		k.elect(orders0, 7)
		k.write(orders0, "", "h", "i", "j")
		k.evict(orders0, 9)
	})
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "GAP:evicted@2,0", "j@2,1")...)
	n.lead()
	k.write(orders0, "", "k")
	n.wantShown(orders0, append(slices.Clone(oldAtoE), "GAP:evicted@2,0", "j@2,1", "k@3,1")...)
}
