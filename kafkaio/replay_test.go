package kafkaio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func newReplayer(t testing.TB, r *rig) *Replayer {
	rp := NewReplayer(r.client, r.topics, r.offsets)
	t.Cleanup(rp.Close)
	return rp
}

// TestOffsets: earliest, latest (before an open transaction's first record) and by time.
func TestOffsets(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(2), kfake.SeedTopics(2, "offs"))
	offsets(t, c.Brokers(), "offs", func(before int64) error { return c.DeleteRecords("offs", 1, before) })
}

func offsets(t *testing.T, brokers []string, topic string, trim func(before int64) error) {
	r := newRig(t, brokers, topic)
	tp := bridge.TopicPartition{Topic: topic, Partition: 1}
	pr := kafkatest.NewManualProducer(t, brokers)
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		x := rec(topic, 1, "k", "v")
		x.Timestamp = base.Add(time.Duration(i) * time.Second)
		pr.Produce(x)
	}
	must(t, trim(2))
	txn := kafkatest.NewTransactionalProducer(t, brokers, topic, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(t, txn.Client.BeginTransaction())
	txn.Produce(rec(topic, 1, "k", "open"))
	ask := func(what string, want bridge.Offset, fn func() (bridge.Offset, error)) {
		t.Helper()
		if got, err := fn(); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", what, got, err, want)
		}
	}
	ctx := t.Context()
	ask("earliest", 2, func() (bridge.Offset, error) { return r.offsets.Earliest(ctx, tp) })
	ask("latest", 10, func() (bridge.Offset, error) { return r.offsets.Latest(ctx, tp) })
	ask("end", 11, func() (bridge.Offset, error) { return r.offsets.logEnd(ctx, tp) })
	ask("exactly", 5, func() (bridge.Offset, error) { return r.offsets.AtTime(ctx, tp, base.Add(5*time.Second)) })
	ask("between", 6, func() (bridge.Offset, error) { return r.offsets.AtTime(ctx, tp, base.Add(5500*time.Millisecond)) })
	ask("before all", 2, func() (bridge.Offset, error) { return r.offsets.AtTime(ctx, tp, time.Unix(-5, 0)) })
	ask("after all", 10, func() (bridge.Offset, error) { return r.offsets.AtTime(ctx, tp, time.Now().Add(time.Hour)) })
	must(t, txn.Client.EndTransaction(ctx, kgo.TryAbort))

	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := r.offsets.Latest(short, bridge.TopicPartition{Topic: "nowhere"}); err == nil {
		t.Error("an unknown topic has an offset")
	}
}

// TestOffsetsWhileRefused: a token that is replaced late, or rights that are taken and given back, are no reason to give
// up. A filling of the cache used to end for good at the first refusal.
func TestOffsetsWhileRefused(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "refused"))
	r := newRig(t, c.Brokers(), "refused")
	asked := 0
	err := retryLeader(t.Context(), r.topics, bridge.TopicPartition{Topic: "refused"}, func(string, int32) error {
		if asked++; asked < 4 {
			return fmt.Errorf("dial: %w", &AuthError{Mechanism: "PLAIN", Err: kafka.SASLAuthenticationFailed})
		}
		return nil
	})
	if err != nil || asked != 4 {
		t.Errorf("%v, asked %d times", err, asked)
	}
}

// TestOffsetsRetry: a moved leader, and an idle connection that died, are not the caller's concern.
func TestOffsetsRetry(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "retry"))
	r := newRig(t, c.Brokers(), "retry")
	tp := bridge.TopicPartition{Topic: "retry"}
	for i := range 9 {
		must(t, c.MoveTopicPartition("retry", 0, int32(i%3)))
		if off := r.latest(tp); off != 0 {
			t.Error(off)
		}
		r.offsets.pool.mu.Lock()
		for _, ws := range r.offsets.pool.idle {
			for _, w := range ws {
				w.Close()
			}
		}
		r.offsets.pool.mu.Unlock()
	}
}

