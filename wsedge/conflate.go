package wsedge

import (
	"time"

	"github.com/tidewire/tidewire/cache"
)

// A conflated subscription gets no more than one record of each key in an interval, always the latest. Its
// cursors work like all others but for two things. Between rounds a cursor is parked: it is in no line, and
// what is found for it wakes nobody; the server's wheel brings it back when the interval is over. And a round
// reads up to where the log ended when it began, and of each key only the last record in front of that. The
// chains of the cache say which that is, so a round remembers no keys; what it leaves out is in front of
// something that it sends, or has sent by its end, so the client's vector means what it always does: whoever
// resumes from within a round gets the rest of it.
//
// The interval is counted from the end of a round, not from its beginning: a client that takes a round
// slowly still gets no key twice within an interval.
type conflation struct {
	every time.Duration

	// Guarded by session.mu.
	due     int64       // by Server.now: no round begins before
	until   cache.Index // of the round under way
	running bool        // a round is under way
	sent    bool        // it has sent something
	parked  bool
}

func newConflation(every time.Duration) *conflation {
	if every == 0 {
		return nil
	}
	return &conflation{every: every}
}

// early says whether the next round of a cursor has to wait, and parks the cursor then. session.mu is held.
func (s *session) early(c *cursor) bool {
	t := c.conflate
	if t == nil || t.running || c.replay != nil || s.srv.now() >= t.due {
		return false
	}
	if s.parked == nil {
		s.parked = make(map[*cursor]struct{})
	}
	s.parked[c] = struct{}{}
	t.parked = true
	s.wakeAt(t.due)
	return true
}

// ring puts the parked cursors that are due into the line, and does what is due for the session's token.
func (s *session) ring(now int64) {
	s.mu.Lock()
	next := int64(0)
	for c := range s.parked {
		switch due := c.conflate.due; {
		case due <= now:
			delete(s.parked, c)
			c.conflate.parked = false
			s.activate(c)
		case next == 0 || due < next:
			next = due
		}
	}
	if next != 0 {
		s.wakeAt(next)
	}
	s.watchClock()
	s.watchAnswers()
	s.mu.Unlock()
	s.enqueue()
}

// readRound adds the pieces of a conflated cursor's round. bounds was looked at after the cursor had arrived.
func (f *flusher) readRound(s *session, c *cursor, place cache.Index, bounds cache.Bounds) {
	t, subject := c.conflate, &c.sub.subject
	if !t.running {
		t.running, t.until = true, bounds.End
	}
	for !f.full() && place < t.until {
		var r cache.Read
		switch room := turnBytes - f.size; subject.Kind {
		case TopicPattern:
			r = c.log.LatestAll(place, t.until, room, f.items[:0])
		case PrefixPattern:
			r = c.log.LatestPrefix(place, t.until, subject.Key, room, f.items[:0])
		default:
			r = c.log.LatestKey(place, t.until, subject.Key, f.items[:0])
		}
		first := len(f.pieces) == 0 || f.pieces[len(f.pieces)-1].c != c
		switch {
		case r.Behind:
			if first {
				s.fellBehind(c)
			}
			return // or the pieces before are sent first, and the next turn finds it behind
		case r.Gap != nil && len(r.Items) == 0:
			if first {
				f.passGap(s, c, r.Next, r.Gap)
			}
			return
		}
		next := r.Next
		for i, it := range r.Items {
			if i > 0 && f.buffers >= maxBuffers-3 {
				next, r.Gap = r.Items[i-1].Index+1, nil
				break
			}
			f.addFrame(c, it)
			if r.Gap != nil {
				next = it.Index + 1
			}
		}
		if n := len(r.Items); n > 0 {
			f.sample(c, r.Items[n-1].Timestamp)
		}
		clear(r.Items)
		f.items = r.Items
		if r.Gap != nil {
			return
		}
		place = next
	}
	if place >= t.until {
		f.add(piece{kind: pieceSkip, c: c, place: place, pos: c.log.At(place), done: bounds.End == t.until})
	}
}

// roundEnded notes that all of a round was sent. session.mu is held.
func (t *conflation) roundEnded(now int64) {
	if t.running = false; t.sent {
		t.sent = false
		t.wait(now)
	}
}

// wait has the next round wait for an interval. The millisecond under way does not count.
func (t *conflation) wait(now int64) { t.due = now + t.every.Milliseconds() + 1 }

// conflatedWindow is what a replay does for a conflated subscription: of what is read from Kafka it holds back
// so many bytes of the latest records of each key, and lets go of those when there are more, when the
// interval is over or when the cache is reached.
type conflatedWindow struct {
	index  map[string]int // in frames, by key
	frames [][]byte       // in order; nil where a later one has taken the place
	bytes  int
	sent   time.Time
}

const (
	conflatedBytes  = 64 << 10
	conflatedFrames = 4096
)

// put takes a frame in.
func (w *conflatedWindow) put(key, frame []byte) {
	id := "null"
	if key != nil {
		id = "k" + string(key)
	}
	if w.index == nil {
		w.index = make(map[string]int)
	}
	if i, ok := w.index[id]; ok {
		w.bytes -= len(w.frames[i])
		w.frames[i] = nil
	}
	w.index[id] = len(w.frames)
	w.frames = append(w.frames, frame)
	w.bytes += len(frame)
}

func (w *conflatedWindow) full() bool {
	return w.bytes >= conflatedBytes || len(w.frames) >= conflatedFrames
}

// take appends the frames to dst and empties the window.
func (w *conflatedWindow) take(dst []byte) []byte {
	for _, frame := range w.frames {
		dst = append(dst, frame...)
	}
	w.clear()
	w.sent = time.Now()
	return dst
}

func (w *conflatedWindow) clear() { w.index, w.frames, w.bytes = nil, nil, 0 }
