package wsedge

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// A subscription is one session's interest in one subject or pattern. Its place is a cursor for each
// partition in which its records may be; it holds no records.
type subscription struct {
	// Set once.
	s       *session
	subject Subject
	text    string
	hash    uint64 // SSE: what stands for it in the token
	th      *topicHub
	every   time.Duration // conflation; 0: every record

	// Guarded by topicHub.mu.
	slot   int // in its bucket
	hubbed bool

	// mu guards the growth of cursors; the slice is replaced, never changed, so that dispatchers read
	// it without the lock. In order of partition for patterns, home first for keys.
	mu      sync.Mutex
	cursors atomic.Pointer[[]*cursor]

	// Guarded by session.mu.
	counted int // in session.cursors
	waiting int // cursors that have not yet passed what was there at the start
	ended   bool
	lost    bool   // and because the right to it was lost
	yes     yes    // until when it is allowed, where somebody decides about it
	marks   []mark // SSE: its part of the token
}

// cursorFor returns the cursor for a partition, nil if there is none yet.
func (sub *subscription) cursorFor(partition int32) *cursor {
	list := *sub.cursors.Load()
	if int(partition) < len(list) && list[partition].partition == partition {
		return list[partition]
	}
	for _, c := range list {
		if c.partition == partition {
			return c
		}
	}
	return nil
}

