package replication

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// revocationsServer is the gRPC side of PeerService.Revoke.
type revocationsServer struct {
	peerpb.UnimplementedRevocationsServer
	n *Node
}

// revokeOutcomes are the errors that cross between nodes; what is not one of them is "unavailable".
var revokeOutcomes = []struct {
	outcome peerpb.RevokeOutcome
	err     error
}{
	{peerpb.RevokeOutcome_REVOKE_OUTCOME_NOT_LEADER, bridge.ErrNotCoordinator},
	{peerpb.RevokeOutcome_REVOKE_OUTCOME_TOO_MANY, bridge.ErrTooManyRevocations},
	{peerpb.RevokeOutcome_REVOKE_OUTCOME_OLD_BUILDS, bridge.ErrOldBuilds},
}

func (s *revocationsServer) Revoke(ctx context.Context, m *peerpb.RevokeRequest) (*peerpb.RevokeReply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	r := bridge.Revocation{By: bridge.RevokeBy(min(m.By, 255)), Value: m.Value, At: m.At, Until: m.Until, Reason: m.Reason}
	if err := r.Validate(); err != nil {
		return &peerpb.RevokeReply{Outcome: peerpb.RevokeOutcome_REVOKE_OUTCOME_REFUSED, Message: err.Error()}, nil
	}
	err := s.n.cfg.Service.Revoke(ctx, r)
	if err == nil {
		return &peerpb.RevokeReply{Outcome: peerpb.RevokeOutcome_REVOKE_OUTCOME_DONE}, nil
	}
	reply := &peerpb.RevokeReply{Outcome: peerpb.RevokeOutcome_REVOKE_OUTCOME_UNAVAILABLE, Message: toFailure(err).Message}
	for _, o := range revokeOutcomes {
		if errors.Is(err, o.err) {
			reply.Outcome = o.outcome
		}
	}
	return reply, nil
}

// Revoke forwards a revocation to the node that leads group 0. Errors are those of bridge.Bridge.LocalRevoke, and
// bridge.ErrOldBuilds when that node's build knows of none. It returns within ctx's deadline, or callTimeout if there is
// none.
func (n *Node) Revoke(ctx context.Context, node bridge.NodeID, r bridge.Revocation) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := n.peers.connected(ctx, node)
	if err != nil {
		return err
	}
	reply, err := peerpb.NewRevocationsClient(c).Revoke(ctx, &peerpb.RevokeRequest{
		By: uint32(r.By), Value: r.Value, At: r.At, Until: r.Until, Reason: r.Reason,
	})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("%w: %s", bridge.ErrOldBuilds, node)
	case err != nil:
		return inTransit(node, err)
	case reply.Outcome == peerpb.RevokeOutcome_REVOKE_OUTCOME_DONE:
		return nil
	case reply.Outcome == peerpb.RevokeOutcome_REVOKE_OUTCOME_REFUSED:
		return fmt.Errorf("node %s refused the revocation: %s", node, reply.Message)
	}
	for _, o := range revokeOutcomes {
		if reply.Outcome == o.outcome {
			return remoteError{o.err, reply.Message}
		}
	}
	return inTransit(node, errors.New(reply.Message))
}

// WithoutRevocations are the nodes that are there and whose builds do not know of revocations. One that comes later is
// not let in once there are revocations (version.go).
func (n *Node) WithoutRevocations() (old []bridge.NodeID) {
	for _, id := range n.members.others() {
		if r := n.members.route(id); r != nil && n.PeerAlive(id) && r.greeting().Wire < revocationsWire {
			old = append(old, id)
		}
	}
	return old
}
