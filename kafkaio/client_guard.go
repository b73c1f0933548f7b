package kafkaio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

// ErrNotKafka says that a peer's answer is no frame of Kafka's protocol.
var ErrNotKafka = errors.New("the peer does not speak Kafka's protocol")

// frameGuard lets only answers of a sane length through. kafka-go's decoder believes the length and the
// counts in a frame: an HTTP server's "HTTP/1.1 400", taken for a frame of 1.2 GB, kept it busy for
// minutes. It is below every connection that we open, kafka-go's own ones included.
type frameGuard struct {
	net.Conn

	// Owned by the one goroutine that reads.
	head [4]byte // length of the current frame
	have int     // bytes of head
	left int64   // bytes of the frame that are still to come
}

func (g *frameGuard) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if bad := g.check(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

func (g *frameGuard) check(b []byte) error {
	for len(b) > 0 {
		if g.left > 0 {
			n := min(g.left, int64(len(b)))
			g.left -= n
			b = b[n:]
			continue
		}
		n := copy(g.head[g.have:], b)
		g.have += n
		b = b[n:]
		if g.have < len(g.head) {
			return nil
		}
		g.have = 0
		size := int32(binary.BigEndian.Uint32(g.head[:]))
		switch {
		case g.head[0] == 0x15 && g.head[1] == 3: // a TLS alert record
			return fmt.Errorf("%w: it expects TLS", ErrNotKafka)
		case size < 0 || size > maxFrame:
			return fmt.Errorf("%w: its answer begins with %q", ErrNotKafka, g.head[:])
		}
		g.left = int64(size)
	}
	return nil
}
