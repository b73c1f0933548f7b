package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// waitTimeout bounds every wait for a condition; it is reached only when a test fails. Beside others that want all processors,
// a broker was seen not to take one record in 20 s.
const waitTimeout = 90 * time.Second

// rig is the reading side as a node wires it, and a sink that keeps all it is told.
type rig struct {
	t       testing.TB
	client  *Client
	topics  *Topics
	offsets *Offsets
	feed    *Feed
	logs    *logBuffer

	mu     sync.Mutex
	change chan struct{}                    // closed and replaced at each change
	hold   map[bridge.TopicPartition]bool   // Fetched of these are not given back
	runs   map[bridge.TopicPartition]uint64 // of the last Fetched
	got    map[bridge.TopicPartition][]bridge.Fetched
	outs   []bridge.OffsetOutOfRangeError
	parted []parted
	metas  []map[string]bridge.TopicMeta
	faults []string
}

// logBuffer keeps what was logged, by line.
type logBuffer struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSpace(string(b)))
	return len(b), nil
}

func (l *logBuffer) with(parts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

// newRig starts the reading side against brokers for topics (a list of selectors).
func newRig(t testing.TB, brokers []string, topics string, with ...func(*TopicsConfig, *FeedConfig)) *rig {
	t.Helper()
	return newRigWith(t, Config{Brokers: brokers}, topics, with...)
}

// sought has leaders found by those alone who look for them: Topics asks when it is asked, not every few seconds.
func sought(tc *TopicsConfig, _ *FeedConfig) { tc.Interval = time.Hour }

// newRigWith does so with a configuration, whose log is the rig's.
func newRigWith(t testing.TB, cfg Config, topics string, with ...func(*TopicsConfig, *FeedConfig)) *rig {
	t.Helper()
	r := &rig{
		t: t, logs: &logBuffer{}, change: make(chan struct{}),
		hold: map[bridge.TopicPartition]bool{},
		runs: map[bridge.TopicPartition]uint64{},
		got:  map[bridge.TopicPartition][]bridge.Fetched{},
	}
	sel, err := ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = zerolog.New(r.logs)
	r.client, err = NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tc := TopicsConfig{Expose: sel, Listener: func(m map[string]bridge.TopicMeta) {
		r.changed(func() { r.metas = append(r.metas, m) })
	}}
	var fc FeedConfig
	for _, f := range with {
		f(&tc, &fc)
	}
	r.topics = NewTopics(r.client, tc)
	r.offsets = NewOffsets(r.client, r.topics)
	r.feed = NewFeed(r.client, r.topics, r.offsets, r, fc)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.topics.Run(ctx) })
	wg.Go(func() { r.feed.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		r.offsets.Close()
		_ = r.client.Close()
		if t.Failed() {
			t.Log(strings.Join(r.logs.lines, "\n"))
		}
		for _, f := range r.faults {
			t.Error(f)
		}
	})
	refresh(t, r.topics)
	return r
}