// TestReplay: ranges, their ends clipped, and what lies outside the log.
func TestReplay(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "replay"))
	r := newRig(t, c.Brokers(), "replay")
	rp := newReplayer(t, r)
	tp := bridge.TopicPartition{Topic: "replay"}
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	var batch []*kafkatest.Record
	for i := range 30 {
		batch = append(batch, rec("replay", 0, "k", fmt.Sprint(i)))
	}
	pr.Produce(batch...)
	must(t, c.DeleteRecords("replay", 0, 5))
	ctx := t.Context()
	for _, tc := range [][2]bridge.Offset{{5, 30}, {5, 6}, {7, 19}, {29, 30}, {12, 12}, {20, 10}} {
		at := tc[0]
		err := rp.Replay(ctx, bridge.ReplayRange{TP: tp, From: tc[0], To: tc[1]}, func(f bridge.Fetched) error {
			if f.TP != tp || f.From != at || f.Next > tc[1] || len(f.Records) != int(f.Next-f.From) || f.LogStart != 5 || f.End != 30 {
				t.Errorf("%v: [%d,%d) with %d records, log [%d,%d)", tc, f.From, f.Next, len(f.Records), f.LogStart, f.End)
			}
			at = f.Next
			return nil
		})
		if err != nil || at != max(tc[0], tc[1]) && tc[0] < tc[1] {
			t.Errorf("%v: at %d, %v", tc, at, err)
		}
	}
	for _, at := range []bridge.Offset{0, 4, 31, 1 << 40} {
		err := rp.Replay(ctx, bridge.ReplayRange{TP: tp, From: at, To: -1}, func(bridge.Fetched) error { return bridge.ErrStop })
		var out *bridge.OffsetOutOfRangeError
		if !errors.As(err, &out) || out.At != at || out.LogStart != 5 || out.LogEnd != 30 {
			t.Errorf("%d: %v", at, err)
		}
	}
	other := errors.New("mine")
	if err := rp.Replay(ctx, bridge.ReplayRange{TP: tp, From: 5, To: 30}, func(bridge.Fetched) error { return other }); err != other {
		t.Error(err)
	}
}

// TestReplayFollows: without an end it follows the log until it is told to stop, or its context ends;
// more followers than there are places all get on, and stored records are read beside them.
func TestReplayFollows(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "follow"))
	r := newRig(t, c.Brokers(), "follow")
	rp := newReplayer(t, r)
	tp := bridge.TopicPartition{Topic: "follow"}
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	pr.Produce(rec("follow", 0, "k", "0"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const followers = 2*maxReplayFetches + 1
	var seen, ended atomic.Int32
	var wg sync.WaitGroup
	for range followers {
		wg.Go(func() {
			n := 0
			err := rp.Replay(ctx, bridge.ReplayRange{TP: tp, To: -1}, func(f bridge.Fetched) error {
				n += len(f.Records)
				seen.Add(int32(len(f.Records)))
				if n == 6 {
					return bridge.ErrStop
				}
				return nil
			})
			if err == nil {
				ended.Add(1)
			}
		})
	}
	for i := 1; i < 6; i++ {
		must(t, c.MoveTopicPartition("follow", 0, int32(i%2)))
		pr.Produce(rec("follow", 0, "k", fmt.Sprint(i)))
		must(t, rp.Replay(ctx, bridge.ReplayRange{TP: tp, To: bridge.Offset(i)}, func(bridge.Fetched) error { return nil }))
	}
	wg.Wait()
	if seen.Load() != 6*followers || ended.Load() != followers {
		t.Errorf("%d records, %d ended", seen.Load(), ended.Load())
	}
	ended.Store(0)
	wg.Go(func() {
		if err := rp.Replay(ctx, bridge.ReplayRange{TP: tp, From: 6, To: -1}, func(bridge.Fetched) error { return nil }); errors.Is(err, context.Canceled) {
			ended.Add(1)
		}
	})
	cancel()
	wg.Wait()
	if ended.Load() != 1 {
		t.Error("the end of the context was not its error")
	}
}

// TestReplayBroken: a batch that stays broken is an error that names it, after what precedes it.
func TestReplayBroken(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "torn"))
	good, bad := newBatch(0, "a").bytes(t), newBatch(1, "b").bytes(t)
	bad[len(bad)-1] ^= 1
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
			if p.FetchOffset == 0 {
				return 0, slices.Concat(good, bad)
			}
			return 0, bad
		}), nil, true
	})
	r := newRig(t, c.Brokers(), "torn")
	n := 0
	err := newReplayer(t, r).Replay(t.Context(), bridge.ReplayRange{TP: bridge.TopicPartition{Topic: "torn"}, To: 2}, func(f bridge.Fetched) error {
		n += len(f.Records)
		return nil
	})
	var be *BatchError
	if !errors.As(err, &be) || be.Offset != 1 || !errors.Is(err, ErrChecksum) || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
}

