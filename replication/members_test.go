package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/freeport"
)

// join starts one more node, which knows of those that were there at first and of itself.
func (c *cluster) join(id bridge.NodeID, opts ...option) int {
	c.t.Helper()
	ln, err := freeport.Listen()
	if err != nil {
		c.t.Fatal(err)
	}
	i := len(c.nodes)
	self := Peer{ID: id, Addr: ln.Addr().String()}
	cfg := c.configs[0]
	cfg.NodeID, cfg.Listen, cfg.Listener = id, self.Addr, ln
	cfg.Peers = append(slices.Clone(c.configs[0].Peers), self)
	cfg.Dir = c.t.TempDir()
	cfg.Log = testLog().With().Str("node", string(id)).Logger()
	c.peers = append(c.peers, self)
	c.toys = append(c.toys, newToy())
	c.svcs = append(c.svcs, &stubService{node: id})
	cfg.Machine, cfg.Service = c.toys[i], c.svcs[i]
	for _, o := range opts {
		o(i, &cfg)
	}
	c.configs = append(c.configs, cfg)
	c.mu.Lock()
	c.nodes = append(c.nodes, nil)
	c.mu.Unlock()
	c.start(i)
	return i
}

// progress collects what a change tells.
type progress struct {
	mu    sync.Mutex
	lines []string
}

func (p *progress) tell(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, s)
}

// change makes a change, and goes on with it as an operator does when it says so: a group may be without a leader for
// longer than it waits, and a node without an answer, on a machine that is busy.
func (c *cluster) change(make_ func(context.Context, func(string)) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), waitTime)
	defer cancel()
	var p progress
	for {
		err := make_(ctx, p.tell)
		if err == nil {
			return
		}
		late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "run it again")
		if !late || ctx.Err() != nil {
			c.t.Fatalf("%v\n%s", err, strings.Join(p.lines, "\n"))
		}
	}
}

func (c *cluster) add(asked, i int) {
	c.t.Helper()
	c.change(func(ctx context.Context, tell func(string)) error {
		return c.nodes[asked].AddMember(ctx, c.peers[i], tell)
	})
}

func (c *cluster) remove(asked int, id bridge.NodeID) {
	c.t.Helper()
	c.change(func(ctx context.Context, tell func(string)) error { return c.nodes[asked].RemoveMember(ctx, id, tell) })
}

// waitMembers waits until these running nodes agree that exactly they, and the names besides, are the voters of
// all groups, and watch exactly each other.
func (c *cluster) waitMembers(running []int, besides ...bridge.NodeID) {
	c.t.Helper()
	want := slices.Clone(besides)
	for _, i := range running {
		want = append(want, c.peers[i].ID)
	}
	slices.Sort(want)
	eventually(c.t, fmt.Sprintf("the members are %v", want), func() bool {
		for _, i := range running {
			n := c.nodes[i]
			for _, g := range n.groups {
				r := g.roster.Load()
				if peerIDs(r.voters) != strings.Join(strs(want), ", ") || len(r.waiting) > 0 {
					return false
				}
			}
			others := slices.DeleteFunc(slices.Clone(want), func(id bridge.NodeID) bool { return id == n.cfg.NodeID })
			if !slices.Equal(n.members.others(), others) {
				return false
			}
		}
		return true
	})
}

func strs(ids []bridge.NodeID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}

// proposer proposes to all groups, one entry after the other, until it is ended, and knows which were taken.
type proposer struct {
	c     *cluster
	stop  chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex
	taken map[bridge.GroupID][]string // in order
}

func (c *cluster) startLoad(groups int) *proposer {
	l := &proposer{c: c, stop: make(chan struct{}), taken: map[bridge.GroupID][]string{}}
	for g := range bridge.GroupID(groups) {
		l.wg.Go(func() { l.run(g) })
	}
	return l
}

