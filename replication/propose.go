package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

const (
	// maxOutstanding is how many proposals of a group may wait for their result; Propose waits at it.
	maxOutstanding = 1024
	// settleTime is how long a node that closes waits for its proposals to end, and once more for their goroutines: longer
	// than a lease, on a busy machine too.
	settleTime = 5 * time.Second
)

// ErrEntryTooLarge: a proposed entry is larger than MaxEntry. It was not proposed.
var ErrEntryTooLarge = errors.New("entry is too large for the Raft log")

// proposals are those of one group that have no result yet. The library leaves some of its futures
// without an answer when it is shut down, so nobody but the one goroutine here waits on them, and ours
// end with the group.
type proposals struct {
	g           *group
	outstanding chan *future
	stopped     chan struct{} // closed when the library has shut down
	pending     atomic.Int64
	closed      atomic.Bool // takes no more
	order       sync.Mutex  // held from the making of a future to its place in outstanding
	wg          sync.WaitGroup
}

// future is a bridge.Future.
type future struct {
	p        *proposals
	raft     raft.Future
	resolved chan struct{}
	response any // set before resolved is closed, as is err
	err      error
}

var _ bridge.Future = (*future)(nil)

func newProposals(g *group) *proposals {
	return &proposals{g: g, outstanding: make(chan *future, maxOutstanding), stopped: make(chan struct{})}
}

func (p *proposals) start() {
	p.wg.Add(1)
	go p.resolve()
}

// resolve waits for the library's futures in the order they were made, which is the order in which a
// leader answers them.
func (p *proposals) resolve() {
	defer p.wg.Done()
	for {
		select {
		case f := <-p.outstanding:
			f.resolve()
			p.pending.Add(-1)
		case <-p.stopped:
			return
		}
	}
}

func (f *future) resolve() {
	defer close(f.resolved)
	if err := f.raft.Error(); err != nil {
		f.err = err
		return
	}
	if a, ok := f.raft.(raft.ApplyFuture); ok {
		f.response = a.Response()
	}
}

// track makes a future of the library one of ours.
func (p *proposals) track(make_ func() raft.Future) *future {
	p.pending.Add(1) // before it looks: see refuse
	if p.closed.Load() {
		p.pending.Add(-1)
		return failed(raft.ErrRaftShutdown)
	}
	f := &future{p: p, resolved: make(chan struct{})}
	p.order.Lock()
	defer p.order.Unlock()
	f.raft = make_()
	select {
	case p.outstanding <- f:
	case <-p.stopped:
	}
	return f
}

// failed returns a future that has failed already.
func failed(err error) *future {
	f := &future{err: err, resolved: make(chan struct{})}
	close(f.resolved)
	return f
}

// wait returns the library's error as it is.
func (f *future) wait() (any, error) { return f.waitFor(context.Background()) }

// waitFor is wait for somebody who has not all the time in the world.
func (f *future) waitFor(ctx context.Context) (any, error) {
	var stopped chan struct{}
	if f.p != nil {
		stopped = f.p.stopped
	}
	select {
	case <-f.resolved:
		return f.response, f.err
	case <-stopped:
		return nil, raft.ErrRaftShutdown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Wait returns what StateMachine.Apply returned here; ErrEntryTooLarge, or bridge.ErrNotCoordinator with
// the reason: then the entry may or may not be committed later.
func (f *future) Wait() (any, error) {
	r, err := f.wait()
	if err == nil || errors.Is(err, ErrEntryTooLarge) || errors.Is(err, bridge.ErrNotCoordinator) {
		return r, err
	}
	// Not the leader, leadership lost or being handed over, shut down, the disk failed: in each case
	// this node cannot say what becomes of the entry, and the one who leads then can.
	return nil, fmt.Errorf("%w: %w", bridge.ErrNotCoordinator, err)
}

// propose appends an entry. It waits only while the library's queue is full, which is while the leader's
// disk has maxAppendEntries entries to write, and not longer than WriteTimeout.
func (p *proposals) propose(entry []byte) bridge.Future {
	if len(entry) > MaxEntry {
		return failed(fmt.Errorf("%w: %d bytes, at most %d", ErrEntryTooLarge, len(entry), MaxEntry))
	}
	if p.g.raft.State() != raft.Leader {
		return failed(bridge.ErrNotCoordinator)
	}
	return p.track(func() raft.Future { return p.g.raft.Apply(entry, p.g.node.cfg.WriteTimeout) })
}

// barrier returns when everything committed before has been applied here.
func (g *group) barrier() error {
	_, err := g.proposals.track(func() raft.Future { return g.raft.Barrier(g.node.cfg.WriteTimeout) }).wait()
	return err
}

func (g *group) raftStopped() <-chan struct{} { return g.proposals.stopped }

// refuse lets no more proposals begin: the library would leave one that comes to it as it shuts down without an answer.
func (p *proposals) refuse() { p.closed.Store(true) }

// settle waits, after refuse, until no proposal is pending, but not for ever: one that waits for a majority that is gone ends
// when the lease does.
func (p *proposals) settle(end time.Time) {
	for p.pending.Load() > 0 && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
}

// stop ends the waiting of all futures; the library has shut down.
func (p *proposals) stop() { close(p.stopped) }

// close waits for the goroutine, which a future that the library forgot may hold (settle makes that
// unlikely).
func (p *proposals) close() {
	ended := make(chan struct{})
	go func() { p.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(settleTime):
		p.g.node.log.Warn().Uint16("group", uint16(p.g.id)).Msg("a proposal was left without an answer")
	}
}
