package cache

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that stands still until it is told to move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.UnixMilli(1_700_000_000_000)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func at(epoch, seqno int) Position { return Position{Epoch(epoch), Seqno(seqno)} }

// put appends one record to l, at the seqno after its head, and returns its frame.
func put(l *Log, key string, size int) string {
	head := l.Bounds().Head
	pos := Position{head.Epoch, head.Seqno + 1}
	frame := fmt.Sprintf("%s@%d.%d", key, pos.Epoch, pos.Seqno)
	frame += strings.Repeat(".", max(0, size-len(frame)))
	l.Append(Batch{
		Records: []Record{{Key: []byte(key), Pos: pos, Timestamp: int64(pos.Seqno)}},
		Head:    pos,
		Encode:  func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, frame...) },
	})
	return frame
}

func oneLog(cfg Config) (*Store, *Log) {
	s := NewStore(cfg)
	l := s.Log("t", 0)
	l.Reset(at(1, 0))
	return s, l
}

// check verifies the invariants of the log and of its accounts from the inside.
func check(t interface {
	Helper()
	Fatalf(string, ...any)
}, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes := int64(0)
	for n, s := range l.segs {
		bytes += s.bytes()
		if len(s.entries) == 0 {
			t.Fatalf("segment %d is empty", n)
		}
		if n > 0 && l.segs[n-1].end() != s.base {
			t.Fatalf("segment %d starts at %d, the one before ends at %d", n, s.base, l.segs[n-1].end())
		}
	}
	if bytes != l.segBytes || l.counted != l.bytes() {
		t.Fatalf("counted %d for segments that hold %d; %d for a log of %d", l.segBytes, bytes, l.counted, l.bytes())
	}
	last, lastPos, chains, gaps := map[string]Index{}, l.base, map[string]bool{}, 0
	for i := l.start; i < l.end; i++ {
		s := locate(l.segs, i)
		e := s.at(i)
		if !s.pos(i).After(lastPos) && e.key != keyGap {
			t.Fatalf("entry %d at %v after %v", i, s.pos(i), lastPos)
		}
		lastPos = s.pos(i)
		if e.key == keyGap {
			if l.gaps[gaps].index != i {
				t.Fatalf("gap %d is at %d, listed at %d", gaps, i, l.gaps[gaps].index)
			}
			gaps++
			continue
		}
		id := "null"
		if e.key != keyNull {
			id = "k" + string(s.keyAt(e.key))
			chains[id] = true
		}
		before, known := last[id]
		if linked := e.prev != 0 && i-Index(e.prev) >= l.start; linked != known || known && i-Index(e.prev) != before {
			t.Fatalf("entry %d of %q links %d back, the one before is %d, %v", i, id, e.prev, before, known)
		}
		if known {
			if p := locate(l.segs, before).at(before); before+Index(p.next) != i {
				t.Fatalf("entry %d of %q links %d on, the next is %d", before, id, p.next, i)
			}
		}
		last[id] = i
	}
	if lastPos.After(l.head) {
		t.Fatalf("head %v is before the last entry %v", l.head, lastPos)
	}
	if gaps != len(l.gaps) {
		t.Fatalf("%d gaps are held, %d listed", gaps, len(l.gaps))
	}
	if l.index.used != len(chains) {
		t.Fatalf("the index holds %d keys, the log %d", l.index.used, len(chains))
	}
	for id, i := range last {
		var key []byte
		if id != "null" {
			key = []byte(id[1:])
		}
		if got, ok := l.newest(key, l.hash(key)); !ok || got != i {
			t.Fatalf("newest of %q: %d, %v; want %d", id, got, ok, i)
		}
	}
	if _, ok := last["null"]; !ok && l.nullLast != 0 {
		t.Fatalf("newest null key is %d, there is none", l.nullLast-1)
	}
}

// mustPanic reports whether f panics.
func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	f()
}
