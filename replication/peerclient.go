package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// connectTimeout is how long a call waits for a connection to a peer that is alive.
const connectTimeout = 2 * time.Second

// peerClients hold one connection to each other node, opened at once and kept warm.
type peerClients struct {
	dialer dialer
	alive  func(bridge.NodeID) bool

	mu    sync.RWMutex
	conns map[bridge.NodeID]*grpc.ClientConn
}

func newPeerClients(d dialer, alive func(bridge.NodeID) bool) *peerClients {
	return &peerClients{dialer: d, alive: alive, conns: map[bridge.NodeID]*grpc.ClientConn{}}
}

// add begins a connection to a node. The route is asked at each attempt where it is.
func (cs *peerClients) add(id bridge.NodeID, way *route) error {
	c, err := grpc.NewClient("passthrough:///"+string(id),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the dialer's connections are proven and private already (peertls)
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			p, err := way.preface(kindGRPC, 0, id)
			if err != nil {
				return nil, err
			}
			return cs.dialer.dial(ctx, id, way.addr(), p)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxCall), grpc.MaxCallSendMsgSize(maxCall)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return fmt.Errorf("client for node %s: %w", id, err)
	}
	cs.mu.Lock()
	cs.conns[id] = c
	cs.mu.Unlock()
	return nil
}

