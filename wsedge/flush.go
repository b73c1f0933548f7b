package wsedge

import (
	"bytes"
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
	sh  *shard
	out tryWriter

	// The pieces of this turn, in the order in which they are sent.
	pieces  []piece
	size    int
	cursors []*cursor // whose pieces these are
	items   []cache.Item
	sampled uint32
}

const sampleEvery = 16

// turnBytes bounds what a session sends before it is another's turn.
const turnBytes = 256 << 10

// piece is a run of bytes of one kind and what its being sent means.
type piece struct {
	kind  pieceKind
	buf   []byte
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
)

func (f *flusher) init(sh *shard) {
	f.sh = sh
	f.out.init()
}

func (f *flusher) reset() {
	clear(f.pieces)
	clear(f.cursors)
	f.pieces, f.cursors, f.size = f.pieces[:0], f.cursors[:0], 0
	f.out.reset()
}

func (f *flusher) add(p piece) {
	f.pieces = append(f.pieces, p)
	f.size += len(p.buf)
}

// sample observes how long ago a record was written to Kafka, for one look into the cache in many. Only
// subscribers that are up to date count: how old a backlog is says nothing of the way here.
func (f *flusher) sample(c *cursor, timestamp int64) {
	if f.sampled++; c.live && f.sampled%sampleEvery == 0 {
		f.sh.srv.metrics.latency.Observe(float64(max(0, time.Now().UnixMilli()-timestamp)) / 1000)
	}
}

func (f *flusher) full() bool { return f.size >= turnBytes || len(f.pieces) >= maxBuffers-2 }

