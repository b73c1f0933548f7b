package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// illegibleStore has an entry that cannot be read, like a log with a flipped byte.
type illegibleStore struct {
	raft.LogStore
	from atomic.Uint64 // this one and later ones; 0: none
}

var errFlipped = errors.New("checksum does not match")

func (s *illegibleStore) GetLog(index uint64, l *raft.Log) error {
	if from := s.from.Load(); from > 0 && index >= from {
		return errFlipped
	}
	return s.LogStore.GetLog(index, l)
}

// A follower that cannot read back an entry when it is to apply it ends with an error that says which
// entry, where, and what to do; the others go on. The library would panic.
func TestUnreadableEntryEndsTheNode(t *testing.T) {
	stores := make([]*illegibleStore, 3)
	c := newCluster(t, 3, 1, inMemory, func(i int, c *Config) {
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			stores[i] = &illegibleStore{LogStore: s.Log}
			s.Log = stores[i]
			return s, err
		}
	})
	leader := c.waitLeader(0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	bad := (leader + 1) % 3
	// What was written of late is kept in memory; forget it as soon as it is there.
	stores[bad].from.Store(c.nodes[leader].Groups()[0].Last + 1)
	log := c.nodes[bad].groups[0].log
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	forgetting := make(chan struct{})
	go func() {
		defer close(forgetting)
		for ctx.Err() == nil {
			log.mu.Lock()
			log.dropTail()
			log.mu.Unlock()
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- c.nodes[bad].Run(ctx) }()
	var err error
	n := 0
	for running := true; running; n++ {
		c.propose(0, fmt.Sprint(n))
		select {
		case err = <-ended:
			running = false
		default:
		}
	}
	cancel()
	<-forgetting
	if !errors.Is(err, ErrCorrupt) || !errors.Is(err, errFlipped) || !strings.Contains(err.Error(), "stop this node, remove") {
		t.Fatalf("the node ended with %v", err)
	}
	before := c.toys[bad].applied(0)
	c.stop(bad, 0)
	c.propose(0, "after")
	c.waitSame(0, n+2)
	for i := range c.toys {
		if got := c.toys[i].applied(0); i != bad && !slices.Equal(got[:len(before)], before) {
			t.Errorf("node %d applied %q, the one that ended %q", i, got, before)
		}
	}
}
