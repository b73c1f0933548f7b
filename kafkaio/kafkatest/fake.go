package kafkatest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// FakeCluster is a kfake cluster: Kafka's protocol in this process, on loopback
// ports, without a JVM. Its embedded Cluster steers faults (Fault, ControlKey,
// MoveTopicPartition, Compact, ...).
//
// It is no proof that something works with Kafka; [Start] and [Shared] are for
// that. kfake runs all of its brokers on one goroutine and knows no rebalance
// delay, no limit on the size of offset metadata and no truncation.
type FakeCluster struct {
	*kfake.Cluster
}

// Fake starts a kfake cluster that ends with the test: one broker and no topics
// unless opts say otherwise (kfake.SeedTopics, kfake.NumBrokers, ...).
func Fake(t testing.TB, opts ...kfake.Opt) *FakeCluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatalf("start kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return &FakeCluster{Cluster: c}
}

// Brokers returns the host:port of every broker.
func (c *FakeCluster) Brokers() []string { return c.ListenAddrs() }
