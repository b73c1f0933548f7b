package wsedge

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// logsOf makes logs with records of keys k0, k1 and null, whose timestamps rise within each log.
func logsOf(store *cache.Store, partitions, records int, frame []byte) []start {
	starts := make([]start, partitions)
	rng := rand.New(rand.NewPCG(1, 2))
	for p := range starts {
		starts[p] = start{partition: int32(p), log: store.Log("t", int32(p))}
		var at int64
		batch := cache.Batch{Encode: func(dst []byte, _ int, _ cache.Position, _ bool) []byte { return append(dst, frame...) }}
		for i := range records {
			at += rng.Int64N(10)
			key := fmt.Appendf(nil, "k%d", i%2)
			if i%5 == 0 {
				key = nil
			}
			batch.Records = append(batch.Records, cache.Record{Key: key, Pos: bridge.Position{Epoch: 1, Seqno: bridge.Seqno(i + 1)}, Timestamp: at})
			batch.Head = batch.Records[i].Pos
		}
		starts[p].log.Append(batch)
	}
	return starts
}

// What a history covers, found a few records at a time, is what sorting all of them gives.
func TestHistoryAgainstSorting(t *testing.T) {
	for _, subject := range []Subject{
		{Topic: "t", Kind: TopicPattern}, {Topic: "t", Kind: PrefixPattern, Key: []byte("k")}, {Topic: "t", Kind: KeySubject, Key: []byte("k1")}, {Topic: "t", Kind: NullSubject},
	} {
		for _, n := range []int{1, 2, 3, 63, 64, 65, 200, 500, 899} {
			starts := logsOf(cache.NewStore(cache.Config{}), 3, 300, []byte("x"))
			addHistory(starts, []int{0, 1, 2}, &subject, n)
			tails := make([][]cache.Item, len(starts))
			for p := range starts {
				tails[p] = naiveNewest(starts[p].log, &subject)
			}
			want := make([]int, len(starts)) // how many of each
			for range n {
				best := -1
				for p := range tails {
					if k := len(tails[p]) - 1 - want[p]; k >= 0 && (best < 0 || tails[p][k].Timestamp > tails[best][len(tails[best])-1-want[best]].Timestamp) {
						best = p
					}
				}
				if best < 0 {
					break
				}
				want[best]++
			}
			for p, st := range starts {
				got := 0
				if st.from == fromHistory {
					for _, it := range tails[p] {
						if it.Index >= st.place {
							got++
						}
					}
				}
				if got != want[p] {
					t.Errorf("%+v, history %d, partition %d: %d records, want %d", subject, n, p, got, want[p])
				}
			}
		}
	}
}

func naiveNewest(l *cache.Log, subject *Subject) []cache.Item {
	switch subject.Kind {
	case TopicPattern:
		return l.NewestAll(-1)
	case PrefixPattern:
		return l.NewestPrefix(subject.Key, -1)
	}
	return l.NewestKey(subject.Key, -1)
}

// A client that asked for a history of a million records made the node hold an item for each, and that
// in every partition, only to learn where to begin. However many are wanted, few are held at a time, and
// going on from them finds every record once.
func TestHistoryHoldsFewRecordsAtATime(t *testing.T) {
	starts := logsOf(cache.NewStore(cache.Config{}), 1, 1000, []byte("x"))
	for _, subject := range []Subject{
		{Topic: "t", Kind: TopicPattern}, {Topic: "t", Kind: PrefixPattern, Key: []byte("k")}, {Topic: "t", Kind: KeySubject, Key: []byte("k1")}, {Topic: "t", Kind: NullSubject},
	} {
		tail := tail{start: &starts[0], subject: &subject, want: maxHistory}
		var found []cache.Index
		for more := tail.load(starts[0].log.Bounds().End); more; more = !tail.ended && tail.load(found[len(found)-1]) {
			if len(tail.items) > tailStep {
				t.Fatalf("%+v: %d items are held", subject, len(tail.items))
			}
			for i := len(tail.items) - 1; i >= 0; i-- {
				found = append(found, tail.items[i].Index)
			}
		}
		all := naiveNewest(starts[0].log, &subject)
		if len(found) != len(all) {
			t.Fatalf("%+v: %d records found, want %d", subject, len(found), len(all))
		}
		for i, it := range all {
			if found[len(found)-1-i] != it.Index {
				t.Fatalf("%+v: record %d is at %d, want %d", subject, i, found[len(found)-1-i], it.Index)
			}
		}
	}
}
