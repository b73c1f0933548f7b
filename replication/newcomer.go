package replication

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// A node whose disk was lost has forgotten what it promised: entries that count as committed because it
// held them, and votes that it gave. Were it to vote as the empty node that it is, a candidate without the
// last committed entry could win with its vote (the node that does hold the entry may be down for a moment),
// and the entry, which subscribers have seen, would be lost; or it could vote twice in one term. Its own
// candidature is no better: it would vote for itself. So a node that begins with nothing, a newcomer,
//
//	grants no vote in a group, and asks for none,
//
// until it knows that it has forgotten nothing that matters. It learns so in one of three ways:
//
//   - It has caught up. The leader of the group said, in this process's lifetime, how long its log is,
//     and everything up to there has been applied here. Whoever leads was elected without the newcomer, by
//     nodes that remember, and so has every entry that the newcomer's old self helped to commit, all of
//     them within that length.
//   - Every other node of TIDEWIRE_CLUSTER_PEERS was met, in this process's lifetime, and had nothing either.
//     That is a cluster that begins, or one whose disks are all gone: nobody holds an entry that could be lost.
//     A node says of itself that it has nothing while its logs hold the first configuration alone and it is
//     in no term but the first; one that has voted is in a later one. So a first election waits for all nodes,
//     which is for as long as they take to start.
//   - Time is up: some nodes cannot be waited for for ever. If nobody with data was met, after Wait. If
//     somebody was, its word counts more than ours: the newcomer votes after twice that, and only after four
//     times stands itself, so that the log with the data wins if it can. Then a majority may have lost its
//     disks, or one its disk and another its life, which is more than two of three holding a record can make
//     good; an operator who wants to wait longer does not start the empty node.
//
// Nor may a newcomer begin a cluster where there is one: it may be a node that is to be added, or a member that
// has lost its disk, of a cluster whose members have changed since its list was written. So the first
// configuration, the list of TIDEWIRE_CLUSTER_PEERS, is written when it is known that nobody has one: every
// other node of the list was met, has nothing, and has the same list. Who has met data never writes it: it waits
// for the leader to bring it up to date, or to be added. Until a group has a configuration the node gives a vote
// in it only to somebody who has data, and asks for none.
//
// A node of the list that does not answer is waited for without end, and readiness says for whom. Rejected: to
// begin without it after a while. Two nodes that were started to be added, with a list that names a member, would
// begin a cluster when that member is away for a moment, and take it into theirs when it is back.
//
// A newcomer that is restarted half way must remain one although its log is not empty any more, so a file
// marks it until all its groups have caught up.
type newcomer struct {
	mark  string          // path of the file
	list  []bridge.NodeID // of TIDEWIRE_CLUSTER_PEERS, sorted, this node included
	self  bridge.NodeID
	wait  time.Duration
	begun time.Time

	mu      sync.Mutex
	blank   map[bridge.NodeID]bool   // nodes that had nothing when they were met
	differ  map[bridge.NodeID]string // those of them with another list, and that
	data    bool                     // a node that had something was met
	pending map[bridge.GroupID]bool  // have to catch up
	bare    map[bridge.GroupID]bool  // have no configuration at all
}

// errNewcomer: this node has not caught up since its disk was found empty.
var errNewcomer = errors.New("node was started without its data and has yet to catch up")

// openNewcomer looks for the mark of an earlier start in the folder.
func openNewcomer(dir string, groups int, self bridge.NodeID, list []bridge.NodeID, wait time.Duration) (*newcomer, error) {
	c := &newcomer{
		mark: filepath.Join(dir, "newcomer"), list: list, self: self, wait: wait, begun: time.Now(),
		blank: map[bridge.NodeID]bool{}, differ: map[bridge.NodeID]string{},
		pending: map[bridge.GroupID]bool{}, bare: map[bridge.GroupID]bool{},
	}
	switch _, err := os.Stat(c.mark); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("look for the mark of a newcomer: %w", err)
	default:
		for g := range bridge.GroupID(groups) {
			c.pending[g] = !c.alone()
		}
	}
	return c, nil
}

// alone says that the list names no other node: a cluster of one, which has nobody to ask.
func (c *newcomer) alone() bool { return len(c.list) < 2 }

