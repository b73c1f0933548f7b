package kafkaio

import (
	"context"
	"net"

	"github.com/segmentio/kafka-go"
)

// trackedConn is a connection of kafka-go's consumer group. Its requests block without regard to any
// context (a JoinGroup for as long as a rebalance takes), so that closing the connection is the only way
// to stop one.
type trackedConn struct {
	net.Conn
	group *Group
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
