package wsedge

import (
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// A flush is one turn of a session: its worker gathers what there is to send, straight from where it
// lies, hands it to the socket in one system call that does not wait, and moves the session on by what
// the socket took. If that was not all, the session is blocked: a goroutine of its own waits until the
// socket takes bytes again, and nothing but the rest of one half-sent frame is kept for it meanwhile.
//
// Invariants, all under session.mu:
//  1. A cursor's place moves past a record when its frame has been sent or begun, never before. The rest
//     of a frame begun is in session.rest and goes out before anything else.
//  2. A cursor that may have more to read is active, or woken, or its more flag is set by a turn that is
//     not over.
//  3. While a session is blocked nobody but its waiter (or aside writer) touches the socket.
type flusher struct {
	sh    *shard
	out   tryWriter
	plain []byte // what TLS seals next

	// The pieces of this turn, in the order in which they are sent.
	pieces  []piece
	size    int
	buffers int       // of all pieces together
	cursors []*cursor // whose pieces these are
	items   []cache.Item
	events  eventWriter // what an SSE session's pieces are wrapped in
	sampled uint32

	// The last record that was compressed here, and what it was compressed to.
	squeezedKey deflatedKey
	squeezed    []byte
}

const sampleEvery = 16

// turnBytes bounds what a session sends before it is another's turn.
const turnBytes = 256 << 10

// piece is a run of bytes of one kind and what its being sent means.
type piece struct {
	kind  pieceKind
	head  []byte // SSE: what stands in front of buf and behind it
	buf   []byte
	tail  []byte
	raw   int // SSE: how many bytes of session.control or replay.pending it stands for
	c     *cursor
	chunk cache.Chunk // pieceChunk

	// For the kinds that belong to a cursor: where it stands when the piece has been sent.
	place cache.Index
	pos   bridge.Position
	count int
	done  bool // the cursor has then read all there is
}

type pieceKind uint8

const (
	pieceRest    pieceKind = iota
	pieceControl           // what is in session.control
	pieceChunk             // consecutive frames of the cache
	pieceFrame             // one frame of the cache
	pieceReplay            // frames of a replay
	pieceSkip              // no bytes: the cursor moves on
	pieceEvent             // one frame of session.control, as an SSE event
)

func (p *piece) len() int { return len(p.head) + len(p.buf) + len(p.tail) }

// from returns a copy of what is behind the first k bytes.
func (p *piece) from(k int) []byte {
	rest := make([]byte, 0, p.len()-k)
	for _, b := range [...][]byte{p.head, p.buf, p.tail} {
		rest = append(rest, b[min(k, len(b)):]...)
		k -= min(k, len(b))
	}
	return rest
}

func (f *flusher) init(sh *shard) {
	f.sh = sh
	f.out.init()
}

func (f *flusher) reset() {
	clear(f.pieces)
	clear(f.cursors)
	f.pieces, f.cursors, f.size, f.buffers = f.pieces[:0], f.cursors[:0], 0, 0
	f.events.reset()
	f.out.reset()
}

// forget lets go of what was kept for the next session, when there is none for now.
func (f *flusher) forget() {
	f.events.forget()
	f.squeezedKey, f.squeezed = deflatedKey{}, nil
}

func (f *flusher) add(p piece) {
	f.pieces = append(f.pieces, p)
	f.size += p.len()
	if f.buffers++; p.head != nil {
		f.buffers += 2
	}
}

// sample observes how long ago a record was written to Kafka, for one look into the cache in many. Only
// subscribers that are up to date count: how old a backlog is says nothing of the way here.
func (f *flusher) sample(c *cursor, timestamp int64) {
	if f.sampled++; c.live && f.sampled%sampleEvery == 0 {
		f.sh.srv.metrics.latency.Observe(float64(max(0, time.Now().UnixMilli()-timestamp)) / 1000)
	}
}

func (f *flusher) full() bool { return f.size >= turnBytes || f.buffers >= maxBuffers-4 }

// flush gives a session its turn.
func (f *flusher) flush(s *session) {
	s.queued.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.blocked {
		return
	}
	defer f.reset()
	if s.standing != nil && s.checkClock() == 0 && s.gone {
		return // the token expired, and the rest of a record may not be sent
	}
	sealing := s.tls != nil && s.raw != nil
	if sealing && !f.sendSealed(s) {
		return
	}
	if len(s.rest) > 0 {
		f.add(piece{kind: pieceRest, buf: s.rest})
	}
	switch {
	case s.stream != nil:
		f.controlEvents(s)
	case len(s.control) > 0:
		f.add(piece{kind: pieceControl, buf: s.control})
	}
	s.takeWoken()
	if !s.closing {
		f.gather(s)
	}
	if len(f.pieces) == 0 {
		f.settle(s)
		return
	}
	if s.raw == nil {
		f.writeAside(s)
		return
	}
	n := 0
	switch {
	case f.size == 0:
	case sealing:
		if s.standing != nil {
			f.noteAside(s)
		}
		var err error
		if n, err = f.seal(s); err != nil {
			s.abort()
			return
		}
	default:
		for i := range f.pieces {
			p := &f.pieces[i]
			if p.head != nil {
				f.out.add(p.head)
			}
			if len(p.buf) > 0 {
				f.out.add(p.buf)
			}
			if p.tail != nil {
				f.out.add(p.tail)
			}
		}
		var err error
		if n, err = f.out.write(s.raw); err != nil {
			s.abort()
			return
		}
	}
	f.commit(s, n)
	if len(s.rest) > smallRest && s.srv.overHeld() {
		// The frame has been begun and can be neither kept nor taken back. The client has not got it, and comes back for it.
		s.srv.limited(limitPending)
		s.abort()
		return
	}
	s.asideSent()
	if n < f.size || sealing && s.sock.unsent() > 0 {
		f.block(s)
	}
	f.settle(s)
}

// settle puts cursors that have more back into the line and sees to the next turn.
func (f *flusher) settle(s *session) {
	if s.gone {
		return
	}
	for _, c := range f.cursors {
		if c.more && !c.ended && !(c.conflate != nil && c.conflate.parked) {
			s.activate(c)
		}
	}
	if s.blocked {
		return
	}
	if len(s.control) == 0 && len(s.rest) == 0 {
		if s.closing && s.stream != nil {
			_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // there is no answer to wait for
		}
		if s.closing && s.allSent != nil {
			close(s.allSent)
			s.allSent = nil
		}
		if s.first == nil {
			s.lagging = false
			return
		}
	}
	s.enqueue()
}

// gather reads what the active cursors have to send, each in its turn, until the turn is full.
func (f *flusher) gather(s *session) {
	last := s.last
	for c := s.first; c != nil && !f.full(); c = s.first {
		s.popActive()
		f.read(s, c)
		if s.closing || c == last {
			return
		}
	}
}

// read adds the pieces of one cursor.
func (f *flusher) read(s *session, c *cursor) {
	if c.ended || s.early(c) {
		return
	}
	reading := c.more
	lost := c.arrive()
	c.more = true // until a piece says otherwise
	f.cursors = append(f.cursors, c)
	if r := c.replay; r != nil {
		if len(r.pending) > 0 && s.stream != nil {
			f.replayEvents(s, c, r.pending)
			return
		}
		if len(r.pending) > 0 {
			buf, count := wholeFrames(r.pending, turnBytes-f.size)
			f.add(piece{kind: pieceReplay, buf: buf, c: c, count: count})
			return
		}
		if !r.joined {
			c.more = false // the replay activates the cursor when it has something
			return
		}
		if c.replay = nil; s.early(c) {
			return
		}
	}
	// What is appended after this look will be dispatched after this read began, and wake the cursor
	// again; so to have read up to here is to have read everything.
	bounds := c.log.Bounds()
	place := c.place
	if lost || reading && bounds.Base.After(c.pos) {
		s.fellBehind(c)
		return
	}
	if c.ahead { // what the client had before it came here is still arriving
		if !bounds.Head.After(c.pos) {
			// And nothing else has. More of it may come while we look, so the log must not be read at all.
			f.add(piece{kind: pieceSkip, c: c, place: max(place, bounds.End), pos: bounds.Head, done: true})
			return
		}
		if i, ok := c.log.Seek(c.pos); ok && i > place {
			place = i
		}
		c.ahead = false
	}
	if c.conflate != nil {
		f.readRound(s, c, place, bounds)
		return
	}
	for !f.full() {
		var next cache.Index
		var gap *cache.Gap
		var behind bool
		next, gap, behind = f.readLog(c, place)
		if behind {
			if len(f.pieces) == 0 || f.pieces[len(f.pieces)-1].c != c {
				s.fellBehind(c)
			}
			return // or the pieces before are sent first, and the next turn finds it behind
		}
		if gap != nil {
			if len(f.pieces) == 0 || f.pieces[len(f.pieces)-1].c != c {
				f.passGap(s, c, next, gap)
			}
			return
		}
		if next >= bounds.End {
			f.add(piece{kind: pieceSkip, c: c, place: next, pos: bounds.Head, done: true})
			return
		}
		place = next
	}
}

// readLog adds the pieces of one look into the cache from a place on. A gap is returned only when it is
// the first thing there.
func (f *flusher) readLog(c *cursor, place cache.Index) (next cache.Index, gap *cache.Gap, behind bool) {
	room := turnBytes - f.size
	subject := &c.sub.subject
	if subject.Kind == TopicPattern {
		ch := c.log.ReadAll(place, room)
		if ch.Behind || ch.Gap != nil {
			return ch.Next, ch.Gap, ch.Behind
		}
		if len(ch.Bytes) > 0 && (c.sub.s.stream != nil || c.sub.s.deflate) {
			f.sample(c, ch.Timestamp())
			return f.chunkFrames(c, ch), nil, false
		}
		if len(ch.Bytes) > 0 {
			f.sample(c, ch.Timestamp())
			f.add(piece{kind: pieceChunk, buf: ch.Bytes, c: c, chunk: ch, place: ch.Next, pos: ch.Last(), count: ch.Count()})
		}
		return ch.Next, nil, false
	}
	var r cache.Read
	if subject.Kind == PrefixPattern {
		r = c.log.ReadPrefix(place, subject.Key, room, f.items[:0])
	} else {
		r = c.log.ReadKey(place, subject.Key, room, f.items[:0])
	}
	if r.Behind {
		return 0, nil, true
	}
	for _, it := range r.Items {
		if f.buffers >= maxBuffers-3 {
			clear(r.Items)
			f.items = r.Items
			return it.Index, nil, false
		}
		f.addFrame(c, it)
	}
	n := len(r.Items)
	if n > 0 {
		f.sample(c, r.Items[n-1].Timestamp)
		if r.Gap != nil {
			r.Next = r.Items[n-1].Index + 1
		}
		clear(r.Items)
		f.items = r.Items
		return r.Next, nil, false
	}
	return r.Next, r.Gap, false
}

// addFrame adds the piece of one record of the cache.
func (f *flusher) addFrame(c *cursor, it cache.Item) {
	p := piece{kind: pieceFrame, buf: it.Frame, c: c, place: it.Index + 1, pos: it.Pos, count: 1}
	switch s := c.sub.s; {
	case s.stream != nil:
		f.events.dress(&p, s)
	case s.deflate:
		p.buf = f.squeeze(c, it.Pos, it.Frame)
	}
	f.add(p)
}

// passGap tells the client of a gap. The frame goes out in the next turn, in front of what comes after
// the gap; what comes before it has been sent.
func (f *flusher) passGap(s *session, c *cursor, next cache.Index, gap *cache.Gap) {
	if gap.At.After(c.pos) { // a client that resumed past it has been told
		s.control = appendGap(s.control, c.sub.text, c.partition, gap.At, gap.Reason)
		c.pos = gap.At
		if s.stream != nil {
			s.stream.gaps = append(s.stream.gaps, streamGap{c, gap.At})
		}
	}
	c.place = next
	s.passed(c)
}
