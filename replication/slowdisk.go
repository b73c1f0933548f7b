package replication

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// A leader whose disk hangs gives its leadership up (logstore.go), but it can hand nothing over: the library's
// goroutine waits for the disk, and a hand-over would write. The others would find out by their timers, of
// which the first calls on the one that hangs for its vote. So this node tells the one with the most advanced
// log to stand, as it would at a hand-over. Nothing was committed since the disk hung, so what the others say
// of their logs is still so; and were it not, the one told would get no majority.
//
// Were placement to hand the leadership back as soon as the disk goes on, one that hangs now and then would
// cost its subscribers a silence each time. So a node whose disk has hung is given nothing for a while: it
// tells the others what one that is stopping would. What it leads nevertheless, it keeps, and if no other node
// can lead a group it may still be elected.

// diskDistrust is that while.
const diskDistrust = 30 * time.Second

// slowDisk says whether a write to any group's log was given up within diskDistrust, or still hangs.
func (n *Node) slowDisk() bool {
	since := time.Now().Add(-diskDistrust).UnixNano()
	for _, g := range n.groups {
		if g.log.lastHang.Load() > since || g.log.hangs() {
			return true
		}
	}
	return false
}

// abdicate has others stand for the groups that this node led when its disk hung, until ctx ends. On a machine that is
// busy the others may not answer in time, or none wants to lead at that moment: they are asked again for a while.
func (n *Node) abdicate(ctx context.Context) {
	type search struct {
		term uint64 // that this node gave up, or a later one
		end  time.Time
	}
	due := map[bridge.GroupID]search{} // groups without an heir yet
	for {
		var again <-chan time.Time
		if len(due) > 0 {
			again = time.After(maxTakeoverPause)
		}
		select {
		case id := <-n.abdicated:
			due[id] = search{n.groups[id].raft.CurrentTerm(), time.Now().Add(takeoverLimit)}
		case <-again:
		case <-ctx.Done():
			return
		}
		views, _ := n.ask(ctx)
		for id, s := range due {
			g := n.groups[id]
			term, leads := g.leaderTerm()
			elected := leads && term > s.term                                            // again: its disk has gone on
			if elected || n.callHeir(ctx, g, s.term, views) || time.Now().After(s.end) { // then timers decide
				delete(due, id)
			}
		}
	}
}

// callHeir tells the node that is fittest to lead a group to stand for election, or the next one if it will
// not. It says whether nothing is left to do: somebody was told, or leads already, as any node may know that answers; the one
// that leads may be too busy to, and must not be deposed for it. gaveUp is the term that this node
// gave up, or a later one.
func (n *Node) callHeir(ctx context.Context, g *group, gaveUp uint64, views map[bridge.NodeID]view) bool {
	for _, v := range views {
		if int(g.id) >= len(v.groups) {
			continue
		}
		if at := v.groups[g.id]; at.Leader != "" && at.Leader != n.cfg.NodeID && at.Term >= bridge.Term(gaveUp) {
			return true
		}
	}
	var heirs []Peer
	for _, p := range preference(g.id, n.voters(g.id)) {
		v, there := views[p.ID]
		if p.ID != n.cfg.NodeID && there && int(g.id) < len(v.groups) && !v.draining && !v.groups[g.id].barred {
			heirs = append(heirs, p)
		}
	}
	slices.SortStableFunc(heirs, func(a, b Peer) int {
		x, y := views[a.ID].groups[g.id], views[b.ID].groups[g.id]
		switch {
		case x.newer(y):
			return -1
		case y.newer(x):
			return 1
		}
		return 0
	})
	for _, p := range heirs {
		if ctx.Err() != nil {
			return true
		}
		args := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
		err := g.transport.TimeoutNow(raft.ServerID(p.ID), raft.ServerAddress(p.Addr), &args, &raft.TimeoutNowResponse{})
		log := n.log.Warn().Uint16("group", uint16(g.id)).Str("to", string(p.ID))
		if err == nil {
			log.Msg("the disk hangs: another node is to lead")
			return true
		}
		log.Err(err).Msg("the disk hangs, and another node does not want to lead")
	}
	return false
}
