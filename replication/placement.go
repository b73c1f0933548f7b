package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// Leaderships are spread over the nodes by number and by load (seats.go). Among the nodes that could lead a
// group each has its place in a fixed order: the members sorted by id, begun at the group's number, and run
// through forwards in one round of groups and backwards in the next. First choices spread the groups evenly;
// second choices spread those of a dead node over the survivors.
//
// The leader of a group moves it, once a second, if another node is to have it that has been alive for a while,
// is not stopping, follows it, has all but the latest entries and is fit (fitness.go). A leader that is unfit
// hands over to such a node at once; if there is none it keeps the group, and leadership is spread again when
// somebody is fit. A hand-over takes milliseconds (the library brings the other up to date and lets it campaign).
//
// Of an older node, which does not say whether it is fit, a fit leader thinks well; an unfit one does not
// rely on it.
const (
	// placementEvery is the period of looking.
	placementEvery = time.Second
	// placementLag is how many entries it may be behind.
	placementLag = 64
	// placementPause is how long a group is left alone after a hand-over failed.
	placementPause = 2 * time.Second
)

// preference returns the nodes, voters of the group by id, in the order in which they should lead it.
func preference(g bridge.GroupID, members []Peer) []Peer {
	n := len(members)
	if n == 0 {
		return nil
	}
	out := make([]Peer, n)
	step := 1
	if int(g)/n%2 == 1 {
		step = n - 1
	}
	for i, at := 0, int(g)%n; i < n; i, at = i+1, (at+step)%n {
		out[i] = members[at]
	}
	return out
}

// place is the loop.
func (n *Node) place(ctx context.Context) {
	t := time.NewTicker(placementEvery)
	defer t.Stop()
	paused := map[bridge.GroupID]time.Time{}
	for {
		n.catchUp()
		n.refresh(ctx)
		for _, g := range n.groups {
			if ctx.Err() != nil || n.draining.Load() {
				return
			}
			if until, ok := paused[g.id]; ok && time.Now().Before(until) {
				continue
			}
			to, ok := n.better(g)
			if !ok {
				continue
			}
			if err := g.transferTo(to); err != nil {
				paused[g.id] = time.Now().Add(placementPause)
				n.log.Debug().Err(err).Msg("leadership stays")
			}
		}
		select {
		case <-t.C:
		case <-n.placeNow:
		case <-ctx.Done():
			return
		}
	}
}

// refresh asks the peers for their groups.
func (n *Node) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, placementEvery)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range n.members.others() {
		if !n.PeerAlive(id) {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if v, err := n.peers.groups(ctx, id); err == nil {
				n.views.set(id, v)
			}
		}()
	}
	wg.Wait()
}

// better returns the node that should lead g instead of this one, if there is one now.
func (n *Node) better(g *group) (Peer, bool) {
	if g.raft.State() != raft.Leader {
		return Peer{}, false
	}
	s := seats{now: map[bridge.GroupID]bridge.NodeID{}, candidates: map[bridge.GroupID][]bridge.NodeID{}, load: map[bridge.GroupID]float64{}, noise: map[bridge.GroupID]float64{}}
	for _, other := range n.groups {
		id, _ := other.leader()
		s.now[other.id] = id
		for _, p := range preference(other.id, n.voters(other.id)) {
			// What another leads is its to keep or to hand over, whatever we know of it.
			if n.mayHave(p.ID, other.id) || p.ID == id && id != n.cfg.NodeID {
				s.candidates[other.id] = append(s.candidates[other.id], p.ID)
			}
		}
		s.load[other.id], s.noise[other.id] = other.load.bytes(time.Now())
	}
	to, ok := s.assign()[g.id]
	if !ok || to == n.cfg.NodeID {
		return Peer{}, false
	}
	v, known := n.views.get(to)
	if !known || v.groups[g.id].Leader != n.cfg.NodeID || v.groups[g.id].Last+placementLag < g.raft.LastIndex() {
		return Peer{}, false
	}
	for _, p := range n.voters(g.id) {
		if p.ID == to {
			return p, true
		}
	}
	return Peer{}, false
}

// mayHave says whether another node may be given a group, or this one keep it.
func (n *Node) mayHave(id bridge.NodeID, g bridge.GroupID) bool {
	since, unfit := n.fitness.unfitSince(g, time.Now())
	// Who has no vote in group 0 is being taken in or out (change.go): what it is given now would move again.
	if _, voter, in := n.groups[0].roster.Load().find(id); in && !voter {
		return false
	}
	if id == n.cfg.NodeID {
		return !unfit
	}
	born, alive := n.aliveSince(id)
	v, known := n.views.get(id)
	if !alive || time.Since(born) < n.cfg.Settle || !known || v.draining || int(g) >= len(v.groups) {
		return false
	}
	switch v.groups[g].fitness {
	case fitnessSettled:
		return !unfit || v.at.After(since) // else from before it may have lost the same
	case fitnessUnknown:
		return !unfit
	}
	return false
}

// Drain hands all leaderships of this node to others, and takes none from then on. It returns when it
// leads nothing, or with an error that names what is left when ctx ends or when there has been nobody to
// take them for drainPatience: the other nodes are down or stopping as well. A cluster of one keeps its own.
func (n *Node) Drain(ctx context.Context) error {
	n.draining.Store(true)
	if n.members.alone() {
		return nil
	}
	var wg sync.WaitGroup
	for _, g := range n.groups {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n.drain(ctx, g)
		}()
	}
	wg.Wait()
	var left []bridge.GroupID
	for _, g := range n.groups {
		if g.raft.State() == raft.Leader {
			left = append(left, g.id)
		}
	}
	if len(left) > 0 {
		err := ctx.Err()
		if err == nil {
			err = errNobodyToLead
		}
		return fmt.Errorf("groups %v are still led here: %w", left, err)
	}
	return nil
}

// drainPatience is how long a draining node waits for another that can lead.
const drainPatience = 500 * time.Millisecond

var errNobodyToLead = errors.New("no other node is there to lead them")

func (n *Node) drain(ctx context.Context, g *group) {
	lonely := time.Now() // since when there has been nobody
	for try := 0; ctx.Err() == nil && g.raft.State() == raft.Leader; try++ {
		var to, unfit []Peer
		for _, p := range preference(g.id, n.voters(g.id)) {
			switch v, _ := n.views.get(p.ID); {
			case p.ID == n.cfg.NodeID || !n.PeerAlive(p.ID) || v.draining:
			case n.unfit(p.ID, g.id):
				unfit = append(unfit, p)
			default:
				to = append(to, p)
			}
		}
		to = append(to, unfit...) // better than nobody
		if len(to) > 0 {
			if err := g.transferTo(to[try%len(to)]); err == nil {
				return
			}
			lonely = time.Now()
		} else if time.Since(lonely) > drainPatience {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