// remove ends the connection to a node, and the calls that wait for an answer of it.
func (cs *peerClients) remove(id bridge.NodeID) {
	cs.mu.Lock()
	c := cs.conns[id]
	delete(cs.conns, id)
	cs.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

func (cs *peerClients) conn(id bridge.NodeID) *grpc.ClientConn {
	cs.mu.RLock()
	defer cs.mu.RUnlock()
	return cs.conns[id]
}

// peerIsBack ends the wait before the next attempt to connect.
func (cs *peerClients) peerIsBack(id bridge.NodeID) {
	if c := cs.conn(id); c != nil {
		c.ResetConnectBackoff()
		c.Connect()
	}
}

func (cs *peerClients) close() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var errs []error
	for _, c := range cs.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// errNotSent: there is no connection to the node, so it has not heard of the call. It wraps
// bridge.ErrNotCoordinator: like an answer of that kind it says that nothing was done, and that the
// coordinator is to be looked up again.
func errNotSent(id bridge.NodeID, why error) error {
	return fmt.Errorf("%w: no connection to node %s: %w", bridge.ErrNotCoordinator, id, why)
}

// client returns a connected client of a node.
func (cs *peerClients) client(ctx context.Context, id bridge.NodeID) (peerpb.PeerClient, error) {
	c, err := cs.connected(ctx, id)
	if err != nil {
		return nil, err
	}
	return peerpb.NewPeerClient(c), nil
}

// connected returns the connection to a node when it is there.
func (cs *peerClients) connected(ctx context.Context, id bridge.NodeID) (*grpc.ClientConn, error) {
	c := cs.conn(id)
	if c == nil {
		return nil, errNotSent(id, errors.New("not a node of this cluster, or this node itself"))
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		s := c.GetState()
		if s == connectivity.Ready {
			return c, nil
		}
		if s == connectivity.Shutdown || !cs.alive(id) {
			return nil, errNotSent(id, fmt.Errorf("connection is %s", s))
		}
		c.Connect()
		if !c.WaitForStateChange(ctx, s) {
			return nil, errNotSent(id, ctx.Err())
		}
	}
}

// inTransit is an error of a call that was sent: what became of it is not known.
func inTransit(id bridge.NodeID, err error) error {
	return &bridge.UnavailableError{RetryAfter: defaultRetry, Err: fmt.Errorf("call node %s: %w", id, err)}
}

// Publish forwards a publish to the node that coordinates its partition. bridge.ErrNotCoordinator:
// nothing was written; *bridge.UnavailableError: it may have been. It returns within ctx's deadline, or
// callTimeout if there is none.
func (n *Node) Publish(ctx context.Context, node bridge.NodeID, tp bridge.TopicPartition, req bridge.PublishRequest) (bridge.PublishResult, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := n.peers.client(ctx, node)
	if err != nil {
		return bridge.PublishResult{}, err
	}
	m := &peerpb.PublishRequest{
		Topic: tp.Topic, Partition: tp.Partition, RequestTopic: req.Topic, Key: req.Key, Value: req.Value,
		User: req.User, Mid: req.Mid, Ack: uint32(req.Ack),
	}
	for _, h := range req.Headers {
		m.Headers = append(m.Headers, &peerpb.Header{Key: h.Key, Value: h.Value})
	}
	r, err := c.Publish(ctx, m)
	if err != nil {
		return bridge.PublishResult{}, inTransit(node, err)
	}
	if r.Failure != nil {
		return bridge.PublishResult{}, fromFailure(r.Failure)
	}
	return bridge.PublishResult{
		Partition: r.Partition, Offset: bridge.Offset(r.Offset), Pos: position(r.Epoch, r.Seqno), Duplicate: r.Duplicate,
	}, nil
}

// Head asks the coordinator for the head of a partition. Errors are as for Publish.
func (n *Node) Head(ctx context.Context, node bridge.NodeID, tp bridge.TopicPartition) (bridge.Position, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := n.peers.client(ctx, node)
	if err != nil {
		return bridge.Position{}, err
	}
	r, err := c.Head(ctx, &peerpb.HeadRequest{Topic: tp.Topic, Partition: tp.Partition})
	if err != nil {
		return bridge.Position{}, inTransit(node, err)
	}
	if r.Failure != nil {
		return bridge.Position{}, fromFailure(r.Failure)
	}
	return position(r.Epoch, r.Seqno), nil
}

// Status asks a node, which may be this one, for its status.
func (n *Node) Status(ctx context.Context, node bridge.NodeID) (bridge.NodeStatus, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if node == n.cfg.NodeID {
		return n.cfg.Service.Status(ctx)
	}
	var st bridge.NodeStatus
	c, err := n.peers.client(ctx, node)
	if err != nil {
		return st, err
	}
	r, err := c.Status(ctx, &peerpb.StatusRequest{})
	if err != nil {
		return st, inTransit(node, err)
	}
	if r.Failure != nil {
		return st, fromFailure(r.Failure)
	}
	if err := json.Unmarshal(r.Json, &st); err != nil {
		return st, inTransit(node, err)
	}
	return st, nil
}

// groups asks a node where it is in each group.
func (cs *peerClients) groups(ctx context.Context, id bridge.NodeID) (view, error) {
	c, err := cs.client(ctx, id)
	if err != nil {
		return view{}, err
	}
	r, err := c.Groups(ctx, &peerpb.GroupsRequest{})
	if err != nil {
		return view{}, inTransit(id, err)
	}
	if len(r.Groups) > maxGroups {
		return view{}, fmt.Errorf("node %s tells of %d groups", id, len(r.Groups))
	}
	v := view{at: time.Now(), draining: r.Draining, groups: make([]standing, len(r.Groups))}
	for _, id := range r.Alive {
		v.alive = append(v.alive, bridge.NodeID(id))
	}
	for i, g := range r.Groups {
		if int(g.Group) != i {
			return view{}, fmt.Errorf("node %s tells of group %d in place %d", id, g.Group, i)
		}
		v.groups[i] = standing{
			GroupStatus: bridge.GroupStatus{Group: bridge.GroupID(g.Group), Leader: bridge.NodeID(g.Leader), Term: bridge.Term(g.Term), Applied: g.Applied, Last: g.Last},
			lastTerm:    g.LastTerm, quiet: time.Duration(g.QuietMs) * time.Millisecond, barred: g.Barred,
			fitness: fromFitness[g.Fitness],
		}
	}
	return v, nil
}
