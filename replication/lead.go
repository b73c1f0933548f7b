package replication

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// lead runs StateMachine.Lead while this node leads the group: after everything committed in earlier
// terms has been applied here, under a context that ends with the leadership, never two at once.
type lead struct {
	g      *group
	notify chan bool // from the library, which blocks on it: taken at once
	done   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	changes counter
	running atomic.Bool // StateMachine.Lead is
}

func newLead(g *group) *lead {
	return &lead{g: g, notify: make(chan bool, 8), done: make(chan struct{})}
}

func (l *lead) start() {
	l.wg.Add(1)
	go l.run()
}

// close ends the role and returns when it has ended.
func (l *lead) close() {
	l.stop()
	l.wg.Wait()
}

// stop ends the role and begins no other.
func (l *lead) stop() { l.once.Do(func() { close(l.done) }) }

func (l *lead) run() {
	defer l.wg.Done()
	cancel := func() {}
	defer func() { cancel() }()
	previous := make(chan struct{})
	close(previous)
	stopped := l.done
	closed := false
	for {
		select {
		case leader := <-l.notify:
			cancel()
			cancel = func() {}
			if !leader || closed {
				continue
			}
			// If the leadership has been lost again meanwhile, that is the next thing to come in.
			term, ok := l.g.leaderTerm()
			if !ok {
				continue
			}
			l.changes.add()
			ctx, end := context.WithCancel(context.Background())
			cancel = end
			before, after := previous, make(chan struct{})
			previous = after
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				defer close(after)
				<-before
				l.role(ctx, bridge.Term(term))
			}()
		case <-stopped:
			// The library may still want to be heard until it has shut down.
			cancel()
			closed, stopped = true, nil
		case <-l.g.raftStopped():
			return
		}
	}
}

// role waits until the machine is up to date and runs Lead.
func (l *lead) role(ctx context.Context, term bridge.Term) {
	for {
		err := l.g.barrier()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return // leadership is over, or about to be: ctx ends or has ended
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	log := l.g.node.log
	log.Info().Uint16("group", uint16(l.g.id)).Uint64("term", uint64(term)).Msg("leads")
	l.running.Store(true)
	l.g.node.cfg.Machine.Lead(ctx, l.g.id, term)
	l.running.Store(false)
	log.Info().Uint16("group", uint16(l.g.id)).Uint64("term", uint64(term)).Msg("leads no longer")
}
