package bridge

import (
	"testing"
	"time"
)

// All disks lost twice within seconds: both lives found the same commit, opened the same epochs at different
// offsets, and one (epoch, seqno) came to name two records (2,261 of them in a run of the fault tests).
func TestTwoRebirthsFromOneCommitShareNoEpoch(t *testing.T) {
	commit := epochList{{Epoch: 1, First: 0, End: 100}, {Epoch: 2, First: 100, End: 150}}
	now := time.UnixMilli(1_800_000_000_000)
	life := func(now time.Time, extended Offset) *ledger {
		epochs := append(epochList(nil), commit...)
		epochs.last().End = extended
		l := &ledger{}
		l.start(1, startOp{First: extended, Epochs: afterRebirth(epochs, now)})
		for term := range Term(20) { // failovers, each with a record
			next := l.next()
			l.batch(term+1, batchOp{From: next, Next: next + 1, Records: []Record{{Offset: next}}})
		}
		return l
	}
	first, second := life(now, 160), life(now.Add(time.Second), 190)
	opened := map[Epoch]bool{}
	for _, e := range first.epochs[len(commit):] {
		opened[e.Epoch] = true
	}
	if len(opened) < 20 {
		t.Fatalf("%d epochs in the first life", len(opened))
	}
	for _, e := range second.epochs[len(commit):] {
		if opened[e.Epoch] {
			t.Fatalf("epoch %d is opened in both lives", e.Epoch)
		}
	}
	for _, l := range []*ledger{first, second} { // what was given out before both keeps its meaning
		if o, ok := l.epochs.resolve(Position{Epoch: 2, Seqno: 30}); !ok || o.Next != 130 || o.Truncated || o.Evicted {
			t.Errorf("position (2,30) goes on at %+v, %v", o, ok)
		}
	}
	if o, ok := second.epochs.resolve(first.head()); ok {
		t.Errorf("a position of the first life is known in the second: %+v", o)
	}
	// A clock that stands behind leaves the leap.
	if got := afterRebirth(commit, time.Unix(0, 0)); len(got) != len(commit) {
		t.Errorf("with an old clock: %v", got)
	}
	long := make(epochList, maxEpochs)
	for i := range long {
		long[i] = epochRange{Epoch: Epoch(i + 1)}
	}
	if got := afterRebirth(long, now); len(got) != maxEpochs {
		t.Errorf("%d epochs: an entry holds %d", len(got), maxEpochs)
	}
}
