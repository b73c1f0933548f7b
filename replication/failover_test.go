package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// seat makes each group's first choice its leader.
func (c *cluster) seat(groups int) {
	c.t.Helper()
	c.waitConnected()
	for g := range bridge.GroupID(groups) {
		first := preference(g, c.peers)[0]
		c.elect(g, slices.Index(c.peers, first))
	}
}

// elect makes node i lead group g, without waiting for timers. In a cluster that begins another may lead already, and i
// lack the last it wrote: who stands then deposes that leader and gets no votes. So who stands is the one that has it all:
// i, or else, when nobody leads, the one that will bring i up to date.
func (c *cluster) elect(g bridge.GroupID, i int) {
	c.t.Helper()
	var stood time.Time
	eventually(c.t, fmt.Sprintf("node %d leads group %d, and all know it", i, g), func() bool {
		if c.leader(g) == i { // another may have been elected since then, by those who do not know it
			return !slices.ContainsFunc(c.nodes, func(n *Node) bool {
				if n == nil {
					return false
				}
				id, _ := n.Leader(g)
				return id != c.peers[i].ID
			})
		}
		// One that has met the others too late to begin with them does not stand: it has to catch up first.
		if who := c.longest(g, i); time.Since(stood) > 2*time.Second && (who == i || c.leader(g) < 0) && c.nodes[who].groups[g].campaign(5*time.Second) {
			stood = time.Now()
		}
		return false
	})
}

// waitMayLead waits until node i may stand for election. One that has met the others when they had begun already has to
// catch up first.
func (c *cluster) waitMayLead(g bridge.GroupID, i int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node %d may lead group %d", i, g), func() bool { return c.nodes[i].newcomer.mayLead(g) })
}

// longest returns which of the running nodes has the longest log, in Raft's sense: i if it is one of those.
func (c *cluster) longest(g bridge.GroupID, i int) int {
	last := func(j int) (term, index int) {
		stats := c.nodes[j].groups[g].raft.Stats()
		term, _ = strconv.Atoi(stats["last_log_term"])
		index, _ = strconv.Atoi(stats["last_log_index"])
		return term, index
	}
	who := i
	term, index := last(i)
	for j, n := range c.nodes {
		if n == nil {
			continue
		}
		if t, x := last(j); t > term || t == term && x > index {
			who, term, index = j, t, x
		}
	}
	return who
}

func (c *cluster) waitConnected() {
	c.t.Helper()
	eventually(c.t, "all nodes see each other", func() bool {
		for i, n := range c.nodes {
			for j, m := range c.nodes {
				if n != nil && m != nil && i != j && !n.PeerAlive(c.peers[j].ID) {
					return false
				}
			}
		}
		return true
	})
}

// A node dies like a killed process: its sockets close and nothing else is said. With a heartbeat timeout
// of a minute only the broken connections can bring the next leader.
func TestDeathIsNoticedByConnection(t *testing.T) {
	c := newCluster(t, 3, 3, inMemory, calm, unmoved)
	c.waitConnected()
	for g := range bridge.GroupID(3) {
		c.elect(g, 0)
		c.propose(g, "before")
		c.waitSame(g, 1)
	}
	c.kill(0)
	for g := range bridge.GroupID(3) {
		c.waitLeader(g)
		c.propose(g, "after")
		c.waitSame(g, 2)
	}
	if c.nodes[1].PeerAlive("n0") {
		t.Error("n1 takes n0 for alive")
	}
}

// The first of the survivors lacks entries, so the other refuses it its vote, and must have its turn.
func TestTurnPassesToTheOneWithTheEntries(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, calm, func(i int, c *Config) {
		if i == 1 { // the first choice after n0
			mem := c.OpenStores
			c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
				s, err := mem(g, d)
				s.Log = &refusingStore{LogStore: s.Log}
				return s, err
			}
		}
	})
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	c.nodes[1].groups[0].stores.Log.(*refusingStore).refuse.Store(true)
	c.propose(0, "b") // on n0 and n2 only
	eventually(t, "n2 has it", func() bool { return len(c.toys[2].applied(0)) == 2 })
	c.nodes[1].groups[0].stores.Log.(*refusingStore).refuse.Store(false)
	// It must not be brought up to date before the death: there is no time for a retry in what follows.
	c.kill(0)
	c.waitLeader(0)
	eventually(t, "the entry survives", func() bool {
		return slices.Equal(c.toys[1].applied(0), []string{"a", "b"}) && slices.Equal(c.toys[2].applied(0), []string{"a", "b"})
	})
}

