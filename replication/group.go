package replication

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

const (
	// transportTimeout bounds a Raft call. A follower may be busy with its disk meanwhile.
	transportTimeout = 10 * time.Second
	// transportPool is how many idle connections to a peer a group keeps: entries, heartbeats, nudges.
	transportPool = 3
	// trailingBytes bounds what TrailingLogs keeps, estimated from the entries of late.
	trailingBytes = 32 << 20
)

// group is one Raft group of this node.
type group struct {
	id        bridge.GroupID
	node      *Node
	stores    Stores
	log       *logStore
	transport *guard
	raft      *raft.Raft
	ready     chan struct{} // closed when raft is set: the library applies entries before NewRaft returns
	roster    atomic.Pointer[roster]
	changing  sync.Mutex // held while a step of a change of members is taken (change.go)
	fsm       *fsm
	load      load
	nudges    *nudger
	lead      *lead
	proposals *proposals
	barriers  *barriers
}

// openGroup opens the stores and starts the library. What has been opened is closed again on an error.
func openGroup(n *Node, id bridge.GroupID) (_ *group, err error) {
	g := &group{id: id, node: n, ready: make(chan struct{})}
	g.roster.Store(&roster{})
	hlog := newRaftLog(n.cfg.Log, id)
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	dir, err := n.dir.group(id)
	if err != nil {
		return nil, err
	}
	if n.cfg.OpenStores != nil {
		g.stores, err = n.cfg.OpenStores(id, dir)
	} else {
		g.stores, err = openDisk(dir, hlog)
	}
	if err != nil {
		return nil, fmt.Errorf("group %d: %w", id, err)
	}
	undo = append(undo, func() { _ = g.stores.Close() })
	failed := func(err error) {
		n.fail(fmt.Errorf("group %d: write to %s failed: %w: make room or replace the disk; if it was replaced, %s", id, dir, err, remedy(n.cfg.Dir)))
	}
	g.log = newLogStore(g.stores.Log, n.cfg.WriteTimeout, failed)
	g.log.unreadable = func(index uint64, err error) {
		n.fail(fmt.Errorf("%w: group %d: entry %d in %s: %w; %s", ErrCorrupt, id, index, dir, err, remedy(n.cfg.Dir)))
	}
	g.log.gaveUp = func() {
		if g.raft.State() != raft.Leader {
			return
		}
		select {
		case n.abdicated <- id:
		default: // it is in the queue already
		}
	}
	undo = append(undo, g.log.close)

	st := newStream(uint16(id), n.self, n.dialer, n.members.route)
	n.mux.raft[id] = st
	g.transport = newGuard(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: hlog, Stream: st, MaxPool: transportPool, Timeout: transportTimeout,
		// Pipelining can wedge a follower after a stall of its disk until the leader restarts
		// (hashicorp/raft#612), and hardly helps on a near network.
		MaxRPCsInFlight:       1,
		ServerAddressProvider: addresses{g},
	}), n, id)
	undo = append(undo, func() { _ = g.transport.Close() })

	g.nudges = newNudger(g)
	g.fsm = &fsm{group: id, machine: n.cfg.Machine, load: &g.load, committed: func(index, term uint64) {
		<-g.ready
		if !n.cfg.NoNudge {
			g.nudges.committed(index, term)
		}
	}, members: n.members.changed}
	g.lead = newLead(g)
	g.proposals = newProposals(g)
	g.barriers = newBarriers(g)

	stable := stableStore{g.stores.Stable, failed}
	conf := g.raftConfig(hlog)
	if err := g.bootstrap(conf, stable); err != nil {
		return nil, fmt.Errorf("group %d: %w", id, err)
	}
	r, err := raft.NewRaft(conf, g.fsm, g.log, stable, g.stores.Snapshots, g.transport)
	if err != nil {
		return nil, fmt.Errorf("%w: group %d in %s: %w; %s", ErrCorrupt, id, dir, err, remedy(n.cfg.Dir))
	}
	g.raft = r
	n.newcomer.lacks(id, len(r.GetConfiguration().Configuration().Servers) == 0)
	g.log.live.Store(true)
	close(g.ready)
	g.lead.start()
	g.proposals.start()
	return g, nil
}

func (g *group) raftConfig(log *raftLog) *raft.Config {
	cfg := g.node.cfg
	c := raft.DefaultConfig() // pre-vote is on in it: a node that was cut off does not disturb the others
	c.LocalID = raft.ServerID(cfg.NodeID)
	c.HeartbeatTimeout = cfg.HeartbeatTimeout
	c.ElectionTimeout = cfg.HeartbeatTimeout
	c.LeaderLeaseTimeout = cfg.LeaderLease
	c.CommitTimeout = cfg.CommitTimeout
	c.MaxAppendEntries = maxAppendEntries
	// Proposals that come while the leader waits for its disk queue up, and the next fsync takes them
	// all. Without it only those that happen to block in Propose at that moment are taken. The price, that
	// Apply's timeout does not hold, is not one to us: a future ends with the leadership at the latest.
	c.BatchApplyCh = true
	c.SnapshotThreshold = cfg.SnapshotEntries
	c.SnapshotInterval = 30 * time.Second
	c.TrailingLogs = cfg.TrailingLogs
	c.NoLegacyTelemetry = true
	c.Logger = log
	c.NotifyCh = g.lead.notify
	c.ShutdownOnRemove = false
	return c
}

