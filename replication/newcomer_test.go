package replication

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// keptStores gives node i the same stores in memory at each start, until they are forgotten: its disk.
type keptStores map[bridge.GroupID]Stores

func (k keptStores) open(g bridge.GroupID, _ string) (Stores, error) {
	if _, ok := k[g]; !ok {
		s := raft.NewInmemStore()
		k[g] = Stores{Log: &refusingStore{LogStore: s}, Stable: s, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }}
	}
	return k[g], nil
}

// vote asks node to for its vote, in the name of node from as it is.
func (c *cluster) vote(from, to int, preVote bool) bool {
	c.t.Helper()
	c.nodes[from].groups[0].transport.CloseStreams() // to a process that is no more, maybe
	g := c.nodes[from].groups[0]
	var last raft.Log
	index := g.raft.LastIndex()
	if err := g.log.GetLog(index, &last); err != nil {
		c.t.Fatal(err)
	}
	self, id, addr := raft.ServerID(c.peers[from].ID), raft.ServerID(c.peers[to].ID), raft.ServerAddress(c.peers[to].Addr)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: g.transport.EncodePeer(self, g.transport.LocalAddr())}
	term := g.raft.CurrentTerm() + 1
	if preVote {
		var resp raft.RequestPreVoteResponse
		req := &raft.RequestPreVoteRequest{RPCHeader: header, Term: term, LastLogIndex: index, LastLogTerm: last.Term}
		if err := g.transport.NetworkTransport.RequestPreVote(id, addr, req, &resp); err != nil {
			c.t.Fatal(err)
		}
		return resp.Granted
	}
	var resp raft.RequestVoteResponse
	req := &raft.RequestVoteRequest{RPCHeader: header, Term: term, LastLogIndex: index, LastLogTerm: last.Term, LeadershipTransfer: true}
	if err := g.transport.NetworkTransport.RequestVote(id, addr, req, &resp); err != nil {
		c.t.Fatal(err)
	}
	return resp.Granted
}

// Two of three nodes hold the last entry, so it is committed. One of them loses its disk and comes back
// while the other is down: it must not help the third, which lacks the entry, to the leadership.
func TestNodeWithoutItsDiskDoesNotVote(t *testing.T) {
	t.Parallel() // it waits for most of its time
	disks := []keptStores{{}, {}, {}}
	c := newCluster(t, 3, 1, calm, func(i int, c *Config) {
		c.OpenStores = disks[i].open
		c.NewcomerWait = time.Hour
	})
	c.waitConnected() // all have seen that nobody has anything: a first election
	c.elect(0, 0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	refuse := &disks[2][0].Log.(*refusingStore).refuse
	refuse.Store(true)
	c.propose(0, "b") // n0 and n1 hold it
	eventually(t, "n1 applies it", func() bool { return len(c.toys[1].applied(0)) == 2 })

	// n1 first, for it must not see the death of n0; then its disk.
	c.stop(1, 0)
	c.kill(0)
	refuse.Store(false)
	clear(disks[1])
	c.start(1)
	eventually(t, "n1 and n2 see each other", func() bool { return c.nodes[1].PeerAlive("n2") && c.nodes[2].PeerAlive("n1") })
	for _, preVote := range []bool{true, false} {
		if c.vote(2, 1, preVote) {
			t.Fatalf("the node without its disk votes (pre-vote %v) for one without the entry", preVote)
		}
	}
	if c.nodes[1].groups[0].campaign(time.Second) {
		t.Error("the node without its disk stands for election")
	}

	// A restart half way does not make it a voter: its log is not empty any more, but not whole either.
	c.stop(1, 0)
	s := disks[1][0]
	first := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(firstConfiguration(c.peers))}
	if err := errors.Join(s.Log.StoreLog(first), s.Log.StoreLog(&raft.Log{Index: 2, Term: 2, Type: raft.LogNoop}), s.Stable.SetUint64([]byte(keyCurrentTerm), 2)); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	eventually(t, "n1 and n2 see each other again", func() bool { return c.nodes[1].PeerAlive("n2") && c.nodes[2].PeerAlive("n1") })
	if c.vote(2, 1, true) {
		t.Fatal("it votes after a restart, although it has not caught up")
	}

	// The node with the entry comes back, is elected by n2, and brings n1 up to date: then n1 votes.
	c.start(0)
	c.waitConnected()
	c.elect(0, 0)
	c.waitSame(0, 2)
	if got := c.toys[2].applied(0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the cluster has %q", got)
	}
	eventually(t, "n1 is a full member again", func() bool { return !c.nodes[1].newcomer.waiting(0) })
	if _, err := os.Stat(filepath.Join(c.configs[1].Dir, "newcomer")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark is still there: %v", err)
	}
	if !c.vote(0, 1, false) {
		t.Error("it does not vote after it has caught up")
	}
}

