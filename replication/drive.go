package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// ErrMembers: the members were not changed, or not all the way. The error says why and what to do.
var ErrMembers = errors.New("members")

const (
	// leaderPatience is how long a change waits for a group to have a leader.
	leaderPatience = 10 * time.Second
	// startPatience is how long it waits for the nodes to be fit for a change before it begins with one.
	startPatience = 15 * time.Second
	// stepPause is between two attempts at a step.
	stepPause = 100 * time.Millisecond
)

// Member is what a node knows of a member.
type Member struct {
	Node    bridge.NodeID `json:"node"`
	Addr    string        `json:"addr"`    // where the others reach it
	Alive   bool          `json:"alive"`   // as the node that was asked sees it
	Votes   int           `json:"votes"`   // in how many groups
	Follows int           `json:"follows"` // in how many groups without a vote: it is being added, or removed
	Groups  int           `json:"groups"`  // how many there are
	Leads   int           `json:"leads"`   // how many of them
	Version string        `json:"version,omitempty"`
}

// Members returns the members by name, as the groups' leaders know them; of a group whose leader is not reached
// as this node knows it.
func (n *Node) Members(ctx context.Context) []Member {
	led := n.members.leaders(n.members.ask(ctx))
	own := n.members.own()
	by := map[string]*Member{}
	for i := range n.groups {
		g := own.Groups[i]
		if led[i] != nil {
			g = led[i]
		}
		for _, s := range g.Servers {
			m := by[s.Id]
			if m == nil {
				m = &Member{Node: bridge.NodeID(s.Id), Addr: s.Addr, Groups: len(n.groups), Alive: n.PeerAlive(bridge.NodeID(s.Id))}
				if m.Node == n.cfg.NodeID {
					m.Version = n.cfg.Version
				} else if r := n.members.route(m.Node); r != nil {
					m.Version = r.greeting().Version
				}
				by[s.Id] = m
			}
			if s.Voter {
				m.Votes++
			} else {
				m.Follows++
			}
			if g.Leader == s.Id {
				m.Leads++
			}
		}
	}
	out := make([]Member, 0, len(by))
	for _, m := range by {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// MemberIDs returns the names of the members, as this node knows them, sorted.
func (n *Node) MemberIDs() []bridge.NodeID {
	var out []bridge.NodeID
	for _, p := range n.members.all() {
		out = append(out, p.ID)
	}
	return out
}

// change is one change of the members that this node drives.
type change struct {
	n    *Node
	node Peer
	tell func(string)
}

func (c *change) say(format string, args ...any) { c.tell(fmt.Sprintf(format, args...)) }

// AddMember takes a node into all groups: it follows first, and votes when it has caught up. The node must run
// already. With the name of a member it gives that another address, or finishes what was begun. tell is told
// of the progress, by the calling goroutine. It returns when all is done, or with an error that says what to do;
// what has been done stays, and is gone on with by another call. Any node may be asked.
func (n *Node) AddMember(ctx context.Context, node Peer, tell func(string)) error {
	c := &change{n: n, node: node, tell: tell}
	if err := c.add(ctx); err != nil {
		return fmt.Errorf("%w: add %s: %w", ErrMembers, node.ID, err)
	}
	return nil
}

// RemoveMember takes a node out of all groups, dead or alive; its leaderships are handed over first. The rest is
// as for AddMember.
func (n *Node) RemoveMember(ctx context.Context, id bridge.NodeID, tell func(string)) error {
	c := &change{n: n, node: Peer{ID: id}, tell: tell}
	if err := c.remove(ctx); err != nil {
		return fmt.Errorf("%w: remove %s: %w", ErrMembers, id, err)
	}
	return nil
}

func (c *change) add(ctx context.Context) error {
	if _, port, err := net.SplitHostPort(c.node.Addr); c.node.ID == "" || len(c.node.ID) > maxNodeID || err != nil || port == "" {
		return fmt.Errorf("%q=%q: want a name and host:port", c.node.ID, c.node.Addr)
	}
	members, err := c.members(ctx)
	if err != nil {
		return err
	}
	in, done := 0, 0
	for _, m := range members {
		if n := c.listOf(m.Node); n == 1 && m.Node != c.node.ID {
			return fmt.Errorf("TIDEWIRE_CLUSTER_PEERS of %s names no other node, so that it would begin anew if it lost its disk: set it to %s and %s there, restart it, and run this again", m.Node, m.Node, c.node.ID)
		}
		if m.Node != c.node.ID && !reachable(m.Addr, c.node.Addr) {
			return fmt.Errorf("other nodes cannot reach %s at %q: give it a host first, with `tidectl members add %s=HOST:PORT`", m.Node, m.Addr, m.Node)
		}
		if m.Node == c.node.ID {
			in = m.Votes + m.Follows
			if m.Addr == c.node.Addr {
				done = m.Votes
			}
		}
	}
	groups := len(c.n.groups)
	if err := c.probe(ctx, in > 0); err != nil {
		return err
	}
	if done == groups {
		// The address of some group may still be an old one, which the steps look at.
		c.say("%s is a member at %s", c.node.ID, c.node.Addr)
	}
	first, cancel := context.WithTimeout(ctx, startPatience)
	err = c.step(first, 0, peerpb.Step_STEP_ADD)
	cancel()
	if err != nil {
		return err
	}
	for g := 1; g < groups; g++ {
		if err := c.step(ctx, g, peerpb.Step_STEP_ADD); err != nil {
			return err
		}
	}
	if done < groups {
		c.say("%s follows in %d groups; it gets its votes when it has caught up", c.node.ID, groups)
	}
	for i := range groups {
		g := (i + 1) % groups // group 0 last
		if err := c.step(ctx, g, peerpb.Step_STEP_PROMOTE); err != nil {
			return err
		}
		if done < groups {
			c.say("group %d: %s votes (%d of %d)", g, c.node.ID, i+1, groups)
		}
	}
	return nil
}

// reachable says whether a node at the address from could reach one at addr, as far as the addresses say: not without
// a host, and not on loopback if it is elsewhere itself.
func reachable(addr, from string) bool {
	host, _, _ := net.SplitHostPort(addr)
	return host != "" && (!OnLoopback(addr) || OnLoopback(from))
}

func (c *change) remove(ctx context.Context) error {
	members, err := c.members(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(members, func(m Member) bool { return m.Node == c.node.ID }) {
		c.say("%s is not a member", c.node.ID)
		return nil
	}
	first, cancel := context.WithTimeout(ctx, startPatience)
	err = c.step(first, 0, peerpb.Step_STEP_DEMOTE)
	cancel()
	if err != nil {
		return err
	}
	groups := len(c.n.groups)
	for i := range groups {
		g := (i + 1) % groups
		if err := c.step(ctx, g, peerpb.Step_STEP_REMOVE); err != nil {
			return err
		}
		c.say("group %d: %s is out (%d of %d)", g, c.node.ID, i+1, groups)
	}
	return nil
}

// listOf returns how many nodes TIDEWIRE_CLUSTER_PEERS names on a node; 0 if it does not say.
func (c *change) listOf(id bridge.NodeID) int {
	if id == c.n.cfg.NodeID {
		return len(c.n.members.list)
	}
	if r := c.n.members.route(id); r != nil {
		return len(r.greeting().Peers)
	}
	return 0
}

// members returns who they are when each group has a leader that says so.
func (c *change) members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for {
		led := c.n.members.leaders(c.n.members.ask(ctx))
		g := slices.Index(led, nil)
		if g < 0 {
			return c.n.Members(ctx), nil
		}
		if err := pause(ctx, stepPause); err != nil {
			return nil, c.noLeader(g)
		}
	}
}

func (c *change) noLeader(g int) error {
	var away, old []bridge.NodeID
	for _, p := range c.n.members.all() {
		if !c.n.PeerAlive(p.ID) {
			away = append(away, p.ID)
		} else if r := c.n.members.route(p.ID); r != nil && r.greeting().Wire < addressedWire {
			old = append(old, p.ID)
		}
	}
	if len(old) > 0 { // it may lead the group, and does not know the question
		return fmt.Errorf("group %d: %s: %w", g, joinIDs(old), errOldBuild)
	}
	if len(away) == 0 {
		return fmt.Errorf("group %d has no leader that answers: look at /status of the nodes, and run it again", g)
	}
	return fmt.Errorf("group %d has no leader that answers, and members are changed by a majority of them: start %s, and run it again", g, joinIDs(away))
}

// probe looks whether the node is there, is who it should be, and has nothing that would have to give way.
func (c *change) probe(ctx context.Context, member bool) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	id, h, err := func() (bridge.NodeID, hello, error) {
		conn, err := c.n.dialer.dial(ctx, c.node.ID, c.node.Addr, preface{kind: kindLiveness})
		if err != nil {
			return "", hello{}, err
		}
		defer func() { _ = conn.Close() }()
		t, _ := ctx.Deadline()
		if err := conn.SetDeadline(t); err != nil {
			return "", hello{}, err
		}
		return readHello(conn)
	}()
	switch {
	case err != nil:
		return fmt.Errorf("no node answers at %s (%w): start it first, with TIDEWIRE_NODE_ID=%s and a TIDEWIRE_CLUSTER_PEERS that names it and some members", c.node.Addr, err, c.node.ID)
	case id != c.node.ID:
		return fmt.Errorf("the node at %s is %s, not %s: check the address, and its TIDEWIRE_NODE_ID", c.node.Addr, id, c.node.ID)
	case h.greeting.Wire < addressedWire:
		return fmt.Errorf("the node at %s: %w", c.node.Addr, errOldBuild)
	case !member && h.greeting.Configured > 0:
		return fmt.Errorf("%s has the data of a cluster already, its own or one of before: stop it, remove its TIDEWIRE_DATA_DIR, see that its TIDEWIRE_CLUSTER_PEERS names some members, start it, and run this again", id)
	}
	return newGreeting(c.n.cfg).goesWith(h.greeting)
}

// step has the leader of a group take a step, until it has.
func (c *change) step(ctx context.Context, g int, step peerpb.Step) error {
	why, alone := "", time.Now()
	for {
		r, err := c.ask(ctx, g, step)
		switch {
		case err != nil, r.Outcome == peerpb.Outcome_OUTCOME_NOT_LEADER:
			if time.Since(alone) > leaderPatience {
				return c.noLeader(g)
			}
		case r.Outcome == peerpb.Outcome_OUTCOME_DONE:
			return nil
		case r.Outcome == peerpb.Outcome_OUTCOME_WAIT:
			alone = time.Now()
			if r.Message != why {
				why = r.Message
				c.say("group %d: waiting: %s", g, why)
			}
		default:
			return fmt.Errorf("group %d: %s", g, r.Message)
		}
		if err := pause(ctx, stepPause); err != nil {
			if why == "" {
				why = "its leader was not reached"
			}
			return fmt.Errorf("group %d: given up while waiting: %s: see to that, and run it again to go on", g, why)
		}
	}
}

// ask asks the leader of a group, as far as it is known.
func (c *change) ask(ctx context.Context, g int, step peerpb.Step) (*peerpb.ChangeReply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &peerpb.ChangeRequest{Group: uint32(g), Step: step, Id: string(c.node.ID), Addr: c.node.Addr}
	group := c.n.groups[g]
	if _, leads := group.leaderTerm(); leads {
		return group.change(ctx, req), nil
	}
	leader, ok := group.leader()
	if !ok || leader == c.n.cfg.NodeID || !c.n.PeerAlive(leader) {
		led := c.n.members.leaders(c.n.members.ask(ctx))[g]
		if led == nil {
			return outcome(peerpb.Outcome_OUTCOME_NOT_LEADER), nil
		}
		leader = bridge.NodeID(led.Leader)
	}
	client, err := c.n.peers.membersClient(ctx, leader)
	if err != nil {
		return nil, err
	}
	return client.Change(ctx, req)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