// TestReplayTopicCreatedAgain: a topic that was created again is not read in place of the one that was meant.
// Before, a replay asked by name and got the new one's records.
func TestReplayTopicCreatedAgain(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "twice"))
	r := newRig(t, c.Brokers(), "twice")
	rp := newReplayer(t, r)
	tp := bridge.TopicPartition{Topic: "twice"}
	write := func(tag string) {
		pr := kafkatest.NewManualProducer(t, c.Brokers())
		for i := range 3 {
			pr.Produce(rec("twice", 0, "k", fmt.Sprint(tag, i)))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	replay := func(topic bridge.TopicID) (got []bridge.Record, err error) {
		err = rp.Replay(ctx, bridge.ReplayRange{TP: tp, Topic: topic, To: 3}, func(f bridge.Fetched) error {
			got = append(got, f.Records...)
			return nil
		})
		return got, err
	}
	old, err := r.topicID("twice")
	must(t, err)
	write("old")
	if got, err := replay(old); err != nil || fmt.Sprint(values(got)) != "[0:old0 1:old1 2:old2]" {
		t.Errorf("%v, %v", values(got), err)
	}
	must(t, c.DeleteTopic("twice"))
	must(t, c.CreateTopic("twice", 1, nil))
	write("new")
	if got, err := replay(old); !errors.Is(err, bridge.ErrAnotherTopic) || got != nil {
		t.Errorf("the new topic in place of the old: %v, %v", values(got), err)
	}
	id, err := r.topicID("twice")
	must(t, err)
	for _, id := range []bridge.TopicID{id, {}} {
		if got, err := replay(id); err != nil || fmt.Sprint(values(got)) != "[0:new0 1:new1 2:new2]" {
			t.Errorf("%x: %v, %v", id, values(got), err)
		}
	}
}

// TestReplayTellsLeaderEpochs: with each part comes the leader epoch of its batches, so that who emits can
// compare it with what was read; not of brokers that would not tell a coordinator the same, nor for a part that
// ends in a hole before the first batch.
func TestReplayTellsLeaderEpochs(t *testing.T) {
	epoch := func(b testBatch, leader int32) []byte {
		raw := b.bytes(t)
		binary.BigEndian.PutUint32(raw[leaderAt:], uint32(leader))
		return raw
	}
	log := [][]byte{epoch(newBatch(0, "a", "b"), 4), epoch(newBatch(2, "c"), 5), epoch(newBatch(10, "d", "e"), 7)}
	for name, tc := range map[string]struct {
		versions *kversion.Versions
		to       bridge.Offset
		want     string
	}{
		"whole":      {kversion.Stable(), 12, "[0,2) of 4, [2,3) of 5, [3,12) of 7, "},
		"in a hole":  {kversion.Stable(), 8, "[0,2) of 4, [2,3) of 5, [3,8) of -1, "},
		"in a batch": {kversion.Stable(), 11, "[0,2) of 4, [2,3) of 5, [3,11) of 7, "},
		"old broker": {kversion.V2_6_0(), 12, "[0,2) of -1, [2,3) of -1, [3,12) of -1, "},
	} {
		t.Run(name, func(t *testing.T) {
			c := kafkatest.Fake(t, kfake.SeedTopics(1, "epochs"), kfake.MaxVersions(tc.versions))
			c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
					switch {
					case p.FetchOffset < 2:
						return 0, slices.Concat(log...)
					case p.FetchOffset < 3:
						return 0, slices.Concat(log[1:]...)
					}
					return 0, log[2]
				}), nil, true
			})
			r := newRig(t, c.Brokers(), "epochs")
			got := ""
			must(t, newReplayer(t, r).Replay(t.Context(), bridge.ReplayRange{TP: bridge.TopicPartition{Topic: "epochs"}, To: tc.to}, func(f bridge.Fetched) error {
				got += fmt.Sprintf("[%d,%d) of %d, ", f.From, f.Next, f.Leader)
				return nil
			}))
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