func (l *proposer) run(g bridge.GroupID) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		case <-pace.C:
		}
		entry := fmt.Sprintf("%d-%d", g, i)
		l.c.mu.Lock()
		nodes := slices.Clone(l.c.nodes)
		l.c.mu.Unlock()
		for _, n := range nodes {
			if n == nil {
				continue
			}
			if id, ok := n.Leader(g); !ok || id != n.cfg.NodeID {
				continue
			}
			// Once only: one that failed may be committed all the same.
			if _, err := n.Propose(g, []byte(entry)).Wait(); err == nil {
				l.mu.Lock()
				l.taken[g] = append(l.taken[g], entry)
				l.mu.Unlock()
			}
			break
		}
	}
}

// end ends the load and waits until all running nodes have applied the same, each entry once, and all that were
// taken, in their order.
func (l *proposer) end() {
	l.c.t.Helper()
	close(l.stop)
	l.wg.Wait()
	for g, taken := range l.taken {
		if len(taken) == 0 {
			l.c.t.Errorf("group %d took nothing", g)
		}
		l.c.propose(g, "end")
		l.c.waitSame(g, len(taken)+1)
		for i, n := range l.c.nodes {
			if n == nil {
				continue
			}
			at, seen := 0, map[string]bool{}
			for _, e := range l.c.toys[i].applied(g) {
				if seen[e] && e != "end" {
					l.c.t.Errorf("%s applied %q twice", n.cfg.NodeID, e)
				}
				seen[e] = true
				if at < len(taken) && e == taken[at] {
					at++
				}
			}
			if at < len(taken) {
				l.c.t.Errorf("%s lacks %q of group %d, or has it in the wrong place", n.cfg.NodeID, taken[at], g)
			}
		}
	}
}

// A cluster grows from three to five nodes and shrinks to one, while entries are proposed.
func TestMembersGrowAndShrink(t *testing.T) {
	t.Parallel()
	const groups = 5 // so that each of five is the first choice of one
	c := newCluster(t, 3, groups)
	for g := range bridge.GroupID(groups) {
		c.waitLeader(g)
	}
	l := c.startLoad(groups)
	n3 := c.join("n3")
	c.add(1, n3)
	c.waitMembers([]int{0, 1, 2, 3})
	n4 := c.join("n4")
	c.add(n4-1, n4)
	c.waitMembers([]int{0, 1, 2, 3, 4})
	// The new ones lead their share.
	eventually(t, "n3 or n4 leads a group", func() bool { s := c.spread(groups); return s[3]+s[4] > 0 })
	for asked, gone := range []int{0, 4, 1, 2} {
		if asked == gone || c.nodes[asked] == nil {
			asked = 3
		}
		c.remove(asked, c.peers[gone].ID)
		eventually(t, "the removed one says so", func() bool {
			_, why := c.nodes[gone].CaughtUp()
			return strings.Contains(strings.Join(why, ""), "was removed from the cluster")
		})
		if why := c.nodes[gone].Isolated(); !strings.Contains(why, "removed") {
			t.Errorf("%s would keep its clients: %q", c.peers[gone].ID, why)
		}
		c.stop(gone, time.Second)
	}
	c.waitMembers([]int{3})
	l.end()
	if err := c.nodes[3].RemoveMember(t.Context(), "n3", func(string) {}); err == nil || !strings.Contains(err.Error(), "last node") {
		t.Errorf("the last node is removed: %v", err)
	}
}

