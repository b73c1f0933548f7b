package cache

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// twin is the naive log that the real one is compared with: everything that was ever appended, in one
// slice. What has left is the real log's to decide within the rules that synced checks.
type twin struct {
	entries []twinEntry
	start   int // as of the last look
	base    Position
	head    Position
}

type twinEntry struct {
	pos     Position
	key     string // with a prefix that tells null from empty
	frame   string
	ts      int64
	arrived time.Time
	gap     *Gap
}

func keyID(key []byte) string {
	if key == nil {
		return "null"
	}
	return "k" + string(key)
}

func (w *twin) before(i int) Position {
	if i == len(w.entries) {
		return w.head
	}
	if i <= w.start {
		return w.base
	}
	return w.entries[i-1].pos
}

// synced takes over the real log's start and checks that it is a possible one.
func (w *twin) synced(t *rapid.T, l *Log) {
	b := l.Bounds()
	if int(b.End) != len(w.entries) || int(b.Start) < w.start || b.Start > b.End {
		t.Fatalf("bounds %+v, want start from %d and end %d", b, w.start, len(w.entries))
	}
	if int(b.Start) > w.start {
		w.start, w.base = int(b.Start), w.entries[b.Start-1].pos
	}
	if b.Base != w.base || b.Head != w.head {
		t.Fatalf("bounds %+v, want base %v and head %v", b, w.base, w.head)
	}
}

// read is what ReadKey and ReadPrefix must return.
func (w *twin) read(from, maxBytes int, match func(string) bool) (found []int, next int, gap *Gap) {
	size := 0
	for i := from; i < len(w.entries); i++ {
		e := &w.entries[i]
		if e.gap != nil {
			return found, i + 1, e.gap
		}
		if !match(e.key) {
			continue
		}
		if size > 0 && size+len(e.frame) > maxBytes {
			return found, i, nil
		}
		size += max(1, len(e.frame))
		found = append(found, i)
	}
	return found, len(w.entries), nil
}

func (w *twin) newest(n int, match func(string) bool) (found []int) {
	for i := len(w.entries) - 1; i >= w.start && len(found) != n; i-- {
		if w.entries[i].gap == nil && match(w.entries[i].key) {
			found = append([]int{i}, found...)
		}
	}
	return found
}

func (w *twin) sameItems(t *rapid.T, what string, items []Item, want []int) {
	if len(items) != len(want) {
		t.Fatalf("%s: %d items, want %d", what, len(items), len(want))
	}
	for k, it := range items {
		e := w.entries[want[k]]
		if int(it.Index) != want[k] || it.Pos != e.pos || it.Timestamp != e.ts || string(it.Frame) != e.frame {
			t.Fatalf("%s: item %d is %d %v %d %q, want %d %+v", what, k, it.Index, it.Pos, it.Timestamp, it.Frame, want[k], e)
		}
	}
}

var twinKeys = [][]byte{nil, {}, []byte("a"), []byte("ab"), []byte("a/1"), []byte("b"), []byte("c"), []byte(strings.Repeat("long", 60))}

// TestLogIsItsTwin does random things to a log, a second log competing for the memory, and compares
// every way of reading with the twin.
func TestLogIsItsTwin(t *testing.T) {
	for round := range 10 {
		t.Run(fmt.Sprint(round), rapid.MakeCheck(checkTwin))
	}
}

