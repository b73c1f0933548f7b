package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// cluster is tidewire processes: the first on the processors of the server under test, the others with the load.
type cluster struct {
	nodes []*clusterNode
	http  http.Client
}

type clusterNode struct {
	name                   string
	client, admin, cluster string
	proc                   *process
}

const (
	// clusterWait bounds a cluster's start.
	clusterWait = time.Minute
	// nodeGrace is how long a node may take to end: its clients are gone by then.
	nodeGrace = 15 * time.Second
	// maxStatus bounds a node's answer.
	maxStatus = 16 << 20
)

// environ is what a process that we start needs of our environment.
func (b *bench) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
}

// startCluster starts nodes that expose a topic, with more variables for all of them.
func (b *bench) startCluster(topic string, more []string) (*cluster, error) {
	c := &cluster{http: http.Client{Timeout: 5 * time.Second}}
	ports, err := freePorts(3 * b.o.ClusterSize)
	if err != nil {
		return nil, err
	}
	var peers []string
	for i := range b.o.ClusterSize {
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, ports[3*i+2]))
	}
	dir := filepath.Join(b.o.Dir, topic)
	for i := range b.o.ClusterSize {
		n := &clusterNode{name: fmt.Sprintf("n%d", i+1), client: ports[3*i], admin: ports[3*i+1], cluster: ports[3*i+2]}
		env := append(b.environ(),
			"TIDEWIRE_NODE_ID="+n.name, "TIDEWIRE_LISTEN="+n.client, "TIDEWIRE_ADMIN_LISTEN="+n.admin,
			"TIDEWIRE_CLUSTER_LISTEN="+n.cluster, "TIDEWIRE_DATA_DIR="+filepath.Join(dir, n.name),
			"TIDEWIRE_KAFKA_BROKERS="+strings.Join(b.brokers, ","), "TIDEWIRE_KAFKA_TOPICS="+topic, "TIDEWIRE_KAFKA_GROUP_ID=tidewire-"+topic,
			"TIDEWIRE_KAFKA_START=earliest", fmt.Sprintf("TIDEWIRE_CACHE_BYTES=%d", b.o.CacheBytes), "TIDEWIRE_LOG_LEVEL=warn",
			// All clients are of one address, and as many as the system allows: the default keeps a fifth of the files for others.
			"TIDEWIRE_MAX_CONNECTIONS=1000000", "TIDEWIRE_MAX_CONNECTIONS_PER_IP=0", "TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND=0")
		if b.o.ClusterSize > 1 {
			env = append(env, "TIDEWIRE_CLUSTER_PEERS="+strings.Join(peers, ","))
		}
		cpus := b.o.LoadCPUs
		if i == 0 {
			cpus = b.o.ServerCPUs
		}
		if b.shared != nil {
			cpus = b.shared
		}
		if err := os.MkdirAll(filepath.Join(dir, n.name), 0o755); err != nil {
			return nil, errors.Join(err, c.close())
		}
		if n.proc, err = spawn(cpus, filepath.Join(dir, n.name+".log"), slices.Concat(env, b.o.NodeEnv, more), b.o.Tidewire); err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// settled waits until all nodes are ready and every partition of the topic has a coordinator, and then, for a
// while, until each node leads its share of the groups.
func (c *cluster) settled(ctx context.Context, topic string, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, clusterWait)
	defer cancel()
	began := time.Now()
	return poll(ctx, func() error {
		if err := c.died(); err != nil {
			return errors.Join(errStop, err)
		}
		led := 0
		for _, n := range c.nodes {
			s, err := c.status(ctx, n.admin)
			if err != nil {
				return err
			}
			if !s.Ready {
				return fmt.Errorf("node %s is not ready: %s", n.name, strings.Join(s.NotReady, "; "))
			}
			leads := 0
			for _, g := range s.Groups {
				if string(g.Leader) == n.name {
					leads++
				}
			}
			if leads < len(s.Groups)/len(c.nodes) && time.Since(began) < clusterWait/2 {
				return fmt.Errorf("node %s leads %d of %d groups", n.name, leads, len(s.Groups))
			}
			led += len(coordinated(s, topic, n.name))
		}
		if led < partitions {
			return fmt.Errorf("%d of %d partitions have a coordinator", led, partitions)
		}
		return nil
	})
}

// coordinated are the partitions of a topic that a node coordinates, as it says itself.
func coordinated(s bridge.NodeStatus, topic, node string) (out []int32) {
	for _, p := range s.Partitions {
		if p.Topic == topic && string(p.Coordinator) == node {
			out = append(out, p.Partition)
		}
	}
	return out
}

func (c *cluster) status(ctx context.Context, admin string) (s bridge.NodeStatus, err error) {
	return s, getJSON(ctx, &c.http, "http://"+admin+"/status", &s)
}

func getJSON(ctx context.Context, cl *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := cl.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(into)
}

func (c *cluster) died() error {
	for _, n := range c.nodes {
		if n.proc == nil {
			continue // killed by the scenario
		}
		if err := n.proc.died(); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
	}
	return nil
}

// kill kills a node as a power cut would.
func (c *cluster) kill(i int) {
	c.nodes[i].proc.kill()
	c.nodes[i].proc = nil
}

func (c *cluster) close() error {
	c.http.CloseIdleConnections()
	done := make(chan struct{})
	for _, n := range c.nodes {
		go func() {
			if n.proc != nil {
				n.proc.stop(nodeGrace)
			}
			done <- struct{}{}
		}()
	}
	for range c.nodes {
		<-done
	}
	return nil
}

// errStop ends a poll at once.
var errStop = errors.New("given up")

// poll calls f until it returns nil, or errStop, or ctx ends; then the error tells what f said last.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || errors.Is(err, errStop) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// freePorts returns addresses below the range from which the system takes ports for outgoing connections, so that
// none is taken before its server listens.
func freePorts(n int) ([]string, error) {
	var out []string
	for try := 0; len(out) < n; try++ {
		addr := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			if try > 1000 {
				return nil, err
			}
			continue
		}
		_ = l.Close()
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out, nil
}
