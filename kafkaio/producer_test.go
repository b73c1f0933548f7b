package kafkaio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// writer is the writing side as a node wires it.
type writer struct {
	*Producer
	t      testing.TB
	client *Client
	topics *Topics
}

// newWriter starts a producer and what it needs, and has it closed with the test, without a goroutine
// left behind.
func newWriter(t testing.TB, cfg Config, topics string, with ...func(*ProducerConfig)) *writer {
	t.Helper()
	noLeaks(t)
	return startWriter(t, cfg, topics, with...)
}

// startWriter does so for a test that looks for goroutines itself, as it has several of everything.
func startWriter(t testing.TB, cfg Config, topics string, with ...func(*ProducerConfig)) *writer {
	t.Helper()
	sel, err := ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	return startWriterTo(t, cfg, TopicsConfig{Publish: sel}, with...)
}

func startWriterTo(t testing.TB, cfg Config, tc TopicsConfig, with ...func(*ProducerConfig)) *writer {
	t.Helper()
	cfg.Log = zerolog.New(zerolog.NewTestWriter(t))
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, client: client}
	w.topics = NewTopics(client, tc)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.topics.Run(ctx) })
	pc := ProducerConfig{Client: client, Leaders: w.topics, Log: cfg.Log}
	for _, f := range with {
		f(&pc)
	}
	if w.Producer, err = NewProducer(pc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.Close()
		cancel()
		wg.Wait()
		_ = client.Close()
	})
	refresh(t, w.topics)
	return w
}

// noLeaks fails the test if goroutines that it started outlive it. Those of kafka-go's pool of connections end after it
// was closed, when the broker has answered what is outstanding.
func noLeaks(t testing.TB) {
	t.Helper()
	ignored := []goleak.Option{goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait")}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		for deadline := time.Now().Add(leakTimeout); ; { // Find waits for half a second
			err := goleak.Find(ignored...)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
}

// leakTimeout is how long goroutines may take to end: not so long that connections are closed for being idle meanwhile.
const leakTimeout = 10 * time.Second

func (w *writer) produce(tp bridge.TopicPartition, value string) bridge.Produced {
	w.t.Helper()
	got, err := w.try(tp, value, waitTimeout)
	if err != nil {
		w.t.Fatalf("produce %.20q: %v", value, err)
	}
	return got
}

func (w *writer) try(tp bridge.TopicPartition, value string, timeout time.Duration) (bridge.Produced, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), timeout)
	defer cancel()
	return w.Produce(ctx, tp, bridge.Record{Key: []byte("k"), Value: []byte(value)})
}

// inKafka reads the whole topic with a reference client.
func inKafka(t testing.TB, brokers []string, topic string) (out []string) {
	t.Helper()
	for _, r := range kafkatest.ReadCommitted(t, brokers, topic) {
		out = append(out, string(r.Value))
	}
	return out
}

func wantValues(t testing.TB, brokers []string, topic string, want ...string) {
	t.Helper()
	if got := inKafka(t, brokers, topic); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("Kafka has %.300q, want %.300q", got, want)
	}
}

func tp(topic string, p int32) bridge.TopicPartition {
	return bridge.TopicPartition{Topic: topic, Partition: p}
}

func TestProduceEverything(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	in := []bridge.Record{
		{Timestamp: 1700000000123, Key: []byte("key"), Value: []byte("value"), Headers: []bridge.Header{
			{Key: "h", Value: []byte("x")}, {Key: "", Value: nil}, {Key: "empty", Value: []byte{}}}},
		{Timestamp: 1700000000100, Key: nil, Value: []byte("null key")},
		{Timestamp: 1700000000200, Key: []byte("tombstone"), Value: nil},
		{Timestamp: 1, Key: []byte{}, Value: []byte{}},
		{Timestamp: 1700000000200, Key: []byte{0xff}, Value: bytes.Repeat([]byte{0x80}, 100_000)},
	}
	for i, r := range in {
		got, err := w.Produce(t.Context(), tp("a", 0), r)
		if err != nil {
			t.Fatal(err)
		}
		if got != (bridge.Produced{Offset: bridge.Offset(i), Timestamp: r.Timestamp}) {
			t.Errorf("record %d is at %+v", i, got)
		}
	}
	out := kafkatest.ReadCommitted(t, k.Brokers(), "a")
	if len(out) != len(in) {
		t.Fatalf("%d records", len(out))
	}
	for i, r := range in {
		o := out[i]
		same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
		if !same(o.Key, r.Key) || !same(o.Value, r.Value) || o.Timestamp.UnixMilli() != r.Timestamp || len(o.Headers) != len(r.Headers) {
			t.Errorf("record %d: %+v", i, o)
		}
		for j, h := range r.Headers {
			if o.Headers[j].Key != h.Key || !same(o.Headers[j].Value, h.Value) {
				t.Errorf("record %d header %d: %+v", i, j, o.Headers[j])
			}
		}
	}
}

