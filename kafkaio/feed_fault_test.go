package kafkaio

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// fetchAnswer answers a fetch: for each partition asked for, with what answer returns.
func fetchAnswer(req *kmsg.FetchRequest, answer func(topic string, p kmsg.FetchRequestTopicPartition) (code int16, raw []byte)) *kmsg.FetchResponse {
	res := req.ResponseKind().(*kmsg.FetchResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition = p.Partition
			rp.ErrorCode, rp.RecordBatches = answer(t.Topic, p)
			rp.HighWatermark, rp.LastStableOffset = 1000, 1000
			rt.Partitions = append(rt.Partitions, rp)
		}
		res.Topics = append(res.Topics, rt)
	}
	return res
}

// TestFeedMalformed: a broken batch in one partition is reported once and tried again; what precedes it
// is delivered, other partitions go on, and when Kafka sends it whole reading goes on behind it.
func TestFeedMalformed(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(2, "broken"))
	good, bad := newBatch(0, "before").bytes(t), newBatch(1, "bad").bytes(t)
	bad[len(bad)-1] ^= 1
	mended := newBatch(1, "mended").bytes(t)
	var broken atomic.Bool
	broken.Store(true)
	var tries atomic.Int32
	var other atomic.Int64 // records of partition 1
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
			switch {
			case p.Partition == 1:
				if n := other.Load(); p.FetchOffset < n {
					return 0, newBatch(p.FetchOffset, "x").bytes(t)
				}
				return 0, nil
			case p.FetchOffset == 0:
				return 0, append(append([]byte(nil), good...), bad...)
			case p.FetchOffset == 1 && broken.Load():
				tries.Add(1)
				return 0, bad
			case p.FetchOffset == 1:
				return 0, mended
			}
			return 0, nil
		}), nil, true
	})
	r := newRig(t, c.Brokers(), "broken")
	tp, fine := bridge.TopicPartition{Topic: "broken"}, bridge.TopicPartition{Topic: "broken", Partition: 1}
	r.start(tp, 0)
	r.start(fine, 0)
	r.untilNext(tp, 1)
	deadline := time.Now().Add(waitTimeout)
	for i := int64(1); tries.Load() < 3; i++ {
		if time.Now().After(deadline) {
			t.Fatal("the broken batch is not tried again")
		}
		other.Store(i)
		r.untilNext(fine, bridge.Offset(i))
	}
	mismatch := []string{"checksum mismatch", `"topic":"broken"`, `"partition":0`, "offset 1"}
	r.untilLogged(mismatch...)
	if n := r.logs.with(mismatch...); n != 1 {
		t.Errorf("the broken batch was logged %d times", n)
	}
	broken.Store(false)
	r.untilNext(tp, 2)
	r.mu.Lock()
	if got := fmt.Sprint(values(r.records(tp))); got != "[0:before 1:mended]" {
		t.Error(got)
	}
	r.mu.Unlock()
	if n := r.logs.with("can be read again", `"partition":0`); n != 1 {
		t.Errorf("the recovery was logged %d times", n)
	}
}

// TestFeedLargeBatch: a broker that cuts a batch off at the partition's limit is asked for more.
func TestFeedLargeBatch(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "large"))
	large := newBatch(0, string(make([]byte, 5*fetchPartitionBytes))).bytes(t)
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
			if p.FetchOffset > 0 {
				return 0, nil
			}
			return 0, large[:min(len(large), int(p.PartitionMaxBytes))]
		}), nil, true
	})
	r := newRig(t, c.Brokers(), "large")
	tp := bridge.TopicPartition{Topic: "large"}
	r.start(tp, 0)
	r.untilNext(tp, 1)
}

// TestFeedEmptyBatch: batches that compaction emptied carry the position on.
func TestFeedEmptyBatch(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "empty"))
	empty := newBatch(0)
	empty.lastDelta = 9
	var asked atomic.Int32
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
			switch p.FetchOffset {
			case 0:
				asked.Add(1)
				return 0, empty.bytes(t)
			case 10:
				return 0, newBatch(10, "x").bytes(t)
			}
			return 0, nil
		}), nil, true
	})
	r := newRig(t, c.Brokers(), "empty")
	tp := bridge.TopicPartition{Topic: "empty"}
	r.start(tp, 0)
	r.untilNext(tp, 11)
	if n := asked.Load(); n != 1 {
		t.Errorf("the empty batch was fetched %d times", n)
	}
}

// TestFeedErrors: every error that Kafka may answer for a partition is survived.
func TestFeedErrors(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "errors"))
	codes := []int16{-1, 2, 3, 5, 6, 9, 29, 56, 74, 75, 76, 78, 100, 103, 999}
	var turn atomic.Int32
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetchAnswer(req.(*kmsg.FetchRequest), func(_ string, p kmsg.FetchRequestTopicPartition) (int16, []byte) {
			i := int(turn.Load())
			if p.FetchOffset > int64(i) || i > len(codes) {
				return 0, nil
			}
			// A code, then a record, then the next code: failures in a row would back off.
			if i < len(codes) && codes[i] != 0 {
				code := codes[i]
				codes[i] = 0
				return code, nil
			}
			turn.Add(1)
			return 0, newBatch(p.FetchOffset, "x").bytes(t)
		}), nil, true
	})
	r := newRig(t, c.Brokers(), "errors")
	tp := bridge.TopicPartition{Topic: "errors"}
	r.start(tp, 0)
	r.untilNext(tp, bridge.Offset(len(codes)))
}

// TestFeedSilentBroker: a broker that takes a fetch and never answers does not keep the partition when
// another one leads it: what it would have to say is not awaited. Before the leaders were asked for on
// silence, this took until the request timed out.
func TestFeedSilentBroker(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "silent"))
	must(t, c.MoveTopicPartition("silent", 0, 0))
	hang, taken := make(chan struct{}), make(chan struct{}, 1)
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() != 0 {
			return nil, nil, false
		}
		select {
		case taken <- struct{}{}:
		default:
		}
		c.SleepControl(func() { <-hang })
		return nil, nil, false
	})
	r := newRig(t, c.Brokers(), "silent", sought)
	t.Cleanup(func() { close(hang) })
	tp := bridge.TopicPartition{Topic: "silent"}
	r.start(tp, 0)
	<-taken
	must(t, c.MoveTopicPartition("silent", 0, 1))
	kafkatest.NewManualProducer(t, c.Brokers()).Produce(rec("silent", 0, "k", "v"))
	r.untilNext(tp, 1)
	if r.logs.with("cannot fetch from the broker") != 0 {
		t.Error("the silent broker was waited for")
	}
}
