package replication

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// When a node dies, the groups it led need another leader now, not after the heartbeat timeout. Each
// survivor lists the survivors in the group's order of preference (placement.go); the first of the list
// campaigns at once, without waiting for a timeout (group.campaign). All nodes see the same list as soon
// as they have noticed the death.
//
// The first may fail: its log may be behind that of the others, who then refuse it their vote, or it died
// too. So the turn passes down the list, more slowly each time, while the group has no new leader. Two
// that campaign at once are harmless: terms rise, votes may split, and the next turn or Raft's own
// timers end it.
//
// It happens once for each death seen. A node that is cut off from the leader alone therefore takes
// one group over at most once, and does not fight over it.
var turns = []time.Duration{100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond}

// takeover finds new leaders for the groups that peer led.
func (n *Node) takeover(ctx context.Context, peer bridge.NodeID, how death) {
	var led []*group
	for _, g := range n.groups {
		// A survivor that noticed sooner may have campaigned here already, which makes Raft forget
		// the dead leader: a group without one counts, or nobody's turn would come after a refusal.
		if id, ok := g.leader(); !ok || id == peer {
			led = append(led, g)
		}
	}
	if how == deathSilent {
		// Liveness is silent; Raft must say so too before a leader is deposed: a busy machine may
		// answer one late. Its heartbeats come ten times in a timeout.
		led = n.unheard(ctx, led)
	}
	for turn, length := range turns {
		left := led[:0]
		for _, g := range led {
			if id, ok := g.leader(); !ok || id == peer {
				left = append(left, g)
			}
		}
		if led = left; len(led) == 0 || n.draining.Load() {
			return
		}
		for _, g := range led {
			order := n.alivePreference(g.id)
			if 2*len(order) <= len(n.members) {
				continue // no majority: nobody can be elected
			}
			if order[turn%len(order)] != n.cfg.NodeID || g.raft.State() == raft.Leader {
				continue
			}
			n.log.Info().Uint16("group", uint16(g.id)).Str("peer", string(peer)).Int("turn", turn).Msg("takes over")
			g.campaign(length)
		}
		select {
		case <-time.After(length):
		case <-ctx.Done():
			return
		}
	}
}

// unheard waits for Raft's own silence, up to the heartbeat timeout, and returns the groups that have it.
func (n *Node) unheard(ctx context.Context, led []*group) []*group {
	limit := n.cfg.HeartbeatTimeout * 8 / 10
	var out []*group
	for _, g := range led {
		if d := limit - time.Since(g.raft.LastContact()); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return nil
			}
		}
		if time.Since(g.raft.LastContact()) >= limit {
			out = append(out, g)
		}
	}
	return out
}
