package replication

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// viewAge is how old what a peer said of itself may be.
const viewAge = 3 * time.Second

// view is what a node says of itself.
type view struct {
	at       time.Time
	draining bool            // it wants no leadership: it stops, or its disk hung (slowdisk.go)
	alive    []bridge.NodeID // whom it hears, itself included; empty: a build that does not say
	groups   []standing      // by group
}

// standing is where a node is in one group.
type standing struct {
	bridge.GroupStatus
	lastTerm uint64        // of the entry Last; 0: a build that does not say
	quiet    time.Duration // how long it has not heard from the group's leader; 0 if it leads
	barred   bool          // it must not stand for election (newcomer.go)
	fitness  fitness
}

// newer says whether a log is more up to date than another: a node whose log is behind gets no vote from
// those that are ahead of it (Raft, section 5.4.1).
func (s standing) newer(than standing) bool {
	if s.lastTerm != than.lastTerm && s.lastTerm != 0 && than.lastTerm != 0 {
		return s.lastTerm > than.lastTerm
	}
	return s.Last > than.Last
}

// bare says whether a node does not even have the first configuration: it does not know yet whether there is a
// cluster, and gives no vote (newcomer.go).
func (s standing) bare() bool { return s.Last == 0 }

// blank says whether the node has nothing: no entry, no vote.
func (v view) blank() bool {
	return !slices.ContainsFunc(v.groups, func(s standing) bool { return s.Last > 1 || s.Term > 1 })
}

// hears says whether the node has a connection to another that works; true if it does not say.
func (v view) hears(id bridge.NodeID) bool { return slices.Contains(v.alive, id) }

// views of the peers, refreshed by placement.
type views struct {
	mu sync.Mutex
	by map[bridge.NodeID]view
}

func (v *views) set(id bridge.NodeID, w view) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.by[id] = w
}

// forget drops what a node has said that is not of the cluster any more.
func (v *views) forget(id bridge.NodeID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.by, id)
}

// get returns a view that is fresh.
func (v *views) get(id bridge.NodeID) (view, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.by[id]
	return w, ok && time.Since(w.at) < viewAge
}

// ownView is what this node says of itself. Any goroutine may ask, once Open has returned.
func (n *Node) ownView() view {
	v := view{at: time.Now(), draining: n.draining.Load() || n.slowDisk()}
	for _, id := range n.members.others() {
		if n.PeerAlive(id) {
			v.alive = append(v.alive, id)
		}
	}
	v.alive = append(v.alive, n.cfg.NodeID)
	for _, g := range n.groups {
		v.groups = append(v.groups, g.standing())
	}
	return v
}

func (g *group) standing() standing {
	id, _ := g.leader()
	s := standing{
		GroupStatus: bridge.GroupStatus{
			Group: g.id, Leader: id, Term: bridge.Term(g.raft.CurrentTerm()), Last: g.raft.LastIndex(), Applied: g.fsm.applied.Load(),
		},
		lastTerm: g.lastTerm(),
		barred:   !g.node.newcomer.mayLead(g.id),
		fitness:  g.node.fitness.of(g.id, time.Now()),
	}
	if g.raft.State() != raft.Leader {
		s.quiet = time.Since(g.raft.LastContact())
	}
	return s
}

// lastTerm returns the term of the last entry, in the log or the snapshot. The library tells it among its
// statistics alone.
func (g *group) lastTerm() uint64 {
	stats := g.raft.Stats()
	var last uint64
	for _, k := range []string{"last_log_term", "last_snapshot_term"} {
		t, _ := strconv.ParseUint(stats[k], 10, 64) // the library writes numbers
		last = max(last, t)
	}
	return last
}