// bootstrap writes the first configuration of a cluster of one if there is no state. Other nodes write theirs when
// they know that they begin a cluster (newcomer.go): each does, with the same content. The entry is the same
// everywhere, index 1 of term 1, so it does not matter who comes first.
func (g *group) bootstrap(conf *raft.Config, stable raft.StableStore) error {
	has, err := raft.HasExistingState(g.log, stable, g.stores.Snapshots)
	if err != nil {
		return fmt.Errorf("%w: %w; %s", ErrCorrupt, err, remedy(g.node.cfg.Dir))
	}
	if has {
		return nil
	}
	if err := g.node.newcomer.empty(g.id); err != nil {
		return err
	}
	if !g.node.newcomer.alone() {
		return nil
	}
	if err := raft.BootstrapCluster(conf, g.log, stable, g.stores.Snapshots, g.transport, firstConfiguration(g.node.members.list)); err != nil {
		return fmt.Errorf("write first configuration: %w", err)
	}
	return nil
}

// leaderTerm returns the term that this node leads now. It never returns a term that this node has not
// been elected in: the library changes its state to Leader after its term and back before it, and terms
// only grow, so a Leader between two equal terms is the leader of that term.
func (g *group) leaderTerm() (uint64, bool) {
	t := g.raft.CurrentTerm()
	if g.raft.State() != raft.Leader || g.raft.CurrentTerm() != t {
		return 0, false
	}
	return t, true
}

func (g *group) leader() (bridge.NodeID, bool) {
	_, id := g.raft.LeaderWithID()
	return bridge.NodeID(id), id != ""
}

// campaign has this node stand for election now. A candidate is called back first: it waits for votes that
// may never come (of the dead; of those that voted for another; in a pre-vote, of those who have not noticed
// yet) for one to two election timeouts, and would not hear the call before. What calls it back is what
// a candidate of a higher term with nothing in its log would send: it ends the election and gets no vote.
func (g *group) campaign(timeout time.Duration) bool {
	if !g.node.newcomer.mayLead(g.id) {
		return false
	}
	if g.raft.State() == raft.Candidate {
		self := g.node.cfg.NodeID
		g.transport.tell(&raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{
				ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self),
				Addr: g.transport.EncodePeer(raft.ServerID(self), g.transport.LocalAddr()),
			},
			Term: g.raft.CurrentTerm() + 1, LeadershipTransfer: true,
		}, timeout)
	}
	// Without a pre-vote, and with the right to be voted for by nodes that believe their leader alive: the
	// library's TimeoutNow, sent to ourselves.
	return g.transport.tell(&raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, timeout)
}

// transferTo hands the leadership to a peer. It returns when it has, or has failed to.
func (g *group) transferTo(p Peer) error {
	err := g.raft.LeadershipTransferToServer(raft.ServerID(p.ID), raft.ServerAddress(p.Addr)).Error()
	if err != nil {
		return fmt.Errorf("hand group %d to %s: %w", g.id, p.ID, err)
	}
	return nil
}

// housekeep cuts the log when enough bytes have been applied. The count of entries is the library's to
// watch. How many entries stay is set by their size, so that it is not the disk that bounds them.
func (g *group) housekeep() error {
	n := g.fsm.bytes.Load()
	if n < g.node.cfg.SnapshotBytes {
		return nil
	}
	first, err1 := g.log.FirstIndex()
	last, err2 := g.log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	trailing := g.node.cfg.TrailingLogs
	if entries := last - first + 1; entries > 0 {
		trailing = max(min(trailing, uint64(trailingBytes/max(n/int64(entries), 1))), maxAppendEntries)
	}
	rc := g.raft.ReloadableConfig()
	rc.TrailingLogs = trailing
	if err := g.raft.ReloadConfig(rc); err != nil {
		return err
	}
	if err := g.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
		return fmt.Errorf("snapshot group %d: %w", g.id, err)
	}
	return nil
}

// close stops the group. The node has closed the connections, so nothing waits for a peer.
func (g *group) close() error {
	g.barriers.stop()
	err := g.raft.Shutdown().Error()
	g.proposals.stop()
	g.barriers.close()
	g.lead.close()
	g.proposals.close()
	g.nudges.close()
	err = errors.Join(err, g.transport.Close())
	g.log.close()
	return errors.Join(err, g.stores.Close())
}

// closeAll closes groups side by side.
func closeAll(gs []*group) error {
	errs := make([]error, len(gs))
	var wg sync.WaitGroup
	for i, g := range gs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = g.close()
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