func checkTwin(t *rapid.T) {
	clk := newClock()
	const ttl = 8 * time.Second
	budget := rapid.Int64Range(6_000, 60_000).Draw(t, "budget")
	s := NewStore(Config{
		Budget: budget, TTL: ttl, Now: clk.Now,
		SegmentBytes: rapid.IntRange(40, 2_000).Draw(t, "segment"),
	})
	l, other := s.Log("t", 0), s.Log("t", 1)
	w := &twin{}
	drawKey := func() []byte {
		if rapid.IntRange(0, 3).Draw(t, "rare") == 0 {
			return fmt.Append(nil, "r", rapid.IntRange(0, 500).Draw(t, "key"))
		}
		return rapid.SampledFrom(twinKeys).Draw(t, "key")
	}
	drawFrom := func() int { return rapid.IntRange(w.start, len(w.entries)).Draw(t, "from") }
	drawMax := func() int { return rapid.IntRange(0, 1500).Draw(t, "max") }
	var kept []Chunk // chunks stay what they were
	var copies []string
	behind := func(from int, got bool) {
		if !got {
			t.Fatalf("read from %d is not behind, start %d", from, w.start)
		}
	}

	t.Repeat(map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			w.synced(t, l)
			check(t, l)
			check(t, other)
			if st := s.Stats(); st.Bytes > budget || st.Bytes != l.counted+other.counted {
				t.Fatalf("%d bytes, budget %d, counted %d and %d", st.Bytes, budget, l.counted, other.counted)
			}
		},
		"append": func(t *rapid.T) {
			var batch Batch
			n := rapid.IntRange(0, 12).Draw(t, "n")
			pos := w.head
			var want []twinEntry
			for range n {
				if rapid.IntRange(0, 9).Draw(t, "epoch") == 0 {
					pos = Position{pos.Epoch + 1, 0}
				}
				pos.Seqno += Seqno(rapid.IntRange(1, 3).Draw(t, "step"))
				key := drawKey()
				size := rapid.SampledFrom([]int{0, 1, 20, 100, 600}).Draw(t, "size")
				want = append(want, twinEntry{
					pos: pos, key: keyID(key), ts: int64(pos.Seqno) * 3,
					frame: strings.Repeat(string(rune('A'+len(w.entries)%26)), size), arrived: clk.Now(),
				})
				batch.Records = append(batch.Records, Record{key, pos, int64(pos.Seqno) * 3})
			}
			if rapid.Bool().Draw(t, "marker") {
				pos.Seqno++
			}
			batch.Head = pos
			calls, first := 0, len(w.entries)
			batch.Encode = func(dst []byte, i int, prev Position, hasPrev bool) []byte {
				if i != calls {
					t.Fatalf("encode of %d, want %d", i, calls)
				}
				calls++
				found := w.newest(1, func(k string) bool { return k == want[i].key })
				if hasPrev != (len(found) == 1) || hasPrev && prev != w.entries[found[0]].pos {
					t.Fatalf("prev of %+v is %v %v, want entry %v", want[i], prev, hasPrev, found)
				}
				w.entries = append(w.entries, want[i])
				return append(dst, want[i].frame...)
			}
			l.Append(batch)
			w.head = pos
			w.synced(t, l)
			if alone := int64(n)*(700+260+entrySize*2) + 4*logSize; w.start > first && alone < budget/2 {
				t.Fatalf("records %d.. were evicted as they came", first)
			}
		},
		"gap": func(t *rapid.T) {
			g := Gap{At: w.head, Reason: rapid.SampledFrom([]string{"truncated", "evicted"}).Draw(t, "why")}
			g.At.Seqno += Seqno(rapid.IntRange(1, 9).Draw(t, "lost"))
			w.entries = append(w.entries, twinEntry{pos: g.At, arrived: clk.Now(), gap: &g})
			w.head = g.At
			l.AppendGap(g)
		},
		"reset": func(t *rapid.T) {
			if rapid.IntRange(0, 4).Draw(t, "really") != 0 {
				t.Skip("rarely")
			}
			head := Position{w.head.Epoch + 1, 5}
			l.Reset(head)
			w.start, w.base, w.head = len(w.entries), head, head
		},
		"compete": func(t *rapid.T) { put(other, "x", rapid.IntRange(0, 900).Draw(t, "size")) },
		"time": func(t *rapid.T) {
			clk.advance(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			s.Sweep()
			w.synced(t, l)
			old := clk.Now().Add(-ttl)
			if w.start < len(w.entries) && !w.entries[w.start].arrived.After(old) {
				t.Fatalf("entry %d of %v is held at %v", w.start, w.entries[w.start].arrived, clk.Now())
			}
		},
		"all": func(t *rapid.T) {
			from, limit := drawFrom(), drawMax()
			c := l.ReadAll(Index(from), limit)
			if c.Behind || int(c.From) != from {
				t.Fatalf("read from %d: %+v", from, c)
			}
			if from == len(w.entries) {
				if c.Next != c.From || c.Count() != 0 || c.Gap != nil || c.Last() != (Position{}) {
					t.Fatalf("read at the end: %+v", c)
				}
				return
			}
			if g := w.entries[from].gap; g != nil {
				if c.Gap == nil || *c.Gap != *g || len(c.Bytes) != 0 || int(c.Next) != from+1 || c.Count() != 0 || c.Last() != g.At {
					t.Fatalf("read of a gap: %+v", c)
				}
				return
			}
			want := ""
			for i := from; i < int(c.Next); i++ {
				if w.entries[i].gap != nil {
					t.Fatalf("chunk [%d, %d) runs over the gap at %d", from, c.Next, i)
				}
				want += w.entries[i].frame
			}
			if string(c.Bytes) != want || c.Next <= c.From || c.Count() != int(c.Next)-from || c.Last() != w.entries[c.Next-1].pos {
				t.Fatalf("read [%d, %d): %q, want %q", from, c.Next, c.Bytes, want)
			}
			if len(c.Bytes) > limit && c.Count() > 1 {
				t.Fatalf("%d bytes of %d records, %d asked for", len(c.Bytes), c.Count(), limit)
			}
			w.split(t, c, rapid.IntRange(0, len(want)).Draw(t, "written"))
			kept, copies = append(kept, c), append(copies, want)
		},
		"key": func(t *rapid.T) {
			from, limit, key := drawFrom(), drawMax(), drawKey()
			for range 3 {
				found, next, gap := w.read(from, limit, func(k string) bool { return k == keyID(key) })
				r := l.ReadKey(Index(from), key, limit, nil)
				if gap == nil && len(found) > 0 && next < len(w.entries) {
					next = found[len(found)-1] + 1 // where the real one stops when it is cut short
				}
				w.same(t, "key", r, found, next, gap)
				from = next
			}
		},
		"prefix": func(t *rapid.T) {
			from, limit := drawFrom(), drawMax()
			prefix := rapid.SampledFrom([]string{"", "a", "a/", "r1", "zz", "long"}).Draw(t, "prefix")
			match := func(k string) bool { return k != "null" && strings.HasPrefix(k, "k"+prefix) }
			found, next, gap := w.read(from, limit, match)
			w.same(t, "prefix", l.ReadPrefix(Index(from), []byte(prefix), limit, nil), found, next, gap)
			n := rapid.IntRange(-1, 5).Draw(t, "n")
			w.sameItems(t, "newest prefix", l.NewestPrefix([]byte(prefix), n), w.newest(n, match))
		},
		"latest": func(t *rapid.T) {
			from := drawFrom()
			until := rapid.IntRange(from, len(w.entries)).Draw(t, "until")
			limit, key := drawMax(), drawKey()
			prefix := rapid.SampledFrom([]string{"", "a", "a/", "r1", "zz", "long"}).Draw(t, "prefix")
			for _, of := range []struct {
				what  string
				match func(string) bool
				read  func(from Index) Read
			}{
				{"key", func(k string) bool { return k == keyID(key) }, func(from Index) Read { return l.LatestKey(from, Index(until), key, nil) }},
				{"all", func(string) bool { return true }, func(from Index) Read { return l.LatestAll(from, Index(until), limit, nil) }},
				{"prefix", func(k string) bool { return k != "null" && strings.HasPrefix(k, "k"+prefix) },
					func(from Index) Read { return l.LatestPrefix(from, Index(until), []byte(prefix), limit, nil) }},
			} {
				w.sameRound(t, of.what, w.round(from, until, of.match), from, until, of.read)
			}
		},
		"newest": func(t *rapid.T) {
			n, key := rapid.IntRange(-1, 5).Draw(t, "n"), drawKey()
			w.sameItems(t, "newest all", l.NewestAll(n), w.newest(n, func(string) bool { return true }))
			w.sameItems(t, "newest key", l.NewestKey(key, n), w.newest(n, func(k string) bool { return k == keyID(key) }))
		},
		"behind": func(t *rapid.T) {
			for _, from := range []int{w.start - 1, len(w.entries) + 1} {
				if from < 0 {
					continue
				}
				behind(from, l.ReadAll(Index(from), 100).Behind)
				behind(from, l.ReadKey(Index(from), drawKey(), 100, nil).Behind)
				behind(from, l.ReadPrefix(Index(from), nil, 100, nil).Behind)
				behind(from, l.LatestKey(Index(from), max(Index(from), l.Bounds().End), drawKey(), nil).Behind)
				behind(from, l.LatestAll(Index(from), max(Index(from), l.Bounds().End), 100, nil).Behind)
			}
		},
		"entries": func(t *rapid.T) {
			from, limit := drawFrom(), rapid.IntRange(0, 30).Draw(t, "limit")
			got, next, behind := l.Entries(Index(from), limit, nil)
			if behind || len(got) != min(limit, len(w.entries)-from) || int(next) != from+len(got) {
				t.Fatalf("%d entries from %d, next %d, behind %v", len(got), from, next, behind)
			}
			for k, e := range got {
				want := w.entries[from+k]
				if int(e.Index) != from+k || e.Gap != (want.gap != nil) ||
					!e.Gap && (e.Timestamp != want.ts || keyID(e.Key) != want.key) {
					t.Fatalf("entry %+v, want %+v", e, want)
				}
			}
		},
		"seek": func(t *rapid.T) {
			i := drawFrom()
			if l.At(Index(i)) != w.before(i) {
				t.Fatalf("at %d: %v, want %v", i, l.At(Index(i)), w.before(i))
			}
			p := w.before(i)
			switch rapid.IntRange(0, 3).Draw(t, "off") {
			case 0:
				p.Seqno++
			case 1:
				p.Seqno -= min(p.Seqno, 1)
			case 2:
				p = Position{p.Epoch + 1, 0}
			}
			want := w.start
			for want < len(w.entries) && !w.entries[want].pos.After(p) {
				want++
			}
			got, ok := l.Seek(p)
			if servable := !w.base.After(p); ok != servable || ok && int(got) != want {
				t.Fatalf("seek %v: %d %v, want %d, base %v", p, got, ok, want, w.base)
			}
		},
	})
	for k, c := range kept {
		if string(c.Bytes) != copies[k] {
			t.Fatalf("a chunk has changed: %q, was %q", c.Bytes, copies[k])
		}
	}
}

