package replication

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/freeport"
)

// toy is a state machine that remembers everything it applied.
type toy struct {
	mu      sync.Mutex
	entries map[bridge.GroupID][]string
	leads   map[bridge.GroupID]int // running Lead calls
	terms   map[bridge.GroupID][]bridge.Term
	overlap bool
	onApply func(g bridge.GroupID, entry []byte)
}

func newToy() *toy {
	return &toy{entries: map[bridge.GroupID][]string{}, leads: map[bridge.GroupID]int{}, terms: map[bridge.GroupID][]bridge.Term{}}
}

func (m *toy) Apply(g bridge.GroupID, _ bridge.Term, _ uint64, entry []byte) any {
	if m.onApply != nil {
		m.onApply(g, entry)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[g] = append(m.entries[g], string(entry))
	return len(m.entries[g])
}

func (m *toy) Snapshot(g bridge.GroupID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b []byte
	for _, e := range m.entries[g] {
		b = binary.BigEndian.AppendUint32(b, uint32(len(e)))
		b = append(b, e...)
	}
	return b, nil
}

func (m *toy) Restore(g bridge.GroupID, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[g] = nil
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		m.entries[g] = append(m.entries[g], string(b[4:4+n]))
		b = b[4+n:]
	}
	return nil
}

func (m *toy) Lead(ctx context.Context, g bridge.GroupID, term bridge.Term) {
	m.mu.Lock()
	m.leads[g]++
	m.overlap = m.overlap || m.leads[g] > 1
	m.terms[g] = append(m.terms[g], term)
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.leads[g]--
	m.mu.Unlock()
}

func (m *toy) applied(g bridge.GroupID) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.entries[g])
}

func (m *toy) leading(g bridge.GroupID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leads[g] > 0
}

// stubService answers calls with its functions.
type stubService struct {
	publish func(context.Context, bridge.TopicPartition, bridge.PublishRequest) (bridge.PublishResult, error)
	revoke  func(context.Context, bridge.Revocation) error
	node    bridge.NodeID
}

func (s *stubService) Revoke(ctx context.Context, r bridge.Revocation) error { return s.revoke(ctx, r) }

func (s *stubService) Publish(ctx context.Context, tp bridge.TopicPartition, r bridge.PublishRequest) (bridge.PublishResult, error) {
	if s.publish == nil {
		return bridge.PublishResult{}, bridge.ErrNotExposed
	}
	return s.publish(ctx, tp, r)
}
func (s *stubService) Head(context.Context, bridge.TopicPartition) (bridge.Position, error) {
	return bridge.Position{Epoch: 3, Seqno: 4}, nil
}
func (s *stubService) Status(context.Context) (bridge.NodeStatus, error) {
	return bridge.NodeStatus{Node: s.node}, nil
}

// cluster is a set of nodes in this process.
type cluster struct {
	unsure  sync.Map // entries of propose that may be there twice
	t       testing.TB
	peers   []Peer
	configs []Config // by node
	toys    []*toy
	svcs    []*stubService
	mu      sync.Mutex // of nodes, for a load that goes on while nodes come and go
	nodes   []*Node    // nil: stopped
}

type option func(i int, c *Config)

func inMemory(_ int, c *Config) {
	c.OpenStores = func(bridge.GroupID, string) (Stores, error) {
		s := raft.NewInmemStore()
		return Stores{Log: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }}, nil
	}
}

// calm makes Raft's timers useless. Whatever happens in the test happens without them; and on a machine that is busy for
// a while leaderships stay where they are.
func calm(_ int, c *Config) { c.HeartbeatTimeout, c.LeaderLease = time.Minute, time.Minute }

// patient is for tests in which leaderships go where they should be: one that is handed over in vain is tried again when the
// time of an election is over, and with calm that is longer than anything is waited for.
func patient(_ int, c *Config) { c.HeartbeatTimeout, c.LeaderLease = 8*time.Second, 8*time.Second }

// unshaken is calm, and takes no node for dead whose connections do not break: what moves leaderships then is what the
// test is about.
func unshaken(i int, c *Config) {
	calm(i, c)
	c.Silence = time.Minute
}

// unmoved leaves leaderships where an election has put them: else a group that is led by another than its first choice
// goes there as soon as that node has been there for a while.
func unmoved(_ int, c *Config) { c.Settle = time.Hour }

func testLog() zerolog.Logger {
	if os.Getenv("TIDEWIRE_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: true, TimeFormat: "15:04:05.000"}).With().Timestamp().Logger()
}

func newCluster(t testing.TB, nodes, groups int, opts ...option) *cluster {
	t.Helper()
	c := newStoppedCluster(t, nodes, groups, opts...)
	for i := range nodes {
		c.start(i)
	}
	return c
}

// newStoppedCluster makes a cluster of which no node runs yet; their ports are listened on already.
func newStoppedCluster(t testing.TB, nodes, groups int, opts ...option) *cluster {
	t.Helper()
	c := &cluster{t: t, nodes: make([]*Node, nodes)}
	var lns []net.Listener
	for i := range nodes {
		ln, err := freeport.Listen()
		if err != nil {
			t.Fatal(err)
		}
		lns = append(lns, ln)
		c.peers = append(c.peers, Peer{ID: bridge.NodeID(fmt.Sprintf("n%d", i)), Addr: ln.Addr().String()})
	}
	for i := range nodes {
		id := c.peers[i].ID
		c.toys = append(c.toys, newToy())
		c.svcs = append(c.svcs, &stubService{node: id})
		cfg := Config{
			NodeID: id, Listen: c.peers[i].Addr, Listener: lns[i], Peers: slices.Clone(c.peers), Groups: groups,
			Dir: t.TempDir(), Log: testLog().With().Str("node", string(id)).Logger(),
			Machine: c.toys[i], Service: c.svcs[i],
			// With the timers of the default configuration: shorter ones cost elections on a busy machine, one after
			// the other, and first elections and deaths do not wait for them.
		}
		for _, o := range opts {
			o(i, &cfg)
		}
		c.configs = append(c.configs, cfg)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i, 0)
		}
	})
	return c
}

