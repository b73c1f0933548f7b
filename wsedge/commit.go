package wsedge

import (
	"bytes"
	"time"
)

// This file is the second half of a turn: what it means that the socket took so many bytes, and who waits when
// it took less.

// commit moves the session on by n bytes sent.
func (f *flusher) commit(s *session, n int) {
	messages, sent, text := 0, 0, false
	for i := range f.pieces {
		p := &f.pieces[i]
		size := p.len()
		k := min(n, size)
		if k == 0 && size > 0 {
			break
		}
		n -= k
		whole := k == size
		switch p.kind {
		case pieceRest:
			if s.rest = s.rest[k:]; whole {
				s.rest, s.restOf = nil, nil
			}
			sent += k
		case pieceControl:
			text = text || p.buf[0] == headText
			// Frames may have been added behind what was sent.
			if s.control = s.control[k:]; len(s.control) == 0 {
				s.control = nil
			}
			s.changed()
		case pieceEvent:
			text = true
			if s.control = s.control[p.raw:]; len(s.control) == 0 {
				s.control = nil
			}
			if p.c != nil { // a gap
				s.stream.gaps = s.stream.gaps[1:]
				s.mark(p.c).reached(p.pos)
			}
			if !whole {
				s.rest = p.from(k)
			}
			s.changed()
		case pieceReplay:
			if t := p.c.conflate; t != nil {
				t.wait(s.srv.now())
			}
			if s.stream != nil {
				p.c.replay.take(p.raw)
				s.mark(p.c).reached(p.pos)
				if !whole {
					s.rest, s.restOf = p.from(k), p.c.sub
				}
				messages, sent, text = messages+1, sent+k, true
				break
			}
			taken := k
			if !whole {
				var frames int
				taken, frames = frameEnd(p.buf, k)
				s.rest, s.restOf = bytes.Clone(p.buf[k:taken]), p.c.sub
				p.count = frames
			}
			p.c.replay.take(taken)
			messages, sent, text = messages+p.count, sent+k, true
		case pieceChunk:
			next, rest := p.chunk.Split(k)
			p.c.place = next
			pos := p.pos
			if !whole {
				s.rest, s.restOf = bytes.Clone(rest), p.c.sub
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
				s.rest, s.restOf = p.from(k), p.c.sub
			}
			if s.stream != nil {
				s.mark(p.c).reached(p.pos)
			}
			if p.c.conflate != nil {
				p.c.conflate.sent = true
			}
			messages, sent, text = messages+1, sent+k, true
			s.passed(p.c)
		case pieceSkip:
			p.c.place = p.place
			if p.pos.After(p.c.pos) {
				p.c.pos = p.pos
			}
			if s.stream != nil {
				s.mark(p.c).reached(p.c.pos)
			}
			p.c.more = !p.done
			if t := p.c.conflate; t != nil && t.running {
				t.roundEnded(s.srv.now())
			}
			s.passed(p.c)
		}
		if !whole {
			break
		}
	}
	s.weigh()
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

// writeAside sends a turn over a connection that cannot be tried (one that another port has sealed, or a pipe): a goroutine
// of its own writes a copy and may wait. The session is blocked meanwhile, and everything in the turn
// counts as begun.
func (f *flusher) writeAside(s *session) {
	if s.standing != nil {
		f.noteAside(s)
	}
	buf := make([]byte, 0, f.size)
	for i := range f.pieces {
		p := &f.pieces[i]
		buf = append(append(append(buf, p.head...), p.buf...), p.tail...)
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

// asideSent forgets whose records were on their way, if none is any more. session.mu is held.
func (s *session) asideSent() {
	if s.aside != nil && s.sock.unsent() == 0 {
		s.aside = nil
	}
}

// noteAside remembers whose records a turn is about to write aside, or to seal. session.mu is held.
func (f *flusher) noteAside(s *session) {
	if s.restOf != nil {
		s.aside = append(s.aside, s.restOf)
	}
	for i := range f.pieces {
		p := &f.pieces[i]
		if p.c == nil || p.len() == 0 {
			continue
		}
		if n := len(s.aside); n == 0 || s.aside[n-1] != p.c.sub {
			s.aside = append(s.aside, p.c.sub)
		}
	}
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
	s.asideSent() // what was sealed may not be
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