// All nodes of the list that a cluster began with are replaced, one by one; two of them die first. Then one
// of the new ones loses its disk.
func TestAllOriginalMembersReplaced(t *testing.T) {
	t.Parallel() // it waits for most of its time
	const groups = 2
	c := newCluster(t, 3, groups)
	for g := range bridge.GroupID(groups) {
		c.waitLeader(g)
	}
	l := c.startLoad(groups)
	// Dead, then removed, then replaced.
	c.kill(0)
	c.remove(1, "n0")
	n3 := c.join("n3")
	c.add(2, n3)
	c.waitMembers([]int{1, 2, n3})
	// Replaced, then removed; it lives.
	n4 := c.join("n4")
	c.add(n3, n4)
	c.remove(n4, "n1")
	c.stop(1, time.Second)
	c.waitMembers([]int{2, n3, n4})
	// Dead, replaced, then removed.
	c.kill(2)
	n5 := c.join("n5", func(_ int, cfg *Config) { cfg.Peers = slices.Clone(c.peers[3:]) })
	c.add(n4, n5)
	c.remove(n3, "n2")
	c.waitMembers([]int{n3, n4, n5})
	// A restart finds the others, though the list of n3 names nobody but the first three and itself.
	c.stop(n3, time.Second)
	c.start(n3)
	c.waitMembers([]int{n3, n4, n5})
	for g := range bridge.GroupID(groups) {
		c.waitLeader(g)
	}
	// A member whose disk is lost is brought up to date, by a list of today.
	c.kill(n4)
	c.configs[n4].Dir = t.TempDir()
	c.configs[n4].Peers = slices.Clone(c.peers[3:])
	c.start(n4)
	c.waitMembers([]int{n3, n4, n5})
	eventually(t, "n4 votes again", func() bool { return !c.nodes[n4].newcomer.waiting(0) && !c.nodes[n4].newcomer.waiting(1) })
	l.end()
}

// A node that nobody has added waits, says what to do, and disturbs nobody; with the list of the cluster's
// beginning as with one that names it.
func TestJoinerWaitsToBeAdded(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 2, func(_ int, c *Config) { c.NewcomerWait = 200 * time.Millisecond })
	for g := range bridge.GroupID(2) {
		c.waitLeader(g)
		c.propose(g, "a")
	}
	n3 := c.join("n3")
	want := fmt.Sprintf("n3 is not a member of the cluster (n0, n1, n2) yet: run `tidectl members add n3=%s`", c.peers[n3].Addr)
	eventually(t, "it says so", func() bool {
		_, why := c.nodes[n3].CaughtUp()
		return len(why) == 1 && why[0] == want
	})
	for _, g := range c.nodes[n3].groups {
		if g.raft.LastIndex() > 0 || g.raft.CurrentTerm() > 0 {
			t.Errorf("group %d: it has begun something of its own: index %d, term %d", g.id, g.raft.LastIndex(), g.raft.CurrentTerm())
		}
		if g.campaign(time.Second) {
			t.Error("it stands for election")
		}
	}
	c.add(0, n3)
	c.waitMembers([]int{0, 1, 2, n3})
	eventually(t, "it is ready", func() bool { ok, _ := c.nodes[n3].CaughtUp(); return ok })
	c.waitSame(0, 1)
	c.waitSame(1, 1)
}

// A node that was removed while it was dead, and is started again, says so and disturbs nobody.
func TestRemovedNodeStartedAgain(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 2, patient)
	for g := range bridge.GroupID(2) {
		c.waitLeader(g)
		c.propose(g, "a")
		c.waitSame(g, 1)
	}
	c.kill(2)
	c.remove(0, "n2")
	c.waitMembers([]int{0, 1})
	for g := range bridge.GroupID(2) {
		c.propose(g, "b")
	}
	// A leader of before may still be about to tell it, once; it must find out by itself.
	for _, i := range []int{0, 1} {
		c.stop(i, 0)
		c.start(i)
	}
	terms := func() (out []uint64) {
		for _, g := range c.nodes[0].groups {
			out = append(out, g.raft.CurrentTerm())
		}
		return out
	}
	eventually(t, "leaderships are where they should be", func() bool { return slices.Equal(c.spread(2), []int{1, 1, 0}) })
	before := terms()
	c.start(2)
	eventually(t, "it says that it was removed", func() bool {
		_, why := c.nodes[2].CaughtUp()
		return len(why) == 1 && strings.Contains(why[0], "n2 was removed from the cluster") && strings.Contains(why[0], c.configs[2].Dir)
	})
	// It stands for election as if it had seen a death, with a higher term.
	for _, g := range c.nodes[2].groups {
		g.campaign(time.Second)
	}
	for g := range bridge.GroupID(2) {
		c.propose(g, "c")
	}
	if now := terms(); !slices.Equal(now, before) {
		t.Errorf("terms went from %v to %v", before, now)
	}
	// With its old data it is not taken in; without, it is.
	err := c.nodes[0].AddMember(t.Context(), c.peers[2], func(string) {})
	if err == nil || !strings.Contains(err.Error(), "remove its TIDEWIRE_DATA_DIR") {
		t.Errorf("taken in with the data of before: %v", err)
	}
	c.stop(2, time.Second)
	c.configs[2].Dir = t.TempDir()
	c.start(2)
	eventually(t, "it waits to be added", func() bool {
		_, why := c.nodes[2].CaughtUp()
		return len(why) == 1 && strings.Contains(why[0], "tidectl members add n2=")
	})
	c.add(1, 2)
	c.waitMembers([]int{0, 1, 2})
	c.waitSame(0, 3)
	c.waitSame(1, 3)
}

