package replication

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tidewire/tidewire/bridge"
)

// What nodes say to each other and what they write into the logs that they share has versions, and a node
// says which it speaks when it is asked whether it lives (liveness.go):
//
//	wire   what goes over the cluster port: preface, liveness, gRPC, Raft's messages.
//	       1: the builds before there was this list; their hello does not say anything of it.
//	       2: connections may name whom they are for (preface.go), the calls of peerpb.Members.
//	       3: revocations: the calls of peerpb.Revocations, their entries and their snapshots.
//	entry, snapshot   what goes into Raft's log and its snapshots (bridge/entry.go, snapshot.go).
//
// Two nodes go together when each understands what the other sends. A node that meets one with which it does
// not go together says so, and then treats it as one that is not there: it does not call it, does not count it
// among the living, and sends it no message of Raft.
//
// A build that does not know of revocations leaves an entry with some out, and cannot read a snapshot with some. So
// none are made while such a node is there (revoke.go), and a node that has some goes together with no such build: it
// says revocationsWire as its oldest. When they have all expired it does again.
const (
	wireVersion = 3
	// oldestWire is the oldest that this build goes together with.
	oldestWire = 1
	// addressedWire is the first that knows addressed connections.
	addressedWire = 2
	// revocationsWire is the first that knows revocations.
	revocationsWire = 3
	// maxHello bounds what a node says of itself, in bytes of JSON.
	maxHello = 16 << 10
)

// greeting is what a node says of itself, as JSON, when a liveness connection begins. A reader ignores what it
// does not know; what is missing is zero.
type greeting struct {
	Version    string `json:"version"` // of the build, for people
	Wire       int    `json:"wire"`
	OldestWire int    `json:"oldest_wire"`
	Entry      int    `json:"entry"`    // the format that it writes, and the newest it reads
	Snapshot   int    `json:"snapshot"` // likewise
	Groups     int    `json:"groups"`
	// Configured is how many groups have a configuration on it: none on a node that waits to be added.
	Configured int `json:"configured"`
	// Peers are the names of its TIDEWIRE_CLUSTER_PEERS, sorted; what a cluster begins with must be the same
	// on all its nodes.
	Peers []bridge.NodeID `json:"peers"`
}

// oldGreeting is that of a build which says nothing: it speaks the first version of everything.
func oldGreeting() greeting {
	return greeting{Version: "a build before versions were told", Wire: 1, OldestWire: 1, Entry: 1, Snapshot: 1}
}

// newGreeting is what this node's configuration makes of it, now.
func newGreeting(cfg Config) greeting {
	g := greeting{
		Version: cfg.Version, Wire: wireVersion, OldestWire: oldestWire,
		Entry: bridge.EntryFormat, Snapshot: bridge.SnapshotFormat, Groups: cfg.Groups,
	}
	for _, p := range cfg.Peers {
		g.Peers = append(g.Peers, p.ID)
	}
	slices.Sort(g.Peers)
	if cfg.HasRevocations != nil && cfg.HasRevocations() {
		g.OldestWire = max(g.OldestWire, revocationsWire)
	}
	return g
}

// greeting is what this node says of itself now.
func (n *Node) greeting() greeting {
	g := newGreeting(n.cfg)
	for _, group := range n.groups {
		if len(group.raft.GetConfiguration().Configuration().Servers) > 0 {
			g.Configured++
		}
	}
	return g
}

// encode returns it in at most maxHello bytes.
func (g greeting) encode() []byte {
	b, err := json.Marshal(g)
	if err != nil || len(b) > maxHello {
		g.Peers = nil // some thousand nodes: nobody compares them
		b, _ = json.Marshal(g)
	}
	return b
}

// ErrIncompatible: another node's build, or its TIDEWIRE_GROUPS, does not go together with this node's.
var ErrIncompatible = errors.New("nodes do not go together")

// goesWith returns why two nodes do not go together, nil if they do. An old greeting does not tell the groups.
func (g greeting) goesWith(other greeting) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: this node runs %s, the other %s", ErrIncompatible, fmt.Sprintf(format, args...), g.Version, other.Version)
	}
	switch {
	case other.Wire < g.OldestWire || g.Wire < other.OldestWire:
		return bad("wire version %d (down to %d) here, %d (down to %d) there", g.Wire, g.OldestWire, other.Wire, other.OldestWire)
	case g.Entry != other.Entry:
		return bad("log entries of format %d here, %d there", g.Entry, other.Entry)
	case g.Snapshot != other.Snapshot:
		return bad("snapshots of format %d here, %d there", g.Snapshot, other.Snapshot)
	case other.Groups != 0 && other.Groups != g.Groups:
		return bad("TIDEWIRE_GROUPS is %d here, %d there: it must be the same on all nodes, for the life of a cluster", g.Groups, other.Groups)
	}
	return nil
}

// Formats are the versions of what this build says and writes.
func Formats() bridge.FormatStatus {
	return bridge.FormatStatus{Wire: wireVersion, OldestWire: oldestWire, Entry: bridge.EntryFormat, Snapshot: bridge.SnapshotFormat}
}
