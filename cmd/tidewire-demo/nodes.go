package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/replication"
)

// nodes are the nodes of the demo, each of which can be stopped and started again.
type nodes struct {
	cfg     config
	brokers []string
	dir     string
	web     http.Handler
	all     []*demoNode
	failed  chan error // one slot: a node ended that was not asked to
}

// The states of a demoNode, as /demo/status tells them.
const (
	stopped  = "stopped"
	starting = "starting"
	running  = "running"
	stopping = "stopping"
)

// demoNode is one node. While it is stopped, a stand-in answers at its client address, for everything but
// clients: the page that was loaded from there can go on asking, and be loaded again.
type demoNode struct {
	nodes *nodes
	index int
	id    string

	mu      sync.Mutex
	state   string
	node    *node.Node
	cancel  context.CancelFunc
	done    chan struct{} // closed when the node has ended
	standIn *http.Server
	err     error // why it ended, if it was not asked to
}

func newNodes(cfg config, brokers []string, dir string) *nodes {
	ns := &nodes{cfg: cfg, brokers: brokers, dir: dir, failed: make(chan error, 1)}
	ns.web = newWeb(ns)
	for i := range cfg.clientPorts {
		ns.all = append(ns.all, &demoNode{nodes: ns, index: i, id: fmt.Sprintf("n%d", i+1), state: stopped})
	}
	return ns
}

func (n *demoNode) addr(ports []int) string {
	return net.JoinHostPort(n.nodes.cfg.host, strconv.Itoa(ports[n.index]))
}

// config is the node's own.
func (n *demoNode) config() (node.Config, error) {
	ns := n.nodes
	c := node.Defaults()
	c.NodeID = bridge.NodeID(n.id)
	c.Listen, c.AdminListen = n.addr(ns.cfg.clientPorts), n.addr(ns.cfg.adminPorts)
	loopback := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ns.cfg.clusterPorts[i])) }
	c.ClusterListen, c.ClusterAdvertise = loopback(n.index), loopback(n.index)
	for i, other := range ns.all {
		c.Peers = append(c.Peers, replication.Peer{ID: bridge.NodeID(other.id), Addr: loopback(i)})
	}
	c.DataDir = filepath.Join(ns.dir, n.id)
	c.KafkaBrokers = ns.brokers
	var err error
	if c.Topics, err = kafkaio.ParseSelectors("prices,chat"); err != nil {
		return c, err
	}
	if c.PublishTopics, err = kafkaio.ParseSelectors("chat"); err != nil {
		return c, err
	}
	c.CacheBytes = 64 << 20 // three nodes share this process
	c.AllowedOrigins = ns.cfg.origins()
	c.HTTP = ns.web
	c.Log = ns.cfg.log.With().Str("node", n.id).Logger()
	return c, nil
}

// start starts the node; it does nothing if that is running.
func (n *demoNode) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != stopped {
		return nil
	}
	cfg, err := n.config()
	if err != nil {
		return err
	}
	n.endStandIn()
	made, err := node.New(cfg)
	if err != nil {
		n.beginStandIn()
		return fmt.Errorf("start %s: %w", n.id, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.node, n.cancel, n.done, n.state, n.err = made, cancel, make(chan struct{}), starting, nil
	go n.run(ctx, made, n.done)
	return nil
}

// run runs the node to its end, and then lets the stand-in answer.
func (n *demoNode) run(ctx context.Context, made *node.Node, done chan struct{}) {
	defer close(done)
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-made.Ready():
			n.mu.Lock()
			if n.state == starting {
				n.state = running
			}
			n.mu.Unlock()
		case <-ended:
		}
	}()
	err := made.Run(ctx)
	close(ended)
	<-watched
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cancel() // the context's resources, if the node ended by itself
	asked := n.state == stopping
	n.state, n.node = stopped, nil
	if err != nil || !asked {
		n.err = errors.Join(fmt.Errorf("node %s ended by itself", n.id), err)
		n.nodes.cfg.log.Error().Err(err).Str("node", n.id).Msg("the node ended by itself")
		select {
		case n.nodes.failed <- n.err:
		default:
		}
	}
	n.beginStandIn()
}

// beginStandIn and endStandIn are called with mu held.
func (n *demoNode) beginStandIn() {
	l, err := net.Listen("tcp", n.addr(n.nodes.cfg.clientPorts))
	if err != nil {
		n.nodes.cfg.log.Warn().Err(err).Str("node", n.id).Msg("nothing answers at the stopped node's address")
		return
	}
	n.standIn = &http.Server{Handler: n.nodes.web, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	server := n.standIn
	go server.Serve(l) // returns when endStandIn closes the server
}

func (n *demoNode) endStandIn() {
	if n.standIn != nil {
		n.standIn.Close()
		n.standIn = nil
	}
}

// stop asks the node to end as SIGTERM would and returns at once.
func (n *demoNode) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == starting || n.state == running {
		n.state = stopping
		n.cancel()
	}
}

// view is the node's state and, while it runs, what it says of itself.
func (n *demoNode) view() (state string, status *bridge.NodeStatus) {
	n.mu.Lock()
	state, made := n.state, n.node
	n.mu.Unlock()
	if made != nil {
		s := made.Status()
		status = &s
	}
	return state, status
}

// waitReady waits until every node serves; ctx ending is no error.
func (ns *nodes) waitReady(ctx context.Context) error {
	const patience = time.Minute
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for _, n := range ns.all {
		n.mu.Lock()
		made := n.node
		n.mu.Unlock()
		if made == nil {
			return <-ns.failed
		}
		select {
		case <-made.Ready():
		case err := <-ns.failed:
			return err
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return fmt.Errorf("node %s is not ready after %s: %v (see its log with -log=info)", n.id, patience, made.Status().NotReady)
		}
	}
	return nil
}

// close stops every node and waits for them.
func (ns *nodes) close() {
	for _, n := range ns.all {
		n.stop()
	}
	for _, n := range ns.all {
		n.mu.Lock()
		done := n.done
		n.mu.Unlock()
		if done != nil {
			<-done
		}
		n.mu.Lock()
		n.endStandIn()
		n.state = stopping // no start any more
		n.mu.Unlock()
	}
}
