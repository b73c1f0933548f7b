package wsedge

import (
	"errors"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// A stream is what a session has besides when it is a Server-Sent Events connection. Everything else is the
// same as for WebSocket: cursors into the cache, one shard that writes, the same limits, the same way to be
// slow. What is to be sent stays in WebSocket frames, those of the cache and those in session.control; the
// flusher takes their payload out and wraps it as an event (see eventWriter). So a record still lies in
// memory once, whoever gets it.
//
// A WebSocket client keeps its vectors itself. An EventSource keeps one word, the id of the last event, so
// each event carries a token of all vectors as they are once that event has been received. The marks are
// these vectors. They say what was sent, or begun, and nothing else: a cursor's own position may be ahead,
// since it is also where a gap that is yet to be told ends, or where a replay has got.
type stream struct {
	// Guarded by session.mu.
	subs  []*subscription // in the order of the request
	gaps  []streamGap     // of the gap frames in session.control, in order
	count int             // marks of all subs together
	retry int64           // milliseconds, of a bye
}

// streamGap is what a gap frame in session.control means for a mark.
type streamGap struct {
	c  *cursor
	at bridge.Position
}

// mark is one position of a stream's token.
type mark struct {
	partition int32
	pos       bridge.Position // everything of the subject up to here was sent or begun
	work      bridge.Position // the same when the pieces gathered so far in a turn will have been sent
}

func (m *mark) reached(pos bridge.Position) {
	if pos.After(m.pos) {
		m.pos = pos
	}
}

func (m *mark) willReach(pos bridge.Position) {
	if pos.After(m.work) {
		m.work = pos
	}
}

// begin takes a new subscription into the token. session.mu is held.
func (st *stream) begin(sub *subscription, cursors []*cursor) {
	sub.hash = subjectHash(sub.text)
	sub.marks = make([]mark, len(cursors))
	for i, c := range cursors {
		sub.marks[i] = mark{c.partition, c.pos, c.pos}
		c.mark = int32(i) + 1
	}
	st.subs = append(st.subs, sub)
	st.count += len(cursors)
}

// mark returns the mark of a cursor, making it for one that a dispatcher has added. session.mu is held.
func (s *session) mark(c *cursor) *mark {
	sub := c.sub
	if c.mark == 0 {
		i := 0
		for i < len(sub.marks) && sub.marks[i].partition != c.partition {
			i++
		}
		if i == len(sub.marks) {
			if s.stream.count >= maxStreamPositions {
				s.closeLocked(1001, "limit", "")
				return &mark{partition: c.partition}
			}
			sub.marks = append(sub.marks, mark{c.partition, c.pos, c.pos})
			s.stream.count++
		}
		c.mark = int32(i) + 1
	}
	return &sub.marks[c.mark-1]
}

// refresh moves the marks of idle cursors on to what was dispatched: nothing was found for them up to there.
// Without it the token of a quiet key in a busy partition would grow old, until Kafka no longer held what
// came after it and a resume was told of a loss that was none. session.mu is held.
func (s *session) refresh() {
	for _, sub := range s.stream.subs {
		for _, c := range *sub.cursors.Load() {
			// In this order: what is found after the first look is after done.
			done := c.d.dispatched()
			if c.found.Load() == 0 && !c.more && !c.active && !c.ahead && !c.ended && c.replay == nil {
				s.mark(c).reached(done)
			}
		}
	}
}

// appendToken appends the token of the marks as they will be. session.mu is held.
func (st *stream) appendToken(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, tokenVersion)
	for _, sub := range st.subs {
		dst = appendTokenSubject(dst, sub.hash)
		for i := range sub.marks {
			dst = appendTokenPosition(dst, sub.marks[i].partition, sub.marks[i].work)
		}
	}
	return endToken(dst, at)
}

// maxStreamInput is how much a client may send after its request, which is nothing that anyone reads.
const maxStreamInput = 4 << 10

var errTalks = errors.New("the client sends more after its request")

// runStream waits until the client has gone. It is the reader of a stream.
func (s *session) runStream() error {
	s.srv.metrics.streams.Add(1)
	defer s.srv.metrics.streams.Add(-1)
	s.release()
	var buf [64]byte
	for total := 0; ; {
		n, err := s.conn.Read(buf[:])
		if err != nil {
			return err
		}
		if total += n; total > maxStreamInput {
			s.mu.Lock()
			s.abort()
			s.mu.Unlock()
			return errTalks
		}
	}
}

// hold keeps a session from being given a turn until release: nothing of a stream may be sent until all its
// subscriptions have been made, for one that is refused refuses the request.
func (s *session) hold() { s.queued.Store(true) }

func (s *session) release() {
	s.queued.Store(false)
	s.enqueue()
}

// streamRetry is the least time after which an EventSource comes back. Up to DrainSpread is added at random: a
// node that dies tells nobody when to return, so each client is told at the start.
const streamRetry = 250 * time.Millisecond
