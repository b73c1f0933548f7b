package bridge

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A fakeRaft is the log of every group, shared by the nodes of a test. An entry is committed as soon as
// the leader proposes it; nodes that are held back apply it later.
type fakeRaft struct {
	mu     sync.Mutex
	groups map[GroupID]*fakeGroup
	nodes  map[NodeID]*testNode
	// refuse decides whether a proposal fails, and whether it is committed all the same. nil: never.
	refuse func(g GroupID, ops []op) (fail, commit bool)
	old    []NodeID // whose builds do not know of revocations
}

type fakeGroup struct {
	mu      sync.Mutex // held while applying
	term    Term
	leader  NodeID
	log     []fakeEntry
	applied map[NodeID]int
	held    map[NodeID]bool
}

type fakeEntry struct {
	term Term
	b    []byte
}

func newRaft() *fakeRaft {
	return &fakeRaft{groups: make(map[GroupID]*fakeGroup), nodes: make(map[NodeID]*testNode)}
}

func (r *fakeRaft) group(g GroupID) *fakeGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups[g] == nil {
		r.groups[g] = &fakeGroup{applied: make(map[NodeID]int), held: make(map[NodeID]bool)}
	}
	return r.groups[g]
}

// catchUp applies on every node that is not held back, and returns the leader's last result.
func (r *fakeRaft) catchUp(g GroupID, fg *fakeGroup) (last any) {
	r.mu.Lock()
	nodes := make(map[NodeID]*testNode, len(r.nodes))
	for id, n := range r.nodes {
		nodes[id] = n
	}
	r.mu.Unlock()
	for id, n := range nodes {
		for !fg.held[id] && fg.applied[id] < len(fg.log) {
			e := fg.log[fg.applied[id]]
			fg.applied[id]++
			res := n.Apply(g, e.term, uint64(fg.applied[id]), e.b)
			if id == fg.leader {
				last = res
			}
		}
	}
	return last
}

// hold keeps a node from applying until release.
func (r *fakeRaft) hold(g GroupID, id NodeID, held bool) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	fg.held[id] = held
	r.catchUp(g, fg)
}

func (r *fakeRaft) entries(g GroupID) (sizes []int) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	for _, e := range fg.log {
		sizes = append(sizes, len(e.b))
	}
	return sizes
}

type settledFuture struct {
	res any
	err error
}

func (f settledFuture) Wait() (any, error) { return f.res, f.err }

// replicator is the Raft of one node.
type replicator struct {
	*fakeRaft
	node NodeID
}

func (r replicator) Propose(g GroupID, entry []byte) Future {
	ops, err := decodeEntry(entry)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	fail, commit := false, true
	if refuse != nil {
		fail, commit = refuse(g, ops)
	}
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	if fg.leader != r.node {
		return settledFuture{err: ErrNotCoordinator}
	}
	var res any
	if commit || !fail {
		fg.log = append(fg.log, fakeEntry{fg.term, entry})
		res = r.catchUp(g, fg)
	}
	if fail {
		return settledFuture{err: ErrNotCoordinator}
	}
	return settledFuture{res: res}
}

func (r replicator) Barrier(ctx context.Context, g GroupID) error {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	for committed := len(fg.log); ; {
		switch {
		case fg.leader != r.node:
			return ErrNotCoordinator
		case fg.applied[r.node] >= committed:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		fg.mu.Unlock()
		time.Sleep(time.Millisecond)
		fg.mu.Lock()
	}
}

// usurped makes another node the group's leader without its old one noticing it: its role goes on.
func (r *fakeRaft) usurped(g GroupID, by NodeID) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	fg.leader = by
}

func (r replicator) Leader(g GroupID) (NodeID, bool) {
	fg := r.group(g)
	fg.mu.Lock()
	defer fg.mu.Unlock()
	return fg.leader, fg.leader != ""
}

// Peers: calls go straight to the other node.
func (r replicator) Publish(ctx context.Context, node NodeID, tp TopicPartition, req PublishRequest) (PublishResult, error) {
	n := r.other(node)
	if n == nil {
		return PublishResult{}, ErrNotCoordinator
	}
	return n.LocalPublish(ctx, tp, req)
}

func (r replicator) Head(ctx context.Context, node NodeID, tp TopicPartition) (Position, error) {
	n := r.other(node)
	if n == nil {
		return Position{}, ErrNotCoordinator
	}
	return n.LocalHead(ctx, tp)
}

func (r replicator) WithoutRevocations() []NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.old)
}

func (r replicator) Revoke(ctx context.Context, node NodeID, v Revocation) error {
	n := r.other(node)
	if n == nil {
		return ErrNotCoordinator
	}
	return n.LocalRevoke(ctx, v)
}

func (r replicator) Status(context.Context, NodeID) (NodeStatus, error) { return NodeStatus{}, nil }

func (r replicator) other(id NodeID) *testNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[id]
}