// A node that is removed hands its leaderships over first. With a heartbeat timeout of a minute nothing else would
// bring the next leader: the node lives, so that its death is not noticed.
func TestRemovedLeaderHandsOver(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 3, inMemory, calm, unmoved)
	c.waitConnected()
	for g := range bridge.GroupID(3) {
		c.elect(g, 0)
		c.propose(g, "before")
		c.waitSame(g, 1) // one that has just come gives no vote before it has caught up
	}
	c.remove(0, "n0")
	for g := range bridge.GroupID(3) {
		if l := c.waitLeader(g); l == 0 {
			t.Errorf("group %d is still led by the removed node", g)
		}
		c.propose(g, "after")
	}
	c.stop(0, 0)
	c.waitMembers([]int{1, 2})
}

// A change that was broken off keeps others out, and is finished, or undone, by asking again.
func TestChangeBrokenOff(t *testing.T) {
	t.Parallel() // it waits for most of its time
	const groups = 4
	c := newCluster(t, 3, groups)
	for g := range bridge.GroupID(groups) {
		c.waitLeader(g)
		c.propose(g, "a")
	}
	l := c.startLoad(groups)
	n3, n4 := c.join("n3"), c.join("n4")
	breakOff := func(change func(context.Context, func(string)) error, at string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := change(ctx, func(s string) {
			if strings.Contains(s, at) {
				cancel()
			}
		}); err == nil {
			t.Fatal("it was not broken off")
		}
	}
	adding := func(i int) func(context.Context, func(string)) error {
		return func(ctx context.Context, tell func(string)) error { return c.nodes[0].AddMember(ctx, c.peers[i], tell) }
	}
	breakOff(adding(n3), "votes (2 of 4)")
	for _, other := range []func() error{
		func() error { return c.nodes[1].AddMember(t.Context(), c.peers[n4], func(string) {}) },
		func() error { return c.nodes[2].RemoveMember(t.Context(), "n1", func(string) {}) },
	} {
		if err := other(); err == nil || !strings.Contains(err.Error(), "one change is made at a time") || !strings.Contains(err.Error(), "members add n3=") {
			t.Errorf("a second change: %v", err)
		}
	}
	c.add(2, n3)
	c.waitMembers([]int{0, 1, 2, n3})
	c.add(1, n3) // once more does no harm
	breakOff(adding(n4), "follows in")
	c.remove(n3, "n4") // undone
	c.waitMembers([]int{0, 1, 2, n3})
	c.stop(n4, time.Second)
	breakOff(func(ctx context.Context, tell func(string)) error { return c.nodes[0].RemoveMember(ctx, "n1", tell) }, "out (2 of 4)")
	c.remove(2, "n1")
	c.remove(2, "n1")
	c.waitMembers([]int{0, 2, n3})
	c.stop(1, time.Second)
	l.end()
}

