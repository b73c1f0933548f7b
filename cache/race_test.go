package cache

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestReadersAndAppendersTogether lets readers of every kind run after appenders while memory is short
// and records expire. Every frame says which record it is, so a torn or moved one shows, and each
// reader sees rising positions of its key, and all of them unless it fell behind.
func TestReadersAndAppendersTogether(t *testing.T) {
	clk := newClock()
	s := NewStore(Config{Budget: 100_000, SegmentBytes: 5_000, TTL: time.Second, Now: clk.Now})
	const logs, records, keys = 3, 1500, 7
	frame := func(dst []byte, n int) []byte { return fmt.Appendf(dst, "<%d %d>", n%keys, n) }
	var appending, reading sync.WaitGroup
	var done atomic.Bool
	for p := range int32(logs) {
		l := s.Log("t", p)
		appending.Go(func() {
			for n := 1; n <= records; {
				batch := Batch{}
				first := n
				for ; n <= records && len(batch.Records) < 1+first%9; n++ {
					batch.Records = append(batch.Records, Record{Key: fmt.Append(nil, n%keys), Pos: at(1, n)})
				}
				batch.Encode = func(dst []byte, i int, _ Position, _ bool) []byte { return frame(dst, first+i) }
				l.Append(batch)
			}
		})
		for k := range keys {
			reading.Go(func() {
				var items []Item
				last := 0
				for from := Index(0); ; {
					end := done.Load()
					r := l.ReadKey(from, fmt.Append(nil, k), 300, items[:0])
					if k%2 == 1 {
						r = l.ReadPrefix(from, fmt.Append(nil, k), 300, items[:0])
					}
					if r.Behind {
						from, last = l.Bounds().Start, 0
						continue
					}
					items = r.Items
					for _, it := range items {
						n := int(it.Pos.Seqno)
						if n <= last || n%keys != k || last != 0 && n != last+keys || !bytes.Equal(it.Frame, frame(nil, n)) {
							t.Errorf("key %d after %d: %v %q", k, last, it.Pos, it.Frame)
							return
						}
						last = n
					}
					if from = r.Next; end && len(items) == 0 {
						return
					}
				}
			})
		}
		reading.Go(func() {
			for from := Index(0); ; {
				end := done.Load()
				c := l.ReadAll(from, 1000)
				if c.Behind {
					from = l.Bounds().Start
					continue
				}
				var want []byte
				for i := c.From; i < c.Next; i++ {
					want = frame(want, int(i)+1)
				}
				next, rest := c.Split(len(c.Bytes) / 2)
				if !bytes.Equal(c.Bytes, want) || next < c.From || len(rest) > len(c.Bytes) {
					t.Errorf("chunk [%d, %d): %q", c.From, c.Next, c.Bytes)
					return
				}
				if from = c.Next; end && c.Count() == 0 {
					return
				}
			}
		})
	}
	reading.Go(func() {
		for !done.Load() {
			clk.advance(time.Millisecond)
			s.Sweep()
			s.Stats()
			for _, l := range s.Logs("t") {
				l.NewestAll(20)
				l.NewestKey([]byte("3"), 5)
				l.Seek(l.Bounds().Head)
			}
		}
	})
	appending.Wait()
	done.Store(true)
	reading.Wait()
	for _, l := range s.Logs("t") {
		check(t, l)
	}
	if st := s.Stats(); st.Bytes > st.Budget || st.Evicted+st.Expired+st.Records != logs*records {
		t.Fatalf("%+v", st)
	}
}
