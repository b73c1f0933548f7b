package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

func TestStoreKeepsLogsByPartition(t *testing.T) {
	s := NewStore(Config{})
	b, a := s.Log("t", 7), s.Log("t", 2)
	other := s.Log("u", 7)
	if s.Log("t", 7) != b || b.Topic() != "t" || b.Partition() != 7 {
		t.Fatalf("not the same log: %s/%d", b.Topic(), b.Partition())
	}
	if got := s.Logs("t"); len(got) != 2 || got[0] != a || got[1] != b {
		t.Fatalf("logs of t: %v", got)
	}
	if got, ok := s.Lookup("u", 7); !ok || got != other {
		t.Fatal("u/7 is not found")
	}
	if _, ok := s.Lookup("u", 1); ok {
		t.Fatal("u/1 is found")
	}
}

func TestDropForgetsTheLog(t *testing.T) {
	s, l := oneLog(Config{})
	var told []*Log
	s.OnAppend(func(l *Log) { told = append(told, l) })
	put(l, "a", 100)
	before := l.Bounds()
	s.Drop("t", 0)
	s.Drop("t", 0)
	if len(told) != 2 || told[1] != l {
		t.Fatalf("the listener was told %d times", len(told))
	}
	if !l.ReadAll(before.Start, 10).Behind {
		t.Fatal("a reader of the dropped log is not behind")
	}
	put(l, "a", 100)
	l.AppendGap(Gap{At: at(9, 9)})
	l.Reset(at(9, 9))
	if got := l.Bounds(); got.Start != got.End || got.Head != before.Head {
		t.Fatalf("the dropped log took something: %+v", got)
	}
	if st := s.Stats(); st.Bytes != 0 || st.Records != 0 || len(s.queue) != 0 || len(s.Logs("t")) != 0 {
		t.Fatalf("something is left: %+v, %d queued", st, len(s.queue))
	}
	if s.Log("t", 0) == l {
		t.Fatal("the dropped log came back")
	}
}

func TestListenerIsCalledWithoutLocks(t *testing.T) {
	s, l := oneLog(Config{})
	calls := 0
	s.OnAppend(func(got *Log) {
		calls++
		if !got.mu.TryLock() || !got.rw.TryLock() || !s.evict.TryLock() {
			t.Error("a lock is held")
		}
		got.mu.Unlock()
		got.rw.Unlock()
		s.evict.Unlock()
	})
	put(l, "a", 1)
	l.AppendGap(Gap{At: at(2, 0), Reason: "truncated"})
	l.Reset(at(3, 0))
	if calls != 3 {
		t.Fatalf("%d calls", calls)
	}
}

func TestEvictionTakesTheOldestOfAllLogs(t *testing.T) {
	clk := newClock()
	s := NewStore(Config{Budget: 200_000, SegmentBytes: 4_000, Now: clk.Now})
	var logs []*Log
	for p := range int32(5) {
		logs = append(logs, s.Log("t", p))
		logs[p].Reset(at(1, 0))
	}
	arrived := map[*Log][]time.Time{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		l := logs[rnd.IntN(1+rnd.IntN(len(logs)))]
		put(l, "k", 100+rnd.IntN(200))
		arrived[l] = append(arrived[l], clk.Now())
		clk.advance(time.Millisecond)
		if b := l.Bounds(); b.Start == b.End {
			t.Fatal("the record just appended was evicted")
		}
		if st := s.Stats(); st.Bytes > st.Budget {
			t.Fatalf("%d bytes of %d", st.Bytes, st.Budget)
		}
	}
	if s.Stats().Evicted == 0 {
		t.Fatal("nothing was evicted")
	}
	// What has left anywhere is older than the newest record of every first segment that stayed.
	for _, gone := range logs {
		b := gone.Bounds()
		if b.Start == 0 {
			continue
		}
		left := arrived[gone][b.Start-1]
		for _, held := range logs {
			if len(held.segs) > 0 && left.UnixMilli() > held.segs[0].newest {
				t.Errorf("%d/%d has lost a record of %v, %d/%d holds a segment of %d",
					gone.partition, b.Start, left.UnixMilli(), held.partition, held.start, held.segs[0].newest)
			}
		}
	}
	held := int64(0)
	for _, l := range logs {
		check(t, l)
		b := l.Bounds()
		held += int64(b.End - b.Start)
	}
	if st := s.Stats(); st.Records != held || st.Evicted+held != 4000 || st.Bytes < st.Budget*9/10 {
		t.Fatalf("%+v, held %d", st, held)
	}
}

