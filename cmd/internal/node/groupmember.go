package node

import (
	"context"
	"sync"
	"time"
)

// A node that is not a member of the cluster is none of the consumer group: it coordinates nothing, and were
// Kafka to choose it to assign the partitions it would not know to whom.

// groupTopics is what the consumer group is told to read: the exposed topics, or nothing.
type groupTopics struct {
	mu      sync.Mutex
	set     func(map[string]int32)
	exposed map[string]int32
	member  bool
}

// exposes says which topics there are, and how many partitions each has.
func (g *groupTopics) exposes(topics map[string]int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.exposed = topics
	if g.member {
		g.set(topics)
	}
}

// belongs says whether the node is a member of the cluster.
func (g *groupTopics) belongs(member bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == member {
		return
	}
	g.member = member
	if member {
		g.set(g.exposed)
	} else {
		g.set(nil)
	}
}

// membershipLook is the period of looking whether the node is a member.
const membershipLook = 100 * time.Millisecond

// watchMembership keeps the consumer group in step until ctx ends.
func (n *Node) watchMembership(ctx context.Context) {
	t := time.NewTicker(membershipLook)
	defer t.Stop()
	for {
		n.groupTopics.belongs(n.replication.IsMember())
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
