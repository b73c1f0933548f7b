package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func TestSelectors(t *testing.T) {
	s, err := ParseSelectors(` prices, /orders-\d{1,3}/ ,/a.*|b/,__consumer_offsets `)
	must(t, err)
	for topic, want := range map[string]bool{
		"prices": true, "prices2": false, "orders-1": true, "orders-1234": false, "xorders-1": false,
		"abc": true, "b": true, "bc": false, "__consumer_offsets": true, "": false,
	} {
		if got := s.Match(topic, false); got != want {
			t.Errorf("%q: %v", topic, got)
		}
	}
	all, err := ParseSelectors("/.*/")
	must(t, err)
	if all.Match("__consumer_offsets", false) || all.Match("inner", true) || !all.Match("x", false) {
		t.Error("a pattern must select all but internal topics")
	}
	if none, err := ParseSelectors("  "); err != nil || !none.Empty() || none.Match("x", false) {
		t.Errorf("empty list: %v", err)
	}
	for _, bad := range []string{"a,", ",a", "a,,b", "/a", "/(/", "//", "a b", "a/b", "/a/b", "prices;x", ".", "ä"} {
		if s, err := ParseSelectors(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, s)
		}
	}
}

// TestTopicsFound: topics by name and by pattern, present and later ones, with ids; added partitions;
// deletion; another topic under the same name.
func TestTopicsFound(t *testing.T) {
	t.Parallel() // it waits for the clock
	c := kafkatest.Fake(t, kfake.SeedTopics(2, "exact", "pat-1", "other", "__hidden"))
	topicsFound(t, c, c.Brokers())
}

type topicAdmin interface {
	CreateTopic(topic string, partitions int32, configs map[string]string) error
	DeleteTopic(topic string) error
}

func topicsFound(t *testing.T, c topicAdmin, brokers []string) {
	r := newRig(t, brokers, "exact,/pat-.*/,/__.*/")
	has := func(name string, cond func(bridge.TopicMeta) bool) func() bool {
		return func() bool {
			m, ok := r.metas[len(r.metas)-1][name]
			return ok && cond(m)
		}
	}
	r.until("the first topics", func() bool { return len(r.metas) > 0 })
	r.mu.Lock()
	first := r.metas[0]
	r.mu.Unlock()
	if len(first) != 2 || !first["exact"].Initial || !first["pat-1"].Exposed || first["pat-1"].Publish || first["exact"].ID.IsZero() || first["exact"].Partitions != 2 {
		t.Errorf("first: %+v", first)
	}
	must(t, c.CreateTopic("pat-2", 3, nil))
	r.until("the new topic", has("pat-2", func(m bridge.TopicMeta) bool { return !m.Initial && m.Partitions == 3 }))
	must(t, c.DeleteTopic("exact"))
	must(t, c.CreateTopic("exact", 1, nil))
	r.refreshed("the topic that was created again", has("exact", func(m bridge.TopicMeta) bool {
		return m.ID != first["exact"].ID && !m.Initial && m.Partitions == 1
	}))
	if id, err := r.topicID("exact"); err != nil || id.IsZero() || id == first["exact"].ID {
		t.Errorf("id %x, %v", id, err)
	}
	must(t, c.DeleteTopic("pat-1"))
	if id, err := r.topicID("pat-1"); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Errorf("a deleted topic: id %x, %v", id, err)
	}
	for range maxMisses { // twice missing, so that this need not wait for the clock
		refresh(t, r.topics)
	}
	r.until("the deletion", func() bool { _, ok := r.metas[len(r.metas)-1]["pat-1"]; return !ok })
	if _, _, ok := r.topics.Leader(bridge.TopicPartition{Topic: "pat-1"}); ok {
		t.Error("a deleted topic has a leader")
	}
}

// TestTopicsPartitions: added partitions are found without anybody asking for them, and read. That they are found within 10 s,
// on a machine that does not stand still, is a matter of how often Kafka is asked.
func TestTopicsPartitions(t *testing.T) {
	t.Parallel() // it waits for the clock
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "grow"))
	r := newRig(t, c.Brokers(), "grow")
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = "grow", 4
	req.Topics = append(req.Topics, rt)
	_, err := req.RequestWith(t.Context(), pr.Client)
	must(t, err)
	r.until("the added partitions", func() bool { return r.metas[len(r.metas)-1]["grow"].Partitions == 4 })
	if every := r.topics.cfg.Interval; every > 10*time.Second/2 {
		t.Errorf("Kafka is asked every %v", every)
	}
	tp := bridge.TopicPartition{Topic: "grow", Partition: 3}
	r.start(tp, 0)
	pr.Client.ForceMetadataRefresh()
	pr.Produce(rec("grow", 3, "k", "v"))
	r.untilNext(tp, 1)
}

