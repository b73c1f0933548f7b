package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// Nodes is a cluster of tidewire processes, made anew for each scenario.
type Nodes struct {
	net   Network
	kafka *Kafka
	path  string // of the program
	env   []string
	dir   string
	group string // the consumer group
	list  []*node
	http  http.Client
	watch watcher // nil before the load

	mu   sync.Mutex
	away map[string]bool
}

// watcher is told when a node cannot be expected to serve: verify's Driver.
type watcher interface {
	NodeAway(node string)
	NodeBack(node string)
}

type node struct {
	name string
	dir  string
	log  string
	proc *process
	disk *disk    // nil: its folder is one of the run's
	path string   // of the program, if another one than the others run
	env  []string // of its own, besides everybody's
	gone bool     // no member any more
}

const (
	clientPort  = 8080
	adminPort   = 8081
	clusterPort = 7070
	// clusterSecret protects the nodes' ports, which are not on loopback.
	clusterSecret = "between-the-nodes-of-one-scenario-0123456789"
	// nodesReady bounds a cluster's start; it takes a second or two.
	nodesReady = 90 * time.Second
	// nodeStopGrace is how long a node may take to end in order: it lets clients go first.
	nodeStopGrace = 40 * time.Second
)

// nodeNames returns n1 to nN.
func nodeNames(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("n%d", i+1)
	}
	return out
}

// newNodes prepares a cluster of count nodes for one topic; nothing is started yet. The hosts must be there.
func newNodes(net Network, kafka *Kafka, path, dir, topic string, count int, extra []string) *Nodes {
	c := &Nodes{net: net, kafka: kafka, path: path, dir: dir, group: "tidewire-" + topic, away: map[string]bool{}}
	c.http = http.Client{Timeout: 2 * time.Second, Transport: withAdminToken{&http.Transport{DisableKeepAlives: true}}}
	for _, name := range nodeNames(count) {
		c.list = append(c.list, &node{name: name, dir: filepath.Join(dir, name), log: filepath.Join(dir, name+".log")})
	}
	c.env = append([]string{
		"TIDEWIRE_KAFKA_TOPICS=" + topic, "TIDEWIRE_KAFKA_PUBLISH_TOPICS=" + topic, "TIDEWIRE_KAFKA_GROUP_ID=" + c.group,
		"TIDEWIRE_KAFKA_START=earliest", "TIDEWIRE_CACHE_BYTES=256MiB",
	}, extra...)
	return c
}

// environ returns the whole configuration of a node.
func (c *Nodes) environ(n *node) ([]string, error) {
	var peers []string
	for _, p := range c.list {
		if p.gone {
			continue
		}
		a, err := c.net.Dial(n.name, p.name, clusterPort)
		if p == n {
			a, err = c.net.Listen(n.name, clusterPort)
		}
		if err != nil {
			return nil, err
		}
		peers = append(peers, p.name+"="+a)
	}
	brokers, err := c.kafka.Addrs(n.name)
	if err != nil {
		return nil, err
	}
	var listen [3]string
	for i, port := range []int{clientPort, adminPort, clusterPort} {
		if listen[i], err = c.net.Listen(n.name, port); err != nil {
			return nil, err
		}
	}
	env := []string{
		"TIDEWIRE_NODE_ID=" + n.name,
		"TIDEWIRE_LISTEN=" + listen[0], "TIDEWIRE_ADMIN_LISTEN=" + listen[1],
		"TIDEWIRE_CLUSTER_LISTEN=" + listen[2], "TIDEWIRE_CLUSTER_ADVERTISE=" + listen[2],
		"TIDEWIRE_CLUSTER_PEERS=" + strings.Join(peers, ","),
		"TIDEWIRE_CLUSTER_SECRET=" + clusterSecret,
		"TIDEWIRE_DATA_DIR=" + n.dir, "TIDEWIRE_KAFKA_BROKERS=" + strings.Join(brokers, ","),
		"TIDEWIRE_ADMIN_TOKEN=" + adminToken,
		"TIDEWIRE_MAX_CONNECTIONS_PER_IP=0", "TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND=0", // all clients are of one address
		"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "GOTRACEBACK=all",
	}
	return slices.Concat(env, c.env, n.env), nil
}