// A candidate whose election has failed listens to the next call to campaign. Raft's own timers, a minute
// here, would be the next thing to move it.
func TestCandidateCampaignsAgain(t *testing.T) {
	c := newCluster(t, 3, 1, calm, func(_ int, c *Config) { c.LeaderLease = 200 * time.Millisecond }) // it may lead at first
	c.waitConnected()
	c.waitMayLead(0, 0)
	c.stop(1, 0)
	c.stop(2, 0)
	c.nodes[0].groups[0].campaign(5 * time.Second)
	eventually(t, "n0 stands alone", func() bool { return c.nodes[0].groups[0].raft.State() == raft.Candidate })
	c.start(1)
	eventually(t, "the two see each other", func() bool { return c.nodes[0].PeerAlive("n1") && c.nodes[1].PeerAlive("n0") })
	eventually(t, "n0 leads", func() bool {
		c.nodes[0].groups[0].campaign(5 * time.Second)
		pause := time.NewTimer(200 * time.Millisecond) // an election's time
		<-pause.C
		return c.leader(0) == 0
	})
}

// slowStable takes its time for every term and vote.
type slowStable struct{ raft.StableStore }

func (s slowStable) pause() { time.Sleep(60 * time.Millisecond) }

func (s slowStable) Set(k, v []byte) error { s.pause(); return s.StableStore.Set(k, v) }
func (s slowStable) SetUint64(k []byte, v uint64) error {
	s.pause()
	return s.StableStore.SetUint64(k, v)
}

// Two survivors on slow disks used to undo each other's elections: the turn passed by a clock, to the second
// before the first had its vote, whose higher term undid that election, and so on until Raft's own timers
// ended it. Now one stands, and the other waits for it: one election, one term. On a machine that gives the one no
// processor for all of takeoverPatience it is right to pass it over; so there may be one more for each such time.
func TestSurvivorsDoNotDuel(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, unshaken, func(_ int, c *Config) {
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			s.Stable = slowStable{s.Stable}
			return s, err
		}
	})
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "before")
	c.waitSame(0, 1)
	before, killed := c.nodes[1].Groups()[0].Term, time.Now()
	c.kill(0)
	leader := c.waitLeader(0)
	took := time.Since(killed)
	c.propose(0, "after")
	c.waitSame(0, 2)
	elections := c.nodes[leader].Groups()[0].Term - before
	if elections > 1+bridge.Term(took/takeoverPatience) {
		t.Errorf("it took %d elections in %v", elections, took)
	}
	if leader != 1 && elections == 1 && took < takeoverPatience {
		t.Errorf("node %d leads: both logs are the same, n1 comes first", leader)
	}
}

// refusingStore refuses to write while it is told to.
type refusingStore struct {
	raft.LogStore
	refuse atomic.Bool
}

func (s *refusingStore) StoreLogs(l []*raft.Log) error {
	if s.refuse.Load() {
		return errors.New("refused by the test")
	}
	return s.LogStore.StoreLogs(l)
}

func TestStoppedNodeHandsOver(t *testing.T) {
	c := newCluster(t, 3, 3, inMemory, calm, unmoved)
	c.waitConnected()
	for g := range bridge.GroupID(3) {
		c.elect(g, 0)
		c.propose(g, "before")
		c.waitSame(g, 1) // one that has just come gives no vote before it has caught up
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a hand-over that fails is repeated after a minute
	defer cancel()
	if err := c.nodes[0].Drain(ctx); err != nil {
		t.Fatal(err)
	}
	for g := range bridge.GroupID(3) {
		if l := c.waitLeader(g); l == 0 {
			t.Errorf("group %d is still led by the stopped node", g)
		}
	}
	// It takes none back, although it is the first choice of group 0.
	if err := c.nodes[c.leader(0)].groups[0].transferTo(c.peers[0]); err == nil {
		t.Error("a stopping node took a leadership")
	}
	c.stop(0, time.Second)
	c.propose(0, "after")
	c.waitSame(0, 2)
}

func TestLeadershipsMoveBack(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 6)
	even := func() bool { return slices.Equal(c.spread(6), []int{2, 2, 2}) }
	eventually(t, "two groups each", even)
	c.kill(2)
	eventually(t, "the survivors lead them", func() bool { s := c.spread(6); return s[0] == 3 && s[1] == 3 })
	c.start(2)
	eventually(t, "two groups each again", even)
	changes := func() (sum int64) {
		for _, n := range c.nodes {
			sum += n.LeaderChanges()
		}
		return sum
	}
	// It comes to rest: two rounds of placement in which nothing moves. (A round is what it takes, there is
	// no event to wait for; on a busy machine an election may still come between, so it may take several.)
	eventually(t, "two rounds without a hand-over", func() bool {
		before, rounds := changes(), time.NewTimer(2*placementEvery)
		<-rounds.C
		return changes() == before && even()
	})
}