// What would leave no majority, or a majority that lacks something, is refused, in words that say what to do.
func TestChangesThatAreRefused(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 2)
	for g := range bridge.GroupID(2) {
		c.waitLeader(g)
	}
	refused := func(err error, words ...string) {
		t.Helper()
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v: does not say %q", err, w)
			}
		}
	}
	c.kill(2)
	quiet := func(string) {}
	eventually(t, "the death is noticed", func() bool { return !c.nodes[0].PeerAlive("n2") && !c.nodes[1].PeerAlive("n2") })
	refused(c.nodes[0].RemoveMember(t.Context(), "n1", quiet), "no majority", "n2", "start them")
	refused(c.nodes[0].AddMember(t.Context(), Peer{"n9", "127.0.0.1:1"}, quiet), "no node answers at 127.0.0.1:1", "TIDEWIRE_NODE_ID=n9")
	refused(c.nodes[0].AddMember(t.Context(), Peer{"n9", c.peers[1].Addr}, quiet), "is n1, not n9")
	refused(c.nodes[0].AddMember(t.Context(), Peer{"n9", "nowhere"}, quiet), "host:port")
	// A cluster of its own does not become part of another.
	own := c.join("n9", func(_ int, cfg *Config) { cfg.Peers = nil })
	eventually(t, "it leads itself", func() bool { return c.nodes[own].groups[0].raft.LastIndex() > 1 })
	refused(c.nodes[0].AddMember(t.Context(), c.peers[own], quiet), "has the data of a cluster already", "TIDEWIRE_DATA_DIR")
	c.stop(own, time.Second)
	// Without a majority there are no changes.
	c.kill(1)
	eventually(t, "the death is noticed", func() bool { return !c.nodes[0].PeerAlive("n1") })
	// One that leads learns of the death first, and that its lease is over a moment later.
	eventually(t, "no group has a leader", func() bool {
		for g := range bridge.GroupID(2) {
			if leader, _ := c.nodes[0].Leader(g); leader != "" {
				return false
			}
		}
		return true
	})
	refused(c.nodes[0].RemoveMember(t.Context(), "n1", quiet), "has no leader", "start n1,n2")
	c.start(1)
	c.start(2)
	c.waitMembers([]int{0, 1, 2})
}

