package replication

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// hangingStore hangs in writing while it is told to.
type hangingStore struct {
	raft.LogStore
	mu   sync.Mutex
	hang chan struct{} // nil: do not
}

func (s *hangingStore) StoreLogs(l []*raft.Log) error {
	s.mu.Lock()
	h := s.hang
	s.mu.Unlock()
	if h != nil {
		<-h
	}
	return s.LogStore.StoreLogs(l)
}

func (s *hangingStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// set begins to hang; the function returned ends it.
func (s *hangingStore) set() func() {
	h := make(chan struct{})
	s.mu.Lock()
	s.hang = h
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.hang = nil
		s.mu.Unlock()
		close(h)
	})
}

// A leader whose disk hangs still sends heartbeats, so nobody would ever replace it.
func TestHungDiskCostsTheLeadership(t *testing.T) {
	stores := make([]*hangingStore, 3)
	c := newCluster(t, 3, 1, inMemory, func(i int, c *Config) {
		c.WriteTimeout = 300 * time.Millisecond
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			stores[i] = &hangingStore{LogStore: s.Log}
			s.Log = stores[i]
			return s, err
		}
	})
	old := c.waitLeader(0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	release := stores[old].set()
	defer release()
	if _, err := c.nodes[old].Propose(0, []byte("lost")).Wait(); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Fatalf("a proposal whose write hangs: %v", err)
	}
	eventually(t, "another node leads", func() bool { l := c.leader(0); return l >= 0 && l != old })
	c.propose(0, "b")
	eventually(t, "the node knows that its clients fare better elsewhere", func() bool {
		return strings.Contains(c.nodes[old].Isolated(), "hangs")
	})
	release()
	eventually(t, "the node with the hung disk catches up", func() bool {
		return slices.Equal(c.appliedOnce(old, 0), []string{"a", "b"})
	})
	eventually(t, "the node is as good as any for clients", func() bool { return c.nodes[old].Isolated() == "" })
	eventually(t, "the leader gives nothing to a node whose disk hung a moment ago", func() bool {
		l := c.leader(0)
		if l < 0 || l == old {
			return false
		}
		v, known := c.nodes[l].views.get(c.configs[old].NodeID)
		return known && v.draining
	})
	if err := runErr(c.nodes[old]); err != nil {
		t.Errorf("a hang that passed ended the node: %v", err)
	}
}

// The others learn from the one whose disk hangs that they have to elect another leader: with timers of a
// minute nothing else brings one. They used to wait for these, and then for a vote of the one that hangs.
func TestHungLeaderCallsAnother(t *testing.T) {
	stores := make([]*hangingStore, 3)
	c := newCluster(t, 3, 1, inMemory, calm, func(i int, c *Config) {
		c.WriteTimeout = 300 * time.Millisecond
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			stores[i] = &hangingStore{LogStore: s.Log}
			s.Log = stores[i]
			return s, err
		}
	})
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	release := stores[0].set()
	defer release()
	if _, err := c.nodes[0].Propose(0, []byte("lost")).Wait(); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Fatalf("a proposal whose write hangs: %v", err)
	}
	eventually(t, "another node leads", func() bool { return c.leader(0) > 0 })
	c.propose(0, "b")
	release()
	eventually(t, "the node with the hung disk catches up", func() bool {
		return slices.Equal(c.appliedOnce(0, 0), []string{"a", "b"})
	})
}

// A leader that was elected meanwhile may be too busy to answer: who looks for an heir believes those who know of it, and does
// not have it deposed.
func TestNoHeirIsCalledWhereOneLeads(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, unshaken, unmoved)
	c.waitConnected()
	c.elect(0, 0)
	gaveUp := c.nodes[0].groups[0].raft.CurrentTerm()
	c.elect(0, 1)
	c.propose(0, "a")
	c.waitSame(0, 1)
	n0 := c.nodes[0]
	var views map[bridge.NodeID]view
	eventually(t, "n2 answers, and knows who leads", func() bool {
		views, _ = n0.ask(t.Context())
		v, there := views["n2"]
		return there && v.groups[0].Leader == "n1"
	})
	delete(views, "n1")
	delete(views, "n0") // its own library may not have noticed
	before := c.changes()
	if !n0.callHeir(t.Context(), n0.groups[0], gaveUp, views) {
		t.Error("it looks on")
	}
	c.propose(0, "b")
	if l := c.leader(0); l != 1 || c.changes() != before {
		t.Errorf("n%d leads, after %d changes", l, c.changes()-before)
	}
}

// Nobody wants to lead at the moment at which a leader's disk hangs, as when nobody answers in time: the others are asked
// again. They used to be asked once, and not to answer within takeoverAsk left the group to timers.
func TestHungLeaderCallsUntilSomebodyWantsToLead(t *testing.T) {
	var store *hangingStore
	c := newCluster(t, 3, 1, inMemory, unshaken, unmoved, func(i int, c *Config) {
		if i != 0 {
			return
		}
		c.WriteTimeout = 300 * time.Millisecond
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			store = &hangingStore{LogStore: s.Log}
			s.Log = store
			return s, err
		}
	})
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	for _, n := range c.nodes[1:] {
		n.draining.Store(true)
	}
	defer store.set()()
	if _, err := c.nodes[0].Propose(0, []byte("lost")).Wait(); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Fatalf("a proposal whose write hangs: %v", err)
	}
	asked := time.NewTimer(2 * takeoverAsk) // there is no event for an answer that is no
	<-asked.C
	for _, n := range c.nodes[1:] {
		n.draining.Store(false)
	}
	eventually(t, "another node leads", func() bool { return c.leader(0) > 0 })
	c.propose(0, "b")
}
