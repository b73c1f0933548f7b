package replication

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peertls"
)

// Limits that both ends of the cluster port keep. They are constants, not settings: the nodes of one
// cluster must agree on them.
const (
	// MaxEntry is the largest entry that Propose takes, in bytes. A batch of records from Kafka is
	// about a mebibyte; one record may be larger than its batch's target.
	MaxEntry = 16 << 20
	// maxAppendEntries is how many entries go into one fsync and one AppendEntries message.
	maxAppendEntries = 64
	// maxRaftMessage is what a peer may send before it gets an answer: a full AppendEntries of entries
	// at their usual size, or the largest entry; also the largest snapshot.
	maxRaftMessage = 128 << 20
	// maxGroups bounds TIDEWIRE_GROUPS: each group costs some megabytes and a steady share of a core.
	maxGroups = 1024
	// maxNodeID is the longest node id, in bytes.
	maxNodeID = 128
	// maxCall is the largest message of a node-to-node call: a record at Kafka's usual limits, twice.
	maxCall = 32 << 20
)

// Peer is one member of the cluster.
type Peer struct {
	ID   bridge.NodeID
	Addr string // host:port where the others reach it
}

// Config of a Node. The zero value of a duration or a size means its default.
type Config struct {
	// NodeID is this node's name; it must be one of Peers when there are any.
	NodeID bridge.NodeID
	// Listen is the host:port to listen on. Not used when Listener is set.
	Listen string
	// Listener, if set, is used in place of Listen; the Node closes it.
	Listener net.Listener
	// Advertise is where the other nodes reach this one. Needed only when Peers is empty and Listen
	// has no host; default the listener's address.
	Advertise string
	// Security has both ends of each connection to another node prove themselves. Nil: nobody proves anything, and
	// the node listens on loopback only, unless Insecure is set.
	Security peertls.Security
	// Insecure lets connections without proof in, beside those with proof if Security is set.
	Insecure bool
	// Version of the build, for people.
	Version string
	// Peers are the nodes that a cluster begins with, this one included, the same on all of them, and where a
	// node looks for the others when it starts. Empty: a cluster of one. Members that come or go later do so
	// by AddMember and RemoveMember.
	Peers []Peer
	// Groups is the number of Raft groups, the same on all nodes and for the life of the cluster.
	Groups int
	// Dir is where the logs and snapshots are kept. It belongs to this node alone.
	Dir string
	// Log is the logger that components derive theirs from.
	Log zerolog.Logger
	// Machine is driven with what the groups commit. Calls begin inside Open.
	Machine bridge.StateMachine
	// Service answers the calls of other nodes. They may arrive before Open has returned.
	Service PeerService

	// Fit says whether this node could do the work of the group's leader now: whether it can reach
	// what that needs. It is asked often, by any goroutine, and returns at once. A leader for which it
	// has been false for a while hands its group to a node for which it has been true for a while.
	// Nil: every node is as good as another.
	Fit func(bridge.GroupID) bool

	// HasRevocations says whether the machine holds revocations now: then nodes whose builds do not know of
	// them are left out. It is asked by any goroutine and returns at once. Nil: it never does.
	HasRevocations func() bool

	// HeartbeatTimeout is how long a follower waits for its leader before it asks for an election
	// (and a candidate for votes). Deaths that close a connection are noticed at once whatever it is;
	// it covers silent ones. Default 1.5 s: a silent death is noticed, by Silence and by seven tenths of
	// this, before anybody's own timer runs out, so that one node campaigns and not all.
	HeartbeatTimeout time.Duration
	// LeaderLease is how long a leader goes on without a majority. At most HeartbeatTimeout. Default two thirds of
	// it: a machine that is busy for less must not cost an election, but an old leader gives up before the
	// others depose it (quietBeforeDeposed), so that a minority takes no publish while a majority has a leader.
	LeaderLease time.Duration
	// CommitTimeout is when an idle leader repeats its commit index, should a nudge have been lost.
	// Default 50 ms.
	CommitTimeout time.Duration
	// WriteTimeout is how long a write to the log may take before it counts as failed, which costs
	// the leadership. Default 3 s: all that time the leader's subscribers hear nothing, and to move a
	// leadership without need costs them a tenth of a second; but a disk that is in order may take a second
	// or two now and then (a journal that is written back, a volume at its provider's limit).
	WriteTimeout time.Duration
	// PingEvery is the period of the liveness bytes, and Silence how long a peer may leave them
	// unanswered. Silence ends PeerAlive. Default 200 ms and 800 ms.
	PingEvery, Silence time.Duration
	// NewcomerWait is how long a node that lost its data may keep its vote back (newcomer.go). Default 10 s.
	NewcomerWait time.Duration
	// Settle is how long a node must have been there before it is given leaderships. Default 2 s.
	Settle time.Duration
	// SnapshotBytes is how much may be applied to a group before its log is cut. Default 64 MiB.
	SnapshotBytes int64
	// SnapshotEntries is the same in entries. Default 8192.
	SnapshotEntries uint64
	// TrailingLogs is how many entries stay in the log after it is cut, for followers that lag a
	// little; fewer when they are large (trailingBytes). Default 1024.
	TrailingLogs uint64
	// NoNudge turns nudges off: followers learn of a commit by CommitTimeout. For the benchmark.
	NoNudge bool
	// OpenStores opens the stores of a group. Default: raft-wal and snapshot files in Dir.
	OpenStores func(group bridge.GroupID, dir string) (Stores, error)
}

