package wsedge

import (
	"sync"
	"sync/atomic"
)

// A shard is a worker that writes to the sockets of its sessions, one after the other and never waiting
// for any. A session is always of the same shard, so that its writes follow each other.
//
// The queue is bounded by the number of sessions: each stands in it at most once.
type shard struct {
	// Set once.
	srv   *Server
	index int           // in Server.shards
	wake  chan struct{} // one slot: any number of wakeups are one

	mu    sync.Mutex
	queue []*session

	// Owned by run.
	flusher flusher

	delivered atomic.Int64 // messages
	bytes     atomic.Int64
}

func newShard(srv *Server, index int) *shard {
	sh := &shard{srv: srv, index: index, wake: make(chan struct{}, 1)}
	sh.flusher.init(sh)
	return sh
}

// push puts sessions whose queued flag the caller has just set at the end of the queue.
func (sh *shard) push(sessions ...*session) {
	sh.mu.Lock()
	sh.queue = append(sh.queue, sessions...)
	sh.mu.Unlock()
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

func (sh *shard) run() {
	var turn []*session
	for {
		sh.mu.Lock()
		turn, sh.queue = sh.queue, turn[:0]
		sh.mu.Unlock()
		if len(turn) == 0 {
			sh.flusher.forget()
			select {
			case <-sh.wake:
				continue
			case <-sh.srv.ctx.Done():
				return
			}
		}
		for i, s := range turn {
			sh.flusher.flush(s)
			turn[i] = nil
		}
	}
}