// Many callers at once: every record once, in batches, at the offset that was answered.
func TestProduceBatches(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(4, "a"), kfake.NumBrokers(2))
	requests := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	const n = 2000
	var wg sync.WaitGroup
	var mu sync.Mutex
	at := map[string]bridge.Offset{}
	for i := range n {
		wg.Go(func() {
			v := fmt.Sprintf("%d-%d", i%4, i)
			got, err := w.try(tp("a", int32(i%4)), v, waitTimeout)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			at[v] = got.Offset
			mu.Unlock()
		})
	}
	wg.Wait()
	out := kafkatest.ReadCommitted(t, k.Brokers(), "a")
	if len(out) != n {
		t.Fatalf("%d records", len(out))
	}
	for _, r := range out {
		if off, ok := at[string(r.Value)]; !ok || int64(off) != r.Offset {
			t.Fatalf("%s is at %d, Produce said %d", r.Value, r.Offset, off)
		}
	}
	if got := requests.Hits(); got > n/2 {
		t.Errorf("%d requests for %d records", got, n)
	}
}

// The broker writes the batch and answers that it timed out: the retry must not write it again, and
// must be told where the first one is.
func TestProduceIsIdempotentWhenTheAnswerIsAnError(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(e.Message, func(t *testing.T) {
			k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
			w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
			w.produce(tp("a", 0), "first")
			f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e, Count: 3})
			if got := w.produce(tp("a", 0), "second"); got.Offset != 1 {
				t.Errorf("offset %d", got.Offset)
			}
			if f.Hits() != 3 {
				t.Errorf("%d faults", f.Hits())
			}
			w.produce(tp("a", 0), "third")
			wantValues(t, k.Brokers(), "a", "first", "second", "third")
		})
	}
}

// cuttingListener breaks a connection instead of answering the request that carries the marker.
type cuttingListener struct {
	net.Listener
	marker []byte
	cuts   atomic.Int32 // how many are left
}

type cuttingConn struct {
	net.Conn
	l    *cuttingListener
	tail []byte
	seen atomic.Bool
}

func (l *cuttingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cuttingConn{Conn: c, l: l}, nil
}

func (c *cuttingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tail = append(c.tail, b[:n]...)
	if bytes.Contains(c.tail, c.l.marker) {
		c.seen.Store(true)
		c.tail = nil
	}
	if len(c.tail) > 1<<16 {
		c.tail = c.tail[len(c.tail)-len(c.l.marker):]
	}
	return n, err
}

func (c *cuttingConn) Write(b []byte) (int, error) {
	if c.seen.Swap(false) && c.l.cuts.Add(-1) >= 0 {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// The broker writes the batch and the connection breaks before its answer: exactly one copy.
func TestProduceIsIdempotentWhenTheConnectionBreaks(t *testing.T) {
	cut := &cuttingListener{marker: []byte("break here")}
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"), kfake.ListenFn(func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		if err != nil {
			return nil, err
		}
		cut.Listener = l
		return cut, nil
	}))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	w.produce(tp("a", 0), "first")
	cut.cuts.Store(2)
	if got := w.produce(tp("a", 0), "break here"); got.Offset != 1 {
		t.Errorf("offset %d", got.Offset)
	}
	if cut.cuts.Load() > 0 {
		t.Error("the connection was not cut")
	}
	w.produce(tp("a", 0), "third")
	wantValues(t, k.Brokers(), "a", "first", "break here", "third")
}

// A caller gives up while its batch is on the wire and its fate stays unknown. The partition goes on
// with a new producer id, in order and without a copy.
func TestProduceAfterAnAbandonedBatch(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	w.produce(tp("a", 0), "first")
	f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: -1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := make(chan error, 1)
	go func() {
		_, err := w.Produce(ctx, tp("a", 0), bridge.Record{Key: []byte("k"), Value: []byte("abandoned")})
		left <- err
	}()
	waitFor(t, "an answer that leaves its fate open", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return errors.Is(w.partitions[tp("a", 0)].lastErr, kafka.RequestTimedOut)
	})
	cancel()
	select {
	case err := <-left:
		if !errors.Is(err, context.Canceled) || !errors.Is(err, kafka.RequestTimedOut) {
			t.Errorf("error %v", err)
		}
	case <-time.After(waitTimeout):
		t.Fatal("it did not return")
	}
	// A request that is still under way would otherwise be answered well, and its fate be known.
	waitFor(t, "the batch to be given up", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.partitions[tp("a", 0)].batch == nil
	})
	f.Remove()
	if got := w.produce(tp("a", 0), "second"); got.Offset != 2 {
		t.Errorf("offset %d", got.Offset)
	}
	wantValues(t, k.Brokers(), "a", "first", "abandoned", "second")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.generation < 2 {
		t.Error("the producer id is still the old one")
	}
}

// A record that never left is not written later, and does not stop the next one.
func TestProduceExpiresInTheQueue(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := w.try(tp("a", 0), fmt.Sprint("late ", i), 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	waitFor(t, "nothing on the wire", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.partitions[tp("a", 0)].batch == nil
	})
	w.mu.Lock()
	pt := w.partitions[tp("a", 0)]
	if pt.queue.Len() != 0 || pt.queued != 0 {
		t.Errorf("%d records of %d bytes are still queued", pt.queue.Len(), pt.queued)
	}
	w.mu.Unlock()
	f.Remove()
	w.produce(tp("a", 0), "in time")
	wantValues(t, k.Brokers(), "a", "in time")
}

