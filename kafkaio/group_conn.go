package kafkaio

import (
	"context"
	"encoding/binary"
	"net"
	"slices"

	"github.com/segmentio/kafka-go"
)

// trackedConn is a connection of kafka-go's consumer group, with two faults of that mended:
//
//   - Its requests block without regard to any context (a JoinGroup for as long as a rebalance takes), so
//     that closing the connection is the only way to stop one. Therefore the group knows them all.
//   - Its question for the topics' partitions tells the broker to create those that do not exist. With a
//     broker that allows it (auto.create.topics.enable is true by default) each rebalance would bring back
//     a topic that an operator has just deleted. Therefore that flag is cleared on the way.
type trackedConn struct {
	net.Conn
	group  *Group
	writes noTopicCreation // one goroutine writes at a time: kafka-go holds a lock
}

func (c *trackedConn) Write(b []byte) (int, error) {
	return c.Conn.Write(c.writes.filter(b))
}

// noTopicCreation clears allow_auto_topic_creation in the Metadata requests of version 6 of a stream of
// requests: their last byte. The stream may be cut anywhere.
type noTopicCreation struct {
	head [8]byte // length (4), API key (2) and version (2) of the current request
	have int     // bytes of head
	left int64   // bytes of the request after head
}

// metadataV6 is how the requests meant here begin.
var metadataV6 = [4]byte{0, 3, 0, 6}

// filter returns b, or a copy with the flag cleared.
func (f *noTopicCreation) filter(b []byte) []byte {
	out := b
	for i := 0; i < len(b); {
		if f.have < len(f.head) {
			f.head[f.have] = b[i]
			f.have++
			i++
			if f.have == 4 && binary.BigEndian.Uint32(f.head[:]) < 4 {
				f.have = 0 // an empty SASL token of the old kind: no request
			} else if f.have == len(f.head) {
				f.left = int64(binary.BigEndian.Uint32(f.head[:])) - 4
			}
		} else {
			n := min(f.left, int64(len(b)-i))
			f.left -= n
			i += int(n)
		}
		if f.have == len(f.head) && f.left == 0 {
			if [4]byte(f.head[4:]) == metadataV6 && b[i-1] == 1 {
				if &out[0] == &b[0] {
					out = slices.Clone(b)
				}
				out[i-1] = 0
			}
			f.have = 0
		}
	}
	return out
}

func (c *trackedConn) Close() error {
	c.group.mu.Lock()
	delete(c.group.conns, c)
	c.group.mu.Unlock()
	return c.Conn.Close()
}

// dialer is the client's, with its connections tracked.
func (g *Group) dialer() *kafka.Dialer {
	d := g.cfg.Client.Dialer()
	dial := d.DialFunc
	d.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &trackedConn{Conn: conn, group: g}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.conns == nil {
			_ = conn.Close()
			return nil, ErrClosed
		}
		g.conns[c] = struct{}{}
		return c, nil
	}
	return d
}

// cut closes the group's connections and lets it open no others.
func (g *Group) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		_ = c.Conn.Close()
	}
	g.conns = nil
}