// round is what is to be read of [from, until) by who wants the latest of each key: the places of the records
// and gaps.
func (w *twin) round(from, until int, match func(string) bool) (places []int) {
	for i := from; i < until; i++ {
		e := &w.entries[i]
		latest := e.gap != nil || match(e.key)
		for _, later := range w.entries[i+1 : until] {
			if e.gap == nil && later.gap == nil && later.key == e.key {
				latest = false
			}
		}
		if latest {
			places = append(places, i)
		}
	}
	return places
}

// sameRound reads a whole round, read by read, and compares.
func (w *twin) sameRound(t *rapid.T, what string, want []int, from, until int, read func(Index) Read) {
	for at := Index(from); at < Index(until); {
		r := read(at)
		if r.Behind || r.Next <= at || r.Next > Index(until) {
			t.Fatalf("latest %s of [%d, %d) at %d: %+v", what, from, until, at, r)
		}
		n := min(len(r.Items), len(want))
		w.sameItems(t, "latest "+what, r.Items, want[:n])
		want = want[n:]
		if r.Gap != nil {
			if len(want) == 0 || w.entries[want[0]].gap == nil || *w.entries[want[0]].gap != *r.Gap || int(r.Next) != want[0]+1 {
				t.Fatalf("latest %s of [%d, %d) at %d: %+v, want %v next", what, from, until, at, r, want)
			}
			want = want[1:]
		}
		at = r.Next
	}
	if len(want) > 0 {
		t.Fatalf("latest %s of [%d, %d): %v are left out", what, from, until, want)
	}
}

func (w *twin) same(t *rapid.T, what string, r Read, found []int, next int, gap *Gap) {
	w.sameItems(t, what, r.Items, found)
	if r.Behind || int(r.Next) != next || (r.Gap == nil) != (gap == nil) || gap != nil && *r.Gap != *gap {
		t.Fatalf("%s: next %d gap %v behind %v, want %d %v", what, r.Next, r.Gap, r.Behind, next, gap)
	}
}

// split checks Chunk.Split by laying the frames out again.
func (w *twin) split(t *rapid.T, c Chunk, n int) {
	next, rest := c.Split(n)
	done := 0
	for i := int(c.From); i < int(next); i++ {
		done += len(w.entries[i].frame)
	}
	if done-len(rest) != n || !bytes.Equal(rest, c.Bytes[n:done]) {
		t.Fatalf("split at %d of %d: next %d, rest %d bytes", n, len(c.Bytes), next, len(rest))
	}
	if next > c.From && len(rest) > 0 && len(rest) >= len(w.entries[next-1].frame) {
		t.Fatalf("split at %d: record %d was not begun", n, next-1)
	}
}
