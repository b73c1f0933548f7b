package cache

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestNewLogIsServableFromNothing(t *testing.T) {
	l := NewStore(Config{}).Log("t", 0)
	if i, ok := l.Seek(Position{}); !ok || i != 0 {
		t.Fatalf("seek: %d, %v", i, ok)
	}
	if c := l.ReadAll(0, 10); c.Behind || c.Count() != 0 || c.Next != 0 {
		t.Fatalf("%+v", c)
	}
	if l.NewestAll(-1) != nil || l.NewestKey(nil, -1) != nil || l.NewestPrefix(nil, -1) != nil {
		t.Fatal("records in an empty log")
	}
}

func TestResetGoesOnCounting(t *testing.T) {
	_, l := oneLog(Config{})
	put(l, "a", 10)
	put(l, "b", 10)
	l.Reset(at(5, 100))
	if got, want := l.Bounds(), (Bounds{2, 2, at(5, 100), at(5, 100)}); got != want {
		t.Fatalf("%+v", got)
	}
	if !l.ReadAll(1, 10).Behind || l.ReadAll(2, 10).Behind {
		t.Fatal("a reader who had not read all goes on")
	}
	if _, ok := l.Seek(at(5, 99)); ok {
		t.Fatal("a position before the reset is servable")
	}
	put(l, "a", 10)
	if items := l.NewestKey([]byte("a"), -1); len(items) != 1 || items[0].Index != 2 {
		t.Fatalf("%+v", items)
	}
	check(t, l)
}

func TestNullKeyIsNotTheEmptyKey(t *testing.T) {
	_, l := oneLog(Config{})
	l.Append(Batch{
		Records: []Record{{Key: nil, Pos: at(1, 1)}, {Key: []byte{}, Pos: at(1, 2)}},
		Encode: func(dst []byte, i int, _ Position, hasPrev bool) []byte {
			if hasPrev {
				t.Error("one is taken for the other")
			}
			return append(dst, byte('0'+i))
		},
	})
	if r := l.ReadKey(0, nil, 99, nil); len(r.Items) != 1 || string(r.Items[0].Frame) != "0" {
		t.Fatalf("null: %+v", r)
	}
	if r := l.ReadKey(0, []byte{}, 99, nil); len(r.Items) != 1 || string(r.Items[0].Frame) != "1" {
		t.Fatalf("empty: %+v", r)
	}
	if r := l.ReadPrefix(0, nil, 99, nil); len(r.Items) != 1 || string(r.Items[0].Frame) != "1" {
		t.Fatalf("prefix: %+v", r)
	}
}

