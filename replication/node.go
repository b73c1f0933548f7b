package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/tidewire/tidewire/bridge"
)

// counter counts events.
type counter struct{ n atomic.Int64 }

func (c *counter) add()       { c.n.Add(1) }
func (c *counter) get() int64 { return c.n.Load() }

// Node is this node's part in the cluster. Open, Run, Close once each; the other methods may be called by
// any goroutine between Open and Close.
type Node struct {
	// set once, by Open
	cfg         Config
	self        string // where others reach this node
	incarnation uint64
	log         zerolog.Logger
	dir         *dataDir
	newcomer    *newcomer
	protection  protection
	conns       *connSet
	dialer      dialer
	mux         *mux
	grpc        *grpc.Server
	groups      []*group // by id
	members     *membership
	peers       *peerClients
	takeover    *takeover
	cancel      context.CancelFunc // of the loops
	stopping    <-chan struct{}    // closed by cancel
	loops       sync.WaitGroup     // membership, watchers, takeover, placement, housekeeping
	serving     sync.WaitGroup     // gRPC

	views     views
	fitness   *fitnessLog
	placeNow  chan struct{} // wakes placement; one slot
	draining  atomic.Bool
	abdicated chan bridge.GroupID // led until the disk hung: slowdisk.go
	fatal     chan error          // holds the first error that ends the node
	closing   sync.Once
	closed    error
}

var (
	_ bridge.Replicator = (*Node)(nil)
	_ bridge.Peers      = (*Node)(nil)
)

// Open checks the configuration and the folder, restores the groups and joins the cluster. The errors
// ErrInUse, ErrMismatch and ErrCorrupt say what to do.
func Open(cfg Config) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("replication: %w", err)
	}
	cfg.defaults()
	n := &Node{
		cfg: cfg, log: cfg.Log.With().Str("component", "replication").Logger(), incarnation: rand.Uint64(),
		views: views{by: map[bridge.NodeID]view{}},
		fatal: make(chan error, 1), conns: newConnSet(), abdicated: make(chan bridge.GroupID, cfg.Groups), placeNow: make(chan struct{}, 1),
		fitness: newFitnessLog(cfg.Groups, cfg.Fit, time.Now()),
	}
	n.protection = cfg.protection()
	n.dialer = dialer{conns: n.conns, protection: n.protection}
	n.takeover = newTakeover(n)

	// In this order: the port first, so that a second start of a node fails before it looks at the
	// folder; the folder; then what lives in it.
	ln := cfg.Listener
	if ln == nil {
		if ln, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("listen for the cluster on %s: %w", cfg.Listen, err)
		}
	}
	n.mux = newMux(ln, cfg.NodeID, n.protection, n.conns, cfg.Groups, n.answerLiveness, n.log)
	defer func() {
		if err != nil {
			_ = n.shutdown()
		}
	}()
	n.self = cfg.Advertise
	if n.self == "" {
		n.self = ln.Addr().String()
	}
	list := cfg.members(n.self)
	ids := make([]bridge.NodeID, len(list))
	for i, p := range list {
		ids[i] = p.ID
		if p.ID == cfg.NodeID {
			n.self = p.Addr
		}
	}
	if n.dir, err = openDir(cfg.Dir, meta{Node: cfg.NodeID, Groups: cfg.Groups, Peers: ids}); err != nil {
		return nil, err
	}
	if n.newcomer, err = openNewcomer(cfg.Dir, cfg.Groups, cfg.NodeID, ids, cfg.NewcomerWait); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.stopping = ctx.Done()
	n.peers = newPeerClients(n.dialer, n.PeerAlive)
	n.members = newMembership(n, list)
	for id := range bridge.GroupID(cfg.Groups) {
		g, err := openGroup(n, id)
		if err != nil {
			return nil, err
		}
		n.groups = append(n.groups, g)
	}

	n.grpc = newGRPCServer(n)
	n.serving.Add(1)
	go func() {
		defer n.serving.Done()
		_ = n.grpc.Serve(n.mux.grpc)
	}()
	n.mux.start()
	n.members.look(ctx)
	loop := func(f func(context.Context)) {
		n.loops.Add(1)
		go func() {
			defer n.loops.Done()
			f(ctx)
		}()
	}
	loop(n.members.run)
	loop(n.takeover.run)
	loop(n.place)
	loop(n.watchFitness)
	loop(n.abdicate)
	loop(n.housekeep)
	loop(n.remind)
	n.log.Info().Str("node", string(cfg.NodeID)).Str("addr", n.self).Str("protection", n.Protection()).Int("groups", cfg.Groups).Str("nodes", peerIDs(n.members.all())).
		Int("wire", wireVersion).Int("oldest_wire", oldestWire).Int("entry_format", bridge.EntryFormat).Int("snapshot_format", bridge.SnapshotFormat).
		Msg("started")
	return n, nil
}

// Run returns nil when ctx ends, or the error that ends this node: its disk failed. The caller closes the
// node in both cases, and exits in the second.
func (n *Node) Run(ctx context.Context) error {
	select {
	case err := <-n.fatal:
		return err
	case <-ctx.Done():
		return nil
	}
}

// fail reports an error that ends the node. The first counts.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
		n.log.Error().Err(err).Msg("cannot go on")
	default:
	}
}

// housekeep cuts logs that have grown.
func (n *Node) housekeep(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		for _, g := range n.groups {
			if err := g.housekeep(); err != nil && ctx.Err() == nil {
				n.log.Error().Err(err).Msg("log was not cut")
			}
		}
	}
}

