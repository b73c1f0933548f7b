package replication

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// countingStore refuses to write while it is told to, and counts how often it did.
type countingStore struct {
	raft.LogStore
	refuse  atomic.Bool
	refused atomic.Int64
}

func (s *countingStore) StoreLogs(l []*raft.Log) error {
	if s.refuse.Load() {
		s.refused.Add(1)
		return errors.New("refused by the test")
	}
	return s.LogStore.StoreLogs(l)
}

// Nothing is applied, and so nothing pushed, that only one of three nodes holds: not on the leader, which
// has it on its disk, and not on the others, which were sent it and could not keep it. With the second
// node that holds it, all get it.
func TestNothingIsAppliedBeforeAMajorityHoldsIt(t *testing.T) {
	stores := make([]*countingStore, 3)
	c := newCluster(t, 3, 1, inMemory, unshaken, func(i int, c *Config) {
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			stores[i] = &countingStore{LogStore: s.Log}
			s.Log = stores[i]
			return s, err
		}
	})
	c.seat(1)
	leader := c.waitLeader(0)
	c.propose(0, "before")
	c.waitSame(0, 1)
	a, b := (leader+1)%3, (leader+2)%3
	for _, f := range []int{a, b} {
		stores[f].refuse.Store(true)
	}
	before := c.nodes[leader].Groups()[0].Last
	future := c.nodes[leader].Propose(0, []byte("held by one"))
	eventually(t, "the leader holds it and both others were asked to", func() bool {
		return c.nodes[leader].Groups()[0].Last > before && stores[a].refused.Load() > 2 && stores[b].refused.Load() > 2
	})
	for i := range c.toys {
		if got := c.toys[i].applied(0); !slices.Equal(got, []string{"before"}) {
			t.Errorf("node %d applied %v while one node of three held the last", i, got)
		}
	}
	stores[a].refuse.Store(false)
	if _, err := future.Wait(); err != nil {
		t.Fatalf("with a majority: %v", err)
	}
	eventually(t, "both nodes that hold it apply it", func() bool {
		return slices.Equal(c.toys[leader].applied(0), []string{"before", "held by one"}) && slices.Equal(c.toys[a].applied(0), []string{"before", "held by one"})
	})
	stores[b].refuse.Store(false)
	c.waitSame(0, 2)
}