func TestEachReaderMeetsTheGapInItsPlace(t *testing.T) {
	_, l := oneLog(Config{})
	put(l, "a", 0)
	l.AppendGap(Gap{At: at(2, 0), Reason: "truncated"})
	l.AppendGap(Gap{At: at(3, 0), Reason: "truncated"})
	put(l, "b", 0)
	for _, key := range []string{"a", "b", "c"} {
		var seen []string
		for from := Index(0); from < l.Bounds().End; {
			r := l.ReadKey(from, []byte(key), 0, nil)
			for _, it := range r.Items {
				seen = append(seen, string(it.Frame))
			}
			if r.Gap != nil {
				seen = append(seen, fmt.Sprint("gap ", r.Gap.At.Epoch))
			}
			from = r.Next
		}
		want := map[string]string{"a": "a@1.1 gap 2 gap 3", "b": "gap 2 gap 3 b@3.1", "c": "gap 2 gap 3"}[key]
		if got := strings.Join(seen, " "); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func TestChunkSplit(t *testing.T) {
	_, l := oneLog(Config{})
	put(l, "a", 10)
	put(l, "b", 20)
	put(l, "c", 5)
	c := l.ReadAll(1, 1000)
	for _, want := range []struct{ n, next, rest int }{{0, 1, 0}, {1, 2, 19}, {19, 2, 1}, {20, 2, 0}, {21, 3, 4}, {25, 3, 0}} {
		next, rest := c.Split(want.n)
		if int(next) != want.next || len(rest) != want.rest || !bytes.HasPrefix(c.Bytes[want.n:], rest) {
			t.Errorf("%d written: next %d, rest %d, want %+v", want.n, next, len(rest), want)
		}
	}
}

func TestFrameGreaterThanASegment(t *testing.T) {
	s, l := oneLog(Config{Budget: 1 << 20, SegmentBytes: 1000})
	small := put(l, "a", 100)
	big := put(l, "a", 50_000)
	after := put(l, "a", 100)
	r := l.ReadKey(0, []byte("a"), 1<<20, nil)
	if len(r.Items) != 3 || string(r.Items[0].Frame) != small || string(r.Items[1].Frame) != big || string(r.Items[2].Frame) != after {
		t.Fatalf("%d items", len(r.Items))
	}
	check(t, l)
	if put(l, "a", 2<<20); s.Stats().Bytes > 1<<20 {
		t.Fatalf("a frame greater than the budget is held: %+v", s.Stats())
	}
	check(t, l)
	put(l, "a", 10)
	if l.Bounds().End-l.Bounds().Start != 1 {
		t.Fatalf("%+v", l.Bounds())
	}
}

// A fault in the caller changes nothing, and the log goes on.
func TestFaultyBatchesPanicBeforeAnythingChanges(t *testing.T) {
	_, l := oneLog(Config{})
	put(l, "a", 10)
	enc := func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, 'x') }
	mustPanic(t, func() { l.Append(Batch{Records: []Record{{Pos: at(1, 1)}}, Encode: enc}) })
	mustPanic(t, func() { l.Append(Batch{Records: []Record{{Pos: at(1, 3)}, {Pos: at(1, 3)}}, Encode: enc}) })
	mustPanic(t, func() { l.AppendGap(Gap{At: at(1, 0)}) })
	mustPanic(t, func() {
		l.Append(Batch{Records: []Record{{Key: []byte("b"), Pos: at(1, 2)}, {Key: []byte("b"), Pos: at(1, 3)}},
			Encode: func(dst []byte, i int, _ Position, _ bool) []byte { return append(dst, "x"[i]) }})
	})
	if got, want := l.Bounds(), (Bounds{0, 1, at(1, 0), at(1, 1)}); got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
	check(t, l)
	l.Append(Batch{Records: []Record{{Key: []byte("b"), Pos: at(1, 2)}}, Encode: func(dst []byte, _ int, _ Position, hasPrev bool) []byte {
		if hasPrev {
			t.Error("a record that was never published counts as previous")
		}
		return append(dst, 'y')
	}})
	check(t, l)
	if c := l.ReadAll(1, 10); string(c.Bytes) != "y" {
		t.Fatalf("%q", c.Bytes)
	}
}

// An encoder may return bytes that do not lie in the room it was offered.
func TestEncodeMayReturnItsOwnBytes(t *testing.T) {
	_, l := oneLog(Config{})
	for n := range 50 {
		own := fmt.Appendf(nil, "own %d", n)
		l.Append(Batch{Records: []Record{{Pos: at(1, n+1)}}, Encode: func([]byte, int, Position, bool) []byte { return own }})
		own[0] = '!'
	}
	for _, it := range l.NewestAll(-1) {
		if want := fmt.Sprintf("own %d", it.Index); string(it.Frame) != want {
			t.Fatalf("%q, want %q", it.Frame, want)
		}
	}
}

// Reads that look at many entries let the writer in; what they return is the same.
func TestLongWalks(t *testing.T) {
	_, l := oneLog(Config{})
	const n = 3*lockStep + 7
	batch := Batch{Encode: func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, 'x') }}
	for i := range n {
		batch.Records = append(batch.Records, Record{Key: []byte("a"), Pos: at(1, i+1)})
	}
	l.Append(batch)
	if r := l.ReadKey(1, []byte("a"), 2, nil); len(r.Items) != 2 || r.Items[0].Index != 1 || r.Next != 3 {
		t.Fatalf("%+v", r)
	}
	for what, got := range map[string]int{
		"read key":      len(l.ReadKey(0, []byte("a"), n, nil).Items),
		"read prefix":   len(l.ReadPrefix(0, []byte("a"), n, nil).Items),
		"newest all":    len(l.NewestAll(-1)),
		"newest key":    len(l.NewestKey([]byte("a"), -1)),
		"newest prefix": len(l.NewestPrefix([]byte("a"), n+1)),
	} {
		if got != n {
			t.Errorf("%s: %d of %d", what, got, n)
		}
	}
	if r := l.ReadPrefix(0, []byte("b"), n, nil); len(r.Items) != 0 || r.Next != n {
		t.Fatalf("%+v", r)
	}
}
