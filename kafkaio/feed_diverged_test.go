package kafkaio

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestKafkaUncleanElection: a broker that missed records becomes the leader by an unclean election, and its
// log grows beyond where we are before we ask it. The sink is told where the logs part, by a run that goes
// on and by one that starts from what a ledger remembers. Before, reading went on at our offset, as it was in
// range, and what stood before it was never seen.
func TestKafkaUncleanElection(t *testing.T) {
	t.Parallel()
	// Two replicas on three brokers: the third is there for the controllers' majority.
	c := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Config: map[string]string{"default.replication.factor": "2"}})
	const topic = "unclean"
	c.CreateTopic(topic, 1, map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"})
	r := newRig(t, c.Brokers(), topic)
	tp := bridge.TopicPartition{Topic: topic}
	write := func(tag string, n int) {
		pr := kafkatest.NewManualProducer(t, c.Brokers())
		for i := range n {
			pr.Produce(rec(topic, 0, "k", fmt.Sprint(tag, i)))
		}
	}
	r.start(tp, 0)
	write("a", 3)
	r.untilNext(tp, 3)
	leader := c.Leader(topic, 0)
	behind := otherReplica(t, c, topic, leader)
	c.KillBroker(behind)
	write("b", 2) // for the leader alone
	r.untilNext(tp, 5)
	c.KillBroker(leader)
	c.StartBroker(behind)
	write("c", 6)
	r.until("the run to end where the logs part", func() bool { return len(r.parted) == 1 })
	r.mu.Lock()
	all := r.got[tp]
	last := all[len(all)-1].Leader
	ended := r.parted[0]
	r.mu.Unlock()
	if ended.at != 5 || ended.end != 3 || ended.leader < 0 || ended.leader > last {
		t.Errorf("%+v after leader epoch %d", ended, last)
	}
	// The log is past 5 now. A ledger remembers the epoch.
	id, err := r.topicID(topic)
	must(t, err)
	r.feed.Start(tp, bridge.FeedStart{Topic: id, Next: 5, Leader: last})
	r.until("the same from a ledger's place", func() bool { return len(r.parted) == 2 })
	if again := r.parted[1]; again != ended {
		t.Errorf("%+v, then %+v", ended, again)
	}
	if known, end, err := r.offsets.EpochEnd(t.Context(), tp, last); err != nil || known != ended.leader || end != 3 {
		t.Errorf("the epoch ends at %d (%d), %v", end, known, err)
	}
	// A replay meets an epoch that was not read where the logs part.
	parts := ""
	must(t, newReplayer(t, r).Replay(t.Context(), bridge.ReplayRange{TP: tp, Topic: id, To: 9}, func(f bridge.Fetched) error {
		parts += fmt.Sprintf("[%d,%d) known %v ", f.From, f.Next, f.Leader >= 0 && f.Leader <= last)
		return nil
	}))
	if !strings.HasPrefix(parts, "[0,3) known true [3,") || strings.Count(parts, "true") != 1 {
		t.Errorf("replayed %s", parts)
	}
	r.mu.Lock()
	clear(r.got)
	r.mu.Unlock()
	r.feed.Start(tp, bridge.FeedStart{Topic: id, Next: ended.end, Leader: ended.leader})
	r.untilNext(tp, 9)
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := fmt.Sprint(values(r.records(tp))); got != "[3:c0 4:c1 5:c2 6:c3 7:c4 8:c5]" {
		t.Error(got)
	}
}

// otherReplica is the index of the broker that follows the leader of partition 0.
func otherReplica(t *testing.T, c *kafkatest.Cluster, topic string, leader int) int {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	must(t, err)
	defer cl.Close()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, rt)
	res, err := req.RequestWith(t.Context(), cl)
	must(t, err)
	for _, id := range res.Topics[0].Partitions[0].Replicas {
		if int(id)-1 != leader {
			return int(id) - 1
		}
	}
	t.Fatal("there is no other replica")
	return 0
}

// TestFeedTopicCreatedAgain: a topic that was created again, and is longer than where we are, is not read in
// place of the one that was meant. Before, its records were shown as those of the old one until discovery
// found it out.
func TestFeedTopicCreatedAgain(t *testing.T) {
	c := kafkatest.Fake(t, kfake.SeedTopics(1, "again"))
	r := newRig(t, c.Brokers(), "again")
	tp := bridge.TopicPartition{Topic: "again"}
	old, err := r.topicID("again")
	must(t, err)
	r.start(tp, 0)
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	pr.Produce(rec("again", 0, "k", "old"))
	r.untilNext(tp, 1)
	r.feed.Stop(tp)
	must(t, c.DeleteTopic("again"))
	must(t, c.CreateTopic("again", 1, nil))
	pr = kafkatest.NewManualProducer(t, c.Brokers())
	for i := range 5 {
		pr.Produce(rec("again", 0, "k", fmt.Sprint("new", i)))
	}
	run := r.feed.Start(tp, bridge.FeedStart{Topic: old, Next: 1, Leader: bridge.NoLeaderEpoch})
	r.untilLogged("cannot read the partition", `"topic":"again"`)
	var id bridge.TopicID
	r.refreshed("the new topic", func() bool {
		r.topics.mu.Lock()
		defer r.topics.mu.Unlock()
		id = r.topics.ids["again"]
		return id != old
	})
	r.mu.Lock()
	if r.runs[tp] == run || r.next(tp) != 1 {
		t.Errorf("read up to %d as the old topic", r.next(tp))
	}
	r.mu.Unlock()
	r.feed.Start(tp, bridge.FeedStart{Topic: id, Next: 0, Leader: bridge.NoLeaderEpoch})
	r.untilNext(tp, 5)
}
