package kafkaio

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func rec(topic string, p int32, key, value string) *kafkatest.Record {
	return &kafkatest.Record{Topic: topic, Partition: p, Key: []byte(key), Value: []byte(value)}
}

// TestFeedReads: records of all shapes, from several partitions on several brokers, as kgo reads them.
func TestFeedReads(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(3), kfake.SeedTopics(5, "shapes"))
	r := newRig(t, c.Brokers(), "shapes")
	for p := range int32(5) {
		r.start(bridge.TopicPartition{Topic: "shapes", Partition: p}, 0)
	}
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 200 {
		x := rec("shapes", int32(i%5), fmt.Sprint("k", i), fmt.Sprint("v", i))
		switch i % 7 {
		case 0:
			x.Key = nil
		case 1:
			x.Value = nil
		case 2:
			x.Key, x.Value = []byte{}, []byte{}
		case 3:
			x.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}, {Key: "", Value: []byte{}}}
		}
		pr.Produce(x)
	}
	r.equalToReference(c.Brokers(), "shapes", 5)
}

// TestFeedLatency: the time from Start, and from a record's acknowledgement, to the sink does not depend
// on a long wait that is going on for other partitions.
func TestFeedLatency(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(20, "lat"))
	const wait = 4 * time.Second
	r := newRig(t, c.Brokers(), "lat", func(_ *TopicsConfig, fc *FeedConfig) { fc.MaxWait = wait })
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for p := range int32(20) {
		pr.Produce(rec("lat", p, "k", "v"))
	}
	var took []time.Duration
	for p := range int32(20) {
		tp := bridge.TopicPartition{Topic: "lat", Partition: p}
		start := time.Now()
		r.start(tp, 0)
		r.untilNext(tp, 1)
		took = append(took, time.Since(start))
	}
	// The wait, of all but the first, would be one of 4 s. A machine that stands still is so for few of them.
	slices.Sort(took)
	if usual := took[len(took)/2]; usual > wait/2 {
		t.Errorf("starting 20 partitions one after the other took %v each", usual)
	}
}

// TestFeedTransactions: committed, aborted and plain records interleaved, as a read_committed consumer
// sees them; the position moves past markers and aborted records at the end of the log.
func TestFeedTransactions(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(2, "txn"))
	transactions(t, c.Brokers(), "txn", newRig(t, c.Brokers(), "txn"))
}

// transactions fills a topic of two partitions and reads it.
func transactions(t *testing.T, brokers []string, topic string, r *rig) {
	a := kafkatest.NewTransactionalProducer(t, brokers, topic+"-a", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	b := kafkatest.NewTransactionalProducer(t, brokers, topic+"-b", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	plain := kafkatest.NewManualProducer(t, brokers)
	both := func(what string, i int) (recs []*kafkatest.Record) {
		for j := range 6 {
			recs = append(recs, rec(topic, int32(j%2), fmt.Sprint("k", j), fmt.Sprint(what, " ", i, " ", j)))
		}
		return recs
	}
	start := func() {
		for p := range int32(2) {
			r.start(bridge.TopicPartition{Topic: topic, Partition: p}, 0)
		}
	}
	for i := range 8 {
		a.Commit(both("a committed", i)...)
		b.Abort(both("b aborted", i)...)
		plain.Produce(both("plain", i)...)
		if i == 4 {
			start() // half of it is read while it is written
		}
		a.Abort(both("a aborted", i)...)
		b.Commit(both("b committed", i)...)
	}
	a.Abort(both("the end", 0)...)
	r.equalToReference(brokers, topic, 2)
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range int32(2) {
		tp := bridge.TopicPartition{Topic: topic, Partition: p}
		if n := len(r.records(tp)); n != 3*3*8 {
			t.Errorf("%s: %d records", tp, n)
		}
	}
}

// TestFeedLeaderMove: the leader moves to and fro while records are written; it is sought, and nothing is lost or repeated.
func TestFeedLeaderMove(t *testing.T) {
	c := kafkatest.Fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "move"))
	r := newRig(t, c.Brokers(), "move", sought)
	tp := bridge.TopicPartition{Topic: "move"}
	r.start(tp, 0)
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 12 {
		if err := c.MoveTopicPartition("move", 0, int32(i%3)); err != nil {
			t.Fatal(err)
		}
		pr.Produce(rec("move", 0, "k", fmt.Sprint(i)))
		if i%2 == 0 {
			r.untilNext(tp, bridge.Offset(i+1))
		}
	}
	r.equalToReference(c.Brokers(), "move", 1)
}

