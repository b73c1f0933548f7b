package wsedge

import "time"

// One sweep serves all sessions: a timer of its own would cost each of them more than all the rest of
// being idle does.

const (
	slowSweep      = 200 * time.Millisecond
	minPulse       = 10 * time.Millisecond
	maxPulse       = time.Second
	pulsesPerBeat  = 10
	beatsUntilDead = 3 // a ping a beat; this many without any answer and the peer is gone
)

// sweep sends heartbeats and pings, ends connections whose peer is gone, and those whose socket is full
// and whose place has left the cache. Their sockets are not touched for it.
func (srv *Server) sweep() {
	pulse := time.NewTicker(min(max(srv.cfg.Heartbeat/pulsesPerBeat, minPulse), maxPulse))
	defer pulse.Stop()
	slow := time.NewTicker(slowSweep)
	defer slow.Stop()
	var sessions []*session
	beat := srv.cfg.Heartbeat.Milliseconds()
	last, awake := time.Now().UnixMilli(), int64(0)
	for {
		select {
		case <-srv.ctx.Done():
			return
		case <-pulse.C:
			srv.mu.Lock()
			for s := range srv.sessions {
				sessions = append(sessions, s)
			}
			srv.mu.Unlock()
			// By the clock that lastPong is told by: it may have been set, or the machine have slept.
			now := time.Now().UnixMilli()
			awake, last = awakeSince(awake, last, now, beat), now
			for _, s := range sessions {
				s.pulse(now, beat, awake)
			}
		case <-slow.C:
			srv.mu.Lock()
			for s := range srv.blocked {
				sessions = append(sessions, s)
			}
			srv.mu.Unlock()
			for _, s := range sessions {
				s.checkSlow()
			}
		}
		clear(sessions)
		sessions = sessions[:0]
	}
}

// awakeSince says since when the node has not stood still, in milliseconds as all it is given: what was known of it, when it was
// looked at last, now, and the heartbeat. A clock that is set counts, back too: the dead would live until it is there again.
func awakeSince(awake, last, now, beat int64) int64 {
	if now-last > beat || now < last {
		return now
	}
	return awake
}

// pulse does what is due for a session at a time; beat is the heartbeat; awake is since when the node has not stood still, for
// it asked nobody meanwhile, and answers lie unread; all in milliseconds.
func (s *session) pulse(now, beat, awake int64) {
	if since := s.frameSince.Load(); since != 0 && s.srv.cfg.Limits.FrameTimeout > 0 && now-max(since, awake) > s.srv.cfg.Limits.FrameTimeout.Milliseconds() &&
		s.frameSince.CompareAndSwap(since, 0) { // once
		s.srv.limited(limitFrameTime)
		s.close(4009, "frame_too_slow", "a message took too long to become whole")
	}
	text := s.lastText.Load()
	ping := now-s.lastPing >= beat
	if now-text < beat && !ping {
		return
	}
	s.mu.Lock()
	switch {
	case s.closing || s.gone:
	case s.stream == nil && !s.working.Load() && now-max(s.lastPong.Load(), awake) > beatsUntilDead*beat && !(s.lagging && now-text <= beatsUntilDead*beat):
		// A client that is slow to read is late to answer pings, but what it reads shows that it
		// is there.
		s.srv.log.Debug().Str("session", s.name()).Msg("no pongs: the client is gone")
		s.abort()
	case s.blocked || len(s.control) > 0:
	default:
		if ping && s.stream != nil {
			s.refresh()
		} else if ping {
			s.control = append(s.control, headPing, 0)
		}
		if now-text >= beat {
			s.control = appendHeartbeat(s.control)
		}
		if ping {
			s.lastPing = now
		}
	}
	s.mu.Unlock()
	s.enqueue()
}

// checkSlow closes a session whose socket is full when a cursor of its has left the cache.
func (s *session) checkSlow() {
	s.mu.Lock()
	if s.blocked && !s.closing && !s.gone {
		s.takeWoken()
		for c := s.first; c != nil; c = c.next {
			if c.replay != nil {
				continue // it is read from Kafka, at the client's pace
			}
			if c.leftBehind() {
				s.slow()
				break
			}
		}
	}
	s.mu.Unlock()
}
