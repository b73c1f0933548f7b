package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// A change of the members is a row of steps, each of them one entry of one group's log, decided by that group's
// leader (here). Whoever was asked for the change drives it from step to step (drive.go), keeps nothing of it,
// and may die: what has been done is in the logs, and the change goes on when it is asked for again.
//
//	add      every group takes the node in without a vote, group 0 first; each gives it its vote when it has
//	         caught up, group 0 last
//	remove   group 0 takes its vote away; the others remove it; group 0 removes it, last
//
// So from a change's first step to its last one, group 0 has a node without a vote. That is what keeps two
// changes apart, whoever drives them: a leader takes no step for one node while its group has another one
// without a vote.
//
// A leader takes a step only if the group can live with it: a majority of those that will vote then is alive
// and has all that is committed. What is refused so is an error for the operator, what will come right by
// itself is waited for.

const (
	// caughtUpWait is how long a node may take to show that it has what is committed now.
	caughtUpWait = time.Second
	// caughtUpPoll is the period of asking it.
	caughtUpPoll = 50 * time.Millisecond
	// aliveWait is how long a majority may be missing before that is said.
	aliveWait = 2 * time.Second
)

// errOldBuild: a node does not know of changes of members.
var errOldBuild = errors.New("a node's build is too old for a change of members: upgrade it first")

// membersServer is the gRPC side of membership.
type membersServer struct {
	peerpb.UnimplementedMembersServer
	n *Node
}

func (s *membersServer) Members(context.Context, *peerpb.MembersRequest) (*peerpb.MembersReply, error) {
	return s.n.members.own(), nil
}

func (s *membersServer) Change(ctx context.Context, r *peerpb.ChangeRequest) (*peerpb.ChangeReply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if int(r.Group) >= len(s.n.groups) || r.Id == "" || len(r.Id) > maxNodeID {
		return refuse("no such group, or no node id"), nil
	}
	return s.n.groups[r.Group].change(ctx, r), nil
}

func refuse(format string, args ...any) *peerpb.ChangeReply {
	return &peerpb.ChangeReply{Outcome: peerpb.Outcome_OUTCOME_REFUSED, Message: validUTF8(fmt.Sprintf(format, args...))}
}

func notYet(format string, args ...any) *peerpb.ChangeReply {
	return &peerpb.ChangeReply{Outcome: peerpb.Outcome_OUTCOME_WAIT, Message: validUTF8(fmt.Sprintf(format, args...))}
}

func outcome(o peerpb.Outcome) *peerpb.ChangeReply { return &peerpb.ChangeReply{Outcome: o} }

// change takes a step in this group, if this node leads it.
func (g *group) change(ctx context.Context, r *peerpb.ChangeRequest) *peerpb.ChangeReply {
	g.changing.Lock()
	defer g.changing.Unlock()
	if _, leads := g.leaderTerm(); !leads {
		return outcome(peerpb.Outcome_OUTCOME_NOT_LEADER)
	}
	// This leader's own log may hold a configuration of an earlier leader that is not committed yet; it is the
	// one that counts (and the library commits it before another).
	now := newRoster(g.raft.GetConfiguration().Configuration())
	node := Peer{ID: bridge.NodeID(r.Id), Addr: r.Addr}
	if other := slices.IndexFunc(now.waiting, func(p Peer) bool { return p.ID != node.ID }); other >= 0 {
		p := now.waiting[other]
		return refuse("%s is being added or removed, and one change is made at a time: finish it first, with `tidectl members add %s=%s` or `tidectl members remove %s`", p.ID, p.ID, p.Addr, p.ID)
	}
	for _, p := range now.all() {
		if p.Addr == node.Addr && p.ID != node.ID {
			return refuse("%s is the address of %s: remove that first, or give this node an address of its own", p.Addr, p.ID)
		}
	}
	old, voter, has := now.find(node.ID)
	switch r.Step {
	case peerpb.Step_STEP_ADD:
		if has && old.Addr == node.Addr {
			return outcome(peerpb.Outcome_OUTCOME_DONE)
		}
		if no := g.canLose(ctx, now.voters); no != nil {
			return no
		}
		return g.reconfigure(ctx, func() raft.Future {
			return g.raft.AddNonvoter(raft.ServerID(node.ID), raft.ServerAddress(node.Addr), 0, g.node.cfg.WriteTimeout)
		})
	case peerpb.Step_STEP_PROMOTE:
		switch {
		case voter:
			return outcome(peerpb.Outcome_OUTCOME_DONE)
		case !has:
			return refuse("%s was removed meanwhile", node.ID)
		}
		if behind := g.behind(ctx, node.ID); behind != "" {
			return notYet("%s", behind)
		}
		if no := g.canLose(ctx, append(slices.Clone(now.voters), old)); no != nil {
			return no
		}
		return g.reconfigure(ctx, func() raft.Future {
			return g.raft.AddVoter(raft.ServerID(node.ID), raft.ServerAddress(old.Addr), 0, g.node.cfg.WriteTimeout)
		})
	case peerpb.Step_STEP_DEMOTE, peerpb.Step_STEP_REMOVE:
		if !has || !voter && r.Step == peerpb.Step_STEP_DEMOTE {
			return outcome(peerpb.Outcome_OUTCOME_DONE)
		}
		if voter {
			if no := g.canLose(ctx, now.without(node.ID)); no != nil {
				return no
			}
		}
		if node.ID == g.node.cfg.NodeID {
			return g.moveAway()
		}
		return g.reconfigure(ctx, func() raft.Future {
			if r.Step == peerpb.Step_STEP_DEMOTE {
				return g.raft.DemoteVoter(raft.ServerID(node.ID), 0, g.node.cfg.WriteTimeout)
			}
			return g.raft.RemoveServer(raft.ServerID(node.ID), 0, g.node.cfg.WriteTimeout)
		})
	}
	return refuse("there is no step %v", r.Step)
}

