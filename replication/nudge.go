package replication

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A follower learns what is committed from the next message that the leader sends it: under load that
// is at once, but after the last entry of a burst the library waits for CommitTimeout (50 to 100 ms). A
// nudge tells it at once: an AppendEntries without entries, sent by us, that says "entry c of term t is
// committed". It writes nothing to any log.
//
// Why it cannot do harm, by the library's appendEntries (raft.go) and the paper's rules:
//
//   - It carries (Term: T, PrevLogEntry: c, PrevLogTerm: t, LeaderCommitIndex: c). We send it only when
//     c was committed and this node had been elected leader of T (leaderTerm). Both stay true for ever, so
//     it does no harm late, twice or out of order, just as any AppendEntries of ours.
//   - A follower of a higher term ignores it. One of a lower or equal term takes us for leader of T,
//     which we are or were; if we no longer are, another node's higher term corrects it like a delayed
//     heartbeat's.
//   - The follower looks for entry c of term t. If it has that, its log up to c is ours (log matching),
//     and all of it is committed: it applies it. If not, it answers no and changes nothing.
//   - LeaderCommitIndex never exceeds PrevLogEntry, so the follower never commits an entry that this
//     message has not verified.
//   - It has no effect on the leader: the answer is dropped, and match indexes and leases are the
//     library's own business.
//
// A no most often means that the nudge overtook the entry, whose message was written before the commit and
// so does not tell of it. Therefore a nudge is repeated a few times, ever more slowly, until it is taken or
// there is a newer one. (The slow follower of three is the usual case: the commit did not wait for it.)
//
// All-zero indexes would make it a heartbeat, which takes another path; c is never zero.
type nudger struct {
	g     *group
	peers atomic.Pointer[[]*nudge] // replaced by follow
	wg    sync.WaitGroup
}

// nudge is the way to one follower. A newer commit replaces one that has not been sent.
type nudge struct {
	peer Peer
	wake chan struct{} // one slot
	next atomic.Pointer[commit]
	done chan struct{} // closed when the node is not of the group any more
}

type commit struct{ term, index, entryTerm uint64 }

func newNudger(g *group) *nudger {
	n := &nudger{g: g}
	n.peers.Store(&[]*nudge{})
	return n
}

// follow says whom the group consists of. One goroutine calls it, and not after close.
func (n *nudger) follow(members []Peer) {
	old := *n.peers.Load()
	var now []*nudge
	for _, p := range members {
		if p.ID == n.g.node.cfg.NodeID {
			continue
		}
		i := slices.IndexFunc(old, func(o *nudge) bool { return o.peer == p })
		if i >= 0 {
			now = append(now, old[i])
			continue
		}
		o := &nudge{peer: p, wake: make(chan struct{}, 1), done: make(chan struct{})}
		now = append(now, o)
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			n.run(o)
		}()
	}
	n.peers.Store(&now)
	for _, o := range old {
		if !slices.Contains(now, o) {
			close(o.done)
		}
	}
}

// close ends the goroutines. The connections must be closed before: a call may wait for an answer.
func (n *nudger) close() {
	for _, p := range *n.peers.Load() {
		close(p.done)
	}
	n.wg.Wait()
}

// committed is called when entry index, written in entryTerm, has been committed.
func (n *nudger) committed(index, entryTerm uint64) {
	peers := *n.peers.Load()
	if len(peers) == 0 {
		return
	}
	if n.g.raft.LastIndex() > index {
		return // more is on its way, and a nudge will follow that
	}
	term, ok := n.g.leaderTerm()
	if !ok {
		return
	}
	c := &commit{term: term, index: index, entryTerm: entryTerm}
	for _, p := range peers {
		p.next.Store(c)
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

func (n *nudger) run(p *nudge) {
	self := n.g.transport.EncodePeer(raft.ServerID(n.g.node.cfg.NodeID), n.g.transport.LocalAddr())
	for {
		select {
		case <-p.wake:
		case <-p.done:
			return
		}
		c := p.next.Swap(nil)
		if c == nil || !n.g.node.PeerAlive(p.peer.ID) {
			continue
		}
		req := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{
				ProtocolVersion: raft.ProtocolVersionMax,
				ID:              []byte(n.g.node.cfg.NodeID),
				Addr:            self,
			},
			Term:         c.term,
			PrevLogEntry: c.index, PrevLogTerm: c.entryTerm, LeaderCommitIndex: c.index,
		}
		n.send(p, req)
	}
}

// nudgeRetry is how long after a no the first repeat goes out; the next wait twice as long each.
const (
	nudgeRetry   = 500 * time.Microsecond
	nudgeRetries = 7
)

// send sends one nudge until it is taken, overtaken by a newer one, or pointless. What is lost after all
// CommitTimeout makes up for.
func (n *nudger) send(p *nudge, req *raft.AppendEntriesRequest) {
	wait := nudgeRetry
	for range nudgeRetries {
		var resp raft.AppendEntriesResponse
		err := n.g.transport.AppendEntries(raft.ServerID(p.peer.ID), raft.ServerAddress(p.peer.Addr), req, &resp)
		if err != nil || resp.Success || resp.Term > req.Term {
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.done:
			t.Stop()
			return
		}
		if p.next.Load() != nil {
			return
		}
		wait *= 2
	}
}
