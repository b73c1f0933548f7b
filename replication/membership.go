package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// Who belongs to the cluster is written in the configurations of its Raft groups, one each, which change by
// entries of their logs (change.go). They are the same for all groups except while a change is on its way.
// TIDEWIRE_CLUSTER_PEERS says only with whom a cluster begins, and where a node looks for the others while it
// knows no better.
//
// membership is the one owner of this knowledge on a node. It reads the configurations when one has changed,
// tells each group whom it consists of, and keeps what there is for each other node: the watcher that knows
// whether it lives, and the client for calls. The rest of the package asks it.
type membership struct {
	n     *Node
	list  []Peer        // TIDEWIRE_CLUSTER_PEERS by id, this node included; just this node if it is empty
	wake  chan struct{} // one slot: a configuration has changed
	begin sync.Mutex    // held while the first configuration is written

	mu    sync.RWMutex
	peers map[bridge.NodeID]*peer // all other nodes that matter here

	why atomic.Pointer[string] // why this node is not a member; empty: it is, or nothing says that it is not
}

// peer is what this node keeps for another one.
type peer struct {
	id      bridge.NodeID
	route   *route
	watcher *watcher
	stop    context.CancelFunc
	stopped chan struct{} // closed when the watcher has ended
}

const (
	// membersEvery is the period of looking at the configurations, should a change have been missed.
	membersEvery = 500 * time.Millisecond
	// askEvery is the period of asking the others while this node does not know whether it is a member.
	askEvery = time.Second
	// leaderless is how long a group may have no leader before the others are asked for it.
	leaderless = 2 * time.Second
)

// roster is whom a group consists of, by id.
type roster struct {
	voters  []Peer
	waiting []Peer // without a vote: being taken in, or out
}

func newRoster(c raft.Configuration) *roster {
	r := &roster{}
	for _, s := range c.Servers {
		p := Peer{ID: bridge.NodeID(s.ID), Addr: string(s.Address)}
		if s.Suffrage == raft.Voter {
			r.voters = append(r.voters, p)
		} else {
			r.waiting = append(r.waiting, p)
		}
	}
	byID(r.voters)
	byID(r.waiting)
	return r
}

func byID(ps []Peer) {
	slices.SortFunc(ps, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
}

// all returns both kinds.
func (r *roster) all() []Peer { return slices.Concat(r.voters, r.waiting) }

func (r *roster) equal(o *roster) bool {
	return slices.Equal(r.voters, o.voters) && slices.Equal(r.waiting, o.waiting)
}

// find returns a node of the group, and whether it has a vote.
func (r *roster) find(id bridge.NodeID) (p Peer, voter, ok bool) {
	for _, p := range r.voters {
		if p.ID == id {
			return p, true, true
		}
	}
	for _, p := range r.waiting {
		if p.ID == id {
			return p, false, true
		}
	}
	return Peer{}, false, false
}

func (r *roster) has(id bridge.NodeID) bool { _, _, ok := r.find(id); return ok }

// without returns the voters but one.
func (r *roster) without(id bridge.NodeID) []Peer {
	return slices.DeleteFunc(slices.Clone(r.voters), func(p Peer) bool { return p.ID == id })
}

func newMembership(n *Node, list []Peer) *membership {
	m := &membership{n: n, list: list, wake: make(chan struct{}, 1), peers: map[bridge.NodeID]*peer{}}
	none := ""
	m.why.Store(&none)
	return m
}

// changed says that a configuration may have changed.
func (m *membership) changed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// peer returns what is kept for another node, nil if it does not matter here.
func (m *membership) peer(id bridge.NodeID) *peer {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.peers[id]
}

func (m *membership) route(id bridge.NodeID) *route {
	if p := m.peer(id); p != nil {
		return p.route
	}
	return nil
}

// others returns the nodes that are watched, by id.
func (m *membership) others() []bridge.NodeID {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.peers))
}

// all returns the nodes of all groups, this one included, by id; of a node that has been given another address
// the one that the first groups have. While nothing is known it is the list.
func (m *membership) all() []Peer {
	by := map[bridge.NodeID]Peer{}
	for _, g := range m.n.groups {
		for _, p := range g.roster.Load().all() {
			if _, ok := by[p.ID]; !ok {
				by[p.ID] = p
			}
		}
	}
	if len(by) == 0 {
		return m.list
	}
	out := slices.Collect(maps.Values(by))
	byID(out)
	return out
}

// voters returns the nodes that vote in a group, by id. It must not be changed.
func (n *Node) voters(g bridge.GroupID) []Peer { return n.groups[g].roster.Load().voters }

// IsMember says whether this node is of the cluster in any group, as far as it knows. It is not while it waits to be
// added, and when it was removed.
func (n *Node) IsMember() bool {
	return *n.members.why.Load() == "" &&
		slices.ContainsFunc(n.groups, func(g *group) bool { return g.roster.Load().has(n.cfg.NodeID) })
}

// alone says whether no group has another node.
func (m *membership) alone() bool {
	return !slices.ContainsFunc(m.all(), func(p Peer) bool { return p.ID != m.n.cfg.NodeID })
}