// Defaults fills in what is not set.
func (c *Config) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.HeartbeatTimeout, 1500*time.Millisecond)
	def(&c.LeaderLease, c.HeartbeatTimeout*2/3)
	def(&c.CommitTimeout, 50*time.Millisecond)
	def(&c.WriteTimeout, 3*time.Second)
	def(&c.PingEvery, 200*time.Millisecond)
	def(&c.Silence, 800*time.Millisecond)
	def(&c.NewcomerWait, 10*time.Second)
	def(&c.Settle, 2*time.Second)
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 64 << 20
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 8192
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 1024
	}
}

// Validate says what is wrong with the configuration; all that is wrong, in one error.
func (c Config) Validate() error {
	c.defaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeID == "" {
		bad("the node id is empty")
	}
	if len(c.NodeID) > maxNodeID {
		bad("the node id is longer than %d bytes", maxNodeID)
	}
	if c.Listen == "" && c.Listener == nil {
		bad("no address to listen on for the cluster")
	}
	if c.protection().plain && !c.Insecure && (c.Listener == nil && c.Listen != "" && !OnLoopback(c.Listen) || c.Listener != nil && !loopback(c.Listener.Addr())) {
		errs = append(errs, errOpen)
	}
	if c.Groups < 1 || c.Groups > maxGroups {
		bad("%d groups: must be between 1 and %d", c.Groups, maxGroups)
	}
	if c.Dir == "" {
		bad("no folder for the Raft logs")
	}
	if c.Machine == nil || c.Service == nil {
		bad("a state machine and a peer service are needed")
	}
	ids, addrs := map[bridge.NodeID]bool{}, map[string]bridge.NodeID{}
	for _, p := range c.Peers {
		if p.ID == "" || len(p.ID) > maxNodeID {
			bad("peer %q: a node id has 1 to %d bytes", p.ID, maxNodeID)
		}
		if ids[p.ID] {
			bad("peer %q is listed twice", p.ID)
		}
		ids[p.ID] = true
		if _, port, err := net.SplitHostPort(p.Addr); err != nil || port == "" {
			bad("peer %q: address %q is not host:port", p.ID, p.Addr)
		} else if other, ok := addrs[p.Addr]; ok {
			bad("peers %q and %q have the same address %s", other, p.ID, p.Addr)
		}
		addrs[p.Addr] = p.ID
	}
	if len(c.Peers) > 0 && !ids[c.NodeID] {
		bad("node id %q is not among the peers %s: this node must be in the list", c.NodeID, peerIDs(c.Peers))
	}
	if c.LeaderLease > c.HeartbeatTimeout {
		bad("leader lease %v is longer than the heartbeat timeout %v: an old leader would outlive the election of its successor", c.LeaderLease, c.HeartbeatTimeout)
	}
	if c.HeartbeatTimeout < 5*time.Millisecond || c.LeaderLease < 5*time.Millisecond || c.CommitTimeout < time.Millisecond {
		bad("Raft's timeouts are too short")
	}
	if c.Silence < 2*c.PingEvery {
		bad("silence %v is shorter than two pings of %v: a single late one would be a death", c.Silence, c.PingEvery)
	}
	return errors.Join(errs...)
}

// members returns the peers in the order of their ids, which every node sees alike.
func (c Config) members(self string) []Peer {
	if len(c.Peers) == 0 {
		return []Peer{{ID: c.NodeID, Addr: self}}
	}
	ps := slices.Clone(c.Peers)
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return ps
}

func peerIDs(ps []Peer) string {
	ids := make([]string, len(ps))
	for i, p := range ps {
		ids[i] = string(p.ID)
	}
	slices.Sort(ids)
	return strings.Join(ids, ", ")
}
