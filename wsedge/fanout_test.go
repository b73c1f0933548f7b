package wsedge

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// BenchmarkFanout measures what a delivered message costs with 1,000 subscribers of one subject, readers
// in the same process included. An op is one record to all; allocations are those of the whole process.
// "quiet" waits for each record to be delivered before the next, "burst" for each 32.
func BenchmarkFanout(b *testing.B) {
	for _, mode := range []struct {
		name  string
		burst int
	}{{"quiet", 1}, {"burst", 32}} {
		for _, subject := range []string{"/one/k", "/one/*"} {
			name := mode.name + strings.ReplaceAll(subject, "/", "_")
			b.Run(name, func(b *testing.B) { fanout(b, subject, mode.burst) })
			b.Run("tls_"+name, func(b *testing.B) {
				overTLS = true
				defer func() { overTLS = false }()
				fanout(b, subject, mode.burst)
			})
		}
	}
}

func fanout(b *testing.B, subject string, burst int) {
	const subscribers = 1000
	e := newEdge(b, cache.Config{Budget: 16 << 20}, nil)
	for range subscribers {
		c := e.dialByHand(0)
		c.op(`{"op":"sub","subject":%q}`, subject)
		go func() { _, _ = io.Copy(io.Discard, onlyReader{bottom(c.conn)}) }() // what is sealed need not be opened
	}
	until(b, "all to be subscribed", func() bool { return e.srv.Stats().Subscriptions == subscribers })
	log := e.node.store.Log("one", 0)
	v := []byte(`"` + strings.Repeat("x", 510) + `"`)
	key := []byte("k")
	records := make([]cache.Record, 1)
	batch := cache.Batch{Records: records, Encode: func(dst []byte, i int, prev bridge.Position, hasPrev bool) []byte {
		return e.node.enc.AppendMsg(dst, bridge.TopicPartition{Topic: "one"}, bridge.Record{Key: key, Value: v}, records[i].Pos, prev, hasPrev)
	}}
	b.SetBytes(subscribers * 512)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		records[0] = cache.Record{Key: key, Pos: bridge.Position{Epoch: 1, Seqno: bridge.Seqno(i + 1)}}
		batch.Head = records[0].Pos
		log.Append(batch)
		if (i+1)%burst == 0 || i+1 == b.N {
			for e.srv.Stats().Delivered < int64(i+1)*subscribers {
				if n := e.srv.Stats().Connections; n != subscribers {
					b.Fatal(n, " are left")
				}
				runtime.Gosched()
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/subscribers, "ns/delivery")
}

type onlyReader struct{ io.Reader }

// Nothing is allocated per subscriber and message: a hundred records to a hundred subscribers cost what
// the cache and the runtime cost, far less than the 10,000 deliveries.
func TestDeliveryAllocatesNothing(t *testing.T) {
	for _, subject := range []string{"/one/k", "/one/*", "/one/k/*"} {
		e := newEdge(t, cache.Config{}, nil)
		const subscribers, records = 100, 100
		for range subscribers {
			c := e.dialByHand(0)
			c.op(`{"op":"sub","subject":%q}`, subject)
			go func() { _, _ = io.Copy(io.Discard, onlyReader{bottom(c.conn)}) }() // what is sealed need not be opened
		}
		until(t, "all to be subscribed", func() bool { return e.srv.Stats().Subscriptions == subscribers })
		key := []byte(strings.TrimSuffix(strings.TrimPrefix(subject, "/one/"), "*"))
		if len(key) == 0 {
			key = []byte("k")
		}
		sent := int64(0)
		send := func() {
			for range records {
				e.node.put("one", 0, key, []byte("1"))
				sent += subscribers
				for e.srv.Stats().Delivered < sent {
					runtime.Gosched()
				}
			}
		}
		send() // tables grow to their size
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		send()
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > subscribers*records/5 {
			t.Errorf("%s: %d allocations for %d deliveries", subject, n, subscribers*records)
		} else {
			t.Logf("%s: %d allocations for %d deliveries", subject, n, subscribers*records)
		}
	}
}