// run keeps up with the configurations until ctx ends.
func (m *membership) run(ctx context.Context) {
	t := time.NewTicker(membersEvery)
	defer t.Stop()
	led := make([]time.Time, len(m.n.groups)) // when each group had a leader last
	asked := time.Now()                       // a cluster that begins, or a leader that is on its way, is given a moment
	for {
		m.look(ctx)
		unsure := false
		for i, g := range m.n.groups {
			if _, ok := g.leader(); ok || led[i].IsZero() {
				led[i] = time.Now()
			}
			unsure = unsure || time.Since(led[i]) > leaderless || !g.roster.Load().has(m.n.cfg.NodeID)
		}
		switch {
		case !unsure:
			m.standing("")
		case time.Since(asked) >= askEvery:
			asked = time.Now()
			m.standing(m.outside(m.ask(ctx)))
		}
		select {
		case <-t.C:
		case <-m.wake:
		case <-ctx.Done():
			return
		}
	}
}

// look reads the configurations and acts upon what has changed.
func (m *membership) look(ctx context.Context) {
	wanted := map[bridge.NodeID][]string{} // with their addresses in the configurations
	led := false
	for _, g := range m.n.groups {
		now := newRoster(g.raft.GetConfiguration().Configuration())
		if !now.equal(g.roster.Load()) {
			g.roster.Store(now)
			g.nudges.follow(now.all())
		}
		if len(now.voters) > 0 {
			m.n.newcomer.lacks(g.id, false)
		}
		for _, p := range now.all() {
			wanted[p.ID] = append(wanted[p.ID], p.Addr)
		}
		// A leader is heard before its log comes, and that begins with members of long ago: only a
		// configuration with this node in it may be of today.
		if _, ok := g.leader(); ok && now.has(m.n.cfg.NodeID) {
			led = true
		}
	}
	for _, p := range m.list {
		// Who is on the list and in no configuration is asked while nobody else leads us: before there is
		// a configuration, and when ours may be of long ago.
		if _, ok := wanted[p.ID]; !ok && !led {
			wanted[p.ID] = nil
		}
	}
	delete(wanted, m.n.cfg.NodeID)
	for _, id := range m.others() {
		if _, ok := wanted[id]; !ok {
			m.drop(id)
		}
	}
	for id, configured := range wanted {
		addrs := append([]string{m.listed(id)}, configured...)
		if p := m.peer(id); p != nil {
			p.route.set(addrs...)
		} else {
			m.watch(ctx, id, addrs)
		}
	}
	m.beginIfNew()
}

func (m *membership) listed(id bridge.NodeID) string {
	for _, p := range m.list {
		if p.ID == id {
			return p.Addr
		}
	}
	return ""
}

// watch begins to keep what there is for a node.
func (m *membership) watch(ctx context.Context, id bridge.NodeID, addrs []string) {
	n := m.n
	p := &peer{id: id, route: newRoute(addrs...), stopped: make(chan struct{})}
	if err := n.peers.add(id, p.route); err != nil {
		n.fail(err) // its options are ours: a mistake in this package
		return
	}
	watching, stop := context.WithCancel(ctx)
	p.stop = stop
	p.watcher = &watcher{id: id, route: p.route, dialer: n.dialer, cfg: n.cfg, log: n.log}
	p.watcher.met = func(h hello) {
		n.newcomer.met(id, h.blank, h.greeting.Peers)
		m.beginIfNew()
	}
	p.watcher.born = func() {
		n.peers.peerIsBack(id)
		n.takeover.born()
		m.moved()
	}
	p.watcher.died = func(how death) { n.takeover.died(id, how) }
	m.mu.Lock()
	m.peers[id] = p
	m.mu.Unlock()
	n.loops.Add(1) // likewise: look is called by a loop, or before they can be waited for
	go func() {
		defer n.loops.Done()
		defer close(p.stopped)
		p.watcher.run(watching)
	}()
}

// moved tells who waits for nodes that are away that one is back, or gone for good.
func (m *membership) moved() {
	for _, g := range m.n.groups {
		g.transport.away.changed()
	}
}

// drop ends what there was for a node.
func (m *membership) drop(id bridge.NodeID) {
	m.mu.Lock()
	p := m.peers[id]
	delete(m.peers, id)
	m.mu.Unlock()
	m.moved()
	p.stop()
	<-p.stopped
	m.n.peers.remove(id)
	m.n.views.forget(id)
	m.n.log.Info().Str("peer", string(id)).Msg("a node is not of this cluster any more")
}