// TestTopicsOldBroker: a broker without topic ids, and one without flexible metadata.
func TestTopicsOldBroker(t *testing.T) {
	for name, v := range map[string]*kversion.Versions{"2.3": kversion.V2_3_0(), "2.5": kversion.V2_5_0(), "2.8": kversion.V2_8_0()} {
		t.Run(name, func(t *testing.T) {
			c := kafkatest.Fake(t, kfake.SeedTopics(2, "old"), kfake.MaxVersions(v))
			r := newRig(t, c.Brokers(), "/ol./")
			r.until("the topics", func() bool { return len(r.metas) > 0 && r.metas[0]["old"].Partitions == 2 })
			if zero := r.metas[0]["old"].ID.IsZero(); zero != (name != "2.8") {
				t.Errorf("id %x", r.metas[0]["old"].ID)
			}
			tp := bridge.TopicPartition{Topic: "old", Partition: 1}
			r.start(tp, 0)
			kafkatest.NewManualProducer(t, c.Brokers()).Produce(rec("old", 1, "k", "v"))
			r.untilNext(tp, 1)
		})
	}
}

// TestTopicsAway: without a broker Refresh says so and Run goes on trying; after its end Refresh does
// not hang.
func TestTopicsAway(t *testing.T) {
	c, err := NewClient(Config{Brokers: []string{"127.0.0.1:1"}, DialTimeout: time.Second})
	must(t, err)
	topics := NewTopics(c, TopicsConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); topics.Run(ctx) }()
	for range 3 {
		if err := topics.Refresh(t.Context()); err == nil {
			t.Error("no error")
		}
	}
	cancel()
	<-done
	if err := topics.Refresh(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestTopicsComplain: it is said when Kafka cannot be asked, when it refuses us instead, and again every minute.
func TestTopicsComplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := &logBuffer{}
		topics := &Topics{log: zerolog.New(logs)}
		away, refused := errors.New("away"), fmt.Errorf("dial: %w", &AuthError{Mechanism: "PLAIN", Err: kafka.SASLAuthenticationFailed})
		for i, c := range []struct {
			after         time.Duration
			err           error
			warns, errors int
		}{
			{0, away, 1, 0}, {time.Second, away, 1, 0}, {time.Second, refused, 1, 1}, {complainEvery - 1, refused, 1, 1},
			{1, refused, 1, 2}, {1, refused, 1, 2}, {1, away, 2, 2}, {complainEvery, away, 3, 2},
		} {
			time.Sleep(c.after)
			topics.complain(c.err)
			if w, e := logs.with(`"warn"`, "away"), logs.with(`"error"`, "PLAIN"); w != c.warns || e != c.errors {
				t.Errorf("step %d: %d warnings, %d errors", i, w, e)
			}
		}
	})
}

// TestMetadataCut cuts an answer at every byte: an error each time, never a panic.
func TestMetadataCut(t *testing.T) {
	for _, version := range []int16{8, 9, 10, 12} {
		res := kmsg.NewPtrMetadataResponse()
		res.Version = version
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = 4, "host", 9092
		res.Brokers = append(res.Brokers, b)
		for _, name := range []string{"one", "two"} {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic, topic.TopicID = &name, [16]byte{1, 2}
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.LeaderEpoch, p.Replicas = 1, 4, 9, []int32{4, 5}
			topic.Partitions = append(topic.Partitions, p)
			res.Topics = append(res.Topics, topic)
		}
		whole := res.AppendTo(nil)
		m, err := decodeMetadata(whole, version)
		must(t, err)
		want := partitionAnswer{index: 1, leader: 4, epoch: 9}
		if m.brokers[4] != "host:9092" || len(m.topics) != 2 || m.topics[1].name != "two" || m.topics[0].partitions[0] != want {
			t.Errorf("v%d: %+v", version, m)
		}
		for n := range len(whole) {
			if _, err := decodeMetadata(whole[:n:n], version); !errors.Is(err, errShort) {
				t.Fatalf("v%d cut at %d of %d: %v", version, n, len(whole), err)
			}
		}
	}
}

