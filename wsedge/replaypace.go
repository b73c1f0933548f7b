package wsedge

import (
	"context"
	"sync"
	"time"
)

// A replayPace spreads over time what all replays of a server read from Kafka. To look through what a broker sends at once
// takes milliseconds in which live records wait, and who resumes from long ago again and again asks for nothing but that.
// Replays read one piece each, in the order in which they ask. Rejected: fewer replays at once, and smaller pieces: as much
// is read a second, in as many milliseconds.
type replayPace struct {
	perSecond int
	clock     func() time.Duration // since some moment; not the wall's, which may be set
	turn      chan struct{}        // one slot: somebody waits until there is room, the others for him

	mu    sync.Mutex
	empty time.Duration // when all that was read will be paid for
}

const (
	// replayBurst is for how long what was not read may be read later.
	replayBurst = 20 * time.Millisecond
	// A piece counts before it is read with what the last one had, within these, in bytes: so that many replays that begin at
	// once do not read at once. What was too much is given back when the piece is there.
	minReplayAhead, maxReplayAhead = 64 << 10, 1 << 20
	// recordBytes is what a record costs beside its bytes.
	recordBytes = 64
	// longWait is how long a replay waits before it counts as limited: pieces wait for each other all the time.
	longWait = 100 * time.Millisecond
)

func newReplayPace(perSecond int, clock func() time.Duration) *replayPace {
	return &replayPace{perSecond: perSecond, clock: clock, turn: make(chan struct{}, 1)}
}

// add counts n bytes as read; less than none are given back.
func (p *replayPace) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.empty = max(p.empty, p.clock()) + time.Duration(n)*time.Second/time.Duration(p.perSecond)
}

// wait is for how long nothing more may be read.
func (p *replayPace) wait() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.empty-p.clock()-replayBurst)
}

// await waits for room and counts n bytes as read. When ctx ends first it returns ctx's error, and nothing is counted.
func (p *replayPace) await(ctx context.Context, n int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	for left := p.wait(); left > 0; left = p.wait() { // less, too, as others give back
		t := time.NewTimer(min(left, replayBurst))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	p.add(n)
	return nil
}

// pacedReader is what one replay reads at a pace. It belongs to one goroutine; end it at the end.
type pacedReader struct {
	srv      *Server
	expected int
	ahead    int // counted, and not read yet
}

// before is called before a piece is read. It returns ctx's error when that ends first.
func (r *pacedReader) before(ctx context.Context) error {
	p := r.srv.replayPace
	if p.perSecond < 1 {
		return ctx.Err()
	}
	r.end()
	n := min(max(r.expected, minReplayAhead), maxReplayAhead)
	begun := p.clock()
	if err := p.await(ctx, n); err != nil {
		return err
	}
	if r.ahead = n; p.clock()-begun > longWait {
		r.srv.limited(limitReplayBytes)
	}
	return nil
}

// read counts a piece that has come.
func (r *pacedReader) read(piece Replayed) {
	if r.srv.replayPace.perSecond > 0 {
		r.expected = replayedBytes(piece)
		r.srv.replayPace.add(r.expected - r.ahead)
		r.ahead = 0
	}
}

// end gives back what was counted and not read.
func (r *pacedReader) end() {
	if r.ahead > 0 {
		r.srv.replayPace.add(-r.ahead)
		r.ahead = 0
	}
}

// replayedBytes is what a piece costs: the bytes of all its records, whoever wants them, and a few for each.
func replayedBytes(piece Replayed) (n int) {
	for i := range piece.Records {
		r := &piece.Records[i]
		n += len(r.Key) + len(r.Value) + recordBytes
		for _, h := range r.Headers {
			n += len(h.Key) + len(h.Value)
		}
	}
	return n
}
