package wsedge

import (
	"context"
	"sync"
	"time"
)

// A replayPace spreads over time what all replays of a server read from Kafka. To look through what a broker sends at once
// takes milliseconds in which live records wait, and who resumes from long ago again and again asks for nothing but that.
// Rejected: fewer replays at once, and smaller pieces: as much is read a second, in as many milliseconds.
type replayPace struct {
	mu   sync.Mutex
	pace pace
}

const (
	// replayAhead is what a replay pays before it reads, in bytes, so that many that begin at once do not read at once.
	replayAhead = 64 << 10
	// replayBurst is for how long what was not read may be read later.
	replayBurst = 20 * time.Millisecond
	// recordBytes is what a record costs beside its bytes.
	recordBytes = 64
)

// owe notes that n bytes are read and returns for how long nothing more may be.
func (p *replayPace) owe(now int64, n, perSecond int) time.Duration {
	if perSecond < 1 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace.owe(now, n, perSecond)
	return time.Duration(max(0, p.pace.empty-now-int64(replayBurst)))
}

// payReplay waits until a replay that has read n bytes, or is about to, may go on, or ctx ends. It returns ctx's error.
func (srv *Server) payReplay(ctx context.Context, n int) error {
	wait := srv.replayPace.owe(time.Now().UnixNano(), n, srv.cfg.Limits.ReplayBytes)
	if wait == 0 {
		return ctx.Err()
	}
	srv.limited(limitReplayBytes)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replayedBytes is what a run costs: the bytes of all its records, whoever wants them, and a few for each.
func replayedBytes(run Replayed) (n int) {
	for i := range run.Records {
		r := &run.Records[i]
		n += len(r.Key) + len(r.Value) + recordBytes
		for _, h := range r.Headers {
			n += len(h.Key) + len(h.Value)
		}
	}
	return n
}