// TestFeedOutOfRange: below and above the log, the sink is told the log's ends and the run ends; a new
// run from there reads on.
func TestFeedOutOfRange(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "range"))
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 10 {
		pr.Produce(rec("range", 0, "k", fmt.Sprint(i)))
	}
	if err := c.DeleteRecords("range", 0, 4); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, c.Brokers(), "range")
	tp := bridge.TopicPartition{Topic: "range"}
	for i, at := range []bridge.Offset{2, 11} {
		r.start(tp, at)
		r.until("out of range", func() bool { return len(r.outs) == i+1 })
		if got, want := r.outs[i], (bridge.OffsetOutOfRangeError{TP: tp, At: at, LogStart: 4, LogEnd: 10}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	r.start(tp, 10) // the end itself is in range
	pr.Produce(rec("range", 0, "k", "new"))
	r.untilNext(tp, 11)
	if r.mu.Lock(); len(r.outs) != 2 || len(r.records(tp)) != 1 {
		t.Errorf("%d times out of range, %d records", len(r.outs), len(r.records(tp)))
	}
	r.mu.Unlock()
}

// TestFeedUnknownTopic: a partition that does not exist is waited for, and read from when it does.
func TestFeedUnknownTopic(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "there"))
	r := newRig(t, c.Brokers(), "there,later")
	later, there := bridge.TopicPartition{Topic: "later"}, bridge.TopicPartition{Topic: "there"}
	r.start(later, 0)
	r.start(there, 0)
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	pr.Produce(rec("there", 0, "k", "v"))
	r.untilNext(there, 1)
	missing := []string{"kafka-feed", `"topic":"later"`, "cannot read the partition"}
	r.untilLogged(missing...)
	if err := c.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	pr.Produce(rec("later", 0, "k", "v"))
	r.untilNext(later, 1)
	if n := r.logs.with(missing...); n != 1 {
		t.Errorf("the missing leader was logged %d times", n)
	}
}

// TestFeedPaused (I6): a partition whose Fetched are not given back gets two of them and no third, and
// its neighbours on the broker go on meanwhile; given back, it goes on too.
func TestFeedPaused(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(2, "pause"))
	r := newRig(t, c.Brokers(), "pause")
	slow, fast := bridge.TopicPartition{Topic: "pause", Partition: 0}, bridge.TopicPartition{Topic: "pause", Partition: 1}
	r.hold[slow] = true
	run := r.start(slow, 0)
	r.start(fast, 0)
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 20 {
		pr.Produce(rec("pause", 0, "k", fmt.Sprint(i)))
		if i < 2 {
			r.untilNext(slow, bridge.Offset(i+1))
		}
		pr.Produce(rec("pause", 1, "k", fmt.Sprint(i)))
		r.untilNext(fast, bridge.Offset(i+1)) // were it to wait for the slow one, that would be for ever
	}
	r.mu.Lock()
	if n := len(r.got[slow]); n != maxOpen {
		t.Errorf("the slow partition has %d Fetched open", n)
	}
	r.hold[slow] = false
	r.mu.Unlock()
	r.feed.Done(slow, run-1) // of another run: nothing happens
	r.feed.Done(slow, run)
	r.untilNext(slow, 20)
	r.equalToReference(c.Brokers(), "pause", 2)
}

// TestFeedRuns: starting a partition again moves it, with a higher run number; after Stop nothing comes.
func TestFeedRuns(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(2, "runs"))
	r := newRig(t, c.Brokers(), "runs")
	tp, other := bridge.TopicPartition{Topic: "runs"}, bridge.TopicPartition{Topic: "runs", Partition: 1}
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 5 {
		pr.Produce(rec("runs", 0, "k", fmt.Sprint(i)))
	}
	first := r.start(tp, 0)
	r.untilNext(tp, 5)
	second := r.start(tp, 3)
	r.until("the second run", func() bool { return r.runs[tp] == second })
	if second <= first {
		t.Errorf("run %d after %d", second, first)
	}
	r.feed.Stop(tp)
	r.feed.Stop(tp)
	r.mu.Lock()
	n := len(r.got[tp])
	r.mu.Unlock()
	pr.Produce(rec("runs", 0, "k", "unseen"))
	r.start(other, 0)
	pr.Produce(rec("runs", 1, "k", "v"))
	r.untilNext(other, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got[tp]) != n {
		t.Errorf("%d Fetched after Stop", len(r.got[tp])-n)
	}
}