// A node gets its vote in a group when it has what is committed there, and not before: a majority with it would
// not hold what is committed.
func TestVoteOnlyForWhoHasCaughtUp(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1)
	c.waitLeader(0)
	c.propose(0, "a")
	store := &refusingStore{}
	store.refuse.Store(true)
	n3 := c.join("n3", func(_ int, cfg *Config) {
		cfg.OpenStores = func(bridge.GroupID, string) (Stores, error) {
			s := raft.NewInmemStore()
			store.LogStore = s
			return Stores{Log: store, Stable: s, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }}, nil
		}
	})
	kept := map[bridge.NodeID]*peer{}
	for _, p := range c.peers[:3] {
		kept[p.ID] = c.nodes[n3].members.peer(p.ID)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := c.nodes[0].AddMember(ctx, c.peers[n3], func(s string) {
		if strings.Contains(s, "n3 is") && strings.Contains(s, "entries behind") {
			cancel()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "entries behind") || !strings.Contains(err.Error(), "run it again to go on") {
		t.Errorf("added although it takes no entry: %v", err)
	}
	for _, m := range c.nodes[0].Members(t.Context()) {
		if m.Node == "n3" && (m.Votes != 0 || m.Follows != 1) {
			t.Errorf("%+v", m)
		}
	}
	// It has heard a leader for a while, and has no configuration: it must not forget meanwhile whom it knows.
	eventually(t, "it hears a leader", func() bool { _, ok := c.nodes[n3].Leader(0); return ok })
	for id, p := range kept {
		if p == nil || c.nodes[n3].members.peer(id) != p {
			t.Errorf("%s was forgotten", id)
		}
	}
	store.refuse.Store(false)
	c.add(1, n3)
	c.waitMembers([]int{0, 1, 2, n3})
	c.waitSame(0, 1)
}

// A cluster begins with one list. Nodes with different ones say so, and begin nothing.
func TestListsThatDiffer(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1, func(i int, cfg *Config) {
		cfg.NewcomerWait = 300 * time.Millisecond
		if i == 2 {
			cfg.Peers = append(slices.Clone(cfg.Peers), Peer{"n7", "127.0.0.1:1"})
		}
	})
	for i, want := range []string{"n0,n1,n2 on n0, but n0,n1,n2,n7 on n2", "n0,n1,n2 on n1, but n0,n1,n2,n7 on n2", "n0,n1,n2,n7 on n2, but n0,n1,n2 on n0, n0,n1,n2 on n1"} {
		eventually(t, c.configs[i].Peers[i].Addr+" says so", func() bool {
			_, why := c.nodes[i].CaughtUp()
			return strings.Contains(strings.Join(why, ""), want)
		})
	}
	for i, n := range c.nodes {
		if last := n.groups[0].raft.LastIndex(); last > 0 {
			t.Errorf("node %d has begun: %d entries", i, last)
		}
	}
	c.stop(2, 0)
	c.configs[2].Peers = slices.Clone(c.peers)
	c.start(2)
	c.waitMembers([]int{0, 1, 2})
	c.propose(0, "a")
	c.waitSame(0, 1)
}

// A node that replaces a dead one may come to live where that was. It must not take what is sent for the dead:
// the leader would count its disk twice.
func TestNewNodeAtTheAddressOfADeadOne(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1)
	c.waitLeader(0)
	c.propose(0, "a")
	c.kill(2)
	ln, err := net.Listen("tcp", c.peers[2].Addr)
	if err != nil {
		t.Fatal(err)
	}
	n3 := c.join("n3", func(i int, cfg *Config) {
		_ = cfg.Listener.Close()
		cfg.Listener, cfg.Listen = ln, c.peers[2].Addr
		c.peers[i].Addr = c.peers[2].Addr
		cfg.Peers = []Peer{c.peers[0], c.peers[1], c.peers[i]}
	})
	err = c.nodes[0].AddMember(t.Context(), c.peers[n3], func(string) {})
	if err == nil || !strings.Contains(err.Error(), "is the address of n2: remove that first") {
		t.Errorf("two nodes at one address: %v", err)
	}
	for i := range 20 {
		c.propose(0, fmt.Sprint(i))
	}
	if last := c.nodes[n3].groups[0].raft.LastIndex(); last > 0 {
		t.Errorf("it took %d entries that were for n2", last)
	}
	c.remove(1, "n2")
	c.add(1, n3)
	c.waitMembers([]int{0, 1, n3})
	c.waitSame(0, 21)
}

// A member moves to another address, with its disk; only the cluster is told.
func TestMemberMoves(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 2)
	c.waitLeader(0)
	c.stop(2, time.Second)
	ln, err := freeport.Listen()
	if err != nil {
		t.Fatal(err)
	}
	c.peers[2].Addr = ln.Addr().String()
	c.configs[2].Listen = c.peers[2].Addr
	c.configs[2].Peers = slices.Clone(c.peers)
	_ = ln.Close()
	c.start(2)
	eventually(t, "it answers", func() bool { return c.nodes[2].PeerAlive("n0") })
	c.add(2, 2)
	eventually(t, "the others find it", func() bool { return c.nodes[0].PeerAlive("n2") && c.nodes[1].PeerAlive("n2") })
	c.propose(0, "a")
	c.waitSame(0, 1)
	// Where a leader does not answer in time a node tells what it knows itself, perhaps of a moment ago.
	eventually(t, "n2 is told where it is, and alive", func() bool {
		return !slices.ContainsFunc(c.nodes[0].Members(t.Context()), func(m Member) bool {
			return m.Node == "n2" && (m.Addr != c.peers[2].Addr || m.Votes != 2 || !m.Alive)
		})
	})
}
