package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/replication"
)

// This file starts whole clusters in this process, as `tidewire` would one node each, against the
// embedded Kafka or real ones.

// waitTime bounds every wait for a condition. It is long because machines are shared: a wait that ends
// well ends early.
const waitTime = 60 * time.Second

// aKafka is a Kafka that a scenario runs against.
type aKafka struct {
	brokers  []string
	real     *kafkatest.Cluster // nil: the embedded one
	security kafkaio.Security
}

// eachKafka runs a scenario against the embedded Kafka and, unless -short, against real ones. TIDEWIRE_TEST_EMBEDDED=off is for
// who runs both with and without the race detector: the embedded one is for the run with it.
func eachKafka(t *testing.T, f func(t *testing.T, k *aKafka)) {
	t.Run("fake", func(t *testing.T) {
		if os.Getenv("TIDEWIRE_TEST_EMBEDDED") == "off" {
			t.Skip("TIDEWIRE_TEST_EMBEDDED=off")
		}
		t.Parallel()
		f(t, &aKafka{brokers: kafkatest.Fake(t).Brokers()})
	})
	eachReal(t, f)
}

// eachVersion runs a scenario for each version of Kafka, side by side: most of the time they wait.
func eachVersion(t *testing.T, f func(t *testing.T, version string)) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		f(t, version)
	})
}

// eachReal runs a scenario against the shared real Kafka of each version.
func eachReal(t *testing.T, f func(t *testing.T, k *aKafka)) {
	eachVersion(t, func(t *testing.T, version string) {
		c := kafkatest.Shared(t, version)
		f(t, &aKafka{brokers: c.Brokers(), real: c})
	})
}

// topic creates a topic with a name of its own.
func (k *aKafka) topic(t *testing.T, partitions int, configs map[string]string) string {
	t.Helper()
	name := kafkatest.Topic(t)
	k.create(t, name, partitions, configs)
	return name
}

func (k *aKafka) create(t *testing.T, name string, partitions int, configs map[string]string) {
	t.Helper()
	if k.real != nil {
		k.real.CreateTopic(name, partitions, configs)
		return
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, int32(partitions), 1
	for key, v := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, &v
		rt.Configs = append(rt.Configs, c)
	}
	req.Topics = append(req.Topics, rt)
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	res, err := req.RequestWith(ctx, k.client(t))
	if err != nil || res.Topics[0].ErrorCode != 0 {
		t.Fatalf("create topic %s: %v, %+v", name, err, res)
	}
}

func (k *aKafka) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.brokers...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// aCluster is a cluster of nodes in this process.
type aCluster struct {
	t     *testing.T
	kafka *aKafka
	group string
	nodes []*aNode
}

type aNode struct {
	cfg    Config
	node   *Node
	cancel context.CancelFunc
	done   chan error
}

// startCluster starts size nodes that expose the topics, and waits until they are ready. change, if
// not nil, may alter each node's configuration first.
func startCluster(t *testing.T, k *aKafka, size int, topics string, change func(*Config)) *aCluster {
	t.Helper()
	c := &aCluster{t: t, kafka: k, group: "tw-" + strconv.FormatUint(rand.Uint64(), 36)}
	selectors, err := kafkaio.ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 3*size) // a node that comes back listens where it did
	var peers []replication.Peer
	for i, port := range ports[:size] {
		peers = append(peers, replication.Peer{ID: bridge.NodeID(fmt.Sprintf("n%d", i+1)), Addr: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i := range size {
		cfg := Defaults()
		cfg.NodeID = peers[i].ID
		cfg.Listen, cfg.AdminListen = fmt.Sprintf("127.0.0.1:%d", ports[size+i]), fmt.Sprintf("127.0.0.1:%d", ports[2*size+i])
		cfg.ClusterListen, cfg.ClusterAdvertise = peers[i].Addr, peers[i].Addr
		if size > 1 {
			cfg.Peers = peers
		}
		cfg.Groups = 6
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		cfg.KafkaBrokers, cfg.Security = k.brokers, k.security
		cfg.Topics, cfg.KafkaGroupID = selectors, c.group
		cfg.CacheBytes = 64 << 20
		cfg.Log = testLog(t, string(cfg.NodeID))
		if change != nil {
			change(&cfg)
		}
		c.nodes = append(c.nodes, &aNode{cfg: cfg})
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	for i := range c.nodes {
		c.start(i)
	}
	c.waitReady()
	return c
}

// start starts node i, or starts it again with the same disk.
func (c *aCluster) start(i int) {
	c.t.Helper()
	a := c.nodes[i]
	n, err := New(a.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	// A node that comes back listens where its clients know it.
	a.cfg.Listen, a.cfg.AdminListen = n.Addr(), n.AdminAddr()
	ctx, cancel := context.WithCancel(context.Background())
	a.node, a.cancel, a.done = n, cancel, make(chan error, 1)
	go func() { a.done <- n.Run(ctx) }()
}

// stop stops node i as SIGTERM would, and waits until it has ended.
func (c *aCluster) stop(i int) {
	c.t.Helper()
	a := c.nodes[i]
	if a.cancel == nil {
		return
	}
	a.cancel()
	select {
	case err := <-a.done:
		if err != nil {
			c.t.Errorf("node %s: %v", a.cfg.NodeID, err)
		}
	case <-time.After(waitTime):
		c.t.Fatalf("node %s does not stop", a.cfg.NodeID)
	}
	a.cancel = nil
}

func (c *aCluster) waitReady() {
	c.t.Helper()
	for _, a := range c.nodes {
		if a.cancel == nil {
			continue
		}
		select {
		case <-a.node.Ready():
		case err := <-a.done:
			c.t.Fatalf("node %s: %v", a.cfg.NodeID, err)
		case <-time.After(waitTime):
			c.t.Fatalf("node %s is not ready: %v", a.cfg.NodeID, a.node.notReady())
		}
	}
}

// addr returns the client address of node i, counted round.
func (c *aCluster) addr(i int) string { return c.nodes[i%len(c.nodes)].node.Addr() }

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitTime); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports, err := freeport.Take(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// testLog logs to the test's output when TIDEWIRE_TEST_LOG names a level, and nowhere otherwise.
func testLog(t *testing.T, node string) zerolog.Logger {
	level, err := zerolog.ParseLevel(os.Getenv("TIDEWIRE_TEST_LOG"))
	if err != nil || os.Getenv("TIDEWIRE_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.NewConsoleWriter(func(w *zerolog.ConsoleWriter) {
		w.Out, w.NoColor, w.TimeFormat = os.Stderr, true, "15:04:05.000"
	})).Level(level).With().Timestamp().Str("node", node).Logger()
}

// waitIngested waits until every node has taken in what is in a topic now. It counts offsets by records,
// so it is for topics without transactions.
func (c *aCluster) waitIngested(topic string) {
	c.t.Helper()
	ends := map[int32]bridge.Offset{}
	for _, r := range kafkatest.ReadCommitted(c.t, c.kafka.brokers, topic) {
		ends[r.Partition] = bridge.Offset(r.Offset) + 1
	}
	for _, a := range c.nodes {
		eventually(c.t, string(a.cfg.NodeID)+" to take in "+topic, func() bool {
			have := map[int32]bridge.Offset{}
			for _, p := range a.node.bridge.PartitionStatuses() {
				if p.Topic == topic {
					have[p.Partition] = p.Next
				}
			}
			for partition, end := range ends {
				if have[partition] < end {
					return false
				}
			}
			return true
		})
	}
}