// Group returns the name of the nodes' consumer group.
func (c *Nodes) Group() string { return c.group }

// Len returns the number of nodes.
func (c *Nodes) Len() int { return len(c.list) }

// Name returns the name of node i, counted from 0.
func (c *Nodes) Name(i int) string { return c.list[i].name }

// Names returns all.
func (c *Nodes) Names() []string { return nodeNames(len(c.list)) }

// Index returns the number of a node's name.
func (c *Nodes) Index(name string) int {
	for i, n := range c.list {
		if n.name == name {
			return i
		}
	}
	return -1
}

// Running says whether node i has been started, and not been killed or stopped since.
func (c *Nodes) Running(i int) bool { return c.list[i].proc != nil }

// Clients returns where clients reach the nodes.
func (c *Nodes) Clients() ([]string, error) { return c.clients(0) }

// clients also returns where they will reach some more that may be started later.
func (c *Nodes) clients(spare int) ([]string, error) {
	var out []string
	for _, name := range nodeNames(len(c.list) + spare) {
		a, err := c.net.Dial(Driver, name, clientPort)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// Start starts node i if it is not running.
func (c *Nodes) Start(i int) error {
	n := c.list[i]
	if n.proc != nil && n.proc.running() {
		return nil
	}
	env, err := c.environ(n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	path := c.path
	if n.path != "" {
		path = n.path
	}
	cmd := c.net.Command(n.name, path)
	cmd.Env = env
	n.proc, err = start(cmd, n.log)
	return err
}

// StartAll starts all nodes and waits until they are ready.
func (c *Nodes) StartAll(ctx context.Context) error {
	for i := range c.list {
		if err := c.Start(i); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// WaitReady waits until every node that runs says it is ready, and marks it as living again.
func (c *Nodes) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nodesReady)
	defer cancel()
	for i, n := range c.list {
		if n.proc == nil {
			continue
		}
		err := poll(ctx, func() error {
			if !n.proc.running() {
				return nil // it is found out below
			}
			s, err := c.Status(ctx, i)
			if err == nil && !s.Ready {
				err = fmt.Errorf("not ready: %s", strings.Join(s.NotReady, "; "))
			}
			return err
		})
		if err == nil && !n.proc.running() {
			err = fmt.Errorf("its process ended (%w): see %s", n.proc.err, n.log)
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
		c.back(i)
	}
	return nil
}

// Died returns the error of a node that ended without having been asked to.
func (c *Nodes) Died() error {
	var errs []error
	for _, n := range c.list {
		if n.proc != nil && !n.proc.running() {
			errs = append(errs, fmt.Errorf("node %s ended by itself (%w): see %s", n.name, n.proc.err, n.log))
		}
	}
	return errors.Join(errs...)
}

// Kill kills node i with SIGKILL.
func (c *Nodes) Kill(i int) {
	c.leave(i)
	if n := c.list[i]; n.proc != nil {
		n.proc.kill()
		n.proc = nil
	}
}

// Stop ends node i with SIGTERM and waits for it. It says so if it had to be killed, or did not exit with 0.
func (c *Nodes) Stop(i int) error {
	n := c.list[i]
	if n.proc == nil {
		return nil
	}
	c.leave(i)
	p := n.proc
	n.proc = nil
	if !p.stop(nodeStopGrace) {
		return fmt.Errorf("node %s did not end within %v of SIGTERM", n.name, nodeStopGrace)
	}
	if p.err != nil {
		return fmt.Errorf("node %s after SIGTERM: %w", n.name, p.err)
	}
	return nil
}

// Freeze stops node i's process where it is.
func (c *Nodes) Freeze(i int) {
	c.leave(i)
	if p := c.list[i].proc; p != nil {
		p.signal(syscall.SIGSTOP)
	}
}

// Thaw ends a Freeze.
func (c *Nodes) Thaw(i int) {
	if p := c.list[i].proc; p != nil {
		p.signal(syscall.SIGCONT)
	}
	c.back(i)
}

// Wipe removes the disk of a node that does not run.
func (c *Nodes) Wipe(i int) error { return os.RemoveAll(c.list[i].dir) }

// leave notes that from now on a node cannot be expected to serve its clients; back that it can again.
func (c *Nodes) leave(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name := c.list[i].name; c.watch != nil && !c.away[name] {
		c.away[name] = true
		c.watch.NodeAway(name)
	}
}

func (c *Nodes) back(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name := c.list[i].name; c.watch != nil && c.away[name] {
		c.away[name] = false
		c.watch.NodeBack(name)
	}
}

// Close kills all nodes, and removes their disks.
func (c *Nodes) Close() error {
	var errs []error
	for _, n := range c.list {
		if n.disk != nil {
			errs = append(errs, n.disk.goOn()) // or they could not die
		}
		if n.proc != nil {
			n.proc.signal(syscall.SIGCONT)
			n.proc.kill()
			n.proc = nil
		}
	}
	for _, n := range c.list {
		if n.disk != nil {
			errs = append(errs, n.disk.close())
		}
	}
	return errors.Join(errs...)
}

// adminToken opens the nodes' admin ports, which are not on the loopback interface in every network.
const adminToken = "of the nodes that are broken"

// withAdminToken shows it with every request.
type withAdminToken struct{ http.RoundTripper }

func (t withAdminToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+adminToken)
	return t.RoundTripper.RoundTrip(r)
}

// maxStatus bounds a node's answer.
const maxStatus = 16 << 20

// Status asks node i what it knows.
func (c *Nodes) Status(ctx context.Context, i int) (bridge.NodeStatus, error) {
	var s bridge.NodeStatus
	addr, err := c.net.Dial(Driver, c.list[i].name, adminPort)
	if err != nil {
		return s, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	return s, json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s)
}

// Coordinators returns the node that coordinates each partition of a topic, as that node itself says; it
// waits until each has one.
func (c *Nodes) Coordinators(ctx context.Context, topic string, partitions int) (map[int32]string, error) {
	ctx, cancel := context.WithTimeout(ctx, nodesReady)
	defer cancel()
	var out map[int32]string
	err := poll(ctx, func() error {
		out = map[int32]string{}
		for i, n := range c.list {
			if n.proc == nil || !n.proc.running() {
				continue
			}
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			s, err := c.Status(attempt, i)
			cancel()
			if err != nil {
				continue // frozen, or not up yet
			}
			for _, p := range s.Partitions {
				if p.Topic == topic && string(p.Coordinator) == n.name {
					out[p.Partition] = n.name
				}
			}
		}
		if len(out) < partitions {
			return fmt.Errorf("%d of %d partitions of %s have a coordinator", len(out), partitions, topic)
		}
		return nil
	})
	return out, err
}

// Settled waits until every partition has a coordinator and every node that runs leads a share of the Raft
// groups: leaderships have moved back.
func (c *Nodes) Settled(ctx context.Context, topic string, partitions int) error {
	if _, err := c.Coordinators(ctx, topic, partitions); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nodesReady)
	defer cancel()
	return poll(ctx, func() error {
		for i, n := range c.list {
			if n.proc == nil || !n.proc.running() {
				continue
			}
			s, err := c.Status(ctx, i)
			if err != nil {
				return fmt.Errorf("status of %s: %w", n.name, err)
			}
			leads := 0
			for _, g := range s.Groups {
				if string(g.Leader) == n.name {
					leads++
				}
			}
			if leads < len(s.Groups)/len(c.list) {
				return fmt.Errorf("%s leads %d of %d groups", n.name, leads, len(s.Groups))
			}
		}
		return nil
	})
}