// TestFetchCut does the same for a fetch's answer, and compares a whole one.
func TestFetchCut(t *testing.T) {
	for version := int16(fetchMin); version <= fetchByID; version++ {
		id := bridge.TopicID{3, 1}
		asks := []fetchAsk{{tp: bridge.TopicPartition{Topic: "t"}, topic: id}}
		res := kmsg.NewPtrFetchResponse()
		res.Version = version
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = "t", id
		for i := range int32(2) {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.LastStableOffset, p.LogStartOffset, p.RecordBatches = i, 7, 3, []byte("records")
			a := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			a.ProducerID, a.FirstOffset = 5, 6
			p.AbortedTransactions = append(p.AbortedTransactions, a)
			p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = 4, 8
			if i == 1 {
				p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 2, 40
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		res.Topics = append(res.Topics, topic)
		whole := res.AppendTo(nil)
		got, err := decodeFetch(whole, version, asks)
		must(t, err)
		if len(got) != 2 || got[1].tp != (bridge.TopicPartition{Topic: "t", Partition: 1}) || got[1].stable != 7 || got[1].logStart != 3 ||
			string(got[1].raw) != "records" || !slices.Equal(got[1].aborted, []abortedTxn{{5, 6}}) {
			t.Errorf("v%d: %+v", version, got)
		}
		if tells := version >= fetchFlexible; got[0].diverged || got[1].diverged != tells || tells && (got[1].leader != 2 || got[1].leaderEnd != 40) {
			t.Errorf("v%d: %+v", version, got)
		}
		for n := range len(whole) {
			if _, err := decodeFetch(whole[:n:n], version, asks); !errors.Is(err, errShort) {
				t.Fatalf("v%d cut at %d of %d: %v", version, n, len(whole), err)
			}
		}
		// A request as another implementation reads it.
		var e wireWriter
		encodeFetch(&e, version, 250*time.Millisecond, 99, []fetchAsk{
			{tp: bridge.TopicPartition{Topic: "a", Partition: 1}, topic: id, epoch: 5, offset: 10, last: 4, maxBytes: 100},
			{tp: bridge.TopicPartition{Topic: "a", Partition: 2}, topic: id, epoch: -1, offset: 20, last: -1, maxBytes: 100},
			{tp: bridge.TopicPartition{Topic: "b"}, topic: bridge.TopicID{9}, epoch: 6, offset: 30, last: 6, maxBytes: 100},
		})
		req := kmsg.NewPtrFetchRequest()
		req.Version = version
		must(t, req.ReadFrom(e.b))
		if req.IsolationLevel != 1 || req.MaxWaitMillis != 250 || req.MinBytes != 1 || len(req.Topics) != 2 || len(req.Topics[0].Partitions) != 2 ||
			req.Topics[0].Partitions[1].FetchOffset != 20 || req.Topics[1].Partitions[0].CurrentLeaderEpoch != 6 || req.SessionEpoch != -1 {
			t.Errorf("v%d: %+v", version, req)
		}
		if version >= fetchFlexible && (req.Topics[0].Partitions[0].LastFetchedEpoch != 4 || req.Topics[0].Partitions[1].LastFetchedEpoch != -1) {
			t.Errorf("v%d: %+v", version, req)
		}
		if version >= fetchByID && req.Topics[0].TopicID != id || version < fetchByID && req.Topics[1].Topic != "b" {
			t.Errorf("v%d: %+v", version, req)
		}
	}
	// A topic without an id is asked for by its name.
	if v := fetchVersion([]fetchAsk{{topic: bridge.TopicID{1}}, {}}); v != fetchFlexible {
		t.Error(v)
	}
}

// TestEpochEndCut does the same for the end of a leader epoch.
func TestEpochEndCut(t *testing.T) {
	res := kmsg.NewPtrOffsetForLeaderEpochResponse()
	res.Version = epochEndVersion
	topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
	topic.Topic = "t"
	p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
	p.Partition, p.LeaderEpoch, p.EndOffset = 3, 5, 77
	topic.Partitions = append(topic.Partitions, p)
	res.Topics = append(res.Topics, topic)
	whole := res.AppendTo(nil)
	tp := bridge.TopicPartition{Topic: "t", Partition: 3}
	if leader, end, err := decodeEpochEnd(whole, tp); err != nil || leader != 5 || end != 77 {
		t.Error(leader, end, err)
	}
	for n := range len(whole) {
		if _, _, err := decodeEpochEnd(whole[:n:n], tp); !errors.Is(err, errShort) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
}
