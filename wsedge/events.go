package wsedge

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// An event of a stream is
//
//	event: msg
//	data: the payload of the frame
//	id: the token of the stream once this event has been received
//	(an empty line)
//
// The head is the same for all, the payload lies in the cache, and only the tail belongs to the session: it
// is written into a buffer of the flusher. The id comes after the data, so that a client that takes lines
// as they come does not take the token of a record that it has not got.
//
// A line break within the payload would end the line. Strings have none, they are escaped; but a value that
// is JSON stands as it was written, and there may be line breaks between its tokens. They become spaces.
// That is seldom, so it is not done when the frame is made but here, once a shard and record (see flat).
type eventWriter struct {
	scratch []byte // the tails of this turn

	// The last payload that flat had to copy, and its copy.
	from, copy []byte
}

var headMsg = []byte("event: msg\ndata: ")

// keepScratch is the largest buffer that a flusher keeps between turns.
const keepScratch = 256 << 10

func (w *eventWriter) reset() {
	if cap(w.scratch) > keepScratch {
		w.scratch = nil
	}
	w.scratch = w.scratch[:0]
}

// forget lets go of what flat has kept.
func (w *eventWriter) forget() { w.from, w.copy = nil, nil }

// flat returns a payload without line breaks.
func (w *eventWriter) flat(payload []byte) []byte {
	if bytes.IndexByte(payload, '\n') < 0 && bytes.IndexByte(payload, '\r') < 0 {
		return payload
	}
	if len(payload) != len(w.from) || unsafe.SliceData(payload) != unsafe.SliceData(w.from) {
		flat := bytes.Clone(payload)
		for i, c := range flat {
			if c == '\n' || c == '\r' {
				flat[i] = ' '
			}
		}
		w.from, w.copy = payload, flat
	}
	return w.copy
}

// payloadOf is what is in a frame.
func payloadOf(frame []byte) []byte {
	switch frame[1] {
	case 127:
		return frame[10:]
	case 126:
		return frame[4:]
	default:
		return frame[2:]
	}
}

// dress makes an event of a piece that is a msg frame at p.pos of the cursor p.c. session.mu is held.
func (w *eventWriter) dress(p *piece, s *session) {
	s.mark(p.c).willReach(p.pos)
	p.head, p.buf = headMsg, w.flat(payloadOf(p.buf))
	from := len(w.scratch)
	w.scratch = append(w.scratch, "\nid: "...)
	w.scratch = s.stream.appendToken(w.scratch)
	w.scratch = append(w.scratch, "\n\n"...)
	p.tail = w.scratch[from:len(w.scratch):len(w.scratch)]
}

// event returns an event made for one session, in the flusher's buffer. retry is left out when it is 0.
func (w *eventWriter) event(s *session, name, payload []byte, retry int64) []byte {
	from := len(w.scratch)
	w.scratch = appendEvent(w.scratch, name, w.flat(payload), retry)
	w.scratch = append(w.scratch, "id: "...)
	w.scratch = s.stream.appendToken(w.scratch)
	w.scratch = append(w.scratch, "\n\n"...)
	return w.scratch[from:len(w.scratch):len(w.scratch)]
}

// appendEvent appends the lines of an event but for the id and the empty line that ends it.
func appendEvent(dst, name, payload []byte, retry int64) []byte {
	dst = append(dst, "event: "...)
	dst = append(dst, name...)
	dst = append(dst, "\ndata: "...)
	dst = append(dst, payload...)
	dst = append(dst, '\n')
	if retry > 0 {
		dst = append(dst, "retry: "...)
		dst = strconv.AppendInt(dst, retry, 10)
		dst = append(dst, '\n')
	}
	return dst
}

// controlEvents adds what is in session.control as events, which begins the turn of a stream. session.mu is
// held.
func (f *flusher) controlEvents(s *session) {
	for _, sub := range s.stream.subs {
		for i := range sub.marks {
			sub.marks[i].work = sub.marks[i].pos
		}
	}
	gaps := s.stream.gaps
	for b := s.control; len(b) > 0 && !f.full(); {
		n := frameLen(b)
		frame := b[:n]
		b = b[n:]
		p := piece{kind: pieceEvent, raw: n}
		if frame[0] == headText {
			payload := payloadOf(frame)
			name := opOf(payload)
			var retry int64
			switch string(name) {
			case "gap":
				p.c, p.pos = gaps[0].c, gaps[0].at
				gaps = gaps[1:]
				s.mark(p.c).willReach(p.pos)
			case "bye":
				retry = s.stream.retry
			}
			p.buf = f.events.event(s, name, payload, retry)
		} // else a close frame: the end of the stream says as much
		f.add(p)
	}
}

// replayEvents adds the frames that a replay has read for a cursor. session.mu is held.
func (f *flusher) replayEvents(s *session, c *cursor, pending []byte) {
	for len(pending) > 0 && !f.full() {
		n := frameLen(pending)
		p := piece{kind: pieceReplay, buf: pending[:n], raw: n, c: c, count: 1}
		payload := payloadOf(p.buf)
		p.pos = positionOf(payload)
		if name := opOf(payload); string(name) != "msg" {
			s.mark(c).willReach(p.pos)
			p.buf = f.events.event(s, name, payload, 0)
		} else {
			f.events.dress(&p, s)
		}
		f.add(p)
		pending = pending[n:]
	}
}

// chunkFrames adds the records of a chunk one by one, for each has an id of its own or is compressed on its own,
// and returns the index to go on from.
func (f *flusher) chunkFrames(c *cursor, ch cache.Chunk) cache.Index {
	for k := range ch.Count() {
		if it := ch.Item(k); k == 0 || !f.full() {
			f.addFrame(c, it)
		} else {
			return it.Index
		}
	}
	return ch.Next
}

const opFront = `{"op":"`

// opOf returns the op of a payload that this package has made.
func opOf(payload []byte) []byte {
	rest := payload[len(opFront):]
	return rest[:bytes.IndexByte(rest, '"')]
}

// positionOf returns the position of the payload of a msg or gap frame that this package has made: the first
// one in it, after the subject.
func positionOf(payload []byte) bridge.Position {
	const front = len(`{"op":"msg","subject":`) // and as long with gap
	i, _ := endOfString(payload, front)
	i += bytes.IndexByte(payload[i:], '[')
	for payload[i] == '[' {
		i++
	}
	var n [3]uint64
	for k := range n {
		for ; payload[i] >= '0' && payload[i] <= '9'; i++ {
			n[k] = n[k]*10 + uint64(payload[i]-'0')
		}
		i++
	}
	return bridge.Position{Epoch: bridge.Epoch(n[1]), Seqno: bridge.Seqno(n[2])}
}