// cursorAt returns the cursor for a partition, making it when there is none: a record of the subject has
// been found at index i where none was expected, or the partition is new. Everything in front of it
// there is not of the subject, or from before the subscription.
func (sub *subscription) cursorAt(d *dispatcher, i cache.Index) *cursor {
	c := sub.cursorFor(d.log.Partition())
	if c != nil && c.d == d {
		return c
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if c = sub.cursorFor(d.log.Partition()); c != nil && c.d == d {
		return c
	}
	old := c
	c = &cursor{sub: sub, d: d, log: d.log, partition: d.log.Partition(), place: i, pos: d.log.At(i), live: true, conflate: newConflation(sub.every)}
	list := *sub.cursors.Load()
	grown := make([]*cursor, 0, len(list)+1)
	for _, o := range list {
		if o != old {
			grown = append(grown, o)
		}
	}
	grown = append(grown, c)
	sub.cursors.Store(&grown)
	return c
}

// A cursor is a subscription's place in the log of one partition.
type cursor struct {
	// Set once.
	sub       *subscription
	d         *dispatcher
	log       *cache.Log
	partition int32
	conflate  *conflation // nil: every record

	// found is the index, plus one, of the first record that a dispatcher has found for the cursor
	// since the session last looked; zero: none. Who sets it from zero pushes the cursor on
	// session.woken, through link, unless it is stacked there still: a session in the midst of
	// reading may look at found before the cursor that it was set for has been pushed, and the next
	// record then finds it zero again.
	found   atomic.Uint64
	stacked atomic.Bool
	link    *cursor

	// Guarded by session.mu.
	next   *cursor         // in the session's line of active cursors
	place  cache.Index     // the next entry to read
	pos    bridge.Position // everything of the subject up to here has been sent or begun
	liveAt cache.Index     // the end of the log when the subscription was made
	replay *replay         // not nil: it is fed from Kafka until its replay joins the cache
	active bool
	more   bool // there may be more to read at place; otherwise place may move on to what was found
	live   bool // has passed liveAt
	ahead  bool // pos may be beyond what the log has got so far
	ended  bool
	mark   int32 // in sub.marks, plus one; 0: to be looked up
}

// lostTrack stands in found for a log that was reset: what lies between is not in the cache.
const lostTrack = math.MaxUint64

// wake notes that there is a record at index i (plus one, or lostTrack) and returns whether the session
// has to be told.
func (c *cursor) wake(found uint64) bool { return c.note(found) && c.push() }

func (c *cursor) note(found uint64) bool {
	return c.found.Load() == 0 && c.found.CompareAndSwap(0, found)
}

func (c *cursor) push() bool {
	if !c.stacked.CompareAndSwap(false, true) {
		return false
	}
	s := c.sub.s
	for {
		head := s.woken.Load()
		c.link = head
		if s.woken.CompareAndSwap(head, c) {
			return true
		}
	}
}

// arrive moves an idle cursor to the first record found for it: nothing of its subject lies between. A
// cursor that is in the midst of reading stays where it is. It returns true when the log was reset and
// the place means nothing any more. The caller goes on to read at once: what was found is not remembered
// but in place, and must not be jumped over when more is found. session.mu is held.
func (c *cursor) arrive() (lost bool) {
	found := c.found.Swap(0)
	switch {
	case found == 0:
	case found == lostTrack:
		if p := c.d.before.Load(); p != nil && !c.more && p.After(c.pos) {
			c.pos = *p
		}
		return true
	case !c.more && cache.Index(found-1) > c.place:
		c.place = cache.Index(found - 1)
		// The position moves along, if the place has not left the log in between.
		if pos := c.log.At(c.place); pos.After(c.pos) && c.log.Bounds().Start <= c.place {
			c.pos = pos
		}
	}
	c.more = true
	return false
}

// leftBehind says whether what the cursor would read next has left the cache. It changes nothing.
// session.mu is held.
func (c *cursor) leftBehind() bool {
	place := c.place
	switch found := c.found.Load(); {
	case found == lostTrack:
		return true
	case !c.more && found != 0:
		place = max(place, cache.Index(found-1))
	}
	return place < c.log.Bounds().Start
}

// takeWoken puts the cursors that dispatchers have woken into the line. session.mu is held.
func (s *session) takeWoken() {
	if s.woken.Load() == nil {
		return
	}
	for c := s.woken.Swap(nil); c != nil; {
		next := c.link
		c.stacked.Store(false) // from here on it may be pushed again
		s.activate(c)
		c = next
	}
}

// activate puts a cursor at the end of the line. session.mu is held.
func (s *session) activate(c *cursor) {
	if c.active || c.ended || s.closing || s.gone {
		return
	}
	c.active = true
	if s.last == nil {
		s.first = c
	} else {
		s.last.next = c
	}
	s.last = c
}

func (s *session) popActive() {
	c := s.first
	if s.first = c.next; s.first == nil {
		s.last = nil
	}
	c.active, c.next = false, nil
}

// passed sends `live` when the last of the subscription's cursors has passed what was there when it was
// made. The frame goes out in the next turn, after what has been sent in this one. session.mu is held.
func (s *session) passed(c *cursor) {
	if c.live || c.replay != nil || c.place < c.liveAt {
		return
	}
	c.live = true
	s.oneLive(c.sub)
}

func (s *session) oneLive(sub *subscription) {
	if sub.waiting--; sub.waiting == 0 && !sub.ended && !s.closing {
		s.control = appendLive(s.control, sub.text)
	}
}

// fellBehind deals with a cursor whose place has left the cache: a client that does not keep up is told
// to come back with its own vector; for one that does, the cache was too small or was reset, and it is
// read from Kafka. session.mu is held.
func (s *session) fellBehind(c *cursor) {
	if s.lagging {
		s.slow()
		return
	}
	c.more = false
	if c.conflate != nil {
		c.conflate.running = false
	}
	s.startReplay(c, nil)
}

// slow closes a session that does not keep up. session.mu is held; the caller sees to a turn.
func (s *session) slow() {
	if s.closing || s.gone {
		return
	}
	s.srv.metrics.slow.Add(1)
	s.srv.log.Info().Str("session", s.name()).Msg("client too slow: its place left the cache")
	s.closeLocked(4008, "slow", "slow")
}

// end takes a subscription out of everything. session.mu is held.
func (s *session) end(sub *subscription) {
	if sub.ended {
		return
	}
	sub.ended = true
	sub.th.remove(sub) // no dispatcher adds a cursor from here on
	s.cursors -= sub.counted
	s.subjects -= len(sub.text)
	for _, c := range *sub.cursors.Load() {
		c.ended = true
		delete(s.parked, c)
		if r := c.replay; r != nil {
			r.cancel()
			s.unpend(len(r.pending)) // and not in take: a turn may be sending them now
		}
	}
	s.srv.metrics.subscriptions.Add(-1)
}