// Close hands over the leaderships while ctx allows, and leaves. All goroutines of the node have ended when
// it returns, StateMachine.Lead included. It may be called more than once.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() {
		// Leaderships first: the others go on at once, and Lead ends here.
		if err := n.Drain(ctx); err != nil {
			n.log.Warn().Err(err).Msg("leaves without handing over")
		}
		n.closed = n.shutdown()
	})
	return n.closed
}

// shutdown stops what has been started.
func (n *Node) shutdown() error {
	// The loops before the groups they look at.
	if n.cancel != nil {
		n.cancel()
		n.loops.Wait()
	}
	// Proposals end with an answer while the library still gives one.
	for _, g := range n.groups {
		g.lead.stop()
	}
	for _, g := range n.groups {
		g.proposals.refuse()
	}
	settled := time.Now().Add(settleTime)
	for _, g := range n.groups {
		g.proposals.settle(settled)
	}
	// Then the network, so that no goroutine of the library waits for a peer.
	if n.grpc != nil {
		n.grpc.Stop()
		n.serving.Wait()
	}
	n.mux.close()
	var errs []error
	if n.peers != nil {
		errs = append(errs, n.peers.close())
	}
	// Then Raft, and storage last.
	errs = append(errs, closeAll(n.groups))
	if n.dir != nil {
		n.dir.close()
	}
	return errors.Join(errs...)
}

// Propose appends entry to the group's log and returns at once, unless the leader's queue is full: then
// when there is room, at most WriteTimeout. entry must not be changed afterwards. The future fails with
// bridge.ErrNotCoordinator when this node does not lead the group or loses it meanwhile (also while it
// hands the leadership over: if that fails it leads on, so a caller whose Lead still runs may try again),
// and with ErrEntryTooLarge.
func (n *Node) Propose(g bridge.GroupID, entry []byte) bridge.Future {
	if int(g) >= len(n.groups) {
		return failed(fmt.Errorf("%w: there is no group %d", bridge.ErrNotCoordinator, g))
	}
	return n.groups[g].proposals.propose(entry)
}

// Leader is the group's leader as far as this node knows.
func (n *Node) Leader(g bridge.GroupID) (bridge.NodeID, bool) {
	if int(g) >= len(n.groups) {
		return "", false
	}
	return n.groups[g].leader()
}

// Groups is the state of all groups on this node, by id.
func (n *Node) Groups() []bridge.GroupStatus {
	out := make([]bridge.GroupStatus, len(n.groups))
	for i, g := range n.groups {
		id, _ := g.leader()
		out[i] = bridge.GroupStatus{Group: g.id, Leader: id, Term: bridge.Term(g.raft.CurrentTerm()), Applied: g.raft.AppliedIndex(), Last: g.raft.LastIndex()}
	}
	return out
}

// CaughtUp says whether every group has a known leader and this node has applied what that leader had
// applied a moment ago (at most viewAge). If not, the strings say which groups lack what, or why this node is
// not a member of the cluster and what to do.
func (n *Node) CaughtUp() (bool, []string) {
	if why := *n.members.why.Load(); why != "" {
		return false, []string{why}
	}
	var missing []string
	for _, g := range n.groups {
		if why := n.behind(g); why != "" {
			missing = append(missing, fmt.Sprintf("group %d: %s", g.id, why))
		}
	}
	return len(missing) == 0, missing
}

func (n *Node) behind(g *group) string {
	leader, ok := g.leader()
	if !ok {
		if r := g.roster.Load(); len(r.voters) > 0 && !r.has(n.cfg.NodeID) {
			return "not a member"
		}
		return "no leader"
	}
	if leader == n.cfg.NodeID {
		if g.raft.State() != raft.Leader {
			return "no leader"
		}
		return ""
	}
	v, ok := n.views.get(leader)
	if !ok || int(g.id) >= len(v.groups) {
		return fmt.Sprintf("leader %s is not heard from", leader)
	}
	// The view may be from before a change of leader. What the node had applied then was committed all
	// the same, so it counts as the moment ago: readiness does not flap when leaderships move.
	s := v.groups[g.id]
	if own := g.fsm.applied.Load(); own < s.Applied {
		return fmt.Sprintf("%d entries behind %s", s.Applied-own, leader)
	}
	return ""
}

// UpToDate says whether this node's machine has all that was committed in a group when its leader was asked last, at
// most viewAge ago and not before this node began; but for what it is taking in at this moment. It asks more than
// CaughtUp, which goes by what the leader had applied: when all nodes start, a leader has applied nothing yet of what it
// has in its log. False also where no leader is known.
func (n *Node) UpToDate(id bridge.GroupID) bool {
	g := n.groups[id]
	leader, ok := g.leader()
	if !ok {
		return false
	}
	if leader == n.cfg.NodeID {
		return g.lead.running.Load() // which follows a barrier
	}
	v, ok := n.views.get(leader)
	if !ok || int(id) >= len(v.groups) {
		return false
	}
	s := v.groups[id]
	return s.Leader == leader && g.raft.AppliedIndex() >= s.Last
}

// Addr is where the node listens.
func (n *Node) Addr() net.Addr { return n.mux.ln.Addr() }

// Strangers is how many connections were refused because they were not of a node.
func (n *Node) Strangers() int64 { return n.mux.strangers.Load() }

// LeaderChanges is how often this node has become leader of a group.
func (n *Node) LeaderChanges() int64 {
	var sum int64
	for _, g := range n.groups {
		sum += g.lead.changes.get()
	}
	return sum
}
