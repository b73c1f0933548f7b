package replication

import (
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// waiting is for whom a group waits.
type waiting struct {
	id     bridge.NodeID // of whom it is the turn; empty: nobody's
	begun  time.Time     // when it became so
	seen   time.Time     // of when what was known then is
	since  time.Time     // of the last sign of an election
	term   bridge.Term   // the highest that any node was in then
	held   bool          // it lets an election end that was going on when its turn came
	passed map[bridge.NodeID]bool
	bare   time.Time // when a cluster was first seen to begin; zero: it was not
}

// sight is what can be seen of the node that should stand.
type sight struct {
	id       bridge.NodeID
	term     bridge.Term // the highest that any node is in
	early    bool        // it may find it too early to stand: see succession.beginning
	electing bool        // see succession
	at       time.Time   // when this was so: the answers of the others come later
	contact  time.Time   // when it last heard from a leader, or gave its vote
	idle     bool        // it is this node, and not at it
}

// sight returns what the views tell of a node.
func (s succession) sight(id bridge.NodeID) sight {
	at, _ := s.standing(id)
	return sight{id: id, at: s.views[id].at, term: s.term(), early: s.beginning(), electing: s.electing(id), contact: s.views[id].at.Add(-at.quiet)}
}

// patience is how long a node may take from its last sign on.
func (s sight) patience() time.Duration {
	if s.early { // that it gives the others, it is given in turn, or both would stand at the end of it
		return 2 * takeoverPatience
	}
	return takeoverPatience
}

// early says whether it is too early to stand in a cluster that is seen to begin. The nodes that have not begun yet
// are waited for no longer than one that is to stand: a node may be there and have a reason not to begin.
func (w *waiting) early(now time.Time) bool {
	if w.bare.IsZero() {
		w.bare = now
	}
	return now.Sub(w.bare) <= takeoverPatience
}

// turn notes that a node should stand, and says whether it should do so now.
func (w *waiting) turn(now time.Time, s sight) bool {
	switch {
	case s.id != w.id: // its time begins
		w.id, w.begun, w.seen, w.since, w.term, w.held = s.id, now, s.at, now, s.term, s.electing
		return !w.held
	case now.Sub(w.begun) > takeoverTurn: // whatever it is at
		w.pass()
	case s.term > w.term: // an election goes on
		w.since, w.term = now, s.term
	case w.held && now.Sub(w.since) > takeoverPatience: // nobody has won it
		w.held, w.begun, w.seen, w.since = false, now, s.at, now
		return true
	case w.held:
	case s.idle && !s.contact.After(w.seen) && now.Sub(w.since) > maxTakeoverPause:
		// Its term was behind somebody's, which it has learnt by now. Had it given its vote to another
		// meanwhile, to stand again would undo that one's election.
		w.since = now
		return true
	case now.Sub(w.since) > s.patience():
		w.pass()
	}
	return false
}

// pass notes that a node did not win in good time.
func (w *waiting) pass() {
	w.passed[w.id] = true
	w.id = ""
}