// flush gives a session its turn.
func (f *flusher) flush(s *session) {
	s.queued.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.blocked {
		return
	}
	defer f.reset()
	if len(s.rest) > 0 {
		f.add(piece{kind: pieceRest, buf: s.rest})
	}
	if len(s.control) > 0 {
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
	if f.size > 0 {
		for _, p := range f.pieces {
			if len(p.buf) > 0 {
				f.out.add(p.buf)
			}
		}
		var err error
		if n, err = f.out.write(s.raw); err != nil {
			s.abort()
			return
		}
	}
	f.commit(s, n)
	if n < f.size {
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
		if c.more && !c.ended {
			s.activate(c)
		}
	}
	if s.blocked {
		return
	}
	if len(s.control) == 0 && len(s.rest) == 0 {
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
	if c.ended {
		return
	}
	reading := c.more
	lost := c.arrive()
	c.more = true // until a piece says otherwise
	f.cursors = append(f.cursors, c)
	if r := c.replay; r != nil {
		if len(r.pending) > 0 {
			buf, count := wholeFrames(r.pending, turnBytes-f.size)
			f.add(piece{kind: pieceReplay, buf: buf, c: c, count: count})
			return
		}
		if !r.joined {
			c.more = false // the replay activates the cursor when it has something
			return
		}
		c.replay = nil
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
		if len(f.pieces) >= maxBuffers-1 {
			clear(r.Items)
			f.items = r.Items
			return it.Index, nil, false
		}
		f.add(piece{kind: pieceFrame, buf: it.Frame, c: c, place: it.Index + 1, pos: it.Pos, count: 1})
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

// passGap tells the client of a gap. The frame goes out in the next turn, in front of what comes after
// the gap; what comes before it has been sent.
func (f *flusher) passGap(s *session, c *cursor, next cache.Index, gap *cache.Gap) {
	if gap.At.After(c.pos) { // a client that resumed past it has been told
		s.control = appendGap(s.control, c.sub.text, c.partition, gap.At, gap.Reason)
		c.pos = gap.At
	}
	c.place = next
	s.passed(c)
}

// commit moves the session on by n bytes sent.
func (f *flusher) commit(s *session, n int) {
	messages, sent, text := 0, 0, false
	for i := range f.pieces {
		p := &f.pieces[i]
		k := min(n, len(p.buf))
		if k == 0 && len(p.buf) > 0 {
			break
		}
		n -= k
		whole := k == len(p.buf)
		switch p.kind {
		case pieceRest:
			if s.rest = s.rest[k:]; whole {
				s.rest = nil
			}
			sent += k
		case pieceControl:
			text = text || p.buf[0] == headText
			// Frames may have been added behind what was sent.
			if s.control = s.control[k:]; len(s.control) == 0 {
				s.control = nil
			}
			s.changed()
		case pieceReplay:
			taken := k
			if !whole {
				var frames int
				taken, frames = frameEnd(p.buf, k)
				s.rest = bytes.Clone(p.buf[k:taken])
				p.count = frames
			}
			p.c.replay.take(taken)
			messages, sent, text = messages+p.count, sent+k, true
		case pieceChunk:
			next, rest := p.chunk.Split(k)
			p.c.place = next
			pos := p.pos
			if !whole {
				s.rest = bytes.Clone(rest)
				pos = p.c.log.At(next)
				p.count = int(next - p.chunk.From)
			}
			if pos.After(p.c.pos) {
				p.c.pos = pos
			}
			messages, sent, text = messages+p.count, sent+k, true
			s.passed(p.c)
		case pieceFrame:
			p.c.place, p.c.pos = p.place, p.pos
			if !whole {
				s.rest = bytes.Clone(p.buf[k:])
			}
			messages, sent, text = messages+1, sent+k, true
			s.passed(p.c)
		case pieceSkip:
			p.c.place = p.place
			if p.pos.After(p.c.pos) {
				p.c.pos = p.pos
			}
			p.c.more = !p.done
			s.passed(p.c)
		}
		if !whole {
			break
		}
	}
	if text {
		s.lastText.Store(time.Now().UnixMilli())
	}
	if messages > 0 {
		f.sh.delivered.Add(int64(messages))
	}
	if sent > 0 {
		f.sh.bytes.Add(int64(sent))
	}
}

// block hands a session whose socket is full to a goroutine that waits for it.
func (f *flusher) block(s *session) {
	if !s.srv.beginWait(s) {
		return
	}
	go func() {
		err := waitWritable(s.raw)
		s.srv.endWait(s, err)
	}()
}

// writeAside sends a turn over a connection that cannot be tried (TLS, or a pipe in a test): a goroutine
// of its own writes a copy and may wait. The session is blocked meanwhile, and everything in the turn
// counts as begun.
func (f *flusher) writeAside(s *session) {
	buf := make([]byte, 0, f.size)
	for _, p := range f.pieces {
		buf = append(buf, p.buf...)
	}
	f.commit(s, f.size)
	if len(buf) > 0 && s.srv.beginWait(s) {
		go func() {
			_, err := s.conn.Write(buf)
			s.srv.endWait(s, err)
		}()
	}
	f.settle(s)
}

// beginWait marks a session as blocked. The caller holds session.mu and starts the goroutine that ends
// with endWait; it must not when the answer is false.
func (srv *Server) beginWait(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed {
		return false
	}
	srv.blocked[s] = true
	srv.wg.Add(1)
	s.blocked, s.lagging = true, true
	return true
}

func (srv *Server) endWait(s *session, err error) {
	defer srv.wg.Done()
	srv.mu.Lock()
	delete(srv.blocked, s)
	srv.mu.Unlock()
	s.mu.Lock()
	s.blocked = false
	if err != nil {
		s.abort()
	}
	s.mu.Unlock()
	s.enqueue()
}

// wholeFrames returns as many of the frames in buf as fit into room, at least one, and their number.
func wholeFrames(buf []byte, room int) ([]byte, int) {
	n, count := 0, 0
	for n < len(buf) {
		l := frameLen(buf[n:])
		if count > 0 && n+l > room {
			break
		}
		n, count = n+l, count+1
	}
	return buf[:n], count
}

// frameEnd returns the end of the frame in which byte k-1 lies, and the number of frames up to there.
func frameEnd(buf []byte, k int) (end, count int) {
	for end < k {
		end, count = end+frameLen(buf[end:]), count+1
	}
	return end, count
}
