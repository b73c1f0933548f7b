package wsedge

// This file is a turn's way to a socket behind TLS. What leaves a turn is counted in the bytes of frames, as without
// TLS: a frame counts as begun when a byte of it has been sealed, and what the socket has not taken of the last step
// lies in the connection, sealed, until it does.

// sendSealed sends what was sealed before this turn. It returns false when the turn cannot begin: the socket is still
// full, and someone waits for it, or the connection has ended. session.mu is held.
func (f *flusher) sendSealed(s *session) bool {
	all, err := s.sock.send(&f.out, s.raw)
	if err != nil {
		s.abort()
		return false
	}
	s.weigh() // there may be nothing else to send in this turn
	s.asideSent()
	if !all {
		f.block(s)
	}
	return all
}

// seal hands the pieces of the turn to TLS, a step at a time, until the socket is full. It returns how many bytes were
// sealed. session.mu is held.
func (f *flusher) seal(s *session) (n int, err error) {
	if f.plain == nil {
		f.plain = make([]byte, 0, sealStep)
	}
	f.plain = f.plain[:0]
	step := func() (more bool, err error) {
		if _, err := s.tls.Write(f.plain); err != nil {
			return false, err
		}
		n += len(f.plain)
		f.plain = f.plain[:0]
		return s.sock.send(&f.out, s.raw)
	}
	for i := range f.pieces {
		p := &f.pieces[i]
		for _, b := range [...][]byte{p.head, p.buf, p.tail} {
			for len(b) > 0 {
				k := copy(f.plain[len(f.plain):sealStep], b)
				f.plain = f.plain[:len(f.plain)+k]
				if b = b[k:]; len(f.plain) < sealStep {
					break
				}
				if more, err := step(); err != nil || !more {
					return n, err
				}
			}
		}
	}
	if len(f.plain) > 0 {
		_, err = step()
	}
	return n, err
}
