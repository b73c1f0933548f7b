package replication

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// The library tries again to send entries to a node that is away, more and more slowly: after half a minute it
// waits ten seconds between two tries, and so may a node that has come back for what it has missed. But we know
// when a node is back. So the second try is not made before that: it waits here, and its success ends the
// library's own waiting.
type away struct {
	alive   func(bridge.NodeID) bool
	leads   func() bool     // whether this node leads the group: who does not has nothing to send
	stopped <-chan struct{} // closed when this node stops

	mu     sync.Mutex
	failed map[raft.ServerID]bool // the last entries for it could not be sent
	back   chan struct{}          // closed, and made anew, when any node came back or is not of the cluster any more
}

const (
	// awayLimit bounds the waiting: what we know of who is there may be wrong, and the entries get through.
	awayLimit = 30 * time.Second
	// awayLook is how often a waiting goroutine looks whether this node still leads.
	awayLook = time.Second
)

func newAway(alive func(bridge.NodeID) bool, leads func() bool, stopped <-chan struct{}) *away {
	return &away{alive: alive, leads: leads, stopped: stopped, failed: map[raft.ServerID]bool{}, back: make(chan struct{})}
}

// changed is told that a node is there, or is not to be waited for.
func (a *away) changed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.back)
	a.back = make(chan struct{})
}

// wait returns when there is a reason to try to send entries to a node.
func (a *away) wait(id raft.ServerID) {
	limit := time.NewTimer(awayLimit)
	defer limit.Stop()
	look := time.NewTicker(awayLook)
	defer look.Stop()
	for {
		a.mu.Lock()
		failed, back := a.failed[id], a.back
		a.mu.Unlock()
		if !failed || a.alive(bridge.NodeID(id)) || !a.leads() {
			return
		}
		select {
		case <-back:
		case <-look.C:
		case <-limit.C:
			return
		case <-a.stopped:
			return
		}
	}
}

// sent notes how it went.
func (a *away) sent(id raft.ServerID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failed[id] = true
	} else {
		delete(a.failed, id)
	}
}
