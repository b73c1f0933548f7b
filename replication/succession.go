package replication

import (
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// succession is the question who should stand for election in a group whose leader is lost: a pure function
// of what the nodes say of themselves, so that all who ask the same nodes get the same answer and one of
// them stands, not all.
//
// Rejected: turns by a clock, in a fixed order of the nodes. A node that is slow to win (two fsyncs here, two
// there) was overtaken by the next one's turn, whose higher term undid its election; on a busy machine the
// two went on like that until Raft's own timers ended it, three seconds later.
type succession struct {
	group bridge.GroupID
	// lost are the nodes that may have led it and were lost, each with how long others must not have heard
	// from it through Raft to count it as lost too: zero where the death itself was seen, for then a broken
	// connection is enough.
	lost    map[bridge.NodeID]time.Duration
	members []Peer // the voters of the group, by id
	// views are what the nodes said a moment ago, this one's own included. A node that does not answer is
	// not there. A lost one may be: it was restarted, or it lives and only we do not hear it.
	views map[bridge.NodeID]view
	// passed are nodes that were to stand and did not win in good time.
	passed map[bridge.NodeID]bool
}

// candidate returns the node that should stand; ok is false if nobody should: there is a leader, or it is
// not lost to a majority, or nobody is fit.
//
// It is the one with the most advanced log, and only one whose log a majority would vote for; of equals
// one that is not unfit (fitness.go), and of those the first in the group's order of preference (placement.go). A
// node that wants no leadership is named when nobody else can win: it may be that its disk was slow a while ago.
func (s succession) candidate() (id bridge.NodeID, ok bool) {
	if id, ok = s.among(func(v view) bool { return !v.draining }); !ok {
		id, ok = s.among(func(v view) bool { return v.draining })
	}
	return id, ok
}

// among names a candidate of some kind.
func (s succession) among(kind func(view) bool) (id bridge.NodeID, ok bool) {
	var voters []standing
	var best standing
	for _, p := range preference(s.group, s.members) {
		at, there := s.standing(p.ID)
		if !there {
			continue
		}
		if at.Leader == p.ID {
			return "", false // it leads; who does not hear it is not asked
		}
		if _, lost := s.lost[p.ID]; lost || !s.leaderless(s.views[p.ID], at) {
			continue
		}
		if at.bare() {
			continue // it votes for nobody yet
		}
		voters = append(voters, at)
		if !kind(s.views[p.ID]) || at.barred || s.passed[p.ID] {
			continue
		}
		fitter := best.fitness == fitnessUnfit && at.fitness != fitnessUnfit && !best.newer(at)
		if !ok || at.newer(best) || fitter {
			id, best, ok = p.ID, at, true
		}
	}
	votes := 0
	for _, v := range voters {
		if !v.newer(best) {
			votes++
		}
	}
	return id, ok && 2*votes > len(s.members)
}

// beginning says whether a cluster is just about to begin: somebody has its first configuration, and somebody who is
// there has not yet, for it has not met all the others (newcomer.go). It will in a moment, unless it meets one by
// then that is in a later term, in any group: it takes that one for a node with data, and gives no vote before it
// has caught up. Were two of three to be that late, nobody could be elected until newcomers are waited for no longer.
func (s succession) beginning() bool {
	begun, bare := false, false
	for _, p := range s.members {
		at, there := s.standing(p.ID)
		if !there {
			continue
		}
		if !s.views[p.ID].blank() {
			return false // it is too late to wait
		}
		begun, bare = begun || !at.bare(), bare || at.bare()
	}
	return begun && bare
}

// electing says whether an election goes on of which a node knows nothing yet: somebody is in a later term than it,
// and knows no leader. To know one that is lost is not enough: that one was elected, and died before all had heard
// from it.
func (s succession) electing(id bridge.NodeID) bool {
	own, _ := s.standing(id)
	for _, p := range s.members {
		if at, there := s.standing(p.ID); there && at.Term > own.Term && at.Leader == "" {
			return true
		}
	}
	return false
}

// term returns the highest term that anybody is in.
func (s succession) term() (term bridge.Term) {
	for id := range s.views {
		at, _ := s.standing(id)
		term = max(term, at.Term)
	}
	return term
}

// leaderless says whether a node knows no leader, or only one that is lost to it as well.
func (s succession) leaderless(v view, at standing) bool {
	if at.Leader == "" {
		return true
	}
	quiet, lost := s.lost[at.Leader]
	if !lost {
		return false
	}
	if _, back := s.views[at.Leader]; back || len(v.alive) == 0 {
		return true // it does not lead, as it says itself; or a build that does not say whom it hears
	}
	return !v.hears(at.Leader) && at.quiet >= quiet
}

func (s succession) standing(id bridge.NodeID) (standing, bool) {
	v, ok := s.views[id]
	if !ok || int(s.group) >= len(v.groups) {
		return standing{}, false
	}
	return v.groups[s.group], true
}
