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

	standIn *http.Server // belongs to run; to close after that has ended

	mu      sync.Mutex
	state   string
	closed  bool          // no start any more
	ready   chan struct{} // closed when the node serves
	done    chan struct{} // closed when run has ended
	cancel  context.CancelFunc
	running *node.Node // nil: not made yet, or ended
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
	c.KafkaGroupID = "tidewire-demo" // in a Kafka that is not ours it must not get in the way of a real cluster
	var err error
	if c.Topics, err = kafkaio.ParseSelectors("prices,chat"); err != nil {
		return c, err
	}
	if c.PublishTopics, err = kafkaio.ParseSelectors("chat"); err != nil {
		return c, err
	}
	c.CacheBytes = 64 << 20 // three nodes share this process
	c.AllowedOrigins = append(ns.cfg.origins(), ns.cfg.guests...)
	c.HTTP = ns.web
	c.Log = ns.cfg.log.With().Str("node", n.id).Logger()
	return c, nil
}

// start starts the node and returns at once; it does nothing unless the node is stopped.
func (n *demoNode) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != stopped || n.closed {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ready, n.done, n.state = cancel, make(chan struct{}), make(chan struct{}), starting
	go n.run(ctx, n.ready, n.done)
	return nil
}

// run runs the node to its end, and then lets the stand-in answer.
func (n *demoNode) run(ctx context.Context, ready, done chan struct{}) {
	defer close(done)
	err := n.serve(ctx, ready)
	n.mu.Lock()
	n.running = nil
	closed := n.closed
	n.mu.Unlock()
	if !closed {
		n.beginStandIn()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cancel() // the context's resources, if the node ended by itself
	if n.state != stopping || err != nil {
		n.nodes.cfg.log.Error().Err(err).Str("node", n.id).Msg("the node ended by itself")
		select {
		case n.nodes.failed <- errors.Join(fmt.Errorf("node %s ended by itself", n.id), err):
		default:
		}
	}
	n.state = stopped
}

// serve makes the node and runs it until ctx ends.
func (n *demoNode) serve(ctx context.Context, ready chan struct{}) error {
	cfg, err := n.config()
	if err != nil {
		return err
	}
	n.endStandIn()
	made, err := node.New(cfg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.running = made
	n.mu.Unlock()
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-made.Ready():
			n.mu.Lock()
			if n.state == starting {
				n.state = running
			}
			n.mu.Unlock()
			close(ready)
		case <-ended:
		}
	}()
	err = made.Run(ctx)
	close(ended)
	<-watched
	return err
}

// beginStandIn takes the stopped node's client address.
func (n *demoNode) beginStandIn() {
	l, err := net.Listen("tcp", n.addr(n.nodes.cfg.clientPorts))
	if err != nil {
		n.nodes.cfg.log.Warn().Err(err).Str("node", n.id).Msg("nothing answers at the stopped node's address")
		return
	}
	server := &http.Server{Handler: n.nodes.web, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	n.standIn = server
	go server.Serve(l) // returns when endStandIn closes the server
}

// endStandIn gives the address back. The request to start the node was probably made to the stand-in: it
// is answered first.
func (n *demoNode) endStandIn() {
	if n.standIn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n.standIn.Shutdown(ctx) != nil {
		n.standIn.Close()
	}
	n.standIn = nil
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
	state, made := n.state, n.running
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
		ready := n.ready
		n.mu.Unlock()
		select {
		case <-ready:
		case err := <-ns.failed:
			return err
		case <-ctx.Done():
			return nil
		case <-timer.C:
			why := []string{"it has not begun"}
			if _, s := n.view(); s != nil {
				why = s.NotReady
			}
			return fmt.Errorf("node %s is not ready after %s: %v (see its log with -log=info)", n.id, patience, why)
		}
	}
	return nil
}

// close stops every node and waits for them.
func (ns *nodes) close() {
	for _, n := range ns.all {
		n.mu.Lock()
		n.closed = true
		n.mu.Unlock()
		n.stop()
	}
	for _, n := range ns.all {
		n.mu.Lock()
		done := n.done
		n.mu.Unlock()
		if done != nil {
			<-done
		}
		n.endStandIn()
	}
}