// A lost sequence number: refused at the first attempt, so the records go again under a new id. After
// an attempt of unknown fate the caller is told that it is unknown.
func TestProduceStaleSequence(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch} {
		t.Run(e.Message, func(t *testing.T) {
			k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
			w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
			w.produce(tp("a", 0), "first")
			k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e})
			w.produce(tp("a", 0), "second")
			wantValues(t, k.Brokers(), "a", "first", "second")

			k.Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut},
				kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e},
			)
			if _, err := w.try(tp("a", 0), "third", waitTimeout); !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("error %v", err)
			}
			w.produce(tp("a", 0), "fourth")
			wantValues(t, k.Brokers(), "a", "first", "second", "third", "fourth")
		})
	}
}

func TestProduceTooLargeSparesItsNeighbours(t *testing.T) {
	k := kafkatest.Fake(t)
	if err := k.CreateTopic("a", 1, map[string]string{"max.message.bytes": "10000"}); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	tooLarge(t, w, k.Brokers(), "a")
}

// tooLarge produces many small records and some over the topic's limit of 10,000 bytes at once.
func tooLarge(t *testing.T, w *writer, brokers []string, topic string) {
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			v := fmt.Sprintf("%d %s", i, strings.Repeat("x", 500))
			if i%100 == 50 {
				v = strings.Repeat("x", 20_000)
			}
			_, err := w.try(tp(topic, 0), v, waitTimeout)
			var rej *bridge.RejectedError
			if i%100 == 50 {
				if !errors.As(err, &rej) || !rej.TooLarge {
					t.Errorf("large record: %v", err)
				}
			} else if err != nil {
				t.Errorf("small record: %v", err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, v := range inKafka(t, brokers, topic) {
		seen[v] = true
	}
	if got := len(inKafka(t, brokers, topic)); got != n-3 || len(seen) != n-3 {
		t.Errorf("%d records, %d different, want %d", got, len(seen), n-3)
	}
}

func TestProduceRefused(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	for _, e := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e})
		_, err := w.try(tp("a", 0), "no", waitTimeout)
		var rej *bridge.RejectedError
		if !errors.As(err, &rej) || rej.TooLarge {
			t.Errorf("%s: %v", e.Message, err)
		}
	}
	w.produce(tp("a", 0), "yes")
	wantValues(t, k.Brokers(), "a", "yes")
}

func TestProduceFollowsTheLeader(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"), kfake.NumBrokers(3))
	noLeaks(t)
	sel, err := ParseSelectors("a")
	must(t, err)
	w := startWriterTo(t, Config{Brokers: k.Brokers()}, TopicsConfig{Publish: sel, Interval: time.Hour}) // it asks when it is asked
	var want []string
	for i := range 60 {
		if i%10 == 5 {
			next := (k.LeaderFor("a", 0) + 1) % 3
			if err := k.MoveTopicPartition("a", 0, next); err != nil {
				t.Fatal(err)
			}
		}
		v := fmt.Sprint(i)
		if got := w.produce(tp("a", 0), v); int(got.Offset) != i {
			t.Fatalf("record %d is at %d", i, got.Offset)
		}
		want = append(want, v)
	}
	wantValues(t, k.Brokers(), "a", want...)
}

// A partition that Kafka does not answer for holds up no other.
func TestProduceSlowPartition(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(2, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = w.Produce(ctx, tp("a", 0), bridge.Record{Value: []byte("stuck")})
	})
	for i := range 50 {
		if got := w.produce(tp("a", 1), fmt.Sprint(i)); int(got.Offset) != i {
			t.Fatalf("offset %d", got.Offset)
		}
	}
	cancel()
	wg.Wait()
}

func TestProduceQueueIsBounded(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a", func(c *ProducerConfig) { c.QueueRecords, c.QueueBytes = 5, 10_000 })
	f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	var full atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := w.try(tp("a", 0), "x", 300*time.Millisecond); errors.Is(err, ErrQueueFull) {
				full.Add(1)
			}
		})
	}
	wg.Wait()
	if full.Load() == 0 {
		t.Error("none of 20 was refused")
	}
	f.Remove()
	var rej *bridge.RejectedError
	if _, err := w.try(tp("a", 0), strings.Repeat("x", 20_000), time.Second); !errors.As(err, &rej) || !rej.TooLarge {
		t.Errorf("error %v", err)
	}
	w.produce(tp("a", 0), "fine")
}

func TestProducerClose(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	errs := make(chan error, 1)
	go func() {
		_, err := w.try(tp("a", 0), "x", 20*time.Second)
		errs <- err
	}()
	waitFor(t, "a request", func() bool { return f.Hits() > 0 })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
	if _, err := w.try(tp("a", 0), "x", time.Second); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// waitFor polls cond: for what can be seen from outside only.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("this did not come: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
