package wsedge

import (
	"container/heap"

	"github.com/tidewire/tidewire/cache"
)

// addHistory moves the fresh starts back so that they cover the n newest records of the subject among
// them, by timestamp; all that is cached when n is negative. A partition's records are taken from its
// end, so that each partition stays whole whatever its timestamps are.
//
// Only places are wanted, and n is the client's: the records are looked at a few at a time, so that what
// a history costs in memory does not grow with n.
func addHistory(starts []start, fresh []int, subject *Subject, n int) {
	if n == 0 || len(fresh) == 0 {
		return
	}
	cached := 0
	for _, i := range fresh {
		b := starts[i].bounds()
		cached += int(b.End - b.Start)
	}
	if n < 0 || n >= cached {
		for _, i := range fresh {
			starts[i].from = fromBase
		}
		return
	}
	tails := make(tailHeap, 0, len(fresh))
	for _, i := range fresh {
		t := &tail{start: &starts[i], subject: subject, want: n}
		if t.load(starts[i].bounds().End) {
			tails = append(tails, t)
		}
	}
	heap.Init(&tails)
	for ; n > 0 && len(tails) > 0; n-- {
		t := tails[0]
		it := t.newest()
		t.start.from, t.start.place = fromHistory, it.Index
		if t.items = t.items[:len(t.items)-1]; len(t.items) > 0 || !t.ended && t.load(it.Index) {
			heap.Fix(&tails, 0)
		} else {
			heap.Pop(&tails)
		}
	}
}

// tailStep is how many records of a partition are looked at at a time.
const tailStep = 64

// tail is what a history has not taken yet of one partition, from its end.
type tail struct {
	start   *start
	subject *Subject
	want    int
	items   []cache.Item // the newest of it, oldest first
	ended   bool         // there is nothing in front of items
}

func (t *tail) newest() *cache.Item { return &t.items[len(t.items)-1] }

// load takes the next older records, those in front of an index, and says whether there are any.
func (t *tail) load(before cache.Index) bool {
	n := min(t.want, tailStep)
	switch l := t.start.log; t.subject.Kind {
	case TopicPattern:
		t.items = l.OlderAll(before, n)
	case PrefixPattern:
		t.items = l.OlderPrefix(before, t.subject.Key, n)
	default:
		t.items = l.OlderKey(before, t.subject.Key, n)
	}
	t.ended = len(t.items) < n
	return len(t.items) > 0
}

// tailHeap has the tail with the newest record on top; of equal ones the lower partition's.
type tailHeap []*tail

func (h tailHeap) Len() int { return len(h) }

func (h tailHeap) Less(i, j int) bool {
	a, b := h[i].newest().Timestamp, h[j].newest().Timestamp
	return a > b || a == b && h[i].start.partition < h[j].start.partition
}

func (h tailHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *tailHeap) Push(x any)   { *h = append(*h, x.(*tail)) }

func (h *tailHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