// A cluster begins with all its nodes. Two of three used to begin without the third after a while: had they been
// nodes to be added, whose list names a member that is away, they would have taken that member into a cluster of
// theirs.
func TestAClusterBeginsWithAllItsNodes(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1, inMemory, func(i int, c *Config) { c.NewcomerWait = 50 * time.Millisecond })
	for i := range c.nodes {
		c.stop(i, 0)
	}
	c.start(0) // all disks are gone again
	c.start(1)
	for _, n := range c.nodes[:2] {
		eventually(t, "it says whom it waits for", func() bool {
			_, why := n.CaughtUp()
			return strings.Contains(strings.Join(why, " "), "no answer from n2")
		})
	}
	if l := c.leader(0); l >= 0 || !c.nodes[0].newcomer.isBare(0) || !c.nodes[1].newcomer.isBare(0) {
		t.Fatalf("they have begun without the third: node %d leads", l)
	}
	c.start(2)
	c.waitLeader(0)
	c.propose(0, "a")
	c.waitSame(0, 1)
}

// Who has no configuration writes the first one only when nobody can have another.
func TestWhoMayBeginACluster(t *testing.T) {
	list := []bridge.NodeID{"a", "b", "c"}
	for name, c := range map[string]struct {
		met  func(*newcomer)
		late bool
		want bool
	}{
		"nobody was met":                         {func(*newcomer) {}, false, false},
		"nobody was met, late":                   {func(*newcomer) {}, true, false},
		"all have nothing":                       {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list) }, false, true},
		"all have nothing, old builds":           {func(c *newcomer) { c.met("b", true, nil); c.met("c", true, nil) }, false, true},
		"a majority has nothing":                 {func(c *newcomer) { c.met("b", true, list) }, false, false},
		"a majority has nothing, late":           {func(c *newcomer) { c.met("b", true, list) }, true, false},
		"one has data":                           {func(c *newcomer) { c.met("b", true, list); c.met("c", false, list) }, true, false},
		"one has data, and is not on the list":   {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list); c.met("d", false, list) }, true, false},
		"a candidate has data":                   {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list); c.heard() }, true, false},
		"another list":                           {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list[:2]) }, true, false},
		"another list, then the same":            {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list[:2]); c.met("c", true, list) }, false, true},
		"had nothing, and has begun without us":  {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list); c.met("b", false, list) }, false, true},
		"there is a configuration in all groups": {func(c *newcomer) { c.met("b", true, list); c.met("c", true, list); c.lacks(0, false) }, true, false},
	} {
		n, err := openNewcomer(t.TempDir(), 1, "a", list, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		n.lacks(0, true)
		if c.late {
			n.begun = time.Now().Add(-time.Hour)
		}
		if c.met(n); n.mayBegin() != c.want {
			t.Errorf("%s: may begin %v", name, !c.want)
		}
	}
}

func TestWhoeverHasDataIsWaitedForLonger(t *testing.T) {
	c, err := openNewcomer(t.TempDir(), 1, "c", []bridge.NodeID{"a", "b", "c"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !c.mayVote(0) || !c.mayLead(0) {
		t.Error("a node with its data does not vote")
	}
	if err := c.empty(0); err != nil {
		t.Fatal(err)
	}
	at := func(waits time.Duration) { c.begun = time.Now().Add(-waits * time.Hour) }
	check := func(when string, vote, lead bool) {
		t.Helper()
		if c.mayVote(0) != vote || c.mayLead(0) != lead {
			t.Errorf("%s: votes %v, stands %v", when, c.mayVote(0), c.mayLead(0))
		}
	}
	check("at first", false, false)
	c.met("a", true, nil)
	check("one of two others has nothing", false, false)
	at(1)
	check("nobody with data was met", true, true)
	c.met("b", false, nil)
	check("somebody with data was met", false, false)
	at(2)
	check("after two waits", true, false)
	at(4)
	check("after four waits", true, true)
	at(0)
	c.met("b", true, nil)
	check("nobody has anything", true, true)
}
