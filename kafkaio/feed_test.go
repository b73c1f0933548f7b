package kafkaio

import (
	"fmt"
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
	r := newRig(t, c.Brokers(), "lat")
	pr := kafkatest.NewManualProducer(t, c.Brokers())
	for p := range int32(20) {
		pr.Produce(rec("lat", p, "k", "v"))
	}
	start := time.Now()
	for p := range int32(20) {
		tp := bridge.TopicPartition{Topic: "lat", Partition: p}
		r.start(tp, 0)
		r.untilNext(tp, 1)
	}
	// With a wait of 500 ms each this would take 9.5 s.
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("starting 20 partitions one after the other took %v", d)
	} else {
		t.Logf("%v a start", d/20)
	}
}
