package verify

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

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/replication"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

const waitTime = 60 * time.Second

// aCluster is three nodes in this process.
type aCluster struct {
	brokers []string
	addrs   []string
	nodes   []*aNode
}

type aNode struct {
	cancel context.CancelFunc
	done   chan error
}

func startCluster(t *testing.T, topics string) *aCluster {
	t.Helper()
	return startClusterOn(t, kafkatest.Fake(t).Brokers(), topics)
}

func startClusterOn(t *testing.T, brokers []string, topics string) *aCluster {
	t.Helper()
	c := &aCluster{brokers: brokers}
	selectors, err := kafkaio.ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	var peers []replication.Peer
	ports, err := freeport.Take(3)
	if err != nil {
		t.Fatal(err)
	}
	for i, port := range ports {
		peers = append(peers, replication.Peer{ID: bridge.NodeID(fmt.Sprintf("n%d", i+1)), Addr: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	group := "verify-" + strconv.FormatUint(rand.Uint64(), 36)
	var ready []<-chan struct{}
	for _, peer := range peers {
		cfg := node.Defaults()
		cfg.NodeID, cfg.Peers = peer.ID, peers
		cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
		cfg.ClusterListen, cfg.ClusterAdvertise = peer.Addr, peer.Addr
		cfg.Groups = 6
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		cfg.KafkaBrokers, cfg.Topics, cfg.PublishTopics, cfg.KafkaGroupID = c.brokers, selectors, selectors, group
		cfg.CacheBytes = 64 << 20
		if level, err := zerolog.ParseLevel(os.Getenv("TIDEWIRE_TEST_LOG")); err == nil && level != zerolog.NoLevel {
			cfg.Log = zerolog.New(os.Stderr).Level(level).With().Timestamp().Str("node", string(peer.ID)).Logger()
		}
		n, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		a := &aNode{cancel: cancel, done: make(chan error, 1)}
		go func() { a.done <- n.Run(ctx) }()
		c.nodes = append(c.nodes, a)
		c.addrs = append(c.addrs, n.Addr())
		ready = append(ready, n.Ready())
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(t, i)
		}
	})
	for i, r := range ready {
		select {
		case <-r:
		case err := <-c.nodes[i].done:
			t.Fatalf("node %d: %v", i, err)
		case <-time.After(waitTime):
			t.Fatalf("node %d is not ready", i)
		}
	}
	return c
}

// stop stops node i as SIGTERM would.
func (c *aCluster) stop(t *testing.T, i int) {
	t.Helper()
	a := c.nodes[i]
	if a.cancel == nil {
		return
	}
	a.cancel()
	a.cancel = nil
	select {
	case err := <-a.done:
		if err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	case <-time.After(waitTime):
		t.Errorf("node %d does not stop", i)
	}
}