// empty notes that a group has no state, on disk before it gets any.
func (c *newcomer) empty(g bridge.GroupID) error {
	if c.alone() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[g] = true
	f, err := os.OpenFile(c.mark, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), syncDir(filepath.Dir(c.mark)))
	}
	if err != nil {
		return fmt.Errorf("mark the node as a newcomer: %w", err)
	}
	return nil
}

// lacks notes whether a group has no configuration.
func (c *newcomer) lacks(g bridge.GroupID, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if yes {
		c.bare[g] = true
		return
	}
	delete(c.bare, g)
	c.release()
}

// met notes what another node said of itself. peers is its list, nil if it did not tell.
func (c *newcomer) met(id bridge.NodeID, blank bool, peers []bridge.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.differ, id)
	if !blank {
		c.data = c.data || !c.blank[id] // one that had nothing when we began has got it since then
		return
	}
	if list := joinIDs(peers); peers != nil && list != joinIDs(c.list) {
		c.differ[id] = list
	}
	c.blank[id] = true
	c.release()
}

// heard notes that there is a node with data.
func (c *newcomer) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = true
}

// release ends the waiting when nobody has anything. The mutex is held.
func (c *newcomer) release() {
	if len(c.pending) > 0 && len(c.bare) == 0 && c.allBlank() {
		clear(c.pending)
		_ = os.Remove(c.mark) // left behind it costs some waiting at the next start
	}
}

func (c *newcomer) allBlank() bool {
	for _, id := range c.list {
		if id != c.self && !c.blank[id] {
			return false
		}
	}
	return true
}

// mayBegin says whether the first configuration may be written where there is none.
func (c *newcomer) mayBegin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.bare) > 0 && !c.data && len(c.differ) == 0 && c.allBlank()
}

// obstacle says what keeps a node without a configuration from beginning a cluster: nodes with other lists, and
// those that were not met.
func (c *newcomer) obstacle() (differ map[bridge.NodeID]string, unmet []bridge.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.list {
		if id != c.self && !c.blank[id] {
			unmet = append(unmet, id)
		}
	}
	return maps.Clone(c.differ), unmet
}

// caughtUp notes that a group has what its leader had.
func (c *newcomer) caughtUp(g bridge.GroupID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pending[g] {
		return
	}
	delete(c.pending, g)
	if len(c.pending) == 0 {
		_ = os.Remove(c.mark)
	}
}

// waiting says whether a group has yet to catch up.
func (c *newcomer) waiting(g bridge.GroupID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[g]
}

// mayVote and mayLead say whether the node may vote in a group, and stand for election.
func (c *newcomer) mayVote(g bridge.GroupID) bool { return c.may(g, 2) }
func (c *newcomer) mayLead(g bridge.GroupID) bool { return c.may(g, 4) && !c.isBare(g) }

func (c *newcomer) isBare(g bridge.GroupID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bare[g]
}

func (c *newcomer) may(g bridge.GroupID, waits time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.data {
		waits = 1
		if c.bare[g] {
			return false // it is about to get its configuration, or will not be asked
		}
	}
	return !c.pending[g] || time.Since(c.begun) >= waits*c.wait
}

// blank says whether this node has nothing: no entry, no vote.
func (n *Node) blank() bool {
	for _, g := range n.groups {
		if g.raft.LastIndex() > 1 || g.raft.CurrentTerm() > 1 {
			return false
		}
	}
	return true
}

// catchUp looks which groups have what their leaders had at the last refresh of the views.
func (n *Node) catchUp() {
	for _, g := range n.groups {
		if !n.newcomer.waiting(g.id) {
			continue
		}
		leader, ok := g.leader()
		if leader == n.cfg.NodeID {
			if _, leads := g.leaderTerm(); leads {
				n.newcomer.caughtUp(g.id) // time was up
			}
			continue
		}
		v, known := n.views.get(leader)
		if !ok || !known || int(g.id) >= len(v.groups) {
			continue
		}
		if s := v.groups[g.id]; s.Leader == leader && g.raft.AppliedIndex() >= s.Last {
			n.newcomer.caughtUp(g.id)
		}
	}
}