// start starts node i, again with a fresh state machine if it was stopped.
func (c *cluster) start(i int) {
	c.t.Helper()
	if c.configs[i].Listener == nil {
		c.toys[i] = newToy()
		c.configs[i].Machine = c.toys[i]
	}
	n, err := Open(c.configs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.configs[i].Listener = nil
	c.set(i, n)
}

func (c *cluster) set(i int, n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = n
}

// stop closes node i, handing over within drain.
func (c *cluster) stop(i int, drain time.Duration) {
	c.t.Helper()
	if c.nodes[i] == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := c.nodes[i].Close(ctx); err != nil {
		c.t.Errorf("close node %d: %v", i, err)
	}
	c.set(i, nil)
}

// kill does to the others what kill -9 does: the sockets close, nothing is said.
func (c *cluster) kill(i int) {
	c.t.Helper()
	n := c.nodes[i]
	_ = n.mux.ln.Close()
	n.conns.close()
	c.stop(i, 0)
}

// waitTime is for how long anything is waited for that has to come: long, as machines are busy at times, but less than the
// minute after which a calm cluster's timers would bring it.
const waitTime = 45 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(waitTime); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", waitTime, what)
		}
	}
}

// leader returns the index of the running node that runs Lead for g, or -1.
func (c *cluster) leader(g bridge.GroupID) int {
	for i, n := range c.nodes {
		if n == nil || !c.toys[i].leading(g) {
			continue
		}
		if id, ok := n.Leader(g); ok && id == c.peers[i].ID {
			return i
		}
	}
	return -1
}

func (c *cluster) waitLeader(g bridge.GroupID) int {
	c.t.Helper()
	l := -1
	eventually(c.t, fmt.Sprintf("group %d has a leader", g), func() bool { l = c.leader(g); return l >= 0 })
	return l
}

// propose proposes until it is applied on whichever node leads.
func (c *cluster) propose(g bridge.GroupID, entry string) {
	c.t.Helper()
	eventually(c.t, "proposal is applied", func() bool {
		l := c.leader(g)
		if l < 0 {
			return false
		}
		_, err := c.nodes[l].Propose(g, []byte(entry)).Wait()
		if err != nil {
			c.unsure.Store(entry, true)
		}
		return err == nil
	})
}

// appliedOnce is what node i has applied, without the repeats of what propose proposed again because it did not know whether
// the first time counts.
func (c *cluster) appliedOnce(i int, g bridge.GroupID) []string {
	return slices.CompactFunc(c.toys[i].applied(g), func(a, b string) bool {
		_, unsure := c.unsure.Load(a)
		return a == b && unsure
	})
}

// waitApplied waits until all running nodes have applied as much as the longest, and compares.
func (c *cluster) waitSame(g bridge.GroupID, atLeast int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("all nodes apply %d entries of group %d", atLeast, g), func() bool {
		var first []string
		for i, n := range c.nodes {
			if n == nil {
				continue
			}
			e := c.toys[i].applied(g)
			if len(e) < atLeast {
				return false
			}
			if first == nil {
				first = e
			} else if !slices.Equal(first, e) {
				return false
			}
		}
		return true
	})
}

// spread counts the groups that each node leads.
func (c *cluster) spread(groups int) []int {
	out := make([]int, len(c.nodes))
	for g := range bridge.GroupID(groups) {
		if l := c.leader(g); l >= 0 {
			out[l]++
		}
	}
	return out
}

func TestThreeNodesAgree(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 3)
	for i := range 30 {
		c.propose(bridge.GroupID(i%3), fmt.Sprintf("e%d", i))
	}
	for g := range bridge.GroupID(3) {
		c.waitSame(g, 10)
	}
	eventually(t, "all nodes are caught up", func() bool {
		for _, n := range c.nodes {
			if ok, _ := n.CaughtUp(); !ok {
				return false
			}
		}
		return true
	})
	for i := range c.toys {
		if c.toys[i].overlap {
			t.Errorf("node %d ran two leads of one group at once", i)
		}
	}
}

func TestClusterOfOne(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 1, 2, func(_ int, c *Config) { c.Peers = nil })
	c.propose(0, "a")
	c.propose(1, "b")
	c.propose(0, "c")
	c.stop(0, time.Second)
	c.start(0)
	c.propose(0, "d")
	if got := c.toys[0].applied(0); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("after a restart: %q", got)
	}
}

func TestLeadershipsAreSpread(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 9, inMemory)
	even := func() bool { return slices.Equal(c.spread(9), []int{3, 3, 3}) }
	eventually(t, "three groups each", even)
}
