package replication

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// A node is in touch with a group when it leads it, which the library ends LeaderLease after a majority
// was last heard, or when it follows a leader that it has heard within two heartbeat timeouts (the library
// looks once in one to two of them).
//
// It is isolated when clients would fare better elsewhere:
//
//   - it is in touch with no group at all. Groups lead a life of their own but share their nodes, so this
//     is what being on the minority's side of a split looks like, or being alone; or
//   - it is out of touch with a group that another node, heard of within viewAge, says has a leader. That
//     is a network which is split between some nodes only: Raft keeps the leader, for the others hear it,
//     and this node would never again get a record of the group; or
//   - its disk hangs (slowdisk.go): it hears its leaders, and can take nothing from them.
//
//   - it is not a member of the cluster: it was removed, or has not been added yet.
//
// A group that has no leader anywhere isolates nobody: no node is better than another then, and to send
// all clients away would make a loss of one group the loss of all.

// Isolated says why this node is isolated, and nothing when it is not. Elections pass in less than a
// second and may look like it: it is for the caller to wait.
func (n *Node) Isolated() string {
	if why := *n.members.why.Load(); why != "" {
		return why
	}
	if n.members.alone() {
		return ""
	}
	var lost []*group
	for _, g := range n.groups {
		if !g.inTouch() {
			lost = append(lost, g)
		}
	}
	for _, g := range n.groups {
		if g.log.hangs() {
			return fmt.Sprintf("group %d: a write to its log hangs", g.id)
		}
	}
	if len(lost) == len(n.groups) {
		return "no leader of any group is heard"
	}
	for _, g := range lost {
		if leader, by := n.ledElsewhere(g.id); leader != "" {
			return fmt.Sprintf("group %d: leader %s is heard by %s but not here", g.id, leader, by)
		}
	}
	return ""
}

func (g *group) inTouch() bool {
	switch g.raft.State() {
	case raft.Leader:
		return true
	case raft.Follower:
		_, ok := g.leader()
		return ok && time.Since(g.raft.LastContact()) < 2*g.node.cfg.HeartbeatTimeout
	}
	return false
}

// ledElsewhere returns the leader of a group that another node is in touch with, and that node.
func (n *Node) ledElsewhere(id bridge.GroupID) (leader, by bridge.NodeID) {
	for _, other := range n.members.others() {
		v, ok := n.views.get(other)
		if !ok || int(id) >= len(v.groups) {
			continue
		}
		if l := v.groups[id].Leader; l != "" && l != n.cfg.NodeID {
			return l, other
		}
	}
	return "", ""
}