// A backfill brings records that are older than all others: they are kept as long as they are the ones
// just appended, even at the expense of younger ones.
func TestEvictionSparesWhatWasJustAppended(t *testing.T) {
	clk := newClock()
	s := NewStore(Config{Budget: 100_000, SegmentBytes: 4_000, Now: clk.Now})
	young, old := s.Log("t", 0), s.Log("t", 1)
	young.Reset(at(1, 0))
	for s.Stats().Evicted == 0 {
		put(young, "k", 500)
	}
	batch := Batch{
		Arrived: clk.Now().Add(-5 * time.Minute),
		Encode:  func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, make([]byte, 500)...) },
	}
	for n := range 60 {
		batch.Records = append(batch.Records, Record{Pos: at(1, n+1)})
	}
	old.Append(batch)
	if b := old.Bounds(); b.Start != 0 || b.End != 60 {
		t.Fatalf("of the batch just appended there is %+v", b)
	}
	for evicted := s.Stats().Evicted; s.Stats().Evicted == evicted; {
		put(young, "k", 500)
	}
	if b := old.Bounds(); b.Start == 0 {
		t.Fatal("the oldest records were not the next to go")
	}
	// A batch greater than the budget keeps its end.
	var huge Batch
	huge.Encode = batch.Encode
	for n := range 400 {
		huge.Records = append(huge.Records, Record{Pos: at(2, n+1)})
	}
	young.Append(huge)
	b := young.Bounds()
	if st := s.Stats(); st.Bytes > st.Budget || b.End-b.Start < 100 {
		t.Fatalf("%+v, left %+v", st, b)
	}
}

func TestExpiryIsExactAndFreesMemory(t *testing.T) {
	clk := newClock()
	s, l := oneLog(Config{TTL: time.Minute, Now: clk.Now})
	empty := s.Stats().Bytes
	for range 120 {
		put(l, fmt.Sprint("key", l.Bounds().End), 100)
		clk.advance(time.Second)
		s.Sweep()
		b := l.Bounds()
		if want := max(0, int(b.End)-59); int(b.Start) != want {
			t.Fatalf("start %d, want %d of %d", b.Start, want, b.End)
		}
		if want := at(1, int(b.Start)); b.Base != want {
			t.Fatalf("base %v, want %v", b.Base, want)
		}
	}
	if n := s.Stats().Segments; n < segmentsPerTTL || n > segmentsPerTTL+2 {
		t.Fatalf("%d segments", n)
	}
	check(t, l)
	clk.advance(time.Hour)
	s.Sweep()
	if st := s.Stats(); st.Records != 0 || st.Segments != 0 || st.Expired != 120 || st.Bytes > empty+2_000 {
		t.Fatalf("%+v, empty is %d", st, empty)
	}
	if i, ok := l.Seek(at(1, 120)); !ok || i != l.Bounds().End {
		t.Fatal("the end of an expired log is not servable")
	}
	put(l, "again", 10)
	if b := l.Bounds(); b.Start != 120 || b.End != 121 {
		t.Fatalf("%+v", b)
	}
	check(t, l)
}

// Arrival times from a clock that steps back, or ahead of ours, neither pin records nor lose them.
func TestArrivalNeverFallsAndIsNotInTheFuture(t *testing.T) {
	clk := newClock()
	s, l := oneLog(Config{TTL: time.Minute, Now: clk.Now})
	add := func(n int, arrived time.Time) {
		l.Append(Batch{Records: []Record{{Pos: at(1, n)}}, Arrived: arrived,
			Encode: func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, 'x') }})
	}
	add(1, clk.Now().Add(time.Hour))
	add(2, clk.Now().Add(-time.Hour))
	s.Sweep()
	if st := s.Stats(); st.Records != 2 {
		t.Fatalf("%+v", st)
	}
	clk.advance(time.Minute)
	s.Sweep()
	if st := s.Stats(); st.Records != 0 {
		t.Fatalf("%+v", st)
	}
}

// The bytes counted are those that the process holds.
func TestBytesAreCountedTruly(t *testing.T) {
	for _, c := range []struct {
		name              string
		logs, keys, frame int
	}{
		{"large frames, few keys", 4, 10, 600},
		{"small frames, a key each", 4, 1 << 30, 20},
		{"many logs, few records", 5000, 1 << 30, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			const budget = 16 << 20
			before := heapInUse()
			s := NewStore(Config{Budget: budget})
			frame := make([]byte, c.frame)
			enc := func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, frame...) }
			for n := 0; n < 60_000; n++ {
				pos := at(1, n+1)
				s.Log("topic", int32(n%c.logs)).Append(Batch{
					Records: []Record{{Key: fmt.Append(nil, "the key ", n%c.keys), Pos: pos}}, Head: pos, Encode: enc,
				})
			}
			held, counted := heapInUse()-before, s.Stats().Bytes
			t.Logf("counted %d, held %d (%.3f), %+v", counted, held, float64(held)/float64(counted), s.Stats())
			if counted > budget {
				t.Errorf("counted %d, budget %d", counted, budget)
			}
			if ratio := float64(held) / float64(counted); ratio < 0.93 || ratio > 1.07 {
				t.Errorf("counted %d bytes, the heap grew by %d: %.3f", counted, held, ratio)
			}
			runtime.KeepAlive(s)
		})
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
