package wsedge

import (
	"encoding/binary"
	"math"
	"time"
)

// meter counts the frames that a client sends, as they pass by: the library tells neither of fragments nor, before it has
// answered them, of pings. It belongs to the session's reader.
type meter struct {
	left   int64    // bytes of the payload that are still to come
	head   [14]byte // of the next frame, as far as it has come
	have   uint8
	total  int // bytes that have passed
	frames pace
	bytes  pace
}

// count returns how many frames begin in p.
func (m *meter) count(p []byte) (frames int) {
	for len(p) > 0 {
		if m.left > 0 {
			k := min(m.left, int64(len(p)))
			m.left -= k
			p = p[k:]
			continue
		}
		m.head[m.have] = p[0]
		m.have++
		p = p[1:]
		if m.have < 2 || int(m.have) < m.headLen() {
			continue
		}
		frames++
		switch n := m.head[1] & 0x7f; n {
		case 126:
			m.left = int64(binary.BigEndian.Uint16(m.head[2:]))
		case 127:
			// A length that no frame may have; the library will say so.
			m.left = int64(min(binary.BigEndian.Uint64(m.head[2:]), math.MaxInt64))
		default:
			m.left = int64(n)
		}
		m.have = 0
	}
	return frames
}

// headLen is how long the header is whose first two bytes are there (RFC 6455, section 5.2).
func (m *meter) headLen() int {
	n := 2
	switch m.head[1] & 0x7f {
	case 126:
		n = 4
	case 127:
		n = 10
	}
	if m.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// slowDown waits as long as it takes for what has just been read to keep to the pace of a session. Nothing is refused: the
// client's own socket fills, and it sends no faster than it is read.
func (c *wsConn) slowDown(p []byte) {
	now := time.Now().UnixNano()
	l, m := &c.s.srv.cfg.Limits, &c.meter
	m.total += len(p)
	c.wait(m.frames.owe(now, m.count(p), l.Frames), m.bytes.owe(now, len(p), l.Bytes))
}

const (
	// opsPerFrame is how many ops in one frame cost what a frame costs: who subscribes to thousands of subjects at once does not
	// notice, and nobody packs ops into frames to send them without end.
	opsPerFrame = 16
	// authFrames is how many frames an auth costs: to verify a token takes that much longer, and all that the session is
	// subscribed to is held against its rights.
	authFrames = 50
)

// charge has the reader wait as for so many frames more than have come.
func (c *wsConn) charge(frames int) {
	c.wait(c.meter.frames.owe(time.Now().UnixNano(), frames, c.s.srv.cfg.Limits.Frames), 0)
}

// unpacked charges a session for a message that was larger than what came over the wire for it: a compressed one costs what
// it holds.
func (c *wsConn) unpacked(size, wire int) {
	if size-wire > minUnpacked {
		c.wait(0, c.meter.bytes.owe(time.Now().UnixNano(), size-wire, c.s.srv.cfg.Limits.Bytes))
	}
}

// minUnpacked is more than the library may have read ahead of a message.
const minUnpacked = 1 << 10

// wait waits for what a session owes, a second at most: then it reads on, and owes more.
func (c *wsConn) wait(frames, bytes time.Duration) {
	srv := c.s.srv
	if frames == 0 && bytes == 0 {
		return
	}
	if frames > 0 {
		srv.limited(limitFrames)
	}
	if bytes > 0 {
		srv.limited(limitBytes)
	}
	t := time.NewTimer(min(max(frames, bytes), time.Second))
	defer t.Stop()
	select {
	case <-t.C:
	case <-srv.ctx.Done():
	}
}
