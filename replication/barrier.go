package replication

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// barriers are the barriers of a group that others than its role ask for. One is on its way at a time, and all who come
// meanwhile share the next: thousands of clients may come at once whose places this node does not know yet. Each is an entry
// of the log, and clients may name places that never were, so between two there is barrierPause.
type barriers struct {
	g    *group
	turn chan struct{} // one slot: a barrier is on its way
	last time.Time     // when one ended; of who has the turn

	mu     sync.Mutex
	next   *sharedBarrier // of those who wait for the turn; nil: nobody does
	closed bool
	wg     sync.WaitGroup
}

const barrierPause = 20 * time.Millisecond

type sharedBarrier struct {
	done chan struct{}
	err  error // set before done is closed
}

func newBarriers(g *group) *barriers { return &barriers{g: g, turn: make(chan struct{}, 1)} }

// wait returns when everything that was committed before the call has been applied here.
func (b *barriers) wait(ctx context.Context) error {
	shared := b.join()
	if shared == nil {
		return raft.ErrRaftShutdown
	}
	select {
	case <-shared.done:
		return shared.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the barrier that begins next, nil after close.
func (b *barriers) join() *sharedBarrier {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil && !b.closed {
		shared := &sharedBarrier{done: make(chan struct{})}
		b.next = shared
		b.wg.Go(func() { b.run(shared) }) // not by who came first, whose ctx may end
	}
	return b.next
}

func (b *barriers) run(shared *sharedBarrier) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	pause := time.NewTimer(barrierPause - time.Since(b.last))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-b.g.raftStopped():
	}
	b.mu.Lock()
	b.next = nil // who comes from now on may have seen something that this one does not wait for
	closed := b.closed
	b.mu.Unlock()
	if shared.err = raft.ErrRaftShutdown; !closed {
		shared.err = b.g.barrier()
	}
	b.last = time.Now()
	close(shared.done)
}

// stop lets no other begin: the library is about to shut down, and would leave one that comes then without an answer.
func (b *barriers) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// close waits for those on their way, which end as the library has shut down.
func (b *barriers) close() { b.wg.Wait() }

// Barrier returns when everything that was committed in the group before the call, by any leader, has been applied here:
// then this node knows all that any node may have shown to anyone. It fails with bridge.ErrNotCoordinator when this node
// does not lead the group, which a leader that was deposed without noticing it finds out by asking a majority. It may be
// called by any goroutine, and costs a write to the disks of a majority, shared by all who ask at the same time.
func (n *Node) Barrier(ctx context.Context, g bridge.GroupID) error {
	if int(g) >= len(n.groups) {
		return fmt.Errorf("%w: there is no group %d", bridge.ErrNotCoordinator, g)
	}
	group := n.groups[g]
	if group.raft.State() != raft.Leader {
		return bridge.ErrNotCoordinator
	}
	if err := group.barriers.wait(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", bridge.ErrNotCoordinator, err)
	}
	return nil
}
