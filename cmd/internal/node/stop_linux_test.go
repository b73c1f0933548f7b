package node

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// A node that has stopped has no connection to Kafka. Those for questions about offsets used to stay, until the process ended.
func TestStoppedNodeHangsUp(t *testing.T) {
	t.Parallel()
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "t"), kfake.NumBrokers(1))
	c := startCluster(t, &aKafka{brokers: k.Brokers()}, 1, "t", nil)
	if len(kafkatest.ConnectionsTo(t, k.Brokers()[0])) == 0 {
		t.Fatal("no connection is seen while the node runs")
	}
	c.stop(0)
	if open := kafkatest.ConnectionsTo(t, k.Brokers()[0]); len(open) != 0 {
		t.Errorf("connections from %v", open)
	}
}