func TestPreferenceSpreadsTheDeadNodesGroups(t *testing.T) {
	members := []Peer{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	first, second := map[bridge.NodeID]int{}, map[[2]bridge.NodeID]int{}
	for g := range bridge.GroupID(12) {
		p := preference(g, members)
		ids := []bridge.NodeID{p[0].ID, p[1].ID, p[2].ID}
		slices.Sort(ids)
		if !slices.Equal(ids, []bridge.NodeID{"a", "b", "c"}) {
			t.Fatalf("group %d: %v", g, p)
		}
		first[p[0].ID]++
		second[[2]bridge.NodeID{p[0].ID, p[1].ID}]++
	}
	for id, n := range first {
		if n != 4 {
			t.Errorf("%s is first choice of %d of 12", id, n)
		}
	}
	for ids, n := range second {
		if n != 2 {
			t.Errorf("%s inherits %d groups of %s", ids[1], n, ids[0])
		}
	}
}

// runErr returns the error that has ended the node, if any.
func runErr(n *Node) error {
	select {
	case err := <-n.fatal:
		return err
	default:
		return nil
	}
}

// A disk that fails ends the node with an error that says what to do, and the others go on.
func TestFailedDiskEndsTheNode(t *testing.T) {
	stores := make([]*refusingStore, 3)
	c := newCluster(t, 3, 1, inMemory, func(i int, c *Config) {
		mem := c.OpenStores
		c.OpenStores = func(g bridge.GroupID, d string) (Stores, error) {
			s, err := mem(g, d)
			stores[i] = &refusingStore{LogStore: s.Log}
			s.Log = stores[i]
			return s, err
		}
	})
	old := c.waitLeader(0)
	stores[old].refuse.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.nodes[old].Run(ctx) }()
	eventually(t, "the node with the failed disk ends", func() bool {
		// By what it is to write as a leader; or as a follower, if it is none any more.
		if l := c.leader(0); l >= 0 {
			_, _ = c.nodes[l].Propose(0, []byte("lost")).Wait()
		}
		select {
		case err := <-ended:
			return err != nil
		default:
			return false
		}
	})
	eventually(t, "another node leads", func() bool { l := c.leader(0); return l >= 0 && l != old })
	c.propose(0, "b")
}

func TestLogStoreUndoesALateWrite(t *testing.T) {
	inner := &hangingStore{LogStore: raft.NewInmemStore()}
	s := newLogStore(inner, 50*time.Millisecond, func(err error) { t.Errorf("reported: %v", err) })
	defer s.close()
	entry := func(i uint64, data string) *raft.Log { return &raft.Log{Index: i, Term: 1, Data: []byte(data)} }
	// One that takes longer on a machine that is busy is taken out again, too.
	eventually(t, "a write", func() bool { return s.StoreLog(entry(1, "a")) == nil })
	release := inner.set()
	if err := s.StoreLog(entry(2, "b")); !errors.Is(err, ErrWriteTimeout) {
		t.Fatalf("a write that hangs: %v", err)
	}
	if err := s.StoreLog(entry(2, "c")); !errors.Is(err, ErrWriteTimeout) {
		t.Fatalf("a write during a hang: %v", err)
	}
	release()
	eventually(t, "writes go on", func() bool { return s.StoreLog(entry(2, "d")) == nil })
	var l raft.Log
	if err := s.GetLog(2, &l); err != nil || string(l.Data) != "d" {
		t.Errorf("entry 2 is %q, %v", l.Data, err)
	}
	if err := inner.GetLog(2, &l); err != nil || string(l.Data) != "d" {
		t.Errorf("entry 2 on disk is %q, %v", l.Data, err)
	}
}

// Followers apply an entry without waiting for the next message of the leader's own accord, which with this
// CommitTimeout comes after the test's patience.
func TestFollowersLearnOfACommitAtOnce(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, unshaken, unmoved, func(_ int, c *Config) { c.CommitTimeout = time.Minute })
	c.waitConnected()
	c.elect(0, 0)
	all := func(entries int) bool {
		return !slices.ContainsFunc(c.toys, func(m *toy) bool { return len(m.applied(0)) < entries })
	}
	// On a busy machine an entry may still be on its way to a follower when all nudges for it have come in vain: then
	// the next entry tells of it.
	const patience, most = 3 * time.Second, 3
	late := 0
	for i := range 20 {
		c.propose(0, fmt.Sprint(i))
		for end := time.Now().Add(patience); !all(i + 1); time.Sleep(time.Millisecond) {
			if time.Now().Before(end) {
				continue
			}
			if late++; late > most {
				t.Fatalf("%d of %d entries were not applied within %v", late, i+1, patience)
			}
			break
		}
	}
}
