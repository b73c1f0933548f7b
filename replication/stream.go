package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// errMessageTooLarge: a peer sent more than a Raft message may have.
var errMessageTooLarge = errors.New("oversized Raft message")

// dialer opens connections to other nodes, which have proved themselves, preface sent.
type dialer struct {
	conns      *connSet
	protection protection
}

// dial opens a connection to the node id at addr.
func (d dialer) dial(ctx context.Context, id bridge.NodeID, addr string, p preface) (net.Conn, error) {
	c, err := d.protection.dial(ctx, d.conns, id, addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(p.encode()); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("send preface: %w", err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// stream is one group's raft.StreamLayer on the shared port.
type stream struct {
	group uint16
	route func(bridge.NodeID) *route // nil: nothing is known of the node
	self  addr                       // where others reach this node; Raft puts it into its messages
	in    *chanListener
	out   dialer
}

var _ raft.StreamLayer = (*stream)(nil)

func newStream(group uint16, self string, out dialer, route func(bridge.NodeID) *route) *stream {
	return &stream{group: group, route: route, self: addr(self), in: newChanListener(addr(self)), out: out}
}

func (s *stream) Accept() (net.Conn, error) { return s.in.Accept() }
func (s *stream) Close() error              { return s.in.Close() }
func (s *stream) Addr() net.Addr            { return s.self }

func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialTimeout))
	defer cancel()
	id, at := splitAddress(address)
	p := preface{kind: kindRaft, group: s.group, to: id}
	if r := s.route(id); r != nil {
		var err error
		if p, err = r.preface(kindRaft, s.group, id); err != nil {
			return nil, err
		}
	}
	return s.out.dial(ctx, id, at, p)
}

// dialTimeout is for connections between nodes. They are near each other; a dead one should be known soon.
const dialTimeout = 2 * time.Second

// addr is a net.Addr of a node.
type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

// limitConn bounds what may be read between two writes, which on the answering side of a Raft
// connection is one message. The library's decoder grows its buffers with what arrives, not with what a
// length field says, so this bounds its memory too.
type limitConn struct {
	net.Conn
	limit, left int64 // left is touched by the connection's one goroutine only
}

func newLimitConn(c net.Conn, limit int64) *limitConn {
	return &limitConn{Conn: c, limit: limit, left: limit}
}

func (c *limitConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errMessageTooLarge
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

func (c *limitConn) Write(p []byte) (int, error) {
	c.left = c.limit
	return c.Conn.Write(p)
}
