package jstest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/replication"
)

// waitTime bounds every wait. It is long because machines are shared: a wait that ends well ends early.
const waitTime = 90 * time.Second

// startNodes starts three nodes that expose the topics, waits until they are ready and returns their client
// addresses. They end with the test.
func startNodes(t *testing.T, brokers []string, topics, publish string) []string {
	t.Helper()
	exposed, err := kafkaio.ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	open, err := kafkaio.ParseSelectors(publish)
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
	var nodes []*node.Node
	for _, peer := range peers {
		cfg := node.Defaults()
		cfg.NodeID, cfg.Peers = peer.ID, peers
		cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
		cfg.ClusterListen, cfg.ClusterAdvertise = peer.Addr, peer.Addr
		cfg.Groups = 4
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		cfg.KafkaBrokers, cfg.KafkaGroupID = brokers, "jstest"
		cfg.Topics, cfg.PublishTopics = exposed, open
		cfg.CacheBytes = 64 << 20
		cfg.Log = zerolog.Nop()
		n, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("node %s: %v", peer.ID, err)
				}
			case <-time.After(waitTime):
				t.Errorf("node %s does not stop", peer.ID)
			}
		})
		nodes = append(nodes, n)
	}
	var addrs []string
	for _, n := range nodes {
		select {
		case <-n.Ready():
			addrs = append(addrs, n.Addr())
		case <-time.After(waitTime):
			t.Fatal("a node is not ready")
		}
	}
	return addrs
}