// beginIfNew writes the first configuration of the groups that have none, if nobody has one.
func (m *membership) beginIfNew() {
	if !m.n.newcomer.mayBegin() {
		return
	}
	m.begin.Lock()
	defer m.begin.Unlock()
	first := firstConfiguration(m.list)
	for _, g := range m.n.groups {
		if !m.n.newcomer.isBare(g.id) {
			continue
		}
		// A leader may have come first, with the same configuration: it was elected by nodes that began.
		if err := g.raft.BootstrapCluster(first).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			if !errors.Is(err, raft.ErrRaftShutdown) {
				m.n.fail(fmt.Errorf("group %d: write first configuration: %w", g.id, err))
			}
			return
		}
		if len(g.raft.GetConfiguration().Configuration().Servers) > 0 { // a term alone counts as state, too
			m.n.newcomer.lacks(g.id, false)
		}
	}
	m.changed()
	m.n.takeover.born()
}

func firstConfiguration(list []Peer) raft.Configuration {
	var c raft.Configuration
	for _, p := range list {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Addr)})
	}
	return c
}

// standing notes why this node is not a member.
func (m *membership) standing(why string) {
	old := *m.why.Swap(&why)
	switch {
	case why != "" && why != old:
		m.n.log.Warn().Str("why", why).Msg("not a member of the cluster")
	case why == "" && old != "":
		m.n.log.Info().Msg("a member of the cluster")
	}
}

// ask asks all nodes that live for their configurations; this node's own are among the answers. Nodes that do
// not know the question are left out.
func (m *membership) ask(ctx context.Context) map[bridge.NodeID]*peerpb.MembersReply {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[bridge.NodeID]*peerpb.MembersReply{m.n.cfg.NodeID: m.own()}
	for _, id := range m.others() {
		if !m.n.PeerAlive(id) {
			continue
		}
		wg.Go(func() {
			if r, err := m.n.peers.members(ctx, id); err == nil {
				mu.Lock()
				out[id] = r
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// askTimeout bounds a question about the members.
const askTimeout = time.Second

// own is this node's answer.
func (m *membership) own() *peerpb.MembersReply {
	r := &peerpb.MembersReply{Node: string(m.n.cfg.NodeID)}
	for _, g := range m.n.groups {
		leader, _ := g.leader()
		if _, leads := g.leaderTerm(); string(leader) == r.Node && !leads {
			leader = ""
		}
		mg := &peerpb.MemberGroup{
			Group: uint32(g.id), Leader: string(leader), Term: g.raft.CurrentTerm(), Applied: g.raft.AppliedIndex(),
			Last: g.raft.LastIndex(), Newcomer: m.n.newcomer.waiting(g.id),
		}
		for _, s := range g.raft.GetConfiguration().Configuration().Servers {
			mg.Servers = append(mg.Servers, &peerpb.Server{Id: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
		}
		r.Groups = append(r.Groups, mg)
	}
	return r
}

// leaders returns for each group what its leader says, nil where no leader answers.
func (m *membership) leaders(answers map[bridge.NodeID]*peerpb.MembersReply) []*peerpb.MemberGroup {
	out := make([]*peerpb.MemberGroup, len(m.n.groups))
	for _, r := range answers {
		for i, g := range r.Groups {
			if i < len(out) && g.Leader == r.Node && (out[i] == nil || g.Term > out[i].Term) {
				out[i] = g
			}
		}
	}
	return out
}

// outside says why this node is not a member by what the nodes answer, and nothing if it is one in any group.
func (m *membership) outside(answers map[bridge.NodeID]*peerpb.MembersReply) string {
	self := m.n.cfg.NodeID
	known := false // this node has a configuration
	led := m.leaders(answers)
	var members []string
	for i, g := range m.n.groups {
		r := g.roster.Load()
		known = known || len(r.voters) > 0
		in := r.has(self)
		if led[i] != nil {
			in = slices.ContainsFunc(led[i].Servers, func(s *peerpb.Server) bool { return s.Id == string(self) })
			for _, s := range led[i].Servers {
				members = append(members, s.Id)
			}
		}
		if in {
			return ""
		}
	}
	slices.Sort(members)
	names := strings.Join(slices.Compact(members), ", ")
	if known {
		return fmt.Sprintf("%s was removed from the cluster: stop it; to take it in again, stop it, remove %s, start it and run `tidectl members add %s=%s`",
			self, m.n.cfg.Dir, self, m.n.self)
	}
	if names != "" {
		return fmt.Sprintf("%s is not a member of the cluster (%s) yet: run `tidectl members add %s=%s`", self, names, self, m.n.self)
	}
	differ, unmet := m.n.newcomer.obstacle()
	if len(differ) > 0 {
		var out []string
		for _, id := range slices.Sorted(maps.Keys(differ)) {
			out = append(out, fmt.Sprintf("%s on %s", differ[id], id))
		}
		return fmt.Sprintf("TIDEWIRE_CLUSTER_PEERS names %s on %s, but %s: set the same list on all nodes that begin a cluster; a node that is to be added later may wait here",
			joinIDs(m.n.newcomer.list), self, strings.Join(out, ", "))
	}
	if len(unmet) > 0 {
		return fmt.Sprintf("waits for the other nodes of TIDEWIRE_CLUSTER_PEERS to begin a cluster: no answer from %s: start them, or, if they are gone for good, take them off the list on all nodes and restart those", joinIDs(unmet))
	}
	return ""
}
