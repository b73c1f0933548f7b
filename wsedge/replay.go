package wsedge

import (
	"context"
	"errors"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// A replay feeds one cursor from Kafka, from a place that the cache does not reach back to until one that
// it does. There the cursor joins the cache: the replay has delivered everything up to a position, and
// the cache is read from the first entry after it, so there is no seam.
//
// All replays together keep to a pace (replaypace.go), and each to its client's: no more than maxPending bytes wait
// for it. While they do not drain, the replay gives its slot back, so that clients who do not read keep nobody else
// from being served; and no other replay of the session begins to read while maxSessionPending bytes wait, so that a
// client with many subscriptions costs no more than one with a few. A client that takes nothing for StallTimeout is
// slow.
type replay struct {
	// Set once.
	s      *session
	c      *cursor
	tp     bridge.TopicPartition
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // the session's
	room   chan struct{} // one slot: pending has become shorter

	// Guarded by session.mu.
	pending []byte // whole frames, the first perhaps begun
	joined  bool   // nothing is added any more: after pending comes the cache

	// Owned by run.
	at    bridge.Position // everything up to here is in pending, or was
	batch []byte
	held  conflatedWindow // of a conflated subscription: read, and after at
}

const (
	maxPending = 128 << 10
	// maxSessionPending is how much may wait for a session when a replay of it begins to read.
	maxSessionPending = 256 << 10
	replayBatch       = 16 << 10
	// replayPatience is how long a replay keeps its slot while its client does not drain.
	replayPatience = 250 * time.Millisecond
)

var errParked = errors.New("the client does not drain")

// startReplay begins a replay after the cursor's position. how says what is known of it; nil: nothing.
// session.mu is held.
func (s *session) startReplay(c *cursor, how *Resolution) {
	if s.replays == nil {
		s.replays = make(chan struct{}, s.srv.cfg.SessionReplays)
		s.drained = make(chan struct{}, 1)
	}
	r := &replay{
		s: s, c: c, at: c.pos, slots: s.replays, room: make(chan struct{}, 1),
		tp: bridge.TopicPartition{Topic: c.sub.subject.Topic, Partition: c.partition},
	}
	r.ctx, r.cancel = context.WithCancel(s.srv.ctx)
	c.replay, c.more = r, false
	s.srv.mu.Lock()
	if s.srv.closed {
		r.cancel()
	} else {
		s.srv.replaying.Add(1)
		s.srv.wg.Go(func() {
			defer s.srv.replaying.Add(-1)
			r.run(how)
		})
	}
	s.srv.mu.Unlock()
}

// take notes that n bytes of pending were sent. session.mu is held.
func (r *replay) take(n int) {
	if r.pending = r.pending[n:]; len(r.pending) == 0 {
		r.pending = nil
	}
	if !r.c.ended {
		r.s.unpend(n)
	}
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// unpend notes that n bytes wait no more. mu is held.
func (s *session) unpend(n int) {
	if s.pending -= n; s.pending <= maxSessionPending && s.drained != nil {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// waitDrained waits until little waits for the session. Who goes on wakes the next.
func (r *replay) waitDrained() error {
	for {
		r.s.mu.Lock()
		r.s.unpend(0)
		low := r.s.pending <= maxSessionPending
		r.s.mu.Unlock()
		if low {
			return r.ctx.Err()
		}
		select {
		case <-r.s.drained:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

func (r *replay) run(how *Resolution) {
	defer r.cancel()
	told := true // what the first how says was lost has been told in subbed
	pause := 5 * time.Millisecond
	for r.ctx.Err() == nil {
		if how == nil {
			got, err := r.s.srv.cfg.Backend.Resolve(r.ctx, r.tp, r.at)
			if err != nil {
				pause = r.sleep(pause, err)
				continue
			}
			how, told = &got, false
		}
		was := r.at
		err := r.attempt(how, told)
		switch {
		case err == nil:
			return
		case errors.Is(err, errParked):
			if !r.park() {
				return
			}
			pause = 5 * time.Millisecond
		default:
			if r.at.After(was) {
				pause = 5 * time.Millisecond
			}
			pause = r.sleep(pause, err)
		}
		how = nil
	}
}

// park waits until the client has taken enough, and closes one that takes nothing for StallTimeout; then,
// and when the replay has ended, it returns false.
func (r *replay) park() bool {
	stall := time.NewTimer(r.s.srv.cfg.StallTimeout)
	defer stall.Stop()
	for {
		r.s.mu.Lock()
		full := r.full()
		r.s.mu.Unlock()
		if !full {
			return true
		}
		select {
		case <-r.room: // it has taken something
			stall.Reset(r.s.srv.cfg.StallTimeout)
		case <-stall.C:
			r.s.mu.Lock()
			r.s.slow()
			r.s.mu.Unlock()
			r.s.enqueue()
			return false
		case <-r.ctx.Done():
			return false
		}
	}
}

// sleep waits before another try and returns how long to wait the next time.
func (r *replay) sleep(pause time.Duration, err error) time.Duration {
	var ue *bridge.UnavailableError
	if errors.As(err, &ue) && ue.RetryAfter > pause {
		pause = min(ue.RetryAfter, time.Second)
	}
	select {
	case <-time.After(pause):
	case <-r.ctx.Done():
	}
	return min(2*pause, time.Second)
}

var errNotYet = errors.New("the cache does not reach back to the place yet")

// attempt carries out one resolution. It returns nil when the cursor has joined the cache.
func (r *replay) attempt(how *Resolution, told bool) error {
	from := how.Offset
	switch how.Verdict {
	case FromCache:
		if how.At.After(r.at) {
			r.at = how.At
		}
		if r.join() {
			return nil
		}
		return errNotYet
	case FromKafka:
	case Lost:
		if !told {
			r.push(appendGap(nil, r.c.sub.text, r.tp.Partition, how.At, how.Reason))
		}
		if how.At.After(r.at) {
			r.at = how.At
		}
		if r.join() {
			return nil
		}
	default:
		// The place was good when the subscription began. That the cluster knows nothing of it now
		// means that it has lost its own memory; go on from what is cached, and say so.
		r.at = r.c.log.Bounds().Base
		r.push(appendGap(nil, r.c.sub.text, r.tp.Partition, r.at, bridge.ReasonTruncated))
		if r.join() {
			return nil
		}
		return errNotYet
	}
	release, err := r.acquire()
	if err != nil {
		return err
	}
	defer release()
	reader := pacedReader{srv: r.s.srv}
	defer reader.end()
	joined := false
	r.held.clear() // it is read again
	err = r.s.srv.cfg.Backend.Replay(r.ctx, r.tp, from, reader.before, func(run Replayed) error {
		reader.read(run)
		if err := r.emit(run); err != nil {
			return err
		}
		if joined = r.join(); joined {
			return bridge.ErrStop
		}
		return nil
	})
	if joined {
		return nil
	}
	if err == nil {
		err = errNotYet
	}
	return err
}

// acquire waits for a slot of the session and one of the server.
func (r *replay) acquire() (release func(), err error) {
	if err := take(r.ctx, r.slots, r.s.srv, limitSessionReplays); err != nil {
		return nil, err
	}
	// With the session's slot in hand: what waits drains whether or not anyone reads on.
	if err := r.waitDrained(); err != nil {
		<-r.slots
		return nil, err
	}
	if err := take(r.ctx, r.s.srv.replays, r.s.srv, limitReplays); err != nil {
		<-r.slots
		return nil, err
	}
	return func() {
		<-r.s.srv.replays
		<-r.slots
	}, nil
}

// take takes a slot, and counts that it had to wait for one.
func take(ctx context.Context, slots chan<- struct{}, srv *Server, limit string) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
		srv.limited(limit)
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// emit queues the frames of the subject's records in a run.
func (r *replay) emit(run Replayed) error {
	encoder, subject := r.s.srv.cfg.Encoder, &r.c.sub.subject
	if r.c.conflate != nil {
		return r.emitConflated(run)
	}
	upTo := r.at
	for i := range run.Records {
		rec := &run.Records[i]
		if !rec.Pos.After(r.at) {
			continue
		}
		upTo = rec.Pos
		if subject.Matches(rec.Key) {
			r.batch = encoder.AppendMsg(r.batch, r.tp, rec.Record, rec.Pos, bridge.Position{}, false)
			if len(r.batch) >= replayBatch {
				if err := r.flush(upTo); err != nil {
					return err
				}
			}
		}
	}
	if run.At.After(upTo) {
		upTo = run.At
	}
	return r.flush(upTo)
}

// emitConflated is emit for a conflated subscription.
func (r *replay) emitConflated(run Replayed) error {
	encoder, subject := r.s.srv.cfg.Encoder, &r.c.sub.subject
	upTo := r.at
	for i := range run.Records {
		rec := &run.Records[i]
		if !rec.Pos.After(r.at) {
			continue
		}
		upTo = rec.Pos
		if subject.Matches(rec.Key) {
			r.held.put(rec.Key, encoder.AppendMsg(nil, r.tp, rec.Record, rec.Pos, bridge.Position{}, false))
			if r.held.full() {
				r.batch = r.held.take(r.batch)
				if err := r.flush(upTo); err != nil {
					return err
				}
			}
		}
	}
	if run.At.After(upTo) {
		upTo = run.At
	}
	if _, reached := r.c.log.Seek(upTo); !reached && time.Since(r.held.sent) < r.c.conflate.every {
		return nil // more of the same keys may come; at stays where it was
	}
	r.batch = r.held.take(r.batch)
	return r.flush(upTo)
}

// flush queues the batch, after which everything up to a position is queued, and waits until the client
// has taken enough of it. An error ends the reading, not the replay.
func (r *replay) flush(upTo bridge.Position) error {
	r.push(r.batch)
	r.batch = r.batch[:0]
	if cap(r.batch) > 4*replayBatch {
		r.batch = nil
	}
	r.at = upTo
	return r.waitRoom()
}

func (r *replay) push(frames []byte) {
	if len(frames) == 0 {
		return
	}
	r.s.mu.Lock()
	if r.c.replay == r && !r.c.ended {
		r.pending = append(r.pending, frames...)
		r.s.pending += len(frames)
		r.s.weigh()
		r.s.activate(r.c)
	}
	r.s.mu.Unlock()
	r.s.enqueue()
}

// full says that the client must take some of what waits for it. When sessions keep too much, all together, anything that
// waits is too much: who reads gets one batch after the other even then. mu is held.
func (r *replay) full() bool {
	return len(r.pending) > maxPending || len(r.pending) > 0 && r.s.srv.overHeld()
}

// waitRoom waits until pending is short, but no longer than replayPatience.
func (r *replay) waitRoom() error {
	patience := time.NewTimer(replayPatience)
	defer patience.Stop()
	for {
		r.s.mu.Lock()
		full := r.full()
		r.s.mu.Unlock()
		if !full {
			return r.ctx.Err()
		}
		select {
		case <-r.room:
		case <-patience.C:
			return errParked
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// join moves the cursor over to the cache if that reaches back to where the replay has got.
func (r *replay) join() bool {
	s, c := r.s, r.c
	s.mu.Lock()
	defer s.enqueue()
	defer s.mu.Unlock()
	place, ok := c.log.Seek(r.at)
	if !ok {
		return false
	}
	// The node may know positions that its cache has not got yet: then these are skipped there.
	c.place, c.pos, c.ahead = place, r.at, true
	c.more = true
	r.joined = true
	s.activate(c)
	return true
}
