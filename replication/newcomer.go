package replication

import (
	"errors"
	"fmt"
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
//   - Every other node was met, in this process's lifetime, and had nothing either. That is a cluster that
//     begins, or one whose disks are all gone: nobody holds an entry that could be lost. A node says of
//     itself that it has nothing while its logs hold the first configuration alone and it is in no term
//     but the first; one that has voted is in a later one. So a first election waits for all nodes, which is
//     for as long as they take to start.
//   - Time is up: some nodes cannot be waited for for ever. If nobody with data was met, after Wait. If
//     somebody was, its word counts more than ours: the newcomer votes after twice that, and only after four
//     times stands itself, so that the log with the data wins if it can. Then a majority may have lost its
//     disks, or one its disk and another its life, which is more than two of three holding a record can make
//     good; an operator who wants to wait longer does not start the empty node.
//
// A newcomer that is restarted half way must remain one although its log is not empty any more, so a file
// marks it until all its groups have caught up.
type newcomer struct {
	mark   string // path of the file
	others int
	wait   time.Duration
	begun  time.Time

	mu      sync.Mutex
	blank   map[bridge.NodeID]bool // nodes that had nothing when they were met
	data    bool                   // a node that had something was met
	pending map[bridge.GroupID]bool
}

// errNewcomer: this node has not caught up since its disk was found empty.
var errNewcomer = errors.New("node was started without its data and has yet to catch up")

// openNewcomer looks for the mark of an earlier start in the folder.
func openNewcomer(dir string, groups, others int, wait time.Duration) (*newcomer, error) {
	c := &newcomer{
		mark: filepath.Join(dir, "newcomer"), others: others, wait: wait, begun: time.Now(),
		blank: map[bridge.NodeID]bool{}, pending: map[bridge.GroupID]bool{},
	}
	switch _, err := os.Stat(c.mark); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("look for the mark of a newcomer: %w", err)
	default:
		for g := range bridge.GroupID(groups) {
			c.pending[g] = others > 0
		}
	}
	return c, nil
}

// empty notes that a group has no state, on disk before it gets any.
func (c *newcomer) empty(g bridge.GroupID) error {
	if c.others == 0 {
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

// met notes what another node said of itself.
func (c *newcomer) met(id bridge.NodeID, blank bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !blank {
		c.data = c.data || !c.blank[id] // one that had nothing when we began has got it since then
		return
	}
	c.blank[id] = true
	if len(c.blank) == c.others && len(c.pending) > 0 {
		clear(c.pending)
		_ = os.Remove(c.mark) // left behind it costs some waiting at the next start
	}
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
func (c *newcomer) mayLead(g bridge.GroupID) bool { return c.may(g, 4) }

func (c *newcomer) may(g bridge.GroupID, waits time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.data {
		waits = 1
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