// refresh asks for metadata until there is an answer: a broker that is late with one is no matter of the tests.
func refresh(t testing.TB, topics *Topics) {
	t.Helper()
	for deadline := time.Now().Add(waitTimeout); ; {
		err := topics.Refresh(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// topicID asks Kafka which topic a name stands for, until Kafka says so or that there is none.
func (r *rig) topicID(name string) (bridge.TopicID, error) {
	r.t.Helper()
	for deadline := time.Now().Add(waitTimeout); ; {
		id, err := r.topics.TopicID(r.t.Context(), name)
		if err == nil || errors.Is(err, kafka.UnknownTopicOrPartition) || time.Now().After(deadline) {
			return id, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *rig) changed(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
	close(r.change)
	r.change = make(chan struct{})
}

// Fetched checks what holds for every call, keeps f, and gives it back unless its partition is held.
func (r *rig) Fetched(run uint64, f bridge.Fetched) {
	var hold bool
	r.changed(func() {
		all := r.got[f.TP]
		if run == r.runs[f.TP] && len(all) > 0 && all[len(all)-1].Next != f.From {
			r.faults = append(r.faults, fmt.Sprintf("%s: [%d,%d) follows %d", f.TP, f.From, f.Next, all[len(all)-1].Next))
		}
		last := f.From - 1
		for _, rec := range f.Records {
			if rec.Offset <= last || rec.Offset >= f.Next {
				r.faults = append(r.faults, fmt.Sprintf("%s: record %d in [%d,%d) after %d", f.TP, rec.Offset, f.From, f.Next, last))
			}
			last = rec.Offset
		}
		if f.Next <= f.From {
			r.faults = append(r.faults, fmt.Sprintf("%s: empty [%d,%d)", f.TP, f.From, f.Next))
		}
		r.got[f.TP], r.runs[f.TP] = append(all, f), run
		hold = r.hold[f.TP]
	})
	if !hold {
		r.feed.Done(f.TP, run)
	}
}

func (r *rig) OutOfRange(run uint64, tp bridge.TopicPartition, at, lo, hi bridge.Offset) {
	r.changed(func() {
		r.outs = append(r.outs, bridge.OffsetOutOfRangeError{TP: tp, At: at, LogStart: lo, LogEnd: hi})
	})
}

// parted is one call of Diverged.
type parted struct {
	tp     bridge.TopicPartition
	at     bridge.Offset
	leader bridge.LeaderEpoch
	end    bridge.Offset
}

func (r *rig) Diverged(run uint64, tp bridge.TopicPartition, at bridge.Offset, leader bridge.LeaderEpoch, end bridge.Offset) {
	r.changed(func() { r.parted = append(r.parted, parted{tp, at, leader, end}) })
}

// start reads the topic that has the name now.
func (r *rig) start(tp bridge.TopicPartition, from bridge.Offset) uint64 {
	r.topics.mu.Lock()
	id := r.topics.ids[tp.Topic]
	r.topics.mu.Unlock()
	return r.feed.Start(tp, bridge.FeedStart{Topic: id, Next: from, Leader: bridge.NoLeaderEpoch})
}

// until waits for cond, which is called with the rig locked.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	timeout := time.After(waitTimeout)
	for {
		r.mu.Lock()
		ok, change := cond(), r.change
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-timeout:
			r.t.Fatalf("this did not come: %s", what)
		}
	}
}

// refreshed asks for metadata until cond holds, which is called with the rig locked.
func (r *rig) refreshed(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for {
		r.mu.Lock()
		ok := cond()
		r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("this did not come: %s", what)
		}
		refresh(r.t, r.topics)
	}
}

// untilLogged waits for a line that holds all parts.
func (r *rig) untilLogged(parts ...string) {
	r.t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for r.logs.with(parts...) == 0 {
		if time.Now().After(deadline) {
			r.t.Fatalf("nothing was logged with %q", parts)
		}
		time.Sleep(time.Millisecond)
	}
}

// records are all records of tp so far; the rig is locked.
func (r *rig) records(tp bridge.TopicPartition) (all []bridge.Record) {
	for _, f := range r.got[tp] {
		all = append(all, f.Records...)
	}
	return all
}

func (r *rig) next(tp bridge.TopicPartition) bridge.Offset {
	if all := r.got[tp]; len(all) > 0 {
		return all[len(all)-1].Next
	}
	return 0
}

func (r *rig) untilNext(tp bridge.TopicPartition, next bridge.Offset) {
	r.t.Helper()
	r.until(fmt.Sprintf("%s read up to %d", tp, next), func() bool { return r.next(tp) >= next })
}

func (r *rig) latest(tp bridge.TopicPartition) bridge.Offset {
	r.t.Helper()
	off, err := r.offsets.Latest(r.t.Context(), tp)
	if err != nil {
		r.t.Fatal(err)
	}
	return off
}

// describe writes a record so that two can be compared as text; nil and empty differ.
func describe(p int32, off, ts int64, key, value []byte, headers []bridge.Header) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %d %#v=%#v", p, off, ts, key, value)
	for _, h := range headers {
		fmt.Fprintf(&b, " %q=%#v", h.Key, h.Value)
	}
	return b.String()
}

func describeOurs(p int32, recs []bridge.Record) (out []string) {
	for _, r := range recs {
		out = append(out, describe(p, int64(r.Offset), r.Timestamp, r.Key, r.Value, r.Headers))
	}
	return out
}

func describeTheirs(recs []kafkatest.Record) (out []string) {
	for _, r := range recs {
		var hs []bridge.Header
		for _, h := range r.Headers {
			hs = append(hs, bridge.Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, describe(r.Partition, r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value, hs))
	}
	return out
}

// equalToReference reads the topic to its end through the Feed and compares it with what kgo reads.
func (r *rig) equalToReference(brokers []string, topic string, partitions int32) {
	r.t.Helper()
	want := describeTheirs(kafkatest.ReadCommitted(r.t, brokers, topic))
	var got []string
	for p := range partitions {
		tp := bridge.TopicPartition{Topic: topic, Partition: p}
		r.untilNext(tp, r.latest(tp))
		r.mu.Lock()
		got = append(got, describeOurs(p, r.records(tp))...)
		r.mu.Unlock()
	}
	if !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				r.t.Fatalf("record %d of %d (want %d) differs:\n got %s\nwant %s", i, len(got), len(want),
					at(got, i), at(want, i))
			}
		}
	}
	if len(want) == 0 {
		r.t.Fatal("there was nothing to compare")
	}
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "nothing"
}
