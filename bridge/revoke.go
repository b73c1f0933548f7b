package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Revocations are agreed on in group 0's log, so that they are on every node that takes part in it, in its snapshot and
// after any restart. Whoever is asked for one has the leader of that group propose it, and answers when it is
// committed. Each node compares tokens with the set as it has applied it.

// RevocationGroup is the Raft group that holds the revocations. Every cluster has it.
const RevocationGroup GroupID = 0

const (
	// revokeTimeout bounds a revocation from the call to its answer.
	revokeTimeout = 5 * time.Second
	// expireEvery is the period in which a leader looks for revocations that have expired.
	expireEvery = time.Second
)

// ErrOldBuilds: a node's build does not know of revocations. Nothing was revoked.
var ErrOldBuilds = errors.New("not every node's build knows of revocations: upgrade it first")

// revocations is the set of a Bridge. Group 0's goroutine changes it; everybody asks it.
type revocations struct {
	mu      sync.RWMutex
	set     revocationSet
	changed chan struct{} // one slot: there may be more than tell was told of
	tell    func()        // nil: nobody wants to know
}

// OnRevoked sets a function that is called when tokens may have been revoked, by one goroutine of Run, soon after
// Revoked began to say so. Several revocations may be one call. Set before Run.
func (b *Bridge) OnRevoked(f func()) { b.revoked.tell = f }

// Revoked says whether a token is revoked, as far as this node has applied. Any goroutine may call it.
func (b *Bridge) Revoked(t Token) bool {
	b.revoked.mu.RLock()
	defer b.revoked.mu.RUnlock()
	return b.revoked.set.has(t)
}

// Revocations returns those that this node has applied and that have not left, by subject first, in order.
func (b *Bridge) Revocations() []Revocation {
	b.revoked.mu.RLock()
	defer b.revoked.mu.RUnlock()
	return b.revoked.set.list()
}

// RevocationCount returns how many there are.
func (b *Bridge) RevocationCount() int {
	b.revoked.mu.RLock()
	defer b.revoked.mu.RUnlock()
	return len(b.revoked.set)
}

// Revoke has the cluster revoke tokens, through whichever node leads. When it returns nil the revocation is
// committed: a majority of the nodes has it on disk, and every node that is one with them will apply it. It returns
// within revokeTimeout. ErrTooManyRevocations and ErrOldBuilds: nothing was revoked. *UnavailableError: it may or may
// not come into force; asking again does no harm.
func (b *Bridge) Revoke(ctx context.Context, r Revocation) error {
	if err := r.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	for {
		err := b.revokeOnce(ctx, r)
		var away *UnavailableError
		if err == nil || !errors.Is(err, ErrNotCoordinator) && !errors.As(err, &away) {
			return err
		}
		// Twice is the same as once, so what may have been done is tried again, too.
		if !pause(ctx, coordinatorRetry) {
			return unavailable(fmt.Errorf("the revocation is not known to be committed, a majority of the nodes must be there for that: try again: %w", err))
		}
	}
}

func (b *Bridge) revokeOnce(ctx context.Context, r Revocation) error {
	node, ok := b.cfg.Replicator.Leader(RevocationGroup)
	switch {
	case !ok:
		return fmt.Errorf("group %d has no leader: %w", RevocationGroup, ErrNotCoordinator)
	case node == b.cfg.Node:
		return b.LocalRevoke(ctx, r)
	}
	return b.cfg.Peers.Revoke(ctx, node, r)
}

// LocalRevoke is Revoke on the node that leads; another node may have asked for it. ErrNotCoordinator: this node does
// not, or lost the lead, and the revocation may or may not come into force.
func (b *Bridge) LocalRevoke(ctx context.Context, r Revocation) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if b.lead(RevocationGroup) == nil {
		return ErrNotCoordinator
	}
	if old := b.cfg.Replicator.WithoutRevocations(); len(old) > 0 {
		return fmt.Errorf("%w: %v", ErrOldBuilds, old)
	}
	return b.proposeRevoke(ctx, &revokeOp{Now: b.cfg.Now().UnixMilli(), Revocations: []Revocation{r}})
}

func (b *Bridge) proposeRevoke(ctx context.Context, o *revokeOp) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	// The wait ends with the leadership at the latest, which ends when the majority or this node's disk is away.
	res, err := b.cfg.Replicator.Propose(RevocationGroup, o.appendTo(newEntry(512))).Wait()
	if err != nil {
		return err
	}
	switch res := res.(type) {
	case error:
		return res
	case []opResult:
		if len(res) == 1 && res[0].Refused {
			return ErrTooManyRevocations
		}
	}
	return nil
}

// expireRevocations proposes, while this node leads, that those leave that have expired by its clock.
func (b *Bridge) expireRevocations(ctx context.Context) {
	for pause(ctx, expireEvery) {
		now := b.cfg.Now().UnixMilli()
		b.revoked.mu.RLock()
		due := b.revoked.set.expired(now)
		b.revoked.mu.RUnlock()
		if !due {
			continue
		}
		if err := b.proposeRevoke(ctx, &revokeOp{Now: now}); err != nil && ctx.Err() == nil {
			b.log.Debug().Err(err).Msg("expired revocations stay for now")
		}
	}
}

// applyRevoke carries out a committed operation.
func (b *Bridge) applyRevoke(group GroupID, o *revokeOp) opResult {
	if group != RevocationGroup { // nobody proposes that
		return opResult{Refused: true}
	}
	b.revoked.mu.Lock()
	all := b.revoked.set.revoke(o)
	b.revoked.mu.Unlock()
	if len(o.Revocations) > 0 {
		b.revoked.signal()
	}
	return opResult{Refused: !all}
}

// restoreRevocations replaces the set by a snapshot's.
func (b *Bridge) restoreRevocations(set revocationSet) {
	if set == nil {
		set = make(revocationSet)
	}
	b.revoked.mu.Lock()
	b.revoked.set = set
	b.revoked.mu.Unlock()
	b.revoked.signal()
}

func (r *revocations) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run tells who wants to know of revocations until ctx ends. It is not done where they are applied: ending many
// sessions takes longer than the group may stand still.
func (r *revocations) run(ctx context.Context) {
	for {
		select {
		case <-r.changed:
			if r.tell != nil {
				r.tell()
			}
		case <-ctx.Done():
			return
		}
	}
}
