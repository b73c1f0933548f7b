package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/wsedge"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// What is revoked is kept by the cluster (bridge), what clients act for by the edge. Here they meet.

// isRevoked says whether a token was taken back, as far as this node has applied.
func (n *Node) isRevoked(id *auth.Identity) bool {
	return n.bridge.Revoked(bridge.Token{Subject: id.Subject, ID: id.TokenID, IssuedAt: id.IssuedAt})
}

// endRevoked ends the sessions of tokens that were taken back. The bridge calls it after each revocation that this node
// applies, and after a snapshot; so it also ends what a node let in while it did not know better.
func (n *Node) endRevoked() { n.edge.EndSessions(n.isRevoked) }

// revocationsFirst verifies no token before this node knows what was revoked while it was away: one that begins has only
// what it finds on its disk, or nothing.
type revocationsFirst struct {
	wsedge.Authenticator
	upToDate func() bool
	known    atomic.Bool // it was once, so what comes now is applied as it is committed
}

// unknownRetry is when a client may try again.
const unknownRetry = 200 * time.Millisecond

// Authenticate implements wsedge.Authenticator.
func (a *revocationsFirst) Authenticate(ctx context.Context, token string) (*auth.Identity, error) {
	if !a.knows() {
		return nil, &auth.UnavailableError{Message: "this node has just started and does not know yet which tokens were revoked; try again, or another node", RetryAfter: unknownRetry}
	}
	return a.Authenticator.Authenticate(ctx, token)
}

// knows says whether the node knows, now or once before. Readiness asks it, too: a node that was ready refuses nobody because a
// leader is away.
func (a *revocationsFirst) knows() bool {
	if !a.known.Load() && a.upToDate() {
		a.known.Store(true)
	}
	return a.known.Load()
}

// knowsRevoked says whether this node has applied what was revoked before it began.
func (n *Node) knowsRevoked() bool {
	return n.isUp() && n.replication.UpToDate(bridge.RevocationGroup)
}