// canLose returns nil if a group of these voters could go on: a majority of them is alive and has what is
// committed now.
func (g *group) canLose(ctx context.Context, voters []Peer) *peerpb.ChangeReply {
	if len(voters) == 0 {
		return refuse("it is the last node: stop it instead")
	}
	majority := len(voters)/2 + 1
	var alive []Peer
	var dead []string
	for begun := time.Now(); ; {
		alive, dead = nil, nil
		for _, p := range voters {
			if g.node.PeerAlive(p.ID) {
				alive = append(alive, p)
			} else {
				dead = append(dead, string(p.ID))
			}
		}
		// One that is busy is silent for a moment.
		if len(alive) >= majority || time.Since(begun) > aliveWait || pause(ctx, caughtUpPoll) != nil {
			break
		}
	}
	answers := make(chan string, len(alive))
	for _, p := range alive {
		go func() { answers <- g.behind(ctx, p.ID) }()
	}
	var behind []string
	for range alive {
		if why := <-answers; why != "" {
			behind = append(behind, why)
		}
	}
	slices.Sort(behind)
	switch {
	case len(alive) < majority:
		return refuse("it would leave no majority: of the %d nodes %s that vote then, %d must be there, and these are not: %v; start them, or remove those that are gone for good, first", len(voters), peerIDs(voters), majority, dead)
	case len(behind) > 0:
		return notYet("not all nodes have what the group has: %v", behind)
	}
	return nil
}

// behind says what a node lacks of what is committed now, nothing if it lacks nothing or catches up in a moment.
func (g *group) behind(ctx context.Context, id bridge.NodeID) string {
	if id == g.node.cfg.NodeID {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, caughtUpWait)
	defer cancel()
	goal := g.raft.CommitIndex()
	for why := fmt.Sprintf("%s does not answer", id); ; {
		r, err := g.node.peers.members(ctx, id)
		switch {
		case errors.Is(err, errOldBuild):
			return err.Error()
		case err != nil:
		case int(g.id) >= len(r.Groups):
			return fmt.Sprintf("%s tells of %d groups", id, len(r.Groups))
		default:
			mine := r.Groups[g.id]
			if mine.Applied >= goal && !mine.Newcomer {
				return ""
			}
			why = fmt.Sprintf("%s is %d entries behind", id, max(goal, mine.Applied)-mine.Applied)
		}
		t := time.NewTimer(caughtUpPoll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return why
		}
	}
}

// reconfigure makes a change and returns when it is committed.
func (g *group) reconfigure(ctx context.Context, change func() raft.Future) *peerpb.ChangeReply {
	_, err := g.proposals.track(change).waitFor(ctx)
	g.node.members.changed()
	switch {
	case err == nil:
		return outcome(peerpb.Outcome_OUTCOME_DONE)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrRaftShutdown):
		return outcome(peerpb.Outcome_OUTCOME_NOT_LEADER)
	}
	return notYet("%v", err)
}

// moveAway hands the leadership to another node, which is to be asked then.
func (g *group) moveAway() *peerpb.ChangeReply {
	var err error
	for _, p := range preference(g.id, g.roster.Load().without(g.node.cfg.NodeID)) {
		if !g.node.PeerAlive(p.ID) {
			continue
		}
		if err = g.transferTo(p); err == nil {
			return outcome(peerpb.Outcome_OUTCOME_NOT_LEADER)
		}
	}
	if _, leads := g.leaderTerm(); !leads {
		return outcome(peerpb.Outcome_OUTCOME_NOT_LEADER) // lost meanwhile
	}
	return notYet("the leadership cannot be handed over: %v", err)
}

// membersClient returns a client of a node's peerpb.Members.
func (cs *peerClients) membersClient(ctx context.Context, id bridge.NodeID) (peerpb.MembersClient, error) {
	c, err := cs.connected(ctx, id)
	if err != nil {
		return nil, err
	}
	return peerpb.NewMembersClient(c), nil
}

// members asks a node for its configurations.
func (cs *peerClients) members(ctx context.Context, id bridge.NodeID) (*peerpb.MembersReply, error) {
	c, err := cs.membersClient(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := c.Members(ctx, &peerpb.MembersRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil, fmt.Errorf("%w: node %s", errOldBuild, id)
	}
	if err != nil {
		return nil, inTransit(id, err)
	}
	if len(r.Groups) > maxGroups || bridge.NodeID(r.Node) != id {
		return nil, fmt.Errorf("node %s answers as %s, of %d groups", id, r.Node, len(r.Groups))
	}
	for i, g := range r.Groups {
		if int(g.Group) != i {
			return nil, fmt.Errorf("node %s tells of group %d in place %d", id, g.Group, i)
		}
	}
	return r, nil
}
