package replication

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// PeerService is what answers the calls of other nodes. Calls come from many goroutines at once; ctx ends
// with the caller's deadline. Errors that bridge defines reach the caller as they are (publish_types.go,
// ErrNotCoordinator, *RejectedError), others as *UnavailableError.
type PeerService interface {
	// Publish writes a record to the partition that this node coordinates. ErrNotCoordinator means that
	// nothing was written.
	Publish(ctx context.Context, tp bridge.TopicPartition, req bridge.PublishRequest) (bridge.PublishResult, error)
	// Head tells the head of a partition that this node coordinates.
	Head(ctx context.Context, tp bridge.TopicPartition) (bridge.Position, error)
	// Revoke has this node, which leads group 0, revoke tokens; bridge.Bridge.LocalRevoke says how.
	Revoke(ctx context.Context, r bridge.Revocation) error
	// Status tells what the node says of itself.
	Status(ctx context.Context) (bridge.NodeStatus, error)
}

// callTimeout bounds a call whose caller set no deadline.
const callTimeout = 5 * time.Second

// peerServer is the gRPC side of a PeerService.
type peerServer struct {
	peerpb.UnimplementedPeerServer
	n *Node
}

func newGRPCServer(n *Node) *grpc.Server {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxCall), grpc.MaxSendMsgSize(maxCall),
		grpc.ConnectionTimeout(prefaceTimeout),
		grpc.MaxConcurrentStreams(4096),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
	)
	peerpb.RegisterPeerServer(s, &peerServer{n: n})
	peerpb.RegisterMembersServer(s, &membersServer{n: n})
	peerpb.RegisterRevocationsServer(s, &revocationsServer{n: n})
	return s
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}

func (s *peerServer) Publish(ctx context.Context, m *peerpb.PublishRequest) (*peerpb.PublishReply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	req := bridge.PublishRequest{
		Topic: m.RequestTopic, Key: m.Key, Value: m.Value, User: m.User, Mid: m.Mid, Ack: bridge.Ack(m.Ack),
	}
	for _, h := range m.Headers {
		req.Headers = append(req.Headers, bridge.Header{Key: h.GetKey(), Value: h.GetValue()})
	}
	r, err := s.n.cfg.Service.Publish(ctx, bridge.TopicPartition{Topic: m.Topic, Partition: m.Partition}, req)
	if err != nil {
		return &peerpb.PublishReply{Failure: toFailure(err)}, nil
	}
	return &peerpb.PublishReply{
		Partition: r.Partition, Offset: int64(r.Offset), Epoch: uint64(r.Pos.Epoch), Seqno: uint64(r.Pos.Seqno), Duplicate: r.Duplicate,
	}, nil
}

func (s *peerServer) Head(ctx context.Context, m *peerpb.HeadRequest) (*peerpb.HeadReply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	p, err := s.n.cfg.Service.Head(ctx, bridge.TopicPartition{Topic: m.Topic, Partition: m.Partition})
	if err != nil {
		return &peerpb.HeadReply{Failure: toFailure(err)}, nil
	}
	return &peerpb.HeadReply{Epoch: uint64(p.Epoch), Seqno: uint64(p.Seqno)}, nil
}

func (s *peerServer) Status(ctx context.Context, _ *peerpb.StatusRequest) (*peerpb.StatusReply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, err := s.n.cfg.Service.Status(ctx)
	if err != nil {
		return &peerpb.StatusReply{Failure: toFailure(err)}, nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return &peerpb.StatusReply{Failure: toFailure(err)}, nil
	}
	return &peerpb.StatusReply{Json: b}, nil
}

func (s *peerServer) Groups(context.Context, *peerpb.GroupsRequest) (*peerpb.GroupsReply, error) {
	v := s.n.ownView()
	r := &peerpb.GroupsReply{Draining: v.draining}
	for _, id := range v.alive {
		r.Alive = append(r.Alive, string(id))
	}
	for _, g := range v.groups {
		r.Groups = append(r.Groups, &peerpb.Group{
			Group: uint32(g.Group), Leader: string(g.Leader), Term: uint64(g.Term), Last: g.Last, Applied: g.Applied,
			LastTerm: g.lastTerm, QuietMs: g.quiet.Milliseconds(), Barred: g.barred,
			Fitness: toFitness[g.fitness],
		})
	}
	return r, nil
}

func position(epoch, seqno uint64) bridge.Position {
	return bridge.Position{Epoch: cache.Epoch(epoch), Seqno: cache.Seqno(seqno)}
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
